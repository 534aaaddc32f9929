//! Owns what the triggers of attached tables noted and a tick has yet to read: rows by name, rows that are gone, truncations.
//! Refuses to believe a note: it looks at the rows as they are now.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::again::until_done;
use super::super::{Store, StoreError};
use super::fill::try_to_fill_column;
use super::reconcile::{How, ROWS_PER_SLICE, SETTINGS, State, number, only, undone};
use super::{compare, trouble};

impl Store {
    /// Sources of which there is something to read, those first whose notes have waited longest.
    pub async fn sources_with_notes(&self, project_id: Option<i32>, limit: i64) -> Result<Vec<i32>, StoreError> {
        let rows = self
            .query(
                "SELECT s.id FROM cronvec.sources s
                 WHERE ($1 IS NULL OR s.project_id = $1) AND (s.rests_until IS NULL OR s.rests_until < now())
                     AND (EXISTS (SELECT FROM cronvec.source_notes n WHERE n.source_id = s.id)
                         OR EXISTS (SELECT FROM cronvec.source_gone g WHERE g.project_id = s.project_id)
                         OR EXISTS (SELECT FROM cronvec.source_truncated t WHERE t.source_id = s.id))
                 ORDER BY s.noted_at NULLS FIRST, s.id LIMIT $2",
                &[(&project_id, Type::INT4), (&limit, Type::INT8)],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Reads a part of what a source's triggers noted. Returns how many records were written; none when nothing is left that
    /// is free.
    pub async fn take_note(&self, source_id: i32, max_content_bytes: usize) -> Result<Option<u64>, StoreError> {
        let fast = How::fast(max_content_bytes);
        let taken = until_done!(self.again(), self.note_of(source_id, fast));
        let Err(error) = taken else { return taken };
        match self.after_failure(source_id, &error).await? {
            Some(mode) => {
                let taken = until_done!(self.again(), self.note_of(source_id, How { mode, ..fast }));
                self.keep_trouble(source_id, &taken).await?;
                taken
            }
            None if error.is_cancelled() => Ok(Some(0)),
            None => Err(error),
        }
    }

    async fn note_of(&self, source_id: i32, how: How) -> Result<Option<u64>, StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, SETTINGS).await?;
        match note(&transaction, source_id, how).await {
            Ok(written) => {
                transaction.commit().await?;
                Ok(written)
            }
            Err(error) => Err(undone(transaction, error).await),
        }
    }
}

async fn note(transaction: &Transaction<'_>, source_id: i32, how: How) -> Result<Option<u64>, StoreError> {
    let Some(state) = State::lock(transaction, source_id).await? else {
        return Ok(None);
    };
    if state.was_emptied {
        truncations(transaction, source_id).await?;
    }
    let written = match gone(transaction, &state).await? {
        Some(deleted) => Some(deleted),
        None => named(transaction, &state, how).await?,
    };
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET noted_at = now() WHERE id = $1",
            &[(&source_id, Type::INT4)],
        )
        .await?;
    Ok(written.or(state.was_emptied.then_some(0)))
}

/// After a TRUNCATE a pass begins anew, and deletes what went with it, however much that is.
pub(super) async fn truncations(transaction: &Transaction<'_>, source_id: i32) -> Result<(), StoreError> {
    transaction
        .execute_typed(
            "WITH noted AS (DELETE FROM cronvec.source_truncated t WHERE t.source_id = $1 RETURNING t.emptied, t.number),
                 emptied AS (
                     SELECT max(n.number) FILTER (WHERE n.emptied = s.relation) AS number,
                         bool_or(n.emptied <> s.relation) AS is_part
                     FROM noted n CROSS JOIN cronvec.sources s WHERE s.id = $1 HAVING count(*) > 0)
             UPDATE cronvec.sources s SET phase = 'rows', place = NULL, rows_seen = 0, gone = 0,
                 epoch = coalesce(e.number, s.epoch), allow_deletes = s.allow_deletes OR e.is_part
             FROM emptied e WHERE s.id = $1",
            &[(&source_id, Type::INT4)],
        )
        .await?;
    Ok(())
}

/// Deletes the records of rows that a large statement deleted, unless they are there again. Those that somebody holds stay
/// noted. None: there is none.
async fn gone(transaction: &Transaction<'_>, state: &State) -> Result<Option<u64>, StoreError> {
    let noted = transaction
        .query_typed(
            "SELECT FROM cronvec.source_gone WHERE project_id = $1 LIMIT 1",
            &[(&state.project_id, Type::INT4)],
        )
        .await?;
    if noted.is_empty() {
        return Ok(None);
    }
    let rows = transaction
        .query_typed(
            &format!(
                "WITH page AS MATERIALIZED (
                     SELECT g.ctid AS place, g.record_id AS id FROM cronvec.source_gone g
                     WHERE g.project_id = $1 ORDER BY g.record_id LIMIT $2 FOR UPDATE SKIP LOCKED
                 ), there AS MATERIALIZED (
                     SELECT t.id FROM cronvec.source_{}_there(ARRAY(SELECT id FROM page)) AS t (id)
                 ), going AS MATERIALIZED (
                     SELECT DISTINCT p.id, r.accepted FROM page p CROSS JOIN LATERAL (
                         SELECT r.accepted FROM cronvec.records r
                         WHERE r.project_id = $1 AND r.id = p.id AND r.content IS NOT NULL LIMIT 1) AS r
                     WHERE p.id <> ALL (ARRAY(SELECT id FROM there))
                 ), mine AS MATERIALIZED (
                     SELECT m.id FROM cronvec.still_compared($1, ARRAY(SELECT id FROM going),
                         ARRAY(SELECT accepted FROM going)) AS m (id)
                 ), deleted AS MATERIALIZED (
                     SELECT cronvec.delete_records($1, ARRAY(SELECT id FROM mine))::text WHERE EXISTS (SELECT FROM mine)
                 ), freed AS (
                     DELETE FROM cronvec.quarantined_records q
                     WHERE q.project_id = $1 AND q.content_hash = ''
                         AND q.record_id = ANY (ARRAY(SELECT id FROM page WHERE id <> ALL (ARRAY(SELECT id FROM there))))
                 ), settled AS (
                     DELETE FROM cronvec.source_gone g WHERE g.ctid = ANY (ARRAY(
                         SELECT p.place FROM page p
                         WHERE p.id <> ALL (ARRAY(SELECT id FROM going)) OR p.id = ANY (ARRAY(SELECT id FROM mine))))
                     RETURNING 1
                 )
                 SELECT (SELECT count(*) FROM settled), (SELECT count(*) FROM mine) + (SELECT count(*) - count(*) FROM deleted)",
                state.id
            ),
            &[
                (&state.project_id, Type::INT4),
                (&i64::from(ROWS_PER_SLICE), Type::INT8),
            ],
        )
        .await?;
    let row = only(&rows)?;
    // What is left is held by somebody: its turn comes with the next tick.
    Ok((row.get::<_, i64>(0) > 0).then(|| number(row.get(1))))
}

/// Reads the rows that the oldest note names, or as many of them as one page has.
async fn named(transaction: &Transaction<'_>, state: &State, how: How) -> Result<Option<u64>, StoreError> {
    let notes = transaction
        .query_typed(
            "SELECT n.id, n.ids FROM cronvec.source_notes n
             WHERE n.source_id = $1 ORDER BY n.id LIMIT 1 FOR UPDATE OF n SKIP LOCKED",
            &[(&state.id, Type::INT4)],
        )
        .await?;
    let Some(note) = notes.first() else { return Ok(None) };
    let (id, mut ids): (i64, Vec<String>) = (note.get(0), note.get(1));
    let wanted = how.rows(state.page_rows);
    let mut rest = ids.split_off(ids.len().min(usize::try_from(wanted).unwrap_or(1)));
    let began = std::time::Instant::now();
    let rows = transaction
        .query_typed(
            &compare::statement(&state.reader("named", how.mode, wanted), state.live_space, true),
            &[
                (&ids, Type::TEXT_ARRAY),
                (&state.project_id, Type::INT4),
                (&false, Type::BOOL),
                (&state.fills, Type::BOOL),
                (&state.id, Type::INT4),
                (&state.take_over, Type::INT8),
                (&how.max_content_bytes, Type::INT8),
            ],
        )
        .await?;
    let row = only(&rows)?;
    let wrong: Vec<String> = row.get(5);
    if !wrong.is_empty() {
        try_to_fill_column(transaction, state, &wrong).await?;
    }
    let (read, found): (i64, Option<i64>) = (row.get(0), row.get(6));
    if found.is_none_or(|found| found > read)
        && let Some(last) = row.get::<_, Option<&str>>(7)
        && let Some(nth) = ids.iter().position(|id| id == last)
    {
        // It was cut for its bytes.
        rest.splice(0..0, ids.drain(nth + 1..));
    }
    if rest.is_empty() {
        transaction
            .execute_typed("DELETE FROM cronvec.source_notes WHERE id = $1", &[(&id, Type::INT8)])
            .await?;
    } else {
        transaction
            .execute_typed(
                "UPDATE cronvec.source_notes SET ids = $2 WHERE id = $1",
                &[(&id, Type::INT8), (&rest, Type::TEXT_ARRAY)],
            )
            .await?;
    }
    let page_rows = trouble::next_page(state.page_rows, how.mode, began.elapsed());
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET page_rows = $2, trouble = CASE WHEN $2 < $3 THEN trouble END WHERE id = $1",
            &[
                (&state.id, Type::INT4),
                (&page_rows, Type::INT4),
                (&ROWS_PER_SLICE, Type::INT4),
            ],
        )
        .await?;
    Ok(Some(number(row.get(2))))
}
