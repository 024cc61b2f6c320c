//! What a file holds: certificates, keys, or something that was put there by mistake.

use std::path::Path;

use x509_parser::asn1_rs::{Any, FromDer, Tag};

use super::{File, MAX_BYTES, rejection};
use crate::cert::faults::shell;
use crate::cert::pem::{self, Block, Damage, Label};
use crate::cert::x509::{Certificate, KeyKind, elements, oid_of};
use crate::cert::{Reason, Rejection};

/// What a file is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Chain,
    Key,
}

impl Wanted {
    /// The reason when there is none.
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Chain => Reason::NoCertificate,
            Self::Key => Reason::NoKey,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Chain => "a certificate",
            Self::Key => "a private key",
        }
    }
}

/// A file's blocks; for a DER file, its only one. What is neither is a rejection, in which `wanted`
/// gives the code.
pub(super) fn blocks(file: &File, wanted: Wanted) -> Result<Vec<Block>, Rejection> {
    let bytes = file.bytes.as_slice();
    if bytes.len() > MAX_BYTES {
        let error = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
        return Err(super::rejection_for_io(&file.path, &error));
    }
    if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) {
        let detail = format!(
            "it is {} zero bytes, as a crash may leave behind",
            bytes.len()
        );
        return Err(damaged(&file.path, &detail));
    }
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'-', 0, ..] | [0, b'-', ..] = bytes {
        let path = shell(&file.path);
        let help = format!("write it as plain text: iconv -f UTF-16 -t UTF-8 {path} > new.pem");
        return Err(rejection(
            Reason::MalformedPem,
            &file.path,
            "it is UTF-16 text",
            help,
        ));
    }
    if pem::looks_like_pem(bytes) {
        let blocks = pem::blocks(bytes).map_err(|Damage { line, what }| {
            damaged(&file.path, &format!("line {line}: {what}"))
        })?;
        if !blocks.is_empty() {
            return Ok(blocks);
        }
    }
    der(file, wanted).map(|block| vec![block])
}

/// Certificates and where they stand, all of them or none: a damaged one is never skipped.
pub(super) fn certificates(file: &File, blocks: Vec<Block>) -> Result<Vec<Certificate>, Rejection> {
    let mut certificates = Vec::new();
    for block in blocks {
        if block.label == Label::Certificate {
            let line = block.line;
            let certificate = Certificate::parse(block.der).map_err(|why| {
                let place = match line {
                    0 => String::new(),
                    line => format!("the block on line {line}: "),
                };
                malformed(&file.path, &format!("{place}{why}"))
            })?;
            certificates.push(certificate);
        }
    }
    Ok(certificates)
}

/// The PEM armour is damaged.
pub(super) fn damaged(path: &Path, detail: &str) -> Rejection {
    let file = shell(path);
    rejection(
        Reason::MalformedPem,
        path,
        detail,
        format!(
            "write the file again, whole; what openssl makes of it: openssl storeutl -noout -text \
             {file}"
        ),
    )
}

/// A certificate's DER is damaged.
pub(super) fn malformed(path: &Path, detail: &str) -> Rejection {
    let file = shell(path);
    rejection(
        Reason::MalformedCertificate,
        path,
        format!("a certificate cannot be parsed: {detail}"),
        format!(
            "write the file again, whole; what openssl makes of it: openssl x509 -noout -text -in {file}"
        ),
    )
}

/// The file is sound, and of no use: none of its blocks is what is wanted.
pub(super) fn nothing_wanted(file: &File, labels: &[Label], wanted: Wanted) -> Rejection {
    let has = |label| labels.contains(&label);
    let mistake = if wanted == Wanted::Key && has(Label::EncryptedKey) {
        Mistake::EncryptedKey
    } else if has(Label::ForeignKey) {
        Mistake::ForeignKey
    } else if has(Label::Request) {
        Mistake::Request
    } else if has(Label::Pkcs7) {
        Mistake::Pkcs7
    } else if wanted == Wanted::Key && has(Label::Certificate) {
        Mistake::OnlyCertificates
    } else if wanted == Wanted::Chain && labels.iter().any(|label| label.is_key()) {
        Mistake::OnlyKeys
    } else if has(Label::PublicKey) {
        Mistake::PublicKey
    } else {
        Mistake::OtherPem
    };
    mistake.rejection(&file.path, wanted)
}

/// Reads a file that is not PEM.
fn der(file: &File, wanted: Wanted) -> Result<Block, Rejection> {
    let bytes = file.bytes.as_slice();
    if bytes.first() != Some(&0x30) {
        return Err(Mistake::of_text(bytes).rejection(&file.path, wanted));
    }
    let block = |label| {
        Ok(Block {
            label,
            der: bytes.to_vec(),
            line: 0,
        })
    };
    if let Ok((_, whole)) = Any::from_der(bytes)
        && let Some(mistake) = Mistake::of_der(&whole)
    {
        return Err(mistake.rejection(&file.path, wanted));
    }
    if KeyKind::of_pkcs8(bytes).is_some() {
        return block(Label::Pkcs8);
    }
    if KeyKind::of_pkcs1(bytes).is_some() {
        return block(Label::Pkcs1);
    }
    if KeyKind::of_sec1(bytes).is_some() {
        return block(Label::Sec1);
    }
    match wanted {
        Wanted::Chain => block(Label::Certificate),
        Wanted::Key if Certificate::parse(bytes.to_vec()).is_ok() => block(Label::Certificate),
        Wanted::Key => Err(Mistake::DamagedKey.rejection(&file.path, wanted)),
    }
}

/// What was put there instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    Empty,
    Pkcs12,
    Pkcs7,
    Request,
    PublicKey,
    EncryptedKey,
    ForeignKey,
    DamagedKey,
    OnlyKeys,
    OnlyCertificates,
    OtherPem,
    JavaKeystore,
    Html,
    BareBase64,
    SshPublicKey,
    Text,
    Binary,
}

impl Mistake {
    /// Kinds of DER that are neither certificate nor plain key, by their shape.
    fn of_der(whole: &Any<'_>) -> Option<Self> {
        const DATA: &str = "1.2.840.113549.1.7.1";
        const SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
        let fields = elements(whole.data)?;
        let name = |any: &Any<'_>| oid_of(any).map(|oid| oid.to_id_string());
        let tags: Vec<_> = fields.iter().map(Any::tag).collect();
        let inner = |at: usize| elements(fields.get(at)?.data);
        match tags.as_slice() {
            [Tag::Oid, ..] if name(&fields[0]).as_deref() == Some(SIGNED_DATA) => Some(Self::Pkcs7),
            [Tag::Integer, Tag::Sequence, ..]
                if [Some(DATA), Some(SIGNED_DATA)]
                    .contains(&name(inner(1)?.first()?).as_deref()) =>
            {
                Some(Self::Pkcs12)
            }
            [Tag::Sequence, Tag::OctetString] => Some(Self::EncryptedKey),
            [Tag::Sequence, Tag::BitString] => Some(Self::PublicKey),
            [Tag::Sequence, Tag::Sequence, Tag::BitString] => {
                // A request has version, name, key and attributes; a certificate has more.
                let inner = inner(0)?;
                let request = inner.len() == 4 && inner[0].tag() == Tag::Integer;
                request.then_some(Self::Request)
            }
            _ => None,
        }
    }

    fn of_text(bytes: &[u8]) -> Self {
        let text = bytes.trim_ascii();
        let lower = text[..text.len().min(512)].to_ascii_lowercase();
        let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=\r\n".contains(b);
        match lower.as_slice() {
            [] => Self::Empty,
            [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => Self::JavaKeystore,
            [b'<', ..] => Self::Html,
            _ if lower.starts_with(b"ssh-") || lower.starts_with(b"ecdsa-sha2-") => {
                Self::SshPublicKey
            }
            _ if text.starts_with(b"MII") && text.iter().all(base64) => Self::BareBase64,
            _ if std::str::from_utf8(text).is_ok() => Self::Text,
            _ => Self::Binary,
        }
    }

    fn rejection(self, path: &Path, wanted: Wanted) -> Rejection {
        let reason = match self {
            Self::BareBase64 => Reason::MalformedPem,
            _ => wanted.reason(),
        };
        let detail = format!("{} was expected, and {}", wanted.noun(), self.found());
        rejection(reason, path, detail, self.help(path, wanted))
    }

    const fn found(self) -> &'static str {
        match self {
            Self::Empty => "the file is empty",
            Self::Pkcs12 => "this is a PKCS#12 file (.p12, .pfx)",
            Self::Pkcs7 => "this is a PKCS#7 container (.p7b)",
            Self::Request => "this is a certificate request (CSR), not yet a certificate",
            Self::PublicKey => "this is a public key",
            Self::EncryptedKey => "the private key is encrypted with a passphrase",
            Self::ForeignKey => "this is a private key in a form that TLS servers do not use",
            Self::DamagedKey => "this is no private key, or a damaged one",
            Self::OnlyKeys => "the file holds a private key only",
            Self::OnlyCertificates => "the file holds certificates only",
            Self::OtherPem => "the file holds PEM blocks of other kinds only",
            Self::JavaKeystore => "this is a Java keystore (JKS)",
            Self::Html => "this is a web page (HTML or XML), perhaps a download that failed",
            Self::BareBase64 => "this is base64 without its BEGIN and END lines",
            Self::SshPublicKey => "this is an SSH public key",
            Self::Text => "this is text without any PEM block",
            Self::Binary => "this is neither PEM nor DER",
        }
    }

    fn help(self, path: &Path, wanted: Wanted) -> String {
        let file = shell(path);
        match self {
            Self::Empty => format!("write it again, whole; ls -l {file}"),
            Self::Pkcs12 => format!(
                "convert it: openssl pkcs12 -in {file} -nodes -out bundle.pem, then configure \
                 bundle.pem as the chain, without a key"
            ),
            Self::Pkcs7 => format!(
                "convert it: openssl pkcs7 -in {file} -print_certs -out chain.pem (with -inform \
                 DER when it is binary)"
            ),
            Self::Request => format!(
                "send it to the authority and use the certificate that comes back; openssl req \
                 -in {file} -noout -subject"
            ),
            Self::PublicKey => format!(
                "use the private key that it was made from; openssl pkey -pubin -in {file} -noout \
                 -text"
            ),
            Self::EncryptedKey => format!(
                "staunch cannot ask for a passphrase; decrypt it, and keep it readable by staunch \
                 only: openssl pkey -in {file} -out new.key && chmod 600 new.key"
            ),
            Self::ForeignKey => format!(
                "make a key for TLS, or convert a copy of this one: cp {file} new.key && \
                 ssh-keygen -p -N '' -m PEM -f new.key"
            ),
            Self::OnlyKeys | Self::OnlyCertificates => {
                let (setting, noun) = match wanted {
                    Wanted::Chain => ("chain", "certificates"),
                    Wanted::Key => ("key", "private key"),
                };
                format!(
                    "set `{setting}` to the file with the {noun} (are the two swapped?); what is \
                     in it: openssl storeutl -noout -text {file}"
                )
            }
            Self::DamagedKey => format!(
                "write it again, whole; what openssl makes of it: openssl pkey -in {file} -noout"
            ),
            Self::JavaKeystore => format!(
                "convert it: keytool -importkeystore -srckeystore {file} -deststoretype PKCS12 \
                 -destkeystore store.p12 && openssl pkcs12 -in store.p12 -nodes -out bundle.pem"
            ),
            Self::BareBase64 => format!(
                "decode it: base64 -d {file} > new.der, and see what it is: openssl storeutl \
                 -noout -text new.der"
            ),
            Self::OtherPem => format!("what is in it: grep BEGIN {file}"),
            Self::Html | Self::SshPublicKey | Self::Text | Self::Binary => {
                format!("write the right file there; see what this one is: head -c 200 {file}")
            }
        }
    }
}

/// The block's private key is damaged, although the armour around it is not.
pub(super) fn damaged_key(path: &Path) -> Rejection {
    Mistake::DamagedKey.rejection(path, Wanted::Key)
}
