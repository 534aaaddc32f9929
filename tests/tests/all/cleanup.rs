//! Retention.

use std::time::{Duration, Instant};

use cronvec_call::CallOptions;
use cronvec_store::retention::Expiring;
use cronvec_tests::system::{System, minute};
use serde_json::json;

async fn clean(system: &System) -> cleanup::Report {
    let report = system.cleanup().run(CallOptions::default(), minute()).await;
    report.expect("a pass")
}

#[tokio::test]
async fn finished_jobs_go_after_their_retention_and_unfinished_ones_never() {
    let system = System::with(&[("EMBEDDING_CLEANUP_RETENTION_DAYS", "3")]).await;
    // Of each state one from before the retention and one from after it, staged and with a rejected line.
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, created_at, scheduled_for, completed_at,
                 lease_token, lease_expires_at, priority)
             SELECT 'INGEST_DATA', 'articles', 1, status, then_, then_,
                 CASE WHEN status IN ('COMPLETED', 'FAILED', 'CANCELLED') THEN then_ END,
                 CASE WHEN status = 'PROCESSING' THEN gen_random_uuid() END, CASE WHEN status = 'PROCESSING' THEN now() END, days
             FROM unnest(ARRAY['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED']) AS s (status),
                 (VALUES (100), (2)) AS d (days), LATERAL (SELECT now() - make_interval(days => days)) AS t (then_);
             INSERT INTO cronvec.staged (job_id, piece, first_line, body) SELECT id, 0, 1, 'x' FROM cronvec.job_queue;
             INSERT INTO cronvec.ingest_rejects (job_id, line, reason) SELECT id, 1, 'no id' FROM cronvec.job_queue",
        )
        .await;
    let report = clean(&system).await;
    assert_eq!((report.deleted_count, report.remaining), (3, false));
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({"processed": 3, "deletedCount": 3, "remaining": false})
    );
    assert_eq!(
        system
            .value(
                "SELECT jsonb_agg(jsonb_build_array(status, priority) ORDER BY status, priority) FROM cronvec.job_queue"
            )
            .await,
        json!([
            ["CANCELLED", 2],
            ["COMPLETED", 2],
            ["FAILED", 2],
            ["PENDING", 2],
            ["PENDING", 100],
            ["PROCESSING", 2],
            ["PROCESSING", 100]
        ])
    );
    for table in ["staged", "ingest_rejects"] {
        assert_eq!(system.count(&format!("SELECT count(*) FROM cronvec.{table}")).await, 7);
    }
    assert_eq!(clean(&system).await.deleted_count, 0);
    let status = &system.store.worker_statuses().await.unwrap()[0];
    assert_eq!((status.name.as_str(), status.is_running), ("cleanup", false));
    assert_eq!(status.last_result.as_ref().unwrap()["deletedCount"], 0);
}

#[tokio::test]
async fn what_has_expired_goes_in_bounded_passes() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "INSERT INTO cronvec.job_queue (job_type, project, project_id, status, completed_at)
             SELECT 'INGEST_DATA', 'articles', 1, 'COMPLETED', now() - interval '8 days' FROM generate_series(1, 2500);
             INSERT INTO cronvec.records (project_id, id, content_hash, bucket, accepted, updated_at)
             SELECT 1, 'r' || n, '', 0, 0, now() - interval '1 day' FROM generate_series(1, 1500) AS n;
             CREATE TABLE public.passes (deleted bigint);
             CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN INSERT INTO public.passes SELECT count(*) FROM gone; RETURN NULL; END';
             CREATE TRIGGER note AFTER DELETE ON cronvec.job_queue REFERENCING OLD TABLE AS gone
                 FOR EACH STATEMENT EXECUTE FUNCTION public.note();
             CREATE TRIGGER note AFTER DELETE ON cronvec.records REFERENCING OLD TABLE AS gone
                 FOR EACH STATEMENT EXECUTE FUNCTION public.note()",
        )
        .await;
    let hurried = system
        .cleanup()
        .run(CallOptions::default(), Instant::now() + Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!((hurried.deleted_count, hurried.remaining), (0, true), "it has no time");

    assert_eq!(
        system
            .store
            .cleanup_pass(Expiring::FinishedJobs { days: 7 })
            .await
            .unwrap(),
        (1000, true)
    );
    let report = clean(&system).await;
    assert_eq!((report.deleted_count, report.remaining), (3000, false));
    assert_eq!(
        system
            .value("SELECT jsonb_agg(deleted) FROM public.passes WHERE deleted > 0")
            .await,
        json!([1000, 1000, 500, 1000, 500])
    );
}

#[tokio::test]
async fn audit_metrics_pauses_and_tombstones_have_retentions_of_their_own() {
    let system = System::with(&[("AUDIT_RETENTION_DAYS", "10"), ("METRICS_RETENTION_DAYS", "5")]).await;
    system
        .run_sql(
            "INSERT INTO cronvec.audit_log (timestamp, level, category, message)
             SELECT now() - make_interval(days => n), 'info', 'test', 'day ' || n FROM generate_series(1, 20) AS n;
             INSERT INTO cronvec.performance_metrics (timestamp, metric, value)
             SELECT now() - make_interval(days => n), 'm', n FROM generate_series(1, 20) AS n;
             INSERT INTO cronvec.provider_pauses (endpoint, until, message)
             SELECT 'endpoint ' || h, now() + make_interval(hours => h), 'rests' FROM generate_series(-50, 50, 10) AS h;
             INSERT INTO cronvec.records (project_id, id, content, content_hash, bucket, accepted, updated_at) VALUES
                 (1, 'gone', NULL, '', 0, 1, now() - interval '1 day'), (1, 'there', 'text', 'hash', 0, 1, now() - interval '1 year')",
        )
        .await;
    let report = clean(&system).await;
    // Of the audit 11 to 20, of the metrics 6 to 20 days old (the edge itself is older by now); pauses that ended more
    // than a day ago; one tombstone.
    let count = |table: &'static str| {
        let system = &system;
        async move { system.count(&format!("SELECT count(*) FROM cronvec.{table}")).await }
    };
    assert_eq!(count("audit_log").await, 9);
    assert_eq!(count("performance_metrics").await, 4);
    assert_eq!(
        system
            .value("SELECT min(until) > now() - interval '1 day' FROM cronvec.provider_pauses")
            .await,
        true
    );
    assert_eq!(count("provider_pauses").await, 8);
    assert_eq!(
        system.value("SELECT jsonb_agg(id) FROM cronvec.records").await,
        json!(["there"])
    );
    assert_eq!(report.deleted_count, 11 + 16 + 3 + 1);
}

#[tokio::test]
async fn an_open_circuit_is_kept_while_anyone_may_serve_its_endpoint() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "INSERT INTO cronvec.provider_pauses (endpoint, until, circuit, message)
             SELECT 'endpoint ' || d, now() - make_interval(days => d), true, 'no such key' FROM unnest(ARRAY[2, 29, 31]) AS d",
        )
        .await;
    assert_eq!(clean(&system).await.deleted_count, 1);
    assert_eq!(
        system
            .value("SELECT jsonb_agg(endpoint ORDER BY endpoint) FROM cronvec.provider_pauses")
            .await,
        json!(["endpoint 2", "endpoint 29"])
    );
}
