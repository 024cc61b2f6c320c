//! What can be wrong: the codes, and one condition in words.
//!
//! A condition is level-triggered: it is there for as long as what it says is true. Whether, when
//! and how often people are told of it is the [`engine`](super::engine)'s business.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::Severity;

/// What is wrong, as a code that alert rules, dashboards and the runbook match on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The certificate should have been replaced by now.
    RenewalOverdue,
    /// Little of the lifetime is left.
    Expiring,
    /// `notAfter` has passed.
    Expired,
    /// A new file is on disk and cannot be served.
    RenewalRejected,
    /// A new file is on disk and is worse than what is served.
    RenewalHeldBack,
    /// The file is gone.
    CertificateMissing,
    /// The path is a bind-mounted file whose host copy was replaced.
    CertificatePinned,
    /// A renewal changed more than the dates.
    RenewalDiffers,
    /// A site's name that no certificate covers, or only one that is not valid.
    NamesUncovered,
    /// The chain does not end at a root that this system trusts.
    UntrustedChain,
    /// A certificate of the chain is missing.
    BrokenChain,
    /// The issuer says that the certificate is revoked.
    Revoked,
    /// A certificate asks clients to refuse it without a staple, and there is none.
    StapleMissing,
    /// What a client gets on the wire is not what should be served.
    ProbeFailed,
    /// Clients refuse the certificate since it was swapped.
    ClientsRefuse,
    /// The system's clock is not credible.
    ClockSuspect,
    /// Changes on disk are found by polling only, or not at all.
    WatchDegraded,
    /// The state directory cannot be written.
    StateUnwritable,
    /// Ticket keys, authorities or revocation lists on disk cannot be used.
    TlsFileUnusable,
    /// A file with users and their passwords, or a line of it, cannot be used.
    UsersFileUnusable,
    /// A revocation list for client certificates is past its time.
    RevocationListExpired,
    /// A configuration was refused; the one before it goes on.
    ConfigurationRefused,
    /// An upstream server is down.
    UpstreamDown,
    /// The certificate that an upstream server presents is about to expire.
    UpstreamExpiring,
    /// A sink does not take alerts.
    SinkFailing,
    /// The canary's way through the machinery is broken.
    CanaryFailed,
    /// Nothing is wrong: somebody wanted to see an alert arrive.
    TestAlert,
}

impl Code {
    /// Every code, for metrics and the runbook.
    pub const ALL: [Self; 27] = [
        Self::RenewalOverdue,
        Self::Expiring,
        Self::Expired,
        Self::RenewalRejected,
        Self::RenewalHeldBack,
        Self::CertificateMissing,
        Self::CertificatePinned,
        Self::RenewalDiffers,
        Self::NamesUncovered,
        Self::UntrustedChain,
        Self::BrokenChain,
        Self::Revoked,
        Self::StapleMissing,
        Self::ProbeFailed,
        Self::ClientsRefuse,
        Self::ClockSuspect,
        Self::WatchDegraded,
        Self::StateUnwritable,
        Self::TlsFileUnusable,
        Self::UsersFileUnusable,
        Self::RevocationListExpired,
        Self::ConfigurationRefused,
        Self::UpstreamDown,
        Self::UpstreamExpiring,
        Self::SinkFailing,
        Self::CanaryFailed,
        Self::TestAlert,
    ];

    /// The code, as the interface spells it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::RenewalOverdue => "renewal_overdue",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::RenewalRejected => "renewal_rejected",
            Self::RenewalHeldBack => "renewal_held_back",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificatePinned => "certificate_pinned",
            Self::RenewalDiffers => "renewal_differs",
            Self::NamesUncovered => "names_uncovered",
            Self::UntrustedChain => "untrusted_chain",
            Self::BrokenChain => "broken_chain",
            Self::Revoked => "revoked",
            Self::StapleMissing => "staple_missing",
            Self::ProbeFailed => "probe_failed",
            Self::ClientsRefuse => "clients_refuse",
            Self::ClockSuspect => "clock_suspect",
            Self::WatchDegraded => "watch_degraded",
            Self::StateUnwritable => "state_unwritable",
            Self::TlsFileUnusable => "tls_file_unusable",
            Self::UsersFileUnusable => "users_file_unusable",
            Self::RevocationListExpired => "revocation_list_expired",
            Self::ConfigurationRefused => "configuration_refused",
            Self::UpstreamDown => "upstream_down",
            Self::UpstreamExpiring => "upstream_expiring",
            Self::SinkFailing => "sink_failing",
            Self::CanaryFailed => "canary_failed",
            Self::TestAlert => "test_alert",
        }
    }

    /// A title of a few words, for a subject line.
    pub const fn title(self) -> &'static str {
        match self {
            Self::RenewalOverdue => "renewal overdue",
            Self::Expiring => "certificate expiring",
            Self::Expired => "certificate EXPIRED",
            Self::RenewalRejected => "renewed certificate cannot be used",
            Self::RenewalHeldBack => "renewed certificate held back",
            Self::CertificateMissing => "certificate file missing",
            Self::CertificatePinned => "certificate file pinned by a bind mount",
            Self::RenewalDiffers => "renewed certificate differs",
            Self::NamesUncovered => "name without a valid certificate",
            Self::UntrustedChain => "chain not trusted",
            Self::BrokenChain => "chain incomplete",
            Self::Revoked => "certificate REVOKED",
            Self::StapleMissing => "required OCSP staple missing",
            Self::ProbeFailed => "probe failed",
            Self::ClientsRefuse => "clients refuse the certificate",
            Self::ClockSuspect => "clock not credible",
            Self::WatchDegraded => "watching degraded",
            Self::StateUnwritable => "state directory not writable",
            Self::TlsFileUnusable => "TLS file cannot be used",
            Self::UsersFileUnusable => "file of users cannot be used",
            Self::RevocationListExpired => "revocation list EXPIRED",
            Self::ConfigurationRefused => "configuration refused",
            Self::UpstreamDown => "upstream down",
            Self::UpstreamExpiring => "upstream certificate expiring",
            Self::SinkFailing => "alert sink failing",
            Self::CanaryFailed => "canary failed",
            Self::TestAlert => "test alert",
        }
    }

    /// What its subjects are, for "12 certificates".
    pub const fn noun(self) -> (&'static str, &'static str) {
        match self {
            Self::RenewalOverdue
            | Self::Expiring
            | Self::Expired
            | Self::RenewalRejected
            | Self::RenewalHeldBack
            | Self::CertificateMissing
            | Self::CertificatePinned
            | Self::RenewalDiffers
            | Self::UntrustedChain
            | Self::BrokenChain
            | Self::Revoked
            | Self::StapleMissing => ("certificate", "certificates"),
            Self::NamesUncovered => ("name", "names"),
            Self::UpstreamDown | Self::UpstreamExpiring => ("upstream server", "upstream servers"),
            Self::SinkFailing => ("sink", "sinks"),
            Self::ProbeFailed => ("probe", "probes"),
            _ => ("subject", "subjects"),
        }
    }

    /// Codes that say the same of the same subject, only more gravely. While one of them fires,
    /// this one is not repeated, and not told at all if it was not told before.
    pub const fn superseded_by(self) -> &'static [Self] {
        match self {
            Self::RenewalOverdue => &[Self::Expiring, Self::Expired],
            Self::Expiring => &[Self::Expired],
            Self::UntrustedChain => &[Self::BrokenChain],
            _ => &[],
        }
    }

    /// Whether it follows something that can come and go within seconds, so that it must be gone
    /// for a while before people are told that it is.
    pub const fn flaps(self) -> bool {
        matches!(
            self,
            Self::ProbeFailed
                | Self::ClientsRefuse
                | Self::UpstreamDown
                | Self::SinkFailing
                | Self::WatchDegraded
                | Self::StateUnwritable
                | Self::CanaryFailed
        )
    }

    /// Where the runbook explains it.
    pub fn runbook(self) -> String {
        // Set `repository` in Cargo.toml, and every alert carries a link that can be followed.
        match env!("CARGO_PKG_REPOSITORY") {
            "" => format!("docs/runbook.md#{self}"),
            base => format!(
                "{}/blob/main/docs/runbook.md#{self}",
                base.trim_end_matches('/')
            ),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How the interface spells a severity.
pub const fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Information => "information",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

/// What identifies a condition from one evaluation to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What is wrong.
    pub code: Code,
    /// With what.
    pub subject: String,
}

/// Something that is wrong now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What is wrong.
    pub code: Code,
    /// With what: a certificate's file, a name, an upstream server, staunch itself. Stays the same
    /// for as long as the condition lasts.
    pub subject: String,
    /// How grave it is.
    pub severity: Severity,
    /// One sentence with the numbers in it.
    pub summary: String,
    /// What to do, with the command.
    pub next_step: String,
    /// Since when, where that is known better than "since it was noticed".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it turns into something worse; people are reminded more often as it comes near.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// More of what is known, for machines.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl Condition {
    /// A condition without labels or deadline.
    pub fn new(
        code: Code,
        subject: impl Into<String>,
        severity: Severity,
        summary: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self {
            code,
            subject: subject.into(),
            severity,
            summary: summary.into(),
            next_step: next_step.into(),
            since: None,
            deadline: None,
            labels: BTreeMap::new(),
        }
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, name: &str, value: impl Into<String>) -> Self {
        self.labels.insert(name.to_owned(), value.into());
        self
    }

    /// True since this moment.
    #[must_use]
    pub const fn since(mut self, at: Timestamp) -> Self {
        self.since = Some(at);
        self
    }

    /// Worse from this moment on.
    #[must_use]
    pub const fn deadline(mut self, at: Timestamp) -> Self {
        self.deadline = Some(at);
        self
    }

    /// What identifies it.
    pub fn key(&self) -> Key {
        Key {
            code: self.code,
            subject: self.subject.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_spelled_the_same_everywhere() {
        for code in Code::ALL {
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert!(code.runbook().ends_with(&format!("#{code}")));
        }
    }

    #[test]
    fn the_runbook_explains_every_code() {
        let runbook = include_str!("../../docs/runbook.md");
        for code in Code::ALL {
            assert!(
                runbook.lines().any(|line| line == format!("## {code}")),
                "docs/runbook.md has no section \"## {code}\""
            );
        }
    }
}
