//! A crash is only what nobody reported: whatever ends a pass, the worker that lives gives back what it holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_nouns::job::{ClaimedJob, JobType};
use cronvec_store::claim::ClaimWish;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::eventually;
use cronvec_tests::database::Database;
use cronvec_tests::process::Process;
use cronvec_tests::provider::Provider;
use cronvec_tests::proxy::Proxy;
use cronvec_tests::system::{PROJECT, System, minute, record};

const WIDTH: u16 = 8;

/// Neither a lease nor a crash nor an attempt is left.
async fn assert_nobody_is_taken_for_dead(system: &System) {
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING'";
    assert_eq!(system.count(held).await, 0, "all is given back");
    let charged = "SELECT count(*) FROM cronvec.job_queue WHERE crashes > 0 OR attempts > 0";
    assert_eq!(system.count(charged).await, 0, "no job is charged");
}

#[tokio::test]
async fn a_connection_that_is_terminated_in_a_write_costs_no_crash_and_the_same_pass_goes_on() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    system.put_many(PROJECT, 60, "text number").await;
    let gate = provider.hold();
    let worker = system.vectorization();
    let pass = async { worker.run(CallOptions::default(), minute()).await };
    let terminate = async {
        provider.wait_open(1).await;
        let jobs = Transaction::holding_jobs(&system).await;
        gate.release();
        system.wait_blocked(1).await;
        let blocked = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0";
        assert!(system.count(blocked).await >= 1);
        jobs.commit().await;
    };
    let (report, ()) = tokio::join!(pass, terminate);
    let report = report.expect("the pass goes on");
    assert!(report.lost_leases == 0, "{report:?}");
    assert_nobody_is_taken_for_dead(&system).await;
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    assert_nobody_is_taken_for_dead(&system).await;
}

/// A system whose database is reached through a proxy.
async fn through_a_proxy(provider: &Provider) -> (Proxy, System) {
    let database = Database::fresh().await;
    let port = cronvec_tests::database::server().await.port();
    let proxy = Proxy::to_port(port).await;
    let through = database
        .url()
        .replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()));
    let address = provider.url();
    let variables = [
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", address.as_str()),
        ("EMBEDDING_DIMENSIONS", "8"),
    ];
    let system = System::through(database, &through, &variables).await;
    (proxy, system)
}

#[tokio::test]
async fn a_database_that_goes_away_and_comes_back_within_a_pass_costs_no_crash() {
    let provider = Provider::start().await;
    let (mut proxy, system) = through_a_proxy(&provider).await;
    system.put_many(PROJECT, 60, "text number").await;
    let records: Vec<_> = (0..20).map(|n| record(&format!("i{n}"), "handed in")).collect();
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    let gate = provider.hold();
    let worker = system.vectorization();
    let pass = async { worker.run(CallOptions::default(), minute()).await };
    let outage = async {
        provider.wait_open(1).await;
        proxy.close().await;
        gate.release();
        // The answers are there, and nobody to give them to.
        let mut open = provider.open_requests();
        open.wait_for(|open| *open == 0).await.expect("a provider");
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.open();
    };
    let (outcome, ()) = tokio::join!(pass, outage);
    println!("{outcome:?}");
    assert_nobody_is_taken_for_dead(&system).await;
    system.ingest().await;
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    assert_nobody_is_taken_for_dead(&system).await;
}

#[tokio::test]
async fn a_lease_that_could_not_be_given_back_in_time_is_reported_by_the_workers_next_pass() {
    let provider = Provider::start().await;
    let (mut proxy, system) = through_a_proxy(&provider).await;
    system.put_many(PROJECT, 30, "text number").await;
    let gate = provider.hold();
    let worker = system.vectorization();
    let pass = async {
        let deadline = Instant::now() + Duration::from_secs(2);
        worker.run(CallOptions::default(), deadline).await
    };
    let outage = async {
        provider.wait_open(1).await;
        proxy.close().await;
        gate.release();
    };
    let (outcome, ()) = tokio::join!(pass, outage);
    drop(outcome);
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING'";
    assert_eq!(system.count(held).await, 1, "there was no time");
    // Another worker is faster, and takes it for dead.
    system.expire_leases().await;
    proxy.open();
    let other = system.another_vectorization(&provider);
    let other_gate = provider.hold();
    let others = async { other.run(CallOptions::default(), minute()).await };
    let both = async {
        provider.wait_open(1).await;
        let crashes = "SELECT count(*) FROM cronvec.job_queue WHERE crashes = 1";
        assert_eq!(system.count(crashes).await, 1);
        worker.run(CallOptions::default(), minute()).await.expect("a pass");
        assert_eq!(system.count(crashes).await, 0, "it lives");
        other_gate.release();
    };
    let (others, ()) = tokio::join!(others, both);
    others.expect("a pass");
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    assert_nobody_is_taken_for_dead(&system).await;
}

/// A process has no next pass.
#[tokio::test]
async fn a_tick_whose_time_ends_while_the_database_is_away_returns_its_job_when_it_is_back() {
    let provider = Provider::start().await;
    let (mut proxy, system) = through_a_proxy(&provider).await;
    system.put_many(PROJECT, 30, "text number").await;
    let gate = provider.hold();
    let port = cronvec_tests::database::server().await.port();
    let through = system
        .database
        .url()
        .replace(&format!(":{port}/"), &format!(":{}/", proxy.address().port()));
    let address = provider.url();
    let environment = [
        ("DATABASE_URL", through.as_str()),
        ("EMBEDDING_PROVIDER", "openai"),
        ("OPENAI_BASE_URL", address.as_str()),
        ("EMBEDDING_DIMENSIONS", "8"),
    ];
    let mut tick = Process::spawn(
        "cronvec",
        &["tick", "vectorization", "--max-seconds", "3"],
        &environment,
    )
    .await;
    provider.wait_open(1).await;
    proxy.close().await;
    gate.release();
    eventually("its time is over", || async {
        tick.stderr().contains("no time was left to release leases")
    })
    .await;
    let held = "SELECT count(*) FROM cronvec.job_queue WHERE status = 'PROCESSING'";
    assert_eq!(system.count(held).await, 1, "nobody could be told");
    proxy.open();
    tick.wait().await;
    assert_nobody_is_taken_for_dead(&system).await;
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

#[tokio::test]
async fn a_pass_that_is_cut_off_at_its_deadline_gives_back_its_job() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    system.put_many(PROJECT, 30, "text number").await;
    // The write waits for somebody who holds the table.
    let user = Transaction::begin(&system).await;
    user.run("LOCK TABLE cronvec.embedded IN SHARE MODE").await;
    let deadline = Instant::now() + Duration::from_secs(3);
    let report = system.vectorize_with(CallOptions::default(), deadline).await;
    assert_eq!(report.records, 0);
    user.commit().await;
    // The statement that nobody waits for any more may hold the job for a moment.
    eventually("the job is free", || async {
        let report = system.vectorize().await;
        !report.remaining
    })
    .await;
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
    let charged = "SELECT count(*) FROM cronvec.job_queue WHERE attempts > 0";
    assert_eq!(system.count(charged).await, 0);
}

#[tokio::test]
async fn a_job_that_was_claimed_beside_one_that_is_cancelled_is_not_lost() {
    let system = System::with(&[
        ("EMBEDDING_PROVIDER", "static"),
        ("INGEST_JOBS_PER_INVOCATION", "1"),
        ("INGEST_BATCH_SIZE", "1"),
    ])
    .await;
    let records: Vec<_> = (0..40).map(|n| record(&format!("r{n}"), "a text")).collect();
    let first = system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    // It is cancelled between the claim of the second and its own end.
    system
        .run_sql(&format!(
            "CREATE FUNCTION public.cancels() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 UPDATE cronvec.job_queue SET status = 'CANCELLED', completed_at = now(), lease_token = NULL, lease_expires_at = NULL
                     WHERE id = {first} AND status = 'PROCESSING';
                 RETURN NULL;
             END $$;
             CREATE TRIGGER cancels AFTER UPDATE ON cronvec.job_queue FOR EACH ROW
                 WHEN (NEW.id <> {first} AND NEW.status = 'PROCESSING' AND OLD.status = 'PENDING') EXECUTE FUNCTION public.cancels()"
        ))
        .await;
    let report = system.ingest().await;
    assert_eq!((report.processed, report.lost_leases), (2, 1));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 40);
    assert_nobody_is_taken_for_dead(&system).await;
}

#[tokio::test]
async fn a_wait_for_a_users_lock_in_the_last_second_of_a_pass_ends_before_the_pass() {
    let system = System::embedding_in_process().await;
    let user = Transaction::begin(&system).await;
    user.run("SELECT cronvec.put_record('articles', 'new', 'a text')").await;
    let job = system
        .enqueue(PROJECT, &[record("new", "from a file")], EnqueueOptions::default())
        .await;
    for millis in [400, 700, 1_000, 1_300] {
        let deadline = Instant::now() + Duration::from_millis(millis);
        let report = system
            .ingestion()
            .run(CallOptions::default(), deadline)
            .await
            .expect("a pass");
        assert_eq!(report.records, 0, "{millis} ms");
        assert_nobody_is_taken_for_dead(&system).await;
        system
            .run_sql("UPDATE cronvec.job_queue SET scheduled_for = now() WHERE status = 'PENDING'")
            .await;
    }
    user.commit().await;
    system.ingest().await;
    assert_eq!(system.store.job(job).await.unwrap().status, "COMPLETED");
}

#[tokio::test]
async fn what_a_frozen_worker_was_taken_for_is_taken_back_when_it_wakes_up() {
    let provider = Provider::start().await;
    let system = Arc::new(System::embedding_with(&provider, WIDTH).await);
    system.put_many(PROJECT, 30, "text number").await;
    let gate = provider.hold();
    let frozen = tokio::spawn({
        let worker = system.vectorization();
        async move { worker.run(CallOptions::default(), minute()).await }
    });
    provider.wait_open(2).await;
    system.expire_leases().await;
    let another = Provider::start().await;
    let held = another.hold();
    let other = tokio::spawn({
        let worker = system.another_vectorization(&another);
        async move { worker.run(CallOptions::default(), minute()).await }
    });
    another.wait_open(1).await;
    let crashes = "SELECT count(*) FROM cronvec.job_queue WHERE crashes = 1";
    assert_eq!(system.count(crashes).await, 1);
    gate.release();
    assert_eq!(frozen.await.unwrap().unwrap().lost_leases, 1);
    assert_eq!(system.count(crashes).await, 0);
    held.release();
    other.await.unwrap().unwrap();
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, WIDTH.into()).await;
}

/// A claim of the one job, and its token.
async fn claim(system: &System) -> ClaimedJob {
    let wish = ClaimWish {
        job_type: JobType::IngestData,
        spaces: &[],
        limit: 1,
        lease: Duration::from_secs(60),
        worker: "a test",
        project_id: None,
    };
    let claimed = system.store.claim_jobs(&wish).await.expect("a claim");
    claimed.into_iter().next().expect("a job")
}

/// One job, whose worker claimed it and was taken for dead.
async fn with_an_expired_lease() -> (System, ClaimedJob) {
    let system = System::embedding_in_process().await;
    system
        .enqueue(PROJECT, &[record("r1", "a text")], EnqueueOptions::default())
        .await;
    let claimed = claim(&system).await;
    system.expire_leases().await;
    (system, claimed)
}

/// What the worker of this claim reports: crashes that are taken back.
async fn report(system: &System, claimed: &ClaimedJob) -> u64 {
    let reported = system.store.report_leases(&[claimed.lease.token]).await;
    reported.expect("a report").taken_back
}

#[tokio::test]
async fn a_crash_is_taken_back_though_another_worker_has_returned_the_job_since() {
    let (system, frozen) = with_an_expired_lease().await;
    let second = claim(&system).await;
    assert_eq!((second.crashes, report(&system, &second).await), (1, 0));
    let third = claim(&system).await;
    assert_eq!((third.crashes, report(&system, &frozen).await), (1, 1));
    report(&system, &third).await;
    assert_nobody_is_taken_for_dead(&system).await;
}

#[tokio::test]
async fn a_crash_of_a_claim_whose_answer_was_lost_is_taken_back() {
    let (system, frozen) = with_an_expired_lease().await;
    let other = claim(&system).await;
    report(&system, &other).await;
    // Nobody works on the job, and its worker may not even know which it was.
    assert_eq!((other.crashes, report(&system, &frozen).await), (1, 1));
    assert_nobody_is_taken_for_dead(&system).await;
}

#[tokio::test]
async fn a_crash_is_taken_back_though_another_worker_has_died_since() {
    let (system, frozen) = with_an_expired_lease().await;
    claim(&system).await;
    system.expire_leases().await;
    let third = claim(&system).await;
    assert_eq!((third.crashes, report(&system, &frozen).await), (2, 1));
    assert_eq!(report(&system, &frozen).await, 0, "once");
    let crashes = "SELECT crashes::bigint FROM cronvec.job_queue";
    assert_eq!(system.count(crashes).await, 1, "the second one stays dead");
}

#[tokio::test]
async fn a_worker_that_has_taken_over_its_own_job_reports_both_leases_at_once() {
    let (system, first) = with_an_expired_lease().await;
    let second = claim(&system).await;
    assert_eq!(second.crashes, 1);
    let tokens = [first.lease.token, second.lease.token];
    let reported = system.store.report_leases(&tokens).await.unwrap();
    assert_eq!((reported.released, reported.taken_back), (1, 1));
    assert_nobody_is_taken_for_dead(&system).await;
}
