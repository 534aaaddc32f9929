//! Owns why there is no connection, and what to do about it. Refuses to retry.

use std::error::Error;
use std::io;

use rustls::CertificateError;
use tokio_postgres::error::SqlState;

use super::verifier::NotByGivenRoots;
use crate::sqlstate::{self, Fault};
use cronvec_config::Problem;
use cronvec_edges::cause::chain;
use cronvec_secrets::SecretError;

/// Why there is no connection to the database. Says what to do; holds no password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no database is configured")]
    NotConfigured(#[source] Problem),
    #[error("the database's address can't be read")]
    Secret(#[source] SecretError),
    #[error("the root certificates for the database can't be read")]
    RootsSecret(#[source] SecretError),
    #[error("{message}")]
    Address { message: String },
    #[error("no TLS to the database: {message}")]
    Roots { message: String },
    #[error("nothing listens at {address}: start PostgreSQL, or correct host and port")]
    Refused { address: String },
    #[error("the host of {address} isn't known: correct its name, or the network's DNS")]
    UnknownHost { address: String },
    #[error("{address} doesn't answer: check security groups, firewalls and routes to it")]
    TimedOut { address: String },
    #[error(
        "{address} refuses the log-in ({message}): correct user and password; with DATABASE_IAM_AUTH: GRANT rds_iam to the \
         user, rds-db:connect to the role, and the region and the host name that RDS itself gives"
    )]
    AuthFailed { address: String, message: String },
    #[error(
        "{address} isn't open to this host ({message}): allow it in pg_hba.conf, or ask for TLS with sslmode=require"
    )]
    NotAdmitted { address: String, message: String },
    #[error("there is no such database at {address}: create it, or correct its name")]
    UnknownDatabase { address: String },
    #[error(
        "the certificate of {address} is vouched for by nobody known: name its root, or itself if it is self-signed, as \
         sslrootcert=FILE in the address, or give that as PEM text in DATABASE_ROOT_CERT"
    )]
    UnknownIssuer { address: String },
    #[error(
        "none of the roots in sslrootcert or DATABASE_ROOT_CERT vouches for the certificate of {address}: put there the \
         authority's that signed it, or itself if it is self-signed; `openssl s_client -starttls postgres -showcerts -connect \
         HOST:PORT` prints what the server has"
    )]
    OtherIssuer { address: String },
    #[error(
        "the certificate of {address} is for another host: connect by the name that it has, \
         or use sslmode=verify-ca through a tunnel"
    )]
    OtherName { address: String },
    #[error("the certificate of {address} is unusable ({message}): renew it")]
    BadCertificate { address: String, message: String },
    #[error("{address} speaks no TLS: turn it on there, or set sslmode=disable if the network between is trusted")]
    NoTls { address: String },
    #[error("{address} has no connection left: raise max_connections, or put a pooler in front of it")]
    TooManyConnections { address: String },
    #[error("{address} is starting or stopping: try again shortly")]
    Starting { address: String },
    #[error("{address} refuses an option of the connection ({message}): take `options` out of its address")]
    RefusedOption { address: String, message: String },
    #[error("{address} doesn't answer as it should: {message}")]
    NoAnswer { address: String, message: String },
    #[error("all connections of this process are in use")]
    PoolExhausted,
    /// No writes on this connection, nor on a new one.
    #[error(
        "{address} takes no writes: it is a replica or a reader endpoint, or read-only by default; let DATABASE_URL name \
         the writer, or see what `cronvec doctor` says of default_transaction_read_only"
    )]
    ReadOnly { address: String },
    #[error("no connection to {address}: {message}")]
    Other { address: String, message: String },
}

impl ConnectError {
    /// What the driver's error means.
    pub(super) fn explain(address: &str, error: tokio_postgres::Error) -> Self {
        let address = address.to_owned();
        let explained = match error.as_db_error() {
            Some(refusal) => of_server(&address, refusal.code(), refusal.message()),
            None => std::iter::successors(error.source(), |&error| error.source())
                .find_map(|cause| of_cause(&address, cause)),
        };
        explained.unwrap_or_else(|| Self::Other {
            address,
            message: chain(&error),
        })
    }
}

/// What the server, or a pooler before it, answered.
fn of_server(address: &str, code: &SqlState, message: &str) -> Option<ConnectError> {
    let (address, message) = (address.to_owned(), message.to_owned());
    // PgBouncer has one code for all that it refuses.
    let pooler = |text: &str| *code == SqlState::PROTOCOL_VIOLATION && message.contains(text);
    Some(match code {
        _ if pooler("no such database") => ConnectError::UnknownDatabase { address },
        _ if pooler("startup parameter") => ConnectError::RefusedOption { address, message },
        _ if pooler("no such user") || pooler("authentication") => ConnectError::AuthFailed { address, message },
        &SqlState::INVALID_PASSWORD => ConnectError::AuthFailed { address, message },
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.contains("pg_hba.conf") => {
            ConnectError::NotAdmitted { address, message }
        }
        &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => ConnectError::AuthFailed { address, message },
        &SqlState::INVALID_CATALOG_NAME => ConnectError::UnknownDatabase { address },
        &SqlState::TOO_MANY_CONNECTIONS => ConnectError::TooManyConnections { address },
        &SqlState::CANNOT_CONNECT_NOW | &SqlState::ADMIN_SHUTDOWN => ConnectError::Starting { address },
        _ => return None,
    })
}

/// What a cause below the driver's error says.
fn of_cause(address: &str, cause: &(dyn Error + 'static)) -> Option<ConnectError> {
    let address = address.to_owned();
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        // An I/O error hands out the causes of what it wraps, not that itself.
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return of_tls(address, tls);
        }
        return match error.kind() {
            // A socket that isn't there is a file that isn't found.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Some(ConnectError::Refused { address }),
            io::ErrorKind::TimedOut => Some(ConnectError::TimedOut { address }),
            _ if error.to_string().contains("failed to lookup address") => Some(ConnectError::UnknownHost { address }),
            _ => None,
        };
    }
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return of_tls(address, tls);
    }
    // The driver has no type for it.
    match cause.to_string().as_str() {
        "server does not support TLS" => Some(ConnectError::NoTls { address }),
        "password missing" => Some(ConnectError::AuthFailed {
            address,
            message: "no password is given".to_owned(),
        }),
        _ => None,
    }
}

fn of_tls(address: String, error: &rustls::Error) -> Option<ConnectError> {
    let rustls::Error::InvalidCertificate(reason) = error else {
        return None;
    };
    Some(match reason {
        CertificateError::Other(other) if other.0.is::<NotByGivenRoots>() => ConnectError::OtherIssuer { address },
        // A server's own certificate, not made to be one, says so by the latter.
        CertificateError::UnknownIssuer | CertificateError::Other(_) => ConnectError::UnknownIssuer { address },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ConnectError::OtherName { address }
        }
        other => ConnectError::BadCertificate {
            address,
            message: other.to_string(),
        },
    })
}

/// Whether this one error, its causes aside, means that the database is away, busy or closed to us, rather than that
/// something was wrongly asked of it.
pub fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<ConnectError>() {
        return !matches!(
            error,
            ConnectError::NotConfigured(_)
                | ConnectError::Secret(_)
                | ConnectError::RootsSecret(_)
                | ConnectError::Address { .. }
                | ConnectError::Roots { .. }
        );
    }
    let driver = error.downcast_ref::<tokio_postgres::Error>();
    driver.is_some_and(|error| sqlstate::of(error) == Fault::Outage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_certificate(reason: CertificateError) -> String {
        let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(reason));
        of_cause("db:5432/shop", &error).unwrap().to_string()
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_with_the_way_out() {
        let unknown = of_certificate(CertificateError::UnknownIssuer);
        assert!(
            unknown.contains("sslrootcert=FILE") && unknown.contains("DATABASE_ROOT_CERT"),
            "{unknown}"
        );
        let other = rustls::OtherError(std::sync::Arc::new(NotByGivenRoots));
        assert!(of_certificate(CertificateError::Other(other)).contains("none of the roots"));
        assert!(of_certificate(CertificateError::NotValidForName).contains("for another host"));
        assert!(of_certificate(CertificateError::Expired).contains("renew it"));
    }

    #[test]
    fn a_database_that_is_not_configured_is_nobodys_outage() {
        let missing = ConnectError::NotConfigured(Problem::new("DATABASE_URL", "is not set"));
        assert!(!is_unreachable(&missing));
        assert!(is_unreachable(&ConnectError::PoolExhausted));
    }
}
