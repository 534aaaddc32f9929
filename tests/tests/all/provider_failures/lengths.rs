//! Texts that are longer for the model than they looked.

use std::time::Duration;

use cronvec_tests::conditions::eventually;
use cronvec_tests::process::Process;
use cronvec_tests::provider::{Answer, Options, Provider};
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{CANARY, WIDTH, assert_nobody_is_charged, end_pauses, id, jobs, quarantine, text, with_records};

/// What this model reads; chunks are cut for three times as much.
const READS_BYTES: usize = 500;

fn too_long() -> Answer {
    Answer::error(400, "api_error", "the input length exceeds the context length")
}

fn is_too_long(inputs: &[String]) -> bool {
    inputs.iter().any(|input| input.len() > READS_BYTES)
}

/// Each word another, so that no two chunks are alike.
fn long_text(words: usize) -> String {
    (0..words).map(|n| format!("word-{n} ")).collect()
}

#[tokio::test]
async fn a_text_that_proves_too_long_is_cut_smaller_until_it_is_read_whole() {
    let (provider, system) = with_records(30).await;
    system.put(PROJECT, "a long one", &long_text(1_000)).await;
    system.put(PROJECT, "one of a single chunk", &long_text(100)).await;
    provider.answer_when(is_too_long, too_long());
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.remaining), (32, 0, false));
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    let widest = "SELECT max(octet_length(content)) FROM cronvec.embeddings WHERE record_id = 'a long one'";
    let widest = system.value(widest).await.as_u64().unwrap();
    assert!(
        (READS_BYTES as u64 / 3..=READS_BYTES as u64).contains(&widest),
        "halves of halves, and no smaller than that: {widest}"
    );

    // Another text begins anew.
    provider.behave();
    system.put(PROJECT, "a long one", &long_text(900)).await;
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    let widest = "SELECT max(octet_length(content)) FROM cronvec.embeddings WHERE record_id = 'a long one'";
    assert!(system.value(widest).await.as_u64().unwrap() > 1_000);
}

#[tokio::test]
async fn a_long_text_that_is_refused_in_unknown_words_is_cut_smaller_once() {
    let (provider, system) = with_records(30).await;
    system.put(PROJECT, "read in halves", &long_text(100)).await;
    system.put(PROJECT, "too long in halves, too", &long_text(150)).await;
    provider.answer_when(is_too_long, Answer::error(400, "api_error", "no"));
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.remaining), (31, 1, false));
    let chunks = "SELECT count(*) FROM cronvec.embeddings WHERE record_id = 'read in halves'";
    assert_eq!(system.count(chunks).await, 3);
    let aside = "SELECT record_id || ' ' || reason FROM cronvec.quarantine";
    assert_eq!(system.value(aside).await, json!("too long in halves, too rejected"));
}

#[tokio::test]
async fn a_long_text_that_always_gives_500_is_cut_smaller_once() {
    let (provider, system) = with_records(30).await;
    system.put(PROJECT, "read in halves", &long_text(100)).await;
    system.put(PROJECT, "fails in halves, too", &long_text(150)).await;
    provider.answer_when(is_too_long, Answer::error(500, "server_error", "no"));
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (31, 1, 0));
    let chunks = "SELECT count(*) FROM cronvec.embeddings WHERE record_id = 'read in halves'";
    assert_eq!(system.count(chunks).await, 3);
    let waits = "SELECT record_id || ' ' || attempts FROM cronvec.pending";
    assert_eq!(system.value(waits).await, json!("fails in halves, too 1"));
}

#[tokio::test]
async fn a_long_text_is_cut_smaller_also_where_a_pause_came_between_its_refusal_and_the_canary() {
    let (provider, system) = with_records(0).await;
    system.put(PROJECT, "long", &long_text(100)).await;
    provider.answer_when(is_too_long, Answer::error(400, "api_error", "no"));
    provider.answer_when(|inputs| inputs == [CANARY], Answer::throttled(1));
    system.vectorize().await;
    provider.behave();
    provider.answer_when(is_too_long, Answer::error(400, "api_error", "no"));
    end_pauses(&system).await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.remaining), (1, 0, false));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 3);
}

#[tokio::test]
async fn what_is_too_long_in_the_smallest_pieces_stands_aside_with_the_providers_message() {
    let (provider, system) = with_records(30).await;
    system
        .put(PROJECT, "odd", &format!("{} odd {}", long_text(50), long_text(50)))
        .await;
    provider.answer_containing("odd", too_long());
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (30, 1, 1));
    assert_eq!(
        quarantine(&system).await,
        [
            json!({"project": PROJECT, "record_id": "odd", "reason": "too_long", "attempts": 1,
            "message": "HTTP 400: the input length exceeds the context length"})
        ]
    );
    assert_eq!(jobs(&system).await, ["COMPLETED"]);
    let shown = "SELECT count(*) FROM cronvec.embeddings WHERE record_id = 'odd'";
    assert_eq!(system.count(shown).await, 0, "half a record isn't shown");
}

#[tokio::test]
async fn a_provider_to_which_everything_is_too_long_opens_the_circuit() {
    let (provider, system) = with_records(10).await;
    provider.answer_when(|_| true, too_long());
    let report = system.vectorize().await;
    assert_eq!((report.records, report.failed, report.quarantined), (0, 0, 0));
    assert_eq!(super::pause(&system).await["circuit"], true);
    assert_nobody_is_charged(&system, 10).await;
}

#[tokio::test]
async fn an_answer_of_the_former_cut_that_comes_late_is_not_stored_among_the_next() {
    let provider = Provider::with(Options {
        latency: Duration::from_millis(10),
        ..Options::default()
    })
    .await;
    let one_by_one = [("EMBEDDING_BATCH_SIZE", "1"), ("VECTORIZE_RECORDS_PER_SLICE", "1")];
    let system = System::embedding_as(&provider, WIDTH, &one_by_one).await;
    // Two chunks: one that is too long, and one whose answer waits. In the next cut the second place is another's.
    let words = |word: &str, count: usize| -> String { (0..count).map(|n| format!("{word}-{n} ")).collect() };
    let mixed = format!("{}\n\n{}", words("dense", 150), words("late", 140));
    system.put(PROJECT, "mixed", &mixed).await;
    for n in 0..40 {
        system.put(PROJECT, &id(n), &text(n)).await;
    }
    let has = |inputs: &[String], word: &str, is_long: bool| {
        inputs
            .iter()
            .any(|input| input.contains(word) && (input.len() > 800) == is_long)
    };
    provider.answer_when(move |inputs| has(inputs, "dense", true), too_long());
    let gate = provider.hold_when(move |inputs| has(inputs, "late", true) || has(inputs, "dense", false));
    let pass = system.vectorize();
    let test = async {
        eventually("it is cut anew while the answer waits", || async {
            let pieces = provider.log().requests;
            pieces.iter().filter(|inputs| has(inputs, "dense", false)).count() == 2
        })
        .await;
        provider.wait_open(3).await;
        gate.pass(1);
        eventually("the late answer is given", || async {
            *provider.open_requests().borrow() == 2
        })
        .await;
        gate.release();
    };
    let (report, ()) = tokio::join!(pass, test);
    assert_eq!((report.records, report.failed, report.remaining), (41, 0, false));
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_between_two_cuts_leaves_nothing_that_mixes_them() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    for n in 0..5 {
        system.put(PROJECT, &id(n), &text(n)).await;
    }
    // The chunks before and behind the dense one are stored before it proves too long.
    let mixed = format!("{}{}{}", long_text(600), "dense ".repeat(300), long_text(500));
    system.put(PROJECT, "mixed", &mixed).await;
    let is_dense = |inputs: &[String]| is_too_long(inputs) && inputs.iter().any(|input| input.contains("dense"));
    provider.answer_when(is_dense, too_long());
    // Of the next cut only the first batch is answered.
    provider.answer_when(
        |inputs| {
            inputs
                .iter()
                .any(|input| input.contains("dense") && input.len() <= READS_BYTES)
        },
        Answer::Never,
    );
    let (url, width) = (provider.url(), WIDTH.to_string());
    let environment = [
        ("DATABASE_URL", system.database.url()),
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", &url),
        ("OPENAI_API_KEY", "sk-test-of-the-harness"),
        ("EMBEDDING_DIMENSIONS", &width),
        ("EMBEDDING_BATCH_SIZE", "3"),
    ];
    let mut worker = Process::spawn("cronvec", &["tick", "vectorization"], &environment).await;
    let asked = |log: &cronvec_tests::provider::Log| {
        let pieces = log.requests.iter().flatten();
        pieces
            .filter(|input| input.contains("dense") && input.len() <= READS_BYTES)
            .count()
    };
    while asked(&provider.log()) == 0 {
        assert!(worker.ended().is_none(), "it waits for the piece");
        tokio::task::yield_now().await;
    }
    worker.kill().await;
    let kept = "SELECT cut_tokens < 512 FROM cronvec.pending WHERE record_id = 'mixed'";
    assert_eq!(
        system.value(kept).await,
        json!(true),
        "the next worker is told how to cut"
    );

    system.expire_leases().await;
    provider.behave();
    provider.answer_when(is_dense, too_long());
    while system.vectorize().await.remaining {}
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}
