use std::collections::HashSet;
use std::sync::Arc;

use cronvec_call::CallOptions;
use cronvec_nouns::job::{End, JobType};
use cronvec_secrets::Secrets;
use cronvec_store::{self as store, Store};
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, minute};
use serde_json::json;

use super::{claim, claim_vectorize, ensure};

async fn put_many(system: &System, project: &str, records: usize) {
    system
        .run_sql(&format!(
            "SELECT cronvec.put_record('{project}', 'r' || n, 'text number ' || n) FROM generate_series(1, {records}) AS n"
        ))
        .await;
}

#[tokio::test]
async fn two_ticks_that_make_sure_at_once_make_one_job() {
    let system = System::embedding_in_process().await;
    put_many(&system, PROJECT, 20).await;
    for round in 0..10 {
        let (one, two) = tokio::join!(ensure(&system), ensure(&system));
        assert_eq!(one + two, 1, "round {round}");
        assert_eq!(ensure(&system).await, 0);
        system.run_sql("DELETE FROM cronvec.job_queue").await;
    }
}

#[tokio::test]
async fn a_project_of_four_lanes_has_four_jobs_that_divide_its_records() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 16).await;
    system.run_sql("UPDATE cronvec.projects SET lanes = 4").await;
    put_many(&system, PROJECT, 400).await;
    assert_eq!(ensure(&system).await, 4);
    assert_eq!(
        system
            .value("SELECT jsonb_agg(DISTINCT jsonb_build_array(lane, lanes)) FROM cronvec.job_queue")
            .await,
        json!([[0, 4], [1, 4], [2, 4], [3, 4]])
    );

    let jobs = claim(&system.store, JobType::Vectorize, 10).await;
    assert_eq!(jobs.len(), 4);
    let mut seen = HashSet::new();
    for job in &jobs {
        let slice = system.store.read_slice(job, None, 1000, 1 << 20).await.unwrap();
        assert!(slice.records.len() > 50, "lane {} has its part", job.lane);
        for record in slice.records {
            assert!(seen.insert(record.id), "a record is in one lane");
        }
        let released = End::Released { progressed: false };
        system.store.end_job(job, released).await.unwrap();
    }
    assert_eq!(seen.len(), 400);

    let report = system.vectorize().await;
    assert_eq!((report.processed, report.records), (4, 400));
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

#[tokio::test]
async fn two_workers_at_once_never_work_on_one_lane() {
    let provider = Provider::start().await;
    // While nothing is answered a worker reads some four slices ahead, and each slice is another lane's: one worker alone
    // can't hold all eight.
    let few = [("EMBEDDING_BATCH_SIZE", "10"), ("EMBEDDING_CONCURRENT_REQUESTS", "1")];
    let system = System::embedding_as(&provider, 16, &few).await;
    system.run_sql("UPDATE cronvec.projects SET lanes = 8").await;
    put_many(&system, PROJECT, 1000).await;
    let mut settings = system.settings.clone();
    settings.queue.records_per_slice = 30;
    settings.queue.vectorize_jobs = 1;
    let worker = || {
        let store = Arc::new(Store::new(store::Database::at(system.database.url(), 2).unwrap()));
        vectorization::Worker::new(store, settings.clone(), Secrets::without_aws())
    };
    let (one, two) = (worker(), worker());
    let gate = provider.hold();
    let (one, two, ()) = tokio::join!(
        one.run(CallOptions::default(), minute()),
        two.run(CallOptions::default(), minute()),
        async {
            let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING'";
            eventually("all lanes are held", || async { system.count(held).await == 8 }).await;
            gate.release();
        }
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.records + two.records, 1000);
    assert!(one.records > 0 && two.records > 0, "both had work");
    assert_eq!(
        (one.passed_over + two.passed_over, one.lost_leases + two.lost_leases),
        (0, 0)
    );
    assert_eq!(provider.log().inputs(), 1000, "no record was asked for twice");
    system.assert_all_embedded_by_fake(PROJECT, 16).await;
}

/// Whether two held jobs of the project count its lanes differently.
async fn is_mixed(system: &System) -> bool {
    system
        .count("SELECT count(DISTINCT lanes) FROM cronvec.job_queue WHERE status = 'PROCESSING'")
        .await
        > 1
}

#[tokio::test]
async fn while_the_number_of_lanes_grows_no_record_has_two_workers() {
    let system = System::embedding_in_process().await;
    put_many(&system, PROJECT, 200).await;
    ensure(&system).await;
    let old = claim_vectorize(&system).await.unwrap();
    system.run_sql("UPDATE cronvec.projects SET lanes = 4").await;
    assert_eq!(ensure(&system).await, 3, "the new lanes' jobs");
    assert!(
        claim_vectorize(&system).await.is_none(),
        "they wait for the job that counts otherwise"
    );

    // Old and new ones stand in line together.
    let released = End::Released { progressed: true };
    system.store.end_job(&old, released).await.unwrap();
    for _ in 0..4 {
        let held = claim(&system.store, JobType::Vectorize, 10).await;
        assert!(!held.is_empty());
        assert!(!is_mixed(&system).await);
        for job in held {
            let released = End::Released { progressed: true };
            system.store.end_job(&job, released).await.unwrap();
        }
    }
    ensure(&system).await;
    assert_eq!(
        system
            .value("SELECT array_agg(DISTINCT lanes) FROM cronvec.job_queue")
            .await,
        json!([4]),
        "a tick makes the old one count as the project does"
    );
    let report = system.vectorize().await;
    assert_eq!((report.processed, report.records), (4, 200));
}

#[tokio::test]
async fn while_the_number_of_lanes_shrinks_no_record_has_two_workers() {
    let system = System::embedding_in_process().await;
    system.run_sql("UPDATE cronvec.projects SET lanes = 4").await;
    put_many(&system, PROJECT, 200).await;
    ensure(&system).await;
    let old = claim(&system.store, JobType::Vectorize, 2).await;
    assert_eq!(old.len(), 2);
    system.run_sql("UPDATE cronvec.projects SET lanes = 1").await;
    ensure(&system).await;
    let more = claim(&system.store, JobType::Vectorize, 10).await;
    assert!(!is_mixed(&system).await);
    for job in old.iter().chain(&more) {
        let released = End::Released { progressed: true };
        system.store.end_job(job, released).await.unwrap();
    }
    ensure(&system).await;
    for _ in 0..6 {
        let held = claim(&system.store, JobType::Vectorize, 10).await;
        assert!(!is_mixed(&system).await);
        for job in held {
            let released = End::Released { progressed: true };
            system.store.end_job(&job, released).await.unwrap();
        }
    }
    let report = system.vectorize().await;
    assert_eq!((report.records, report.remaining), (200, false));
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.job_queue WHERE status IN ('PENDING', 'PROCESSING')")
            .await,
        0,
        "the jobs of lanes that are no more end, too"
    );
}

#[tokio::test]
async fn a_job_in_backoff_that_counts_lanes_otherwise_keeps_no_other_lane_waiting() {
    let system = System::embedding_in_process().await;
    put_many(&system, PROJECT, 200).await;
    ensure(&system).await;
    let job = claim_vectorize(&system).await.unwrap();
    system.store.fail_job(&job, "a bug of ours").await.unwrap();
    system.run_sql("UPDATE cronvec.projects SET lanes = 4").await;
    // Its lane has nothing due any more.
    system
        .run_sql("UPDATE cronvec.pending SET not_before = now() + interval '1 hour' WHERE bucket % 4 = 0")
        .await;
    assert_eq!(ensure(&system).await, 3);
    assert_eq!(claim(&system.store, JobType::Vectorize, 10).await.len(), 3);
    assert_eq!(
        system
            .value(&format!(
                "SELECT jsonb_build_array(lanes, turn, attempts) FROM cronvec.job_queue WHERE id = {}",
                job.lease.job_id
            ))
            .await,
        json!([4, null, 1]),
        "it waits on, as one of four"
    );
}
