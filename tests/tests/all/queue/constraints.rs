//! Rows that must not be are refused by the database, whoever writes them.

use cronvec_tests::system::System;

/// What an INSERT of a job with these columns beside the needed ones comes to: the violated constraint's name.
async fn violated(system: &System, columns: &str, values: &str) -> Option<String> {
    let statement =
        format!("INSERT INTO cronvec.job_queue (project, project_id, {columns}) VALUES ('articles', 1, {values})");
    let outcome = system.sql.batch_execute(&statement).await;
    outcome.err().map(|error| {
        let server = error.as_db_error().expect("an answer of the server");
        server.constraint().unwrap_or_else(|| panic!("{server}")).to_owned()
    })
}

#[tokio::test]
async fn the_schema_refuses_rows_that_cannot_be() {
    let system = System::embedding_in_process().await;
    let lease = "gen_random_uuid(), now()";
    let impossible = [
        ("job_type, space_id", "'SLEEP', 1", "job_queue_type"),
        ("job_type, status", "'INGEST_DATA', 'ASLEEP'", "job_queue_status"),
        ("job_type, status", "'INGEST_DATA', 'PROCESSING'", "job_queue_lease"),
        (
            "job_type, lease_token, lease_expires_at",
            &format!("'INGEST_DATA', {lease}"),
            "job_queue_lease",
        ),
        (
            "job_type, status, lease_token",
            "'INGEST_DATA', 'PROCESSING', gen_random_uuid()",
            "job_queue_lease",
        ),
        (
            "job_type, status, completed_at, lease_token, lease_expires_at",
            &format!("'INGEST_DATA', 'COMPLETED', now(), {lease}"),
            "job_queue_lease",
        ),
        (
            "job_type, status, turn, lease_token, lease_expires_at",
            &format!("'INGEST_DATA', 'PROCESSING', 1, {lease}"),
            "job_queue_line",
        ),
        (
            "job_type, status, turn, completed_at",
            "'INGEST_DATA', 'FAILED', 1, now()",
            "job_queue_line",
        ),
        ("job_type, status", "'INGEST_DATA', 'COMPLETED'", "job_queue_end"),
        ("job_type, status", "'INGEST_DATA', 'FAILED'", "job_queue_end"),
        ("job_type, status", "'INGEST_DATA', 'CANCELLED'", "job_queue_end"),
        ("job_type, completed_at", "'INGEST_DATA', now()", "job_queue_end"),
        (
            "job_type, status, completed_at, payload",
            "'INGEST_DATA', 'COMPLETED', now(), '{}'",
            "job_queue_payload",
        ),
        ("job_type, space_id", "'INGEST_DATA', 1", "job_queue_space"),
        ("job_type, space_id", "'VECTORIZE', 0", "job_queue_space"),
        ("job_type, space_id, lane", "'VECTORIZE', 1, 1", "job_queue_lane"),
        ("job_type, space_id, lane", "'VECTORIZE', 1, -1", "job_queue_lane"),
        ("job_type, space_id, lanes", "'VECTORIZE', 1, 65", "job_queue_lane"),
        ("job_type, attempts", "'INGEST_DATA', -1", "job_queue_attempts"),
        ("job_type, max_attempts", "'INGEST_DATA', 0", "job_queue_attempts"),
        ("job_type, backoff_ms", "'INGEST_DATA', -1", "job_queue_attempts"),
        ("job_type, crashes", "'INGEST_DATA', -1", "job_queue_attempts"),
    ];
    for (columns, values, constraint) in impossible {
        assert_eq!(
            violated(&system, columns, values).await.as_deref(),
            Some(constraint),
            "{columns}: {values}"
        );
    }

    let vectorize = ("job_type, space_id", "'VECTORIZE', 1");
    assert_eq!(violated(&system, vectorize.0, vectorize.1).await, None);
    let again = violated(&system, vectorize.0, vectorize.1).await;
    assert_eq!(again.as_deref(), Some("job_queue_one_a_lane"));
    system
        .run_sql("UPDATE cronvec.job_queue SET status = 'FAILED', completed_at = now()")
        .await;
    assert_eq!(violated(&system, vectorize.0, vectorize.1).await, None);

    let keyed = ("job_type, idempotency_key", "'INGEST_DATA', 'key'");
    assert_eq!(violated(&system, keyed.0, keyed.1).await, None);
    let again = violated(&system, keyed.0, keyed.1).await;
    assert_eq!(again.as_deref(), Some("job_queue_idempotency"));

    let chunk = |dimensions: usize| {
        format!(
            "INSERT INTO cronvec.chunks (space_id, project_id, record_id, content_hash, ordinal, content, chunk_hash, embedding)
             VALUES (1, 1, 'a', 'x', 0, 'text', 'x', array_fill(0.5, ARRAY[{dimensions}])::vector)"
        )
    };
    let record = |content: &str, hash: &str, bucket: i32| {
        format!(
            "INSERT INTO cronvec.records (project_id, id, content, content_hash, bucket, accepted)
             VALUES (1, 'a', {content}, '{hash}', {bucket}, 1)"
        )
    };
    let impossible = [
        ("UPDATE cronvec.projects SET lanes = 0".into(), "projects_lanes"),
        ("UPDATE cronvec.projects SET lanes = 65".into(), "projects_lanes"),
        (
            "INSERT INTO cronvec.project_spaces SELECT project_id, space_id, 'next' FROM cronvec.project_spaces".into(),
            "project_spaces_once",
        ),
        (
            "UPDATE cronvec.project_spaces SET role = 'former'".into(),
            "project_spaces_role",
        ),
        (
            "UPDATE cronvec.projects SET max_attempts = 0".into(),
            "projects_attempts",
        ),
        ("UPDATE cronvec.projects SET name = ''".into(), "projects_name_length"),
        (record("NULL", "hash", 0), "records_tombstone"),
        (record("'text'", "", 0), "records_tombstone"),
        (record("'text'", "hash", 64), "records_bucket"),
        (chunk(255), "chunks_1_width"),
        (
            "INSERT INTO cronvec.lane_holds VALUES (1, 1, 0, 1, 'BORED', now())".into(),
            "lane_holds_reason",
        ),
    ];
    for (statement, constraint) in impossible {
        let refused = system.sql.batch_execute(&statement).await.expect_err(&statement);
        let server = refused.as_db_error().unwrap();
        assert_eq!(server.constraint(), Some(constraint), "{statement}: {server}");
    }
    system.run_sql(&chunk(256)).await;
}
