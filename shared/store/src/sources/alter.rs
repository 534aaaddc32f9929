//! Owns attaching a table that is attached already: what would be another, and the one transaction that makes it so. Refuses
//! to read the table's rows: the comparison that begins anew does, and embeds only what changed.

use sha2::{Digest, Sha256};
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::attach::{self, NewSource, TABLE_TIMEOUT, explain_lock, invalid, readable};
use super::compile::{GENERATION, Plan};
use super::expression::Expression;
use super::reconcile::ROWS_PER_SLICE;
use super::table::Table;
use super::{Source, drop_functions};
use cronvec_nouns::space::SpaceSpec;

/// A slice of a comparison that is under way takes no longer, but for a slow table's.
const SLICE_TIMEOUT: &str = "5s";

/// What attaching again would change.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Options that are said otherwise than they were.
    pub options: Vec<&'static str>,
    /// Of a table that was renamed, moved or swapped for this one: its former name.
    pub former_name: Option<String>,
    /// Functions or triggers aren't as they would be made now.
    pub is_made_anew: bool,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether texts may be others, or rows come in.
    pub fn may_embed(&self) -> bool {
        self.options.iter().any(|option| ["--text", "--where"].contains(option)) || self.former_name.is_some()
    }
}

impl Store {
    /// The source that a table feeds already: that of the project that is named, or of the one that is named as the table. The
    /// table is known by what it is, or, where another took its place, by its name. One that was renamed or moved is known
    /// without its project, too.
    pub async fn attached_source(&self, table: &str, project: Option<&str>) -> Result<Option<Source>, StoreError> {
        let table = self.find_table(table).await?;
        let rows = self
            .query(
                "SELECT p.name FROM cronvec.sources s JOIN cronvec.projects p ON p.id = s.project_id
                 WHERE (s.relation = $1 OR s.table_name = $2)
                     AND (p.name = coalesce($3, $4) OR $3 IS NULL AND s.relation = $1 AND s.table_name <> $2)
                 ORDER BY p.name <> coalesce($3, $4), s.id LIMIT 1",
                &[
                    (&table.oid, Type::OID),
                    (&table.name, Type::TEXT),
                    (&project, Type::TEXT),
                    (&table.plain, Type::TEXT),
                ],
            )
            .await?;
        match rows.first() {
            Some(row) => self.source(row.get(0)).await.map(Some),
            None => Ok(None),
        }
    }

    /// What would be another if this source were attached so.
    pub async fn changes(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
        source: &Source,
    ) -> Result<Changes, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = self.plan_again(new, project, space, &table, source).await?;
        let row = self
            .query_one(
                &format!(
                    "SELECT s.relation::oid, s.table_name, s.compiled, ({AS_MADE}) FROM cronvec.sources s WHERE s.id = $1"
                ),
                &[(&source.id, Type::INT4)],
            )
            .await?;
        let (oid, name, noted): (u32, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        let made = format!("{}:{}", digest(&plan), row.get::<_, String>(3));
        Ok(Changes {
            options: changed_options(new, &plan, source),
            former_name: (oid != table.oid || name != table.name).then_some(name),
            is_made_anew: noted.as_deref() != Some(made.as_str()),
        })
    }

    /// Makes the source as it is said now, in one transaction: its functions and triggers are dropped wherever they are and
    /// made anew, and the comparison begins anew. With `allow_deletes` it may take away any number of records.
    pub async fn alter_source(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
        source: &Source,
        allow_deletes: bool,
    ) -> Result<Source, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = self.plan_again(new, project, space, &table, source).await?;
        let mut client = self.client().await?;
        let settings = format!("SET LOCAL lock_timeout = '{SLICE_TIMEOUT}'");
        let transaction = self.begin(&mut client, &settings).await?;
        // As comparisons do: the source first, then the table. Nobody stands behind us while we wait for a slice to end.
        transaction
            .execute_typed(
                "SELECT FROM cronvec.sources WHERE id = $1 FOR UPDATE",
                &[(&plan.id, Type::INT4)],
            )
            .await
            .map_err(|error| explain_lock(error, &table.name))?;
        transaction
            .batch_execute(&format!("SET LOCAL lock_timeout = '{TABLE_TIMEOUT}'"))
            .await?;
        drop_functions(&transaction, plan.id, &table.name).await?;
        update(&transaction, new, &plan, allow_deletes).await?;
        attach::make(&transaction, &plan).await?;
        note_made(&transaction, &plan).await?;
        transaction.commit().await?;
        self.source(&project.name).await
    }

    /// The functions and triggers that attaching would make, as SQL.
    pub async fn sql_of(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
        source: Option<&Source>,
    ) -> Result<Vec<String>, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = match source {
            Some(source) => self.plan_again(new, project, space, &table, source).await?,
            None => self.plan(new, project, space, &table).await?,
        };
        Ok(statements(&plan).collect())
    }

    async fn plan_again<'a>(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
        table: &'a Table,
        source: &Source,
    ) -> Result<Plan<'a>, StoreError> {
        // Vectors are adopted by who attaches first; a command that is said again says that again, too.
        let new = NewSource { adopt: None, ..*new };
        let plan = self.plan(&new, project, space, table).await?;
        let keys: Vec<&str> = plan.key.iter().map(|column| column.name.as_str()).collect();
        // A column that was renamed has the same values, and records the same ids.
        let is_renamed = keys.len() == source.key.len()
            && (source.key.iter().zip(&keys))
                .all(|(was, is)| was == is || table.columns.iter().all(|column| column.name != *was));
        if !is_renamed {
            return Err(invalid(format!(
                "rows of {} are told apart by {}, and ids of records are made of that: it can't be changed in place; attach \
                 the table to another project with --project, or detach it and remove project '{}' first",
                table.name,
                source.key.join(", "),
                project.name
            )));
        }
        Ok(Plan { id: source.id, ..plan })
    }
}

fn changed_options(new: &NewSource<'_>, plan: &Plan<'_>, source: &Source) -> Vec<&'static str> {
    let key = plan.key.iter().map(|column| &column.name);
    let column = plan.embedding_column.as_ref().map(|column| column.name.as_str());
    let on_change = if new.forgets { "null" } else { "keep" };
    [
        ("--id", !key.eq(&source.key)),
        ("--text", new.text.trim() != source.text.trim()),
        ("--metadata", new.metadata != source.metadata.as_deref()),
        ("--where", new.filter != source.filter.as_deref()),
        ("--embedding-column", column != source.embedding_column.as_deref()),
        ("--on-change", on_change != source.on_change),
    ]
    .into_iter()
    .filter_map(|(option, is_another)| is_another.then_some(option))
    .collect()
}

async fn update(
    transaction: &Transaction<'_>,
    new: &NewSource<'_>,
    plan: &Plan<'_>,
    allow_deletes: bool,
) -> Result<(), StoreError> {
    let keys: Vec<&str> = plan.key.iter().map(|column| column.name.as_str()).collect();
    let column = plan.embedding_column.as_ref().map(|column| column.name.as_str());
    transaction
        .execute_typed(
            "UPDATE cronvec.sources SET relation = $2::oid::regclass, table_name = $3, key_columns = $4, text_sql = $5,
                 metadata_sql = $6, where_sql = $7, embedding_column = $8, on_change = $9,
                 phase = 'rows', place = NULL, rows_seen = 0, changed = 0, adopted = 0, gone = 0, deleted = 0,
                 allow_deletes = allow_deletes OR $10, trouble = NULL, rests_until = NULL, page_rows = $11, generation = $12
             WHERE id = $1",
            &[
                (&plan.id, Type::INT4),
                (&plan.table.oid, Type::OID),
                (&plan.table.name, Type::TEXT),
                (&keys, Type::TEXT_ARRAY),
                (&new.text, Type::TEXT),
                (&new.metadata, Type::TEXT),
                (&new.filter, Type::TEXT),
                (&column, Type::TEXT),
                (&if new.forgets { "null" } else { "keep" }, Type::TEXT),
                (&allow_deletes, Type::BOOL),
                (&ROWS_PER_SLICE, Type::INT4),
                (&GENERATION, Type::INT2),
            ],
        )
        .await
        .map_err(readable)?;
    Ok(())
}

/// The source's functions, and the triggers of the table that call them, as the catalogues have them now.
const AS_MADE: &str = "SELECT md5(coalesce(string_agg(o.what, chr(10) ORDER BY o.what COLLATE \"C\"), '')) FROM (
        SELECT pg_get_functiondef(p.oid) || quote_ident(pg_get_userbyid(p.proowner)) AS what FROM pg_proc p
        WHERE p.pronamespace = 'cronvec'::regnamespace AND starts_with(p.proname::text, format('source_%s_', s.id))
        UNION ALL
        SELECT pg_get_triggerdef(g.oid) || g.tgenabled::text FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
        WHERE g.tgrelid = s.relation AND p.pronamespace = 'cronvec'::regnamespace
            AND starts_with(p.proname::text, format('source_%s_', s.id))) AS o";

/// Keeps what was made, so that the same command finds nothing to do.
pub(super) async fn note_made(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    transaction
        .execute_typed(
            &format!("UPDATE cronvec.sources s SET compiled = $2 || ':' || ({AS_MADE}) WHERE s.id = $1"),
            &[(&plan.id, Type::INT4), (&digest(plan), Type::TEXT)],
        )
        .await
        .map_err(readable)?;
    Ok(())
}

/// Of all that a plan makes.
fn digest(plan: &Plan<'_>) -> String {
    let mut hash = Sha256::new();
    for statement in statements(plan) {
        hash.update(statement);
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn statements<'a>(plan: &'a Plan<'_>) -> impl Iterator<Item = String> + use<'a> {
    let expressions = [Some(&plan.text), plan.metadata.as_ref(), plan.filter.as_ref()]
        .into_iter()
        .flatten();
    let id = plan.id;
    expressions
        .map(move |expression: &Expression| expression.statement(id))
        .chain(plan.functions().into_iter().map(|function| function.create))
        .chain(plan.forget_trigger())
        .chain(plan.triggers(&plan.table.name).collect::<Vec<_>>())
        .chain([format!("SELECT cronvec.secure_source({id})")])
}
