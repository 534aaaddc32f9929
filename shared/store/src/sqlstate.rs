//! Owns what an error of the server, or of the connection to it, means for who asked. Refuses to know statements and jobs.
//!
//! One table, so that nobody judges an error by its first digits alone: `57014`, a statement that was ended, stands in
//! the class of a server that shuts down.

use std::error::Error;
use std::io;

/// What an error means, and with it what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The database is away, shutting down or out of resources. Nobody's fault; later it works.
    Outage,
    /// Another transaction was in the way: a deadlock, or a failure to serialize. Nothing was done; do it again.
    Conflict,
    /// Somebody held a lock for longer than `lock_timeout`.
    LockTimeout,
    /// The server takes no writes on this connection: it is a reader, or the session is read-only by default. Another
    /// connection may lead to the writer.
    ReadOnly,
    /// The statement was ended before its end: its time was over, or somebody cancelled it.
    Cancelled,
    /// A value that can't be stored, whenever it is tried: out of range, too long, against a check.
    ValueRefused,
    /// Somebody else has written such a row.
    Duplicate,
    /// Anything else: wrongly asked, not allowed, or broken.
    Bug,
}

impl Fault {
    /// The server won't do it, and says the same again whenever it is tried: a value, a constraint, a trigger that raises, a
    /// right that is missing, something that isn't there.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::ValueRefused | Self::Duplicate | Self::Bug)
    }

    /// Somebody else was in the way.
    pub fn is_contention(self) -> bool {
        matches!(self, Self::LockTimeout | Self::Conflict)
    }
}

/// What the driver's error means.
pub fn of(error: &tokio_postgres::Error) -> Fault {
    match error.code() {
        Some(code) => of_code(code.code()),
        None if error.is_closed() || error.source().is_some_and(|cause| cause.is::<io::Error>()) => Fault::Outage,
        None => Fault::Bug,
    }
}

/// What a SQLSTATE means.
pub fn of_code(code: &str) -> Fault {
    match code {
        // idle_in_transaction_session_timeout: the transaction is gone, and the connection with it.
        "25P03" => Fault::Outage,
        // serialization_failure, deadlock_detected, transaction_rollback; snapshot_too_old before PostgreSQL 17.
        "40001" | "40P01" | "40000" | "72000" => Fault::Conflict,
        // lock_not_available
        "55P03" => Fault::LockTimeout,
        // read_only_sql_transaction
        "25006" => Fault::ReadOnly,
        // query_canceled; transaction_timeout
        "57014" | "25P04" => Fault::Cancelled,
        // check_violation
        "23514" => Fault::ValueRefused,
        // unique_violation
        "23505" => Fault::Duplicate,
        _ if code.starts_with("57P") => Fault::Outage,
        _ => match code.get(..2) {
            // Connections; resources.
            Some("08" | "53") => Fault::Outage,
            // Data; limits of the program.
            Some("22" | "54") => Fault::ValueRefused,
            _ => Fault::Bug,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_errors_means_what_it_says() {
        let table: [(Fault, &[&str]); 8] = [
            (
                Fault::Outage,
                &[
                    // The connection.
                    "08000", "08001", "08003", "08004", "08006", "08007", "08P01",
                    // Resources: disk, memory, connections.
                    "53000", "53100", "53200", "53300", "53400",
                    // Shutdown, crash, start, a dropped database, an idle session that was ended.
                    "57P01", "57P02", "57P03", "57P04", "57P05", "25P03",
                ],
            ),
            (Fault::Conflict, &["40000", "40001", "40P01", "72000"]),
            (Fault::LockTimeout, &["55P03"]),
            (Fault::ReadOnly, &["25006"]),
            (Fault::Cancelled, &["57014", "25P04"]),
            (
                Fault::ValueRefused,
                &[
                    "22001", "22003", "22021", "22P02", "22P05", "23514", "54000", "54001", "54023",
                ],
            ),
            (Fault::Duplicate, &["23505"]),
            (
                Fault::Bug,
                &[
                    "00000", "0A000", "21000", "23502", "23503", "23P01", "25001", "25P01", "25P02", "26000", "28P01",
                    "40002", "42501", "42601", "42703", "42P01", "55000", "55006", "57000", "58030", "P0001", "XX000",
                    "XX001", "",
                ],
            ),
        ];
        for (fault, codes) in table {
            for code in codes {
                assert_eq!(of_code(code), fault, "{code}");
            }
        }
    }
}
