//! `GET /api/openapi.json`

use std::collections::BTreeSet;

use cronvec_nouns::token::Role;
use cronvec_tests::system::PROJECT;
use serde_json::Value;

use super::Api;
use super::rights::{Operation, operations};

/// What needs no token, or begins and ends sessions.
const OPEN: [(&str, &str); 4] = [
    ("GET", "/healthz"),
    ("GET", "/api/health"),
    ("POST", "/admin/login"),
    ("POST", "/admin/logout"),
];

async fn document(api: &Api) -> Value {
    api.send(api.request("GET", "/api/openapi.json")).await.is(200)
}

#[tokio::test]
async fn the_document_has_every_operation_and_the_tests_call_every_one() {
    let api = Api::new().await;
    let document = document(&api).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let known: BTreeSet<(String, String)> = operations()
        .iter()
        .map(|operation| (operation.method, operation.path))
        .chain(OPEN)
        .map(|(method, path)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(described, known);
}

#[tokio::test]
async fn every_answer_has_a_status_that_the_document_lists_and_the_form_that_it_says() {
    let api = Api::new().await;
    fill(&api).await;
    let document = document(&api).await;
    for operation in operations() {
        let Operation {
            method,
            path,
            call,
            body,
            ..
        } = operation;
        let responses = &document["paths"][path][method.to_lowercase()]["responses"];
        for role in Role::ALL {
            let answer = api.call(api.secret(role), method, call, body.clone()).await;
            let status = answer.status.to_string();
            assert!(
                responses[&status].is_object(),
                "{method} {path}: {status} isn't in the document"
            );
            if answer.body != Value::Null {
                let schema = &responses[&status]["content"]["application/json"]["schema"];
                assert!(schema.is_object(), "{method} {path} {status}");
                fits(&document, schema, &answer.body).unwrap_or_else(|why| panic!("{method} {path} {status}: {why}"));
            }
        }
    }
}

/// Whether a value is what a schema says, as far as our schemas say anything.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        let schema = &document["components"]["schemas"][name];
        return fits(document, schema, value).map_err(|why| format!("{name}: {why}"));
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fits(document, part, value)?;
    }
    for kind in ["oneOf", "anyOf"] {
        if let Some(parts) = schema[kind].as_array() {
            let all: Vec<_> = parts.iter().map(|part| fits(document, part, value)).collect();
            if !all.iter().any(Result::is_ok) {
                return Err(format!("{value} is none of {all:?}"));
            }
        }
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        return Err(format!("{value} is none of {known:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![kind],
    };
    let is_number = kind == "integer" && wanted.contains(&"number");
    if !(wanted.contains(&kind) || is_number) {
        return Err(format!("{value} isn't {wanted:?}"));
    }
    if let Value::Object(fields) = value {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                return Err(format!("{name} is missing in {value}"));
            }
        }
        for (name, field) in fields {
            if let Some(property) = schema["properties"].get(name) {
                fits(document, property, field).map_err(|why| format!("{name}: {why}"))?;
            }
        }
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item)?;
    }
    Ok(())
}

/// So that lists aren't empty.
async fn fill(api: &Api) {
    for status in ["FAILED", "COMPLETED", "PENDING"] {
        api.job(PROJECT, status).await;
    }
    api.system.put_many(PROJECT, 5, "text").await;
    api.system.vectorize().await;
    api.system
        .run_sql(
            "INSERT INTO cronvec.quarantined_records
                 (space_id, project_id, record_id, content_hash, reason, message, attempts)
             SELECT (SELECT space_id FROM cronvec.project_spaces l WHERE l.project_id = p.id AND l.role = 'live'), p.id, 'x', '', 'too_long', 'no', 1 FROM cronvec.projects p;
             INSERT INTO cronvec.provider_pauses (endpoint, until, message) VALUES ('a|b|c|d', now() + interval '1 hour', 'm')",
        )
        .await;
    api.post(Role::Admin, "/api/admin/pause", serde_json::json!({}))
        .await
        .is(200);
    api.post(Role::Admin, "/api/admin/resume", serde_json::json!({}))
        .await
        .is(200);
}

#[tokio::test]
async fn every_operation_says_what_it_is_for_and_every_reference_leads_somewhere() {
    let api = Api::new().await;
    let document = document(&api).await;
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} has a summary");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} is there twice");
            for status in ["400", "500", "503"] {
                assert!(operation["responses"][status].is_object(), "{method} {path}: {status}");
            }
        }
    }
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    assert!(document["components"]["securitySchemes"]["token"].is_object());
}
