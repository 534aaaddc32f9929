//! Owns connections to PostgreSQL: address, TLS, the pool, its health. Refuses to know any table.

mod address;
mod cancel;
mod error;
mod iam;
pub(super) mod session;
mod tls;
mod verifier;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use deadpool_postgres::{
    ConfigConnectImpl, Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use tokio::runtime::Handle;
use tokio::sync::RwLock as AsyncRwLock;
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use error::{ConnectError, is_unreachable};
pub(super) use session::Session;

use address::Address;
use cancel::Canceller;
use cronvec_config::{Secret, SecretSource, Settings};
use cronvec_secrets::{Aws, Secrets};
use iam::{Login, Signed};
use session::Known;

/// Two for writes, of which one's vectors are received while the other's are stored, and one for what goes on beside.
pub const DEFAULT_CONNECTIONS: usize = 3;

/// How long a caller waits for another to give a connection back.
const WAIT: Duration = Duration::from_secs(10);
/// Making one: name, socket, TLS and log-in together; the socket alone has `connect_timeout`.
const CREATE: Duration = Duration::from_secs(15);
const RECYCLE: Duration = Duration::from_secs(2);
/// A server that is there answers in milliseconds; a dead socket never does.
const CHECK: Duration = Duration::from_secs(2);
/// Ending a question that was given up: a connection of its own, and the server's word that the question is over.
const CANCEL: Duration = Duration::from_secs(2);

/// The database. Clones share its connections.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    /// Where the address came from, for reading it again after its password was rotated.
    origin: Option<(SecretSource, Secrets)>,
    /// Roots that vouch for its certificate, in PEM form.
    roots: Option<Secret>,
    /// Whether to log in as an IAM user, and the region for that.
    iam: Option<Iam>,
    max_size: usize,
    current: RwLock<Current>,
    /// Read-locked while a question that was given up is being ended.
    abandoning: Arc<AsyncRwLock<()>>,
    known: Known,
}

/// The settings of logging in as an IAM user.
#[derive(Clone)]
struct Iam {
    region: Option<String>,
    aws: Option<Arc<dyn Aws>>,
}

#[derive(Clone)]
struct Current {
    secret: Secret,
    label: Arc<str>,
    pool: Pool,
    canceller: Canceller,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&self.label()).finish()
    }
}

const TIMEOUTS: Timeouts = Timeouts {
    wait: Some(WAIT),
    create: Some(CREATE),
    recycle: Some(RECYCLE),
};

impl Database {
    /// The database that the settings name. Resolves its secret, and connects at the first [`Database::get`].
    pub async fn open(settings: &Settings, secrets: &Secrets, max_size: usize) -> Result<Self, ConnectError> {
        let source = settings.require_database().map_err(ConnectError::NotConfigured)?;
        let secret = secrets.resolve(source).await.map_err(ConnectError::Secret)?;
        let iam = settings.database_iam_auth.then(|| Iam {
            region: settings.aws_region.clone(),
            aws: secrets.aws(),
        });
        let roots = match &settings.database_root_cert {
            Some(source) => Some(secrets.resolve(source).await.map_err(ConnectError::RootsSecret)?),
            None => None,
        };
        let current = connect(secret, max_size, roots.as_ref(), iam.as_ref()).await?;
        let origin = Some((source.clone(), secrets.clone()));
        Ok(Self::of(current, max_size, origin, roots, iam))
    }

    /// The database at a connection URL, or at what a secret in the RDS JSON form says. Connects at the first
    /// [`Database::get`].
    pub fn at(url_or_json: &str, max_size: usize) -> Result<Self, ConnectError> {
        let secret = Secret::new(url_or_json);
        let address = Address::parse(secret.expose())?;
        Ok(Self::of(
            pool(secret, address, max_size, None)?,
            max_size,
            None,
            None,
            None,
        ))
    }

    fn of(
        current: Current,
        max_size: usize,
        origin: Option<(SecretSource, Secrets)>,
        roots: Option<Secret>,
        iam: Option<Iam>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                origin,
                roots,
                iam,
                max_size,
                current: RwLock::new(current),
                abandoning: Arc::default(),
                known: Known::default(),
            }),
        }
    }

    /// Host, port and database, for people; no user, no password.
    pub fn label(&self) -> Arc<str> {
        self.current().label
    }

    /// A connection, new or used. It goes back when it is dropped.
    pub async fn get(&self) -> Result<Object, ConnectError> {
        Ok(self.get_looking(CREATE).await?.0)
    }

    /// Asks the server something, in place of the work that comes. After a thaw the sockets may be dead without
    /// knowing: then all idle ones are dropped, and a new one is asked, once.
    pub async fn check(&self) -> Result<(), ConnectError> {
        self.find_connection(false).await
    }

    /// The same for who is going to write: after a fail-over connections may lead to the server that was demoted.
    pub async fn check_for_writes(&self) -> Result<(), ConnectError> {
        self.find_connection(true).await
    }

    async fn find_connection(&self, to_write: bool) -> Result<(), ConnectError> {
        match self.try_connection(to_write).await {
            Err(wrong @ (ConnectError::NoAnswer { .. } | ConnectError::ReadOnly { .. })) => {
                tracing::info!(error = %wrong, "a connection is of no use: all idle ones are replaced");
                self.forget_idle();
                self.try_connection(to_write).await
            }
            outcome => outcome,
        }
    }

    /// Whether a connection is of use. One that isn't is closed.
    async fn try_connection(&self, to_write: bool) -> Result<(), ConnectError> {
        let (client, looked) = self.get_looking(CHECK).await?;
        let looked = match looked {
            Some(takes_writes) => Ok(takes_writes),
            None => self.inner.known.look(&client, CHECK).await,
        };
        let address = || self.label().to_string();
        let wrong = match looked {
            Ok(false) if to_write => ConnectError::ReadOnly { address: address() },
            Ok(_) => return Ok(()),
            Err(message) => ConnectError::NoAnswer {
                address: address(),
                message,
            },
        };
        drop(Object::take(client));
        Err(wrong)
    }

    /// What our statements must reckon with, as far as connections have shown it.
    pub(super) fn session(&self) -> Session {
        self.inner.known.session()
    }

    /// From now on statements say what they need.
    pub(super) fn guard(&self) {
        self.inner.known.guard();
    }

    /// Closes the connections that nobody uses.
    pub(super) fn forget_idle(&self) {
        self.current().pool.retain(|_, _| false);
    }

    /// A connection. Of a new one, which must answer within `limit`: whether it takes writes.
    async fn get_looking(&self, limit: Duration) -> Result<(Object, Option<bool>), ConnectError> {
        match self.try_get(limit).await {
            Err(refused @ ConnectError::AuthFailed { .. }) => {
                if self.renew().await {
                    self.try_get(limit).await
                } else {
                    Err(refused)
                }
            }
            outcome => outcome,
        }
    }

    /// Ends the question that a connection is in the middle of, and then the connection, without keeping the caller waiting.
    /// The question comes first: a pooler forgets whose it was once the connection is gone.
    pub(super) fn abandon(&self, client: Object) {
        let client = Object::take(client);
        let Ok(runtime) = Handle::try_current() else { return };
        let (token, canceller) = (client.cancel_token(), self.current().canceller);
        let under_way = Arc::clone(&self.inner.abandoning).try_read_owned();
        runtime.spawn(async move {
            let ended = async {
                canceller.cancel(&token).await?;
                // Answered only after the question, whose error nobody waits for.
                client.simple_query("").await?;
                Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
            };
            match timeout(CANCEL, ended).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = %error, "a connection ended with its question"),
                Err(_) => tracing::warn!("a question that was given up could not be ended at the server"),
            }
            drop((client, under_way));
        });
    }

    /// Returns when no question that was given up is still being ended. A process that is frozen or ends would leave it.
    pub(super) async fn settled(&self) {
        drop(self.inner.abandoning.write().await);
    }

    async fn try_get(&self, limit: Duration) -> Result<(Object, Option<bool>), ConnectError> {
        let current = self.current();
        // On the heap: each statement's future would carry the connecting along, some 20 kB of it.
        let got = Box::pin(current.pool.get()).await;
        let client = got.map_err(|error| match error {
            PoolError::Backend(error) => ConnectError::explain(&current.label, error),
            PoolError::Timeout(TimeoutType::Wait) => ConnectError::PoolExhausted,
            PoolError::Timeout(_) => ConnectError::TimedOut {
                address: current.label.to_string(),
            },
            error => ConnectError::NoAnswer {
                address: current.label.to_string(),
                message: error.to_string(),
            },
        })?;
        if Object::metrics(&client).recycle_count > 0 {
            return Ok((client, None));
        }
        match Box::pin(self.inner.known.look(&client, limit)).await {
            Ok(takes_writes) => Ok((client, Some(takes_writes))),
            Err(message) => {
                drop(Object::take(client));
                Err(ConnectError::NoAnswer {
                    address: current.label.to_string(),
                    message,
                })
            }
        }
    }

    fn current(&self) -> Current {
        // Nothing can panic while it is held, so a poisoned one is whole.
        self.inner
            .current
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// Whether the secret has changed since it was read; then connections are made with the new one.
    async fn renew(&self) -> bool {
        let Some((source, secrets)) = &self.inner.origin else {
            return false;
        };
        let secret = match Box::pin(secrets.reread(source)).await {
            Ok(secret) if secret != self.current().secret => secret,
            Ok(_) => return false,
            Err(error) => {
                tracing::warn!(error = %error, "the database's secret can't be read again");
                return false;
            }
        };
        match connect(
            secret,
            self.inner.max_size,
            self.inner.roots.as_ref(),
            self.inner.iam.as_ref(),
        )
        .await
        {
            Ok(fresh) => {
                *self
                    .inner
                    .current
                    .write()
                    .unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
                true
            }
            Err(error) => {
                tracing::warn!(error = %error, "the database's new secret is unusable");
                false
            }
        }
    }
}

async fn connect(
    secret: Secret,
    max_size: usize,
    roots: Option<&Secret>,
    iam: Option<&Iam>,
) -> Result<Current, ConnectError> {
    let address = Address::with_roots(secret.expose(), roots.map(Secret::expose))?;
    let login = match iam {
        Some(iam) => Some(Login::new(&address, iam.region.clone(), iam.aws.clone())?),
        None => None,
    };
    pool(secret, address, max_size, login)
}

/// A pool for an address; no connection is made yet.
fn pool(secret: Secret, address: Address, max_size: usize, login: Option<Login>) -> Result<Current, ConnectError> {
    address.warn();
    // Recycled as it is: a statement to clean it up would be one that poolers refuse, and nothing here leaves state.
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let tls = tls::config(&address.tls)?.map(MakeRustlsConnect::new);
    let canceller = Canceller::new(address.config.clone(), tls.clone());
    let manager = match tls {
        Some(tls) => manager(address.config, ConfigConnectImpl { tls }, login, recycling),
        None => manager(address.config, ConfigConnectImpl { tls: NoTls }, login, recycling),
    };
    let pool = Pool::builder(manager)
        .max_size(max_size.max(1))
        .timeouts(TIMEOUTS)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| ConnectError::Address {
            message: error.to_string(),
        })?;
    Ok(Current {
        secret,
        label: address.label.into(),
        pool,
        canceller,
    })
}

fn manager(config: Config, connect: impl Connect + 'static, login: Option<Login>, recycling: ManagerConfig) -> Manager {
    match login {
        Some(login) => Manager::from_connect(config, Signed { login, connect }, recycling),
        None => Manager::from_connect(config, connect, recycling),
    }
}

#[cfg(test)]
mod tests;
