use cronvec_tests::database::{Database, connect, server};

async fn exists(name: &str) -> bool {
    let client = connect(&server().await.url("postgres")).await;
    let sql = format!("SELECT 1 FROM pg_database WHERE datname = '{name}'");
    !client.query_typed(&sql, &[]).await.unwrap().is_empty()
}

#[tokio::test]
async fn a_fresh_database_has_the_schema_and_pgvector() {
    let database = Database::fresh().await;
    let client = database.client().await;
    client
        .batch_execute("CREATE TABLE t (v vector(3)); INSERT INTO t VALUES ('[1,2,3]')")
        .await
        .unwrap();
    let row = client
        .query_typed("SELECT (v <-> '[1,2,5]')::float8, current_schemas(false) FROM t", &[])
        .await
        .unwrap();
    assert_eq!(row[0].get::<_, f64>(0), 2.0);
    let schema = client
        .query_typed("SELECT 1 FROM pg_namespace WHERE nspname = 'cronvec'", &[])
        .await
        .unwrap();
    assert_eq!(schema.len(), 1);
}

#[tokio::test]
async fn two_tests_do_not_see_each_other() {
    let (one, two) = tokio::join!(Database::fresh(), Database::fresh());
    one.client().await.batch_execute("CREATE TABLE mine ()").await.unwrap();
    assert!(two.client().await.batch_execute("SELECT FROM mine").await.is_err());
}

#[tokio::test]
async fn a_database_goes_with_its_test_even_when_that_panics_while_connected() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let panicked = tokio::spawn(async move {
        let database = Database::fresh().await;
        let client = database.client().await;
        client.batch_execute("BEGIN").await.unwrap();
        tell.send(database.name().to_owned()).unwrap();
        panic!("as a failing test does");
    })
    .await;
    assert!(panicked.is_err());
    assert!(!exists(&told.await.unwrap()).await);
}

#[tokio::test]
async fn an_empty_database_has_no_schema() {
    let database = Database::empty().await;
    assert!(exists(database.name()).await);
    let client = database.client().await;
    let schema = client
        .query_typed("SELECT 1 FROM pg_namespace WHERE nspname = 'cronvec'", &[])
        .await
        .unwrap();
    assert!(schema.is_empty());
}
