//! What the control plane counts.

use std::sync::{Mutex, PoisonError};

use super::handle::{Counter, Gauge};
use super::label::{Set, label};
use super::names::{self, Metric};
use super::registry::Registry;

/// What happened to certificates. The reason codes are given by whoever knows them.
#[derive(Debug)]
pub struct CertificateCounters {
    /// Certificates that took the place of another from the same source.
    pub swaps: Counter,
    rejections: Vec<(&'static str, Counter)>,
    held_back: Vec<(&'static str, Counter)>,
}

impl CertificateCounters {
    /// Counters for these reason codes, so that those that never happened are 0 and not absent.
    pub fn new(registry: &Registry, reasons: impl Iterator<Item = &'static str> + Clone) -> Self {
        let by_reason = |metric: Metric| {
            let counter = |code| (code, metric.counter(registry, &[("reason", code)]));
            reasons.clone().map(counter).collect()
        };
        Self {
            swaps: names::CERTIFICATE_SWAPS.counter(registry, &[]),
            rejections: by_reason(names::CERTIFICATE_REJECTIONS),
            held_back: by_reason(names::CERTIFICATE_HELD_BACK),
        }
    }

    /// Counts a certificate on disk that cannot be served.
    pub fn rejected(&self, reason: &str) {
        count(&self.rejections, reason);
    }

    /// Counts a certificate on disk that is worse than what is served.
    pub fn held_back(&self, reason: &str) {
        count(&self.held_back, reason);
    }
}

fn count(counters: &[(&'static str, Counter)], reason: &str) {
    if let Some((_, counter)) = counters.iter().find(|(code, _)| *code == reason) {
        counter.inc();
    }
}

label! {
    /// How a reload ended.
    pub enum ReloadResult {
        /// The new configuration is in use.
        Taken = "taken",
        /// It is not usable, and nothing changed.
        Refused = "refused",
    }
}

label! {
    /// How an upgrade ended.
    pub enum UpgradeResult {
        /// A new process serves.
        Done = "done",
        /// Nothing changed.
        Failed = "failed",
    }
}

label! {
    /// How a question to an OCSP responder ended.
    pub enum OcspOutcome {
        /// With an answer to go by.
        Answered = "answered",
        /// With none, or with one that is not to be believed.
        Failed = "failed",
    }
}

/// Questions to OCSP responders. One owner only.
#[derive(Debug)]
pub struct OcspRequests(Set<OcspOutcome>);

impl OcspRequests {
    /// None so far.
    pub fn new(registry: &Registry) -> Self {
        Self(Set::new(registry, names::OCSP_REQUESTS, &[], "outcome"))
    }

    /// Counts one.
    pub fn record(&self, outcome: OcspOutcome) {
        self.0.inc(outcome);
    }
}

/// Attempts to let a new process take over. One owner only, who may be asked by several threads.
#[derive(Debug)]
pub struct Upgrades(Mutex<Set<UpgradeResult>>);

impl Upgrades {
    /// None so far.
    pub fn new(registry: &Registry) -> Self {
        let results = Set::new(registry, names::UPGRADES, &[], "outcome");
        Self(Mutex::new(results))
    }

    /// Counts one.
    pub fn record(&self, result: UpgradeResult) {
        let results = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        results.inc(result);
    }
}

label! {
    /// What became of a span.
    pub enum SpanOutcome {
        /// The collector has it.
        Sent = "sent",
        /// There was no room, since the collector was slow or away.
        Dropped = "dropped",
        /// The collector did not want it.
        Rejected = "rejected",
    }
}

/// Spans of requests. One owner only, who may be asked by several threads.
#[derive(Debug)]
pub struct Spans(Mutex<Set<SpanOutcome>>);

impl Spans {
    /// None so far.
    pub fn new(registry: &Registry) -> Self {
        let outcomes = Set::new(registry, names::SPANS, &[], "outcome");
        Self(Mutex::new(outcomes))
    }

    /// Counts some.
    pub fn add(&self, outcome: SpanOutcome, count: u64) {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.add(outcome, count);
    }
}

/// Reloads of the configuration. One owner only, who may be asked by several threads.
#[derive(Debug)]
pub struct Reloads(Mutex<(Set<ReloadResult>, Gauge)>);

impl Reloads {
    /// The start counts as a successful reload.
    pub fn new(registry: &Registry) -> Self {
        let successful = names::RELOAD_SUCCESSFUL.gauge(registry, &[]);
        successful.set(1.0);
        let results = Set::new(registry, names::RELOADS, &[], "outcome");
        Self(Mutex::new((results, successful)))
    }

    /// Counts a reload.
    pub fn record(&self, result: ReloadResult) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (results, successful) = &*counts;
        results.inc(result);
        successful.set(f64::from(u8::from(result == ReloadResult::Taken)));
    }
}
