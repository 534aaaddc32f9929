//! The one integration binary: linking many would take longer than running them.

#![allow(clippy::unwrap_used)]

mod cleanup;
mod conditions;
mod database;
mod ingestion;
mod local;
mod main_job;
mod order_of_acceptance;
mod pgbouncer;
mod process;
mod provider;
mod queue;
mod runtime_api;
mod schema;
