//! Attaching a table to a project that has records of another origin, or writers.

use std::sync::Arc;

use cronvec_store::StoreError;
use cronvec_store::enqueue::{EnqueueOptions, NewJob};
use cronvec_store::sources::NewSource;
use cronvec_tests::between::Transaction;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, record};
use serde_json::json;

use super::origins::{enqueue, job, mixed, preview};
use super::{articles, attach, create_articles, pass, reconcile, texts, waiting};

#[tokio::test]
async fn attaching_to_a_project_with_other_records_or_jobs_is_refused_until_a_person_has_seen_how_many_go() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    for id in ["1", "note-1", "note-2"] {
        system.put(PROJECT, id, "a note").await;
    }
    system.store.delete_record(PROJECT, "note-2").await.unwrap();
    let waits = enqueue(&system, &["late"]).await.unwrap();
    let error = attach(&system, &articles()).await.unwrap_err().to_string();
    assert!(
        error.contains("2 records and 1 unfinished INGEST_DATA jobs that don't come from public.articles")
            && error.contains("--take-over")
            && error.contains("--project"),
        "{error}"
    );
    let left = "SELECT (SELECT count(*) FROM cronvec.sources) + (SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]')";
    let found = preview(&system, &articles()).await;
    assert_eq!(system.count(left).await, 0, "neither leaves anything behind");
    assert_eq!((found.with_row, found.without_row, found.jobs), (1, 1, 1));

    // What comes in after it was counted was confirmed by nobody.
    let taking = NewSource {
        take_over: Some(found.before),
        ..articles()
    };
    system.put(PROJECT, "note-3", "a note").await;
    let error = attach(&system, &taking).await.unwrap_err().to_string();
    assert!(
        error.contains("1 records and 0 unfinished") && error.contains("run it again"),
        "{error}"
    );
    assert_eq!(texts(&system).await.as_object().unwrap().len(), 3);

    let taking = NewSource {
        take_over: Some(preview(&system, &articles()).await.before),
        ..articles()
    };
    let source = attach(&system, &taking).await.unwrap();
    assert_eq!(system.store.source(PROJECT).await.unwrap().deleted, 2);
    let own = json!({"1": "title 1\n\nbody 1", "2": "title 2\n\nbody 2", "3": "title 3\n\nbody 3"});
    assert_eq!(texts(&system).await, own);

    // The job fails, says why, and keeps its payload.
    system.ingest().await;
    let failed = job(&system, waits).await;
    assert_eq!(
        (&failed["status"], &failed["payload"]),
        (&json!("FAILED"), &json!(true)),
        "{failed}"
    );
    let said = failed["error"].as_str().unwrap();
    assert!(
        said.contains("public.articles") && said.contains("cronvec detach articles"),
        "{said}"
    );
    assert_eq!(texts(&system).await, own);
    system.store.detach(&source).await.unwrap();
    system.store.retry_job(waits).await.unwrap();
    system.ingest().await;
    assert_eq!(texts(&system).await["late"], "a note");
}

#[tokio::test]
async fn a_write_that_is_under_way_when_its_project_is_attached_is_counted() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 2).await;
    system.put(PROJECT, "was there", "a text").await;
    system.store.delete_record(PROJECT, "was there").await.unwrap();
    for id in ["new", "was there"] {
        let user = Transaction::begin(&system).await;
        user.run(&format!("SELECT cronvec.put_record('articles', '{id}', 'a note')"))
            .await;
        let attaching = async {
            let error = attach(&system, &articles()).await.unwrap_err().to_string();
            assert!(error.contains("1 records and 0 unfinished"), "{id}: {error}");
        };
        let committing = async {
            system.wait_blocked(1).await;
            user.commit().await;
        };
        tokio::join!(attaching, committing);
        system.store.delete_record(PROJECT, id).await.unwrap();
    }
    // One that stays open doesn't keep others waiting for long.
    let user = Transaction::begin(&system).await;
    user.run("SELECT cronvec.put_record('articles', 'open', 'a note')")
        .await;
    let error = attach(&system, &articles()).await.unwrap_err().to_string();
    assert!(
        error.contains("still open") && error.contains("try it again"),
        "{error}"
    );
}

#[tokio::test]
async fn writes_that_come_while_a_table_is_being_attached_wait_for_it_and_are_refused() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 2).await;
    // As `attach` does it; not ended before they wait.
    let attaching = Transaction::begin(&system).await;
    attaching
        .run(
            "SELECT FROM cronvec.projects FOR UPDATE;
             INSERT INTO cronvec.sources (project_id, relation, table_name, key_columns, text_sql)
             SELECT id, 'articles'::regclass, 'public.articles', ARRAY['id'], 'title' FROM cronvec.projects",
        )
        .await;
    let user = system.database.client().await;
    let put = tokio::spawn(async move {
        user.batch_execute("SELECT cronvec.put_record('articles', 'note', 'a note')")
            .await
    });
    let store = Arc::clone(&system.store);
    let job = tokio::spawn(async move {
        let text = record("note", "a note").to_string().into_bytes();
        let job = NewJob {
            project: PROJECT,
            records: &[&text],
            options: EnqueueOptions::default(),
        };
        store.enqueue(job).await
    });
    system.wait_blocked(2).await;
    attaching.commit().await;
    let (put, job) = (put.await.unwrap(), job.await.unwrap());
    let said = format!("{:?}", put.expect_err("it is refused"));
    assert!(said.contains("public.articles"), "{said}");
    assert!(
        matches!(&job, Err(StoreError::Conflict(said)) if said.contains("public.articles")),
        "{job:?}"
    );
    assert_eq!(texts(&system).await, json!({}));
}

#[tokio::test]
async fn a_table_that_is_attached_again_finds_its_records_and_another_must_take_them_over() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, 4).await;
    let first = attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    system.store.detach(&first).await.unwrap();
    system
        .run_sql("UPDATE articles SET title = 'changed' WHERE id = 1; CREATE TABLE public.others AS SELECT * FROM articles WHERE id < 3; ALTER TABLE others ADD PRIMARY KEY (id)")
        .await;
    let again = attach(&system, &articles()).await.unwrap();
    assert_eq!(again.id, first.id);
    assert_eq!(
        waiting(&system).await,
        json!(["1"]),
        "only what changed is embedded again"
    );
    system.vectorize().await;

    system.store.detach(&again).await.unwrap();
    system.put(PROJECT, "2", "of the API").await;
    let error = attach(&system, &articles()).await.unwrap_err().to_string();
    assert!(
        error.contains("1 records and 0 unfinished"),
        "what was written meanwhile isn't the table's: {error}"
    );
    let other = NewSource {
        table: "others",
        ..articles()
    };
    let error = attach(&system, &other).await.unwrap_err().to_string();
    assert!(error.contains("4 records and 0 unfinished"), "{error}");
    let found = preview(&system, &other).await;
    assert_eq!((found.with_row, found.without_row), (2, 2));
    let other = NewSource {
        take_over: Some(found.before),
        ..other
    };
    let second = attach(&system, &other).await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(
        texts(&system).await,
        json!({"1": "changed\n\nbody 1", "2": "title 2\n\nbody 2"})
    );
}

#[tokio::test]
async fn a_project_that_is_mixed_already_loses_nothing_and_is_told_of() {
    let system = System::embedding_in_process().await;
    let source = mixed(&system).await;
    system.vectorize().await;
    // The next comparison finds out which records are the table's, and buries none of the others.
    pass(&system, &source).await;
    reconcile(&system, &source).await;
    assert_eq!(texts(&system).await.as_object().unwrap().len(), 22);
    let origins = "SELECT jsonb_object_agg(id, source_id) FROM cronvec.records WHERE id IN ('1', 'note-1')";
    assert_eq!(system.value(origins).await, json!({"1": source.id, "note-1": null}));

    let source = system.store.source(PROJECT).await.unwrap();
    let faults = system.store.source_faults(&source).await.unwrap();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        !faults[0].fails
            && faults[0]
                .found
                .starts_with("2 records of project articles don't come from public.articles"),
        "{faults:?}"
    );
    let facts = system.store.record_facts(PROJECT, "note-1").await.unwrap();
    assert!(facts.is_stranger && facts.table.as_deref() == Some("public.articles"));
    assert!(!system.store.record_facts(PROJECT, "1").await.unwrap().is_stranger);

    // One is deleted by itself, the other by a comparison that was told to.
    assert!(system.store.delete_record(PROJECT, "note-2").await.unwrap());
    let found = system.store.preview_take_over_of(&source).await.unwrap();
    assert_eq!((found.with_row, found.without_row, found.jobs), (0, 1, 0));
    system.store.take_over(source.id, found.before).await.unwrap();
    reconcile(&system, &source).await;
    assert_eq!(texts(&system).await.as_object().unwrap().len(), 20);
    assert_eq!(system.store.source_faults(&source).await.unwrap(), []);
}
