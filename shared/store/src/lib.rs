//! Owns every statement that is sent to PostgreSQL, one file a noun. Refuses to know providers and policies.
//!
//! Statements are unnamed and typed (`query_typed`), and nothing outlives its transaction: a pooler in transaction
//! mode may stand between. Lock order everywhere: job → user's row → record → pending.

mod again;
pub mod audit;
pub mod backfill;
pub mod backfill_progress;
mod begin;
pub mod bodies;
pub mod charges;
pub mod chunks;
pub mod claim;
pub mod column;
pub mod connect;
pub mod coverage_counts;
pub mod cuts;
pub mod defaults;
pub mod endpoints;
mod ends;
pub mod enqueue;
pub mod ensure;
pub mod explain;
pub mod figures;
pub mod health;
pub mod held;
mod held_records;
pub mod ingest;
pub mod jobs;
pub mod leases;
pub mod listing;
pub mod migrate;
pub mod monitor;
pub mod numbers;
pub mod outlook;
pub mod pending;
pub mod projects;
mod purges;
pub mod quarantine;
pub mod records;
pub mod removal;
pub mod retention;
pub mod search;
pub mod selection;
pub mod sources;
pub mod spaces;
pub mod sqlstate;
pub mod staged;
pub mod stats;
pub mod stuck;
pub mod suspicions;
pub mod tokens;
mod upkeep;
mod uploads;
mod vector_array;
pub mod vectors;
pub mod withdraw;
pub mod workers;
mod write_statement;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deadpool_postgres::Object;
use tokio::sync::OnceCell;
use tokio_postgres::types::{Kind, ToSql, Type};
use tokio_postgres::{Row, error::SqlState};

pub use connect::{ConnectError, Database};

use again::{Again, until_done};
use begin::{Begin, ONE_STATEMENT};
use connect::Session;
use cronvec_config::Settings;
use cronvec_edges::cause::chain;
use cronvec_secrets::Secrets;
use sqlstate::Fault;

/// A parameter with its type, so that the statement needs no round trip to be prepared.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// What can go wrong with the database. What is said of an error says its causes, too: none has a source that would say
/// them again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("database: {}", describe(.0))]
    Database(tokio_postgres::Error),
    #[error(transparent)]
    Schema(#[from] migrate::SchemaError),
    /// Someone else may hold the job by now; nothing was written.
    #[error("the lease is lost")]
    LeaseLost,
    #[error("no project '{0}'; create it with: cronvec projects create {0}")]
    NoProject(String),
    #[error("no job {0}")]
    NoJob(i64),
    #[error("job {active} does the work of job {id}'s lane already")]
    ActiveJob { id: i64, active: i64 },
    /// A write was given a number that is behind those of the data; nothing was written.
    #[error("the sequence cronvec.acceptance is behind the data; run: cronvec migrate up")]
    Behind,
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    /// The database went away under a run.
    #[error("the database went away: {0}")]
    Outage(String),
    /// What stands in the database isn't what this code wrote.
    #[error("unreadable: {0}")]
    Unreadable(String),
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl StoreError {
    /// What it means, if it is the database's or the connection's.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Connect(ConnectError::ReadOnly { .. }) => Some(Fault::ReadOnly),
            Self::Connect(error) if connect::is_unreachable(error) => Some(Fault::Outage),
            Self::Outage(_) => Some(Fault::Outage),
            Self::Database(error) => Some(sqlstate::of(error)),
            _ => None,
        }
    }

    fn has_code(&self, code: &SqlState) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(code))
    }

    /// The server gave up waiting for someone's lock.
    pub fn is_lock_timeout(&self) -> bool {
        self.fault() == Some(Fault::LockTimeout)
    }

    /// The server ended the statement: its time limit was over, or somebody cancelled it.
    pub fn is_cancelled(&self) -> bool {
        self.fault() == Some(Fault::Cancelled)
    }

    /// A value that the server can't store: a number out of its range, a key too long for an index. The same again
    /// whenever it is tried.
    pub fn is_value_refused(&self) -> bool {
        self.fault() == Some(Fault::ValueRefused)
    }

    /// The same again whenever it is tried.
    pub fn is_refusal(&self) -> bool {
        self.fault().is_some_and(Fault::is_refusal)
    }

    /// Somebody else was in the way.
    pub fn is_contention(&self) -> bool {
        self.fault().is_some_and(Fault::is_contention)
    }

    /// Someone else has written such a row.
    pub(crate) fn is_duplicate(&self) -> bool {
        self.fault() == Some(Fault::Duplicate)
    }

    /// Later it works: the database is away, too slow, or somebody holds what is needed.
    pub fn is_temporary(&self) -> bool {
        self.is_outage() || self.is_cancelled() || self.is_lock_timeout()
    }

    /// The database can't be reached, went away, takes no writes, or let others go first until we gave up: nobody's fault
    /// here, and no job's.
    pub fn is_outage(&self) -> bool {
        matches!(self.fault(), Some(Fault::Outage | Fault::ReadOnly | Fault::Conflict))
    }
}

/// `tokio_postgres` says "db error" and keeps what the server said for those who ask.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(server) => match server.hint() {
            Some(hint) => format!("{} ({}). {hint}", server.message(), server.code().code()),
            None => format!("{} ({})", server.message(), server.code().code()),
        },
        None => chain(error),
    }
}

/// The types of the extension `vector`, whose numbers differ from database to database.
#[derive(Clone, Debug)]
pub(crate) struct VectorTypes {
    pub vector: Type,
    pub array: Type,
}

/// A client of the pool. Who gives a question up before its answer leaves the connection in the middle of it: the server is
/// told to end the question, and the connection is closed. Else the next one's question would follow at once, a pooler may lose
/// its place, and a write that waits for somebody's lock would wait on with nobody left to want it.
struct Asked {
    client: Option<Object>,
    database: Database,
    is_asking: AtomicBool,
}

impl Asked {
    fn new(client: Object, database: Database) -> Self {
        Self {
            client: Some(client),
            database,
            is_asking: AtomicBool::new(false),
        }
    }

    /// Until it is answered.
    async fn whole<T, E>(&self, question: impl AsyncFnOnce(&Object) -> Result<T, E>) -> Result<T, StoreError>
    where
        StoreError: From<E>,
    {
        // It is there until it is dropped.
        let client = self.client.as_ref().ok_or_else(no_row)?;
        self.is_asking.store(true, Ordering::Relaxed);
        let answer = question(client).await;
        self.is_asking.store(false, Ordering::Relaxed);
        Ok(answer?)
    }

    /// One statement, in a transaction that the server makes for it, or in one that says what it needs.
    async fn query(&self, session: Session, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        if session.is_guarded {
            return self.query_within(&ONE_STATEMENT.text(session), statement, params).await;
        }
        self.whole(async |client| client.query_typed(statement, params).await)
            .await
    }

    async fn execute(&self, session: Session, statement: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        if !session.is_guarded {
            return self
                .whole(async |client| client.execute_typed(statement, params).await)
                .await;
        }
        let begin = ONE_STATEMENT.text(session);
        self.whole(async |client| {
            let (begun, changed, ended) = futures::join!(
                client.batch_execute(&begin),
                client.execute_typed(statement, params),
                client.batch_execute("COMMIT")
            );
            begun.map_err(begin::refused)?;
            let changed = changed?;
            ended?;
            Ok::<_, StoreError>(changed)
        })
        .await
    }

    /// One round trip: all three are sent before the first is answered. A worker may be frozen before the last has left
    /// it: the server ends a transaction that idles so.
    async fn query_within(&self, begin: &str, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        self.whole(async |client| {
            let (begun, rows, ended) = futures::join!(
                client.batch_execute(begin),
                client.query_typed(statement, params),
                client.batch_execute("COMMIT")
            );
            begun.map_err(begin::refused)?;
            let rows = rows?;
            ended?;
            Ok::<_, StoreError>(rows)
        })
        .await
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && *self.is_asking.get_mut()
        {
            self.database.abandon(client);
        }
    }
}

/// A connection that is held over several statements. Who holds one asks for no other: all of them may be held by those
/// who do.
pub struct Connection {
    client: Asked,
    database: Database,
    vector_types: VectorTypes,
}

impl Connection {
    async fn query(&self, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let mut again = Again::of_statement(&self.database);
        loop {
            match self.client.query(self.database.session(), statement, params).await {
                Err(error) if error.fault() == Some(Fault::ReadOnly) => {
                    // It is held, and stays what it is until then; nobody is to have it afterwards.
                    self.client.is_asking.store(true, Ordering::Relaxed);
                    self.database.forget_idle();
                    return Err(again.told(error));
                }
                Err(error) if Box::pin(again.after(&error)).await => {}
                Err(error) => return Err(again.told(error)),
                Ok(rows) => return Ok(rows),
            }
        }
    }

    async fn query_one(&self, statement: &str, params: &[Param<'_>]) -> Result<Row, StoreError> {
        let rows = self.query(statement, params).await?;
        rows.into_iter().next().ok_or_else(no_row)
    }
}

fn no_row() -> StoreError {
    StoreError::Unreadable("a statement gave no row".into())
}

fn count(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|error| StoreError::Unreadable(error.to_string()))
}

const VECTOR_SCHEMA: &str = "SELECT quote_ident(n.nspname), n.nspname = ANY (current_schemas(true))
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'";

/// The database as the rest of the code sees it.
pub struct Store {
    database: Database,
    vector_types: OnceCell<VectorTypes>,
    /// Whether the sequences were compared with the data since the process began.
    has_seen_numbers: AtomicBool,
}

impl Store {
    pub fn new(database: Database) -> Self {
        Self {
            database,
            vector_types: OnceCell::new(),
            has_seen_numbers: AtomicBool::new(false),
        }
    }

    /// On the database that the settings name, whose schema must serve this program.
    pub async fn open(settings: &Settings, secrets: &Secrets) -> Result<Arc<Self>, StoreError> {
        let database = Database::open(settings, secrets, connect::DEFAULT_CONNECTIONS).await?;
        let store = Arc::new(Self::new(database));
        store.check_ready().await?;
        Ok(store)
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    pub(crate) async fn client(&self) -> Result<Object, StoreError> {
        Ok(self.database.get().await?)
    }

    async fn asked(&self) -> Result<Asked, StoreError> {
        Ok(Asked::new(self.client().await?, self.database.clone()))
    }

    pub async fn connection(&self) -> Result<Connection, StoreError> {
        let vector_types = self.vector_types().await?.clone();
        Ok(Connection {
            client: self.asked().await?,
            database: self.database.clone(),
            vector_types,
        })
    }

    async fn query(&self, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        until_done!(self.statement_again(), self.query_once(statement, params))
    }

    async fn query_once(&self, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let asked = self.asked().await?;
        asked.query(self.database.session(), statement, params).await
    }

    /// A query that must follow an index in its order, whatever the statistics say: a table that was filled a moment ago
    /// has none, and its million rows would be sorted for each slice.
    async fn query_along_index(&self, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        const BEGIN: Begin = Begin::write(
            "SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off;
             SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off; SET LOCAL statement_timeout = '30s';
             SET LOCAL idle_in_transaction_session_timeout = '2s'",
        );
        self.query_in_transaction(BEGIN, statement, params).await
    }

    /// What users wait for is written by single statements instead.
    async fn query_in_transaction(
        &self,
        begin: Begin,
        statement: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        until_done!(self.again(), self.query_within(begin, statement, params))
    }

    async fn query_within(&self, begin: Begin, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let asked = self.asked().await?;
        let begin = begin.text(self.database.session());
        asked.query_within(&begin, statement, params).await
    }

    async fn query_opt(&self, statement: &str, params: &[Param<'_>]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(statement, params).await?.into_iter().next())
    }

    async fn query_one(&self, statement: &str, params: &[Param<'_>]) -> Result<Row, StoreError> {
        self.query_opt(statement, params).await?.ok_or_else(no_row)
    }

    async fn execute(&self, statement: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        until_done!(self.statement_again(), self.execute_once(statement, params))
    }

    async fn execute_once(&self, statement: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        let asked = self.asked().await?;
        asked.execute(self.database.session(), statement, params).await
    }

    /// The tries of a transaction.
    fn again(&self) -> Again<'_> {
        Again::of_transaction(&self.database)
    }

    fn statement_again(&self) -> Again<'_> {
        Again::of_statement(&self.database)
    }

    /// The schema that pgvector lives in, quoted: a session's search path may not have it. It may be moved at any time.
    async fn vector_schema(&self) -> Result<String, StoreError> {
        let row = self.query_opt(VECTOR_SCHEMA, &[]).await?;
        let row = row.ok_or(StoreError::Schema(migrate::SchemaError::NoVector))?;
        Ok(row.get(0))
    }

    /// What stands in front of the names of pgvector's types and operator classes in this session: nothing, or its schema.
    async fn vector_prefix(&self) -> Result<String, StoreError> {
        let row = self.query_opt(VECTOR_SCHEMA, &[]).await?;
        Ok(row
            .filter(|row| !row.get::<_, bool>(1))
            .map_or(String::new(), |row| format!("{}.", row.get::<_, &str>(0))))
    }

    /// Asks for the numbers of pgvector's types, which writes need, before somebody gives up waiting for them.
    pub async fn learn_vector_types(&self) -> Result<(), StoreError> {
        self.vector_types().await.map(|_| ())
    }

    pub(crate) async fn vector_types(&self) -> Result<&VectorTypes, StoreError> {
        self.vector_types
            .get_or_try_init(|| async {
                let row = self
                    .query_opt(
                        "SELECT t.oid, t.typarray, n.nspname::text
                         FROM pg_extension e
                         JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                             AND d.classid = 'pg_type'::regclass AND d.deptype = 'e'
                         JOIN pg_type t ON t.oid = d.objid AND t.typname = 'vector'
                         JOIN pg_namespace n ON n.oid = t.typnamespace
                         WHERE e.extname = 'vector'",
                        &[],
                    )
                    .await?
                    .ok_or(StoreError::Schema(migrate::SchemaError::NoVector))?;
                let schema: String = row.get(2);
                let vector = Type::new("vector".into(), row.get(0), Kind::Simple, schema.clone());
                let array = Type::new("_vector".into(), row.get(1), Kind::Array(vector.clone()), schema);
                Ok(VectorTypes { vector, array })
            })
            .await
    }
}
