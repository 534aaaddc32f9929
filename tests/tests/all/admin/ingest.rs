//! `POST /api/ingest`

use cronvec_nouns::token::Role;
use cronvec_tests::provider::{Answer as Said, Provider};
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::{Value, json};

use super::{Answer, Api};

async fn ingest(api: &Api, body: Value) -> Answer {
    api.post(Role::Producer, "/api/ingest", body).await
}

async fn send(api: &Api, kind: &str, query: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = api
        .request("POST", &format!("/api/ingest?{query}"))
        .bearer_auth(api.secret(Role::Producer))
        .header("content-type", kind)
        .body(body);
    api.send(request).await
}

async fn result(api: &Api, accepted: &Value) -> Value {
    let id = accepted["jobId"].as_str().unwrap();
    let sql = format!("SELECT result FROM cronvec.job_queue WHERE id = {id}");
    api.system.value(&sql).await
}

#[tokio::test]
async fn what_is_handed_in_becomes_a_job_whose_result_says_what_became_of_each_record() {
    let api = Api::new().await;
    let records = json!([record("a", "one"), {"id": "b"}, record("c", "three"), 7]);
    let accepted = ingest(&api, json!({"project": PROJECT, "records": records}))
        .await
        .is(202);
    assert_eq!(accepted["records"], 4);
    assert_eq!(accepted.as_object().unwrap().len(), 2, "{accepted}");
    api.system.ingest().await;
    let result = result(&api, &accepted).await;
    assert_eq!((&result["savedCount"], &result["skippedCount"]), (&json!(2), &json!(0)));
    let rejected = result["rejected"].as_array().unwrap();
    assert_eq!(rejected[0], json!({"line": 2, "id": "b", "reason": "no text"}));
    assert_eq!(rejected[1]["line"], 4);
}

#[tokio::test]
async fn the_options_are_those_of_the_job() {
    let api = Api::new().await;
    let body = json!({"project": PROJECT, "records": [record("a", "one")], "generateEmbeddings": false, "priority": 10,
        "maxAttempts": 7, "scheduledFor": "2035-01-01T00:00:00Z"});
    let accepted = ingest(&api, body).await.is(202);
    let id = accepted["jobId"].as_str().unwrap();
    let row = "SELECT jsonb_build_array(priority, max_attempts, scheduled_for, payload->'generateEmbeddings')
        FROM cronvec.job_queue WHERE id = ";
    assert_eq!(
        api.system.value(&format!("{row}{id}")).await,
        json!([10, 7, "2035-01-01T00:00:00+00:00", false])
    );
    api.system
        .run_sql("UPDATE cronvec.job_queue SET scheduled_for = now() - interval '1 second'")
        .await;
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 1);
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.pending").await, 0);
}

#[tokio::test]
async fn an_idempotency_key_gives_the_same_job_for_the_same_body_and_409_for_another() {
    let api = Api::new().await;
    let body = |text: &str| json!({"project": PROJECT, "records": [record("a", text)], "idempotencyKey": "k"});
    let first = ingest(&api, body("one")).await.is(202);
    assert_eq!(ingest(&api, body("one")).await.is(202), first);
    ingest(&api, body("two")).await.is(409);
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.job_queue").await, 1);
}

#[tokio::test]
async fn csv_and_ndjson_are_read_as_files_are_with_the_options_in_the_query() {
    let api = Api::new().await;
    let query = format!("project={PROJECT}&priority=-10&maxAttempts=2");
    let csv = "id,content,topic\na,\"two\nlines\",music\nb,short\n";
    let accepted = send(&api, "text/csv; charset=utf-8", &query, csv).await.is(202);
    assert_eq!(accepted["records"], 1);
    assert_eq!(accepted["rejected"][0]["line"], 4, "{accepted}");
    let ndjson = format!("{}\n\nnonsense\n{}\n", record("c", "three"), record("d", "four"));
    let accepted = send(&api, "application/x-ndjson", &query, ndjson).await.is(202);
    assert_eq!(accepted["records"], 3);
    api.system.ingest().await;
    assert_eq!(result(&api, &accepted).await["rejected"][0]["line"], 3);
    let stored = "SELECT jsonb_object_agg(id, metadata) FROM cronvec.records";
    assert_eq!(
        api.system.value(stored).await,
        json!({"a": {"topic": "music"}, "c": {}, "d": {}})
    );
    send(&api, "text/csv", &query, "name,text\na,b\n").await.is(400);
    send(&api, "text/csv", "priority=1", csv).await.is(400);
    send(&api, "text/csv", &format!("{query}&nonsense=1"), csv)
        .await
        .is(400);
}

#[tokio::test]
async fn a_large_body_is_staged_and_all_of_it_stored() {
    let api = Api::new().await;
    let text = "a long text ".repeat(200);
    let records: Vec<Value> = (0..500)
        .map(|n| record(&format!("r{n}"), &format!("{n} {text}")))
        .collect();
    let accepted = ingest(&api, json!({"project": PROJECT, "records": records}))
        .await
        .is(202);
    assert_eq!(accepted["records"], 500);
    assert!(api.system.count("SELECT count(*) FROM cronvec.staged").await > 1);
    api.system.ingest().await;
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.records").await, 500);
}

#[tokio::test]
async fn what_is_out_of_range_is_a_400_that_names_the_field() {
    let api = Api::new().await;
    let good = json!({"project": PROJECT, "records": [record("a", "one")]});
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (field, value) in [
        ("maxAttempts", json!(0)),
        ("maxAttempts", json!(101)),
        ("maxAttempts", json!("three")),
        ("priority", json!(i64::from(i32::MIN))),
        ("priority", json!(1e10)),
        ("scheduledFor", json!("tomorrow")),
        ("idempotencyKey", json!("")),
        ("idempotencyKey", json!("k".repeat(501))),
        ("records", json!([])),
        ("records", json!({})),
        ("generateEmbeddings", json!("no")),
        ("nonsense", json!(1)),
    ] {
        let refused = ingest(&api, with(field, value.clone())).await.is(400);
        assert!(
            refused["error"].as_str().unwrap().contains(field),
            "{field} {value}: {refused}"
        );
    }
    let many: Vec<Value> = (0..10_001).map(|n| json!(n)).collect();
    assert_eq!(
        ingest(&api, with("records", json!(many))).await.is(400)["field"],
        "records"
    );
    ingest(&api, with("project", json!(""))).await.is(400);
    ingest(&api, with("project", json!("x".repeat(201)))).await.is(400);
    assert_eq!(api.system.count("SELECT count(*) FROM cronvec.job_queue").await, 0);
}

#[tokio::test]
async fn bodies_that_are_no_bodies_are_refused_by_what_is_wrong_with_them() {
    let system = System::with(&[("MAX_CONTENT_BYTES", "1000")]).await;
    let api = Api::of(system).await;
    let query = format!("project={PROJECT}");
    for kind in ["text/plain", "", "application/json-seq", "multipart/form-data"] {
        send(&api, kind, &query, "{}").await.is(415);
    }
    let send = |body: String| send(&api, "application/json", "", body);
    send("{\"project\":\"articles\",\"records\":[{\"id\":".to_owned())
        .await
        .is(400);
    send(format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)))
        .await
        .is(400);
    send(format!(
        "{{\"records\":[{}{}]}}",
        "{\"a\":".repeat(65),
        "1".to_owned() + "}".repeat(65).as_str()
    ))
    .await
    .is(400);
    send("null".to_owned()).await.is(400);
    send(String::new()).await.is(400);
    send(format!(
        "{{\"project\":\"articles\",\"records\":[\"{}\"]}}",
        "x".repeat(2 << 20)
    ))
    .await
    .is(413);
    // Without a length that says so.
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
    let head = format!(
        "POST /api/ingest HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        api.secret(Role::Producer)
    );
    let answer = api.raw(format!("{head}{}", chunk.repeat(12)).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let gzip_bomb = {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        for n in 0..9_000 {
            writeln!(gzip, "{}", record(&n.to_string(), &"x".repeat(900))).unwrap();
        }
        gzip.finish().unwrap()
    };
    self::send(&api, "application/x-ndjson", &query, gzip_bomb)
        .await
        .is(413);
}

#[tokio::test]
async fn in_production_only_an_admin_makes_a_project_by_writing_to_it() {
    let api = Api::in_production().await;
    let body = json!({"project": "new", "records": [record("a", "one")]});
    ingest(&api, body.clone()).await.is(404);
    api.post(Role::Admin, "/api/ingest", body.clone()).await.is(202);
    ingest(&api, body.clone()).await.is(202);
    let development = Api::new().await;
    ingest(&development, body).await.is(202);
}

/// A system without a queue, whose texts are embedded by a fake provider.
async fn without_queue(provider: &Provider) -> Api {
    let off = [("EMBEDDING_QUEUE_ENABLED", "false")];
    Api::of(System::embedding_as(provider, 16, &off).await).await
}

#[tokio::test]
async fn without_the_queue_a_small_body_is_embedded_before_it_is_answered() {
    let provider = Provider::start().await;
    let api = without_queue(&provider).await;
    let mut records: Vec<Value> = (0..24)
        .map(|n| record(&format!("r{n}"), &format!("text {n}")))
        .collect();
    records.push(json!({"id": "bad"}));
    let body = json!({"project": PROJECT, "records": records});
    let stored = ingest(&api, body.clone()).await.is(200);
    assert_eq!(
        stored,
        json!({"records": 25, "embedded": 24, "savedCount": 24, "skippedCount": 0,
            "rejected": [{"line": 25, "id": "bad", "reason": "no text"}]})
    );
    api.system.assert_all_embedded_by_fake(PROJECT, 16).await;
    let requests = provider.log().requests.len();
    let again = ingest(&api, body).await.is(200);
    assert_eq!(
        (&again["embedded"], &again["savedCount"], &again["skippedCount"]),
        (&json!(24), &json!(0), &json!(24))
    );
    assert_eq!(provider.log().requests.len(), requests, "nothing is asked for twice");
    let many: Vec<Value> = (0..26).map(|n| record(&format!("r{n}"), "text")).collect();
    ingest(&api, json!({"project": PROJECT, "records": many})).await.is(413);
}

#[tokio::test]
async fn without_the_queue_a_providers_failure_stores_the_records_pending_for_the_next_tick() {
    let provider = Provider::start().await;
    let api = without_queue(&provider).await;
    provider.answer_next(1, Said::error(500, "server_error", "broken"));
    let body = json!({"project": PROJECT, "records": [record("a", "one"), record("b", "two")]});
    let stored = ingest(&api, body).await.is(200);
    assert_eq!((&stored["embedded"], &stored["savedCount"]), (&json!(0), &json!(2)));
    let due = "SELECT count(*) FROM cronvec.pending WHERE not_before <= now()";
    assert_eq!(api.system.count(due).await, 2);
    assert_eq!(api.system.vectorize().await.records, 2);
    api.system.assert_all_embedded_by_fake(PROJECT, 16).await;
}
