//! A text that changes, or goes, while it is at the provider.

use std::sync::Arc;
use std::time::Duration;

use cronvec_nouns::job::{JobType, Progress};
use cronvec_nouns::record::ContentHash;
use cronvec_store::vectors::{Holding, NewChunk};
use cronvec_tests::between::Transaction;
use cronvec_tests::provider::Answer;
use cronvec_tests::system::{PROJECT, System};

use super::{Scene, claim};

const CHUNKS_OF_R3: &str = "SELECT count(*) FROM cronvec.chunks WHERE record_id = 'r3'";

#[tokio::test]
async fn a_text_that_changed_at_the_provider_is_never_stored_and_the_new_one_is_embedded_next() {
    let scene = Scene::new().await;
    let (gate, pass) = scene.ask_for(12).await;
    scene.system.put(PROJECT, "r3", "another text").await;
    gate.release();
    let report = pass.await.unwrap();
    assert_eq!((report.records, report.passed_over, report.lost_leases), (11, 1, 0));
    assert_eq!(scene.count(CHUNKS_OF_R3).await, 0);
    scene.system.vectorize().await;
    assert_eq!(scene.provider.log().count("another text"), 1);
    scene.system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_job_that_only_met_a_text_that_was_changed_goes_on_with_the_next_tick() {
    let scene = Scene::new().await;
    let (gate, pass) = scene.ask_and_go_on(1).await;
    scene.system.put(PROJECT, "r0", "another text").await;
    gate.release();
    pass.await.unwrap();
    scene.system.vectorize().await;
    scene.system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_record_that_was_deleted_at_the_provider_is_never_stored_and_the_next_tick_purges_it() {
    let scene = Scene::new().await;
    let (gate, pass) = scene.ask_for(12).await;
    scene
        .system
        .run_sql("SELECT cronvec.delete_record('articles', 'r3')")
        .await;
    gate.release();
    let report = pass.await.unwrap();
    assert_eq!((report.records, report.passed_over), (11, 1));
    assert_eq!(scene.count(CHUNKS_OF_R3).await, 0);
    assert_eq!(scene.system.vectorize().await.purged, 1);
    scene.system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_text_that_changes_between_a_workers_check_and_its_write_is_not_stored() {
    let scene = Scene::new().await;
    for change in [
        "put_record('articles', 'r3', 'another text')",
        "delete_record('articles', 'r3')",
    ] {
        let (gate, pass) = scene.ask_for(5).await;
        let transaction = Transaction::holding_jobs(&scene.system).await;
        gate.release();
        scene.system.wait_blocked(1).await;
        // The write has its snapshot, in which the text is still the old one.
        scene.system.run_sql(&format!("SELECT cronvec.{change}")).await;
        transaction.commit().await;
        let report = pass.await.unwrap();
        assert_eq!((report.records, report.passed_over), (4, 1), "{change}");
        assert_eq!(scene.count(CHUNKS_OF_R3).await, 0, "{change}");
        scene.system.vectorize().await;
        scene.system.assert_all_embedded_by_fake(PROJECT, 8).await;
    }
}

#[tokio::test]
async fn a_text_that_took_the_place_of_a_rejected_one_is_not_charged_for_it() {
    let scene = Scene::new().await;
    scene.provider.answer_containing("number 0", Answer::rejected());
    let (gate, pass) = scene.ask_and_go_on(1).await;
    scene.system.put(PROJECT, "r0", "a good text").await;
    gate.release();
    let report = pass.await.unwrap();
    assert_eq!((report.failed, report.quarantined), (0, 0));
    scene.system.vectorize().await;
    scene.system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

/// The text changed while the former one was asked for, and both answers come at once.
#[tokio::test]
async fn chunks_of_a_former_text_are_neither_stored_nor_counted_with_those_of_the_present_one() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "r0", "the present text, of two chunks").await;
    let job = claim(&system, JobType::Vectorize).await;
    let holding = Holding {
        job: &job,
        lease: Duration::from_secs(30),
        progress: Progress {
            current: 0,
            total: 1,
            message: None,
        },
        column: None,
        trusts_new: true,
    };
    let chunk = |text: &str, ordinal, of, content: &str| NewChunk {
        record_id: "r0".into(),
        record_hash: ContentHash::of(text),
        of,
        ordinal,
        content: content.into(),
        hash: ContentHash::of(content),
        vector: Some(Arc::new(vec![0.5; 256])),
        is_new: true,
        is_cut_smaller: false,
        since: None,
    };
    let present = |ordinal| {
        chunk(
            "the present text, of two chunks",
            ordinal,
            2,
            &format!("chunk {ordinal}"),
        )
    };
    let former = || chunk("the former text", 0, 1, "the former text");
    let connection = system.store.connection().await.unwrap();
    let shown = "SELECT count(*) FROM cronvec.embedded";
    for some in [[present(0), former()], [former(), present(0)]] {
        let written = system.store.write_chunks(&connection, &holding, &some).await.unwrap();
        assert_eq!((written.complete, system.count(shown).await), (0, 0), "{written:?}");
        assert_eq!(system.count("SELECT count(*) FROM cronvec.chunks").await, 1);
        assert_eq!(
            system
                .count("SELECT count(*) FROM cronvec.pending WHERE not_before <= now()")
                .await,
            1
        );
    }
    let written = system
        .store
        .write_chunks(&connection, &holding, &[former(), present(1)])
        .await
        .unwrap();
    assert_eq!((written.complete, written.stored), (1, 1), "{written:?}");
    assert_eq!(system.count(shown).await, 1);
}
