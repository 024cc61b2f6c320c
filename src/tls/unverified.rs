//! Servers that are not verified: `tls.verify = false` of an upstream.
//!
//! Any certificate will do, whatever its name, issuer and dates. That the server holds the key of
//! the one that it shows is looked at all the same: otherwise even a copy of a certificate without
//! its key would do.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;

/// See the module.
#[derive(Debug)]
pub struct Unverified(pub Arc<CryptoProvider>);

/// The key of a certificate. Certificates that nobody could verify, as those of version 1, have one
/// too.
fn key<'c>(certificate: &'c CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'c>, Error> {
    match x509_parser::parse_x509_certificate(certificate) {
        Ok((_, read)) => Ok(SubjectPublicKeyInfoDer::from(
            read.tbs_certificate.subject_pki.raw,
        )),
        Err(_) => Err(CertificateError::BadEncoding.into()),
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = key(certificate)?;
        let bad = |_| Error::from(CertificateError::BadEncoding);
        let key = RawPublicKeyEntity::try_from(&spki).map_err(bad)?;
        let known = self.0.signature_verification_algorithms.mapping;
        // A scheme of TLS 1.2 does not say which curve.
        let mut algorithms = (known.iter())
            .filter(|(scheme, _)| *scheme == signature.scheme)
            .flat_map(|(_, algorithms)| *algorithms);
        let verifies = |algorithm: &&dyn rustls_pki_types::SignatureVerificationAlgorithm| {
            (key.verify_signature(*algorithm, message, signature.signature())).is_ok()
        };
        match algorithms.any(verifies) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key(certificate)?, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        (self.0.signature_verification_algorithms).supported_schemes()
    }
}
