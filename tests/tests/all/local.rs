use cronvec_tests::conditions::eventually;
use cronvec_tests::database::{connect, server};
use cronvec_tests::process::Process;

#[tokio::test]
async fn runs_share_one_server_and_a_killed_one_takes_nothing_from_the_others() {
    let ours = server().await;
    let mut first = Process::spawn("local-server", &[], &[]).await;
    // Standard input is empty: it leaves at once, and we stay.
    assert!(first.wait().await.success(), "{}", first.stderr());
    eventually("its address was read", || async { first.stdout().ends_with('\n') }).await;
    assert_eq!(first.stdout().trim(), ours.url("postgres"));
    let mut second = Process::spawn("local-server", &["--hold"], &[]).await;
    eventually("it has joined", || async { second.stdout().contains("postgres://") }).await;
    second.kill().await;
    let client = connect(&ours.url("postgres")).await;
    assert_eq!(client.query_typed("SELECT 1", &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_database_can_be_asked_for_twice() {
    let server = server().await;
    let name = format!("asked_for_{:08x}", rand::random::<u32>());
    for _ in 0..2 {
        server.create_database(&name).unwrap();
    }
    connect(&server.url("postgres"))
        .await
        .batch_execute(&format!("DROP DATABASE {name}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_server_takes_no_wrong_password() {
    let server = server().await;
    let (_, password) = server.credentials();
    let wrong = server.url("postgres").replace(password, "wrong");
    assert!(tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err());
}
