//! Owns what is to be known of a user's table before it is attached, and what is wrong with it. Refuses to change it.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;

use super::super::{Store, StoreError};

/// A user's table. Names that are put into SQL come quoted from the server.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub oid: u32,
    /// `public.articles`, quoted where it must be.
    pub name: String,
    /// Without its schema, unquoted.
    pub plain: String,
    pub owner: String,
    pub columns: Vec<Column>,
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub name: String,
    pub quoted: String,
    pub literal: String,
    /// As `format_type` has it, with its width.
    pub full_type: String,
    /// The same without.
    pub bare_type: String,
    /// `int4`; of a domain what it is made of.
    pub base: String,
    pub not_null: bool,
    pub is_generated: bool,
    /// What it is computed from where it is read; triggers see no value of such a column.
    pub virtual_sql: Option<String>,
    /// Its place in the table, whatever it is named.
    pub number: i16,
}

impl Column {
    /// The statement that makes a virtual generated column one whose values are stored.
    pub fn stored(&self, table: &str, expression: &str) -> String {
        format!(
            "ALTER TABLE {table} DROP COLUMN {0}, ADD COLUMN {0} {1} GENERATED ALWAYS AS ({expression}) STORED",
            self.quoted, self.full_type
        )
    }
}

impl Table {
    /// A column as SQL would find it: by its exact name, quoted, or folded.
    pub fn find(&self, written: &str) -> Option<&Column> {
        let written = written.trim();
        let unquoted = written
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .map(|inner| inner.replace("\"\"", "\""));
        let by = |name: &str| self.columns.iter().find(|column| column.name == name);
        match unquoted {
            Some(name) => by(&name),
            None => by(written).or_else(|| by(&written.to_lowercase())),
        }
    }

    pub fn column(&self, written: &str) -> Result<&Column, StoreError> {
        self.find(written).ok_or_else(|| {
            StoreError::Invalid(format!(
                "{} has no column {}; it has: {}",
                self.name,
                written.trim(),
                self.column_names()
            ))
        })
    }

    pub fn column_names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.quoted.as_str()).collect();
        names.join(", ")
    }
}

/// What a table says of its size, with its partitions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub rows: i64,
    pub blocks: f64,
}

impl Table {
    pub async fn sizes(&self, transaction: &Transaction<'_>) -> Result<Sizes, StoreError> {
        let row = transaction
            .query_typed(
                "SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint,
                     coalesce(sum(pg_relation_size(c.oid)), 0)::float8 / current_setting('block_size')::float8
                 FROM (SELECT $1 UNION SELECT relid FROM pg_partition_tree($1)) AS t (oid)
                 JOIN pg_class c ON c.oid = t.oid AND c.relkind = 'r'",
                &[(&self.oid, Type::OID)],
            )
            .await?;
        let row = row.first().ok_or_else(super::super::no_row)?;
        Ok(Sizes {
            rows: row.get(0),
            blocks: row.get(1),
        })
    }
}

/// How a role comes by a table's rights, and by no others.
fn ownership(table: &str, owner: &str, me: &str, is_mighty: bool) -> String {
    match is_mighty {
        false => format!("run: GRANT {owner} TO {me}"),
        true => format!(
            "let an ordinary role own it, since {owner} may do far more than own tables: ALTER TABLE {table} OWNER TO ROLE, \
             then GRANT ROLE TO {me}"
        ),
    }
}

impl Store {
    /// The table of this name, with or without its schema, quoted or not.
    pub(super) async fn find_table(&self, written: &str) -> Result<Table, StoreError> {
        let rows = self
            .query(
                "SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relname::text, c.relkind::text, quote_ident(o.rolname),
                     pg_has_role(c.relowner, 'USAGE'), quote_ident(current_user),
                     EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid) AND c.relkind = 'r', c.relispartition,
                     c.relpersistence::text, n.nspname IN ('cronvec', 'pg_catalog', 'information_schema'),
                     -- Roles whose rights go far beyond their tables.
                     o.rolsuper OR o.rolcreaterole OR o.rolbypassrls OR o.rolreplication
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
                 CROSS JOIN LATERAL (
                     SELECT CASE
                         WHEN $1 IN (n.nspname || '.' || c.relname, format('%I.%I', n.nspname, c.relname)) THEN 1
                         WHEN pg_table_is_visible(c.oid) AND $1 IN (c.relname::text, quote_ident(c.relname)) THEN 2
                         WHEN n.nspname || '.' || c.relname = lower($1) THEN 3
                         WHEN pg_table_is_visible(c.oid) AND c.relname = lower($1) THEN 4 END) AS m (rank)
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND m.rank IS NOT NULL
                 ORDER BY m.rank LIMIT 1",
                &[(&written.trim(), Type::TEXT)],
            )
            .await?;
        let invalid = |message: String| Err(StoreError::Invalid(message));
        let Some(row) = rows.first() else {
            return invalid(format!(
                "no table {written}; name it as schema.table, with quotes where SQL needs them"
            ));
        };
        let (name, kind): (String, &str) = (row.get(1), row.get(3));
        let what = match kind {
            "v" => Some("a view"),
            "m" => Some("a materialized view"),
            "f" => Some("a foreign table"),
            _ if row.get(10) => Some("one of the system's own"),
            _ if row.get(7) => Some("a table that others inherit from"),
            _ if row.get(8) => Some("a partition"),
            _ if row.get::<_, &str>(9) == "t" => Some("a temporary table"),
            _ => None,
        };
        if let Some(what) = what {
            return invalid(format!(
                "{name} is {what}, whose changes can't be followed; attach the table that its rows are written to"
            ));
        }
        let (owner, me): (String, String) = (row.get(4), row.get(6));
        if !row.get::<_, bool>(5) {
            let belongs = format!("{name} belongs to {owner}, whose rights {me} doesn't have; attach as {owner}, or ");
            return invalid(belongs + &ownership(&name, &owner, &me, row.get(11)));
        }
        let oid: u32 = row.get(0);
        Ok(Table {
            oid,
            name,
            plain: row.get(2),
            owner,
            columns: self.columns(oid).await?,
        })
    }

    pub(super) async fn columns(&self, oid: u32) -> Result<Vec<Column>, StoreError> {
        let rows = self
            .query(
                "SELECT a.attname::text, quote_ident(a.attname), quote_literal(a.attname),
                     format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, NULL), coalesce(b.typname, t.typname)::text,
                     a.attnotnull OR t.typnotnull, a.attgenerated <> '',
                     CASE a.attgenerated WHEN 'v' THEN pg_get_expr(g.adbin, g.adrelid) END, a.attnum
                 FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                 LEFT JOIN pg_attrdef g ON g.adrelid = a.attrelid AND g.adnum = a.attnum
                 LEFT JOIN pg_type b ON b.oid = nullif(t.typbasetype, 0)
                 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
                &[(&oid, Type::OID)],
            )
            .await?;
        Ok(rows
            .iter()
            .map(|row| Column {
                name: row.get(0),
                quoted: row.get(1),
                literal: row.get(2),
                full_type: row.get(3),
                bare_type: row.get(4),
                base: row.get(5),
                not_null: row.get(6),
                is_generated: row.get(7),
                virtual_sql: row.get(8),
                number: row.get(9),
            })
            .collect())
    }

    /// The columns of the primary key; where there is none, nothing.
    pub(super) async fn primary_key(&self, oid: u32) -> Result<Vec<String>, StoreError> {
        let rows = self
            .query(
                "SELECT a.attname::text FROM pg_index i
                 CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, nth)
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                 WHERE i.indrelid = $1 AND i.indisprimary AND k.nth <= i.indnkeyatts ORDER BY k.nth",
                &[(&oid, Type::OID)],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Whether no two rows can have the same in these columns.
    pub(super) async fn is_unique(&self, oid: u32, columns: &[&str]) -> Result<bool, StoreError> {
        let row = self
            .query_one(
                "SELECT EXISTS (
                     SELECT FROM pg_index i
                     WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                         AND i.indexprs IS NULL AND (
                             SELECT array_agg(a.attname::text ORDER BY a.attname::text)
                             FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, nth)
                             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                             WHERE k.nth <= i.indnkeyatts
                         ) = (SELECT array_agg(c ORDER BY c) FROM unnest($2::text[]) AS c))",
                &[(&oid, Type::OID), (&columns, Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(row.get(0))
    }
}
