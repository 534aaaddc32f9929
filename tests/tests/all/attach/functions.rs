//! Whose rights the schema's functions have, and that nobody gets more by them than is his.

use cronvec_store::sources::NewSource;
use cronvec_tests::system::{PROJECT, System};
use serde_json::json;

use super::rights::Role;
use super::{MOST_BYTES, articles, attach, create_articles, pass};

/// Functions that look for names where somebody else may put some. Those with a body that was parsed once look nowhere.
const CARELESS: &str = "
    SELECT coalesce(jsonb_agg(p.proname ORDER BY p.proname), '[]') FROM pg_proc p
    LEFT JOIN LATERAL (
        SELECT string_to_array(substr(c.setting, 13), ', ') AS schemas FROM unnest(p.proconfig) AS c (setting)
        WHERE starts_with(c.setting, 'search_path=')) AS s ON true
    WHERE p.pronamespace = 'cronvec'::regnamespace AND p.prosqlbody IS NULL AND (
        s.schemas IS NULL OR s.schemas[1] <> 'pg_catalog' OR s.schemas[cardinality(s.schemas)] <> 'pg_temp'
        OR EXISTS (
            SELECT FROM unnest(s.schemas) AS u (name) LEFT JOIN pg_namespace n ON n.nspname = u.name
            WHERE u.name <> 'pg_temp' AND (n.oid IS NULL OR EXISTS (
                SELECT FROM pg_roles r
                WHERE NOT r.rolsuper AND r.oid <> n.nspowner AND has_schema_privilege(r.oid, n.oid, 'CREATE')))))";

/// Whatever runs somebody's code writes down as whom it does.
async fn watch(system: &System) {
    system
        .run_sql(
            "CREATE TABLE public.seen (role name NOT NULL DEFAULT current_user); GRANT INSERT ON public.seen TO PUBLIC",
        )
        .await;
}

async fn seen(system: &System) -> serde_json::Value {
    system
        .value("SELECT coalesce(jsonb_agg(DISTINCT role), '[]') FROM public.seen")
        .await
}

/// Operators of a role's own, which stand in `public`, of all types that our statements compare.
fn operators() -> String {
    let mut sql = String::new();
    for (nth, (name, left, right)) in [
        ("=", "integer", "integer"),
        ("<>", "integer", "integer"),
        ("=", "text", "text"),
        ("=", "bytea", "bytea"),
        ("<>", "bytea", "bytea"),
        (">", "double precision", "integer"),
        (">", "double precision", "double precision"),
        ("-", "integer", "double precision"),
    ]
    .into_iter()
    .enumerate()
    {
        let result = if name == "-" { "double precision" } else { "boolean" };
        sql += &format!(
            "CREATE FUNCTION public.evil_{nth}(a {left}, b {right}) RETURNS {result} LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.seen DEFAULT VALUES; RETURN a OPERATOR(pg_catalog.{name}) b; END $$;
             CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.evil_{nth});"
        );
    }
    sql
}

#[tokio::test]
async fn no_function_looks_for_names_where_others_may_create() {
    let system = System::embedding_in_process().await;
    let (owner, app) = (Role::create(&system, "owner").await, Role::create(&system, "app").await);
    create_articles(&system, 1).await;
    system
        .run_sql(&format!(
            "ALTER TABLE articles OWNER TO {0}; ALTER TABLE articles ADD v vector(256);
             GRANT CREATE ON SCHEMA public TO {1}; CREATE SCHEMA apps; GRANT CREATE ON SCHEMA apps TO {1}",
            owner.name, app.name
        ))
        .await;
    let new = NewSource {
        metadata: Some("views"),
        filter: Some("views < 10"),
        embedding_column: Some("v"),
        forgets: true,
        ..articles()
    };
    attach(&system, &new).await.unwrap();
    assert_eq!(system.value(CARELESS).await, json!([]));

    // It finds what it is there for.
    system
        .run_sql(
            "CREATE FUNCTION cronvec.anywhere() RETURNS int LANGUAGE sql AS 'SELECT 1';
             CREATE FUNCTION cronvec.first() RETURNS int LANGUAGE sql SET search_path = cronvec, pg_catalog, pg_temp AS 'SELECT 1';
             CREATE FUNCTION cronvec.last() RETURNS int LANGUAGE sql SET search_path = pg_catalog, apps, pg_temp AS 'SELECT 1';
             CREATE FUNCTION cronvec.temporary() RETURNS int LANGUAGE sql SET search_path = pg_catalog, cronvec AS 'SELECT 1';
             CREATE FUNCTION cronvec.right() RETURNS int LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT 1'",
        )
        .await;
    let found = json!(["anywhere", "first", "last", "temporary"]);
    assert_eq!(system.value(CARELESS).await, found);
    for role in [app, owner] {
        role.leave(&system).await;
    }
}

#[tokio::test]
async fn operators_of_a_role_that_may_create_in_public_are_run_by_no_search() {
    let system = System::embedding_in_process().await;
    watch(&system).await;
    system.put(PROJECT, "a", "Water the tomatoes.").await;
    system.vectorize().await;
    let app = Role::create(&system, "app").await;
    system
        .run_sql(&format!(
            "GRANT CREATE ON SCHEMA public TO {0}; GRANT USAGE ON SCHEMA cronvec TO {0};
             GRANT EXECUTE ON FUNCTION cronvec.put_record, cronvec.delete_record, cronvec.search TO {0}",
            app.name
        ))
        .await;
    let user = app.connect().await;
    user.batch_execute(&operators()).await.unwrap();
    user.batch_execute(
        "SET search_path = public, pg_catalog;
         SELECT cronvec.search('articles', array_fill(0.1, ARRAY[256])::vector, 10);
         SELECT cronvec.put_record('articles', 'b', 'a text'); SELECT cronvec.delete_record('articles', 'b')",
    )
    .await
    .unwrap();
    assert_eq!(seen(&system).await, json!([]));
    drop(user);
    app.leave(&system).await;
}

#[tokio::test]
async fn operators_of_a_role_that_may_write_an_attached_table_are_run_by_no_worker() {
    let system = System::embedding_in_process().await;
    watch(&system).await;
    create_articles(&system, 1).await;
    let source = attach(&system, &articles()).await.unwrap();
    let app = Role::create(&system, "app").await;
    system
        .run_sql(&format!(
            "GRANT CREATE ON SCHEMA public TO {0}; GRANT INSERT ON articles TO {0}",
            app.name
        ))
        .await;
    let user = app.connect().await;
    user.batch_execute(&operators()).await.unwrap();
    // So many are only named, and read by the worker.
    user.batch_execute("INSERT INTO articles SELECT n, 'many ' || n FROM generate_series(2, 2100) AS n")
        .await
        .unwrap();
    assert_eq!(
        system.store.take_note(source.id, MOST_BYTES).await.unwrap(),
        Some(1_000)
    );
    pass(&system, &source).await;
    assert_eq!(seen(&system).await, json!([]));
    drop(user);
    app.leave(&system).await;
}

#[tokio::test]
async fn whatever_an_owner_makes_of_its_functions_they_run_with_its_rights_or_not_at_all() {
    let system = System::embedding_in_process().await;
    watch(&system).await;
    let (owner, app) = (Role::create(&system, "owner").await, Role::create(&system, "app").await);
    create_articles(&system, 3).await;
    system
        .run_sql(&format!(
            "ALTER TABLE articles OWNER TO {0}; GRANT INSERT ON articles TO {1};
             CREATE SCHEMA evil AUTHORIZATION {0}; GRANT USAGE ON SCHEMA evil TO PUBLIC",
            owner.name, app.name
        ))
        .await;
    let user = owner.connect().await;
    user.batch_execute(
        "CREATE FUNCTION evil.rendered(t text) RETURNS text LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen DEFAULT VALUES; RETURN t; END $$;
         CREATE FUNCTION evil.unnest(ids text[]) RETURNS SETOF text LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.seen DEFAULT VALUES; RETURN QUERY SELECT pg_catalog.unnest(ids); END $$",
    )
    .await
    .unwrap();
    let new = NewSource {
        text: "evil.rendered(title)",
        ..articles()
    };
    let source = attach(&system, &new).await.unwrap();
    app.connect()
        .await
        .batch_execute("INSERT INTO articles VALUES (4, 'of the app')")
        .await
        .unwrap();
    let only_owner = json!([owner.name]);
    assert_eq!(
        seen(&system).await,
        only_owner,
        "neither as the worker nor as who writes"
    );

    let there = "ALTER FUNCTION cronvec.source_1_there(text[])";
    user.batch_execute(&format!("{there} SET search_path = evil, pg_catalog"))
        .await
        .unwrap();
    system.store.begin_pass(source.id, false).await.unwrap();
    pass(&system, &source).await;
    assert_eq!(seen(&system).await, only_owner);

    for (more, back) in [
        ("SECURITY INVOKER", ""),
        ("SECURITY INVOKER SET role = %", "RESET role"),
        (
            "SECURITY INVOKER SET session_authorization = %",
            "RESET session_authorization",
        ),
    ] {
        let alter = format!("{there} {}", more.replace('%', &owner.name));
        user.batch_execute(&alter).await.unwrap();
        system.store.begin_pass(source.id, false).await.unwrap();
        let mut outcome = Ok(());
        for _ in 0..3 {
            outcome = outcome.and(system.store.reconcile_slice(source.id, MOST_BYTES).await.map(|_| ()));
        }
        let error = outcome.expect_err(more).to_string();
        assert!(
            error.contains("does not run with the rights of its owner"),
            "{more}: {error}"
        );
        assert_eq!(seen(&system).await, only_owner, "{more}");
        user.batch_execute(&format!("{there} SECURITY DEFINER {back}"))
            .await
            .unwrap();
    }
    system.store.begin_pass(source.id, false).await.unwrap();
    pass(&system, &source).await;
    drop(user);
    for role in [app, owner] {
        role.leave(&system).await;
    }
}

#[tokio::test]
async fn a_look_before_attaching_lends_nobodys_rights_to_an_expression() {
    let system = System::embedding_in_process().await;
    let owner = Role::create(&system, "owner").await;
    create_articles(&system, 3).await;
    // A sequence keeps its number when a look is rolled back.
    system
        .run_sql(&format!(
            "ALTER TABLE articles ADD v vector(256) DEFAULT array_fill(1, ARRAY[256])::vector;
             ALTER TABLE articles OWNER TO {0}; CREATE SEQUENCE public.lent; GRANT USAGE ON SEQUENCE public.lent TO PUBLIC;
             CREATE SCHEMA evil AUTHORIZATION {0}; GRANT USAGE ON SCHEMA evil TO PUBLIC;
             CREATE FUNCTION evil.rendered(t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 IF current_user <> '{0}' THEN PERFORM nextval('public.lent'); END IF; RETURN t; END $$",
            owner.name
        ))
        .await;
    let new = NewSource {
        text: "evil.rendered(title)",
        filter: Some("evil.rendered(body) <> ''"),
        embedding_column: Some("v"),
        adopt: Some("minilm-static-256"),
        ..articles()
    };
    let project = system.store.project(PROJECT).await.unwrap();
    let space = &system.settings.embedding.new_space;
    system
        .store
        .put_record(
            &cronvec_store::records::NewRecord {
                project: PROJECT,
                id: "1",
                content: "a text",
                metadata: "{}",
            },
            None,
        )
        .await
        .unwrap();
    // Nothing of the table is adopted: each text that would be embedded is read, with the owner's rights.
    let taking = NewSource {
        take_over: Some(i64::MAX),
        adopt: None,
        ..new
    };
    let preview = system
        .store
        .preview_attach(&taking, &project, space, None)
        .await
        .unwrap();
    assert_eq!((preview.rows, preview.is_exact, preview.sample.len()), (3, true, 3));
    assert_eq!(
        system
            .store
            .preview_take_over(&new, &project, space)
            .await
            .unwrap()
            .with_row,
        1
    );
    assert_eq!(
        system
            .store
            .sample_for_adoption(&new, &project, space)
            .await
            .unwrap()
            .len(),
        3
    );
    let lent = "SELECT is_called::int::bigint FROM public.lent";
    assert_eq!(system.count(lent).await, 0);
    system.run_sql("SELECT evil.rendered('as somebody else')").await;
    assert_eq!(system.count(lent).await, 1);
    owner.leave(&system).await;
}

#[tokio::test]
async fn a_table_of_the_workers_own_role_is_compared_whatever_it_logged_in_as() {
    let system = System::embedding_in_process().await;
    create_articles(&system, 3).await;
    let owner = Role::create(&system, "owner").await;
    system
        .run_sql(&format!(
            "ALTER TABLE articles OWNER TO {0}; GRANT USAGE ON SCHEMA cronvec TO {0};
             GRANT ALL ON ALL TABLES IN SCHEMA cronvec TO {0}; GRANT ALL ON ALL SEQUENCES IN SCHEMA cronvec TO {0};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA cronvec TO {0}",
            owner.name
        ))
        .await;
    let source = attach(&system, &articles()).await.unwrap();
    let of_owner = cronvec_store::Store::new(cronvec_store::Database::at(&owner.url, 1).unwrap());
    of_owner.begin_pass(source.id, false).await.unwrap();
    of_owner.reconcile_slice(source.id, MOST_BYTES).await.unwrap();
    assert_eq!(of_owner.coverage(PROJECT).await.unwrap().total, 3);
    drop(of_owner);
    owner.leave(&system).await;
}
