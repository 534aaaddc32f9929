use std::time::Duration;

use cronvec_nouns::job::Progress;
use cronvec_store::enqueue::EnqueueOptions;
use cronvec_tests::system::{PROJECT, System};
use serde_json::{Value, json};
use tokio_postgres::types::Type;

use super::plan::explain;
use super::{claim_ingest, enqueue, enqueue_many};

async fn stats(system: &System) -> Value {
    serde_json::to_value(system.store.queue_stats().await.unwrap()).unwrap()
}

fn is_time(value: &Value) -> bool {
    // 2026-01-31T12:34:56.789Z
    let text = value.as_str().unwrap_or_default();
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

#[tokio::test]
async fn the_oldest_job_is_one_that_could_be_claimed_and_the_fifty_newest_are_listed_newest_first() {
    let system = System::embedding_in_process().await;
    assert_eq!(
        stats(&system).await,
        json!({
            "queueStats": {"pending": 0, "processing": 0, "completed": 0, "failed": 0},
            "recentJobs": [],
            "oldestPendingJob": null,
        })
    );

    system.create_project("paused").await;
    enqueue(&system, "paused", EnqueueOptions::default()).await;
    system.store.set_paused("paused", true).await.unwrap();
    assert_eq!(stats(&system).await["oldestPendingJob"], json!(null));
    let id = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    assert_eq!(stats(&system).await["oldestPendingJob"]["id"], id.to_string());

    let ids = enqueue_many(&system.store, PROJECT, 60, &EnqueueOptions::default()).await;
    let listed: Vec<String> = stats(&system).await["recentJobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_str().unwrap().to_owned())
        .collect();
    let newest: Vec<String> = ids.iter().rev().take(50).map(i64::to_string).collect();
    assert_eq!(listed, newest);
}

#[tokio::test]
async fn the_statistics_have_the_promised_fields() {
    let system = System::embedding_in_process().await;
    let options = EnqueueOptions {
        priority: 7,
        max_attempts: Some(1),
        ..EnqueueOptions::default()
    };
    let completed = enqueue(&system, PROJECT, options.clone()).await;
    let job = claim_ingest(&system).await.unwrap();
    system.store.complete_job(&job, json!({"savedCount": 1})).await.unwrap();
    let failed = enqueue(&system, PROJECT, options.clone()).await;
    let job = claim_ingest(&system).await.unwrap();
    system.store.fail_job(&job, "a bug of ours").await.unwrap();
    let processing = enqueue(&system, PROJECT, options.clone()).await;
    let job = claim_ingest(&system).await.unwrap();
    let progress = Progress {
        current: 3,
        total: 10,
        message: Some("storing".into()),
    };
    system.store.update_progress(job.lease, &progress).await.unwrap();
    let cancelled = enqueue(&system, PROJECT, options.clone()).await;
    system.store.cancel_job(cancelled).await.unwrap();
    let later = EnqueueOptions {
        delay: Duration::from_secs(3600),
        ..EnqueueOptions::default()
    };
    enqueue(&system, PROJECT, later).await;
    let old = enqueue(&system, PROJECT, EnqueueOptions::default()).await;
    system
        .run_sql(&format!(
            "UPDATE cronvec.job_queue SET scheduled_for = now() - interval '90 seconds',
                 created_at = now() - interval '2 hours' WHERE id = {old}"
        ))
        .await;

    let stats = stats(&system).await;
    assert_eq!(
        stats["queueStats"],
        json!({"pending": 2, "processing": 1, "completed": 1, "failed": 1})
    );
    assert!(stats.get("capped").is_none());
    let jobs = stats["recentJobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 6);
    let find = |id: i64| {
        let id = id.to_string();
        jobs.iter().find(|job| job["id"] == *id).unwrap()
    };
    for job in jobs {
        for field in [
            "id",
            "jobType",
            "status",
            "priority",
            "attempts",
            "maxAttempts",
            "progress",
            "result",
            "createdAt",
            "startedAt",
            "completedAt",
        ] {
            assert!(job.get(field).is_some(), "{field} of {job}");
        }
        assert!(is_time(&job["createdAt"]), "{job}");
        assert_eq!(job["jobType"], "INGEST_DATA");
    }
    let job = find(completed);
    assert_eq!(
        (&job["status"], &job["priority"], &job["maxAttempts"]),
        (&json!("COMPLETED"), &json!(7), &json!(1))
    );
    assert!(is_time(&job["startedAt"]) && is_time(&job["completedAt"]));
    assert_eq!(job["result"]["savedCount"], 1);
    assert!(job["result"]["activeMs"].as_i64().unwrap() >= 0);
    assert_eq!(job["progress"], json!(null));
    let job = find(failed);
    assert_eq!((&job["status"], &job["attempts"]), (&json!("FAILED"), &json!(1)));
    assert_eq!(job["result"]["error"], "a bug of ours");
    let job = find(processing);
    assert_eq!(
        job["progress"],
        json!({"current": 3, "total": 10, "message": "storing"})
    );
    assert_eq!(
        (&job["status"], &job["completedAt"]),
        (&json!("PROCESSING"), &json!(null))
    );
    assert_eq!(find(cancelled)["status"], "CANCELLED");

    let oldest = &stats["oldestPendingJob"];
    assert_eq!(oldest["id"], old.to_string());
    assert!(is_time(&oldest["createdAt"]));
    assert_eq!(
        oldest["ageMinutes"].as_f64().unwrap(),
        1.5,
        "counted from when it could first be claimed"
    );
}

#[tokio::test]
async fn counts_are_capped_and_said_to_be_and_read_no_more_than_that() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at, turn)
             SELECT 'INGEST_DATA', 'articles', 1, status,
                 CASE WHEN status <> 'PENDING' THEN now() END, CASE WHEN status = 'PENDING' THEN n END
             FROM generate_series(1, 30000) AS n
             CROSS JOIN LATERAL (SELECT CASE WHEN n <= 10001 THEN 'PENDING' WHEN n <= 10004 THEN 'FAILED' ELSE 'COMPLETED' END) AS s (status)",
        )
        .await;
    system.run_sql("ANALYZE cronvec.job_queue").await;
    let stats = stats(&system).await;
    assert_eq!(
        stats["queueStats"],
        json!({"pending": 10000, "processing": 0, "completed": 10000, "failed": 3})
    );
    assert_eq!(stats["capped"], json!(["pending", "completed"]));

    let statement = cronvec_store::jobs::COUNTS;
    let plan = explain(&system, statement, &[(&100_i64, Type::INT8)]).await;
    assert!(plan.rows_of_jobs < 1000.0, "{plan:#?}");
    assert_eq!(plan.seq_scans, 0, "{plan:#?}");
}

#[tokio::test]
async fn the_oldest_unfinished_job_of_ingestion_is_found_without_looking_at_finished_ones() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, space_id, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', 0, 'articles', 1, 'COMPLETED', now() FROM generate_series(1, 20000)",
        )
        .await;
    for analyze in ["", "ANALYZE cronvec.job_queue"] {
        system.run_sql(analyze).await;
        let plan = super::plan::explain_along_index(&system, cronvec_store::retention::OLDEST_UNFINISHED, &[]).await;
        assert!(plan.rows_of_jobs <= 10.0 && plan.buffers < 200.0, "{plan:#?}");
    }
    assert_eq!(system.store.oldest_unfinished_ingest().await.unwrap(), i64::MAX);
    let job = super::enqueue(&system, PROJECT, cronvec_store::enqueue::EnqueueOptions::default()).await;
    assert_eq!(system.store.oldest_unfinished_ingest().await.unwrap(), job);
    system.store.cancel_job(job).await.unwrap();
    assert_eq!(
        system.store.oldest_unfinished_ingest().await.unwrap(),
        job,
        "it can be retried"
    );
}
