//! How migrations run: step by step, cut off and resumed, beside others; and whom a schema serves.

use std::time::{Duration, Instant};

use cronvec_store::migrate::{self, MIGRATIONS, Migration, OLDEST_SCHEMA, VERSION};
use cronvec_store::{self as store, Store};
use cronvec_tests::conditions::eventually;
use cronvec_tests::database::{Database, connect};
use cronvec_tests::full_size;
use cronvec_tests::system::{PROJECT, System, settings};
use tokio_postgres::Client;

/// What a migration of some future may look like.
const FUTURE: Migration = Migration {
    version: 1000,
    name: "future",
    sql: "CREATE TABLE cronvec.more (n int);
-- step: slices
UPDATE cronvec.many m SET done = true
    FROM (SELECT n FROM cronvec.many WHERE NOT done ORDER BY n LIMIT 3) AS slice WHERE m.n = slice.n;
-- step: concurrently
CREATE INDEX CONCURRENTLY many_done ON cronvec.many (done);
",
    serves: VERSION,
};

/// And the one before it.
const TABLE: Migration = Migration {
    version: 999,
    name: "table",
    sql: "CREATE TABLE cronvec.many (n int CONSTRAINT many_pkey PRIMARY KEY, done boolean NOT NULL);
        INSERT INTO cronvec.many SELECT n, false FROM generate_series(1, 10) AS n",
    serves: VERSION,
};

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_typed(sql, &[]).await.unwrap()[0].get(0)
}

async fn pid(client: &Client) -> i64 {
    number(client, "SELECT pg_backend_pid()::bigint").await
}

/// Whether this backend waits for somebody else's lock.
async fn waits(client: &Client, pid: i64) -> bool {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'");
    number(client, &sql).await == 1
}

async fn verified(client: &Client) {
    migrate::verify(client).await.unwrap();
}

const INDEXES: &str = "SELECT count(*) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relname LIKE 'many_done%'";

#[tokio::test]
async fn a_newer_schema_that_serves_this_program_is_accepted_and_one_that_does_not_is_refused() {
    let database = Database::fresh().await;
    let mut client = database.client().await;
    let store = Store::new(store::Database::at(database.url(), 1).unwrap());
    assert_eq!(
        migrate::apply(&mut client, &[TABLE, FUTURE]).await.unwrap(),
        [999, 1000]
    );
    store.check_schema().await.unwrap();
    verified(&client).await;
    assert!(migrate::up(&mut client).await.unwrap().is_empty());
    let status = migrate::status(&client).await.unwrap();
    let newest = status.last().unwrap();
    assert_eq!(
        (newest.version, newest.name.as_str(), newest.applied),
        (1000, "future", true)
    );

    let serves = format!(
        "UPDATE cronvec.migrations SET serves = {} WHERE version = 1000",
        VERSION + 1
    );
    client.batch_execute(&serves).await.unwrap();
    let refused = store.check_schema().await.unwrap_err().to_string();
    let said = format!("serves programs from version {} on", VERSION + 1);
    assert!(
        refused.contains(&said) && refused.contains("use a newer cronvec"),
        "{refused}"
    );
    assert!(migrate::verify(&client).await.is_err());
    assert!(migrate::up(&mut client).await.is_err());

    // Too old for this program is what is before the oldest one that it runs on.
    client
        .batch_execute("DELETE FROM cronvec.migrations WHERE version >= 999")
        .await
        .unwrap();
    let older = format!("DELETE FROM cronvec.migrations WHERE version >= {OLDEST_SCHEMA}");
    client.batch_execute(&older).await.unwrap();
    let refused = store.check_schema().await.unwrap_err().to_string();
    assert!(refused.contains("run: cronvec migrate up"), "{refused}");
}

#[tokio::test]
async fn a_migration_that_is_killed_between_its_steps_and_slices_is_resumed_where_it_was() {
    let database = Database::fresh().await;
    let (user, looking) = (database.client().await, database.client().await);
    let mut killed = database.client().await;
    let killed_pid = pid(&killed).await;
    migrate::apply(&mut killed, &[TABLE]).await.unwrap();
    let future = [FUTURE];
    // Somebody holds a row of the second slice.
    let lock = "BEGIN; SELECT FROM cronvec.many WHERE n = 5 FOR UPDATE";
    user.batch_execute(lock).await.unwrap();
    let (cut_off, ()) = tokio::join!(migrate::apply(&mut killed, &future), async {
        eventually("it waits", async || waits(&looking, killed_pid).await).await;
        let kill = format!("SELECT pg_terminate_backend({killed_pid})");
        looking.batch_execute(&kill).await.unwrap();
    });
    assert!(cut_off.is_err());
    assert_eq!(
        number(&looking, "SELECT count(*) FROM cronvec.many WHERE done").await,
        3
    );
    assert_eq!(
        number(&looking, "SELECT max(step)::bigint FROM cronvec.migration_steps").await,
        1
    );
    assert_eq!(
        number(&looking, "SELECT count(*) FROM cronvec.migrations WHERE version = 1000").await,
        0
    );
    // What is there is noted: the schema is whole for the program that knows no more.
    verified(&looking).await;
    let noted = "SELECT count(*) FROM cronvec.schema_objects WHERE object LIKE 'column more.%'";
    assert_eq!(number(&looking, noted).await, 1);
    let store = Store::new(store::Database::at(database.url(), 1).unwrap());
    store.check_schema().await.unwrap();

    user.batch_execute("ROLLBACK").await.unwrap();
    let mut next = database.client().await;
    assert_eq!(migrate::apply(&mut next, &[FUTURE]).await.unwrap(), [1000]);
    assert_eq!(
        number(&looking, "SELECT count(*) FROM cronvec.many WHERE done").await,
        10
    );
    assert_eq!(number(&looking, INDEXES).await, 1);
    assert_eq!(
        number(&looking, "SELECT count(*) FROM cronvec.migration_steps").await,
        0
    );
    verified(&looking).await;
    // The index is noted, too.
    looking.batch_execute("DROP INDEX cronvec.many_done").await.unwrap();
    let missing = migrate::verify(&looking).await.unwrap_err().to_string();
    assert!(missing.contains("index many_done"), "{missing}");
}

#[tokio::test]
async fn an_index_whose_building_was_killed_is_built_by_the_next_run_and_by_two_at_once_once() {
    let database = Database::fresh().await;
    let (user, looking) = (database.client().await, database.client().await);
    let mut killed = database.client().await;
    let killed_pid = pid(&killed).await;
    // The building waits for those who have written to the table.
    let index = [Migration {
        sql: "SELECT 1;\n-- step: concurrently\nCREATE INDEX CONCURRENTLY many_done ON cronvec.many (done)",
        ..FUTURE
    }];
    migrate::apply(&mut killed, &[TABLE]).await.unwrap();
    user.batch_execute("BEGIN; INSERT INTO cronvec.many VALUES (11, true)")
        .await
        .unwrap();
    let (cut_off, ()) = tokio::join!(migrate::apply(&mut killed, &index), async {
        eventually("the building waits", async || waits(&looking, killed_pid).await).await;
        let kill = format!("SELECT pg_terminate_backend({killed_pid})");
        looking.batch_execute(&kill).await.unwrap();
    });
    assert!(cut_off.is_err());
    assert_eq!(number(&looking, INDEXES).await, 1, "an invalid one is left");
    verified(&looking).await;
    user.batch_execute("COMMIT").await.unwrap();

    let (mut one, mut two) = (database.client().await, database.client().await);
    let (first, second) = tokio::join!(migrate::apply(&mut one, &index), migrate::apply(&mut two, &index));
    assert_eq!([first.unwrap(), second.unwrap()].concat(), [1000]);
    let valid = format!("{INDEXES} AND i.indisvalid");
    assert_eq!(
        (number(&looking, INDEXES).await, number(&looking, &valid).await),
        (1, 1)
    );
    verified(&looking).await;
}

#[tokio::test]
async fn an_index_of_an_operators_own_may_go_after_an_upgrade() {
    let database = Database::empty().await;
    let mut client = database.client().await;
    let before_last = MIGRATIONS[MIGRATIONS.len() - 2].version;
    migrate::up_to(&mut client, before_last).await.unwrap();
    client
        .batch_execute("CREATE INDEX my_own ON cronvec.records (created_at)")
        .await
        .unwrap();
    migrate::up(&mut client).await.unwrap();
    client.batch_execute("DROP INDEX cronvec.my_own").await.unwrap();
    verified(&client).await;
}

/// Writers and readers go on while the schema of the first release is brought up to this one's; they fail for nothing and
/// wait for no more than a second, also with a million records: `CRONVEC_FULL=1 cargo test -p cronvec-tests --test all
/// migrations -- --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_migration_after_the_first_release_keeps_anybody_from_records_for_long() {
    let records = if full_size() { 1_000_000 } else { 2_000 };
    let database = Database::empty().await;
    let mut migrator = database.client().await;
    migrate::up_to(&mut migrator, 9).await.unwrap();
    let spec = settings(database.url(), &[]).embedding.new_space;
    let store = Store::new(store::Database::at(database.url(), 2).unwrap());
    let space = store.ensure_space(&spec).await.unwrap();
    migrator
        .batch_execute(&format!(
            "INSERT INTO cronvec.projects (name, live_space) VALUES ('{PROJECT}', {});
             INSERT INTO cronvec.records (project_id, id, content, content_hash, bucket, accepted)
             SELECT 1, 'r' || n, 'text ' || n, cronvec.content_hash('text ' || n), cronvec.bucket('r' || n),
                 nextval('cronvec.acceptance')
             FROM generate_series(1, {records}) AS n;
             INSERT INTO cronvec.pending (space_id, project_id, record_id, bucket)
             SELECT {}, 1, r.id, r.bucket FROM cronvec.records r;
             INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', '{PROJECT}', 1, 'COMPLETED', now() FROM generate_series(1, {records} / 10)",
            space.id, space.id
        ))
        .await
        .unwrap();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut users = tokio::task::JoinSet::new();
    for statement in [
        "SELECT cronvec.put_record('articles', 'r' || (random() * 1000)::int, 'another text ' || random())",
        "SELECT cronvec.delete_record('articles', 'x' || (random() * 1000)::int)",
        "SELECT count(*) FROM cronvec.embeddings WHERE project = 'articles' AND record_id = 'r1'",
        "INSERT INTO cronvec.job_queue (job_type, project, project_id) VALUES ('INGEST_DATA', 'articles', 1)",
    ] {
        let (over, url) = (std::sync::Arc::clone(&over), database.url().to_owned());
        users.spawn(async move {
            let client = connect(&url).await;
            // Should we and the migration wait for each other, the server ends us.
            client.batch_execute("SET deadlock_timeout = '20ms'").await.unwrap();
            let mut longest = Duration::ZERO;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                let began = Instant::now();
                client.batch_execute(statement).await.unwrap();
                longest = longest.max(began.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (statement, longest)
        });
    }
    let began = Instant::now();
    migrate::up(&mut migrator).await.unwrap();
    let took = began.elapsed();
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    println!("{records} records: migrated in {took:?}");
    for (statement, longest) in users.join_all().await {
        println!("  at most {longest:?}: {statement}");
        assert!(
            !full_size() || longest < Duration::from_secs(1),
            "{statement}: {longest:?}"
        );
    }
    verified(&migrator).await;
    drop(migrator);
    let system = System::on(database, &[]).await;
    assert!(!full_size() && system.vectorize().await.records > 0 || full_size());
}
