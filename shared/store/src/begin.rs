//! Owns how our transactions begin: isolation, access and limits are said, not inherited from the role or the database.
//! Refuses to know what is done in them.
//!
//! Nothing is set for a session: a pooler in transaction mode would hand it to somebody else.

use deadpool_postgres::{Object, Transaction};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, IsolationLevel};

use super::connect::Session;
use super::{ConnectError, Store, StoreError};

/// In place of limits that a role or a database has for others. The last exists from PostgreSQL 17 on.
const OWN_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = '10s';
    SELECT set_config('transaction_timeout', '0', true) WHERE current_setting('transaction_timeout', true) <> '0';";

/// The one statement is sent together with its BEGIN and COMMIT. A worker may be frozen before the last has left it.
pub(super) const ONE_STATEMENT: Begin = Begin::write("SET LOCAL idle_in_transaction_session_timeout = '2s'");

/// A transaction's beginning that is sent as one text, in front of what is done in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    is_read_only: bool,
    settings: &'static str,
}

impl Begin {
    /// `settings` are `SET LOCAL …`, parted by semicolons.
    pub const fn write(settings: &'static str) -> Self {
        Self {
            is_read_only: false,
            settings,
        }
    }

    pub const fn read(settings: &'static str) -> Self {
        Self {
            is_read_only: true,
            settings,
        }
    }

    pub fn text(self, session: Session) -> String {
        let access = match self.is_read_only {
            true => ", READ ONLY",
            // It would be refused there, and what only reads needn't be.
            false if session.is_on_reader => "",
            false => ", READ WRITE",
        };
        let limits = own_limits(session);
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED{access}; {limits}{}",
            self.settings
        )
    }
}

impl Store {
    /// Begins a transaction of several round trips. `settings` are `SET LOCAL …`, parted by semicolons, or nothing.
    pub(super) async fn begin<'c>(
        &self,
        client: &'c mut Object,
        settings: &str,
    ) -> Result<Transaction<'c>, StoreError> {
        let session = self.database.session();
        let mut begun = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted);
        if !session.is_on_reader {
            begun = begun.read_only(false);
        }
        let transaction = begun.start().await.map_err(refused)?;
        let settings = format!("{}{settings}", own_limits(session));
        if !settings.is_empty() {
            transaction.batch_execute(&settings).await?;
        }
        Ok(transaction)
    }
}

/// A transaction outside of a store, without anybody's limits.
pub(super) async fn unlimited(client: &mut Client) -> Result<tokio_postgres::Transaction<'_>, StoreError> {
    let begun = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .read_only(false);
    let transaction = begun.start().await.map_err(refused)?;
    transaction.batch_execute(OWN_LIMITS).await?;
    Ok(transaction)
}

/// A reader refuses READ WRITE with a code that says nothing of it (0A000, a feature that isn't supported). Where a
/// transaction begins it can't mean anything else.
pub(super) fn refused(error: tokio_postgres::Error) -> StoreError {
    match error
        .code()
        .is_some_and(|code| *code == SqlState::FEATURE_NOT_SUPPORTED)
    {
        true => StoreError::Connect(ConnectError::ReadOnly {
            address: "the database".to_owned(),
        }),
        false => error.into(),
    }
}

fn own_limits(session: Session) -> &'static str {
    if session.is_guarded { OWN_LIMITS } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_others_are_replaced_before_our_own_are_set() {
        let plain = Session::default();
        let guarded = Session {
            is_guarded: true,
            ..plain
        };
        let ours = Begin::write("SET LOCAL lock_timeout = '5s'");
        assert_eq!(
            ours.text(plain),
            "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; SET LOCAL lock_timeout = '5s'"
        );
        let text = ours.text(guarded);
        assert!(
            text.find("lock_timeout = 0").unwrap() < text.find("lock_timeout = '5s'").unwrap(),
            "{text}"
        );
    }

    #[test]
    fn a_reader_is_not_asked_for_a_transaction_that_writes() {
        let reader = Session {
            is_on_reader: true,
            ..Session::default()
        };
        assert!(!Begin::write("").text(reader).contains("WRITE"));
        assert!(Begin::read("").text(reader).contains("READ ONLY"));
    }
}
