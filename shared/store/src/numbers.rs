//! Owns that the sequences are ahead of what was numbered by them: after a restore, a fail-over or a copy of the tables
//! they may not be. Refuses to read all records where nothing speaks for that.

use std::sync::atomic::Ordering;

use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::begin::Begin;
use super::migrate::SchemaError;
use super::{Store, StoreError};

/// Blocks of `records` that a process looks at when it begins: so many anywhere in it, and so many at its end.
const BLOCKS: i64 = 32;
/// By so much the sequence overtakes the data. Others may take numbers between our look and our write; should they have
/// overtaken us, we mustn't set it back.
const MARGIN: i64 = 1_000_000;

/// Tables with an identity column `id`, whose sequence is `TABLE_id_seq`.
pub const IDENTITIES: [&str; 7] = [
    "spaces",
    "projects",
    "audit_log",
    "performance_metrics",
    "sources",
    "source_notes",
    "api_tokens",
];

/// A sequence that would give out numbers again that are taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Behind {
    pub sequence: String,
    /// The last number that it gave out.
    pub given: i64,
    /// The greatest that is known to be taken.
    pub taken: i64,
}

impl std::fmt::Display for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sequence, given, taken } = self;
        write!(
            f,
            "the sequence cronvec.{sequence} is at {given}, but the data has {taken} already"
        )
    }
}

/// What can be said of the sequence of acceptance without reading records.
#[derive(Debug)]
struct Look {
    given: i64,
    /// The greatest number of the mark, of jobs, backfills and emptied tables.
    taken: i64,
    mark: Option<i64>,
    /// All records were compared with it, here.
    is_at_home: bool,
    /// Of `records`.
    blocks: i64,
}

async fn look(client: &impl GenericClient) -> Result<Look, StoreError> {
    let rows = client
        .query_typed(
            "SELECT CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END,
                 greatest(m.last, (SELECT max(id) FROM cronvec.job_queue), (SELECT max(id) FROM cronvec.backfills),
                     (SELECT max(epoch) FROM cronvec.sources), 0),
                 m.last, coalesce(m.place = cronvec.place(), false),
                 pg_relation_size('cronvec.records') / current_setting('block_size')::bigint
             FROM cronvec.acceptance s LEFT JOIN cronvec.acceptance_mark m ON true",
            &[],
        )
        .await?;
    let row = rows.first().ok_or_else(super::no_row)?;
    Ok(Look {
        given: row.get(0),
        taken: row.get(1),
        mark: row.get(2),
        is_at_home: row.get(3),
        blocks: row.get(4),
    })
}

/// The greatest number of some records: anywhere in the table, and where the newest mostly are.
async fn sampled(client: &impl GenericClient, blocks: i64) -> Result<i64, StoreError> {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a percentage"
    )]
    let percent = (BLOCKS as f64 * 100.0 / blocks.max(1) as f64).min(100.0) as f32;
    let end = format!("({},0)", (blocks - BLOCKS).max(0));
    let rows = client
        .query_typed(
            "SELECT greatest((SELECT max(accepted) FROM cronvec.records TABLESAMPLE SYSTEM ($1)),
                 (SELECT max(accepted) FROM cronvec.records WHERE ctid >= ($2::text)::tid), 0)",
            &[(&percent, Type::FLOAT4), (&end, Type::TEXT)],
        )
        .await?;
    Ok(rows.first().ok_or_else(super::no_row)?.get(0))
}

/// Of all records: it reads the whole table.
async fn whole(client: &impl GenericClient) -> Result<i64, StoreError> {
    let rows = client
        .query_typed("SELECT coalesce(max(accepted), 0) FROM cronvec.records", &[])
        .await?;
    Ok(rows.first().ok_or_else(super::no_row)?.get(0))
}

/// What this role, or this server, doesn't let us do.
fn is_forbidden(error: &StoreError) -> bool {
    has_code(error, &[SqlState::INSUFFICIENT_PRIVILEGE])
}

fn has_code(error: &StoreError, codes: &[SqlState]) -> bool {
    let StoreError::Database(error) = error else {
        return false;
    };
    error.code().is_some_and(|code| codes.contains(code))
}

/// Whether a write failed for the number that it was given: nothing was written, and it can be done again when
/// [`Store::mend_numbers`] was called.
pub(super) fn are_behind<T>(outcome: &Result<T, StoreError>) -> bool {
    let error = match outcome {
        Err(StoreError::Behind) => return true,
        Err(StoreError::Database(error)) => error,
        _ => return false,
    };
    let constraint = error.as_db_error().and_then(|server| server.constraint());
    constraint.is_some_and(|name| ["job_queue_pkey", "backfills_pkey"].contains(&name))
}

impl Store {
    /// Which sequences are behind the data. Reads all records only where that wasn't done since they came here.
    pub async fn numbers_behind(&self) -> Result<Vec<Behind>, StoreError> {
        let (given, taken) = {
            let mut client = self.client().await?;
            let transaction = self.begin(&mut client, "").await?;
            let look = look(&*transaction).await?;
            let of_records = match look.is_at_home {
                true => sampled(&*transaction, look.blocks).await?,
                false => whole(&*transaction).await?,
            };
            let taken = look.taken.max(of_records);
            // Somebody may have taken numbers, and written, since the first look.
            (self::look(&*transaction).await?.given, taken)
        };
        let mut behind = self.identities_behind().await?;
        if taken > given {
            let sequence = "acceptance".to_owned();
            behind.insert(0, Behind { sequence, given, taken });
        }
        Ok(behind)
    }

    /// Of identity columns, whose numbers decide nothing. A table that somebody has locked, that isn't there or that this
    /// role may not read keeps nobody from anything.
    async fn identities_behind(&self) -> Result<Vec<Behind>, StoreError> {
        let each = IDENTITIES.map(|table| {
            format!(
                "SELECT '{table}_id_seq', CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END,
                     (SELECT max(id)::bigint FROM cronvec.{table}) FROM cronvec.{table}_id_seq s"
            )
        });
        let statement = format!(
            "SELECT * FROM ({}) AS a (sequence, given, taken) WHERE taken > given",
            each.join(" UNION ALL ")
        );
        let begin = Begin::read("SET LOCAL lock_timeout = '1s'; SET LOCAL idle_in_transaction_session_timeout = '2s'");
        match self.query_in_transaction(begin, &statement, &[]).await {
            Err(error) if !error.is_outage() => {
                tracing::info!(error = %error, "the sequences of identity columns can't be looked at");
                Ok(Vec::new())
            }
            Err(error) => Err(error),
            Ok(rows) => Ok(rows
                .iter()
                .map(|row| Behind {
                    sequence: row.get(0),
                    given: row.get(1),
                    taken: row.get(2),
                })
                .collect()),
        }
    }

    async fn mend_identities(&self) -> Result<(), StoreError> {
        for Behind { sequence, given, taken } in self.identities_behind().await? {
            self.execute(
                &format!("SELECT setval('cronvec.{sequence}', greatest(last_value, $1)) FROM cronvec.{sequence}"),
                &[(&taken, Type::INT8)],
            )
            .await?;
            tracing::warn!(
                sequence,
                was = given,
                taken,
                "a sequence was behind the data; it is ahead again"
            );
        }
        Ok(())
    }

    /// Puts sequences right that are behind, and notes how far they have come. When a process begins it looks at some of
    /// the records, afterwards at what costs nothing.
    pub(super) async fn keep_numbers(&self) -> Result<(), StoreError> {
        match self.try_to_keep_numbers().await {
            // Who may not look writes nothing that is numbered, or by functions that run with their owner's rights.
            Err(error) if is_forbidden(&error) => {
                tracing::debug!(error = %error, "this role can't look at the sequences");
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn try_to_keep_numbers(&self) -> Result<(), StoreError> {
        let is_first = !self.has_seen_numbers.load(Ordering::Relaxed);
        let (look, taken) = {
            let mut client = self.client().await?;
            // It says its isolation: as serializable it would fail beside those who write.
            let transaction = self.begin(&mut client, "").await?;
            let look = look(&*transaction).await?;
            let of_records = match is_first {
                true => sampled(&*transaction, look.blocks).await?,
                false => 0,
            };
            let taken = look.taken.max(of_records);
            (look, taken)
        };
        let mut ends = if !look.is_at_home || taken > look.given {
            self.mend_numbers(taken).await
        } else if look.mark != Some(look.given) {
            self.move_mark(look.given).await
        } else {
            Ok(())
        };
        if ends.is_ok() && (is_first || !look.is_at_home) {
            ends = match self.mend_identities().await {
                Err(error) if !error.is_outage() => {
                    tracing::warn!(error = %error, "the sequence of an identity column can't be put right");
                    Ok(())
                }
                mended => mended,
            };
        }
        match ends {
            // Nothing can be written here.
            Err(error) if has_code(&error, &[SqlState::READ_ONLY_SQL_TRANSACTION]) => return Ok(()),
            Err(error) if is_forbidden(&error) && taken > look.given => {
                let sequence = "acceptance".to_owned();
                let given = look.given;
                return Err(SchemaError::Behind(Behind { sequence, given, taken }).into());
            }
            ends => ends?,
        }
        self.has_seen_numbers.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn move_mark(&self, given: i64) -> Result<(), StoreError> {
        self.execute(
            "UPDATE cronvec.acceptance_mark SET last = $1, moved_at = now() WHERE last < $1",
            &[(&given, Type::INT8)],
        )
        .await?;
        Ok(())
    }

    /// Puts the sequence of acceptance ahead of the data, never back. One at a time: the next one finds nothing left to do.
    /// `taken` is a number that is known to be taken.
    pub async fn mend_numbers(&self, taken: i64) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let transaction = self
            .begin(&mut client, "SELECT pg_advisory_xact_lock(7233170410842382)")
            .await?;
        let found = look(&*transaction).await?;
        let mut given = found.given;
        if !found.is_at_home || found.taken.max(taken) > given {
            let taken = found.taken.max(taken).max(whole(&*transaction).await?);
            // Who wrote meanwhile was given larger ones.
            given = look(&*transaction).await?.given;
            if taken > given {
                let rows = transaction
                    .query_typed(
                        "SELECT setval('cronvec.acceptance', greatest(last_value, $1) + $2) FROM cronvec.acceptance",
                        &[(&taken, Type::INT8), (&MARGIN, Type::INT8)],
                    )
                    .await?;
                let (was, sequence) = (given, "acceptance");
                given = rows.first().ok_or_else(super::no_row)?.get(0);
                tracing::warn!(
                    sequence,
                    was,
                    taken,
                    now = given,
                    "a sequence was behind the data; it is ahead again"
                );
            }
        }
        transaction
            .execute_typed(
                "INSERT INTO cronvec.acceptance_mark AS m (last, place) VALUES ($1, cronvec.place())
                 ON CONFLICT ON CONSTRAINT acceptance_mark_pkey DO UPDATE
                     SET last = greatest(m.last, excluded.last), place = excluded.place, moved_at = now()",
                &[(&given, Type::INT8)],
            )
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}
