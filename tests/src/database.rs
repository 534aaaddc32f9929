//! Owns a database for each test, made from a migrated template; the server is `cronvec::local`'s.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cronvec::local::Server;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::background;

/// All databases of all runs begin with it, followed by their run.
const PREFIX: &str = "test_";

/// What the tests of one process share. It isn't dropped when the process ends: the server's watcher stops it then.
struct Run {
    server: Server,
    id: String,
    /// Connected as long as we live, under the run's name: that is how others know which databases are in use.
    keeper: Client,
}

static RUN: OnceCell<Run> = OnceCell::const_new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The server that this process uses.
pub async fn server() -> &'static Server {
    &run().await.server
}

/// A database of one's own with the current schema, dropped at the end of the test.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
}

impl Database {
    /// A new one, made from the migrated template.
    pub async fn fresh() -> Self {
        let run = run().await;
        Self::create(run, &format!("TEMPLATE {}", template(&run.id))).await
    }

    /// A new one with nothing in it.
    pub async fn empty() -> Self {
        Self::create(run().await, "TEMPLATE template0").await
    }

    async fn create(run: &Run, from: &str) -> Self {
        let name = format!("{PREFIX}{}_{}", run.id, NUMBER.fetch_add(1, Ordering::Relaxed));
        run.keeper
            .batch_execute(&format!("CREATE DATABASE {name} {from}"))
            .await
            .expect("a database");
        Self {
            url: run.server.url(&name),
            name,
        }
    }

    /// Its connection string.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A connection as the superuser. It lives on the runtime of whoever calls.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        background::finish(async move {
            // FORCE: a test that panicked still has its connections.
            if let Some(run) = RUN.get() {
                let _ = run
                    .keeper
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await;
            }
        });
    }
}

/// Connects, leaving the connection's work to the current runtime.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn run() -> &'static Run {
    RUN.get_or_init(|| async { background::handle().spawn(begin()).await.expect("a run") })
        .await
}

async fn begin() -> Run {
    let start = || {
        let report = |step: &str| eprintln!("{step}");
        match crate::full_size() || ON_DISK.load(Ordering::Relaxed) {
            true => Server::start_reporting(&report),
            false => Server::start_in_memory(&report),
        }
    };
    let server = tokio::task::spawn_blocking(start)
        .await
        .expect("a thread")
        .unwrap_or_else(|error| panic!("no embedded PostgreSQL: {error:#}"));
    let id = format!("{:08x}", rand::random::<u32>());
    let keeper = connect(&format!("{}?application_name={PREFIX}{id}", server.url("postgres"))).await;
    drop_abandoned(&keeper).await;
    let template = template(&id);
    keeper
        .batch_execute(&format!("CREATE DATABASE {template} TEMPLATE template0"))
        .await
        .expect("a template");
    let mut client = connect(&server.url(&template)).await;
    migrate(&mut client).await;
    drop(client);
    wait_until_left(&keeper, &template).await;
    Run { server, id, keeper }
}

fn template(run: &str) -> String {
    format!("{PREFIX}{run}_template")
}

async fn migrate(client: &mut Client) {
    cronvec_store::migrate::up(client).await.expect("the schema");
}

/// For measuring: the server that comes is the one that people have. Before anything asks for a database.
pub fn keep_on_disk() {
    ON_DISK.store(true, Ordering::Relaxed);
}

static ON_DISK: AtomicBool = AtomicBool::new(false);

/// Databases of runs whose keeper is gone: they were killed, or ended with their template.
async fn drop_abandoned(keeper: &Client) {
    let rows = keeper
        .query_typed(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, 'test_') AND NOT EXISTS (
                 SELECT FROM pg_stat_activity a
                 WHERE a.application_name LIKE 'test\\_%'
                   AND starts_with(pg_database.datname::text, a.application_name || '_'))
             LIMIT 1000",
            &[],
        )
        .await
        .expect("a list of databases");
    for row in rows {
        let name: String = row.get(0);
        // Another run may be cleaning up as well.
        let _ = keeper
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await;
    }
}

/// A database can't be copied while somebody is in it, and a closed connection takes a moment to be gone.
async fn wait_until_left(keeper: &Client, name: &str) {
    let sql = format!("SELECT 1 FROM pg_stat_activity WHERE datname = '{name}' LIMIT 1");
    crate::conditions::within(Duration::from_secs(10), "the template is left", || async {
        keeper
            .query_typed(&sql, &[])
            .await
            .is_ok_and(|rows| rows.is_empty())
            .then_some(())
    })
    .await;
}
