//! What a search shows to roles that row-level security limits to their own rows.

use std::sync::Arc;

use cronvec_store::sources::NewSource;
use cronvec_store::{self as store, Store};
use cronvec_tests::system::{PROJECT, System};
use tokio_postgres::Client;

use super::rights::Role;
use super::{articles, attach};

/// Notes of two tenants in one table, each seeing its own: three of `one`, a hundred of `two`. All are embedded.
struct Tenants {
    system: System,
    owner: Role,
    one: Role,
    two: Role,
}

impl Tenants {
    async fn new() -> Self {
        let system = System::embedding_in_process().await;
        let owner = Role::create(&system, "owner").await;
        let (one, two) = (Role::create(&system, "one").await, Role::create(&system, "two").await);
        system
            .run_sql(&format!(
                "CREATE TABLE public.notes (tenant text, nr int, body text, PRIMARY KEY (tenant, nr));
                 INSERT INTO notes SELECT '{one}', n, 'Water the tomatoes ' || n || ' times.' FROM generate_series(1, 3) AS n;
                 INSERT INTO notes SELECT '{two}', n, 'Water the tomatoes ' || n || ' times.' FROM generate_series(1, 100) AS n;
                 ALTER TABLE notes OWNER TO {owner}; ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY own ON notes USING (tenant = current_user);
                 GRANT SELECT ON notes TO {one}, {two};
                 GRANT USAGE ON SCHEMA cronvec TO {one}, {two};
                 GRANT EXECUTE ON FUNCTION cronvec.search TO {one}, {two}",
                one = one.name,
                two = two.name,
                owner = owner.name
            ))
            .await;
        let new = NewSource {
            table: "notes",
            text: "body",
            metadata: Some("nr"),
            ..articles()
        };
        attach(&system, &new).await.unwrap();
        assert_eq!(system.vectorize().await.records, 103);
        Self {
            system,
            owner,
            one,
            two,
        }
    }

    async fn leave(self) {
        for role in [self.one, self.two, self.owner] {
            role.leave(&self.system).await;
        }
    }
}

/// How many are found, and how many of them are this role's.
async fn found(client: &Client, project: &str, role: &Role, rest: &str) -> (i64, i64) {
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE id LIKE '%{}%')
         FROM cronvec.search('{project}', array_fill(0.1, ARRAY[256])::vector, {rest})",
        role.name
    );
    let rows = client.query_typed(&sql, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    (rows[0].get(0), rows[0].get(1))
}

#[tokio::test]
async fn a_search_shows_a_tenant_its_own_rows_alone_however_near_the_others_are() {
    let tenants = Tenants::new().await;
    let (one, two) = (tenants.one.connect().await, tenants.two.connect().await);
    assert_eq!(found(&one, PROJECT, &tenants.one, "100").await, (3, 3));
    assert_eq!(
        found(&one, PROJECT, &tenants.one, "2").await,
        (2, 2),
        "the nearest of its own"
    );
    assert_eq!(found(&one, PROJECT, &tenants.one, "10, '{\"nr\": 2}'").await, (1, 1));
    assert_eq!(found(&two, PROJECT, &tenants.two, "1000").await, (100, 100));
    // Rights of rows are asked for at each search.
    tenants
        .system
        .run_sql(&format!(
            "UPDATE notes SET tenant = '{}' WHERE tenant = '{}' AND nr = 50",
            tenants.one.name, tenants.two.name
        ))
        .await;
    tenants.system.vectorize().await;
    assert_eq!(found(&one, PROJECT, &tenants.one, "100").await, (4, 4));
    // Who sees all rows finds all: the owner, and who bypasses policies.
    let system = &tenants.system;
    let (owner_name, two_name) = (&tenants.owner.name, &tenants.two.name);
    system
        .run_sql(&format!(
            "GRANT EXECUTE ON FUNCTION cronvec.search TO {owner_name}; ALTER ROLE {two_name} BYPASSRLS"
        ))
        .await;
    let owner = tenants.owner.connect().await;
    assert_eq!(found(&owner, PROJECT, &tenants.one, "1000").await, (103, 4));
    assert_eq!(found(&two, PROJECT, &tenants.one, "1000").await, (103, 4));
    assert_eq!(found(&system.sql, PROJECT, &tenants.one, "1000").await, (103, 4));
    drop((one, two, owner));
    tenants.leave().await;
}

#[tokio::test]
async fn nothing_that_search_reads_shows_more_than_it_does() {
    let tenants = Tenants::new().await;
    let system = &tenants.system;
    let stranger = Role::create(system, "stranger").await;
    system
        .run_sql(&format!(
            "GRANT USAGE ON SCHEMA cronvec TO {0}; GRANT SELECT ON notes TO {0};
             CREATE TABLE public.leaked (content text); GRANT INSERT, SELECT ON leaked TO PUBLIC; GRANT CREATE ON SCHEMA public TO {1}",
            stranger.name, tenants.one.name
        ))
        .await;
    let (one, other) = (tenants.one.connect().await, stranger.connect().await);
    let count = async |client: &Client, sql: &str| -> i64 {
        let rows = client
            .query_typed(sql, &[])
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows[0].get(0)
    };
    let views = [("searched_chunks", 0), ("visible_chunks", 3)];
    for (view, shown) in views {
        let all = format!("SELECT count(*) FROM cronvec.{view}");
        assert_eq!(count(&one, &all).await, shown, "{view}");
    }
    // Conditions of the reader's own see no row that isn't shown, cheap as they may be.
    one.batch_execute(
        "CREATE FUNCTION public.leak(content text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
             $$ BEGIN INSERT INTO public.leaked VALUES (content); RETURN true; END $$",
    )
    .await
    .unwrap();
    for (view, shown) in views {
        one.batch_execute(&format!("SELECT count(*) FROM cronvec.{view} WHERE leak(content)"))
            .await
            .unwrap();
        let leaked = system
            .count("WITH seen AS (DELETE FROM leaked RETURNING 1) SELECT count(*) FROM seen")
            .await;
        assert_eq!(leaked, shown, "{view}");
    }
    // Who may not execute the search sees nothing at all.
    for view in ["searched_chunks", "visible_chunks", "searched_spaces"] {
        assert_eq!(
            count(&other, &format!("SELECT count(*) FROM cronvec.{view}")).await,
            0,
            "{view}"
        );
    }
    let search = "SELECT FROM cronvec.search('articles', array_fill(0.1, ARRAY[256])::vector, 10)";
    let error = format!("{:?}", other.batch_execute(search).await.unwrap_err());
    assert!(error.contains("permission denied for function search"), "{error}");
    for forbidden in ["records", "chunks", "embedded", "sources", "projects"] {
        let error = one.batch_execute(&format!("SELECT FROM cronvec.{forbidden}")).await;
        assert!(
            format!("{error:?}").contains("permission denied"),
            "{forbidden}: {error:?}"
        );
    }
    // Who may not read the table is told so.
    system
        .run_sql(&format!(
            "GRANT EXECUTE ON FUNCTION cronvec.search TO {0}; REVOKE SELECT ON notes FROM {0}",
            stranger.name
        ))
        .await;
    let error = format!("{:?}", other.batch_execute(search).await.unwrap_err());
    assert!(error.contains("permission denied for table notes"), "{error}");
    drop((one, other));
    stranger.leave(system).await;
    tenants.leave().await;
}

#[tokio::test]
async fn other_projects_and_the_workers_need_no_rights_on_the_table() {
    let tenants = Tenants::new().await;
    let system = &tenants.system;
    system.create_project("kb").await;
    system.put("kb", "a", "Water the tomatoes.").await;
    system.vectorize().await;
    let one = tenants.one.connect().await;
    let (all, _) = found(&one, "kb", &tenants.one, "10").await;
    assert_eq!(all, 1);
    let error = one
        .batch_execute("SELECT FROM cronvec.search('nothing', '[1]'::vector, 10)")
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("cronvec has no project \\\"nothing\\\""),
        "{error:?}"
    );
    let error = one
        .batch_execute("SELECT FROM cronvec.search('kb', '[1]'::vector, 10)")
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("256 dimensions, this one has 1"),
        "{error:?}"
    );

    // The API's role reads the records themselves.
    let worker = Role::create(system, "worker").await;
    system
        .run_sql(&format!(
            "GRANT USAGE ON SCHEMA cronvec TO {0}; GRANT SELECT ON ALL TABLES IN SCHEMA cronvec TO {0};
             GRANT EXECUTE ON FUNCTION cronvec.search TO {0}",
            worker.name
        ))
        .await;
    let of_worker = Arc::new(Store::new(store::Database::at(&worker.url, 1).unwrap()));
    let live = of_worker.project(PROJECT).await.unwrap().live_space;
    let hits = of_worker
        .search(PROJECT, live, &vec![0.1_f32; 256].into(), 1000, None)
        .await
        .unwrap();
    assert_eq!(hits.len(), 103);
    drop((one, of_worker));
    worker.leave(system).await;
    tenants.leave().await;
}
