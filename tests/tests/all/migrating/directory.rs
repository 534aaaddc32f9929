//! A directory whose API enqueued a job with each create; the roles aren't superusers.

use cronvec_tests::database::connect;
use cronvec_tests::provider::{Answer, Provider};
use tokio_postgres::Client;

use super::{Reader, says};

/// The roles of the guide. A server's roles are all databases': each test has its own.
const ROLES: [&str; 3] = ["directory_owner", "directory_app", "embedder"];

const TEXTS: &str = "SELECT count(*) FROM cronvec.records WHERE content LIKE";
const INSERT: &str = "INSERT INTO businesses (name, description, category, city)";

async fn directory(provider: &Provider) -> Reader {
    let mut reader = Reader::with(provider).await;
    let database = reader.database.name().to_owned();
    for role in ROLES {
        reader.calls(role, &format!("{role}_{database}"));
    }
    reader.calls("app_database", &database);
    reader.calls("change me", "of-a-test");
    reader.takes_settings("directory: settings");
    reader.says("directory: schema").await;
    let fill = format!(
        "{INSERT} SELECT 'Business ' || n, 'What business ' || n || ' does.', 'trade', 'Town' FROM generate_series(1, 20) AS n;"
    );
    says(&reader.sql, &fill).await;
    reader
}

/// The database as one of the guide's roles.
fn url_as(reader: &Reader, role: &str) -> String {
    let url = reader.database.url();
    let (scheme, rest) = url.split_once("://").expect("a scheme");
    let (_, host) = rest.split_once('@').expect("credentials");
    format!("{scheme}://{}:of-a-test@{host}", reader.in_own_names(role))
}

async fn as_role(reader: &Reader, role: &str) -> Client {
    connect(&url_as(reader, role)).await
}

async fn attached(provider: &Provider) -> Reader {
    let mut reader = directory(provider).await;
    reader.says("directory: role").await;
    let url = url_as(&reader, "embedder");
    reader.set("DATABASE_URL", &url);
    reader.runs("directory: attach").await;
    reader.says("directory: rights").await;
    reader
}

/// Roles outlive their databases, unless they are taken away.
async fn leave(reader: Reader) {
    let mut parting = String::new();
    for role in ROLES.iter().rev() {
        parting += &format!("REASSIGN OWNED BY {role} TO CURRENT_USER;\nDROP OWNED BY {role} CASCADE;\n");
    }
    parting += "DROP ROLE directory_app, embedder, directory_owner;";
    says(&reader.sql, &reader.in_own_names(&parting)).await;
}

#[tokio::test]
async fn a_role_that_is_no_superuser_attaches_and_works_without_rights_on_the_table() {
    let provider = Provider::start().await;
    let reader = attached(&provider).await;
    let role = "SELECT count(*) FROM pg_roles WHERE rolsuper AND rolname = 'embedder'";
    assert_eq!(reader.count(&reader.in_own_names(role)).await, 0);
    reader.runs("directory: backfill").await;
    let filled = "SELECT count(embedding) FROM businesses";
    assert_eq!(
        (reader.coverage("businesses").await, reader.count(filled).await),
        ((20, 20, 100.0), 20)
    );

    // The API stores a business and calls nothing else.
    let app = as_role(&reader, "directory_app").await;
    app.batch_execute(&format!("{INSERT} VALUES ('Anew', 'It is new.', 'trade', 'Town')"))
        .await
        .unwrap();
    assert_eq!(reader.object("tick vectorization").await["records"], 1);
    assert_eq!(reader.count(filled).await, 21);
    let embedder = as_role(&reader, "embedder").await;
    for forbidden in ["UPDATE businesses SET name = 'x'", "SELECT FROM businesses"] {
        let outcome = embedder.batch_execute(forbidden).await;
        assert!(format!("{outcome:?}").contains("permission denied"), "{outcome:?}");
    }
    drop(embedder);

    says(&reader.sql, &reader.in_own_names("GRANT directory_owner TO embedder;")).await;
    reader.runs("directory: go back").await;
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'businesses'::regclass";
    assert_eq!((reader.count(triggers).await, reader.count(filled).await), (0, 21));
    drop(app);
    leave(reader).await;
}

#[tokio::test]
async fn without_rights_on_our_tables_no_write_fails_and_reconcile_finds_it() {
    let provider = Provider::start().await;
    let reader = attached(&provider).await;
    reader.runs("directory: backfill").await;
    let revoke = "REVOKE EXECUTE ON FUNCTION cronvec.source_1_take, cronvec.source_1_truncated FROM directory_owner;";
    says(&reader.sql, &reader.in_own_names(revoke)).await;
    let app = as_role(&reader, "directory_app").await;
    for write in [
        format!("{INSERT} VALUES ('Missed', 'Nobody noticed.', 'trade', 'Town')"),
        "UPDATE businesses SET name = 'Missed too' WHERE name = 'Business 1'".into(),
        "DELETE FROM businesses WHERE name = 'Business 2'".into(),
    ] {
        app.batch_execute(&write).await.unwrap();
    }
    assert_eq!(reader.count(&format!("{TEXTS} '%Missed%'")).await, 0);
    reader.runs("directory: reconcile").await;
    assert_eq!(reader.count(&format!("{TEXTS} '%Missed%'")).await, 2);
    assert_eq!(reader.coverage("businesses").await, (20, 20, 100.0));
    drop(app);
    leave(reader).await;
}

#[tokio::test]
async fn what_is_rejected_stands_in_a_list_that_is_read_with_sql_and_let_try_again() {
    let provider = Provider::start().await;
    provider.answer_containing("Business 7", Answer::rejected());
    let reader = attached(&provider).await;
    reader.runs("directory: backfill").await;
    assert_eq!(reader.coverage("businesses").await, (20, 19, 95.0));
    let dead = reader.says("directory: dead letters").await;
    assert_eq!((dead.len(), dead[0][1].as_deref()), (1, Some("rejected")), "{dead:?}");
    provider.behave();
    reader.runs("directory: replay").await;
    reader.object("tick vectorization").await;
    assert_eq!(reader.coverage("businesses").await, (20, 20, 100.0));
    leave(reader).await;
}
