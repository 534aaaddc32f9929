//! The command line's grammar. Each verb's own arguments stand in its file under `verbs/`.

use clap::Parser;

use crate::verbs::Verb;

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
