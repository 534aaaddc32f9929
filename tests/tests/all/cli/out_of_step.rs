//! What a restore or an interrupted pause leaves, told by the verbs that look for trouble.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::system::{PROJECT, System};

use super::{Cli, DONE, FAILED};

/// A project with a record that waits, and a job for it.
async fn waiting() -> (System, Cli) {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "a text").await;
    // The workers have been seen.
    system.ingest().await;
    system.store.ensure_vectorize_jobs(3, 1000).await.unwrap();
    let cli = Cli::at(system.database.url());
    (system, cli)
}

async fn tells(cli: &Cli, line: &str, code: i32, said: &str) {
    let outcome = cli.run(line).await;
    assert!(outcome.stdout.contains(said), "{line} says {outcome:?}");
    assert_eq!(outcome.code(), Some(code), "{line} says {outcome:?}");
}

#[tokio::test]
async fn a_job_that_is_held_in_a_project_that_runs_is_told_until_a_tick_has_released_it() {
    let (system, cli) = waiting().await;
    system
        .run_sql("UPDATE cronvec.job_queue SET held = true, turn = NULL")
        .await;
    let said = "is held, though its project isn't stopped";
    tells(&cli, "stuck", DONE, said).await;
    tells(&cli, "explain a", DONE, said).await;
    tells(&cli, "doctor --offline", FAILED, said).await;
    tells(&cli, "health", FAILED, said).await;
    assert_eq!(cli.lines("stuck").await[0]["kind"], "held");
    assert_eq!(cli.object("explain a").await["state"], "job_held");

    assert_eq!(system.vectorize().await.records, 1);
    tells(&cli, "stuck", DONE, "nothing is stuck").await;
    let health = cli.run("health").await;
    assert!(!health.stdout.contains(said), "{health:?}");
}

#[tokio::test]
async fn a_job_that_is_not_held_in_a_stopped_project_is_told_until_a_tick_holds_it() {
    let (system, cli) = waiting().await;
    system.run_sql("UPDATE cronvec.projects SET paused = true").await;
    let said = "its project is stopped, but it isn't held";
    tells(&cli, "stuck", DONE, said).await;
    tells(&cli, "explain a", DONE, "isn't held yet").await;
    for line in ["doctor --offline", "health"] {
        let outcome = cli.run(line).await;
        assert!(outcome.stdout.contains(said), "{line} says {outcome:?}");
    }
    assert_eq!(cli.lines("stuck").await[0]["kind"], "not_held");

    system.vectorize().await;
    tells(&cli, "stuck", DONE, "nothing is stuck").await;
    tells(&cli, "explain a", DONE, "its project is stopped\n").await;
}

#[tokio::test]
async fn a_sequence_behind_the_data_is_told_by_doctor_and_verify_and_put_right_by_migrate_up_and_by_ingest() {
    for line in ["migrate up", "ingest - --project articles"] {
        let system = System::embedding_in_process().await;
        let cli = Cli::at(system.database.url());
        system
            .run_sql(
                "SELECT setval('cronvec.acceptance', 100000); SELECT cronvec.put_record('articles', 'a', 'the old text');
                 ALTER SEQUENCE cronvec.acceptance RESTART WITH 1",
            )
            .await;
        let said = "cronvec.acceptance is at 0, but the data has 100001 already";
        tells(&cli, "doctor --offline", FAILED, said).await;
        tells(&cli, "migrate verify", FAILED, said).await;
        // A look changes nothing.
        assert_eq!(system.count("SELECT last_value FROM cronvec.acceptance").await, 1);
        let outcome = cli
            .run_reading(line, "{\"id\":\"a\",\"content\":\"the NEW text\"}")
            .await;
        assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
        tells(&cli, "migrate verify", DONE, "as it should be").await;
        if line == "migrate up" {
            let records = [cronvec_tests::system::record("a", "the NEW text")];
            let id = system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
            assert!(id > 100_001);
        }
        assert_eq!(system.ingest().await.records, 1);
        assert_eq!(
            system.value("SELECT content FROM cronvec.records").await,
            "the NEW text"
        );
    }
}
