//! What all parts speak of. Refuses to do anything with it.

pub mod chunk;
pub mod histogram;
pub mod job;
pub mod metric;
pub mod record;
pub mod space;
pub mod token;
