//! Sequences that a restore, a fail-over or a copy of the tables has left behind the data.

use std::sync::Arc;

use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::numbers::IDENTITIES;
use cronvec_store::{self as store, Store};
use cronvec_tests::between::Transaction;
use cronvec_tests::database::Database;
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::json;

/// The store of a process that begins now.
fn beginning(system: &System) -> Arc<Store> {
    Arc::new(Store::new(store::Database::at(system.database.url(), 2).unwrap()))
}

async fn given(system: &System) -> i64 {
    system.count("SELECT last_value FROM cronvec.acceptance").await
}

async fn content(system: &System) -> String {
    let content = system.value("SELECT content FROM cronvec.records WHERE id = 'a'").await;
    content.as_str().unwrap().to_owned()
}

async fn put_behind(system: &System) {
    system
        .run_sql(
            "SELECT setval('cronvec.acceptance', 100000); SELECT cronvec.put_record('articles', 'a', 'the old text')",
        )
        .await;
}

async fn restart(system: &System) {
    system.run_sql("ALTER SEQUENCE cronvec.acceptance RESTART WITH 1").await;
}

#[tokio::test]
async fn a_sequence_that_begins_anew_is_put_right_by_the_next_process_before_it_writes() {
    let system = System::embedding_in_process().await;
    // Its data was looked at before: what is found is found in a sample.
    system.ingest().await;
    put_behind(&system).await;
    restart(&system).await;
    let store = beginning(&system);
    let behind = store.numbers_behind().await.unwrap();
    assert_eq!(
        behind[0].to_string(),
        "the sequence cronvec.acceptance is at 0, but the data has 100001 already"
    );
    store.check_ready().await.unwrap();
    assert!(store.numbers_behind().await.unwrap().is_empty());
    let text = record("a", "the NEW text").to_string();
    let job = NewJob {
        project: PROJECT,
        records: &[text.as_bytes()],
        options: EnqueueOptions::default(),
    };
    assert!(store.enqueue(job).await.unwrap().job_id() > 100_001);
    let report = system.ingest().await;
    assert_eq!((report.records, report.skipped), (1, 0));
    assert_eq!(content(&system).await, "the NEW text");
}

#[tokio::test]
async fn a_sequence_that_begins_anew_under_a_process_is_put_right_by_its_next_tick_or_its_next_job() {
    let system = System::embedding_in_process().await;
    for by_tick in [true, false] {
        put_behind(&system).await;
        // Moves the mark on.
        system.ingest().await;
        let before = given(&system).await;
        restart(&system).await;
        if by_tick {
            system.ingest().await;
            assert!(given(&system).await > before);
        }
        let new = format!("the NEW text, {by_tick}");
        let id = system
            .enqueue(PROJECT, &[record("a", &new)], EnqueueOptions::default())
            .await;
        assert!(id > before, "{id} of {before}");
        assert_eq!(system.ingest().await.records, 1);
        assert_eq!(content(&system).await, new);
    }
}

#[tokio::test]
async fn a_copy_of_the_tables_into_another_database_is_looked_through_once() {
    let system = System::embedding_in_process().await;
    // As a logical replica has it: in the midst of many records some that no sample is sure to find, the mark of the
    // place where they come from, and a sequence that nobody has used.
    system
        .run_sql(
            "INSERT INTO cronvec.records (project_id, id, content, content_hash, bucket, accepted)
             SELECT 1, 'r' || n, repeat('text ', 200), 'x', 0, CASE WHEN n = 10000 THEN 70000 ELSE 1 END
             FROM generate_series(1, 20000) AS n;
             UPDATE cronvec.acceptance_mark SET last = 5, place = 'elsewhere';
             SELECT setval('cronvec.acceptance', 10)",
        )
        .await;
    system
        .vectorize_with(cronvec_call::CallOptions::default(), std::time::Instant::now())
        .await;
    assert!(given(&system).await > 70_000);
    let mark = "SELECT jsonb_build_array(m.last >= 70000, m.place = cronvec.place()) FROM cronvec.acceptance_mark m";
    assert_eq!(system.value(mark).await, json!([true, true]));
    // Now that it is known, no start reads all of them again.
    let before = given(&system).await;
    beginning(&system).check_ready().await.unwrap();
    assert_eq!(given(&system).await, before);
}

#[tokio::test]
async fn numbers_of_jobs_that_are_taken_are_not_given_again() {
    let system = System::embedding_in_process().await;
    let store = beginning(&system);
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(
            system
                .enqueue(PROJECT, &[record("a", &format!("text {n}"))], EnqueueOptions::default())
                .await,
        );
    }
    system
        .run_sql("UPDATE cronvec.acceptance_mark SET last = 0; ALTER SEQUENCE cronvec.acceptance RESTART WITH 1")
        .await;
    system
        .run_sql(&format!("SELECT setval('cronvec.acceptance', {}, false)", ids[0]))
        .await;
    let text = record("a", "the last").to_string();
    let job = NewJob {
        project: PROJECT,
        records: &[text.as_bytes()],
        options: EnqueueOptions::default(),
    };
    let id = store.enqueue(job).await.unwrap().job_id();
    assert!(id > ids[2], "{id} {ids:?}");
    system.ingest().await;
    assert_eq!(content(&system).await, "the last");
}

#[tokio::test]
async fn of_several_that_find_a_sequence_behind_one_moves_it() {
    let system = System::embedding_in_process().await;
    system.ingest().await;
    put_behind(&system).await;
    restart(&system).await;
    let (one, two) = (beginning(&system), beginning(&system));
    let (first, second) = tokio::join!(one.check_ready(), two.check_ready());
    first.unwrap();
    second.unwrap();
    assert_eq!(given(&system).await, 1_100_001);
}

#[tokio::test]
async fn a_record_that_is_written_while_they_are_looked_at_is_no_alarm() {
    let system = System::embedding_in_process().await;
    system.ingest().await;
    for place in ["cronvec.place()", "'elsewhere'"] {
        system
            .run_sql(&format!("UPDATE cronvec.acceptance_mark SET place = {place}"))
            .await;
        let writer = Transaction::begin(&system).await;
        writer.run("LOCK TABLE cronvec.records IN ACCESS EXCLUSIVE MODE").await;
        let (behind, ()) = tokio::join!(system.store.numbers_behind(), async {
            system.wait_blocked(1).await;
            writer.run("SELECT cronvec.put_record('articles', 'a', 'a text')").await;
            writer.commit().await;
        });
        assert_eq!(behind.unwrap(), [], "{place}");
    }
}

#[tokio::test]
async fn every_identity_column_of_the_schema_is_kept_ahead_of_its_rows() {
    let database = Database::fresh().await;
    let system = System::on(database, &[]).await;
    let of_schema =
        "SELECT array_agg(c.relname ORDER BY c.relname) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'cronvec'::regnamespace AND (a.attidentity <> '' OR pg_get_expr(
            (SELECT d.adbin FROM pg_attrdef d WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum), a.attrelid)
            LIKE 'nextval%\\_id\\_seq%')";
    let mut known = IDENTITIES.to_vec();
    known.sort_unstable();
    assert_eq!(system.value(of_schema).await, json!(known));

    system.ingest().await;
    system
        .run_sql(
            "INSERT INTO cronvec.audit_log (level, category, message) SELECT 'info', 'a test', '' FROM generate_series(1, 50);
             ALTER SEQUENCE cronvec.audit_log_id_seq RESTART WITH 1;
             ALTER SEQUENCE cronvec.projects_id_seq RESTART WITH 1",
        )
        .await;
    assert_eq!(beginning(&system).numbers_behind().await.unwrap().len(), 2);
    beginning(&system).check_ready().await.unwrap();
    system
        .run_sql("INSERT INTO cronvec.audit_log (level, category, message) VALUES ('info', 'a test', '')")
        .await;
    system.create_project("another").await;
}
