//! Who does a backfill's ticks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use cronvec_call::{self as call, CallOptions, Remote};
#[cfg(feature = "aws")]
use cronvec_deploy::Function;
use tokio::sync::watch;

use crate::app::{App, LAST_REPORTS};
use crate::exit::usage;
use crate::shapes::TickReport;

/// What a deployment's own time-out has at most, and its answer's way.
const REMOTE_LIMIT: Duration = Duration::from_secs(120);
/// No function runs longer.
#[cfg(feature = "aws")]
const LAMBDA_LIMIT: Duration = Duration::from_secs(910);

#[derive(Debug)]
pub(super) enum Via {
    Local,
    Remote(Remote),
    #[cfg(feature = "aws")]
    Lambda(Box<Function>),
}

impl Via {
    pub async fn parse(text: &str, app: &App) -> Result<Self> {
        if text == "local" {
            return Ok(Self::Local);
        }
        let secret = match &app.settings().cron_secret {
            Some(source) => Some(app.secrets().resolve(source).await?.expose().to_owned()),
            None => None,
        };
        if let Some(name) = text.strip_prefix("lambda:") {
            return Self::lambda(name, secret).await;
        }
        Ok(Self::Remote(Remote::new(text, secret).map_err(usage)?))
    }

    #[cfg(not(feature = "aws"))]
    async fn lambda(_name: &str, _secret: Option<String>) -> Result<Self> {
        Err(crate::aws::needed("--via lambda:NAME"))
    }

    #[cfg(feature = "aws")]
    async fn lambda(name: &str, secret: Option<String>) -> Result<Self> {
        let set = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter();
        let region = set
            .filter_map(|name| std::env::var(name).ok())
            .find(|region| !region.is_empty());
        let function = Function::new(name, region, secret).await.map_err(usage)?;
        Ok(Self::Lambda(Box::new(function)))
    }

    /// One invocation of vectorization. When `ending` comes true a local one parts from its jobs, a remote one is left
    /// to its own end.
    pub async fn tick(
        &self,
        app: &App,
        options: &CallOptions,
        ending: &mut watch::Receiver<bool>,
    ) -> Result<TickReport> {
        let value = match self {
            Self::Local => {
                // One job each, or one lane's worker would hold the others' jobs, too.
                let mut settings = app.settings().clone();
                settings.queue.vectorize_jobs = 1;
                let worker = vectorization::Worker::new(app.shared_store(), settings, app.secrets().clone());
                let deadline = Instant::now() + app.settings().queue.worker_timeout;
                let pass = worker.run(options.clone(), deadline);
                tokio::pin!(pass);
                let report = tokio::select! {
                    report = &mut pass => report,
                    _ = ending.wait_for(|ending| *ending) => {
                        worker.stop();
                        pass.await
                    }
                };
                // The next tick has another worker.
                worker.report_last(Instant::now() + LAST_REPORTS).await;
                serde_json::to_value(report?)?
            }
            Self::Remote(remote) => {
                let call = remote.call(call::WorkerKind::Vectorization, options, REMOTE_LIMIT);
                tokio::select! {
                    answer = call => answer.map_err(|why| anyhow!("the deployment can't be called: {why}"))?,
                    _ = ending.wait_for(|ending| *ending) => return Ok(TickReport::default()),
                }
            }
            #[cfg(feature = "aws")]
            Self::Lambda(function) => {
                tokio::select! {
                    answer = function.invoke(options, LAMBDA_LIMIT) => {
                        answer.map_err(|why| anyhow!("the function can't be invoked: {why}"))?
                    }
                    _ = ending.wait_for(|ending| *ending) => return Ok(TickReport::default()),
                }
            }
        };
        serde_json::from_value(value).context("a tick's report can't be read")
    }
}
