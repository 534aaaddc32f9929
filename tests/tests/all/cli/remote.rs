//! `--url` and `--token`: the command line at a deployment, over real HTTP. It has no database of its own there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use admin::{Admin, Pace};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use cronvec_nouns::token::{self, Role};
use cronvec_secrets::Secrets;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::folder::Folder;
use cronvec_tests::process::Outcome;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Cli, DONE, FAILED, USAGE, objects};

/// Serves on loopback until the test ends; gives the address.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    base
}

fn router(system: &System) -> Router {
    admin::router(Admin::in_process(
        system.settings.clone(),
        Secrets::without_aws(),
        4,
        Pace::Schedule,
    ))
}

async fn token_of(system: &System, role: Role, projects: Option<&[String]>) -> String {
    let name = format!("{role} {}", rand::random::<u32>());
    system.token(&name, role, projects).await
}

/// The command line at this address, with nothing else in its environment.
fn at(base: &str, token: &str) -> Cli {
    let nothing = Cli { variables: Vec::new() };
    nothing.with("CRONVEC_URL", base).with("CRONVEC_TOKEN", token)
}

async fn as_role(system: &System, role: Role) -> Cli {
    at(&serve(router(system)).await, &token_of(system, role, None).await)
}

/// Records that are embedded, wait, and stand aside; jobs that ended well and badly; an endpoint that rests.
async fn fill(system: &System) {
    let records = [
        json!({"id": "a", "content": "Tomatoes like a deep drink.", "metadata": {"topic": "gardening"}}),
        json!({"id": "b", "content": "A whetstone makes an edge."}),
        json!({"id": "", "content": "no id"}),
    ];
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    system.ingest().await;
    system.vectorize().await;
    system.put(PROJECT, "c", "a text that waits").await;
    system.create_project("empty").await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (id, job_type, project, project_id, status, result, payload, completed_at)
                 SELECT 1000000, 'INGEST_DATA', name, id, 'FAILED', '{\"error\": \"it broke\"}', '{\"asked\": 1}', now()
                 FROM cronvec.projects WHERE name = 'articles';
             INSERT INTO cronvec.quarantined_records (space_id, project_id, record_id, content_hash, reason, message, attempts)
                 SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = projects.id AND l.role = 'live'), id, n, '', 'rejected', 'no thanks', 3
                 FROM cronvec.projects, unnest(ARRAY['a', 'b', 'c']) AS n WHERE name = 'articles'",
        )
        .await;
    let rest = std::time::Duration::from_secs(1000);
    system
        .store
        .pause_endpoint("https://example.com/v1", rest, false, "429")
        .await
        .unwrap();
}

/// Without what passes between two looks.
fn still(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for name in ["ageMinutes", "secondsLeft"] {
                if let Some(Value::Number(_)) = fields.get(name) {
                    fields.insert(name.to_owned(), json!("some"));
                }
            }
            // A check counts seconds and milliseconds in words.
            if let Some(found) = fields.get("found").and_then(Value::as_str) {
                let words = found.replace(|digit: char| digit.is_ascii_digit(), "");
                fields.insert("found".to_owned(), json!(words));
            }
            if let Some(score) = fields.get("score").and_then(Value::as_f64) {
                fields.insert("score".to_owned(), json!(format!("{score:.12}")));
            }
            for field in fields.values_mut() {
                *field = still(field.take());
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = still(value.take())),
        _ => {}
    }
    value
}

#[tokio::test]
async fn what_is_read_at_a_deployment_is_what_the_database_says() {
    let system = System::embedding_in_process().await;
    fill(&system).await;
    let remote = as_role(&system, Role::Admin).await;
    let local = Cli::at(system.database.url());
    remote.lines("backfill --yes --project articles").await;
    for line in [
        "status",
        "status --limit 1",
        "stats",
        "stats --type INGEST_DATA --project articles --hours 2",
        "health",
        "coverage",
        "coverage --project articles",
        "recent",
        "recent --limit 1",
        "recent --status failed --type ingest-data --project articles",
        "failed",
        "failed --details",
        "failed --details --project articles --type VECTORIZE",
        "job 1000000",
        "audit",
        "audit --category backfill --limit 1",
        "audit --level error",
        "projects list",
        "search tomatoes --project articles --limit 2",
        "search tomatoes --project articles --filter {\"topic\":\"gardening\"}",
        "backfill status",
        "backfill status --project articles",
        "token list",
    ] {
        let json = format!("{line} --json");
        let (there, here) = (remote.run(&json).await, local.run(&json).await);
        assert_eq!(there.code(), here.code(), "{line}: {there:?} {here:?}");
        let read = |outcome: &Outcome| objects(outcome).into_iter().map(still).collect::<Vec<_>>();
        assert_eq!(read(&there), read(&here), "{line}");
        assert!(!here.stdout.is_empty() || line.contains("error"), "{line}");
        let (there, here) = (remote.run(line).await, local.run(line).await);
        // Both tell seconds that have passed.
        if !["status", "status --limit 1", "health"].contains(&line) {
            assert_eq!(there.stdout, here.stdout, "{line}");
        }
    }
}

#[tokio::test]
async fn lists_are_read_over_the_edges_of_pages() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', name, id, 'COMPLETED', now() FROM cronvec.projects, generate_series(1, 450);
             INSERT INTO cronvec.audit_log (level, category, message)
             SELECT 'info', CASE n % 3 WHEN 0 THEN 'queue' ELSE 'space' END, 'number ' || n FROM generate_series(1, 1300) AS n",
        )
        .await;
    let (remote, local) = (as_role(&system, Role::Manager).await, Cli::at(system.database.url()));
    for (line, found) in [
        ("recent --limit 450", 450),
        ("recent --limit 250", 250),
        ("audit --category queue --limit 430", 430),
        ("audit --category queue --limit 1000", 433),
    ] {
        let there = remote.lines(line).await;
        assert_eq!(there.len(), found, "{line}");
        assert_eq!(there, local.lines(line).await, "{line}");
    }
}

#[tokio::test]
async fn what_is_done_at_a_deployment_has_the_shape_and_the_effect_that_it_has_on_the_database() {
    let system = System::embedding_in_process().await;
    fill(&system).await;
    let remote = as_role(&system, Role::Admin).await;
    let is = async |line: &str, expected: Value| assert_eq!(remote.object(line).await, expected, "{line}");
    is("projects create kb", json!({"project": "kb", "state": "created"})).await;
    is("projects create kb", json!({"project": "kb", "state": "there already"})).await;
    is("projects pause kb", json!({"project": "kb", "state": "paused"})).await;
    let paused = "SELECT count(*) FROM cronvec.projects WHERE paused";
    assert_eq!(system.count(paused).await, 1);
    is("projects resume kb", json!({"project": "kb", "state": "resumed"})).await;
    let all = json!({"success": true, "stopped": ["articles", "empty", "kb"]});
    is("stop", all).await;
    assert_eq!(system.count(paused).await, 3);
    remote
        .refuses("start articles nowhere", FAILED, &["no project 'nowhere'"])
        .await;
    assert_eq!(system.count(paused).await, 3);
    is("start kb", json!({"success": true, "started": ["kb"], "lanesFreed": 0})).await;
    assert_eq!(system.count(paused).await, 2);
    is("retry 1000000", json!({"success": true, "jobId": "1000000"})).await;
    let many = json!({"success": true, "jobIds": ["1000000"], "passedOver": 0});
    is("cancel --type INGEST_DATA --yes", many.clone()).await;
    is("retry --status cancelled --project articles", many).await;
    is("cancel 1000000 --yes", json!({"success": true, "jobId": "1000000"})).await;
    remote.refuses("cancel 1000000 --yes", FAILED, &["400"]).await;
    remote.refuses("cancel 1000000", USAGE, &["--yes"]).await;
    remote.refuses("retry", USAGE, &["which jobs"]).await;
    remote.refuses("retry 77", FAILED, &["404", "no job 77"]).await;
    is(
        "replay a --project articles --yes",
        json!({"success": true, "replayed": 1}),
    )
    .await;
    is("purge --reason rejected --yes", json!({"success": true, "purged": 2})).await;
    is("purge --yes", json!({"success": true, "purged": 0})).await;
    remote
        .refuses("replay --rate 5 --yes", USAGE, &["--rate can't be asked"])
        .await;
    let begun = remote.object("backfill --project articles --yes").await;
    assert_eq!(
        (&begun["project"], &begun["priority"]),
        (&json!("articles"), &json!(-10))
    );
    let stopped = json!({"success": true, "stopped": [begun["operation"]]});
    is("backfill stop", stopped).await;
    remote
        .refuses("backfill --parallel 2 --yes", USAGE, &["--parallel can't be asked"])
        .await;
    remote.refuses("backfill rollback", USAGE, &["can't be asked"]).await;
    remote
        .refuses("projects remove kb --yes", USAGE, &["can't be asked"])
        .await;
    let made = remote.object("token create shop --role producer --project kb").await;
    assert_eq!((&made["role"], &made["projects"]), (&json!("producer"), &json!(["kb"])));
    assert!(made["token"].as_str().unwrap().starts_with(token::PREFIX));
    let revoked = json!({"success": true, "id": made["id"], "name": "shop"});
    is("token revoke shop --yes", revoked).await;
    remote
        .refuses("token revoke shop --yes", USAGE, &["no token 'shop'"])
        .await;
    let by_tokens = "SELECT count(*) FROM cronvec.audit_log WHERE metadata->>'who' LIKE 'token %'";
    assert!(system.count(by_tokens).await >= 12);
}

#[tokio::test]
async fn a_file_is_handed_in_as_one_job_in_several_bodies_and_keeps_its_lines() {
    let system = System::embedding_in_process().await;
    let remote = as_role(&system, Role::Producer).await;
    let folder = Folder::new();
    let long = "word ".repeat(600);
    let mut text: String = (1..=2_500)
        .map(|n| format!("{{\"id\":\"r{n}\",\"content\":\"text {n} {long}\"}}\n"))
        .collect();
    text.push_str("\n\nnonsense\n");
    let file = folder.file("many.ndjson", &text);
    let line = format!("ingest {file} --project articles --priority 3");
    let jobs = remote.lines(&line).await;
    let id = system.value("SELECT id::text FROM cronvec.job_queue").await;
    assert_eq!(jobs, [json!({"jobId": id, "records": 2_501})]);
    let bodies = "SELECT count(*) FROM cronvec.ingest_bodies";
    assert!(system.count(bodies).await > 1);
    system.ingest().await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 2_500);
    let rejected = system
        .value("SELECT result->'rejected'->0->'line' FROM cronvec.job_queue WHERE jsonb_array_length(result->'rejected') > 0")
        .await;
    assert_eq!(rejected, 2_503);
    let priorities = "SELECT count(*) FROM cronvec.job_queue WHERE job_type = 'INGEST_DATA' AND priority = 3";
    assert_eq!(system.count(priorities).await, 1);
    remote
        .refuses(&format!("{line} --wait"), USAGE, &["--wait can't be asked"])
        .await;
}

/// What goes wrong between a client and a deployment, call by call.
async fn between(State(calls): State<Arc<AtomicUsize>>, request: Request, next: Next) -> Response {
    let is_ingest = request.uri().path().starts_with("/api/ingest/jobs");
    match is_ingest.then(|| calls.fetch_add(1, Ordering::SeqCst)) {
        Some(0) => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response(),
        // It was done, and nobody hears of it: the opening, the body, the closing.
        Some(1 | 4 | 6) => {
            next.run(request).await;
            (StatusCode::BAD_GATEWAY, [(header::RETRY_AFTER, "0")]).into_response()
        }
        Some(3) => (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")]).into_response(),
        _ => next.run(request).await,
    }
}

#[tokio::test]
async fn a_body_whose_answer_was_lost_is_sent_again_and_stored_once() {
    let system = System::embedding_in_process().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let base = serve(router(&system).layer(from_fn_with_state(Arc::clone(&calls), between))).await;
    let remote = at(&base, &token_of(&system, Role::Producer, None).await);
    let input = "{\"id\":\"a\",\"content\":\"one\"}\n";
    let outcome = remote.run_reading("ingest - --project articles --json", input).await;
    assert_eq!(outcome.code(), Some(DONE), "{outcome:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 8, "3 calls, and 5 again");
    let jobs = "SELECT count(*) FROM cronvec.job_queue WHERE job_type = 'INGEST_DATA'";
    assert_eq!(system.count(jobs).await, 1);
    let id = system.value("SELECT id::text FROM cronvec.job_queue").await;
    assert_eq!(objects(&outcome), [json!({"jobId": id, "records": 1})]);
    // The same file later is another job: what is accepted later wins.
    remote.run_reading("ingest - --project articles", input).await;
    assert_eq!(system.count(jobs).await, 2);
}

/// Just before the first call that changes something its token is used up. Keeps what each such call was answered.
async fn used_up(State(answered): State<Arc<Mutex<Vec<u16>>>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let is_first = answered.lock().unwrap().is_empty();
    let mut has_room = is_first;
    while has_room {
        let mut another = Request::get("/api/me").body(Body::empty()).unwrap();
        let bearer = request.headers()[header::AUTHORIZATION].clone();
        another.headers_mut().insert(header::AUTHORIZATION, bearer);
        has_room = next.clone().run(another).await.status() != StatusCode::TOO_MANY_REQUESTS;
    }
    let answer = next.run(request).await;
    answered.lock().unwrap().push(answer.status().as_u16());
    answer
}

#[tokio::test]
async fn a_call_that_comes_too_early_is_made_again_when_it_is_told() {
    let system = System::with(&[("API_RATE_LIMIT", "20")]).await;
    let answered = Arc::default();
    let whole = Router::new().fallback_service(router(&system));
    let base = serve(whole.layer(from_fn_with_state(Arc::clone(&answered), used_up))).await;
    let remote = at(&base, &token_of(&system, Role::Admin, None).await);
    let made = remote.object("projects create kb").await;
    assert_eq!(made, json!({"project": "kb", "state": "created"}));
    assert_eq!(*answered.lock().unwrap(), [429, 201]);
}

#[tokio::test]
async fn a_limited_token_needs_no_project_where_it_reaches_one() {
    let system = System::embedding_in_process().await;
    fill(&system).await;
    let base = serve(router(&system)).await;
    let only = [PROJECT.to_owned()];
    let reader = at(&base, &token_of(&system, Role::Reader, Some(&only)).await);
    assert_eq!(reader.lines("search tomatoes").await.len(), 2);
    reader
        .refuses("search tomatoes --project empty", FAILED, &["403"])
        .await;
    let unlimited = at(&base, &token_of(&system, Role::Reader, None).await);
    unlimited
        .refuses("search tomatoes", USAGE, &["Name it with --project"])
        .await;
    let manager = at(&base, &token_of(&system, Role::Manager, Some(&only)).await);
    assert_eq!(manager.object("stats").await["quarantined"], 3);
    assert_eq!(manager.lines("failed --details").await.len(), 2);
    assert_eq!(manager.object("job 1000000").await["payload"], Value::Null);
    let two = [PROJECT.to_owned(), "empty".to_owned()];
    let manager = at(&base, &token_of(&system, Role::Manager, Some(&two)).await);
    manager.refuses("stats", USAGE, &["name one of them"]).await;
    assert_eq!(manager.object("stats --project empty").await["quarantined"], 0);
    assert_eq!(manager.lines("failed --details").await.len(), 2);
}

#[tokio::test]
async fn whoever_may_not_or_is_not_there_is_told_so_and_the_token_stays_unseen() {
    let system = System::embedding_in_process().await;
    let base = serve(router(&system)).await;
    let reader = token_of(&system, Role::Reader, None).await;
    let wrong = token::generate();
    let unseen = |outcome: &Outcome, token: &str| assert!(!format!("{outcome:?}").contains(token), "{outcome:?}");

    let refused = at(&base, &wrong)
        .refuses("status", USAGE, &["401", "a valid API token"])
        .await;
    unseen(&refused, &wrong);
    let refused = at(&base, &reader)
        .refuses("status", FAILED, &["403", "the role reader"])
        .await;
    unseen(&refused, &reader);
    let may_not = at(&base, &reader).refuses("retry 1", FAILED, &["403"]).await;
    unseen(&may_not, &reader);

    let by_option = Cli { variables: Vec::new() };
    let line = format!("status --url {base} --token {wrong}");
    unseen(&by_option.refuses(&line, USAGE, &["401"]).await, &wrong);

    // Nobody listens on a port that was just let go.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dead = at(&format!("http://{gone}"), &reader);
    unseen(&dead.refuses("status", FAILED, &["can't be reached"]).await, &reader);
    let health = dead.run("health --json").await;
    assert_eq!(health.code(), Some(FAILED));
    assert_eq!(objects(&health)[0]["checks"][0]["check"], "deployment");
    unseen(&health, &reader);

    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let elsewhere = serve(Router::new().fallback(async move || {
        counted.fetch_add(1, Ordering::SeqCst);
        "{}"
    }))
    .await;
    let redirecting =
        serve(Router::new().fallback(async move || (StatusCode::FOUND, [(header::LOCATION, format!("{elsewhere}/"))])))
            .await;
    let redirected = at(&redirecting, &reader)
        .refuses("coverage", FAILED, &["302", "isn't followed"])
        .await;
    unseen(&redirected, &reader);
    assert_eq!(calls.load(Ordering::SeqCst), 0);

    // Whoever repeats what it was sent, with an error or as an answer.
    let echo = serve(Router::new().fallback(async |request: Request| {
        let sent = request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
        (
            StatusCode::CONFLICT,
            axum::Json(json!({"success": false, "error": sent})),
        )
    }))
    .await;
    unseen(
        &at(&echo, &reader).refuses("status", FAILED, &["409", "Bearer …"]).await,
        &reader,
    );
    let other = serve(Router::new().fallback(async || "<html>hello</html>")).await;
    unseen(
        &at(&other, &reader).refuses("status", FAILED, &["can't be read"]).await,
        &reader,
    );
    unseen(&at(&base, &reader).run("status --help").await, &reader);
    unseen(&at(&base, &reader).run("status --nonsense").await, &reader);
}

#[tokio::test]
async fn what_a_deployment_cannot_be_asked_is_refused_before_anything_is_done() {
    let system = System::embedding_in_process().await;
    let both = Cli::at(system.database.url()).with("CRONVEC_URL", "http://127.0.0.1:9");
    let with_token = Cli::at(system.database.url())
        .with("CRONVEC_URL", "http://127.0.0.1:9")
        .with("CRONVEC_TOKEN", "cvk_x");
    for line in [
        "migrate up",
        "tick ingestion",
        "attach notes --text note",
        "explain a",
        "stuck",
        "metrics",
        "doctor",
        "sources",
        "reconcile",
        "spaces list",
        "reset-stuck",
        "clear --yes",
        "cleanup --yes",
        "provider test",
        "uninstall --yes",
        "serve",
    ] {
        let instead = if line == "serve" {
            "leave --url out"
        } else {
            "without --url"
        };
        with_token
            .refuses(line, USAGE, &["can't be asked of a deployment", instead])
            .await;
    }
    both.refuses("status", USAGE, &["CRONVEC_TOKEN"]).await;
    let plain = both.with("CRONVEC_TOKEN", "cvk_x");
    plain
        .refuses("status --url http://example.com", USAGE, &["must be https"])
        .await;
    assert_eq!(plain.run("completions bash").await.code(), Some(DONE));
    assert_eq!(plain.run("config check").await.code(), Some(DONE));
    // An empty variable means none.
    let empty = Cli::at(system.database.url()).with("CRONVEC_URL", "");
    assert_eq!(empty.run("status").await.code(), Some(DONE));
}
