//! A fail-over: the address leads to a reader for a while, and connections to it stay after the writer is back.

use std::sync::Arc;

use cronvec_call::CallOptions;
use cronvec_secrets::Secrets;
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::records::NewRecord;
use cronvec_store::{Store, StoreError};
use cronvec_tests::conditions::eventually;
use cronvec_tests::failover::Pair;
use cronvec_tests::system::{PROJECT, minute, record, settings};
use tokio_postgres::Client;

const STATIC: [(&str, &str); 1] = [("EMBEDDING_PROVIDER", "static")];

async fn pair() -> Pair {
    Pair::start(async |store| {
        let settings = settings("postgres://unused/unused", &STATIC);
        let space = store.ensure_space(&settings.embedding.new_space).await.unwrap();
        store.ensure_project(PROJECT, space.id, 1).await.unwrap();
    })
    .await
}

fn ingestion(pair: &Pair, store: &Arc<Store>) -> ingestion::Worker {
    ingestion::Worker::new(
        Arc::clone(store),
        settings(&pair.url(), &STATIC),
        Secrets::without_aws(),
    )
}

fn vectorization(pair: &Pair, store: &Arc<Store>) -> vectorization::Worker {
    vectorization::Worker::new(
        Arc::clone(store),
        settings(&pair.url(), &STATIC),
        Secrets::without_aws(),
    )
}

async fn enqueue(store: &Store, records: usize) -> Result<i64, StoreError> {
    let records: Vec<Vec<u8>> = (0..records)
        .map(|n| {
            record(&format!("r{n}"), &format!("a text of some length, number {n}"))
                .to_string()
                .into_bytes()
        })
        .collect();
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let job = NewJob {
        project: PROJECT,
        records: &records,
        options: EnqueueOptions::default(),
    };
    store.enqueue(job).await.map(|job| job.job_id())
}

async fn put(store: &Store, id: &str) -> Result<(), StoreError> {
    let record = NewRecord {
        project: PROJECT,
        id,
        content: "a text",
        metadata: "{}",
    };
    store.put_record(&record, None).await.map(|_| ())
}

async fn count(sql: &Client, statement: &str) -> i64 {
    sql.query_typed(statement, &[]).await.unwrap()[0].get(0)
}

/// Both of the pool's connections lead to where the way leads now.
async fn connect_both(store: &Store) {
    let (one, two) = tokio::join!(store.database().get(), store.database().get());
    drop((one.unwrap(), two.unwrap()));
}

fn says_that_it_is_a_reader(error: &StoreError) {
    let said = error.to_string();
    assert!(said.contains("takes no writes") && error.is_temporary(), "{said}");
}

#[tokio::test]
async fn connections_that_stay_on_a_reader_are_replaced_by_whoever_meets_them() {
    let mut pair = pair().await;
    let store = pair.store();
    put(&store, "before").await.unwrap();
    pair.fail_over().await;
    connect_both(&store).await;
    // Reading works.
    assert_eq!(store.projects().await.unwrap().len(), 1);
    says_that_it_is_a_reader(&put(&store, "meanwhile").await.unwrap_err());
    says_that_it_is_a_reader(&enqueue(&store, 1).await.unwrap_err());
    says_that_it_is_a_reader(&store.set_paused(PROJECT, true).await.unwrap_err());
    says_that_it_is_a_reader(&store.delete_record(PROJECT, "before").await.unwrap_err());

    // What applications ask for works again at once, whichever asks first.
    for first in 0..4 {
        connect_both(&store).await;
        pair.lead_to_writer();
        match first {
            0 => put(&store, "after").await.unwrap(),
            1 => drop(enqueue(&store, 1).await.unwrap()),
            2 => store.set_paused(PROJECT, false).await.unwrap(),
            _ => assert!(store.delete_record(PROJECT, "before").await.unwrap()),
        }
        pair.fail_over().await;
    }
    let sql = pair.sql().await;
    let written = "SELECT count(*) FROM cronvec.records WHERE content IS NOT NULL AND id = 'after'";
    assert_eq!(count(&sql, written).await, 1);
}

#[tokio::test]
async fn ticks_tell_a_reader_and_work_again_once_the_writer_is_back() {
    let mut pair = pair().await;
    let store = pair.store();
    let (ingestion, vectorization) = (ingestion(&pair, &store), vectorization(&pair, &store));
    ingestion.run(CallOptions::default(), minute()).await.unwrap();
    vectorization.run(CallOptions::default(), minute()).await.unwrap();
    pair.fail_over().await;
    connect_both(&store).await;
    for _ in 0..2 {
        says_that_it_is_a_reader(&ingestion.run(CallOptions::default(), minute()).await.unwrap_err());
        says_that_it_is_a_reader(&vectorization.run(CallOptions::default(), minute()).await.unwrap_err());
    }
    connect_both(&store).await;
    pair.lead_to_writer();
    put(&pair.store(), "new").await.unwrap();
    ingestion.run(CallOptions::default(), minute()).await.unwrap();
    assert_eq!(
        vectorization
            .run(CallOptions::default(), minute())
            .await
            .unwrap()
            .records,
        1
    );
}

#[tokio::test]
async fn a_fail_over_in_the_middle_of_an_ingest_is_no_fault_of_the_job() {
    let mut pair = pair().await;
    let store = pair.store();
    let job = enqueue(&store, 2_000).await.unwrap();
    // The worker has the job and waits for the next of its records.
    // Of two connections: what a transaction sees of others' activity is what it saw first.
    let (lock, sql) = (pair.sql().await, pair.sql().await);
    lock.batch_execute("BEGIN; LOCK TABLE cronvec.staged").await.unwrap();
    let pass = tokio::spawn({
        let worker = ingestion(&pair, &store);
        async move { worker.run(CallOptions::default(), minute()).await }
    });
    eventually("it waits for its records", || async {
        count(
            &sql,
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
        )
        .await
            > 0
    })
    .await;
    pair.fail_over().await;
    assert!(pass.await.unwrap().unwrap_err().is_temporary());
    lock.batch_execute("COMMIT").await.unwrap();
    let worker = ingestion(&pair, &store);
    says_that_it_is_a_reader(&worker.run(CallOptions::default(), minute()).await.unwrap_err());

    pair.lead_to_writer();
    sql.batch_execute(
        "UPDATE cronvec.job_queue SET lease_expires_at = now() - interval '1 second' WHERE status = 'PROCESSING'",
    )
    .await
    .unwrap();
    let report = worker.run(CallOptions::default(), minute()).await.unwrap();
    assert_eq!((report.records, report.rejected), (2_000, 0));
    let done =
        format!("SELECT count(*) FROM cronvec.job_queue WHERE id = {job} AND status = 'COMPLETED' AND attempts = 0");
    assert_eq!(count(&sql, &done).await, 1);
}
