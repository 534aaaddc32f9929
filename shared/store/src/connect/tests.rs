//! Owns the tests of connections against a server that misbehaves on purpose. Refuses to need PostgreSQL.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[path = "../../../secrets/src/fake.rs"]
mod fake;

const AUTHENTICATED: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";
const SELECTED: &[u8] = b"C\0\0\0\x0dSELECT 1\0";

/// What the server does after the first bytes of a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Says that it has no TLS.
    Plain,
    /// Refuses the log-in with this code and message.
    Refuses(&'static str, &'static str),
    /// Lets everybody in; the first connections so many are answered once, and never again.
    DeadFirst(usize),
    /// Lets everybody in and says no more.
    Silent,
}

async fn serve(manner: Manner) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(attend(stream, manner, number));
        }
    });
    (port, accepted)
}

async fn attend(mut stream: TcpStream, manner: Manner, number: usize) {
    let mut buffer = vec![0; 4096];
    let _ = stream.read(&mut buffer).await;
    match manner {
        Manner::Plain => stream.write_all(b"N").await.unwrap(),
        Manner::Refuses(code, message) => {
            let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            stream
                .write_all(&[b"E", &length[..], fields.as_bytes()].concat())
                .await
                .unwrap();
        }
        Manner::DeadFirst(_) | Manner::Silent => {
            stream.write_all(&[AUTHENTICATED, READY].concat()).await.unwrap();
            let mut left = match manner {
                Manner::DeadFirst(dead) if number >= dead => usize::MAX,
                Manner::DeadFirst(_) => 1,
                _ => 0,
            };
            while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                if left > 0 {
                    left -= 1;
                    stream.write_all(&[SELECTED, READY].concat()).await.unwrap();
                }
            }
        }
    }
}

async fn refusal(manner: Manner, options: &str) -> ConnectError {
    let (port, _) = serve(manner).await;
    let url = format!("postgresql://app:hunter2@localhost:{port}/shop{options}");
    let error = Database::at(&url, 1).unwrap().get().await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    error
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_told_as_such() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = Database::at(&format!("postgresql://app@127.0.0.1:{port}/shop"), 1)
        .unwrap()
        .get()
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    let socket = Database::at("postgresql:///shop?host=/nowhere&user=app", 1)
        .unwrap()
        .get()
        .await
        .unwrap_err();
    assert!(matches!(socket, ConnectError::Refused { .. }), "{socket:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_as_such_where_tls_is_asked_for() {
    let error = refusal(Manner::Plain, "?sslmode=require").await;
    assert!(matches!(error, ConnectError::NoTls { .. }), "{error:?}");
    assert!(error.to_string().contains("sslmode=disable"));
}

#[tokio::test]
async fn each_refusal_of_server_and_pooler_has_its_own_advice() {
    for (code, message, advice) in [
        ("28P01", "password authentication failed", "correct user and password"),
        ("28000", "no pg_hba.conf entry for host, no encryption", "pg_hba.conf"),
        ("3D000", "database does not exist", "create it"),
        ("53300", "too many clients already", "max_connections"),
        ("57P03", "the database system is starting up", "try again"),
        ("08P01", "no such database: shop", "create it"),
        ("08P01", "unsupported startup parameter: options", "take `options` out"),
    ] {
        let error = refusal(Manner::Refuses(code, message), "").await;
        assert!(error.to_string().contains(advice), "{code}: {error}");
        assert!(is_unreachable(&error), "{code}");
    }
}

#[tokio::test]
async fn a_dead_socket_is_replaced_at_the_check() {
    let (port, accepted) = serve(Manner::DeadFirst(2)).await;
    let database = Database::at(&format!("postgresql://app@127.0.0.1:{port}/shop"), 2).unwrap();
    let both = (database.get().await.unwrap(), database.get().await.unwrap());
    drop(both);
    database.check().await.unwrap();
    assert_eq!(accepted.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_server_that_never_answers_fails_the_check_after_one_more_try() {
    let (port, accepted) = serve(Manner::Silent).await;
    let database = Database::at(&format!("postgresql://app@127.0.0.1:{port}/shop"), 2).unwrap();
    let error = database.check().await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error:?}");
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_rotated_password_is_read_again_when_the_old_one_is_refused() {
    let (closed, _) = serve(Manner::Refuses("28P01", "password authentication failed")).await;
    let (open, _) = serve(Manner::DeadFirst(0)).await;
    let (vault, secrets) = fake::vault(&format!("postgresql://app:old@127.0.0.1:{closed}/shop"));
    let arn = |name: &str| (name == "DATABASE_SECRET_ARN").then(|| fake::ARN.to_owned());
    let settings = Settings::from_lookup(&arn).unwrap();
    let database = Database::open(&settings, &secrets, 1).await.unwrap();
    vault.set(&format!("postgresql://app:new@127.0.0.1:{open}/shop"));
    database.check().await.unwrap();
    assert_eq!(&*database.label(), format!("127.0.0.1:{open}/shop"));
    assert_eq!(vault.asked(), 2);
}

#[tokio::test]
async fn roots_come_from_a_secret_that_no_message_repeats() {
    let (vault, secrets) = fake::vault("hunter2");
    let lookup = |name: &str| match name {
        "DATABASE_ROOT_CERT_ARN" => Some(fake::ARN.to_owned()),
        "DATABASE_URL" => Some("postgresql://app@127.0.0.1/shop".to_owned()),
        _ => None,
    };
    let settings = Settings::from_lookup(&lookup).unwrap();
    let error = Database::open(&settings, &secrets, 1).await.unwrap_err();
    assert!(matches!(error, ConnectError::Roots { .. }), "{error:?}");
    let message = format!("{error}");
    assert!(
        message.contains("DATABASE_ROOT_CERT") && !message.contains("hunter2"),
        "{message}"
    );
    assert_eq!(vault.asked(), 1);
}
