//! What is found wrong with an attached table afterwards, and that its mend mends it.

use cronvec_store::sources::{Fault, NewSource, Source};
use cronvec_store::{self as store, Store};
use cronvec_tests::provider::Provider;
use cronvec_tests::system::System;

use super::rights::Role;
use super::{articles, attach, reconcile};

/// A partitioned table with a vector column that is emptied when a text changes.
async fn attached() -> (Provider, System, Source) {
    let provider = Provider::start().await;
    let system = System::embedding_with(&provider, 8).await;
    system
        .run_sql(
            "CREATE TABLE public.articles (id int PRIMARY KEY, title text, body text, v vector(8)) PARTITION BY RANGE (id);
             CREATE TABLE public.first PARTITION OF articles FOR VALUES FROM (0) TO (100);
             INSERT INTO articles SELECT n, 'title ' || n FROM generate_series(1, 5) AS n",
        )
        .await;
    let new = NewSource {
        embedding_column: Some("v"),
        forgets: true,
        filter: Some("id > 0"),
        metadata: Some("title"),
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    (provider, system, source)
}

async fn faults(system: &System, source: &Source) -> Vec<Fault> {
    let source = system.store.source(&source.project).await.unwrap();
    system.store.source_faults(&source).await.unwrap()
}

/// The mend's SQL, without what it says to people.
fn sql(fault: &Fault) -> &str {
    fault.mend.trim_start_matches("as a superuser: ")
}

#[tokio::test]
async fn each_fault_of_columns_triggers_and_functions_is_found_and_its_mend_mends_it() {
    let (_provider, system, source) = attached().await;
    assert_eq!(faults(&system, &source).await, []);
    let late = Role::create(&system, "late").await;
    let name = &late.name;
    let own = format!("ALTER FUNCTION cronvec.source_1_page OWNER TO {name}");
    let take = format!("ALTER FUNCTION cronvec.source_1_take OWNER TO {name}");
    for (wrong, fails, found) in [
        (
            "ALTER TABLE articles ALTER COLUMN v TYPE vector(4) USING NULL",
            true,
            "v of public.articles is vector(4), and project 'articles' embeds with 8 dimensions",
        ),
        (
            "ALTER TABLE articles ALTER COLUMN v TYPE halfvec(8)",
            true,
            "v of public.articles is halfvec(8)",
        ),
        (
            "ALTER TABLE articles DROP COLUMN v",
            true,
            "public.articles has no column v any more",
        ),
        (
            "DROP TRIGGER cronvec_1_update ON articles",
            true,
            "public.articles has lost its trigger for update",
        ),
        (
            "ALTER TABLE ONLY articles DISABLE TRIGGER cronvec_1_delete",
            true,
            "trigger cronvec_1_delete of public.articles is disabled",
        ),
        (
            "ALTER TABLE first DISABLE TRIGGER cronvec_1_insert",
            true,
            "trigger cronvec_1_insert of public.first is disabled",
        ),
        (own.as_str(), false, "cronvec.source_1_page belongs to"),
        (take.as_str(), true, "cronvec.source_1_take belongs to"),
        (
            "ALTER FUNCTION cronvec.source_1_take SECURITY INVOKER",
            true,
            "cronvec.source_1_take don't run with their owner's rights alone",
        ),
        (
            "ALTER FUNCTION cronvec.source_1_event SECURITY INVOKER; GRANT EXECUTE ON FUNCTION cronvec.source_1_page TO PUBLIC",
            true,
            "cronvec.source_1_event, cronvec.source_1_page don't run",
        ),
        (
            "GRANT EXECUTE ON FUNCTION cronvec.source_1_take TO PUBLIC",
            true,
            "cronvec.source_1_take don't run with their owner's rights alone, or anybody may call them",
        ),
    ] {
        system.run_sql(wrong).await;
        let all = faults(&system, &source).await;
        assert_eq!(all.len(), 1, "{wrong}: {all:?}");
        assert!(
            all[0].fails == fails && all[0].found.contains(found),
            "{wrong}: {all:?}"
        );
        system.run_sql(sql(&all[0])).await;
        assert_eq!(faults(&system, &source).await, [], "{wrong}: {}", all[0].mend);
    }
    // A column that came anew is filled, and a changed text is noticed.
    system
        .run_sql("UPDATE articles SET title = 'another' WHERE id = 1")
        .await;
    system.vectorize().await;
    reconcile(&system, &source).await;
    assert_eq!(system.count("SELECT count(v) FROM articles").await, 5);
    late.leave(&system).await;
}

#[tokio::test]
async fn a_partition_that_came_later_lacks_its_triggers_until_the_next_comparison() {
    let (_provider, system, source) = attached().await;
    system
        .run_sql("CREATE TABLE public.second PARTITION OF articles FOR VALUES FROM (100) TO (200)")
        .await;
    let all = faults(&system, &source).await;
    assert_eq!(all.len(), 4, "{all:?}");
    for fault in &all {
        assert!(
            !fault.fails && fault.found.starts_with("partition public.second has no trigger for"),
            "{fault:?}"
        );
        assert!(fault.mend.contains("cronvec reconcile articles"), "{fault:?}");
    }
    reconcile(&system, &source).await;
    assert_eq!(faults(&system, &source).await, []);
}

#[tokio::test]
async fn what_only_attaching_again_mends_is_said_to_be_so() {
    let (_provider, system, source) = attached().await;
    for wrong in [
        "DROP TRIGGER zz_cronvec_1_forget ON articles",
        "DROP FUNCTION cronvec.source_1_there",
    ] {
        system.run_sql(wrong).await;
        let all = faults(&system, &source).await;
        assert!(
            all.iter().all(|fault| fault.fails
                && fault.mend
                    == "cronvec attach public.articles --project articles --id id --text 'title, body' --metadata title \
                        --where 'id > 0' --embedding-column v --on-change null"),
            "{wrong}: {all:?}"
        );
    }
    assert_eq!(faults(&system, &source).await.len(), 2);
    system.run_sql("DROP TABLE articles").await;
    let all = faults(&system, &source).await;
    assert_eq!(
        (all.len(), all[0].found.as_str(), all[0].mend.as_str()),
        (1, "public.articles is gone", "cronvec detach articles")
    );
    system.store.detach(&source).await.unwrap();
    assert!(system.store.sources().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_worker_is_told_what_it_and_the_owner_may_not_do() {
    let (_provider, system, source) = attached().await;
    let (worker, owner) = (
        Role::create(&system, "worker").await,
        Role::create(&system, "owner").await,
    );
    let (name, owner_name) = (&worker.name, &owner.name);
    system
        .run_sql(&format!(
            "GRANT USAGE ON SCHEMA cronvec TO {name}; GRANT SELECT ON ALL TABLES IN SCHEMA cronvec TO {name};
             ALTER TABLE articles OWNER TO {owner_name}; ALTER TABLE articles ENABLE ROW LEVEL SECURITY;
             ALTER TABLE articles FORCE ROW LEVEL SECURITY"
        ))
        .await;
    let of_worker = Store::new(store::Database::at(&worker.url, 1).unwrap());
    let seen = async || {
        let all = of_worker.source_faults(&source).await.unwrap();
        // Functions that the former owner has, each of which is told of, are another matter.
        all.into_iter()
            .filter(|fault| !fault.found.contains("belongs to"))
            .collect::<Vec<_>>()
    };
    let found: Vec<String> = seen().await.into_iter().map(|fault| fault.found).collect();
    let functions = "cronvec.source_1_count, cronvec.source_1_lock, cronvec.source_1_named, cronvec.source_1_page, \
                     cronvec.source_1_set, cronvec.source_1_there";
    assert_eq!(
        found,
        [
            format!(
                "{owner_name}, as whom the triggers of public.articles run, may not note its changes: comparisons alone find them"
            ),
            format!(
                "row-level security is forced on {owner_name} and may hide rows of public.articles: nothing is compared"
            ),
            format!("{name} may not execute {functions}: nothing is compared or written"),
        ]
    );
    for fault in seen().await {
        let statement = fault.mend.split(", or").next().unwrap();
        system.run_sql(statement).await;
    }
    assert_eq!(seen().await, []);
    drop(of_worker);
    for role in [worker, owner] {
        role.leave(&system).await;
    }
}
