//! Each statement about a job that is claimed.

use std::time::Duration;

use cronvec_nouns::job::{End, JobType, Progress};
use cronvec_nouns::record::ContentHash;
use cronvec_store::charges::Charge;
use cronvec_store::vectors::Holding;
use cronvec_tests::system::{PROJECT, System};

use super::{LOSSES, assert_lost, claim, text};

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
