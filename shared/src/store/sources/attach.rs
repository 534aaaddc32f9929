//! Owns the one transaction that attaches a table, and the checks before it. Refuses to read the table's rows, but for a few
//! to see that it can.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::Source;
use super::compile::Plan;
use super::expression::{Expression, Role};
use super::table::{Column, Table};
use crate::space::SpaceSpec;

/// Types whose text is the same in every session.
const KEY_TYPES: [&str; 8] = ["int2", "int4", "int8", "uuid", "text", "varchar", "bpchar", "numeric"];
/// A transaction of a user's that holds the table makes us give up, rather than let others queue behind us.
const LOCK_TIMEOUT: &str = "3s";

/// Roles that may write the table $1 or a partition of it: as SQL names them, and as `has_…_privilege` does.
pub(super) const WRITERS: &str = "WITH tables AS MATERIALIZED (
        SELECT c.* FROM pg_class c WHERE c.oid IN (SELECT $1 UNION ALL SELECT relid FROM pg_partition_tree($1))
    )
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
        CASE a.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END
    FROM (
        SELECT coalesce(c.relacl, acldefault('r', c.relowner)) FROM tables c
        UNION ALL
        SELECT a.attacl FROM tables c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attacl IS NOT NULL
    ) AS acls (acl)
    CROSS JOIN LATERAL aclexplode(acls.acl) AS a
    WHERE a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') LIMIT 1000";

/// What a person asks for.
#[derive(Debug)]
pub struct NewSource<'a> {
    pub table: &'a str,
    /// Empty: the primary key.
    pub key: &'a [String],
    pub text: &'a str,
    pub metadata: Option<&'a str>,
    pub filter: Option<&'a str>,
    pub embedding_column: Option<&'a str>,
    /// The column is emptied when the text changes.
    pub forgets: bool,
    /// Vectors of this model stand in the column already.
    pub adopt: Option<&'a str>,
}

impl Store {
    /// The name that a table's project gets if nobody gave another.
    pub async fn table_name(&self, written: &str) -> Result<String, StoreError> {
        Ok(self.find_table(written).await?.plain)
    }

    /// Attaches a table to a project: from the commit on no change is overlooked. What is there already is read by
    /// reconcile.
    pub async fn attach(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
    ) -> Result<Source, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = self.plan(new, project, space, &table).await?;
        let mut client = self.client().await?;
        let transaction = self
            .begin(&mut client, &format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            .await?;
        let id = insert(&transaction, new, &plan).await?;
        let plan = Plan { id, ..plan };
        make(&transaction, &plan).await?;
        transaction.commit().await?;
        self.source(&project.name).await
    }

    async fn plan<'a>(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
        table: &'a Table,
    ) -> Result<Plan<'a>, StoreError> {
        let read = |role, written| Expression::read(table, role, written);
        let embedding_column = match new.embedding_column {
            Some(written) => Some(vector_column(table, written, project, space, new.forgets)?),
            None => None,
        };
        if let Some(model) = new.adopt {
            if embedding_column.is_none() {
                return Err(invalid(
                    "--adopt-existing needs --embedding-column, where the vectors stand",
                ));
            }
            if model != space.model {
                return Err(invalid(format!(
                    "project '{}' embeds with {}, not with {model}: vectors of two models don't go together; \
                     set EMBEDDING_MODEL={model} and attach to a new project",
                    project.name, space.model
                )));
            }
        }
        Ok(Plan {
            id: 0,
            project_id: project.id,
            table,
            key: self.key(table, new.key).await?,
            text: read(Role::Text, new.text)?,
            metadata: new.metadata.map(|written| read(Role::Metadata, written)).transpose()?,
            filter: new.filter.map(|written| read(Role::Filter, written)).transpose()?,
            embedding_column,
            forgets: new.forgets,
            vector: {
                let vector = &self.vector_types().await?.vector;
                format!("\"{}\".vector", vector.schema().replace('"', "\"\""))
            },
        })
    }

    async fn key(&self, table: &Table, named: &[String]) -> Result<Vec<Column>, StoreError> {
        let primary;
        let named = if named.is_empty() {
            primary = self.primary_key(table.oid).await?;
            if primary.is_empty() {
                return Err(invalid(format!(
                    "{} has no primary key; name the columns that tell its rows apart with --id",
                    table.name
                )));
            }
            &primary
        } else {
            named
        };
        let mut key = Vec::new();
        for written in named {
            let column = table.column(written)?;
            if !column.not_null {
                return Err(invalid(format!(
                    "{} of {} may be null, so it can't tell rows apart; name another --id or run: \
                     ALTER TABLE {1} ALTER COLUMN {0} SET NOT NULL",
                    column.quoted, table.name
                )));
            }
            if !KEY_TYPES.contains(&column.base.as_str()) {
                return Err(invalid(format!(
                    "{} of {} is {}; a key must be an integer, a numeric, a uuid or text",
                    column.quoted, table.name, column.full_type
                )));
            }
            key.push(column.clone());
        }
        let names: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
        if !self.is_unique(table.oid, &names).await? {
            let quoted: Vec<&str> = key.iter().map(|column| column.quoted.as_str()).collect();
            let quoted = quoted.join(", ");
            return Err(invalid(format!(
                "two rows of {0} may have the same {quoted}; name the primary key with --id or run: CREATE UNIQUE INDEX ON {0} ({quoted})",
                table.name
            )));
        }
        Ok(key)
    }
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::Invalid(message.into())
}

/// The column that gets the vectors, if it can hold them.
fn vector_column(
    table: &Table,
    written: &str,
    project: &Project,
    space: &SpaceSpec,
    forgets: bool,
) -> Result<Column, StoreError> {
    let width = space.dimensions;
    let name = &table.name;
    let Some(column) = table.find(written) else {
        return Err(invalid(format!(
            "{name} has no column {written}; run: ALTER TABLE {name} ADD COLUMN {written} vector({width})"
        )));
    };
    let quoted = &column.quoted;
    let type_of = column.full_type.rsplit('.').next().unwrap_or_default();
    if type_of != "vector" && type_of != format!("vector({width})") {
        let using = if type_of == format!("halfvec({width})") {
            format!("{quoted}::vector({width})")
        } else {
            "NULL".to_owned()
        };
        return Err(invalid(format!(
            "{quoted} of {name} is {}, and project '{}' embeds with {width} dimensions; use a project of another model or run: \
             ALTER TABLE {name} ALTER COLUMN {quoted} TYPE vector({width}) USING {using}",
            column.full_type, project.name
        )));
    }
    if column.is_generated {
        return Err(invalid(format!(
            "{quoted} of {name} is generated; name a column that can be written"
        )));
    }
    if forgets && column.not_null {
        return Err(invalid(format!(
            "{quoted} of {name} can't be emptied; use --on-change keep or run: ALTER TABLE {name} ALTER COLUMN {quoted} DROP NOT NULL"
        )));
    }
    Ok(column.clone())
}

async fn insert(transaction: &Transaction<'_>, new: &NewSource<'_>, plan: &Plan<'_>) -> Result<i32, StoreError> {
    let keys: Vec<&str> = plan.key.iter().map(|column| column.name.as_str()).collect();
    let on_change = if new.forgets { "null" } else { "keep" };
    let rows = transaction
        .query_typed(
            "INSERT INTO cronvec.sources (project_id, relation, table_name, key_columns, text_sql, metadata_sql, where_sql,
                 embedding_column, on_change, adopt)
             VALUES ($1, $2::oid::regclass, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id",
            &[
                (&plan.project_id, Type::INT4),
                (&plan.table.oid, Type::OID),
                (&plan.table.name, Type::TEXT),
                (&keys, Type::TEXT_ARRAY),
                (&new.text, Type::TEXT),
                (&new.metadata, Type::TEXT),
                (&new.filter, Type::TEXT),
                (&plan.embedding_column.as_ref().map(|column| column.name.as_str()), Type::TEXT),
                (&on_change, Type::TEXT),
                (&new.adopt.is_some(), Type::BOOL),
            ],
        )
        .await
        .map_err(|error| match error.code() {
            Some(code) if *code == SqlState::UNIQUE_VIOLATION => {
                invalid("this project has a table already; name another with --project, or run first: cronvec detach")
            }
            Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
                invalid("this database, or this role, is read-only: nothing can be attached through it")
            }
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => forbidden(&error),
            _ => error.into(),
        })?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or_else(|| StoreError::Unreadable("a statement gave no row".into()))
}

fn forbidden(error: &tokio_postgres::Error) -> StoreError {
    let message = error.as_db_error().map_or("", |server| server.message());
    invalid(format!(
        "{message}; attach as the role that ran `cronvec migrate up`, with the rights of the table's owner"
    ))
}

pub(super) fn explain_lock(error: tokio_postgres::Error, table: &str) -> StoreError {
    match error.code() {
        Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => invalid(format!(
            "somebody's transaction holds {table}; nothing was changed, try it again when it has ended"
        )),
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => forbidden(&error),
        _ => error.into(),
    }
}

/// Functions, owners, grants, triggers.
async fn make(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    let table = plan.table;
    let run = async |statement: String| {
        let done = transaction.execute_typed(&statement, &[]).await;
        done.map(|_| ()).map_err(|error| explain_lock(error, &table.name))
    };
    plan.text.create(transaction, plan.id, table).await?;
    for expression in [&plan.metadata, &plan.filter].into_iter().flatten() {
        expression.create(transaction, plan.id, table).await?;
    }
    let functions = plan.functions();
    for function in &functions {
        run(function.create.clone()).await?;
    }
    let rows = transaction
        .query_typed(
            "SELECT quote_ident(o.rolname), quote_ident(current_user), has_schema_privilege($1, n.oid, 'CREATE')
             FROM pg_namespace n JOIN pg_roles o ON o.oid = n.nspowner WHERE n.nspname = 'cronvec'",
            &[(&table.owner.trim_matches('"'), Type::TEXT)],
        )
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::Unreadable("the schema's owner".into()))?;
    let (ours, me, may_create): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
    for function in functions.iter().filter(|function| !function.of_table) {
        run(format!("REVOKE EXECUTE ON FUNCTION {} FROM PUBLIC", function.signature)).await?;
        if ours != me {
            run(format!("ALTER FUNCTION {} OWNER TO {ours}", function.signature)).await?;
        }
    }
    grant(transaction, plan).await?;
    for trigger in plan.forget_trigger().into_iter().chain(plan.triggers(&table.name)) {
        run(trigger).await?;
    }
    for leaf in leaves(transaction, table.oid).await? {
        for trigger in plan.triggers(&leaf) {
            run(trigger).await?;
        }
    }
    if table.owner != me {
        // Who owns a function must be allowed to create in its schema, for as long as it takes to become its owner.
        if !may_create {
            run(format!("GRANT CREATE ON SCHEMA cronvec TO {}", table.owner)).await?;
        }
        for function in functions.iter().filter(|function| function.of_table) {
            run(format!(
                "ALTER FUNCTION {} OWNER TO {}",
                function.signature, table.owner
            ))
            .await?;
        }
        let texts = transaction
            .query_typed(
                "SELECT p.oid::regprocedure::text FROM pg_proc p
                 WHERE p.pronamespace = 'cronvec'::regnamespace AND p.proname = ANY ($1) LIMIT 10",
                &[(
                    &["text", "metadata", "where"]
                        .map(|name| format!("source_{}_{name}", plan.id))
                        .to_vec(),
                    Type::TEXT_ARRAY,
                )],
            )
            .await?;
        for function in &texts {
            let function: &str = function.get(0);
            run(format!("ALTER FUNCTION {function} OWNER TO {}", table.owner)).await?;
        }
        if !may_create {
            run(format!("REVOKE CREATE ON SCHEMA cronvec FROM {}", table.owner)).await?;
        }
    }
    Ok(())
}

/// Who may write the table may let its triggers write the project's records, and nothing else.
async fn grant(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    let writers = transaction
        .query_typed(WRITERS, &[(&plan.table.oid, Type::OID)])
        .await?;
    for writer in &writers {
        let writer: &str = writer.get(0);
        let functions = plan.functions();
        let ours: Vec<&str> = functions
            .iter()
            .filter(|f| !f.of_table)
            .map(|f| f.signature.as_str())
            .collect();
        transaction
            .execute_typed(&format!("GRANT USAGE ON SCHEMA cronvec TO {writer}"), &[])
            .await?;
        transaction
            .execute_typed(
                &format!("GRANT EXECUTE ON FUNCTION {} TO {writer}", ours.join(", ")),
                &[],
            )
            .await?;
    }
    Ok(())
}

/// The partitions of a table, of all levels, that can have triggers.
async fn leaves(transaction: &Transaction<'_>, oid: u32) -> Result<Vec<String>, StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_partition_tree($1) t
             JOIN pg_class c ON c.oid = t.relid AND c.relkind IN ('r', 'p') JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE t.relid <> $1 ORDER BY 1 LIMIT 10000",
            &[(&oid, Type::OID)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
