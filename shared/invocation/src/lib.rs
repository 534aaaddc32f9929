//! An invocation of a worker: its time, the wish that it ends, its leases. Refuses to know what the worker does.

mod clock;
mod leases;
mod stop;

pub use clock::Clock;
pub use leases::{Leases, Unreported};
pub use stop::Stop;
