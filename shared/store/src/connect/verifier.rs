//! Owns whether a server's certificate is taken: by the web's rules, and, where somebody gave the roots, as psql takes it.
//! Refuses what no root vouches for.
//!
//! rustls takes certificates as the web has them: of version 3, made for a server, with its names in `subjectAltName`. Those
//! that PostgreSQL's manual lets people make are others: authorities that stand for themselves, with their name in CN alone,
//! and, signed by `openssl x509` without extensions, of version 1.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use x509_cert::certificate::{Certificate, Version};
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

/// `commonName`, `anyExtendedKeyUsage` and `serverAuth`.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
const OF_SERVERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
/// Extensions that are understood here; others that are critical are a reason to refuse.
const UNDERSTOOD: [ObjectIdentifier; 4] = [
    BasicConstraints::OID,
    KeyUsage::OID,
    ExtendedKeyUsage::OID,
    SubjectAltName::OID,
];
/// Authorities between a server and a root.
const MOST_BETWEEN: u8 = 5;

/// The roots that somebody gave don't vouch for a certificate.
#[derive(Debug, thiserror::Error)]
#[error("none of the roots that were given vouches for it")]
pub(super) struct NotByGivenRoots;

#[derive(Debug)]
pub(super) struct Verifier {
    /// By the web's rules, with the same roots.
    pub(super) strict: Arc<WebPkiServerVerifier>,
    /// Those that somebody gave; none where the system's count.
    pub(super) given: Vec<CertificateDer<'static>>,
    /// `verify-ca`: the chain must lead to a root, the name may be another.
    pub(super) any_name: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let strict = &self.strict;
        let error = match strict.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        // The chain is verified first, the name last: a wrong name says that all the rest was right.
        let is_of_the_name = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            )
        );
        if is_of_the_name && self.any_name {
            return Ok(ServerCertVerified::assertion());
        }
        if self.given.is_empty() {
            return Err(error);
        }
        let leaf = parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        if !is_of_the_name {
            self.vouch(end_entity, &leaf, intermediates, now)?;
        }
        match self.any_name || has_name(end_entity, &leaf, server_name) {
            true => Ok(ServerCertVerified::assertion()),
            false if is_of_the_name => Err(error),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.given.is_empty() || ParsedCertificate::try_from(cert).is_ok() {
            return self.strict.verify_tls13_signature(message, cert, dss);
        }
        // Of version 1: rustls doesn't read it, but its key.
        let key = parse(cert).and_then(|cert| cert.tbs_certificate.subject_public_key_info.to_der().ok());
        let key = SubjectPublicKeyInfoDer::from(key.ok_or(CertificateError::BadEncoding)?);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

impl Verifier {
    /// Whether the certificate is one of the roots, or leads to one.
    fn vouch(
        &self,
        der: &CertificateDer<'_>,
        leaf: &Certificate,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        in_time(leaf, now)?;
        if !is_for_servers(leaf) || !is_understood(leaf) {
            return Err(CertificateError::InvalidPurpose);
        }
        if self.given.iter().any(|root| root.as_ref() == der.as_ref()) {
            return Ok(());
        }
        let roots: Vec<Certificate> = self.given.iter().filter_map(|root| parse(root)).collect();
        let between: Vec<Certificate> = intermediates.iter().filter_map(|one| parse(one)).collect();
        let mut last = leaf;
        for below in 0..=MOST_BETWEEN {
            let signed_by = |issuer: &&Certificate| self.is_signed(last, issuer);
            if roots.iter().filter(|root| is_root(root)).any(|root| signed_by(&root)) {
                return Ok(());
            }
            let may_sign = |issuer: &&Certificate| may_sign(issuer, below) && in_time(issuer, now).is_ok();
            let Some(next) = between.iter().filter(may_sign).find(signed_by) else {
                break;
            };
            last = next;
        }
        Err(CertificateError::Other(OtherError(Arc::new(NotByGivenRoots))))
    }

    fn is_signed(&self, cert: &Certificate, issuer: &Certificate) -> bool {
        cert.tbs_certificate.issuer == issuer.tbs_certificate.subject
            && self.verify_signature(cert, issuer).unwrap_or(false)
    }

    fn verify_signature(&self, cert: &Certificate, issuer: &Certificate) -> x509_cert::der::Result<bool> {
        let key = &issuer.tbs_certificate.subject_public_key_info;
        let (key_algorithm, algorithm) = (key.algorithm.to_der()?, cert.signature_algorithm.to_der()?);
        let (key_algorithm, algorithm) = (AnyRef::from_der(&key_algorithm)?, AnyRef::from_der(&algorithm)?);
        let signed = cert.tbs_certificate.to_der()?;
        Ok(self.algorithms.all.iter().any(|known| {
            known.public_key_alg_id().as_ref() == key_algorithm.value()
                && known.signature_alg_id().as_ref() == algorithm.value()
                && known
                    .verify_signature(key.subject_public_key.raw_bytes(), &signed, cert.signature.raw_bytes())
                    .is_ok()
        }))
    }
}

fn parse(der: &CertificateDer<'_>) -> Option<Certificate> {
    Certificate::from_der(der).ok()
}

fn in_time(cert: &Certificate, now: UnixTime) -> Result<(), CertificateError> {
    let validity = cert.tbs_certificate.validity;
    match now.as_secs() {
        now if now < validity.not_before.to_unix_duration().as_secs() => Err(CertificateError::NotValidYet),
        now if now > validity.not_after.to_unix_duration().as_secs() => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

fn is_understood(cert: &Certificate) -> bool {
    let extensions = cert.tbs_certificate.extensions.as_deref().unwrap_or_default();
    extensions
        .iter()
        .all(|one| !one.critical || UNDERSTOOD.contains(&one.extn_id))
}

fn is_for_servers(cert: &Certificate) -> bool {
    match cert.tbs_certificate.get::<ExtendedKeyUsage>() {
        Ok(None) => true,
        Ok(Some((_, usage))) => usage.0.iter().any(|usage| [ANY_PURPOSE, OF_SERVERS].contains(usage)),
        Err(_) => false,
    }
}

/// Certificates of version 1 don't say whether they may sign others; somebody who gives one as a root says so.
fn is_root(cert: &Certificate) -> bool {
    cert.tbs_certificate.version == Version::V1 || may_sign(cert, 0)
}

/// Whether it may sign others, of which so many stand below it already.
fn may_sign(cert: &Certificate, below: u8) -> bool {
    let signs = match cert.tbs_certificate.get::<KeyUsage>() {
        Ok(usage) => usage.is_none_or(|(_, usage)| usage.key_cert_sign()),
        Err(_) => false,
    };
    let is_authority = matches!(
        cert.tbs_certificate.get::<BasicConstraints>(),
        Ok(Some((_, BasicConstraints { ca: true, path_len_constraint }))) if path_len_constraint.is_none_or(|most| below <= most)
    );
    signs && is_authority && is_understood(cert)
}

/// As libpq looks for the host: among the certificate's names, and only where it has none in its CN.
fn has_name(der: &CertificateDer<'_>, cert: &Certificate, name: &ServerName<'_>) -> bool {
    let names = match cert.tbs_certificate.get::<SubjectAltName>() {
        Ok(names) => names.map(|(_, names)| names.0).unwrap_or_default(),
        Err(_) => return false,
    };
    let counts = |name: &GeneralName| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
    if names.iter().any(counts) {
        return ParsedCertificate::try_from(der).is_ok_and(|cert| verify_server_name(&cert, name).is_ok());
    }
    let subject = cert.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let common = subject
        .filter(|part| part.oid == COMMON_NAME)
        .map(|part| part.value.value());
    let common = common
        .map(|bytes| std::str::from_utf8(bytes).unwrap_or_default())
        .next();
    common.is_some_and(|common| is_called(common, name))
}

/// A `*` stands for the first part of a host's name, and for nothing else.
fn is_called(common: &str, name: &ServerName<'_>) -> bool {
    let host = name.to_str();
    let rest = match name {
        ServerName::DnsName(_) => host
            .split_once('.')
            .filter(|(first, _)| !first.is_empty())
            .map(|(_, rest)| rest),
        _ => None,
    };
    common.eq_ignore_ascii_case(&host)
        || (common.strip_prefix("*.").zip(rest)).is_some_and(|(common, rest)| common.eq_ignore_ascii_case(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_is_the_hosts_or_has_a_star_for_its_first_part() {
        let is = |common: &str, host: &str| is_called(common, &ServerName::try_from(host.to_owned()).unwrap());
        assert!(
            is("db.example.com", "DB.example.com")
                && is("*.example.com", "db.example.com")
                && is("10.0.0.7", "10.0.0.7")
        );
        for (common, host) in [
            ("", "localhost"),
            ("*", "localhost"),
            ("example.com", "db.example.com"),
            ("*.example.com", "a.db.example.com"),
            ("*.example.com", "example.com"),
            ("d*.example.com", "db.example.com"),
            ("*.0.0.7", "10.0.0.7"),
        ] {
            assert!(!is(common, host), "{common} {host}");
        }
    }
}
