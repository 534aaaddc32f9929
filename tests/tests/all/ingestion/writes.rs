//! What a write changes, and what it leaves alone.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::json;

use super::{enqueue, pending};

fn unembedded() -> EnqueueOptions {
    EnqueueOptions {
        embed: false,
        ..EnqueueOptions::default()
    }
}

#[tokio::test]
async fn unchanged_records_are_not_written_again_apart_from_their_number() {
    let system = System::embedding_in_process().await;
    let mut records: Vec<_> = (0..20)
        .map(|n| json!({"id": format!("r{n}"), "content": "a text", "metadata": {"n": n}}))
        .collect();
    enqueue(&system, &records).await;
    system.ingest().await;
    system.vectorize().await;
    let rows = "SELECT jsonb_agg(jsonb_build_array(id, content, metadata, embed, created_at, updated_at) ORDER BY id) FROM cronvec.records";
    let before = system.value(rows).await;

    let again = enqueue(&system, &records).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (0, 20));
    assert_eq!(system.value(rows).await, before);
    assert_eq!(
        system
            .count(&format!(
                "SELECT count(*) FROM cronvec.records WHERE accepted = {again}"
            ))
            .await,
        20
    );
    assert_eq!(pending(&system).await, 0);

    // Metadata alone: they are stored, and nothing is embedded.
    for changed in &mut records[..5] {
        changed["metadata"]["n"] = json!("changed");
    }
    enqueue(&system, &records).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (5, 15));
    assert_eq!(pending(&system).await, 0);
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.embeddings WHERE metadata->>'n' = 'changed' AND NOT stale")
            .await,
        5,
        "readers see them at once"
    );
}

#[tokio::test]
async fn records_that_nobody_wants_embedded_count_and_wait_for_a_write_that_wants_it() {
    let system = System::embedding_in_process().await;
    let records: Vec<_> = (0..10).map(|n| record(&format!("r{n}"), "a text")).collect();
    system.enqueue(PROJECT, &records, unembedded()).await;
    assert_eq!(system.ingest().await.records, 10);
    assert_eq!(pending(&system).await, 0);
    assert_eq!(system.vectorize().await.processed, 0);
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.pending), (10, 0, 0));

    // The same text by each way that wants it embedded.
    enqueue(&system, &records[..3]).await;
    assert_eq!(system.ingest().await.records, 3);
    system.put(PROJECT, "r3", "a text").await;
    assert_eq!(pending(&system).await, 4);
    assert_eq!(system.vectorize().await.records, 4);
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.percent), (10, 4, 40.0));

    // New text that nobody wants embedded: what was marked isn't any more, and the old vector is stale.
    system.put(PROJECT, "r0", "a text of today").await;
    assert_eq!(pending(&system).await, 1);
    let changed = [record("r0", "a text of tomorrow"), record("r1", "a text of tomorrow")];
    system.enqueue(PROJECT, &changed, unembedded()).await;
    system.ingest().await;
    assert_eq!(pending(&system).await, 0);
    assert_eq!(
        system
            .value("SELECT jsonb_agg(record_id ORDER BY record_id) FROM cronvec.embeddings WHERE stale")
            .await,
        json!(["r0", "r1"])
    );
}

#[tokio::test]
async fn the_text_of_a_deleted_record_does_not_come_back_with_a_new_one() {
    let system = System::embedding_in_process().await;
    for id in ["a", "b"] {
        system.put(PROJECT, id, "a secret of yesterday").await;
    }
    system.vectorize().await;
    for id in ["a", "b"] {
        system
            .run_sql(&format!("SELECT cronvec.delete_record('articles', '{id}')"))
            .await;
    }
    // Written anew before a worker has purged what was left of them.
    system
        .enqueue(PROJECT, &[record("a", "news of today")], unembedded())
        .await;
    enqueue(&system, &[record("b", "news of today")]).await;
    system.ingest().await;
    let shown = "SELECT coalesce(jsonb_agg(content), '[]') FROM cronvec.embeddings";
    assert_eq!(system.value(shown).await, json!([]));
    system.vectorize().await;
    assert_eq!(system.value(shown).await, json!(["news of today"]));
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.chunks WHERE content LIKE '%secret%'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_jobs_priority_stays_with_its_records_until_they_are_embedded() {
    let system = System::embedding_in_process().await;
    let urgent = EnqueueOptions {
        priority: 10,
        ..EnqueueOptions::default()
    };
    system.enqueue(PROJECT, &[record("a", "a text")], urgent).await;
    system.ingest().await;
    let priority = "SELECT priority FROM cronvec.pending";
    assert_eq!(system.value(priority).await, 10);
    system.put(PROJECT, "a", "a newer text").await;
    assert_eq!(system.value(priority).await, 10);
    enqueue(&system, &[record("a", "the newest text")]).await;
    system.ingest().await;
    assert_eq!(system.value(priority).await, 10);
}

#[tokio::test]
async fn an_unchanged_record_that_is_sent_again_more_urgently_waits_more_urgently_and_never_less() {
    let system = System::embedding_in_process().await;
    let of = |priority| EnqueueOptions {
        priority,
        ..EnqueueOptions::default()
    };
    let priority = "SELECT priority FROM cronvec.pending";
    for (sent, kept) in [(0, 0), (10, 10), (5, 10), (-10, 10)] {
        system.enqueue(PROJECT, &[record("a", "a text")], of(sent)).await;
        system.ingest().await;
        assert_eq!(system.value(priority).await, kept, "sent with {sent}");
    }
    system.vectorize().await;
    system.enqueue(PROJECT, &[record("a", "a text")], of(20)).await;
    system.ingest().await;
    assert_eq!(pending(&system).await, 0, "what is embedded isn't embedded again");
}
