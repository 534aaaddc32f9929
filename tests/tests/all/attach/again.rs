//! A table that is attached is attached again: nothing happens, or what is said otherwise, or was lost, is made anew.

use cronvec_call::CallOptions;
use cronvec_store::sources::{Changes, NewSource, Source};
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System, minute};
use serde_json::json;

use super::{articles, attach, create_articles, pass, texts, waiting};

const WIDTH: u16 = 16;

async fn changes(system: &System, new: &NewSource<'_>, source: &Source) -> Changes {
    let project = system.store.project(PROJECT).await.unwrap();
    let space = &system.settings.embedding.new_space;
    system.store.changes(new, &project, space, source).await.unwrap()
}

/// As the verb does it, and the comparison after it.
async fn again(system: &System, new: &NewSource<'_>, source: &Source) -> Source {
    let project = system.store.project(PROJECT).await.unwrap();
    let space = &system.settings.embedding.new_space;
    let found = changes(system, new, source).await;
    let allow_deletes = found.options.contains(&"--where");
    let altered = system
        .store
        .alter_source(new, &project, space, source, allow_deletes)
        .await
        .unwrap();
    let source = pass(system, &altered).await;
    assert!(changes(system, new, &source).await.is_empty(), "{new:?}");
    source
}

#[tokio::test]
async fn the_same_again_finds_nothing_to_do() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    system.run_sql("ALTER TABLE articles ADD COLUMN v vector(256)").await;
    let new = NewSource {
        metadata: Some("title"),
        filter: Some("views >= 0"),
        embedding_column: Some("v"),
        forgets: true,
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    assert_eq!(changes(&system, &new, &source).await, Changes::default());
    let found = system.store.attached_source("Articles", None).await.unwrap().unwrap();
    assert_eq!(found.project, PROJECT);
    // Vectors that were adopted are said again by the same command.
    let adopting = NewSource {
        adopt: Some("minilm-static-256"),
        ..new
    };
    assert!(changes(&system, &adopting, &source).await.is_empty());
}

#[tokio::test]
async fn another_text_embeds_only_the_rows_whose_text_is_another() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    create_articles(&system, 10).await;
    system.run_sql("UPDATE articles SET body = '' WHERE id > 4").await;
    let source = attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    let sent = provider.inputs();
    let short = NewSource {
        text: "title",
        metadata: Some("views"),
        ..articles()
    };
    let found = changes(&system, &short, &source).await;
    assert_eq!(found.options, ["--text", "--metadata"]);
    let source = again(&system, &short, &source).await;
    assert_eq!(waiting(&system).await, json!(["1", "2", "3", "4"]));
    system.vectorize().await;
    assert_eq!(provider.inputs() - sent, 4);
    let metadata = "SELECT count(*) FROM cronvec.records WHERE metadata = '{\"views\": 0}'";
    assert_eq!(system.count(metadata).await, 10);
    // From now on the triggers know the other text, too.
    system.run_sql("UPDATE articles SET body = 'of no matter'").await;
    assert_eq!(waiting(&system).await, json!([]));
    // Of more rows than a tenth it is said that they are none any more.
    let few = NewSource {
        filter: Some("id <= 2"),
        ..short
    };
    let source = again(&system, &few, &source).await;
    assert_eq!(source.trouble, None);
    assert_eq!(texts(&system).await, json!({"1": "title 1", "2": "title 2"}));
}

#[tokio::test]
async fn whatever_happened_to_the_table_attaching_again_makes_it_whole() {
    for (mishap, table) in [
        ("DROP FUNCTION cronvec.source_{id}_event CASCADE", "articles"),
        ("DROP FUNCTION cronvec.source_{id}_page", "articles"),
        ("DROP TRIGGER cronvec_{id}_update ON articles", "articles"),
        ("ALTER TABLE articles DISABLE TRIGGER USER", "articles"),
        ("ALTER TABLE articles RENAME TO pages", "pages"),
        (
            "CREATE SCHEMA shop; ALTER TABLE articles SET SCHEMA shop",
            "shop.articles",
        ),
        ("ALTER TABLE articles RENAME COLUMN id TO nr", "articles"),
        ("ALTER TABLE articles ALTER COLUMN id TYPE bigint", "articles"),
        ("ALTER TABLE articles ALTER COLUMN title TYPE varchar(50)", "articles"),
        (
            "CREATE TABLE public.fresh (LIKE articles INCLUDING ALL); INSERT INTO fresh SELECT * FROM articles;
             ALTER TABLE articles RENAME TO old; ALTER TABLE fresh RENAME TO articles",
            "articles",
        ),
    ] {
        let system = System::embedding_in_process().await;
        create_articles(&system, 3).await;
        let source = attach(&system, &articles()).await.unwrap();
        system.run_sql(&mishap.replace("{id}", &source.id.to_string())).await;
        let new = NewSource { table, ..articles() };
        let found = system.store.attached_source(table, None).await.unwrap();
        assert_eq!(found.map(|found| found.id), Some(source.id), "{mishap}");
        assert!(!changes(&system, &new, &source).await.is_empty(), "{mishap}");
        let source = again(&system, &new, &source).await;
        let faults = system.store.source_faults(&source).await.unwrap();
        assert!(faults.is_empty(), "{mishap}: {faults:?}");
        system
            .run_sql(&format!(
                "UPDATE {table} SET title = 'changed' WHERE title = 'title 1'; INSERT INTO {table} VALUES (4, 'title 4', '', 0);
                 DELETE FROM {table} WHERE title = 'title 2'"
            ))
            .await;
        let now = json!({"1": "changed\n\nbody 1", "3": "title 3\n\nbody 3", "4": "title 4"});
        assert_eq!(texts(&system).await, now, "{mishap}");
        if mishap.contains("old") {
            system.run_sql("DELETE FROM old; TRUNCATE old").await;
            assert_eq!(texts(&system).await, now, "the old half harms nothing");
        }
    }
}

#[tokio::test]
async fn another_key_is_refused_and_another_table_of_the_project_isnt_taken_for_this_one() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    system
        .run_sql(
            "ALTER TABLE articles ADD COLUMN other bigint GENERATED ALWAYS AS IDENTITY UNIQUE;
             CREATE TABLE public.pages (id int PRIMARY KEY, title text)",
        )
        .await;
    let source = attach(&system, &articles()).await.unwrap();
    let project = system.store.project(PROJECT).await.unwrap();
    let other = ["other".to_owned()];
    let new = NewSource {
        key: &other,
        ..articles()
    };
    let space = &system.settings.embedding.new_space;
    let refused = system.store.changes(&new, &project, space, &source).await.unwrap_err();
    assert!(refused.to_string().contains("can't be changed in place"), "{refused}");
    assert!(
        system
            .store
            .attached_source("pages", Some(PROJECT))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_row_that_leaves_and_returns_within_a_week_costs_no_request() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, WIDTH).await;
    create_articles(&system, 5).await;
    system
        .run_sql(
            "ALTER TABLE articles ADD COLUMN published bool NOT NULL DEFAULT true;
             UPDATE articles SET body = repeat('a long text of several chunks. ', 200) || id WHERE id = 1",
        )
        .await;
    let new = NewSource {
        filter: Some("published"),
        ..articles()
    };
    attach(&system, &new).await.unwrap();
    system.vectorize().await;
    let sent = provider.inputs();
    let shown = "SELECT md5(string_agg(record_id || ordinal || content || embedding, ' ' ORDER BY record_id, ordinal)) FROM cronvec.embeddings";
    let before = system.value(shown).await;
    let leave_and_return = async || {
        system
            .run_sql("UPDATE articles SET published = false WHERE id < 4")
            .await;
        system.vectorize().await;
        assert_eq!(
            system
                .count("SELECT count(DISTINCT record_id) FROM cronvec.embeddings")
                .await,
            2
        );
        assert_eq!(
            system
                .count("SELECT count(*) FROM cronvec.chunks WHERE record_id < '4'")
                .await,
            0,
            "no text of theirs is kept"
        );
        system.run_sql("UPDATE articles SET published = true").await;
    };
    leave_and_return().await;
    system.vectorize().await;
    assert_eq!(provider.inputs(), sent);
    assert_eq!(system.value(shown).await, before);
    // One that returns with another text is embedded; so are all after a week.
    leave_and_return().await;
    system
        .run_sql("UPDATE articles SET title = 'another' WHERE id = 2")
        .await;
    system.vectorize().await;
    assert_eq!(provider.inputs(), sent + 1);
    leave_and_return().await;
    system
        .run_sql("UPDATE cronvec.left_vectors SET left_at = left_at - interval '8 days'")
        .await;
    system.cleanup().run(CallOptions::default(), minute()).await.unwrap();
    let sent = provider.inputs();
    system.vectorize().await;
    let chunks = "SELECT count(DISTINCT chunk_hash) FROM cronvec.chunks WHERE record_id < '4'";
    let chunks = usize::try_from(system.count(chunks).await).unwrap();
    assert_eq!(provider.inputs(), sent + chunks);
}
