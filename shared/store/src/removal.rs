//! Owns the taking away of a project: marked first, then slice by slice, so that it can be gone on with. Refuses to touch
//! one that a table feeds.

use deadpool_postgres::Transaction;
use tokio_postgres::types::Type;

use super::again::until_done;
use super::projects::Project;
use super::{Store, StoreError};

/// Records that go in one transaction, with their chunks.
const RECORDS_PER_SLICE: i64 = 500;
/// Jobs that one statement looks at. They have no index by project: the walk along their key passes each once.
const JOBS_LOOKED_AT: i64 = 1000;
/// What the last transaction takes along while it keeps writers out.
const LEFT_FOR_THE_LAST: i64 = 2 * RECORDS_PER_SLICE;

/// We wait less than PostgreSQL's `deadlock_timeout`: should we stand in a circle with a writer, we leave it first.
const SETTINGS: &str = "SET LOCAL lock_timeout = '900ms'; SET LOCAL statement_timeout = '30s';
    SET LOCAL idle_in_transaction_session_timeout = '5s'; SET LOCAL jit = off;
    SET LOCAL enable_sort = off; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";

/// What a project has, or what was taken of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Holdings {
    pub records: u64,
    pub vectors: u64,
    pub jobs: u64,
}

impl Holdings {
    pub fn add(&mut self, more: Self) {
        self.records += more.records;
        self.vectors += more.vectors;
        self.jobs += more.jobs;
    }
}

impl Store {
    /// The project of this name, also one whose removal has begun.
    pub async fn project_to_remove(&self, name: &str) -> Result<Project, StoreError> {
        let found = self.find_project(name).await?;
        found.ok_or_else(|| StoreError::NoProject(name.into()))
    }

    /// Counts all of it: for people.
    pub async fn holdings(&self, project_id: i32) -> Result<Holdings, StoreError> {
        let row = self
            .query_one(
                "SELECT (SELECT count(*) FROM cronvec.records r WHERE r.project_id = $1 AND r.content IS NOT NULL),
                     (SELECT count(*) FROM cronvec.spaces s CROSS JOIN LATERAL (
                          SELECT FROM cronvec.chunks c WHERE c.space_id = s.id AND c.project_id = $1) AS c),
                     (SELECT count(*) FROM cronvec.job_queue j WHERE j.project_id = $1)",
                &[(&project_id, Type::INT4)],
            )
            .await?;
        let number = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default();
        Ok(Holdings {
            records: number(0),
            vectors: number(1),
            jobs: number(2),
        })
    }

    /// From now on it takes no writes and gets no jobs; whoever holds one finds it gone.
    pub async fn begin_removal(&self, project: &Project) -> Result<(), StoreError> {
        self.execute(
            "UPDATE cronvec.projects SET paused = true, removing = true WHERE id = $1",
            &[(&project.id, Type::INT4)],
        )
        .await?;
        Ok(())
    }

    /// Jobs among those behind this one; gives where the next look begins, none at their end. A worker that holds one
    /// can write nothing afterwards.
    pub async fn remove_jobs(&self, project_id: i32, after: i64) -> Result<(Holdings, Option<i64>), StoreError> {
        let rows = self
            .query_along_index(
                "WITH page AS MATERIALIZED (
                     SELECT j.id, j.project_id FROM cronvec.job_queue j WHERE j.id > $2 ORDER BY j.id LIMIT $3
                 ), gone AS (
                     DELETE FROM cronvec.job_queue j USING page WHERE j.id = page.id AND page.project_id = $1 RETURNING 1
                 )
                 SELECT (SELECT max(id) FROM page), (SELECT count(*) FROM gone)",
                &[
                    (&project_id, Type::INT4),
                    (&after, Type::INT8),
                    (&JOBS_LOOKED_AT, Type::INT8),
                ],
            )
            .await?;
        let (last, gone) = rows
            .first()
            .map_or((None, 0_i64), |row| (row.get::<_, Option<i64>>(0), row.get(1)));
        let taken = Holdings {
            jobs: u64::try_from(gone).unwrap_or_default(),
            ..Holdings::default()
        };
        Ok((taken, last))
    }

    /// Records behind this one, with all that belongs to them; gives the last one, none when nobody's are left. Those
    /// that somebody has locked are passed over.
    pub async fn remove_records(&self, project_id: i32, after: &str) -> Result<(Holdings, Option<String>), StoreError> {
        until_done!(self.again(), self.try_to_remove_records(project_id, after))
    }

    async fn try_to_remove_records(
        &self,
        project_id: i32,
        after: &str,
    ) -> Result<(Holdings, Option<String>), StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, SETTINGS).await?;
        let slice = take_records(&transaction, project_id, after, "SKIP LOCKED").await?;
        transaction.commit().await?;
        Ok(slice)
    }

    /// The last step: the project itself, with the few records that were passed over or written meanwhile. `None`: there
    /// are many of them, go round again.
    pub async fn end_removal(&self, project: &Project) -> Result<Option<Holdings>, StoreError> {
        until_done!(self.again(), self.try_to_end_removal(project))
    }

    async fn try_to_end_removal(&self, project: &Project) -> Result<Option<Holdings>, StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, SETTINGS).await?;
        let id: &[super::Param<'_>] = &[(&project.id, Type::INT4)];
        // Waits for transactions that have put a record into it, and keeps others from it.
        transaction
            .execute_typed("SELECT FROM cronvec.projects WHERE id = $1 FOR UPDATE", id)
            .await?;
        let rows = transaction
            .query_typed(
                "SELECT (SELECT s.table_name FROM cronvec.sources s WHERE s.project_id = $1),
                     (SELECT count(*) FROM (SELECT FROM cronvec.records r WHERE r.project_id = $1 LIMIT $2 + 1) AS left_ones)",
                &[(&project.id, Type::INT4), (&LEFT_FOR_THE_LAST, Type::INT8)],
            )
            .await?;
        let (table, left): (Option<String>, i64) = rows.first().map_or((None, 0), |row| (row.get(0), row.get(1)));
        if let Some(table) = table {
            return Err(is_attached(&table, &project.name));
        }
        if left > LEFT_FOR_THE_LAST {
            return Ok(None);
        }
        let mut taken = Holdings::default();
        let mut after = String::new();
        while let (more, Some(last)) = take_records(&transaction, project.id, &after, "").await? {
            taken.add(more);
            after = last;
        }
        // A project that is made later with this name is another: tokens that reached this one don't reach it. One that
        // reached nothing else is over.
        transaction
            .execute_typed(
                "UPDATE cronvec.api_tokens t
                 SET projects = CASE WHEN cardinality(others.names) > 0 THEN others.names ELSE projects END,
                     revoked_at = CASE WHEN cardinality(others.names) > 0 THEN revoked_at ELSE coalesce(revoked_at, now()) END
                 FROM (SELECT id, array_remove(projects, $1) AS names FROM cronvec.api_tokens WHERE $1 = ANY (projects)) AS others
                 WHERE others.id = t.id",
                &[(&project.name, Type::TEXT)],
            )
            .await?;
        transaction
            .execute_typed("DELETE FROM cronvec.projects WHERE id = $1", id)
            .await?;
        transaction.commit().await?;
        Ok(Some(taken))
    }
}

/// Why a project can't go.
pub fn is_attached(table: &str, project: &str) -> StoreError {
    StoreError::Invalid(format!(
        "{table} is attached to project {project}; first: cronvec detach {project}"
    ))
}

/// In the order in which everybody locks: the records, then what belongs to them.
async fn take_records(
    transaction: &Transaction<'_>,
    project_id: i32,
    after: &str,
    of_locked: &str,
) -> Result<(Holdings, Option<String>), StoreError> {
    let rows = transaction
        .query_typed(
            &format!(
                "SELECT r.id, r.content IS NOT NULL FROM cronvec.records r WHERE r.project_id = $1 AND r.id > $2
                 ORDER BY r.id LIMIT $3 FOR UPDATE {of_locked}"
            ),
            &[
                (&project_id, Type::INT4),
                (&after, Type::TEXT),
                (&RECORDS_PER_SLICE, Type::INT8),
            ],
        )
        .await?;
    let ids: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let mut taken = Holdings {
        records: rows.iter().filter(|row| row.get(1)).count() as u64,
        ..Holdings::default()
    };
    let Some(last) = ids.last() else {
        return Ok((taken, None));
    };
    let these: &[super::Param<'_>] = &[(&project_id, Type::INT4), (&ids, Type::TEXT_ARRAY)];
    let spaces = transaction
        .query_typed("SELECT id FROM cronvec.spaces ORDER BY id LIMIT 10000", &[])
        .await?;
    for space in &spaces {
        let space: i32 = space.get(0);
        let of_space = format!("WHERE space_id = {space} AND project_id = $1 AND record_id = ANY ($2)");
        transaction
            .execute_typed(&format!("DELETE FROM cronvec.embedded_{space} {of_space}"), these)
            .await?;
        taken.vectors += transaction
            .execute_typed(&format!("DELETE FROM cronvec.chunks_{space} {of_space}"), these)
            .await?;
    }
    for statement in [
        "DELETE FROM cronvec.pending WHERE project_id = $1 AND record_id = ANY ($2)",
        "DELETE FROM cronvec.quarantined_records WHERE project_id = $1 AND record_id = ANY ($2)",
        "DELETE FROM cronvec.records WHERE project_id = $1 AND id = ANY ($2)",
    ] {
        transaction.execute_typed(statement, these).await?;
    }
    Ok((taken, Some((*last).to_owned())))
}
