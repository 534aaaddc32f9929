//! What happens to a row happens to its record.

use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{articles, attach, create_articles, texts, waiting};

#[tokio::test]
async fn what_is_there_and_what_comes_is_embedded_and_only_what_has_another_text_is_embedded_again() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, 3).await;
    attach(&system, &articles()).await.unwrap();
    assert_eq!(
        texts(&system).await,
        json!({"1": "title 1\n\nbody 1", "2": "title 2\n\nbody 2", "3": "title 3\n\nbody 3"})
    );
    assert_eq!(system.vectorize().await.records, 3);
    system.assert_all_embedded_by_fake(PROJECT, 8).await;

    system
        .run_sql(
            "INSERT INTO articles VALUES (4, 'title 4', NULL), (5, 'title 5', '');
             UPDATE articles SET views = views + 1;
             UPDATE articles SET title = 'another' WHERE id = 1;
             UPDATE articles SET id = 20 WHERE id = 2;
             DELETE FROM articles WHERE id = 3",
        )
        .await;
    assert_eq!(waiting(&system).await, json!(["1", "2", "20", "3", "4", "5"]));
    let report = system.vectorize().await;
    assert_eq!((report.records, report.purged), (4, 2));
    assert_eq!(
        texts(&system).await,
        json!({"1": "another\n\nbody 1", "20": "title 2\n\nbody 2", "4": "title 4", "5": "title 5"})
    );
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded), (4, 4));

    system.run_sql("UPDATE articles SET views = 0, body = body").await;
    assert_eq!(waiting(&system).await, json!([]), "no text is another");
}

#[tokio::test]
async fn a_change_counts_from_its_commit_and_not_at_all_if_it_is_rolled_back() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 2).await;
    attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    system
        .run_sql("BEGIN; UPDATE articles SET title = 'never'; DELETE FROM articles WHERE id = 1; ROLLBACK")
        .await;
    assert_eq!(waiting(&system).await, json!([]));
    assert_eq!(texts(&system).await["1"], "title 1\n\nbody 1");
}

#[tokio::test]
async fn a_truncate_takes_all_records_and_not_those_that_come_after_it() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 30).await;
    attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    system
        .run_sql("TRUNCATE articles; INSERT INTO articles VALUES (7, 'after it', NULL), (99, 'after it', NULL)")
        .await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.purged), (2, 29));
    assert_eq!(texts(&system).await, json!({"7": "after it", "99": "after it"}));
}

#[tokio::test]
async fn rows_outside_where_and_rows_without_text_are_no_records_until_they_become_such() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 4).await;
    let new = cronvec_store::sources::NewSource {
        filter: Some("views < 10"),
        metadata: Some("views, title"),
        ..articles()
    };
    system
        .run_sql(
            "UPDATE articles SET views = 10 WHERE id = 1; UPDATE articles SET title = ' ', body = NULL WHERE id = 2",
        )
        .await;
    attach(&system, &new).await.unwrap();
    system.vectorize().await;
    let coverage = async || {
        let c = system.store.coverage(PROJECT).await.unwrap();
        (c.total, c.embedded, c.pending, c.quarantined)
    };
    assert_eq!(coverage().await, (3, 2, 0, 1), "2 has no text");
    let reason = "SELECT reason || ' ' || record_id FROM cronvec.quarantine";
    assert_eq!(system.value(reason).await, "no_text 2");
    assert_eq!(
        system
            .value("SELECT metadata FROM cronvec.records WHERE id = '3'")
            .await,
        json!({"views": 0, "title": "title 3"})
    );

    system
        .run_sql("UPDATE articles SET views = 10 - views WHERE id IN (1, 3); UPDATE articles SET title = 'water' WHERE id = 2")
        .await;
    system.vectorize().await;
    assert_eq!(coverage().await, (3, 3, 0, 0));
    assert_eq!(
        texts(&system).await,
        json!({"1": "title 1\n\nbody 1", "2": "water", "4": "title 4\n\nbody 4"})
    );
    system.run_sql("UPDATE articles SET views = 3 WHERE id = 4").await;
    assert_eq!(waiting(&system).await, json!([]), "metadata isn't embedded");
    assert_eq!(
        system
            .value("SELECT metadata->'views' FROM cronvec.records WHERE id = '4'")
            .await,
        3
    );
}

#[tokio::test]
async fn detaching_leaves_the_table_as_it_was_found_and_the_records_where_they_are() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    let shape = "SELECT jsonb_build_object(
            'columns', (SELECT jsonb_agg(to_jsonb(a) - 'attcacheoff') FROM pg_attribute a WHERE attrelid = 'articles'::regclass),
            'triggers', (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'articles'::regclass),
            'rights', (SELECT relacl::text FROM pg_class WHERE oid = 'articles'::regclass),
            'rows', (SELECT jsonb_agg(to_jsonb(a) || jsonb_build_object('xmin', xmin::text) ORDER BY id) FROM articles a))";
    let before = system.value(shape).await;
    let source = attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    assert_ne!(system.value(shape).await, before);
    system.store.detach(&source).await.unwrap();
    assert_eq!(system.value(shape).await, before);
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_proc WHERE proname ~ '^source_[0-9]'")
            .await,
        0
    );
    system.run_sql("UPDATE articles SET title = 'another'").await;
    assert_eq!(waiting(&system).await, json!([]));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 3);

    // Attached again, nothing is paid for twice but what has changed.
    attach(&system, &articles()).await.unwrap();
    assert_eq!(waiting(&system).await, json!(["1", "2", "3"]));
}

#[tokio::test]
async fn uninstalling_lets_attached_tables_go() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    attach(&system, &articles()).await.unwrap();
    cronvec_store::migrate::uninstall(&system.sql).await.unwrap();
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'articles'::regclass")
            .await,
        0
    );
    system.run_sql("UPDATE articles SET title = 'another'").await;
}

#[tokio::test]
async fn rows_that_one_large_statement_has_changed_are_named_at_once_and_read_by_the_next_tick() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, 2_100).await;
    attach(&system, &articles()).await.unwrap();
    assert_eq!(system.vectorize().await.records, 2_100);
    system
        .run_sql(
            "UPDATE articles SET title = 'changed ' || id;
             UPDATE articles SET title = 'and again' WHERE id = 1;
             DELETE FROM articles WHERE id = 2;
             INSERT INTO articles SELECT n, 'many ' || n FROM generate_series(3001, 5100) AS n",
        )
        .await;
    assert_eq!(
        waiting(&system).await,
        json!(["1", "2"]),
        "what is small is written at once"
    );
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!(
        (coverage.total, coverage.embedded, coverage.pending),
        (4_199, 0, 4_199),
        "what is named waits, too"
    );
    let report = system.vectorize().await;
    assert_eq!((report.records, report.purged), (4_199, 1));
    assert_eq!(texts(&system).await["1"], "and again\n\nbody 1");
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.source_notes").await, 0);
}

#[tokio::test]
async fn a_thousand_updates_of_one_row_at_once_end_in_one_vector_of_the_last_text() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    create_articles(&system, 1).await;
    attach(&system, &articles()).await.unwrap();
    let rounds = if cronvec_tests::full_size() { 50 } else { 10 };
    let mut users = tokio::task::JoinSet::new();
    for user in 0..20 {
        let client = system.database.client().await;
        users.spawn(async move {
            for n in 0..rounds {
                let sql = format!("UPDATE articles SET body = 'of {user}, {n}' WHERE id = 1");
                client.batch_execute(&sql).await.unwrap();
            }
        });
    }
    let ticks = async {
        for _ in 0..5 {
            system.vectorize().await;
        }
    };
    tokio::join!(users.join_all(), ticks);
    // A tick that met the row in somebody's hands has put it off.
    system.run_sql("UPDATE cronvec.pending SET not_before = now()").await;
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.chunks").await, 1);
    assert_eq!(
        system
            .value("SELECT r.content = a.title || E'\\n\\n' || a.body FROM cronvec.records r, articles a")
            .await,
        true
    );
}
