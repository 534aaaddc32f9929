//! Owns the counting of records that don't come from their project's table, before and after it is attached. Refuses to
//! change any.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::attach::NewSource;
use super::reconcile::SETTINGS;
use super::{Source, attach};
use crate::space::SpaceSpec;

/// Records that one statement looks at.
const RECORDS_PER_SLICE: i64 = 1000;

/// What becomes of a project's records of another origin when a table takes them over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TakeOver {
    /// Records that were accepted before this number are counted, and taken over; later ones aren't.
    #[serde(skip)]
    pub before: i64,
    /// They have a row, whose text becomes theirs.
    pub with_row: i64,
    /// They are deleted.
    pub without_row: i64,
    /// Unfinished INGEST_DATA jobs: they fail.
    pub jobs: i64,
}

impl TakeOver {
    pub fn is_empty(&self) -> bool {
        (self.with_row, self.without_row, self.jobs) == (0, 0, 0)
    }
}

impl Store {
    /// What would be taken over if this table were attached. Nothing of it is kept.
    pub async fn preview_take_over(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
    ) -> Result<TakeOver, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = self.plan(new, project, space, &table).await?;
        let before = self.drain(project.id).await?;
        let mut client = self.client().await?;
        // It is dropped, and so rolled back.
        let transaction = client.transaction().await?;
        transaction.batch_execute(SETTINGS).await?;
        attach::refuse_second(&transaction, project.id).await?;
        let former = attach::former(&transaction, project.id, &table.name).await?;
        let id = attach::reserve(&transaction).await?;
        attach::make_there(&transaction, &super::compile::Plan { id, ..plan }).await?;
        take_over(&transaction, project.id, id, former, before).await
    }

    /// What would be taken over by a comparison of a table that is attached.
    pub async fn preview_take_over_of(&self, source: &Source) -> Result<TakeOver, StoreError> {
        let project = self.project(&source.project).await?;
        let before = self.drain(project.id).await?;
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        transaction.batch_execute(SETTINGS).await?;
        take_over(&transaction, project.id, source.id, Some(source.id), before).await
    }

    /// Live records of an attached table's project that don't come from it. None until the first comparison has found
    /// out which do. It reads all of the project's records.
    pub async fn strangers(&self, source: &Source) -> Result<Option<i64>, StoreError> {
        let row = self
            .query_one(
                "SELECT CASE WHEN s.origins_known THEN (
                     SELECT count(*) FROM cronvec.records r
                     WHERE r.project_id = s.project_id AND r.content IS NOT NULL AND r.source_id IS DISTINCT FROM s.id) END
                 FROM cronvec.sources s WHERE s.id = $1",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        Ok(row.get(0))
    }

    /// A number between the records of writers that are under way, whose end is waited for, and those that come later.
    async fn drain(&self, project_id: i32) -> Result<i64, StoreError> {
        let mut client = self.client().await?;
        let transaction = client.transaction().await?;
        attach::hold_project(&transaction, project_id).await?;
        let rows = transaction
            .query_typed("SELECT nextval('cronvec.acceptance')", &[])
            .await?;
        let number = rows.first().map_or(0, |row| row.get(0));
        transaction.commit().await?;
        Ok(number)
    }
}

/// Asks the source's function page by page which records have a row.
async fn take_over(
    transaction: &Transaction<'_>,
    project_id: i32,
    source_id: i32,
    origin: Option<i32>,
    before: i64,
) -> Result<TakeOver, StoreError> {
    let (_, jobs) = attach::unfinished(transaction, project_id, origin, i64::MAX, 0).await?;
    let mut found = TakeOver {
        before,
        with_row: 0,
        without_row: 0,
        jobs,
    };
    let mut after = String::new();
    loop {
        let rows = transaction
            .query_typed(
                &format!(
                    "WITH page AS MATERIALIZED (
                         SELECT r.id, r.content IS NOT NULL AND r.accepted < $4 AND r.source_id IS DISTINCT FROM $5 AS stranger
                         FROM cronvec.records r WHERE r.project_id = $1 AND r.id > $2 ORDER BY r.id LIMIT $3
                     )
                     SELECT (SELECT count(*) FROM page), (SELECT max(id) FROM page),
                         (SELECT count(*) FROM page WHERE stranger),
                         (SELECT count(*) FROM cronvec.source_{source_id}_there(ARRAY(SELECT id FROM page WHERE stranger)))"
                ),
                &[
                    (&project_id, Type::INT4),
                    (&after, Type::TEXT),
                    (&RECORDS_PER_SLICE, Type::INT8),
                    (&before, Type::INT8),
                    (&origin, Type::INT4),
                ],
            )
            .await?;
        let row = rows.first().ok_or_else(super::super::no_row)?;
        let (read, last): (i64, Option<String>) = (row.get(0), row.get(1));
        let (strangers, there): (i64, i64) = (row.get(2), row.get(3));
        found.with_row += there;
        found.without_row += strangers - there;
        match last {
            Some(last) if read == RECORDS_PER_SLICE => after = last,
            _ => return Ok(found),
        }
    }
}
