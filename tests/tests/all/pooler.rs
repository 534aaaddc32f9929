//! The way of a record through PgBouncer in transaction mode, as most deployments have one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_secrets::Secrets;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_store::{self as store, Store};
use cronvec_tests::conditions::{LIMIT, eventually};
use cronvec_tests::database::Database;
use cronvec_tests::pgbouncer::PgBouncer;
use cronvec_tests::provider::{Answer, Provider, vector};
use cronvec_tests::proxy::Proxy;
use cronvec_tests::system::{PROJECT, System, minute, record};
use serde_json::{Value, json};
use vectorization::StoppedBecause;

const WIDTH: u16 = 16;

async fn system(pooler: &PgBouncer, provider: &Provider) -> System {
    let database = Database::fresh().await;
    let address = pooler.url(&database);
    system_at(database, &address, provider).await
}

async fn system_at(database: Database, address: &str, provider: &Provider) -> System {
    let url = provider.url();
    let variables = [
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", url.as_str()),
        ("EMBEDDING_DIMENSIONS", "16"),
    ];
    System::through(database, address, &variables).await
}

fn records(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers
        .map(
            |n| json!({"id": format!("r{n}"), "content": format!("text number {n}"), "metadata": {"even": n % 2 == 0}}),
        )
        .collect()
}

#[tokio::test]
async fn the_whole_way_of_a_record_passes_through_a_transaction_pooler() {
    let Some(pooler) = PgBouncer::start().await else { return };
    let provider = Provider::start().await;
    let system = system(&pooler, &provider).await;
    let store = &system.store;
    store.check_schema().await.unwrap();

    // Enough that a job is staged in pieces.
    let mut all = records(0..400);
    all.push(record("long", &"a sentence of a long text. ".repeat(4000)));
    system.enqueue(PROJECT, &all, EnqueueOptions::default()).await;
    let ingested = system.ingest().await;
    assert_eq!((ingested.records, ingested.rejected), (401, 0));
    let report = system.vectorize().await;
    assert_eq!((report.records, report.stopped_because), (401, StoppedBecause::Drained));
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;

    let query = vector("text number 7", WIDTH.into()).into();
    let live = store.project(PROJECT).await.unwrap().live_space;
    let hits = store.search(PROJECT, live, &query, 3, None).await.unwrap();
    assert_eq!((hits[0].id.as_str(), hits.len(), hits[0].stale), ("r7", 3, false));
    assert!(hits[0].score > 0.999);
    let even = json!({"even": true});
    let hits = store.search(PROJECT, live, &query, 500, Some(&even)).await.unwrap();
    assert_eq!(hits.len(), 200);

    for n in 0..100 {
        let delete = format!("SELECT cronvec.delete_record('{PROJECT}', 'r{n}')");
        system.run_sql(&delete).await;
    }
    assert_eq!(system.vectorize().await.purged, 100);
    system
        .run_sql(
            "UPDATE cronvec.job_queue SET completed_at = now() - interval '8 days' WHERE completed_at IS NOT NULL;
             UPDATE cronvec.records SET updated_at = now() - interval '2 days' WHERE content IS NULL",
        )
        .await;
    let cleaned = system.cleanup().run(CallOptions::default(), minute()).await.unwrap();
    assert_eq!(cleaned.deleted_count, 103, "three jobs and the tombstones");
    let coverage = store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.pending), (301, 301, 0));
}

#[tokio::test]
async fn retry_cancel_charges_and_pauses_pass_through_a_transaction_pooler() {
    let Some(pooler) = PgBouncer::start().await else { return };
    let provider = Provider::start().await;
    let system = system(&pooler, &provider).await;
    let store = &system.store;
    let job = system
        .enqueue(PROJECT, &records(0..60), EnqueueOptions::default())
        .await;
    store.cancel_job(job).await.unwrap();
    assert_eq!(system.ingest().await.processed, 0);
    assert_eq!(store.job(job).await.unwrap().status, "CANCELLED");
    store.retry_job(job).await.unwrap();
    assert_eq!(system.ingest().await.records, 60);

    provider.answer_next(1, Answer::throttled(7));
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Provider);
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Paused);
    let endpoint = store.pauses(None).await.unwrap().pop().unwrap().endpoint;
    store.resume_endpoint(&endpoint).await.unwrap();
    provider.answer_containing("poison", Answer::rejected());
    system.put(PROJECT, "bad", "a text that is poison").await;
    let report = system.vectorize().await;
    assert_eq!((report.quarantined, report.remaining), (1, false));

    store.set_paused(PROJECT, true).await.unwrap();
    system.put(PROJECT, "later", "a text for later").await;
    assert_eq!(system.vectorize().await.records, 0);
    store.set_paused(PROJECT, false).await.unwrap();
    assert_eq!(system.vectorize().await.records, 1);
    let stats = store.queue_stats().await.unwrap();
    assert_eq!(
        (
            stats.queue_stats.pending,
            stats.queue_stats.processing,
            stats.queue_stats.failed
        ),
        (0, 0, 0)
    );
    assert_eq!(store.worker_statuses().await.unwrap().len(), 2);
}

#[tokio::test]
async fn twenty_workers_share_a_pool_of_five() {
    let Some(pooler) = PgBouncer::with_pool(5).await else {
        return;
    };
    let provider = Provider::start().await;
    let system = system(&pooler, &provider).await;
    let projects: Vec<String> = (0..6).map(|n| format!("project {n}")).collect();
    for project in &projects {
        system.create_project(project).await;
        let texts: Vec<Value> = (0..150)
            .map(|n| record(&format!("r{n}"), &format!("text number {n} of {project}")))
            .collect();
        system.enqueue(project, &texts, EnqueueOptions::default()).await;
    }
    let address = pooler.url(&system.database);
    // Forty connections to the pooler, for five that it has.
    let stores: Vec<Arc<Store>> = (0..20)
        .map(|_| Arc::new(Store::new(store::Database::at(&address, 2).unwrap())))
        .collect();
    let ingesting = stores.iter().map(|store| {
        let worker = ingestion::Worker::new(Arc::clone(store), system.settings.clone(), Secrets::without_aws());
        async move { worker.run(CallOptions::default(), minute()).await.unwrap() }
    });
    let ingested = futures::future::join_all(ingesting).await;
    assert_eq!(ingested.iter().map(|report| report.records).sum::<u64>(), 900);
    let embedding = stores.iter().map(|store| {
        let worker = vectorization::Worker::new(Arc::clone(store), system.settings.clone(), Secrets::without_aws());
        async move { worker.run(CallOptions::default(), minute()).await.unwrap() }
    });
    let reports = futures::future::join_all(embedding).await;
    assert_eq!(reports.iter().map(|report| report.records).sum::<u64>(), 900);
    assert_eq!(
        reports
            .iter()
            .map(|report| report.lost_leases + report.failed)
            .sum::<u64>(),
        0
    );
    assert!(
        reports.iter().filter(|report| report.records > 0).count() > 1,
        "they shared the work"
    );
    assert_eq!(provider.log().inputs(), 900, "no text was paid for twice");
    for project in &projects {
        system.assert_all_embedded_by_fake(project, WIDTH.into()).await;
    }
}

/// What happens to a worker's connections in the middle of its work.
#[derive(Clone, Copy, Debug)]
enum Blow {
    KillsBackends,
    RestartsPooler,
    /// All connections, and refuses new ones for a while, as a server that restarts does.
    BreaksOff,
    Swallows,
}

#[tokio::test]
async fn whatever_happens_to_connections_the_next_tick_works_and_nothing_is_lost() {
    let Some(mut pooler) = PgBouncer::with_pool(5).await else {
        return;
    };
    let provider = Provider::start().await;
    // Ours go past the pooler.
    let database = Database::fresh().await;
    let address = database.url().to_owned();
    let system = system_at(database, &address, &provider).await;
    let mut way = Proxy::to_port(pooler.port()).await;
    let url = pooler
        .url(&system.database)
        .replace(&format!(":{}/", pooler.port()), &format!(":{}/", way.address().port()));
    let store = Arc::new(Store::new(store::Database::at(&url, 3).unwrap()));
    let worker = Arc::new(vectorization::Worker::new(
        store,
        system.settings.clone(),
        Secrets::without_aws(),
    ));
    let blows = [
        Blow::KillsBackends,
        Blow::RestartsPooler,
        Blow::BreaksOff,
        Blow::Swallows,
    ];
    for (round, blow) in blows.into_iter().enumerate() {
        system.put_many(PROJECT, 100, &format!("round {round} text")).await;
        let gate = provider.hold();
        let pass = tokio::spawn({
            let worker = Arc::clone(&worker);
            // As in a function, whose checks come first.
            async move {
                worker
                    .run(CallOptions::default(), Instant::now() + Duration::from_secs(12))
                    .await
            }
        });
        provider.wait_open(4).await;
        match blow {
            Blow::KillsBackends => {
                let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
                system.run_sql(others).await;
            }
            Blow::RestartsPooler => pooler.restart().await,
            Blow::BreaksOff => way.close().await,
            Blow::Swallows => way.swallow(),
        }
        gate.release();
        // How this one ends is its own affair, if only it ends.
        let ended = pass.await.unwrap();
        if matches!(blow, Blow::BreaksOff) {
            way.open();
        }
        system.expire_leases().await;
        worker.store.database().check().await.unwrap();
        let next = worker.run(CallOptions::default(), minute()).await.unwrap();
        assert!(!next.remaining, "{blow:?}: {ended:?}, then {next:?}");
        assert_eq!(
            system.count("SELECT count(*) FROM cronvec.pending").await,
            0,
            "{blow:?}"
        );
    }
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

/// The next one would ask in the middle of it, and a pooler may lose its place then. And a question that waits for a lock
/// would wait on, at the server and in one of the pooler's connections.
async fn is_given_up(system: &System, address: &str) {
    let store = Store::new(store::Database::at(address, 1).unwrap());
    let lock = cronvec_tests::between::Transaction::begin(system).await;
    lock.run("LOCK TABLE cronvec.projects").await;
    tokio::select! {
        answered = store.project(PROJECT) => panic!("{answered:?}"),
        () = system.wait_blocked(1) => {}
    }
    let other = tokio::time::timeout(LIMIT, store.worker_statuses()).await;
    assert!(
        other.is_ok_and(|answered| answered.is_ok()),
        "it waits for nobody's answer"
    );
    eventually("the server has ended it", || async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        system.count(waiting).await == 0
    })
    .await;
    lock.commit().await;
    store.project(PROJECT).await.unwrap();
}

#[tokio::test]
async fn a_question_that_is_given_up_is_ended_and_leaves_its_connection_to_nobody() {
    let system = System::embedding_in_process().await;
    is_given_up(&system, system.database.url()).await;
}

#[tokio::test]
async fn a_question_that_is_given_up_behind_a_pooler_is_ended_at_the_server() {
    let Some(pooler) = PgBouncer::with_pool(5).await else {
        return;
    };
    let system = System::embedding_in_process().await;
    let address = pooler.url(&system.database);
    is_given_up(&system, &address).await;
}
