//! Owns the pass that brings records in line with their table, slice by slice. Refuses to overwrite what was written after
//! it looked.

use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::super::again::until_done;
use super::super::{Store, StoreError};
use super::{compare, refused};

/// Rows, or records, that one slice looks at.
const ROWS_PER_SLICE: i32 = 1000;
/// Time between two passes of a source.
const REST: &str = "5 minutes";

/// Of a slice's transaction. We wait less than PostgreSQL's `deadlock_timeout`: we give way before anyone looks for a
/// victim. No row of a table is hidden from us in silence: what we don't see would be taken for gone.
pub(super) const SETTINGS: &str =
    "SET LOCAL row_security = off; SET LOCAL lock_timeout = '900ms'; SET LOCAL statement_timeout = '30s';
    SET LOCAL idle_in_transaction_session_timeout = '5s'; SET LOCAL jit = off;
    SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";

/// How a source stands after a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slice {
    /// There is more to compare; so many records were written.
    More { written: u64 },
    /// The pass is through.
    Through { written: u64 },
    /// Another worker is at it.
    Busy,
}

impl Slice {
    pub fn written(&self) -> u64 {
        match self {
            Self::More { written } | Self::Through { written } => *written,
            Self::Busy => 0,
        }
    }
}

struct State {
    id: i32,
    project_id: i32,
    live_space: i32,
    phase: String,
    place: Option<Vec<String>>,
    adopt: bool,
    epoch: i64,
    allow_deletes: bool,
    take_over: Option<i64>,
    fills: bool,
    passes: i64,
}

impl State {
    /// The record that the walk along the records has come to; before the first, nothing.
    fn after(&self) -> &str {
        self.place
            .as_deref()
            .and_then(<[String]>::first)
            .map_or("", String::as_str)
    }
}

impl Store {
    /// Sources whose pass is under way or due, those that have waited longest first.
    pub async fn sources_to_reconcile(&self, project_id: Option<i32>, limit: i64) -> Result<Vec<i32>, StoreError> {
        let rows = self
            .query(
                &format!(
                    "SELECT id FROM cronvec.sources
                     WHERE ((phase <> 'idle' AND trouble IS NULL) OR checked_at < now() - interval '{REST}')
                         AND ($1 IS NULL OR project_id = $1)
                     ORDER BY checked_at, id LIMIT $2"
                ),
                &[(&project_id, Type::INT4), (&limit, Type::INT8)],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Lets the pass that begins next, or is under way, delete records of another origin that were accepted before this
    /// number, unless they have a row.
    pub async fn take_over(&self, source_id: i32, before: i64) -> Result<(), StoreError> {
        self.execute(
            "UPDATE cronvec.sources SET take_over = $2 WHERE id = $1",
            &[(&source_id, Type::INT4), (&before, Type::INT8)],
        )
        .await?;
        Ok(())
    }

    /// Begins a pass anew; one that is under way goes on.
    pub async fn begin_pass(&self, source_id: i32, allow_deletes: bool) -> Result<(), StoreError> {
        self.execute(
            "UPDATE cronvec.sources SET allow_deletes = allow_deletes OR $2, trouble = NULL,
                 phase = CASE phase WHEN 'idle' THEN 'rows' ELSE phase END,
                 place = CASE phase WHEN 'idle' THEN NULL ELSE place END,
                 rows_seen = CASE phase WHEN 'idle' THEN 0 ELSE rows_seen END,
                 changed = CASE phase WHEN 'idle' THEN 0 ELSE changed END,
                 adopted = CASE phase WHEN 'idle' THEN 0 ELSE adopted END,
                 gone = CASE phase WHEN 'idle' THEN 0 ELSE gone END,
                 deleted = CASE phase WHEN 'idle' THEN 0 ELSE deleted END
             WHERE id = $1",
            &[(&source_id, Type::INT4), (&allow_deletes, Type::BOOL)],
        )
        .await?;
        Ok(())
    }

    /// One slice of a source's pass, in one transaction.
    pub async fn reconcile_slice(&self, source_id: i32) -> Result<Slice, StoreError> {
        let done = until_done!(self.again(), self.slice_of(source_id));
        match &done {
            Err(error) if !error.is_outage() && !error.is_lock_timeout() => {
                self.execute(
                    "UPDATE cronvec.sources SET trouble = $2, checked_at = now() WHERE id = $1",
                    &[(&source_id, Type::INT4), (&error.to_string(), Type::TEXT)],
                )
                .await?;
            }
            _ => {}
        }
        done
    }

    /// Reads the rows that the oldest note of a source names. Returns how many records were written; none when there is no
    /// note that is free.
    pub async fn take_note(&self, source_id: i32) -> Result<Option<u64>, StoreError> {
        let taken = until_done!(self.again(), self.note_of(source_id));
        if let Err(error) = &taken
            && !error.is_outage()
            && !error.is_lock_timeout()
        {
            self.execute(
                "UPDATE cronvec.sources SET trouble = $2 WHERE id = $1",
                &[(&source_id, Type::INT4), (&error.to_string(), Type::TEXT)],
            )
            .await?;
        }
        taken
    }

    /// Sources of which large statements have changed rows.
    pub async fn sources_with_notes(&self, project_id: Option<i32>, limit: i64) -> Result<Vec<i32>, StoreError> {
        let rows = self
            .query(
                "SELECT s.id FROM cronvec.sources s
                 WHERE ($1 IS NULL OR s.project_id = $1)
                     AND EXISTS (SELECT FROM cronvec.source_notes n WHERE n.source_id = s.id)
                 ORDER BY s.id LIMIT $2",
                &[(&project_id, Type::INT4), (&limit, Type::INT8)],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn note_of(&self, source_id: i32) -> Result<Option<u64>, StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, SETTINGS).await?;
        let notes = transaction
            .query_typed(
                "SELECT n.id, n.ids, s.project_id, p.live_space, s.take_over FROM cronvec.source_notes n
                 JOIN cronvec.sources s ON s.id = n.source_id JOIN cronvec.projects p ON p.id = s.project_id
                 WHERE n.source_id = $1 ORDER BY n.id LIMIT 1 FOR UPDATE OF n SKIP LOCKED",
                &[(&source_id, Type::INT4)],
            )
            .await?;
        let Some(note) = notes.first() else { return Ok(None) };
        let (id, ids, project_id, live): (i64, Vec<String>, i32, i32) =
            (note.get(0), note.get(1), note.get(2), note.get(3));
        let take_over: Option<i64> = note.get(4);
        let rows = transaction
            .query_typed(
                &compare::statement(&format!("cronvec.source_{source_id}_named($1)"), live),
                &[
                    (&ids, Type::TEXT_ARRAY),
                    (&project_id, Type::INT4),
                    (&false, Type::BOOL),
                    (&false, Type::BOOL),
                    (&source_id, Type::INT4),
                    (&take_over, Type::INT8),
                ],
            )
            .await?;
        let written = number(only(&rows)?.get(2));
        transaction
            .execute_typed("DELETE FROM cronvec.source_notes WHERE id = $1", &[(&id, Type::INT8)])
            .await?;
        transaction.commit().await?;
        Ok(Some(written))
    }

    async fn slice_of(&self, source_id: i32) -> Result<Slice, StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, SETTINGS).await?;
        let rows = transaction
            .query_typed(
                "SELECT s.id, s.project_id, p.live_space, s.phase, s.place, s.adopt, s.epoch, s.allow_deletes,
                     s.take_over, s.embedding_column IS NOT NULL, s.passes
                 FROM cronvec.sources s JOIN cronvec.projects p ON p.id = s.project_id
                 WHERE s.id = $1 FOR NO KEY UPDATE OF s SKIP LOCKED",
                &[(&source_id, Type::INT4)],
            )
            .await?;
        let Some(row) = rows.first() else {
            return Ok(Slice::Busy);
        };
        let state = State {
            id: row.get(0),
            project_id: row.get(1),
            live_space: row.get(2),
            phase: row.get(3),
            place: row.get(4),
            adopt: row.get(5),
            epoch: row.get(6),
            allow_deletes: row.get(7),
            take_over: row.get(8),
            fills: row.get(9),
            passes: row.get(10),
        };
        let slice = match state.phase.as_str() {
            "idle" | "rows" => rows_slice(&transaction, &state).await?,
            "count" => count_slice(&transaction, &state).await?,
            _ => gone_slice(&transaction, &state).await?,
        };
        transaction.commit().await?;
        Ok(slice)
    }
}

/// The table's rows along their key, each beside its record. Rows whose text or metadata differ are written, unless the
/// record was written meanwhile; rows without a record are filled in.
async fn rows_slice(transaction: &Transaction<'_>, state: &State) -> Result<Slice, StoreError> {
    let id = state.id;
    if state.place.is_none() {
        missing_triggers(transaction, id).await?;
    }
    let rows = transaction
        .query_typed(
            &compare::statement(
                &format!("cronvec.source_{id}_rows($1, {ROWS_PER_SLICE})"),
                state.live_space,
            ),
            &[
                (&state.place, Type::TEXT_ARRAY),
                (&state.project_id, Type::INT4),
                (&state.adopt, Type::BOOL),
                (&state.fills, Type::BOOL),
                (&id, Type::INT4),
                (&state.take_over, Type::INT8),
            ],
        )
        .await?;
    let row = only(&rows)?;
    let (read, place): (i64, Option<Vec<String>>) = (row.get(0), row.get(1));
    let (written, adopted, passing): (i64, i64, i64) = (row.get(2), row.get(3), row.get(4));
    let empty: Vec<String> = row.get(5);
    if !empty.is_empty() {
        try_to_fill_column(transaction, state, &empty).await?;
    }
    let at_end = read < i64::from(ROWS_PER_SLICE);
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET phase = CASE WHEN $2 THEN 'count' ELSE 'rows' END,
                 place = CASE WHEN NOT $2 THEN $3 END, rows_seen = CASE WHEN $4 THEN 0 ELSE rows_seen END + $5,
                 changed = CASE WHEN $4 THEN 0 ELSE changed END + $6, adopted = CASE WHEN $4 THEN 0 ELSE adopted END + $7,
                 gone = 0, deleted = 0, trouble = NULL, checked_at = now()
             WHERE id = $1",
            &[
                (&id, Type::INT4),
                (&at_end, Type::BOOL),
                (&place, Type::TEXT_ARRAY),
                (&state.place.is_none(), Type::BOOL),
                (&passing, Type::INT8),
                (&written, Type::INT8),
                (&adopted, Type::INT8),
            ],
        )
        .await?;
    Ok(Slice::More {
        written: number(written),
    })
}

/// A row that refuses its vector costs the comparison nothing: the rows are left to a worker, who finds out which one does.
async fn try_to_fill_column(transaction: &Transaction<'_>, state: &State, ids: &[String]) -> Result<(), StoreError> {
    transaction.batch_execute("SAVEPOINT filling").await?;
    match fill_column(transaction, state, ids).await {
        Err(error) if error.is_refusal() => {
            transaction.batch_execute("ROLLBACK TO SAVEPOINT filling").await?;
            refused::leave_to_a_worker(transaction, state.project_id, state.live_space, ids).await
        }
        done => done,
    }
}

/// Rows whose column is empty though their text is embedded: locked first, and looked at again under the lock.
async fn fill_column(transaction: &Transaction<'_>, state: &State, ids: &[String]) -> Result<(), StoreError> {
    let (id, live) = (state.id, state.live_space);
    let rows = transaction
        .query_typed(
            &format!(
                "SELECT cronvec.source_{id}_lock(ARRAY(SELECT i.id FROM unnest($1::text[]) AS i (id) WHERE NOT {}))",
                refused::has_refused_lately(live)
            ),
            &[(&ids, Type::TEXT_ARRAY), (&state.project_id, Type::INT4)],
        )
        .await?;
    let locked: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    transaction
        .query_typed(
            &format!(
                "WITH firsts AS MATERIALIZED (
                     SELECT i.id, c.embedding FROM unnest($1) AS i (id)
                     CROSS JOIN LATERAL (
                         SELECT r.content_hash FROM cronvec.records r WHERE r.project_id = $2 AND r.id = i.id LIMIT 1) AS r
                     CROSS JOIN LATERAL (
                         SELECT c.embedding FROM cronvec.chunks_{live} c
                         WHERE c.space_id = {live} AND c.project_id = $2 AND c.record_id = i.id
                             AND c.content_hash = r.content_hash AND c.ordinal = 0 LIMIT 1) AS c
                     WHERE EXISTS (SELECT FROM cronvec.embedded_{live} e WHERE e.space_id = {live} AND e.project_id = $2
                         AND e.record_id = i.id AND e.content_hash = r.content_hash)
                 ), freed AS ({})
                 SELECT cronvec.source_{id}_set(ARRAY(SELECT id FROM firsts), ARRAY(SELECT embedding FROM firsts))",
                refused::free(live)
            ),
            &[(&locked, Type::TEXT_ARRAY), (&state.project_id, Type::INT4)],
        )
        .await?;
    // A constraint that waits for the commit would fail the whole slice.
    transaction.batch_execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
    Ok(())
}

/// The part that both walks along the records have: those of a page whose row is gone. Records of another origin are none
/// of ours, but for those that are taken over.
fn missing_records(state: &State) -> String {
    let (id, before) = (state.id, state.take_over.unwrap_or(0));
    format!(
        "page AS MATERIALIZED (
             SELECT r.id, r.accepted, r.source_id IS DISTINCT FROM {id} AS stranger,
                 r.content IS NOT NULL AND (r.source_id IS NOT DISTINCT FROM {id} OR r.accepted < {before}) AS ours
             FROM cronvec.records r WHERE r.project_id = $1 AND r.id > $2 ORDER BY r.id LIMIT $3
         ), there AS MATERIALIZED (
             SELECT t.id FROM cronvec.source_{id}_there(ARRAY(SELECT id FROM page WHERE ours)) AS t (id)
         ), missing AS MATERIALIZED (
             SELECT p.id, p.accepted, p.stranger FROM page p
             WHERE p.ours AND NOT EXISTS (SELECT FROM there t WHERE t.id = p.id)
         )"
    )
}

/// Before anything is deleted: how many would be.
async fn count_slice(transaction: &Transaction<'_>, state: &State) -> Result<Slice, StoreError> {
    let rows = transaction
        .query_typed(
            &format!(
                "WITH {} SELECT (SELECT count(*) FROM page), (SELECT max(id) FROM page),
                     (SELECT count(*) FROM missing WHERE accepted >= $4 AND NOT stranger)",
                missing_records(state)
            ),
            &[
                (&state.project_id, Type::INT4),
                (&state.after(), Type::TEXT),
                (&i64::from(ROWS_PER_SLICE), Type::INT8),
                (&state.epoch, Type::INT8),
            ],
        )
        .await?;
    let row = only(&rows)?;
    let (read, last, missing): (i64, Option<String>, i64) = (row.get(0), row.get(1), row.get(2));
    let at_end = read < i64::from(ROWS_PER_SLICE);
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET gone = gone + $4, trouble = NULL, checked_at = now(),
                 phase = CASE WHEN $2 THEN 'gone' ELSE 'count' END, place = CASE WHEN NOT $2 THEN ARRAY[$3] END
             WHERE id = $1",
            &[
                (&state.id, Type::INT4),
                (&at_end, Type::BOOL),
                (&last, Type::TEXT),
                (&missing, Type::INT8),
            ],
        )
        .await?;
    Ok(Slice::More { written: 0 })
}

/// Deletes what is gone: what went with a TRUNCATE in any case, the rest unless it is more than a tenth of all.
async fn gone_slice(transaction: &Transaction<'_>, state: &State) -> Result<Slice, StoreError> {
    let rows = transaction
        .query_typed(
            &format!(
                "WITH {}, going AS MATERIALIZED (
                     SELECT m.* FROM missing m
                     WHERE m.stranger OR m.accepted < $4 OR $5 OR (SELECT s.gone * 10 <= s.rows_seen + s.gone FROM cronvec.sources s WHERE s.id = $6)
                 ), mine AS MATERIALIZED (
                     SELECT m.id FROM cronvec.still_compared($1, ARRAY(SELECT id FROM going),
                         ARRAY(SELECT accepted FROM going)) AS m (id)
                 ), deleted AS MATERIALIZED (
                     SELECT cronvec.delete_records($1, ARRAY(SELECT id FROM mine))::text WHERE EXISTS (SELECT FROM mine)
                 )
                 SELECT (SELECT count(*) FROM page), (SELECT max(id) FROM page),
                     (SELECT count(*) FROM mine) + (SELECT count(*) - count(*) FROM deleted)",
                missing_records(state)
            ),
            &[
                (&state.project_id, Type::INT4),
                (&state.after(), Type::TEXT),
                (&i64::from(ROWS_PER_SLICE), Type::INT8),
                (&state.epoch, Type::INT8),
                (&state.allow_deletes, Type::BOOL),
                (&state.id, Type::INT4),
            ],
        )
        .await?;
    let row = only(&rows)?;
    let (read, last, deleted): (i64, Option<String>, i64) = (row.get(0), row.get(1), row.get(2));
    let at_end = read < i64::from(ROWS_PER_SLICE);
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET deleted = deleted + $4, checked_at = now(),
                 phase = CASE WHEN $2 THEN 'idle' ELSE 'gone' END, place = CASE WHEN NOT $2 THEN ARRAY[$3] END,
                 passes = passes + $2::int, adopt = adopt AND NOT $2, epoch = CASE WHEN $2 THEN 0 ELSE epoch END,
                 allow_deletes = allow_deletes AND NOT $2, origins_known = origins_known OR $2,
                 take_over = CASE WHEN NOT $2 THEN take_over END,
                 trouble = CASE WHEN $2 AND NOT allow_deletes AND gone * 10 > rows_seen + gone THEN
                     format('%s records of %s are gone from the table, more than a tenth; if that is right, run: cronvec reconcile --allow-deletes',
                         gone, rows_seen + gone) END
             WHERE id = $1",
            &[
                (&state.id, Type::INT4),
                (&at_end, Type::BOOL),
                (&last, Type::TEXT),
                (&deleted, Type::INT8),
            ],
        )
        .await?;
    let written = number(deleted);
    if at_end {
        tracing::debug!(
            source.id = state.id,
            passes = state.passes + 1,
            "a source was compared with its table"
        );
        return Ok(Slice::Through { written });
    }
    Ok(Slice::More { written })
}

/// Partitions that came after the table was attached get its triggers: rows written to them directly are noticed from now
/// on. Nothing is parsed anew: triggers call the functions that are there.
async fn missing_triggers(transaction: &Transaction<'_>, source_id: i32) -> Result<(), StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT format('%I.%I', n.nspname, c.relname), w.what
             FROM cronvec.sources s
             CROSS JOIN LATERAL pg_partition_tree(s.relation) AS t
             JOIN pg_class c ON c.oid = t.relid AND c.relkind IN ('r', 'p') AND c.oid <> s.relation
             JOIN pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN unnest(ARRAY['insert', 'update', 'delete', 'truncate']) AS w (what)
             WHERE s.id = $1 AND NOT EXISTS (
                 SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = format('cronvec_%s_%s', s.id, w.what))
             LIMIT 1000",
            &[(&source_id, Type::INT4)],
        )
        .await?;
    for row in &rows {
        let (leaf, what): (&str, &str) = (row.get(0), row.get(1));
        let statement = super::compile::trigger(source_id, leaf, what);
        transaction.execute_typed(&statement, &[]).await?;
    }
    Ok(())
}

fn only(rows: &[Row]) -> Result<&Row, StoreError> {
    rows.first()
        .ok_or_else(|| StoreError::Unreadable("a statement gave no row".into()))
}

fn number(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
