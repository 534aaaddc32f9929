//! INGEST_DATA jobs: what goes in, what is set aside, what happens when somebody is in the way.

mod crashes;
mod interruptions;
mod locks;
mod rejects;
mod writes;

use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_tests::system::{PROJECT, System};
use serde_json::Value;

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

async fn is_waiting(system: &System) -> bool {
    system
        .count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
        .await
        > 0
}
