//! The verbs that read: what they show, with filters, and their exit codes.

use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, USAGE, objects};

/// Two jobs of each status in the project, one in another.
const JOBS: &str = "
    INSERT INTO cronvec.job_queue (job_type, project, project_id, status, attempts, active_ms, result, completed_at, lease_token, lease_expires_at)
    SELECT 'INGEST_DATA', p.name, p.id, s, 1, 100 * n, jsonb_build_object('error', 'it broke'),
        CASE WHEN s IN ('COMPLETED', 'FAILED', 'CANCELLED') THEN now() END,
        CASE WHEN s = 'PROCESSING' THEN gen_random_uuid() END, CASE WHEN s = 'PROCESSING' THEN now() + interval '1 hour' END
    FROM cronvec.projects p, unnest(ARRAY['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED']) AS s, generate_series(1, 2) AS n
    WHERE p.name = 'articles' OR n = 1";

async fn with_jobs() -> (System, Cli) {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    system.run_sql(JOBS).await;
    let cli = Cli::at(system.database.url());
    (system, cli)
}

#[tokio::test]
async fn recent_and_failed_are_filtered_by_status_type_and_project() {
    let (_system, cli) = with_jobs().await;
    assert_eq!(cli.lines("recent").await.len(), 15);
    assert_eq!(cli.lines("recent --limit 4").await.len(), 4);
    for (line, jobs) in [
        ("recent --status failed", 3),
        ("recent --status FAILED --project articles", 2),
        ("recent --type ingest_data --project other", 5),
        ("recent --type VECTORIZE", 0),
        ("failed", 3),
        ("failed --project other", 1),
    ] {
        assert_eq!(cli.lines(line).await.len(), jobs, "{line}");
    }
    let newest_first: Vec<i64> = cli
        .lines("recent")
        .await
        .iter()
        .map(|job| job["id"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(newest_first.is_sorted_by(|one, next| one > next), "{newest_first:?}");
    cli.refuses("recent --project nobody", FAILED, &["no project 'nobody'"])
        .await;
    for line in [
        "recent --status lost",
        "recent --type x",
        "recent --limit 0",
        "audit --limit 0",
    ] {
        cli.refuses(line, USAGE, &["error: "]).await;
    }
}

#[tokio::test]
async fn failures_are_grouped_by_their_reason_jobs_and_records() {
    let (system, cli) = with_jobs().await;
    for n in 0..3 {
        system.put(PROJECT, &format!("odd{n}"), "⟁⟁⟁").await;
    }
    system.vectorize().await;
    let groups = cli.lines("failed --details --project articles").await;
    assert_eq!(groups.len(), 2, "{groups:?}");
    assert_eq!(
        (&groups[0]["kind"], &groups[0]["reason"], &groups[0]["count"]),
        (&json!("job"), &json!("it broke"), &json!(2))
    );
    assert_eq!(
        (&groups[1]["kind"], &groups[1]["reason"], &groups[1]["count"]),
        (&json!("record"), &json!("no_known_words"), &json!(3))
    );
    let said = cli.run("failed --details").await;
    assert!(said.stdout.contains("no_known_words"), "{said:?}");
}

#[tokio::test]
async fn stats_count_by_type_and_hour() {
    let (system, cli) = with_jobs().await;
    system.put(PROJECT, "a", "a text").await;
    let stats = cli.object("stats --project articles").await;
    assert_eq!(
        stats["jobs"][0],
        json!({"jobType": "INGEST_DATA", "pending": 2, "processing": 2, "completed": 2, "failed": 2, "cancelled": 2, "averageActiveMs": 150.0})
    );
    assert_eq!(
        (&stats["pendingRecords"], &stats["quarantined"]),
        (&json!(1), &json!(0))
    );
    let hour = stats["hours"].as_array().unwrap().last().unwrap().clone();
    assert!(
        hour["created"].as_i64() > Some(0) && hour["failed"].as_i64() > Some(0),
        "{stats}"
    );
    assert_eq!(
        cli.object("stats --type VECTORIZE").await["jobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(cli.run("stats").await.stdout.contains("INGEST_DATA"));
}

#[tokio::test]
async fn metrics_have_throughput_rates_and_percentiles() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    let empty = cli.object("metrics").await;
    assert_eq!(
        (&empty["successRate"], &empty["providerRequestMs"], &empty["throughput"]),
        (&Value::Null, &Value::Null, &json!([]))
    );
    system.put_many(PROJECT, 60, "text number").await;
    system.vectorize().await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, attempts, active_ms, completed_at)
             SELECT 'INGEST_DATA', name, id, 'COMPLETED', n % 2, 1000 + n, now() FROM cronvec.projects, generate_series(1, 99) AS n;
             INSERT INTO cronvec.job_queue (job_type, project, project_id, status, attempts, completed_at)
             SELECT 'INGEST_DATA', name, id, 'FAILED', 3, now() FROM cronvec.projects",
        )
        .await;
    let metrics = cli.object("metrics --type INGEST_DATA --project articles").await;
    assert_eq!(
        metrics["jobs"]["activeMs"],
        json!({"p50": 1050.0, "p95": 1094.0, "p99": 1098.0})
    );
    assert_eq!(
        (&metrics["successRate"], &metrics["retryRate"]),
        (&json!(0.99), &json!(0.51))
    );
    assert_eq!(metrics["deadLetters"], json!({"records": 0, "jobs": 1}));
    let minutes = metrics["throughput"].as_array().unwrap();
    assert_eq!(
        minutes
            .iter()
            .map(|minute| minute["records"].as_f64().unwrap())
            .sum::<f64>(),
        60.0
    );
    let requests = &metrics["providerRequestMs"];
    assert!(
        requests["p50"].as_f64() > Some(0.0) && requests["p99"].as_f64() >= requests["p50"].as_f64(),
        "{metrics}"
    );
    assert!(metrics["recordsPerSecond"].as_f64() > Some(0.0), "{metrics}");
    // What was long ago isn't in it.
    system
        .run_sql("UPDATE cronvec.performance_metrics SET timestamp = now() - interval '2 hours'")
        .await;
    assert_eq!(cli.object("metrics").await["throughput"], json!([]));
    assert!(cli.run("metrics").await.stdout.contains("p50 / p95 / p99"));
}

#[tokio::test]
async fn health_names_what_it_checks_and_ends_with_1_when_something_fails() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    cli.object("tick vectorization").await;
    cli.object("tick ingestion").await;
    let health = cli.object("health").await;
    assert_eq!(health["healthy"], true, "{health}");
    let names: Vec<&str> = health["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["check"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "database",
            "schema",
            "worker ingestion",
            "worker vectorization",
            "worker cleanup",
            "oldest pending",
            "circuits",
            "stuck jobs"
        ]
    );
    for (wrong, right, check) in [
        (
            "UPDATE cronvec.worker_status SET last_seen_at = now() - interval '20 minutes' WHERE name = 'vectorization'",
            "UPDATE cronvec.worker_status SET last_seen_at = now()",
            "worker vectorization",
        ),
        (
            "INSERT INTO cronvec.provider_pauses VALUES ('openai|x|y|-', now(), true, 'no such key')",
            "DELETE FROM cronvec.provider_pauses",
            "circuits",
        ),
        (
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, scheduled_for) SELECT 'INGEST_DATA', name, id, now() - interval '20 minutes' FROM cronvec.projects",
            "DELETE FROM cronvec.job_queue",
            "oldest pending",
        ),
        (
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, lease_token, lease_expires_at) SELECT 'INGEST_DATA', name, id, 'PROCESSING', gen_random_uuid(), now() - interval '20 minutes' FROM cronvec.projects",
            "DELETE FROM cronvec.job_queue",
            "stuck jobs",
        ),
        (
            "INSERT INTO cronvec.migrations VALUES (1000, 'future', '')",
            "DELETE FROM cronvec.migrations WHERE version = 1000",
            "schema",
        ),
    ] {
        system.run_sql(wrong).await;
        let outcome = cli.run("health --json").await;
        assert_eq!(outcome.code(), Some(FAILED), "{check}: {outcome:?}");
        let health = objects(&outcome).remove(0);
        let failing: Vec<&Value> = health["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["status"] == "fail")
            .collect();
        assert_eq!((failing.len(), &failing[0]["check"]), (1, &json!(check)), "{health}");
        assert!(failing[0]["mend"].is_string(), "{health}");
        system.run_sql(right).await;
        assert_eq!(cli.run("health").await.code(), Some(DONE), "{check}");
    }
    let away = Cli::at("postgres://a:b@127.0.0.1:1/c").run("health --json").await;
    assert_eq!(away.code(), Some(FAILED), "{away:?}");
    assert_eq!(objects(&away)[0]["checks"][0]["status"], "fail");
}

#[tokio::test]
async fn stuck_jobs_are_listed_with_what_mends_them() {
    let (system, cli) = with_jobs().await;
    assert_eq!(cli.lines("stuck").await, [] as [Value; 0]);
    system
        .run_sql(
            "UPDATE cronvec.job_queue SET lease_expires_at = now() - interval '3 minutes' WHERE status = 'PROCESSING' AND project = 'articles';
             UPDATE cronvec.job_queue SET scheduled_for = now() - interval '30 minutes' WHERE status = 'PENDING' AND project = 'other'",
        )
        .await;
    let kinds = |lines: &[Value]| lines.iter().map(|line| line["kind"].clone()).collect::<Vec<_>>();
    let all = cli.lines("stuck").await;
    assert_eq!(kinds(&all), ["waiting", "lease_expired", "lease_expired"]);
    assert!(all.iter().all(|line| line["mend"].is_string()));
    assert_eq!(kinds(&cli.lines("stuck --project other").await), ["waiting"]);
    assert_eq!(cli.lines("stuck --minutes 60 --project other").await.len(), 0);
    assert_eq!(cli.lines("stuck --type VECTORIZE").await.len(), 0);
}

#[tokio::test]
async fn a_job_is_shown_whole_but_for_its_texts() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let queued = cli
        .run_reading("--json ingest -", "{\"id\":\"a\",\"content\":\"a secret text\"}")
        .await;
    let id = objects(&queued)[0]["jobId"].as_str().unwrap().to_owned();
    let job = cli.object(&format!("job {id}")).await;
    assert_eq!(
        (&job["id"], &job["payload"]["total"], &job["crashes"]),
        (&json!(id), &json!(1), &json!(0))
    );
    assert!(!job.to_string().contains("secret text"), "{job}");
}

async fn explained(cli: &Cli, record: &str) -> Value {
    cli.object(&format!("explain {record} --project {PROJECT}")).await
}

#[tokio::test]
async fn a_record_is_explained_by_the_one_thing_that_keeps_it() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    // The same key as the workers have, or their pauses wouldn't be this endpoint's.
    let cli = Cli::of(&system, &provider).with("OPENAI_API_KEY", "sk-test-of-the-harness");
    let state = async |record: &str| explained(&cli, record).await["state"].clone();
    assert_eq!(state("none").await, "no_such_record");
    system.put(PROJECT, "a", "a text").await;
    assert_eq!(state("a").await, "nobody_ticks");
    system.vectorize().await;
    let embedded = explained(&cli, "a").await;
    assert_eq!(
        (&embedded["state"], &embedded["stale"]),
        (&json!("embedded"), &json!(false))
    );
    assert!(
        embedded["because"].as_str().unwrap().contains("openai") && embedded["embeddedAt"].is_string(),
        "{embedded}"
    );

    system.put(PROJECT, "a", "another text").await;
    let pending = explained(&cli, "a").await;
    assert_eq!(
        (&pending["state"], &pending["stale"]),
        (&json!("pending"), &json!(true))
    );
    system
        .run_sql("UPDATE cronvec.worker_status SET last_seen_at = now() - interval '1 hour'")
        .await;
    assert_eq!(state("a").await, "nobody_ticks");
    provider.answer_next(1, Answer::throttled(30));
    system.vectorize().await;
    assert_eq!(state("a").await, "endpoint_paused");
    system
        .run_sql("UPDATE cronvec.pending SET not_before = now() + interval '1 hour'")
        .await;
    let waiting = explained(&cli, "a").await;
    assert_eq!(waiting["state"], "waiting", "{waiting}");
    cli.object(&format!("stop {PROJECT}")).await;
    let stopped = explained(&cli, "a").await;
    assert_eq!(
        (&stopped["state"], &stopped["mend"]),
        (&json!("project_stopped"), &json!("cronvec start articles"))
    );
    cli.object(&format!("start {PROJECT}")).await;
    let off = Cli::of(&system, &provider).with("SEMANTIC_SEARCH_ENABLED", "false");
    assert_eq!(explained(&off, "a").await["state"], "disabled");

    system
        .run_sql(
            "DELETE FROM cronvec.provider_pauses; DELETE FROM cronvec.pending;
             UPDATE cronvec.records SET embed = false WHERE id = 'a'",
        )
        .await;
    assert_eq!(state("a").await, "not_asked_for");
    system
        .run_sql("UPDATE cronvec.records SET embed = true WHERE id = 'a'")
        .await;
    assert_eq!(state("a").await, "not_marked");
    system
        .run_sql(
            "INSERT INTO cronvec.quarantined_records SELECT 1, project_id, id, content_hash, 'rejected', 'no thanks', 3 FROM cronvec.records",
        )
        .await;
    let aside = explained(&cli, "a").await;
    assert_eq!(aside["state"], "quarantined");
    assert!(
        aside["because"].as_str().unwrap().contains("rejected: no thanks"),
        "{aside}"
    );
    system.run_sql("SELECT cronvec.delete_record('articles', 'a')").await;
    assert_eq!(state("a").await, "deleted");
    cli.refuses("explain a --project nobody", FAILED, &["no project 'nobody'"])
        .await;
    assert!(cli.run("explain a").await.stdout.contains("it was deleted"));
}

#[tokio::test]
async fn search_is_refused_where_embedding_is_switched_off_and_records_are_marked_on() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url()).with("SEMANTIC_SEARCH_ENABLED", "false");
    cli.refuses("search tomatoes", FAILED, &["unavailable", "SEMANTIC_SEARCH_ENABLED"])
        .await;
    system.put(PROJECT, "a", "a text").await;
    assert_eq!(cli.object("tick vectorization").await["stoppedBecause"], "disabled");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 1);
}
