//! The operator's command line, as a library, so that tests can use its parts.

pub mod local;
