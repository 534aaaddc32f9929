//! Owns a way to the tests' server that speaks TLS, with a certificate of one's own authority.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SigningKey};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use x509_cert::certificate::{Certificate, Version};
use x509_cert::der::asn1::BitString;
use x509_cert::der::{Decode, Encode};

use crate::background;
use crate::database::server;
use crate::folder::Folder;

/// How a server's certificate was made.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    /// As for the web: signed by an authority, its name among `subjectAltName`.
    ForTheWeb,
    /// As PostgreSQL's manual begins: an authority that stands for itself, its name in CN. It is its own root.
    SelfSigned,
    /// The same with the name also among `subjectAltName`.
    SelfSignedWithNames,
    /// As PostgreSQL's manual goes on: signed by an authority, its name in CN.
    WithCommonName,
    /// The same by `openssl x509` without extensions, older than 3.2.
    OfVersion1,
}

impl Made {
    pub const ALL: [Self; 5] = [
        Self::ForTheWeb,
        Self::SelfSigned,
        Self::SelfSignedWithNames,
        Self::WithCommonName,
        Self::OfVersion1,
    ];
}

pub struct TlsServer {
    port: u16,
    folder: Folder,
}

impl TlsServer {
    /// With a certificate for this name.
    pub async fn named(name: &str) -> Self {
        Self::made(Made::ForTheWeb, name).await
    }

    pub async fn made(made: Made, name: &str) -> Self {
        let (leaf, own, root) = certificate(made, name);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let signing = ring::sign::any_supported_type(&key).expect("a key");
        // rustls reads no certificate of version 1, and needn't: it hands out what it is given.
        let certified = Arc::new(rustls::sign::CertifiedKey::new(vec![leaf], signing));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("a configuration")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        let folder = Folder::new();
        folder.file("root.pem", &root);
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

/// A certificate, its key, and its root in PEM form.
fn certificate(made: Made, name: &str) -> (CertificateDer<'static>, KeyPair, String) {
    let names = match made {
        Made::ForTheWeb | Made::SelfSignedWithNames => vec![name.to_owned()],
        _ => Vec::new(),
    };
    let mut leaf = CertificateParams::new(names).expect("parameters");
    leaf.distinguished_name.push(DnType::CommonName, name);
    let own = KeyPair::generate().expect("a key");
    if matches!(made, Made::SelfSigned | Made::SelfSignedWithNames) {
        leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let leaf = leaf.self_signed(&own).expect("a certificate");
        return (leaf.der().clone(), own, leaf.pem());
    }
    let key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).expect("a root");
    let issuer = Issuer::new(authority, key);
    let signed = leaf.signed_by(&own, &issuer).expect("a certificate");
    let der = match made {
        Made::OfVersion1 => of_version_1(signed.der(), issuer.key()),
        _ => signed.der().clone(),
    };
    (der, own, root.pem())
}

/// The same without extensions, signed anew.
fn of_version_1(der: &CertificateDer<'_>, key: &KeyPair) -> CertificateDer<'static> {
    let mut certificate = Certificate::from_der(der).expect("a certificate");
    certificate.tbs_certificate.version = Version::V1;
    certificate.tbs_certificate.extensions = None;
    let signed = certificate.tbs_certificate.to_der().expect("what is signed");
    let signature = key.sign(&signed).expect("a signature");
    certificate.signature = BitString::from_bytes(&signature).expect("a signature");
    CertificateDer::from(certificate.to_der().expect("a certificate"))
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
