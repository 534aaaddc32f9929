//! Owns getting between a worker's statement and its rows: a transaction of our own that holds them.

use tokio_postgres::Client;

use crate::conditions::eventually;
use crate::system::System;

/// An open transaction, as a user's or another worker's. Dropped, it is rolled back.
pub struct Transaction {
    client: Client,
}

impl Transaction {
    pub async fn begin(system: &System) -> Self {
        let client = system.database.client().await;
        client.batch_execute("BEGIN").await.expect("a transaction");
        Self { client }
    }

    /// One that holds the rows of all jobs: whatever a worker does about its job waits for it.
    pub async fn holding_jobs(system: &System) -> Self {
        let transaction = Self::begin(system).await;
        transaction.run("SELECT FROM cronvec.job_queue FOR UPDATE").await;
        transaction
    }

    /// One that a job's end waits for, begun and with its snapshot taken.
    pub async fn before_jobs_end(system: &System) -> Self {
        system
            .run_sql(
                "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql
                     AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
                 CREATE TRIGGER wait_for_test BEFORE UPDATE OF status ON cronvec.job_queue FOR EACH ROW
                     WHEN (OLD.status = 'PROCESSING' AND NEW.status <> 'PROCESSING') EXECUTE FUNCTION wait_for_test()",
            )
            .await;
        let transaction = Self::begin(system).await;
        transaction.run("SELECT pg_advisory_xact_lock(1)").await;
        transaction
    }

    pub async fn run(&self, sql: &str) {
        self.client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub async fn commit(self) {
        self.run("COMMIT").await;
    }
}

impl System {
    /// Waits until so many statements have begun and stand before somebody's lock.
    pub async fn wait_blocked(&self, statements: i64) {
        eventually("a statement waits for a lock", || async {
            self.count(
                "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .await
                >= statements
        })
        .await;
    }

    /// All that a worker can write about records and jobs, to be compared with the same of another moment.
    pub async fn written_besides_jobs(&self) -> serde_json::Value {
        let mut written = self.written().await;
        if let Some(tables) = written.as_object_mut() {
            tables.remove("jobs");
        }
        written
    }

    /// All that workers write.
    pub async fn written(&self) -> serde_json::Value {
        self.value(
            "SELECT jsonb_build_object(
                 'chunks', (SELECT jsonb_agg(to_jsonb(c) ORDER BY c.record_id, c.content_hash, c.ordinal) FROM cronvec.chunks c),
                 'embedded', (SELECT jsonb_agg(to_jsonb(e) ORDER BY e.record_id) FROM cronvec.embedded e),
                 'pending', (SELECT jsonb_agg(to_jsonb(w) ORDER BY w.record_id) FROM cronvec.pending w),
                 'quarantine', (SELECT jsonb_agg(to_jsonb(q) ORDER BY q.record_id) FROM cronvec.quarantined_records q),
                 'records', (SELECT jsonb_agg(to_jsonb(r) ORDER BY r.id) FROM cronvec.records r),
                 'rejects', (SELECT jsonb_agg(to_jsonb(r) ORDER BY r.line) FROM cronvec.ingest_rejects r),
                 'holds', (SELECT jsonb_agg(to_jsonb(h) ORDER BY h.lane) FROM cronvec.lane_holds h),
                 'jobs', (SELECT jsonb_agg(to_jsonb(j) ORDER BY j.id) FROM cronvec.job_queue j))",
        )
        .await
    }
}
