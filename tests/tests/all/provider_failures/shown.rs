//! What a record shows is there until something newer is, whatever becomes of its texts.

use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{WIDTH, end_backoff, end_pauses, quarantine, with_records};

/// What this model reads; chunks are cut for more.
const READS_BYTES: usize = 500;

async fn with_a_long_text() -> (Provider, System, [String; 2]) {
    let (provider, system) = with_records(3).await;
    let reads = |inputs: &[String]| inputs.iter().any(|input| input.len() > READS_BYTES);
    provider.answer_when(
        reads,
        Answer::error(400, "api_error", "the input length exceeds the context length"),
    );
    // One that is a single chunk by the space's rule, and one of several.
    let texts = [100, 1_000].map(|words| (0..words).map(|n| format!("word-{n} ")).collect::<String>());
    for (id, text) in ["short", "long"].into_iter().zip(&texts) {
        system.put(PROJECT, id, text).await;
    }
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.remaining), (5, 0, false));
    (provider, system, texts)
}

async fn shown(system: &System) -> i64 {
    system
        .count("SELECT count(*) FROM cronvec.embeddings WHERE record_id IN ('short', 'long') AND NOT stale")
        .await
}

#[tokio::test]
async fn a_text_that_comes_back_before_a_tick_stays_shown_and_costs_no_request() {
    let (provider, system, texts) = with_a_long_text().await;
    let before = shown(&system).await;
    assert!(before > 4, "both were cut smaller: {before}");
    for (id, text) in ["short", "long"].into_iter().zip(&texts) {
        system.put(PROJECT, id, "another text").await;
        system.put(PROJECT, id, text).await;
    }
    let asked = provider.log().requests.len();
    // Whoever asks now loses what was shown, if that was thrown away before.
    provider.behave();
    provider.answer_when(|_| true, Answer::throttled(60));
    let report = system.vectorize().await;
    assert_eq!((report.remaining, report.failed), (false, 0));
    assert_eq!(provider.log().requests.len(), asked, "all of it is stored");
    assert_eq!(shown(&system).await, before);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
}

#[tokio::test]
async fn a_text_that_is_half_embedded_and_comes_back_is_completed_however_it_was_cut() {
    let (provider, system) = with_records(1).await;
    provider.answer_when(
        |inputs| inputs.iter().any(|input| input.len() > READS_BYTES),
        Answer::error(400, "api_error", "the input length exceeds the context length"),
    );
    let text: String = (0..100).map(|n| format!("word-{n} ")).collect();
    system.put(PROJECT, "short", &text).await;
    // It is cut smaller, and then only its beginning is stored.
    provider.answer_when(
        |inputs| inputs.iter().any(|input| input.contains("word-99")),
        Answer::throttled(1),
    );
    while system
        .count("SELECT count(*) FROM cronvec.chunks WHERE record_id = 'short'")
        .await
        == 0
    {
        end_pauses(&system).await;
        system.another_batch_size(1).await;
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.embedded WHERE record_id = 'short'")
            .await,
        0
    );
    // The mark is taken away and made anew: what was learnt of it is gone.
    system.run_sql("DELETE FROM cronvec.pending").await;
    provider.behave();
    let (backfill, _) = system
        .store
        .begin_backfill(system.store.project(PROJECT).await.unwrap().id, 0)
        .await
        .unwrap();
    while system
        .store
        .mark_page(backfill.id, 100)
        .await
        .unwrap()
        .is_some_and(|marked| !marked.is_through)
    {}
    end_pauses(&system).await;
    let report = system.vectorize().await;
    assert!(!report.remaining, "{report:?}");
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn what_an_unfinished_text_has_left_goes_when_the_next_one_ends_in_quarantine() {
    let (provider, system, _) = with_a_long_text().await;
    let text: String = (0..1_000).map(|n| format!("other-{n} ")).collect();
    system.put(PROJECT, "long", &text).await;
    provider.answer_when(
        |inputs| inputs.iter().any(|input| input.contains("other-999")),
        Answer::throttled(1),
    );
    let unfinished = "SELECT count(*) FROM cronvec.chunks c WHERE NOT EXISTS (
        SELECT FROM cronvec.embedded e WHERE e.record_id = c.record_id AND e.content_hash = c.content_hash)";
    while system.count(unfinished).await == 0 {
        end_pauses(&system).await;
        system.another_batch_size(1).await;
    }
    let before = system
        .count("SELECT count(*) FROM cronvec.embeddings WHERE record_id = 'long'")
        .await;
    provider.behave();
    provider.answer_containing("rejected by all", Answer::rejected());
    system.put(PROJECT, "long", "rejected by all").await;
    end_pauses(&system).await;
    end_backoff(&system).await;
    assert_eq!(system.vectorize().await.quarantined, 1);
    assert_eq!(system.count(unfinished).await, 0);
    let shown = system
        .count("SELECT count(*) FROM cronvec.embeddings WHERE record_id = 'long' AND stale")
        .await;
    assert_eq!(shown, before, "what it showed before is still found");
}

#[tokio::test]
async fn chunks_that_are_missing_are_told_and_embedded_again_by_a_backfill() {
    let (provider, system, _) = with_a_long_text().await;
    provider.behave();
    system
        .run_sql("DELETE FROM cronvec.chunks WHERE record_id = 'long' AND ordinal = 1")
        .await;
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded), (5, 4));
    let facts = system.store.record_facts(PROJECT, "long").await.unwrap();
    assert_eq!(facts.stored_chunks, facts.chunks.map(|chunks| i64::from(chunks) - 1));

    let project = system.store.project(PROJECT).await.unwrap();
    let (backfill, _) = system.store.begin_backfill(project.id, 0).await.unwrap();
    let marked = system.store.mark_page(backfill.id, 100).await.unwrap().unwrap();
    assert_eq!(marked.marked, 1);
    assert_eq!(system.vectorize().await.records, 1);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    assert_eq!(quarantine(&system).await, Vec::<serde_json::Value>::new());
    assert_eq!(
        json!(system.store.coverage(PROJECT).await.unwrap().percent),
        json!(100.0)
    );
}
