//! `config check`

use anyhow::Result;
use serde::Serialize;
use shared::config::{AppEnv, SecretSource, Settings};

use crate::Context;
use crate::app;
use crate::exit::{Ended, usage};
use crate::output::{Align, Table};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Read the settings, say what they come to, report every problem
    Check,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Setting {
    name: &'static str,
    value: String,
}

pub(crate) fn run(action: Action, context: &Context) -> Result<Ended> {
    let Action::Check = action;
    let settings = app::settings().map_err(|error| usage(format!("{error:#}")))?;
    context.output.list(&rows(&settings), |rows| {
        let mut table = Table::new(&[("setting", Align::Left), ("value", Align::Left)], "");
        for row in rows {
            table.row([row.name.to_owned(), row.value.clone()]);
        }
        table
    })?;
    Ok(Ended::Well)
}

fn rows(settings: &Settings) -> Vec<Setting> {
    let Settings {
        embedding,
        queue,
        retention,
        ..
    } = settings;
    let space = &embedding.new_space;
    let env = match settings.app_env {
        AppEnv::Production => "production",
        AppEnv::Development => "development",
    };
    let rows = [
        ("APP_ENV", env.to_owned()),
        ("DATABASE_URL", secret(settings.database.as_ref())),
        ("CRON_SECRET", secret(settings.cron_secret.as_ref())),
        ("CRON_SECRET_PREVIOUS", secret(settings.cron_secret_previous.as_ref())),
        ("EMBEDDING_PROVIDER", space.provider.to_string()),
        ("EMBEDDING_MODEL", space.model.clone()),
        ("EMBEDDING_DIMENSIONS", space.dimensions.to_string()),
        ("EMBEDDING_DOCUMENT_PREFIX", space.document_prefix.clone()),
        ("EMBEDDING_QUERY_PREFIX", space.query_prefix.clone()),
        ("EMBEDDING_CHUNK_TOKENS", space.chunk_tokens.to_string()),
        ("EMBEDDING_CHUNK_OVERLAP", space.chunk_overlap.to_string()),
        ("OPENAI_API_KEY", secret(embedding.openai.api_key.as_ref())),
        ("OPENAI_BASE_URL", embedding.openai.base_url.clone()),
        ("EMBEDDING_QUEUE_ENABLED", embedding.queue_enabled.to_string()),
        ("SEMANTIC_SEARCH_ENABLED", embedding.search_enabled.to_string()),
        ("EMBEDDING_BATCH_SIZE", embedding.batch_size.to_string()),
        (
            "EMBEDDING_CONCURRENT_REQUESTS",
            embedding.concurrent_requests.to_string(),
        ),
        ("EMBEDDING_MAX_RETRIES", embedding.max_attempts.to_string()),
        (
            "EMBEDDING_RETRY_BACKOFF_BASE",
            embedding.backoff_base.as_millis().to_string(),
        ),
        ("VECTORIZE_RECORDS_PER_SLICE", queue.records_per_slice.to_string()),
        ("VECTORIZE_JOBS_PER_INVOCATION", queue.vectorize_jobs.to_string()),
        ("VECTORIZE_LANES_PER_PROJECT", queue.lanes_per_project.to_string()),
        ("INGEST_JOBS_PER_INVOCATION", queue.ingest_jobs.to_string()),
        ("INGEST_BATCH_SIZE", queue.ingest_batch_size.to_string()),
        ("EMBEDDING_WORKER_TIMEOUT", queue.worker_timeout.as_millis().to_string()),
        (
            "EMBEDDING_WORKER_INTERVAL",
            queue.worker_interval.as_millis().to_string(),
        ),
        ("EMBEDDING_CONCURRENT_WORKERS", queue.concurrent_workers.to_string()),
        ("EMBEDDING_CLEANUP_RETENTION_DAYS", retention.job_days.to_string()),
        (
            "EMBEDDING_CLEANUP_INTERVAL",
            (retention.interval.as_secs() / 3600).to_string(),
        ),
        ("AUDIT_RETENTION_DAYS", retention.audit_days.to_string()),
        ("METRICS_RETENTION_DAYS", retention.metrics_days.to_string()),
        ("MAX_CONTENT_BYTES", settings.max_content_bytes.to_string()),
        ("SESSION_SECRET", secret(settings.session_secret.as_ref())),
        ("PUBLIC_URL", settings.public_url.clone().unwrap_or_default()),
    ];
    rows.map(|(name, value)| Setting { name, value }).into()
}

/// Where a secret comes from; never what it is.
fn secret(source: Option<&SecretSource>) -> String {
    match source {
        None => "not set",
        Some(SecretSource::Value(_)) => "set",
        Some(SecretSource::Arn(arn)) => arn,
    }
    .to_owned()
}
