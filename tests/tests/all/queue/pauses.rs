//! A paused project.

use cronvec_nouns::job::{End, JobType};
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{claim, claim_ingest, claim_vectorize, enqueue, enqueue_many, ensure, make_due};

#[tokio::test]
async fn a_paused_projects_jobs_are_not_claimed_and_resume_puts_them_back_in_line() {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    let before = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    system.store.set_paused(PROJECT, true).await.unwrap();
    let meanwhile = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    let other = enqueue(&system, "other", EnqueueOptions::default()).await;
    assert_eq!(claim_ingest(&system).await.unwrap().lease.job_id, other);
    assert!(claim_ingest(&system).await.is_none());
    assert_eq!(ensure(&system).await, 0);
    assert!(claim_vectorize(&system).await.is_none());

    system.store.set_paused(PROJECT, false).await.unwrap();
    let mut back: Vec<i64> = Vec::new();
    while let Some(job) = claim_ingest(&system).await {
        back.push(job.lease.job_id);
    }
    assert_eq!(back, [before, meanwhile]);
    assert!(claim_vectorize(&system).await.is_some());
}

#[tokio::test]
async fn records_of_a_paused_project_wait_without_a_job() {
    let system = System::embedding_in_process().await;
    system.store.set_paused(PROJECT, true).await.unwrap();
    system.put(PROJECT, "a", "a text").await;
    let report = system.vectorize().await;
    assert_eq!((report.processed, report.remaining), (0, true));
    assert_eq!(serde_json::to_value(report.stopped_because).unwrap(), json!("paused"));
    system.store.set_paused(PROJECT, false).await.unwrap();
    assert_eq!(system.vectorize().await.records, 1);
}

#[tokio::test]
async fn no_job_goes_on_in_a_paused_project_be_it_held_dead_or_retried_when_the_pause_comes() {
    let system = System::embedding_in_process().await;
    enqueue_many(&system.store, PROJECT, 3, &EnqueueOptions::default()).await;
    let jobs = claim(&system.store, JobType::IngestData, 3).await;
    system.store.set_paused(PROJECT, true).await.unwrap();
    let ends = [
        End::Released { progressed: true },
        End::Snoozed {
            delay: std::time::Duration::ZERO,
        },
        End::Failed { error: "a bug".into() },
    ];
    for (job, end) in jobs.iter().zip(ends) {
        system.store.end_job(job, end).await.unwrap();
    }
    make_due(&system).await;
    assert!(claim_ingest(&system).await.is_none());
    system.store.set_paused(PROJECT, false).await.unwrap();
    assert_eq!(claim(&system.store, JobType::IngestData, 10).await.len(), 3);

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    claim_ingest(&system).await.unwrap();
    system.store.set_paused(PROJECT, true).await.unwrap();
    system.expire_leases().await;
    assert!(claim_ingest(&system).await.is_none());
    system.store.set_paused(PROJECT, false).await.unwrap();
    assert_eq!(claim_ingest(&system).await.unwrap().crashes, 1);

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    system.store.cancel_job(id).await.unwrap();
    system.store.set_paused(PROJECT, true).await.unwrap();
    system.store.retry_job(id).await.unwrap();
    assert!(claim_ingest(&system).await.is_none());
    system.store.set_paused(PROJECT, false).await.unwrap();
    assert!(claim_ingest(&system).await.is_some());
}

#[tokio::test]
async fn a_vectorize_job_that_goes_on_is_out_of_the_line_of_a_paused_project() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    let job = claim_vectorize(&system).await.unwrap();
    system.store.set_paused(PROJECT, true).await.unwrap();
    // The record is still due.
    let ended = system.store.complete_job(&job, json!({})).await.unwrap();
    assert_eq!(ended.status, cronvec_nouns::job::JobStatus::Pending);
    assert!(claim_vectorize(&system).await.is_none());
    system.store.set_paused(PROJECT, false).await.unwrap();
    assert!(claim_vectorize(&system).await.is_some());
}

/// A job that is being enqueued while its project is paused, or resumed, would stay as it saw the project.
#[tokio::test]
async fn a_job_that_is_enqueued_at_the_moment_of_a_pause_or_a_resumption_is_like_the_others() {
    let system = System::embedding_in_process().await;
    for paused in [true, false] {
        system.store.set_paused(PROJECT, !paused).await.unwrap();
        // The enqueuing is stopped between its look at the project and its commit: somebody has just used its key.
        let mut rival = system.database.client().await;
        let rival = rival.transaction().await.unwrap();
        rival
            .batch_execute(
                "INSERT INTO cronvec.job_queue (job_type, project, project_id, idempotency_key)
                 VALUES ('INGEST_DATA', 'articles', 1, 'the key')",
            )
            .await
            .unwrap();
        let keyed = EnqueueOptions {
            idempotency_key: Some("the key".into()),
            ..EnqueueOptions::default()
        };
        let (id, (), ()) = tokio::join!(
            enqueue(&system, PROJECT, keyed),
            async {
                eventually("the enqueuing waits", || is_waiting(&system)).await;
                system.store.set_paused(PROJECT, paused).await.unwrap();
            },
            async {
                // Either it is through, or it waits for the enqueuing.
                eventually("the pause is asked for", || async {
                    // Not by the system's own two connections: both may wait.
                    waiting(&system).await == 2
                        || system
                            .value("SELECT paused FROM cronvec.projects WHERE name = 'articles'")
                            .await
                            == paused
                })
                .await;
                rival.rollback().await.unwrap();
            }
        );
        let claimed = claim_ingest(&system).await;
        assert_eq!(claimed.is_none(), paused);
        system.store.cancel_job(id).await.unwrap();
        system.run_sql("DELETE FROM cronvec.job_queue").await;
    }
}

async fn waiting(system: &System) -> i64 {
    system
        .count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        .await
}

async fn is_waiting(system: &System) -> bool {
    waiting(system).await == 1
}
