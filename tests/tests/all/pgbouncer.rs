use cronvec_tests::database::{Database, connect};
use cronvec_tests::pgbouncer::PgBouncer;

#[tokio::test]
async fn the_pooler_passes_unnamed_statements_and_shares_server_connections() {
    let Some(pooler) = PgBouncer::start().await else { return };
    let database = Database::fresh().await;
    let (one, two) = (
        connect(&pooler.url(&database)).await,
        connect(&pooler.url(&database)).await,
    );
    let mut backends = Vec::new();
    for client in [&one, &two] {
        let rows = client.query_typed("SELECT pg_backend_pid()", &[]).await.unwrap();
        backends.push(rows[0].get::<_, i32>(0));
    }
    // One after the other in transaction mode: the same connection served both.
    assert_eq!(backends[0], backends[1]);
}
