//! What is left of a job that ended, and the way back.

use cronvec_nouns::job::JobStatus;
use cronvec_store::StoreError;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::json;

use super::{claim_ingest, claim_vectorize, enqueue, ensure, make_due, row, vectorize_job};

/// A system whose one VECTORIZE job has failed for good, and the job.
async fn with_a_failed_lane() -> (System, i64) {
    let system = System::embedding_in_process().await;
    system.run_sql("UPDATE cronvec.projects SET max_attempts = 1").await;
    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    let job = claim_vectorize(&system).await.expect("a job");
    let ended = system.store.fail_job(&job, "a bug of ours").await.unwrap();
    assert_eq!(ended.status, JobStatus::Failed);
    (system, job.lease.job_id)
}

#[tokio::test]
async fn a_failed_vectorize_job_holds_its_lane_for_an_hour() {
    let (system, failed) = with_a_failed_lane().await;
    system.put(PROJECT, "b", "another text").await;
    assert_eq!(ensure(&system).await, 0, "no new job is made");
    assert_eq!(system.vectorize().await.processed, 0);

    let hold = system
        .value("SELECT to_jsonb(h) || jsonb_build_object('s', extract(epoch FROM until - now())) FROM cronvec.lane_holds h")
        .await;
    assert_eq!(
        (&hold["reason"], &hold["job_id"], &hold["lane"]),
        (&json!("FAILED"), &json!(failed), &json!(0))
    );
    let seconds = hold["s"].as_f64().unwrap();
    assert!((3500.0..=3600.0).contains(&seconds), "{seconds}");

    system
        .run_sql("UPDATE cronvec.lane_holds SET until = now() - interval '1 second'")
        .await;
    assert_eq!(system.vectorize().await.records, 2, "a new job does all that waited");
    assert_eq!(row(&system, failed).await["status"], "FAILED");
}

#[tokio::test]
async fn retry_lifts_the_hold_and_starts_the_attempts_anew() {
    let (system, failed) = with_a_failed_lane().await;
    system.store.retry_job(failed).await.unwrap();
    let row_after = row(&system, failed).await;
    assert_eq!(
        (&row_after["status"], &row_after["attempts"], &row_after["result"]),
        (&json!("PENDING"), &json!(0), &json!(null))
    );
    assert_eq!(row_after["completed_at"], json!(null));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.lane_holds").await, 0);
    assert_eq!(ensure(&system).await, 0, "the job is there already");
    assert_eq!(system.vectorize().await.records, 1);
    assert_eq!(row(&system, failed).await["status"], "COMPLETED");
}

#[tokio::test]
async fn a_cancelled_vectorize_job_holds_its_lane_until_it_is_retried() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    let job = vectorize_job(&system).await;
    system.store.cancel_job(job).await.unwrap();
    assert_eq!(
        system.value("SELECT until::text FROM cronvec.lane_holds").await,
        "infinity"
    );
    system.put(PROJECT, "b", "another text").await;
    assert_eq!(system.vectorize().await.processed, 0);
    system.store.retry_job(job).await.unwrap();
    assert_eq!(system.vectorize().await.records, 2);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.lane_holds").await, 0);
}

#[tokio::test]
async fn a_hold_keeps_its_own_lane_and_no_other() {
    let system = System::embedding_in_process().await;
    system.run_sql("UPDATE cronvec.projects SET lanes = 2").await;
    system.create_project("another").await;
    for n in 0..40 {
        system.put(PROJECT, &format!("r{n}"), &format!("text {n}")).await;
    }
    system.put("another", "a", "a text").await;
    ensure(&system).await;
    let of_lane_0 = system
        .count("SELECT id FROM cronvec.job_queue WHERE project = 'articles' AND lane = 0")
        .await;
    system.store.cancel_job(of_lane_0).await.unwrap();
    system.vectorize().await;
    assert_eq!(
        system
            .value("SELECT array_agg(DISTINCT bucket % 2) FROM cronvec.pending")
            .await,
        json!([0]),
        "the other lane and the other project are done"
    );
}

#[tokio::test]
async fn retrying_a_job_whose_lane_has_another_one_names_that_also_if_both_are_retried_at_once() {
    let (system, failed) = with_a_failed_lane().await;
    system
        .run_sql("UPDATE cronvec.lane_holds SET until = now() - interval '1 second'")
        .await;
    assert_eq!(ensure(&system).await, 1);
    let active = vectorize_job(&system).await;
    let refused = system.store.retry_job(failed).await;
    assert!(
        matches!(&refused, Err(StoreError::ActiveJob { active: named, .. }) if *named == active),
        "{refused:?}"
    );
    assert_eq!(row(&system, failed).await["status"], "FAILED");

    let (first, second) = (failed, active);
    let job = claim_vectorize(&system).await.unwrap();
    system.store.fail_job(&job, "again").await.unwrap();
    // The first retry has been written and isn't committed yet when the second one looks.
    let mut other = system.database.client().await;
    let transaction = other.transaction().await.unwrap();
    transaction
        .batch_execute(&format!(
            "UPDATE cronvec.job_queue SET status = 'PENDING', completed_at = NULL WHERE id = {first}"
        ))
        .await
        .unwrap();
    let (refused, ()) = tokio::join!(system.store.retry_job(second), async {
        cronvec_tests::conditions::eventually("the second retry waits", || async {
            system
                .count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
                .await
                == 1
        })
        .await;
        transaction.commit().await.unwrap();
    });
    assert!(
        matches!(&refused, Err(StoreError::ActiveJob { active: named, .. }) if *named == first),
        "{refused:?}"
    );
}

#[tokio::test]
async fn only_failed_and_cancelled_jobs_are_retried_and_only_active_ones_cancelled() {
    let system = System::embedding_in_process().await;
    let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    let refusal = |outcome: Result<(), StoreError>| outcome.expect_err("refused").to_string();
    assert!(refusal(system.store.retry_job(id).await).contains("PENDING"));
    let job = claim_ingest(&system).await.unwrap();
    assert!(refusal(system.store.retry_job(id).await).contains("PROCESSING"));
    system.store.complete_job(&job, json!({})).await.unwrap();
    assert!(refusal(system.store.retry_job(id).await).contains("COMPLETED"));
    assert!(refusal(system.store.cancel_job(id).await).contains("COMPLETED"));
    assert!(matches!(
        system.store.retry_job(987_654).await,
        Err(StoreError::NoJob(987_654))
    ));
    assert!(matches!(
        system.store.cancel_job(987_654).await,
        Err(StoreError::NoJob(987_654))
    ));
    assert!(matches!(
        system.store.job(987_654).await,
        Err(StoreError::NoJob(987_654))
    ));
}

#[tokio::test]
async fn a_payload_goes_with_its_jobs_completion_and_stays_with_its_failure() {
    let system = System::embedding_in_process().await;
    system.run_sql("UPDATE cronvec.projects SET max_attempts = 1").await;
    let small = vec![record("a", "a text")];
    let large: Vec<_> = (0..30)
        .map(|n| record(&format!("r{n}"), &"many words ".repeat(500)))
        .collect();
    for (records, staged) in [(small, 0), (large, 1)] {
        let kept = |id| {
            let system = &system;
            async move {
                let pieces = format!("SELECT count(*) FROM cronvec.staged WHERE job_id = {id}");
                (
                    row(system, id).await["payload"] != json!(null),
                    system.count(&pieces).await,
                )
            }
        };
        let failed = system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
        let job = claim_ingest(&system).await.unwrap();
        system.store.fail_job(&job, "a bug of ours").await.unwrap();
        assert_eq!(kept(failed).await, (true, staged));

        let cancelled = system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
        claim_ingest(&system).await.unwrap();
        system.store.cancel_job(cancelled).await.unwrap();
        assert_eq!(kept(cancelled).await, (true, staged));

        for again in [failed, cancelled] {
            system.store.retry_job(again).await.unwrap();
        }
        make_due(&system).await;
        assert_eq!(system.ingest().await.processed, 2);
        assert_eq!(kept(failed).await, (false, 0));
        assert_eq!(kept(cancelled).await, (false, 0));
        let result = row(&system, failed).await["result"].clone();
        let stored = result["savedCount"].as_u64().unwrap() + result["skippedCount"].as_u64().unwrap();
        assert_eq!(stored, records.len() as u64);
    }
}

#[tokio::test]
async fn what_a_cancelled_job_holds_stays_held_when_its_project_gets_more_lanes() {
    let system = System::embedding_in_process().await;
    for n in 0..40 {
        system.put(PROJECT, &format!("r{n}"), &format!("text {n}")).await;
    }
    ensure(&system).await;
    let job = vectorize_job(&system).await;
    system.store.cancel_job(job).await.unwrap();
    assert!(system.store.raise_lanes(1, 4).await.unwrap());
    assert!(!system.store.raise_lanes(1, 4).await.unwrap());
    assert_eq!(ensure(&system).await, 0);
    assert_eq!(
        system
            .value("SELECT jsonb_agg(jsonb_build_array(lane, job_id, until) ORDER BY lane) FROM cronvec.lane_holds")
            .await,
        json!([0, 1, 2, 3].map(|lane| json!([lane, job, "infinity"])))
    );
    system.store.retry_job(job).await.unwrap();
    assert_eq!(system.count("SELECT count(*) FROM cronvec.lane_holds").await, 0);
    assert_eq!(system.vectorize().await.records, 40);
}

#[tokio::test]
async fn a_lane_of_several_that_is_held_is_held_as_the_lanes_that_it_is_divided_into() {
    let system = System::embedding_in_process().await;
    system.run_sql("UPDATE cronvec.projects SET lanes = 2").await;
    for n in 0..60 {
        system.put(PROJECT, &format!("r{n}"), &format!("text {n}")).await;
    }
    ensure(&system).await;
    let of_lane_1 = system.count("SELECT id FROM cronvec.job_queue WHERE lane = 1").await;
    system.store.cancel_job(of_lane_1).await.unwrap();
    let of_lane = "SELECT count(*) FROM cronvec.pending WHERE bucket % 2 = 1";
    let records = system.count(of_lane).await;
    system.store.raise_lanes(1, 6).await.unwrap();
    system.vectorize().await;
    assert_eq!(system.count(of_lane).await, records);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, records);
}
