//! What people send who mean no good: nothing of it runs, shows or stops anything.

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};

use super::Api;
use super::rights::operations;

const STRINGS: [&str; 8] = [
    "'; DROP SCHEMA cronvec CASCADE; --",
    "\" OR 1=1 --",
    "$1",
    "%' OR '%'='",
    "\\",
    "<script>alert(1)</script>",
    "../../../etc/passwd",
    "\u{202e}\u{feff}\u{10ffff}",
];

/// The same with every text in it replaced.
fn replaced(value: &Value, text: &str) -> Value {
    match value {
        Value::String(_) => json!(text),
        Value::Array(all) => all.iter().map(|one| replaced(one, text)).collect(),
        Value::Object(all) => all
            .iter()
            .map(|(name, one)| (name.clone(), replaced(one, text)))
            .collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn sql_in_every_string_is_a_string() {
    let api = Api::new().await;
    api.system.put(PROJECT, "a", "one").await;
    let queries = [
        "/api/admin/jobs?search=",
        "/api/admin/jobs?status=",
        "/api/admin/jobs?type=",
        "/api/admin/jobs?project=",
        "/api/admin/jobs?before=",
        "/api/admin/jobs?limit=",
        "/api/admin/jobs/",
        "/api/admin/quarantine?reason=",
        "/api/admin/quarantine?project=",
        "/api/admin/quarantine?after=",
        "/api/admin/audit?after=",
        "/api/admin/throughput?window=",
        "/api/admin/backfill?project=",
        "/api/admin/tokens?all=",
    ];
    for text in STRINGS {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in queries {
            let answer = api.get(Role::Admin, &format!("{path}{encoded}")).await;
            assert!(answer.status < 500, "{path}{text}: {answer:?}");
        }
        for operation in operations() {
            let Some(body) = operation.body else { continue };
            let answer = api
                .call(
                    api.secret(Role::Admin),
                    operation.method,
                    operation.call,
                    Some(replaced(&body, text)),
                )
                .await;
            assert!(answer.status < 500, "{} {text}: {answer:?}", operation.path);
        }
        let path = format!("/api/projects/{encoded}/records/{encoded}");
        for method in ["GET", "DELETE"] {
            assert!(api.call(api.secret(Role::Admin), method, &path, None).await.status < 500);
        }
    }
    assert_eq!(
        api.system
            .count("SELECT count(*) FROM cronvec.records WHERE id = 'a'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_nul_byte_is_refused_wherever_it_stands() {
    let api = Api::new().await;
    for path in [
        "/api/admin/jobs?project=%00",
        "/api/admin/jobs?search=%00",
        "/api/admin/quarantine?reason=%00",
        "/api/admin/backfill?project=%00",
        "/api/projects/%00/records/a",
    ] {
        api.get(Role::Admin, path).await.is(400);
    }
    for operation in operations() {
        let Some(body) = operation.body else { continue };
        let hostile = replaced(&body, "\u{0}");
        if hostile == body {
            // There is no text in it.
            continue;
        }
        let answer = api
            .call(api.secret(Role::Admin), operation.method, operation.call, Some(hostile))
            .await;
        assert!([200, 400].contains(&answer.status), "{}: {answer:?}", operation.path);
    }
}

#[tokio::test]
async fn paths_that_lead_elsewhere_lead_nowhere() {
    let api = Api::new().await;
    let head = format!(
        "HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {}\r\n\r\n",
        api.secret(Role::Admin)
    );
    for path in [
        "/api/../api/me",
        "//api/me",
        "/api//me",
        "/api/me/",
        "/api/me%2F..%2Fme",
        "/API/ME",
        "/api/admin/../me",
        "/api/%6de/x",
        "/.git/config",
        "/api/admin/jobs/1/../../tokens",
    ] {
        let answer = api.raw(format!("GET {path} {head}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn no_header_of_an_answer_is_written_by_who_asks() {
    let api = Api::new().await;
    for path in [
        "/api/me%0d%0aX-Evil:%20yes",
        "/%0d%0aSet-Cookie:%20a=b",
        "/api/admin/jobs?search=%0d%0aX-Evil:%20yes",
    ] {
        let answer = api.get(Role::Admin, path).await;
        assert!(
            !answer.headers.contains_key("x-evil") && !answer.headers.contains_key("set-cookie"),
            "{answer:?}"
        );
    }
    let name = "evil\r\nset-cookie: a=b";
    let answer = api
        .post(Role::Admin, "/api/admin/projects", json!({"name": name}))
        .await;
    assert!(!answer.headers.contains_key("set-cookie"));
    answer.is(201);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_never_comes_is_no_more_than_a_refusal() {
    let api = Api::new().await;
    let head = format!(
        "POST /api/search HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n",
        api.secret(Role::Admin)
    );
    let answer = api
        .raw(format!("{head}content-length: 10000000000\r\n\r\n{{").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = api.raw(format!("{head}content-length: -1\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let answer = api
        .raw(format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n").as_bytes())
        .await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    api.get(Role::Admin, "/api/me").await.is(200);
}
