use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::{Connection, Provider, Purpose, Timeout};
use cronvec_nouns::space::{ProviderKind, SpaceSpec};

const ENOUGH: Timeout = Timeout {
    limit: Duration::from_secs(20),
    ours: false,
};

fn provider(address: SocketAddr) -> Provider {
    let spec = SpaceSpec {
        provider: ProviderKind::OpenAi,
        model: "any".to_owned(),
        dimensions: 2,
        chunk_tokens: 512,
        chunk_overlap: 0,
        document_prefix: String::new(),
        query_prefix: String::new(),
    };
    let base_url = format!("http://{address}/v1");
    Provider::new(
        spec,
        Connection::Http {
            base_url,
            api_key: None,
        },
    )
    .unwrap()
}

/// Answers one request on each of its first connections, `first_answers` in number, and hangs up at the next; on
/// later connections it hangs up at once. Counts connections.
async fn forgetful(first_answers: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = socket.read(&mut buffer).await;
                if number < first_answers {
                    let body = r#"{"data":[{"embedding":[1,2]}]}"#;
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
                    let _ = socket.read(&mut buffer).await;
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_dead_pooled_connection_is_replaced_once_and_for_nothing() {
    let (address, connections) = forgetful(usize::MAX).await;
    let endpoint = provider(address);
    for _ in 0..3 {
        assert!(endpoint.embed(&["one"], Purpose::Document, ENOUGH).await.is_ok());
    }
    assert!(connections.load(Ordering::SeqCst) >= 3, "each connection answered once");
}

#[tokio::test]
async fn a_provider_that_always_hangs_up_is_asked_no_more_than_twice() {
    let (address, connections) = forgetful(1).await;
    let endpoint = provider(address);
    assert!(endpoint.embed(&["one"], Purpose::Document, ENOUGH).await.is_ok());
    let failure = endpoint.embed(&["one"], Purpose::Document, ENOUGH).await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable { .. }), "{failure:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 2, "the pooled one, and one afresh");

    let (address, connections) = forgetful(0).await;
    let fresh = provider(address).embed(&["one"], Purpose::Document, ENOUGH).await;
    assert!(fresh.is_err());
    assert_eq!(
        connections.load(Ordering::SeqCst),
        1,
        "a new connection that dies is no dead pooled one"
    );
}
