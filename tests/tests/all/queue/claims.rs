//! Leases: taken once, ended by time, only where there is something that may be worked on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cronvec_nouns::job::{ClaimedJob, End, JobType, Lease};
use cronvec_store::claim::Servable;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_store::vectors::Holding;
use cronvec_store::{self as store, Store, StoreError};
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{claim, claim_ingest, claim_of, claim_vectorize, enqueue, enqueue_many, ensure, make_due, row};

#[tokio::test]
async fn claimers_that_race_get_each_job_exactly_once() {
    let system = System::embedding_in_process().await;
    let ids = enqueue_many(&system.store, PROJECT, 500, &EnqueueOptions::default()).await;
    let url = system.database.url();
    let pools = [(); 2].map(|()| Arc::new(Store::new(store::Database::at(url, 4).unwrap())));
    let barrier = Arc::new(tokio::sync::Barrier::new(16));
    let mut claimers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let (store, barrier) = (Arc::clone(&pools[n % 2]), Arc::clone(&barrier));
        claimers.spawn(async move {
            barrier.wait().await;
            let mut held = Vec::new();
            // Others' locks may hide the last ones for a moment.
            let mut empty = 0;
            while empty < 5 {
                let jobs = claim(&store, JobType::IngestData, 1 + n % 3).await;
                empty = if jobs.is_empty() { empty + 1 } else { 0 };
                held.extend(jobs);
            }
            held
        });
    }
    let mut times: HashMap<i64, usize> = HashMap::new();
    for job in claimers.join_all().await.into_iter().flatten() {
        *times.entry(job.lease.job_id).or_default() += 1;
    }
    assert!(times.values().all(|&times| times == 1), "none twice");
    assert_eq!(times.len(), ids.len(), "none forgotten");
}

#[tokio::test]
async fn a_lease_keeps_others_out_until_it_runs_out_and_is_lost_then_also_if_nobody_else_has_the_job() {
    let system = System::embedding_in_process().await;
    let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    let job = claim_ingest(&system).await.unwrap();
    let row = row(&system, id).await;
    assert_eq!((&row["status"], &row["turn"]), (&json!("PROCESSING"), &json!(null)));
    assert_eq!(row["lease_token"], job.lease.token.to_string());
    assert_ne!(row["started_at"], json!(null));
    let seconds = "SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::int FROM cronvec.job_queue";
    assert!((50..=60).contains(&system.value(seconds).await.as_i64().unwrap()));
    assert!(claim_ingest(&system).await.is_none());

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    let job = claim_ingest(&system).await.unwrap();
    keep(&system, &job, 5).await.unwrap();
    let left: i64 = system.value(seconds).await.as_i64().unwrap();
    assert!((0..=5).contains(&left), "kept for as long as was said: {left} s");
    system.expire_leases().await;
    let refused = keep(&system, &job, 60).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost)));
    let refused = system.store.complete_job(&job, json!({})).await;
    assert!(matches!(refused, Err(StoreError::LeaseLost)));
}

#[tokio::test]
async fn an_expired_lease_is_claimed_again_before_all_others_and_counts_as_a_crash() {
    let system = System::embedding_in_process().await;
    let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    let dead = claim_ingest(&system).await.unwrap();
    let urgent = EnqueueOptions {
        priority: 10,
        ..EnqueueOptions::default()
    };
    enqueue(&system, PROJECT, urgent).await;
    let started = row(&system, id).await["started_at"].clone();
    for crashes in 1..=3 {
        system.expire_leases().await;
        let heir = claim_ingest(&system).await.unwrap();
        assert_eq!((heir.lease.job_id, heir.crashes, heir.attempts), (id, crashes, 0));
        assert_ne!(heir.lease.token, dead.lease.token);
    }
    assert_eq!(
        row(&system, id).await["started_at"],
        started,
        "the first claim's time stays"
    );

    // The dead one wakes up.
    let lost = |outcome: Result<(), StoreError>| matches!(outcome, Err(StoreError::LeaseLost));
    assert!(lost(system.store.complete_job(&dead, json!({})).await.map(|_| ())));
    assert!(lost(system.store.fail_job(&dead, "late").await.map(|_| ())));
    assert!(lost(keep(&system, &dead, 60).await));
    assert!(lost(
        system.store.update_progress(dead.lease, &Default::default()).await
    ));
    assert_eq!(row(&system, id).await["status"], "PROCESSING");
}

#[tokio::test]
async fn delayed_and_snoozed_jobs_are_claimed_at_their_time_and_stand_in_line_then_like_all_others() {
    let system = System::embedding_in_process().await;
    let later = EnqueueOptions {
        delay: Duration::from_secs(3600),
        priority: 100,
        ..EnqueueOptions::default()
    };
    let id = enqueue(&system, PROJECT, later).await;
    let now = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    assert_eq!(claim_ingest(&system).await.unwrap().lease.job_id, now);
    assert!(claim_ingest(&system).await.is_none());
    make_due(&system).await;
    assert_eq!(claim_ingest(&system).await.unwrap().lease.job_id, id);

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    let job = claim_ingest(&system).await.unwrap();
    let delay = Duration::from_secs(600);
    system.store.end_job(&job, End::Snoozed { delay }).await.unwrap();
    assert!(claim_ingest(&system).await.is_none());
    make_due(&system).await;
    let job = claim_ingest(&system).await.unwrap();
    assert_eq!((job.lease.job_id, job.attempts, job.crashes), (id, 0, 0));

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    system.create_project("other").await;
    enqueue_many(&system.store, PROJECT, 3, &EnqueueOptions::default()).await;
    let later = EnqueueOptions {
        delay: Duration::from_secs(3600),
        ..EnqueueOptions::default()
    };
    enqueue_many(&system.store, "other", 3, &later).await;
    make_due(&system).await;
    let mut order = Vec::new();
    while let Some(job) = claim_ingest(&system).await {
        order.push(if job.project == PROJECT { 'a' } else { 'o' });
    }
    assert_eq!(order.iter().collect::<String>(), "aaoaoo");
}

#[tokio::test]
async fn the_jobs_of_a_resting_endpoint_wait_and_another_spaces_are_claimed() {
    let system = System::embedding_in_process().await;
    let mut other = system.settings.clone();
    other.embedding.new_space.chunk_tokens /= 2;
    let space = system.store.ensure_space(&other.embedding.new_space).await.unwrap();
    system.store.ensure_project("other", space.id, 1).await.unwrap();
    for project in [PROJECT, "other"] {
        system.put(project, "a", "a text").await;
    }
    ensure(&system).await;
    let rest = Duration::from_secs(600);
    system
        .store
        .pause_endpoint("endpoint-1", rest, false, "too many requests")
        .await
        .unwrap();
    let jobs = claim(&system.store, JobType::Vectorize, 10).await;
    assert_eq!(
        jobs.iter().map(|job| job.project.as_str()).collect::<Vec<_>>(),
        ["other"]
    );
    assert_eq!(system.store.pauses(None).await.unwrap()[0].message, "too many requests");

    system
        .run_sql("UPDATE cronvec.provider_pauses SET until = now() - interval '1 second'")
        .await;
    assert_eq!(claim_vectorize(&system).await.unwrap().project, PROJECT);
    assert!(system.store.pauses(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_worker_claims_only_of_spaces_that_it_serves_and_of_the_project_that_it_was_called_for() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "a text").await;
    ensure(&system).await;
    let others = [Servable {
        space_id: 77,
        endpoint: "elsewhere".into(),
    }];
    assert!(claim_of(&system.store, JobType::Vectorize, 5, &others).await.is_empty());
    assert!(claim_of(&system.store, JobType::Vectorize, 5, &[]).await.is_empty());
    assert!(claim_vectorize(&system).await.is_some());

    system.run_sql("DELETE FROM cronvec.job_queue").await;
    system.create_project("other").await;
    enqueue_many(&system.store, PROJECT, 3, &EnqueueOptions::default()).await;
    enqueue_many(&system.store, "other", 3, &EnqueueOptions::default()).await;
    let wish = cronvec_store::claim::ClaimWish {
        job_type: JobType::IngestData,
        spaces: &[],
        limit: 10,
        lease: Duration::from_secs(60),
        worker: "a test",
        project_id: Some(system.store.project("other").await.unwrap().id),
    };
    let jobs = system.store.claim_jobs(&wish).await.unwrap();
    assert_eq!(jobs.len(), 3);
    assert!(jobs.iter().all(|job| job.project == "other"));
}

async fn keep(system: &System, job: &ClaimedJob, seconds: u64) -> Result<(), StoreError> {
    let holding = Holding {
        job,
        lease: Duration::from_secs(seconds),
        progress: Default::default(),
        column: None,
        trusts_new: true,
    };
    let connection = system.store.connection().await?;
    system.store.keep_job(&connection, &holding).await
}

#[tokio::test]
async fn of_many_jobs_those_are_completed_whose_lease_is_alive() {
    let system = System::embedding_in_process().await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        enqueue(&system, PROJECT, EnqueueOptions::default()).await;
        jobs.push(claim_ingest(&system).await.unwrap());
    }
    let expire = |job: &ClaimedJob| {
        format!(
            "UPDATE cronvec.job_queue SET lease_expires_at = now() - interval '1 second' WHERE id = {}",
            job.lease.job_id
        )
    };
    system.run_sql(&expire(&jobs[0])).await;
    system.run_sql(&expire(&jobs[1])).await;
    // The second is somebody else's by now.
    let heir = claim_ingest(&system).await.unwrap();
    let mut leases: Vec<Lease> = jobs.iter().map(|job| job.lease).collect();
    leases.push(leases[2]);
    assert_eq!(system.store.complete_jobs(&leases).await.unwrap(), 2);
    for job in &jobs[2..] {
        let row = row(&system, job.lease.job_id).await;
        assert_eq!((&row["status"], &row["payload"]), (&json!("COMPLETED"), &json!(null)));
        assert!(row["result"]["activeMs"].is_number());
    }
    assert_eq!(row(&system, heir.lease.job_id).await["status"], "PROCESSING");
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING'")
            .await,
        2
    );
}
