//! Each provider, all the way: what holds of one holds of all.

use cronvec_tests::provider::{Answer, Options, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;
use vectorization::StoppedBecause;

use super::{end_pauses, id, pause, quarantine, text};

/// Its settings, the model's width, and the most inputs that it takes.
const KINDS: [(&str, &str, &str, usize, usize); 3] = [
    ("openai", "OPENAI_BASE_URL", "text-embedding-3-small", 16, 2048),
    ("ollama", "OLLAMA_BASE_URL", "all-minilm", 384, 2048),
    ("gemini", "GEMINI_BASE_URL", "gemini-embedding-001", 16, 100),
];

async fn of_kind((kind, variable, model, width, _): (&str, &str, &str, usize, usize)) -> (Provider, System) {
    let provider = Provider::with(Options {
        dimensions: width,
        ..Options::default()
    })
    .await;
    let url = if kind == "openai" {
        provider.url()
    } else {
        provider.origin()
    };
    let width = width.to_string();
    let system = System::with(&[
        ("EMBEDDING_PROVIDER", kind),
        (variable, &url),
        ("EMBEDDING_MODEL", model),
        ("EMBEDDING_DIMENSIONS", &width),
        ("EMBEDDING_BATCH_SIZE", "200"),
    ])
    .await;
    (provider, system)
}

#[tokio::test]
async fn records_are_embedded_with_every_provider_in_batches_that_it_takes() {
    for kind in KINDS {
        let (provider, system) = of_kind(kind).await;
        system.put_many(PROJECT, 250, "text number").await;
        let report = system.vectorize().await;
        assert_eq!((report.records, report.failed), (250, 0), "{kind:?}");
        system.assert_all_embedded_by_fake(PROJECT, kind.3).await;
        let most = provider.log().requests.iter().map(Vec::len).max();
        assert_eq!(most, Some(kind.4.min(200)), "{kind:?}");
    }
}

#[tokio::test]
async fn a_request_has_no_more_estimated_tokens_than_the_model_takes() {
    let kind = ("openai", "OPENAI_BASE_URL", "mistral-embed", 16, 128);
    let (provider, system) = of_kind(kind).await;
    // 499 to 501 estimated tokens each, of 16,000 that a request may have.
    let padding = "x".repeat(1_494);
    system.put_many(PROJECT, 99, &padding).await;
    assert_eq!(system.vectorize().await.records, 99);
    let sizes: Vec<usize> = provider.log().requests.iter().map(Vec::len).collect();
    assert_eq!(sizes.iter().max(), Some(&32), "{sizes:?}");
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn every_provider_sets_aside_cuts_smaller_and_rests_alike() {
    for kind in KINDS {
        let (provider, system) = of_kind(kind).await;
        for n in 0..30 {
            system.put(PROJECT, &id(n), &text(n)).await;
        }
        let words: String = (0..150).map(|n| format!("word-{n} ")).collect();
        system.put(PROJECT, "long", &words).await;
        provider.answer_containing(&text(7), Answer::rejected());
        let too_long = "The input token count exceeds the maximum number of tokens allowed (2048).";
        provider.answer_when(
            |inputs| inputs.iter().any(|input| input.len() > 400),
            Answer::error(400, "INVALID_ARGUMENT", too_long),
        );
        let report = system.vectorize().await;
        assert_eq!((report.records, report.quarantined), (30, 1), "{kind:?}");
        assert_eq!(
            quarantine(&system).await,
            [
                json!({"project": PROJECT, "record_id": id(7), "reason": "rejected", "attempts": 1,
                "message": "HTTP 400: an input is invalid"})
            ],
            "{kind:?}"
        );

        provider.behave();
        system.put(PROJECT, &id(7), "a text that pleases").await;
        provider.answer_next(1, Answer::throttled(7));
        assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Provider);
        assert_eq!(pause(&system).await["seconds"], 7, "{kind:?}");
        end_pauses(&system).await;
        system.vectorize().await;
        system.assert_all_embedded_by_fake(PROJECT, kind.3).await;
    }
}

#[tokio::test]
async fn documents_and_questions_have_the_prefixes_of_their_model() {
    let provider = Provider::with(Options {
        dimensions: 768,
        ..Options::default()
    })
    .await;
    let url = provider.origin();
    let variables = [("EMBEDDING_PROVIDER", "ollama"), ("OLLAMA_BASE_URL", url.as_str())];
    let system = System::with(&variables).await;
    system.put(PROJECT, "a", "a text").await;
    assert_eq!(system.vectorize().await.records, 1);
    let mut environment = vec![("DATABASE_URL", system.database.url())];
    environment.extend(variables);
    let line = ["search", "a question"];
    let outcome = cronvec_tests::process::Process::spawn("cronvec", &line, &environment)
        .await
        .outcome()
        .await;
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    let asked: Vec<String> = provider.log().requests.concat();
    assert_eq!(asked, ["search_document: a text", "search_query: a question"]);
}
