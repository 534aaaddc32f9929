//! The command line's grammar. Each verb's own arguments stand in its file under `verbs/`.

use clap::{Parser, Subcommand};

use crate::filters::Scope;
use crate::verbs::{
    attach, audit, backfill, cleanup, completions, config, coverage, demo, detach, doctor, explain, failed, health,
    ingest, job, metrics, migrate, projects, provider, purge, recent, reconcile, replay, rotate_secret, search, serve,
    sources, spaces, stats, status, stop, stuck, tick, token, uninstall,
};

/// Embeds records in PostgreSQL, in slices that fit a cron-driven function.
#[derive(Debug, Parser)]
#[command(name = "cronvec", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed or unhealthy, 2 wrong usage or settings, 130 interrupted.")]
pub(crate) struct Cli {
    /// One JSON object on standard output, or one a line; messages go to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Don't ask before what can't be taken back
    #[arg(long, short = 'y', global = true, alias = "confirm")]
    pub yes: bool,
    /// A deployment's address: ask its HTTP API, for databases in a private network
    #[arg(
        id = "deployment",
        long = "url",
        global = true,
        env = "CRONVEC_URL",
        value_name = "URL"
    )]
    pub url: Option<String>,
    /// The API token for --url. Other people on this machine see a command line: prefer the variable
    #[arg(
        id = "api_token",
        long = "token",
        global = true,
        env = "CRONVEC_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<String>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run all of it as one long-lived process, for containers and service managers
    Serve(serve::Args),
    /// Try it: a database, sample records, the real workers, some searches
    Demo(demo::Args),
    /// Bring the schema up, list its migrations, check it
    #[command(subcommand)]
    Migrate(migrate::Action),
    /// One invocation of a worker, here
    Tick(tick::Args),
    /// Hand in the records of a file: NDJSON, JSON or CSV
    Ingest(ingest::Args),
    /// Embed a table that is there already, and keep up with it
    Attach(attach::Args),
    /// Let an attached table go, as it was found
    Detach(detach::Args),
    /// The attached tables
    Sources(sources::Args),
    /// Compare attached tables with their records, and bring these in line
    Reconcile(reconcile::Args),
    /// The records nearest to a text
    Search(search::Args),
    /// The queue, its recent jobs and the workers
    Status(status::Args),
    /// How much of each project is embedded
    Coverage(coverage::Args),
    /// Embed all that isn't, and see it through
    Backfill(backfill::Args),
    /// The queue's numbers by type, and hour by hour
    Stats(stats::Args),
    /// Whether all is well; for a monitor to call
    Health(health::Args),
    /// Throughput, rates and percentiles
    Metrics(metrics::Args),
    /// The latest jobs
    Recent(recent::Args),
    /// Failed jobs and records that stand aside
    Failed(failed::Args),
    /// Jobs that don't get on
    Stuck(stuck::Args),
    /// One job in detail
    Job(job::Show),
    /// Who did what to which ids
    Audit(audit::Args),
    /// What keeps a record from being embedded, or when it was
    Explain(explain::Args),
    /// What is wrong with an installation, and the mend
    Doctor(doctor::Args),
    /// Run failed or cancelled jobs again
    Retry(job::Retry),
    /// Take jobs out of the queue, also while they run
    Cancel(job::Cancel),
    /// Let records that stand aside try again
    Replay(replay::Args),
    /// Forget records that stand aside
    Purge(purge::Args),
    /// Put jobs whose worker is gone back into the queue
    ResetStuck(Scope),
    /// Keep workers from projects' jobs; writes go on
    Stop(stop::Named),
    /// Let workers at projects' jobs again
    Start(stop::Named),
    /// Empty the queue: cancel what waits, withdraw what is pending
    Clear(Scope),
    /// Delete finished jobs that are older than so many days
    Cleanup(cleanup::Args),
    /// Give the workers and their schedules on AWS a new secret
    RotateSecret(rotate_secret::Args),
    /// List the ways to embed, and remove those that no project uses
    #[command(subcommand)]
    Spaces(spaces::Action),
    /// List, create, pause, resume and remove projects
    #[command(subcommand)]
    Projects(projects::Action),
    /// Ask the providers for a short text, and let work go on that answers
    #[command(subcommand)]
    Provider(provider::Action),
    /// Who may call the HTTP API, and as what
    #[command(subcommand)]
    Token(token::Action),
    /// What the settings say, with every problem in them
    #[command(subcommand)]
    Config(config::Action),
    /// Take the schema and everything in it away
    Uninstall(uninstall::Args),
    /// A completion script for a shell
    Completions(completions::Args),
}

impl Verb {
    /// It runs until a signal, and that is a good end.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Serve(_))
    }

    /// It neither reads a database nor acts on one, so that it doesn't matter where that is.
    pub fn is_about_no_database(&self) -> bool {
        matches!(self, Self::Completions(_) | Self::Config(_))
    }

    /// Why it can't be asked of a deployment, where it can't.
    pub fn why_not_remote(&self) -> Option<&'static str> {
        const RUN_THERE: &str =
            "it works on the database itself: run it where DATABASE_URL can be reached, without --url";
        match self {
            Self::Status(_)
            | Self::Stats(_)
            | Self::Health(_)
            | Self::Coverage(_)
            | Self::Recent(_)
            | Self::Failed(_)
            | Self::Job(_)
            | Self::Audit(_)
            | Self::Retry(_)
            | Self::Cancel(_)
            | Self::Replay(_)
            | Self::Purge(_)
            | Self::Stop(_)
            | Self::Start(_)
            | Self::Search(_)
            | Self::Ingest(_)
            | Self::Backfill(_)
            | Self::Projects(_)
            | Self::Token(_) => None,
            Self::Serve(_) | Self::Demo(_) => Some("it is a deployment itself: leave --url out"),
            _ => Some(RUN_THERE),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_is_documented() {
        let documentation = include_str!("../../docs/CLI.md");
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            assert!(
                [format!("`{name} "), format!("`{name}`"), format!("`cronvec {name}`")]
                    .iter()
                    .any(|form| documentation.contains(form)),
                "{name} stands in docs/CLI.md"
            );
        }
    }

    #[test]
    fn json_may_stand_before_or_after_the_verb() {
        for line in [["cronvec", "--json", "status"], ["cronvec", "status", "--json"]] {
            assert!(Cli::try_parse_from(line).is_ok_and(|cli| cli.json));
        }
    }
}
