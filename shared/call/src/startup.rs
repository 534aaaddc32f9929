//! Owns what a function's process does before its first call. Refuses to wait for anything.

use cronvec_config::{Problems, Settings};
use cronvec_edges::{telemetry, tls};

/// Sets up TLS and the log and reads the settings. Their problems are told here, once, a line each; the process goes
/// on without them, so that every call is answered with an error instead of an endless round of failing starts.
pub fn begin() -> Option<Settings> {
    tls::install();
    telemetry::init(telemetry::Format::from_env());
    let settings = Settings::from_env();
    settings.inspect_err(tell).ok()
}

/// Whether what a function needs beyond the settings' own rules is there; what isn't is told as their problems are.
pub fn told(needed: Result<(), Problems>) -> bool {
    needed.inspect_err(tell).is_ok()
}

fn tell(problems: &Problems) {
    for problem in &problems.0 {
        tracing::error!(config.variable = %problem.variable, "{problem}");
    }
}
