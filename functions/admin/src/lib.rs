//! What operators and producers call over HTTP. The router stands here so that others can serve it, too.

mod health;
mod refusal;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use shared::config::Settings;
use shared::secrets::Secrets;
use shared::store::connect::{ConnectError, DEFAULT_CONNECTIONS, Database};
use tokio::sync::OnceCell;

pub use refusal::Refusal;

/// What every handler borrows. Clones share it.
#[derive(Clone, Debug)]
pub struct Admin {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    secrets: Secrets,
    database: OnceCell<Database>,
}

impl Admin {
    /// Waits for nobody: the database is looked for by the first request that needs it.
    pub fn new(settings: Settings, secrets: Secrets) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                secrets,
                database: OnceCell::new(),
            }),
        }
    }

    /// The database, found at the first time that it can be.
    async fn database(&self) -> Result<&Database, ConnectError> {
        let inner = &self.inner;
        let open = || Database::open(&inner.settings, &inner.secrets, DEFAULT_CONNECTIONS);
        inner.database.get_or_try_init(open).await
    }
}

/// Everything that `admin` answers.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/api/health", get(health::answer))
        .fallback(refusal::no_such_path)
        .method_not_allowed_fallback(refusal::method_not_allowed)
        .with_state(admin)
}

/// What is served while the settings have problems: an error to every request.
pub fn unconfigured() -> Router {
    Router::new().fallback(refusal::unread_settings)
}

#[cfg(test)]
mod tests;
