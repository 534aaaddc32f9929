//! Bounded, killed, its lease lost.

use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{System, minute, record};
use ingestion::StoppedBecause;
use serde_json::{Value, json};
use shared::call::CallOptions;
use shared::store::enqueue::EnqueueOptions;
use std::time::{Duration, Instant};

use super::{enqueue, enqueue_lines, is_waiting, job};

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
    let rest = u64::try_from(40 - stored).unwrap();
    assert_eq!(system.ingest().await.records, rest);
    assert_eq!(job(&system, id).await["result"]["savedCount"], 40);
}
