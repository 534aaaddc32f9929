//! `doctor`: what it looks at, what it finds, and what it says helps.

use cronvec_tests::database::Database;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::System;
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, objects};

/// The check of this name as `doctor` finds it.
async fn diagnosis(cli: &Cli, check: &str) -> Value {
    let outcome = cli.run("doctor --json").await;
    let all = objects(&outcome);
    let failed = all.iter().any(|one| one["status"] == "fail");
    assert_eq!(outcome.code(), Some(if failed { FAILED } else { DONE }), "{outcome:?}");
    let found = all.into_iter().find(|one| one["check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {outcome:?}"))
}

#[tokio::test]
async fn the_doctor_finds_nothing_wrong_where_nothing_is() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url()).with("CRON_SECRET", "a long secret");
    for worker in ["ingestion", "vectorization", "cleanup"] {
        cli.object(&format!("tick {worker}")).await;
    }
    let all = cli.lines("doctor").await;
    let unwell: Vec<&Value> = all.iter().filter(|one| one["status"] != "ok").collect();
    assert_eq!(unwell, [] as [&Value; 0]);
    assert!(cli.run("doctor").await.stdout.contains("pgvector"));
}

#[tokio::test]
async fn the_doctor_finds_each_trouble_and_says_how_to_mend_it() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    for (wrong, check, status, found) in [
        ("SELECT", "secret", "warn", "CRON_SECRET is not set"),
        ("SELECT", "worker vectorization", "warn", "no schedule"),
        (
            "UPDATE cronvec.migrations SET applied_at = now() - interval '1 day'",
            "worker ingestion",
            "fail",
            "no schedule",
        ),
        (
            "INSERT INTO cronvec.worker_status (name, last_seen_at) VALUES ('vectorization', now() - interval '1 day')",
            "worker vectorization",
            "fail",
            "nobody calls it",
        ),
        (
            "ALTER TABLE cronvec.chunks_1 DROP CONSTRAINT chunks_1_width",
            "embedding columns",
            "fail",
            "16 wide",
        ),
        (
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, lease_token, lease_expires_at) SELECT 'INGEST_DATA', name, id, 'PROCESSING', gen_random_uuid(), now() - interval '20 minutes' FROM cronvec.projects",
            "stuck jobs",
            "fail",
            "its worker is gone",
        ),
        (
            "INSERT INTO cronvec.ingest_rejects (job_id, line, id, reason) SELECT id, 1, 'big', 'the text has 20 bytes, MAX_CONTENT_BYTES allows 10' FROM cronvec.job_queue",
            "payload sizes",
            "warn",
            "too large",
        ),
        (
            "INSERT INTO cronvec.provider_pauses VALUES ('openai|x|y|-', now() + interval '1 minute', false, '429: slow down')",
            "rate limits",
            "warn",
            "slow down",
        ),
        (
            "DROP INDEX cronvec.job_queue_failed",
            "schema's objects",
            "fail",
            "job_queue_failed",
        ),
        (
            "UPDATE cronvec.projects SET paused = true",
            "projects",
            "warn",
            "stopped: articles",
        ),
        ("DROP EXTENSION vector CASCADE", "pgvector", "fail", "missing"),
    ] {
        system.run_sql(wrong).await;
        let diagnosis = diagnosis(&cli, check).await;
        assert_eq!(diagnosis["status"], status, "{diagnosis}");
        assert!(diagnosis["found"].as_str().unwrap().contains(found), "{diagnosis}");
        assert!(diagnosis["mend"].is_string(), "{diagnosis}");
    }
    provider.answer_when(|_| true, Answer::error(401, "auth", "no such key"));
    let check = "provider openai text-embedding-3-small";
    assert_eq!(diagnosis(&cli, check).await["status"], "fail");
    let production = Cli::of(&system, &provider).with("APP_ENV", "production");
    assert_eq!(diagnosis(&production, "secret").await["status"], "fail");
    let away = Cli::at("postgres://a:b@127.0.0.1:1/c");
    assert_eq!(diagnosis(&away, "database").await["status"], "fail");
    let bare = Database::empty().await;
    assert!(
        diagnosis(&Cli::at(bare.url()), "schema").await["mend"]
            .as_str()
            .unwrap()
            .contains("migrate up")
    );
}

#[tokio::test]
async fn the_doctor_names_defaults_that_statements_work_around_and_the_statement_that_helps() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    assert_eq!(diagnosis(&cli, "session defaults").await["status"], "ok");
    let database = system.database.name();
    let (role, _) = cronvec_tests::database::server().await.credentials();
    let of_role = format!("ROLE {role} IN DATABASE {database}");
    let of_database = format!("DATABASE {database}");
    for (whose, name, value, value_told) in [
        (
            &of_database,
            "default_transaction_isolation",
            "serializable",
            "serializable",
        ),
        (&of_role, "default_transaction_read_only", "on", "on"),
        (&of_database, "statement_timeout", "20s", "20s"),
        (&of_role, "lock_timeout", "2s", "2s"),
        (&of_database, "idle_in_transaction_session_timeout", "1500ms", "1500ms"),
    ] {
        system.run_sql(&format!("ALTER {whose} SET {name} = '{value}'")).await;
        let found = diagnosis(&cli, "session defaults").await;
        assert_eq!(found["status"], "warn", "{found}");
        let said = found["found"].as_str().unwrap();
        assert!(said.contains(&format!("{name} = {value_told}")), "{found}");
        let mend = found["mend"].as_str().unwrap();
        assert!(mend.starts_with("ALTER ROLE ") && mend.contains(name), "{found}");
        system.run_sql(mend).await;
        assert_eq!(
            diagnosis(&cli, "session defaults").await["status"],
            "ok",
            "after {mend}"
        );
    }
    // Longer than anything of ours.
    system
        .run_sql(&format!("ALTER {of_database} SET statement_timeout = '2min'"))
        .await;
    assert_eq!(diagnosis(&cli, "session defaults").await["status"], "ok");
}

#[tokio::test]
async fn the_doctor_looks_at_attached_tables_too() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    assert_eq!(diagnosis(&cli, "attached tables").await["found"], "none is attached");
    system
        .run_sql("CREATE TABLE public.notes (id int PRIMARY KEY, note text)")
        .await;
    cli.object("attach notes --text note").await;
    assert_eq!(
        diagnosis(&cli, "attached tables").await["found"],
        "1, with their triggers, functions, columns and rights"
    );
    system
        .run_sql("ALTER TABLE notes DISABLE TRIGGER cronvec_1_insert")
        .await;
    let found = diagnosis(&cli, "table public.notes").await;
    assert_eq!(
        (&found["status"], &found["mend"]),
        (
            &json!("fail"),
            &json!("ALTER TABLE public.notes ENABLE TRIGGER cronvec_1_insert")
        ),
        "{found}"
    );
}
