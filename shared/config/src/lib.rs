//! Owns the settings: reads them once, reports all problems together. Refuses to talk to anything.
//!
//! A section is one file: its struct, how it is read, how it is shown. Every default and every range stands there once.

mod embedding;
mod prices;
mod problems;
mod providers;
mod queue;
mod reader;
mod retention;
mod secret;

pub use embedding::Embedding;
pub use prices::Prices;
pub use problems::{Problem, Problems};
pub use providers::{Providers, Reached};
pub use queue::Queue;
pub use retention::Retention;
pub use secret::{Secret, SecretSource};

use reader::Reader;
pub use reader::check_base_url;

/// What signs sessions must not be guessed.
pub const SHORTEST_SESSION_SECRET: usize = 32;

/// Whether mistakes are refused (production) or warned about (development).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppEnv {
    Production,
    Development,
}

impl AppEnv {
    /// As `APP_ENV` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
        }
    }
}

/// Everything that the environment says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `APP_ENV`
    pub app_env: AppEnv,
    /// `AWS_LAMBDA_FUNCTION_NAME`, which Lambda sets.
    pub lambda_function: Option<String>,
    /// `DATABASE_URL` or `DATABASE_SECRET_ARN`
    pub database: Option<SecretSource>,
    /// `DATABASE_ROOT_CERT` or `DATABASE_ROOT_CERT_ARN`
    pub database_root_cert: Option<SecretSource>,
    /// `DATABASE_IAM_AUTH`
    pub database_iam_auth: bool,
    /// `AWS_REGION`, which Lambda sets.
    pub aws_region: Option<String>,
    /// `CRON_SECRET`
    pub cron_secret: Option<SecretSource>,
    /// `CRON_SECRET_PREVIOUS`
    pub cron_secret_previous: Option<SecretSource>,
    pub embedding: Embedding,
    pub queue: Queue,
    pub retention: Retention,
    /// `MAX_CONTENT_BYTES`
    pub max_content_bytes: usize,
    /// `API_RATE_LIMIT`, calls of a token in a minute; 0 is no limit.
    pub api_rate_limit: u32,
    /// `SESSION_SECRET`
    pub session_secret: Option<SecretSource>,
    /// `PUBLIC_URL`
    pub public_url: Option<String>,
}

impl Settings {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, Problems> {
        Self::from_env_as(None)
    }

    /// Reads the process's environment where an unset `APP_ENV` means `default_env` (`serve`: production).
    pub fn from_env_as(default_env: Option<AppEnv>) -> Result<Self, Problems> {
        Self::from_lookup_as(&|name| std::env::var(name).ok(), default_env)
    }

    /// Reads what `lookup` answers for each variable's name.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        Self::from_lookup_as(lookup, None)
    }

    /// [`Settings::from_lookup`] where an unset `APP_ENV` means `default_env`.
    pub fn from_lookup_as(
        lookup: &dyn Fn(&str) -> Option<String>,
        default_env: Option<AppEnv>,
    ) -> Result<Self, Problems> {
        let mut reader = Reader::new(lookup);
        let app_env = read_app_env(&mut reader, default_env);
        let settings = Self {
            app_env,
            lambda_function: reader.text("AWS_LAMBDA_FUNCTION_NAME"),
            database: read_database(&mut reader),
            database_root_cert: reader.secret("DATABASE_ROOT_CERT"),
            database_iam_auth: reader.flag("DATABASE_IAM_AUTH", false),
            aws_region: reader.text("AWS_REGION"),
            cron_secret: reader.secret("CRON_SECRET"),
            cron_secret_previous: reader.secret("CRON_SECRET_PREVIOUS"),
            embedding: Embedding::read(&mut reader, app_env),
            queue: Queue::read(&mut reader),
            retention: Retention::read(&mut reader),
            max_content_bytes: reader.bytes("MAX_CONTENT_BYTES", 10_000_000, 1..=100_000_000),
            api_rate_limit: reader.number("API_RATE_LIMIT", 6_000, 0..=1_000_000),
            session_secret: reader.secret("SESSION_SECRET"),
            public_url: reader.public_url("PUBLIC_URL"),
        };
        reader.finish(settings)
    }

    /// The database, for what can't do without.
    pub fn require_database(&self) -> Result<&SecretSource, Problem> {
        self.database.as_ref().ok_or_else(|| {
            Problem::new(
                "DATABASE_URL",
                "is not set; set it to postgresql://USER:PASSWORD@HOST/DATABASE, \
                 or DATABASE_SECRET_ARN to the ARN of a secret in the RDS JSON form",
            )
        })
    }

    /// What the HTTP API can't do without in production; in development a session lasts as long as the process, and the
    /// page's address is the one that is asked.
    pub fn require_web(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        match &self.session_secret {
            _ if self.app_env == AppEnv::Development => {}
            None => problems.push(Problem::new(
                "SESSION_SECRET",
                "is not set; in production it is required: set it, or SESSION_SECRET_ARN, to a long random value",
            )),
            Some(SecretSource::Value(value)) if value.len() < SHORTEST_SESSION_SECRET => problems.push(Problem::new(
                "SESSION_SECRET",
                format!("has fewer than {SHORTEST_SESSION_SECRET} characters; set it to a long random value"),
            )),
            Some(_) => {}
        }
        if self.app_env == AppEnv::Production && self.public_url.is_none() {
            problems.push(Problem::new(
                "PUBLIC_URL",
                "is not set; in production it is required: the address at which browsers reach the page, https://HOST",
            ));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Problems(problems))
        }
    }

    /// Each variable with the value that is in force, defaults included; secrets are masked.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("APP_ENV", self.app_env.as_str().to_owned()),
            secret::row_of_database(self.database.as_ref()),
            secret::row(
                "DATABASE_ROOT_CERT",
                "DATABASE_ROOT_CERT_ARN",
                self.database_root_cert.as_ref(),
            ),
            ("DATABASE_IAM_AUTH", self.database_iam_auth.to_string()),
            secret::row("CRON_SECRET", "CRON_SECRET_ARN", self.cron_secret.as_ref()),
            secret::row(
                "CRON_SECRET_PREVIOUS",
                "CRON_SECRET_PREVIOUS_ARN",
                self.cron_secret_previous.as_ref(),
            ),
        ];
        self.embedding.describe(&mut rows);
        self.queue.describe(&mut rows);
        self.retention.describe(&mut rows);
        rows.push(("MAX_CONTENT_BYTES", self.max_content_bytes.to_string()));
        rows.push(("API_RATE_LIMIT", self.api_rate_limit.to_string()));
        rows.push(secret::row(
            "SESSION_SECRET",
            "SESSION_SECRET_ARN",
            self.session_secret.as_ref(),
        ));
        rows.push((
            "PUBLIC_URL",
            self.public_url.clone().unwrap_or_else(|| secret::NOT_SET.to_owned()),
        ));
        rows
    }
}

fn read_app_env(reader: &mut Reader<'_>, default_env: Option<AppEnv>) -> AppEnv {
    let on_lambda = reader.text("AWS_LAMBDA_FUNCTION_NAME").is_some();
    let default = match default_env {
        _ if on_lambda => AppEnv::Production,
        Some(env) => env,
        None => AppEnv::Development,
    };
    match reader.text("APP_ENV").as_deref() {
        None => default,
        Some("production") => AppEnv::Production,
        Some("development") => AppEnv::Development,
        Some(other) => {
            reader.problem("APP_ENV", format!("is '{other}'; it is production or development"));
            default
        }
    }
}

/// The one secret whose ARN has a name of its own.
fn read_database(reader: &mut Reader<'_>) -> Option<SecretSource> {
    reader.secret_named("DATABASE_URL", "DATABASE_SECRET_ARN")
}

#[cfg(test)]
mod tests;
