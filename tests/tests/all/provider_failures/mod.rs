//! What a provider can do wrong, who is charged for it, and what happens next: a test a row of the table.

mod answers;
mod circuits;
mod errors;
mod kinds;
mod learnt;
mod lengths;
mod pauses;
mod rejections;
mod shown;
mod table;

use cronvec_tests::provider::{Log, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};
use vectorization::{Report, StoppedBecause};

const WIDTH: u16 = 16;
const CANARY: &str = "The quick brown fox jumps over the lazy dog.";

/// Requests that finding one bad input in a batch of 25 may cost: both halves of each level, and three.
const SEARCH: usize = 12;

/// A provider, and a system that has this many records for it.
async fn with_records(count: usize) -> (Provider, System) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    for n in 0..count {
        put(&system, n).await;
    }
    (provider, system)
}

async fn put(system: &System, n: usize) {
    system.put(PROJECT, &id(n), &text(n)).await;
}

fn id(n: usize) -> String {
    format!("r{n:03}")
}

/// Ends in a mark, so that no text is a part of another.
fn text(n: usize) -> String {
    format!("text number {n}.")
}

async fn jobs(system: &System) -> Vec<String> {
    let jobs = "SELECT coalesce(jsonb_agg(status ORDER BY id), '[]') FROM cronvec.job_queue";
    serde_json::from_value(system.value(jobs).await).unwrap()
}

async fn quarantine(system: &System) -> Vec<Value> {
    let rows = "SELECT coalesce(jsonb_agg(to_jsonb(q) - 'last_attempt_at' ORDER BY record_id), '[]') FROM cronvec.quarantine q";
    serde_json::from_value(system.value(rows).await).unwrap()
}

/// The only pause there is.
async fn pause(system: &System) -> Value {
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 1);
    let row = "SELECT jsonb_build_object('circuit', circuit, 'message', message,
                   'seconds', round(extract(epoch FROM until - updated_at))) FROM cronvec.provider_pauses";
    system.value(row).await
}

async fn end_pauses(system: &System) {
    system
        .run_sql("UPDATE cronvec.provider_pauses SET until = now() - interval '1 second'")
        .await;
}

/// Lets what waits for another attempt be due now.
async fn end_backoff(system: &System) {
    system
        .run_sql("UPDATE cronvec.pending SET not_before = now() - interval '1 second'")
        .await;
}

/// Neither a record nor a job pays for what happened, and nothing stands aside.
async fn assert_nobody_is_charged(system: &System, pending: i64) {
    let charged = "SELECT count(*) FROM cronvec.pending WHERE attempts > 0 OR not_before > now()";
    assert_eq!(system.count(charged).await, 0, "no record is charged");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, pending);
    let charged = "SELECT count(*) FROM cronvec.job_queue WHERE attempts > 0 OR crashes > 0 OR status <> 'PENDING'";
    assert_eq!(system.count(charged).await, 0, "no job is charged");
    assert_eq!(quarantine(system).await, [] as [Value; 0]);
}

/// Every record but these is embedded.
async fn assert_embedded_but(system: &System, total: i64, others: i64) {
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.embeddings WHERE NOT stale")
            .await,
        total - others
    );
}

fn times_asked(log: &Log, n: usize) -> usize {
    log.count(&text(n))
}

fn assert_found_by_halves(log: &Log, batches: usize) {
    let extra = log.requests.len() - batches;
    assert!(extra <= SEARCH, "{extra} requests more than batches");
}

/// Three ticks of a record that is charged each time, and its end in quarantine.
async fn assert_set_aside_after_three(system: &System, first: &Report, message: &str) {
    assert_eq!(
        (first.failed, first.quarantined, first.stopped_because),
        (1, 0, StoppedBecause::Drained)
    );
    for quarantined in [0, 1] {
        end_backoff(system).await;
        let report = system.vectorize().await;
        assert_eq!((report.records, report.failed, report.quarantined), (0, 1, quarantined));
    }
    let aside = quarantine(system).await;
    assert_eq!(
        (&aside[0]["record_id"], &aside[0]["reason"], &aside[0]["attempts"]),
        (&json!(id(0)), &json!("unusable_answer"), &json!(3))
    );
    let said = aside[0]["message"].as_str().unwrap();
    assert!(said.contains(message), "{said}");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
}
