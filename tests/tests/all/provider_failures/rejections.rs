//! Inputs that the provider rejects.

use cronvec_tests::provider::Answer;
use cronvec_tests::system::PROJECT;
use serde_json::{Value, json};
use vectorization::StoppedBecause;

use super::{
    SEARCH, WIDTH, assert_embedded_but, assert_found_by_halves, assert_nobody_is_charged, end_pauses, id, jobs, pause,
    put, quarantine, text, times_asked, with_records,
};

#[tokio::test]
async fn a_rejected_input_is_found_by_halves_and_stands_aside_with_the_providers_message() {
    let (provider, system) = with_records(1_000).await;
    provider.answer_containing(
        &text(77),
        Answer::error(400, "invalid_request_error", "input 3 is too odd"),
    );
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (999, 1, 1));
    assert_eq!(report.stopped_because, StoppedBecause::Drained);
    assert_eq!(
        quarantine(&system).await,
        [
            json!({"project": PROJECT, "record_id": id(77), "reason": "rejected", "attempts": 1,
            "message": "HTTP 400: input 3 is too odd"})
        ]
    );
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    assert_embedded_but(&system, 1_000, 1).await;
    assert_found_by_halves(&provider.log(), 40);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
}

#[tokio::test]
async fn wherever_the_rejected_input_stands_it_is_found_in_as_many_requests() {
    let (provider, system) = with_records(25).await;
    for n in [0, 12, 24] {
        let before = provider.log().requests.len();
        for other in 0..25 {
            let text = format!("a new {}", text(other + 100 * n));
            system.put(PROJECT, &id(other), &text).await;
        }
        provider.behave();
        provider.answer_containing(&text(n + 100 * n), Answer::rejected());
        let report = system.vectorize().await;
        assert_eq!((report.records, report.quarantined), (24, 1));
        assert_eq!(quarantine(&system).await[0]["record_id"], id(n));
        let asked = provider.log().requests.len() - before;
        assert!(asked <= 1 + SEARCH, "{asked} requests for the input at {n}");
    }
}

#[tokio::test]
async fn three_rejected_inputs_in_different_batches_are_found_and_the_others_go_on() {
    let (provider, system) = with_records(1_000).await;
    let bad = [10, 60, 999];
    for n in bad {
        provider.answer_containing(&text(n), Answer::rejected());
    }
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (997, 3, 3));
    let aside: Vec<Value> = quarantine(&system)
        .await
        .iter()
        .map(|row| row["record_id"].clone())
        .collect();
    assert_eq!(aside, bad.map(|n| json!(id(n))));
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    assert_embedded_but(&system, 1_000, 3).await;
    let extra = provider.log().requests.len() - 40;
    assert!(extra <= 3 * SEARCH, "{extra} requests more than batches");
}

#[tokio::test]
async fn a_rejected_record_is_not_asked_for_again_until_its_text_changes() {
    let (provider, system) = with_records(30).await;
    provider.answer_containing(&text(7), Answer::rejected());
    system.vectorize().await;
    assert_eq!(quarantine(&system).await.len(), 1);
    let asked = times_asked(&provider.log(), 7);
    for _ in 0..3 {
        assert_eq!(system.vectorize().await.requests, 0);
    }
    // Neither does it come back for being written again as it was.
    put(&system, 7).await;
    assert_eq!(system.vectorize().await.requests, 0);
    assert_eq!(times_asked(&provider.log(), 7), asked);

    system.put(PROJECT, &id(7), "a text that pleases").await;
    assert_eq!(quarantine(&system).await.len(), 0, "a new text has its chance");
    assert_eq!(system.vectorize().await.records, 1);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_rejects_everything_opens_the_circuit_and_nobody_is_charged() {
    let (provider, system) = with_records(200).await;
    let refusal = Answer::error(400, "invalid_request_error", "dimensions must be 1024");
    provider.answer_when(|_| true, refusal);
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.failed, report.stopped_because),
        (0, 0, StoppedBecause::Provider)
    );
    assert!(report.remaining);
    assert_eq!(
        pause(&system).await,
        json!({"circuit": true, "message": "HTTP 400: dimensions must be 1024", "seconds": 60})
    );
    assert_nobody_is_charged(&system, 200).await;
    let asked = provider.log().requests.len();
    assert!(asked < 20, "it isn't asked in vain: {asked} requests");

    let report = system.vectorize().await;
    assert_eq!((report.requests, report.stopped_because), (0, StoppedBecause::Paused));
    provider.behave();
    end_pauses(&system).await;
    assert_eq!(system.vectorize().await.records, 200);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_takes_smaller_batches_only_gets_them() {
    let (provider, system) = with_records(200).await;
    provider.answer_when(
        |inputs| inputs.len() > 10,
        Answer::error(413, "too_large", "at most 10 inputs"),
    );
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed), (200, 0));
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    let asked = provider.log().requests.len();
    // Seven a batch, and a canary now and then.
    assert!((8 * 7..=8 * 8).contains(&asked), "{asked} requests");
}

#[tokio::test]
async fn records_of_one_rejected_text_stand_aside_together() {
    let (provider, system) = with_records(10).await;
    for n in 20..23 {
        system.put(PROJECT, &id(n), "the same bad text").await;
    }
    provider.answer_containing("bad text", Answer::rejected());
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (10, 3));
    assert_eq!(quarantine(&system).await.len(), 3);
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
}

#[tokio::test]
async fn a_long_record_with_one_rejected_chunk_stands_aside_once() {
    let (provider, system) = with_records(5).await;
    let mut long: Vec<String> = (0..600).map(|n| format!("Sentence {n} of a long text.")).collect();
    long[400] = "Sentence that is poison.".to_owned();
    system.put(PROJECT, "long", &long.join(" ")).await;
    provider.answer_containing("poison", Answer::rejected());
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (5, 1));
    assert_eq!(quarantine(&system).await[0]["record_id"], "long");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 0);
    assert_eq!(
        system
            .count("SELECT count(DISTINCT record_id) FROM cronvec.embeddings")
            .await,
        5,
        "half a record isn't shown"
    );
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    assert_eq!(system.vectorize().await.requests, 0);
}
