//! Who has lost the lease writes nothing, and a text that is no longer the record's is never stored as current.

use std::sync::Arc;
use std::time::Duration;

use cronvec_tests::between::Transaction;
use cronvec_tests::conditions::eventually;
use cronvec_tests::provider::{Answer, Gate, Provider};
use cronvec_tests::system::{PROJECT, System, minute, record};
use shared::call::CallOptions;
use shared::job::{ClaimedJob, End, JobType, Progress};
use shared::record::{ContentHash, Record};
use shared::store::claim::{ClaimWish, Servable};
use shared::store::enqueue::EnqueueOptions;
use shared::store::ingest::{IngestBatch, IngestCursor};
use shared::store::vectors::{Charge, Holding, NewChunk};
use shared::store::{Store, StoreError};
use tokio::task::JoinHandle;
use vectorization::{Report, Worker};

/// What takes a lease away.
const LOSSES: [(&str, &str); 3] = [
    (
        "it has run out",
        "UPDATE cronvec.job_queue SET lease_expires_at = now() - interval '1 ms' WHERE status = 'PROCESSING'",
    ),
    (
        "another has it",
        "UPDATE cronvec.job_queue SET lease_token = gen_random_uuid() WHERE status = 'PROCESSING'",
    ),
    (
        "the job was cancelled",
        "UPDATE cronvec.job_queue SET status = 'CANCELLED', completed_at = now(), lease_token = NULL, lease_expires_at = NULL
         WHERE status = 'PROCESSING'",
    ),
];

/// A system whose worker is stopped in the middle of its pass: it holds its job, and its requests stand open.
struct Scene {
    system: System,
    provider: Provider,
}

impl Scene {
    async fn new() -> Self {
        let provider = Provider::start().await;
        let variables = [("VECTORIZE_JOBS_PER_INVOCATION", "1"), ("EMBEDDING_BATCH_SIZE", "10")];
        let system = System::embedding_as(&provider, 8, &variables).await;
        Self { system, provider }
    }

    /// The records `r0` and so on, each as new; then a pass over all of them, in requests of ten, that are held. The pass
    /// claims nothing after them: a lost job isn't taken up again by the worker that lost it.
    async fn ask_for(&self, records: u64) -> (Gate, JoinHandle<Report>) {
        self.ask_through(&self.worker(), records, Some(records)).await
    }

    /// The same with a pass that goes on for as long as there is something to do.
    async fn ask_and_go_on(&self, records: u64) -> (Gate, JoinHandle<Report>) {
        self.ask_through(&self.worker(), records, None).await
    }

    fn worker(&self) -> Arc<Worker> {
        Arc::new(self.system.vectorization())
    }

    async fn ask_through(&self, worker: &Arc<Worker>, records: u64, most: Option<u64>) -> (Gate, JoinHandle<Report>) {
        self.system
            .run_sql(
                "TRUNCATE cronvec.job_queue, cronvec.lane_holds, cronvec.records, cronvec.pending, cronvec.chunks,
                     cronvec.embedded CASCADE",
            )
            .await;
        for n in 0..records {
            self.system.put(PROJECT, &format!("r{n}"), &text(n)).await;
        }
        let gate = self.provider.hold();
        let pass = start(worker, most);
        let requests = usize::try_from(records.div_ceil(10)).unwrap();
        self.provider.wait_open(requests).await;
        (gate, pass)
    }

    async fn count(&self, sql: &str) -> i64 {
        self.system.count(sql).await
    }
}

const CHUNKS_OF_R3: &str = "SELECT count(*) FROM cronvec.chunks WHERE record_id = 'r3'";

fn text(n: u64) -> String {
    format!("text number {n}")
}

fn start(worker: &Arc<Worker>, max_records: Option<u64>) -> JoinHandle<Report> {
    let worker = Arc::clone(worker);
    let options = CallOptions {
        max_records,
        ..CallOptions::default()
    };
    tokio::spawn(async move { worker.run(options, minute()).await.expect("a pass") })
}

fn assert_wrote_nothing(report: &Report, why: &str) {
    assert_eq!((report.records, report.chunks, report.failed), (0, 0, 0), "{why}");
    assert_eq!(report.lost_leases, 1, "{why}");
}

#[tokio::test]
async fn a_worker_whose_lease_is_lost_while_its_provider_dawdles_writes_nothing() {
    let scene = Scene::new().await;
    for (why, loss) in LOSSES {
        let (gate, pass) = scene.ask_for(35).await;
        scene.system.run_sql(loss).await;
        let before = scene.system.written().await;
        gate.release();
        assert_wrote_nothing(&pass.await.unwrap(), why);
        assert_eq!(scene.system.written().await, before, "{why}");
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
    let before = scene.system.written().await;

    gate.release();
    assert_wrote_nothing(&pass.await.unwrap(), "another has finished");
    assert_eq!(scene.system.written().await, before);
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
    let before = scene.system.written().await;

    gate.release();
    assert_wrote_nothing(&pass.await.unwrap(), "another works");
    assert_eq!(scene.system.written().await, before);
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
    let before = scene.system.written().await;
    // It waits for the answer no longer.
    worker.stop();
    assert_wrote_nothing(&pass.await.unwrap(), "stopped");
    assert_eq!(scene.system.written().await, before);
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
        let ended =
            "SELECT count(*) FROM cronvec.job_queue WHERE progress IS NOT NULL OR status IN ('PENDING', 'COMPLETED')";
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
    let before = scene.system.written().await;
    gate.release();
    scene.system.wait_blocked(1).await;
    eventually("the lease has run out", || async {
        let over = "SELECT count(*) FROM cronvec.job_queue WHERE lease_expires_at <= clock_timestamp()";
        scene.count(over).await == 1
    })
    .await;
    transaction.commit().await;
    assert_wrote_nothing(&pass.await.unwrap(), "it ran out");
    assert_eq!(scene.system.written().await, before);
}

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
async fn a_record_is_not_charged_by_a_worker_that_lost_its_lease_at_the_provider() {
    let scene = Scene::new().await;
    scene.provider.answer_containing("number 0", Answer::rejected());
    for (why, loss) in LOSSES {
        let asked = scene.provider.log().requests.len();
        let (gate, pass) = scene.ask_for(1).await;
        scene.system.run_sql(loss).await;
        let before = scene.system.written().await;
        gate.release();
        assert_wrote_nothing(&pass.await.unwrap(), why);
        let asked = scene.provider.log().requests.len() - asked;
        assert_eq!(asked, 2, "the canary was asked for, so the record was to be charged");
        assert_eq!(scene.system.written().await, before, "{why}");
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

#[tokio::test]
async fn without_a_live_lease_no_statement_about_a_job_changes_anything() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "r0", &text(0)).await;
    system.put(PROJECT, "r1", &text(1)).await;
    system.vectorize().await;
    system.put(PROJECT, "r0", &text(1)).await;
    system.run_sql("SELECT cronvec.delete_record('articles', 'r1')").await;
    for (why, loss) in LOSSES {
        system
            .run_sql("TRUNCATE cronvec.job_queue, cronvec.lane_holds CASCADE")
            .await;
        let job = claim(&system, JobType::Vectorize).await;
        system.run_sql(loss).await;
        let before = system.written().await;

        let store = &system.store;
        let lease = Duration::from_secs(30);
        let progress = Progress {
            current: 1,
            total: 1,
            message: None,
        };
        let holding = Holding {
            job: &job,
            lease,
            progress: progress.clone(),
            column: None,
            trusts_new: true,
        };
        let charge = |permanent| Charge {
            record_id: "r0".into(),
            record_hash: ContentHash::of(&text(1)),
            reason: "rejected",
            message: String::new(),
            permanent,
        };
        let connection = store.connection().await.unwrap();
        assert_lost(store.charge_records(&connection, &job, &[charge(true)]).await, why);
        assert_lost(store.charge_records(&connection, &job, &[charge(false)]).await, why);
        assert_lost(store.purge_deleted(&connection, &holding, &["r1"]).await, why);
        assert_lost(store.keep_job(&connection, &holding).await, why);
        drop(connection);
        assert_lost(store.update_progress(job.lease, &progress).await, why);
        for end in [
            End::Completed {
                result: serde_json::Value::Null,
            },
            End::Released { progressed: true },
            End::Snoozed { delay: lease },
            End::Failed {
                error: "an error".into(),
            },
        ] {
            assert_lost(store.end_job(&job, end).await, why);
        }
        assert_eq!(system.written().await, before, "{why}");
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

#[tokio::test]
async fn ingestion_without_a_live_lease_stores_nothing() {
    let system = System::embedding_in_process().await;
    for (why, loss) in LOSSES {
        let job = ingesting(&system).await;
        system.run_sql(loss).await;
        let before = system.written().await;
        assert_lost(store_one(&system.store, &job).await, why);
        assert_eq!(system.written().await, before, "{why}");
    }
}

#[tokio::test]
async fn ingestion_whose_lease_is_lost_between_its_check_and_its_write_stores_nothing() {
    let system = System::embedding_in_process().await;
    for (why, loss) in LOSSES {
        let job = ingesting(&system).await;
        let transaction = Transaction::holding_jobs(&system).await;
        let written = tokio::spawn({
            let store = system.store.clone();
            async move { store_one(&store, &job).await }
        });
        system.wait_blocked(1).await;
        transaction.run(loss).await;
        transaction.commit().await;
        assert_lost(written.await.unwrap(), why);
        for nothing in ["records", "pending", "job_queue WHERE cursor IS NOT NULL"] {
            let count = system.count(&format!("SELECT count(*) FROM cronvec.{nothing}")).await;
            assert_eq!(count, 0, "{why}: {nothing}");
        }
    }
}

/// A new INGEST_DATA job, claimed; the only job there is.
async fn ingesting(system: &System) -> ClaimedJob {
    system.run_sql("TRUNCATE cronvec.job_queue CASCADE").await;
    let records = [record("r0", &text(0))];
    system.enqueue(PROJECT, &records, EnqueueOptions::default()).await;
    claim(system, JobType::IngestData).await
}

async fn store_one(store: &Store, job: &ClaimedJob) -> Result<(), StoreError> {
    let record = Record {
        id: "r0".into(),
        content: text(0),
        metadata: "{}".into(),
    };
    let batch = IngestBatch {
        records: &[(1, &record)],
        rejections: &[],
        embed: true,
        priority: 0,
    };
    let advance = |_: &_| (IngestCursor::default(), Progress::default());
    store
        .ingest_batch(job, &batch, Duration::from_secs(30), advance)
        .await
        .map(drop)
}

/// The one job of this type that there is to claim.
async fn claim(system: &System, job_type: JobType) -> ClaimedJob {
    system.store.ensure_vectorize_jobs(3, 10_000).await.unwrap();
    let spaces = [Servable {
        space_id: system.store.project(PROJECT).await.unwrap().live_space,
        endpoint: "any".into(),
    }];
    let wish = ClaimWish {
        job_type,
        spaces: &spaces,
        limit: 1,
        lease: Duration::from_secs(30),
        worker: "a test",
        project_id: None,
    };
    system.store.claim_jobs(&wish).await.unwrap().pop().expect("a job")
}

fn assert_lost<T: std::fmt::Debug>(outcome: Result<T, StoreError>, why: &str) {
    assert!(matches!(outcome, Err(StoreError::LeaseLost)), "{why}: {outcome:?}");
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
