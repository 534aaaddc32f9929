//! Two writes beside each other, of one job and of somebody else; writes of what is there already.

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
            standing > 1 || standing == 1 && (written >= 500 || system.count(&renewals).await > 0)
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

#[tokio::test]
async fn what_somebody_else_has_embedded_meanwhile_is_neither_an_error_nor_stored_twice() {
    let provider = Provider::start().await;
    let system = System::embedding_as(&provider, 8, &[("EMBEDDING_BATCH_SIZE", "10")]).await;
    system.put_many(PROJECT, 10, "text").await;
    let gate = provider.hold();
    let worker = system.vectorization();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let pass = tokio::spawn(async move { worker.run(Default::default(), deadline).await });
    provider.wait_open(1).await;
    // The write sees the database as it was before it has its job.
    let before_write = Transaction::holding_jobs(&system).await;
    drop(gate);
    system.wait_blocked(1).await;
    // As a write that embeds at once has it: the set of the text that it is, shown.
    system
        .run_sql(
            "INSERT INTO cronvec.chunks (space_id, project_id, record_id, content_hash, ordinal, content, chunk_hash, embedding)
             SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = p.id AND l.role = 'live'), p.id, r.id, r.content_hash, 0, r.content,
                 sha256(convert_to(r.content, 'UTF8')), array_fill(0.5, ARRAY[8])::vector
             FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id WHERE r.id = 'r1';
             INSERT INTO cronvec.embedded (space_id, project_id, record_id, content_hash, chunks)
             SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = p.id AND l.role = 'live'), p.id, r.id, r.content_hash, 1
             FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id WHERE r.id = 'r1'",
        )
        .await;
    before_write.commit().await;
    let report = pass.await.unwrap().unwrap();
    assert_eq!((report.records, report.failed, report.remaining), (10, 0, false));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.chunks").await, 10);
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.chunks WHERE record_id = 'r1' AND embedding = array_fill(0.5, ARRAY[8])::vector")
            .await,
        1,
        "the vector that came first is there still"
    );
}

/// Nobody wrote them twice, so their writes don't look first whether something is there.
#[tokio::test]
async fn records_that_look_new_and_are_there_are_completed_all_the_same() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system.put_many(PROJECT, 700, "r").await;
    system.vectorize().await;
    let asked = provider.log().inputs();
    // Some are whole, some lack their chunks, some aren't shown.
    system
        .run_sql(
            "INSERT INTO cronvec.pending (space_id, project_id, record_id, bucket)
                 SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = p.id AND l.role = 'live'), p.id, r.id, r.bucket FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id;
             DELETE FROM cronvec.chunks WHERE hashtext(record_id) % 3 = 0;
             DELETE FROM cronvec.embedded WHERE abs(hashtext(record_id)) % 3 = 1",
        )
        .await;
    let lacking = system
        .count("SELECT count(*) FROM cronvec.records r WHERE hashtext(r.id) % 3 = 0")
        .await;
    system.vectorize().await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
    assert_eq!(
        (provider.log().inputs() - asked) as i64,
        lacking,
        "only what isn't there is asked for"
    );
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}
