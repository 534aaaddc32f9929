//! Tables of all kinds: keys, names, partitions, schemas, expressions.

use cronvec_store::sources::NewSource;
use cronvec_tests::provider::Provider;
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::{articles, attach, reconcile, texts, waiting};

#[tokio::test]
async fn ids_are_keys_as_text_and_those_of_composite_keys_the_json_array_of_their_parts() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system
        .run_sql(
            "CREATE SCHEMA \"Shop\";
             CREATE TABLE \"Shop\".\"Order Items\" (
                 \"Order\" uuid NOT NULL, \"select\" int8 NOT NULL, code varchar(20) NOT NULL, \"The Text\" text, v vector(8),
                 PRIMARY KEY (\"Order\", \"select\", code));
             INSERT INTO \"Shop\".\"Order Items\" VALUES
                 ('00000000-0000-0000-0000-00000000000a', 9223372036854775807, 'a\"b', 'the first'),
                 ('00000000-0000-0000-0000-00000000000a', -9223372036854775808, '[1]', 'the second')",
        )
        .await;
    let new = NewSource {
        table: "Shop.Order Items",
        text: "The Text",
        embedding_column: Some("v"),
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    assert_eq!(source.table, "\"Shop\".\"Order Items\"");
    let id = |number: &str, code: &str| {
        json!(["00000000-0000-0000-0000-00000000000a", number, code])
            .to_string()
            .replace(",\"", ", \"")
    };
    let (first, second) = (id("9223372036854775807", "a\"b"), id("-9223372036854775808", "[1]"));
    assert_eq!(
        texts(&system).await,
        json!({first.clone(): "the first", second.clone(): "the second"})
    );
    system
        .run_sql("UPDATE \"Shop\".\"Order Items\" SET code = 'new', \"The Text\" = 'moved' WHERE code = '[1]'")
        .await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.purged), (2, 1));
    system.assert_all_embedded_by_fake(PROJECT, 8).await;
    assert_eq!(
        system
            .count("SELECT count(*) FROM \"Shop\".\"Order Items\" i JOIN cronvec.embeddings e ON e.content = i.\"The Text\" AND e.embedding = i.v")
            .await,
        2
    );

    // Nothing is gone, and what no key of this table can be is.
    system
        .run_sql(
            "SELECT cronvec.put_records(s.project_id, odd.ids, array_fill('of no row'::text, ARRAY[5]), array_fill('{}'::jsonb, ARRAY[5]))
             FROM cronvec.sources s, (SELECT ARRAY['7', '[]', '[\"x\", \"y\", \"z\"]', 'no json', '{\"a\": 1}']) AS odd (ids)",
        )
        .await;
    let after = reconcile(&system, &source).await;
    assert_eq!((after.changed, after.deleted), (0, 0));
    assert!(after.trouble.unwrap().contains("5 records of 7 are gone"));
    system.store.begin_pass(source.id, true).await.unwrap();
    assert_eq!(super::pass(&system, &source).await.deleted, 5);
}

#[tokio::test]
async fn keys_of_each_type_are_found_again_in_their_table() {
    let system = System::embedding_in_process().await;
    for (kind, one, other) in [
        ("int2", "-7", "32767"),
        ("numeric(20,2)", "-1.50", "12345678901234567.89"),
        (
            "uuid",
            "'11111111-1111-1111-1111-111111111111'",
            "'ffffffff-1111-1111-1111-111111111111'",
        ),
        ("text", "' a b '", "'ü'"),
        ("char(4)", "'ab'", "'abcd'"),
        ("bigint", "1234567890123456789", "0"),
    ] {
        system
            .run_sql(&format!(
                "DROP TABLE IF EXISTS keyed; DELETE FROM cronvec.records; DELETE FROM cronvec.pending;
                 CREATE TABLE public.keyed (k {kind} PRIMARY KEY, t text, v vector(256));
                 INSERT INTO keyed VALUES ({one}, 'tomatoes'), ({other}, 'water')"
            ))
            .await;
        let new = NewSource {
            table: "keyed",
            text: "t",
            embedding_column: Some("v"),
            ..articles()
        };
        let source = attach(&system, &new).await.unwrap();
        assert_eq!(system.vectorize().await.records, 2, "{kind}");
        assert_eq!(system.count("SELECT count(v) FROM keyed").await, 2, "{kind}");
        let after = reconcile(&system, &source).await;
        assert_eq!((after.rows, after.changed, after.trouble), (2, 0, None), "{kind}");
        system.run_sql("UPDATE keyed SET t = 'beans'; DELETE FROM keyed").await;
        assert_eq!(texts(&system).await, json!({}), "{kind}");
        system.store.detach(&source).await.unwrap();
        system.vectorize().await;
    }
}

#[tokio::test]
async fn rows_of_partitions_are_followed_through_the_table_through_each_leaf_and_in_leaves_that_come_later() {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system
        .run_sql(
            "CREATE TABLE public.parted (id int, region text NOT NULL, body text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
             CREATE TABLE public.parted_a PARTITION OF public.parted FOR VALUES IN ('a');
             -- Another order of columns, and one that was dropped.
             CREATE TABLE public.parted_b (gone int, body text, region text NOT NULL, id int NOT NULL);
             ALTER TABLE parted_b DROP COLUMN gone;
             ALTER TABLE parted ATTACH PARTITION parted_b FOR VALUES IN ('b');
             INSERT INTO parted SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END, 'body ' || n FROM generate_series(1, 20) AS n",
        )
        .await;
    let new = NewSource {
        table: "parted",
        text: "body",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    system.vectorize().await;
    system
        .run_sql(
            "INSERT INTO parted_b (region, id, body) VALUES ('b', 31, 'through the leaf');
             UPDATE parted SET body = 'through the table' WHERE id = 2;
             UPDATE parted_b SET body = 'of the leaf' WHERE id = 1;
             UPDATE parted SET region = 'a' WHERE id = 3;
             DELETE FROM parted_a WHERE id = 4",
        )
        .await;
    assert_eq!(
        waiting(&system).await,
        json!([
            "[\"a\", \"2\"]",
            "[\"a\", \"3\"]",
            "[\"a\", \"4\"]",
            "[\"b\", \"1\"]",
            "[\"b\", \"3\"]",
            "[\"b\", \"31\"]"
        ])
    );
    system.vectorize().await;
    system.assert_all_embedded_by_fake(PROJECT, 8).await;

    system
        .run_sql(
            "CREATE TABLE public.parted_c PARTITION OF public.parted FOR VALUES IN ('c');
             INSERT INTO parted_c VALUES (1, 'c', 'before anyone knew of it')",
        )
        .await;
    assert_eq!(waiting(&system).await, json!([]), "a new leaf has no triggers yet");
    assert_eq!(reconcile(&system, &source).await.changed, 1);
    system
        .run_sql("INSERT INTO parted_c VALUES (2, 'c', 'now that it is known')")
        .await;
    assert_eq!(waiting(&system).await, json!(["[\"c\", \"1\"]", "[\"c\", \"2\"]"]));

    // Of a leaf that is emptied many rows may be gone, and those of other leaves stay.
    system.run_sql("TRUNCATE parted_a").await;
    let left = system.count("SELECT count(*) FROM parted").await;
    super::pass(&system, &source).await;
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.records WHERE content IS NOT NULL")
            .await,
        left
    );
    system.store.detach(&source).await.unwrap();
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_trigger WHERE tgname LIKE '%cronvec%'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_text_is_the_same_in_every_session_and_with_any_search_path() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "CREATE TABLE public.events (id int PRIMARY KEY, at timestamptz, name text);
             CREATE FUNCTION public.loud(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper(t)'",
        )
        .await;
    let new = NewSource {
        table: "events",
        text: "loud(name) || ' on ' || at::text -- and so on",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    for settings in [
        "timezone = 'Asia/Tokyo'",
        "datestyle = 'SQL, DMY'",
        "search_path = pg_temp",
    ] {
        system
            .run_sql(&format!(
                "BEGIN; SET LOCAL {settings}; DELETE FROM public.events;
                 INSERT INTO public.events VALUES (1, '2026-03-04 05:06:07+00', 'rain'); COMMIT"
            ))
            .await;
        assert_eq!(texts(&system).await, json!({"1": "RAIN on 2026-03-04 05:06:07+00"}));
        assert_eq!(reconcile(&system, &source).await.changed, 0);
    }
}
