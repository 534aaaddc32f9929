//! Who has lost the lease writes nothing, and a text that is no longer the record's is never stored as current.

mod ingestion;
mod leases;
mod statements;
mod texts;

use std::sync::Arc;
use std::time::Duration;

use cronvec_call::CallOptions;
use cronvec_nouns::job::{ClaimedJob, JobType};
use cronvec_store::StoreError;
use cronvec_store::claim::{ClaimWish, Servable};
use cronvec_tests::provider::{Gate, Provider};
use cronvec_tests::system::{PROJECT, System, minute};
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
