//! pgvector is moved to another schema, dropped with the one that it was in, or was never on the search path.

use cronvec_store::migrate;
use cronvec_tests::database::Database;
use cronvec_tests::process::Process;
use cronvec_tests::system::{PROJECT, System};
use serde_json::Value;

use super::{TABLE, all_well, attached, columns, faults, live};
use crate::attach::attach;

/// Everything of ours that pgvector is a part of, as it stands in the catalog.
const OURS: &str = "SELECT jsonb_object_agg(o.name, o.definition) FROM (
        SELECT p.oid::regprocedure::text, concat_ws(E'\n', pg_get_functiondef(p.oid), (SELECT string_agg(a::text, ' ' ORDER BY a::text)
            FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a))
        FROM pg_proc p WHERE p.pronamespace = 'cronvec'::regnamespace AND p.proname !~ '^source_[0-9]'
        UNION ALL
        SELECT c.relname, concat_ws(E'\n', c.reloptions::text, pg_get_viewdef(c.oid), (SELECT string_agg(a::text, ' ' ORDER BY a::text)
            FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS a))
        FROM pg_class c WHERE c.relnamespace = 'cronvec'::regnamespace AND c.relkind = 'v'
        UNION ALL
        SELECT 'column ' || c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod) || a.attnotnull
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'cronvec'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 'constraint ' || o.conname, pg_get_constraintdef(o.oid) FROM pg_constraint o
        WHERE o.connamespace = 'cronvec'::regnamespace) AS o (name, definition)";

/// A database into whose schema `extensions` pgvector was put before anything else, outside of every search path.
async fn outside() -> System {
    let database = Database::empty().await;
    let mut client = database.client().await;
    client
        .batch_execute("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
        .await
        .unwrap();
    migrate::up(&mut client).await.unwrap();
    drop(client);
    System::on(database, &[]).await
}

async fn complaint(system: &System) -> Option<String> {
    let error = migrate::verify(&system.database.client().await).await.err()?;
    Some(error.to_string())
}

async fn cronvec(system: &System, line: &str) -> (Option<i32>, String) {
    let environment = [
        ("DATABASE_URL", system.database.url()),
        ("EMBEDDING_PROVIDER", "static"),
    ];
    let words: Vec<&str> = line.split(' ').collect();
    let outcome = Process::spawn("cronvec", &words, &environment).await.outcome().await;
    (outcome.code(), format!("{}{}", outcome.stdout, outcome.stderr))
}

async fn search_finds(system: &System, id: &str) {
    let (code, said) = cronvec(system, &format!("search --project {PROJECT} title")).await;
    assert!(code == Some(0) && said.contains(id), "{said}");
}

#[tokio::test]
async fn spaces_and_attached_tables_need_no_pgvector_on_the_search_path() {
    let system = outside().await;
    system
        .run_sql(&TABLE.replace("vector(256)", "extensions.vector(256)"))
        .await;
    let source = attach(&system, &columns()).await.unwrap();
    system.vectorize().await;
    assert_eq!(system.count("SELECT count(v) FROM shop.notes").await, 3);
    search_finds(&system, "Title 1").await;
    // What is advised can be run as it is.
    system.run_sql("ALTER TABLE shop.notes DROP COLUMN v").await;
    let all = faults(&system).await;
    assert_eq!(
        all[0].mend,
        "ALTER TABLE shop.notes ADD COLUMN \"v\" extensions.vector(256)"
    );
    system.run_sql(&all[0].mend).await;
    all_well(&system, "a column outside of the path").await;
    let indexes = system.store.column_indexes(&source, 256).await.unwrap().unwrap();
    system.run_sql(&indexes.build.unwrap()).await;
}

#[tokio::test]
async fn an_extension_that_is_moved_takes_nothing_with_it_and_migrate_up_mends_what_looks_for_it() {
    let (system, source) = attached(&columns()).await;
    system
        .run_sql("CREATE SCHEMA extensions; ALTER EXTENSION vector SET SCHEMA extensions")
        .await;
    // At once: writes, searches and vectors go on.
    system
        .run_sql("INSERT INTO shop.notes (id, title) VALUES (77, 'Late')")
        .await;
    system.vectorize().await;
    assert_eq!(system.count("SELECT count(v) FROM shop.notes").await, 4);
    search_finds(&system, "Title 1").await;
    system.create_project("another").await;

    let said = complaint(&system).await.unwrap();
    assert!(
        said.contains("fill_records") && said.contains("run: cronvec migrate up"),
        "{said}"
    );
    let (code, said) = cronvec(&system, "doctor --offline").await;
    assert!(code == Some(1) && said.contains("→ cronvec migrate up"), "{said}");
    let (code, said) = cronvec(&system, "migrate up").await;
    assert!(code == Some(0) && said.contains("made again: fill_records"), "{said}");
    assert_eq!(complaint(&system).await, None);
    let (_, said) = cronvec(&system, "migrate up").await;
    assert!(!said.contains("made again"), "{said}");
    // As if it had always been there.
    let (moved, fresh) = (system.value(OURS).await, outside().await.value(OURS).await);
    same(&moved, &fresh);
    all_well(&system, "moved").await;
    drop(source);
}

#[tokio::test]
async fn a_schema_dropped_with_the_extension_in_it_loses_vectors_alone_and_migrate_up_leads_out() {
    let (system, _) = attached(&columns()).await;
    let before = system.value(OURS).await;
    system.run_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
    // Records are written as before.
    system
        .run_sql("INSERT INTO shop.notes (id, title) VALUES (77, 'Late')")
        .await;
    assert_eq!(live(&system, "1,2,3,77").await, 4);
    let said = complaint(&system).await.unwrap();
    assert!(
        said.contains("chunks.embedding") && said.contains("run: cronvec migrate up"),
        "{said}"
    );
    let (code, said) = cronvec(&system, "doctor --offline").await;
    assert!(code == Some(1) && said.contains("→ cronvec migrate up"), "{said}");

    let (code, said) = cronvec(&system, "migrate up").await;
    assert!(
        code == Some(0) && said.contains("embedded again by the next ticks"),
        "{said}"
    );
    assert_eq!(complaint(&system).await, None);
    same(&system.value(OURS).await, &before);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.pending").await, 4);
    // The table's own column went, too: `doctor` leads through it.
    let all = faults(&system).await;
    assert!(
        all.iter().any(|fault| fault.found.contains("has no column v")),
        "{all:?}"
    );
    for fault in all {
        super::mend(&system, &fault.mend).await;
    }
    all_well(&system, "public is back").await;
    let (code, said) = cronvec(&system, "tick vectorization").await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 4);
    assert_eq!(system.count("SELECT count(v) FROM shop.notes").await, 4);
    search_finds(&system, "77").await;
}

#[tokio::test]
async fn records_of_projects_without_a_table_are_embedded_again_at_once() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "tomatoes").await;
    system.vectorize().await;
    system.run_sql("DROP EXTENSION vector CASCADE").await;
    system.put(PROJECT, "b", "knives").await;
    let mut client = system.database.client().await;
    let again = migrate::mend(&mut client).await.unwrap();
    assert!(again.contains(&"chunks.embedding".to_owned()), "{again:?}");
    assert_eq!(migrate::mend(&mut client).await.unwrap(), Vec::<String>::new());
    let (code, said) = cronvec(&system, "tick vectorization").await;
    assert_eq!(code, Some(0), "{said}");
    search_finds(&system, "tomatoes").await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 2);
}

fn same(one: &Value, other: &Value) {
    let (one, other) = (one.as_object().unwrap(), other.as_object().unwrap());
    for (name, definition) in one {
        assert_eq!(Some(definition), other.get(name), "{name}");
    }
    assert_eq!(one.len(), other.len());
}
