//! What the functions and the command line share.
//!
//! Imports run one way: `pipeline` → `store`, `provider` → `config`, `telemetry` → the nouns.
//! `store` and `provider` never see each other.

// Level 0: nouns.
pub mod chunk;
pub mod histogram;
pub mod job;
pub mod reading;
pub mod record;
pub mod space;
pub mod token;

// Level 1: edges.
pub mod cause;
pub mod config;
pub mod near;
pub mod panics;
pub mod telemetry;
pub mod tls;

// Level 2: the outside world.
pub(crate) mod aws;
pub mod call;
pub mod provider;
pub mod rotation;
pub mod secrets;
pub mod startup;
pub mod store;

// Level 3: the way from pending to stored, and whether all is well.
pub mod checks;
pub mod pipeline;
