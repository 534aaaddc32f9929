//! Owns attached tables: what is known of them, how they are attached and let go. Refuses to touch a user's table but for
//! triggers and the one column that was named.

mod adoption;
mod alter;
mod attach;
mod attempt;
mod command;
mod compare;
mod compile;
mod expression;
mod faults;
mod fill;
mod identifiers;
mod indexes;
mod notes;
mod origins;
mod preview;
mod reconcile;
mod refused;
mod table;
mod trouble;
mod vector_column;

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

pub use adoption::Sampled;
pub use alter::Changes;
pub use attach::NewSource;
pub use faults::Fault;
pub use indexes::ColumnIndexes;
pub use origins::TakeOver;
pub use preview::Preview;
pub use reconcile::Slice;
pub use trouble::TroubledSource;

use super::again::until_done;
use super::begin::Begin;
use super::column::COLUMN_REFUSED;
use super::{Store, StoreError};

/// How a project uses one of its spaces: what whoever makes vectors for it needs to know.
#[derive(Debug, Clone, Copy)]
pub struct SpaceUse {
    /// The attached table, by its source, whose own column gets them, too.
    pub column: Option<i32>,
    /// The space keeps vectors of rows that left their table.
    pub has_left: bool,
}

/// An attached table, as operators see it.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    #[serde(skip)]
    pub id: i32,
    pub project: String,
    /// As it is named now, quoted.
    pub table: String,
    /// As it was named when it was attached, quoted.
    #[serde(skip)]
    pub attached_as: String,
    /// Which functions it has; 0 are those of an older version.
    #[serde(skip)]
    pub generation: i16,
    pub key: Vec<String>,
    pub text: String,
    pub metadata: Option<String>,
    #[serde(rename = "where")]
    pub filter: Option<String>,
    pub embedding_column: Option<String>,
    pub on_change: String,
    /// What the pass that compares table and records is at; `idle` between two.
    pub phase: String,
    /// Passes that came through.
    pub passes: i64,
    /// Of this pass, or the last one.
    pub rows: i64,
    pub changed: i64,
    pub adopted: i64,
    pub deleted: i64,
    pub trouble: Option<String>,
}

impl Source {
    /// Whether one of its expressions names this column.
    fn uses(&self, column: &str) -> bool {
        [Some(&self.text), self.metadata.as_ref(), self.filter.as_ref()]
            .into_iter()
            .flatten()
            .any(|sql| {
                identifiers::identifiers(sql)
                    .iter()
                    .any(|(place, name)| name == column || &sql[place.clone()] == column)
            })
    }
}

impl Store {
    pub async fn sources(&self) -> Result<Vec<Source>, StoreError> {
        let rows = self
            .query(
                "SELECT s.id, p.name, coalesce(
                         (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
                          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = s.relation), s.table_name), s.key_columns, s.text_sql, s.metadata_sql, s.where_sql,
                     s.embedding_column, s.on_change, s.phase, s.passes, s.rows_seen, s.changed, s.adopted, s.deleted, s.trouble,
                     s.table_name, s.generation
                 FROM cronvec.sources s JOIN cronvec.projects p ON p.id = s.project_id ORDER BY s.id LIMIT 10000",
                &[],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Source {
                id: row.get(0),
                project: row.get(1),
                table: row.get(2),
                key: row.get(3),
                text: row.get(4),
                metadata: row.get(5),
                filter: row.get(6),
                embedding_column: row.get(7),
                on_change: row.get(8),
                phase: row.get(9),
                passes: row.get(10),
                rows: row.get(11),
                changed: row.get(12),
                adopted: row.get(13),
                deleted: row.get(14),
                trouble: row.get(15),
                attached_as: row.get(16),
                generation: row.get(17),
            })
            .collect())
    }

    /// The source of this project, or the only one of this table.
    pub async fn source(&self, project_or_table: &str) -> Result<Source, StoreError> {
        let sources = self.sources().await?;
        let named = |source: &&Source| {
            let wanted = project_or_table.replace('"', "");
            [&source.table, &source.attached_as].into_iter().any(|table| {
                let table = table.replace('"', "");
                table == wanted || table.split_once('.').is_some_and(|(_, name)| name == wanted)
            })
        };
        if let Some(source) = sources.iter().find(|source| source.project == project_or_table) {
            return Ok(source.clone());
        }
        let found: Vec<&Source> = sources.iter().filter(named).collect();
        match found.as_slice() {
            [only] => Ok((*only).clone()),
            [] => Err(StoreError::Invalid(format!(
                "no table {project_or_table} is attached, nor is one to a project of that name; see: cronvec sources"
            ))),
            _ => Err(StoreError::Invalid(format!(
                "{project_or_table} is attached to several projects; name the project"
            ))),
        }
    }

    /// Takes a project away that was made for a table which couldn't be attached. One that has anything stays.
    pub async fn forget_empty_project(&self, name: &str) -> Result<(), StoreError> {
        self.execute(
            "DELETE FROM cronvec.projects p WHERE p.name = $1
                 AND NOT EXISTS (SELECT FROM cronvec.records r WHERE r.project_id = p.id)
                 AND NOT EXISTS (SELECT FROM cronvec.job_queue j WHERE j.project_id = p.id)
                 AND NOT EXISTS (SELECT FROM cronvec.sources s WHERE s.project_id = p.id)",
            &[(&name, Type::TEXT)],
        )
        .await?;
        Ok(())
    }

    /// How a project uses a space.
    pub async fn space_use(&self, project_id: i32, space_id: i32) -> Result<SpaceUse, StoreError> {
        let row = self
            .query_one(
                "SELECT (SELECT s.id FROM cronvec.sources s JOIN cronvec.project_spaces l ON l.project_id = s.project_id AND l.role = 'live'
                         WHERE s.project_id = $1 AND s.embedding_column IS NOT NULL AND l.space_id = $2),
                     EXISTS (SELECT FROM cronvec.left_vectors WHERE space_id = $2)",
                &[(&project_id, Type::INT4), (&space_id, Type::INT4)],
            )
            .await?;
        Ok(SpaceUse {
            column: row.get(0),
            has_left: row.get(1),
        })
    }

    /// Takes triggers and functions away. The project keeps its records, the table its column. Which table it was stays
    /// known: attached again, it finds its records.
    pub async fn detach(&self, source: &Source) -> Result<(), StoreError> {
        until_done!(self.again(), self.try_to_detach(source))
    }

    async fn try_to_detach(&self, source: &Source) -> Result<(), StoreError> {
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, "SET LOCAL lock_timeout = '3s'").await?;
        drop_functions(&transaction, source.id, &source.table).await?;
        // What its triggers noted as gone is deleted now: nobody reads these notes any more.
        transaction
            .execute_typed(
                "SELECT cronvec.delete_records(s.project_id, ARRAY(
                     SELECT DISTINCT g.record_id FROM cronvec.source_gone g
                     JOIN cronvec.records r ON r.project_id = g.project_id AND r.id = g.record_id AND r.content IS NOT NULL
                     WHERE g.project_id = s.project_id))
                 FROM cronvec.sources s
                 WHERE s.id = $1 AND EXISTS (SELECT FROM cronvec.source_gone g WHERE g.project_id = s.project_id)",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        transaction
            .execute_typed(
                "DELETE FROM cronvec.source_gone g USING cronvec.sources s
                 WHERE s.id = $1 AND g.project_id = s.project_id",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        transaction
            .execute_typed(
                "WITH gone AS (DELETE FROM cronvec.sources WHERE id = $1 RETURNING *), freed AS (
                     -- There is no column any more that a row could refuse.
                     DELETE FROM cronvec.quarantined_records q USING gone
                     WHERE q.project_id = gone.project_id AND q.reason = $2
                 ), tables AS (
                     SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
                     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 )
                 -- Of a table that was swapped the name counts, which another has now: that one is attached next.
                 UPDATE cronvec.projects p SET last_source = gone.id, last_table = CASE
                     WHEN EXISTS (SELECT FROM tables t WHERE t.name = gone.table_name AND t.oid <> gone.relation)
                         THEN gone.table_name
                     ELSE coalesce((SELECT t.name FROM tables t WHERE t.oid = gone.relation), gone.table_name) END
                 FROM gone WHERE p.id = gone.project_id",
                &[(&source.id, Type::INT4), (&COLUMN_REFUSED, Type::TEXT)],
            )
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Who owns an attached table, if it isn't the owner of the schema: its code runs in the workers' sessions.
    pub async fn foreign_owner(&self, source: &Source) -> Result<Option<String>, StoreError> {
        let row = self
            .query_opt(
                "SELECT quote_ident(pg_get_userbyid(c.relowner)) FROM cronvec.sources s
                 JOIN pg_class c ON c.oid = s.relation JOIN pg_namespace n ON n.nspname = 'cronvec'
                 WHERE s.id = $1 AND c.relowner <> n.nspowner",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// The rows of an attached table that are to be embedded.
    pub async fn count_rows(&self, source: &Source) -> Result<i64, StoreError> {
        let rows = self
            .query_in_transaction(
                Begin::write("SET LOCAL row_security = off"),
                &format!("SELECT cronvec.source_{}_count()", source.id),
                &[],
            )
            .await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }
}

/// Triggers are dropped with the function that they call, on whichever table they are.
async fn drop_functions(transaction: &Transaction<'_>, id: i32, table: &str) -> Result<(), StoreError> {
    let functions = transaction
        .query_typed(
            "SELECT p.oid::regprocedure::text FROM pg_proc p
             WHERE p.pronamespace = 'cronvec'::regnamespace AND starts_with(p.proname::text, $1) ORDER BY 1 LIMIT 100",
            &[(&format!("source_{id}_"), Type::TEXT)],
        )
        .await?;
    for function in &functions {
        let function: &str = function.get(0);
        transaction
            .execute_typed(&format!("DROP FUNCTION IF EXISTS {function} CASCADE"), &[])
            .await
            .map_err(|error| attach::explain_lock(error, table))?;
    }
    Ok(())
}
