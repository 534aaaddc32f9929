//! Whom a program sends its password to.

use cronvec_tests::database::{Database, server};
use cronvec_tests::tls::{Made, TlsServer};

use super::{Cli, DONE, FAILED};

#[tokio::test]
async fn only_a_server_with_a_certificate_of_its_name_and_a_known_root_is_talked_to() {
    let database = Database::fresh().await;
    let (user, password) = server().await.credentials();
    let tls = TlsServer::named("localhost").await;
    let root = format!("&sslrootcert={}", tls.root().display());
    let at = |host: &str, options: &str| {
        let address = format!(
            "postgresql://{user}:{password}@{host}:{}/{}?{options}",
            tls.port(),
            database.name()
        );
        Cli { variables: Vec::new() }.with("DATABASE_URL", &address)
    };
    let up = "migrate up";
    // A root that the system doesn't know.
    at("localhost", "sslmode=verify-full")
        .refuses(
            up,
            FAILED,
            &[
                "certificate of localhost",
                "vouched for by nobody known",
                "sslrootcert=FILE",
            ],
        )
        .await;
    at("localhost", "sslmode=require")
        .refuses(up, FAILED, &["vouched for by nobody known"])
        .await;
    // Another host's certificate.
    at("127.0.0.1", &format!("sslmode=verify-full{root}"))
        .refuses(up, FAILED, &["certificate of 127.0.0.1", "is for another host"])
        .await;
    // The right root; and a name that is said not to matter, as through a tunnel.
    for (host, mode) in [
        ("localhost", "verify-full"),
        ("localhost", "require"),
        ("127.0.0.1", "verify-ca"),
    ] {
        let outcome = at(host, &format!("sslmode={mode}{root}")).run(up).await;
        assert_eq!(outcome.code(), Some(DONE), "{host} {mode}: {outcome:?}");
    }
}

#[tokio::test]
async fn what_psql_verifies_with_roots_that_are_given_is_verified() {
    let database = Database::fresh().await;
    let (user, password) = server().await.credentials();
    let other = TlsServer::named("localhost").await;
    for made in Made::ALL {
        let tls = TlsServer::made(made, "localhost").await;
        let at = |host: &str, options: &str| {
            let port = tls.port();
            let address = format!(
                "postgresql://{user}:{password}@{host}:{port}/{}?{options}",
                database.name()
            );
            Cli { variables: Vec::new() }.with("DATABASE_URL", &address)
        };
        let (up, root) = ("migrate up", format!("&sslrootcert={}", tls.root().display()));
        for (host, mode) in [
            ("localhost", "verify-full"),
            ("localhost", "require"),
            ("127.0.0.1", "verify-ca"),
        ] {
            let outcome = at(host, &format!("sslmode={mode}{root}")).run(up).await;
            assert_eq!(outcome.code(), Some(DONE), "{made:?} {host} {mode}: {outcome:?}");
        }
        // As a text, which also turns TLS on.
        let pem = std::fs::read_to_string(tls.root()).unwrap();
        let outcome = at("localhost", "").with("DATABASE_ROOT_CERT", &pem).run(up).await;
        assert_eq!(outcome.code(), Some(DONE), "{made:?}: {outcome:?}");
        at("127.0.0.1", &format!("sslmode=verify-full{root}"))
            .refuses(up, FAILED, &["certificate of 127.0.0.1", "is for another host"])
            .await;
        at("localhost", "sslmode=verify-ca")
            .refuses(
                up,
                FAILED,
                &["vouched for by nobody known", "sslrootcert=FILE", "DATABASE_ROOT_CERT"],
            )
            .await;
        let others = format!("sslmode=verify-ca&sslrootcert={}", other.root().display());
        at("localhost", &others)
            .refuses(
                up,
                FAILED,
                &["none of the roots in sslrootcert", "itself if it is self-signed"],
            )
            .await;
    }
}
