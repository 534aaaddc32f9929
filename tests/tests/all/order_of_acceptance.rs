//! What was accepted later wins, whatever runs first.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_store::retention::Expiring;
use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{PROJECT, System, put, record};
use serde_json::{Value, json};

async fn enqueue(system: &System, id: &str, content: &str) -> i64 {
    system
        .enqueue(PROJECT, &[record(id, content)], EnqueueOptions::default())
        .await
}

/// Lets this job alone run now, the others later.
async fn run_alone(system: &System, job: i64) -> ingestion::Report {
    let delay = |when: &str, which: &str| {
        format!(
            "UPDATE cronvec.job_queue SET turn = NULL, scheduled_for = now() {when}
             WHERE status = 'PENDING' AND job_type = 'INGEST_DATA' AND id {which} {job};"
        )
    };
    system
        .run_sql(&[delay("+ interval '1 hour'", "<>"), delay("", "=")].concat())
        .await;
    let report = system.ingest().await;
    assert_eq!(report.processed, 1);
    report
}

async fn clean_tombstones(system: &System) -> u64 {
    let before = system.store.oldest_unfinished_ingest().await.unwrap();
    let passed = system.store.cleanup_pass(Expiring::Tombstones { before }).await;
    passed.unwrap().0
}

/// Id → content, null for a tombstone.
async fn records(system: &System) -> Value {
    system
        .value("SELECT coalesce(jsonb_object_agg(id, content), '{}') FROM cronvec.records")
        .await
}

async fn delete(system: &System, id: &str) -> bool {
    system
        .value(&format!("SELECT cronvec.delete_record('articles', '{id}')"))
        .await
        == true
}

#[tokio::test]
async fn of_two_jobs_the_one_accepted_later_wins_though_it_runs_first_also_when_it_changed_nothing() {
    let system = System::embedding_in_process().await;
    let first = enqueue(&system, "a", "of the first").await;
    let second = enqueue(&system, "a", "of the second").await;
    assert_eq!(run_alone(&system, second).await.records, 1);
    let late = run_alone(&system, first).await;
    assert_eq!((late.records, late.skipped), (0, 1));
    assert_eq!(records(&system).await, json!({"a": "of the second"}));
    let row = system
        .value("SELECT jsonb_build_array(accepted, position) FROM cronvec.records")
        .await;
    assert_eq!(row, json!([second, 1]));

    system.run_sql("DELETE FROM cronvec.records").await;
    system.put(PROJECT, "a", "the text").await;
    system.put(PROJECT, "b", "the text").await;
    let old = enqueue(&system, "a", "an older wish").await;
    let old_of_b = enqueue(&system, "b", "an older wish").await;
    // Said again: by a user, and by a younger job.
    system.put(PROJECT, "a", "the text").await;
    let young = enqueue(&system, "b", "the text").await;
    assert_eq!(run_alone(&system, young).await.skipped, 1);
    for job in [old, old_of_b] {
        assert_eq!(run_alone(&system, job).await.skipped, 1);
    }
    assert_eq!(records(&system).await, json!({"a": "the text", "b": "the text"}));
}

#[tokio::test]
async fn a_write_or_a_delete_wins_over_jobs_enqueued_before_it_and_loses_to_those_after() {
    let system = System::embedding_in_process().await;
    let before = enqueue(&system, "a", "of the job before").await;
    system.put(PROJECT, "a", "of the user").await;
    let after = enqueue(&system, "a", "of the job after").await;
    assert_eq!(run_alone(&system, before).await.skipped, 1);
    assert_eq!(records(&system).await, json!({"a": "of the user"}));
    assert_eq!(run_alone(&system, after).await.records, 1);
    assert_eq!(records(&system).await, json!({"a": "of the job after"}));

    system
        .run_sql("DELETE FROM cronvec.records; DELETE FROM cronvec.pending")
        .await;
    system.put(PROJECT, "known", "the text").await;
    let mut older = Vec::new();
    for id in ["known", "unknown"] {
        older.push(enqueue(&system, id, "of an older job").await);
    }
    assert!(delete(&system, "known").await);
    assert!(!delete(&system, "unknown").await, "there was none");
    assert!(!delete(&system, "known").await, "there is none any more");
    let younger = enqueue(&system, "unknown", "of a younger job").await;
    for job in older {
        assert_eq!(run_alone(&system, job).await.skipped, 1);
    }
    assert_eq!(records(&system).await, json!({"known": null, "unknown": null}));
    assert_eq!(run_alone(&system, younger).await.records, 1);
    assert_eq!(
        records(&system).await,
        json!({"known": null, "unknown": "of a younger job"})
    );
    assert_eq!(system.store.coverage(PROJECT).await.unwrap().total, 1);
    assert_eq!(system.vectorize().await.records, 1);
    assert_eq!(
        system
            .value("SELECT jsonb_agg(record_id) FROM cronvec.embeddings")
            .await,
        json!(["unknown"])
    );
}

#[tokio::test]
async fn a_tombstone_stays_while_an_older_job_could_still_bring_the_record_back() {
    let system = System::embedding_in_process().await;
    let older = enqueue(&system, "a", "of an older job").await;
    delete(&system, "a").await;
    let younger = enqueue(&system, "b", "of a younger job").await;
    let clean = || async {
        system
            .run_sql("UPDATE cronvec.records SET updated_at = now() - interval '1 day' WHERE content IS NULL")
            .await;
        clean_tombstones(&system).await
    };
    assert_eq!(clean().await, 0, "the older job is pending");
    system.store.cancel_job(older).await.unwrap();
    assert_eq!(clean().await, 0, "it can be retried");
    system.store.retry_job(older).await.unwrap();
    let run = run_alone(&system, older).await;
    assert_eq!((run.records, run.skipped), (0, 1));
    assert_eq!(clean().await, 1, "younger jobs don't matter");
    run_alone(&system, younger).await;

    // One that a worker has yet to purge stays, too.
    system.put(PROJECT, "c", "a text").await;
    system.vectorize().await;
    delete(&system, "c").await;
    assert_eq!(clean().await, 0);
    assert_eq!(system.vectorize().await.purged, 1);
    assert_eq!(clean().await, 1);
}

#[tokio::test]
async fn a_tombstone_outlives_an_enqueuing_that_has_its_number_and_is_not_committed() {
    let system = System::embedding_in_process().await;
    let mut producer = system.database.client().await;
    let producer = producer.transaction().await.unwrap();
    producer
        .batch_execute(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, payload, turn)
             VALUES ('INGEST_DATA', 'articles', 1,
                 '{\"total\": 1, \"generateEmbeddings\": true, \"priority\": 0,
                   \"records\": [\"{\\\"id\\\": \\\"a\\\", \\\"content\\\": \\\"of an older job\\\"}\"]}', 0)",
        )
        .await
        .unwrap();
    delete(&system, "a").await;
    assert_eq!(clean_tombstones(&system).await, 0, "a fresh one stays in any case");
    producer.commit().await.unwrap();
    assert_eq!(system.ingest().await.skipped, 1);
    assert_eq!(records(&system).await, json!({"a": null}));
}

#[tokio::test]
async fn of_two_transactions_with_the_same_new_id_the_second_waits_and_wins() {
    let system = System::embedding_in_process().await;
    let mut first = system.database.client().await;
    let first = first.transaction().await.unwrap();
    let is_new = |rows: Vec<tokio_postgres::Row>| rows[0].get::<_, bool>(0);
    let of_first = first
        .query_typed("SELECT cronvec.put_record('articles', 'a', 'of the first')", &[])
        .await
        .unwrap();
    assert!(is_new(of_first));
    let second = system.database.client().await;
    let (of_second, ()) = tokio::join!(
        second.query_typed("SELECT cronvec.put_record('articles', 'a', 'of the second')", &[]),
        async {
            eventually("the second waits", || async {
                system
                    .count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
                    .await
                    == 1
            })
            .await;
            first.commit().await.unwrap();
        }
    );
    assert!(!is_new(of_second.unwrap()), "there was one already");
    assert_eq!(records(&system).await, json!({"a": "of the second"}));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 1);

    // One that comes to nothing leaves the way free.
    let mut first = system.database.client().await;
    let first = first.transaction().await.unwrap();
    first
        .batch_execute("SELECT cronvec.put_record('articles', 'b', 'of the first')")
        .await
        .unwrap();
    first.rollback().await.unwrap();
    put(&second, PROJECT, "b", "of the second").await;
    assert_eq!(records(&system).await["b"], "of the second");
}

#[tokio::test]
async fn writers_that_race_for_one_record_leave_the_text_of_the_last_number() {
    let system = System::embedding_in_process().await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let client = system.database.client().await;
        writers.spawn(async move {
            for n in 0..25 {
                let statement = if n % 5 == 4 {
                    "SELECT cronvec.delete_record('articles', 'a')".to_owned()
                } else {
                    format!("SELECT cronvec.put_record('articles', 'a', 'of {writer}, {n}')")
                };
                client.batch_execute(&statement).await.unwrap();
            }
        });
    }
    let jobs = async {
        for n in 0..10 {
            enqueue(&system, "a", &format!("of a job, {n}")).await;
            system.ingest().await;
        }
    };
    jobs.await;
    writers.join_all().await;
    system.put(PROJECT, "a", "the last word").await;
    system
        .run_sql("UPDATE cronvec.job_queue SET scheduled_for = now() WHERE status = 'PENDING'")
        .await;
    system.ingest().await;
    assert_eq!(records(&system).await, json!({"a": "the last word"}));
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE status <> 'COMPLETED'")
            .await,
        0
    );
    system.vectorize().await;
    assert_eq!(
        system.value("SELECT jsonb_agg(content) FROM cronvec.embeddings").await,
        json!(["the last word"])
    );
}
