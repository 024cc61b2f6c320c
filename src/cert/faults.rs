//! What is wrong with a certificate that can be served all the same.

use std::path::Path;

use super::{Fault, Reason, Verified};
use crate::clock::Timestamp;

impl Verified {
    /// Everything that makes clients refuse it, or will, at this moment: the gravest first.
    pub fn faults(&self, now: Timestamp) -> Vec<Fault> {
        let (facts, file) = (self.facts(), shell(&self.facts().path));
        let mut faults = Vec::new();
        let mut fault = |reason, detail, help| {
            faults.push(Fault {
                reason,
                detail,
                help,
            });
        };
        let validity = facts.validity;
        if now > validity.not_after {
            let ago = days(now.since(validity.not_after));
            fault(
                Reason::Expired,
                format!("it expired at {}, {ago} ago", validity.not_after),
                format!("renew it; openssl x509 -noout -dates -in {file}"),
            );
        } else if now < validity.not_before {
            let ahead = days(validity.not_before.since(now));
            fault(
                Reason::NotYetValid,
                format!("it is not valid before {}, in {ahead}", validity.not_before),
                format!(
                    "check this machine's clock (it says {now}), or wait; openssl x509 -noout \
                     -dates -in {file}"
                ),
            );
        }
        if facts.chain_not_after < now && facts.chain_not_after < validity.not_after {
            fault(
                Reason::BrokenChain,
                format!(
                    "'{}', which its chain goes through, expired at {}",
                    facts.first_to_expire, facts.chain_not_after
                ),
                format!(
                    "take the current chain from the authority; {}",
                    list_chain(&file)
                ),
            );
        } else if !facts.chain_complete {
            fault(
                Reason::BrokenChain,
                self.shortcoming("the chain has a gap"),
                format!(
                    "add the missing certificate below the leaf, or, for a private authority, its \
                     root to this system's; {}",
                    list_chain(&file)
                ),
            );
        } else if !facts.trusted {
            fault(
                Reason::UntrustedChain,
                self.shortcoming("the chain does not end at a root that this system trusts"),
                format!(
                    "where clients know a private root, add it to this system's too; openssl \
                     verify -untrusted {file} {file}"
                ),
            );
        }
        if !facts.server_usage {
            fault(
                Reason::WrongUsage,
                "its key usages leave out that of a TLS server".to_owned(),
                format!(
                    "have it issued with extended key usage serverAuth and key usage \
                     digitalSignature; openssl x509 -noout -ext extendedKeyUsage,keyUsage -in {file}"
                ),
            );
        }
        if facts.names.is_empty() {
            fault(
                Reason::NamesLost,
                "it carries no subject alternative name that a client could match; the common \
                 name counts for nothing"
                    .to_owned(),
                format!(
                    "have it issued with its names as subject alternative names; openssl x509 \
                     -noout -ext subjectAltName -in {file}"
                ),
            );
        }
        if !facts.weaknesses.is_empty() {
            fault(
                Reason::WeakKey,
                facts.weaknesses.join("; "),
                format!("have it issued anew; openssl x509 -noout -text -in {file}"),
            );
        }
        faults
    }

    fn shortcoming(&self, otherwise: &str) -> String {
        let known = self.facts().chain_shortcoming.as_deref();
        known.unwrap_or(otherwise).to_owned()
    }
}

fn list_chain(file: &str) -> String {
    format!(
        "who issued whom: openssl crl2pkcs7 -nocrl -certfile {file} | openssl pkcs7 -print_certs -noout"
    )
}

/// A length of time as a person would say it.
pub(super) fn days(seconds: i64) -> String {
    let (count, unit) = match seconds {
        ..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// A path as a shell would want it typed.
pub(super) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", super::x509::printable(&text).replace('\'', r"'\''"))
    }
}
