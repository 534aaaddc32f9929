//! `attach`, `sources`, `reconcile`, `detach`.

use cronvec_tests::process::Process;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
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
        let mut words = vec!["attach", "Recipes", "--project", "kitchen", "--yes"];
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

#[tokio::test]
async fn records_that_do_not_come_from_the_table_go_by_a_persons_word_alone() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    system
        .run_sql("CREATE TABLE public.pages (id int PRIMARY KEY, body text); INSERT INTO pages SELECT n, 'page ' || n FROM generate_series(1, 30) AS n")
        .await;
    for id in ["1", "note-1", "note-2"] {
        system.put(PROJECT, id, "a note").await;
    }
    cli.refuses(
        "attach pages --text body --project articles",
        USAGE,
        &["3 records and 0 unfinished INGEST_DATA jobs", "--take-over"],
    )
    .await;
    cli.refuses(
        "attach pages --text body --project articles --take-over",
        USAGE,
        &["1 have a row and get its text, 2 have none and are deleted", "--yes"],
    )
    .await;
    assert_eq!(cli.lines("sources").await.len(), 0, "it was only asked");
    let attached = cli
        .object("attach pages --text body --project articles --take-over --yes")
        .await;
    assert_eq!((&attached["rows"], &attached["deleted"]), (&json!(30), &json!(2)));

    // Mixed, as an older version let it become.
    system
        .run_sql(
            "INSERT INTO cronvec.records (project_id, id, content, content_hash, bucket, accepted)
             SELECT id, 'note-3', 'a note', cronvec.content_hash('a note'), 1, nextval('cronvec.acceptance') FROM cronvec.projects",
        )
        .await;
    cli.object("reconcile articles --yes").await;
    let explained = cli.object("explain note-3 --project articles").await;
    assert!(
        explained["origin"]
            .as_str()
            .unwrap()
            .contains("doesn't come from public.pages"),
        "{explained}"
    );
    assert_eq!(cli.object("explain 1 --project articles").await.get("origin"), None);
    let doctor = cli.run("doctor --offline").await;
    assert!(
        doctor
            .stdout
            .contains("1 records of project articles don't come from public.pages"),
        "{doctor:?}"
    );
    cli.refuses(
        "reconcile articles --take-over",
        USAGE,
        &["0 have a row and get its text, 1 have none and are deleted", "--yes"],
    )
    .await;
    let compared = cli.object("reconcile articles --take-over --yes").await;
    assert_eq!((&compared["deleted"], &compared["rows"]), (&json!(1), &json!(30)));
}

#[tokio::test]
async fn a_row_that_refuses_its_vector_is_explained_and_tried_again_by_a_comparison_by_hand() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    system
        .run_sql(
            "CREATE TABLE public.ads (id int PRIMARY KEY, title text, price int, embedding vector(16));
             INSERT INTO ads SELECT n, 'ad ' || n, n - 3 FROM generate_series(1, 9) AS n;
             ALTER TABLE ads ADD CONSTRAINT ads_price CHECK (price > -2) NOT VALID",
        )
        .await;
    cli.object("attach ads --text title --embedding-column embedding --yes")
        .await;
    let tick = cli.object("tick vectorization").await;
    assert_eq!(
        (&tick["records"], &tick["quarantined"]),
        (&json!(9), &json!(1)),
        "{tick}"
    );
    let explained = cli.object("explain 1 --project ads").await;
    assert_eq!(explained["state"], "column_refused");
    let (because, mend) = (
        explained["because"].as_str().unwrap(),
        explained["mend"].as_str().unwrap(),
    );
    for words in [
        "embedded 20",
        "public.ads refuses",
        "violates check constraint \"ads_price\"",
    ] {
        assert!(because.contains(words), "{words}: {explained}");
    }
    assert!(mend.contains("cronvec replay"), "{explained}");
    assert_eq!(cli.object("explain 2 --project ads").await["state"], "embedded");
    let failed = cli.object("failed --details").await;
    assert_eq!(
        (&failed["reason"], &failed["example"]),
        (&json!("column_refused"), &json!("1")),
        "{failed}"
    );
    assert_eq!(cli.lines("search --project ads ad").await.len(), 9);

    system.run_sql("ALTER TABLE ads DROP CONSTRAINT ads_price").await;
    cli.object("reconcile ads").await;
    assert_eq!(system.count("SELECT count(embedding) FROM ads").await, 9);
    assert_eq!(cli.object("explain 1 --project ads").await["state"], "embedded");
    assert_eq!(cli.object("coverage --project ads").await["quarantined"], 0);
}
