//! Owns the try whether an attached table can still be read as it was attached, with a few of its rows. Refuses to compare
//! them.

use tokio_postgres::error::DbError;
use tokio_postgres::types::Type;

use super::columns::Frozen;
use super::{Fault, Now};
use crate::begin::Begin;
use crate::sources::{Source, attempt};
use crate::{Store, StoreError};

/// As a comparison reads, and not for long.
const BEGIN: Begin = Begin::read(
    "SET LOCAL row_security = off; SET LOCAL lock_timeout = '900ms'; SET LOCAL statement_timeout = '5s';
     SET LOCAL idle_in_transaction_session_timeout = '5s'",
);

impl Store {
    /// Whatever broke an expression, a column or a key: the functions that name them say so when they are called.
    pub(super) async fn fault_of_reading(&self, source: &Source, now: &Now) -> Result<Option<Fault>, StoreError> {
        let id = source.id;
        // A row that raises is told of by comparisons; what all of them raise is looked for here.
        let (page, named) = match source.generation {
            0 => ("rows(NULL, 5)", ""),
            _ => ("page(NULL, 5, 1000000, 1)", ", 1000000, 1"),
        };
        let read = self
            .query_in_transaction(
                BEGIN,
                &format!(
                    "WITH few AS MATERIALIZED (SELECT r.id FROM cronvec.source_{id}_{page} AS r)
                     SELECT (SELECT count(*) FROM cronvec.source_{id}_named(ARRAY(SELECT id FROM few){named})),
                         (SELECT count(*) FROM cronvec.source_{id}_there(ARRAY(SELECT id FROM few)))"
                ),
                &[],
            )
            .await;
        let error = match read {
            Ok(_) => return Ok(None),
            Err(error) => error,
        };
        let table = &now.name;
        if error.is_cancelled() || error.is_lock_timeout() {
            return Ok(Some(Fault::warn(
                format!("five rows of {table} can't be read in five seconds: {error}"),
                "see what holds or slows the table, then run: cronvec doctor",
            )));
        }
        let StoreError::Database(told) = &error else {
            return Err(error);
        };
        let Some(server) = told.as_db_error() else {
            return Err(error);
        };
        let (found, mend) = self.said_of_reading(source, now, server).await?;
        Ok(Some(Fault::fail(
            format!("{table} can't be read as it was attached: {found}"),
            mend,
        )))
    }

    async fn said_of_reading(
        &self,
        source: &Source,
        now: &Now,
        server: &DbError,
    ) -> Result<(String, String), StoreError> {
        let message = server.message().to_owned();
        // Ours aren't found where a column's type has changed.
        if attempt::is_name_unknown(server) && !message.contains("source_") {
            let rows = self.query(attempt::OPEN_FUNCTIONS, &[(&source.id, Type::INT4)]).await?;
            if let Some(statements) = rows.first().and_then(|row| row.get::<_, Option<String>>(0)) {
                return Ok((message, statements));
            }
        }
        let frozen = self.frozen_columns(source).await?;
        let changed = frozen.iter().filter_map(Frozen::changed_type);
        let found: Vec<String> = std::iter::once(message).chain(changed).collect();
        Ok((found.join("; "), now.again(source)))
    }
}
