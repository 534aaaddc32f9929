//! Two writes of one job beside each other.

use std::time::Duration;

use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};

#[tokio::test]
async fn no_record_is_part_of_two_writes_that_go_beside_each_other() {
    let provider = Provider::start().await;
    let few = [("EMBEDDING_CHUNK_TOKENS", "8"), ("EMBEDDING_BATCH_SIZE", "100")];
    let system = System::embedding_as(&provider, 8, &few).await;
    // Its chunks come in three answers, of which one is written at once; others come behind them.
    let long: Vec<String> = (0..500).map(|n| format!("part {n}")).collect();
    system.put(PROJECT, "long", &long.join("\n\n")).await;
    system.put_many(PROJECT, 800, "short").await;
    // Each write that has some of them stands still in the middle.
    system
        .run_sql(
            "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
             CREATE TRIGGER wait_for_test BEFORE INSERT ON cronvec.chunks FOR EACH ROW
                 WHEN (NEW.record_id = 'long') EXECUTE FUNCTION wait_for_test()",
        )
        .await;
    let gate = Transaction::begin(&system).await;
    gate.run("SELECT pg_advisory_xact_lock(1)").await;
    let worker = system.vectorization();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let pass = tokio::spawn(async move { worker.run(Default::default(), deadline).await });

    // Those beside it go on, until the lease is to be renewed, which waits for all that are under way.
    let others = "SELECT count(*) FROM cronvec.embedded";
    let waiting = |event: &str, what: &str| {
        format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event = '{event}' AND query LIKE '%{what}%'"
        )
    };
    let renewals = waiting("transactionid", "SET lease_expires_at");
    let standing = waiting("advisory", "WITH mine");
    eventually(
        "the others are written, or wait for the one that stands still",
        || async {
            let (written, standing) = (system.count(others).await, system.count(&standing).await);
            standing > 1 || standing == 1 && (written >= 500 || written > 0 && system.count(&renewals).await > 0)
        },
    )
    .await;
    assert_eq!(system.count(&standing).await, 1, "one write has chunks of it");
    gate.commit().await;
    let report = pass.await.unwrap().unwrap();
    assert_eq!((report.records, report.remaining), (801, false));
    let chunks = system.count("SELECT count(*) FROM cronvec.chunks").await;
    assert!(chunks > 800 + 100, "the long one comes in more answers than one");
    assert_eq!(provider.log().inputs() as i64, chunks, "nothing is asked for twice");
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}
