//! The verbs that act, on many at once: what they change, what they leave, and what the audit log says of it.

use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, USAGE, objects};

/// Records with a text that no model knows, set aside by a worker.
async fn with_quarantine(records: u32) -> (System, Cli) {
    let system = System::embedding_in_process().await;
    for n in 0..records {
        system.put(PROJECT, &format!("odd{n:02}"), "⟁⟁⟁").await;
    }
    system.vectorize().await;
    let cli = Cli::at(system.database.url());
    (system, cli)
}

const ASIDE: &str = "SELECT count(*) FROM cronvec.quarantined_records";
const PENDING: &str = "SELECT count(*) FROM cronvec.pending";

async fn last_act(cli: &Cli) -> Value {
    cli.object("audit --limit 1").await
}

#[tokio::test]
async fn many_jobs_are_retried_and_cancelled_by_status_type_and_project() {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    let cli = Cli::at(system.database.url());
    for line in ["retry", "cancel --yes", "retry 1 --type VECTORIZE"] {
        cli.refuses(line, USAGE, &["error: "]).await;
    }
    for project in [PROJECT, "other"] {
        for n in 0..2 {
            cli.run_reading(
                &format!("ingest - --project {project}"),
                &format!("{{\"id\":\"{n}\",\"content\":\"x\"}}"),
            )
            .await;
        }
    }
    cli.refuses("cancel --project other", USAGE, &["--yes"]).await;
    let cancelled = cli.object("cancel --project other --yes").await;
    assert_eq!(cancelled["jobIds"].as_array().unwrap().len(), 2, "{cancelled}");
    assert_eq!(cli.lines("recent --status cancelled").await.len(), 2);
    assert_eq!(cli.lines("recent --status pending --project articles").await.len(), 2);
    let act = last_act(&cli).await;
    assert_eq!(
        (
            &act["category"],
            &act["message"],
            &act["metadata"]["ids"],
            &act["metadata"]["count"]
        ),
        (
            &json!("queue"),
            &json!("jobs cancelled"),
            &cancelled["jobIds"],
            &json!(2)
        )
    );
    assert!(
        act["metadata"]["who"].as_str().unwrap().contains('@') && act["metadata"]["role"].is_string(),
        "{act}"
    );
    assert_eq!(
        cli.object("retry --type INGEST_DATA").await["jobIds"],
        json!([]),
        "none FAILED"
    );
    let again = cli.object("retry --status cancelled --project other").await;
    assert_eq!(again["jobIds"], cancelled["jobIds"]);
    assert_eq!(cli.lines("recent --status pending").await.len(), 4);
}

#[tokio::test]
async fn of_jobs_of_one_lane_one_is_retried_and_the_others_are_passed_over() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, space_id, status, completed_at)
             SELECT 'VECTORIZE', name, id, (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = projects.id AND l.role = 'live'), 'FAILED', now() FROM cronvec.projects, generate_series(1, 3)",
        )
        .await;
    let outcome = cli.object("retry --status failed").await;
    assert_eq!(
        (outcome["jobIds"].as_array().unwrap().len(), &outcome["passedOver"]),
        (1, &json!(2))
    );
}

#[tokio::test]
async fn replay_lets_records_try_again_by_reason_at_the_rate_that_is_asked() {
    let (system, cli) = with_quarantine(6).await;
    system
        .run_sql("UPDATE cronvec.quarantined_records SET reason = 'too_long' WHERE record_id = 'odd00'")
        .await;
    cli.refuses("replay", USAGE, &["which records?"]).await;
    cli.refuses("replay --reason no_known_words", USAGE, &["5 records", "--yes"])
        .await;
    assert_eq!(cli.object("replay --reason nothing --yes").await["replayed"], 0);
    let replayed = cli
        .object("replay --reason no_known_words --rate 6 --limit 4 --yes")
        .await;
    assert_eq!(replayed["replayed"], 4);
    assert_eq!((system.count(ASIDE).await, system.count(PENDING).await), (2, 4));
    let seconds = system
        .value("SELECT array_agg(round(extract(epoch FROM not_before - (SELECT min(not_before) FROM cronvec.pending))) ORDER BY record_id) FROM cronvec.pending")
        .await;
    assert_eq!(seconds, json!([0, 10, 20, 30]), "one each ten seconds");
    let act = last_act(&cli).await;
    assert_eq!(
        act["metadata"]["ids"],
        json!(["odd01", "odd02", "odd03", "odd04"]),
        "{act}"
    );
    assert_eq!(cli.object("replay odd00 --yes").await["replayed"], 1);
    assert_eq!(system.count(ASIDE).await, 1);
    // Those whose time has come are judged anew.
    assert_eq!(cli.object("tick vectorization").await["failed"], 2);
    assert_eq!(system.count(ASIDE).await, 3);
}

#[tokio::test]
async fn a_replayed_record_whose_text_was_mended_is_embedded() {
    let (system, cli) = with_quarantine(1).await;
    system.run_sql("UPDATE cronvec.quarantined_records SET reason = 'mended'; UPDATE cronvec.records SET content = 'tomatoes', content_hash = cronvec.content_hash('tomatoes')").await;
    cli.object("replay --reason mended --yes").await;
    assert_eq!(cli.object("tick vectorization").await["records"], 1);
    assert_eq!(cli.object("explain odd00").await["state"], "embedded");
}

#[tokio::test]
async fn purge_forgets_what_was_chosen_and_nothing_else() {
    let (system, cli) = with_quarantine(4).await;
    system
        .run_sql("UPDATE cronvec.quarantined_records SET reason = 'rejected', last_attempt_at = now() - interval '9 days' WHERE record_id < 'odd02'")
        .await;
    cli.refuses("purge", USAGE, &["4 records", "--yes"]).await;
    assert_eq!(cli.object("purge --older-than 10 --yes").await["purged"], 0);
    assert_eq!(cli.object("purge odd00 --older-than 8 --yes").await["purged"], 1);
    assert_eq!(cli.object("purge --reason rejected --yes").await["purged"], 1);
    assert_eq!((system.count(ASIDE).await, system.count(PENDING).await), (2, 0));
    assert_eq!(last_act(&cli).await["metadata"]["ids"], json!(["odd01"]));
    cli.refuses("purge --project nobody --yes", FAILED, &["no project"])
        .await;
    assert_eq!(cli.object("explain odd00").await["state"], "not_marked");
}

#[tokio::test]
async fn reset_stuck_puts_back_what_lost_its_worker_and_leaves_what_is_worked_on() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    assert_eq!(cli.object("reset-stuck").await["reset"], 0);
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, lease_token, lease_expires_at)
             SELECT 'INGEST_DATA', name, id, 'PROCESSING', gen_random_uuid(), now() + n * interval '1 minute'
             FROM cronvec.projects, unnest(ARRAY[-1, 1]) AS n;
             INSERT INTO cronvec.worker_status (name, is_running, last_seen_at) VALUES ('ingestion', true, now() - interval '1 hour')",
        )
        .await;
    assert_eq!(cli.object("reset-stuck --type VECTORIZE").await["reset"], 0);
    let reset = cli.object("reset-stuck").await;
    assert_eq!(reset["reset"], 1, "{reset}");
    let id = reset["jobIds"][0].as_str().unwrap();
    let job = cli.object(&format!("job {id}")).await;
    assert_eq!((&job["status"], &job["crashes"]), (&json!("PENDING"), &json!(1)));
    assert_eq!(cli.lines("recent --status processing").await.len(), 1);
    assert_eq!(last_act(&cli).await["metadata"]["ids"], json!([id]));
    assert_eq!(
        system.value("SELECT is_running FROM cronvec.worker_status").await,
        json!(false)
    );
    cli.object("tick ingestion").await;
    assert!(
        cli.object(&format!("job {id}")).await["startedAt"].is_string(),
        "it is claimed again"
    );
}

#[tokio::test]
async fn stop_and_start_reach_the_projects_that_are_named_or_all() {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    let cli = Cli::at(system.database.url());
    for project in [PROJECT, "other"] {
        system.put(project, "a", "a text").await;
    }
    assert_eq!(cli.object("stop other").await["stopped"], json!(["other"]));
    assert_eq!(cli.object("tick vectorization").await["records"], 1);
    assert_eq!(cli.object("stop").await["stopped"], json!([PROJECT, "other"]));
    system.put(PROJECT, "b", "another text").await;
    assert_eq!(cli.object("tick vectorization").await["records"], 0);
    // A lane that a cancelled job holds is free, too.
    system
        .run_sql(
            "INSERT INTO cronvec.lane_holds SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = projects.id AND l.role = 'live'), id, 0, 1, 'CANCELLED', 'infinity' FROM cronvec.projects",
        )
        .await;
    let started = cli.object("start").await;
    assert_eq!(
        (&started["started"], &started["lanesFreed"]),
        (&json!([PROJECT, "other"]), &json!(2))
    );
    assert_eq!(cli.object("tick vectorization").await["records"], 2);
    cli.refuses("stop nobody", FAILED, &["no project 'nobody'"]).await;
}

#[tokio::test]
async fn clear_empties_the_queue_of_a_project_and_keeps_what_purges_need() {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    let cli = Cli::at(system.database.url());
    system.put(PROJECT, "gone", "a text").await;
    system.vectorize().await;
    system.run_sql("SELECT cronvec.delete_record('articles', 'gone')").await;
    for project in [PROJECT, "other"] {
        system.put_many(project, 1_500, "text").await;
        cli.run_reading(
            &format!("ingest - --project {project}"),
            "{\"id\":\"z\",\"content\":\"x\"}",
        )
        .await;
    }
    cli.object("tick vectorization --max-records 1").await;
    let pending = system.count(PENDING).await;
    cli.refuses(
        "clear --project articles",
        USAGE,
        &["Empty the queue of project articles", "--yes"],
    )
    .await;
    assert_eq!(system.count(PENDING).await, pending);
    let cleared = cli.object("clear --project articles --yes").await;
    assert_eq!(cleared["cancelledJobs"], 1, "{cleared}");
    let left = "SELECT count(*) FROM cronvec.pending w JOIN cronvec.projects p ON p.id = w.project_id WHERE p.name = ";
    assert!(
        system.count(&format!("{left} 'articles'")).await <= 1,
        "the purge alone"
    );
    assert!(system.count(&format!("{left} 'other'")).await >= 1_499);
    assert_eq!(
        cli.lines("recent --status pending --type INGEST_DATA --project other")
            .await
            .len(),
        1
    );
    cli.object("tick vectorization --project articles").await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.chunks c JOIN cronvec.projects p ON p.id = c.project_id WHERE p.name = 'articles' AND record_id = 'gone'").await, 0);
    assert_eq!(last_act(&cli).await["metadata"]["count"], 1);
}

#[tokio::test]
async fn cleanup_deletes_finished_jobs_of_that_age_after_asking() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', name, id, 'COMPLETED', now() - n * interval '1 day' FROM cronvec.projects, unnest(ARRAY[0, 2, 4]) AS n",
        )
        .await;
    cli.refuses("cleanup --days 3", USAGE, &["older than 3 days", "--yes"])
        .await;
    assert_eq!(cli.object("cleanup --days 3 --yes").await["processed"], 1);
    assert_eq!(
        cli.object("cleanup --yes").await["processed"],
        0,
        "seven days are the settings'"
    );
    assert_eq!(cli.object("cleanup --days 0 --confirm").await["processed"], 2);
    assert_eq!(cli.lines("audit --category queue").await.len(), 3);
}

#[tokio::test]
async fn spaces_are_listed_and_removed_once_nobody_uses_them() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    system
        .run_sql(
            "INSERT INTO cronvec.spaces (provider, model, dimensions, chunk_tokens, chunk_overlap, document_prefix, query_prefix)
             VALUES ('openai', 'old', 8, 100, 0, '', '');
             CREATE TABLE cronvec.chunks_2 PARTITION OF cronvec.chunks FOR VALUES IN (2);
             CREATE TABLE cronvec.embedded_2 PARTITION OF cronvec.embedded FOR VALUES IN (2)",
        )
        .await;
    let spaces = cli.lines("spaces list").await;
    assert_eq!(
        (
            spaces.len(),
            &spaces[0]["projects"],
            &spaces[1]["projects"],
            &spaces[1]["model"]
        ),
        (2, &json!([PROJECT]), &json!([]), &json!("old"))
    );
    cli.refuses("spaces remove 1 --yes", USAGE, &["used by articles"]).await;
    cli.refuses("spaces remove 9 --yes", USAGE, &["no space 9"]).await;
    cli.refuses("spaces remove 2", USAGE, &["Drop space 2", "--yes"]).await;
    assert_eq!(cli.object("spaces remove 2 --yes").await["removed"], 2);
    assert_eq!(cli.lines("spaces list").await.len(), 1);
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_class WHERE relname IN ('chunks_2', 'embedded_2')")
            .await,
        0
    );
    assert!(cli.run("spaces list").await.stdout.contains("articles"));
}

#[tokio::test]
async fn an_audit_that_fails_or_is_locked_never_fails_the_act() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let locker = system.database.client().await;
    locker
        .batch_execute("BEGIN; LOCK TABLE cronvec.audit_log IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let stopped = cli.run(&format!("stop {PROJECT} --json")).await;
    assert_eq!(
        (stopped.code(), objects(&stopped)[0]["success"].as_bool()),
        (Some(DONE), Some(true))
    );
    assert!(stopped.stderr.contains("audit"), "{stopped:?}");
    locker.batch_execute("ROLLBACK").await.unwrap();
    system
        .run_sql("ALTER TABLE cronvec.audit_log RENAME TO elsewhere")
        .await;
    let started = cli.run(&format!("start {PROJECT} --json")).await;
    assert_eq!(started.code(), Some(DONE), "{started:?}");
    assert_eq!(
        system.value("SELECT paused FROM cronvec.projects").await,
        json!(false),
        "the act is done"
    );
    system
        .run_sql("CREATE TABLE public.notes (id int PRIMARY KEY, note text)")
        .await;
    for line in [
        "attach notes --text note",
        "reconcile notes",
        "detach notes --yes",
        "projects remove notes --yes",
    ] {
        cli.object(line).await;
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.projects WHERE name = 'notes'")
            .await,
        0
    );
}

#[tokio::test]
async fn the_audit_log_is_read_by_kind_and_kept_for_its_days() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    cli.object("projects create kb").await;
    cli.object("stop kb").await;
    let entries = cli.lines("audit").await;
    assert_eq!(
        entries
            .iter()
            .map(|entry| entry["message"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["projects stopped", "project created"]
    );
    assert_eq!(cli.lines("audit --category queue").await.len(), 0);
    assert!(cli.run("audit").await.stdout.contains("projects stopped"));
    system
        .run_sql(
            "UPDATE cronvec.audit_log SET timestamp = now() - interval '91 days' WHERE message = 'project created'",
        )
        .await;
    cli.object("tick cleanup").await;
    assert_eq!(cli.lines("audit").await.len(), 1);
}
