//! Users, workers and passes at work on the same rows.
//!
//! For a minute: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all attach::together`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_store::sources::NewSource;
use cronvec_tests::full_size;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use rand::Rng;
use rand::seq::SliceRandom;
use tokio_postgres::Client;

use super::{MOST_BYTES, articles, attach, create_articles, pass, reconcile, texts, waiting};

const ROWS: i32 = 40;

/// An application that changes rows several at a time, each transaction in the same order of rows, as one must.
async fn application(client: Client, name: u32, over: Arc<AtomicBool>) -> u64 {
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        let mut ids: Vec<i32> = (1..=ROWS).collect();
        ids.shuffle(&mut rand::rng());
        ids.truncate(6);
        ids.sort_unstable();
        let mut sql = String::from("BEGIN;");
        for id in ids {
            sql += &match rand::rng().random_range(0..8) {
                0 => format!("DELETE FROM articles WHERE id = {id};"),
                1 => format!("UPDATE articles SET views = views + 1 WHERE id = {id};"),
                2 | 3 => format!(
                    "INSERT INTO articles VALUES ({id}, 'of {name}, {done}') ON CONFLICT (id) DO UPDATE SET title = excluded.title;"
                ),
                _ => format!("UPDATE articles SET body = 'of {name}, {done}' WHERE id = {id};"),
            };
        }
        sql += "COMMIT";
        client
            .batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        done += 1;
    }
    done
}

#[tokio::test]
async fn of_applications_workers_and_passes_on_the_same_rows_none_costs_a_user_a_deadlock() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, ROWS.unsigned_abs()).await;
    system.run_sql("ALTER TABLE articles ADD embedding vector(8)").await;
    let new = NewSource {
        embedding_column: Some("embedding"),
        forgets: true,
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut users = tokio::task::JoinSet::new();
    for name in 0..2 {
        users.spawn(application(system.database.client().await, name, Arc::clone(&over)));
    }
    let passes = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs(if full_size() { 60 } else { 4 });
    let tick = async |worker: vectorization::Worker| {
        while Instant::now() < until {
            // A tick goes on while there is work, and here there always is.
            let deadline = Instant::now() + Duration::from_secs(4);
            worker.run(CallOptions::default(), deadline).await.unwrap();
            system
                .run_sql("UPDATE cronvec.pending SET not_before = now() WHERE not_before > now()")
                .await;
        }
    };
    let compare = async {
        while Instant::now() < until {
            system.store.begin_pass(source.id, true).await.unwrap();
            match system.store.reconcile_slice(source.id, MOST_BYTES).await {
                Err(error) => assert!(error.is_lock_timeout() || error.is_outage(), "{error}"),
                Ok(_) => {
                    passes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    tokio::join!(
        tick(system.vectorization()),
        tick(system.another_vectorization(&provider)),
        compare
    );
    over.store(true, Ordering::Relaxed);
    let done: u64 = users.join_all().await.into_iter().sum();
    assert!(
        done > 50 && passes.load(Ordering::Relaxed) > 10,
        "{done} transactions, {passes:?} slices"
    );
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(system.count(deadlocks).await, 0);

    reconcile(&system, &source).await;
    reconcile(&system, &source).await;
    system.run_sql("UPDATE cronvec.pending SET not_before = now()").await;
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    let wrong = "SELECT count(*) FROM articles a FULL JOIN cronvec.embeddings e ON e.record_id = a.id::text
        WHERE e.embedding IS DISTINCT FROM a.embedding OR e.content IS DISTINCT FROM concat_ws(E'\\n\\n', a.title, nullif(a.body, ''))";
    assert_eq!(system.count(wrong).await, 0);
}

#[tokio::test]
async fn an_attaching_that_is_killed_in_the_middle_is_finished_by_ticks_with_nothing_lost_or_paid_twice() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, 2_500).await;
    system
        .run_sql(
            "ALTER TABLE articles ADD embedding vector(8);
             UPDATE articles SET embedding = array_fill(1, ARRAY[8])::vector WHERE id % 5 = 0",
        )
        .await;
    let project = system.store.project(PROJECT).await.unwrap();
    let space = &system.settings.embedding.new_space;
    let new = NewSource {
        embedding_column: Some("embedding"),
        adopt: Some(&space.model),
        ..articles()
    };
    let source = system.store.attach(&new, &project, space).await.unwrap();
    // The first slice, and there it ends.
    assert_eq!(
        system
            .store
            .reconcile_slice(source.id, MOST_BYTES)
            .await
            .unwrap()
            .written(),
        1_000
    );
    // Written meanwhile: rows that were read, and rows that weren't.
    system
        .run_sql(
            "UPDATE articles SET title = 'changed' WHERE id IN (1, 5, 2000);
             DELETE FROM articles WHERE id IN (2, 2001); INSERT INTO articles VALUES (3000, 'new')",
        )
        .await;
    for _ in 0..3 {
        system.vectorize().await;
    }
    assert_eq!(waiting(&system).await, serde_json::json!([]));
    assert_eq!(texts(&system).await.as_object().unwrap().len(), 2_499);
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded), (2_499, 2_499));
    assert_eq!(
        system
            .count("SELECT count(*) FROM articles WHERE embedding IS NULL")
            .await,
        0
    );
    let after = system.store.source(PROJECT).await.unwrap();
    assert_eq!((after.passes, after.trouble), (1, None));
    let adopted = "SELECT count(*) FROM articles WHERE embedding = array_fill(1, ARRAY[8])::vector";
    assert_eq!(
        system.count(adopted).await,
        498,
        "all that were there but those of 5 and 2000"
    );
}

#[tokio::test]
async fn a_pass_writes_nothing_over_a_row_that_changes_while_it_looks() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    let source = attach(&system, &articles()).await.unwrap();
    // The record differs from its row, and a user is about to change both.
    system
        .run_sql(
            "UPDATE cronvec.records SET content = 'odd', content_hash = cronvec.content_hash('odd') WHERE id = '1'",
        )
        .await;
    let user = cronvec_tests::between::Transaction::begin(&system).await;
    user.run("UPDATE articles SET title = 'of the user' WHERE id = 1").await;
    system.store.begin_pass(source.id, false).await.unwrap();
    let slice = system.store.reconcile_slice(source.id, MOST_BYTES).await.unwrap();
    assert_eq!(slice.written(), 0, "the record is in a user's hands");
    user.commit().await;
    pass(&system, &source).await;
    assert_eq!(texts(&system).await["1"], "of the user\n\nbody 1");
}
