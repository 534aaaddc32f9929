//! Owns the figures that operators read: throughput, rates, percentiles, hours. Refuses to count without a bound.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use super::selection::JobFilter;
use super::{Store, StoreError};
use cronvec_nouns::job::JobType;
use cronvec_nouns::metric::{self, Metric};

/// The latest ended jobs that percentiles are of, and rows of metrics that are added up.
const JOBS_LOOKED_AT: i64 = 20_000;
const METRICS_LOOKED_AT: i64 = 500_000;
const HOURS_LOOKED_AT: i64 = 100_000;
/// The names that statements look for.
const EMBEDDED: &str = metric::RECORDS.table;
const FAILED: &str = metric::FAILED.table;
const QUARANTINED: &str = metric::QUARANTINED.table;
const REQUESTS: &str = metric::REQUESTS.table;
const PASS_MS: &str = metric::PASS_DURATION.table;
const EMBEDDING_MS: &str = metric::EMBEDDING_DURATION.table;
/// Beyond it a number is said to be capped.
pub const CAP: i64 = 10_000;

/// A minute in which workers ended passes.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Minute {
    pub minute: String,
    pub records: f64,
    pub failed: f64,
    pub requests: f64,
}

/// What became of the jobs that ended lately.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobFigures {
    pub completed: i64,
    pub failed: i64,
    pub cancelled: i64,
    /// Ended ones that had failed before, or lost a worker.
    pub retried: i64,
    /// Milliseconds worked on those that completed.
    pub active_ms: Option<Percentiles>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// What became of attempts at records: of each one of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct RecordFigures {
    pub embedded: f64,
    /// Failed, and tried again later.
    pub retried: f64,
    /// Failed for the last time.
    pub quarantined: f64,
}

impl RecordFigures {
    /// A part of all attempts; none when there was none.
    pub fn share(&self, part: f64) -> Option<f64> {
        let all = self.embedded + self.retried + self.quarantined;
        (all > 0.0).then(|| (part / all * 1e4).round() / 1e4)
    }
}

/// What came, ended and failed in an hour.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hour {
    pub hour: String,
    pub created: i64,
    pub completed: i64,
    pub failed: i64,
}

/// Jobs of one type.
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OfType {
    pub job_type: String,
    pub pending: i64,
    pub processing: i64,
    pub completed: i64,
    pub failed: i64,
    pub cancelled: i64,
    pub average_active_ms: Option<f64>,
}

/// A bucket of a histogram: so many values up to this one, and above the bucket before it.
pub type Bucket = (f64, f64);

/// Percentiles of a histogram, each within its bucket as if its values lay evenly.
pub fn percentiles(buckets: &[Bucket]) -> Option<Percentiles> {
    let mut sorted = buckets.to_vec();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    let total: f64 = sorted.iter().map(|bucket| bucket.1).sum();
    if total <= 0.0 {
        return None;
    }
    let at = |share: f64| {
        let wanted = total * share;
        let mut before = 0.0;
        for (bound, count) in &sorted {
            if before + count >= wanted {
                let lower = bound / std::f64::consts::SQRT_2;
                return (lower + (bound - lower) * (wanted - before) / count).round();
            }
            before += count;
        }
        sorted.last().map_or(0.0, |bucket| bucket.0)
    };
    Some(Percentiles {
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
    })
}

impl Store {
    /// Minute by minute, the latest last; minutes without a pass are left out.
    pub async fn throughput(&self, minutes: i32) -> Result<Vec<Minute>, StoreError> {
        let rows = self
            .query(
                &format!(
                    "SELECT to_char(minute AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI\"Z\"'),
                         coalesce(sum(value) FILTER (WHERE metric = '{EMBEDDED}'), 0),
                         coalesce(sum(value) FILTER (WHERE metric = '{FAILED}'), 0),
                         coalesce(sum(value) FILTER (WHERE metric = '{REQUESTS}'), 0)
                     FROM (
                         SELECT date_trunc('minute', timestamp) AS minute, metric, value FROM cronvec.performance_metrics
                         WHERE timestamp > now() - make_interval(mins => $1) ORDER BY timestamp DESC LIMIT $2) AS lately
                     GROUP BY minute
                     HAVING bool_or(metric IN ('{EMBEDDED}', '{FAILED}', '{REQUESTS}')) ORDER BY minute"
                ),
                &[(&minutes, Type::INT4), (&METRICS_LOOKED_AT, Type::INT8)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Minute {
                minute: row.get(0),
                records: row.get(1),
                failed: row.get(2),
                requests: row.get(3),
            })
            .collect())
    }

    /// What became of attempts at records in the last minutes, of one project or of all.
    pub async fn record_figures(&self, project: Option<&str>, minutes: i32) -> Result<RecordFigures, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "SELECT coalesce(sum(value) FILTER (WHERE metric = '{EMBEDDED}'), 0),
                         coalesce(sum(value) FILTER (WHERE metric = '{FAILED}'), 0),
                         coalesce(sum(value) FILTER (WHERE metric = '{QUARANTINED}'), 0)
                     FROM (
                         SELECT metric, value, project FROM cronvec.performance_metrics
                         WHERE timestamp > now() - make_interval(mins => $2) ORDER BY timestamp DESC LIMIT $3) AS lately
                     WHERE $1::text IS NULL OR project = $1"
                ),
                &[
                    (&project, Type::TEXT),
                    (&minutes, Type::INT4),
                    (&METRICS_LOOKED_AT, Type::INT8),
                ],
            )
            .await?;
        let (failed, quarantined): (f64, f64) = (row.get(1), row.get(2));
        Ok(RecordFigures {
            embedded: row.get(0),
            retried: (failed - quarantined).max(0.0),
            quarantined,
        })
    }

    /// A histogram of the last minutes.
    pub async fn durations(&self, of: Metric, minutes: i32) -> Result<Vec<Bucket>, StoreError> {
        let rows = self
            .query(
                "SELECT substr(metric, length($1) + 1)::float8, sum(value)
                 FROM (
                     SELECT metric, value FROM cronvec.performance_metrics
                     WHERE timestamp > now() - make_interval(mins => $2) ORDER BY timestamp DESC LIMIT $3) AS lately
                 WHERE starts_with(metric, $1) GROUP BY metric ORDER BY 1",
                &[
                    (&of.table, Type::TEXT),
                    (&minutes, Type::INT4),
                    (&METRICS_LOOKED_AT, Type::INT8),
                ],
            )
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Records embedded in the last day for each second that workers spent on it; `None` when nothing was.
    pub async fn measured_rate(&self) -> Result<Option<f64>, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "SELECT sum(value) FILTER (WHERE metric = '{EMBEDDED}'),
                         sum(value) FILTER (WHERE metric = '{PASS_MS}')
                     FROM (
                         SELECT metric, value FROM cronvec.performance_metrics
                         WHERE timestamp > now() - interval '1 day' ORDER BY timestamp DESC LIMIT $1) AS lately"
                ),
                &[(&METRICS_LOOKED_AT, Type::INT8)],
            )
            .await?;
        let (records, ms): (Option<f64>, Option<f64>) = (row.get(0), row.get(1));
        Ok(records
            .zip(ms)
            .filter(|(records, ms)| *records > 0.0 && *ms > 0.0)
            .map(|(records, ms)| records / (ms / 1000.0)))
    }

    /// The same of projects that embed by this one's model, in one lane. What whole passes did counts only where no other
    /// model is in use.
    pub async fn measured_rate_of(&self, project_id: i32) -> Result<Option<f64>, StoreError> {
        let row = self
            .query_one(
                &format!(
                    "WITH used AS MATERIALIZED (
                     SELECT l.project_id, s.provider, s.model
                     FROM cronvec.project_spaces l JOIN cronvec.spaces s ON s.id = l.space_id WHERE l.role = 'live'
                 ), alike AS MATERIALIZED (
                     SELECT p.name FROM cronvec.projects p JOIN used u ON u.project_id = p.id
                     WHERE (u.provider, u.model) = (SELECT u.provider, u.model FROM used u WHERE u.project_id = $1)
                 ), lately AS MATERIALIZED (
                     SELECT timestamp, metric, value, project FROM cronvec.performance_metrics
                     WHERE timestamp > now() - interval '1 day' ORDER BY timestamp DESC LIMIT $2
                 ), theirs AS MATERIALIZED (
                     SELECT * FROM lately WHERE project IN (SELECT name FROM alike)
                         -- Older programs didn't tell how long a project was worked on.
                         AND timestamp >= (SELECT min(timestamp) FROM lately WHERE metric = '{EMBEDDING_MS}')
                 )
                 SELECT (SELECT sum(value) FROM theirs WHERE metric = '{EMBEDDED}'),
                     (SELECT sum(value) FROM theirs WHERE metric = '{EMBEDDING_MS}'),
                     (SELECT count(DISTINCT (provider, model)) FROM used)"
                ),
                &[(&project_id, Type::INT4), (&METRICS_LOOKED_AT, Type::INT8)],
            )
            .await?;
        let (records, ms): (Option<f64>, Option<f64>) = (row.get(0), row.get(1));
        if let Some((records, ms)) = records.zip(ms).filter(|(records, ms)| *records > 0.0 && *ms > 0.0) {
            return Ok(Some(records / (ms / 1000.0)));
        }
        match row.get::<_, i64>(2) {
            1 => self.measured_rate().await,
            _ => Ok(None),
        }
    }

    /// Of the jobs that ended in the last minutes, the latest ones.
    pub async fn job_figures(&self, filter: &JobFilter, minutes: i32) -> Result<JobFigures, StoreError> {
        let row = self
            .query_one(
                "SELECT count(*) FILTER (WHERE status = 'COMPLETED'), count(*) FILTER (WHERE status = 'FAILED'),
                     count(*) FILTER (WHERE status = 'CANCELLED'), count(*) FILTER (WHERE attempts > 0 OR crashes > 0),
                     percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY active_ms::float8)
                         FILTER (WHERE status = 'COMPLETED')
                 FROM (
                     SELECT status, attempts, crashes, active_ms FROM cronvec.job_queue
                     WHERE completed_at > now() - make_interval(mins => $3)
                         AND ($1::text IS NULL OR job_type = $1) AND ($2::text IS NULL OR project = $2)
                     ORDER BY completed_at DESC LIMIT $4) AS lately",
                &[
                    (&filter.job_type.map(JobType::as_str), Type::TEXT),
                    (&filter.project, Type::TEXT),
                    (&minutes, Type::INT4),
                    (&JOBS_LOOKED_AT, Type::INT8),
                ],
            )
            .await?;
        let active: Option<Vec<f64>> = row.get(4);
        Ok(JobFigures {
            completed: row.get(0),
            failed: row.get(1),
            cancelled: row.get(2),
            retried: row.get(3),
            active_ms: active.as_deref().and_then(|values| match values {
                [p50, p95, p99] => Some(Percentiles {
                    p50: p50.round(),
                    p95: p95.round(),
                    p99: p99.round(),
                }),
                _ => None,
            }),
        })
    }

    /// Hour by hour, the latest last. Of very many jobs the latest.
    pub async fn hours(&self, filter: &JobFilter, hours: i32) -> Result<Vec<Hour>, StoreError> {
        let rows = self
            .query(
                "SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24\":00Z\"'),
                     count(*) FILTER (WHERE what = 'created'),
                     count(*) FILTER (WHERE what = 'COMPLETED'), count(*) FILTER (WHERE what = 'FAILED')
                 FROM (
                     (SELECT date_trunc('hour', created_at) AS hour, created_at AS at, 'created' AS what
                      FROM cronvec.job_queue
                      WHERE ($1::text IS NULL OR job_type = $1) AND ($2::text IS NULL OR project = $2)
                      ORDER BY id DESC LIMIT $4)
                     UNION ALL
                     (SELECT date_trunc('hour', completed_at), completed_at, status FROM cronvec.job_queue
                      WHERE completed_at > now() - make_interval(hours => $3)
                          AND ($1::text IS NULL OR job_type = $1) AND ($2::text IS NULL OR project = $2)
                      ORDER BY completed_at DESC LIMIT $4)
                 ) AS events
                 WHERE at > now() - make_interval(hours => $3) GROUP BY hour ORDER BY hour",
                &[
                    (&filter.job_type.map(JobType::as_str), Type::TEXT),
                    (&filter.project, Type::TEXT),
                    (&hours, Type::INT4),
                    (&HOURS_LOOKED_AT, Type::INT8),
                ],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Hour {
                hour: row.get(0),
                created: row.get(1),
                completed: row.get(2),
                failed: row.get(3),
            })
            .collect())
    }

    /// Jobs by type and status, each number counted up to [`CAP`] + 1.
    pub async fn jobs_by_type(&self, filter: &JobFilter) -> Result<Vec<OfType>, StoreError> {
        let mut all = Vec::new();
        for kind in [JobType::IngestData, JobType::Vectorize] {
            if filter.job_type.is_some_and(|wanted| wanted != kind) {
                continue;
            }
            let count = |status: &str, order: &str| {
                format!(
                    "(SELECT count(*) FROM (SELECT FROM cronvec.job_queue
                          WHERE status = '{status}' AND job_type = $1 AND ($2::text IS NULL OR project = $2)
                          {order} LIMIT {CAP} + 1) AS first_ones)"
                )
            };
            let row = self
                .query_one(
                    &format!(
                        "SELECT {}, {}, {}, {}, {},
                             (SELECT avg(active_ms)::float8 FROM (
                                 SELECT active_ms FROM cronvec.job_queue
                                 WHERE completed_at IS NOT NULL AND status = 'COMPLETED' AND job_type = $1
                                     AND ($2::text IS NULL OR project = $2)
                                 ORDER BY completed_at DESC LIMIT 1000) AS lately)",
                        count("PENDING", "ORDER BY held, scheduled_for"),
                        count("PROCESSING", "ORDER BY id"),
                        count("COMPLETED", "AND completed_at IS NOT NULL ORDER BY completed_at DESC"),
                        count("FAILED", "ORDER BY id"),
                        count("CANCELLED", "AND completed_at IS NOT NULL ORDER BY completed_at DESC"),
                    ),
                    &[(&kind.as_str(), Type::TEXT), (&filter.project, Type::TEXT)],
                )
                .await?;
            all.push(OfType {
                job_type: kind.as_str().to_owned(),
                pending: row.get(0),
                processing: row.get(1),
                completed: row.get(2),
                failed: row.get(3),
                cancelled: row.get(4),
                average_active_ms: row.get::<_, Option<f64>>(5).map(f64::round),
            });
        }
        Ok(all)
    }

    /// Pending records of one project or of all, counted up to [`CAP`] + 1.
    pub async fn count_pending(&self, project: Option<&str>) -> Result<i64, StoreError> {
        let row = self
            .query_one(
                "SELECT count(*) FROM (
                     SELECT FROM cronvec.projects p
                     JOIN cronvec.project_spaces s ON s.project_id = p.id AND s.role <> 'previous'
                     CROSS JOIN LATERAL (
                         SELECT FROM cronvec.pending w WHERE w.line = (s.space_id::bigint << 32) + p.id LIMIT $2) AS w
                     WHERE $1::text IS NULL OR p.name = $1 LIMIT $2) AS first_ones",
                &[(&project, Type::TEXT), (&(CAP + 1), Type::INT8)],
            )
            .await?;
        Ok(row.get(0))
    }

    /// Seconds since the schema was made.
    pub async fn seconds_installed(&self) -> Result<f64, StoreError> {
        let row = self
            .query_one(
                "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(applied_at)), 0)::float8 FROM cronvec.migrations",
                &[],
            )
            .await?;
        Ok(row.get(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_in_the_bucket_where_they_fall() {
        let buckets = [(100.0, 98.0), (1000.0, 2.0)];
        let found = percentiles(&buckets).unwrap();
        assert!(found.p50 > 70.0 && found.p50 < 100.0, "{found:?}");
        assert!(found.p99 > 700.0 && found.p99 <= 1000.0, "{found:?}");
        assert_eq!(percentiles(&[]), None);
    }
}
