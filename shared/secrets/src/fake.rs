//! AWS as tests need it: one secret, a count of who asked, a gate. Refuses to be part of a program: tests of other crates
//! include this file.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Mutex;

use cronvec_secrets::{Aws, DatabaseLogin, SecretError, Secrets};

pub const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:cron-AbCdEf";

/// What every ARN gives, and how often it was asked.
#[derive(Default)]
pub struct Vault {
    value: StdMutex<String>,
    asked: AtomicUsize,
    /// While it is held, nothing is answered.
    pub gate: Mutex<()>,
}

impl Vault {
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn set(&self, value: &str) {
        value.clone_into(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Aws for Vault {
    fn secret<'a>(&'a self, _arn: &'a str) -> BoxFuture<'a, Result<String, SecretError>> {
        async {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let _open = self.gate.lock().await;
            Ok(self.value.lock().unwrap_or_else(PoisonError::into_inner).clone())
        }
        .boxed()
    }

    fn database_password<'a>(&'a self, login: &'a DatabaseLogin) -> BoxFuture<'a, Result<String, String>> {
        async move { Err(format!("{} has no password here", login.user)) }.boxed()
    }
}

pub fn vault(value: &str) -> (Arc<Vault>, Secrets) {
    let vault = Arc::new(Vault::default());
    vault.set(value);
    (Arc::clone(&vault), Secrets::new(vault))
}
