//! What the tests stand on: a real PostgreSQL, a provider and a Lambda runtime over real HTTP, real processes.

pub mod background;
pub mod between;
pub mod browser;
pub mod conditions;
pub mod database;
pub mod failover;
pub mod folder;
pub mod http;
pub mod iam;
pub mod invoke_api;
pub mod moto;
pub mod own_server;
pub mod pgbouncer;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod runtime_api;
pub mod secrets_manager;
pub mod skipped;
pub mod system;
pub mod tls;

pub use skipped::skipped;

/// Whether the full sizes are asked for, `CRONVEC_FULL=1`, instead of those that fit an ordinary run.
pub fn full_size() -> bool {
    std::env::var_os("CRONVEC_FULL").is_some_and(|value| value == "1")
}
