//! Owns a worker as a process of its own, and what it and the database took.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cronvec_tests::database::Database;
use cronvec_tests::process::{Process, program};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// What one run of a process came to.
#[derive(Debug, Default)]
pub struct Took {
    pub wall: Duration,
    /// Of processors, in seconds.
    pub cpu: f64,
    pub database_cpu: f64,
    pub peak_memory_mb: f64,
    pub said: String,
}

/// Runs `cronvec` with these arguments to its end.
pub async fn run(database: &Database, arguments: &[&str], environment: &[(&str, &str)]) -> Took {
    let sql = database.client().await;
    let mut all = vec![("DATABASE_URL", database.url()), ("RUST_LOG", "warn")];
    all.extend(environment);
    let mut before = HashMap::new();
    for id in backends(&sql, database).await {
        before.insert(id, cpu(id).unwrap_or_default());
    }
    // Built before the clock runs.
    let program = program("cronvec").await;
    let began = Instant::now();
    let mut process = Process::spawn_at(&program, arguments, &all);
    let mut took = Took::default();
    let mut after = HashMap::new();
    loop {
        tokio::select! {
            _ = process.wait() => break,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        took.cpu = cpu(process.id()).unwrap_or(took.cpu);
        took.peak_memory_mb = peak_memory_mb(process.id()).unwrap_or(took.peak_memory_mb);
        for id in backends(&sql, database).await {
            if let Some(cpu) = cpu(id) {
                after.insert(id, cpu);
            }
        }
    }
    took.wall = began.elapsed();
    took.database_cpu = after
        .iter()
        .map(|(id, cpu)| cpu - before.get(id).copied().unwrap_or_default())
        .sum();
    let outcome = process.outcome().await;
    assert!(outcome.status.success(), "cronvec {arguments:?}: {}", outcome.stderr);
    took.said = outcome.stdout;
    took
}

async fn backends(sql: &Client, database: &Database) -> Vec<u32> {
    let rows = sql
        .query_typed(
            "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
            &[(&database.name(), Type::TEXT)],
        )
        .await
        .expect("the backends");
    rows.iter()
        .filter_map(|row| u32::try_from(row.get::<_, i32>(0)).ok())
        .collect()
}

/// Seconds of processors that a process took so far.
pub fn cpu(process: u32) -> Option<f64> {
    // proc(5): the fields after the name, which may have blanks, are counted from 3; utime is 14, stime 15, in ticks of
    // a hundredth of a second.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = [11, 12]
        .iter()
        .filter_map(|field| fields.get(*field)?.parse::<f64>().ok())
        .sum();
    Some(ticks / 100.0)
}

fn peak_memory_mb(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
