//! The one integration binary: linking many would take longer than running them.

#![allow(clippy::unwrap_used)]

mod admin;
mod attach;
mod beside;
mod bounded;
mod cleanup;
mod cli;
mod conditions;
mod crashes;
mod database;
mod extending;
mod failover;
mod fair;
mod fenced;
mod ingestion;
mod killed;
mod lambda;
mod leases;
mod levels;
mod local;
mod main_job;
mod migrating;
mod migrations;
mod nobody_waits;
mod numbers;
mod order_of_acceptance;
mod pgbouncer;
mod pooler;
mod process;
mod provider;
mod provider_failures;
mod queue;
mod runtime_api;
mod schema;
mod search;
mod sessions;
mod storm;
