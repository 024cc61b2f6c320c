//! Who a client has shown to be, as the upstream is told (RFC 9440).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::digest::sha256;
use crate::config::ClientHeader;

/// The field that says whether the certificate is good: `success`, `failed` or `none`.
const VERIFY: &str = "X-Client-Cert-Verify";

/// A chain that is passed on has so many certificates at most.
const CHAIN: usize = 8;

/// What a verified certificate says, where a rule asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// All of it, in base64.
    Certificate,
    /// Whose it is (RFC 4514).
    Subject,
    /// Who signed it.
    Issuer,
    /// Its number in hexadecimal.
    Serial,
}

/// What a client showed, as fields of a request.
#[derive(Debug)]
pub struct Identity {
    /// Its certificate was verified.
    pub verified: bool,
    /// The certificate's SHA-256 in hexadecimal; empty without one.
    pub fingerprint: String,
    /// The subject's common name, where it was verified.
    pub common_name: Option<Box<str>>,
    fields: Vec<(&'static str, String)>,
    /// What was verified, leaf first; empty where nothing was.
    chain: Vec<CertificateDer<'static>>,
    /// The last of those who judged the chain, and its word: the number and, as the lowest bit,
    /// whether it is good.
    judged: AtomicU64,
}

impl Identity {
    /// Of a client that showed nothing.
    pub fn nobody() -> Self {
        Self {
            verified: false,
            fingerprint: String::new(),
            common_name: None,
            fields: vec![(VERIFY, "none".to_owned())],
            chain: Vec::new(),
            judged: AtomicU64::new(0),
        }
    }

    /// Of a client with this chain, leaf first.
    pub fn of(chain: &[CertificateDer<'_>], verified: bool, headers: &[ClientHeader]) -> Self {
        let Some((leaf, rest)) = chain.split_first() else {
            return Self::nobody();
        };
        let fingerprint = hexadecimal(&sha256(leaf));
        let x509 = X509Certificate::from_der(leaf).ok().map(|(_, x509)| x509);
        let mut fields = vec![(
            VERIFY,
            if verified { "success" } else { "failed" }.to_owned(),
        )];
        for header in headers {
            let field = match header {
                ClientHeader::Certificate => Some(("Client-Cert", bytes(leaf))),
                ClientHeader::Chain => (!rest.is_empty()).then(|| {
                    let all: Vec<_> = rest.iter().take(CHAIN).map(|der| bytes(der)).collect();
                    ("Client-Cert-Chain", all.join(", "))
                }),
                ClientHeader::Subject => (x509.as_ref())
                    .map(|x509| ("X-Client-Cert-Subject", distinguished_name(&x509.subject))),
                ClientHeader::San => (x509.as_ref())
                    .and_then(alternative_names)
                    .map(|names| ("X-Client-Cert-SAN", names)),
                ClientHeader::Fingerprint => {
                    Some(("X-Client-Cert-Fingerprint", fingerprint.clone()))
                }
                ClientHeader::Pem => Some(("X-Client-Cert-PEM", pem(leaf))),
            };
            fields.extend(field);
        }
        let common_name = x509.as_ref().filter(|_| verified).and_then(|x509| {
            let mut names = x509.subject.iter_common_name();
            names.find_map(|name| name.as_str().ok()).map(Into::into)
        });
        Self {
            verified,
            fingerprint,
            common_name,
            fields,
            chain: match verified {
                true => chain.iter().map(|der| der.clone().into_owned()).collect(),
                false => Vec::new(),
            },
            judged: AtomicU64::new(0),
        }
    }

    /// Whether the judge of this number finds the chain good, asked once of each. What was never
    /// verified need not be again.
    pub(super) fn confirm(
        &self,
        number: u64,
        judge: impl FnOnce(&[CertificateDer<'_>]) -> bool,
    ) -> bool {
        if self.chain.is_empty() {
            return true;
        }
        let last = self.judged.load(Ordering::Relaxed);
        if last >> 1 == number {
            return last & 1 == 1;
        }
        let good = judge(&self.chain);
        let word = number << 1 | u64::from(good);
        self.judged.store(word, Ordering::Relaxed);
        good
    }

    /// What the certificate says, where it was verified: printable ASCII.
    pub fn fact(&self, fact: Fact) -> Option<String> {
        let leaf = self.chain.first()?;
        if fact == Fact::Certificate {
            return Some(BASE64.encode(leaf));
        }
        let (_, x509) = X509Certificate::from_der(leaf).ok()?;
        Some(match fact {
            Fact::Issuer => distinguished_name(&x509.issuer),
            Fact::Serial => hexadecimal(x509.raw_serial()),
            _ => distinguished_name(&x509.subject),
        })
    }

    /// Names and values of the fields. Values are printable ASCII, whatever the certificate says.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }
}

/// A byte sequence of a structured field (RFC 8941, section 3.3.5).
fn bytes(der: &[u8]) -> String {
    format!(":{}:", BASE64.encode(der))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// PEM, percent-encoded as nginx's `$ssl_client_escaped_cert` is.
fn pem(der: &[u8]) -> String {
    let encoded = BASE64.encode(der);
    let mut text = String::from("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, c) in encoded.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            text.push_str("%0A");
        }
        match c {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            c => text.push(c),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}

/// RFC 4514: the last part first.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<_> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<_> = rdn.iter().map(attribute).collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let short = match oid.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => &oid,
    };
    match attribute.as_str() {
        Ok(value) => format!("{short}={}", escaped(value)),
        // Section 2.4: what is no string, as its bytes.
        Err(_) => format!("{short}=#{}", hexadecimal(attribute.as_slice())),
    }
}

/// RFC 4514, section 2.4; everything that is not printable ASCII as pairs of hexadecimal digits.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=')
            || (byte == b'#' && at == 0)
            || (byte == b' ' && (at == 0 || at == last));
        match byte {
            b' '..=b'~' => {
                if special {
                    text.push('\\');
                }
                text.push(char::from(byte));
            }
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
    text
}

/// Each name as a string of a structured list (RFC 8941, section 3.3.3), so that none can hold the
/// beginning of another.
fn alternative_names(x509: &X509Certificate<'_>) -> Option<String> {
    let extension = x509.subject_alternative_name().ok()??;
    let names: Vec<_> = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
            GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
            GeneralName::URI(uri) => Some(format!("URI:{uri}")),
            GeneralName::IPAddress(bytes) => address(bytes).map(|ip| format!("IP:{ip}")),
            GeneralName::DirectoryName(name) => {
                Some(format!("DirName:{}", distinguished_name(name)))
            }
            _ => None,
        })
        .map(|name| quoted(&name))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                quoted.push('\\');
                quoted.push(char::from(byte));
            }
            b' '..=b'~' => quoted.push(char::from(byte)),
            _ => {
                let _ = write!(quoted, "%{byte:02X}");
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: &str, san: Vec<SanType>) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Wren, Inc");
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = san;
        params.self_signed(&key).unwrap().der().clone()
    }

    fn field(identity: &Identity, name: &str) -> Option<String> {
        let mut found = identity.fields().filter(|(n, _)| *n == name);
        found.next().map(|(_, value)| value.to_owned())
    }

    #[test]
    fn a_certificate_is_told_of_in_all_its_ways() {
        let san = vec![
            SanType::DnsName("a.test".try_into().unwrap()),
            SanType::URI("spiffe://x/y".try_into().unwrap()),
            SanType::IpAddress([192, 0, 2, 1].into()),
        ];
        let (leaf, other) = (certificate("wren", san), certificate("ca", vec![]));
        let all = [
            ClientHeader::Certificate,
            ClientHeader::Chain,
            ClientHeader::Subject,
            ClientHeader::San,
            ClientHeader::Fingerprint,
            ClientHeader::Pem,
        ];
        let identity = Identity::of(&[leaf.clone(), other], true, &all);
        let get = |name| field(&identity, name).unwrap();
        assert_eq!(get("X-Client-Cert-Verify"), "success");
        assert_eq!(get("Client-Cert"), format!(":{}:", BASE64.encode(&leaf)));
        assert!(get("Client-Cert-Chain").starts_with(':'));
        assert_eq!(get("X-Client-Cert-Subject"), "CN=wren,O=Wren\\, Inc,C=DE");
        assert_eq!(
            get("X-Client-Cert-SAN"),
            "\"DNS:a.test\", \"URI:spiffe://x/y\", \"IP:192.0.2.1\""
        );
        assert_eq!(get("X-Client-Cert-Fingerprint"), identity.fingerprint);
        assert!(get("X-Client-Cert-PEM").starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"));
    }

    #[test]
    fn no_certificate_can_break_out_of_its_field() {
        let leaf = certificate("a\r\nX-Admin: yes,CN=root ü", vec![]);
        let identity = Identity::of(&[leaf], false, &[ClientHeader::Subject]);
        assert_eq!(
            field(&identity, "X-Client-Cert-Subject").unwrap(),
            "CN=a\\0D\\0AX-Admin: yes\\,CN\\=root \\C3\\BC,O=Wren\\, Inc,C=DE"
        );
        assert_eq!(quoted("a\", \"DNS:b\r\n"), "\"a\\\", \\\"DNS:b%0D%0A\"");
    }
}
