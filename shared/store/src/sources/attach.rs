//! Owns the one transaction that attaches a table, and the checks before it. Refuses to read the table's rows, but for a few
//! to see that it can.

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::super::projects::Project;
use super::super::{Store, StoreError};
use super::compile::{Function, GENERATION, Plan};
use super::expression::{Expression, Role};
use super::table::{Column, Table};
use super::{Source, alter, attempt, origins};
use cronvec_nouns::space::SpaceSpec;

/// Types whose text is the same in every session.
const KEY_TYPES: [&str; 11] = [
    "int2",
    "int4",
    "int8",
    "uuid",
    "text",
    "varchar",
    "bpchar",
    "numeric",
    "date",
    "timestamp",
    "timestamptz",
];
/// A transaction of a user's that holds the table makes us give up, rather than let others queue behind us. We hold the
/// project by then, so it is less than PostgreSQL's `deadlock_timeout`: should we ever stand in a circle with a user's
/// transaction, we leave it before anyone looks.
pub(super) const TABLE_TIMEOUT: &str = "900ms";

/// What a person asks for.
#[derive(Clone, Copy, Debug)]
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
    /// The project's records of another origin that were accepted before this number go, unless they have a row.
    pub take_over: Option<i64>,
}

impl Store {
    /// The name that a table's project gets if nobody gave another.
    pub async fn table_name(&self, written: &str) -> Result<String, StoreError> {
        Ok(self.find_table(written).await?.plain)
    }

    /// Attaches a table to a project: from the commit on no change is overlooked, and nobody else writes the project's
    /// records. What is there already is read by reconcile.
    pub async fn attach(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
    ) -> Result<Source, StoreError> {
        let table = self.find_table(new.table).await?;
        let plan = self.plan(new, project, space, &table).await?;
        let mut client = self.client().await?;
        let transaction = self.begin(&mut client, "").await?;
        origins::hold_project(&transaction, project.id).await?;
        origins::refuse_second(&transaction, project.id).await?;
        let former = origins::former(&transaction, project.id, &table.name).await?;
        origins::refuse_strangers(&transaction, new, project, &table, former).await?;
        transaction
            .batch_execute(&format!("SET LOCAL lock_timeout = '{TABLE_TIMEOUT}'"))
            .await?;
        let id = match former {
            Some(id) => id,
            None => reserve(&transaction).await?,
        };
        let plan = Plan { id, ..plan };
        insert(&transaction, new, &plan).await?;
        make(&transaction, &plan).await?;
        alter::note_made(&transaction, &plan).await?;
        transaction.commit().await?;
        self.source(&project.name).await
    }

    pub(super) async fn plan<'a>(
        &self,
        new: &NewSource<'_>,
        project: &Project,
        space: &SpaceSpec,
        table: &'a Table,
    ) -> Result<Plan<'a>, StoreError> {
        let read = |role, written| Expression::read(table, role, written);
        if let Some(model) = new.adopt {
            if new.embedding_column.is_none() {
                return Err(invalid(
                    "--adopt-existing needs --embedding-column, where the vectors stand",
                ));
            }
            if model != space.model {
                return Err(invalid(format!(
                    "project '{}' embeds with {}, not with {model}: vectors of two models don't go together; \
                     set EMBEDDING_PROVIDER and EMBEDDING_MODEL={model} and attach to a new project",
                    project.name, space.model
                )));
            }
        }
        let embedding_column = match new.embedding_column {
            Some(written) => Some(self.vector_column(table, written, project, space, new.forgets).await?),
            None => None,
        };
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
            knows_places: self
                .query_one(
                    "SELECT to_regproc('pg_catalog.pg_column_toast_chunk_id') IS NOT NULL",
                    &[],
                )
                .await?
                .get(0),
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
                    "{} of {} is {}; a key must be an integer, a numeric, a uuid, text, a date or a timestamp",
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

pub(super) fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::Invalid(message.into())
}

pub(super) async fn reserve(transaction: &Transaction<'_>) -> Result<i32, StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT nextval(pg_get_serial_sequence('cronvec.sources', 'id'))::int",
            &[],
        )
        .await
        .map_err(readable)?;
    let row = rows.first().ok_or_else(super::super::no_row)?;
    Ok(row.get(0))
}

async fn insert(transaction: &Transaction<'_>, new: &NewSource<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    let keys: Vec<&str> = plan.key.iter().map(|column| column.name.as_str()).collect();
    let on_change = if new.forgets { "null" } else { "keep" };
    transaction
        .execute_typed(
            "INSERT INTO cronvec.sources (id, project_id, relation, table_name, key_columns, text_sql, metadata_sql,
                 where_sql, embedding_column, on_change, adopt, take_over, origins_known, generation)
             OVERRIDING SYSTEM VALUE
             VALUES ($1, $2, $3::oid::regclass, $4, $5, $6, $7, $8, $9, $10, $11, $12, true, $13)",
            &[
                (&plan.id, Type::INT4),
                (&plan.project_id, Type::INT4),
                (&plan.table.oid, Type::OID),
                (&plan.table.name, Type::TEXT),
                (&keys, Type::TEXT_ARRAY),
                (&new.text, Type::TEXT),
                (&new.metadata, Type::TEXT),
                (&new.filter, Type::TEXT),
                (
                    &plan.embedding_column.as_ref().map(|column| column.name.as_str()),
                    Type::TEXT,
                ),
                (&on_change, Type::TEXT),
                (&new.adopt.is_some(), Type::BOOL),
                (&new.take_over, Type::INT8),
                (&GENERATION, Type::INT2),
            ],
        )
        .await
        .map_err(readable)?;
    Ok(())
}

/// What this role may not do.
pub(super) fn readable(error: tokio_postgres::Error) -> StoreError {
    match error.code() {
        Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => {
            invalid("this database, or this role, is read-only: nothing can be attached through it")
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => forbidden(&error),
        _ => error.into(),
    }
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

/// What a look at the table needs before it is attached. It runs what users wrote, so it belongs to the table's owner.
pub(super) async fn make_look(
    transaction: &Transaction<'_>,
    plan: &Plan<'_>,
    functions: &[&Function],
) -> Result<(), StoreError> {
    make_expressions(transaction, plan).await?;
    for function in functions {
        transaction
            .execute_typed(&function.create, &[])
            .await
            .map_err(readable)?;
    }
    give_to_owner(transaction, plan.id, plan.table).await
}

async fn make_expressions(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    plan.text.create(transaction, plan.id, plan.table).await?;
    for expression in [&plan.metadata, &plan.filter].into_iter().flatten() {
        expression.create(transaction, plan.id, plan.table).await?;
    }
    Ok(())
}

/// Functions, triggers, owners, rights.
pub(super) async fn make(transaction: &Transaction<'_>, plan: &Plan<'_>) -> Result<(), StoreError> {
    let table = plan.table;
    let run = async |statement: String| {
        let done = transaction.execute_typed(&statement, &[]).await;
        done.map(|_| ()).map_err(|error| explain_lock(error, &table.name))
    };
    make_expressions(transaction, plan).await?;
    for function in plan.functions() {
        run(function.create).await?;
    }
    run(attempt::create(plan)).await?;
    let roles = roles(transaction, table).await?;
    if roles.ours != roles.me {
        for function in plan.functions().iter().filter(|function| !function.of_table) {
            run(format!("ALTER FUNCTION {} OWNER TO {}", function.signature, roles.ours)).await?;
        }
    }
    give_to_owner(transaction, plan.id, table).await?;
    attempt::attempt(transaction, plan).await?;
    for trigger in plan.forget_trigger().into_iter().chain(plan.triggers(&table.name)) {
        run(trigger).await?;
    }
    for leaf in leaves(transaction, table.oid).await? {
        for trigger in plan.triggers(&leaf) {
            run(trigger).await?;
        }
    }
    run(format!("SELECT cronvec.secure_source({})", plan.id)).await?;
    // What may become of them is told by comparing it with this.
    run(format!(
        "UPDATE cronvec.sources SET table_columns = cronvec.columns_of_source(id) WHERE id = {}",
        plan.id
    ))
    .await
}

/// Who makes the functions, and who are to have them; quoted.
struct Roles {
    /// The schema's owner.
    ours: String,
    me: String,
    /// The table's owner may create in the schema.
    owner_may_create: bool,
}

async fn roles(transaction: &Transaction<'_>, table: &Table) -> Result<Roles, StoreError> {
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
    Ok(Roles {
        ours: row.get(0),
        me: row.get(1),
        owner_may_create: row.get(2),
    })
}

/// Functions that run what users wrote run with the rights of the table's owner.
async fn give_to_owner(transaction: &Transaction<'_>, id: i32, table: &Table) -> Result<(), StoreError> {
    let roles = roles(transaction, table).await?;
    if table.owner == roles.me {
        return Ok(());
    }
    let run = async |statement: String| {
        let done = transaction.execute_typed(&statement, &[]).await;
        done.map(|_| ()).map_err(|error| explain_lock(error, &table.name))
    };
    // Who owns a function must be allowed to create in its schema, for as long as it takes to become its owner.
    if !roles.owner_may_create {
        run(format!("GRANT CREATE ON SCHEMA cronvec TO {}", table.owner)).await?;
    }
    for function in of_table(transaction, id).await? {
        run(format!("ALTER FUNCTION {function} OWNER TO {}", table.owner)).await?;
    }
    if !roles.owner_may_create {
        run(format!("REVOKE CREATE ON SCHEMA cronvec FROM {}", table.owner)).await?;
    }
    // The owner calls them in the try; `secure_source` grants the same in the end.
    run(format!("GRANT USAGE ON SCHEMA cronvec TO {}", table.owner)).await
}

/// The functions of a source that are to belong to the table's owner.
async fn of_table(transaction: &Transaction<'_>, id: i32) -> Result<Vec<String>, StoreError> {
    let rows = transaction
        .query_typed(
            "SELECT p.oid::regprocedure::text FROM pg_proc p
             WHERE p.pronamespace = 'cronvec'::regnamespace AND starts_with(p.proname::text, $1)
                 AND p.proname NOT IN ($1 || 'take', $1 || 'truncated') LIMIT 100",
            &[(&format!("source_{id}_"), Type::TEXT)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
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
