//! Owns the list of what the migrations made, kept with the schema, so that a change by hand is found. Refuses to judge
//! what others added, the partitions of spaces and the functions of attached tables.

use std::collections::HashSet;

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::super::StoreError;

/// Missing objects that a message names.
const NAMED: i64 = 10;

/// A line an object. By name, and what tells a changed one: a column's type, a function's text. PostgreSQL's own words
/// for definitions change from version to version.
const OBJECTS: &str = "
    SELECT format('column %s.%s %s%s', c.relname, a.attname, t.typname, CASE WHEN a.attnotnull THEN ' not null' END) AS object
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relnamespace = 'cronvec'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    UNION ALL
    SELECT format('index %s', c.relname)
    FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relnamespace = 'cronvec'::regnamespace AND NOT c.relispartition AND i.indisvalid AND i.indisready
    UNION ALL
    SELECT format('constraint %s of %s', o.conname, c.relname)
    FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
    WHERE c.relnamespace = 'cronvec'::regnamespace AND NOT c.relispartition
        AND o.contype IN ('c', 'f', 'p', 'u') AND o.convalidated
    UNION ALL
    SELECT format('sequence %s', c.relname)
    FROM pg_class c WHERE c.relnamespace = 'cronvec'::regnamespace AND c.relkind = 'S'
    UNION ALL
    SELECT format('function %s of %s arguments %s', p.proname, p.pronargs, md5(p.prosrc))
    FROM pg_proc p WHERE p.pronamespace = 'cronvec'::regnamespace AND p.proname !~ '^source_[0-9]+_'";

/// What is there now.
pub(super) async fn there(client: &impl GenericClient) -> Result<HashSet<String>, StoreError> {
    let rows = client.query_typed(OBJECTS, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Notes what a step has made, and forgets what it took away. What stood there besides is others', before and after.
pub(super) async fn note(
    client: &impl GenericClient,
    before: &HashSet<String>,
    after: &HashSet<String>,
) -> Result<(), StoreError> {
    let made: Vec<&String> = after.difference(before).collect();
    let gone: Vec<&String> = before.difference(after).collect();
    client
        .execute_typed(
            "INSERT INTO cronvec.schema_objects (object) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING",
            &[(&made, Type::TEXT_ARRAY)],
        )
        .await?;
    client
        .execute_typed(
            "DELETE FROM cronvec.schema_objects WHERE object = ANY ($1)",
            &[(&gone, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(())
}

/// Notes functions and views that were made again as they are now.
pub(super) async fn note_again(client: &impl GenericClient, names: &[String]) -> Result<(), StoreError> {
    let is_of = "split_part(split_part(object, ' ', 2), '.', 1) = ANY ($1) AND object ~ '^(function|column) '";
    let made: HashSet<String> = client
        .query_typed(
            &format!("SELECT object FROM ({OBJECTS}) AS there WHERE {is_of}"),
            &[(&names, Type::TEXT_ARRAY)],
        )
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    client
        .execute_typed(
            &format!("DELETE FROM cronvec.schema_objects WHERE {is_of}"),
            &[(&names, Type::TEXT_ARRAY)],
        )
        .await?;
    note(client, &HashSet::new(), &made).await
}

/// Notes an index that was built outside a transaction.
pub(super) async fn note_index(client: &impl GenericClient, index: &str) -> Result<(), StoreError> {
    let made = HashSet::from([format!("index {index}")]);
    note(client, &HashSet::new(), &made).await
}

/// What was noted and isn't there any more, or is another; the first ones.
pub(super) async fn missing(client: &impl GenericClient) -> Result<Vec<String>, StoreError> {
    let rows = client
        .query_typed(
            &format!(
                "SELECT object FROM cronvec.schema_objects
                 EXCEPT SELECT object FROM ({OBJECTS}) AS there ORDER BY object LIMIT $1"
            ),
            &[(&NAMED, Type::INT8)],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
