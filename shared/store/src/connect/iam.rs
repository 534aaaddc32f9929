//! Owns logging in as an IAM user of RDS: a password that AWS's credentials sign anew for each connection. Refuses to send
//! it anywhere in clear.

use std::sync::Arc;

use deadpool_postgres::Connect;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, Error};

use super::ConnectError;
use super::address::Address;
use cronvec_secrets::{Aws, DatabaseLogin};

/// Whom to log in as, and where.
#[derive(Clone)]
pub(super) struct Login {
    aws: Arc<dyn Aws>,
    login: DatabaseLogin,
}

impl Login {
    /// The region is the one that RDS's name says, or `AWS_REGION`.
    pub fn new(address: &Address, region: Option<String>, aws: Option<Arc<dyn Aws>>) -> Result<Self, ConnectError> {
        let wrong = |message: &str| ConnectError::Address {
            message: format!("DATABASE_IAM_AUTH is on, and {message}"),
        };
        let [Host::Tcp(host)] = address.config.get_hosts() else {
            return Err(wrong("the database's address doesn't name one host"));
        };
        let Some(user) = address.config.get_user() else {
            return Err(wrong("the database's address names no user"));
        };
        if address.would_be_read() {
            return Err(wrong(
                "the database's address asks for no TLS: its password would be read",
            ));
        }
        let region = region_of(host).map(str::to_owned).or(region).ok_or_else(|| {
            wrong("neither the host's name says a region (….REGION.rds.amazonaws.com) nor AWS_REGION")
        })?;
        let aws = aws.ok_or_else(|| wrong("this program was built without AWS: build it with the feature `aws`"))?;
        Ok(Self {
            aws,
            login: DatabaseLogin {
                region,
                host: host.clone(),
                port: address.config.get_ports().first().copied().unwrap_or(5432),
                user: user.to_owned(),
            },
        })
    }
}

/// `NAME.ID.REGION.rds.amazonaws.com`
fn region_of(host: &str) -> Option<&str> {
    let (rest, _) = host.split_once(".rds.amazonaws.com")?;
    rest.rsplit_once('.').map(|(_, region)| region)
}

/// Connects as something else does, with the password of the moment.
pub(super) struct Signed<C> {
    pub login: Login,
    pub connect: C,
}

impl<C: Connect> Connect for Signed<C> {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let mut config = config.clone();
        Box::pin(async move {
            match self.login.aws.database_password(&self.login.login).await {
                Ok(token) => {
                    config.password(token);
                }
                // The server refuses an empty one, and says so to us; why there is none stands here. What stands in the
                // address isn't for it.
                Err(error) => {
                    tracing::error!(error, "no password could be signed for the database");
                    config.password("");
                }
            }
            self.connect.connect(&config).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_in_the_name_that_rds_gives() {
        assert_eq!(
            region_of("db.c9akciq32.eu-central-1.rds.amazonaws.com"),
            Some("eu-central-1")
        );
        assert_eq!(
            region_of("proxy.proxy-c9.us-gov-west-1.rds.amazonaws.com.cn"),
            Some("us-gov-west-1")
        );
        assert_eq!(region_of("localhost"), None);
    }
}
