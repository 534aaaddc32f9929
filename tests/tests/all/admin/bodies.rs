//! `/api/ingest/jobs`: a job that comes in as several bodies.

use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{PROJECT, record};
use serde_json::{Value, json};
use shared::token::Role;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{Answer, Api};

const NDJSON: &str = "application/x-ndjson";

async fn open(api: &Api, options: Value) -> String {
    let opened = api.post(Role::Producer, "/api/ingest/jobs", options).await.is(201);
    opened["jobId"].as_str().unwrap().to_owned()
}

async fn put(api: &Api, job: &str, body: u32, kind: &str, text: impl Into<reqwest::Body>) -> Answer {
    let request = api
        .request("PUT", &format!("/api/ingest/jobs/{job}/bodies/{body}"))
        .bearer_auth(api.secret(Role::Producer))
        .header("content-type", kind)
        .body(text);
    api.send(request).await
}

async fn close(api: &Api, job: &str, bodies: u32) -> Answer {
    let path = format!("/api/ingest/jobs/{job}/close");
    api.post(Role::Producer, &path, json!({"bodies": bodies})).await
}

fn lines(records: impl IntoIterator<Item = Value>) -> String {
    records.into_iter().map(|record| format!("{record}\n")).collect()
}

#[tokio::test]
async fn a_job_runs_when_all_its_bodies_are_there_and_its_lines_count_through_them() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT, "priority": 10})).await;
    // In no order.
    let last = lines([record("d", "four"), json!({"id": "e"})]);
    let taken = put(&api, &job, 3, NDJSON, last).await.is(201);
    assert_eq!(taken, json!({"body": 3, "records": 2, "lines": 2, "rejectedCount": 0}));
    let first = format!("{}\n\nnonsense\n", record("a", "one"));
    put(&api, &job, 1, NDJSON, first).await.is(201);
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 0);
    close(&api, &job, 3).await.is(409);
    let csv = "id,content\nb,\"two\nlines\"\nc\n";
    let taken = put(&api, &job, 2, "text/csv", csv).await.is(201);
    assert_eq!((&taken["records"], &taken["lines"]), (&json!(1), &json!(4)));
    assert_eq!(
        (&taken["rejected"][0]["line"], &taken["rejectedCount"]),
        (&json!(4), &json!(1))
    );
    // One is left out of the count.
    close(&api, &job, 2).await.is(409);
    let handed = close(&api, &job, 3).await.is(202);
    assert_eq!(handed, json!({"jobId": job, "records": 5}));
    assert_eq!(close(&api, &job, 3).await.is(202), handed);
    api.system.ingest().await;
    let done = api.get(Role::Admin, &format!("/api/admin/jobs/{job}")).await.is(200);
    assert_eq!(done["status"], "COMPLETED", "{done}");
    assert_eq!(done["result"]["savedCount"], 3);
    let rejected = done["result"]["rejected"].as_array().unwrap();
    let at: Vec<i64> = rejected.iter().map(|one| one["line"].as_i64().unwrap()).collect();
    // Three lines, four of CSV, then the second.
    assert_eq!(at, [3, 9], "{rejected:?}");
    put(&api, &job, 4, NDJSON, "{}").await.is(409);
}

#[tokio::test]
async fn a_body_sent_twice_is_there_once_and_another_of_its_number_is_refused() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    let body = lines((0..2500).map(|n| record(&format!("r{n}"), "text")));
    let first = put(&api, &job, 1, NDJSON, body.clone()).await.is(201);
    assert_eq!(put(&api, &job, 1, NDJSON, body).await.is(200), first);
    put(&api, &job, 1, NDJSON, lines([record("x", "other")])).await.is(409);
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.staged").await, 3);
    close(&api, &job, 1).await.is(202);
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 2500);
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing_and_sent_again_each_record_is_stored_once() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    let text = "a long text ".repeat(100);
    let body = lines((0..4000).map(|n| record(&format!("r{n}"), &text)));
    let mut stream = TcpStream::connect(api.base.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "PUT /api/ingest/jobs/{job}/bodies/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: {NDJSON}\r\nContent-Length: {}\r\n\r\n",
        api.secret(Role::Producer),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body.as_bytes()[..body.len() * 3 / 4]).await.unwrap();
    // Pieces of it are written, and nobody else sees them.
    let writes =
        "SELECT count(*) FROM pg_locks WHERE relation = 'cronvec.staged'::regclass AND mode = 'RowExclusiveLock'";
    eventually("the body is being staged", async || api.system.count(writes).await == 1).await;
    drop(stream);
    eventually("the half body is given up", async || {
        api.system.count(writes).await == 0
    })
    .await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.staged").await, 0);
    close(&api, &job, 1).await.is(409);
    put(&api, &job, 1, NDJSON, body).await.is(201);
    close(&api, &job, 1).await.is(202);
    api.system.ingest().await;
    let done = api.get(Role::Admin, &format!("/api/admin/jobs/{job}")).await.is(200);
    assert_eq!(done["result"]["savedCount"], 4000, "{done}");
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 4000);
}

#[tokio::test]
async fn twenty_megabytes_come_in_as_four_bodies() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT, "generateEmbeddings": false})).await;
    let text = "a text of some length ".repeat(90);
    let mut bytes = 0;
    for body in 1..=4_u32 {
        let body_text = lines((0..2500).map(|n| record(&format!("r{body}-{n}"), &text)));
        bytes += body_text.len();
        put(&api, &job, body, NDJSON, body_text).await.is(201);
    }
    assert!(bytes >= 20_000_000, "{bytes}");
    assert_eq!(close(&api, &job, 4).await.is(202)["records"], 10_000);
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 10_000);
    let done = api.get(Role::Admin, &format!("/api/admin/jobs/{job}")).await.is(200);
    assert_eq!(done["status"], "COMPLETED", "{done}");
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.pending").await, 0);
}

#[tokio::test]
async fn an_open_job_waits_whatever_is_done_to_it_and_goes_after_a_day() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    put(&api, &job, 1, NDJSON, lines([record("a", "one")])).await.is(201);
    for path in ["/api/admin/pause", "/api/admin/resume"] {
        api.post(Role::Admin, path, json!({"project": PROJECT})).await.is(200);
    }
    for path in ["cancel", "retry"] {
        let path = format!("/api/admin/queue/{path}?jobId={job}");
        api.post(Role::Admin, &path, Value::Null).await.is(200);
    }
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 0);
    let jobs = "SELECT count(*) FROM cronvec.job_queue";
    let clean = async || {
        let options = shared::call::CallOptions::default();
        let deadline = cronvec_tests::system::minute();
        api.system.cleanup().run(options, deadline).await.unwrap().processed
    };
    assert_eq!((clean().await, api.system.count(jobs).await), (0, 1));
    let back = "UPDATE cronvec.open_jobs SET opened_at = now() - interval '25 hours'";
    api.system.run_sql(back).await;
    assert_eq!((clean().await, api.system.count(jobs).await), (1, 0));
    put(&api, &job, 2, NDJSON, "{}").await.is(404);
}

#[tokio::test]
async fn a_cancelled_job_is_not_closed() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    put(&api, &job, 1, NDJSON, lines([record("a", "one")])).await.is(201);
    let path = format!("/api/admin/queue/cancel?jobId={job}");
    api.post(Role::Admin, &path, Value::Null).await.is(200);
    close(&api, &job, 1).await.is(409);
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 0);
}

#[tokio::test]
async fn the_options_are_those_of_the_job_and_a_key_opens_it_once() {
    let api = Api::new().await;
    let options = json!({"project": PROJECT, "priority": -10, "maxAttempts": 7, "scheduledFor": "2035-01-01T00:00:00Z",
        "idempotencyKey": "k"});
    let job = open(&api, options.clone()).await;
    let again = api.post(Role::Producer, "/api/ingest/jobs", options).await.is(200);
    assert_eq!(again["jobId"], job);
    let other = json!({"project": PROJECT, "idempotencyKey": "k"});
    api.post(Role::Producer, "/api/ingest/jobs", other).await.is(409);
    put(&api, &job, 1, NDJSON, lines([record("a", "one")])).await.is(201);
    close(&api, &job, 1).await.is(202);
    let row = "SELECT jsonb_build_array(priority, max_attempts, scheduled_for, turn) FROM cronvec.job_queue";
    assert_eq!(
        api.system.value(row).await,
        json!([-10, 7, "2035-01-01T00:00:00+00:00", null])
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_and_stages_nothing() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    put(&api, &job, 1, "application/json", "{}").await.is(415);
    put(&api, &job, 1, "text/csv", "name,text\na,b\n").await.is(400);
    put(&api, &job, 0, NDJSON, "{}").await.is(400);
    put(&api, &job, 10_001, NDJSON, "{}").await.is(400);
    put(&api, "999", 1, NDJSON, "{}").await.is(404);
    close(&api, &job, 0).await.is(400);
    close(&api, "999", 1).await.is(404);
    // A job that came in at once takes none.
    let plain = api.job(PROJECT, "PENDING").await.to_string();
    put(&api, &plain, 1, NDJSON, "{}").await.is(409);
    close(&api, &plain, 1).await.is(409);
    let nowhere = json!({"project": PROJECT, "records": []});
    assert_eq!(
        api.post(Role::Producer, "/api/ingest/jobs", nowhere).await.is(400)["field"],
        "records"
    );
    // Another project's job isn't there.
    api.system.create_project("other").await;
    let limited = api.limited(Role::Producer, &["other"]).await;
    let path = format!("/api/ingest/jobs/{job}/close");
    api.call(&limited, "POST", &path, Some(json!({"bodies": 1})))
        .await
        .is(404);
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.ingest_bodies").await, 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_while_it_comes() {
    let api = Api::of(cronvec_tests::system::System::with(&[("MAX_CONTENT_BYTES", "1000")]).await).await;
    let job = open(&api, json!({"project": PROJECT})).await;
    // Its length isn't told; one byte more than what is taken.
    let most = 6 << 20;
    let line = lines([record("r", &"x".repeat(900))]);
    let mut body = line.repeat(most / line.len() + 1).into_bytes();
    body.truncate(most + 1);
    let mut request = format!(
        "PUT /api/ingest/jobs/{job}/bodies/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: {NDJSON}\r\nTransfer-Encoding: chunked\r\n\r\n",
        api.secret(Role::Producer)
    )
    .into_bytes();
    for chunk in body.chunks(60_000) {
        request.extend(format!("{:x}\r\n", chunk.len()).bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    let answer = api.raw(&request).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.staged").await, 0);
}
