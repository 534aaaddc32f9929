//! Owns what a claim costs in a queue that is long: delayed, busy, or full of finished jobs.

use std::time::{Duration, Instant};

use cronvec_nouns::job::{JobType, Lease};
use cronvec_store::claim::{ClaimWish, claim_statement};
use cronvec_tests::system::System;
use serde_json::Value;
use tokio_postgres::types::Type;

use crate::rounds::median;

const CLAIMS: usize = 40;

/// Each beside a queue with four thousand jobs and no more, claim by claim.
pub async fn long_queues(most: usize) {
    let short = queue("").await;
    let scenes = [
        (
            "and a million delayed ones of high priority",
            format!(
                "INSERT INTO cronvec.job_queue (job_type, project, project_id, priority, scheduled_for)
                 SELECT 'INGEST_DATA', 'other', 1, 100, now() + interval '1 day' FROM generate_series(1, {most})"
            ),
        ),
        (
            "and a million due ones of one busy project",
            format!(
                "INSERT INTO cronvec.job_queue (job_type, project, project_id, turn)
                 SELECT 'INGEST_DATA', 'busy', 2, n FROM generate_series(1, {most}) AS n"
            ),
        ),
        (
            "and ten million finished ones",
            format!(
                "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at)
                 SELECT 'INGEST_DATA', 'past', 3, 'COMPLETED', now() FROM generate_series(1, {})",
                most * 10
            ),
        ),
    ];
    let (buffers, rows) = explained(&short).await;
    println!("four thousand due: {buffers} buffers, {rows} rows of jobs read for 10 claimed");
    for (name, sql) in scenes {
        let long = queue(&sql).await;
        let (buffers, rows) = explained(&long).await;
        println!("{name}: {buffers} buffers, {rows} rows of jobs read for 10 claimed");
        for analysed in [false, true] {
            if analysed {
                long.run_sql("ANALYZE cronvec.job_queue").await;
                short.run_sql("ANALYZE cronvec.job_queue").await;
            }
            let (mut short_times, mut long_times) = (Vec::new(), Vec::new());
            for _ in 0..CLAIMS {
                short_times.push(claim(&short).await);
                long_times.push(claim(&long).await);
            }
            let (short, long) = (median(short_times), median(long_times));
            println!(
                "  {}: {long:.2} ms a claim, {short:.2} ms in the short queue meanwhile; ratio {:.2}",
                if analysed {
                    "with statistics"
                } else {
                    "without statistics"
                },
                long / short
            );
        }
    }
}

/// A queue with this in it, and four thousand jobs of ten projects that are due.
async fn queue(sql: &str) -> System {
    let system = System::embedding_in_process().await;
    system.run_sql("SET statement_timeout = 0").await;
    if !sql.is_empty() {
        system.run_sql(sql).await;
    }
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, turn)
             SELECT 'INGEST_DATA', 'articles', 4 + n % 10, n / 10 FROM generate_series(1, 4000) AS n",
        )
        .await;
    // What the filling left to be written is no claim's.
    system.run_sql("CHECKPOINT").await;
    system
}

/// The time of a claim of ten, in ms. They are completed.
async fn claim(system: &System) -> f64 {
    let began = Instant::now();
    let jobs = system.store.claim_jobs(&wish()).await.expect("jobs");
    let took = began.elapsed().as_secs_f64() * 1000.0;
    assert_eq!(jobs.len(), 10);
    let leases: Vec<Lease> = jobs.iter().map(|job| job.lease).collect();
    system.store.complete_jobs(&leases).await.expect("an end");
    took
}

fn wish() -> ClaimWish<'static> {
    ClaimWish {
        job_type: JobType::IngestData,
        spaces: &[],
        limit: 10,
        lease: Duration::from_secs(60),
        worker: "bench",
        project_id: None,
    }
}

/// The blocks that a claim touches, and the rows of jobs that it reads, those that it claims among them.
async fn explained(system: &System) -> (f64, f64) {
    let statement = format!(
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {}",
        claim_statement(JobType::IngestData, false)
    );
    system
        .run_sql("BEGIN; SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off")
        .await;
    let rows = system
        .sql
        .query_typed(
            &statement,
            &[
                (&"INGEST_DATA", Type::TEXT),
                (&[0_i32].as_slice(), Type::INT4_ARRAY),
                (&[""].as_slice(), Type::TEXT_ARRAY),
                (&10_i64, Type::INT8),
                (&60_f64, Type::FLOAT8),
                (&"bench", Type::TEXT),
                (&None::<i32>, Type::INT4),
            ],
        )
        .await
        .expect("a plan");
    system.run_sql("ROLLBACK").await;
    let plan: Value = rows[0].get(0);
    let root = &plan[0]["Plan"];
    let number = |node: &Value, name: &str| node[name].as_f64().unwrap_or(0.0);
    let buffers = number(root, "Shared Hit Blocks") + number(root, "Shared Read Blocks");
    (buffers, rows_of_jobs(root))
}

fn rows_of_jobs(node: &Value) -> f64 {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let own = if node["Relation Name"] == "job_queue" && node["Node Type"] != "ModifyTable" {
        (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops")
    } else {
        0.0
    };
    let children = node["Plans"].as_array().into_iter().flatten();
    own + children.map(rows_of_jobs).sum::<f64>()
}
