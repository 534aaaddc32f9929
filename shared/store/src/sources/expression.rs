//! Owns what `--text`, `--metadata` and `--where` become: a function of the columns that they name. Refuses to take more
//! than one expression.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Transaction};

use super::super::StoreError;
use super::identifiers::identifiers;
use super::table::{Column, Table};

/// PostgreSQL's functions have a hundred parameters at most.
const MOST_COLUMNS: usize = 100;

/// One of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Text,
    Metadata,
    Filter,
}

impl Role {
    pub fn option(self) -> &'static str {
        match self {
            Self::Text => "--text",
            Self::Metadata => "--metadata",
            Self::Filter => "--where",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Metadata => "metadata",
            Self::Filter => "where",
        }
    }

    fn returns(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Metadata => "jsonb",
            Self::Filter => "boolean",
        }
    }
}

/// An expression over a row.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    pub role: Role,
    pub sql: String,
    pub columns: Vec<Column>,
}

impl Expression {
    /// Columns, parted by commas, or an expression.
    pub fn read(table: &Table, role: Role, written: &str) -> Result<Self, StoreError> {
        let parts: Vec<&str> = written.split(',').map(str::trim).collect();
        let is_name = |part: &&str| {
            let quoted = part.len() > 2 && part.starts_with('"') && part.ends_with('"');
            let plain = part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
                && part.starts_with(|c: char| c.is_alphabetic() || c == '_');
            quoted || plain
        };
        let is_constant = |part: &&str| ["true", "false", "null"].contains(&part.to_lowercase().as_str());
        let found: Option<Vec<Column>> = parts.iter().map(|part| table.find(part).cloned()).collect();
        if role != Role::Filter {
            if let Some(columns) = found {
                refuse_virtual(table, role, &columns)?;
                return Ok(Self {
                    role,
                    sql: joined(role, &columns),
                    columns,
                });
            }
            if parts.iter().all(is_name) && !parts.iter().any(is_constant) {
                for part in parts {
                    table.column(part)?;
                }
            }
        }
        let lower = written.to_lowercase();
        let columns = table.columns.iter();
        let columns: Vec<Column> = columns
            .filter(|column| lower.contains(&column.name.to_lowercase().replace('"', "\"\"")))
            .cloned()
            .collect();
        if columns.len() > MOST_COLUMNS {
            return Err(StoreError::Invalid(format!(
                "{} mentions more than {MOST_COLUMNS} columns",
                role.option()
            )));
        }
        let names = identifiers(written);
        let used: Vec<Column> = columns
            .iter()
            .filter(|column| names.iter().any(|(_, name)| *name == column.name))
            .cloned()
            .collect();
        refuse_virtual(table, role, &used)?;
        Ok(Self {
            role,
            sql: written.to_owned(),
            columns,
        })
    }

    /// The call over a row of this name.
    pub fn of(&self, source: i32, row: &str) -> String {
        let arguments: Vec<String> = self.columns.iter().map(|c| format!("{row}.{}", c.quoted)).collect();
        format!("cronvec.source_{source}_{}({})", self.role.name(), arguments.join(", "))
    }

    /// The statement that makes the function.
    pub fn statement(&self, source: i32) -> String {
        let parameters: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("{} {}", c.quoted, c.bare_type))
            .collect();
        format!(
            "CREATE FUNCTION cronvec.source_{source}_{}({}) RETURNS {} LANGUAGE sql RETURN\n{}",
            self.role.name(),
            parameters.join(", "),
            self.role.returns(),
            self.sql
        )
    }

    /// Makes the function. The server parses the body now, once and for all, and as the last part of one statement: it
    /// can hold one expression and nothing else, whatever it says.
    pub async fn create(&self, transaction: &Transaction<'_>, source: i32, table: &Table) -> Result<(), StoreError> {
        transaction
            .execute_typed(&self.statement(source), &[])
            .await
            .map_err(|error| self.explain(error, table))?;
        // Where a condition stands it can be no aggregate, no window and no set. One expression it is by now.
        let nulls: Vec<String> = self
            .columns
            .iter()
            .map(|c| format!("NULL::{} AS {}", c.bare_type, c.quoted))
            .collect();
        let probe = format!(
            "EXPLAIN SELECT FROM (SELECT {}) AS row WHERE (\n{}\n) IS NOT NULL",
            nulls.join(", "),
            self.sql
        );
        transaction
            .query_typed(&probe, &[])
            .await
            .map_err(|error| self.explain(error, table))?;
        // Functions of a name can't be told apart by their parameters here: there is only one.
        let reads = transaction
            .query_typed(
                "SELECT c.oid::regclass::text FROM pg_proc p
                 JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_class'::regclass
                 JOIN pg_class c ON c.oid = d.refobjid
                 WHERE p.pronamespace = 'cronvec'::regnamespace AND p.proname = $1 LIMIT 1",
                &[(&format!("source_{source}_{}", self.role.name()), Type::TEXT)],
            )
            .await?;
        match reads.first() {
            Some(row) => Err(StoreError::Invalid(format!(
                "{} reads {}, whose changes nobody would notice; it may only use columns of its own row",
                self.role.option(),
                row.get::<_, &str>(0)
            ))),
            None => Ok(()),
        }
    }

    fn explain(&self, error: Error, table: &Table) -> StoreError {
        let Some(server) = error.as_db_error() else {
            return error.into();
        };
        let option = self.role.option();
        let what = match *server.code() {
            SqlState::UNDEFINED_COLUMN => format!("{}; columns are: {}", server.message(), table.column_names()),
            SqlState::INSUFFICIENT_PRIVILEGE => return error.into(),
            SqlState::SYNTAX_ERROR if server.message().contains("multiple commands") => {
                "this is several commands".into()
            }
            _ => server.message().to_owned(),
        };
        StoreError::Invalid(format!(
            "{option} must be {} or one SQL expression over a row of {} that gives {}: {what}",
            if self.role == Role::Filter {
                "a column"
            } else {
                "columns"
            },
            table.name,
            self.role.returns()
        ))
    }
}

/// Transition tables hold NULL for them.
fn refuse_virtual(table: &Table, role: Role, columns: &[Column]) -> Result<(), StoreError> {
    for column in columns {
        if let Some(expression) = &column.virtual_sql {
            return Err(StoreError::Invalid(format!(
                "{0} of {1} is a virtual generated column, and triggers see it as NULL. Use its expression in {2} instead: \
                 {expression}; or store its values: {3}",
                column.quoted,
                table.name,
                role.option(),
                column.stored(&table.name, expression)
            )));
        }
    }
    Ok(())
}

/// What a list of columns stands for.
fn joined(role: Role, columns: &[Column]) -> String {
    if role == Role::Metadata {
        let pairs: Vec<String> = columns.iter().map(|c| format!("{}, {}", c.literal, c.quoted)).collect();
        return format!("pg_catalog.jsonb_build_object({})", pairs.join(", "));
    }
    match columns {
        [only] => format!("{}::text", only.quoted),
        several => {
            let texts: Vec<String> = several
                .iter()
                .map(|c| format!("nullif({}::text, '')", c.quoted))
                .collect();
            format!("pg_catalog.concat_ws(E'\\n\\n', {})", texts.join(", "))
        }
    }
}
