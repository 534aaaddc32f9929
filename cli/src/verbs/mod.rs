//! One file a verb.

pub(crate) mod attach;
mod attach_again;
mod attach_parts;
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
mod job_table;
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
use crate::exit::{Ended, usage};
use crate::filters::Scope;
use crate::remote::{Remote, is_refused_with};

/// The verbs and what runs each: one line a verb, under the line that `--help` says of it.
macro_rules! verbs {
    ($($(#[$help:meta])* $verb:ident($args:ty) => $run:path,)+) => {
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Verb {
            $($(#[$help])* $verb($args),)+
        }

        /// Runs a verb to its end.
        pub(crate) async fn run(verb: Verb, context: &Context) -> Result<Ended> {
            match verb {
                $(Verb::$verb(args) => $run(args, context).await,)+
            }
        }
    };
}

verbs! {
    /// Run all of it as one long-lived process, for containers and service managers
    Serve(serve::Args) => serve::run,
    /// Try it: a database, sample records, the real workers, some searches
    Demo(demo::Args) => demo::run,
    /// Bring the schema up, list its migrations, check it
    #[command(subcommand)]
    Migrate(migrate::Action) => migrate::run,
    /// One invocation of a worker, here
    Tick(tick::Args) => tick::run,
    /// Hand in the records of a file: NDJSON, JSON or CSV
    Ingest(ingest::Args) => ingest::run,
    /// Embed a table that is there already, and keep up with it
    Attach(attach::Args) => attach::run,
    /// Let an attached table go, as it was found
    Detach(detach::Args) => detach::run,
    /// The attached tables
    Sources(sources::Args) => sources::run,
    /// Compare attached tables with their records, and bring these in line
    Reconcile(reconcile::Args) => reconcile::run,
    /// The records nearest to a text
    Search(search::Args) => search::run,
    /// The queue, its recent jobs and the workers
    Status(status::Args) => status::run,
    /// How much of each project is embedded
    Coverage(coverage::Args) => coverage::run,
    /// Embed all that isn't, and see it through
    Backfill(backfill::Args) => backfill::run,
    /// The queue's numbers by type, and hour by hour
    Stats(stats::Args) => stats::run,
    /// Whether all is well; for a monitor to call
    Health(health::Args) => health::run,
    /// Throughput, rates and percentiles
    Metrics(metrics::Args) => metrics::run,
    /// The latest jobs
    Recent(recent::Args) => recent::run,
    /// Failed jobs and records that stand aside
    Failed(failed::Args) => failed::run,
    /// Jobs that don't get on
    Stuck(stuck::Args) => stuck::run,
    /// One job in detail
    Job(job::Show) => job::show,
    /// Who did what to which ids
    Audit(audit::Args) => audit::run,
    /// What keeps a record from being embedded, or when it was
    Explain(explain::Args) => explain::run,
    /// What is wrong with an installation, and the mend
    Doctor(doctor::Args) => doctor::run,
    /// Run failed or cancelled jobs again
    Retry(job::Retry) => job::retry,
    /// Take jobs out of the queue, also while they run
    Cancel(job::Cancel) => job::cancel,
    /// Let records that stand aside try again
    Replay(replay::Args) => replay::run,
    /// Forget records that stand aside
    Purge(purge::Args) => purge::run,
    /// Put jobs whose worker is gone back into the queue
    ResetStuck(Scope) => reset_stuck::run,
    /// Keep workers from projects' jobs; writes go on
    Stop(stop::Named) => stop::stop,
    /// Let workers at projects' jobs again
    Start(stop::Named) => stop::start,
    /// Empty the queue: cancel what waits, withdraw what is pending
    Clear(Scope) => clear::run,
    /// Delete finished jobs that are older than so many days
    Cleanup(cleanup::Args) => cleanup::run,
    /// Give the workers and their schedules on AWS a new secret
    RotateSecret(rotate_secret::Args) => rotate_secret::run,
    /// List the ways to embed, and remove those that no project uses
    #[command(subcommand)]
    Spaces(spaces::Action) => spaces::run,
    /// List, create, pause, resume and remove projects
    #[command(subcommand)]
    Projects(projects::Action) => projects::run,
    /// Ask the providers for a short text, and let work go on that answers
    #[command(subcommand)]
    Provider(provider::Action) => provider::run,
    /// Who may call the HTTP API, and as what
    #[command(subcommand)]
    Token(token::Action) => token::run,
    /// What the settings say, with every problem in them
    #[command(subcommand)]
    Config(config::Action) => config::run,
    /// Take the schema and everything in it away
    Uninstall(uninstall::Args) => uninstall::run,
    /// A completion script for a shell
    Completions(completions::Args) => completions::run,
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
