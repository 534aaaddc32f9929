//! What applications do to an attached table afterwards: their statements pass or are refused by PostgreSQL with our
//! names, no record is harmed, `doctor` tells, its mend works, and the table can be let go.

mod cases;
mod day;
mod pgvector;
mod restored;
mod rights;

use cronvec_store::sources::{Fault, NewSource, Source};
use cronvec_tests::process::Process;
use cronvec_tests::system::{PROJECT, System};

use super::{attach, reconcile};

/// A table in a schema of its own, with a type and a function of the application's.
const TABLE: &str = "
    CREATE SCHEMA shop;
    CREATE TYPE shop.mood AS ENUM ('good', 'bad');
    CREATE FUNCTION shop.clean(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lower(t); END $$;
    CREATE TABLE shop.notes (id int PRIMARY KEY, title varchar(50), body text, mood shop.mood, kind text, v vector(256));
    INSERT INTO shop.notes SELECT n, 'Title ' || n, 'body ' || n, 'good', 'plain' FROM generate_series(1, 3) AS n";

/// Columns, and one of its own that is emptied.
fn columns() -> NewSource<'static> {
    NewSource {
        table: "shop.notes",
        text: "title, body",
        metadata: Some("kind"),
        embedding_column: Some("v"),
        forgets: true,
        ..super::articles()
    }
}

/// Expressions with a function and a type of the application's.
fn expressions() -> NewSource<'static> {
    NewSource {
        table: "shop.notes",
        text: "shop.clean(title) || ' ' || coalesce(mood::text, '')",
        filter: Some("kind IS DISTINCT FROM 'hidden'"),
        ..super::articles()
    }
}

async fn faults(system: &System) -> Vec<Fault> {
    let source = system.store.source(PROJECT).await.unwrap();
    system.store.source_faults(&source).await.unwrap()
}

/// Does what `doctor` says, as a person would: in a shell, or in psql.
async fn mend(system: &System, mend: &str) {
    let Some(line) = mend.strip_prefix("cronvec ") else {
        return system.run_sql(mend).await;
    };
    let environment = [
        ("DATABASE_URL", system.database.url()),
        ("EMBEDDING_PROVIDER", "static"),
    ];
    let run = async |words: &[&str]| Process::spawn("cronvec", words, &environment).await.outcome().await;
    let read = std::process::Command::new("sh")
        .args(["-c", &format!("printf '%s\\0' {line}")])
        .output()
        .unwrap();
    let words = String::from_utf8(read.stdout).unwrap();
    let words: Vec<&str> = words.split_terminator('\0').collect();
    let outcome = run(&words).await;
    assert_eq!(outcome.code(), Some(0), "{mend}: {outcome:?}");
}

/// Records that live, of these rows.
async fn live(system: &System, ids: &str) -> i64 {
    system
        .count(&format!(
            "SELECT count(*) FROM cronvec.records WHERE content IS NOT NULL AND id = ANY ('{{{ids}}}')"
        ))
        .await
}

/// Lets the table go, whatever has become of it; nothing of ours is left of it.
async fn let_go(system: &System, source: &Source) {
    system.store.detach(source).await.unwrap();
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname ~ 'cronvec_') + (SELECT count(*) FROM pg_proc
        WHERE pronamespace = 'cronvec'::regnamespace AND proname ~ '^source_[0-9]')";
    assert_eq!(system.count(left).await, 0);
}

/// A system with the table attached and embedded.
async fn attached(new: &NewSource<'_>) -> (System, Source) {
    let system = System::embedding_in_process().await;
    system.run_sql(TABLE).await;
    let source = attach(&system, new).await.unwrap();
    system.vectorize().await;
    assert_eq!(faults(&system).await, []);
    (system, source)
}

/// A pass that comes through, and finds nothing wrong.
async fn all_well(system: &System, what: &str) {
    let source = system.store.source(PROJECT).await.unwrap();
    let source = reconcile(system, &source).await;
    assert_eq!(source.trouble, None, "{what}");
    assert_eq!(faults(system).await, [], "{what}");
}
