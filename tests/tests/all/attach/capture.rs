//! What triggers note: odd rows, large statements, rows that others hold, vectors that somebody else writes.

use cronvec_store::sources::NewSource;
use cronvec_tests::between::Transaction;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{MOST_BYTES, articles, attach, create_articles, pass, reconcile, texts, waiting};

/// Why rows are no records, or can't be read.
const QUARANTINED: &str =
    "SELECT coalesce(jsonb_object_agg(record_id, reason), '{}') FROM cronvec.quarantine WHERE project = 'articles'";

#[tokio::test]
async fn one_row_whose_expression_raises_costs_itself_alone() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    let new = NewSource {
        text: "title || (10 / (views - 5))",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    system
        .run_sql("INSERT INTO articles VALUES (4, 'title 4', NULL, 6), (5, 'title 5', NULL, 5)")
        .await;
    let inserted = texts(&system).await;
    assert_eq!((&inserted["4"], inserted.get("5")), (&json!("title 410"), None));
    system.run_sql("UPDATE articles SET views = id + 3").await;
    // The others are records at once; those that raise are named.
    assert_eq!(
        texts(&system).await,
        json!({"1": "title 1-10", "2": "title 2-2", "3": "title 310", "4": "title 45", "5": "title 53"})
    );
    system.vectorize().await;
    assert_eq!(system.value(QUARANTINED).await, json!({"2": "unreadable"}));
    let said = "SELECT to_jsonb(message) FROM cronvec.quarantine";
    assert!(system.value(said).await.as_str().unwrap().contains("division by zero"));
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.quarantined), (5, 1));
    let after = reconcile(&system, &source).await;
    assert_eq!((after.trouble, after.changed), (None, 0));
    system.run_sql("UPDATE articles SET views = 6 WHERE id = 2").await;
    assert_eq!(system.value(QUARANTINED).await, json!({}));
    assert_eq!(texts(&system).await["2"], "title 210");
}

#[tokio::test]
async fn an_expression_that_fails_for_every_row_is_the_tables_trouble_and_keeps_no_tick_from_embedding() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    system
        .run_sql(
            "CREATE FUNCTION public.shown(t text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN public.other(t); END';
                  CREATE FUNCTION public.other(t text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
        )
        .await;
    let new = NewSource {
        text: "public.shown(title)",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    system.run_sql("DROP FUNCTION public.other(text)").await;
    system.run_sql("UPDATE articles SET title = title || '!'").await;
    assert_eq!(system.vectorize().await.records, 3);
    let told = system.store.source(PROJECT).await.unwrap().trouble.unwrap();
    assert!(told.contains("public.other"), "{told}");
    assert_eq!(system.value(QUARANTINED).await, json!({}));
    let checks = cronvec_checks::queue(&system.store, &cronvec_nouns::token::Reach::ALL)
        .await
        .unwrap();
    let tables = checks.iter().find(|check| check.check == "attached tables").unwrap();
    assert_eq!(tables.status, cronvec_checks::Verdict::Fail);

    system
        .run_sql("CREATE FUNCTION public.other(t text) RETURNS text LANGUAGE sql AS 'SELECT $1'")
        .await;
    assert_eq!(reconcile(&system, &source).await.trouble, None);
    system.vectorize().await;
    assert_eq!(texts(&system).await["1"], "title 1!");
}

#[tokio::test]
async fn keys_that_can_be_no_ids_are_quarantined_and_keep_no_other_row_from_being_a_record() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "CREATE TABLE public.pages (url text PRIMARY KEY, body text);
             INSERT INTO pages SELECT 'u' || n, 'body ' || n FROM generate_series(1, 5) AS n;
             INSERT INTO pages VALUES ('', 'empty'), (repeat('a', 1001), 'long')",
        )
        .await;
    let new = NewSource {
        table: "pages",
        text: "body",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    let quarantined = "SELECT coalesce(jsonb_agg(reason), '[]') FROM cronvec.quarantine";
    assert_eq!(system.value(quarantined).await, json!(["no_id", "no_id"]));
    system
        .run_sql("INSERT INTO pages VALUES ('late', 'late'), (repeat('b', 2000), 'long, too')")
        .await;
    assert_eq!(system.vectorize().await.records, 6);
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.quarantined), (9, 6, 3));
    assert_eq!(reconcile(&system, &source).await.changed, 0);
    system
        .run_sql("DELETE FROM pages WHERE length(url) > 1000 OR url = ''")
        .await;
    assert_eq!(system.value(quarantined).await, json!([]));
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded, coverage.quarantined), (6, 6, 0));
}

#[tokio::test]
async fn keys_that_are_equal_and_of_another_text_are_one_record_and_dates_are_keys() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "CREATE TABLE public.measured (at timestamptz, value numeric, body text, PRIMARY KEY (at, value));
             INSERT INTO measured VALUES ('2026-01-02 03:04:05.678+05', 1.50, 'a'), ('infinity', 'NaN', 'b'), ('2026-03-01', -2, 'c')",
        )
        .await;
    let new = NewSource {
        table: "measured",
        text: "body",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    let ids = json!({
        "[\"2026-01-01 22:04:05.678+00\", \"1.5\"]": "a", "[\"infinity\", \"NaN\"]": "b",
        "[\"2026-03-01 00:00:00+00\", \"-2\"]": "c"
    });
    assert_eq!(texts(&system).await, ids);
    system.vectorize().await;
    assert_eq!(waiting(&system).await, json!([]));
    system
        .run_sql("SET timezone = 'Asia/Tokyo'; UPDATE measured SET value = 1.500 WHERE body = 'a'")
        .await;
    let after = reconcile(&system, &source).await;
    assert_eq!((after.changed, after.deleted), (0, 0));
    assert_eq!(texts(&system).await, ids);
    assert_eq!(waiting(&system).await, json!([]), "no text is another");
}

#[tokio::test]
async fn a_large_statement_names_its_rows_and_rows_that_it_deleted_are_found_by_nobody() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3_000).await;
    let source = attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 3_000);
    system.run_sql("UPDATE articles SET views = views + 1").await;
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.source_notes").await,
        0,
        "no text is another"
    );

    system.run_sql("DELETE FROM articles WHERE id > 100").await;
    let live = "SELECT count(*) FROM cronvec.records WHERE content IS NOT NULL";
    assert_eq!(system.count(live).await, 3_000, "deleting them is left to a tick");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 100);
    let found =
        "SELECT count(*) FROM cronvec.search('articles', (SELECT embedding FROM cronvec.embeddings LIMIT 1), 10000)";
    assert_eq!(system.count(found).await, 100);
    assert!(system.store.record(PROJECT, "3000").await.unwrap().is_none());
    assert!(system.store.record(PROJECT, "100").await.unwrap().is_some());
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded), (100, 100));

    // Some come back before the tick, one by one and many at once.
    system
        .run_sql(
            "INSERT INTO articles VALUES (3000, 'title 3000', 'body 3000');
             INSERT INTO articles SELECT n, 'title ' || n, 'body ' || n FROM generate_series(200, 2500) AS n",
        )
        .await;
    assert!(system.store.record(PROJECT, "3000").await.unwrap().is_some());
    assert!(system.store.record(PROJECT, "2500").await.unwrap().is_some());
    system.vectorize().await;
    let rows = system.count("SELECT count(*) FROM articles").await;
    assert_eq!((system.count(live).await, rows), (2_402, 2_402));
    assert_eq!(system.count("SELECT count(*) FROM cronvec.source_gone").await, 0);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.source_notes").await, 0);
    assert_eq!(reconcile(&system, &source).await.changed, 0);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 2_402);
}

#[tokio::test]
async fn a_statement_with_many_bytes_names_its_rows_and_a_page_has_no_more_than_some() {
    let system = System::embedding_in_process().await;
    system
        .run_sql("CREATE TABLE public.docs (id int PRIMARY KEY, body text)")
        .await;
    let new = NewSource {
        table: "docs",
        text: "body",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    // 60 of 600 kB: more than a page has; one of them alone is more than a text may have.
    system
        .run_sql(
            "INSERT INTO docs SELECT n, n || repeat(' word', 120000) FROM generate_series(1, 59) AS n
             UNION ALL SELECT 60, repeat('word ', 2200000)",
        )
        .await;
    let noted = "SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM cronvec.source_notes";
    assert_eq!(system.count(noted).await, 60);
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 0);
    let mut pages = 0;
    while system.store.take_note(source.id, MOST_BYTES).await.unwrap().is_some() {
        pages += 1;
    }
    assert!((3..10).contains(&pages), "{pages}");
    assert_eq!(system.count("SELECT count(*) FROM cronvec.records").await, 59);
    let told = system
        .value("SELECT jsonb_object_agg(record_id, reason) FROM cronvec.quarantine")
        .await;
    assert_eq!(told, json!({"60": "too_large"}));
    assert_eq!(reconcile(&system, &source).await.changed, 0);
}

#[tokio::test]
async fn no_statement_becomes_a_subtransaction_and_a_held_record_makes_nobody_wait() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 200).await;
    attach(&system, &articles()).await.unwrap();
    let user = Transaction::begin(&system).await;
    for n in 1..=200 {
        user.run(&format!("UPDATE articles SET title = 'new {n}' WHERE id = {n}"))
            .await;
    }
    let counted = "SELECT coalesce(sum(s.subxact_count), 0)::bigint FROM pg_stat_get_backend_idset() b, pg_stat_get_backend_subxact(b) s
        WHERE pg_stat_get_backend_dbid(b) = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(system.count(counted).await, 0);
    user.run("SAVEPOINT one; UPDATE articles SET views = 1 WHERE id = 1")
        .await;
    assert_eq!(system.count(counted).await, 1, "a subtransaction would be seen");
    user.commit().await;

    let holder = Transaction::begin(&system).await;
    holder
        .run("SELECT FROM cronvec.records WHERE id IN ('1', '2') FOR NO KEY UPDATE")
        .await;
    system
        .run_sql("SET statement_timeout = '20s'; UPDATE articles SET title = 'while held' WHERE id < 4; DELETE FROM articles WHERE id = 2")
        .await;
    assert_eq!(texts(&system).await["3"], "while held\n\nbody 3");
    assert!(
        system.store.record(PROJECT, "2").await.unwrap().is_none(),
        "it is noted as gone"
    );
    holder.commit().await;
    system.vectorize().await;
    assert_eq!(texts(&system).await["1"], "while held\n\nbody 1");
    assert_eq!(texts(&system).await.get("2"), None);
}

#[tokio::test]
async fn a_transaction_of_any_isolation_level_and_any_settings_is_noticed_and_fails_by_none_of_ours() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    let source = attach(&system, &articles()).await.unwrap();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let user = Transaction::begin(&system).await;
        user.run(&format!(
            "ROLLBACK; BEGIN ISOLATION LEVEL {level}; SELECT FROM articles"
        ))
        .await;
        // Its record is written meanwhile.
        system.run_sql("UPDATE cronvec.records SET updated_at = now()").await;
        user.run(&format!(
            "UPDATE articles SET title = '{level}' WHERE id = 1; DELETE FROM articles WHERE id = 2"
        ))
        .await;
        user.commit().await;
        system.vectorize().await;
        assert_eq!(texts(&system).await["1"], format!("{level}\n\nbody 1"));
        assert_eq!(texts(&system).await.get("2"), None);
        system.run_sql("INSERT INTO articles VALUES (2, 'back')").await;
    }
    for settings in [
        "search_path = pg_temp",
        "cronvec.capture = 'off'",
        "lock_timeout = '1ms'",
        "work_mem = '64kB'",
        "quote_all_identifiers = on",
        "transform_null_equals = on",
        "row_security = off",
        "enable_indexscan = off",
    ] {
        system
            .run_sql(&format!(
                "BEGIN; SET LOCAL {settings}; UPDATE public.articles SET title = $${settings}$$ WHERE id = 3; COMMIT"
            ))
            .await;
        assert_eq!(texts(&system).await["3"], format!("{settings}\n\nbody 3"));
    }
    assert_eq!(reconcile(&system, &source).await.changed, 0);
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_trigger WHERE tgname ~ '^cronvec_' AND tgqual IS NOT NULL")
            .await,
        0,
        "nothing in a session decides whether a trigger runs"
    );
}

#[tokio::test]
async fn a_vector_that_somebody_else_writes_into_the_column_is_set_right() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    for forgets in [false, true] {
        system
            .run_sql(
                "DROP TABLE IF EXISTS public.articles, loaded;
                 CREATE TABLE public.articles (id int PRIMARY KEY, title text NOT NULL, body text, views int NOT NULL DEFAULT 0, v vector(8));
                 INSERT INTO articles SELECT n, 'title ' || n FROM generate_series(1, 4) AS n",
            )
            .await;
        let new = NewSource {
            embedding_column: Some("v"),
            forgets,
            ..articles()
        };
        let source = attach(&system, &new).await.unwrap();
        system.vectorize().await;
        let right = "SELECT count(*) FROM articles a JOIN cronvec.embeddings e ON e.record_id = a.id::text AND e.embedding = a.v";
        assert_eq!(system.count(right).await, 4);
        assert_eq!(
            system.count("SELECT count(*) FROM cronvec.source_notes").await,
            0,
            "our own write is no note"
        );
        system
            .run_sql(
                "CREATE TABLE loaded AS SELECT * FROM articles;
                 UPDATE articles SET title = 'another' WHERE id = 1",
            )
            .await;
        system.vectorize().await;
        assert_eq!(system.count(right).await, 4);
        // A whole row is saved as it was read, text and vector; of another only the vector; one is emptied.
        system
            .run_sql(
                "UPDATE articles a SET views = 7, v = l.v FROM loaded l WHERE l.id = a.id AND a.id = 1;
                 UPDATE articles SET v = array_fill(1, ARRAY[8])::vector WHERE id = 2;
                 UPDATE articles SET v = NULL WHERE id = 3",
            )
            .await;
        let requests = provider.inputs();
        system.vectorize().await;
        // Who emptied a column that is emptied when its text changes can't be told: a comparison finds it.
        let at_once = if forgets { 3 } else { 4 };
        assert_eq!(system.count(right).await, at_once, "forgets: {forgets}");
        reconcile(&system, &source).await;
        assert_eq!(system.count(right).await, 4, "forgets: {forgets}");
        assert_eq!(provider.inputs(), requests, "no provider was asked");
        system.store.detach(&source).await.unwrap();
    }
}

#[tokio::test]
async fn a_page_that_takes_too_long_is_read_in_smaller_ones_and_told() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 30).await;
    system
        .run_sql(
            "CREATE TABLE public.slow (id int);
             CREATE FUNCTION public.slowly(id int, t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_sleep(600) FROM public.slow s WHERE s.id = slowly.id; RETURN t; END $$",
        )
        .await;
    let new = NewSource {
        text: "public.slowly(id, title)",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    system
        .run_sql("UPDATE cronvec.sources SET page_rows = 10; INSERT INTO slow VALUES (2)")
        .await;
    system.store.begin_pass(source.id, false).await.unwrap();
    // In place of its time limit.
    let canceller = system.database.client().await;
    let limit = tokio::spawn(async move {
        loop {
            canceller
                .batch_execute(
                    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event = 'PgSleep'",
                )
                .await
                .unwrap();
        }
    });
    let mut told = Vec::new();
    for _ in 0..20 {
        system.store.reconcile_slice(source.id, MOST_BYTES).await.unwrap();
        told.extend(system.store.source(PROJECT).await.unwrap().trouble);
        if system.value(QUARANTINED).await == json!({"2": "too_slow"}) {
            break;
        }
    }
    limit.abort();
    assert!(
        told[0].contains("10 of its rows took longer than 10 seconds; now 1 are read at a time"),
        "{told:?}"
    );
    assert_eq!(system.value(QUARANTINED).await, json!({"2": "too_slow"}));
    system.run_sql("DELETE FROM slow").await;
    pass(&system, &source).await;
    let after = reconcile(&system, &source).await;
    assert_eq!(after.trouble, None);
    assert_eq!(system.value(QUARANTINED).await, json!({}));
}
