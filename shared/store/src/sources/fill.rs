//! Owns the writing of vectors that records have into the table's own column, where it is empty or holds others. Refuses to
//! write a row that somebody holds.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::StoreError;
use super::reconcile::State;
use super::refused;

/// A row that refuses its vector costs the comparison nothing: the rows are left to a worker, who finds out which one does.
pub(super) async fn try_to_fill_column(
    transaction: &Transaction<'_>,
    state: &State,
    ids: &[String],
) -> Result<(), StoreError> {
    transaction.batch_execute("SAVEPOINT filling").await?;
    match fill_column(transaction, state, ids).await {
        Err(error) if error.is_refusal() => {
            transaction.batch_execute("ROLLBACK TO SAVEPOINT filling").await?;
            refused::leave_to_a_worker(transaction, state.project_id, state.live_space, ids).await
        }
        done => done,
    }
}

/// Rows whose column is empty, or holds another vector, though their text is embedded: locked first, and looked at again
/// under the lock.
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
