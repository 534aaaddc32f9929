//! INGEST_DATA jobs: what goes in, what is set aside, what happens when somebody is in the way.

use std::time::{Duration, Instant};

use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{PROJECT, System, minute, record};
use ingestion::StoppedBecause;
use serde_json::{Value, json};
use shared::call::CallOptions;
use shared::store::enqueue::{EnqueueOptions, NewJob};

async fn enqueue_lines(system: &System, lines: &[Vec<u8>], options: EnqueueOptions) -> i64 {
    let records: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
    let job = NewJob {
        project: PROJECT,
        records: &records,
        options,
    };
    system.store.enqueue(job).await.unwrap().job_id()
}

async fn enqueue(system: &System, records: &[Value]) -> i64 {
    system.enqueue(PROJECT, records, EnqueueOptions::default()).await
}

fn unembedded() -> EnqueueOptions {
    EnqueueOptions {
        embed: false,
        ..EnqueueOptions::default()
    }
}

async fn job(system: &System, id: i64) -> Value {
    serde_json::to_value(system.store.job(id).await.unwrap()).unwrap()
}

/// What is stored: id → content, of all that is no tombstone.
async fn stored(system: &System) -> Value {
    system
        .value("SELECT coalesce(jsonb_object_agg(id, content), '{}') FROM cronvec.records WHERE content IS NOT NULL")
        .await
}

async fn pending(system: &System) -> i64 {
    system.count("SELECT count(*) FROM cronvec.pending").await
}

/// Lets jobs that wait for a lock to go away have waited long enough.
async fn make_due(system: &System) {
    system
        .run_sql("UPDATE cronvec.job_queue SET scheduled_for = now() WHERE status = 'PENDING'")
        .await;
}

/// 13 lines, of which 4 are good: 1, 5, 12 and 13, the last of which stands for `twice`.
fn mixed_lines() -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = [
        json!({"id": "first", "content": "a text", "metadata": {"k": [1]}}),
        json!({"content": "no id"}),
        json!({"id": "", "content": "an empty id"}),
        json!({"id": "no-text", "content": " \n\t"}),
        json!({"id": 42, "content": "a number is an id"}),
        json!({"id": "nul", "content": "a\u{0}b"}),
        json!({"id": "nul-in-metadata", "content": "text", "metadata": {"a": {"b": "\u{0}"}}}),
        json!({"id": "large", "content": "x".repeat(2001)}),
        json!({"id": "list", "content": "text", "metadata": [1, 2]}),
    ]
    .iter()
    .map(|record| record.to_string().into_bytes())
    .collect();
    lines.push(b"{\"id\": \"broken\", ".to_vec());
    lines.push(b"\xff\xfe not UTF-8".to_vec());
    for text in ["said first", "said last"] {
        lines.push(record("twice", text).to_string().into_bytes());
    }
    lines
}

/// The line, the id and what the reason has to say.
const MIXED_REJECTIONS: [(i64, Option<&str>, &str); 9] = [
    (2, None, "no id"),
    (3, Some(""), "no id"),
    (4, Some("no-text"), "no text"),
    (6, Some("nul"), "NUL byte in the text"),
    (7, Some("nul-in-metadata"), "NUL byte in the metadata"),
    (8, Some("large"), "MAX_CONTENT_BYTES"),
    (9, Some("list"), "not a JSON object"),
    (10, None, "not a JSON record"),
    (11, None, "not UTF-8"),
];

fn assert_rejections(result: &Value, first_line: i64) {
    let rejected = result["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), MIXED_REJECTIONS.len(), "{result}");
    for (rejection, (line, id, reason)) in rejected.iter().zip(MIXED_REJECTIONS) {
        assert_eq!(
            (&rejection["line"], &rejection["id"]),
            (&json!(first_line + line - 1), &json!(id)),
            "{result}"
        );
        assert!(rejection["reason"].as_str().unwrap().contains(reason), "{rejection}");
        assert_eq!(rejection.as_object().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn bad_records_are_set_aside_with_line_and_reason_while_the_others_go_in() {
    let system = System::with(&[("MAX_CONTENT_BYTES", "2000"), ("INGEST_BATCH_SIZE", "5")]).await;
    let id = enqueue_lines(&system, &mixed_lines(), EnqueueOptions::default()).await;
    let report = system.ingest().await;
    assert_eq!(
        (report.processed, report.records, report.skipped, report.rejected),
        (1, 3, 1, 9)
    );
    let job = job(&system, id).await;
    assert_eq!(job["status"], "COMPLETED");
    let result = &job["result"];
    assert_eq!(
        (&result["savedCount"], &result["skippedCount"]),
        (&json!(3), &json!(1)),
        "the earlier one of two lines with an id is skipped"
    );
    assert_rejections(result, 1);
    assert_eq!(
        stored(&system).await,
        json!({"first": "a text", "42": "a number is an id", "twice": "said last"})
    );
    assert_eq!(
        system
            .value("SELECT metadata FROM cronvec.records WHERE id = 'first'")
            .await,
        json!({"k": [1]})
    );
    assert_eq!(pending(&system).await, 3);
    assert_eq!(
        job["progress"],
        json!({"current": 13, "total": 13, "message": "storing"})
    );
}

#[tokio::test]
async fn a_staged_payload_of_several_pieces_gives_the_same_result_with_the_same_line_numbers() {
    let system = System::with(&[("MAX_CONTENT_BYTES", "2000")]).await;
    let filler = |n: usize| {
        record(&format!("filler-{n}"), &"word ".repeat(300))
            .to_string()
            .into_bytes()
    };
    let before = 1500;
    let mut lines: Vec<Vec<u8>> = (0..before).map(filler).collect();
    lines.extend(mixed_lines());
    lines.extend((before..before + 20).map(filler));
    let id = enqueue_lines(&system, &lines, EnqueueOptions::default()).await;
    let pieces = system
        .value("SELECT jsonb_agg(jsonb_build_array(first_line, octet_length(body) <= 524288) ORDER BY piece) FROM cronvec.staged")
        .await;
    assert!(pieces.as_array().unwrap().len() >= 4, "{pieces}");
    assert!(pieces.as_array().unwrap().iter().all(|piece| piece[1] == true));
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE payload ? 'records'")
            .await,
        0,
        "no slice reads it whole"
    );

    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped, report.rejected), (1523, 1, 9));
    let result = job(&system, id).await["result"].clone();
    assert_eq!(
        (&result["savedCount"], &result["skippedCount"]),
        (&json!(1523), &json!(1))
    );
    assert_rejections(&result, i64::try_from(before).unwrap() + 1);
    assert_eq!(
        system
            .count("SELECT position::bigint FROM cronvec.records WHERE id = 'filler-1519'")
            .await,
        1533
    );
}

#[tokio::test]
async fn what_the_database_alone_finds_wrong_with_a_record_sets_that_one_aside() {
    let system = System::embedding_in_process().await;
    // Fine as JSON; no number of PostgreSQL's.
    let small = format!(r#"{{"id":"tiny","content":"text","metadata":{{"k":1e-{}}}}}"#, 20_000);
    // Fine as text; too long for an index of bytes that don't repeat.
    let letters: String = (0..1000_u32)
        .map(|n| char::from_u32(0x4e00 + (n * 7919) % 20_000).unwrap())
        .collect();
    let long = json!({"id": letters, "content": "text"}).to_string();
    let mut lines: Vec<Vec<u8>> = (0..10)
        .map(|n| record(&format!("r{n}"), "a text").to_string().into_bytes())
        .collect();
    lines.insert(3, small.into_bytes());
    lines.insert(7, long.into_bytes());
    let id = enqueue_lines(&system, &lines, EnqueueOptions::default()).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.rejected), (10, 2));
    let job = job(&system, id).await;
    assert_eq!((&job["status"], &job["attempts"]), (&json!("COMPLETED"), &json!(0)));
    let rejected = &job["result"]["rejected"];
    assert_eq!((&rejected[0]["line"], &rejected[0]["id"]), (&json!(4), &json!("tiny")));
    assert_eq!(rejected[1]["line"], 8);
    assert!(
        rejected[0]["reason"].as_str().unwrap().contains("numeric"),
        "{rejected}"
    );
}

#[tokio::test]
async fn a_call_without_time_begins_nothing_and_max_records_bounds_it_for_the_next_to_go_on() {
    let system = System::embedding_in_process().await;
    let records: Vec<_> = (0..100).map(|n| record(&format!("r{n}"), "a text")).collect();
    let id = enqueue(&system, &records).await;
    let report = system
        .ingestion()
        .run(CallOptions::default(), Instant::now() + Duration::from_millis(500))
        .await
        .unwrap();
    assert_eq!(
        (report.processed, report.stopped_because),
        (0, StoppedBecause::Deadline)
    );
    assert_eq!(job(&system, id).await["startedAt"], Value::Null);

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    let records: Vec<_> = (0..1000).map(|n| record(&format!("r{n}"), "a text")).collect();
    let id = enqueue(&system, &records).await;
    let options = CallOptions {
        max_records: Some(250),
        ..CallOptions::default()
    };
    let report = system.ingestion().run(options, minute()).await.unwrap();
    assert_eq!(
        (report.records, report.stopped_because),
        (300, StoppedBecause::Limit),
        "to the end of a batch"
    );
    let half = job(&system, id).await;
    assert_eq!((&half["status"], &half["attempts"]), (&json!("PENDING"), &json!(0)));
    assert_eq!(half["progress"]["current"], 300);
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (700, 0));
    assert_eq!(job(&system, id).await["result"]["savedCount"], 1000);
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_is_followed_by_one_that_goes_on_where_it_stopped() {
    let system = System::with(&[("INGEST_BATCH_SIZE", "10"), ("MAX_CONTENT_BYTES", "2000")]).await;
    // Small enough for the job's row, and staged in pieces.
    for (name, records, words) in [("small", 300, 1), ("large", 900, 350)] {
        let mut lines: Vec<Vec<u8>> = (0..records)
            .map(|n| {
                record(&format!("{name}-{n}"), &"word ".repeat(words))
                    .to_string()
                    .into_bytes()
            })
            .collect();
        // Every thirtieth is bad.
        for line in lines.iter_mut().step_by(30) {
            *line = json!({"id": "bad"}).to_string().into_bytes();
        }
        let id = enqueue_lines(&system, &lines, EnqueueOptions::default()).await;
        let progress =
            format!("SELECT coalesce((progress->>'current')::bigint, 0) FROM cronvec.job_queue WHERE id = {id}");
        let mut deaths = 0;
        let mut reached = 0;
        while job(&system, id).await["status"] != "COMPLETED" && deaths < 4 {
            let until = reached + records / 6;
            tokio::select! {
                _ = system.ingest() => {}
                () = eventually("it got somewhere", || async { system.count(&progress).await > until }) => deaths += 1,
            }
            reached = system.count(&progress).await;
            system.expire_leases().await;
        }
        assert!(deaths >= 2, "it was killed {deaths} times");
        system.ingest().await;

        let job = job(&system, id).await;
        let bad = records / 30;
        assert_eq!(job["status"], "COMPLETED");
        assert_eq!(
            (
                &job["result"]["savedCount"],
                &job["result"]["skippedCount"],
                job["result"]["rejected"].as_array().unwrap().len() as i64
            ),
            (&json!(records - bad), &json!(0), bad),
            "each record counts once"
        );
        assert_eq!(job["attempts"], 0);
        assert_eq!(job["progress"]["current"], records);
        let of_this = format!("SELECT count(*) FROM cronvec.records WHERE id LIKE '{name}-%'");
        assert_eq!(system.count(&of_this).await, records - bad);
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.records WHERE created_at <> updated_at")
            .await,
        0,
        "no record was written twice"
    );
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_stores_nothing_more() {
    let system = System::with(&[("INGEST_BATCH_SIZE", "1")]).await;
    let records: Vec<_> = (0..40).map(|n| record(&format!("r{n}"), "a text")).collect();
    let id = enqueue(&system, &records).await;
    // Somebody holds a new record's id, so that the worker waits.
    let mut user = system.database.client().await;
    let user = user.transaction().await.unwrap();
    user.batch_execute("SELECT cronvec.put_record('articles', 'r20', 'mine')")
        .await
        .unwrap();
    let (report, ()) = tokio::join!(system.ingest(), async {
        eventually("it waits", || is_waiting(&system)).await;
        system.store.cancel_job(id).await.unwrap();
    });
    assert_eq!(report.lost_leases, 1);
    let stored = system.count("SELECT count(*) FROM cronvec.records").await;
    assert!(stored < 40, "it didn't go on");
    assert_eq!(
        system
            .count("SELECT (cursor->>'saved')::bigint FROM cronvec.job_queue")
            .await,
        stored,
        "those that the job knows of"
    );
    assert_eq!(job(&system, id).await["status"], "CANCELLED");
    user.rollback().await.unwrap();
    assert_eq!(system.ingest().await.processed, 0);

    // What it had stored stays, and a retry goes on behind it.
    system.store.retry_job(id).await.unwrap();
    assert_eq!(system.ingest().await.records, 20);
    assert_eq!(job(&system, id).await["result"]["savedCount"], 40);
}

async fn is_waiting(system: &System) -> bool {
    system
        .count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        .await
        > 0
}

#[tokio::test]
async fn a_record_that_a_user_holds_waits_for_a_later_slice_and_the_others_do_not() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "held", "the old text").await;
    system.put(PROJECT, "free", "the old text").await;
    let mut user = system.database.client().await;
    let user = user.transaction().await.unwrap();
    user.batch_execute("SELECT * FROM cronvec.records WHERE id = 'held' FOR UPDATE")
        .await
        .unwrap();
    let mut records: Vec<_> = (0..250).map(|n| record(&format!("r{n}"), "a text")).collect();
    records.insert(120, record("held", "the new text"));
    records.insert(30, record("free", "the new text"));
    let id = enqueue(&system, &records).await;

    let began = Instant::now();
    let report = system.ingest().await;
    assert!(began.elapsed() < Duration::from_secs(5), "nobody waited for the user");
    assert_eq!((report.records, report.skipped), (251, 0));
    let waiting = job(&system, id).await;
    assert_eq!(
        (&waiting["status"], &waiting["attempts"]),
        (&json!("PENDING"), &json!(0))
    );
    let text = "SELECT content FROM cronvec.records WHERE id = ";
    assert_eq!(system.value(&format!("{text}'held'")).await, "the old text");
    assert_eq!(system.value(&format!("{text}'free'")).await, "the new text");
    assert_eq!(
        system
            .value("SELECT scheduled_for > now() FROM cronvec.job_queue")
            .await,
        true,
        "it waits a moment before it asks again"
    );

    make_due(&system).await;
    assert_eq!(system.ingest().await.records, 0, "it is still held");
    user.commit().await.unwrap();
    make_due(&system).await;
    assert_eq!(system.ingest().await.records, 1);
    assert_eq!(system.value(&format!("{text}'held'")).await, "the new text");
    let job = job(&system, id).await;
    assert_eq!(
        (&job["status"], &job["result"]["savedCount"]),
        (&json!("COMPLETED"), &json!(252))
    );
    assert_eq!(job["progress"]["current"], 252);
}

#[tokio::test]
async fn a_new_id_that_a_user_has_inserted_and_not_committed_is_found_by_halves_and_left() {
    let system = System::with(&[("INGEST_BATCH_SIZE", "4")]).await;
    let mut user = system.database.client().await;
    let user = user.transaction().await.unwrap();
    user.batch_execute("SELECT cronvec.put_record('articles', 'r2', 'the user''s')")
        .await
        .unwrap();
    let records: Vec<_> = (0..8).map(|n| record(&format!("r{n}"), "the job's")).collect();
    let id = enqueue(&system, &records).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (7, 0), "all but that one are in");
    let waiting = job(&system, id).await;
    assert_eq!(
        (&waiting["status"], &waiting["attempts"]),
        (&json!("PENDING"), &json!(0))
    );

    user.commit().await.unwrap();
    make_due(&system).await;
    assert_eq!(system.ingest().await.records, 1);
    assert_eq!(job(&system, id).await["result"]["savedCount"], 8);
    assert_eq!(
        stored(&system).await["r2"],
        "the job's",
        "it was accepted after the user's"
    );
}

#[tokio::test]
async fn unchanged_records_are_not_written_again_apart_from_their_number() {
    let system = System::embedding_in_process().await;
    let mut records: Vec<_> = (0..20)
        .map(|n| json!({"id": format!("r{n}"), "content": "a text", "metadata": {"n": n}}))
        .collect();
    enqueue(&system, &records).await;
    system.ingest().await;
    system.vectorize().await;
    let rows = "SELECT jsonb_agg(jsonb_build_array(id, content, metadata, embed, created_at, updated_at) ORDER BY id) FROM cronvec.records";
    let before = system.value(rows).await;

    let again = enqueue(&system, &records).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (0, 20));
    assert_eq!(system.value(rows).await, before);
    assert_eq!(
        system
            .count(&format!(
                "SELECT count(*) FROM cronvec.records WHERE accepted = {again}"
            ))
            .await,
        20
    );
    assert_eq!(pending(&system).await, 0);

    // Metadata alone: they are stored, and nothing is embedded.
    for changed in &mut records[..5] {
        changed["metadata"]["n"] = json!("changed");
    }
    enqueue(&system, &records).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (5, 15));
    assert_eq!(pending(&system).await, 0);
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.embeddings WHERE metadata->>'n' = 'changed' AND NOT stale")
            .await,
        5,
        "readers see them at once"
    );
}

#[tokio::test]
async fn records_that_nobody_wants_embedded_count_and_wait_for_a_write_that_wants_it() {
    let system = System::embedding_in_process().await;
    let records: Vec<_> = (0..10).map(|n| record(&format!("r{n}"), "a text")).collect();
    system.enqueue(PROJECT, &records, unembedded()).await;
    assert_eq!(system.ingest().await.records, 10);
    assert_eq!(pending(&system).await, 0);
    assert_eq!(system.vectorize().await.processed, 0);
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.pending), (10, 0, 0));

    // The same text by each way that wants it embedded.
    enqueue(&system, &records[..3]).await;
    assert_eq!(system.ingest().await.records, 3);
    system.put(PROJECT, "r3", "a text").await;
    assert_eq!(pending(&system).await, 4);
    assert_eq!(system.vectorize().await.records, 4);
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.percent), (10, 4, 40.0));

    // New text that nobody wants embedded: what was marked isn't any more, and the old vector is stale.
    system.put(PROJECT, "r0", "a text of today").await;
    assert_eq!(pending(&system).await, 1);
    let changed = [record("r0", "a text of tomorrow"), record("r1", "a text of tomorrow")];
    system.enqueue(PROJECT, &changed, unembedded()).await;
    system.ingest().await;
    assert_eq!(pending(&system).await, 0);
    assert_eq!(
        system
            .value("SELECT jsonb_agg(record_id ORDER BY record_id) FROM cronvec.embeddings WHERE stale")
            .await,
        json!(["r0", "r1"])
    );
}

#[tokio::test]
async fn the_text_of_a_deleted_record_does_not_come_back_with_a_new_one() {
    let system = System::embedding_in_process().await;
    for id in ["a", "b"] {
        system.put(PROJECT, id, "a secret of yesterday").await;
    }
    system.vectorize().await;
    for id in ["a", "b"] {
        system
            .run_sql(&format!("SELECT cronvec.delete_record('articles', '{id}')"))
            .await;
    }
    // Written anew before a worker has purged what was left of them.
    system
        .enqueue(PROJECT, &[record("a", "news of today")], unembedded())
        .await;
    enqueue(&system, &[record("b", "news of today")]).await;
    system.ingest().await;
    let shown = "SELECT coalesce(jsonb_agg(content), '[]') FROM cronvec.embeddings";
    assert_eq!(system.value(shown).await, json!([]));
    system.vectorize().await;
    assert_eq!(system.value(shown).await, json!(["news of today"]));
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.chunks WHERE content LIKE '%secret%'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_jobs_priority_stays_with_its_records_until_they_are_embedded() {
    let system = System::embedding_in_process().await;
    let urgent = EnqueueOptions {
        priority: 10,
        ..EnqueueOptions::default()
    };
    system.enqueue(PROJECT, &[record("a", "a text")], urgent).await;
    system.ingest().await;
    let priority = "SELECT priority FROM cronvec.pending";
    assert_eq!(system.value(priority).await, 10);
    system.put(PROJECT, "a", "a newer text").await;
    assert_eq!(system.value(priority).await, 10);
    enqueue(&system, &[record("a", "the newest text")]).await;
    system.ingest().await;
    assert_eq!(system.value(priority).await, 10);
}
