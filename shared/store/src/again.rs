//! Owns when a statement or a transaction is sent once more. Refuses to repeat what may have been done: after a lost
//! connection nobody knows, and only who asked can say whether twice is once too often.

use std::time::Duration;

use rand::Rng;
use tokio_postgres::error::SqlState;

use super::StoreError;
use super::connect::{ConnectError, Database};
use super::sqlstate::Fault;

/// Tries after the first. What loses five times to others is told.
const MOST: u32 = 5;
/// New connections after those that take no writes.
const RECONNECTIONS: u32 = 2;

/// The tries of one statement, or of one transaction.
pub(super) struct Again<'a> {
    database: &'a Database,
    /// A statement alone has no limits but those of its session.
    is_statement: bool,
    was_guarded: bool,
    tried: u32,
}

impl<'a> Again<'a> {
    pub fn of_statement(database: &'a Database) -> Self {
        Self {
            is_statement: true,
            ..Self::of_transaction(database)
        }
    }

    pub fn of_transaction(database: &'a Database) -> Self {
        Self {
            database,
            is_statement: false,
            was_guarded: database.session().is_guarded,
            tried: 0,
        }
    }

    /// Whether it is to be sent again after this error, which says that nothing of it was done; waits for as long as it
    /// should. The connection must have been given back.
    pub async fn after(&mut self, error: &StoreError) -> bool {
        self.tried += 1;
        let is_worth_it = match error.fault() {
            Some(Fault::Conflict) => {
                if error.has_code(&SqlState::T_R_SERIALIZATION_FAILURE) {
                    // Nothing fails so under READ COMMITTED: the session's default is another.
                    self.database.guard();
                }
                self.tried <= MOST && self.wait().await
            }
            Some(Fault::ReadOnly) => {
                self.database.forget_idle();
                self.tried <= RECONNECTIONS
            }
            // A limit that isn't ours: it can be had without.
            Some(Fault::Cancelled | Fault::LockTimeout) if self.is_statement && !self.was_guarded => {
                self.database.guard();
                true
            }
            _ => false,
        };
        self.was_guarded = self.database.session().is_guarded;
        if is_worth_it {
            tracing::debug!(error = %error, "a statement is sent again");
        }
        is_worth_it
    }

    /// The error as it is told when it isn't tried again.
    pub fn told(&self, error: StoreError) -> StoreError {
        match error.fault() {
            Some(Fault::ReadOnly) => ConnectError::ReadOnly {
                address: self.database.label().to_string(),
            }
            .into(),
            _ => error,
        }
    }

    /// Two that met shouldn't meet again.
    async fn wait(&self) -> bool {
        let most = 20_u64 << self.tried;
        let wait = rand::rng().random_range(most / 4..=most);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        true
    }
}

/// Does `$work` until it is done or isn't worth another try. No function, since a future that a closure makes from
/// borrowed parameters can't be spawned.
macro_rules! until_done {
    ($again:expr, $work:expr) => {{
        let mut again: $crate::again::Again<'_> = $again;
        loop {
            // On the heap, or each caller's future would be as deep, and as large, as all of it.
            match Box::pin($work).await {
                Ok(done) => break Ok(done),
                Err(error) if Box::pin(again.after(&error)).await => {}
                Err(error) => break Err(again.told(error)),
            }
        }
    }};
}

pub(super) use until_done;
