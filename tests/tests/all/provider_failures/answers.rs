//! Answers that can't be used.

use cronvec_tests::provider::Answer;
use cronvec_tests::system::PROJECT;
use serde_json::json;
use vectorization::StoppedBecause;

use super::{WIDTH, assert_nobody_is_charged, assert_set_aside_after_three, pause, text, with_records};

#[tokio::test]
async fn a_vector_of_zeros_or_with_a_nan_is_its_inputs_fault_alone() {
    for (answer, message) in [
        (Answer::Zero, "a vector of zeros"),
        (Answer::NotANumber, "a vector that isn't finite"),
    ] {
        let (provider, system) = with_records(60).await;
        // The answer spoils the first vector of a batch, and this record is its first.
        provider.answer_containing(&text(0), answer);
        let report = system.vectorize().await;
        assert_eq!(
            (report.records, report.requests),
            (59, 3),
            "the neighbours' vectors are good"
        );
        assert_set_aside_after_three(&system, &report, message).await;
    }
}

#[tokio::test]
async fn an_input_that_makes_the_answer_too_short_is_found_by_halves() {
    let (provider, system) = with_records(60).await;
    provider.answer_containing(&text(0), Answer::Fewer(1));
    let report = system.vectorize().await;
    assert_eq!(report.records, 59);
    assert_set_aside_after_three(&system, &report, "0 vectors for 1 inputs").await;
}

#[tokio::test]
async fn answers_that_are_unusable_for_everyone_let_the_provider_rest() {
    for (answer, message) in [
        (Answer::Fewer(1), "0 vectors for 1 inputs"),
        (Answer::NotANumber, "isn't finite"),
        (Answer::Zero, "zeros"),
    ] {
        let (provider, system) = with_records(1).await;
        provider.answer_when(|_| true, answer);
        let report = system.vectorize().await;
        assert_eq!(
            (report.records, report.failed, report.stopped_because),
            (0, 0, StoppedBecause::Provider)
        );
        let pause = pause(&system).await;
        assert_eq!((&pause["circuit"], &pause["seconds"]), (&json!(false), &json!(30)));
        assert!(pause["message"].as_str().unwrap().contains(message), "{pause}");
        assert_nobody_is_charged(&system, 1).await;
    }
}

#[tokio::test]
async fn vectors_in_another_order_are_put_in_theirs() {
    let (provider, system) = with_records(60).await;
    provider.answer_when(|_| true, Answer::Reversed);
    assert_eq!(system.vectorize().await.records, 60);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}
