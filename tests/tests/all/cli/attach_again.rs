//! `attach`: what it costs is said and asked for, and the same command may be said again.

use cronvec_tests::process::{Outcome, Process};
use cronvec_tests::provider::Provider;
use cronvec_tests::system::System;
use serde_json::json;

use super::{Cli, DONE, FAILED, USAGE, objects, whole};

async fn run(cli: &Cli, words: &[&str]) -> Outcome {
    whole(Process::spawn("cronvec", words, &cli.environment()).await).await
}

async fn with_notes() -> (Provider, System, Cli) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    system
        .run_sql(
            "CREATE TABLE public.notes (id int PRIMARY KEY, title text, body text, kept bool NOT NULL DEFAULT true);
             INSERT INTO notes SELECT n, 'note ' || n, repeat('word ', 40), n > 2 FROM generate_series(1, 12) AS n",
        )
        .await;
    let cli = Cli::of(&system, &provider);
    (provider, system, cli)
}

#[tokio::test]
async fn nothing_is_attached_or_spent_before_the_price_is_agreed_to() {
    let (provider, system, cli) = with_notes().await;
    let attach = ["attach", "notes", "--text", "title, body", "--where", "kept"];
    let outcome = run(&cli, &attach).await;
    assert_eq!(outcome.code(), Some(USAGE), "{outcome:?}");
    for said in [
        "10 to embed",
        "tokens   about",
        "cost     about $",
        "embed its 10 rows?",
        "--yes",
    ] {
        assert!(outcome.stderr.contains(said), "{said}: {outcome:?}");
    }
    let told = run(&cli, &[&attach[..], &["--dry-run", "--json"]].concat()).await;
    assert_eq!(told.code(), Some(DONE), "{told:?}");
    let told = &objects(&told)[0];
    assert_eq!((&told["rows"], &told["project"]), (&json!(10), &json!("notes")));
    let tokens = told["tokens"].as_i64().unwrap();
    assert!((300..=1_500).contains(&tokens), "{told}");
    assert!(told["cost"].as_f64().unwrap() > 0.0, "{told}");
    let sql = run(&cli, &[&attach[..], &["--print-sql"]].concat()).await;
    assert_eq!(sql.code(), Some(DONE), "{sql:?}");
    for said in ["_text(", "_event(", "CREATE TRIGGER", "secure_source("] {
        assert!(sql.stdout.contains(said), "{said}: {sql:?}");
    }
    for nothing in [
        "cronvec.sources",
        "cronvec.projects WHERE name = 'notes'",
        "cronvec.pending",
    ] {
        assert_eq!(
            system.count(&format!("SELECT count(*) FROM {nothing}")).await,
            0,
            "{nothing}"
        );
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]'")
            .await,
        0
    );

    let attached = run(&cli, &[&attach[..], &["--no-embed"]].concat()).await;
    assert_eq!(attached.code(), Some(DONE), "{attached:?}");
    assert!(attached.stderr.contains("cronvec start notes"), "{attached:?}");
    cli.object("tick vectorization").await;
    system.run_sql("UPDATE notes SET title = 'changed' WHERE id = 3").await;
    cli.object("tick vectorization").await;
    assert_eq!(provider.inputs(), 0);
    assert_eq!(cli.object("coverage --project notes").await["pending"], 10);
    cli.object("start notes").await;
    assert_eq!(cli.object("tick vectorization").await["records"], 10);
}

#[tokio::test]
async fn the_same_command_again_is_done_and_another_alters_in_place() {
    let (provider, system, cli) = with_notes().await;
    let attach = ["attach", "notes", "--text", "title", "--yes"];
    let first = run(&cli, &attach).await;
    assert_eq!(first.code(), Some(DONE), "{first:?}");
    cli.object("tick vectorization").await;
    let sent = provider.inputs();
    for _ in 0..2 {
        let again = run(&cli, &attach[..4]).await;
        assert_eq!(again.code(), Some(DONE), "{again:?}");
        assert!(again.stderr.contains("nothing is changed"), "{again:?}");
    }
    // Moved: the table is known, whatever the project is called.
    system.run_sql("ALTER TABLE notes RENAME TO remarks").await;
    let moved = run(
        &cli,
        &["attach", "remarks", "--text", "title", "--where", "kept", "--yes"],
    )
    .await;
    assert_eq!(moved.code(), Some(DONE), "{moved:?}");
    for said in ["the table was public.notes", "other --where"] {
        assert!(moved.stderr.contains(said), "{said}: {moved:?}");
    }
    cli.object("tick vectorization").await;
    assert_eq!(provider.inputs(), sent);
    assert_eq!(cli.object("coverage --project notes").await["embedded"], 10);
    // What would send much is asked for.
    let outcome = run(&cli, &["attach", "remarks", "--text", "title, body", "--where", "kept"]).await;
    assert_eq!(outcome.code(), Some(USAGE), "{outcome:?}");
    assert!(outcome.stderr.contains("embed its 10 rows?"), "{outcome:?}");
    // The doctor names the command.
    system
        .run_sql("DO $$ BEGIN EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc WHERE proname ~ '^source_[0-9]+_page$'); END $$")
        .await;
    let sick = cli.run("doctor --offline").await;
    assert_eq!(sick.code(), Some(FAILED), "{sick:?}");
    let mend = "cronvec attach public.remarks --project notes --id id --text title --where kept";
    assert!(sick.stdout.contains(mend), "{sick:?}");
    let mended = run(
        &cli,
        &[
            "attach",
            "public.remarks",
            "--project",
            "notes",
            "--id",
            "id",
            "--text",
            "title",
            "--where",
            "kept",
        ],
    )
    .await;
    assert_eq!(mended.code(), Some(DONE), "{mended:?}");
    let well = cli.run("doctor --offline").await;
    assert!(!well.stdout.contains("source_"), "{well:?}");
    let made = "SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]+_page$'";
    assert_eq!(system.count(made).await, 1);
}
