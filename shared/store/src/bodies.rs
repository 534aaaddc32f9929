//! Owns INGEST_DATA jobs that are handed in as several bodies: opened, filled, closed. Refuses to read what their records
//! say.

use deadpool_postgres::Transaction;
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;
use tokio_postgres::types::{Json, Type};

use super::again::until_done;
use super::enqueue::{EnqueueOptions, Enqueued, NewJob, body_hash, existing, missing};
use super::projects::refused;
use super::uploads::{Published, Upload};
use super::{Store, StoreError};

/// Bodies of a job.
pub const MOST_BODIES: i32 = 10_000;
/// Numbers that the pieces of one body may have, in the order of bodies.
pub(super) const PIECES: i32 = 65_536;

const SETTINGS: &str = "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '20s';
    SET LOCAL idle_in_transaction_session_timeout = '5s'";

/// What comes of a body while it is read.
#[derive(Debug)]
pub enum Part {
    /// Records with their lines in the body.
    Piece { lines: Vec<i32>, records: Vec<Vec<u8>> },
    /// That was all of it. Without this nothing is stored.
    End(Body),
}

/// A whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    pub hash: Vec<u8>,
    pub lines: i32,
    pub records: i32,
}

/// What a closed job consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Records of all bodies.
    Whole {
        records: i64,
    },
    /// The first body that isn't there, or that is there and wasn't named.
    Missing(i32),
    Beyond(i32),
}

impl Store {
    /// Makes a job that no claim sees until it is closed. It counts as accepted now.
    pub async fn open_job(&self, project: &str, options: EnqueueOptions) -> Result<Enqueued, StoreError> {
        let job = NewJob {
            project,
            records: &[],
            options,
        };
        let options = &job.options;
        let scheduled_for = options.scheduled_for.map(|at| at.format(&Rfc3339)).transpose();
        let scheduled_for = scheduled_for.map_err(|_| StoreError::Invalid("scheduledFor is out of range".into()))?;
        let payload = Json(json!({
            "total": 0,
            "generateEmbeddings": options.embed,
            "priority": options.priority,
            "scheduledFor": scheduled_for,
        }));
        let hash = options.idempotency_key.as_ref().map(|_| body_hash(&job));
        let first = until_done!(self.again(), self.try_to_open(&job, &payload, hash.as_deref()));
        if super::numbers::are_behind(&first) {
            self.mend_numbers(0).await?;
            return self.try_to_open(&job, &payload, hash.as_deref()).await;
        }
        first
    }

    async fn try_to_open(
        &self,
        job: &NewJob<'_>,
        payload: &Json<serde_json::Value>,
        hash: Option<&[u8]>,
    ) -> Result<Enqueued, StoreError> {
        let (project, options) = (job.project, &job.options);
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, "").await?;
        let rows = transaction
            .query_typed(
                "WITH known AS MATERIALIZED (
                     -- A pause or a resumption waits for us: it couldn't see the new job.
                     SELECT * FROM cronvec.projects WHERE name = $1 AND NOT removing FOR SHARE
                 ), made AS (
                     INSERT INTO cronvec.job_queue (job_type, project, project_id, priority, max_attempts, backoff_ms,
                         payload, progress, idempotency_key, idempotency_hash, held, scheduled_for)
                     SELECT 'INGEST_DATA', $1, cronvec.not_attached(id), $2, coalesce($3, max_attempts, $4), coalesce($5, backoff_ms, $6), $7,
                         '{\"current\": 0, \"total\": 0, \"message\": \"bodies are coming in\"}', $8, $9, paused,
                         now() + interval '100 years'
                     FROM known
                     ON CONFLICT (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
                     RETURNING id
                 ), opened AS (
                     INSERT INTO cronvec.open_jobs (job_id) SELECT id FROM made
                 )
                 SELECT (SELECT id FROM made), (SELECT id FROM made) <= (SELECT last FROM cronvec.acceptance_mark)
                 FROM known",
                &[
                    (&project, Type::TEXT),
                    (&options.priority, Type::INT4),
                    (&options.max_attempts, Type::INT4),
                    (&options.otherwise.max_attempts, Type::INT4),
                    (&options.backoff_ms, Type::INT4),
                    (&options.otherwise.backoff_ms, Type::INT4),
                    (payload, Type::JSONB),
                    (&options.idempotency_key, Type::TEXT),
                    (&hash, Type::BYTEA),
                ],
            )
            .await
            .map_err(refused)?;
        let opened = match rows.first().map(|row| row.get::<_, Option<i64>>(0)) {
            None => return Err(missing(&transaction, &[project]).await?),
            _ if rows.iter().any(|row| row.get::<_, Option<bool>>(1) == Some(true)) => return Err(StoreError::Behind),
            Some(Some(id)) => Enqueued::New(id),
            Some(None) => existing(&transaction, job).await?,
        };
        transaction.commit().await?;
        Ok(opened)
    }

    /// Stores a body of an open job, all of it or nothing. True: it is new; false: it was there. `None`: it broke off.
    /// Its sender may take its time: between two pieces neither a connection nor a lock is held.
    pub async fn put_body(
        &self,
        job_id: i64,
        body: i32,
        mut parts: mpsc::Receiver<Part>,
    ) -> Result<Option<bool>, StoreError> {
        let upload = self.begin_upload(job_id, body).await?.ok_or_else(|| not_open(job_id))?;
        let whole = match self.stage_parts(upload, &mut parts).await {
            Ok(Some(whole)) => whole,
            // Whoever is cut off before this leaves it to the cleanup.
            given_up => {
                self.drop_upload(upload).await?;
                return given_up.map(|_| None);
            }
        };
        match self.publish(upload, &whole).await? {
            Published::New => Ok(Some(true)),
            Published::Same => Ok(Some(false)),
            Published::Another => Err(StoreError::Conflict(format!(
                "body {body} of job {job_id} is there already, and is another"
            ))),
            Published::Closed => Err(not_open(job_id)),
        }
    }

    /// The body, when all of it is staged; none when it broke off.
    async fn stage_parts(&self, upload: Upload, parts: &mut mpsc::Receiver<Part>) -> Result<Option<Body>, StoreError> {
        let mut count = 0;
        loop {
            match parts.recv().await {
                None => return Ok(None),
                Some(Part::End(whole)) => return Ok(Some(whole)),
                Some(Part::Piece { .. }) if count == PIECES => {
                    return Err(StoreError::Invalid(
                        "the body has too many records; send several".into(),
                    ));
                }
                Some(Part::Piece { lines, records }) => {
                    if !self.stage_piece(upload, count, &lines, &records).await? {
                        return Err(not_open(upload.job_id));
                    }
                    count += 1;
                }
            }
        }
    }

    /// Lets an open job run, if it has just these bodies: its lines are numbered through all of them. One that is still
    /// on its way isn't among them. Done again it changes nothing.
    pub async fn close_job(&self, job_id: i64, bodies: i32) -> Result<Closed, StoreError> {
        until_done!(self.again(), self.try_to_close(job_id, bodies))
    }

    async fn try_to_close(&self, job_id: i64, bodies: i32) -> Result<Closed, StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, SETTINGS).await?;
        // Waits for a body that is just being published.
        let is_open = is_open(&transaction, job_id).await?;
        let rows = transaction
            .query_typed(
                "SELECT count(*) FILTER (WHERE body <= $2), max(body),
                     (SELECT min(n) FROM generate_series(1, $2) AS n
                      WHERE n NOT IN (SELECT body FROM cronvec.ingest_bodies WHERE job_id = $1)),
                     coalesce(sum(records), 0)::bigint, coalesce(sum(lines), 0)::bigint
                 FROM cronvec.ingest_bodies WHERE job_id = $1",
                &[(&job_id, Type::INT8), (&bodies, Type::INT4)],
            )
            .await?;
        let row = rows.first().ok_or_else(super::no_row)?;
        let last: Option<i32> = row.get(1);
        if !is_open && last.is_none() {
            return Err(not_open(job_id));
        }
        if let Some(missing) = row.get::<_, Option<i32>>(2) {
            return Ok(Closed::Missing(missing));
        }
        if let Some(beyond) = last.filter(|last| *last > bodies) {
            return Ok(Closed::Beyond(beyond));
        }
        let (records, lines): (i64, i64) = (row.get(3), row.get(4));
        if !is_open {
            return Ok(Closed::Whole { records });
        }
        if i32::try_from(lines).is_err() {
            return Err(StoreError::Invalid("a job has at most 2,147,483,647 lines".into()));
        }
        transaction
            .query_typed(
                "SELECT cronvec.not_attached(project_id) FROM cronvec.job_queue WHERE id = $1",
                &[(&job_id, Type::INT8)],
            )
            .await
            .map_err(refused)?;
        super::uploads::drop_all(&transaction, job_id).await?;
        number_lines(&transaction, job_id).await?;
        let let_go = transaction
            .execute_typed(
                "WITH closed AS (DELETE FROM cronvec.open_jobs WHERE job_id = $1)
                 UPDATE cronvec.job_queue
                 SET payload = payload - 'scheduledFor' || jsonb_build_object('total', $2), progress = NULL,
                     -- The next claim puts it in line.
                     scheduled_for = coalesce((payload->>'scheduledFor')::timestamptz, clock_timestamp())
                 WHERE id = $1 AND status = 'PENDING'",
                &[(&job_id, Type::INT8), (&records, Type::INT8)],
            )
            .await?;
        if let_go == 0 {
            return Err(StoreError::Conflict(format!("job {job_id} was cancelled")));
        }
        transaction.commit().await?;
        Ok(Closed::Whole { records })
    }
}

/// Locks the row that says so.
async fn is_open(transaction: &Transaction<'_>, job_id: i64) -> Result<bool, StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT FROM cronvec.open_jobs WHERE job_id = $1 FOR UPDATE",
            &[(&job_id, Type::INT8)],
        )
        .await?;
    Ok(!rows.is_empty())
}

fn not_open(job_id: i64) -> StoreError {
    StoreError::Conflict(format!("job {job_id} takes no bodies (any more)"))
}

/// Moves the lines of each body behind those before it. The texts stay where they are.
async fn number_lines(transaction: &Transaction<'_>, job_id: i64) -> Result<(), StoreError> {
    transaction
        .execute_typed(
            "UPDATE cronvec.staged s
             SET first_line = s.first_line + before.lines,
                 lines = ARRAY(SELECT line + before.lines FROM unnest(s.lines) WITH ORDINALITY AS l (line, nth) ORDER BY nth)
             FROM (SELECT body, (sum(lines) OVER (ORDER BY body) - lines)::int AS lines
                   FROM cronvec.ingest_bodies WHERE job_id = $1) AS before
             WHERE s.job_id = $1 AND s.piece >= 0 AND s.piece / $2 = before.body - 1 AND before.lines > 0",
            &[(&job_id, Type::INT8), (&PIECES, Type::INT4)],
        )
        .await?;
    Ok(())
}
