//! The private key, and the certificate that it belongs to.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;

use super::content::{self, Wanted};
use super::{File, Input, rejection};
use crate::cert::faults::shell;
use crate::cert::pem::{Block, Label};
use crate::cert::x509::{self, Certificate, KeyKind};
use crate::cert::{Reason, Rejection};
use crate::clock::Timestamp;

/// A leaf, its key, and what else was in the file.
pub(super) struct Pair {
    pub(super) leaf: Certificate,
    pub(super) others: Others,
    pub(super) key: Arc<dyn SigningKey>,
}

/// The certificates beside the leaf, in the file's order.
pub(super) struct Others {
    pub(super) certificates: Vec<Certificate>,
    pub(super) notes: Vec<String>,
}

/// Finds the leaf: the certificate that the key belongs to, wherever it stands. `now` decides where
/// there are several, as when a renewal with the same key was appended to the file.
pub(super) fn pair(input: &Input, now: Timestamp) -> Result<Pair, Rejection> {
    let chain_blocks = content::blocks(&input.chain, Wanted::Chain)?;
    let labels: Vec<_> = chain_blocks.iter().map(|block| block.label).collect();
    let (key_blocks, chain_blocks): (Vec<_>, Vec<_>) = chain_blocks
        .into_iter()
        .partition(|block| block.label.is_key());
    let mut certificates = content::certificates(&input.chain, chain_blocks)?;
    if certificates.is_empty() {
        return Err(content::nothing_wanted(
            &input.chain,
            &labels,
            Wanted::Chain,
        ));
    }
    // A key beside the chain is of no interest where a key file is named.
    let (file, blocks) = match &input.key {
        Some(file) => (file, content::blocks(file, Wanted::Key)?),
        None => (&input.chain, key_blocks),
    };
    let labels = match &input.key {
        Some(_) => blocks.iter().map(|block| block.label).collect(),
        None => labels,
    };
    let keys = signing_keys(file, blocks, &labels)?;
    // An authority's certificate and key may be in the file too: the server's go first.
    let matching = certificates
        .iter()
        .enumerate()
        .filter_map(|(at, certificate)| {
            let key = keys.iter().find(|key| belongs(key, certificate))?;
            let rank = (certificate.is_ca, !certificate.validity.contains(now), at);
            Some((rank, at, Arc::clone(key)))
        });
    let Some((_, at, key)) = matching.min_by_key(|(rank, ..)| *rank) else {
        return Err(mismatch(input, file, &certificates, &keys));
    };
    let leaf = certificates.remove(at);
    let mut notes = Vec::new();
    if at > 0 {
        let (place, subject) = (at + 1, &leaf.subject_text);
        notes.push(format!(
            "the certificate of the key, '{subject}', stands at place {place} in the file; it is \
             sent first"
        ));
    }
    if keys.len() > 1 {
        notes.push("the file holds more than one private key".to_owned());
    }
    Ok(Pair {
        leaf,
        others: Others {
            certificates,
            notes,
        },
        key,
    })
}

/// The keys that can sign; when there is none, why.
fn signing_keys(
    file: &File,
    blocks: Vec<Block>,
    labels: &[Label],
) -> Result<Vec<Arc<dyn SigningKey>>, Rejection> {
    let mut keys = Vec::new();
    let mut trouble = None;
    for Block { label, der, .. } in blocks {
        let (kind, der) = match label {
            Label::Pkcs8 => (KeyKind::of_pkcs8(&der), PrivateKeyDer::Pkcs8(der.into())),
            Label::Pkcs1 => (KeyKind::of_pkcs1(&der), PrivateKeyDer::Pkcs1(der.into())),
            Label::Sec1 => (KeyKind::of_sec1(&der), PrivateKeyDer::Sec1(der.into())),
            _ => continue,
        };
        match any_supported_type(&der) {
            Ok(key) => keys.push(key),
            Err(_) if trouble.is_none() => {
                trouble = Some(match kind {
                    Some(KeyKind::Usable(_)) | None => content::damaged_key(&file.path),
                    Some(kind) => unusable(&kind, &file.path),
                });
            }
            Err(_) => {}
        }
    }
    match trouble {
        Some(trouble) if keys.is_empty() => Err(trouble),
        _ if keys.is_empty() => Err(content::nothing_wanted(file, labels, Wanted::Key)),
        _ => Ok(keys),
    }
}

/// A key that cannot sign in a handshake.
pub(super) fn unusable(kind: &KeyKind, path: &Path) -> Rejection {
    let reason = match kind {
        KeyKind::ShortRsa(_) => Reason::WeakKey,
        _ => Reason::UnsupportedKey,
    };
    let file = shell(path);
    rejection(
        reason,
        path,
        format!(
            "the key is {kind}; expected was ECDSA (P-256, P-384, P-521), RSA of 2048 to 8192 bits \
             or Ed25519"
        ),
        format!(
            "have the certificate issued for another key: openssl genpkey -algorithm EC -pkeyopt \
             ec_paramgen_curve:P-256 -out new.key; what is in the file: openssl storeutl -noout \
             -text {file}"
        ),
    )
}

/// Whether the key's public half is the certificate's.
fn belongs(key: &Arc<dyn SigningKey>, certificate: &Certificate) -> bool {
    key.public_key()
        .is_some_and(|spki| x509::same_key(&spki, &certificate.spki))
}

/// No certificate of the file is the key's.
fn mismatch(
    input: &Input,
    key_file: &File,
    certificates: &[Certificate],
    keys: &[Arc<dyn SigningKey>],
) -> Rejection {
    let key = keys.first().and_then(|key| key.public_key());
    let key = key.map_or_else(
        || "of unknown type".to_owned(),
        |spki| describe(&KeyKind::of_spki(&spki), &spki),
    );
    let leaf = certificates
        .iter()
        .find(|c| !c.is_ca)
        .or_else(|| certificates.first());
    let (subject, certificate) = leaf.map_or_else(
        || (String::new(), String::new()),
        |leaf| (leaf.subject_text.clone(), describe(&leaf.key, &leaf.spki)),
    );
    let (chain, file) = (shell(&input.chain.path), shell(&key_file.path));
    rejection(
        Reason::KeyMismatch,
        &key_file.path,
        format!(
            "the private key in {} ({key}) belongs to no certificate in {}, whose '{subject}' has \
             another public key ({certificate})",
            key_file.path.display(),
            input.chain.path.display(),
        ),
        format!(
            "put the pair that belongs together in place; these two must print the same: openssl \
             x509 -noout -pubkey -in {chain}; openssl pkey -pubout -in {file}"
        ),
    )
}

fn describe(kind: &KeyKind, spki: &[u8]) -> String {
    format!("{kind}, public key SHA-256 {}", x509::sha256(spki))
}
