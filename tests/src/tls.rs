//! Owns a way to the tests' server that speaks TLS, with a certificate of one's own authority.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::background;
use crate::database::server;
use crate::folder::Folder;

pub struct TlsServer {
    port: u16,
    folder: Folder,
}

impl TlsServer {
    /// With a certificate for this name.
    pub async fn named(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&key).expect("a root");
        let issuer = Issuer::new(authority, key);
        let own = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new([name.to_owned()])
            .and_then(|leaf| leaf.signed_by(&own, &issuer))
            .expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|config| {
                config
                    .with_no_client_auth()
                    .with_single_cert(vec![leaf.der().clone()], key)
            })
            .expect("a configuration");
        let folder = Folder::new();
        folder.file("root.pem", &root.pem());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        background::handle().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(attend(stream, acceptor.clone()));
            }
        });
        Self { port, folder }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For `sslrootcert`.
    pub fn root(&self) -> PathBuf {
        self.folder.0.join("root.pem")
    }
}

async fn attend(mut stream: TcpStream, acceptor: TlsAcceptor) -> std::io::Result<()> {
    // The request for TLS: its length and its code.
    let mut request = [0; 8];
    stream.read_exact(&mut request).await?;
    stream.write_all(b"S").await?;
    let mut near = acceptor.accept(stream).await?;
    let mut far = TcpStream::connect(("127.0.0.1", server().await.port())).await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
