//! A day in the life of an application: what it does to its table, one after the other, by a role of its own. Its statements
//! pass, searches are right or say that they are behind, `doctor` says what is so, and its fix works.

use cronvec_store::sources::NewSource;
use cronvec_tests::system::{PROJECT, System};
use tokio_postgres::Client;

use super::super::rights::Role;
use super::super::{attach, pass};
use super::{all_well, faults, mend};

/// Rows of `table` whose text is found under its record, with its vector in the column; all of them, if all is right.
async fn right(system: &System, table: &str, id: &str) -> i64 {
    system
        .count(&format!(
            "SELECT count(*) FROM {table} t JOIN cronvec.embeddings e
                 ON e.record_id = {id} AND e.ordinal = 0 AND NOT e.stale AND e.embedding = t.v
             WHERE e.content = concat_ws(E'\\n\\n', t.title, t.body)"
        ))
        .await
}

async fn rows(system: &System, table: &str) -> i64 {
    system.count(&format!("SELECT count(*) FROM {table}")).await
}

/// After ticks all rows are right, and nothing else is found.
async fn all_right(system: &System, table: &str, id: &str, what: &str) {
    system.vectorize().await;
    let there = rows(system, table).await;
    assert_eq!(right(system, table, id).await, there, "{what}");
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.embeddings WHERE ordinal = 0")
            .await,
        there,
        "{what}"
    );
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!((coverage.total, coverage.embedded), (there, there), "{what}");
}

async fn found(system: &System) -> Vec<String> {
    faults(system).await.into_iter().map(|fault| fault.found).collect()
}

async fn app(app: &Client, sql: &str) {
    app.batch_execute(sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

#[tokio::test]
async fn a_day_in_the_life_of_an_application() {
    let system = System::embedding_in_process().await;
    let owner = Role::create(&system, "owner").await;
    system
        .run_sql(&format!(
            "CREATE SCHEMA shop AUTHORIZATION {0}; GRANT USAGE ON SCHEMA public TO {0}",
            owner.name
        ))
        .await;
    let user = owner.connect().await;
    app(
        &user,
        "CREATE TABLE shop.posts (id int PRIMARY KEY, at date NOT NULL DEFAULT '2026-01-05', title varchar(50) NOT NULL, body text, v public.vector(256));
         INSERT INTO shop.posts (id, title, body) SELECT n, 'post ' || n, 'about ' || n FROM generate_series(1, 30) AS n",
    )
    .await;
    let new = NewSource {
        table: "shop.posts",
        text: "title, body",
        embedding_column: Some("v"),
        ..super::super::articles()
    };
    attach(&system, &new).await.unwrap();
    all_right(&system, "shop.posts", "t.id::text", "attached").await;
    assert_eq!(faults(&system).await, []);

    // Renamed: nothing stops.
    app(
        &user,
        "ALTER TABLE shop.posts RENAME TO articles; UPDATE shop.articles SET title = 'renamed' WHERE id = 1",
    )
    .await;
    all_right(&system, "shop.articles", "t.id::text", "renamed").await;
    all_well(&system, "renamed").await;

    // A column of another type.
    app(
        &user,
        "ALTER TABLE shop.articles ALTER COLUMN title TYPE text, ALTER COLUMN body TYPE varchar(1000);
         UPDATE shop.articles SET title = 'widened', body = 'retyped' WHERE id = 2",
    )
    .await;
    assert_eq!(faults(&system).await, [], "another type");
    reconcile_now(&system).await;
    all_right(&system, "shop.articles", "t.id::text", "another type").await;
    all_well(&system, "another type").await;

    // Partitioned by time, and put in the place of the old one: that harms nothing any more, and doctor tells.
    app(
        &user,
        "CREATE TABLE shop.parted (id int, at date NOT NULL, title text NOT NULL, body text, v public.vector(256), PRIMARY KEY (id, at))
             PARTITION BY RANGE (at);
         CREATE TABLE shop.january PARTITION OF shop.parted FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         CREATE TABLE shop.february PARTITION OF shop.parted FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
         INSERT INTO shop.parted SELECT id, at, title, body, v FROM shop.articles;
         BEGIN; ALTER TABLE shop.articles RENAME TO old_articles; ALTER TABLE shop.parted RENAME TO articles; COMMIT;
         DELETE FROM shop.old_articles; DROP TABLE shop.old_articles",
    )
    .await;
    assert_eq!(
        system.count("SELECT count(*) FROM cronvec.embeddings").await,
        30,
        "no record went with the old table"
    );
    assert_eq!(
        found(&system).await,
        ["shop.articles was dropped and made again: nothing of the new one is noticed"]
    );
    // The key is another, so it is attached anew; texts that are the same aren't embedded again.
    let source = system.store.source(PROJECT).await.unwrap();
    system.store.detach(&source).await.unwrap();
    let parted = NewSource {
        table: "shop.articles",
        take_over: Some(i64::MAX),
        ..new
    };
    attach(&system, &parted).await.unwrap();
    // Ids are made of the key: those of the former one go when a person says so.
    reconcile_now(&system).await;
    let id = "json_build_array(t.id::text, t.at::text)::text";
    all_right(&system, "shop.articles", id, "partitioned").await;
    assert_eq!(faults(&system).await, []);

    // Rows loaded in bulk: found by the next tick.
    app(
        &user,
        "INSERT INTO shop.articles (id, at, title) SELECT n, '2026-02-03', 'loaded ' || n FROM generate_series(100, 2600) AS n",
    )
    .await;
    let coverage = system.store.coverage(PROJECT).await.unwrap();
    assert_eq!(
        (coverage.total, coverage.embedded),
        (2_531, 30),
        "it says that it is behind"
    );
    all_right(&system, "shop.articles", id, "loaded").await;

    // Archived: the partition that leaves takes its rows along, and what is done to it is none of ours.
    app(
        &user,
        "ALTER TABLE shop.articles DETACH PARTITION shop.january; UPDATE shop.january SET title = 'in the archive'; TRUNCATE shop.january",
    )
    .await;
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.records WHERE content LIKE 'in the archive%'")
            .await,
        0
    );
    reconcile_now(&system).await;
    all_right(&system, "shop.articles", id, "archived").await;
    let [left] = &faults(&system).await[..] else {
        panic!("one fault: {:?}", faults(&system).await);
    };
    assert!(
        !left.fails
            && left
                .found
                .contains("shop.january isn't a part of shop.articles any more"),
        "{left:?}"
    );
    mend(&system, &left.mend).await;
    assert_eq!(faults(&system).await, [], "archived");

    // Deleted, many at once: found by nobody from the commit on.
    app(&user, "DELETE FROM shop.articles WHERE id > 120").await;
    assert_eq!(system.count("SELECT count(*) FROM cronvec.embeddings").await, 21);
    all_right(&system, "shop.articles", id, "deleted").await;

    // Restored from a dump, which disables triggers: the next comparison finds all of it.
    system
        .run_sql(
            "SET session_replication_role = replica; DELETE FROM shop.articles WHERE id = 100;
             INSERT INTO shop.articles (id, at, title) SELECT n, '2026-02-04', 'restored ' || n FROM generate_series(3000, 3040) AS n;
             RESET session_replication_role",
        )
        .await;
    reconcile_now(&system).await;
    all_right(&system, "shop.articles", id, "restored").await;

    // A column of another model's width is refused.
    app(&user, "ALTER TABLE shop.articles ADD COLUMN w public.vector(3)").await;
    let wider = NewSource {
        embedding_column: Some("w"),
        ..parted
    };
    let project = system.store.project(PROJECT).await.unwrap();
    let source = system.store.source(PROJECT).await.unwrap();
    let space = &system.settings.embedding.new_space;
    let refused = system.store.alter_source(&wider, &project, space, &source, false).await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("vector(3)") && said.contains("256"), "{said}");
    all_right(&system, "shop.articles", id, "as before").await;
    system.store.detach(&source).await.unwrap();
    drop(user);
    owner.leave(&system).await;
}

async fn reconcile_now(system: &System) {
    let source = system.store.source(PROJECT).await.unwrap();
    system.store.begin_pass(source.id, true).await.unwrap();
    let done = pass(system, &source).await;
    assert_eq!(done.trouble, None);
}
