//! Records that come from a table, and those that don't, in one project.

use std::time::Duration;

use cronvec_call::CallOptions;
use cronvec_nouns::job::{JobType, Progress};
use cronvec_nouns::record::Record;
use cronvec_nouns::token::Reach;
use cronvec_store::StoreError;
use cronvec_store::bodies::{Body, Part};
use cronvec_store::claim::ClaimWish;
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::ingest::{IngestBatch, IngestCursor, LONGEST_WAIT};
use cronvec_store::records::NewRecord;
use cronvec_store::sources::{NewSource, Source, TakeOver};
use cronvec_tests::between::Transaction;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, minute, record};
use serde_json::{Value, json};

use super::{articles, attach, create_articles, pass, reconcile, texts, waiting};

fn note(id: &str) -> NewRecord<'_> {
    NewRecord {
        project: PROJECT,
        id,
        content: "a note",
        metadata: "{}",
    }
}

/// With the error's SQLSTATE and hint, as a program sees them.
async fn refused_in_sql(system: &System, sql: &str) -> String {
    let error = system.sql.batch_execute(sql).await.expect_err(sql);
    let server = error.as_db_error().expect("the server's");
    format!(
        "{} {}. {}",
        server.code().code(),
        server.message(),
        server.hint().unwrap_or_default()
    )
}

pub(super) async fn enqueue(system: &System, ids: &[&str]) -> Result<i64, StoreError> {
    let records: Vec<Vec<u8>> = ids
        .iter()
        .map(|id| record(id, "a note").to_string().into_bytes())
        .collect();
    let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
    let job = NewJob {
        project: PROJECT,
        records: &records,
        options: EnqueueOptions::default(),
    };
    Ok(system.store.enqueue(job).await?.job_id())
}

pub(super) async fn preview(system: &System, new: &NewSource<'_>) -> TakeOver {
    let project = system.store.project(PROJECT).await.unwrap();
    let space = &system.settings.embedding.new_space;
    system.store.preview_take_over(new, &project, space).await.unwrap()
}

pub(super) async fn job(system: &System, id: i64) -> Value {
    system
        .value(&format!(
            "SELECT jsonb_build_object('status', status, 'error', result->>'error', 'payload', payload IS NOT NULL, 'attempts', attempts)
             FROM cronvec.job_queue WHERE id = {id}"
        ))
        .await
}

/// A project that was fed by a table and from elsewhere before that was refused: what an upgrade finds.
pub(super) async fn mixed(system: &System) -> Source {
    create_articles(system, 20).await;
    let source = attach(system, &articles()).await.unwrap();
    system
        .run_sql(
            "INSERT INTO cronvec.records (project_id, id, content, content_hash, bucket, accepted)
                 SELECT p.id, i.id, 'a note', cronvec.content_hash('a note'), cronvec.bucket(i.id), nextval('cronvec.acceptance')
                 FROM cronvec.projects p, unnest(ARRAY['note-1', 'note-2']) AS i (id);
             SELECT cronvec.mark(id, ARRAY['note-1', 'note-2']) FROM cronvec.projects;
             UPDATE cronvec.records SET source_id = NULL;
             UPDATE cronvec.sources SET origins_known = false, phase = 'rows', place = NULL",
        )
        .await;
    source
}

#[tokio::test]
async fn while_a_table_feeds_a_project_every_other_write_to_it_is_refused_with_what_to_do() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 2).await;
    // Opened before, and never closed.
    let open = system
        .store
        .open_job(PROJECT, EnqueueOptions::default())
        .await
        .unwrap()
        .job_id();
    let taking = NewSource {
        take_over: Some(preview(&system, &articles()).await.before),
        ..articles()
    };
    let source = attach(&system, &taking).await.unwrap();
    let before = texts(&system).await;

    let table = "the records of project \"articles\" come from the table public.articles";
    let todo = "Write to the table instead, or use another project, or first run: cronvec detach articles";
    for sql in [
        "SELECT cronvec.put_record('articles', 'note', 'a note')",
        "SELECT cronvec.put_record('articles', '1', 'another text')",
    ] {
        assert_eq!(refused_in_sql(&system, sql).await, format!("55000 {table}. {todo}"));
    }
    let delete = refused_in_sql(&system, "SELECT cronvec.delete_record('articles', '1')").await;
    assert!(
        delete.starts_with("55000 record \"1\" of project \"articles\" comes from the table public.articles")
            && delete.contains("Delete its row instead"),
        "{delete}"
    );
    let (parts, body) = tokio::sync::mpsc::channel(2);
    let whole = Body {
        hash: vec![1],
        lines: 1,
        records: 1,
    };
    let piece = Part::Piece {
        lines: vec![1],
        records: vec![record("note", "a note").to_string().into_bytes()],
    };
    parts.send(piece).await.unwrap();
    parts.send(Part::End(whole)).await.unwrap();
    system.store.put_body(open, 1, body).await.unwrap();
    let conflicts = [
        system.store.put_record(&note("note"), None).await.err(),
        system.store.delete_record(PROJECT, "1").await.err(),
        enqueue(&system, &["note"]).await.err(),
        system.store.open_job(PROJECT, EnqueueOptions::default()).await.err(),
        system.store.close_job(open, 1).await.err(),
    ];
    for conflict in conflicts {
        match conflict {
            Some(StoreError::Conflict(said)) => assert!(
                said.contains("public.articles") && said.contains("cronvec detach articles"),
                "{said}"
            ),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(texts(&system).await, before);
    assert!(!system.store.delete_record(PROJECT, "of nobody").await.unwrap());

    system.store.detach(&source).await.unwrap();
    assert!(system.store.put_record(&note("note"), None).await.unwrap().is_new);
    assert!(system.store.delete_record(PROJECT, "1").await.unwrap());
    enqueue(&system, &["another"]).await.unwrap();
    system.store.close_job(open, 1).await.unwrap();
    system.ingest().await;
    assert_eq!(
        texts(&system).await,
        json!({"2": "title 2\n\nbody 2", "note": "a note", "another": "a note"})
    );
}

#[tokio::test]
async fn a_job_in_flight_stores_nothing_any_more_once_a_table_feeds_its_project() {
    let system = System::with(&[("INGEST_BATCH_SIZE", "1")]).await;
    create_articles(&system, 2).await;
    let id = enqueue(&system, &["note-1", "note-2"]).await.unwrap();
    let options = CallOptions {
        max_records: Some(1),
        ..CallOptions::default()
    };
    system.ingestion().run(options, minute()).await.unwrap();
    assert_eq!(texts(&system).await, json!({"note-1": "a note"}));
    // A worker holds it, and is about to store the rest.
    let wish = ClaimWish {
        job_type: JobType::IngestData,
        spaces: &[],
        limit: 1,
        lease: Duration::from_secs(60),
        worker: "a worker",
        project_id: None,
    };
    let held = system.store.claim_jobs(&wish).await.unwrap().remove(0);
    let found = preview(&system, &articles()).await;
    assert_eq!((found.with_row, found.without_row, found.jobs), (0, 1, 1));
    let new = NewSource {
        take_over: Some(found.before),
        ..articles()
    };
    attach(&system, &new).await.unwrap();
    let note = Record {
        id: "note-2".into(),
        content: "a note".into(),
        metadata: "{}".into(),
    };
    let batch = IngestBatch {
        records: &[(2, &note)],
        rejections: &[],
        embed: true,
        priority: 0,
    };
    let stored = system
        .store
        .ingest_batch(&held, &batch, Duration::from_secs(60), LONGEST_WAIT, |_| {
            (IngestCursor::default(), Progress::default())
        })
        .await;
    assert!(matches!(stored, Err(StoreError::Conflict(_))), "{stored:?}");
    // Whoever finds it next fails it.
    system.expire_leases().await;
    system.ingest().await;
    let failed = job(&system, id).await;
    assert_eq!(
        (&failed["status"], &failed["attempts"]),
        (&json!("FAILED"), &json!(1)),
        "{failed}"
    );
    let own = json!({"1": "title 1\n\nbody 1", "2": "title 2\n\nbody 2"});
    assert_eq!(texts(&system).await, own);
}

#[tokio::test]
async fn a_row_that_is_no_record_says_nothing_about_a_record_of_another_origin() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    system
        .run_sql(
            "UPDATE articles SET views = 100 WHERE id = 1; UPDATE articles SET title = ' ', body = NULL WHERE id = 2",
        )
        .await;
    let new = NewSource {
        filter: Some("views < 10"),
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    let insert = |id: &str| {
        format!(
            "DELETE FROM cronvec.records WHERE id = '{id}';
             INSERT INTO cronvec.records (project_id, id, content, content_hash, bucket, accepted)
             SELECT id, '{id}', 'a note', cronvec.content_hash('a note'), 1, nextval('cronvec.acceptance') FROM cronvec.projects;"
        )
    };
    system.run_sql(&format!("{}{}", insert("1"), insert("2"))).await;
    reconcile(&system, &source).await;
    let all = json!({"1": "a note", "2": "a note", "3": "title 3\n\nbody 3"});
    assert_eq!(texts(&system).await, all);
    // Nor does what happens to such a row.
    system.run_sql("DELETE FROM articles WHERE id = 1").await;
    assert_eq!(texts(&system).await, all);
    // One that becomes a record is.
    system.run_sql("UPDATE articles SET title = 'now' WHERE id = 2").await;
    assert_eq!(texts(&system).await["2"], "now");
    system.run_sql("DELETE FROM articles WHERE id = 2").await;
    assert_eq!(texts(&system).await, json!({"1": "a note", "3": "title 3\n\nbody 3"}));
}

#[tokio::test]
async fn coverage_counts_rows_and_records_of_other_origins_and_never_passes_a_hundred_percent() {
    let system = System::embedding_in_process().await;
    let source = mixed(&system).await;
    system.vectorize().await;
    let coverage = async || {
        let c = system.store.coverage(PROJECT).await.unwrap();
        (c.total, c.embedded, c.percent.to_string())
    };
    assert_eq!(coverage().await, (22, 22, "100".into()), "before origins are known");
    pass(&system, &source).await;
    assert_eq!(coverage().await, (22, 22, "100".into()));
    // Rows that went unnoticed: their records are found by the next comparison.
    system
        .run_sql("ALTER TABLE articles DISABLE TRIGGER USER; DELETE FROM articles WHERE id > 10")
        .await;
    assert_eq!(coverage().await, (12, 12, "100".into()));
    let counted = system.store.counted_coverage(&Reach::ALL).await.unwrap();
    assert_eq!((counted[0].coverage.total, counted[0].coverage.embedded), (12, 12));
}

#[tokio::test]
async fn whether_a_text_is_new_is_decided_under_its_records_lock() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, 1).await;
    attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    // A puts the text that is there, B another one that is embedded before A's statement goes on: as a snapshot from the
    // beginning would have it, A changes nothing.
    let put =
        |title: &str| format!("SELECT cronvec.put_records(1, ARRAY['1'], ARRAY['{title}'], ARRAY['{{}}'::jsonb])");
    let other = Transaction::begin(&system).await;
    other.run(&put("another text")).await;
    let first = system.database.client().await;
    let statement = put("title 1\n\nbody 1");
    let waiting_one = tokio::spawn(async move { first.batch_execute(&statement).await });
    system.wait_blocked(1).await;
    other
        .run("DELETE FROM cronvec.pending; UPDATE cronvec.embedded SET content_hash = cronvec.content_hash('another text')")
        .await;
    other.commit().await;
    waiting_one.await.unwrap().unwrap();
    assert_eq!(waiting(&system).await, json!(["1"]), "its text isn't the embedded one");

    // The same of deletes.
    system
        .run_sql("DELETE FROM cronvec.pending; SELECT cronvec.delete_records(1, '{1}'); DELETE FROM cronvec.pending")
        .await;
    let other = Transaction::begin(&system).await;
    other.run(&put("back again")).await;
    let first = system.database.client().await;
    let deleting = tokio::spawn(async move { first.batch_execute("SELECT cronvec.delete_records(1, '{1}')").await });
    system.wait_blocked(1).await;
    other.run("DELETE FROM cronvec.pending").await;
    other.commit().await;
    deleting.await.unwrap().unwrap();
    assert_eq!(
        waiting(&system).await,
        json!(["1"]),
        "what is embedded of it is to be purged"
    );
}
