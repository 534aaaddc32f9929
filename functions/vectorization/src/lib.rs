//! The worker `vectorization`.

use std::time::Instant;

use serde::Serialize;
use shared::call::CallOptions;
use shared::config::Settings;
use shared::secrets::Secrets;
use shared::store::connect::{ConnectError, DEFAULT_CONNECTIONS, Database};

/// Why a pass could not be made.
pub type Error = ConnectError;

/// What a pass did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Jobs.
    pub processed: u64,
}

/// Makes passes.
#[derive(Debug)]
pub struct Worker {
    database: Database,
}

impl Worker {
    /// A worker on the database that the settings name.
    pub async fn connect(settings: &Settings, secrets: &Secrets) -> Result<Self, Error> {
        Ok(Self {
            database: Database::open(settings, secrets, DEFAULT_CONNECTIONS).await?,
        })
    }

    /// One pass, until the deadline at most.
    pub async fn run(&self, _options: CallOptions, _deadline: Instant) -> Result<Report, Error> {
        self.database.check().await?;
        Ok(Report { processed: 0 })
    }
}
