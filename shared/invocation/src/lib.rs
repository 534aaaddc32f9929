//! An invocation of a worker: its time, the wish that it ends, its leases, the search for what kills it. Refuses to know what
//! the worker does.

mod clock;
pub mod crash_search;
mod leases;
mod stop;

pub use clock::Clock;
pub use leases::{Leases, Unreported};
pub use stop::Stop;
