//! A user's transaction keeps nobody waiting, and no record that was written is overlooked.
//!
//! More rounds: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all nobody_waits`

use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::between::Transaction;
use cronvec_tests::full_size;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, minute, put, record};
use rand::Rng;
use tokio_postgres::Client;

/// Far less than what a transaction stays open in these tests: until it is ended.
const AT_ONCE: Duration = Duration::from_secs(10);

async fn at_once<T>(what: &str, work: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(AT_ONCE, work).await;
    waited.unwrap_or_else(|_| panic!("{what} waits for the open transaction"))
}

#[tokio::test]
async fn a_transaction_that_stays_open_delays_no_other_writer_and_no_tick() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system.put_many(PROJECT, 50, "text").await;
    system.vectorize().await;
    system
        .put(PROJECT, "r1", "changed, and about to be changed again")
        .await;

    let user = Transaction::begin(&system).await;
    user.run(
        "SELECT cronvec.put_record('articles', 'r1', 'changed again'), cronvec.put_record('articles', 'new', 'new'),
              cronvec.delete_record('articles', 'r2')",
    )
    .await;

    let put = async {
        system.put(PROJECT, "r3", "another writer's").await;
        system.put(PROJECT, "newer", "another writer's new one").await;
    };
    at_once("another writer", put).await;
    let records = [
        record("r1", "from a file"),
        record("r4", "from a file"),
        record("r5", "from a file"),
    ];
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    assert_eq!(at_once("ingestion", system.ingest()).await.records, 2);
    assert_eq!(at_once("vectorization", system.vectorize()).await.records, 4);
    let cleanup = system.cleanup();
    at_once("cleanup", cleanup.run(CallOptions::default(), minute()))
        .await
        .unwrap();

    user.commit().await;
    system
        .run_sql("UPDATE cronvec.job_queue SET scheduled_for = now() WHERE status = 'PENDING' AND turn IS NULL")
        .await;
    system.ingest().await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.purged), (2, 1), "r1 and new; r2");
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    let r1 = "SELECT content FROM cronvec.embeddings WHERE record_id = 'r1'";
    assert_eq!(system.value(r1).await, "from a file", "which was accepted last");
}

#[tokio::test]
async fn a_tick_that_met_only_a_held_record_keeps_neither_it_nor_newer_ones_from_the_next() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system.put(PROJECT, "held", "text").await;
    let user = Transaction::begin(&system).await;
    user.run("SELECT cronvec.put_record('articles', 'held', 'a new text')")
        .await;
    let report = at_once("vectorization", system.vectorize()).await;
    assert_eq!((report.records, report.passed_over), (0, 1));
    assert_eq!(report.requests, 1, "it isn't asked for over and over");

    system.put(PROJECT, "newer", "text").await;
    assert_eq!(at_once("vectorization", system.vectorize()).await.records, 1);
    user.commit().await;
    assert_eq!(system.vectorize().await.records, 1);
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_record_that_is_written_while_its_job_ends_is_not_left_to_a_later_tick() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system.put(PROJECT, "r1", "text").await;
    let end = Transaction::before_jobs_end(&system).await;
    let worker = system.vectorization();
    let pass = tokio::spawn(async move { worker.run(CallOptions::default(), minute()).await });
    system.wait_blocked(1).await;
    // The job's end has begun; what is written now it can't see.
    system.put(PROJECT, "r2", "another text").await;
    let other = system.another_vectorization(&provider);
    other.run(CallOptions::default(), minute()).await.unwrap();
    end.commit().await;
    pass.await.unwrap().unwrap();
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

/// Writes a while: new records, changed ones, deleted ones, in transactions of all lengths.
async fn write(client: Client, round: u32, writer: u32) {
    let (few, moment) = (Duration::from_millis(4), |most| {
        rand::rng().random_range(Duration::ZERO..most)
    });
    for n in 0..rand::rng().random_range(1..8) {
        tokio::time::sleep(moment(few)).await;
        client.batch_execute("BEGIN").await.unwrap();
        match rand::rng().random_range(0..4) {
            0 => put(&client, PROJECT, &format!("new {round} {writer} {n}"), "a new record").await,
            1 => {
                let sql = format!(
                    "SELECT cronvec.delete_record('{PROJECT}', 'r{}')",
                    rand::rng().random_range(1..=20)
                );
                client.batch_execute(&sql).await.unwrap();
            }
            _ => {
                let id = format!("r{}", rand::rng().random_range(1..=20));
                put(&client, PROJECT, &id, &format!("{round} {writer} {n}")).await;
            }
        }
        tokio::time::sleep(moment(few)).await;
        client.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test]
async fn records_that_are_written_at_any_moment_of_a_jobs_end_are_embedded_by_the_next_tick() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    let other = system.another_vectorization(&provider);
    system.put_many(PROJECT, 20, "text").await;
    for round in 0..if full_size() { 1000 } else { 30 } {
        let writers = async {
            let (one, two) = (system.database.client().await, system.database.client().await);
            tokio::join!(write(one, round, 1), write(two, round, 2));
        };
        // Each second round two ticks at once.
        let ticks = async {
            for _ in 0..2 {
                let other = async {
                    if round % 2 == 0 {
                        other.run(CallOptions::default(), minute()).await.unwrap();
                    }
                };
                tokio::join!(system.vectorize(), other);
            }
        };
        tokio::join!(writers, ticks);
        let began = Instant::now();
        let report = system.vectorize().await;
        assert_eq!(
            system.count("SELECT count(*) FROM cronvec.pending").await,
            0,
            "round {round}, {:?}: {report:?}",
            began.elapsed()
        );
    }
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_record_that_an_open_transaction_holds_is_paid_for_once() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system.put(PROJECT, "held", "the text before").await;
    system.put(PROJECT, "locked", "a text that is only locked").await;
    let user = Transaction::begin(&system).await;
    user.run(
        "SELECT cronvec.put_record('articles', 'held', 'the text after');
         SELECT FROM cronvec.records WHERE id = 'locked' FOR UPDATE",
    )
    .await;
    for _ in 0..4 {
        system.vectorize().await;
        // As if the next tick came a minute later.
        system
            .run_sql("UPDATE cronvec.pending SET not_before = now() - interval '1 second' WHERE record_id = 'locked'")
            .await;
    }
    let log = provider.log();
    assert_eq!(
        (log.count("the text before"), log.count("a text that is only locked")),
        (1, 1)
    );
    let facts = system.store.record_facts(PROJECT, "held").await.unwrap();
    assert!(facts.was_held, "explain says what it waits for");

    user.commit().await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.remaining), (2, false));
    assert_eq!(provider.log().count("the text after"), 1);
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.held_records").await, 0);
}

/// Their writer's own time has come to nothing; somebody writes them in another order.
#[tokio::test]
async fn records_are_released_without_getting_into_a_circle_with_a_users_transaction() {
    let system = System::embedding_in_process().await;
    for id in ["m1", "m2"] {
        system.put(PROJECT, id, "a text").await;
    }
    system
        .run_sql("UPDATE cronvec.pending SET not_before = now() + interval '1 hour'")
        .await;
    let mut user = system.database.client().await;
    let user = user.transaction().await.unwrap();
    let write = |id: &str| format!("SELECT cronvec.put_record('{PROJECT}', '{id}', 'another text')");
    user.batch_execute(&write("m2")).await.unwrap();
    let is_through = std::cell::Cell::new(false);
    let (released, ()) = tokio::join!(
        async {
            let released = system.store.release_records(1, 1, &["m2", "m1"]).await;
            is_through.set(true);
            released
        },
        async {
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            cronvec_tests::conditions::eventually("it is through, or waits", async || {
                is_through.get() || system.count(waiting).await == 1
            })
            .await;
            user.batch_execute(&write("m1")).await.unwrap();
            user.commit().await.unwrap();
        }
    );
    released.unwrap();
    assert_eq!(system.vectorize().await.records, 2);
}

#[tokio::test]
async fn what_was_noted_of_a_held_record_goes_when_its_holder_deletes_it() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system.put(PROJECT, "held", "a text").await;
    let user = Transaction::begin(&system).await;
    user.run("SELECT cronvec.delete_record('articles', 'held')").await;
    assert_eq!(system.vectorize().await.passed_over, 1);
    let noted = "SELECT count(*) FROM cronvec.held_records";
    assert_eq!(system.count(noted).await, 1);
    user.commit().await;
    assert_eq!(system.vectorize().await.purged, 1);
    assert_eq!(system.count(noted).await, 0);
}
