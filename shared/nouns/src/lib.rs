//! What all parts speak of. Refuses to do anything with it.

pub mod chunk;
pub mod definition;
pub mod histogram;
pub mod job;
pub mod metric;
pub mod model;
mod open_models;
pub mod record;
pub mod registry;
pub mod space;
pub mod token;
