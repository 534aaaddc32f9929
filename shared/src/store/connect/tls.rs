//! Owns whom the database's certificate may be vouched for by. Refuses to go without: nothing is ever unverified.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;

use super::ConnectError;
use super::address::Tls;

/// The roots of RDS, which no system knows: the bundle of https://truststore.pki.rds.amazonaws.com belongs here.
const RDS_ROOTS: &[u8] = b"";

/// The client's side of TLS, where any is asked for.
pub(super) fn config(tls: &Tls) -> Result<Option<ClientConfig>, ConnectError> {
    if tls.mode == SslMode::Disable {
        return Ok(None);
    }
    let roots = Arc::new(match &tls.roots {
        Some(file) => roots_of_file(file)?,
        None => roots_of_system()?,
    });
    let provider = crate::tls::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Roots {
            message: error.to_string(),
        })?;
    let mut config = if tls.any_name {
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| ConnectError::Roots {
                message: error.to_string(),
            })?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyName(chain)))
            .with_no_client_auth()
    } else {
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    if tls.direct {
        // Without it a server that takes TLS at once can't tell what is spoken inside.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Some(config))
}

fn roots_of_file(file: &Path) -> Result<RootCertStore, ConnectError> {
    let unusable = |reason: String| ConnectError::Roots {
        message: format!("sslrootcert={} is unusable: {reason}", file.display()),
    };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    if roots.is_empty() {
        Err(unusable("it holds no certificate in PEM form".to_owned()))
    } else {
        Ok(roots)
    }
}

fn roots_of_system() -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(RDS_ROOTS).flatten());
    if roots.is_empty() {
        let message = "this system has no root certificates: install ca-certificates, or name a file as sslrootcert";
        return Err(ConnectError::Roots {
            message: message.to_owned(),
        });
    }
    Ok(roots)
}

/// `verify-ca`: the chain must lead to a root, the name may be another.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The chain is verified first, the name last: a wrong name says that all the rest was right.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
