//! What was seen, for people and for programs.

use std::fmt;

use rustls_pki_types::ServerName;
use serde::Serialize;

use super::handshake::Seen;
use crate::cert::chain::Roots;
use crate::cert::presented::{Presented, PresentedCertificate};
use crate::clock::Timestamp;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The name that was asked for.
    name: String,
    address: String,
    trusted: bool,
    /// Why not.
    problems: Vec<String>,
    remarks: Vec<String>,
    protocol: &'static str,
    cipher: String,
    key_exchange: Option<String>,
    alpn: Option<String>,
    /// Whether an OCSP response was stapled.
    stapled: bool,
    /// Of the leaf, in whole days; negative when it has expired.
    days_left: Option<i64>,
    chain: Vec<PresentedCertificate>,
    at: Timestamp,
}

impl Report {
    pub(super) fn new(seen: Seen, name: &ServerName<'_>, roots: &Roots, now: Timestamp) -> Self {
        let presented = Presented::read(&seen.chain, name, roots, now);
        let leaf = presented.chain.first();
        Self {
            name: name.to_str().into_owned(),
            address: seen.address.to_string(),
            trusted: presented.problems.is_empty(),
            problems: presented.problems,
            remarks: presented.remarks,
            protocol: seen.version,
            cipher: seen.cipher,
            key_exchange: seen.group,
            alpn: seen.alpn,
            stapled: !seen.staple.is_empty(),
            days_left: leaf.map(|leaf| leaf.not_after.since(now).div_euclid(86_400)),
            chain: presented.chain,
            at: now,
        }
    }

    pub(super) const fn trusted(&self) -> bool {
        self.trusted
    }

    /// One document. A report is plain data, so writing it cannot fail.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.trusted {
            "trusted"
        } else {
            "NOT trusted"
        };
        writeln!(f, "{} at {}: {verdict}", self.name, self.address)?;
        for problem in &self.problems {
            writeln!(f, "  ! {problem}")?;
        }
        for remark in &self.remarks {
            writeln!(f, "  - {remark}")?;
        }
        writeln!(f)?;
        let group = self.key_exchange.as_deref().unwrap_or("none");
        let alpn = self.alpn.as_deref().unwrap_or("none");
        let stapled = if self.stapled { "yes" } else { "no" };
        writeln!(f, "protocol      {}", self.protocol)?;
        writeln!(f, "cipher        {}", self.cipher)?;
        writeln!(f, "key exchange  {group}")?;
        writeln!(f, "ALPN          {alpn}")?;
        writeln!(f, "OCSP staple   {stapled}")?;
        for (at, certificate) in self.chain.iter().enumerate() {
            writeln!(f)?;
            self.describe(f, at, certificate)?;
        }
        Ok(())
    }
}

impl Report {
    fn describe(
        &self,
        f: &mut fmt::Formatter<'_>,
        at: usize,
        certificate: &PresentedCertificate,
    ) -> fmt::Result {
        writeln!(f, "certificate {}  {}", at + 1, certificate.subject)?;
        if at == 0 {
            let names: Vec<_> = certificate.names.iter().map(ToString::to_string).collect();
            writeln!(f, "  names       {}", names.join(", "))?;
        }
        writeln!(f, "  issuer      {}", certificate.issuer)?;
        writeln!(f, "  key         {}", certificate.key_type)?;
        let days = certificate.not_after.since(self.at).div_euclid(86_400);
        writeln!(
            f,
            "  valid       {} to {} ({days} days left)",
            certificate.not_before, certificate.not_after
        )?;
        writeln!(f, "  serial      {}", certificate.serial)?;
        writeln!(f, "  SHA-256     {}", certificate.fingerprint_sha256)
    }
}
