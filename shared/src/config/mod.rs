//! Owns the settings: reads them once, reports all problems together. Refuses to talk to anything.

use std::time::Duration;

use crate::space::SpaceSpec;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppEnv {
    Production,
    Development,
}

/// A value that may be given as itself or as `<NAME>_ARN`. Its `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    Value(String),
    /// The ARN of a secret in AWS Secrets Manager.
    Arn(String),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::Arn(arn) => f.debug_tuple("Arn").field(arn).finish(),
        }
    }
}

/// Everything that the environment says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `APP_ENV`
    pub app_env: AppEnv,
    /// `DATABASE_URL` or `DATABASE_SECRET_ARN`
    pub database: Option<SecretSource>,
    /// `CRON_SECRET`
    pub cron_secret: Option<SecretSource>,
    /// `CRON_SECRET_PREVIOUS`
    pub cron_secret_previous: Option<SecretSource>,
    pub embedding: Embedding,
    pub queue: Queue,
    pub retention: Retention,
    /// `MAX_CONTENT_BYTES`
    pub max_content_bytes: usize,
    /// `SESSION_SECRET`
    pub session_secret: Option<SecretSource>,
    /// `PUBLIC_URL`
    pub public_url: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Embedding {
    /// `EMBEDDING_PROVIDER`, `EMBEDDING_MODEL`, `EMBEDDING_DIMENSIONS`, `EMBEDDING_…_PREFIX`, `EMBEDDING_CHUNK_…`:
    /// the space of new projects.
    pub new_space: SpaceSpec,
    pub openai: OpenAi,
    /// `EMBEDDING_QUEUE_ENABLED`
    pub queue_enabled: bool,
    /// `SEMANTIC_SEARCH_ENABLED`
    pub search_enabled: bool,
    /// `EMBEDDING_BATCH_SIZE`
    pub batch_size: usize,
    /// `EMBEDDING_CONCURRENT_REQUESTS`
    pub concurrent_requests: usize,
    /// `EMBEDDING_MAX_RETRIES`: attempts in all.
    pub max_attempts: i32,
    /// `EMBEDDING_RETRY_BACKOFF_BASE`
    pub backoff_base: Duration,
}

/// How to reach a server of OpenAI's shape.
#[derive(Clone, Debug)]
pub struct OpenAi {
    /// `OPENAI_API_KEY`; a server on loopback may need none.
    pub api_key: Option<SecretSource>,
    /// `OPENAI_BASE_URL`
    pub base_url: String,
}

#[derive(Clone, Debug)]
pub struct Queue {
    /// `VECTORIZE_RECORDS_PER_SLICE`
    pub records_per_slice: usize,
    /// `VECTORIZE_JOBS_PER_INVOCATION`
    pub vectorize_jobs: usize,
    /// `INGEST_JOBS_PER_INVOCATION`
    pub ingest_jobs: usize,
    /// `VECTORIZE_LANES_PER_PROJECT`, of new projects
    pub lanes_per_project: i16,
    /// `INGEST_BATCH_SIZE`
    pub ingest_batch_size: usize,
    /// `EMBEDDING_WORKER_TIMEOUT`
    pub worker_timeout: Duration,
    /// `EMBEDDING_WORKER_INTERVAL`
    pub worker_interval: Duration,
    /// `EMBEDDING_CONCURRENT_WORKERS`
    pub concurrent_workers: usize,
}

#[derive(Clone, Debug)]
pub struct Retention {
    /// `EMBEDDING_CLEANUP_RETENTION_DAYS`
    pub job_days: u32,
    /// `EMBEDDING_CLEANUP_INTERVAL`
    pub interval: Duration,
    /// `AUDIT_RETENTION_DAYS`
    pub audit_days: u32,
    /// `METRICS_RETENTION_DAYS`
    pub metrics_days: u32,
}
