//! The names that a certificate covers.
//!
//! Only subject alternative names count (RFC 9525, section 2; the common name never does), and of
//! those only what a client can match: host names in ASCII, wildcards that stand for the whole
//! leftmost label (section 6.3), addresses. Whatever else is there is left out and noted.

use std::collections::HashSet;
use std::net::IpAddr;

use rustls_pki_types::DnsName;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::Name;
use super::x509::printable;

/// Names kept of one certificate. Public authorities stop at 100 or so.
pub const MAX_NAMES: usize = 1000;

/// The names, in the certificate's order, and notes about those left out.
pub(super) fn of(x509: &X509Certificate<'_>) -> (Vec<Name>, Vec<String>) {
    let mut notes = Vec::new();
    let names = match x509.subject_alternative_name() {
        Ok(Some(names)) => names,
        Ok(None) => return (Vec::new(), notes),
        Err(_) => {
            notes.push("its subject alternative names cannot be read".to_owned());
            return (Vec::new(), notes);
        }
    };
    let mut kept = Vec::new();
    let mut seen = HashSet::new();
    let mut odd = Odd::default();
    for name in &names.value.general_names {
        match read(name) {
            Ok(Some(name)) if kept.len() == MAX_NAMES && !seen.contains(&name) => odd.beyond += 1,
            Ok(Some(name)) => {
                if seen.insert(name.clone()) {
                    kept.push(name);
                }
            }
            Ok(None) => {}
            Err(why) => odd.push(why),
        }
    }
    notes.extend(odd.notes());
    (kept, notes)
}

/// What was left out: the first few by name, the rest by number, since a certificate may hold
/// thousands.
#[derive(Default)]
struct Odd {
    first: Vec<String>,
    more: usize,
    beyond: usize,
}

impl Odd {
    fn push(&mut self, why: String) {
        const SPELT_OUT: usize = 5;
        if self.first.len() < SPELT_OUT {
            self.first.push(why);
        } else {
            self.more += 1;
        }
    }

    fn notes(self) -> impl Iterator<Item = String> {
        let more = (self.more > 0).then(|| format!("{} more names are left out", self.more));
        let beyond = (self.beyond > 0).then(|| {
            let beyond = self.beyond;
            format!("{beyond} names beyond the first {MAX_NAMES} are left out")
        });
        self.first.into_iter().chain(more).chain(beyond)
    }
}

/// One entry; `None` for kinds that no TLS client asks for (mail addresses, URIs and so on).
fn read(name: &GeneralName<'_>) -> Result<Option<Name>, String> {
    match name {
        GeneralName::DNSName(text) => dns(text).map(Some),
        GeneralName::IPAddress(bytes) => address(bytes).map(Some),
        // Tag 2 is a host name whose bytes are not even text.
        GeneralName::Invalid(tag, bytes) if tag.0 == 2 => {
            let shown = printable(&String::from_utf8_lossy(bytes));
            Err(left_out(&shown, "is not ASCII"))
        }
        _ => Ok(None),
    }
}

fn dns(text: &str) -> Result<Name, String> {
    let lower = text.to_ascii_lowercase();
    let host = lower.strip_suffix('.').unwrap_or(&lower);
    let (host, wildcard) = match host.strip_prefix("*.") {
        Some(parent) => (parent, true),
        None => (host, false),
    };
    if !text.is_ascii() {
        return Err(left_out(
            text,
            "is not ASCII (write it as A-labels, 'xn--…')",
        ));
    }
    if host.contains('*') {
        return Err(left_out(
            text,
            "has a wildcard that is not the whole leftmost label",
        ));
    }
    if host.parse::<IpAddr>().is_ok() {
        return Err(left_out(text, "is an address written as a host name"));
    }
    if host.ends_with('.') || DnsName::try_from(host).is_err() {
        return Err(left_out(text, "is not a host name"));
    }
    Ok(match wildcard {
        true => Name::Wildcard(host.into()),
        false => Name::Dns(host.into()),
    })
}

fn address(bytes: &[u8]) -> Result<Name, String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Name::Ip(v4.into()));
    }
    if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        return Ok(Name::Ip(v6.into()));
    }
    Err(format!(
        "an address of {} bytes is left out: 4 or 16 were expected",
        bytes.len()
    ))
}

fn left_out(name: &str, why: &str) -> String {
    format!("the name '{}' is left out: it {why}", printable(name))
}
