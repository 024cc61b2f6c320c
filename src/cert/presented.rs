//! A chain as some server presents it: what is in it, and what a strict client would say.
//!
//! The counterpart of [`load`](super::load) for `staunch probe`, where there is no key and nothing
//! to serve: everything is described, nothing is repaired.

use rustls_pki_types::{CertificateDer, ServerName};
use serde::Serialize;
use webpki::EndEntityCert;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::chain::{Chain, Roots};
use super::faults::days;
use super::x509::{self, Certificate};
use super::{Fingerprint, Name, names};
use crate::clock::Timestamp;

/// What a server presented.
#[derive(Debug, Serialize)]
pub struct Presented {
    /// In the order in which they were sent.
    pub chain: Vec<PresentedCertificate>,
    /// Why a client would refuse it; empty when it would not.
    pub problems: Vec<String>,
    /// What is odd and does no harm to most clients.
    pub remarks: Vec<String>,
}

/// One certificate of it.
#[derive(Debug, Serialize)]
pub struct PresentedCertificate {
    /// Common name, or else the whole name.
    pub subject: String,
    /// As for the subject.
    pub issuer: String,
    /// Subject alternative names.
    pub names: Vec<Name>,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of its DER.
    pub fingerprint_sha256: Fingerprint,
    /// Algorithm and size of its key.
    pub key_type: String,
    /// First moment of its validity.
    pub not_before: Timestamp,
    /// Last moment of its validity.
    pub not_after: Timestamp,
}

impl Presented {
    /// Reads what was sent, leaf first, to a client that asked for `name`.
    pub fn read(
        sent: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        roots: &Roots,
        now: Timestamp,
    ) -> Self {
        let mut presented = Self {
            chain: Vec::new(),
            problems: Vec::new(),
            remarks: Vec::new(),
        };
        let mut parsed = Vec::new();
        for (at, der) in sent.iter().enumerate() {
            match Certificate::parse(der.to_vec()) {
                Ok(certificate) => {
                    presented.chain.push(in_words(&certificate));
                    parsed.push(certificate);
                }
                Err(why) => {
                    let problem = format!("certificate {} cannot be parsed: {why}", at + 1);
                    presented.problems.push(problem);
                }
            }
        }
        if sent.is_empty() {
            let problem = "the server sent no certificate".to_owned();
            presented.problems.push(problem);
        }
        // With a leaf that cannot be parsed, nothing can be said of the rest.
        if !parsed.is_empty() && presented.problems.is_empty() {
            let leaf = parsed.remove(0);
            presented.ask(&leaf, parsed, name, roots, now);
        }
        presented
    }

    /// What a strict client asks.
    fn ask(
        &mut self,
        leaf: &Certificate,
        others: Vec<Certificate>,
        name: &ServerName<'_>,
        roots: &Roots,
        now: Timestamp,
    ) {
        let validity = leaf.validity;
        let problems = &mut self.problems;
        if now > validity.not_after {
            let ago = days(now.since(validity.not_after));
            problems.push(format!("it expired at {}, {ago} ago", validity.not_after));
        }
        if now < validity.not_before {
            let ahead = days(validity.not_before.since(now));
            problems.push(format!(
                "it is not valid before {}, in {ahead}",
                validity.not_before
            ));
        }
        let covered = EndEntityCert::try_from(&leaf.der)
            .is_ok_and(|leaf| leaf.verify_is_valid_for_subject_name(name).is_ok());
        if !covered {
            let covers = match self.chain.first().map(|leaf| leaf.names.as_slice()) {
                None | Some([]) => "it covers no name at all".to_owned(),
                Some(names) => format!("it covers {}", listed(names)),
            };
            problems.push(format!("it does not cover {}; {covers}", name.to_str()));
        }
        if !leaf.server_usage {
            problems.push("its key usages leave out that of a TLS server".to_owned());
        }
        if roots.is_empty() {
            problems.push("there is no root to trust: this system's were not found".to_owned());
        }
        let chain = Chain::build(leaf, others, roots, now);
        problems.extend(chain.shortcoming);
        self.remarks.extend(chain.weaknesses);
        self.remarks.extend(chain.notes);
    }
}

/// One certificate in words; `None` where it is none.
pub fn describe(der: &CertificateDer<'_>) -> Option<PresentedCertificate> {
    Certificate::parse(der.to_vec())
        .ok()
        .map(|it| in_words(&it))
}

fn in_words(certificate: &Certificate) -> PresentedCertificate {
    let details = X509Certificate::from_der(&certificate.der).ok();
    let (names, serial) = details.map_or_else(Default::default, |(_, x509)| {
        (names::of(&x509).0, x509::hexadecimal(x509.raw_serial()))
    });
    PresentedCertificate {
        subject: certificate.subject_text.clone(),
        issuer: certificate.issuer_text.clone(),
        names,
        serial,
        fingerprint_sha256: x509::sha256(&certificate.der),
        key_type: certificate.key.to_string(),
        not_before: certificate.validity.not_before,
        not_after: certificate.validity.not_after,
    }
}

/// The first few names.
fn listed(names: &[Name]) -> String {
    const SPELT_OUT: usize = 5;
    let shown: Vec<_> = names.iter().take(SPELT_OUT).map(Name::to_string).collect();
    let rest = match names.len().saturating_sub(SPELT_OUT) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    format!("{}{rest}", shown.join(", "))
}
