//! Owns a server that lets in who shows a token, as RDS does an IAM user, and passes them on to the tests' own. Refuses to
//! check signatures.

use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::background;
use crate::database::server;

/// Authentication is over.
const AUTHENTICATED: i32 = 0;
/// It goes on with the password in clear.
const CLEAR: i32 = 3;

pub struct IamServer {
    port: u16,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl IamServer {
    /// In front of one of the tests' databases.
    pub async fn before(database: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let tokens: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, database) = (Arc::clone(&tokens), database.to_owned());
        background::handle().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, database) = (Arc::clone(&seen), database.clone());
                tokio::spawn(async move { attend(stream, &database, &seen).await });
            }
        });
        Self { port, tokens }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it was shown, one a connection.
    pub fn tokens(&self) -> Vec<String> {
        self.tokens.lock().expect("tokens").clone()
    }
}

async fn attend(mut client: TcpStream, database: &str, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let length = client.read_i32().await?;
    let mut startup = vec![0; usize::try_from(length - 4).expect("a length")];
    client.read_exact(&mut startup).await?;
    client.write_all(&authentication(CLEAR)).await?;
    let (_, token) = message(&mut client).await?;
    let token = String::from_utf8_lossy(&token).trim_end_matches('\0').to_owned();
    seen.lock().expect("tokens").push(token);
    let mut server = log_in(database).await?;
    client.write_all(&authentication(AUTHENTICATED)).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// A connection of the tests' server whose log-in is done.
async fn log_in(database: &str) -> std::io::Result<TcpStream> {
    let server = server().await;
    let (user, password) = server.credentials();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await?;
    let mut out = BytesMut::new();
    frontend::startup_message([("user", user), ("database", database)], &mut out)?;
    stream.write_all(&out).await?;
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    message(&mut stream).await?;
    out.clear();
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
    stream.write_all(&out).await?;
    let (_, challenge) = message(&mut stream).await?;
    scram.update(&challenge[4..])?;
    out.clear();
    frontend::sasl_response(scram.message(), &mut out)?;
    stream.write_all(&out).await?;
    let (_, proof) = message(&mut stream).await?;
    scram.finish(&proof[4..])?;
    let (tag, ended) = message(&mut stream).await?;
    assert_eq!((tag, ended.as_slice()), (b'R', &AUTHENTICATED.to_be_bytes()[..]));
    Ok(stream)
}

async fn message(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let tag = stream.read_u8().await?;
    let length = stream.read_i32().await?;
    let mut body = vec![0; usize::try_from(length - 4).expect("a length")];
    stream.read_exact(&mut body).await?;
    Ok((tag, body))
}

fn authentication(kind: i32) -> Vec<u8> {
    [&b"R"[..], &8_i32.to_be_bytes(), &kind.to_be_bytes()].concat()
}
