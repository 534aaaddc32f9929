use cronvec_nouns::job::JobType;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{claim, claim_ingest, enqueue, ensure, make_due, row, vectorize_job};

/// Claims the job, lets it fail by its own fault, and gives the seconds that it has to wait then: what it waits from
/// the moment before it failed, and from the moment after.
async fn fail(system: &System, job_type: JobType) -> (f64, f64) {
    make_due(system).await;
    let job = claim(&system.store, job_type, 1).await.pop().expect("a due job");
    let now = "SELECT extract(epoch FROM clock_timestamp())::float8";
    let before = system.value(now).await.as_f64().unwrap();
    system.store.fail_job(&job, "a bug of ours").await.expect("an end");
    let after = system.value(now).await.as_f64().unwrap();
    let until = system
        .value(&format!(
            "SELECT extract(epoch FROM scheduled_for)::float8 FROM cronvec.job_queue WHERE id = {}",
            job.lease.job_id
        ))
        .await
        .as_f64()
        .unwrap();
    (until - before, until - after)
}

/// It waits so many seconds, plus up to 10 %.
async fn assert_waits(system: &System, job_type: JobType, seconds: f64) {
    let (from_before, from_after) = fail(system, job_type).await;
    assert!(
        from_before >= seconds && from_after <= seconds * 1.1,
        "{job_type} waits {from_after} to {from_before} s, not {seconds}"
    );
}

async fn assert_backs_off_and_fails(system: &System, job_type: JobType, id: i64) {
    for (attempt, seconds) in [(1, 10.0), (2, 20.0)] {
        assert_waits(system, job_type, seconds).await;
        let row = row(system, id).await;
        assert_eq!((&row["status"], &row["attempts"]), (&json!("PENDING"), &json!(attempt)));
        assert_eq!(row["completed_at"], json!(null));
        assert_eq!(row["result"]["error"], "a bug of ours");
        assert!(
            claim(&system.store, job_type, 1).await.is_empty(),
            "it isn't claimed before its time"
        );
    }
    fail(system, job_type).await;
    let row = row(system, id).await;
    assert_eq!((&row["status"], &row["attempts"]), (&json!("FAILED"), &json!(3)));
    assert_eq!(row["result"]["error"], "a bug of ours");
    assert_ne!(row["completed_at"], json!(null));
    make_due(system).await;
    assert!(claim(&system.store, job_type, 1).await.is_empty(), "it has ended");
}

#[tokio::test]
async fn an_ingest_job_at_fault_waits_10_s_then_20_s_and_is_failed_at_the_third_attempt() {
    let system = System::embedding_in_process().await;
    let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    assert_backs_off_and_fails(&system, JobType::IngestData, id).await;
    assert_ne!(row(&system, id).await["payload"], json!(null), "kept for a retry");
}

#[tokio::test]
async fn a_vectorize_job_at_fault_waits_10_s_then_20_s_and_is_failed_at_the_third_attempt() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    let id = vectorize_job(&system).await;
    assert_backs_off_and_fails(&system, JobType::Vectorize, id).await;
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.pending").await,
        1,
        "what it was to do is still to be done"
    );
}

#[tokio::test]
async fn the_settings_give_attempts_and_base_and_no_backoff_is_longer_than_an_hour() {
    let system = System::with(&[("EMBEDDING_MAX_RETRIES", "2"), ("EMBEDDING_RETRY_BACKOFF_BASE", "4000")]).await;
    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    assert_waits(&system, JobType::Vectorize, 4.0).await;
    fail(&system, JobType::Vectorize).await;
    assert_eq!(row(&system, vectorize_job(&system).await).await["status"], "FAILED");

    let slow = EnqueueOptions {
        max_attempts: Some(100),
        backoff_ms: Some(i32::MAX),
        ..EnqueueOptions::default()
    };
    let id = enqueue(&system, PROJECT, slow).await;
    for attempts in [0, 1, 98] {
        system
            .run_sql(&format!(
                "UPDATE cronvec.job_queue SET attempts = {attempts} WHERE id = {id}"
            ))
            .await;
        let (from_before, from_after) = fail(&system, JobType::IngestData).await;
        assert!(from_before >= 3600.0 && from_after <= 3600.0);
    }
}

#[tokio::test]
async fn a_jobs_own_attempts_and_base_go_before_its_projects_and_these_before_the_settings() {
    let system = System::embedding_in_process().await;
    system
        .run_sql("UPDATE cronvec.projects SET max_attempts = 2, backoff_ms = 7000")
        .await;
    let of_project = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    assert_waits(&system, JobType::IngestData, 7.0).await;
    fail(&system, JobType::IngestData).await;
    assert_eq!(row(&system, of_project).await["status"], "FAILED");

    let own = EnqueueOptions {
        max_attempts: Some(4),
        backoff_ms: Some(2000),
        ..EnqueueOptions::default()
    };
    let of_its_own = enqueue(&system, PROJECT, own).await;
    for seconds in [2.0, 4.0, 8.0] {
        assert_waits(&system, JobType::IngestData, seconds).await;
    }
    fail(&system, JobType::IngestData).await;
    assert_eq!(row(&system, of_its_own).await["status"], "FAILED");

    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    assert_waits(&system, JobType::Vectorize, 7.0).await;
    fail(&system, JobType::Vectorize).await;
    assert_eq!(row(&system, vectorize_job(&system).await).await["status"], "FAILED");
}

#[tokio::test]
async fn a_worker_whose_job_is_at_fault_charges_the_job_and_goes_on_with_the_others() {
    let system = System::embedding_in_process().await;
    let broken = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    let sound = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    system
        .run_sql(&format!(
            "UPDATE cronvec.job_queue SET payload = '{{}}' WHERE id = {broken}"
        ))
        .await;
    for attempt in 1..=3 {
        make_due(&system).await;
        system.ingest().await;
        let row = row(&system, broken).await;
        assert_eq!(row["attempts"], attempt);
        assert!(row["result"]["error"].as_str().unwrap().contains("total"), "{row}");
    }
    assert_eq!(row(&system, broken).await["status"], "FAILED");
    assert_eq!(row(&system, sound).await["status"], "COMPLETED");
    assert!(claim_ingest(&system).await.is_none());
}

#[tokio::test]
async fn a_write_that_our_own_tables_refuse_is_the_vectorize_jobs_fault_and_no_records() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system.put(PROJECT, "a", "a text").await;
    system
        .run_sql("ALTER TABLE cronvec.chunks_1 ADD CONSTRAINT never CHECK (ordinal < 0)")
        .await;
    for attempt in 1..=3 {
        make_due(&system).await;
        let report = system.vectorize().await;
        assert_eq!((report.processed, report.failed), (1, 0));
        let row = row(&system, vectorize_job(&system).await).await;
        assert_eq!(row["attempts"], attempt);
        assert!(row["result"]["error"].as_str().unwrap().contains("never"), "{row}");
    }
    assert_eq!(row(&system, vectorize_job(&system).await).await["status"], "FAILED");
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.pending WHERE attempts = 0")
            .await,
        1,
        "the record isn't charged"
    );
}
