//! One file a verb.

pub(crate) mod attach;
mod attach_again;
pub(crate) mod audit;
pub(crate) mod backfill;
pub(crate) mod cleanup;
pub(crate) mod clear;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod coverage;
pub(crate) mod demo;
pub(crate) mod detach;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod failed;
pub(crate) mod health;
pub(crate) mod ingest;
pub(crate) mod job;
pub(crate) mod metrics;
pub(crate) mod migrate;
pub(crate) mod projects;
pub(crate) mod provider;
pub(crate) mod purge;
pub(crate) mod recent;
pub(crate) mod reconcile;
pub(crate) mod replay;
pub(crate) mod reset_stuck;
pub(crate) mod rotate_secret;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod sources;
pub(crate) mod spaces;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod stop;
pub(crate) mod stuck;
pub(crate) mod tick;
pub(crate) mod token;
pub(crate) mod uninstall;

use anyhow::Result;
use cronvec_store::StoreError;
use cronvec_store::projects::Project;
use serde::Deserialize;

use crate::Context;
use crate::app::App;
use crate::args::Verb;
use crate::exit::{Ended, usage};
use crate::remote::{Remote, is_refused_with};

/// Runs a verb to its end.
pub(crate) async fn run(verb: Verb, context: &Context) -> Result<Ended> {
    match verb {
        Verb::Demo(args) => demo::run(args, context).await,
        Verb::Migrate(action) => migrate::run(action, context).await,
        Verb::Tick(args) => tick::run(args, context).await,
        Verb::Ingest(args) => ingest::run(args, context).await,
        Verb::Attach(args) => attach::run(args, context).await,
        Verb::Detach(args) => detach::run(args, context).await,
        Verb::Sources(args) => sources::run(args, context).await,
        Verb::Reconcile(args) => reconcile::run(args, context).await,
        Verb::Search(args) => search::run(args, context).await,
        Verb::Status(args) => status::run(args, context).await,
        Verb::Coverage(args) => coverage::run(args, context).await,
        Verb::Backfill(args) => backfill::run(args, context).await,
        Verb::Serve(args) => serve::run(args, context).await,
        Verb::Stats(args) => stats::run(args, context).await,
        Verb::Health(args) => health::run(args, context).await,
        Verb::Metrics(args) => metrics::run(args, context).await,
        Verb::Recent(args) => recent::run(args, context).await,
        Verb::Failed(args) => failed::run(args, context).await,
        Verb::Stuck(args) => stuck::run(args, context).await,
        Verb::Audit(args) => audit::run(args, context).await,
        Verb::Explain(args) => explain::run(args, context).await,
        Verb::Doctor(args) => doctor::run(args, context).await,
        Verb::Replay(args) => replay::run(args, context).await,
        Verb::Purge(args) => purge::run(args, context).await,
        Verb::ResetStuck(scope) => reset_stuck::run(scope, context).await,
        Verb::Stop(named) => stop::stop(named, context).await,
        Verb::Start(named) => stop::start(named, context).await,
        Verb::Clear(scope) => clear::run(scope, context).await,
        Verb::Cleanup(args) => cleanup::run(args, context).await,
        Verb::Spaces(action) => spaces::run(action, context).await,
        Verb::RotateSecret(args) => rotate_secret::run(args, context).await,
        Verb::Job(args) => job::show(args, context).await,
        Verb::Retry(args) => job::retry(args, context).await,
        Verb::Cancel(args) => job::cancel(args, context).await,
        Verb::Projects(action) => projects::run(action, context).await,
        Verb::Provider(action) => provider::run(action, context).await,
        Verb::Token(action) => token::run(action, context).await,
        Verb::Config(action) => config::run(action, context),
        Verb::Uninstall(args) => uninstall::run(args, context).await,
        Verb::Completions(args) => completions::run(args, context),
    }
}

/// The system, with the schema that this binary knows.
async fn ready() -> Result<App> {
    let app = App::open().await?;
    app.check_schema().await?;
    Ok(app)
}

/// What a person can mend by typing it otherwise ends with 2.
pub(crate) fn as_usage(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Invalid(message) => usage(message),
        error => error.into(),
    }
}

/// The project that was named, or the only one there is.
async fn project_or_only(app: &App, named: Option<String>) -> Result<String> {
    if let Some(name) = named {
        return Ok(name);
    }
    let projects = app.projects().await?;
    the_only(projects.into_iter().map(|project| project.name).collect())
}

/// The same at a deployment, of those that the token reaches.
pub(crate) async fn project_or_only_of(remote: &Remote, named: Option<String>) -> Result<String> {
    if let Some(name) = named {
        return Ok(name);
    }
    match names_at(remote).await {
        Ok(names) => the_only(names),
        Err(error) if is_refused_with(&error, 403) => Err(usage(
            "which project? Name it with --project: this token may not list them",
        )),
        Err(error) => Err(error),
    }
}

/// The projects of a deployment that the token reaches.
pub(crate) async fn names_at(remote: &Remote) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Me {
        projects: Option<Vec<String>>,
    }
    #[derive(Deserialize)]
    struct Listed {
        name: String,
    }
    let me: Me = remote.get("api/me", &[]).await?;
    if let Some(reached) = me.projects {
        return Ok(reached);
    }
    let listed: Vec<Listed> = remote.get("api/admin/projects", &[]).await?;
    Ok(listed.into_iter().map(|project| project.name).collect())
}

/// Refuses an option that the HTTP API doesn't have.
fn refuse_option(name: &str, is_given: bool) -> Result<()> {
    if !is_given {
        return Ok(());
    }
    Err(usage(format!(
        "{name} can't be asked of a deployment (--url or CRONVEC_URL is set): leave it out, or run this where DATABASE_URL \
         can be reached, without --url"
    )))
}

fn the_only(names: Vec<String>) -> Result<String> {
    match names.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(usage(
            "there is no project yet: create one with `cronvec projects create NAME`",
        )),
        several => {
            let names = several
                .iter()
                .take(10)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ");
            Err(usage(format!(
                "which project? Name it with --project; there are: {names}"
            )))
        }
    }
}

/// The projects that were named, or all; each of them exists, and isn't being removed.
async fn projects_or_all(app: &App, named: &[String]) -> Result<Vec<Project>> {
    if named.is_empty() {
        let mut all = app.projects().await?;
        all.retain(|project| !project.removing);
        return Ok(all);
    }
    let mut projects = Vec::new();
    for name in named {
        projects.push(app.store().project(name).await?);
    }
    Ok(projects)
}

/// What a verb says that asked and was told no.
fn left_as_it_is(context: &Context) -> Result<Ended> {
    context.output.note("left as it is");
    Ok(Ended::Unhealthy)
}
