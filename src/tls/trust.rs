//! Whom client certificates are believed from: authorities and revocation lists.
//!
//! A [`Trust`] is made of files that were read whole, or not at all: an authority too few would
//! turn clients away, one too many would let them in. Where there has never been a good set, the
//! site's door stays shut (`Trust::none`): whoever asked for client certificates would rather
//! have nobody in than everybody.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use super::digest::Digest;
use super::file::{Content, Fault};
use crate::clock::Timestamp;
use crate::config::{ClientCertificates, ClientMode};

/// Whom to believe, and how strictly.
#[derive(Debug)]
pub struct Trust {
    /// Sessions that were authenticated under the same mode by the same authorities, and only
    /// those, may be resumed.
    pub scope: [u8; 32],
    /// When the first of the revocation lists is past its time.
    pub expires: Option<Timestamp>,
    gate: Arc<Gate>,
}

impl Trust {
    /// Reads authorities and revocation lists.
    ///
    /// # Errors
    /// With what is wrong with the first file that cannot be used.
    pub(super) fn read(
        settings: &ClientCertificates,
        ca: &[Content],
        crl: &[Content],
    ) -> Result<Self, Fault> {
        let mut roots = RootCertStore::empty();
        let mut authorities: Vec<Vec<u8>> = Vec::new();
        for (path, content) in ca {
            for der in certificates(path, content)? {
                authority(path, &der)?;
                authorities.push(der.to_vec());
                roots.add(der).map_err(|error| {
                    Fault::new(
                        path,
                        format!("an authority in it cannot be used: {error}"),
                        "see which with: openssl storeutl -noout -text -certs FILE",
                    )
                })?;
            }
        }
        authorities.sort_unstable();
        authorities.dedup();
        let (lists, expires) = lists(crl)?;
        let verifier = match roots.is_empty() {
            true => None,
            false => Some(verifier(settings, roots, lists, crl)?),
        };
        Ok(Self {
            scope: scope(settings.mode, &authorities),
            expires,
            gate: Arc::new(Gate::new(settings.mode, verifier)),
        })
    }

    /// Nobody is believed.
    pub(super) fn none(mode: ClientMode) -> Self {
        Self {
            scope: scope(mode, &[]),
            expires: None,
            gate: Arc::new(Gate::new(mode, None)),
        }
    }

    /// What a handshake asks.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.gate) as Arc<dyn ClientCertVerifier>
    }

    /// Whether a client's chain, leaf first, is good at this moment: asked again for sessions that
    /// are resumed, since a certificate may have expired or been revoked in between.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        let (leaf, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.gate.judge(leaf, rest, now).map(|_| ())
    }
}

fn scope(mode: ClientMode, authorities: &[Vec<u8>]) -> [u8; 32] {
    let mode: &[u8] = match mode {
        ClientMode::Required => b"required",
        ClientMode::Optional => b"optional",
        ClientMode::Request => b"request",
    };
    let digest = Digest::new("staunch client authentication").with(mode);
    let all = authorities.iter().fold(digest, |d, der| d.with(der));
    all.finish()
}

/// The scope of sessions without client authentication.
pub(super) fn no_scope() -> [u8; 32] {
    Digest::new("staunch no client authentication").finish()
}

fn verifier(
    settings: &ClientCertificates,
    roots: RootCertStore,
    lists: Vec<CertificateRevocationListDer<'static>>,
    crl: &[Content],
) -> Result<Arc<dyn ClientCertVerifier>, Fault> {
    let provider = super::provider();
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
    if !settings.accept_expired_crl {
        builder = builder.enforce_revocation_expiration();
    }
    builder.build().map_err(|error| {
        let path = crl.first().map_or_else(|| Path::new(""), |(path, _)| path);
        Fault::new(
            path,
            format!("a revocation list cannot be used: {error}"),
            "complete lists of one authority are understood, not delta or indirect ones",
        )
    })
}

/// Certificates of a file: PEM, or one as DER.
fn certificates(path: &Path, content: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    const HELP: &str = "write the authorities' certificates as PEM, one after the other";
    let found: Vec<_> = match content.first() {
        Some(0x30) => vec![CertificateDer::from(content.to_vec())],
        _ => CertificateDer::pem_slice_iter(content)
            .collect::<Result<_, _>>()
            .map_err(|error| Fault::new(path, format!("its PEM is damaged: {error}"), HELP))?,
    };
    whole(path, content, found.len(), b"CERTIFICATE-----", HELP)?;
    match found.is_empty() {
        true => Err(Fault::new(path, "there is no certificate in it", HELP)),
        false => Ok(found),
    }
}

/// A block whose boundaries are damaged is skipped by the reader of PEM, and must not be here.
fn whole(path: &Path, content: &[u8], found: usize, label: &[u8], help: &str) -> Result<(), Fault> {
    if content.first() == Some(&0x30) {
        return Ok(());
    }
    let boundaries = memchr::memmem::find_iter(content, label).count();
    let last = content
        .trim_ascii_end()
        .rsplit(|byte| *byte == b'\n')
        .next();
    let ends = last.is_none_or(|last| !last.starts_with(b"-") || last.starts_with(b"-----END "));
    match boundaries == 2 * found && ends {
        true => Ok(()),
        false => Err(Fault::new(
            path,
            "a BEGIN or END line in it is damaged or missing",
            help,
        )),
    }
}

fn authority(path: &Path, der: &[u8]) -> Result<(), Fault> {
    let (_, x509) = X509Certificate::from_der(der).map_err(|_| {
        Fault::new(
            path,
            "a certificate in it is damaged",
            "write the authorities' certificates as PEM, one after the other",
        )
    })?;
    // Roots of the first version know no extensions.
    if x509.version == X509Version::V3 && !x509.is_ca() {
        let who: String = (x509.subject.to_string().chars())
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .take(200)
            .collect();
        return Err(Fault::new(
            path,
            format!("`{who}` in it is no authority (RFC 5280, section 4.2.1.9)"),
            "name who issued it instead",
        ));
    }
    Ok(())
}

/// Revocation lists, the latest of each authority first, and when the first of them is past its
/// time.
fn lists(
    files: &[Content],
) -> Result<
    (
        Vec<CertificateRevocationListDer<'static>>,
        Option<Timestamp>,
    ),
    Fault,
> {
    const HELP: &str = "write it as PEM (X509 CRL) or DER; see it with: openssl crl -noout -text";
    let mut found = Vec::new();
    for (path, content) in files {
        let of_file: Vec<CertificateRevocationListDer<'static>> = match content.first() {
            Some(0x30) => vec![CertificateRevocationListDer::from(content.clone())],
            _ => CertificateRevocationListDer::pem_slice_iter(content)
                .collect::<Result<_, _>>()
                .map_err(|error| Fault::new(path, format!("its PEM is damaged: {error}"), HELP))?,
        };
        whole(path, content, of_file.len(), b"X509 CRL-----", HELP)?;
        if of_file.is_empty() {
            return Err(Fault::new(path, "there is no revocation list in it", HELP));
        }
        for der in of_file {
            let (since, until, issuer) = {
                let (_, list) = CertificateRevocationList::from_der(&der)
                    .map_err(|_| Fault::new(path, "a revocation list in it is damaged", HELP))?;
                let at = |time: x509_parser::time::ASN1Time| Timestamp::from_unix(time.timestamp());
                (
                    at(list.last_update()),
                    list.next_update().map(at),
                    list.issuer().as_raw().to_vec(),
                )
            };
            found.push((since, until, issuer, der));
        }
    }
    // The verifier takes the first that fits.
    found.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut expires: Option<Timestamp> = None;
    for (_, until, issuer, _) in &found {
        if seen.contains(&&issuer[..]) {
            continue;
        }
        seen.push(issuer);
        if let Some(until) = until {
            expires = Some(expires.map_or(*until, |first| first.min(*until)));
        }
    }
    Ok((found.into_iter().map(|(.., der)| der).collect(), expires))
}

/// The verifier of one mode.
#[derive(Debug)]
struct Gate {
    mode: ClientMode,
    /// `None`: nobody is believed.
    inner: Option<Arc<dyn ClientCertVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Gate {
    fn new(mode: ClientMode, inner: Option<Arc<dyn ClientCertVerifier>>) -> Self {
        Self {
            mode,
            inner,
            algorithms: super::provider().signature_verification_algorithms,
        }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.inner {
            Some(inner) => inner.verify_client_cert(leaf, rest, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }
}

impl ClientCertVerifier for Gate {
    fn client_auth_mandatory(&self) -> bool {
        self.mode == ClientMode::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match (&self.inner, self.mode) {
            // Without a hint clients show whatever they have, which is what is asked for.
            (None, _) | (_, ClientMode::Request) => &[],
            (Some(inner), _) => inner.root_hint_subjects(),
        }
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.mode {
            // Judged once the handshake is done, and told to the upstream.
            ClientMode::Request => Ok(ClientCertVerified::assertion()),
            ClientMode::Required | ClientMode::Optional => self.judge(leaf, rest, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::tls::testing::{Ca, at, day};

    fn settings(accept_expired_crl: bool) -> ClientCertificates {
        ClientCertificates {
            mode: ClientMode::Required,
            ca: vec![],
            crl: vec![],
            accept_expired_crl,
            headers: vec![],
        }
    }

    fn file(text: impl AsRef<[u8]>) -> Content {
        (PathBuf::from("/a.pem"), text.as_ref().to_vec())
    }

    fn refused(ca: &str, crl: &[Content]) -> String {
        let read = Trust::read(&settings(false), &[file(ca)], crl);
        read.unwrap_err().to_string()
    }

    #[test]
    fn who_is_believed_and_who_is_not() {
        let (mine, other) = (Ca::new("mine"), Ca::new("other"));
        let trust = Trust::read(&settings(false), &[file(&mine.pem)], &[]).unwrap();
        assert!(trust.verify(&[mine.client(1)], at(0)).is_ok());
        assert!(trust.verify(&[mine.client(1)], at(60)).is_err(), "expired");
        assert!(
            trust.verify(&[other.client(1)], at(0)).is_err(),
            "a stranger"
        );
        assert!(trust.verify(&[], at(0)).is_err());
        let shut = Trust::none(ClientMode::Required);
        assert!(shut.verify(&[mine.client(1)], at(0)).is_err());
        assert!(shut.verifier().client_auth_mandatory());
    }

    #[test]
    fn the_revoked_are_refused_and_an_expired_list_as_configured() {
        let ca = Ca::new("mine");
        let list = [file(ca.list(1, (-1, 7), &[66]))];
        let read = |accept, lists: &[Content]| {
            Trust::read(&settings(accept), &[file(&ca.pem)], lists).unwrap()
        };
        let strict = read(false, &list);
        let expires = Timestamp::from_unix(day(7).unix_timestamp());
        assert_eq!(strict.expires, Some(expires));
        assert!(strict.verify(&[ca.client(1)], at(0)).is_ok());
        assert!(strict.verify(&[ca.client(66)], at(0)).is_err());
        assert!(
            strict.verify(&[ca.client(1)], at(8)).is_err(),
            "fails closed"
        );
        let lenient = read(true, &list);
        assert!(lenient.verify(&[ca.client(1)], at(8)).is_ok(), "fails open");
        assert!(lenient.verify(&[ca.client(66)], at(8)).is_err());
        // Of two lists of one authority the later counts, whatever their order.
        let newer = file(ca.list(2, (6, 14), &[66, 77]));
        let both = read(false, &[list[0].clone(), newer]);
        assert!(both.verify(&[ca.client(77)], at(8)).is_err());
        assert!(both.verify(&[ca.client(1)], at(8)).is_ok());
        // A list of somebody else says nothing of mine.
        let elsewhere = [file(Ca::new("other").list(1, (-1, 7), &[]))];
        assert!(
            read(false, &elsewhere)
                .verify(&[ca.client(1)], at(0))
                .is_err()
        );
    }

    #[test]
    fn what_is_not_whole_is_refused_in_words() {
        let ca = Ca::new("mine");
        let list = ca.list(1, (-1, 7), &[]);
        let two = format!("{}{}", ca.pem, Ca::new("other").pem);
        assert!(refused("", &[]).contains("there is no certificate in it"));
        assert!(refused("nonsense", &[]).contains("there is no certificate in it"));
        assert!(refused(&list, &[]).contains("there is no certificate in it"));
        let crl = |text: &str| refused(&ca.pem, &[file(text)]);
        assert!(crl(&ca.pem).contains("there is no revocation list in it"));
        // Cut anywhere, but between two certificates, it is damage and no smaller set.
        for at in (1..two.len()).filter(|at| !two[..*at].trim_end().ends_with("CATE-----")) {
            let read = Trust::read(&settings(false), &[file(&two[..at])], &[]);
            assert!(read.is_err(), "cut at {at}");
        }
        for at in (1..list.trim_end().len()).step_by(7) {
            let read = Trust::read(&settings(false), &[file(&ca.pem)], &[file(&list[..at])]);
            assert!(read.is_err(), "cut at {at}");
        }
        let damaged = two.replacen("-----BEGIN", "----BEGIN", 1);
        assert!(refused(&damaged, &[]).contains("damaged"));
        let leaf = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
        assert!(refused(&leaf.cert.pem(), &[]).contains("is no authority"));
    }

    #[test]
    fn sessions_of_other_authorities_or_modes_are_of_another_scope() {
        let (one, two) = (Ca::new("one"), Ca::new("two"));
        let scope = |mode, ca: &[Content], crl: &[Content]| {
            let settings = ClientCertificates {
                mode,
                ..settings(false)
            };
            Trust::read(&settings, ca, crl).unwrap().scope
        };
        let (a, b) = (file(&one.pem), file(&two.pem));
        let required = scope(ClientMode::Required, std::slice::from_ref(&a), &[]);
        assert_ne!(required, no_scope());
        assert_ne!(
            required,
            scope(ClientMode::Required, std::slice::from_ref(&b), &[])
        );
        assert_ne!(
            required,
            scope(ClientMode::Optional, std::slice::from_ref(&a), &[])
        );
        let both = scope(ClientMode::Required, &[a.clone(), b.clone()], &[]);
        assert_ne!(required, both);
        assert_eq!(both, scope(ClientMode::Required, &[b, a.clone()], &[]));
        let list = file(one.list(1, (-1, 7), &[]));
        assert_eq!(required, scope(ClientMode::Required, &[a], &[list]));
    }
}
