//! Owns the numbers that a page asks for every few seconds, of all projects or of some. Refuses whatever costs more as
//! the queue grows: counts are capped, lists are short, what must be counted whole is counted rarely.

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::jobs::{COUNTS, Counts, OldestPending, rfc3339};
use super::listing::{READ, READ_ALONG};
use super::{Store, StoreError};
use cronvec_nouns::token::Reach;

/// Beyond it a number is said to be capped.
const CAP: i64 = 10_000;
/// The latest failed jobs that are grouped, of all or of each project.
const FAILED_LOOKED_AT: i64 = 1000;
/// The first waiting jobs of a project among which the oldest is looked for.
const WAITING_LOOKED_AT: i64 = 1000;

/// The same as [`COUNTS`], of the projects in $2.
const COUNTS_OF_PROJECTS: &str = "SELECT
    (SELECT count(*) FROM (SELECT FROM unnest($2::text[]) AS p (name) CROSS JOIN LATERAL (
         SELECT FROM cronvec.job_queue j WHERE j.project = p.name AND j.status = s.status LIMIT $1 + 1) AS j
         LIMIT $1 + 1) AS first_ones)
    FROM unnest(ARRAY['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED']) WITH ORDINALITY AS s (status, nth) ORDER BY nth";

/// Failed jobs by reason.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub reason: String,
    /// Of the latest that were looked at.
    pub count: i64,
    pub last_at: String,
    pub example_job_id: String,
}

/// Records that ended in a minute or an hour; those in which none did are left out.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flow {
    /// When it began.
    pub at: String,
    pub records: f64,
    pub failed: f64,
}

/// The last hour by minute, and its and the former hours' sums: of one reading, so that they fit together.
#[derive(Debug, Clone)]
pub struct Lately {
    pub minutes: Vec<Flow>,
    /// The present hour and the one before it.
    pub hours: Vec<Flow>,
    /// When the first of them began.
    pub since: String,
}

/// An endpoint that nobody asks now.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rest {
    pub endpoint: String,
    pub until: String,
    #[serde(skip)]
    pub seconds_left: f64,
    /// Only a person can mend it; `until` is its next canary.
    pub circuit: bool,
    pub why: String,
}

impl Store {
    /// How many jobs stand in each status, and which of these numbers are capped.
    pub async fn counts_of(&self, reach: &Reach) -> Result<(Counts, Vec<&'static str>), StoreError> {
        let found: Vec<i64> = match reach.projects() {
            None => {
                let rows = self
                    .query_in_transaction(READ_ALONG, COUNTS, &[(&CAP, Type::INT8)])
                    .await?;
                let row = rows.first().ok_or_else(super::no_row)?;
                (0..4).map(|column| row.get(column)).collect()
            }
            Some(projects) => {
                let params = [(&CAP as _, Type::INT8), (&projects as _, Type::TEXT_ARRAY)];
                let rows = self
                    .query_in_transaction(READ_ALONG, COUNTS_OF_PROJECTS, &params)
                    .await?;
                rows.iter().map(|row| row.get(0)).collect()
            }
        };
        let names = ["pending", "processing", "completed", "failed"];
        let capped = names
            .into_iter()
            .zip(&found)
            .filter(|(_, jobs)| **jobs > CAP)
            .map(|(name, _)| name);
        let capped = capped.collect();
        let [pending, processing, completed, failed] = found[..] else {
            return Err(StoreError::Unreadable("the counts of the queue".into()));
        };
        let counts = Counts {
            pending: pending.min(CAP),
            processing: processing.min(CAP),
            completed: completed.min(CAP),
            failed: failed.min(CAP),
        };
        Ok((counts, capped))
    }

    /// Of those that could be claimed now.
    pub async fn oldest_pending_of(&self, reach: &Reach) -> Result<Option<OldestPending>, StoreError> {
        let Some(projects) = reach.projects() else {
            return self.oldest_pending_job().await;
        };
        let rows = self
            .query_in_transaction(
                READ_ALONG,
                "SELECT j.id, j.created_at, (extract(epoch FROM clock_timestamp() - j.scheduled_for) / 60)::float8
                 FROM unnest($1::text[]) AS p (name) CROSS JOIN LATERAL (
                     SELECT j.id, j.created_at, j.scheduled_for, j.held FROM cronvec.job_queue j
                     WHERE j.project = p.name AND j.status = 'PENDING' ORDER BY j.id LIMIT $2) AS j
                 WHERE NOT j.held AND j.scheduled_for <= statement_timestamp()
                 ORDER BY j.scheduled_for LIMIT 1",
                &[(&projects, Type::TEXT_ARRAY), (&WAITING_LOOKED_AT, Type::INT8)],
            )
            .await?;
        Ok(rows.first().map(|row| OldestPending {
            id: row.get::<_, i64>(0).to_string(),
            created_at: rfc3339(row.get(1)),
            age_minutes: (row.get::<_, f64>(2) * 10.0).round() / 10.0,
        }))
    }

    /// The latest failed jobs by reason, the most frequent first.
    pub async fn failures_of(&self, reach: &Reach) -> Result<Vec<Failure>, StoreError> {
        let of_projects = "SELECT j.* FROM unnest($1::text[]) AS p (name) CROSS JOIN LATERAL (
                 SELECT j.id, j.result, j.completed_at FROM cronvec.job_queue j
                 WHERE j.project = p.name AND j.status = 'FAILED' ORDER BY j.id DESC LIMIT $2) AS j";
        let of_all = "SELECT id, result, completed_at FROM cronvec.job_queue
             WHERE status = 'FAILED' AND $1::text[] IS NULL ORDER BY id DESC LIMIT $2";
        let latest = if reach.is_all() { of_all } else { of_projects };
        let rows = self
            .query_in_transaction(
                READ_ALONG,
                &format!(
                    "SELECT left(coalesce(result->>'error', 'no reason given'), 500) AS reason, count(*),
                         max(completed_at), max(id)
                     FROM ({latest}) AS latest GROUP BY reason ORDER BY count(*) DESC, max(id) DESC LIMIT 50"
                ),
                &[(&reach.projects(), Type::TEXT_ARRAY), (&FAILED_LOOKED_AT, Type::INT8)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Failure {
                reason: row.get(0),
                count: row.get(1),
                last_at: rfc3339(row.get(2)),
                example_job_id: row.get::<_, i64>(3).to_string(),
            })
            .collect())
    }

    /// Records embedded and failed in the last hour by minute, and in the present hour and the one before it; the latest last.
    pub async fn flow_lately(&self, reach: &Reach) -> Result<Lately, StoreError> {
        let rows = self
            .query_in_transaction(
                READ,
                "WITH lately AS MATERIALIZED (
                     SELECT date_trunc('minute', timestamp AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS at, metric, value,
                         timestamp > now() - interval '1 hour' AS in_hour
                     FROM cronvec.performance_metrics
                     WHERE metric IN ('records_embedded', 'records_failed')
                         AND timestamp >= date_trunc('hour', now(), 'UTC') - interval '1 hour'
                         AND ($1::text[] IS NULL OR project = ANY ($1))
                 )
                 SELECT false AS is_hour, at, coalesce(sum(value) FILTER (WHERE metric = 'records_embedded'), 0),
                     coalesce(sum(value) FILTER (WHERE metric = 'records_failed'), 0)
                 FROM lately WHERE in_hour GROUP BY at HAVING sum(value) > 0
                 UNION ALL
                 SELECT true, date_trunc('hour', at, 'UTC') AS hour,
                     coalesce(sum(value) FILTER (WHERE metric = 'records_embedded'), 0),
                     coalesce(sum(value) FILTER (WHERE metric = 'records_failed'), 0)
                 FROM lately GROUP BY hour HAVING sum(value) > 0
                 UNION ALL
                 SELECT NULL, date_trunc('hour', now(), 'UTC') - interval '1 hour', 0, 0
                 ORDER BY at LIMIT 200",
                &[(&reach.projects(), Type::TEXT_ARRAY)],
            )
            .await?;
        let of = |wanted: Option<bool>| rows.iter().filter(move |row| row.get::<_, Option<bool>>(0) == wanted);
        Ok(Lately {
            minutes: of(Some(false)).map(flow).collect(),
            hours: of(Some(true)).map(flow).collect(),
            since: of(None).map(|row| rfc3339(row.get(1))).next().unwrap_or_default(),
        })
    }

    /// The same of the day's hours before those two, which don't change any more.
    pub async fn flow_before(&self, reach: &Reach) -> Result<Vec<Flow>, StoreError> {
        let rows = self
            .query_in_transaction(
                READ,
                "SELECT true, date_trunc('hour', timestamp, 'UTC') AS at,
                     coalesce(sum(value) FILTER (WHERE metric = 'records_embedded'), 0),
                     coalesce(sum(value) FILTER (WHERE metric = 'records_failed'), 0)
                 FROM cronvec.performance_metrics
                 WHERE metric IN ('records_embedded', 'records_failed') AND timestamp > now() - interval '1 day'
                     AND timestamp < date_trunc('hour', now(), 'UTC') - interval '1 hour'
                     AND ($1::text[] IS NULL OR project = ANY ($1))
                 GROUP BY at HAVING sum(value) > 0 ORDER BY at LIMIT 100",
                &[(&reach.projects(), Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(rows.iter().map(flow).collect())
    }

    /// Endpoints that rest; of some projects those that their spaces are asked at.
    pub async fn rests_of(&self, reach: &Reach) -> Result<Vec<Rest>, StoreError> {
        let rows = self
            .query(
                "SELECT endpoint, until, circuit, message,
                     greatest(extract(epoch FROM until - clock_timestamp()), 0)::float8
                 FROM cronvec.provider_pauses r
                 WHERE (circuit OR until > clock_timestamp()) AND ($1::text[] IS NULL OR EXISTS (
                     SELECT FROM cronvec.projects p JOIN cronvec.project_spaces o ON o.project_id = p.id
                     JOIN cronvec.spaces s ON s.id = o.space_id
                     WHERE p.name = ANY ($1) AND split_part(r.endpoint, '|', 1) = s.provider
                         AND split_part(r.endpoint, '|', 3) = s.model))
                 ORDER BY endpoint LIMIT 100",
                &[(&reach.projects(), Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(rows.iter().map(rest).collect())
    }

    /// The database's time.
    pub async fn clock(&self) -> Result<OffsetDateTime, StoreError> {
        Ok(self.query_one("SELECT clock_timestamp()", &[]).await?.get(0))
    }
}

fn flow(row: &Row) -> Flow {
    Flow {
        at: rfc3339(row.get(1)),
        records: row.get(2),
        failed: row.get(3),
    }
}

fn rest(row: &Row) -> Rest {
    Rest {
        endpoint: row.get(0),
        until: rfc3339(row.get(1)),
        circuit: row.get(2),
        why: row.get(3),
        seconds_left: row.get(4),
    }
}
