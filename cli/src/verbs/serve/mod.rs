//! `serve`: schedule, workers and HTTP in one process.

mod called;
mod http;
mod prometheus;
mod schedule;
mod totals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin::Pace;
use anyhow::{Context as _, Result};
use cronvec_config::{AppEnv, Settings};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::Context;
use crate::app::App;
use crate::exit::{Ended, usage};
use called::Called;
use schedule::Workers;

/// After a signal workers part from their jobs within two seconds; requests that still run then are left.
const REQUESTS_END: Duration = Duration::from_secs(8);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where HTTP is served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Only the schedule and its workers
    #[arg(long, conflicts_with = "listen")]
    no_http: bool,
    /// Only HTTP; somebody else calls the workers
    #[arg(long, conflicts_with = "no_http")]
    no_schedule: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<Ended> {
    let settings = Settings::from_env_as(Some(AppEnv::Production)).map_err(|problems| usage(problems.to_string()))?;
    let mut problems = Vec::new();
    if settings.app_env == AppEnv::Production && settings.cron_secret.is_none() {
        problems.push(
            "CRON_SECRET is not set; in production it is required: set it, or CRON_SECRET_ARN, to a long random value"
                .to_owned(),
        );
    }
    if !args.no_http {
        problems.extend(settings.require_web().err().map(|problems| problems.to_string()));
    }
    if !problems.is_empty() {
        return Err(usage(problems.join("\n")));
    }
    // Two for each pass that may be on, as an instance has, and two for what is looked up beside them.
    let concurrent = settings.queue.concurrent_workers;
    let scheduled = if args.no_schedule { 0 } else { concurrent + 2 };
    let called = if args.no_http { 0 } else { called::places(concurrent) };
    let connections = 2 * (scheduled + called) + 2;
    let app = App::open_with(settings, connections).await?;
    app.check_schema().await?;
    let workers = Arc::new(Workers::new(&app));
    let called = Arc::new(Called::new(Arc::clone(&workers), concurrent));
    let mut signal = context.interrupt.watch();
    let stopping = watch::Sender::new(false);

    let pace = match args.no_schedule {
        true => Pace::Schedule,
        false => Pace::Process {
            workers: app.settings().queue.worker_interval,
            cleanup: app.settings().retention.interval,
        },
    };
    let mut tasks = tokio::task::JoinSet::new();
    if !args.no_http {
        let listener = TcpListener::bind(args.listen)
            .await
            .with_context(|| format!("can't listen at {}", args.listen))?;
        let address = listener.local_addr().context("a listener without an address")?;
        let router = http::router(&app, Arc::clone(&workers), Arc::clone(&called), pace);
        tasks.spawn(http::serve(listener, router, stopping.subscribe()));
        context.output.show(&json!({"listening": address.to_string()}), || {
            format!("listening at http://{address}")
        })?;
    }
    if !args.no_schedule {
        schedule::start(&mut tasks, &app, &workers, &stopping);
    }
    tracing::info!(
        workers = app.settings().queue.concurrent_workers,
        interval.ms = app.settings().queue.worker_interval.as_millis(),
        "serving"
    );
    let outcome = tokio::select! {
        _ = signal.wait_for(|raised| *raised) => Ok(()),
        // None of them ends by itself but by a failure.
        Some(ended) = tasks.join_next() => ended.context("a part of the service broke off").and_then(|ended| ended),
    };
    tracing::info!("ending: workers part from their jobs");
    stopping.send_replace(true);
    called.stop();
    workers.stop();
    let all = async {
        while tasks.join_next().await.is_some() {}
        called.ended().await;
    };
    if tokio::time::timeout(REQUESTS_END, all).await.is_err() {
        tracing::warn!("something was still under way and is left");
    }
    outcome.map(|()| Ended::Well)
}
