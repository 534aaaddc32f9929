//! What the claim reads, however long the queue is.

use cronvec_nouns::job::JobType;
use cronvec_store::claim::claim_statement;
use cronvec_tests::system::System;
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};

/// What a statement did to `job_queue`.
#[derive(Debug)]
#[allow(dead_code, reason = "told when a test fails")]
pub(super) struct Plan {
    /// Read from it, those among them that were of no use.
    pub rows_of_jobs: f64,
    pub seq_scans: usize,
    pub buffers: f64,
    pub text: String,
}

/// Runs it in a transaction of its own that is rolled back.
pub(super) async fn explain(system: &System, statement: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Plan {
    let mut client = system.database.client().await;
    let transaction = client.transaction().await.unwrap();
    explain_in(&transaction, statement, params).await
}

/// The same as the store asks for what must follow an index.
pub(super) async fn explain_along_index(
    system: &System,
    statement: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Plan {
    let mut client = system.database.client().await;
    let transaction = client.transaction().await.unwrap();
    transaction
        .batch_execute(
            "SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
             SET LOCAL jit = off",
        )
        .await
        .unwrap();
    explain_in(&transaction, statement, params).await
}

async fn explain_in(
    transaction: &tokio_postgres::Transaction<'_>,
    statement: &str,
    params: &[(&(dyn ToSql + Sync), Type)],
) -> Plan {
    let statement = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}");
    let rows = transaction.query_typed(&statement, params).await.unwrap();
    let plan: Value = rows[0].get(0);
    let mut found = Plan {
        rows_of_jobs: 0.0,
        seq_scans: 0,
        buffers: 0.0,
        text: serde_json::to_string_pretty(&plan).unwrap(),
    };
    let root = &plan[0]["Plan"];
    found.buffers = root["Shared Hit Blocks"].as_f64().unwrap() + root["Shared Read Blocks"].as_f64().unwrap();
    walk(root, &mut found);
    found
}

fn walk(node: &Value, found: &mut Plan) {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    if node["Relation Name"] == "job_queue" && node["Node Type"] != "ModifyTable" {
        let each = number("Actual Rows") + number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        found.rows_of_jobs += each * number("Actual Loops");
        // A scan that the executor never began has read nothing.
        if node["Node Type"].as_str().unwrap().contains("Seq Scan") && number("Actual Loops") > 0.0 {
            found.seq_scans += 1;
        }
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, found);
    }
}

/// 20,000 delayed and urgent, 20,000 pending of one busy project, 50,000 finished; and a few of others. Of VECTORIZE,
/// which has one job a project and lane, 5,000 of each.
async fn a_long_queue() -> System {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, space_id, project, project_id, priority, scheduled_for)
             SELECT 'INGEST_DATA', 0, 'delayed', 3, 10, now() + interval '1 day' FROM generate_series(1, 20000) UNION ALL
             SELECT 'VECTORIZE', 1, 'delayed', 100000 + n, 10, now() + interval '1 day' FROM generate_series(1, 5000) AS n;
             INSERT INTO cronvec.job_queue (job_type, space_id, project, project_id, turn)
             SELECT 'INGEST_DATA', 0, 'busy', 1, n FROM generate_series(1, 20000) AS n UNION ALL
             SELECT 'VECTORIZE', 1, 'busy', n, n FROM generate_series(1, 5000) AS n;
             INSERT INTO cronvec.job_queue (job_type, space_id, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', 0, 'done', 2, 'COMPLETED', now() FROM generate_series(1, 50000) UNION ALL
             SELECT 'VECTORIZE', 1, 'done', 2, 'COMPLETED', now() FROM generate_series(1, 5000);
             INSERT INTO cronvec.job_queue (job_type, space_id, project, project_id, turn, priority)
             SELECT job_type, space, 'few', 300000 + n, 1, n
             FROM generate_series(-5, 5) AS n, (VALUES ('INGEST_DATA', 0), ('VECTORIZE', 1)) AS j (job_type, space)",
        )
        .await;
    system
}

async fn claim_plan(system: &System, job_type: JobType, limit: i64, project: Option<i32>) -> Plan {
    let statement = claim_statement(job_type, project.is_some());
    let space = i32::from(job_type == JobType::Vectorize);
    explain(
        system,
        &statement,
        &[
            (&job_type.as_str(), Type::TEXT),
            (&vec![space], Type::INT4_ARRAY),
            (&vec!["an endpoint"], Type::TEXT_ARRAY),
            (&limit, Type::INT8),
            (&60.0_f64, Type::FLOAT8),
            (&"a test", Type::TEXT),
            (&project, Type::INT4),
            (&uuid::Uuid::nil(), Type::UUID),
        ],
    )
    .await
}

#[tokio::test]
async fn a_claim_reads_a_handful_of_rows_of_a_long_queue() {
    let system = a_long_queue().await;
    // As a young table is, and as one that has been looked at.
    for analyze in ["", "ANALYZE cronvec.job_queue"] {
        system.run_sql(analyze).await;
        for job_type in [JobType::IngestData, JobType::Vectorize] {
            for (limit, project, pick) in [
                (1, None, 1),
                (1, None, 1000),
                (10, None, 1),
                (1, Some(1), 1),
                (1, Some(300_001), 1),
            ] {
                let picks = format!("cronvec.picks_{}", job_type.as_str().to_lowercase());
                system
                    .run_sql(&format!("SELECT setval('{picks}', {pick}, false)"))
                    .await;
                let plan = claim_plan(&system, job_type, limit, project).await;
                let case = format!("{limit} {job_type} of {project:?}, {analyze:?}");
                assert_eq!(plan.seq_scans, 0, "{case}: {}", plan.text);
                assert!(
                    plan.rows_of_jobs <= 20.0 + 6.0 * limit as f64,
                    "{case} reads {} rows: {}",
                    plan.rows_of_jobs,
                    plan.text
                );
                assert!(
                    plan.buffers < 500.0,
                    "{case} reads {} blocks: {}",
                    plan.buffers,
                    plan.text
                );
            }
        }
    }
}
