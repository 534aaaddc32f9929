use super::*;
use crate::{Connection, Provider, Purpose, Timeout};
use cronvec_nouns::chunk;
use cronvec_nouns::space::{ProviderKind, SpaceSpec};

fn spec() -> SpaceSpec {
    SpaceSpec {
        provider: ProviderKind::Static,
        model: "minilm-static-256".to_owned(),
        dimensions: 256,
        chunk_tokens: 512,
        chunk_overlap: 0,
        document_prefix: String::new(),
        query_prefix: String::new(),
    }
}

const ENOUGH: Timeout = Timeout {
    limit: std::time::Duration::from_secs(60),
    ours: false,
};

async fn embed(texts: &[&str]) -> Vec<Result<Vec<f32>, crate::InputFault>> {
    let provider = Provider::new(spec(), Connection::InProcess).unwrap();
    provider.embed(texts, Purpose::Document, ENOUGH).await.unwrap().vectors
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn texts_of_one_meaning_are_nearer_than_others() {
    let vectors: Vec<Vec<f32>> = embed(&[
        "a web browser",
        "program to view internet pages",
        "recipe for plum cake",
    ])
    .await
    .into_iter()
    .collect::<Result<_, _>>()
    .unwrap();
    assert!(
        vectors
            .iter()
            .all(|vector| vector.len() == 256 && (dot(vector, vector) - 1.0).abs() < 1e-3)
    );
    assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]));
}

#[tokio::test]
async fn a_text_without_a_known_word_is_the_texts_own_fault() {
    let vectors = embed(&["known words", "👩‍👩‍👧‍👦"]).await;
    assert!(vectors[0].is_ok());
    assert_eq!(vectors[1].as_ref().unwrap_err().reason, "no_known_words");
    let alone = embed(&["👩‍👩‍👧‍👦"]).await;
    assert_eq!(alone[0].as_ref().unwrap_err().reason, "no_known_words");
}

#[tokio::test]
async fn nothing_is_cut_from_a_long_text_and_large_requests_answer_the_same() {
    let cake = "plum cake ".repeat(600);
    let longer = format!("{cake} {}", "kernel module ".repeat(2_000));
    let vectors = embed(&[&cake, &longer]).await;
    let (cake, longer) = (vectors[0].as_ref().unwrap(), vectors[1].as_ref().unwrap());
    assert!(dot(cake, longer) < 0.95, "the end of the longer text counts");
    let alone = embed(&["plum cake"]).await;
    assert!(dot(cake, alone[0].as_ref().unwrap()) > 0.999);
}

#[test]
fn a_space_of_another_model_or_width_is_refused() {
    let other = SpaceSpec {
        model: "all-MiniLM-L6-v2".to_owned(),
        ..spec()
    };
    assert!(Provider::new(other, Connection::InProcess).is_err());
    assert!(
        Provider::new(
            SpaceSpec {
                dimensions: 384,
                ..spec()
            },
            Connection::InProcess
        )
        .is_err()
    );
}

#[test]
fn chunks_by_exact_count_are_within_the_window_with_the_prefix() {
    let spec = SpaceSpec {
        document_prefix: "passage: ".to_owned(),
        chunk_tokens: 64,
        ..spec()
    };
    let provider = Provider::new(spec, Connection::InProcess).unwrap();
    let text = "Counting words exactly keeps every chunk within the window, naïve or not.\r\n".repeat(100);
    let chunks = chunk::split(&text, provider.chunk_rules(), &|text| provider.count_tokens(text));
    assert!(chunks.len() > 10);
    assert!(
        chunks
            .iter()
            .all(|chunk| MiniLm.count_tokens(&format!("passage: {chunk}")) <= 64)
    );
    assert!(
        chunks[..chunks.len() - 1]
            .iter()
            .all(|chunk| MiniLm.count_tokens(chunk) > 32),
        "and not half empty"
    );
}
