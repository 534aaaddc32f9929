//! Owns what a connection URL, or a secret in the RDS JSON form, says. Refuses to connect.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use url::form_urlencoded;

use super::ConnectError;

/// Options that the driver understands as they stand.
const PASSED: [&str; 18] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
    "sslnegotiation",
];

const FORM: &str = "it looks like postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full";

/// Where the database is, and how to get in.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// Host, port and database, for people.
    pub(super) label: String,
    /// Options of other clients.
    ignored: Vec<String>,
    leaves_the_machine_in_clear: bool,
}

/// The TLS that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) mode: SslMode,
    /// `verify-ca`: any name will do, as through a tunnel.
    pub(super) any_name: bool,
    /// Those that somebody gave.
    pub(super) roots: Option<Roots>,
    pub(super) direct: bool,
}

/// Root certificates that somebody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// `sslrootcert=FILE`
    File(PathBuf),
    /// In PEM form: `DATABASE_ROOT_CERT`, or `sslrootcert` in a secret.
    Text(String),
}

impl Roots {
    /// What stands in an address: a file's path, or the text itself.
    fn of(given: &str) -> Self {
        match given.contains("-----BEGIN") {
            true => Self::of_text(given),
            false => Self::File(given.into()),
        }
    }

    /// Some settings can't have line breaks; they have `\n` for them.
    fn of_text(pem: &str) -> Self {
        Self::Text(pem.replace("\\n", "\n"))
    }
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "sslrootcert={}", file.display()),
            Self::Text(_) => f.write_str("the PEM text of DATABASE_ROOT_CERT or sslrootcert"),
        }
    }
}

/// The options that the driver doesn't know, or not all of.
#[derive(Default)]
struct Ours {
    sslmode: Option<String>,
    sslrootcert: Option<String>,
    seen: Vec<String>,
    ignored: Vec<String>,
}

impl Address {
    /// Whether what is sent passes through other machines in clear, or may.
    pub(super) fn would_be_read(&self) -> bool {
        self.leaves_the_machine_in_clear || self.tls.mode == SslMode::Prefer
    }

    /// Takes a URL or JSON. An error never repeats either: both hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, ConnectError> {
        Self::with_roots(text, None)
    }

    /// The same, with roots that count where it names none.
    pub(super) fn with_roots(text: &str, roots: Option<&str>) -> Result<Self, ConnectError> {
        let text = text.trim();
        let (config, ours) = if text.starts_with('{') {
            from_json(text)?
        } else {
            from_url(text)?
        };
        Self::new(config, ours, roots)
    }

    fn new(mut config: Config, ours: Ours, roots: Option<&str>) -> Result<Self, ConnectError> {
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong(format!("the database's address names no host; {FORM}")));
        }
        if config
            .get_hosts()
            .iter()
            .any(|host| matches!(host, Host::Tcp(name) if name.contains('@')))
        {
            let message = "the database's address has more than one @: write one in the password as %40".to_owned();
            return Err(wrong(message));
        }
        let sockets =
            config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) && config.get_hostaddrs().is_empty();
        let local = is_local(&config);
        let roots = match ours.sslrootcert.as_deref() {
            Some("system") => None,
            Some(given) => Some(Roots::of(given)),
            None => roots.map(Roots::of_text),
        };
        let (mode, any_name) = match ours.sslmode.as_deref() {
            // There is nobody in between, and no name that a certificate could be for.
            _ if sockets => (SslMode::Disable, false),
            None if local && roots.is_none() => (SslMode::Disable, false),
            None | Some("require" | "verify-full") => (SslMode::Require, false),
            Some("disable") => (SslMode::Disable, false),
            // As far as the driver can: it doesn't start over in clear, or with TLS.
            Some("allow" | "prefer") => (SslMode::Prefer, false),
            Some("verify-ca") => (SslMode::Require, true),
            Some(other) => {
                let known = "disable, allow, prefer, require, verify-ca or verify-full";
                return Err(wrong(format!("sslmode is '{other}'; it is {known}")));
            }
        };
        config.ssl_mode(mode);
        let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        set_defaults(&mut config, &ours.seen);
        let label = label(&config);
        let leaves_the_machine_in_clear = mode == SslMode::Disable && !local;
        let tls = Tls {
            mode,
            any_name,
            roots,
            direct,
        };
        Ok(Self {
            config,
            tls,
            label,
            ignored: ours.ignored,
            leaves_the_machine_in_clear,
        })
    }

    /// Tells what is odd about the address, once for a pool.
    pub(super) fn warn(&self) {
        if !self.ignored.is_empty() {
            let names = self.ignored.join(", ");
            tracing::warn!(db.address = %self.label, options = %names, "options of other clients in the database's address are ignored");
        }
        if self.leaves_the_machine_in_clear {
            tracing::warn!(db.address = %self.label, "sslmode=disable: passwords and texts cross the network in clear");
        }
    }
}

fn wrong(message: String) -> ConnectError {
    ConnectError::Address { message }
}

/// The driver parses what it knows; `sslmode` in full, and what only other clients know, are taken out before.
fn from_url(text: &str) -> Result<(Config, Ours), ConnectError> {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    if !base.starts_with("postgres://") && !base.starts_with("postgresql://") {
        return Err(wrong(format!("the database's address is no connection URL; {FORM}")));
    }
    let mut ours = Ours::default();
    let mut passed = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = decode(pair);
        match key.as_str() {
            "sslmode" => ours.sslmode = Some(value),
            "sslrootcert" => ours.sslrootcert = Some(value),
            // libpq's name for it.
            "keepalives_count" => passed.push(pair.replacen("keepalives_count", "keepalives_retries", 1)),
            known if PASSED.contains(&known) => passed.push(pair.to_owned()),
            _ => {
                ours.ignored.push(key);
                continue;
            }
        }
        ours.seen.push(key);
    }
    let config = format!("{base}?{}", passed.join("&"))
        .parse()
        .map_err(|error: tokio_postgres::Error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            wrong(format!(
                "the database's address can't be read ({reason}); {FORM}, with %XX for signs in the password"
            ))
        })?;
    Ok((config, ours))
}

/// A key and its value. In a connection URL a plus is a plus.
fn decode(pair: &str) -> (String, String) {
    let pair = pair.replace('+', "%2B");
    form_urlencoded::parse(pair.as_bytes())
        .into_owned()
        .next()
        .unwrap_or_default()
}

/// `{"username","password","host","port","dbname" or "database","engine"}`, as RDS and its rotation write it.
fn from_json(text: &str) -> Result<(Config, Ours), ConnectError> {
    let fields: Value =
        serde_json::from_str(text).map_err(|_| wrong("the database's secret begins like JSON but isn't".to_owned()))?;
    let given = |name: &str| match fields.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let needed = |name: &str| {
        let hint = "a secret that RDS manages by itself holds no host: add host and dbname to one of your own";
        given(name).ok_or_else(|| wrong(format!("the database's secret has no {name}; {hint}")))
    };
    if let Some(engine) = given("engine").filter(|engine| !engine.contains("postgres")) {
        return Err(wrong(format!(
            "the database's secret is for the engine {engine}, not for postgres"
        )));
    }
    let port = given("port").unwrap_or_else(|| "5432".to_owned());
    let port = port
        .parse()
        .map_err(|_| wrong(format!("the database's secret has the port '{port}'")))?;
    let mut config = Config::new();
    config
        .host(needed("host")?)
        .port(port)
        .user(needed("username")?)
        .password(needed("password")?);
    config.dbname(
        given("dbname")
            .or_else(|| given("database"))
            .unwrap_or_else(|| "postgres".to_owned()),
    );
    if let Some(options) = given("options") {
        config.options(options);
    }
    let ours = Ours {
        sslmode: given("sslmode"),
        sslrootcert: given("sslrootcert"),
        ..Ours::default()
    };
    Ok((config, ours))
}

/// Only parameters that PgBouncer 1.18 takes at start-up are sent: `application_name`, and `options` if asked for.
fn set_defaults(config: &mut Config, seen: &[String]) {
    let unset = |name: &str| !seen.iter().any(|seen| seen == name);
    if config.get_application_name().is_none() {
        config.application_name("cronvec");
    }
    if unset("connect_timeout") {
        config.connect_timeout(Duration::from_secs(5));
    }
    // A peer that went away without a word is noticed within a minute, by whoever waits for it.
    if unset("keepalives_idle") {
        config.keepalives_idle(Duration::from_secs(30));
    }
    if unset("keepalives_interval") {
        config.keepalives_interval(Duration::from_secs(10));
    }
    if unset("keepalives_retries") && unset("keepalives_count") {
        config.keepalives_retries(3);
    }
    if unset("tcp_user_timeout") {
        config.tcp_user_timeout(Duration::from_secs(30));
    }
}

fn is_local(config: &Config) -> bool {
    let hosts = config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    });
    hosts && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

fn label(config: &Config) -> String {
    let ports = config.get_ports();
    let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
    let mut hosts: Vec<_> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => format!("{}:{}", path.display(), port(at)),
        })
        .collect();
    if hosts.is_empty() {
        hosts = config
            .get_hostaddrs()
            .iter()
            .enumerate()
            .map(|(at, ip)| format!("{ip}:{}", port(at)))
            .collect();
    }
    format!(
        "{}/{}",
        hosts.join(","),
        config.get_dbname().or(config.get_user()).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests;
