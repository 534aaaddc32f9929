//! `migrate`, `uninstall`, and databases that can't be used.

use cronvec_tests::database::{Database, server};
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{Cli, DONE, FAILED, USAGE, objects};

/// So many there are.
fn migrations() -> usize {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    std::fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_told_with_the_way_out() {
    Cli { variables: Vec::new() }
        .refuses("status", USAGE, &["DATABASE_URL is not set", "DATABASE_SECRET_ARN"])
        .await;
    for garbage in ["localhost", "mysql://a:hunter2@b/c", "postgres://a:hunter2@host:port/c"] {
        let outcome = Cli::at(garbage).refuses("status", USAGE, &["error: "]).await;
        assert!(!outcome.stderr.contains("hunter2"), "{outcome:?}");
    }
    // A port of the system's own that no service has.
    Cli::at("postgres://a:hunter2@127.0.0.1:1/c")
        .refuses(
            "status",
            FAILED,
            &["nothing listens at 127.0.0.1:1/c", "start PostgreSQL"],
        )
        .await;
    Cli::at("postgres://a:hunter2@no-such-host.invalid/c")
        .refuses("coverage", FAILED, &["no-such-host.invalid", "isn't known"])
        .await;
    let server = server().await;
    let (_, password) = server.credentials();
    Cli::at(&server.url("postgres").replace(password, "wrong"))
        .refuses(
            "migrate up",
            FAILED,
            &["refuses the log-in", "correct user and password"],
        )
        .await;
    Cli::at(&server.url("no_such_database"))
        .refuses("migrate up", FAILED, &["there is no such database", "create it"])
        .await;
}

#[tokio::test]
async fn migrate_brings_an_empty_database_up_and_sees_what_was_changed() {
    let database = Database::empty().await;
    let cli = Cli::at(database.url());
    for line in [
        "status",
        "coverage",
        "tick vectorization",
        "projects list",
        "search x",
        "job 1",
    ] {
        cli.refuses(line, FAILED, &["no schema 'cronvec' yet", "cronvec migrate up"])
            .await;
    }
    let status = cli.run("migrate status").await;
    assert_eq!(status.code(), Some(FAILED));
    assert!(
        status.stdout.contains("missing") && status.stderr.contains("cronvec migrate up"),
        "{status:?}"
    );
    let verify = cli.run("--json migrate verify").await;
    assert_eq!(
        (verify.code(), &objects(&verify)[0]["ok"]),
        (Some(FAILED), &json!(false))
    );

    let applied = cli.lines("migrate up").await;
    assert_eq!(applied.len(), migrations());
    assert_eq!(applied[0], json!({"version": 1, "name": "queue", "applied": true}));
    assert_eq!(cli.lines("migrate up").await.len(), 0, "there is nothing left to do");
    assert!(cli.run("migrate up").await.stdout.contains("up to date"));
    let all = cli.lines("migrate status").await;
    assert!(
        all.len() == migrations() && all.iter().all(|migration| migration["applied"] == true),
        "{all:?}"
    );
    assert_eq!(cli.object("migrate verify").await, json!({"ok": true, "fault": null}));
    assert_eq!(cli.run("status").await.code(), Some(DONE));

    let client = database.client().await;
    client
        .batch_execute("UPDATE cronvec.migrations SET checksum = 'x' WHERE version = 1")
        .await
        .unwrap();
    let verify = cli.run("migrate verify").await;
    assert_eq!(verify.code(), Some(FAILED));
    assert!(verify.stdout.contains("changed by hand"), "{verify:?}");
    for (version, said) in [(999, "use a newer cronvec"), (-1, "run: cronvec migrate up")] {
        let set =
            format!("DELETE FROM cronvec.migrations; INSERT INTO cronvec.migrations VALUES ({version}, 'x', 'x')");
        client.batch_execute(&set).await.unwrap();
        cli.refuses("status", FAILED, &[said]).await;
    }
}

#[tokio::test]
async fn two_migrations_at_once_are_one() {
    let database = Database::empty().await;
    let cli = Cli::at(database.url());
    let (one, two) = tokio::join!(cli.lines("migrate up"), cli.lines("migrate up"));
    assert_eq!(one.len() + two.len(), migrations(), "each was applied once");
    assert_eq!(cli.object("migrate verify").await["ok"], true);
}

#[tokio::test]
async fn uninstall_takes_everything_away_but_not_without_being_sure() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "text").await;
    let cli = Cli::at(system.database.url());
    for line in ["uninstall", "uninstall --json"] {
        cli.refuses(line, USAGE, &["can't be taken back", "--yes"]).await;
    }
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 1);
    assert_eq!(cli.object("uninstall --yes").await, json!({"uninstalled": true}));
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cronvec'";
    assert_eq!(system.count(schemas).await, 0);
    cli.refuses("status", FAILED, &["cronvec migrate up"]).await;
    assert_eq!(
        cli.lines("migrate up").await.len(),
        migrations(),
        "it can be installed again"
    );
}
