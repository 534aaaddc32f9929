//! Owns the speed of the queue itself: jobs that come in, jobs that carry nothing to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cronvec_nouns::job::{JobType, Lease};
use cronvec_store::claim::ClaimWish;
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::{Database, Store};
use cronvec_tests::system::System;

use crate::Sizes;
use crate::rounds::{compare, median, rate};

const JOBS: usize = 50_000;
const PROJECTS: usize = 1_000;
const BATCH: usize = 500;

pub async fn all(sizes: Sizes) {
    let (mut enqueued, mut inserted) = (Vec::new(), Vec::new());
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for round in 0..sizes.rounds {
        let system = System::embedding_in_process().await;
        make_projects(&system).await;
        let (ours, plain) = if round % 2 == 0 {
            let ours = enqueue(&system).await;
            (ours, insert(&system).await)
        } else {
            let plain = insert(&system).await;
            (enqueue(&system).await, plain)
        };
        enqueued.push(rate(JOBS, ours));
        inserted.push(rate(JOBS, plain));
        one.push(rate(JOBS, drain(&system, 1).await));
        enqueue(&system).await;
        two.push(rate(JOBS, drain(&system, 2).await));
    }
    compare("jobs enqueued", &enqueued, "INSERT … SELECT", &inserted);
    for (processes, rates) in [(1, one), (2, two)] {
        let list: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        println!(
            "jobs of nothing claimed and completed, {BATCH} at once, {processes} at it: {:.0}/s ({})",
            median(rates),
            list.join(", ")
        );
    }
}

async fn make_projects(system: &System) {
    system
        .run_sql(&format!(
            "WITH made AS (
                 INSERT INTO cronvec.projects (name) SELECT 'p' || n FROM generate_series(1, {PROJECTS}) AS n RETURNING id)
             INSERT INTO cronvec.project_spaces (project_id, space_id, role)
             SELECT id, (SELECT min(id) FROM cronvec.spaces), 'live' FROM made"
        ))
        .await;
}

/// 50,000 jobs of one record each, projects in turn, in one statement.
async fn enqueue(system: &System) -> Duration {
    let names: Vec<String> = (1..=PROJECTS).map(|n| format!("p{n}")).collect();
    let record: &[u8] = br#"{"id":"a","content":"a text of some words"}"#;
    let records = [record];
    let jobs: Vec<NewJob<'_>> = (0..JOBS)
        .map(|n| NewJob {
            project: &names[n % PROJECTS],
            records: &records,
            options: EnqueueOptions::default(),
        })
        .collect();
    let began = Instant::now();
    system.store.enqueue_many(&jobs).await.expect("jobs");
    began.elapsed()
}

/// One statement that makes the same rows in a table of the same columns and indexes.
async fn insert(system: &System) -> Duration {
    system
        .run_sql("CREATE TABLE plain (LIKE cronvec.job_queue INCLUDING ALL)")
        .await;
    let began = Instant::now();
    system
        .run_sql(&format!(
            "INSERT INTO plain (job_type, project, project_id, payload, turn)
             SELECT 'INGEST_DATA', 'p' || n % {PROJECTS}, n % {PROJECTS},
                 jsonb_build_object('total', 1, 'generateEmbeddings', true, 'priority', 0,
                     'records', jsonb_build_array('{{\"id\":\"a\",\"content\":\"a text of some words\"}}')), n / {PROJECTS}
             FROM generate_series(1, {JOBS}) AS n"
        ))
        .await;
    began.elapsed()
}

async fn drain(system: &System, workers: usize) -> Duration {
    let began = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let store = Arc::new(Store::new(Database::at(system.database.url(), 1).expect("an address")));
        all.spawn(async move {
            let wish = ClaimWish {
                job_type: JobType::IngestData,
                spaces: &[],
                limit: BATCH,
                lease: Duration::from_secs(60),
                worker: "bench",
                project_id: None,
            };
            let mut ended = 0;
            loop {
                let jobs = store.claim_jobs(&wish).await.expect("jobs");
                if jobs.is_empty() {
                    return ended;
                }
                let leases: Vec<Lease> = jobs.iter().map(|job| job.lease).collect();
                let completed = store.complete_jobs(&leases).await.expect("an end");
                assert_eq!(completed, jobs.len() as u64, "no lease is lost");
                ended += jobs.len();
            }
        });
    }
    let mut ended = 0;
    while let Some(count) = all.join_next().await {
        ended += count.expect("a worker");
    }
    let took = began.elapsed();
    assert_eq!(ended, JOBS, "each job was done once");
    took
}
