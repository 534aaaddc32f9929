//! What operators and producers call over HTTP. The router stands here so that others can serve it, too.

mod backfill;
mod gate;
mod headers;
mod health;
mod identity;
mod login;
mod openapi;
mod overview;
mod pace;
mod page;
mod producer;
mod projects;
mod queue;
mod reference;
mod refusal;
mod request;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use cronvec_config::Settings;
use cronvec_secrets::Secrets;
use cronvec_store::connect::{ConnectError, DEFAULT_CONNECTIONS, Database};
use cronvec_store::{Store, StoreError};
use tokio::sync::OnceCell;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use headers::protect;
pub use identity::SourceAddress;
pub use pace::Pace;
pub use refusal::Refusal;

use identity::{Failures, Rate, Sessions};
use overview::throughput::Days;

/// What every handler borrows. Clones share it.
#[derive(Clone, Debug)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    secrets: Secrets,
    sessions: Sessions,
    failures: Failures,
    rate: Rate,
    days: Days,
    pace: Pace,
    connections: usize,
    database: OnceCell<Database>,
    store: OnceCell<Arc<Store>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Admin {
    /// Waits for nobody: the database is looked for by the first request that needs it.
    pub fn new(settings: Settings, secrets: Secrets) -> Self {
        Self::in_process(settings, secrets, DEFAULT_CONNECTIONS, Pace::Schedule)
    }

    /// The same, for a process that serves many requests at once and may have the schedule in it.
    pub fn in_process(settings: Settings, secrets: Secrets, connections: usize, pace: Pace) -> Self {
        Self {
            inner: Arc::new(Inner {
                sessions: Sessions::new(settings.session_secret.clone(), secrets.clone()),
                failures: Failures::default(),
                rate: Rate::new(settings.api_rate_limit),
                days: Days::default(),
                pace,
                settings,
                secrets,
                connections,
                database: OnceCell::new(),
                store: OnceCell::new(),
            }),
        }
    }

    /// The database, found at the first time that it can be.
    async fn database(&self) -> Result<&Database, ConnectError> {
        let inner = &self.inner;
        let open = || Database::open(&inner.settings, &inner.secrets, inner.connections);
        inner.database.get_or_try_init(open).await
    }

    /// The store, whose schema was found to serve this program.
    async fn store(&self) -> Result<&Arc<Store>, StoreError> {
        let open = || async {
            let store = Store::new(self.database().await?.clone());
            store.check_ready().await?;
            Ok(Arc::new(store))
        };
        self.inner.store.get_or_try_init(open).await
    }

    fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    fn secrets(&self) -> &Secrets {
        &self.inner.secrets
    }

    fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    fn days(&self) -> &Days {
        &self.inner.days
    }

    fn pace(&self) -> &Pace {
        &self.inner.pace
    }

    fn failures(&self) -> &Failures {
        &self.inner.failures
    }

    fn rate(&self) -> &Rate {
        &self.inner.rate
    }
}

/// Everything that `admin` answers.
pub fn router(admin: Admin) -> Router {
    let app_env = admin.settings().app_env;
    let (router, document) = routes().split_for_parts();
    let router = openapi::serve(router, document)
        .merge(page::routes())
        .fallback(refusal::no_such_path)
        .method_not_allowed_fallback(refusal::method_not_allowed)
        .with_state(admin)
        .layer(from_fn(gate::pass));
    protect(router, app_env)
}

/// Each operation once: what is served is what the document describes.
fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(health::answer))
        .routes(routes!(health::alive))
        .routes(routes!(login::login))
        .routes(routes!(login::logout))
        .routes(routes!(login::me))
        .routes(routes!(producer::ingest::ingest))
        .routes(routes!(producer::bodies::open))
        .routes(routes!(producer::bodies::put))
        .routes(routes!(producer::bodies::close))
        .routes(routes!(producer::search::search))
        .routes(routes!(queue::stats::stats))
        .routes(routes!(queue::act::retry))
        .routes(routes!(queue::act::cancel))
        .routes(routes!(queue::jobs::list))
        .routes(routes!(queue::jobs::one))
        .routes(routes!(queue::act::retry_many))
        .routes(routes!(queue::act::cancel_many))
        .routes(routes!(queue::failures::list))
        .routes(routes!(queue::figures::stats))
        .routes(routes!(queue::figures::groups))
        .routes(routes!(queue::quarantine::list))
        .routes(routes!(queue::quarantine::replay))
        .routes(routes!(queue::quarantine::purge))
        .routes(routes!(queue::pause::pause))
        .routes(routes!(queue::pause::resume))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(overview::coverage::list))
        .routes(routes!(overview::throughput::list))
        .routes(routes!(overview::endpoints::list))
        .routes(routes!(overview::audit::list))
        .routes(routes!(overview::health::look))
        .routes(routes!(overview::monitor::look))
        .routes(routes!(backfill::list, backfill::begin))
        .routes(routes!(backfill::stop))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        // An id may have slashes. The document knows no such path: there it stands as `{id}`.
        .route(
            "/api/projects/{project}/records/{*id}",
            get(producer::record::get)
                .put(producer::record::put)
                .delete(producer::record::delete),
        )
}

/// What is served while the settings have problems: an error to every request.
pub fn unconfigured() -> Router {
    protect(
        Router::new().fallback(refusal::unread_settings),
        cronvec_config::AppEnv::Production,
    )
}

#[cfg(test)]
mod tests;
