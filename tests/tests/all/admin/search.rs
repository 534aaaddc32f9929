//! `POST /api/search`

use std::collections::BTreeSet;

use cronvec_nouns::token::Role;
use cronvec_pipeline as pipeline;
use cronvec_secrets::Secrets;
use cronvec_tests::provider::{Answer as Said, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::Api;

#[tokio::test]
async fn a_search_finds_the_nearest_records_and_says_which_are_stale() {
    let api = Api::new().await;
    for (id, text, topic) in [
        ("tomatoes", "Tomatoes like a deep drink in the morning.", "garden"),
        ("knives", "A whetstone, water and patience make an edge.", "kitchen"),
    ] {
        let body = json!({"content": text, "metadata": {"topic": topic}});
        let path = format!("/api/projects/{PROJECT}/records/{id}");
        api.call(api.secret(Role::Producer), "PUT", &path, Some(body))
            .await
            .is(201);
    }
    api.system.vectorize().await;
    let question = json!({"project": PROJECT, "query": "vegetables in the garden"});
    let found = api.post(Role::Reader, "/api/search", question).await.is(200);
    let results = found["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    let first = results[0].as_object().unwrap();
    let fields: Vec<&str> = BTreeSet::from_iter(first.keys().map(String::as_str))
        .into_iter()
        .collect();
    assert_eq!(fields, ["content", "id", "metadata", "ordinal", "score", "stale"]);
    assert_eq!((&first["id"], &first["stale"]), (&json!("tomatoes"), &json!(false)));
    assert!(first["score"].as_f64() > results[1]["score"].as_f64());
    let filtered = json!({"project": PROJECT, "query": "vegetables", "limit": 1, "filter": {"topic": "kitchen"}});
    let found = api.post(Role::Reader, "/api/search", filtered).await.is(200);
    assert_eq!(found["results"][0]["id"], "knives");
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused_by_its_field() {
    let api = Api::new().await;
    for (field, question) in [
        ("query", json!({"project": PROJECT, "query": " "})),
        ("query", json!({"project": PROJECT, "query": "x".repeat(40_000)})),
        ("query", json!({"project": PROJECT, "query": ["x"]})),
        ("limit", json!({"project": PROJECT, "query": "x", "limit": 0})),
        ("limit", json!({"project": PROJECT, "query": "x", "limit": 101})),
        ("filter", json!({"project": PROJECT, "query": "x", "filter": "topic"})),
    ] {
        assert_eq!(
            api.post(Role::Reader, "/api/search", question).await.is(400)["field"],
            field
        );
    }
    let nowhere = json!({"project": "nowhere", "query": "x"});
    api.post(Role::Reader, "/api/search", nowhere).await.is(404);
}

#[tokio::test]
async fn a_provider_that_does_not_answer_or_rests_is_a_503_that_tells_nobody_where_it_is() {
    let provider = Provider::start().await;
    let api = Api::of(System::embedding_with(&provider, 16).await).await;
    let question = json!({"project": PROJECT, "query": "x"});
    provider.answer_next(1, Said::error(500, "server_error", "broken"));
    let refused = api.post(Role::Reader, "/api/search", question.clone()).await.is(503);
    assert!(!refused.to_string().contains("127.0.0.1"), "{refused}");
    api.post(Role::Reader, "/api/search", question.clone()).await.is(200);
    let embedding = &api.system.settings.embedding;
    let asked = pipeline::provider(&embedding.new_space, embedding, &Secrets::without_aws())
        .await
        .unwrap();
    let minute = std::time::Duration::from_secs(60);
    api.system
        .store
        .pause_endpoint(asked.endpoint(), minute, false, "slow down")
        .await
        .unwrap();
    let requests = provider.log().requests.len();
    api.post(Role::Reader, "/api/search", question).await.is(503);
    assert_eq!(provider.log().requests.len(), requests, "it isn't asked while it rests");
}
