//! From bytes to a verified certificate, or to the reason why not.
//!
//! [`load`] is the only way to a [`Verified`] certificate, and does no I/O: whoever calls it has
//! read the files (and tells a failed read with [`rejection_for_io`]). It rejects what no handshake
//! could be completed with. What only makes a certificate worse (expired, untrusted, for another
//! use) is for [`Verified::faults`] and [`compare`](super::compare) to say, since the worst
//! certificate is better than none.
//!
//! The steps: `content` reads each file as PEM or DER, and recognises what was put there by mistake;
//! `key` finds the private key and the certificate that it belongs to; [`chain`](super::chain)
//! orders the rest; [`names`] and the leaf give the facts.

mod content;
mod io;
mod key;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry as oid;

pub use super::chain::Roots;
pub use io::{rejection_for_folder, rejection_for_io};

use super::chain::Chain;
use super::x509::{self, Certificate, KeyKind, printable};
use super::{Facts, Reason, Rejection, Verified, names, ocsp};
use crate::clock::Timestamp;

/// Bytes of one file at most. Whoever reads it stops here and reports
/// [`FileTooLarge`](std::io::ErrorKind::FileTooLarge).
pub const MAX_BYTES: usize = 1024 * 1024;

/// A file's content, and its path for messages.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Where it was read from.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may hold a key.
        write!(f, "{} ({} bytes)", self.path.display(), self.bytes.len())
    }
}

/// Everything that makes up one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The chain; in a bundle, the key too.
    pub chain: File,
    /// The key; `None` for a bundle.
    pub key: Option<File>,
    /// An OCSP response to staple (RFC 6960, DER).
    pub ocsp: Option<File>,
}

/// Verifies a certificate: its key belongs to it and can sign, and its chain is in order.
///
/// `roots` and `now` only decide what is said of its trust, and which is used where several would do;
/// no certificate is rejected for its dates.
///
/// # Errors
/// Why no handshake could be completed with it.
pub fn load(input: &Input, roots: &Roots, now: Timestamp) -> Result<Verified, Rejection> {
    let key::Pair { leaf, others, key } = key::pair(input, now)?;
    let key_type = match &leaf.key {
        KeyKind::Usable(key_type) => *key_type,
        other => return Err(key::unusable(other, &input.chain.path)),
    };
    let details = Details::read(&leaf, &input.chain.path)?;
    let chain = Chain::build(&leaf, others.certificates, roots, now);
    let mut notes = others.notes;
    notes.extend(chain.notes);
    notes.extend(details.notes);
    let facts = Facts {
        path: Arc::from(input.chain.path.as_path()),
        names: details.names.into(),
        serial: details.serial.into(),
        fingerprint: x509::sha256(&leaf.der),
        issuer: leaf.issuer_text.into(),
        key_type,
        validity: leaf.validity,
        chain_length: chain.sent.len(),
        chain_not_after: chain.not_after,
        chain_complete: chain.complete,
        trusted: chain.trusted,
        chain_shortcoming: chain.shortcoming,
        first_to_expire: chain.first_to_expire,
        server_usage: leaf.server_usage,
        weaknesses: chain.weaknesses,
        must_staple: details.must_staple,
        ocsp_responder: details.ocsp_responder,
        notes,
    };
    let certified = CertifiedKey::new(chain.sent, key);
    let mut verified = Verified::new(Arc::new(certified), facts);
    if let Some(file) = &input.ocsp
        && let Err(why) = ocsp::attach_file(&verified, roots, &file.bytes, now)
    {
        let path = file.path.display();
        let note = format!("the staple {path} is ignored: {why}");
        verified.facts.notes.push(note);
    }
    Ok(verified)
}

/// What only the leaf is asked for.
struct Details {
    names: Vec<super::Name>,
    serial: String,
    must_staple: bool,
    ocsp_responder: Option<String>,
    notes: Vec<String>,
}

impl Details {
    fn read(leaf: &Certificate, path: &Path) -> Result<Self, Rejection> {
        let (_, x509) = X509Certificate::from_der(&leaf.der)
            .map_err(|error| content::malformed(path, &printable(&error.to_string())))?;
        let (names, mut notes) = names::of(&x509);
        if leaf.is_ca {
            notes.push(
                "it is marked as an authority's (basic constraints); strict clients refuse that"
                    .to_owned(),
            );
        }
        Ok(Self {
            names,
            serial: x509::hexadecimal(x509.raw_serial()),
            must_staple: must_staple(&x509),
            ocsp_responder: ocsp_responder(&x509),
            notes,
        })
    }
}

/// Whether it asks for `status_request`, TLS feature 5 (RFC 7633, section 4).
fn must_staple(x509: &X509Certificate<'_>) -> bool {
    const STATUS_REQUEST: [u8; 3] = [0x02, 0x01, 0x05];
    x509.extensions()
        .iter()
        .filter(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.1.24")
        .filter_map(|extension| x509::sequence(extension.value))
        .any(|features| features.data.chunks(3).any(|f| f == STATUS_REQUEST))
}

/// The responder it names (RFC 5280, section 4.2.2.1).
fn ocsp_responder(x509: &X509Certificate<'_>) -> Option<String> {
    x509.extensions().iter().find_map(|extension| {
        let ParsedExtension::AuthorityInfoAccess(access) = extension.parsed_extension() else {
            return None;
        };
        access.accessdescs.iter().find_map(|description| {
            match (&description.access_method, &description.access_location) {
                (method, GeneralName::URI(uri))
                    if *method == oid::OID_PKIX_ACCESS_DESCRIPTOR_OCSP =>
                {
                    Some(printable(uri))
                }
                _ => None,
            }
        })
    })
}

fn rejection(
    reason: Reason,
    path: &Path,
    detail: impl Into<String>,
    help: impl Into<String>,
) -> Rejection {
    Rejection {
        reason,
        path: path.to_owned(),
        detail: detail.into(),
        help: help.into(),
    }
}
