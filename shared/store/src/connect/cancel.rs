//! Owns the cancel request, which ends a question from outside its connection. Refuses to know which question that is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio_postgres::config::Host;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{CancelToken, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const DEFAULT_PORT: u16 = 5432;

/// Where cancel requests go, and how.
#[derive(Clone)]
pub(super) struct Canceller {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Canceller {
    pub fn new(config: Config, tls: Option<MakeRustlsConnect>) -> Self {
        Self { config, tls }
    }

    /// Sends the request and waits until it has been passed on. `tokio_postgres` hangs up at once instead, and PgBouncer then
    /// forgets the request. Of several hosts one knows the key; to the others it means nothing.
    pub async fn cancel(&self, token: &CancelToken) -> Result<(), Failure> {
        let (hosts, ports) = (self.config.get_hosts(), self.config.get_ports());
        let addresses = self.config.get_hostaddrs();
        for (nth, host) in hosts.iter().enumerate() {
            // One port is every host's.
            let port = ports.get(nth).or(ports.first()).copied().unwrap_or(DEFAULT_PORT);
            match host {
                Host::Tcp(name) => {
                    let socket = match addresses.get(nth) {
                        Some(address) => TcpStream::connect((*address, port)).await?,
                        None => TcpStream::connect((name.as_str(), port)).await?,
                    };
                    self.send(token, socket, name).await?;
                }
                Host::Unix(folder) => {
                    let socket = UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?;
                    self.send(token, socket, "").await?;
                }
            }
        }
        Ok(())
    }

    async fn send<S>(&self, token: &CancelToken, socket: S, name: &str) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (give_back, given_back) = oneshot::channel();
        let socket = Kept {
            stream: Some(socket),
            give_back: Some(give_back),
        };
        match self.tls.clone() {
            Some(mut tls) => {
                let tls = MakeTlsConnect::<Kept<S>>::make_tls_connect(&mut tls, name)?;
                token.cancel_query_raw(socket, KeptTls(tls)).await?;
            }
            None => token.cancel_query_raw(socket, NoTls).await?,
        }
        let mut socket = given_back.await?;
        // The other side closes it.
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
        Ok(())
    }
}

/// A stream that isn't shut down by who writes to it, and is given back when it is dropped.
struct Kept<S> {
    stream: Option<S>,
    give_back: Option<oneshot::Sender<S>>,
}

impl<S> Drop for Kept<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(give_back)) = (self.stream.take(), self.give_back.take()) {
            // Nobody waits for it: it is closed.
            let _ = give_back.send(stream);
        }
    }
}

impl<S: Unpin> Kept<S> {
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut S>> {
        let stream = self.get_mut().stream.as_mut();
        stream.map(Pin::new).ok_or(io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Kept<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Kept<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// TLS whose end isn't announced either.
struct KeptTls<T>(T);

impl<S, T> TlsConnect<S> for KeptTls<T>
where
    S: Send + 'static,
    T: TlsConnect<S> + Send + 'static,
    T::Future: Send,
{
    type Stream = Kept<T::Stream>;
    type Error = T::Error;
    type Future = BoxFuture<'static, Result<Self::Stream, Self::Error>>;

    fn connect(self, socket: S) -> Self::Future {
        Box::pin(async move {
            Ok(Kept {
                stream: Some(self.0.connect(socket).await?),
                give_back: None,
            })
        })
    }
}

impl<S: TlsStream + Unpin> TlsStream for Kept<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream
            .as_ref()
            .map_or_else(ChannelBinding::none, TlsStream::channel_binding)
    }
}
