//! Owns how INGEST_DATA jobs come into the queue. Refuses to read what their records say.

use time::OffsetDateTime;
use tokio_postgres::types::{Json, Type};

use super::{Store, StoreError};

/// Records of a payload that is kept in the job's own row, in bytes; larger ones are staged.
const INLINE_BYTES: usize = 64 * 1024;

/// What a producer asks of a job.
#[derive(Debug, Clone)]
pub struct EnqueueOptions {
    pub priority: i32,
    /// The job's own; else its project's, else `otherwise`.
    pub max_attempts: Option<i32>,
    pub backoff_ms: Option<i32>,
    pub otherwise: Retries,
    /// From now; zero for at once.
    pub delay: std::time::Duration,
    /// Instead of a delay.
    pub scheduled_for: Option<OffsetDateTime>,
    pub embed: bool,
    pub idempotency_key: Option<String>,
    /// Where each record stood in the file that it comes from, rising; else they count from 1.
    pub lines: Option<Vec<i32>>,
}

impl Default for EnqueueOptions {
    fn default() -> Self {
        Self {
            priority: 0,
            max_attempts: None,
            backoff_ms: None,
            otherwise: Retries::default(),
            delay: std::time::Duration::ZERO,
            scheduled_for: None,
            embed: true,
            idempotency_key: None,
            lines: None,
        }
    }
}

/// What the settings say of attempts and backoff.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    pub max_attempts: i32,
    pub backoff_ms: i32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff_ms: 10_000,
        }
    }
}

/// A job to be: its project and its records, one JSON text each.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    pub project: &'a str,
    pub records: &'a [&'a [u8]],
    pub options: EnqueueOptions,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    New(i64),
    /// The same key and the same body: the job that is there.
    Same(i64),
}

impl Enqueued {
    pub fn job_id(&self) -> i64 {
        match self {
            Self::New(id) | Self::Same(id) => *id,
        }
    }
}

impl Store {
    /// Puts one INGEST_DATA job into the queue.
    pub async fn enqueue(&self, job: NewJob<'_>) -> Result<Enqueued, StoreError> {
        let mut all = self.enqueue_many(std::slice::from_ref(&job)).await?;
        all.pop()
            .ok_or_else(|| StoreError::Unreadable("enqueue gave no job".into()))
    }

    /// Puts many into the queue in one statement. All or none.
    pub async fn enqueue_many(&self, jobs: &[NewJob<'_>]) -> Result<Vec<Enqueued>, StoreError> {
        let mut columns = Columns::default();
        for job in jobs {
            columns.push(job)?;
        }
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        let rows = transaction
            .query_typed(
                "WITH known AS MATERIALIZED (
                     -- A pause or a resumption waits for us: it couldn't see the new jobs.
                     SELECT * FROM cronvec.projects WHERE name = ANY ($1) ORDER BY id FOR SHARE
                 ), input AS MATERIALIZED (
                     SELECT i.nth, p.id AS project_id, p.name AS project, p.paused, i.priority,
                         coalesce(i.max_attempts, p.max_attempts, i.max_otherwise) AS max_attempts,
                         coalesce(i.backoff_ms, p.backoff_ms, i.backoff_otherwise) AS backoff_ms,
                         i.payload, i.key, i.hash, nextval('cronvec.acceptance') AS id,
                         coalesce(i.at, now() + make_interval(secs => i.delay)) AS scheduled_for,
                         coalesce(i.at <= now(), i.delay <= 0) AND NOT p.paused AS in_line
                     FROM unnest($1::text[], $2::int[], $3::int[], $4::int[], $5::float8[], $6::jsonb[], $7::text[],
                             $8::bytea[], $9::int[], $10::int[], $11::timestamptz[]) WITH ORDINALITY
                         AS i (project, priority, max_attempts, backoff_ms, delay, payload, key, hash, max_otherwise,
                             backoff_otherwise, at, nth)
                     JOIN known p ON p.name = i.project
                     ORDER BY i.nth
                 ), bases AS MATERIALIZED (
                     SELECT project_id, priority, cronvec.next_turn('INGEST_DATA', 0, project_id, priority) AS turn
                     FROM (SELECT DISTINCT project_id, priority FROM input WHERE in_line) AS lines
                 ), made AS (
                     INSERT INTO cronvec.job_queue (id, job_type, project, project_id, priority, max_attempts, backoff_ms,
                         payload, idempotency_key, idempotency_hash, held, scheduled_for, turn)
                     SELECT i.id, 'INGEST_DATA', i.project, i.project_id, i.priority, i.max_attempts, i.backoff_ms,
                         i.payload, i.key, i.hash, i.paused, i.scheduled_for,
                         CASE WHEN i.in_line THEN b.turn - 1
                             + row_number() OVER (PARTITION BY i.project_id, i.priority, i.in_line ORDER BY i.nth) END
                     FROM input i LEFT JOIN bases b USING (project_id, priority)
                     ORDER BY i.nth
                     ON CONFLICT (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
                     RETURNING id
                 )
                 SELECT i.nth, i.project_id, made.id FROM input i LEFT JOIN made USING (id) ORDER BY i.nth",
                &[
                    (&columns.projects, Type::TEXT_ARRAY),
                    (&columns.priorities, Type::INT4_ARRAY),
                    (&columns.max_attempts, Type::INT4_ARRAY),
                    (&columns.backoffs, Type::INT4_ARRAY),
                    (&columns.delays, Type::FLOAT8_ARRAY),
                    (&columns.payloads, Type::JSONB_ARRAY),
                    (&columns.keys, Type::TEXT_ARRAY),
                    (&columns.hashes, Type::BYTEA_ARRAY),
                    (&columns.max_otherwise, Type::INT4_ARRAY),
                    (&columns.backoffs_otherwise, Type::INT4_ARRAY),
                    (&columns.moments, Type::TIMESTAMPTZ_ARRAY),
                ],
            )
            .await?;
        if rows.len() != jobs.len() {
            let found: std::collections::HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
            let missing = (1..)
                .zip(jobs)
                .find(|(nth, _)| !found.contains(nth))
                .map_or("", |(_, job)| job.project);
            return Err(StoreError::NoProject(missing.into()));
        }
        let mut enqueued = Vec::with_capacity(jobs.len());
        for (row, job) in rows.iter().zip(jobs) {
            match row.get::<_, Option<i64>>(2) {
                Some(id) => {
                    if !is_inline(job.records) {
                        super::staged::stage(&transaction, id, job.records, job.options.lines.as_deref()).await?;
                    }
                    enqueued.push(Enqueued::New(id));
                }
                None => enqueued.push(existing(&transaction, row.get(1), job).await?),
            }
        }
        transaction.commit().await?;
        Ok(enqueued)
    }
}

/// The job that has this key already.
async fn existing(
    transaction: &deadpool_postgres::Transaction<'_>,
    project_id: i32,
    job: &NewJob<'_>,
) -> Result<Enqueued, StoreError> {
    let key = job.options.idempotency_key.as_deref();
    let rows = transaction
        .query_typed(
            "SELECT id, idempotency_hash FROM cronvec.job_queue WHERE project_id = $1 AND idempotency_key = $2",
            &[(&project_id, Type::INT4), (&key, Type::TEXT)],
        )
        .await?;
    match rows.first() {
        Some(row) if row.get::<_, &[u8]>(1) == body_hash(job).as_slice() => Ok(Enqueued::Same(row.get(0))),
        Some(row) => Err(StoreError::Conflict(format!(
            "the idempotency key '{}' was used for another body (job {})",
            key.unwrap_or_default(),
            row.get::<_, i64>(0)
        ))),
        None => Err(StoreError::Conflict(
            "the job with this idempotency key has just gone; send it again".into(),
        )),
    }
}

#[derive(Default)]
struct Columns<'a> {
    projects: Vec<&'a str>,
    priorities: Vec<i32>,
    max_attempts: Vec<Option<i32>>,
    backoffs: Vec<Option<i32>>,
    max_otherwise: Vec<i32>,
    backoffs_otherwise: Vec<i32>,
    delays: Vec<f64>,
    moments: Vec<Option<OffsetDateTime>>,
    payloads: Vec<Json<serde_json::Value>>,
    keys: Vec<Option<&'a str>>,
    hashes: Vec<Option<Vec<u8>>>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, job: &'a NewJob<'_>) -> Result<(), StoreError> {
        let options = &job.options;
        let otherwise = options.otherwise;
        if options.max_attempts.unwrap_or(otherwise.max_attempts) < 1
            || options.backoff_ms.unwrap_or(otherwise.backoff_ms) < 0
        {
            return Err(StoreError::Invalid(
                "maxAttempts is at least 1, a backoff isn't negative".into(),
            ));
        }
        if options.priority == i32::MIN {
            return Err(StoreError::Invalid(format!("a priority is larger than {}", i32::MIN)));
        }
        if options
            .idempotency_key
            .as_ref()
            .is_some_and(|key| key.contains('\0') || key.len() > 500)
        {
            return Err(StoreError::Invalid(
                "an idempotency key has at most 500 bytes, none of them NUL".into(),
            ));
        }
        if options
            .lines
            .as_ref()
            .is_some_and(|lines| lines.len() != job.records.len() || !lines.is_sorted_by(|one, next| one < next))
        {
            return Err(StoreError::Invalid(
                "each record has one line, behind the one before it".into(),
            ));
        }
        self.projects.push(job.project);
        self.priorities.push(options.priority);
        self.max_attempts.push(options.max_attempts);
        self.backoffs.push(options.backoff_ms);
        self.max_otherwise.push(otherwise.max_attempts);
        self.backoffs_otherwise.push(otherwise.backoff_ms);
        self.delays.push(options.delay.as_secs_f64());
        self.moments.push(options.scheduled_for);
        self.payloads.push(Json(payload(job)));
        self.keys.push(options.idempotency_key.as_deref());
        self.hashes
            .push(options.idempotency_key.as_ref().map(|_| body_hash(job)));
        Ok(())
    }
}

fn payload(job: &NewJob<'_>) -> serde_json::Value {
    let mut payload = serde_json::json!({
        "total": job.records.len(),
        "generateEmbeddings": job.options.embed,
        "priority": job.options.priority,
    });
    if is_inline(job.records) {
        let texts: Vec<_> = job
            .records
            .iter()
            .map(|record| String::from_utf8_lossy(record))
            .collect();
        // As text within JSON, so that what jsonb can't hold (a NUL) reaches the worker and is rejected there by line.
        payload["records"] = serde_json::json!(texts);
        if let Some(lines) = &job.options.lines {
            payload["lines"] = serde_json::json!(lines);
        }
    }
    payload
}

fn is_inline(records: &[&[u8]]) -> bool {
    records.iter().map(|record| record.len()).sum::<usize>() <= INLINE_BYTES
        && records
            .iter()
            .all(|record| std::str::from_utf8(record).is_ok_and(|text| !text.contains('\0')))
}

/// Of all that the producer asked for, not of what the project or the settings add.
fn body_hash(job: &NewJob<'_>) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let options = &job.options;
    let asked = (
        options.embed,
        options.priority,
        options.max_attempts,
        options.backoff_ms,
        options.delay,
        options.scheduled_for.map(OffsetDateTime::unix_timestamp_nanos),
    );
    let mut hash = Sha256::new();
    hash.update(format!("{asked:?}\n"));
    for record in job.records {
        hash.update(record.len().to_le_bytes());
        hash.update(record);
    }
    hash.finalize().to_vec()
}
