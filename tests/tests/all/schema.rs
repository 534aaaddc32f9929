//! The schema: made, checked, taken away.

use cronvec_secrets::Secrets;
use cronvec_store::migrate::{self, SchemaError, VERSION};
use cronvec_store::{self as store, Store, StoreError};
use cronvec_tests::database::Database;
use cronvec_tests::system::{PROJECT, System, settings};
use serde_json::json;
use tokio_postgres::Client;

fn store_of(database: &Database) -> Store {
    Store::new(store::Database::at(database.url(), 2).unwrap())
}

/// What someone reads who starts a program on it.
async fn complaint(database: &Database) -> Option<String> {
    store_of(database)
        .check_schema()
        .await
        .err()
        .map(|error| error.to_string())
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_typed(sql, &[]).await.unwrap()[0].get(0)
}

async fn exists(client: &Client, what: &str) -> bool {
    let rows = client
        .query_typed(&format!("SELECT {what} IS NOT NULL"), &[])
        .await
        .unwrap();
    rows[0].get(0)
}

#[tokio::test]
async fn migrations_are_applied_once_also_by_two_at_once() {
    let database = Database::empty().await;
    let (mut one, mut two) = (database.client().await, database.client().await);
    let (first, second) = tokio::join!(migrate::up(&mut one), migrate::up(&mut two));
    let mut applied = [first.unwrap(), second.unwrap()].concat();
    applied.sort_unstable();
    let status = migrate::status(&one).await.unwrap();
    let all: Vec<i32> = status.iter().map(|migration| migration.version).collect();
    assert!(all.is_sorted() && all.last() == Some(&VERSION), "{all:?}");
    // Each migration is a transaction of its own: they may divide them.
    assert_eq!(applied, all, "each was completed once");

    assert!(migrate::up(&mut one).await.unwrap().is_empty());
    assert!(migrate::status(&one).await.unwrap().iter().all(|one| one.applied));
    migrate::verify(&one).await.unwrap();
    assert_eq!(complaint(&database).await, None);
}

#[tokio::test]
async fn a_former_schema_is_brought_up_with_its_records_or_left_when_a_user_is_in_the_way() {
    let database = Database::empty().await;
    migrate::up_to(&mut database.client().await, 2).await.unwrap();
    // As a program of that time wrote it.
    let spec = settings(database.url(), &[]).embedding.new_space;
    let space = store_of(&database).ensure_space(&spec).await.unwrap();
    let (mut migrator, user) = (database.client().await, database.client().await);
    user.batch_execute(&format!(
        "INSERT INTO cronvec.projects (name, live_space) VALUES ('{PROJECT}', {});
         SELECT cronvec.put_record('{PROJECT}', 'a', 'a text')",
        space.id
    ))
    .await
    .unwrap();
    user.batch_execute("BEGIN; SELECT cronvec.put_record('articles', 'b', 'another text')")
        .await
        .unwrap();
    let objects = "SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'cronvec'::regnamespace";
    let before = count(&user, objects).await;
    let error = migrate::up(&mut migrator).await.unwrap_err().to_string();
    assert!(
        error.contains("migration 3 (pending) can't get its locks") && error.contains("cronvec migrate up"),
        "{error}"
    );
    let pid = count(&user, "SELECT pg_backend_pid()::bigint").await;
    assert!(error.contains(&format!("process {pid} ")), "{error}");
    assert_eq!(count(&user, objects).await, before, "nothing of it is left");
    user.batch_execute("COMMIT").await.unwrap();

    let applied = migrate::up(&mut migrator).await.unwrap();
    let known = migrate::status(&migrator).await.unwrap();
    let missed: Vec<i32> = known
        .iter()
        .map(|one| one.version)
        .filter(|version| *version >= 3)
        .collect();
    assert_eq!(applied, missed);
    migrate::verify(&migrator).await.unwrap();
    drop((migrator, user));
    assert_eq!(System::on(database, &[]).await.vectorize().await.records, 2);
}

#[tokio::test]
async fn a_missing_schema_is_told_with_the_command_that_makes_it() {
    let database = Database::empty().await;
    let client = database.client().await;
    let command = "run: cronvec migrate up";
    assert!(complaint(&database).await.unwrap().contains(command));
    assert!(
        migrate::verify(&client)
            .await
            .unwrap_err()
            .to_string()
            .contains(command)
    );
    assert!(migrate::status(&client).await.unwrap().iter().all(|one| !one.applied));
    // Each program says so when it starts.
    let settings = settings(database.url(), &[]);
    let secrets = Secrets::without_aws();
    let refusals = [
        ingestion::Worker::connect(&settings, &secrets).await.err(),
        vectorization::Worker::connect(&settings, &secrets).await.err(),
        cleanup::Worker::connect(&settings, &secrets).await.err(),
    ];
    for refusal in refusals {
        assert!(refusal.unwrap().to_string().contains(command));
    }
}

#[tokio::test]
async fn a_schema_of_another_version_is_told_with_what_mends_it() {
    let database = Database::fresh().await;
    let mut client = database.client().await;
    client
        .batch_execute("INSERT INTO cronvec.migrations (version, name, checksum) VALUES (1000, 'future', '')")
        .await
        .unwrap();
    let newer = complaint(&database).await.unwrap();
    assert!(
        newer.contains("version 1000") && newer.contains(&VERSION.to_string()) && newer.contains("use a newer cronvec"),
        "{newer}"
    );
    assert!(matches!(
        migrate::up(&mut client).await,
        Err(StoreError::Schema(SchemaError::TooNew { found: 1000, .. }))
    ));
    assert!(matches!(
        migrate::verify(&client).await,
        Err(StoreError::Schema(SchemaError::TooNew { .. }))
    ));

    client
        .batch_execute(&format!("DELETE FROM cronvec.migrations WHERE version >= {VERSION}"))
        .await
        .unwrap();
    let older = complaint(&database).await.unwrap();
    assert!(older.contains("run: cronvec migrate up"), "{older}");
}

#[tokio::test]
async fn verify_finds_what_was_changed_by_hand_and_lets_spaces_and_additions_be() {
    let system = System::embedding_in_process().await;
    let mut client = system.database.client().await;
    let verified = async |client: &Client| migrate::verify(client).await.map_err(|error| error.to_string());
    // A space has partitions; an operator may have an index of his own.
    client
        .batch_execute("CREATE INDEX my_own ON cronvec.records (created_at); CREATE TABLE cronvec.mine (a int)")
        .await
        .unwrap();
    verified(&client).await.unwrap();

    let changes = [
        ("DROP INDEX cronvec.job_queue_line", "index job_queue_line"),
        (
            "ALTER TABLE cronvec.job_queue DROP CONSTRAINT job_queue_lease",
            "constraint job_queue_lease of job_queue",
        ),
        (
            "ALTER TABLE cronvec.records ALTER position TYPE bigint",
            "column records.position int4 not null",
        ),
        (
            "ALTER TABLE cronvec.pending DROP COLUMN operation",
            "column pending.operation int8",
        ),
        (
            "CREATE OR REPLACE FUNCTION cronvec.delete_record(project text, id text) RETURNS boolean
             LANGUAGE plpgsql AS 'BEGIN RETURN true; END'",
            "function delete_record of 2 arguments",
        ),
        ("DROP VIEW cronvec.quarantine", "column quarantine.reason text"),
        ("DROP TABLE cronvec.provider_pauses", "constraint provider_pauses_pkey"),
    ];
    for (change, found) in changes {
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(change).await.unwrap();
        let complaint = verified(transaction.client()).await.expect_err(change);
        assert!(
            complaint.contains("changed by hand") && complaint.contains(found),
            "{change}: {complaint}"
        );
        transaction.rollback().await.unwrap();
    }
    verified(&client).await.unwrap();

    client
        .batch_execute("UPDATE cronvec.migrations SET checksum = 'another' WHERE version = 1")
        .await
        .unwrap();
    assert!(verified(&client).await.unwrap_err().contains("migration 1"));
}

/// A role without rights, as which the connection goes on. Roles are the whole server's.
struct Limited {
    client: Client,
    name: String,
}

impl Limited {
    async fn on(database: &Database) -> Self {
        let client = database.client().await;
        // Of tests that failed: their databases are gone.
        let abandoned = "SELECT r.rolname::text FROM pg_roles r WHERE r.rolname LIKE 'limited\\_test\\_%'
                AND NOT EXISTS (SELECT FROM pg_database d WHERE 'limited_' || d.datname = r.rolname)";
        for row in client.query_typed(abandoned, &[]).await.unwrap() {
            let drop = format!("DROP ROLE IF EXISTS {}", row.get::<_, &str>(0));
            let _ = client.batch_execute(&drop).await;
        }
        let name = format!("limited_{}", database.name());
        client.batch_execute(&format!("CREATE ROLE {name}")).await.unwrap();
        Self { client, name }
    }

    async fn as_superuser(&self, sql: &str) {
        let sql = sql.replace("$role", &self.name);
        self.client.batch_execute(&format!("RESET ROLE; {sql}")).await.unwrap();
    }

    async fn up(&mut self) -> Result<Vec<i32>, String> {
        self.client
            .batch_execute(&format!("SET ROLE {}", self.name))
            .await
            .unwrap();
        migrate::up(&mut self.client).await.map_err(|error| error.to_string())
    }

    async fn leave(self) {
        self.as_superuser("DROP OWNED BY $role CASCADE; DROP ROLE $role").await;
    }
}

#[tokio::test]
async fn a_role_without_the_rights_is_told_which_it_needs() {
    let database = Database::empty().await;
    let mut role = Limited::on(&database).await;
    let refused = role.up().await.unwrap_err();
    assert!(
        refused.contains("may not create a schema") && refused.contains("GRANT CREATE ON DATABASE"),
        "{refused}"
    );

    let grant = format!("GRANT CREATE ON DATABASE {} TO $role", database.name());
    role.as_superuser(&grant).await;
    let refused = role.up().await.unwrap_err();
    assert!(
        refused.contains("may not create the extension 'vector'") && refused.contains("CREATE EXTENSION vector"),
        "{refused}"
    );

    // It needs no more than these two, and nothing is left of the attempts.
    role.as_superuser("CREATE EXTENSION vector SCHEMA public").await;
    let all = migrate::status(&role.client).await.unwrap().len();
    assert_eq!(role.up().await.unwrap().len(), all);
    migrate::verify(&role.client).await.unwrap();

    // A schema of somebody else's.
    role.as_superuser("DROP SCHEMA cronvec CASCADE; CREATE SCHEMA cronvec")
        .await;
    let refused = role.up().await.unwrap_err();
    assert!(refused.contains("permission denied for schema cronvec"), "{refused}");
    role.leave().await;
}

#[tokio::test]
async fn uninstall_takes_all_of_ours_and_nothing_of_the_users() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "a", "a text").await;
    system.vectorize().await;
    system
        .run_sql("CREATE TABLE public.items (id int, embedding public.vector(3)); INSERT INTO public.items VALUES (1, '[1,2,3]')")
        .await;
    let client = system.database.client().await;
    migrate::uninstall(&client).await.unwrap();
    assert!(!exists(&client, "to_regnamespace('cronvec')").await);
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_class WHERE relname LIKE 'chunks%' OR relname LIKE 'job_queue%'")
            .await,
        0
    );
    assert_eq!(
        system
            .value("SELECT (embedding <-> '[1,2,5]')::int FROM public.items")
            .await,
        2
    );
    assert_eq!(
        system
            .value("SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'")
            .await,
        "public"
    );
    // Gone is gone, and it can come back.
    migrate::uninstall(&client).await.unwrap();
    let mut client = client;
    let all = migrate::status(&client).await.unwrap().len();
    assert_eq!(migrate::up(&mut client).await.unwrap().len(), all);
}

#[tokio::test]
async fn tables_and_views_have_the_columns_that_scripts_rely_on_and_show_what_is_meant() {
    let system = System::embedding_in_process().await;
    system.put(PROJECT, "good", "Water the tomatoes.").await;
    system.put(PROJECT, "odd", "⟁⟁⟁").await;
    let report = system.vectorize().await;
    assert_eq!((report.records, report.quarantined), (1, 1));
    let shown = system
        .value(
            "SELECT to_jsonb(e) - 'embedding' - 'embedded_at' || jsonb_build_object('width', vector_dims(embedding),
                 'fresh', embedded_at > now() - interval '1 minute') FROM cronvec.embeddings e",
        )
        .await;
    let spec = &system.settings.embedding.new_space;
    assert_eq!(
        shown,
        json!({
            "project": PROJECT, "record_id": "good", "ordinal": 0, "content": "Water the tomatoes.", "metadata": {},
            "model": spec.model, "dimensions": spec.dimensions, "stale": false, "width": spec.dimensions, "fresh": true
        })
    );
    let aside = system
        .value("SELECT to_jsonb(q) - 'last_attempt_at' - 'message' FROM cronvec.quarantine q")
        .await;
    assert_eq!(
        aside,
        json!({"project": PROJECT, "record_id": "odd", "reason": "no_known_words", "attempts": 1})
    );

    let client = &system.sql;
    let promised = [
        (
            "job_queue",
            "id, job_type, project, status, priority, attempts, max_attempts, payload, progress, result, scheduled_for, created_at, started_at, completed_at",
        ),
        (
            "embeddings",
            "project, record_id, ordinal, content, metadata, model, dimensions, embedding, stale, embedded_at",
        ),
        (
            "quarantine",
            "project, record_id, reason, message, attempts, last_attempt_at",
        ),
        (
            "audit_log",
            "timestamp, level, category, message, metadata, operation_id",
        ),
        (
            "worker_status",
            "name, is_running, last_seen_at, last_duration_ms, last_result",
        ),
        ("performance_metrics", "timestamp, metric, value, project"),
    ];
    for (relation, columns) in promised {
        let rows = client
            .query_typed(&format!("SELECT {columns} FROM cronvec.{relation}"), &[])
            .await;
        assert!(rows.is_ok(), "{relation}: {rows:?}");
    }
    for (view, columns) in promised
        .iter()
        .filter(|(name, _)| ["embeddings", "quarantine"].contains(name))
    {
        let rows = client
            .query_typed(
                &format!(
                    "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
                     WHERE attrelid = 'cronvec.{view}'::regclass AND attnum > 0"
                ),
                &[],
            )
            .await
            .unwrap();
        assert_eq!(rows[0].get::<_, &str>(0), *columns, "no more and no less");
    }
    let types = client
        .query_typed(
            "SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = 'cronvec.embeddings'::regclass AND attname IN ('embedding', 'stale', 'metadata')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        types[0].get::<_, &str>(0),
        "metadata jsonb, embedding vector, stale boolean"
    );
}
