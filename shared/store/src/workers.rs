//! Owns what workers leave about themselves: their status, their numbers. Refuses to fail what it describes.

use std::future::Future;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_postgres::types::Type;

use super::{Store, StoreError};

/// When a worker was last seen, and what it said then.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    pub name: String,
    pub is_running: bool,
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub last_seen_at: OffsetDateTime,
    pub last_duration_ms: Option<i64>,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub last_result: Option<Value>,
}

/// One number for `cronvec.performance_metrics`.
#[derive(Debug, Clone, Copy)]
pub struct Metric<'a> {
    pub metric: &'a str,
    pub value: f64,
    pub project: Option<&'a str>,
}

impl Store {
    /// A worker's pass, with its status before and after. What can't be told in time, or at all, is no reason to fail a
    /// pass that is done.
    pub async fn run_as<R: Serialize>(
        &self,
        worker: &str,
        deadline: Instant,
        pass: impl Future<Output = Result<R, StoreError>>,
    ) -> Result<R, StoreError> {
        let began = Instant::now();
        self.database().check_for_writes().await?;
        self.worker_started(worker).await?;
        let outcome = match self.keep_up().await {
            Ok(()) => pass.await,
            Err(error) => Err(error),
        };
        let told = match &outcome {
            Ok(report) => json!(report),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let duration_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
        tell_until(deadline, self.worker_finished(worker, duration_ms, &told)).await;
        // A pass that was cut off has given questions up; a function is frozen once it has answered.
        let _ = tokio::time::timeout_at(deadline.into(), self.database().settled()).await;
        outcome
    }

    async fn worker_started(&self, name: &str) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO cronvec.worker_status (name, is_running) VALUES ($1, true)
             ON CONFLICT (name) DO UPDATE SET is_running = true, last_seen_at = now()",
            &[(&name, Type::TEXT)],
        )
        .await?;
        Ok(())
    }

    async fn worker_finished(&self, name: &str, duration_ms: i64, result: &Value) -> Result<(), StoreError> {
        self.execute(
            "INSERT INTO cronvec.worker_status (name, last_duration_ms, last_result) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET is_running = false, last_seen_at = now(),
                 last_duration_ms = excluded.last_duration_ms, last_result = excluded.last_result",
            &[(&name, Type::TEXT), (&duration_ms, Type::INT8), (&result, Type::JSONB)],
        )
        .await?;
        Ok(())
    }

    pub async fn worker_statuses(&self) -> Result<Vec<WorkerStatus>, StoreError> {
        let rows = self
            .query(
                "SELECT name, is_running, last_seen_at, last_duration_ms, last_result
                 FROM cronvec.worker_status ORDER BY name LIMIT 100",
                &[],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| WorkerStatus {
                name: row.get(0),
                is_running: row.get(1),
                last_seen_at: row.get(2),
                last_duration_ms: row.get(3),
                last_result: row.get(4),
            })
            .collect())
    }

    pub async fn record_metrics(&self, metrics: &[Metric<'_>]) -> Result<(), StoreError> {
        let names: Vec<&str> = metrics.iter().map(|metric| metric.metric).collect();
        let values: Vec<f64> = metrics.iter().map(|metric| metric.value).collect();
        let projects: Vec<Option<&str>> = metrics.iter().map(|metric| metric.project).collect();
        self.execute(
            "INSERT INTO cronvec.performance_metrics (metric, value, project)
             SELECT * FROM unnest($1::text[], $2::float8[], $3::text[])",
            &[
                (&names, Type::TEXT_ARRAY),
                (&values, Type::FLOAT8_ARRAY),
                (&projects, Type::TEXT_ARRAY),
            ],
        )
        .await?;
        Ok(())
    }
}

/// Writes down something about a worker, for as long as there is time.
pub async fn tell_until(deadline: Instant, telling: impl Future<Output = Result<(), StoreError>>) {
    match tokio::time::timeout_at(deadline.into(), telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %error, "a worker's status or numbers could not be written"),
        Err(_) => tracing::warn!("no time was left for a worker's status or numbers"),
    }
}
