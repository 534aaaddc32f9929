//! Defaults of the role or the database that are meant for others: isolation, limits, read-only. They fail no tick, hold no
//! lane and cost no job an attempt.

use std::sync::Arc;

use cronvec_call::CallOptions;
use cronvec_edges::cause::chain;
use cronvec_nouns::job::{JobType, Lease};
use cronvec_secrets::Secrets;
use cronvec_store::claim::ClaimWish;
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::{self as store, Store};
use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::eventually;
use cronvec_tests::database::Database;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, minute, record};
use futures::future::join_all;
use tokio_postgres::error::SqlState;

/// A database whose new sessions have these defaults.
async fn with_defaults(defaults: &[(&str, &str)]) -> Database {
    let database = Database::fresh().await;
    let sql = database.client().await;
    for (name, value) in defaults {
        sql.batch_execute(&format!("ALTER DATABASE {} SET {name} = '{value}'", database.name()))
            .await
            .unwrap();
    }
    database
}

async fn system_with(provider: &Provider, defaults: &[(&str, &str)], more: &[(&str, &str)]) -> System {
    let database = with_defaults(defaults).await;
    let url = provider.url();
    let mut variables = vec![
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", url.as_str()),
        ("EMBEDDING_DIMENSIONS", "16"),
    ];
    variables.extend(more);
    System::on(database, &variables).await
}

/// Workers and users who are in each other's way, under this isolation.
async fn work_beside_writers(isolation: &str) {
    let provider = Provider::start().await;
    let few = [("VECTORIZE_LANES_PER_PROJECT", "4"), ("EMBEDDING_BATCH_SIZE", "20")];
    let system = system_with(&provider, &[("default_transaction_isolation", isolation)], &few).await;
    let records: Vec<_> = (0..900)
        .map(|n| record(&format!("r{n}"), &format!("text {n}")))
        .collect();
    for part in records.chunks(300) {
        system.enqueue(PROJECT, part, EnqueueOptions::default()).await;
    }
    let writer = system.database.client().await;
    let done = std::sync::atomic::AtomicBool::new(false);
    let users = async {
        let mut n = 0_u32;
        // So many that the workers come to an end.
        while n < 600 && !done.load(std::sync::atomic::Ordering::Relaxed) {
            n += 1;
            let statement = format!(
                "SELECT cronvec.put_record('{PROJECT}', 'r{}', 'again {n}')",
                n * 7 % 900
            );
            match writer.batch_execute(&statement).await {
                Ok(()) => {}
                // Under the isolation that they chose, they are told to do it again.
                Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let workers = async {
        let instances = (0..4).map(|_| async {
            let store = Arc::new(Store::new(store::Database::at(system.database.url(), 3).unwrap()));
            let ingestion = ingestion::Worker::new(Arc::clone(&store), system.settings.clone(), Secrets::without_aws());
            let vectorization = vectorization::Worker::new(store, system.settings.clone(), Secrets::without_aws());
            for _ in 0..4 {
                ingestion.run(CallOptions::default(), minute()).await.unwrap();
                vectorization.run(CallOptions::default(), minute()).await.unwrap();
            }
        });
        join_all(instances).await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(users, workers);
    let untroubled = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'FAILED' OR attempts > 0 OR crashes > 0";
    assert_eq!(system.count(untroubled).await, 0);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.lane_holds").await, 0);
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.quarantined_records").await,
        0
    );
    assert!(!system.vectorize().await.remaining);
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn no_tick_and_no_job_fails_where_transactions_are_serializable_by_default() {
    work_beside_writers("serializable").await;
}

#[tokio::test]
async fn no_tick_and_no_job_fails_where_transactions_are_repeatable_reads_by_default() {
    work_beside_writers("repeatable read").await;
}

#[tokio::test]
async fn the_look_at_the_sequences_reads_what_is_committed_whatever_the_default() {
    let provider = Provider::start().await;
    let system = system_with(&provider, &[("default_transaction_isolation", "serializable")], &[]).await;
    // Each such look asks it.
    system
        .run_sql(
            "CREATE OR REPLACE FUNCTION cronvec.place() RETURNS text LANGUAGE plpgsql STABLE AS $$
             BEGIN
                 IF current_setting('transaction_isolation') <> 'read committed' THEN
                     RAISE 'this look is %', current_setting('transaction_isolation');
                 END IF;
                 RETURN 'here';
             END $$",
        )
        .await;
    assert_eq!(system.store.numbers_behind().await.unwrap(), []);
    system.put(PROJECT, "r1", "text").await;
    assert_eq!(system.vectorize().await.records, 1);
}

/// Waits until the statement that waits for our lock has done so for longer than the limit that it was given.
async fn outlast(system: &System) {
    eventually("a statement outlasts its limit", || async {
        system
            .count(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                     AND clock_timestamp() - query_start > interval '600 milliseconds'",
            )
            .await
            > 0
    })
    .await;
}

#[tokio::test]
async fn a_short_limit_of_the_database_ends_no_write_of_a_worker() {
    let provider = Provider::start().await;
    let version = cronvec_tests::database::connect(&cronvec_tests::database::server().await.url("postgres")).await;
    let version = version
        .query_typed("SELECT current_setting('server_version_num')::int", &[])
        .await
        .unwrap()[0]
        .get::<_, i32>(0);
    for limit in ["statement_timeout", "lock_timeout", "transaction_timeout"] {
        if limit == "transaction_timeout" && version < 170_000 {
            continue;
        }
        let system = system_with(&provider, &[(limit, "300ms")], &[]).await;
        let records: Vec<_> = (0..50)
            .map(|n| record(&format!("r{n}"), &format!("text {n}")))
            .collect();
        system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
        // One statement that a pass begins with, then the fenced write.
        for table in ["cronvec.worker_status", "cronvec.chunks"] {
            let lock = Transaction::begin(&system).await;
            lock.run(&format!("SET LOCAL {limit} = 0; LOCK TABLE {table} IN SHARE MODE"))
                .await;
            let ticks = async { (system.ingest().await, system.vectorize().await) };
            let (ticked, ()) = tokio::join!(ticks, async {
                outlast(&system).await;
                lock.commit().await;
            });
            assert!(!ticked.1.remaining, "{limit} {table}: {ticked:?}");
            system.run_sql("SELECT count(cronvec.put_record('articles', 'n' || n, 'new ' || n)) FROM generate_series(1, 20) AS n").await;
        }
        let troubled = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'FAILED' OR attempts > 0 OR crashes > 0";
        assert_eq!(system.count(troubled).await, 0, "{limit}");
    }
}

#[tokio::test]
async fn what_is_read_only_by_default_is_written_all_the_same() {
    let provider = Provider::start().await;
    let system = system_with(&provider, &[], &[]).await;
    let alter = format!(
        "ALTER DATABASE {} SET default_transaction_read_only = on",
        system.database.name()
    );
    system.run_sql(&alter).await;
    // Connections of these are read-only by default, as all will be that others make.
    let store = Arc::new(Store::new(store::Database::at(system.database.url(), 2).unwrap()));
    let job = NewJob {
        project: PROJECT,
        records: &[br#"{"id": "a", "content": "a text"}"#],
        options: EnqueueOptions::default(),
    };
    store.enqueue(job).await.unwrap();
    let record = store::records::NewRecord {
        project: PROJECT,
        id: "b",
        content: "another",
        metadata: "{}",
    };
    store.put_record(&record, None).await.unwrap();
    let ingestion = ingestion::Worker::new(Arc::clone(&store), system.settings.clone(), Secrets::without_aws());
    assert_eq!(
        ingestion.run(CallOptions::default(), minute()).await.unwrap().records,
        1
    );
    let vectorization = vectorization::Worker::new(store, system.settings.clone(), Secrets::without_aws());
    assert_eq!(
        vectorization
            .run(CallOptions::default(), minute())
            .await
            .unwrap()
            .records,
        2
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

/// Ours is found to be the one in the way, and is ended by the server: the other has no end to its patience.
async fn patient(system: &System) -> Transaction {
    let other = Transaction::begin(system).await;
    other.run("SET LOCAL deadlock_timeout = '1h'").await;
    other
}

#[tokio::test]
async fn a_statement_that_is_ended_by_a_deadlock_is_sent_again() {
    let system = System::embedding_in_process().await;
    for n in 0..2 {
        system
            .enqueue(PROJECT, &[record(&format!("r{n}"), "text")], EnqueueOptions::default())
            .await;
    }
    let wish = ClaimWish {
        job_type: JobType::IngestData,
        spaces: &[],
        limit: 2,
        lease: std::time::Duration::from_secs(60),
        worker: "test",
        project_id: None,
    };
    let mut leases: Vec<Lease> = system
        .store
        .claim_jobs(&wish)
        .await
        .unwrap()
        .iter()
        .map(|job| job.lease)
        .collect();
    leases.sort_by_key(|lease| lease.job_id);
    let other = patient(&system).await;
    let lock = |at: usize| {
        format!(
            "SELECT FROM cronvec.job_queue WHERE id = {} FOR UPDATE",
            leases[at].job_id
        )
    };
    other.run(&lock(1)).await;
    let (completed, ()) = tokio::join!(system.store.complete_jobs(&leases), async {
        system.wait_blocked(1).await;
        other.run(&lock(0)).await;
        other.commit().await;
    });
    assert_eq!(completed.unwrap(), 2);
}

#[tokio::test]
async fn a_transaction_that_is_ended_by_a_deadlock_is_done_again() {
    let system = System::embedding_in_process().await;
    system.create_project("second").await;
    let other = patient(&system).await;
    let lock = |name: &str| format!("SELECT FROM cronvec.projects WHERE name = '{name}' FOR UPDATE");
    other.run(&lock("second")).await;
    let jobs = [PROJECT, "second"].map(|project| NewJob {
        project,
        records: &[br#"{"id": "a", "content": "a text"}"#],
        options: EnqueueOptions::default(),
    });
    let (enqueued, ()) = tokio::join!(system.store.enqueue_many(&jobs), async {
        system.wait_blocked(1).await;
        other.run(&lock(PROJECT)).await;
        other.commit().await;
    });
    assert_eq!(enqueued.unwrap().len(), 2);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.job_queue").await, 2);
}

#[tokio::test]
async fn what_the_server_said_is_told_once_with_its_code() {
    let system = System::embedding_in_process().await;
    system.run_sql("DROP TABLE cronvec.ingest_rejects").await;
    let error = system.store.rejects(1, 0, 1).await.unwrap_err();
    let told = chain(&error);
    assert_eq!(told.matches("does not exist").count(), 1, "{told}");
    assert!(told.contains("(42P01)"), "{told}");
    let error = anyhow::Error::new(error);
    assert_eq!(format!("{error:#}"), told, "whoever prints the chain");
}
