//! What the tests stand on: a real PostgreSQL, a provider and a Lambda runtime over real HTTP, real processes.

pub mod background;
pub mod conditions;
pub mod database;
pub mod http;
pub mod pgbouncer;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod runtime_api;
pub mod secrets_manager;
pub mod system;
