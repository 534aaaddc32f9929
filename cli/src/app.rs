//! Owns the way from a verb to the system: settings, the database, the handlers. Verbs know nothing behind it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cronvec_call::CallOptions;
use cronvec_config::{SecretSource, Settings};
use cronvec_nouns::record::Rejection;
use cronvec_nouns::space::{Space, SpaceSpec};
use cronvec_pipeline::{self as pipeline, Unserved};
use cronvec_provider::Provider;
use cronvec_search::Question;
use cronvec_secrets::Secrets;
use cronvec_store::audit::{Act, IDS_NAMED};
use cronvec_store::connect::{ConnectError, DEFAULT_CONNECTIONS, Database};
use cronvec_store::enqueue::{EnqueueOptions, NewJob, Retries};
use cronvec_store::figures::CAP;
use cronvec_store::jobs::JobView;
use cronvec_store::migrate::{self, MigrationStatus, SchemaError};
use cronvec_store::projects::{Coverage, Project};
use cronvec_store::search::Hit;
use cronvec_store::{Store, StoreError};
use serde_json::{Value, json};

use crate::exit::{Interrupt, usage};
use crate::local::Server;
use crate::reading::Piece;
use crate::shapes::{Status, TickReport};

/// After its pass a process goes on for so long trying to return leases to a database that is away: it has no next pass.
pub(crate) const LAST_REPORTS: Duration = Duration::from_secs(10);

/// One of the three workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Worker {
    Ingestion,
    Vectorization,
    Cleanup,
}

/// What an INGEST_DATA job is told besides its records.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    pub project: String,
    pub priority: i32,
    pub generate_embeddings: bool,
}

/// A connected system. Opened by verbs that need the database.
pub struct App {
    settings: Settings,
    secrets: Secrets,
    store: Arc<Store>,
}

impl App {
    /// Reads the settings and connects. Doesn't look at the schema: `migrate` has to work on an empty database.
    pub async fn open() -> Result<Self> {
        let settings = settings()?;
        settings
            .require_database()
            .map_err(|problem| usage(problem.to_string()))?;
        Self::connect(settings, DEFAULT_CONNECTIONS).await
    }

    /// The same with so many connections, for who runs several workers at once.
    pub(crate) async fn open_with(settings: Settings, connections: usize) -> Result<Self> {
        settings
            .require_database()
            .map_err(|problem| usage(problem.to_string()))?;
        Self::connect(settings, connections).await
    }

    /// Connects to a database of ours instead of the settings' one; for `demo`.
    pub async fn open_at(url: &str) -> Result<Self> {
        let mut settings = settings()?;
        settings.database = Some(SecretSource::Value(url.to_owned()));
        Self::connect(settings, DEFAULT_CONNECTIONS).await
    }

    async fn connect(settings: Settings, connections: usize) -> Result<Self> {
        let secrets = crate::aws::secrets();
        let database = Database::open(&settings, &secrets, connections)
            .await
            .map_err(|error| match error {
                ConnectError::Address { .. } | ConnectError::Roots { .. } => usage(error.to_string()),
                error => error.into(),
            })?;
        Ok(Self {
            settings,
            secrets,
            store: Arc::new(Store::new(database)),
        })
    }

    /// For verbs that ask the store for one thing.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn shared_store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Writes down an act of the person at this keyboard: what, and to which ids. It never fails the act.
    pub(crate) async fn audit(&self, category: &str, message: &str, ids: &[String], operation: Option<&str>) {
        let named = &ids[..ids.len().min(IDS_NAMED)];
        let metadata = json!({"who": crate::operator::name(), "ids": named, "count": ids.len()});
        let act = Act {
            category,
            message,
            metadata,
            operation,
        };
        self.store.audit(act).await;
    }

    /// Fails, with the command that mends it, unless the schema serves this binary.
    pub async fn check_schema(&self) -> Result<()> {
        Ok(self.store.check_ready().await?)
    }

    /// Applies what is missing; gives the migrations that it applied.
    pub async fn migrate_up(&self) -> Result<Vec<MigrationStatus>> {
        let mut client = self.store.database().get().await?;
        let applied = migrate::up(&mut client).await?;
        let all = migrate::status(&client).await?;
        drop(client);
        self.store.check_ready().await?;
        Ok(all
            .into_iter()
            .filter(|migration| applied.contains(&migration.version))
            .collect())
    }

    /// Makes again what went with pgvector, or looks for it where it isn't any more; gives the names.
    pub async fn mend_schema(&self) -> Result<Vec<String>> {
        Ok(migrate::mend(&mut *self.store.database().get().await?).await?)
    }

    /// Every migration of this binary, applied or not.
    pub async fn migrations(&self) -> Result<Vec<MigrationStatus>> {
        Ok(migrate::status(&*self.store.database().get().await?).await?)
    }

    /// Compares the schema with what the code expects. `Err` inside is a difference, outside that nobody could look.
    pub async fn verify_schema(&self) -> Result<Result<(), SchemaError>> {
        match migrate::verify(&*self.store.database().get().await?).await {
            Ok(()) => Ok(Ok(())),
            Err(StoreError::Schema(difference)) => Ok(Err(difference)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sequences that would number what comes behind what is there, in words; `Err` inside, as with the schema.
    pub async fn verify_numbers(&self) -> Result<Result<(), String>> {
        let behind = self.store.numbers_behind().await?;
        Ok(match behind.first() {
            None => Ok(()),
            Some(behind) => Err(behind.to_string()),
        })
    }

    /// Drops the schema `cronvec` with all that is in it.
    pub async fn uninstall(&self) -> Result<()> {
        Ok(migrate::uninstall(&*self.store.database().get().await?).await?)
    }

    /// One invocation, through the handler that the Lambda function runs. A signal ends it early, with its report.
    pub(crate) async fn tick(
        &self,
        worker: Worker,
        options: &CallOptions,
        interrupt: &Interrupt,
    ) -> Result<TickReport> {
        let options = options.clone();
        let deadline = options.deadline(Instant::now() + self.settings.queue.worker_timeout);
        let store = Arc::clone(&self.store);
        let began = Instant::now();
        // A signal after the pass leaves it the time of a signal within the pass.
        let _in_the_middle = interrupt.watch();
        let report = match worker {
            Worker::Ingestion => {
                let worker = ingestion::Worker::new(store, self.settings.clone(), self.secrets.clone());
                let report = interrupt
                    .or_end(worker.run(options, deadline), || worker.stop())
                    .await?;
                worker.report_last(Instant::now() + LAST_REPORTS).await;
                serde_json::to_value(report?)?
            }
            Worker::Vectorization => {
                let worker = vectorization::Worker::new(store, self.settings.clone(), self.secrets.clone());
                let report = interrupt
                    .or_end(worker.run(options, deadline), || worker.stop())
                    .await?;
                worker.report_last(Instant::now() + LAST_REPORTS).await;
                serde_json::to_value(report?)?
            }
            Worker::Cleanup => {
                let worker = cleanup::Worker::new(store, self.settings.clone(), self.secrets.clone());
                serde_json::to_value(
                    interrupt
                        .or_end(worker.run(options, deadline), || worker.stop())
                        .await??,
                )?
            }
        };
        let mut report: TickReport = serde_json::from_value(report)?;
        report.success = true;
        report.duration = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(report)
    }

    pub fn max_content_bytes(&self) -> usize {
        self.settings.max_content_bytes
    }

    /// One INGEST_DATA job of a piece's records, with their lines; gives the job's id.
    pub async fn enqueue(&self, options: &IngestOptions, piece: &Piece) -> Result<i64> {
        let embedding = &self.settings.embedding;
        let records: Vec<&[u8]> = piece.records().collect();
        let options_of_job = EnqueueOptions {
            priority: options.priority,
            otherwise: Retries {
                max_attempts: embedding.max_attempts,
                backoff_ms: i32::try_from(embedding.backoff_base.as_millis()).unwrap_or(i32::MAX),
            },
            embed: options.generate_embeddings,
            lines: Some(piece.lines.clone()),
            ..EnqueueOptions::default()
        };
        let job = NewJob {
            project: &options.project,
            records: &records,
            options: options_of_job,
        };
        Ok(self.store.enqueue(job).await?.job_id())
    }

    /// The nearest records to a text; `filter` is what their metadata contains.
    pub async fn search(&self, project: &str, text: &str, limit: i32, filter: Option<&Value>) -> Result<Vec<Hit>> {
        self.require_search()?;
        let question = Question {
            project,
            text,
            limit,
            filter,
            heeds_rests: false,
        };
        Ok(cronvec_search::search(&self.store, &self.settings.embedding, &self.secrets, question).await?)
    }

    /// Fails where embedding is switched off.
    pub(crate) fn require_search(&self) -> Result<()> {
        if self.settings.embedding.search_enabled {
            return Ok(());
        }
        bail!(
            "unavailable: SEMANTIC_SEARCH_ENABLED is false, nothing is embedded or searched; records go on being marked"
        )
    }

    /// Retention with another age of finished jobs.
    pub(crate) async fn cleanup(&self, days: u32, interrupt: &Interrupt) -> Result<cleanup::Report> {
        let mut settings = self.settings.clone();
        settings.retention.job_days = days;
        let deadline = Instant::now() + settings.queue.worker_timeout;
        let worker = cleanup::Worker::new(Arc::clone(&self.store), settings, self.secrets.clone());
        Ok(interrupt
            .or_end(worker.run(CallOptions::default(), deadline), || worker.stop())
            .await??)
    }

    /// How the settings and the projects embed, each way once.
    pub async fn ways_to_embed(&self) -> Result<Vec<SpaceSpec>> {
        let spaces = self.store.spaces().await?;
        let mut ways = vec![self.settings.embedding.new_space.clone()];
        for project in self.store.projects().await? {
            let ids = [Some(project.live_space), project.next_space];
            for space in spaces.iter().filter(|space| ids.contains(&Some(space.id))) {
                let asks_alike = |way: &SpaceSpec| {
                    let asked = |spec: &SpaceSpec| (spec.provider, spec.model.clone(), spec.dimensions);
                    asked(way) == asked(&space.spec)
                };
                if !ways.iter().any(asks_alike) {
                    ways.push(space.spec.clone());
                }
            }
        }
        Ok(ways)
    }

    /// The provider of a space, as the settings reach it.
    pub async fn provider(&self, spec: &SpaceSpec) -> Result<Provider, Unserved> {
        pipeline::provider(spec, &self.settings.embedding, &self.secrets).await
    }

    /// Ends an endpoint's pause and closes its circuit.
    pub async fn resume_endpoint(&self, endpoint: &str) -> Result<()> {
        Ok(self.store.resume_endpoint(endpoint).await?)
    }

    pub async fn status(&self) -> Result<Status> {
        let mut queue = self.store.queue_stats().await?;
        let pending_records = self.store.count_pending(None).await?;
        if pending_records > CAP {
            queue.capped.push("pendingRecords");
        }
        let projects = self.store.projects().await?;
        Ok(Status {
            queue,
            workers: self.store.worker_statuses().await?,
            pauses: self.store.pauses(None).await?,
            pending_records: pending_records.min(CAP),
            stopped: projects.into_iter().filter(|p| p.paused).map(|p| p.name).collect(),
        })
    }

    /// Of one project, or of all.
    pub async fn coverage(&self, project: Option<&str>) -> Result<Vec<Coverage>> {
        if let Some(name) = project {
            return Ok(vec![self.store.coverage(name).await?]);
        }
        let mut lines = Vec::new();
        for project in self.store.projects().await? {
            lines.push(self.store.coverage(&project.name).await?);
        }
        Ok(lines)
    }

    pub async fn job(&self, id: i64) -> Result<JobView> {
        Ok(self.store.job(id).await?)
    }

    /// Whether a job waits for its time, as after a failure.
    pub async fn is_scheduled(&self, id: i64) -> Result<bool> {
        Ok(self.store.is_scheduled(id).await?)
    }

    /// A job's rejected lines behind this one, and what stands there.
    pub async fn rejects(&self, id: i64, after_line: i32, limit: i64) -> Result<Vec<(Rejection, Option<Vec<u8>>)>> {
        Ok(self.store.raw_rejects(id, after_line, limit).await?)
    }

    pub async fn retry(&self, id: i64) -> Result<()> {
        Ok(self.store.retry_job(id).await?)
    }

    pub async fn cancel(&self, id: i64) -> Result<()> {
        Ok(self.store.cancel_job(id).await?)
    }

    /// Whether a job that embeds a project failed and waits to be tried again.
    pub async fn is_embedding_scheduled(&self, project: &str) -> Result<bool> {
        Ok(self.store.is_embedding_scheduled(project).await?)
    }

    pub async fn is_being_embedded(&self, project: &str) -> Result<bool> {
        Ok(self.store.is_being_embedded(project).await?)
    }

    pub async fn projects(&self) -> Result<Vec<Project>> {
        Ok(self.store.projects().await?)
    }

    /// Every space, so that a project's can be shown.
    pub async fn spaces(&self) -> Result<Vec<Space>> {
        Ok(self.store.spaces().await?)
    }

    /// How a project embeds.
    pub(crate) async fn live_space(&self, project: &Project) -> Result<SpaceSpec> {
        let space = self
            .spaces()
            .await?
            .into_iter()
            .find(|space| space.id == project.live_space);
        let space = space.with_context(|| format!("project '{}' has no space", project.name))?;
        Ok(space.spec)
    }

    /// A project in the space that the settings choose; false when it was there already.
    pub async fn create_project(&self, name: &str) -> Result<bool> {
        match self.store.project(name).await {
            Ok(_) => return Ok(false),
            Err(StoreError::NoProject(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let space = self.store.ensure_space(&self.settings.embedding.new_space).await?;
        self.store
            .ensure_project(name, space.id, self.settings.queue.lanes_per_project)
            .await?;
        Ok(true)
    }

    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<()> {
        Ok(self.store.set_paused(name, paused).await?)
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
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
