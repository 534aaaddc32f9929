//! Owns whom the database's certificate may be vouched for by. Refuses to go without: nothing is ever unverified.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::SslMode;

use super::ConnectError;
use super::address::{Roots, Tls};
use super::verifier::Verifier;

/// The roots of RDS, which no system knows; `certs/README.md` says where they are from.
const RDS_ROOTS: &[u8] = include_bytes!("../../certs/rds-roots.pem");

/// The client's side of TLS, where any is asked for.
pub(super) fn config(tls: &Tls) -> Result<Option<ClientConfig>, ConnectError> {
    if tls.mode == SslMode::Disable {
        return Ok(None);
    }
    let given = match &tls.roots {
        Some(roots) => given_roots(roots)?,
        None => Vec::new(),
    };
    let roots = Arc::new(match given.as_slice() {
        [] => roots_of_system()?,
        given => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(given.iter().cloned());
            roots
        }
    });
    let unusable = |error: &dyn std::error::Error| ConnectError::Roots {
        message: error.to_string(),
    };
    let provider = cronvec_edges::tls::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let mut config = if tls.any_name || !given.is_empty() {
        let algorithms = provider.signature_verification_algorithms;
        let strict = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| unusable(&error))?;
        let verifier = Verifier {
            strict,
            given,
            any_name: tls.any_name,
            algorithms,
        };
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
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

fn given_roots(roots: &Roots) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let unusable = |reason: String| ConnectError::Roots {
        message: format!("{roots} is unusable: {reason}"),
    };
    let pem = match roots {
        Roots::File(file) => std::fs::read(file).map_err(|error| unusable(error.to_string()))?,
        Roots::Text(pem) => pem.clone().into_bytes(),
    };
    let given: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
    match RootCertStore::empty().add_parsable_certificates(given.iter().cloned()) {
        (0, _) => Err(unusable("it holds no certificate in PEM form".to_owned())),
        _ => Ok(given),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_root_of_rds_is_usable() {
        let mut roots = RootCertStore::empty();
        let (added, ignored) =
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(RDS_ROOTS).map(|read| read.unwrap()));
        assert_eq!((added, ignored), (81, 0));
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_its_name() {
        for file in ["/nowhere/ca.pem", "/dev/null"] {
            let error = given_roots(&Roots::File(file.into())).unwrap_err().to_string();
            assert!(error.contains(&format!("sslrootcert={file}")), "{error}");
        }
        let error = given_roots(&Roots::Text("no certificate".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("DATABASE_ROOT_CERT") && !error.contains("no certificate is"),
            "{error}"
        );
    }
}
