//! Owns what is known of the indexes over a user's vector column, and the statements about them. Refuses to run those.

use tokio_postgres::types::Type;

use super::super::{Store, StoreError};
use super::Source;

/// Above it HNSW takes `halfvec` alone.
const WIDEST_VECTOR: u16 = 2000;

/// An index that is kept up with each vector that is written to the column.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VectorIndex {
    pub name: String,
    /// `hnsw`, `ivfflat` or another extension's.
    pub method: String,
    pub drop: String,
    /// As it stands now.
    pub create: String,
}

/// Indexes over the embedding column of an attached table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ColumnIndexes {
    #[serde(skip)]
    pub column: String,
    pub indexes: Vec<VectorIndex>,
    /// Where there is none: what builds one for cosine distances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
}

impl Store {
    /// None where the project has no table, or the table no embedding column.
    pub async fn column_indexes(&self, source: &Source, dimensions: u16) -> Result<Option<ColumnIndexes>, StoreError> {
        // A partitioned table's index is built and dropped as one, which can't be done concurrently.
        let rows = self
            .query(
                "SELECT quote_ident(s.embedding_column), c.relkind = 'p', i.name, i.method, i.drops, i.creates
                 FROM cronvec.sources s JOIN pg_class c ON c.oid = s.relation
                 LEFT JOIN LATERAL (
                     SELECT i.relname::text AS name, m.amname::text AS method,
                         format(CASE i.relkind WHEN 'I' THEN 'DROP INDEX %I.%I' ELSE 'DROP INDEX CONCURRENTLY %I.%I' END,
                             n.nspname, i.relname) AS drops,
                         CASE i.relkind WHEN 'I' THEN replace(pg_get_indexdef(i.oid), ' ON ONLY ', ' ON ')
                             ELSE overlay(pg_get_indexdef(i.oid) PLACING 'CREATE INDEX CONCURRENTLY' FROM 1 FOR 12) END AS creates
                     FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
                     JOIN pg_namespace n ON n.oid = i.relnamespace JOIN pg_am m ON m.oid = i.relam
                     WHERE x.indrelid = c.oid AND m.amname NOT IN ('btree', 'hash', 'brin', 'gin', 'gist', 'spgist')
                         AND EXISTS (
                             SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                             WHERE d.classid = 'pg_class'::regclass AND d.objid = i.oid
                                 AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
                                 AND a.attname = s.embedding_column)
                     ORDER BY 1 LIMIT 100
                 ) AS i ON true
                 WHERE s.id = $1 AND s.embedding_column IS NOT NULL",
                &[(&source.id, Type::INT4)],
            )
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (column, partitioned): (String, bool) = (first.get(0), first.get(1));
        let indexes: Vec<VectorIndex> = rows
            .iter()
            .filter_map(|row| {
                Some(VectorIndex {
                    name: row.get::<_, Option<String>>(2)?,
                    method: row.get(3),
                    drop: row.get(4),
                    create: row.get(5),
                })
            })
            .collect();
        let schema = self.vector_prefix().await?;
        let build = indexes.is_empty().then(|| {
            let how = if partitioned { "" } else { "CONCURRENTLY " };
            let over = if dimensions > WIDEST_VECTOR {
                format!("({column}::{schema}halfvec({dimensions})) {schema}halfvec_cosine_ops")
            } else {
                format!("{column} {schema}vector_cosine_ops")
            };
            format!("CREATE INDEX {how}ON {} USING hnsw ({over})", source.table)
        });
        Ok(Some(ColumnIndexes { column, indexes, build }))
    }
}
