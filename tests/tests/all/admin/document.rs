//! `GET /api/openapi.json`

use std::collections::BTreeSet;

use serde_json::Value;
use shared::token::Role;

use super::Api;
use super::rights::{Operation, operations};

/// What needs no token, or begins and ends sessions.
const OPEN: [(&str, &str); 3] = [
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
async fn every_answer_has_a_status_that_the_document_lists_and_json_where_it_says_so() {
    let api = Api::new().await;
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
                assert!(
                    responses[&status]["content"]["application/json"].is_object(),
                    "{method} {path} {status}"
                );
            }
        }
    }
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
