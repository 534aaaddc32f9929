//! The operator's command line: the real binary, its outputs and its exit codes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cronvec_tests::conditions::{eventually, within};
use cronvec_tests::database::{Database, server};
use cronvec_tests::process::{Outcome, Process};
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const INTERRUPTED: i32 = 130;

/// The command line with an environment of its own.
struct Cli {
    variables: Vec<(String, String)>,
}

impl Cli {
    fn at(url: &str) -> Self {
        Self { variables: Vec::new() }.with("DATABASE_URL", url)
    }

    /// On the database of a system that embeds with this provider.
    fn of(system: &System, provider: &Provider) -> Self {
        Self::at(system.database.url())
            .with("EMBEDDING_PROVIDER", "openai")
            .with("OPENAI_BASE_URL", &provider.url())
            .with("EMBEDDING_DIMENSIONS", "16")
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        let pairs = self.variables.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    async fn start(&self, line: &str) -> Process {
        Process::spawn("cronvec", &words(line), &self.environment()).await
    }

    /// Runs a line, cut at its spaces, with nothing on standard input and no terminal.
    async fn run(&self, line: &str) -> Outcome {
        whole(self.start(line).await).await
    }

    async fn run_reading(&self, line: &str, input: &str) -> Outcome {
        whole(Process::spawn_reading("cronvec", &words(line), &self.environment(), input).await).await
    }

    /// What it answers with `--json` when all is well: a line an object, and nothing else.
    async fn lines(&self, line: &str) -> Vec<Value> {
        let outcome = self.run(&format!("{line} --json")).await;
        assert_eq!(outcome.code(), Some(DONE), "{line}: {outcome:?}");
        objects(&outcome)
    }

    /// The same where one object is all.
    async fn object(&self, line: &str) -> Value {
        let mut lines = self.lines(line).await;
        assert_eq!(lines.len(), 1, "{line}: {lines:?}");
        lines.remove(0)
    }

    /// Says these words on standard error, nothing on standard output, and ends with this code.
    async fn refuses(&self, line: &str, code: i32, said: &[&str]) -> Outcome {
        let outcome = self.run(line).await;
        assert_eq!(outcome.code(), Some(code), "{line}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{line}");
        for words in said {
            assert!(outcome.stderr.contains(words), "{line} says {}", outcome.stderr);
        }
        outcome
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').filter(|word| !word.is_empty()).collect()
}

/// Its end; the database's password is in nothing that it ever said.
async fn whole(mut process: Process) -> Outcome {
    let outcome = process.outcome().await;
    let (_, password) = server().await.credentials();
    assert!(!format!("{outcome:?}").contains(password), "{outcome:?}");
    outcome
}

fn objects(outcome: &Outcome) -> Vec<Value> {
    let lines = outcome.stdout.lines();
    lines
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(value.is_object(), "{line}");
            value
        })
        .collect()
}

/// A folder of one's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("cronvec-cli-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The path of a new file with this in it.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn help_is_done_and_wrong_usage_is_2() {
    let cli = Cli { variables: Vec::new() };
    let help = cli.run("--help").await;
    assert_eq!((help.code(), help.stderr.as_str()), (Some(DONE), ""));
    for verb in [
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
    assert_eq!(applied.len(), 2);
    assert_eq!(applied[0], json!({"version": 1, "name": "queue", "applied": true}));
    assert_eq!(cli.lines("migrate up").await.len(), 0, "there is nothing left to do");
    assert!(cli.run("migrate up").await.stdout.contains("up to date"));
    let all = cli.lines("migrate status").await;
    assert!(
        all.len() == 2 && all.iter().all(|migration| migration["applied"] == true),
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
    for (version, said) in [(9, "use a newer cronvec"), (-1, "run: cronvec migrate up")] {
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
    assert_eq!(one.len() + two.len(), 2, "each was applied once");
    assert_eq!(cli.object("migrate verify").await["ok"], true);
}

/// What is stored of a project's record.
async fn stored(system: &System, id: &str) -> Value {
    let row = format!("SELECT jsonb_build_array(content, metadata) FROM cronvec.records WHERE id = '{id}'");
    system.value(&row).await
}

#[tokio::test]
async fn ingest_takes_ndjson_and_tells_what_it_rejects_by_line() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let text = "{\"id\":\"a\",\"content\":\"Water the tomatoes.\",\"metadata\":{\"topic\":\"garden\"}}\n\
                nonsense\n\
                \n\
                {\"id\":\"b\",\"content\":\"\"}\n\
                {\"content\":\"no id\"}\n\
                {\"id\":\"c\",\"content\":\"Oil the bicycle's chain.\"}\n";
    let file = folder.file("records.ndjson", text);
    let outcome = cli.run(&format!("ingest {file} --wait --json")).await;
    assert_eq!(outcome.code(), Some(FAILED), "some were rejected: {outcome:?}");
    let [result] = &objects(&outcome)[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!((&result["savedCount"], &result["skippedCount"]), (&json!(2), &json!(0)));
    let rejected: Vec<(u64, &Value)> = result["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rejected| {
            assert!(!rejected["reason"].as_str().unwrap().is_empty());
            (rejected["line"].as_u64().unwrap(), &rejected["id"])
        })
        .collect();
    assert_eq!(rejected, [(2, &Value::Null), (4, &json!("b")), (5, &Value::Null)]);
    assert_eq!(
        stored(&system, "a").await,
        json!(["Water the tomatoes.", {"topic": "garden"}])
    );

    let good = folder.file("good.ndjson", text.lines().next().unwrap());
    let again = cli.object(&format!("ingest {good} --wait")).await;
    assert_eq!(again, json!({"savedCount": 0, "skippedCount": 1, "rejected": []}));
    let plain = cli.run(&format!("ingest {file} --wait")).await;
    assert!(plain.stdout.contains("0 saved, 2 skipped, 3 rejected"), "{plain:?}");
    assert!(plain.stdout.contains("line 4 (b): "), "{plain:?}");
    let coverage = cli.object("coverage").await;
    assert_eq!(
        coverage,
        json!({"project": PROJECT, "total": 2, "embedded": 2, "pending": 0, "quarantined": 0, "percent": 100.0})
    );
}

#[tokio::test]
async fn ingest_takes_csv_with_quotes_line_breaks_and_a_byte_order_mark() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let text = "\u{feff}key,body,topic,metadata\r\n\
                1,\"She said \"\"water them\"\", and left.\",garden,\"{\"\"page\"\": 7}\"\r\n\
                2,\"two\nlines, one text\",,\r\n\
                3,,empty,\r\n\
                4,plain,bicycle,\r\n";
    let file = folder.file("records.csv", text);
    let outcome = cli
        .run(&format!("ingest {file} --id key --text body --wait --json"))
        .await;
    assert_eq!(outcome.code(), Some(FAILED), "{outcome:?}");
    let result = &objects(&outcome)[0];
    assert_eq!(
        (&result["savedCount"], &result["rejected"][0]["line"]),
        (&json!(3), &json!(5))
    );
    assert_eq!(
        stored(&system, "1").await,
        json!(["She said \"water them\", and left.", {"topic": "garden", "page": 7}])
    );
    assert_eq!(
        stored(&system, "2").await,
        json!(["two\nlines, one text", {"topic": ""}])
    );
    assert_eq!(stored(&system, "4").await, json!(["plain", {"topic": "bicycle"}]));
    cli.refuses(
        &format!("ingest {file} --id key"),
        USAGE,
        &["no column 'content'", "--text"],
    )
    .await;
}

#[tokio::test]
async fn ingest_takes_json_and_standard_input_and_queues_a_job_for_each_piece() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    let array = folder.file(
        "records.json",
        "[\n{\"id\": \"a\",\n\"content\": \"one\\nrecord\"},\n{\"id\": \"b\", \"content\": \"two\"}]",
    );
    let job = cli.object(&format!("ingest {array} --priority -5")).await;
    assert_eq!(job["records"], 2);
    let queued = cli.object(&format!("job {}", job["jobId"].as_str().unwrap())).await;
    assert_eq!(
        (&queued["status"], &queued["priority"], &queued["jobType"]),
        (&json!("PENDING"), &json!(-5), &json!("INGEST_DATA"))
    );

    let many: String = (0..1500)
        .map(|n| format!("{{\"id\":\"r{n}\",\"content\":\"text number {n}\"}}\n"))
        .collect();
    let outcome = cli.run_reading("ingest - --no-embeddings --json", &many).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    let records: Vec<Value> = objects(&outcome).iter().map(|job| job["records"].clone()).collect();
    assert_eq!(records, [json!(1000), json!(500)]);
    let report = cli.object("tick ingestion").await;
    assert_eq!((&report["processed"], &report["records"]), (&json!(3), &json!(1502)));
    assert_eq!(stored(&system, "a").await, json!(["one\nrecord", {}]));
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.pending").await,
        2,
        "the others weren't to be embedded"
    );
    let empty = cli.run_reading("ingest - --json", "").await;
    assert_eq!((empty.code(), empty.stdout.as_str()), (Some(DONE), ""));
}

#[tokio::test]
async fn ingest_says_what_is_wrong_with_a_file_or_project() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url());
    let folder = Folder::new();
    cli.refuses(
        "ingest /no/such/file.ndjson",
        FAILED,
        &["cannot open /no/such/file.ndjson"],
    )
    .await;
    let broken = folder.file("broken.json", "[{\"id\":\"a\",");
    cli.refuses(
        &format!("ingest {broken}"),
        FAILED,
        &["broken.json", "the JSON is broken"],
    )
    .await;
    let good = folder.file("good.ndjson", "{\"id\":\"a\",\"content\":\"x\"}");
    cli.refuses(
        &format!("ingest {good} --project nobody"),
        FAILED,
        &["no project 'nobody'", "cronvec projects create"],
    )
    .await;
    system.create_project("another").await;
    cli.refuses(
        &format!("ingest {good}"),
        USAGE,
        &["which project?", "another, articles"],
    )
    .await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.job_queue").await, 0);
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
    let other = cli.object("tick vectorization --max-seconds 0.5").await;
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
    assert_eq!(cli.lines("migrate up").await.len(), 2, "it can be installed again");
}

/// Waits until nobody but these requests stands between a tick and its end, then signals.
async fn part_by(signal: impl Fn(&Process)) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    for n in 0..200 {
        system
            .put(PROJECT, &format!("r{n:03}"), &format!("text number {n}"))
            .await;
    }
    let gate = provider.hold();
    let cli = Cli::of(&system, &provider);
    let tick = cli.start("--json tick vectorization").await;
    provider.wait_open(4).await;
    gate.pass(4);
    eventually("the first four batches are stored", || async {
        system.count("SELECT count(*) FROM cronvec.embeddings").await == 100
    })
    .await;
    provider.wait_open(4).await;

    let begun = Instant::now();
    signal(&tick);
    let outcome = whole(tick).await;
    let took = begun.elapsed();
    assert_eq!(outcome.code(), Some(INTERRUPTED), "{outcome:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let [report] = &objects(&outcome)[..] else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (&report["records"], &report["stoppedBecause"]),
        (&json!(100), &json!("terminated"))
    );
    let job = system.value("SELECT to_jsonb(j) FROM cronvec.job_queue j").await;
    for (field, value) in [
        ("status", json!("PENDING")),
        ("attempts", json!(0)),
        ("crashes", json!(0)),
        ("lease_token", Value::Null),
        ("lease_expires_at", Value::Null),
    ] {
        assert_eq!(job[field], value, "{field} in {job}");
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.pending WHERE attempts = 0")
            .await,
        100
    );
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);

    gate.release();
    assert_eq!(
        cli.object("tick vectorization").await["records"],
        100,
        "the next one goes on at once"
    );
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn an_interrupted_tick_parts_from_its_job() {
    part_by(Process::interrupt).await;
}

#[tokio::test]
async fn a_terminated_tick_parts_from_its_job() {
    part_by(Process::terminate).await;
}

#[tokio::test]
async fn an_interrupted_ingestion_goes_on_where_it_stopped() {
    let system = System::embedding_in_process().await;
    let cli = Cli::at(system.database.url()).with("INGEST_BATCH_SIZE", "10");
    let text: String = (0..3000)
        .map(|n| format!("{{\"id\":\"r{n}\",\"content\":\"text number {n}\"}}\n"))
        .collect();
    cli.run_reading("ingest -", &text).await;
    let records = "SELECT count(*) FROM cronvec.records";
    let tick = cli.start("tick ingestion --json").await;
    eventually("some are stored", || async { system.count(records).await > 100 }).await;
    tick.interrupt();
    let outcome = whole(tick).await;
    assert_eq!(outcome.code(), Some(INTERRUPTED), "{outcome:?}");
    assert_eq!(objects(&outcome)[0]["stoppedBecause"], "terminated");
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING' OR attempts > 0 OR crashes > 0";
    assert_eq!(system.count(held).await, 0);
    assert!(system.count(records).await < 3000);
    cli.object("tick ingestion").await;
    let saved = "SELECT sum((result->>'savedCount')::int) FROM cronvec.job_queue WHERE status = 'COMPLETED'";
    assert_eq!(
        (system.count(saved).await, system.count(records).await),
        (3000, 3000),
        "none was stored twice"
    );
}

#[tokio::test]
async fn an_interrupted_ingest_leaves_its_job_to_the_next() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    let gate = provider.hold();
    let text: String = (0..60)
        .map(|n| format!("{{\"id\":\"r{n}\",\"content\":\"text number {n}\"}}\n"))
        .collect();
    let folder = Folder::new();
    let file = folder.file("records.ndjson", &text);
    let line = format!("ingest {file} --wait");
    let ingest = cli.start(&line).await;
    provider.wait_open(3).await;
    ingest.interrupt();
    let outcome = whole(ingest).await;
    assert_eq!(
        (outcome.code(), outcome.stdout.as_str()),
        (Some(INTERRUPTED), ""),
        "{outcome:?}"
    );
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING' OR attempts + crashes > 0";
    assert_eq!(system.count(held).await, 0);
    gate.release();
    assert_eq!(cli.object(&line).await["skippedCount"], 60);
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn after_a_kill_the_next_run_waits_for_the_dead_ones_lease_and_goes_on() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    let cli = Cli::of(&system, &provider);
    let gate = provider.hold();
    let folder = Folder::new();
    let file = folder.file("records.ndjson", "{\"id\":\"a\",\"content\":\"text\"}");
    let line = format!("ingest {file} --wait");
    let mut killed = cli.start(&line).await;
    provider.wait_open(1).await;
    killed.kill().await;
    gate.release();
    let mut next = cli.start(&line).await;
    eventually("it waits", || {
        let waits = next.stderr().contains("another worker holds the job") || next.ended().is_some();
        async move { waits }
    })
    .await;
    system.expire_leases().await;
    let outcome = whole(next).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn two_demos_on_one_database_both_succeed() {
    let database = Database::empty().await;
    let cli = Cli::at(database.url());
    cli.refuses("demo --exit", USAGE, &["DATABASE_URL is set", "--yes"])
        .await;
    let (one, two) = tokio::join!(cli.run("demo --exit --yes"), cli.run("demo --exit --yes --json"));
    assert_eq!((one.code(), two.code()), (Some(DONE), Some(DONE)), "{one:?} {two:?}");
    assert!(
        one.stdout.contains("100.0") && one.stdout.contains("watering-tomatoes"),
        "{one:?}"
    );
    let steps = objects(&two);
    let embedded = steps.iter().find(|step| step["step"] == "embedded").unwrap();
    assert_eq!(
        (&embedded["coverage"]["percent"], &embedded["coverage"]["pending"]),
        (&json!(100.0), &json!(0))
    );
    assert_eq!(steps.iter().filter(|step| step["step"] == "searched").count(), 5);
    for outcome in [one, two] {
        assert!(
            !outcome.stderr.contains("WARN") && !outcome.stderr.contains("ERROR"),
            "{}",
            outcome.stderr
        );
    }
}

/// The children of a process, each as id and the time it was started: ids come again.
fn children(of: u32) -> Vec<(u32, String)> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| Some((id, fields(id)?)))
        .filter(|(_, fields)| fields[1] == of.to_string())
        .map(|(id, fields)| (id, fields[19].clone()))
        .collect()
}

/// What `/proc/ID/stat` has behind the name: state, parent, … the 20th is the start.
fn fields(id: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

/// Root's server has one place; in a mount namespace of its own the demo finds this folder there instead.
const ELSEWHERE: &str = r#"mount --bind "$1" /var/tmp && shift && exec "$@""#;

/// Where a demo keeps a server of its own: nobody else's data, nobody else who keeps it running.
struct Place {
    folder: Folder,
    root: PathBuf,
    is_roots: bool,
}

impl Place {
    /// With the programs that the tests' server has, so that nothing is downloaded.
    async fn new() -> Self {
        let folder = Folder::new();
        let theirs = server().await.folder();
        let name = theirs.file_name().unwrap().to_str().unwrap();
        let is_roots = name == "cronvec-0";
        let root = folder.0.join(if is_roots { name } else { "cronvec" });
        std::fs::create_dir(&root).unwrap();
        let entries = std::fs::read_dir(theirs).unwrap().flatten().map(|entry| entry.path());
        let programs: Vec<PathBuf> = entries
            .filter(|path| path.display().to_string().contains("/postgres-"))
            .collect();
        let mut copy = std::process::Command::new("cp");
        assert!(copy.arg("-a").args(&programs).arg(&root).status().unwrap().success());
        Self { folder, root, is_roots }
    }

    /// A demo there.
    async fn demo(&self) -> Process {
        let cronvec = cronvec_tests::process::program("cronvec").await;
        let path = self.folder.0.to_str().unwrap();
        if self.is_roots {
            let line = [
                "--mount",
                "sh",
                "-c",
                ELSEWHERE,
                "sh",
                path,
                cronvec.to_str().unwrap(),
                "demo",
                "--exit",
            ];
            Process::spawn_at(std::path::Path::new("unshare"), &line, &[])
        } else {
            Process::spawn_at(&cronvec, &["demo", "--exit"], &[("XDG_CACHE_HOME", path)])
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_demos_share_a_local_server_and_leave_nothing_behind() {
    let place = Place::new().await;
    let mut demos = [place.demo().await, place.demo().await];
    let mut seen = std::collections::HashSet::new();
    let patience = Duration::from_secs(90);
    within(patience, "both have ended", || {
        let running = demos
            .iter_mut()
            .filter_map(|demo| demo.ended().is_none().then_some(demo.id()));
        let running: Vec<u32> = running.collect();
        seen.extend(running.iter().flat_map(|demo| children(*demo)));
        async move { running.is_empty().then_some(()) }
    })
    .await;
    let mut set_up = 0;
    for mut demo in demos {
        // Its server's password is another than the tests': nothing to look for.
        let outcome = demo.outcome().await;
        if place.is_roots && (outcome.stderr.starts_with("unshare:") || outcome.stderr.starts_with("mount:")) {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"\nSKIPPED: no mount namespace can be made here\n",
            );
            return;
        }
        assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
        assert!(
            !outcome.stderr.contains("WARN") && !outcome.stderr.contains("ERROR"),
            "{}",
            outcome.stderr
        );
        assert!(
            outcome.stdout.contains("100.0") && outcome.stdout.contains("watering-tomatoes"),
            "{outcome:?}"
        );
        set_up += usize::from(outcome.stderr.contains("creating the database's data folder"));
    }
    assert_eq!(set_up, 1, "they have one server");
    assert!(!seen.is_empty(), "each had a watcher");
    eventually("nothing that they started is left", || async {
        !seen
            .iter()
            .any(|(id, started)| fields(*id).is_some_and(|fields| fields[19] == *started))
    })
    .await;
    assert!(
        !place.root.join("cluster-18/data/postmaster.pid").exists(),
        "the server has stopped"
    );
    let names = place.names();
    assert!(!names.iter().any(|name| name.starts_with("tmp-")), "{names:?}");
}
