//! Owns a way to a server that can be closed and opened again, as when the server goes away and comes back, and that can
//! swallow what is sent, as when a network forgets a connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::background;

/// A port of its own that leads to a server's.
pub struct Proxy {
    to: watch::Sender<SocketAddr>,
    address: SocketAddr,
    /// Keeps the port for us while it is closed.
    _reserved: TcpSocket,
    open: Option<Open>,
}

struct Open {
    close: oneshot::Sender<()>,
    swallow: watch::Sender<()>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Open, to this address.
    pub async fn to(to: SocketAddr) -> Self {
        let reserved = reserve();
        let address = reserved.local_addr().expect("an address");
        let mut proxy = Self {
            to: watch::Sender::new(to),
            address,
            _reserved: reserved,
            open: None,
        };
        proxy.open();
        proxy
    }

    /// Open, to a port on this machine.
    pub async fn to_port(port: u16) -> Self {
        Self::to(SocketAddr::from(([127, 0, 0, 1], port))).await
    }

    /// From now on new connections lead to another port on this machine; those that there are stay where they are.
    pub fn lead_to_port(&self, port: u16) {
        self.to.send_replace(SocketAddr::from(([127, 0, 0, 1], port)));
    }

    /// Where it listens while it is open.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections again.
    pub fn open(&mut self) {
        assert!(self.open.is_none(), "it is open");
        let (close, closed) = oneshot::channel();
        let (swallow, swallows) = watch::channel(());
        let (address, to) = (self.address, self.to.subscribe());
        let _runtime = background::handle().enter();
        let listener = socket(address).listen(128).expect("a port");
        self.open = Some(Open {
            close,
            swallow,
            serving: background::handle().spawn(serve(listener, to, closed, swallows)),
        });
    }

    /// From now on nothing passes on the connections that there are, and nobody is told; new ones work.
    pub fn swallow(&self) {
        self.open.as_ref().expect("it is open").swallow.send_replace(());
    }

    /// Breaks every connection off and refuses new ones.
    pub async fn close(&mut self) {
        if let Some(Open { close, serving, .. }) = self.open.take() {
            drop(close);
            serving.await.expect("an end");
        }
    }
}

/// A port of no range that systems give away by themselves: while it is closed, somebody who asks for any port would get it.
/// A proxy that is closed doesn't listen, so that only we know that the port is taken: each is given once.
fn reserve() -> TcpSocket {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::random_range(16_000..32_000);
        let is_free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if GIVEN.lock().expect("the ports").insert(port) && is_free {
            return socket(SocketAddr::from(([127, 0, 0, 1], port)));
        }
    }
}

/// Two of ours may have the same port as long as only one listens.
fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a shared port");
    socket.bind(address).expect("a port");
    socket
}

async fn serve(
    listener: TcpListener,
    to: watch::Receiver<SocketAddr>,
    mut closed: oneshot::Receiver<()>,
    swallows: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut closed => break,
            Ok((mut near, _)) = listener.accept() => {
                let mut swallows = swallows.clone();
                swallows.mark_unchanged();
                let to = *to.borrow();
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(to).await {
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => {}
                            // Both ends stay open.
                            Ok(()) = swallows.changed() => std::future::pending().await,
                        }
                    }
                });
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    connections.shutdown().await;
}
