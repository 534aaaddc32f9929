//! The command line's grammar. Each verb's own arguments stand in its file under `verbs/`.

use clap::{Parser, Subcommand};

use crate::verbs::{
    attach, completions, config, coverage, demo, detach, ingest, job, migrate, projects, provider, reconcile, search,
    sources, status, tick, uninstall,
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
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
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
    /// One job in detail
    Job(job::Show),
    /// Run a failed or cancelled job again
    Retry(job::Retry),
    /// Take a job out of the queue, also while it runs
    Cancel(job::Cancel),
    /// List, create, pause and resume projects
    #[command(subcommand)]
    Projects(projects::Action),
    /// Ask the providers for a short text, and let work go on that answers
    #[command(subcommand)]
    Provider(provider::Action),
    /// What the settings say, with every problem in them
    #[command(subcommand)]
    Config(config::Action),
    /// Take the schema and everything in it away
    Uninstall(uninstall::Args),
    /// A completion script for a shell
    Completions(completions::Args),
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
    fn json_may_stand_before_or_after_the_verb() {
        for line in [["cronvec", "--json", "status"], ["cronvec", "status", "--json"]] {
            assert!(Cli::try_parse_from(line).is_ok_and(|cli| cli.json));
        }
    }
}
