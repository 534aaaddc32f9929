//! Small things at the edges. Refuses to know what they are used for.

pub mod cause;
pub mod http;
pub mod near;
pub mod panics;
pub mod telemetry;
pub mod tls;
