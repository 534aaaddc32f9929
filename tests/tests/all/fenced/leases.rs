//! A lease that is lost while its worker waits for the provider, or for its turn to write.

use std::sync::Arc;

use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::{Answer, Provider};
use cronvec_tests::system::PROJECT;

use super::{LOSSES, Scene, assert_wrote_nothing, start, text};

#[tokio::test]
async fn a_worker_whose_lease_is_lost_while_its_provider_dawdles_writes_nothing() {
    let scene = Scene::new().await;
    for (why, loss) in LOSSES {
        let (gate, pass) = scene.ask_for(35).await;
        scene.system.run_sql(loss).await;
        let before = scene.system.written_besides_jobs().await;
        gate.release();
        assert_wrote_nothing(&pass.await.unwrap(), why);
        assert_eq!(scene.system.written_besides_jobs().await, before, "{why}");
    }
}

#[tokio::test]
async fn a_worker_that_comes_back_after_another_has_finished_its_job_changes_nothing() {
    let scene = Scene::new().await;
    let (gate, pass) = scene.ask_for(35).await;
    scene.system.expire_leases().await;
    let provider = Provider::start().await;
    let other = start(&Arc::new(scene.system.another_vectorization(&provider)), None);
    let other = other.await.unwrap();
    assert_eq!((other.records, other.remaining), (35, false));
    let before = scene.system.written_besides_jobs().await;

    gate.release();
    assert_wrote_nothing(&pass.await.unwrap(), "another has finished");
    assert_eq!(scene.system.written_besides_jobs().await, before);
    scene.system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_worker_that_comes_back_while_another_works_neither_writes_nor_ends_the_job() {
    let scene = Scene::new().await;
    let (gate, pass) = scene.ask_for(35).await;
    scene.system.expire_leases().await;
    let provider = Provider::start().await;
    let other_gate = provider.hold();
    let other = start(&Arc::new(scene.system.another_vectorization(&provider)), Some(35));
    provider.wait_open(1).await;
    let before = scene.system.written_besides_jobs().await;

    let crashes = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING' AND crashes = ";
    assert_eq!(scene.count(&format!("{crashes} 1")).await, 1, "it was taken for dead");

    gate.release();
    assert_wrote_nothing(&pass.await.unwrap(), "another works");
    assert_eq!(scene.count(&format!("{crashes} 0")).await, 1, "it lives");
    assert_eq!(scene.system.written_besides_jobs().await, before);
    other_gate.release();
    assert_eq!(other.await.unwrap().records, 35);
    scene.system.assert_all_embedded_by_fake(PROJECT, 8).await;
}

#[tokio::test]
async fn a_worker_that_got_nothing_to_write_finds_out_at_its_jobs_end() {
    let scene = Scene::new().await;
    let worker = Arc::new(scene.system.vectorization());
    let (gate, pass) = scene.ask_through(&worker, 5, Some(5)).await;
    scene.system.expire_leases().await;
    let before = scene.system.written_besides_jobs().await;
    // It waits for the answer no longer.
    worker.stop();
    assert_wrote_nothing(&pass.await.unwrap(), "stopped");
    assert_eq!(scene.system.written_besides_jobs().await, before);
    drop(gate);
}

#[tokio::test]
async fn a_lease_that_is_lost_between_a_workers_check_and_its_write_stores_nothing() {
    let scene = Scene::new().await;
    for (why, loss) in LOSSES {
        let (gate, pass) = scene.ask_for(5).await;
        let transaction = Transaction::holding_jobs(&scene.system).await;
        gate.release();
        scene.system.wait_blocked(1).await;
        transaction.run(loss).await;
        transaction.commit().await;
        assert_wrote_nothing(&pass.await.unwrap(), why);
        assert_eq!(scene.count("SELECT count(*) FROM cronvec.chunks").await, 0, "{why}");
        assert_eq!(scene.count("SELECT count(*) FROM cronvec.embedded").await, 0, "{why}");
        assert_eq!(scene.count("SELECT count(*) FROM cronvec.pending").await, 5, "{why}");
        let ended = "SELECT count(*) FROM cronvec.job_queue WHERE progress IS NOT NULL OR status = 'COMPLETED'";
        assert_eq!(scene.count(ended).await, 0, "{why}");
    }
}

#[tokio::test]
async fn a_lease_that_runs_out_while_the_write_waits_for_its_turn_stores_nothing() {
    let scene = Scene::new().await;
    let (gate, pass) = scene.ask_for(5).await;
    scene
        .system
        .run_sql("UPDATE cronvec.job_queue SET lease_expires_at = clock_timestamp() + interval '2 seconds'")
        .await;
    // Nobody changes the row: it is only held for too long.
    let transaction = Transaction::holding_jobs(&scene.system).await;
    let before = scene.system.written_besides_jobs().await;
    gate.release();
    scene.system.wait_blocked(1).await;
    eventually("the lease has run out", || async {
        let over = "SELECT count(*) FROM cronvec.job_queue WHERE lease_expires_at <= clock_timestamp()";
        scene.count(over).await == 1
    })
    .await;
    transaction.commit().await;
    assert_wrote_nothing(&pass.await.unwrap(), "it ran out");
    assert_eq!(scene.system.written_besides_jobs().await, before);
}

#[tokio::test]
async fn a_record_is_not_charged_by_a_worker_that_lost_its_lease_at_the_provider() {
    let scene = Scene::new().await;
    scene.provider.answer_containing("number 0", Answer::rejected());
    for (why, loss) in LOSSES {
        let asked = scene.provider.log().requests.len();
        let (gate, pass) = scene.ask_for(1).await;
        scene.system.run_sql(loss).await;
        let before = scene.system.written_besides_jobs().await;
        gate.release();
        assert_wrote_nothing(&pass.await.unwrap(), why);
        let asked = scene.provider.log().requests.len() - asked;
        assert_eq!(asked, 2, "the canary was asked for, so the record was to be charged");
        assert_eq!(scene.system.written_besides_jobs().await, before, "{why}");
    }
}

#[tokio::test]
async fn a_job_that_is_cancelled_while_it_runs_stays_cancelled_until_it_is_retried() {
    let scene = Scene::new().await;
    let (gate, pass) = scene.ask_for(12).await;
    let system = &scene.system;
    let id = system.count("SELECT id FROM cronvec.job_queue").await;
    system.store.cancel_job(id).await.unwrap();
    gate.release();
    assert_wrote_nothing(&pass.await.unwrap(), "cancelled");

    system.put(PROJECT, "r12", &text(12)).await;
    let asked = scene.provider.log().requests.len();
    assert_eq!(system.vectorize().await.processed, 0, "the lane is held");
    assert_eq!(scene.provider.log().requests.len(), asked);
    assert_eq!(system.store.job(id).await.unwrap().status, "CANCELLED");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.job_queue").await, 1);

    system.store.retry_job(id).await.unwrap();
    assert_eq!(system.vectorize().await.records, 13);
    assert_eq!(system.store.job(id).await.unwrap().status, "COMPLETED");
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
}
