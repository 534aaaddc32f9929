//! Records that somebody else holds.

use cronvec_tests::conditions::assert_in_time;
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::json;
use std::time::{Duration, Instant};

use super::{enqueue, job, make_due, stored};

#[tokio::test]
async fn a_record_that_a_user_holds_waits_for_a_later_slice_and_the_others_do_not() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "held", "the old text").await;
    system.put(PROJECT, "free", "the old text").await;
    let mut user = system.database.client().await;
    let user = user.transaction().await.unwrap();
    user.batch_execute("SELECT * FROM cronvec.records WHERE id = 'held' FOR UPDATE")
        .await
        .unwrap();
    let mut records: Vec<_> = (0..250).map(|n| record(&format!("r{n}"), "a text")).collect();
    records.insert(120, record("held", "the new text"));
    records.insert(30, record("free", "the new text"));
    let id = enqueue(&system, &records).await;

    // The user's transaction is open all the while: whoever waited for it would wait for the minute that the pass has.
    let began = Instant::now();
    let report = system.ingest().await;
    assert_in_time(began, Duration::from_secs(5));
    assert_eq!((report.records, report.skipped), (251, 0));
    let waiting = job(&system, id).await;
    assert_eq!(
        (&waiting["status"], &waiting["attempts"]),
        (&json!("PENDING"), &json!(0))
    );
    let text = "SELECT content FROM cronvec.records WHERE id = ";
    assert_eq!(system.value(&format!("{text}'held'")).await, "the old text");
    assert_eq!(system.value(&format!("{text}'free'")).await, "the new text");
    assert_eq!(
        system
            .value("SELECT scheduled_for > now() FROM cronvec.job_queue")
            .await,
        true,
        "it waits a moment before it asks again"
    );

    make_due(&system).await;
    assert_eq!(system.ingest().await.records, 0, "it is still held");
    user.commit().await.unwrap();
    make_due(&system).await;
    assert_eq!(system.ingest().await.records, 1);
    assert_eq!(system.value(&format!("{text}'held'")).await, "the new text");
    let job = job(&system, id).await;
    assert_eq!(
        (&job["status"], &job["result"]["savedCount"]),
        (&json!("COMPLETED"), &json!(252))
    );
    assert_eq!(job["progress"]["current"], 252);
}

#[tokio::test]
async fn a_new_id_that_a_user_has_inserted_and_not_committed_is_found_by_halves_and_left() {
    let system = System::with(&[("INGEST_BATCH_SIZE", "4")]).await;
    let mut user = system.database.client().await;
    let user = user.transaction().await.unwrap();
    user.batch_execute("SELECT cronvec.put_record('articles', 'r2', 'the user''s')")
        .await
        .unwrap();
    let records: Vec<_> = (0..8).map(|n| record(&format!("r{n}"), "the job's")).collect();
    let id = enqueue(&system, &records).await;
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (7, 0), "all but that one are in");
    let waiting = job(&system, id).await;
    assert_eq!(
        (&waiting["status"], &waiting["attempts"]),
        (&json!("PENDING"), &json!(0))
    );

    user.commit().await.unwrap();
    make_due(&system).await;
    assert_eq!(system.ingest().await.records, 1);
    assert_eq!(job(&system, id).await["result"]["savedCount"], 8);
    assert_eq!(
        stored(&system).await["r2"],
        "the job's",
        "it was accepted after the user's"
    );
}
