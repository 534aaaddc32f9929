//! Owns the claim: who gets a slot next. Refuses to know what the jobs do.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::leases::COUNT_CRASH;
use super::{Param, Store, StoreError};
use cronvec_nouns::job::{ClaimedJob, JobType, Lease};

const CLAIM: &str = include_str!("claim.sql");

/// A project's own jobs, along its own index.
const ONE_PROJECT: &str = "j.project_id = $7";
const ANY_PROJECT: &str = "$7::int IS NULL";

/// While the number of a project's lanes changes, no job is claimed beside one that counts otherwise: it waits for those
/// that are held, and for older ones in line, or two claims at once would take one of each. `OFFSET` keeps the planner
/// from joining the whole line with itself: this is looked up job by job.
const LANES_AGREE: &str = "NOT EXISTS (
    SELECT FROM cronvec.job_queue o
    WHERE o.job_type = 'VECTORIZE' AND o.status IN ('PENDING', 'PROCESSING')
        AND o.space_id = j.space_id AND o.project_id = j.project_id
        AND o.lanes <> j.lanes AND (o.status = 'PROCESSING' OR o.id < j.id)
    OFFSET 0)";

/// Jobs that stay in the line.
const NOT_LEFT: &str = "j.id <> ALL ($9)";

/// A space that the caller can serve, and the endpoint that it would ask.
#[derive(Debug, Clone)]
pub struct Servable {
    pub space_id: i32,
    pub endpoint: String,
}

/// What a claim wants.
#[derive(Debug, Clone)]
pub struct ClaimWish<'a> {
    pub job_type: JobType,
    /// For VECTORIZE the spaces that this worker serves.
    pub spaces: &'a [Servable],
    pub limit: usize,
    pub lease: Duration,
    pub worker: &'a str,
    pub project_id: Option<i32>,
}

/// What a first look at the queue says.
struct Waiting {
    /// No job of this type could be claimed, whatever its project.
    nobody: bool,
    /// There are jobs whose time has come and that have no place in the line yet.
    due: bool,
}

impl Store {
    /// Leases the jobs whose turn it is: those of dead workers first, then by priority, projects taking turns, each
    /// tenth pick a lower priority's.
    pub async fn claim_jobs(&self, wish: &ClaimWish<'_>) -> Result<Vec<ClaimedJob>, StoreError> {
        self.claim_jobs_as(wish, Uuid::new_v4(), &[]).await
    }

    /// Claims under a token that the caller chose, so that it can release what it claimed even if it never learns the
    /// answer. Jobs in `left` stay in the line.
    pub async fn claim_jobs_as(
        &self,
        wish: &ClaimWish<'_>,
        token: Uuid,
        left: &[i64],
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        let (spaces, endpoints): (Vec<i32>, Vec<&str>) = match wish.job_type {
            JobType::IngestData => (vec![0], vec![""]),
            JobType::Vectorize => wish
                .spaces
                .iter()
                .map(|space| (space.space_id, space.endpoint.as_str()))
                .unzip(),
        };
        match self.who_waits(wish, &spaces, left).await? {
            Waiting { nobody: true, .. } => return Ok(Vec::new()),
            Waiting { due: true, .. } => self.promote_due_jobs().await?,
            Waiting { .. } => {}
        }
        let (job_type, limit) = (wish.job_type.as_str(), i64::try_from(wish.limit).unwrap_or(i64::MAX));
        let lease = wish.lease.as_secs_f64();
        let mut params: Vec<Param<'_>> = vec![
            (&job_type, Type::TEXT),
            (&spaces, Type::INT4_ARRAY),
            (&endpoints, Type::TEXT_ARRAY),
            (&limit, Type::INT8),
            (&lease, Type::FLOAT8),
            (&wish.worker, Type::TEXT),
            (&wish.project_id, Type::INT4),
            (&token, Type::UUID),
        ];
        if !left.is_empty() {
            params.push((&left, Type::INT8_ARRAY));
        }
        let statement = statement(wish.job_type, wish.project_id.is_some(), !left.is_empty());
        let rows = self.query_along_index(&statement, &params).await?;
        rows.iter().map(|row| claimed(row, wish.job_type)).collect()
    }

    /// Asked after each slice, and mostly answered with nobody: planning the claim takes longer than all the rest of it.
    async fn who_waits(&self, wish: &ClaimWish<'_>, spaces: &[i32], left: &[i64]) -> Result<Waiting, StoreError> {
        let rows = self
            .query_along_index(
                "SELECT EXISTS (
                     SELECT FROM unnest($2) AS s (id) CROSS JOIN LATERAL (
                         SELECT FROM cronvec.job_queue j
                         WHERE j.job_type = $1 AND j.space_id = s.id AND j.status = 'PENDING' AND j.turn IS NOT NULL
                             AND j.id <> ALL ($3)
                         LIMIT 1) AS j
                 ) OR EXISTS (
                     SELECT FROM cronvec.job_queue j
                     WHERE j.status = 'PROCESSING' AND j.lease_expires_at <= clock_timestamp() AND j.job_type || '' = $1
                 ), EXISTS (
                     SELECT FROM cronvec.job_queue j
                     WHERE j.status = 'PENDING' AND j.turn IS NULL AND NOT j.held AND j.scheduled_for <= statement_timestamp())",
                &[
                    (&wish.job_type.as_str(), Type::TEXT),
                    (&spaces, Type::INT4_ARRAY),
                    (&left, Type::INT8_ARRAY),
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(super::no_row)?;
        let (claimable, due): (bool, bool) = (row.get(0), row.get(1));
        Ok(Waiting {
            nobody: !claimable && !due,
            due,
        })
    }

    /// Puts jobs whose time has come into the line. A bounded number: the next claim goes on.
    async fn promote_due_jobs(&self) -> Result<(), StoreError> {
        self.query_along_index(
            "WITH due AS MATERIALIZED (
                 SELECT id, job_type, space_id, project_id, priority
                 FROM cronvec.job_queue
                 WHERE status = 'PENDING' AND turn IS NULL AND NOT held AND scheduled_for <= statement_timestamp()
                 ORDER BY scheduled_for LIMIT 1000
                 FOR NO KEY UPDATE SKIP LOCKED
             ), numbered AS (
                 SELECT due.*, row_number() OVER (PARTITION BY job_type, space_id, project_id, priority ORDER BY id) - 1 AS nth
                 FROM due
             )
             UPDATE cronvec.job_queue j
             SET turn = n.nth + cronvec.next_turn(n.job_type, n.space_id, n.project_id, n.priority)
             FROM numbered n WHERE j.id = n.id",
            &[],
        )
        .await?;
        Ok(())
    }
}

/// The text of the claim, for `EXPLAIN` too.
pub fn claim_statement(job_type: JobType, of_one_project: bool) -> String {
    statement(job_type, of_one_project, false)
}

fn statement(job_type: JobType, of_one_project: bool, leaving_some: bool) -> String {
    let project = if of_one_project { ONE_PROJECT } else { ANY_PROJECT };
    let mut only = vec![project];
    if job_type == JobType::Vectorize {
        only.push(LANES_AGREE);
    }
    if leaving_some {
        only.push(NOT_LEFT);
    }
    CLAIM
        .replace("/*project*/", project)
        .replace("/*only*/", &only.join(" AND "))
        .replace("/*crash*/", COUNT_CRASH)
}

fn claimed(row: &Row, job_type: JobType) -> Result<ClaimedJob, StoreError> {
    let progress: Option<serde_json::Value> = row.get(14);
    Ok(ClaimedJob {
        lease: Lease {
            job_id: row.get(0),
            token: row.get(1),
        },
        job_type,
        project: row.get(2),
        project_id: row.get(3),
        space_id: row.get(4),
        lane: row.get(5),
        lanes: row.get(6),
        priority: row.get(7),
        attempts: row.get(8),
        max_attempts: row.get(9),
        backoff_ms: row.get(10),
        crashes: row.get(11),
        payload: row.get(12),
        cursor: row.get(13),
        // Only shown to people: what can't be read of it begins anew.
        progress: progress.and_then(|progress| serde_json::from_value(progress).ok()),
    })
}
