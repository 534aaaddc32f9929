use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::{Answer, Options, Provider, vector};
use reqwest::Response;
use serde_json::{Value, json};

async fn ask(provider: &Provider, inputs: &[&str], more: Value) -> reqwest::Result<Response> {
    let mut body = json!({"model": "m", "input": inputs});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let url = format!("{}/embeddings", provider.url());
    cronvec_tests::http::client()
        .post(url)
        .bearer_auth("key")
        .json(&body)
        .send()
        .await
}

async fn vectors(response: Response) -> Vec<(u64, Vec<f32>)> {
    let body: Value = response.json().await.unwrap();
    let items = body["data"].as_array().unwrap().iter();
    items
        .map(|item| {
            let vector = match &item["embedding"] {
                Value::String(text) => {
                    let bytes = STANDARD.decode(text).unwrap();
                    bytes
                        .as_chunks::<4>()
                        .0
                        .iter()
                        .map(|four| f32::from_le_bytes(*four))
                        .collect()
                }
                floats => serde_json::from_value(floats.clone()).unwrap(),
            };
            (item["index"].as_u64().unwrap(), vector)
        })
        .collect()
}

#[tokio::test]
async fn vectors_follow_from_the_text_in_either_encoding_and_any_width() {
    let provider = Provider::start().await;
    for width in [1, 256, 1536] {
        for format in ["float", "base64"] {
            let more = json!({"dimensions": width, "encoding_format": format});
            let got = vectors(ask(&provider, &["a", "b"], more).await.unwrap()).await;
            assert_eq!(got, [(0, vector("a", width)), (1, vector("b", width))]);
        }
    }
    let distinct: HashSet<Vec<u32>> = (0..1000)
        .map(|n| vector(&n.to_string(), 8).iter().map(|x| x.to_bits()).collect())
        .collect();
    assert_eq!(distinct.len(), 1000);
    let norm: f32 = vector("a", 1536).iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-4);
}

#[tokio::test]
async fn it_misbehaves_as_it_is_told_and_as_long() {
    let provider = Provider::start().await;
    provider.answer_containing("bad", Answer::rejected());
    provider.answer_next(2, Answer::throttled(7));
    for _ in 0..2 {
        let throttled = ask(&provider, &["good"], json!({})).await.unwrap();
        assert_eq!(
            (
                throttled.status().as_u16(),
                &throttled.headers()["retry-after"].to_str().unwrap()
            ),
            (429, &"7")
        );
    }
    assert_eq!(ask(&provider, &["good"], json!({})).await.unwrap().status(), 200);
    assert_eq!(
        ask(&provider, &["good", "a bad one"], json!({}))
            .await
            .unwrap()
            .status(),
        400
    );
    provider.behave();
    assert_eq!(
        ask(&provider, &["good", "a bad one"], json!({}))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn its_wrong_answers_are_wrong_in_the_way_they_say() {
    let provider = Provider::start().await;
    let base64 = json!({"encoding_format": "base64"});
    let mut answers = Vec::new();
    for answer in [
        Answer::Reversed,
        Answer::Fewer(1),
        Answer::NotANumber,
        Answer::Zero,
        Answer::Width(3),
    ] {
        provider.answer_next(1, answer);
        answers.push(vectors(ask(&provider, &["a", "b"], base64.clone()).await.unwrap()).await);
    }
    assert_eq!(answers[0], [(1, vector("b", 256)), (0, vector("a", 256))]);
    assert_eq!(answers[1].len(), 1);
    assert!(answers[2][0].1[0].is_nan());
    assert!(answers[3][0].1.iter().all(|x| *x == 0.0));
    assert!(answers[4].iter().all(|(_, vector)| vector.len() == 3));
    provider.answer_next(1, Answer::CutShort);
    assert!(ask(&provider, &["a"], json!({})).await.unwrap().bytes().await.is_err());
}

#[tokio::test]
async fn a_gate_holds_requests_and_the_log_remembers_them() {
    let provider = Provider::start().await;
    let gate = provider.hold();
    let requests = async {
        tokio::join!(
            ask(&provider, &["a", "b"], json!({})),
            ask(&provider, &["a"], json!({}))
        )
    };
    let test = async {
        provider.wait_open(2).await;
        assert_eq!(*provider.open_requests().borrow(), 2);
        gate.pass(1);
        eventually("one is let through", || async {
            *provider.open_requests().borrow() == 1
        })
        .await;
        gate.release();
    };
    let ((one, two), ()) = tokio::join!(requests, test);
    assert!(one.unwrap().status().is_success() && two.unwrap().status().is_success());
    let log = provider.log();
    assert_eq!((log.count("a"), log.count("b"), log.count("c")), (2, 1, 0));
    assert_eq!((log.inputs(), log.requests.len(), log.most_open), (3, 2, 2));
    assert_eq!(log.keys[0].as_deref(), Some("key"));
    assert!(
        ask(&provider, &["after"], json!({}))
            .await
            .unwrap()
            .status()
            .is_success()
    );
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_request_open() {
    let provider = Provider::start().await;
    provider.answer_next(1, Answer::Never);
    tokio::select! {
        answered = ask(&provider, &["a"], json!({})) => panic!("{answered:?}"),
        () = provider.wait_open(1) => {}
    }
    eventually("none is open", || async { *provider.open_requests().borrow() == 0 }).await;
    assert_eq!(provider.log().count("a"), 1);
}

#[tokio::test]
async fn the_instant_mode_answers_with_a_whole_batch() {
    let provider = Provider::with(Options {
        instant: true,
        dimensions: 16,
        ..Options::default()
    })
    .await;
    let got = vectors(ask(&provider, &["x", "y", "z"], json!({})).await.unwrap()).await;
    assert_eq!(got, [(0, vector("0", 16)), (1, vector("1", 16)), (2, vector("2", 16))]);
}
