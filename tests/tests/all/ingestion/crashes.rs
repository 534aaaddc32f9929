//! Lines that kill the worker which stores them, as real processes.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::conditions::eventually;
use cronvec_tests::process::Process;
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::json;

use super::{enqueue, job};

async fn tick(system: &System) -> Process {
    let environment = [("DATABASE_URL", system.database.url())];
    Process::spawn("cronvec", &["tick", "ingestion"], &environment).await
}

/// Whoever stores the record `poison` gets no further.
async fn poison(system: &System) {
    system
        .run_sql(
            "CREATE FUNCTION public.hang() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN PERFORM pg_sleep(600); RETURN NEW; END';
             CREATE TRIGGER hang BEFORE INSERT ON cronvec.records FOR EACH ROW WHEN (NEW.id = 'poison')
                 EXECUTE FUNCTION public.hang()",
        )
        .await;
}

const HANGING: &str =
    "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep' AND pid <> pg_backend_pid()";

/// Kills workers for as long as they hang; gives how many it were.
async fn kill_while_they_hang(system: &System) -> u32 {
    let mut crashes = 0;
    loop {
        let mut worker = tick(system).await;
        let hanging = format!("SELECT count(*) {HANGING}");
        let mut has_ended = false;
        while !has_ended && system.count(&hanging).await == 0 {
            has_ended = worker.ended().is_some();
        }
        if has_ended {
            assert!(worker.wait().await.success(), "{}", worker.stderr());
            return crashes;
        }
        worker.kill().await;
        crashes += 1;
        assert!(crashes <= 20, "it never ends");
        system
            .run_sql(&format!("SELECT pg_terminate_backend(pid) {HANGING}"))
            .await;
        let others = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()";
        eventually("the dead worker's statements have ended", || async {
            system.count(others).await == 0
        })
        .await;
        system.expire_leases().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_kills_each_worker_is_set_aside_and_all_others_go_in_be_they_staged_or_not() {
    for padding in [1, 2_000] {
        let system = System::embedding_in_process().await;
        poison(&system).await;
        let text = |n: usize| format!("text {n} {}", "x".repeat(padding));
        let mut records: Vec<_> = (0..250).map(|n| record(&format!("r{n}"), &text(n))).collect();
        records[137] = record("poison", "a text");
        let id = enqueue(&system, &records).await;
        let others: Vec<_> = (0..30).map(|n| record(&format!("other-{n}"), "a text")).collect();
        let other = system.enqueue(PROJECT, &others, EnqueueOptions::default()).await;

        let crashes = kill_while_they_hang(&system).await;
        println!("found after {crashes} crashes");
        assert!((1..=7).contains(&crashes), "{crashes}");
        let result = job(&system, id).await["result"].clone();
        assert_eq!(
            (&result["savedCount"], &result["skippedCount"], &result["rejected"]),
            (
                &json!(249),
                &json!(0),
                &json!([{"line": 138, "id": null, "reason": "crashed_worker"}])
            )
        );
        let raw = system.store.raw_rejects(id, 0, 10).await.unwrap();
        assert_eq!(raw[0].1.as_deref(), Some(records[137].to_string().as_bytes()));
        let result = job(&system, other).await["result"].clone();
        assert_eq!(
            (&result["savedCount"], &result["rejectedCount"]),
            (&json!(30), &json!(0))
        );
        assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 279);
    }
}

#[tokio::test]
async fn a_job_whose_workers_die_for_other_reasons_loses_nothing() {
    let system = System::with(&[("INGEST_BATCH_SIZE", "10")]).await;
    let records: Vec<_> = (0..40).map(|n| record(&format!("r{n}"), "a text")).collect();
    let id = enqueue(&system, &records).await;
    // Each died holding it, before it touched a line.
    for crashes in 1..20 {
        system
            .run_sql(&format!(
                "UPDATE cronvec.job_queue SET status = 'PROCESSING', turn = NULL, lease_token = gen_random_uuid(),
                     lease_expires_at = now() - interval '1 second', claimed_at = now(), crashes = {crashes}"
            ))
            .await;
    }
    system.ingest().await;
    let job = job(&system, id).await;
    assert_eq!(
        (
            &job["status"],
            &job["result"]["savedCount"],
            &job["result"]["rejectedCount"]
        ),
        (&json!("COMPLETED"), &json!(40), &json!(0))
    );
}
