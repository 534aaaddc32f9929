//! Pauses and resumptions that are cut off between their steps, or come at once.

use cronvec_store::enqueue::EnqueueOptions;
use cronvec_store::held::align_statement;
use cronvec_tests::conditions::eventually;
use cronvec_tests::system::{PROJECT, System};
use tokio_postgres::types::Type;

use super::plan::explain_along_index;
use super::{claim_ingest, enqueue, enqueue_many, ensure};

/// What somebody leaves who is cut off after the first of two steps.
async fn only_say(system: &System, paused: bool) {
    system
        .run_sql(&format!(
            "UPDATE cronvec.projects SET paused = {paused} WHERE name = '{PROJECT}'"
        ))
        .await;
}

async fn out_of_step(system: &System) -> i64 {
    system
        .count(
            "SELECT count(*) FROM cronvec.job_queue j JOIN cronvec.projects p ON p.id = j.project_id
             WHERE j.status IN ('PENDING', 'PROCESSING') AND j.held <> p.paused",
        )
        .await
}

#[tokio::test]
async fn a_pause_that_is_cut_off_after_its_first_step_is_completed_by_the_next_tick() {
    let system = System::embedding_in_process().await;
    enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    system.put(PROJECT, "b", "a text").await;
    ensure(&system).await;
    // One that a worker holds goes back to the line otherwise.
    let working = claim_ingest(&system).await.unwrap();
    enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    only_say(&system, true).await;
    assert_eq!(out_of_step(&system).await, 3);
    let report = system.ingest().await;
    assert_eq!((report.processed, report.records), (0, 0));
    assert_eq!(out_of_step(&system).await, 0);
    let released = cronvec_nouns::job::End::Released { progressed: true };
    system.store.end_job(&working, released).await.unwrap();
    assert_eq!(system.vectorize().await.processed, 0);
    assert!(claim_ingest(&system).await.is_none());

    system.store.set_paused(PROJECT, false).await.unwrap();
    assert_eq!(system.ingest().await.processed, 2);
    assert_eq!(system.vectorize().await.records, 2);
}

#[tokio::test]
async fn a_pause_that_is_cut_off_after_a_page_of_jobs_is_completed_by_the_next_tick() {
    let system = System::embedding_in_process().await;
    let jobs = enqueue_many(&system.store, PROJECT, 2500, &EnqueueOptions::default()).await;
    only_say(&system, true).await;
    let page = format!(
        "UPDATE cronvec.job_queue SET held = true, turn = NULL WHERE id <= {}",
        jobs[999]
    );
    system.run_sql(&page).await;
    assert_eq!(system.ingest().await.processed, 0);
    assert_eq!(out_of_step(&system).await, 0);
}

#[tokio::test]
async fn a_resumption_that_is_cut_off_is_completed_by_the_next_tick() {
    let system = System::embedding_in_process().await;
    enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    system.put(PROJECT, "b", "a text").await;
    ensure(&system).await;
    system.store.set_paused(PROJECT, true).await.unwrap();
    only_say(&system, false).await;
    assert_eq!(out_of_step(&system).await, 2);
    assert_eq!(system.ingest().await.processed, 1);
    assert_eq!(system.vectorize().await.records, 2);

    // Also one that was through with the first of several pages.
    let jobs = enqueue_many(&system.store, PROJECT, 2500, &EnqueueOptions::default()).await;
    system.store.set_paused(PROJECT, true).await.unwrap();
    only_say(&system, false).await;
    let page = format!("UPDATE cronvec.job_queue SET held = false WHERE id <= {}", jobs[999]);
    system.run_sql(&page).await;
    system.vectorize().await;
    assert_eq!(out_of_step(&system).await, 0);
}

/// The first stops between its two steps: somebody holds the job that it is about.
#[tokio::test]
async fn of_a_pause_and_a_resumption_at_once_the_jobs_follow_the_last() {
    let system = System::embedding_in_process().await;
    for last in [false, true] {
        system.store.set_paused(PROJECT, last).await.unwrap();
        let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
        let mut rival = system.database.client().await;
        let rival = rival.transaction().await.unwrap();
        let lock = format!("SELECT FROM cronvec.job_queue WHERE id = {id} FOR UPDATE");
        rival.batch_execute(&lock).await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()";
        let paused = "SELECT paused FROM cronvec.projects WHERE name = 'articles'";
        let ((), (), ()) = tokio::join!(
            async { system.store.set_paused(PROJECT, !last).await.unwrap() },
            async {
                eventually("the first waits", async || system.count(waiting).await == 1).await;
                system.store.set_paused(PROJECT, last).await.unwrap();
            },
            async {
                eventually("the second is asked for", async || {
                    system.count(waiting).await == 2
                        || (system.count(waiting).await == 1 && system.value(paused).await == last)
                })
                .await;
                rival.rollback().await.unwrap();
            }
        );
        assert_eq!(system.value(paused).await, last);
        assert_eq!(out_of_step(&system).await, 0, "paused: {last}");
        assert_eq!(claim_ingest(&system).await.is_none(), last);
        system.store.cancel_job(id).await.unwrap();
    }
}

#[tokio::test]
async fn a_tick_looks_at_no_job_that_is_held_as_it_should_be() {
    let system = System::embedding_in_process().await;
    system.create_project("other").await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, space_id, project, project_id, held)
             SELECT 'INGEST_DATA', 0, 'articles', 1, true FROM generate_series(1, 20000);
             INSERT INTO cronvec.job_queue (job_type, space_id, project, project_id, scheduled_for)
             SELECT 'INGEST_DATA', 0, 'other', 2, now() + interval '1 day' FROM generate_series(1, 20000);
             UPDATE cronvec.projects SET paused = true WHERE id = 1",
        )
        .await;
    for analyze in ["", "ANALYZE cronvec.job_queue, cronvec.projects"] {
        system.run_sql(analyze).await;
        let plan = explain_along_index(&system, &align_statement(), &[(&1000_i64, Type::INT8)]).await;
        assert!(plan.rows_of_jobs <= 10.0 && plan.buffers < 500.0, "{plan:#?}");
    }
}
