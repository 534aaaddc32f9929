//! The queue as a library: who gets which job when, and what becomes of it.

mod backoff;
mod claims;
mod constraints;
mod enqueueing;
mod holds;
mod lanes;
mod pauses;
mod pauses_cut_off;
mod plan;
mod stats;
mod turns;

use std::time::Duration;

use cronvec_nouns::job::{ClaimedJob, JobType};
use cronvec_store::Store;
use cronvec_store::claim::{ClaimWish, Servable};
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_tests::system::{System, record};
use serde_json::Value;

/// Claims as a worker does that serves every space; a space's endpoint is called `endpoint-ID`.
async fn claim(store: &Store, job_type: JobType, limit: usize) -> Vec<ClaimedJob> {
    let spaces = store.spaces().await.expect("spaces");
    let spaces: Vec<Servable> = spaces
        .iter()
        .map(|space| Servable {
            space_id: space.id,
            endpoint: format!("endpoint-{}", space.id),
        })
        .collect();
    claim_of(store, job_type, limit, &spaces).await
}

async fn claim_of(store: &Store, job_type: JobType, limit: usize, spaces: &[Servable]) -> Vec<ClaimedJob> {
    let wish = ClaimWish {
        job_type,
        spaces,
        limit,
        lease: Duration::from_secs(60),
        worker: "a test",
        project_id: None,
    };
    store.claim_jobs(&wish).await.expect("a claim")
}

/// The next INGEST_DATA job.
async fn claim_ingest(system: &System) -> Option<ClaimedJob> {
    claim(&system.store, JobType::IngestData, 1).await.pop()
}

/// The next VECTORIZE job.
async fn claim_vectorize(system: &System) -> Option<ClaimedJob> {
    claim(&system.store, JobType::Vectorize, 1).await.pop()
}

/// Enqueues a job of one record.
async fn enqueue(system: &System, project: &str, options: EnqueueOptions) -> i64 {
    system.enqueue(project, &[record("a", "a text")], options).await
}

/// Enqueues so many small jobs at once and gives their ids.
async fn enqueue_many(store: &Store, project: &str, jobs: usize, options: &EnqueueOptions) -> Vec<i64> {
    let text = record("a", "a text").to_string();
    let records = [text.as_bytes()];
    let jobs: Vec<NewJob<'_>> = (0..jobs)
        .map(|_| NewJob {
            project,
            records: &records,
            options: options.clone(),
        })
        .collect();
    let enqueued = store.enqueue_many(&jobs).await.expect("jobs");
    enqueued.iter().map(|job| job.job_id()).collect()
}

async fn ensure(system: &System) -> u64 {
    let embedding = &system.settings.embedding;
    let backoff = i32::try_from(embedding.backoff_base.as_millis()).unwrap();
    let made = system.store.ensure_vectorize_jobs(embedding.max_attempts, backoff);
    made.await.expect("jobs")
}

/// All columns of a job.
async fn row(system: &System, id: i64) -> Value {
    system
        .value(&format!("SELECT to_jsonb(j) FROM cronvec.job_queue j WHERE id = {id}"))
        .await
}

/// The one VECTORIZE job.
async fn vectorize_job(system: &System) -> i64 {
    system
        .count("SELECT id FROM cronvec.job_queue WHERE job_type = 'VECTORIZE' ORDER BY id DESC LIMIT 1")
        .await
}

/// Lets everything that waits for a time have waited long enough.
async fn make_due(system: &System) {
    system
        .run_sql(
            "UPDATE cronvec.job_queue SET scheduled_for = now() - interval '1 second'
             WHERE status = 'PENDING' AND scheduled_for > now();
             UPDATE cronvec.pending SET not_before = now() - interval '1 second' WHERE not_before > now()",
        )
        .await;
}
