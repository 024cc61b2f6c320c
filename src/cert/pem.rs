//! PEM armour (RFC 7468), read strictly.
//!
//! The usual readers skip what they do not understand: a block that was cut off, a boundary line
//! with a dash missing, base64 without a boundary. For a server that turns a half-written file
//! into a *shorter chain*, which then breaks some clients and not others. Here damage is an error
//! that names its line; what is harmless (text around blocks, CRLF, a byte order mark,
//! indentation) is tolerated. The base64 itself is decoded by `rustls-pki-types`.

use std::borrow::Cow;

use rustls_pki_types::pem::{PemObject, SectionKind};

/// Blocks read from one file at most; more is not a chain, and costs time.
pub(super) const MAX_BLOCKS: usize = 64;

/// What a block says it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    /// A certificate. OpenSSL's old `X509 CERTIFICATE` and its `TRUSTED CERTIFICATE` are here too;
    /// the latter has trust settings behind the certificate, which are cut off.
    Certificate,
    /// A private key: PKCS#8 (RFC 5958).
    Pkcs8,
    /// A private key: PKCS#1, RSA only (RFC 8017, appendix A.1.2).
    Pkcs1,
    /// A private key: SEC1, elliptic curves only (RFC 5915).
    Sec1,
    /// A private key under a passphrase: PKCS#8, or the older way with a `Proc-Type` header
    /// (RFC 1421, section 4.6.1.1).
    EncryptedKey,
    /// A private key of a kind that TLS servers do not use: `OPENSSH PRIVATE KEY` and the like.
    ForeignKey,
    /// A certificate request (RFC 2986).
    Request,
    /// A public key.
    PublicKey,
    /// A PKCS#7 container of certificates.
    Pkcs7,
    /// Parameters, revocation lists and whatever else may stand in such a file: ignored.
    Other,
}

impl Label {
    fn of(text: &str) -> Self {
        match text {
            "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => Self::Certificate,
            "PRIVATE KEY" => Self::Pkcs8,
            "RSA PRIVATE KEY" => Self::Pkcs1,
            "EC PRIVATE KEY" => Self::Sec1,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::PublicKey,
            "PKCS7" | "CMS" => Self::Pkcs7,
            other if other.ends_with("PRIVATE KEY") => Self::ForeignKey,
            _ => Self::Other,
        }
    }

    /// Whether it is a private key of any kind.
    pub(super) const fn is_key(self) -> bool {
        matches!(
            self,
            Self::Pkcs8 | Self::Pkcs1 | Self::Sec1 | Self::EncryptedKey | Self::ForeignKey
        )
    }
}

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) label: Label,
    /// Empty for labels that are only ever reported, never used.
    pub(super) der: Vec<u8>,
    /// The line of its `BEGIN`, from 1.
    pub(super) line: usize,
}

/// What is wrong with the armour, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) line: usize,
    pub(super) what: String,
}

/// Whether the bytes are meant as PEM at all, damaged or not.
pub(super) fn looks_like_pem(bytes: &[u8]) -> bool {
    [b"-----".as_slice(), b"BEGIN ", b"END "]
        .iter()
        .any(|mark| memchr::memmem::find(bytes, mark).is_some())
        && bytes.first() != Some(&0x30)
}

/// Reads every block of a file, or says what is damaged.
pub(super) fn blocks(bytes: &[u8]) -> Result<Vec<Block>, Damage> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let unfinished = !bytes.ends_with(b"\n") && !bytes.ends_with(b"\r");
    let mut blocks = Vec::new();
    let mut open: Option<Open<'_>> = None;
    let mut lines = lines(bytes).peekable();
    while let Some((number, line)) = lines.next() {
        let last = unfinished && lines.peek().is_none();
        match (boundary(line, last), open.take()) {
            (Boundary::Begin(label), None) => open = Some(Open::new(label, number)),
            (Boundary::End(label), Some(block)) if block.label == label => {
                if blocks.len() == MAX_BLOCKS {
                    let what = format!("more than {MAX_BLOCKS} PEM blocks");
                    return Err(Damage { line: number, what });
                }
                blocks.push(block.close()?);
            }
            (Boundary::None, None) if is_stray_base64(line) => {
                let what = "base64 outside of any block: a BEGIN line is missing".to_owned();
                return Err(Damage { line: number, what });
            }
            (Boundary::None, None) => {}
            (Boundary::None, Some(mut block)) => {
                block.push(line);
                open = Some(block);
            }
            (Boundary::Broken, _) => {
                let what = format!("a damaged boundary line, '{}'", shown(line));
                return Err(Damage { line: number, what });
            }
            (Boundary::End(label), None) => {
                let what = format!("'-----END {}-----' without its BEGIN", shown(label));
                return Err(Damage { line: number, what });
            }
            (Boundary::Begin(label) | Boundary::End(label), Some(block)) => {
                let (found, begun) = (shown(label), block.describe());
                let what = format!("the block {begun} is not closed where '{found}' comes");
                return Err(Damage { line: number, what });
            }
        }
    }
    match open {
        None => Ok(blocks),
        Some(block) => Err(Damage {
            line: block.line,
            what: format!("the file ends inside the block {}", block.describe()),
        }),
    }
}

/// A block whose `END` has not come yet.
struct Open<'a> {
    label: &'a [u8],
    line: usize,
    /// A header such as `Proc-Type`, before the base64 (RFC 1421); not RFC 7468, but OpenSSL's
    /// encrypted keys have it.
    encrypted: bool,
    body: Vec<u8>,
}

impl<'a> Open<'a> {
    const fn new(label: &'a [u8], line: usize) -> Self {
        Self {
            label,
            line,
            encrypted: false,
            body: Vec::new(),
        }
    }

    fn push(&mut self, line: &[u8]) {
        if self.body.is_empty() && line.contains(&b':') {
            self.encrypted |= line.starts_with(b"Proc-Type:")
                && memchr::memmem::find(line, b"ENCRYPTED").is_some();
        } else if !line.is_empty() {
            self.body.extend_from_slice(line);
            self.body.push(b'\n');
        }
    }

    fn describe(&self) -> String {
        format!("'{}' begun on line {}", shown(self.label), self.line)
    }

    fn close(self) -> Result<Block, Damage> {
        let label = match Label::of(&String::from_utf8_lossy(self.label)) {
            label if label.is_key() && self.encrypted => Label::EncryptedKey,
            label => label,
        };
        let der = match label {
            Label::Certificate | Label::Pkcs8 | Label::Pkcs1 | Label::Sec1 => self.decode()?,
            _ => Vec::new(),
        };
        Ok(Block {
            label,
            der,
            line: self.line,
        })
    }

    /// The body's bytes. Armoured anew under a label that `rustls-pki-types` knows, which decodes
    /// in constant time for keys.
    fn decode(&self) -> Result<Vec<u8>, Damage> {
        let label: &[u8] = match self.label {
            b"X509 CERTIFICATE" | b"TRUSTED CERTIFICATE" => b"CERTIFICATE",
            other => other,
        };
        let armoured = [
            b"-----BEGIN ",
            label,
            b"-----\n",
            &self.body,
            b"-----END ",
            label,
            b"-----\n",
        ]
        .concat();
        match <(SectionKind, Vec<u8>)>::from_pem_slice(&armoured) {
            Ok((_, der)) if der.is_empty() => Err(self.damaged("is empty")),
            Ok((_, der)) if self.label == b"TRUSTED CERTIFICATE" => Ok(first_element(der)),
            Ok((_, der)) => Ok(der),
            Err(_) => Err(self.damaged("is not whole base64")),
        }
    }

    fn damaged(&self, how: &str) -> Damage {
        Damage {
            line: self.line,
            what: format!("the block {} {how}", self.describe()),
        }
    }
}

/// Drops what follows the first DER element. What is no DER is left for the certificate parser to
/// refuse.
fn first_element(mut der: Vec<u8>) -> Vec<u8> {
    use x509_parser::asn1_rs::{Any, FromDer};
    let rest = Any::from_der(&der).map_or(0, |(rest, _)| rest.len());
    der.truncate(der.len() - rest);
    der
}

enum Boundary<'a> {
    Begin(&'a [u8]),
    End(&'a [u8]),
    Broken,
    None,
}

/// What kind of line it is. `last`: it is the file's last one and has no line ending, so it may be
/// a boundary that was cut off.
fn boundary(line: &[u8], last: bool) -> Boundary<'_> {
    let whole = |prefix: &[u8]| {
        line.strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix(b"-----"))
            .filter(|label| !label.contains(&b'-'))
    };
    if let Some(label) = whole(b"-----BEGIN ") {
        return Boundary::Begin(label);
    }
    if let Some(label) = whole(b"-----END ") {
        return Boundary::End(label);
    }
    let cut_off = last && !line.is_empty() && b"-----BEGIN ".starts_with(line);
    // Underlines and separators (`---`) are common in the text around blocks, so dashes alone are
    // no damage: they must stand by a BEGIN or END.
    let has_word = |word: &[u8]| memchr::memmem::find(line, word).is_some();
    let dashed = line.starts_with(b"-") || line.ends_with(b"-----");
    if cut_off || dashed && (has_word(b"BEGIN") || has_word(b"END")) {
        return Boundary::Broken;
    }
    Boundary::None
}

/// Whether a line outside of any block is the body of one: no prose has 40 base64 characters in a
/// row and nothing else.
fn is_stray_base64(line: &[u8]) -> bool {
    line.len() >= 40
        && line
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
}

/// Lines with their numbers, whatever the line ending, without surrounding blanks.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    // "\r\n" is one line ending; a lone "\r" is one too.
    let mut number = 0;
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let all = rest.take().filter(|all| !all.is_empty())?;
        number += 1;
        let Some(at) = memchr::memchr2(b'\n', b'\r', all) else {
            return Some((number, all.trim_ascii()));
        };
        let width = if all[at..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = Some(&all[at + width..]);
        Some((number, all[..at].trim_ascii()))
    })
}

/// A piece of a hostile file, fit for a message.
fn shown(bytes: &[u8]) -> Cow<'static, str> {
    super::x509::printable(&String::from_utf8_lossy(&bytes[..bytes.len().min(60)])).into()
}
