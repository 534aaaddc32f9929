//! Owns what is known of the sessions that a database gives us: defaults that would harm our statements, and whether it
//! takes writes. Refuses to change a session.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::timeout;
use tokio_postgres::SimpleQueryMessage;

use crate::sqlstate::{self, Fault};
use cronvec_edges::cause::chain;

/// Defaults that harm, one a row: `name`. A lease lasts 65 s, so that a limit above that ends nothing which isn't lost
/// anyway. `transaction_timeout` exists from PostgreSQL 17 on.
pub(crate) const HARMFUL: &str = "
    SELECT t.name FROM (VALUES ('default_transaction_isolation', 0), ('default_transaction_read_only', 0),
        ('statement_timeout', 70), ('lock_timeout', 70), ('transaction_timeout', 70),
        ('idle_in_transaction_session_timeout', 10)) AS t (name, harmless)
    CROSS JOIN LATERAL (SELECT current_setting(t.name, true)) AS s (value)
    WHERE CASE t.name
        WHEN 'default_transaction_isolation' THEN s.value NOT IN ('read committed', 'read uncommitted')
        WHEN 'default_transaction_read_only' THEN s.value = 'on'
        ELSE s.value <> '0' AND extract(epoch FROM s.value::interval) < t.harmless END";

/// What our statements must reckon with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// A default would harm them: each is sent within a transaction that says what it needs.
    pub is_guarded: bool,
    /// The last look found a server in recovery.
    pub is_on_reader: bool,
}

/// The same as it is kept. Once guarded, always: behind a pooler the next session may have the defaults again that the
/// last one didn't.
#[derive(Debug, Default)]
pub(super) struct Known {
    is_guarded: AtomicBool,
    is_on_reader: AtomicBool,
}

impl Known {
    pub fn session(&self) -> Session {
        Session {
            is_guarded: self.is_guarded.load(Ordering::Relaxed),
            is_on_reader: self.is_on_reader.load(Ordering::Relaxed),
        }
    }

    pub fn guard(&self) {
        if !self.is_guarded.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "this role's or database's defaults would harm statements of ours: each says what it needs from now on; \
                 `cronvec doctor` names them"
            );
        }
    }

    /// Asks the server, which shows that it answers. Gives whether it takes writes.
    pub async fn look(&self, client: &Object, limit: Duration) -> Result<bool, String> {
        let statement = format!("SELECT pg_is_in_recovery(), EXISTS ({HARMFUL})");
        let answer = match timeout(limit, client.simple_query(&statement)).await {
            Err(_) => return Err(format!("no answer within {} s", limit.as_secs())),
            // It answers; its limit is so short that this took too long.
            Ok(Err(error)) if sqlstate::of(&error) == Fault::Cancelled => {
                self.guard();
                return Ok(true);
            }
            Ok(Err(error)) => return Err(chain(&error)),
            Ok(Ok(answer)) => answer,
        };
        let is_true = |column| {
            let mut said = answer.iter();
            said.any(|said| matches!(said, SimpleQueryMessage::Row(row) if row.get(column) == Some("t")))
        };
        let (is_reader, is_harmful) = (is_true(0), is_true(1));
        if is_harmful {
            self.guard();
        }
        self.is_on_reader.store(is_reader, Ordering::Relaxed);
        Ok(!is_reader)
    }
}
