//! Owns what follows when a table can't be read: which rows are tried again and how, what is told, how long it rests. Refuses
//! to let a table's trouble become anybody else's.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::super::{Store, StoreError};
use super::compile::Mode;
use super::reconcile::ROWS_PER_SLICE;

/// A table that can't be read is left alone for so long.
const REST: &str = "5 minutes";
/// A page that takes no longer is followed by a larger one.
const QUICK: Duration = Duration::from_secs(1);

/// An attached table of which something can't be read.
#[derive(Debug, Clone)]
pub struct TroubledSource {
    pub project: String,
    pub table: String,
    pub trouble: String,
    /// Nothing of it is read for a while.
    pub rests: bool,
}

/// How many rows the next page has after one that came through.
pub(super) fn next_page(rows: i32, mode: Mode, took: Duration) -> i32 {
    match mode {
        // The rows behind it may be as slow.
        Mode::Blind => rows,
        _ if took < QUICK => (rows * 2).min(ROWS_PER_SLICE),
        _ => rows,
    }
}

impl Store {
    /// What to try next after a slice, or a note, of a source failed. None: nothing at once.
    pub(super) async fn after_failure(&self, source_id: i32, error: &StoreError) -> Result<Option<Mode>, StoreError> {
        if error.is_outage() || error.is_lock_timeout() {
            return Ok(None);
        }
        if !error.is_cancelled() {
            return Ok(Some(Mode::Careful));
        }
        let before = self
            .query_opt(
                "WITH before AS (SELECT id, page_rows FROM cronvec.sources WHERE id = $1 FOR NO KEY UPDATE)
                 UPDATE cronvec.sources s SET page_rows = greatest(s.page_rows / 10, 1), checked_at = now(),
                     trouble = format('reading %s of its rows took longer than 10 seconds; now %s are read at a time. '
                         'Look for what makes --text, --metadata or --where slow', before.page_rows, greatest(s.page_rows / 10, 1))
                 FROM before WHERE s.id = before.id RETURNING before.page_rows",
                &[(&source_id, Type::INT4)],
            )
            .await?;
        Ok(before.filter(|row| row.get::<_, i32>(0) == 1).map(|_| Mode::Blind))
    }

    /// A table that can't be read rests, and says why.
    pub(super) async fn keep_trouble<T>(&self, source_id: i32, done: &Result<T, StoreError>) -> Result<(), StoreError> {
        match done {
            Err(error) if !error.is_outage() && !error.is_lock_timeout() => {
                self.execute(
                    &format!(
                        "UPDATE cronvec.sources SET trouble = $2, checked_at = now(), rests_until = now() + interval '{REST}'
                         WHERE id = $1"
                    ),
                    &[(&source_id, Type::INT4), (&error.to_string(), Type::TEXT)],
                )
                .await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Attached tables whose last comparison, or reading of notes, didn't get through.
    pub async fn troubled_sources(&self) -> Result<Vec<TroubledSource>, StoreError> {
        let rows = self
            .query(
                "SELECT p.name, s.table_name, s.trouble, coalesce(s.rests_until > now(), false)
                 FROM cronvec.sources s JOIN cronvec.projects p ON p.id = s.project_id
                 WHERE s.trouble IS NOT NULL ORDER BY s.id LIMIT 100",
                &[],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| TroubledSource {
                project: row.get(0),
                table: row.get(1),
                trouble: row.get(2),
                rests: row.get(3),
            })
            .collect())
    }
}
