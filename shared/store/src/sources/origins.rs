//! Owns what is known of records that don't come from their project's table, and keeps a table from projects that have
//! some. Refuses to change any.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::attach::{NewSource, invalid, readable};
use super::compile::Plan;
use super::reconcile::SETTINGS;
use super::table::Table;
use super::{Source, attach};
use cronvec_nouns::space::SpaceSpec;

/// A writer's transaction that stays open makes us give up, rather than let others queue behind us.
const LOCK_TIMEOUT: &str = "3s";
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
        let transaction = self.begin(&mut client, "").await?;
        transaction.batch_execute(SETTINGS).await?;
        refuse_second(&transaction, project.id).await?;
        let former = former(&transaction, project.id, &table.name).await?;
        let id = attach::reserve(&transaction).await?;
        let plan = Plan { id, ..plan };
        attach::make_look(&transaction, &plan, &[&plan.there()]).await?;
        take_over(&transaction, project.id, id, former, before).await
    }

    /// What would be taken over by a comparison of a table that is attached.
    pub async fn preview_take_over_of(&self, source: &Source) -> Result<TakeOver, StoreError> {
        let project = self.project(&source.project).await?;
        let before = self.drain(project.id).await?;
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, "").await?;
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
        let transaction = self.begin(&mut client, "").await?;
        hold_project(&transaction, project_id).await?;
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
    let (_, jobs) = unfinished(transaction, project_id, origin, i64::MAX, 0).await?;
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
                         SELECT r.id, r.content IS NOT NULL AND r.accepted < $4 AND r.source_id IS DISTINCT FROM coalesce($5, 0) AS stranger
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

/// Waits for the project's writers that are under way, and keeps others from it: no record comes in between a count and
/// the commit.
pub(super) async fn hold_project(transaction: &Transaction<'_>, project_id: i32) -> Result<(), StoreError> {
    transaction
        .batch_execute(&format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        .await?;
    transaction
        .execute_typed(
            "SELECT FROM cronvec.projects WHERE id = $1 FOR UPDATE",
            &[(&project_id, Type::INT4)],
        )
        .await
        .map_err(|error| match error.code() {
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => invalid(
                "a transaction that is still open has written records of the project; nothing was changed, \
                 try it again when it has ended",
            ),
            _ => readable(error),
        })?;
    Ok(())
}

/// One table a project.
pub(super) async fn refuse_second(transaction: &Transaction<'_>, project_id: i32) -> Result<(), StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT FROM cronvec.sources WHERE project_id = $1",
            &[(&project_id, Type::INT4)],
        )
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    Err(invalid(
        "this project has a table already; name another with --project, or run first: cronvec detach",
    ))
}

/// The number that this table had when it was attached to the project before, if it was the last one.
pub(super) async fn former(
    transaction: &Transaction<'_>,
    project_id: i32,
    table: &str,
) -> Result<Option<i32>, StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT p.last_source FROM cronvec.projects p WHERE p.id = $1 AND p.last_table = $2",
            &[(&project_id, Type::INT4), (&table, Type::TEXT)],
        )
        .await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Live records of the project that come from elsewhere, and unfinished INGEST_DATA jobs, from a number on.
async fn unfinished(
    transaction: &Transaction<'_>,
    project_id: i32,
    origin: Option<i32>,
    records_from: i64,
    jobs_from: i64,
) -> Result<(i64, i64), StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT CASE WHEN $3 < 9223372036854775807 THEN (
                     SELECT count(*) FROM cronvec.records r
                     WHERE r.project_id = p.id AND r.content IS NOT NULL AND r.accepted >= $3
                         AND r.source_id IS DISTINCT FROM coalesce($2, 0))
                 ELSE 0 END,
                 (SELECT count(*) FROM cronvec.job_queue j
                  WHERE j.project = p.name AND j.status IN ('PENDING', 'PROCESSING') AND j.job_type = 'INGEST_DATA'
                      AND j.id >= $4)
             FROM cronvec.projects p WHERE p.id = $1",
            &[
                (&project_id, Type::INT4),
                (&origin, Type::INT4),
                (&records_from, Type::INT8),
                (&jobs_from, Type::INT8),
            ],
        )
        .await
        .map_err(readable)?;
    Ok(rows.first().map_or((0, 0), |row| (row.get(0), row.get(1))))
}

/// What isn't the table's is deleted by nobody's mistake.
pub(super) async fn refuse_strangers(
    transaction: &Transaction<'_>,
    new: &NewSource<'_>,
    project: &Project,
    table: &Table,
    former: Option<i32>,
) -> Result<(), StoreError> {
    let from = new.take_over.unwrap_or(0);
    let (records, jobs) = unfinished(transaction, project.id, former, from, from).await?;
    if (records, jobs) == (0, 0) {
        return Ok(());
    }
    let found = format!(
        "project '{}' has {records} records and {jobs} unfinished INGEST_DATA jobs that don't come from {}",
        project.name, table.name
    );
    Err(invalid(match new.take_over {
        None => format!(
            "{found}; attach the table to another project with --project, or add --take-over: that says how many \
             of these records have a row and how many would be deleted, and asks"
        ),
        Some(_) => format!("{found} and came in after --take-over had counted; run it again"),
    }))
}
