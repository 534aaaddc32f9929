//! Owns the way from a verb to the system: settings, the database, the handlers. Verbs know nothing behind it.

use anyhow::{Result, anyhow};
use serde_json::Value;
use shared::config::Settings;

use crate::exit::usage;
use crate::local::Server;
use crate::reading::Piece;
use crate::shapes::{Coverage, Hit, Job, Migration, Project, Status, TickReport};

/// One of the three workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Worker {
    Ingestion,
    Vectorization,
    Cleanup,
}

/// Bounds of one invocation.
#[derive(Clone, Debug, Default)]
pub struct TickOptions {
    pub project: Option<String>,
    pub max_records: Option<u64>,
    pub max_seconds: Option<u64>,
}

/// What an INGEST_DATA job is told besides its records.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    pub project: String,
    pub priority: i32,
    pub generate_embeddings: bool,
}

/// A connected system. Opened by verbs that need the database.
#[derive(Debug)]
pub struct App {
    _private: (),
}

impl App {
    /// Reads the settings and connects. Doesn't look at the schema: `migrate` has to work on an empty database.
    pub async fn open() -> Result<Self> {
        Err(unwired("App::open"))
    }

    /// Connects to a database of ours instead of the settings' one; for `demo`.
    pub async fn open_at(_url: &str) -> Result<Self> {
        Err(unwired("App::open_at"))
    }

    /// Fails, with the command that mends it, unless the schema is this binary's.
    pub async fn check_schema(&self) -> Result<()> {
        Err(unwired("App::check_schema"))
    }

    /// Applies what is missing; gives the migrations that it applied.
    pub async fn migrate_up(&self) -> Result<Vec<Migration>> {
        Err(unwired("App::migrate_up"))
    }

    /// Every migration of this binary, and when it was applied.
    pub async fn migrations(&self) -> Result<Vec<Migration>> {
        Err(unwired("App::migrations"))
    }

    /// What differs between the schema and what the code expects; nothing is good.
    pub async fn schema_faults(&self) -> Result<Vec<String>> {
        Err(unwired("App::schema_faults"))
    }

    /// Drops the schema `cronvec` with all that is in it.
    pub async fn uninstall(&self) -> Result<()> {
        Err(unwired("App::uninstall"))
    }

    /// One invocation, through the handler that the Lambda function runs.
    pub async fn tick(&self, _worker: Worker, _options: &TickOptions) -> Result<TickReport> {
        Err(unwired("App::tick"))
    }

    /// One INGEST_DATA job of a piece's records, numbered from 1 in it; gives the job's id.
    pub async fn enqueue(&self, _options: &IngestOptions, _piece: &Piece) -> Result<i64> {
        Err(unwired("App::enqueue"))
    }

    /// The nearest records to a text; `filter` is what their metadata contains.
    pub async fn search(&self, _project: &str, _text: &str, _limit: u32, _filter: Option<&Value>) -> Result<Vec<Hit>> {
        Err(unwired("App::search"))
    }

    pub async fn status(&self) -> Result<Status> {
        Err(unwired("App::status"))
    }

    /// Of one project, or of all.
    pub async fn coverage(&self, _project: Option<&str>) -> Result<Vec<Coverage>> {
        Err(unwired("App::coverage"))
    }

    pub async fn job(&self, _id: i64) -> Result<Option<Job>> {
        Err(unwired("App::job"))
    }

    pub async fn retry(&self, _id: i64) -> Result<()> {
        Err(unwired("App::retry"))
    }

    pub async fn cancel(&self, _id: i64) -> Result<()> {
        Err(unwired("App::cancel"))
    }

    pub async fn projects(&self) -> Result<Vec<Project>> {
        Err(unwired("App::projects"))
    }

    /// A project in the space that the settings choose; false when it was there already.
    pub async fn create_project(&self, _name: &str) -> Result<bool> {
        Err(unwired("App::create_project"))
    }

    pub async fn set_paused(&self, _name: &str, _paused: bool) -> Result<()> {
        Err(unwired("App::set_paused"))
    }
}

/// Everything that the environment says; all problems together in the error.
pub fn settings() -> Result<Settings> {
    Settings::from_env().map_err(|problems| usage(problems.to_string()))
}

/// A database on this machine, for as long as this value lives.
#[derive(Debug)]
pub struct LocalDatabase {
    server: Server,
    name: String,
}

impl LocalDatabase {
    /// Sets up and starts what is missing, which blocks for seconds the first time. `report` is told each step.
    pub fn start(name: &str, report: &dyn Fn(&str)) -> Result<Self> {
        let server = Server::start_reporting(report)?;
        server.create_database(name)?;
        Ok(Self {
            server,
            name: name.to_owned(),
        })
    }

    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }
}

fn unwired(what: &str) -> anyhow::Error {
    anyhow!("not wired: {what}")
}
