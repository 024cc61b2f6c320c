//! X.509 (RFC 5280): the parts of a certificate that the rest of the group reasons about.
//!
//! Parsing is `x509-parser`'s; signatures are checked with `rustls-webpki`'s algorithms, so that
//! one cryptographic library does it all. Nothing here decides anything: facts only.

use rustls::crypto::hash::Hash;
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, FromDer, Oid, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry as oid;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use super::{Fingerprint, KeyType, Validity};
use crate::clock::Timestamp;

/// A certificate, read once. Names are kept as DER, since that is how issuer and subject are
/// compared (RFC 5280, section 7.1, allows more; webpki and most clients do not).
#[derive(Clone, Debug)]
pub(super) struct Certificate {
    pub(super) der: CertificateDer<'static>,
    pub(super) subject: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    /// The subject's common name, or the whole name, fit for a message.
    pub(super) subject_text: String,
    /// As for the subject.
    pub(super) issuer_text: String,
    pub(super) validity: Validity,
    /// The whole SubjectPublicKeyInfo.
    pub(super) spki: Vec<u8>,
    pub(super) key: KeyKind,
    pub(super) is_ca: bool,
    /// It may stand for a TLS server: see [`server_usage`].
    pub(super) server_usage: bool,
    /// "SHA-1" or "MD5", where the signature rests on one of them.
    pub(super) weak_signature: Option<&'static str>,
}

/// Whether one certificate issued another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Issued {
    /// The names fit, and the signature verifies.
    Yes,
    /// The names fit, and the signature is of a kind that cannot be verified here, such as SHA-1.
    Perhaps,
    /// The names do not fit, or the signature is another key's.
    No,
}

impl Certificate {
    /// Reads DER; on failure says why, in words.
    pub(super) fn parse(der: Vec<u8>) -> Result<Self, String> {
        let (rest, x509) = X509Certificate::from_der(&der).map_err(|e| reason(&e))?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the certificate", rest.len()));
        }
        let parsed = Self {
            subject: x509.subject.as_raw().to_vec(),
            issuer: x509.issuer.as_raw().to_vec(),
            subject_text: name_text(&x509.subject),
            issuer_text: name_text(&x509.issuer),
            validity: Validity {
                not_before: Timestamp::from_unix(x509.validity.not_before.timestamp()),
                not_after: Timestamp::from_unix(x509.validity.not_after.timestamp()),
            },
            spki: x509.subject_pki.raw.to_vec(),
            key: KeyKind::of_public(&x509.subject_pki),
            is_ca: x509.is_ca(),
            server_usage: server_usage(&x509),
            weak_signature: weak_signature(&x509.signature_algorithm.algorithm),
            der: CertificateDer::from(Vec::new()),
        };
        Ok(Self {
            der: CertificateDer::from(der),
            ..parsed
        })
    }

    /// Whether it names itself as its issuer.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether it was issued by `issuer`: names first, then the signature.
    pub(super) fn issued_by(&self, issuer: &Self) -> Issued {
        if self.issuer != issuer.subject {
            return Issued::No;
        }
        self.signed_by(&issuer.spki)
    }

    /// Whether its signature was made with the key of this SubjectPublicKeyInfo.
    pub(super) fn signed_by(&self, spki: &[u8]) -> Issued {
        signed_by(&self.der, spki)
    }
}

/// Whether the signature of something that is made of a message, an algorithm and a signature, as
/// certificates and answers about them are, was made with the key of this SubjectPublicKeyInfo.
pub(super) fn signed_by(der: &[u8], spki: &[u8]) -> Issued {
    let Some((signed, key)) = Signed::read(der).zip(Key::read(spki)) else {
        return Issued::No;
    };
    let mut tried = false;
    for algorithm in webpki::ALL_VERIFICATION_ALGS {
        if algorithm.signature_alg_id().as_ref() != signed.algorithm
            || algorithm.public_key_alg_id().as_ref() != key.algorithm
        {
            continue;
        }
        tried = true;
        if algorithm
            .verify_signature(key.bits, signed.message, signed.signature)
            .is_ok()
        {
            return Issued::Yes;
        }
    }
    if tried { Issued::No } else { Issued::Perhaps }
}

/// A certificate's serial number, as it is in DER.
pub(super) fn serial_of(der: &[u8]) -> Option<Vec<u8>> {
    let (_, x509) = X509Certificate::from_der(der).ok()?;
    Some(x509.raw_serial().to_vec())
}

/// The key itself in a SubjectPublicKeyInfo.
pub(super) fn key_bits(spki: &[u8]) -> Option<&[u8]> {
    Key::read(spki).map(|key| key.bits)
}

/// What is in a value, without its head.
pub(super) fn content_of(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(_, any)| any.data)
}

/// Whether two SubjectPublicKeyInfos hold the same key, however its algorithm is written: RSA's
/// parameters are NULL or absent.
pub(super) fn same_key(one: &[u8], other: &[u8]) -> bool {
    one == other
        || Key::read(one)
            .zip(Key::read(other))
            .is_some_and(|(one, other)| one.bits == other.bits)
}

/// SHA-256.
pub(super) fn sha256(data: &[u8]) -> Fingerprint {
    static SHA256: &dyn Hash =
        match rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256 {
            rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
            rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
        };
    let mut bytes = [0; 32];
    bytes.copy_from_slice(SHA256.hash(data).as_ref());
    Fingerprint(bytes)
}

/// As `openssl x509 -serial` writes it, in lower case: without the zero byte that only keeps a DER
/// integer positive.
pub(super) fn hexadecimal(serial: &[u8]) -> String {
    let digits = match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text from a certificate or file, fit for a message: bounded, and without control characters,
/// which could forge lines in a log.
pub(super) fn printable(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// What kind of key it is, whether or not a handshake here can use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// One that handshakes use.
    Usable(KeyType),
    /// RSA with fewer than 2048 bits.
    ShortRsa(u32),
    /// RSA with more than 8192 bits, beyond what the cryptographic library signs with.
    LongRsa(u32),
    /// Anything else, by name.
    Other(String),
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usable(key) => key.fmt(f),
            Self::ShortRsa(bits) | Self::LongRsa(bits) => write!(f, "RSA {bits}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl KeyKind {
    fn of_public(spki: &SubjectPublicKeyInfo<'_>) -> Self {
        let rsa_bits = match spki.parsed() {
            Ok(PublicKey::RSA(key)) => bits(key.modulus),
            _ => 0,
        };
        let curve = spki.algorithm.parameters.as_ref();
        Self::of(
            &spki.algorithm.algorithm,
            curve.and_then(oid_of).as_ref(),
            rsa_bits,
        )
    }

    /// The kind of a public key, given as a SubjectPublicKeyInfo.
    pub(super) fn of_spki(der: &[u8]) -> Self {
        SubjectPublicKeyInfo::from_der(der).map_or_else(
            |_| Self::Other("of unknown type".to_owned()),
            |(_, spki)| Self::of_public(&spki),
        )
    }

    /// The kind of a PKCS#8 private key (RFC 5958, section 2), if it is one.
    pub(super) fn of_pkcs8(der: &[u8]) -> Option<Self> {
        let fields = elements(sequence(der)?.data)?;
        let [version, algorithm, key, ..] = fields.as_slice() else {
            return None;
        };
        let tags = [version.tag(), algorithm.tag(), key.tag()];
        if tags != [Tag::Integer, Tag::Sequence, Tag::OctetString] {
            return None;
        }
        let algorithm = elements(algorithm.data)?;
        let name = oid_of(algorithm.first()?)?;
        let curve = algorithm.get(1).and_then(oid_of);
        if name == oid::OID_PKCS1_RSAENCRYPTION {
            return Self::of_pkcs1(key.data);
        }
        Some(Self::of(&name, curve.as_ref(), 0))
    }

    /// The kind of a PKCS#1 private key (RFC 8017, appendix A.1.2), if it is one.
    pub(super) fn of_pkcs1(der: &[u8]) -> Option<Self> {
        let fields = elements(sequence(der)?.data)?;
        let numbers = fields.len() >= 9 && fields[..9].iter().all(|any| any.tag() == Tag::Integer);
        let name = &oid::OID_PKCS1_RSAENCRYPTION;
        numbers.then(|| Self::of(name, None, bits(fields[1].data)))
    }

    /// The kind of a SEC1 private key (RFC 5915, section 3), if it is one.
    pub(super) fn of_sec1(der: &[u8]) -> Option<Self> {
        let fields = elements(sequence(der)?.data)?;
        let [version, key, ..] = fields.as_slice() else {
            return None;
        };
        if [version.tag(), key.tag()] != [Tag::Integer, Tag::OctetString] {
            return None;
        }
        let parameters = fields.iter().find(|field| field.tag() == Tag(0))?;
        let (_, curve) = Any::from_der(parameters.data).ok()?;
        let name = &oid::OID_KEY_TYPE_EC_PUBLIC_KEY;
        Some(Self::of(name, oid_of(&curve).as_ref(), 0))
    }

    fn of(algorithm: &Oid<'_>, curve: Option<&Oid<'_>>, rsa_bits: u32) -> Self {
        if *algorithm == oid::OID_PKCS1_RSAENCRYPTION {
            return match rsa_bits {
                ..2048 => Self::ShortRsa(rsa_bits),
                2048..=8192 => Self::Usable(KeyType::Rsa(rsa_bits)),
                _ => Self::LongRsa(rsa_bits),
            };
        }
        if *algorithm == oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
            return match curve {
                Some(c) if *c == oid::OID_EC_P256 => Self::Usable(KeyType::EcdsaP256),
                Some(c) if *c == oid::OID_NIST_EC_P384 => Self::Usable(KeyType::EcdsaP384),
                Some(c) if *c == oid::OID_NIST_EC_P521 => Self::Usable(KeyType::EcdsaP521),
                Some(c) => Self::Other(match c.to_id_string().as_str() {
                    "1.3.132.0.10" => "ECDSA secp256k1".to_owned(),
                    other => format!("ECDSA over the curve {}", printable(other)),
                }),
                None => Self::Other("ECDSA with explicit curve parameters".to_owned()),
            };
        }
        match algorithm.to_id_string().as_str() {
            "1.3.101.112" => Self::Usable(KeyType::Ed25519),
            "1.3.101.113" => Self::Other("Ed448".to_owned()),
            "1.3.101.110" => Self::Other("X25519, which cannot sign".to_owned()),
            "1.2.840.113549.1.1.10" => Self::Other("RSASSA-PSS".to_owned()),
            "1.2.840.10040.4.1" => Self::Other("DSA".to_owned()),
            other => Self::Other(format!("algorithm {}", printable(other))),
        }
    }
}

/// Length of an unsigned big-endian number.
fn bits(number: &[u8]) -> u32 {
    let first = number.iter().position(|byte| *byte != 0);
    first.map_or(0, |at| {
        let bits = (number.len() - at) * 8 - number[at].leading_zeros() as usize;
        u32::try_from(bits).unwrap_or(u32::MAX)
    })
}

/// The object identifier that this is. The parser's own conversion would take any bytes for one.
pub(super) fn oid_of<'a>(any: &Any<'a>) -> Option<Oid<'a>> {
    any.tag().assert_eq(Tag::Oid).ok()?;
    any.clone().oid().ok()
}

/// The one DER SEQUENCE that `der` is.
pub(super) fn sequence(der: &[u8]) -> Option<Any<'_>> {
    let (rest, any) = Any::from_der(der).ok()?;
    (rest.is_empty() && any.tag() == Tag::Sequence).then_some(any)
}

/// The elements of a constructed value's content, few as they must be.
pub(super) fn elements(mut content: &[u8]) -> Option<Vec<Any<'_>>> {
    const MOST: usize = 16;
    let mut found = Vec::new();
    while !content.is_empty() && found.len() < MOST {
        let (rest, any) = Any::from_der(content).ok()?;
        found.push(any);
        content = rest;
    }
    Some(found)
}

/// A certificate's three parts (RFC 5280, section 4.1).
struct Signed<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let (_, whole) = Any::from_der(der).ok()?;
        let content = whole.data;
        let (after_message, _) = Any::from_der(content).ok()?;
        let (after_algorithm, algorithm) = Any::from_der(after_message).ok()?;
        let (_, signature) = Any::from_der(after_algorithm).ok()?;
        Some(Self {
            message: &content[..content.len() - after_message.len()],
            algorithm: algorithm.data,
            signature: whole_bits(signature.data)?,
        })
    }
}

/// A SubjectPublicKeyInfo's two parts (RFC 5280, section 4.1.2.7).
struct Key<'a> {
    algorithm: &'a [u8],
    bits: &'a [u8],
}

impl<'a> Key<'a> {
    fn read(spki: &'a [u8]) -> Option<Self> {
        let (_, whole) = Any::from_der(spki).ok()?;
        let (after_algorithm, algorithm) = Any::from_der(whole.data).ok()?;
        let (_, key) = Any::from_der(after_algorithm).ok()?;
        Some(Self {
            algorithm: algorithm.data,
            bits: whole_bits(key.data)?,
        })
    }
}

/// A BIT STRING's bytes, when it has no unused bits.
const fn whole_bits(content: &[u8]) -> Option<&[u8]> {
    match content {
        [0, bits @ ..] => Some(bits),
        _ => None,
    }
}

/// Whether clients let it stand for a server: its extended key usage names server authentication or
/// is absent (RFC 5280, section 4.2.1.12; "any" is not enough for Firefox and OpenSSL), and its key
/// usage lets it sign or is absent (section 4.2.1.3).
fn server_usage(x509: &X509Certificate<'_>) -> bool {
    let extended = match x509.extended_key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.server_auth),
        Err(_) => false,
    };
    let signing = match x509.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.digital_signature()),
        Err(_) => false,
    };
    extended && signing
}

fn weak_signature(algorithm: &Oid<'_>) -> Option<&'static str> {
    match algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" | "1.3.14.3.2.29" => {
            Some("SHA-1")
        }
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.2" => Some("MD5"),
        _ => None,
    }
}

/// A name as a person would say it: its common name, or else all of it.
fn name_text(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().find_map(|cn| cn.as_str().ok());
    match common.map(str::trim).filter(|cn| !cn.is_empty()) {
        Some(common) => printable(common),
        None => printable(&name.to_string()),
    }
}

fn reason(error: &x509_parser::nom::Err<x509_parser::error::X509Error>) -> String {
    let parser = match error {
        x509_parser::nom::Err::Incomplete(_) => "more bytes were expected".to_owned(),
        x509_parser::nom::Err::Error(e) | x509_parser::nom::Err::Failure(e) => e.to_string(),
    };
    format!(
        "it is cut short, overwritten or no certificate at all ({})",
        printable(&parser)
    )
}
