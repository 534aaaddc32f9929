//! Owns what the schema has of pgvector's: functions, views and a column that go when the extension is dropped, or look for
//! it where it was before it was moved. Makes them again, from the migrations. Refuses to bring vectors back: records that
//! have lost theirs wait to be embedded again.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, GenericClient};

use super::run::{begin, prepare};
use super::statements::{Definition, Kind, definitions, statements};
use super::{MIGRATIONS, VERSION, applied, objects, schema_exists, version};
use crate::StoreError;

const PLACE: &str = "@vector_schema@";
/// Records that are marked in one transaction.
const SLICE: i64 = 5000;

/// What is amiss.
#[derive(Debug, Default)]
pub(super) struct Amiss {
    /// Functions and views that aren't there, or not as they have to be where pgvector is now.
    definitions: Vec<Definition>,
    /// The vectors went with the extension.
    column: bool,
    /// Those of rows that left, too. They are kept for a while to save requests: nothing is lost with them.
    left: bool,
}

impl Amiss {
    /// The names of all that is amiss.
    pub fn names(&self) -> Vec<String> {
        let columns = [(self.column, "chunks.embedding"), (self.left, "left_vectors.embedding")];
        let columns = columns.into_iter().filter(|(is_amiss, _)| *is_amiss);
        let others = self.definitions.iter().map(|definition| definition.name.clone());
        columns.map(|(_, name)| name.to_owned()).chain(others).collect()
    }

    fn is_nothing(&self) -> bool {
        !self.column && !self.left && self.definitions.is_empty()
    }
}

/// What is amiss of what these migrations made. pgvector itself may be missing.
pub(super) async fn amiss(client: &impl GenericClient) -> Result<Amiss, StoreError> {
    if version(client).await?.found > VERSION || is_under_way(client).await? {
        // What newer migrations made only newer programs can make again; and steps of one that isn't complete have made
        // what isn't looked at here.
        return Ok(Amiss::default());
    }
    let done: Vec<i32> = applied(client)
        .await?
        .into_iter()
        .map(|(version, ..)| version)
        .collect();
    let texts = MIGRATIONS.iter().filter(|migration| done.contains(&migration.version));
    let all = definitions(texts.flat_map(|migration| statements(migration.sql)));
    let there = client
        .query_typed(
            "SELECT p.proname::text, p.prosrc FROM pg_proc p WHERE p.pronamespace = 'cronvec'::regnamespace
             UNION ALL
             SELECT c.relname::text, '' FROM pg_class c WHERE c.relnamespace = 'cronvec'::regnamespace AND c.relkind = 'v'",
            &[],
        )
        .await?;
    let schema = vector_schema(client).await?;
    let is_amiss = |definition: &Definition| {
        let found = there.iter().find(|row| row.get::<_, &str>(0) == definition.name);
        let Some(row) = found else { return true };
        match (definition.body(), &schema) {
            (Some(body), Some(schema)) if body.contains(PLACE) => body.replace(PLACE, schema) != row.get::<_, &str>(1),
            _ => false,
        }
    };
    let columns = client
        .query_typed(
            "SELECT c.relname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE a.attrelid IN (to_regclass('cronvec.chunks'), to_regclass('cronvec.left_vectors'))
                 AND a.attname = 'embedding' AND NOT a.attisdropped",
            &[],
        )
        .await?;
    let is_lost = |table: &str| columns.iter().all(|row| row.get::<_, &str>(0) != table);
    Ok(Amiss {
        definitions: all.into_iter().filter(|one| is_bound(one) && is_amiss(one)).collect(),
        column: is_lost("chunks") && done.contains(&1),
        left: is_lost("left_vectors") && done.contains(&16),
    })
}

/// Whether it goes when pgvector is dropped.
fn is_bound(definition: &Definition) -> bool {
    let create = definition.statements.first().map_or("", String::as_str);
    create.contains(PLACE) || definition.kind == Kind::View && create.contains("cronvec.chunks ")
}

async fn is_under_way(client: &impl GenericClient) -> Result<bool, StoreError> {
    let noted = client
        .query_typed(
            "SELECT FROM pg_class WHERE oid = to_regclass('cronvec.migration_steps')",
            &[],
        )
        .await?;
    if noted.is_empty() {
        return Ok(false);
    }
    let steps = client
        .query_typed("SELECT FROM cronvec.migration_steps LIMIT 1", &[])
        .await?;
    Ok(!steps.is_empty())
}

async fn vector_schema(client: &impl GenericClient) -> Result<Option<String>, StoreError> {
    let rows = client
        .query_typed(
            "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
             WHERE e.extname = 'vector'",
            &[],
        )
        .await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Makes all of it again, and gives its names. One that was cut off is resumed by the next.
pub(super) async fn mend(client: &mut Client) -> Result<Vec<String>, StoreError> {
    if !schema_exists(client).await? || amiss(client).await?.is_nothing() {
        return Ok(Vec::new());
    }
    let schema = prepare(client).await?;
    if amiss(client).await?.column {
        while mark_slice(client).await? > 0 {}
    }
    let transaction = begin(client).await?;
    // Somebody else may have been faster.
    let amiss = amiss(&transaction).await?;
    if amiss.column {
        transaction
            .batch_execute(&format!(
                "TRUNCATE cronvec.chunks; DELETE FROM cronvec.coverage_counts;
                 ALTER TABLE cronvec.chunks ADD COLUMN embedding {schema}.vector NOT NULL"
            ))
            .await?;
        check_widths(&transaction, &schema).await?;
    }
    if amiss.left {
        transaction
            .batch_execute(&format!(
                "TRUNCATE cronvec.left_vectors; ALTER TABLE cronvec.left_vectors ADD COLUMN embedding {schema}.vector NOT NULL"
            ))
            .await?;
    }
    // Each other's objects are looked up when they are called.
    transaction
        .batch_execute("SET LOCAL check_function_bodies = off")
        .await?;
    let ordered = [Kind::Function, Kind::View];
    for kind in ordered {
        for definition in amiss.definitions.iter().filter(|definition| definition.kind == kind) {
            for statement in &definition.statements {
                transaction.batch_execute(&statement.replace(PLACE, &schema)).await?;
            }
            transaction.batch_execute(&rights(definition)).await?;
        }
    }
    objects::note_again(&transaction, &amiss.names()).await?;
    transaction.commit().await?;
    Ok(amiss.names())
}

fn rights(definition: &Definition) -> String {
    let Definition { name, kind, .. } = definition;
    match (definition.is_public, kind) {
        (None, _) => String::new(),
        (Some(true), Kind::View) => format!("GRANT SELECT ON cronvec.{name} TO PUBLIC"),
        (Some(false), Kind::View) => format!("REVOKE ALL ON cronvec.{name} FROM PUBLIC"),
        (Some(true), Kind::Function) => format!("GRANT EXECUTE ON FUNCTION cronvec.{name} TO PUBLIC"),
        (Some(false), Kind::Function) => format!("REVOKE ALL ON FUNCTION cronvec.{name} FROM PUBLIC"),
    }
}

/// Records that were embedded wait to be embedded again, in the spaces in which they were.
async fn mark_slice(client: &mut Client) -> Result<i64, StoreError> {
    let transaction = begin(client).await?;
    let rows = transaction
        .query_typed(
            "WITH slice AS MATERIALIZED (
                 SELECT e.space_id, e.project_id, e.record_id FROM cronvec.embedded e
                 ORDER BY e.space_id, e.project_id, e.record_id LIMIT $1
             ), gone AS (
                 DELETE FROM cronvec.embedded e USING slice s
                 WHERE e.space_id = s.space_id AND e.project_id = s.project_id AND e.record_id = s.record_id
             ), marked AS (
                 INSERT INTO cronvec.pending (space_id, project_id, record_id, bucket)
                     SELECT s.space_id, s.project_id, s.record_id, r.bucket
                     FROM slice s JOIN cronvec.project_spaces o ON o.project_id = s.project_id AND o.space_id = s.space_id
                     JOIN cronvec.records r ON r.project_id = s.project_id AND r.id = s.record_id AND r.content IS NOT NULL
                     ORDER BY s.record_id, s.space_id
                     ON CONFLICT ON CONSTRAINT pending_pkey DO NOTHING
             )
             SELECT count(*) FROM slice",
            &[(&SLICE, Type::INT8)],
        )
        .await?;
    transaction.commit().await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// The check of each space's partition that its vectors are as wide as the space.
async fn check_widths(client: &impl GenericClient, schema: &str) -> Result<(), StoreError> {
    let rows = client
        .query_typed(
            "SELECT s.id, s.dimensions FROM cronvec.spaces s
             JOIN pg_class c ON c.relnamespace = 'cronvec'::regnamespace AND c.relname = format('chunks_%s', s.id)
             WHERE NOT EXISTS (SELECT FROM pg_constraint o
                 WHERE o.conrelid = c.oid AND o.conname = format('chunks_%s_width', s.id))
             ORDER BY s.id",
            &[],
        )
        .await?;
    for row in &rows {
        let (id, width): (i32, i32) = (row.get(0), row.get(1));
        client
            .batch_execute(&format!(
                "ALTER TABLE cronvec.chunks_{id}
                     ADD CONSTRAINT chunks_{id}_width CHECK ({schema}.vector_dims(embedding) = {width})"
            ))
            .await?;
    }
    Ok(())
}
