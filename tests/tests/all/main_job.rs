//! The way of a record, end to end.

use cronvec_call::CallOptions;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, minute, record};
use vectorization::StoppedBecause;

#[tokio::test]
async fn records_go_in_and_come_out_as_vectors_of_their_texts() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 64).await;
    let records: Vec<_> = (0..600)
        .map(|n| record(&format!("r{n}"), &format!("text number {n} of many")))
        .collect();
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;

    let ingested = system.ingest().await;
    assert_eq!((ingested.processed, ingested.records), (1, 600));
    let report = system.vectorize().await;

    assert_eq!((report.records, report.failed, report.remaining), (600, 0, false));
    assert_eq!(report.stopped_because, StoppedBecause::Drained);
    system.assert_all_embedded_by_fake(PROJECT, 64).await;
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE status <> 'COMPLETED'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_file_that_comes_again_embeds_nothing_and_changed_texts_are_embedded_alone() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 64).await;
    let mut records: Vec<_> = (0..300)
        .map(|n| record(&format!("r{n}"), &format!("text number {n}")))
        .collect();
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    system.ingest().await;
    system.vectorize().await;
    let asked_before = provider.log().inputs();

    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    assert_eq!(system.ingest().await.skipped, 300);
    assert_eq!(system.vectorize().await.records, 0);
    assert_eq!(provider.log().inputs(), asked_before, "nothing was embedded again");

    for changed in &mut records[..100] {
        changed["content"] = format!("{} and more", changed["content"].as_str().unwrap()).into();
    }
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    assert_eq!(system.ingest().await.records, 100);
    assert_eq!(system.vectorize().await.records, 100);
    assert_eq!(provider.log().inputs(), asked_before + 100);
    system.assert_all_embedded_by_fake(PROJECT, 64).await;
}

#[tokio::test]
async fn deleting_records_removes_their_vectors() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 64).await;
    for n in 0..120 {
        system.put(PROJECT, &format!("r{n}"), &format!("text number {n}")).await;
    }
    system.vectorize().await;
    for n in 0..100 {
        system
            .run_sql(&format!("SELECT cronvec.delete_record('{PROJECT}', 'r{n}')"))
            .await;
    }
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.embeddings").await,
        20,
        "readers miss them at once"
    );
    let report = system.vectorize().await;
    assert_eq!(report.purged, 100);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.chunks").await, 20);
    system.assert_all_embedded_by_fake(PROJECT, 64).await;
}

#[tokio::test]
async fn one_text_in_many_records_is_embedded_once() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 64).await;
    for n in 0..700 {
        system
            .put(PROJECT, &format!("r{n}"), ["one text", "another text"][n % 2])
            .await;
    }
    let report = system.vectorize().await;
    assert_eq!(report.records, 700);
    assert_eq!(provider.log().inputs(), 2, "each text was asked for once");
    system.assert_all_embedded_by_fake(PROJECT, 64).await;
}

#[tokio::test]
async fn a_long_text_has_several_chunks_and_is_shown_when_it_is_complete() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 64).await;
    let long: Vec<String> = (0..3000).map(|n| format!("Sentence {n} of a long text.")).collect();
    system.put(PROJECT, "long", &long.join(" ")).await;
    let report = system.vectorize().await;
    assert!(report.chunks > 20, "{} chunks", report.chunks);
    system.assert_all_embedded_by_fake(PROJECT, 64).await;
}

#[tokio::test]
async fn the_static_model_needs_no_network_and_finds_what_is_meant() {
    let system = System::embedding_in_process().await;
    system
        .put(PROJECT, "tomatoes", "Water your tomato plants early in the morning.")
        .await;
    system
        .put(PROJECT, "bicycle", "Oil the chain of your bicycle after rain.")
        .await;
    system.put(PROJECT, "nonsense", "⟁⟁⟁").await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (2, 1));
    assert_eq!(
        system
            .value("SELECT reason FROM cronvec.quarantine WHERE record_id = 'nonsense'")
            .await,
        "no_known_words"
    );
}

#[tokio::test]
async fn a_worker_whose_pass_failed_is_not_said_to_run() {
    let system = System::embedding_in_process().await;
    let unknown = CallOptions {
        project: Some("nobody's".into()),
        ..CallOptions::default()
    };
    assert!(system.ingestion().run(unknown.clone(), minute()).await.is_err());
    assert!(system.vectorization().run(unknown, minute()).await.is_err());
    system.run_sql("DROP TABLE cronvec.provider_pauses").await;
    assert!(system.cleanup().run(CallOptions::default(), minute()).await.is_err());
    assert_eq!(
        system
            .value("SELECT jsonb_agg(is_running OR last_result->>'error' IS NULL) FROM cronvec.worker_status")
            .await,
        serde_json::json!([false, false, false])
    );
}
