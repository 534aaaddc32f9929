//! A deployment on AWS from outside: its functions, its secrets, its schedules. Refuses to be part of a function.

mod function;
mod rotation;

pub use function::Function;
pub use rotation::{Rotation, RotationError};
