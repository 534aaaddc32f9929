//! Owns how INGEST_DATA jobs come into the queue. Refuses to read what their records say.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::types::{Json, Type};

use super::again::until_done;
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
        let first = until_done!(self.again(), self.try_to_enqueue(jobs, &columns));
        if super::numbers::are_behind(&first) {
            self.mend_numbers(0).await?;
            return until_done!(self.again(), self.try_to_enqueue(jobs, &columns));
        }
        first
    }

    async fn try_to_enqueue(&self, jobs: &[NewJob<'_>], columns: &Columns<'_>) -> Result<Vec<Enqueued>, StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, "").await?;
        let rows = transaction
            .query_typed(
                "WITH known AS MATERIALIZED (
                     -- A pause or a resumption waits for us: it couldn't see the new jobs.
                     SELECT * FROM cronvec.projects WHERE name = ANY ($1) AND NOT removing ORDER BY id FOR SHARE
                 ), lines AS MATERIALIZED (
                     -- As arrays, which a job looks into by its line's number: a join may be planned to sort all of them.
                     SELECT array_agg(cronvec.not_attached(k.id) ORDER BY l.nth) AS project_id, array_agg(k.paused ORDER BY l.nth) AS paused,
                         array_agg(k.max_attempts ORDER BY l.nth) AS max_attempts,
                         array_agg(k.backoff_ms ORDER BY l.nth) AS backoff_ms,
                         array_agg(cronvec.next_turn('INGEST_DATA', 0, k.id, l.priority) ORDER BY l.nth) AS turn,
                         (SELECT array_agg(nextval('cronvec.acceptance')) FROM generate_series(1, cardinality($3))) AS id
                     FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS l (project, priority, nth)
                     JOIN known k ON k.name = l.project
                     HAVING count(*) = cardinality($1)
                 ), made AS (
                     INSERT INTO cronvec.job_queue (id, job_type, project, project_id, priority, max_attempts, backoff_ms,
                         payload, idempotency_key, idempotency_hash, held, scheduled_for, turn)
                     SELECT l.id[i.nth], 'INGEST_DATA', i.project, l.project_id[i.line], i.priority,
                         coalesce(i.max_attempts, l.max_attempts[i.line], i.max_otherwise),
                         coalesce(i.backoff_ms, l.backoff_ms[i.line], i.backoff_otherwise),
                         i.payload, i.key, i.hash, l.paused[i.line],
                         coalesce(i.at, now() + make_interval(secs => i.delay)),
                         CASE WHEN coalesce(i.at <= now(), i.delay <= 0) AND NOT l.paused[i.line]
                             THEN l.turn[i.line] + i.place END
                     FROM lines l CROSS JOIN unnest($3::text[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[],
                             $9::float8[], $10::jsonb[], $11::text[], $12::bytea[], $13::int[], $14::int[],
                             $15::timestamptz[]) WITH ORDINALITY
                         AS i (project, priority, line, place, max_attempts, backoff_ms, delay, payload, key, hash,
                             max_otherwise, backoff_otherwise, at, nth)
                     ON CONFLICT (project_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
                     RETURNING id
                 )
                 SELECT i.nth, CASE WHEN i.id IN (SELECT id FROM made) THEN i.id END,
                     i.id <= (SELECT last FROM cronvec.acceptance_mark)
                 FROM lines l CROSS JOIN unnest(l.id) WITH ORDINALITY AS i (id, nth)",
                &[
                    (&columns.lines.projects, Type::TEXT_ARRAY),
                    (&columns.lines.priorities, Type::INT4_ARRAY),
                    (&columns.projects, Type::TEXT_ARRAY),
                    (&columns.priorities, Type::INT4_ARRAY),
                    (&columns.line, Type::INT4_ARRAY),
                    (&columns.place, Type::INT4_ARRAY),
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
            .await
            .map_err(super::projects::refused)?;
        if rows.len() != jobs.len() {
            return Err(missing(&transaction, &columns.lines.projects).await?);
        }
        if rows.iter().any(|row| row.get::<_, Option<bool>>(2) == Some(true)) {
            return Err(StoreError::Behind);
        }
        let mut ids = vec![None; jobs.len()];
        for row in &rows {
            // In the order of the jobs, whatever order they come back in.
            let nth = usize::try_from(row.get::<_, i64>(0)).unwrap_or(0);
            if let Some(place) = ids.get_mut(nth.wrapping_sub(1)) {
                *place = row.get(1);
            }
        }
        let mut enqueued = Vec::with_capacity(jobs.len());
        for (id, job) in ids.into_iter().zip(jobs) {
            match id {
                Some(id) => {
                    if !is_inline(job.records) {
                        super::staged::stage(&transaction, id, job.records, job.options.lines.as_deref()).await?;
                    }
                    enqueued.push(Enqueued::New(id));
                }
                None => enqueued.push(existing(&transaction, job).await?),
            }
        }
        transaction.commit().await?;
        Ok(enqueued)
    }
}

/// Why not all of these projects take jobs: what is to be said of the first that doesn't.
pub(super) async fn missing(
    transaction: &deadpool_postgres::Transaction<'_>,
    names: &[&str],
) -> Result<StoreError, StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT i.name, p.id IS NOT NULL FROM unnest($1::text[]) WITH ORDINALITY AS i (name, nth)
             LEFT JOIN cronvec.projects p ON p.name = i.name
             WHERE p.id IS NULL OR p.removing ORDER BY i.nth LIMIT 1",
            &[(&names, Type::TEXT_ARRAY)],
        )
        .await?;
    let (name, is_there) = rows
        .first()
        .map_or((String::new(), false), |row| (row.get(0), row.get(1)));
    Ok(match is_there {
        true => super::projects::is_going(&name),
        false => StoreError::NoProject(name),
    })
}

/// The job that has this key already.
pub(super) async fn existing(
    transaction: &deadpool_postgres::Transaction<'_>,
    job: &NewJob<'_>,
) -> Result<Enqueued, StoreError> {
    let key = job.options.idempotency_key.as_deref();
    let rows = transaction
        .query_typed(
            "SELECT id, idempotency_hash FROM cronvec.job_queue
             WHERE project_id = (SELECT id FROM cronvec.projects WHERE name = $1) AND idempotency_key = $2",
            &[(&job.project, Type::TEXT), (&key, Type::TEXT)],
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

/// The lines that the jobs get into: one a project and priority.
#[derive(Default)]
struct Lines<'a> {
    projects: Vec<&'a str>,
    priorities: Vec<i32>,
    /// The number of each, from 1, and how many got into it.
    known: HashMap<(&'a str, i32), (i32, i32)>,
}

impl<'a> Lines<'a> {
    /// The line's number, and the job's place behind those that got in before it.
    fn get_in(&mut self, project: &'a str, priority: i32) -> (i32, i32) {
        let next = i32::try_from(self.projects.len() + 1).unwrap_or(i32::MAX);
        let (line, places) = self.known.entry((project, priority)).or_insert_with(|| {
            self.projects.push(project);
            self.priorities.push(priority);
            (next, 0)
        });
        *places += 1;
        (*line, *places - 1)
    }
}

#[derive(Default)]
struct Columns<'a> {
    lines: Lines<'a>,
    line: Vec<i32>,
    place: Vec<i32>,
    projects: Vec<&'a str>,
    priorities: Vec<i32>,
    max_attempts: Vec<Option<i32>>,
    backoffs: Vec<Option<i32>>,
    max_otherwise: Vec<i32>,
    backoffs_otherwise: Vec<i32>,
    delays: Vec<f64>,
    moments: Vec<Option<OffsetDateTime>>,
    payloads: Vec<Json<Payload<'a>>>,
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
        let (line, place) = self.lines.get_in(job.project, options.priority);
        self.line.push(line);
        self.place.push(place);
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

/// What an INGEST_DATA job carries in its own row.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    total: usize,
    generate_embeddings: bool,
    priority: i32,
    /// As text within JSON, so that what jsonb can't hold (a NUL) reaches the worker and is rejected there by line.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<&'a [i32]>,
}

fn payload<'a>(job: &'a NewJob<'_>) -> Payload<'a> {
    let inline = is_inline(job.records);
    let text = |record: &&'a [u8]| String::from_utf8_lossy(record);
    Payload {
        total: job.records.len(),
        generate_embeddings: job.options.embed,
        priority: job.options.priority,
        records: inline.then(|| job.records.iter().map(text).collect()),
        lines: job.options.lines.as_deref().filter(|_| inline),
    }
}

fn is_inline(records: &[&[u8]]) -> bool {
    records.iter().map(|record| record.len()).sum::<usize>() <= INLINE_BYTES
        && records
            .iter()
            .all(|record| std::str::from_utf8(record).is_ok_and(|text| !text.contains('\0')))
}

/// Of all that the producer asked for, not of what the project or the settings add.
pub(super) fn body_hash(job: &NewJob<'_>) -> Vec<u8> {
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
