//! What the other verbs show and do.

use cronvec_tests::database::Database;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::{Cli, DONE, FAILED, USAGE, objects};

#[tokio::test]
async fn help_is_done_and_wrong_usage_is_2() {
    let cli = Cli { variables: Vec::new() };
    let help = cli.run("--help").await;
    assert_eq!((help.code(), help.stderr.as_str()), (Some(DONE), ""));
    for verb in [
        "attach",
        "detach",
        "sources",
        "reconcile",
        "demo",
        "migrate",
        "tick",
        "ingest",
        "search",
        "status",
        "coverage",
        "job",
        "retry",
        "cancel",
        "projects",
        "config",
        "uninstall",
        "completions",
    ] {
        assert!(
            help.stdout.contains(&format!("\n  {verb} ")),
            "{verb} in {}",
            help.stdout
        );
        let help = cli.run(&format!("{verb} --help")).await;
        assert_eq!(help.code(), Some(DONE), "{verb}");
        assert!(help.stdout.contains("Usage: cronvec"), "{verb}: {}", help.stdout);
    }
    let version = cli.run("--version").await;
    assert_eq!(
        (version.code(), version.stdout.starts_with("cronvec ")),
        (Some(DONE), true)
    );
    for line in [
        "",
        "nonsense",
        "tick",
        "tick nonsense",
        "tick vectorization --max-records many",
        "search",
        "job",
        "job x",
        "search x --limit 0",
        "search x --filter 7",
        "ingest",
        "ingest x --format xml",
        "projects create",
        "status --nonsense",
    ] {
        cli.refuses(line, USAGE, &["cronvec", "--help"][usize::from(!line.is_empty())..])
            .await;
    }
    let script = cli.run("completions bash").await;
    assert_eq!((script.code(), script.stdout.contains("_cronvec")), (Some(DONE), true));
}

#[tokio::test]
async fn ticks_answer_with_their_report() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    for n in 0..30 {
        system.put(PROJECT, &format!("r{n}"), &format!("text number {n}")).await;
    }
    let limited = cli.object("tick vectorization --max-records 10").await;
    for (field, value) in [
        ("success", json!(true)),
        ("processed", json!(1)),
        ("records", json!(10)),
        ("failed", json!(0)),
        ("remaining", json!(true)),
        ("stoppedBecause", json!("limit")),
    ] {
        assert_eq!(limited[field], value, "{field} in {limited}");
    }
    assert!(limited["duration"].is_u64());
    let other = cli.object("tick vectorization --max-seconds 0.05").await;
    assert_eq!(
        (&other["records"], &other["stoppedBecause"]),
        (&json!(0), &json!("deadline"))
    );
    let rest = cli.object(&format!("tick vectorization --project {PROJECT}")).await;
    assert_eq!(
        (&rest["records"], &rest["stoppedBecause"]),
        (&json!(20), &json!("drained"))
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
    let idle = cli.object("tick ingestion").await;
    assert_eq!((&idle["success"], &idle["processed"]), (&json!(true), &json!(0)));
    assert_eq!(cli.object("tick cleanup").await["deletedCount"], 0);
    let said = cli.run("tick vectorization").await;
    assert!(
        said.stdout.starts_with("0 jobs in ") && said.stdout.contains("stopped: drained"),
        "{said:?}"
    );
    cli.refuses("tick vectorization --project nobody", FAILED, &["no project 'nobody'"])
        .await;
}

#[tokio::test]
async fn search_status_and_coverage_show_what_there_is() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let status = cli.object("status").await;
    assert_eq!(
        status["queueStats"],
        json!({"pending": 0, "processing": 0, "completed": 0, "failed": 0})
    );
    assert_eq!((&status["recentJobs"], &status["workers"]), (&json!([]), &json!([])));
    assert_eq!(cli.lines("search tomatoes").await, [] as [Value; 0]);
    let records = "{\"id\":\"tomatoes\",\"content\":\"Water your tomato plants early in the morning.\",\"metadata\":{\"topic\":\"garden\"}}\n\
                   {\"id\":\"bicycle\",\"content\":\"Oil the chain of your bicycle after rain.\"}\n\
                   {\"id\":\"nothing\",\"content\":\"⟁⟁⟁\"}\n";
    let ingested = cli.run_reading("ingest - --wait --json", records).await;
    assert_eq!(ingested.code(), Some(DONE), "{ingested:?}");

    let hits = cli.lines("search how to keep vegetables from drying out").await;
    assert_eq!(
        (hits.len(), &hits[0]["id"], &hits[0]["stale"]),
        (2, &json!("tomatoes"), &json!(false))
    );
    for field in ["ordinal", "content", "metadata", "score"] {
        assert!(!hits[0][field].is_null(), "{field}");
    }
    assert_eq!(cli.lines("search --limit 1 rusty bike").await[0]["id"], "bicycle");
    assert_eq!(
        cli.lines("search --filter {\"topic\":\"garden\"} rusty bike")
            .await
            .len(),
        1
    );
    let table = cli.run("search rusty bike").await;
    assert!(
        table.stdout.contains("bicycle") && table.stdout.contains("score"),
        "{table:?}"
    );

    let coverage = cli.object("coverage --project articles").await;
    assert_eq!(
        coverage,
        json!({"project": PROJECT, "total": 3, "embedded": 2, "pending": 0, "quarantined": 1, "percent": 66.67})
    );
    let status = cli.object("status --limit 1").await;
    assert_eq!(
        status["queueStats"],
        json!({"pending": 0, "processing": 0, "completed": 2, "failed": 0})
    );
    assert_eq!(status["oldestPendingJob"], Value::Null);
    assert_eq!(status["recentJobs"].as_array().unwrap().len(), 1);
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(
        workers.iter().map(|worker| &worker["name"]).collect::<Vec<_>>(),
        ["ingestion", "vectorization"]
    );
    for field in ["lastSeenAt", "lastDurationMs", "lastResult"] {
        assert!(!workers[0][field].is_null(), "{field}");
    }
    for line in ["status", "coverage"] {
        let said = cli.run(line).await;
        assert!(
            said.code() == Some(DONE) && said.stdout.contains("articles"),
            "{said:?}"
        );
    }
    cli.refuses("coverage --project nobody", FAILED, &["no project 'nobody'"])
        .await;
}

#[tokio::test]
async fn jobs_are_shown_cancelled_and_retried() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let queued = cli
        .run_reading("--json ingest -", "{\"id\":\"a\",\"content\":\"x\"}")
        .await;
    let id = objects(&queued)[0]["jobId"].as_str().unwrap().to_owned();
    cli.refuses(&format!("cancel {id}"), USAGE, &[&format!("Cancel job {id}?"), "--yes"])
        .await;
    assert_eq!(cli.object(&format!("job {id}")).await["status"], "PENDING");
    assert_eq!(
        cli.object(&format!("cancel {id} --yes")).await,
        json!({"success": true, "jobId": id})
    );
    assert_eq!(cli.object(&format!("job {id}")).await["status"], "CANCELLED");
    cli.refuses(
        &format!("cancel {id} --confirm"),
        FAILED,
        &["already ended", "CANCELLED"],
    )
    .await;
    assert_eq!(
        cli.object(&format!("retry {id}")).await,
        json!({"success": true, "jobId": id})
    );
    cli.refuses(
        &format!("retry {id}"),
        FAILED,
        &["PENDING", "only FAILED and CANCELLED"],
    )
    .await;
    cli.object("tick ingestion").await;
    let job = cli.object(&format!("job {id}")).await;
    assert_eq!(
        (&job["status"], &job["attempts"], &job["result"]["savedCount"]),
        (&json!("COMPLETED"), &json!(0), &json!(1))
    );
    let said = cli.run(&format!("job {id}")).await;
    assert!(said.stdout.contains("status     COMPLETED"), "{said:?}");
    for line in ["job 999999", "retry 999999", "cancel 999999 --yes"] {
        cli.refuses(line, FAILED, &["no job 999999"]).await;
    }
}

#[tokio::test]
async fn projects_are_made_listed_paused_and_resumed() {
    let database = Database::fresh().await;
    let cli = Cli::at(database.url());
    assert_eq!(cli.lines("projects list").await, [] as [Value; 0]);
    cli.refuses("search x", USAGE, &["no project yet", "cronvec projects create"])
        .await;
    assert_eq!(
        cli.object("projects create kb").await,
        json!({"project": "kb", "state": "created"})
    );
    assert_eq!(
        cli.object("projects create kb").await,
        json!({"project": "kb", "state": "there already"})
    );
    let put = database.client().await;
    let _ = put
        .batch_execute("SELECT cronvec.put_record('kb', 'a', 'Water the tomatoes.')")
        .await;
    assert_eq!(
        cli.object("projects pause kb").await,
        json!({"project": "kb", "state": "paused"})
    );
    assert_eq!(cli.object("tick vectorization").await["records"], 0);
    let list = cli.object("projects list").await;
    assert_eq!(
        (&list["name"], &list["paused"], &list["lanes"]),
        (&json!("kb"), &json!(true), &json!(1))
    );
    assert_eq!(
        (&list["space"]["provider"], &list["space"]["dimensions"]),
        (&json!("static"), &json!(256))
    );
    assert!(cli.run("projects list").await.stdout.contains("paused"));
    assert_eq!(
        cli.object("projects resume kb").await,
        json!({"project": "kb", "state": "resumed"})
    );
    assert_eq!(cli.object("tick vectorization").await["records"], 1);
    for line in ["projects pause nobody", "projects resume nobody"] {
        cli.refuses(line, FAILED, &["no project 'nobody'"]).await;
    }
}

#[tokio::test]
async fn config_check_masks_secrets_and_reports_all_problems_together() {
    let cli = Cli::at("postgres://app:hunter2@db.example.com/shop?password=hunter3")
        .with("CRON_SECRET", "hunter4")
        .with("OPENAI_API_KEY", "hunter5")
        .with("SESSION_SECRET", "hunter6");
    for line in ["config check", "config check --json"] {
        let outcome = cli.run(line).await;
        assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
        assert!(!format!("{outcome:?}").contains("hunter"), "{outcome:?}");
        assert!(outcome.stdout.contains("postgres://app:********@db.example.com/shop"));
    }
    let settings = cli.lines("config check").await;
    let value = |name: &str| &settings.iter().find(|setting| setting["name"] == name).unwrap()["value"];
    assert_eq!(
        (value("CRON_SECRET"), value("APP_ENV")),
        (&json!("********"), &json!("development"))
    );
    let wrong = cli
        .with("EMBEDDING_BATCH_SIZE", "many")
        .with("OPENAI_BASE_URL", "http://api.example.com")
        .with("EMBEDDING_PROVIDER", "nobody")
        .with("APP_ENV", "test");
    let said = [
        "EMBEDDING_BATCH_SIZE is 'many'",
        "OPENAI_BASE_URL is plain http",
        "EMBEDDING_PROVIDER",
        "APP_ENV is 'test'",
    ];
    for line in ["config check", "status", "tick vectorization"] {
        let outcome = wrong.refuses(line, USAGE, &said).await;
        assert!(!outcome.stderr.contains("hunter"), "{outcome:?}");
    }
}

/// Whoever may be asked over plain http is asked without a proxy, which would read the key and the texts.
#[tokio::test]
async fn nothing_that_goes_over_plain_http_passes_a_proxy_of_the_environment() {
    let system = System::embedding_in_process().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn({
        let asked = std::sync::Arc::clone(&asked);
        async move {
            // Takes note, and hangs up.
            while listener.accept().await.is_ok() {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    for (base, is_proxied) in [
        // Names that nobody knows: without a proxy nothing is reached, with it the proxy is.
        ("http://no-such-host-of-ours:9/v1", false),
        ("http://no-such-host-of-ours.internal:9/v1", false),
        ("http://no-such-host-of-ours.local:9/v1", false),
        ("http://169.254.0.1:9/v1", false),
        ("https://no-such-host-of-ours.example/v1", true),
    ] {
        let before = asked.load(std::sync::atomic::Ordering::SeqCst);
        let cli = Cli::at(system.database.url())
            .with("EMBEDDING_PROVIDER", "openai")
            .with("OPENAI_API_KEY", "sk-test-of-the-harness")
            .with("OPENAI_BASE_URL", base)
            .with("HTTP_PROXY", &proxy)
            .with("http_proxy", &proxy)
            .with("HTTPS_PROXY", &proxy)
            .with("https_proxy", &proxy);
        let outcome = cli.run("provider test").await;
        assert_eq!(outcome.code(), Some(FAILED), "{base}: {outcome:?}");
        let after = asked.load(std::sync::atomic::Ordering::SeqCst);
        assert_eq!(after > before, is_proxied, "{base}: {outcome:?}");
    }
}
