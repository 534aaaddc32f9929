//! Bounded, killed, its lease lost.

use cronvec_call::CallOptions;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{System, minute, record};
use ingestion::StoppedBecause;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

use super::{enqueue, enqueue_lines, is_waiting, job};

#[tokio::test]
async fn a_call_without_time_begins_nothing_and_max_records_bounds_it_for_the_next_to_go_on() {
    let system = System::embedding_in_process().await;
    let records: Vec<_> = (0..100).map(|n| record(&format!("r{n}"), "a text")).collect();
    let id = enqueue(&system, &records).await;
    let report = system
        .ingestion()
        .run(CallOptions::default(), Instant::now() + Duration::from_millis(150))
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

#[tokio::test]
async fn a_worker_killed_between_the_halves_of_a_batch_that_had_to_wait_counts_each_line_once() {
    let system = System::with(&[("INGEST_BATCH_SIZE", "8")]).await;
    let mut user = system.database.client().await;
    let user = user.transaction().await.unwrap();
    user.batch_execute("SELECT cronvec.put_record('articles', 'r5', 'the user''s')")
        .await
        .unwrap();
    let mut records: Vec<_> = (0..8).map(|n| record(&format!("r{n}"), "the job's")).collect();
    records[1] = json!({"id": "bad"});
    let id = enqueue(&system, &records).await;
    tokio::select! {
        _ = system.ingest() => panic!("it ended before it was killed"),
        () = eventually("one half is stored, the other waits", || async {
            system.count("SELECT count(*) FROM cronvec.records WHERE id = 'r0'").await == 1 && is_waiting(&system).await
        }) => {}
    }
    user.rollback().await.unwrap();
    system.expire_leases().await;
    system.ingest().await;
    let result = job(&system, id).await["result"].clone();
    assert_eq!(
        (&result["savedCount"], &result["skippedCount"], &result["rejectedCount"]),
        (&json!(7), &json!(0), &json!(1))
    );
}

#[tokio::test]
async fn lines_keep_the_numbers_that_they_had_in_their_file_in_the_jobs_row_and_staged() {
    let system = System::embedding_in_process().await;
    for words in [1, 30_000] {
        let bad = json!({"id": "x".repeat(words)}).to_string();
        let mut good = record("good", "a text").to_string();
        good.push_str(&" ".repeat(words * 3));
        let options = EnqueueOptions {
            lines: Some(vec![7, 12, 2_000_000]),
            ..EnqueueOptions::default()
        };
        let lines = [bad.clone().into_bytes(), good.into_bytes(), bad.into_bytes()];
        let id = enqueue_lines(&system, &lines, options).await;
        system.ingest().await;
        let rejected = job(&system, id).await["result"]["rejected"].clone();
        assert_eq!(
            (&rejected[0]["line"], &rejected[1]["line"]),
            (&json!(7), &json!(2_000_000)),
            "{words}"
        );
        assert_eq!(
            system
                .count("SELECT position::bigint FROM cronvec.records WHERE id = 'good'")
                .await,
            12
        );
        let raw = system.store.raw_rejects(id, 7, 10).await.unwrap();
        assert_eq!(raw[0].1.as_deref(), Some(lines[2].as_slice()), "what it said is kept");
    }
}
