//! Where a storm is: a database with three projects, the way to it, the provider, and the command line.

use std::sync::Arc;
use std::time::Duration;

use cronvec_tests::conditions::within;
use cronvec_tests::database::{self, Database};
use cronvec_tests::own_server::OwnServer;
use cronvec_tests::process::{Outcome, Process};
use cronvec_tests::provider::{Options, Provider};
use cronvec_tests::proxy::Proxy;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, Row};

use super::{RECORDS, WIDTH};

/// Our own connections, which nobody breaks.
pub const OURS: &str = "storm";
/// A server that restarts is back by then, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Logs who claimed what, each crash that is counted, and what becomes of it.
const LOGS: &str = "
CREATE TABLE public.claims (token uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE public.crash_log (
    nth bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    job bigint NOT NULL, token uuid, what text NOT NULL);
CREATE FUNCTION public.log_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.lease_token IS NOT NULL AND NEW.lease_token IS DISTINCT FROM OLD.lease_token THEN
        INSERT INTO public.claims VALUES (NEW.lease_token, current_setting('application_name')) ON CONFLICT DO NOTHING;
    END IF;
    IF NEW.crashes > OLD.crashes THEN
        INSERT INTO public.crash_log (job, token, what) VALUES (NEW.id, OLD.lease_token, 'counted');
    -- A job that gets on has no crash left; only a report leaves some, or leaves the lease.
    ELSIF (NEW.crashes > 0 OR NEW.lease_token IS NOT DISTINCT FROM OLD.lease_token)
        AND cardinality(OLD.crashed_leases) > coalesce(cardinality(NEW.crashed_leases), 0) THEN
        INSERT INTO public.crash_log (job, token, what)
            SELECT NEW.id, token, 'taken back' FROM unnest(OLD.crashed_leases) AS token
            WHERE token <> ALL (coalesce(NEW.crashed_leases, '{}'));
    ELSIF OLD.crashes > 0 AND NEW.crashes = 0 THEN
        INSERT INTO public.crash_log (job, what) VALUES (NEW.id, 'settled');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER log_job AFTER UPDATE ON cronvec.job_queue FOR EACH ROW EXECUTE FUNCTION public.log_job();";

pub struct Place {
    server: Option<Arc<OwnServer>>,
    /// Where the server is everybody's. It goes with us.
    _database: Option<Database>,
    name: String,
    direct: String,
    through: String,
    pub proxy: Mutex<Proxy>,
    pub provider: Provider,
}

impl Place {
    pub async fn new(seed: u64, server: Option<Arc<OwnServer>>) -> Self {
        let (database, direct, port, name) = match &server {
            Some(server) => {
                let name = format!("storm_{seed}");
                let keeper = database::connect(&server.url("postgres")).await;
                let sql = format!("CREATE DATABASE {name} TEMPLATE template0");
                keeper.batch_execute(&sql).await.expect("a database");
                let url = server.url(&name);
                let mut client = database::connect(&url).await;
                cronvec_store::migrate::up(&mut client).await.expect("the schema");
                (None, url, server.port(), name)
            }
            None => {
                let database = Database::fresh().await;
                let (url, name) = (database.url().to_owned(), database.name().to_owned());
                (Some(database), url, database::server().await.port(), name)
            }
        };
        let proxy = Proxy::to_port(port).await;
        let through = direct.replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()));
        let provider = Provider::with(Options {
            latency: Duration::from_millis(20),
            ..Options::default()
        })
        .await;
        Self {
            server,
            _database: database,
            name,
            direct,
            through,
            proxy: Mutex::new(proxy),
            provider,
        }
    }

    /// The projects with their records, the attached table, and the logs.
    pub async fn settle(&self) {
        for (project, lanes) in [("plain", "1"), ("lanes", "4")] {
            self.must(&["projects", "create", project], lanes).await;
            self.run(&format!(
                "SELECT count(cronvec.put_record('{project}', 'r' || n, 'the first text of r' || n || ' in {project}'))
                 FROM generate_series(0, {}) AS n",
                RECORDS - 1
            ))
            .await;
        }
        self.run(&format!(
            "CREATE TABLE public.ads (id int PRIMARY KEY, body text, embedding vector({WIDTH}));
             INSERT INTO public.ads SELECT n, 'the first text of ad ' || n FROM generate_series(0, {}) AS n",
            RECORDS - 1
        ))
        .await;
        let attach = [
            "attach",
            "public.ads",
            "--text",
            "body",
            "--project",
            "ads",
            "--embedding-column",
            "embedding",
            "--yes",
        ];
        self.must(&attach, "2").await;
        self.run(LOGS).await;
    }

    /// The database's address, past the proxy, under this name.
    pub fn address(&self, application: &str) -> String {
        format!("{}?application_name={application}", self.direct)
    }

    /// The same through the proxy.
    pub fn address_through(&self, application: &str) -> String {
        format!("{}?application_name={application}", self.through)
    }

    /// `cronvec` with these words at this address of the database.
    pub async fn cronvec(&self, words: &[&str], address: &str, lanes: &str) -> Process {
        let (url, width) = (self.provider.url(), WIDTH.to_string());
        let environment = [
            ("DATABASE_URL", address),
            ("EMBEDDING_PROVIDER", "openai"),
            ("OPENAI_BASE_URL", &url),
            ("OPENAI_API_KEY", "sk-test-of-the-harness"),
            ("EMBEDDING_DIMENSIONS", &width),
            ("EMBEDDING_CHUNK_TOKENS", "16"),
            ("EMBEDDING_BATCH_SIZE", "10"),
            ("VECTORIZE_RECORDS_PER_SLICE", "50"),
            ("INGEST_BATCH_SIZE", "10"),
            ("EMBEDDING_RETRY_BACKOFF_BASE", "500"),
            ("VECTORIZE_LANES_PER_PROJECT", lanes),
        ];
        Process::spawn("cronvec", words, &environment).await
    }

    /// Runs such a command, which must succeed, past the proxy.
    pub async fn must(&self, words: &[&str], lanes: &str) -> Outcome {
        let mut process = self.cronvec(words, &self.address(OURS), lanes).await;
        let outcome = process.outcome().await;
        assert!(outcome.status.success(), "{words:?}: {outcome:?}");
        outcome
    }

    /// A connection, as soon as the server gives one.
    pub async fn connect(&self, application: &str) -> Client {
        let address = self.address(application);
        within(PATIENCE, "the server takes connections", || async {
            let (client, connection) = tokio_postgres::connect(&address, NoTls).await.ok()?;
            tokio::spawn(connection);
            Some(client)
        })
        .await
    }

    /// Runs statements, again if the server goes away meanwhile.
    pub async fn run(&self, sql: &str) {
        within(PATIENCE, sql, || async {
            let done = self.connect(OURS).await.batch_execute(sql).await;
            assert!(!is_refused(&done), "{sql}: {done:?}");
            done.ok()
        })
        .await;
    }

    /// Asks, again if the server goes away meanwhile.
    pub async fn ask(&self, sql: &str) -> Vec<Row> {
        within(PATIENCE, sql, || async {
            let rows = self.connect(OURS).await.query_typed(sql, &[]).await;
            assert!(!is_refused(&rows), "{sql}: {rows:?}");
            rows.ok()
        })
        .await
    }

    /// A text, or null, that SQL gives.
    pub async fn text(&self, sql: &str) -> Option<String> {
        self.ask(sql).await.first().and_then(|row| row.get(0))
    }

    /// Lets the leases of a process that is dead, or that all take for dead, run out.
    pub async fn expire(&self, names: &[String]) {
        let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
        if names.is_empty() {
            return;
        }
        // What a frozen one has locked is left.
        self.run(&format!(
            "UPDATE cronvec.job_queue SET lease_expires_at = clock_timestamp() - interval '1 second'
             WHERE id IN (
                 SELECT id FROM cronvec.job_queue
                 WHERE status = 'PROCESSING' AND lease_expires_at > clock_timestamp()
                     AND lease_token IN (SELECT token FROM public.claims WHERE name IN ({}))
                 FOR NO KEY UPDATE SKIP LOCKED)",
            names.join(", ")
        ))
        .await;
    }

    pub fn can_restart(&self) -> bool {
        self.server.is_some()
    }

    pub async fn restart(&self) {
        let server = Arc::clone(self.server.as_ref().expect("a server of its own"));
        tokio::task::spawn_blocking(move || server.restart())
            .await
            .expect("a restart");
    }

    /// Takes its database away.
    pub async fn leave(&self) {
        if let Some(server) = &self.server {
            let keeper = database::connect(&server.url("postgres")).await;
            let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
            keeper.batch_execute(&sql).await.expect("an empty place");
        }
    }
}

/// The server is there, and says no.
pub fn says_no(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| !matches!(code.code().get(..2), Some("57" | "08")))
}

fn is_refused<T>(done: &Result<T, tokio_postgres::Error>) -> bool {
    done.as_ref().is_err_and(says_no)
}
