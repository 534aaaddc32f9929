//! A provider that fails, for one input or for all.

use cronvec_call::CallOptions;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::proxy::Proxy;
use cronvec_tests::system::{PROJECT, System, minute};
use serde_json::json;
use std::time::{Duration, Instant};
use vectorization::StoppedBecause;

use super::{
    WIDTH, assert_embedded_but, assert_nobody_is_charged, end_backoff, end_pauses, id, jobs, pause, quarantine, text,
    with_records,
};

#[tokio::test]
async fn an_input_that_always_gives_500_is_found_tried_again_later_and_set_aside_in_the_end() {
    let (provider, system) = with_records(60).await;
    provider.answer_containing(&text(33), Answer::error(500, "server_error", "the model fell over"));
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (59, 1, 0));
    assert_eq!(report.stopped_because, StoppedBecause::Drained);
    assert_embedded_but(&system, 60, 1).await;
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    for (attempt, least, most) in [(1, 9, 12), (2, 19, 23)] {
        let pending = "SELECT jsonb_build_array(record_id, attempts, extract(epoch FROM not_before - now())) FROM cronvec.pending";
        let pending = system.value(pending).await;
        assert_eq!((&pending[0], &pending[1]), (&json!(id(33)), &json!(attempt)));
        let wait = pending[2].as_f64().unwrap();
        assert!(
            (f64::from(least)..f64::from(most)).contains(&wait),
            "attempt {attempt} waits {wait} s"
        );
        assert_eq!(system.vectorize().await.requests, 0, "not before its time");
        end_backoff(&system).await;
        let report = system.vectorize().await;
        assert_eq!((report.failed, report.quarantined), (1, u64::from(attempt == 2)));
    }
    let aside = quarantine(&system).await;
    assert_eq!(
        aside,
        [
            json!({"project": PROJECT, "record_id": id(33), "reason": "provider_error", "attempts": 3,
            "message": "HTTP 500: the model fell over"})
        ]
    );
    assert_eq!(system.count("SELECT count(*) FROM cronvec.provider_pauses").await, 0);
    let failed = "SELECT count(*) FROM cronvec.job_queue WHERE status <> 'COMPLETED' OR attempts > 0";
    assert_eq!(system.count(failed).await, 0, "the jobs aren't to blame");
}

#[tokio::test]
async fn a_500_that_passes_costs_one_request_more_and_nobody_anything() {
    let (provider, system) = with_records(50).await;
    provider.answer_next(1, Answer::error(500, "server_error", "a hiccup"));
    provider.answer_next(1, Answer::CutShort);
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.requests), (50, 0, 4));
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_fails_for_everyone_rests_and_nobody_is_charged() {
    let (provider, system) = with_records(60).await;
    provider.answer_when(|_| true, Answer::error(503, "overloaded", "come back later"));
    let report = system.vectorize().await;
    assert_eq!(
        (report.records, report.failed, report.stopped_because),
        (0, 0, StoppedBecause::Provider)
    );
    assert_eq!(
        pause(&system).await,
        json!({"circuit": false, "message": "HTTP 503: come back later", "seconds": 30})
    );
    assert_nobody_is_charged(&system, 60).await;
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Paused);
}

#[tokio::test]
async fn a_provider_that_says_when_it_is_back_is_asked_then() {
    let (provider, system) = with_records(60).await;
    let Answer::Status { status, body, .. } = Answer::error(503, "overloaded", "maintenance") else {
        unreachable!("an error has a status")
    };
    let headers = vec![("retry-after".to_owned(), "120".to_owned())];
    provider.answer_when(|_| true, Answer::Status { status, headers, body });
    assert_eq!(system.vectorize().await.stopped_because, StoppedBecause::Provider);
    assert_eq!(
        pause(&system).await,
        json!({"circuit": false, "message": "HTTP 503: maintenance", "seconds": 120})
    );
    assert_nobody_is_charged(&system, 60).await;
}

#[tokio::test]
async fn a_provider_that_never_answers_costs_the_time_there_is_and_nobody_anything() {
    let (provider, system) = with_records(60).await;
    provider.answer_containing(&text(30), Answer::Never);
    let deadline = Instant::now() + Duration::from_secs(4);
    let report = system.vectorize_with(CallOptions::default(), deadline).await;
    assert!(Instant::now() < deadline);
    assert_eq!(
        (report.failed, report.stopped_because, report.remaining),
        (0, StoppedBecause::Deadline, true)
    );
    assert_eq!(report.records, 35, "the other batches are stored");
    assert_nobody_is_charged(&system, 25).await;
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.provider_pauses").await,
        0,
        "it says nothing about the provider"
    );
    provider.behave();
    assert_eq!(system.vectorize().await.records, 25);
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_provider_that_is_down_rests_and_all_is_embedded_when_it_is_back() {
    let provider = Provider::start().await;
    let mut proxy = Proxy::to(provider.address()).await;
    let url = format!("http://{}/v1", proxy.address());
    let system = System::with(&[
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("EMBEDDING_DIMENSIONS", "16"),
    ])
    .await;
    for down_before in [true, false] {
        for n in 0..60 {
            let text = format!("{} {down_before}", text(n));
            system.put(PROJECT, &id(n), &text).await;
        }
        proxy.close().await;
        let report = system.vectorize_with(CallOptions::default(), minute()).await;
        assert_eq!(
            (report.records, report.failed, report.stopped_because),
            (0, 0, StoppedBecause::Provider)
        );
        let pause = pause(&system).await;
        assert_eq!((&pause["circuit"], &pause["seconds"]), (&json!(false), &json!(30)));
        assert!(pause["message"].as_str().unwrap().contains("can't connect"), "{pause}");
        assert_nobody_is_charged(&system, 60).await;
        proxy.open();
        end_pauses(&system).await;
        assert_eq!(system.vectorize().await.records, 60);
        system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
        system
            .run_sql("DELETE FROM cronvec.job_queue; DELETE FROM cronvec.provider_pauses")
            .await;
    }
}
