//! Owns where log lines go and how they look, and that spans go to X-Ray. Refuses to decide what is logged.

mod xray;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, registry};

/// What is said unless `RUST_LOG` asks for something else: ours, and the others' worries.
const DEFAULT_FILTER: &str = "info,aws_config=warn,aws_runtime=warn,aws_sdk_secretsmanager=warn,aws_smithy_runtime=warn,\
     deadpool=warn,h2=warn,hyper=warn,hyper_util=warn,lambda_http=warn,lambda_runtime=warn,reqwest=warn,rustls=warn,\
     tokio_postgres=warn,tower=warn";

/// What no filter changes. The first write events and answers out when they are asked for more, the bearer and secrets
/// among them; the last says every function error again.
const FIXED: [&str; 5] = [
    "lambda_runtime=warn",
    "lambda_http=warn",
    "lambda_runtime_api_client=warn",
    "aws_smithy_runtime=warn",
    "lambda_runtime::layers::panic=off",
];

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, for a log service.
    Json,
    /// For a person at a terminal.
    Human,
}

impl Format {
    /// JSON on Lambda and in production, else for people. It is asked before the settings are read, since their
    /// problems are told through the log.
    pub fn from_env() -> Self {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// [`Format::from_env`] with the variables that `lookup` knows.
    pub fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Self {
        let on_lambda = lookup("AWS_LAMBDA_FUNCTION_NAME").is_some_and(|name| !name.is_empty());
        let in_production = lookup("APP_ENV").is_some_and(|env| env == "production");
        if on_lambda || in_production {
            Self::Json
        } else {
            Self::Human
        }
    }
}

/// Starts logging, once in a process; later calls change nothing. Lines go to standard error, since standard output
/// belongs to what a command answers. `RUST_LOG` replaces the default filter.
///
/// The `log` crate isn't bridged on purpose: the Postgres driver logs statements with their parameters there.
pub fn init(format: Format) {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (filter, refused) = filter(asked.as_deref());
    let lines = tracing_subscriber::fmt::layer().with_writer(stderr);
    // The filter is of the lines alone: a trace has its spans however quiet the log is.
    let started = match format {
        Format::Json => {
            let lines = lines
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(true);
            let traces = xray::XRay::from_env().map(|layer| layer.with_filter(filter_fn(xray::is_told)));
            registry().with(lines.with_filter(filter)).with(traces).try_init()
        }
        Format::Human => {
            let lines = lines.with_ansi(stderr().is_terminal()).with_target(false);
            registry().with(lines.with_filter(filter)).try_init()
        }
    };
    if let (Ok(()), Some(problem)) = (started, refused) {
        tracing::warn!(error = %problem, "RUST_LOG is not understood and was ignored");
    }
}

/// The filter, and what was wrong with the one that was asked for.
fn filter(asked: Option<&str>) -> (EnvFilter, Option<String>) {
    let parsed = asked.map(|text| EnvFilter::builder().parse(text));
    let (filter, problem) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error.to_string())),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let fixed = FIXED.into_iter().filter_map(|directive| directive.parse().ok());
    (fixed.fold(filter, EnvFilter::add_directive), problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(name: &'static str, value: &'static str) -> Format {
        Format::from_lookup(&|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn lines_are_json_on_lambda_and_in_production() {
        assert_eq!(format_of("AWS_LAMBDA_FUNCTION_NAME", "ingestion"), Format::Json);
        assert_eq!(format_of("APP_ENV", "production"), Format::Json);
        assert_eq!(format_of("APP_ENV", "development"), Format::Human);
        assert_eq!(format_of("AWS_LAMBDA_FUNCTION_NAME", ""), Format::Human);
    }

    #[test]
    fn what_writes_secrets_out_stays_quiet_whatever_is_asked_for() {
        let (filter, problem) = filter(Some("trace"));
        assert_eq!(problem, None);
        let shown = filter.to_string();
        assert!(
            shown.contains("lambda_runtime=warn") && shown.contains("aws_smithy_runtime=warn"),
            "{shown}"
        );
    }

    #[test]
    fn a_filter_that_is_not_understood_is_told_and_ignored() {
        let (filter, problem) = filter(Some("info,=,=nonsense=x"));
        assert!(problem.is_some());
        assert!(filter.to_string().contains("hyper=warn"));
    }
}
