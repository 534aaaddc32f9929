//! The same of an INGEST_DATA job.

use std::time::Duration;

use cronvec_nouns::job::{ClaimedJob, JobType, Progress};
use cronvec_nouns::record::Record;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_store::ingest::{IngestBatch, IngestCursor, LONGEST_WAIT};
use cronvec_store::{Store, StoreError};
use cronvec_tests::between::Transaction;
use cronvec_tests::system::{PROJECT, System, record};

use super::{LOSSES, assert_lost, claim, text};

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
        .ingest_batch(job, &batch, Duration::from_secs(30), LONGEST_WAIT, advance)
        .await
        .map(drop)
}
