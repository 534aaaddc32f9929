//! Owns single records as applications write and read them: put, get, delete. Refuses to embed any.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::again::until_done;
use super::begin::Begin;
use super::{Param, Store, StoreError};

/// Somebody waits for the answer: who holds the record for longer than this is told of.
const BEGIN: Begin = Begin::write(
    "SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '10s';
     SET LOCAL idle_in_transaction_session_timeout = '2s'",
);

/// A record to be written; it was checked.
#[derive(Debug, Clone, Copy)]
pub struct NewRecord<'a> {
    pub project: &'a str,
    pub id: &'a str,
    pub content: &'a str,
    /// A JSON object, as text.
    pub metadata: &'a str,
}

/// What became of it.
#[derive(Debug, Clone, Copy)]
pub struct Put {
    pub is_new: bool,
    /// Something of it is other than before.
    pub has_changed: bool,
    /// Its vectors are of its text.
    pub is_embedded: bool,
    /// It waits to be embedded.
    pub is_pending: bool,
    pub project_id: i32,
    pub live_space: i32,
}

/// A record as it is read.
#[derive(Debug, Clone, serde::Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RecordView {
    pub id: String,
    pub content: String,
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: Value,
    /// Its vectors are of this text.
    pub embedded: bool,
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub updated_at: OffsetDateTime,
}

/// What `put_record` and its like raise is the caller's to mend.
fn raised(error: StoreError, project: &str) -> StoreError {
    let StoreError::Database(server) = error else {
        return error;
    };
    match server.as_db_error() {
        Some(said) if *said.code() == SqlState::NO_DATA_FOUND => StoreError::NoProject(project.to_owned()),
        Some(said) if *said.code() == SqlState::INVALID_PARAMETER_VALUE => {
            StoreError::Invalid(said.message().to_owned())
        }
        _ => super::projects::refused(server),
    }
}

impl Store {
    /// Writes a record in one round trip. With `hold` no tick takes it for so long: whoever wrote it embeds it.
    pub async fn put_record(&self, record: &NewRecord<'_>, hold: Option<Duration>) -> Result<Put, StoreError> {
        let hold = hold.map(|hold| hold.as_secs_f64());
        let params: [Param<'_>; 4] = [
            (&record.project, Type::TEXT),
            (&record.id, Type::TEXT),
            (&record.content, Type::TEXT),
            (&record.metadata, Type::TEXT),
        ];
        let after: [Param<'_>; 3] = [params[0].clone(), params[1].clone(), (&hold, Type::FLOAT8)];
        until_done!(self.again(), self.try_to_put(record.project, &params, &after))
    }

    async fn try_to_put(&self, project: &str, params: &[Param<'_>], after: &[Param<'_>]) -> Result<Put, StoreError> {
        let client = self.client().await?;
        let begin = BEGIN.text(self.database.session());
        // All are sent before the first is answered.
        let (begun, before, put, after, ended) = futures::join!(
            client.batch_execute(&begin),
            client.query_typed(
                "SELECT r.content_hash = cronvec.content_hash($3) AND r.metadata = $4::jsonb AND r.embed
                 FROM cronvec.records r JOIN cronvec.projects p ON p.id = r.project_id
                 WHERE p.name = $1 AND r.id = $2",
                params
            ),
            client.query_typed("SELECT cronvec.put_record($1, $2, $3, $4::jsonb)", params),
            client.query_typed(
                "WITH held AS (
                     UPDATE cronvec.pending w SET not_before = clock_timestamp() + make_interval(secs => $3)
                     FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                     WHERE $3 IS NOT NULL AND p.name = $1 AND w.record_id = $2 AND w.project_id = p.id
                         AND w.space_id = l.space_id
                 )
                 SELECT p.id, l.space_id,
                     EXISTS (SELECT FROM cronvec.embedded e JOIN cronvec.records r
                             ON r.project_id = e.project_id AND r.id = e.record_id AND r.content_hash = e.content_hash
                         WHERE e.space_id = l.space_id AND e.project_id = p.id AND e.record_id = $2),
                     EXISTS (SELECT FROM cronvec.pending w
                         WHERE w.record_id = $2 AND w.project_id = p.id AND w.space_id = l.space_id)
                 FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                 WHERE p.name = $1",
                after
            ),
            client.batch_execute("COMMIT"),
        );
        begun.map_err(super::begin::refused)?;
        let was_same = before
            .map_err(|error| raised(error.into(), project))?
            .first()
            .is_some_and(|row| row.get(0));
        let put = put.map_err(|error| raised(error.into(), project))?;
        let after = after?;
        ended?;
        let (put, after) = (
            put.first().ok_or_else(super::no_row)?,
            after.first().ok_or_else(super::no_row)?,
        );
        Ok(Put {
            is_new: put.get(0),
            has_changed: !was_same,
            is_embedded: after.get(2),
            is_pending: after.get(3),
            project_id: after.get(0),
            live_space: after.get(1),
        })
    }

    /// Lets ticks take records that were held and aren't embedded. The records are locked first, as everywhere; of one that
    /// somebody holds the time runs out by itself.
    pub async fn release_records(&self, project_id: i32, space_id: i32, ids: &[&str]) -> Result<(), StoreError> {
        self.execute(
            "WITH mine AS MATERIALIZED (
                 SELECT r.id FROM (SELECT id FROM unnest($3::text[]) AS i (id) ORDER BY id) AS i CROSS JOIN LATERAL (
                     SELECT r.id FROM cronvec.records r WHERE r.project_id = $1 AND r.id = i.id
                     LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS r
             )
             UPDATE cronvec.pending w SET not_before = clock_timestamp()
             FROM mine
             WHERE w.record_id = mine.id AND w.project_id = $1 AND w.space_id = $2 AND w.not_before > clock_timestamp()",
            &[
                (&project_id, Type::INT4),
                (&space_id, Type::INT4),
                (&ids, Type::TEXT_ARRAY),
            ],
        )
        .await?;
        Ok(())
    }

    /// A record; `None` where there is none of this id.
    pub async fn record(&self, project: &str, id: &str) -> Result<Option<RecordView>, StoreError> {
        let row = self
            .query_opt(
                "SELECT r.id, r.content, r.metadata, r.created_at, r.updated_at,
                     EXISTS (SELECT FROM cronvec.embedded e WHERE e.space_id = l.space_id AND e.project_id = p.id
                         AND e.record_id = r.id AND e.content_hash = r.content_hash)
                 FROM cronvec.projects p JOIN cronvec.project_spaces l ON l.project_id = p.id AND l.role = 'live'
                 LEFT JOIN cronvec.records r
                     ON r.project_id = p.id AND r.id = $2 AND r.content IS NOT NULL
                     -- Its row was deleted by a large statement.
                     AND NOT EXISTS (SELECT FROM cronvec.source_gone g WHERE g.project_id = p.id AND g.record_id = $2)
                 WHERE p.name = $1",
                &[(&project, Type::TEXT), (&id, Type::TEXT)],
            )
            .await?
            .ok_or_else(|| StoreError::NoProject(project.to_owned()))?;
        let Some(id) = row.get::<_, Option<String>>(0) else {
            return Ok(None);
        };
        Ok(Some(RecordView {
            id,
            content: row.get(1),
            metadata: row.get(2),
            created_at: row.get(3),
            updated_at: row.get(4),
            embedded: row.get(5),
        }))
    }

    /// Deletes a record, and whatever an older job would still bring of it. Gives whether there was one.
    pub async fn delete_record(&self, project: &str, id: &str) -> Result<bool, StoreError> {
        let rows = self
            .query_in_transaction(
                BEGIN,
                "SELECT cronvec.delete_record($1, $2)",
                &[(&project, Type::TEXT), (&id, Type::TEXT)],
            )
            .await
            .map_err(|error| raised(error, project))?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }
}
