//! Tables that were attached by programs of schema 9.

use cronvec_store::{self as store, Store, migrate};
use cronvec_tests::database::Database;
use cronvec_tests::system::{PROJECT, System, settings};
use serde_json::json;
use tokio_postgres::Client;

use super::rights::Role;
use super::{MOST_BYTES, pass, texts};

/// A system on a schema of that time with such a table; `migrator` owns the schema.
struct Former {
    system: System,
    migrator: Client,
    roles: Vec<Role>,
}

impl Former {
    async fn new(is_member: bool) -> Self {
        let database = Database::empty().await;
        let url = database.url().to_owned();
        let system = System::bare(database, &url, &[]).await;
        let mut roles = Vec::new();
        for name in ["migrator", "owner", "app"] {
            roles.push(Role::create(&system, name).await);
        }
        let [migrator, owner, app] = [0, 1, 2].map(|n| roles[n].name.clone());
        system
            .run_sql(&format!(
                "CREATE EXTENSION vector SCHEMA public; GRANT CREATE ON DATABASE {} TO {migrator}",
                system.database.name()
            ))
            .await;
        let mut client = roles[0].connect().await;
        migrate::up_to(&mut client, 9).await.unwrap();
        let of_migrator = Store::new(store::Database::at(&roles[0].url, 2).unwrap());
        let space = of_migrator
            .ensure_space(&settings(&url, &[]).embedding.new_space)
            .await
            .unwrap();
        client
            .batch_execute(&format!(
                "INSERT INTO cronvec.projects (name, live_space) VALUES ('{PROJECT}', {})",
                space.id
            ))
            .await
            .unwrap();
        let fixture = include_str!("of_schema_9.sql")
            .replace(" TO OWNER;", &format!(" TO {owner};"))
            .replace("OWNER, APP", &format!("{owner}, {app}"))
            .replace("TO OWNER\n", &format!("TO {owner}\n"))
            .replace("FROM OWNER", &format!("FROM {owner}"))
            .replace("TO APP", &format!("TO {app}"));
        system.run_sql(&fixture).await;
        system
            .run_sql(&format!(
                "ALTER FUNCTION cronvec.source_1_take OWNER TO {migrator}; ALTER FUNCTION cronvec.source_1_truncated OWNER TO {migrator}"
            ))
            .await;
        if is_member {
            system.run_sql(&format!("GRANT {owner} TO {migrator}")).await;
        }
        Self {
            system,
            migrator: client,
            roles,
        }
    }

    async fn leave(self) {
        let Self {
            system,
            migrator,
            roles,
        } = self;
        drop(migrator);
        for role in roles.into_iter().rev() {
            role.leave(&system).await;
        }
    }
}

#[tokio::test]
async fn a_table_that_was_attached_before_goes_on_and_its_functions_get_their_rights() {
    let mut former = Former::new(true).await;
    assert!(migrate::up(&mut former.migrator).await.unwrap().contains(&10));
    let system = &former.system;
    migrate::verify(&former.migrator).await.unwrap();
    let source = system.store.source(PROJECT).await.unwrap();
    let of_migrator = Store::new(store::Database::at(&former.roles[0].url, 2).unwrap());
    let faults = of_migrator.source_faults(&source).await.unwrap();
    assert!(
        faults.len() == 1 && !faults[0].fails && faults[0].found.contains("was attached by an older version"),
        "{faults:?}"
    );
    // What its functions name is known from now on.
    let named = "SELECT jsonb_object_agg(c->>'name', c->'options') FROM cronvec.sources, jsonb_array_elements(table_columns) AS c";
    assert_eq!(
        system.value(named).await,
        json!({"id": ["id"], "title": ["text"], "v": ["embedding-column"]})
    );
    let guarded = "SELECT jsonb_agg(proname ORDER BY proname) FROM pg_proc
        WHERE prosrc LIKE '%BEGIN%PERFORM cronvec.assert_definer(''' || proname || ''');%'";
    assert_eq!(
        system.value(guarded).await,
        json!([
            "source_1_count",
            "source_1_lock",
            "source_1_named",
            "source_1_rows",
            "source_1_set",
            "source_1_there"
        ])
    );
    // The writers' own rights on our functions are gone, and nobody needs them.
    let late = Role::create(system, "late").await;
    system.run_sql(&format!("GRANT ALL ON articles TO {}", late.name)).await;
    for (role, id) in [(&former.roles[2], 1), (&late, 2)] {
        let user = role.connect().await;
        let changed = format!("UPDATE articles SET title = 'changed' WHERE id = {id}");
        user.batch_execute(&changed).await.unwrap();
        let take = "SELECT cronvec.source_1_take(NULL, NULL, NULL, ARRAY['3'])";
        let error = format!("{:?}", user.batch_execute(take).await.unwrap_err());
        assert!(error.contains("permission denied"), "{error}");
    }
    // A worker with the migrator's role, which is no more than a member of nothing.
    system
        .run_sql(&format!(
            "REVOKE {} FROM {}",
            former.roles[1].name, former.roles[0].name
        ))
        .await;
    // A row whose end nobody noticed before: nobody knows whether its record came from it.
    system
        .run_sql("ALTER TABLE articles DISABLE TRIGGER USER; DELETE FROM articles WHERE id = 20; ALTER TABLE articles ENABLE TRIGGER USER")
        .await;
    for _ in 0..3 {
        of_migrator.reconcile_slice(source.id, MOST_BYTES).await.unwrap();
    }
    let after = texts(system).await;
    assert_eq!(after.as_object().unwrap().len(), 21);
    assert_eq!(
        (&after["1"], &after["2"], &after["note"]),
        (&json!("changed"), &json!("changed"), &json!("a note"))
    );
    let strangers = "SELECT jsonb_agg(id ORDER BY id) FROM cronvec.records WHERE source_id IS DISTINCT FROM 1";
    assert_eq!(system.value(strangers).await, json!(["20", "note"]));
    system.vectorize().await;
    assert_eq!(system.count("SELECT count(v) FROM articles").await, 19);
    drop(of_migrator);
    late.leave(system).await;
    former.leave().await;
}

#[tokio::test]
async fn functions_that_the_migration_may_not_alter_stay_as_they_are_and_doctor_tells_how_to_go_on() {
    let mut former = Former::new(false).await;
    assert!(migrate::up(&mut former.migrator).await.unwrap().contains(&10));
    let system = &former.system;
    let of_migrator = Store::new(store::Database::at(&former.roles[0].url, 2).unwrap());
    // As before.
    let user = former.roles[2].connect().await;
    user.batch_execute("UPDATE articles SET title = 'changed' WHERE id = 1")
        .await
        .unwrap();
    assert_eq!(texts(system).await["1"], "changed");

    let source = system.store.source(PROJECT).await.unwrap();
    let faults = of_migrator.source_faults(&source).await.unwrap();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        faults[0].fails && faults[0].found.contains("source_1_event"),
        "{faults:?}"
    );
    let secure = faults[0].mend.strip_prefix("as a superuser: ").unwrap();
    system.run_sql(secure).await;
    let faults = of_migrator.source_faults(&source).await.unwrap();
    assert!(
        faults.len() == 1 && !faults[0].fails && faults[0].found.contains("was attached by an older version"),
        "{faults:?}"
    );
    user.batch_execute("UPDATE articles SET title = 'again' WHERE id = 1")
        .await
        .unwrap();
    assert_eq!(texts(system).await["1"], "again");
    pass(system, &source).await;
    drop((user, of_migrator));
    former.leave().await;
}
