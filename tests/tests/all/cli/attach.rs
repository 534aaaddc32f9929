//! `attach`, `sources`, `reconcile`, `detach`.

use cronvec_tests::process::Process;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::System;
use serde_json::json;

use super::{Cli, DONE, FAILED, USAGE, whole};

/// A line whose words may have spaces in them.
async fn run(cli: &Cli, words: &[&str]) -> cronvec_tests::process::Outcome {
    whole(Process::spawn("cronvec", words, &cli.environment()).await).await
}

#[tokio::test]
async fn a_table_is_attached_embedded_compared_and_let_go() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    system
        .run_sql(
            "CREATE TABLE public.\"Recipes\" (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), title text, steps text, served bool);
             INSERT INTO \"Recipes\" (title, steps, served) SELECT 'recipe ' || n, 'step ' || n, n > 5 FROM generate_series(1, 20) AS n",
        )
        .await;
    assert_eq!(cli.lines("sources").await, Vec::<serde_json::Value>::new());
    let attach = |more: &'static [&'static str]| {
        let mut words = vec!["attach", "Recipes", "--project", "kitchen"];
        words.extend(more);
        words
    };
    for (words, said) in [
        (attach(&["--text", "titel"]), "has no column titel"),
        (
            attach(&["--text", "title); DROP TABLE \"Recipes\"; SELECT (1"]),
            "--text must be",
        ),
        (attach(&["--text", ""]), "--text is empty"),
        (
            attach(&["--text", "title", "--embedding-column", "v"]),
            "ADD COLUMN v vector(16)",
        ),
        (
            attach(&["--text", "title", "--on-change", "null"]),
            "--embedding-column",
        ),
    ] {
        let outcome = run(&cli, &words).await;
        assert_eq!(outcome.code(), Some(USAGE), "{outcome:?}");
        assert!(outcome.stderr.contains(said), "{outcome:?}");
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.projects WHERE name = 'kitchen'")
            .await,
        0,
        "no project is left of what wasn't attached"
    );

    let outcome = run(
        &cli,
        &attach(&["--text", "title, steps", "--where", "served", "--metadata", "title"]),
    )
    .await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    assert!(outcome.stdout.contains("15 rows to embed"), "{outcome:?}");
    assert_eq!(cli.object("tick vectorization").await["records"], 15);
    let coverage = cli.object("coverage --project kitchen").await;
    assert_eq!(
        coverage,
        json!({"project": "kitchen", "total": 15, "embedded": 15, "pending": 0, "quarantined": 0, "percent": 100.0})
    );
    let source = cli.object("sources").await;
    assert_eq!(
        (&source["table"], &source["key"], &source["where"], &source["phase"]),
        (
            &json!("public.\"Recipes\""),
            &json!(["id"]),
            &json!("served"),
            &json!("idle")
        )
    );

    system
        .run_sql(
            "ALTER TABLE \"Recipes\" DISABLE TRIGGER USER; DELETE FROM \"Recipes\" WHERE title IN ('recipe 6', 'recipe 7');
             UPDATE \"Recipes\" SET steps = 'missed' WHERE title = 'recipe 8'; ALTER TABLE \"Recipes\" ENABLE TRIGGER USER",
        )
        .await;
    let compared = cli.run("reconcile kitchen --json").await;
    assert_eq!(compared.code(), Some(FAILED), "{compared:?}");
    assert!(compared.stderr.contains("2 records of 15 are gone"), "{compared:?}");
    let compared = cli.object("reconcile --allow-deletes").await;
    assert_eq!((&compared["deleted"], &compared["written"]), (&json!(2), &json!(2)));
    assert_eq!(cli.object("coverage --project kitchen").await["total"], 13);

    cli.refuses("detach nothing", USAGE, &["no table nothing is attached"])
        .await;
    cli.refuses(
        "detach Recipes",
        USAGE,
        &["Detach public.\"Recipes\" from project kitchen?", "--yes"],
    )
    .await;
    assert_eq!(cli.lines("sources").await.len(), 1, "it was only asked");
    assert_eq!(cli.object("detach Recipes --yes").await["state"], "detached");
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_trigger WHERE tgrelid = '\"Recipes\"'::regclass")
            .await,
        0
    );
    let acts: Vec<_> = cli.lines("audit --category source").await;
    let said: Vec<&str> = acts.iter().map(|act| act["message"].as_str().unwrap()).collect();
    assert_eq!(
        said,
        [
            "table detached from project kitchen",
            "records of project kitchen compared with their table, any number may go: 2 written, 2 of them deleted",
            "records of project kitchen compared with their table: 1 written, 0 of them deleted",
            "table attached to project kitchen",
        ]
    );
    for act in &acts {
        assert_eq!(act["metadata"]["ids"], json!(["public.\"Recipes\""]), "{act}");
        assert!(act["metadata"]["who"].as_str().unwrap().contains('@'), "{act}");
    }
}
