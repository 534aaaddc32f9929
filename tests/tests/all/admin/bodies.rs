//! `/api/ingest/jobs`: a job that comes in as several bodies.

use cronvec_nouns::token::Role;
use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{PROJECT, record};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let sending = Sending::begin(&api, &job, 1, &body).await;
    // Pieces of it are written, and nobody reads them.
    let pieces = "SELECT count(*) FROM cronvec.staged";
    eventually("the body is being staged", async || api.system.count(pieces).await > 0).await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.ingest_bodies").await, 0);
    drop(sending);
    eventually("the half body is given up", async || {
        api.system.count("SELECT count(*) FROM cronvec.uploads").await == 0
    })
    .await;
    assert_eq!(api.system.count(pieces).await, 0);
    close(&api, &job, 1).await.is(409);
    put(&api, &job, 1, NDJSON, body).await.is(201);
    close(&api, &job, 1).await.is(202);
    api.system.ingest().await;
    let done = api.get(Role::Admin, &format!("/api/admin/jobs/{job}")).await.is(200);
    assert_eq!(done["result"]["savedCount"], 4000, "{done}");
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 4000);
}

#[tokio::test]
async fn senders_that_take_their_time_keep_nobody_else_waiting() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    api.system.put(PROJECT, "a", "a text").await;
    let body = large_body("r");
    let mut sending = Vec::new();
    // More than the API has connections.
    for number in 1..=6 {
        sending.push(Sending::begin(&api, &job, number, &body).await);
    }
    eventually("all are on their way", async || {
        api.system
            .count("SELECT count(DISTINCT body) FROM cronvec.uploads")
            .await
            == 6
    })
    .await;
    let read = api
        .get(Role::Reader, &format!("/api/projects/{PROJECT}/records/a"))
        .await
        .is(200);
    assert_eq!(read["content"], "a text");
    // Nor does any of them hold a lock or a transaction.
    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL
        AND pid <> pg_backend_pid()";
    eventually("nothing is held", async || api.system.count(held).await == 0).await;
    for sending in sending {
        assert_eq!(sending.finish().await, 201);
    }
    assert_eq!(close(&api, &job, 6).await.is(202)["records"], 24_000);
}

#[tokio::test]
async fn what_a_process_that_died_had_staged_goes_with_the_next_cleanup() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    put(&api, &job, 2, NDJSON, lines([record("b", "two")])).await.is(201);
    let sending = Sending::begin(&api, &job, 1, &large_body("r")).await;
    let pieces = "SELECT count(*) FROM cronvec.staged WHERE piece < 0";
    // 3,000 lines of 1,240 bytes in pieces of 512 KiB: nothing more is staged, so that nothing touches it any more.
    eventually("all that came is staged", async || api.system.count(pieces).await == 7).await;
    // It is young yet.
    let clean = async || {
        let options = cronvec_call::CallOptions::default();
        let deadline = cronvec_tests::system::minute();
        api.system.cleanup().run(options, deadline).await.unwrap();
    };
    clean().await;
    assert!(api.system.count(pieces).await > 0);
    api.system
        .run_sql("UPDATE cronvec.uploads SET touched_at = now() - interval '2 hours'")
        .await;
    clean().await;
    assert_eq!(api.system.count(pieces).await, 0);
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.uploads").await, 0);
    // Its sender, should it live, is told; the other body is there.
    assert_eq!(sending.finish().await, 409);
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.staged").await, 1);
}

#[tokio::test]
async fn of_two_uploads_of_one_body_at_once_the_job_has_one() {
    let api = Api::new().await;
    for (other, status) in [("r", 200), ("x", 409)] {
        let job = open(&api, json!({"project": PROJECT})).await;
        let one = Sending::begin(&api, &job, 1, &large_body("r")).await;
        let two = Sending::begin(&api, &job, 1, &large_body(other)).await;
        eventually("both are on their way", async || {
            api.system.count("SELECT count(*) FROM cronvec.uploads").await == 2
        })
        .await;
        assert_eq!(two.finish().await, 201);
        assert_eq!(one.finish().await, status);
        assert_eq!(
            api.system
                .count("SELECT count(*) FROM cronvec.staged WHERE piece < 0")
                .await,
            0
        );
        assert_eq!(close(&api, &job, 1).await.is(202)["records"], 4000);
    }
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 8000);
}

#[tokio::test]
async fn a_job_is_closed_without_waiting_for_a_body_that_is_on_its_way() {
    let api = Api::new().await;
    let job = open(&api, json!({"project": PROJECT})).await;
    let wanted = Sending::begin(&api, &job, 2, &large_body("r")).await;
    let surplus = Sending::begin(&api, &job, 3, &large_body("r")).await;
    eventually("both are on their way", async || {
        api.system.count("SELECT count(*) FROM cronvec.uploads").await == 2
    })
    .await;
    put(&api, &job, 1, NDJSON, lines([record("a", "one")])).await.is(201);
    let missing = close(&api, &job, 2).await.is(409);
    assert!(missing["error"].as_str().unwrap().contains("body 2"), "{missing}");
    assert_eq!(wanted.finish().await, 201);
    assert_eq!(close(&api, &job, 2).await.is(202)["records"], 4001);
    // What comes too late is refused and leaves nothing.
    assert_eq!(surplus.finish().await, 409);
    assert_eq!(
        api.system
            .count("SELECT count(*) FROM cronvec.staged WHERE piece < 0")
            .await,
        0
    );
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 4001);
}

/// Several pieces.
fn large_body(prefix: &str) -> String {
    let text = "a long text ".repeat(100);
    lines((0..4000).map(|n| record(&format!("{prefix}{n}"), &text)))
}

/// A body of which three quarters are sent.
struct Sending {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Sending {
    async fn begin(api: &Api, job: &str, number: u32, body: &str) -> Self {
        let mut stream = TcpStream::connect(api.base.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let head = format!(
            "PUT /api/ingest/jobs/{job}/bodies/{number} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: {NDJSON}\r\nContent-Length: {}\r\n\r\n",
            api.secret(Role::Producer),
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (first, rest) = body.as_bytes().split_at(body.len() * 3 / 4);
        stream.write_all(first).await.unwrap();
        Self {
            stream,
            rest: rest.to_vec(),
        }
    }

    /// Sends what is left, as far as it is taken, and gives the answer's status.
    async fn finish(mut self) -> u16 {
        let _ = self.stream.write_all(&self.rest).await;
        let mut answer = [0; 12];
        self.stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..]).parse().unwrap()
    }
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
        let options = cronvec_call::CallOptions::default();
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
