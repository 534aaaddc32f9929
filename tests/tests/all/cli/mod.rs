//! The operator's command line: the real binary, its outputs and its exit codes.

mod adoption;
mod attach;
mod attach_again;
mod backfill;
mod backfill_ends;
mod called;
mod demos;
mod doctor;
mod every_verb;
mod figures;
mod ingest;
mod ingest_rejects;
mod metrics;
mod operate;
mod out_of_step;
mod reading_verbs;
mod remote;
mod removal;
mod schema;
mod serve;
mod signals;
mod tls;
mod verbs;

use cronvec_tests::database::server;
use cronvec_tests::process::{Outcome, Process};
use cronvec_tests::provider::Provider;
use cronvec_tests::system::System;
use serde_json::Value;

const DONE: i32 = 0;

const FAILED: i32 = 1;

const USAGE: i32 = 2;

const INTERRUPTED: i32 = 130;

/// The command line with an environment of its own.
struct Cli {
    variables: Vec<(String, String)>,
}

impl Cli {
    fn at(url: &str) -> Self {
        Self { variables: Vec::new() }.with("DATABASE_URL", url)
    }

    /// On the database of a system that embeds with this provider.
    fn of(system: &System, provider: &Provider) -> Self {
        Self::at(system.database.url())
            .with("EMBEDDING_PROVIDER", "openai")
            .with("OPENAI_BASE_URL", &provider.url())
            .with("EMBEDDING_DIMENSIONS", "16")
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        let pairs = self.variables.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    async fn start(&self, line: &str) -> Process {
        Process::spawn("cronvec", &words(line), &self.environment()).await
    }

    /// Runs a line, cut at its spaces, with nothing on standard input and no terminal.
    async fn run(&self, line: &str) -> Outcome {
        whole(self.start(line).await).await
    }

    async fn run_reading(&self, line: &str, input: &str) -> Outcome {
        whole(Process::spawn_reading("cronvec", &words(line), &self.environment(), input).await).await
    }

    /// What it answers with `--json` when all is well: a line an object, and nothing else.
    async fn lines(&self, line: &str) -> Vec<Value> {
        let outcome = self.run(&format!("{line} --json")).await;
        assert_eq!(outcome.code(), Some(DONE), "{line}: {outcome:?}");
        objects(&outcome)
    }

    /// The same where one object is all.
    async fn object(&self, line: &str) -> Value {
        let mut lines = self.lines(line).await;
        assert_eq!(lines.len(), 1, "{line}: {lines:?}");
        lines.remove(0)
    }

    /// Says these words on standard error, nothing on standard output, and ends with this code.
    async fn refuses(&self, line: &str, code: i32, said: &[&str]) -> Outcome {
        let outcome = self.run(line).await;
        assert_eq!(outcome.code(), Some(code), "{line}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{line}");
        for words in said {
            assert!(outcome.stderr.contains(words), "{line} says {}", outcome.stderr);
        }
        outcome
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

/// Its end; the database's password is in nothing that it ever said.
async fn whole(mut process: Process) -> Outcome {
    let outcome = process.outcome().await;
    let (_, password) = server().await.credentials();
    assert!(!format!("{outcome:?}").contains(password), "{outcome:?}");
    outcome
}

fn objects(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(value.is_object(), "{line}");
            value
        })
        .collect()
}
