//! docs/MIGRATING.md, followed: the commands that stand in it, run as they stand there.

mod articles;
mod directory;
mod guide;
mod listings;
mod platform;

use std::path::Path;

use cronvec_tests::database::Database;
use cronvec_tests::process::{self, Outcome, Process};
use cronvec_tests::provider::Provider;
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Somebody who follows the guide, with settings of their own.
struct Reader {
    database: Database,
    /// As the superuser.
    sql: Client,
    variables: Vec<(String, String)>,
    /// What the guide calls otherwise.
    names: Vec<(String, String)>,
}

impl Reader {
    /// On an empty database, with vectors of 1536 from this provider.
    async fn with(provider: &Provider) -> Self {
        let database = Database::empty().await;
        let sql = database.client().await;
        sql.batch_execute("CREATE EXTENSION vector").await.unwrap();
        let mut reader = Self {
            sql,
            variables: Vec::new(),
            names: Vec::new(),
            database,
        };
        let url = reader.database.url().to_owned();
        reader.set("DATABASE_URL", &url);
        for (name, value) in [
            ("EMBEDDING_PROVIDER", "openai"),
            ("EMBEDDING_MODEL", "text-embedding-3-small"),
            ("EMBEDDING_DIMENSIONS", "1536"),
            ("OPENAI_API_KEY", "sk-test-of-the-harness"),
        ] {
            reader.set(name, value);
        }
        reader.set("OPENAI_BASE_URL", &provider.url());
        reader
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(there, _)| there != name);
        self.variables.push((name.into(), value.into()));
    }

    fn calls(&mut self, name: &str, otherwise: &str) {
        self.names.push((name.into(), otherwise.into()));
    }

    /// Takes the settings of an `ini` block.
    fn takes_settings(&mut self, block: &str) {
        for line in guide::block(block, "ini").lines() {
            let (name, value) = line.split_once('=').expect("a setting");
            self.set(name, value);
        }
    }

    fn in_own_names(&self, text: &str) -> String {
        self.names
            .iter()
            .fold(text.to_owned(), |text, (name, own)| text.replace(name.as_str(), own))
    }

    /// Runs a block of shell commands; all of them must end well.
    async fn runs(&self, block: &str) -> Outcome {
        let outcome = self.run(&guide::block(block, "sh")).await;
        assert!(outcome.status.success(), "{block}: {outcome:?}");
        outcome
    }

    /// Runs commands until one fails.
    async fn run(&self, commands: &str) -> Outcome {
        self.start(commands).await.outcome().await
    }

    async fn start(&self, commands: &str) -> Process {
        let program = process::program("cronvec").await;
        let folder = program.parent().expect("a folder").to_str().expect("a path");
        let path = format!("{folder}:{}", std::env::var("PATH").expect("a path"));
        let commands = self.in_own_names(commands);
        let mut environment = vec![("PATH", path.as_str())];
        environment.extend(
            self.variables
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        Process::spawn_at(Path::new("/bin/sh"), &["-euc", &commands], &environment)
    }

    /// The objects that a command prints with `--json`.
    async fn lines(&self, command: &str) -> Vec<Value> {
        let outcome = self.run(&format!("cronvec {command} --json")).await;
        assert!(outcome.status.success(), "{command}: {outcome:?}");
        let lines = outcome.stdout.lines();
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn object(&self, command: &str) -> Value {
        self.lines(command).await.remove(0)
    }

    /// Says a block of SQL as the superuser; gives the values of all rows.
    async fn says(&self, block: &str) -> Vec<Vec<Option<String>>> {
        says(&self.sql, &self.in_own_names(&guide::block(block, "sql"))).await
    }

    async fn count(&self, sql: &str) -> i64 {
        says(&self.sql, sql).await[0][0].as_deref().unwrap().parse().unwrap()
    }

    /// What the coverage of a project says: of how many, how many, percent.
    async fn coverage(&self, project: &str) -> (i64, i64, f64) {
        let line = self.object(&format!("coverage --project {project}")).await;
        let number = |name: &str| line[name].as_i64().unwrap();
        (number("total"), number("embedded"), line["percent"].as_f64().unwrap())
    }
}

/// Statement by statement, as `psql` does: some can't stand in a transaction.
async fn says(sql: &Client, statements: &str) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    for statement in guide::statements(statements) {
        let answers = sql.simple_query(&statement).await;
        for answer in answers.unwrap_or_else(|error| panic!("{statement}: {error:?}")) {
            if let SimpleQueryMessage::Row(row) = answer {
                rows.push((0..row.len()).map(|n| row.get(n).map(str::to_owned)).collect());
            }
        }
    }
    rows
}
