//! Rights that PUBLIC doesn't have, and functions that find nothing under the triggers' settings.

use cronvec_store::migrate;
use cronvec_store::sources::NewSource;
use cronvec_tests::database::Database;
use cronvec_tests::system::{PROJECT, System};

use super::{TABLE, all_well, expressions, faults, live, mend};
use crate::attach::rights::Role;
use crate::attach::{articles, attach};

/// What PUBLIC may execute in this database, of our functions.
const OF_PUBLIC: &str = "SELECT coalesce(jsonb_agg(p.proname ORDER BY p.proname), '[]') FROM pg_proc p
    WHERE p.pronamespace = 'cronvec'::regnamespace AND EXISTS (
        SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a WHERE a.grantee = 0)";

#[tokio::test]
async fn default_privileges_that_leave_nothing_to_public_take_nothing_from_us() {
    let database = Database::empty().await;
    let mut client = database.client().await;
    // Of this database alone.
    client
        .batch_execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        .await
        .unwrap();
    migrate::up(&mut client).await.unwrap();
    drop(client);
    let system = System::on(database, &[]).await;
    let usual = System::embedding_in_process().await;
    assert_eq!(system.value(OF_PUBLIC).await, usual.value(OF_PUBLIC).await);

    let (owner, app) = (Role::create(&system, "owner").await, Role::create(&system, "app").await);
    system
        .run_sql(&format!(
            "{TABLE}; GRANT USAGE ON SCHEMA shop TO {0}, {1}; ALTER TABLE shop.notes OWNER TO {0};
             GRANT EXECUTE ON FUNCTION shop.clean TO {0}; GRANT INSERT, UPDATE, SELECT ON shop.notes TO {1}",
            owner.name, app.name
        ))
        .await;
    attach(&system, &expressions()).await.unwrap();
    assert_eq!(faults(&system).await, []);
    let client = app.connect().await;
    client
        .batch_execute("INSERT INTO shop.notes (id, title) VALUES (77, 'Late')")
        .await
        .unwrap();
    drop(client);
    assert_eq!(live(&system, "1,2,3,77").await, 4);
    // What the owner loses is told, with what gives it back.
    system
        .run_sql(&format!(
            "REVOKE EXECUTE ON FUNCTION cronvec.assert_definer FROM PUBLIC; REVOKE USAGE ON SCHEMA shop FROM {0};
             REVOKE SELECT ON shop.notes FROM {0}",
            owner.name
        ))
        .await;
    let all = faults(&system).await;
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].fails && all[0].found.contains("with whose rights shop.notes is read"),
        "{all:?}"
    );
    mend(&system, &all[0].mend).await;
    all_well(&system, "granted again").await;
    for role in [app, owner] {
        role.leave(&system).await;
    }
}

#[tokio::test]
async fn a_function_that_finds_nothing_under_the_triggers_settings_is_refused_before_anything_is_made() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "CREATE FUNCTION public.strip_tags(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                 $$ BEGIN RETURN regexp_replace(t, '<[^>]+>', '', 'g'); END $$;
             CREATE FUNCTION public.clean(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lower(strip_tags(t)); END $$;
             CREATE FUNCTION public.inlined(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(strip_tags(t)) $$;
             CREATE TABLE public.articles (id int PRIMARY KEY, title text, body text)",
        )
        .await;
    for text in ["clean(body)", "inlined(title)"] {
        let new = NewSource { text, ..articles() };
        // Of an empty table, and of one with a row.
        for row in [
            "DELETE FROM articles",
            "INSERT INTO articles VALUES (1, '<b>One</b>', '<i>Two</i>')",
        ] {
            system.run_sql(row).await;
            let said = attach(&system, &new).await.unwrap_err().to_string();
            let function = text.split('(').next().unwrap();
            assert!(
                said.contains("function strip_tags(text) does not exist")
                    && said.contains(&format!(
                        "ALTER FUNCTION public.{function}(t text) SET search_path = public, pg_temp"
                    )),
                "{text}: {said}"
            );
            assert!(system.store.sources().await.unwrap().is_empty());
            let left = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'cronvec'::regnamespace AND proname ~ '^source_[0-9]'";
            assert_eq!(system.count(left).await, 0);
        }
        let statement = format!(
            "ALTER FUNCTION public.{}(t text) SET search_path = public, pg_temp",
            text.split('(').next().unwrap()
        );
        system.run_sql(&statement).await;
        let source = attach(&system, &new).await.unwrap();
        assert_eq!(live(&system, "1").await, 1);
        system.store.detach(&source).await.unwrap();
    }
    assert!(system.store.project(PROJECT).await.is_ok());
}

/// One row's value is that row's affair.
#[tokio::test]
async fn a_row_for_which_the_expression_raises_keeps_no_table_from_being_attached() {
    let system = System::embedding_in_process().await;
    system
        .run_sql(
            "CREATE TABLE public.articles (id int PRIMARY KEY, title text, body text);
             INSERT INTO articles VALUES (1, 'no number', 'x')",
        )
        .await;
    let new = NewSource {
        text: "(title::int)::text",
        ..articles()
    };
    let project = system.store.project(PROJECT).await.unwrap();
    system
        .store
        .attach(&new, &project, &system.settings.embedding.new_space)
        .await
        .unwrap();
    system.vectorize().await;
    let quarantined = "SELECT to_jsonb(record_id || ' ' || reason) FROM cronvec.quarantine";
    assert_eq!(system.value(quarantined).await, "1 unreadable");
    system.run_sql("INSERT INTO articles VALUES (2, '7', 'x')").await;
    assert_eq!(live(&system, "2").await, 1);
}

#[tokio::test]
async fn virtual_generated_columns_are_refused_with_their_expression_and_stored_ones_are_taken() {
    let system = System::embedding_in_process().await;
    if system
        .count("SELECT current_setting('server_version_num')::bigint")
        .await
        < 180_000
    {
        return cronvec_tests::skipped("PostgreSQL is older than 18: it has no virtual generated columns");
    }
    system
        .run_sql(
            "CREATE TABLE public.articles (id int PRIMARY KEY, title text, body text,
                 whole text GENERATED ALWAYS AS (title || ' ' || body) VIRTUAL)",
        )
        .await;
    for (text, metadata) in [("title, whole", None), ("upper(whole)", None), ("title", Some("whole"))] {
        let new = NewSource {
            text,
            metadata,
            ..articles()
        };
        let said = attach(&system, &new).await.unwrap_err().to_string();
        assert!(
            said.contains("whole of public.articles is a virtual generated column")
                && said.contains("((title || ' '::text) || body)"),
            "{said}"
        );
    }
    // One that isn't used is nobody's affair, nor is a name that holds its name.
    let source = attach(
        &system,
        &NewSource {
            text: "title || ' wholesale'",
            ..articles()
        },
    )
    .await
    .unwrap();
    system.store.detach(&source).await.unwrap();
    let said = attach(
        &system,
        &NewSource {
            text: "whole",
            ..articles()
        },
    )
    .await
    .unwrap_err()
    .to_string();
    let statement = said.split("or store its values: ").nth(1).unwrap();
    system.run_sql(statement).await;
    attach(
        &system,
        &NewSource {
            text: "whole",
            ..articles()
        },
    )
    .await
    .unwrap();
    system
        .run_sql("INSERT INTO articles VALUES (1, 'Ada', 'Lovelace')")
        .await;
    assert_eq!(
        system.value("SELECT content FROM cronvec.records WHERE id = '1'").await,
        serde_json::json!("Ada Lovelace")
    );
    // A column that becomes one afterwards is told.
    system
        .run_sql(
            "ALTER TABLE articles DROP COLUMN whole, ADD COLUMN whole text GENERATED ALWAYS AS (title || ' ' || body) VIRTUAL",
        )
        .await;
    let all = faults(&system).await;
    assert!(
        all.iter()
            .any(|fault| fault.fails && fault.found.contains("is a virtual generated column now")),
        "{all:?}"
    );
    for fault in all {
        mend(&system, &fault.mend).await;
    }
    all_well(&system, "stored again").await;
}
