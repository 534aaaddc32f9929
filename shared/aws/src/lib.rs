//! AWS: secrets, and signed calls of services. Refuses to know what they are for.

pub mod secrets;
pub mod service;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use cronvec_secrets::{Aws, DatabaseLogin, SecretError};
use futures::FutureExt;
use futures::future::BoxFuture;
use service::Service;
use tokio::sync::{Mutex, OnceCell};
use url::Url;

/// RDS takes a password for so long; a connection that it made stays.
const PASSWORD_LIFETIME: Duration = Duration::from_secs(900);

/// The account that the environment's credentials are for. Its clients are made when they are first needed, so that nobody
/// else waits for them.
#[derive(Default)]
pub struct Account {
    secrets: OnceCell<Client>,
    /// By region.
    databases: Mutex<HashMap<String, Arc<Service>>>,
}

impl Account {
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    async fn databases(&self, region: &str) -> Result<Arc<Service>, String> {
        let mut databases = self.databases.lock().await;
        if let Some(service) = databases.get(region) {
            return Ok(Arc::clone(service));
        }
        let service = Arc::new(Service::new("rds-db", region.to_owned()).await?);
        databases.insert(region.to_owned(), Arc::clone(&service));
        Ok(service)
    }

    async fn password(&self, login: &DatabaseLogin) -> Result<String, String> {
        let DatabaseLogin { host, port, .. } = login;
        let mut url = Url::parse(&format!("https://{host}:{port}/"))
            .map_err(|error| format!("the database's host is no host: {error}"))?;
        url.query_pairs_mut()
            .append_pair("Action", "connect")
            .append_pair("DBUser", &login.user);
        let service = self.databases(&login.region).await?;
        let signed = service.presign(url, PASSWORD_LIFETIME).await?;
        // The port is part of what is signed, also where it is the one that an address leaves away.
        let query = signed.query().unwrap_or_default();
        Ok(format!("{host}:{port}/?{query}"))
    }
}

impl Aws for Account {
    fn secret<'a>(&'a self, arn: &'a str) -> BoxFuture<'a, Result<String, SecretError>> {
        async move {
            let client = self.secrets.get_or_init(|| secrets::client(None)).await;
            secrets::value(client, arn).await
        }
        .boxed()
    }

    fn database_password<'a>(&'a self, login: &'a DatabaseLogin) -> BoxFuture<'a, Result<String, String>> {
        self.password(login).boxed()
    }
}
