//! Figures that people decide by: rates, attempts, paces, what waits and what keeps it waiting.

use std::collections::HashMap;

use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

use super::serve::{Service, production};
use super::{Cli, DONE, FAILED, USAGE, whole};

const END_BACKOFF: &str = "UPDATE cronvec.pending SET not_before = now() - interval '1 second'";

/// Eight records are embedded, one is rejected for good, and the answer for one is unusable: it is to be tried again.
async fn mixed() -> (Provider, System, Cli) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider).with("OPENAI_API_KEY", "sk-test-of-the-harness");
    system.put_many(PROJECT, 8, "text number").await;
    system.put(PROJECT, "bad", "what nobody takes").await;
    provider.answer_containing("nobody takes", Answer::rejected());
    cli.object("tick vectorization").await;
    provider.answer_containing("an odd one", Answer::Zero);
    system.put(PROJECT, "odd", "an odd one").await;
    let outcome = cli.run("tick vectorization --json").await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let told: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| line.contains("an attempt at a record failed"))
        .collect();
    let [line] = told[..] else {
        panic!("{}", outcome.stderr);
    };
    for field in ["odd", "record.attempt=1", "record.attempts=3", "unusable_answer"] {
        assert!(line.contains(field), "{line}");
    }
    (provider, system, cli)
}

#[tokio::test]
async fn rates_count_records_and_not_the_jobs_that_carried_them() {
    let (_provider, _system, cli) = mixed().await;
    let metrics = cli.object("metrics").await;
    assert_eq!(
        metrics["jobs"]["failed"], 0,
        "each job got to its end, whatever became of its records"
    );
    assert_eq!(
        metrics["records"],
        json!({"embedded": 8.0, "retried": 1.0, "quarantined": 1.0})
    );
    assert_eq!(
        (&metrics["successRate"], &metrics["retryRate"], &metrics["failureRate"]),
        (&json!(0.8), &json!(0.1), &json!(0.1))
    );
    let delay = metrics["recordDelayMs"]["p50"].as_f64();
    assert!(delay > Some(0.0) && delay < Some(60_000.0), "{metrics}");
    assert_eq!(cli.object("metrics --project articles").await["successRate"], 0.8);
    let words = cli.run("metrics").await.stdout;
    assert!(
        words.contains("8 embedded, 1 tried again, 1 quarantined") && words.contains("success 80.0 %"),
        "{words}"
    );
}

#[tokio::test]
async fn each_failed_attempt_at_a_record_is_in_the_audit_log_and_in_explain() {
    let (_provider, system, cli) = mixed().await;
    system.run_sql(END_BACKOFF).await;
    cli.object("tick vectorization").await;
    let explained = cli.object("explain odd").await;
    assert_eq!(explained["state"], "waiting", "{explained}");
    let attempts = explained["failedAttempts"].as_array().unwrap();
    let told: Vec<(&Value, &Value)> = attempts.iter().map(|one| (&one["attempt"], &one["reason"])).collect();
    assert_eq!(
        told,
        [
            (&json!(1), &json!("unusable_answer")),
            (&json!(2), &json!("unusable_answer"))
        ]
    );
    assert!(
        attempts
            .iter()
            .all(|one| one["message"].as_str().unwrap().contains("zero")),
        "{explained}"
    );
    system.run_sql(END_BACKOFF).await;
    cli.object("tick vectorization").await;
    let explained = cli.object("explain odd").await;
    assert_eq!(
        (
            &explained["state"],
            explained["failedAttempts"].as_array().unwrap().len()
        ),
        (&json!("quarantined"), 3)
    );
    let entries = cli.lines("audit --level error").await;
    assert_eq!(entries.len(), 4, "{entries:?}");
    let last = &entries[0];
    assert_eq!(
        (&last["category"], &last["message"]),
        (
            &json!("record"),
            &json!("attempt 3 of 3 failed: unusable_answer, quarantined")
        )
    );
    let metadata = &last["metadata"];
    assert_eq!(
        (
            &metadata["ids"],
            &metadata["attempt"],
            &metadata["reason"],
            &metadata["project"]
        ),
        (&json!(["odd"]), &json!(3), &json!("unusable_answer"), &json!(PROJECT))
    );
    let words = cli.run("explain odd").await.stdout;
    assert!(words.contains("attempt 2 failed"), "{words}");
    assert_eq!(cli.object("explain r1").await["failedAttempts"], Value::Null);
    // An id of any length has its place.
    let long = "x".repeat(1000);
    system.put(PROJECT, &long, "what nobody takes").await;
    cli.object("tick vectorization").await;
    assert_eq!(
        cli.object(&format!("explain {long}")).await["failedAttempts"][0]["attempt"],
        1
    );
}

#[tokio::test]
async fn an_audit_log_that_somebody_has_locked_keeps_no_record_from_being_charged() {
    let (provider, system, cli) = mixed().await;
    provider.answer_containing("another that", Answer::rejected());
    system.put(PROJECT, "other", "another that nobody takes").await;
    let user = system.database.client().await;
    user.batch_execute("BEGIN; LOCK TABLE cronvec.audit_log IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let report = cli.object("tick vectorization").await;
    assert_eq!(report["quarantined"], 1, "{report}");
    user.batch_execute("ROLLBACK").await.unwrap();
    let explained = cli.object("explain other").await;
    assert_eq!(
        (&explained["state"], &explained["failedAttempts"]),
        (&json!("quarantined"), &Value::Null)
    );
}

#[tokio::test]
async fn audit_lists_its_categories_and_refuses_others() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let help = cli.run("audit --help").await.stdout;
    for known in ["source", "token", "record"] {
        assert!(help.contains(known), "{help}");
    }
    cli.refuses("audit --category sauce", USAGE, &["source", "quarantine"])
        .await;
    assert_eq!(cli.lines("audit --category source").await, [] as [Value; 0]);
}

/// What Prometheus reads: by name and labels.
async fn scraped(service: &Service) -> HashMap<String, f64> {
    let (status, page) = service.ask("GET", "/metrics", None).await;
    assert_eq!(status, 200);
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

#[tokio::test]
async fn prometheus_has_rates_histograms_rate_limits_tokens_and_reasons() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = production(&system, &provider);
    provider.answer_next(1, Answer::throttled(1));
    provider.answer_containing("nobody takes", Answer::rejected());
    system.put_many(PROJECT, 8, "text number").await;
    system.put(PROJECT, "bad", "what nobody takes").await;
    let service = Service::start(&cli, "").await;
    let quarantined = "cronvec_records_quarantined_total{reason=\"rejected\"}";
    eventually("all are through", || async {
        let found = scraped(&service).await;
        found.get("cronvec_record_attempts_total{outcome=\"embedded\"}") == Some(&8.0)
            && found.get(quarantined) == Some(&1.0)
    })
    .await;
    let found = scraped(&service).await;
    let value = |name: &str| *found.get(name).unwrap_or_else(|| panic!("no {name} in {found:?}"));
    for (name, expected) in [
        ("cronvec_record_attempts_total{outcome=\"quarantined\"}", 1.0),
        ("cronvec_record_attempts_total{outcome=\"retried\"}", 0.0),
        ("cronvec_quarantined_records_by_reason{reason=\"rejected\"}", 1.0),
        ("cronvec_provider_rate_limited_total", 1.0),
        ("cronvec_record_attempts_ratio{outcome=\"embedded\"}", 0.8889),
        ("cronvec_record_embedding_delay_seconds_count", 8.0),
        ("cronvec_record_embedding_delay_seconds_bucket{le=\"+Inf\"}", 8.0),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert!(value("cronvec_provider_tokens_total") > 0.0);
    for name in [
        "cronvec_provider_request_duration_seconds",
        "cronvec_record_embedding_delay_seconds",
    ] {
        let mut buckets: Vec<(f64, f64)> = found
            .iter()
            .filter_map(|(key, count)| {
                let bound = key
                    .strip_prefix(&format!("{name}_bucket{{le=\""))?
                    .strip_suffix("\"}")?;
                Some((bound.replace("+Inf", "inf").parse().ok()?, *count))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(
            buckets.len() > 10 && buckets.is_sorted_by_key(|bucket| bucket.1),
            "{buckets:?}"
        );
        assert_eq!(buckets.last().unwrap().1, value(&format!("{name}_count")));
        assert!(value(&format!("{name}_sum")) > 0.0);
    }
    let (_, page) = service.ask("GET", "/metrics", None).await;
    let kinds = page
        .lines()
        .filter(|line| line.starts_with("# TYPE") && line.ends_with(" histogram"));
    assert_eq!(kinds.count(), 2);
    let (status, alive) = service.ask("GET", "/healthz", None).await;
    assert_eq!((status, alive.as_str()), (200, "ok"));
    service.process.terminate();
    assert_eq!(whole(service.process).await.code(), Some(DONE));
}

#[tokio::test]
async fn a_dry_run_goes_by_the_pace_of_its_own_model() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    system
        .run_sql(
            "INSERT INTO cronvec.spaces (provider, model, dimensions, chunk_tokens, chunk_overlap, document_prefix, query_prefix)
             VALUES ('static', 'minilm-static-256', 256, 512, 0, '', '');
             WITH made AS (INSERT INTO cronvec.projects (name) VALUES ('fast') RETURNING id)
             INSERT INTO cronvec.project_spaces (project_id, space_id, role)
             SELECT made.id, (SELECT max(id) FROM cronvec.spaces), 'live' FROM made;
             INSERT INTO cronvec.performance_metrics (metric, value, project)
             VALUES ('records_embedded', 30000, 'fast'), ('embedding_ms', 10000, 'fast'), ('vectorization_ms', 10000, NULL)",
        )
        .await;
    system.put_many(PROJECT, 10, "text number").await;
    let estimate = cli.object("backfill --dry-run --project articles").await;
    assert_eq!(
        (&estimate["recordsPerSecond"], &estimate["seconds"]),
        (&Value::Null, &Value::Null),
        "nobody knows this model's pace: {estimate}"
    );
    system
        .run_sql(
            "INSERT INTO cronvec.performance_metrics (metric, value, project)
             VALUES ('records_embedded', 100, 'articles'), ('embedding_ms', 5000, 'articles')",
        )
        .await;
    let estimate = cli.object("backfill --dry-run --project articles").await;
    assert_eq!(
        (&estimate["recordsPerSecond"], &estimate["seconds"]),
        (&json!(20.0), &json!(0.5))
    );
}

#[tokio::test]
async fn a_backfill_of_what_waits_already_tells_what_is_pending_its_pace_and_its_iteration() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider).with("OPENAI_API_KEY", "sk-test-of-the-harness");
    system.put_many(PROJECT, 300, "text number").await;
    let gate = provider.hold();
    let backfill = cli.start("backfill --yes --json --iterations 3").await;
    provider.wait_open(4).await;
    eventually("it is told at which tick it is", || async {
        cli.object("backfill status").await["iteration"] == 1
    })
    .await;
    let status = cli.object("backfill status").await;
    assert_eq!(
        (
            &status["marked"],
            &status["left"],
            &status["pending"],
            &status["percent"],
            &status["iterations"],
            &status["etaSeconds"]
        ),
        (&json!(0), &json!(0), &json!(300), &json!(0.0), &json!(3), &Value::Null),
        "{status}"
    );
    assert!(cli.run("backfill status").await.stdout.contains("1 of 3"));
    gate.pass(4);
    eventually("a part is told", || async {
        let status = cli.object("backfill status").await;
        status["pending"] == 200 && status["percent"] == 33.33 && status["perSecond"].as_f64() > Some(0.0)
    })
    .await;
    assert!(cli.object("backfill status").await["etaSeconds"].as_f64() > Some(0.0));
    system
        .run_sql(
            "INSERT INTO cronvec.lane_holds (space_id, project_id, lane, job_id, reason, until)
             SELECT space_id, project_id, 0, 77, 'FAILED', now() + interval '1 hour' FROM cronvec.project_spaces",
        )
        .await;
    let status = cli.object("backfill status").await;
    assert_eq!(status["etaSeconds"], Value::Null);
    assert!(
        status["blocked"]
            .as_str()
            .unwrap()
            .starts_with("job 77 ended FAILED and holds its lane until 20"),
        "{status}"
    );
    system.run_sql("DELETE FROM cronvec.lane_holds").await;
    gate.release();
    let outcome = whole(backfill).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let status = cli.object("backfill status").await;
    assert_eq!(
        (&status["state"], &status["percent"], &status["pending"]),
        (&json!("finished"), &json!(100.0), &json!(0))
    );
}

#[tokio::test]
async fn status_tells_of_records_that_wait_and_of_stopped_projects() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    system.put(PROJECT, "a", "it waits").await;
    cli.object("stop articles").await;
    let status = cli.object("status").await;
    assert_eq!(
        (
            &status["queueStats"]["pending"],
            &status["pendingRecords"],
            &status["stopped"]
        ),
        (&json!(0), &json!(1), &json!([PROJECT]))
    );
    let words = cli.run("status").await.stdout;
    assert!(
        words.contains("records: 1 pending")
            && words.contains("stopped: articles")
            && words.contains("cronvec start articles"),
        "{words}"
    );
}

#[tokio::test]
async fn explain_says_of_a_row_that_it_is_left_out_and_offers_nothing_that_would_be_refused() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    system
        .run_sql(
            "CREATE TABLE public.posts (id int PRIMARY KEY, title text, published bool);
             INSERT INTO posts VALUES (1, 'one', true), (2, 'two', false)",
        )
        .await;
    cli.object("attach posts --text title --where published").await;
    let left_out = cli.object("explain 2 --project posts").await;
    assert_eq!(left_out["state"], "no_such_record");
    assert_eq!(
        left_out["because"],
        "row 2 of public.posts isn't to be a record: it doesn't satisfy --where published"
    );
    let nowhere = cli.object("explain 3 --project posts").await;
    assert!(
        nowhere["because"].as_str().unwrap().contains("has no row of this key"),
        "{nowhere}"
    );
    for explained in [&left_out, &nowhere] {
        assert!(!explained.to_string().contains("ingest"), "{explained}");
    }
    system.run_sql("UPDATE posts SET published = true").await;
    assert_eq!(cli.object("explain 2 --project posts").await["state"], "nobody_ticks");
    let elsewhere = cli.object("explain 2 --project articles").await;
    assert!(elsewhere["mend"].as_str().unwrap().contains("ingest"), "{elsewhere}");
}

#[tokio::test]
async fn attach_tells_how_many_rows_are_to_be_embedded_and_how_many_are_not() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    system
        .run_sql(
            "CREATE TABLE public.posts (id int PRIMARY KEY, title text);
             INSERT INTO posts VALUES (1, 'one'), (2, ''), (3, NULL)",
        )
        .await;
    let said = cli.run("attach posts --text title").await.stdout;
    assert!(
        said.contains("1 row to embed") && said.contains("2 rows can't be embedded"),
        "{said}"
    );
}

#[tokio::test]
async fn doctor_puts_embeds_finds_and_deletes_a_record_and_leaves_nothing() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider)
        .with("OPENAI_API_KEY", "sk-test-of-the-harness")
        .with("CRON_SECRET", "a long secret");
    let steps = |all: &[Value]| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        all.iter()
            .filter(|one| one["check"].as_str().unwrap().starts_with("write: "))
            .map(|one| (text(&one["check"]), text(&one["status"])))
            .collect()
    };
    let ok = |step: &str| (format!("write: {step}"), "ok".to_owned());
    assert_eq!(
        steps(&cli.lines("doctor --write").await),
        ["put", "embed", "find", "delete"].map(ok)
    );
    assert_eq!(steps(&cli.lines("doctor").await), []);
    provider.answer_containing("cronvec doctor", Answer::rejected());
    let outcome = cli.run("doctor --write --json").await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let all = super::objects(&outcome);
    assert_eq!(steps(&all), [ok("put"), ("write: embed".to_owned(), "fail".to_owned())]);
    let failed = all.iter().find(|one| one["check"] == "write: embed").unwrap();
    assert!(failed["found"].as_str().unwrap().contains("rejected"), "{failed}");
    for left in ["records", "pending", "chunks", "job_queue", "quarantined_records"] {
        assert_eq!(
            system.count(&format!("SELECT count(*) FROM cronvec.{left}")).await,
            0,
            "{left}"
        );
    }
    assert_eq!(system.count("SELECT count(*) FROM cronvec.projects").await, 1);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.spaces").await, 1);
    cli.refuses("doctor --write --offline", USAGE, &["--offline"]).await;
}
