//! Owns the pass that brings records in line with their table, slice by slice. Refuses to overwrite what was written after
//! it looked.

use std::time::Instant;

use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::super::again::until_done;
use super::super::{Store, StoreError};
use super::compile::Mode;
use super::fill::try_to_fill_column;
use super::{compare, notes, trouble};

/// Records that one slice looks at, and rows at most.
pub(super) const ROWS_PER_SLICE: i32 = 1000;
/// Bytes of their texts, but for the first row's.
pub(super) const BYTES_PER_SLICE: i64 = 16_000_000;
/// Time between two passes of a source.
const REST: &str = "5 minutes";

/// Of a slice's transaction. We wait less than PostgreSQL's `deadlock_timeout`: we give way before anyone looks for a
/// victim. No row of a table is hidden from us in silence: what we don't see would be taken for gone.
pub(super) const SETTINGS: &str =
    "SET LOCAL row_security = off; SET LOCAL lock_timeout = '900ms'; SET LOCAL statement_timeout = '10s';
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

/// What is known of a source when a slice begins.
pub(super) struct State {
    pub id: i32,
    pub project_id: i32,
    pub live_space: i32,
    phase: String,
    place: Option<Vec<String>>,
    adopt: bool,
    pub epoch: i64,
    allow_deletes: bool,
    pub take_over: Option<i64>,
    pub fills: bool,
    /// Records without a row that the walk has counted so far.
    gone: i64,
    passes: i64,
    pub page_rows: i32,
    /// Its functions are those of a program before schema 13: they read all rows at once, and no fewer for their bytes.
    pub is_old: bool,
    /// It, or a part of it, was truncated, which is yet to be read.
    pub was_emptied: bool,
}

/// How a slice, or a note, is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub mode: Mode,
    pub max_content_bytes: i64,
}

impl How {
    pub fn fast(max_content_bytes: usize) -> Self {
        Self {
            mode: Mode::Fast,
            max_content_bytes: i64::try_from(max_content_bytes).unwrap_or(i64::MAX),
        }
    }

    /// So many rows at a time.
    pub fn rows(self, page_rows: i32) -> i32 {
        if self.mode == Mode::Blind { 1 } else { page_rows }
    }
}

impl State {
    /// The source, locked; none while another worker is at it.
    pub async fn lock(transaction: &Transaction<'_>, source_id: i32) -> Result<Option<Self>, StoreError> {
        let rows = transaction
            .query_typed(
                "SELECT s.id, s.project_id, l.space_id, s.phase, s.place, s.adopt, s.epoch, s.allow_deletes,
                     s.take_over, s.embedding_column IS NOT NULL, s.gone, s.passes, s.page_rows, s.generation = 0,
                     EXISTS (SELECT FROM cronvec.source_truncated t WHERE t.source_id = s.id)
                 FROM cronvec.sources s JOIN cronvec.project_spaces l ON l.project_id = s.project_id AND l.role = 'live'
                 WHERE s.id = $1 FOR NO KEY UPDATE OF s SKIP LOCKED",
                &[(&source_id, Type::INT4)],
            )
            .await?;
        Ok(rows.first().map(|row| Self {
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
            gone: row.get(10),
            passes: row.get(11),
            page_rows: row.get(12),
            is_old: row.get(13),
            was_emptied: row.get(14),
        }))
    }

    /// What gives rows to compare; `$1` is theirs.
    pub fn reader(&self, function: &str, mode: Mode, rows: i32) -> String {
        let id = self.id;
        let (name, arguments) = match function {
            "page" => ("rows", format!("$1, {rows}")),
            _ => ("named", "$1".to_owned()),
        };
        if self.is_old {
            return format!(
                "(SELECT o.*, NULL::text AS reason, NULL::text AS message, count(*) OVER () AS found
                  FROM cronvec.source_{id}_{name}({arguments}) AS o)"
            );
        }
        format!(
            "cronvec.source_{id}_{function}({arguments}, {BYTES_PER_SLICE}, {})",
            mode as i32
        )
    }

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
                     WHERE (phase <> 'idle' OR checked_at < now() - interval '{REST}')
                         AND (rests_until IS NULL OR rests_until < now())
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
            "UPDATE cronvec.sources SET allow_deletes = allow_deletes OR $2, trouble = NULL, rests_until = NULL,
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

    /// One slice of a source's pass, in one transaction. A row that can't be read, or whose text has more bytes, costs itself
    /// alone; a page that takes too long is tried again with fewer rows.
    pub async fn reconcile_slice(&self, source_id: i32, max_content_bytes: usize) -> Result<Slice, StoreError> {
        let fast = How::fast(max_content_bytes);
        let done = until_done!(self.again(), self.slice_of(source_id, fast));
        let Err(error) = done else { return done };
        match self.after_failure(source_id, &error).await? {
            Some(mode) => {
                let done = until_done!(self.again(), self.slice_of(source_id, How { mode, ..fast }));
                self.keep_trouble(source_id, &done).await?;
                done
            }
            None if error.is_cancelled() => Ok(Slice::More { written: 0 }),
            None => Err(error),
        }
    }

    async fn slice_of(&self, source_id: i32, how: How) -> Result<Slice, StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, SETTINGS).await?;
        match slice(&transaction, source_id, how).await {
            Ok(slice) => {
                transaction.commit().await?;
                Ok(slice)
            }
            Err(error) => Err(undone(transaction, error).await),
        }
    }
}

/// Ends a transaction that failed. Left to itself it would hold the source for a moment longer, and the next try, on another
/// connection, would take it for somebody else's.
pub(super) async fn undone(transaction: deadpool_postgres::Transaction<'_>, error: StoreError) -> StoreError {
    if let Err(lost) = transaction.rollback().await {
        tracing::debug!(error = %lost, "a transaction that failed is ended by its connection");
    }
    error
}

async fn slice(transaction: &Transaction<'_>, source_id: i32, how: How) -> Result<Slice, StoreError> {
    let Some(mut state) = State::lock(transaction, source_id).await? else {
        return Ok(Slice::Busy);
    };
    if state.was_emptied {
        notes::truncations(transaction, source_id).await?;
        state = State::lock(transaction, source_id)
            .await?
            .ok_or_else(super::super::no_row)?;
    }
    match state.phase.as_str() {
        "idle" | "rows" => rows_slice(transaction, &state, how).await,
        "count" => count_slice(transaction, &state).await,
        _ => gone_slice(transaction, &state).await,
    }
}

/// The table's rows along their key, each beside its record. Rows whose text or metadata differ are written, unless the
/// record was written meanwhile; rows without a record are filled in.
async fn rows_slice(transaction: &Transaction<'_>, state: &State, how: How) -> Result<Slice, StoreError> {
    let id = state.id;
    if state.place.is_none() {
        follow_rename(transaction, id).await?;
        missing_triggers(transaction, id).await?;
    }
    let wanted = how.rows(state.page_rows);
    let began = Instant::now();
    let rows = transaction
        .query_typed(
            &compare::statement(&state.reader("page", how.mode, wanted), state.live_space, false),
            &[
                (&state.place, Type::TEXT_ARRAY),
                (&state.project_id, Type::INT4),
                (&state.adopt, Type::BOOL),
                (&state.fills, Type::BOOL),
                (&id, Type::INT4),
                (&state.take_over, Type::INT8),
                (&how.max_content_bytes, Type::INT8),
            ],
        )
        .await?;
    let row = only(&rows)?;
    let (read, place): (i64, Option<Vec<String>>) = (row.get(0), row.get(1));
    let (written, adopted, passing): (i64, i64, i64) = (row.get(2), row.get(3), row.get(4));
    let wrong: Vec<String> = row.get(5);
    if !wrong.is_empty() {
        try_to_fill_column(transaction, state, &wrong).await?;
    }
    // Where it isn't known how many rows there were, the next page is empty.
    let at_end = match row.get::<_, Option<i64>>(6) {
        Some(found) => found == read && read < i64::from(wanted),
        None => read == 0,
    };
    let page_rows = trouble::next_page(state.page_rows, how.mode, began.elapsed());
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET phase = CASE WHEN $2 THEN 'count' ELSE 'rows' END,
                 place = CASE WHEN NOT $2 THEN $3 END, rows_seen = CASE WHEN $4 THEN 0 ELSE rows_seen END + $5,
                 changed = CASE WHEN $4 THEN 0 ELSE changed END + $6, adopted = CASE WHEN $4 THEN 0 ELSE adopted END + $7,
                 gone = 0, deleted = 0, checked_at = now(), rests_until = NULL, page_rows = $8,
                 trouble = CASE WHEN $8 < $9 THEN trouble END
             WHERE id = $1",
            &[
                (&id, Type::INT4),
                (&at_end, Type::BOOL),
                (&place, Type::TEXT_ARRAY),
                (&state.place.is_none(), Type::BOOL),
                (&passing, Type::INT8),
                (&written, Type::INT8),
                (&adopted, Type::INT8),
                (&page_rows, Type::INT4),
                (&ROWS_PER_SLICE, Type::INT4),
            ],
        )
        .await?;
    Ok(Slice::More {
        written: number(written),
    })
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

/// Before anything is deleted: how many would be. Where nothing would, the pass is through.
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
    // What isn't counted as gone, and is deleted all the same: what was taken over, and what a TRUNCATE emptied.
    let is_all = state.take_over.is_none() && state.epoch == 0;
    if at_end && is_all && state.gone + missing == 0 {
        end(transaction, state, 0).await?;
        return Ok(Slice::Through { written: 0 });
    }
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET gone = gone + $4, checked_at = now(), rests_until = NULL,
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
    let written = number(deleted);
    if read < i64::from(ROWS_PER_SLICE) {
        end(transaction, state, deleted).await?;
        return Ok(Slice::Through { written });
    }
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET deleted = deleted + $3, checked_at = now(), phase = 'gone', place = ARRAY[$2]
             WHERE id = $1",
            &[(&state.id, Type::INT4), (&last, Type::TEXT), (&deleted, Type::INT8)],
        )
        .await?;
    Ok(Slice::More { written })
}

/// Ends a pass, in whose last slice so many were deleted.
async fn end(transaction: &Transaction<'_>, state: &State, deleted: i64) -> Result<(), StoreError> {
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET deleted = deleted + $2, checked_at = now(), rests_until = NULL,
                 phase = 'idle', place = NULL, passes = passes + 1, adopt = false, epoch = 0, allow_deletes = false,
                 origins_known = true, take_over = NULL,
                 trouble = CASE WHEN NOT allow_deletes AND gone * 10 > rows_seen + gone THEN
                     format('%s records of %s are gone from the table, more than a tenth; if that is right, run: cronvec reconcile --allow-deletes',
                         gone, rows_seen + gone) END
             WHERE id = $1",
            &[(&state.id, Type::INT4), (&deleted, Type::INT8)],
        )
        .await?;
    tracing::debug!(
        source.id = state.id,
        passes = state.passes + 1,
        "a source was compared with its table"
    );
    Ok(())
}

/// A table that was renamed, or moved to another schema, is known by its new name from now on: should another one take that
/// name, it takes the table's place.
async fn follow_rename(transaction: &Transaction<'_>, source_id: i32) -> Result<(), StoreError> {
    transaction
        .execute_typed(
            "UPDATE cronvec.sources s SET table_name = format('%I.%I', n.nspname, c.relname)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE s.id = $1 AND c.oid = s.relation AND to_regclass(s.table_name) IS NULL",
            &[(&source_id, Type::INT4)],
        )
        .await?;
    Ok(())
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

pub(super) fn only(rows: &[Row]) -> Result<&Row, StoreError> {
    rows.first()
        .ok_or_else(|| StoreError::Unreadable("a statement gave no row".into()))
}

pub(super) fn number(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
