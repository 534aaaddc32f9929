//! Owns everything that is said to PostgreSQL. Refuses to know providers.

pub mod connect;
