//! How all of it fares: coverage, throughput, endpoints, health, who did what, and the page's one call for all.

pub(crate) mod audit;
pub(crate) mod coverage;
pub(crate) mod endpoints;
pub(crate) mod health;
pub(crate) mod monitor;
pub(crate) mod throughput;
mod workers;
