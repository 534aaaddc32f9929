//! Who may do what: the role that attaches, those that write the table, row-level security.

use std::sync::Arc;

use cronvec_store::{self as store, Store};
use cronvec_tests::database;
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;
use tokio_postgres::Client;

use super::{MOST_BYTES, articles, attach, create_articles, pass, reconcile, texts};

/// A role of the server's, named by the test's database, so that no two tests share one.
pub(super) struct Role {
    pub name: String,
    pub url: String,
}

impl Role {
    pub async fn create(system: &System, name: &str) -> Self {
        let name = format!("{name}_{}", system.database.name());
        system
            .run_sql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'of-a-test'"))
            .await;
        let url = system.database.url();
        let (before, behind) = url.split_once("://").expect("a scheme");
        let (_, host) = behind.split_once('@').expect("credentials");
        Self {
            url: format!("{before}://{name}:of-a-test@{host}"),
            name,
        }
    }

    pub async fn connect(&self) -> Client {
        database::connect(&self.url).await
    }

    pub async fn leave(self, system: &System) {
        system
            .run_sql(&format!(
                "REASSIGN OWNED BY {0} TO CURRENT_USER; DROP OWNED BY {0} CASCADE; DROP ROLE {0}",
                self.name
            ))
            .await;
    }
}

#[tokio::test]
async fn a_role_of_the_tables_that_was_granted_nothing_else_keeps_the_records_in_line() {
    let system = System::embedding_in_process().await;
    let (owner, app) = (Role::create(&system, "owner").await, Role::create(&system, "app").await);
    create_articles(&system, 2).await;
    system
        .run_sql(&format!(
            "ALTER TABLE articles OWNER TO {}; GRANT INSERT, UPDATE, DELETE, SELECT ON articles TO {}",
            owner.name, app.name
        ))
        .await;
    attach(&system, &articles()).await.unwrap();
    let owned = "SELECT jsonb_object_agg(substr(proname, length('source_1_') + 1), proowner::regrole::text = '";
    let owned = system
        .value(&format!(
            "{owned}{}') FROM pg_proc WHERE proname ~ '^source_[0-9]'",
            owner.name
        ))
        .await;
    assert_eq!(
        owned,
        json!({"text": true, "event": true, "page": true, "named": true, "there": true, "count": true, "take": false, "truncated": false})
    );
    let as_invoker =
        "SELECT jsonb_agg(proname ORDER BY proname) FROM pg_proc WHERE proname ~ '^source_[0-9]' AND NOT prosecdef";
    assert_eq!(system.value(as_invoker).await, json!(["source_1_text"]));
    // Those that write our tables are the owner's to call, whose triggers do; the others the workers'.
    let callers = async |role: &str| {
        system
            .value(&format!(
                "SELECT coalesce(jsonb_agg(proname ORDER BY proname), '[]') FROM pg_proc
                 WHERE proname ~ '^source_[0-9]' AND prosecdef AND has_function_privilege('{role}', oid, 'EXECUTE')"
            ))
            .await
    };
    assert_eq!(callers(&app.name).await, json!([]));
    assert_eq!(callers("public").await, json!([]));
    for right in ["CREATE", "USAGE"] {
        let has = system
            .value(&format!(
                "SELECT has_schema_privilege('{}', 'cronvec', '{right}')",
                owner.name
            ))
            .await;
        assert_eq!(has, right == "USAGE");
    }
    let user = app.connect().await;
    user.batch_execute("UPDATE articles SET title = 'of the app' WHERE id = 1; DELETE FROM articles WHERE id = 2; INSERT INTO articles VALUES (3, 'new')")
        .await
        .unwrap();
    assert_eq!(texts(&system).await, json!({"1": "of the app\n\nbody 1", "3": "new"}));
    for forbidden in [
        "SELECT FROM cronvec.records",
        "SELECT cronvec.take_rows(1, '{x}', '{x}', NULL, NULL)",
        "SELECT cronvec.delete_records(1, '{1}')",
        "SELECT cronvec.put_record('articles', 'x', 'x')",
        "SELECT cronvec.source_1_take(NULL, NULL, NULL, ARRAY['1'], NULL)",
        "SELECT cronvec.source_1_truncated('articles'::regclass)",
        "SELECT cronvec.source_1_page(NULL, 10, 1, 0)",
        "CREATE TEMP TABLE mine (id int, title text, body text);
         CREATE TRIGGER mine AFTER INSERT ON mine REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT
             EXECUTE FUNCTION cronvec.source_1_event()",
    ] {
        let error = user.batch_execute(forbidden).await.unwrap_err();
        assert!(
            format!("{error:?}").contains("permission denied"),
            "{forbidden}: {error:?}"
        );
    }
    drop(user);
    for role in [app, owner] {
        role.leave(&system).await;
    }
}

/// Roles that came after the table was attached, by grants or by default privileges.
#[tokio::test]
async fn a_role_that_may_write_the_table_needs_no_grant_of_ours() {
    let system = System::embedding_in_process().await;
    let owner = Role::create(&system, "owner").await;
    create_articles(&system, 2).await;
    system
        .run_sql(&format!("ALTER TABLE articles OWNER TO {}", owner.name))
        .await;
    attach(&system, &articles()).await.unwrap();
    let late = Role::create(&system, "late").await;
    system.run_sql(&format!("GRANT ALL ON articles TO {}", late.name)).await;
    let user = late.connect().await;
    user.batch_execute(
        "INSERT INTO articles VALUES (3, 'new'); UPDATE articles SET title = 'changed' WHERE id = 1;
         DELETE FROM articles WHERE id = 2",
    )
    .await
    .unwrap();
    assert_eq!(texts(&system).await, json!({"1": "changed\n\nbody 1", "3": "new"}));
    user.batch_execute("TRUNCATE articles").await.unwrap();
    system.vectorize().await;
    assert_eq!(texts(&system).await, json!({}));
    drop(user);
    for role in [late, owner] {
        role.leave(&system).await;
    }
}

#[tokio::test]
async fn without_rights_on_our_tables_no_write_of_a_users_fails_and_the_next_pass_finds_it() {
    let system = System::embedding_in_process().await;
    let late = Role::create(&system, "late").await;
    create_articles(&system, 20).await;
    system
        .run_sql(&format!("ALTER TABLE articles OWNER TO {}", late.name))
        .await;
    let source = attach(&system, &articles()).await.unwrap();
    system.vectorize().await;
    // Somebody took it away.
    system
        .run_sql(&format!(
            "REVOKE EXECUTE ON FUNCTION cronvec.source_1_take, cronvec.source_1_truncated FROM {}",
            late.name
        ))
        .await;
    let user = late.connect().await;
    for write in [
        "INSERT INTO articles VALUES (21, 'missed')",
        "UPDATE articles SET title = 'missed' WHERE id <= 2",
        "DELETE FROM articles WHERE id = 3",
    ] {
        user.batch_execute(write).await.unwrap();
    }
    assert_eq!(texts(&system).await["1"], "title 1\n\nbody 1");
    assert_eq!(system.store.coverage(PROJECT).await.unwrap().total, 20);

    // A tick finds it by itself.
    system
        .run_sql("UPDATE cronvec.sources SET checked_at = now() - interval '6 minutes'")
        .await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.purged), (3, 1));
    assert_eq!(
        system.store.sources().await.unwrap()[0].passes,
        source.passes + 2,
        "the one of attach and this one"
    );
    assert_eq!(texts(&system).await["21"], "missed");
    assert_eq!(texts(&system).await.as_object().unwrap().len(), 20);

    user.batch_execute("TRUNCATE articles").await.unwrap();
    let told = reconcile(&system, &source).await.trouble.unwrap();
    assert!(
        told.contains("20 records of 20 are gone") && told.contains("--allow-deletes"),
        "{told}"
    );
    assert_eq!(
        texts(&system).await.as_object().unwrap().len(),
        20,
        "a person is asked first"
    );
    system.store.begin_pass(source.id, true).await.unwrap();
    assert_eq!(pass(&system, &source).await.deleted, 20);
    assert_eq!(texts(&system).await, json!({}));
    drop(user);
    late.leave(&system).await;
}

#[tokio::test]
async fn row_level_security_hides_rows_from_no_trigger_and_a_pass_that_it_would_hide_rows_from_deletes_nothing() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 10).await;
    let owner = Role::create(&system, "owner").await;
    let (app, worker) = (
        Role::create(&system, "app").await,
        Role::create(&system, "worker").await,
    );
    system
        .run_sql(&format!(
            "ALTER TABLE articles OWNER TO {owner}; GRANT ALL ON articles TO {app};
             GRANT USAGE ON SCHEMA cronvec TO {worker}; GRANT ALL ON ALL TABLES IN SCHEMA cronvec TO {worker};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA cronvec TO {worker}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cronvec TO {worker};
             ALTER TABLE articles ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON articles USING (id > 8) WITH CHECK (true)",
            owner = owner.name,
            app = app.name,
            worker = worker.name
        ))
        .await;
    let source = attach(&system, &articles()).await.unwrap();
    let user = app.connect().await;
    user.batch_execute("UPDATE articles SET title = 'mine'; INSERT INTO articles VALUES (1000, 'unseen')")
        .await
        .unwrap();
    assert_eq!(
        system
            .count("SELECT count(*) FROM cronvec.records WHERE content LIKE 'mine%' OR content = 'unseen'")
            .await,
        3
    );
    // A worker's role of its own has no rights on the table, and needs none: the functions have the owner's.
    let of_worker = Arc::new(Store::new(store::Database::at(&worker.url, 2).unwrap()));
    assert_eq!(of_worker.source_faults(&source).await.unwrap(), []);
    of_worker.begin_pass(source.id, true).await.unwrap();
    for _ in 0..3 {
        of_worker.reconcile_slice(source.id, MOST_BYTES).await.unwrap();
    }
    assert_eq!(of_worker.source(PROJECT).await.unwrap().passes, source.passes + 2);
    assert_eq!(texts(&system).await.as_object().unwrap().len(), 11);

    // The policy would hide rows from the owner, too.
    system.run_sql("ALTER TABLE articles FORCE ROW LEVEL SECURITY").await;
    of_worker.begin_pass(source.id, true).await.unwrap();
    let error = of_worker
        .reconcile_slice(source.id, MOST_BYTES)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("row-level security"), "{error}");
    assert_eq!(texts(&system).await.as_object().unwrap().len(), 11);
    drop((user, of_worker));
    for role in [app, worker, owner] {
        role.leave(&system).await;
    }
}

#[tokio::test]
async fn a_role_that_does_not_own_the_table_or_the_schema_is_told_which_it_needs() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 1).await;
    let reader = Role::create(&system, "reader").await;
    system
        .run_sql(&format!(
            "GRANT SELECT ON articles TO {0}; GRANT USAGE ON SCHEMA cronvec TO {0}; GRANT SELECT ON ALL TABLES IN SCHEMA cronvec TO {0}",
            reader.name
        ))
        .await;
    let of_reader = Store::new(store::Database::at(&reader.url, 1).unwrap());
    let project = system.store.project(PROJECT).await.unwrap();
    let space = &system.settings.embedding.new_space;
    let refused = async || {
        of_reader
            .attach(&articles(), &project, space)
            .await
            .unwrap_err()
            .to_string()
    };
    let error = refused().await;
    assert!(
        error.contains("public.articles belongs to") && error.contains("then GRANT ROLE TO reader_"),
        "{error}"
    );
    system
        .run_sql(&format!("ALTER TABLE articles OWNER TO {}", reader.name))
        .await;
    let error = refused().await;
    assert!(
        error.contains("permission denied") && error.contains("the role that ran `cronvec migrate up`"),
        "{error}"
    );
    system
        .run_sql(&format!(
            "ALTER ROLE {} SET default_transaction_read_only = on",
            reader.name
        ))
        .await;
    // It is no right that is missing: our transactions say that they write.
    let of_read_only = Store::new(store::Database::at(&reader.url, 1).unwrap());
    let error = of_read_only
        .attach(&articles(), &project, space)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("permission denied"), "{error}");
    drop((of_reader, of_read_only));
    reader.leave(&system).await;
}

#[tokio::test]
async fn a_producer_needs_the_functions_and_no_table() {
    let system = System::embedding_in_process().await;
    let producer = Role::create(&system, "producer").await;
    let name = &producer.name;
    system
        .run_sql(&format!(
            "GRANT USAGE ON SCHEMA cronvec TO {name};
             GRANT EXECUTE ON FUNCTION cronvec.put_record, cronvec.delete_record, cronvec.search TO {name}"
        ))
        .await;
    let client = producer.connect().await;
    client
        .batch_execute(
            "BEGIN; SELECT cronvec.put_record('articles', 'a', 'Water the tomatoes.', '{\"topic\": \"gardening\"}');
             SELECT cronvec.put_record('articles', 'b', 'gone'); SELECT cronvec.delete_record('articles', 'b'); COMMIT",
        )
        .await
        .unwrap();
    system.vectorize().await;
    let found = client
        .query_typed(
            "SELECT id FROM cronvec.search('articles', array_fill(0.1, ARRAY[256])::vector, 10)",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        found.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(),
        ["a"]
    );
    for table in ["records", "pending", "chunks", "job_queue"] {
        let error = client
            .batch_execute(&format!("SELECT FROM cronvec.{table}"))
            .await
            .unwrap_err();
        assert!(format!("{error:?}").contains("permission denied"), "{table}: {error:?}");
    }
    drop(client);
    producer.leave(&system).await;
}
