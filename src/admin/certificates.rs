//! Certificates, as metrics have them.

use std::collections::{BTreeMap, BTreeSet};

use crate::cert::{DiskState, Event, Origin, Reason, Report};
use crate::clock::Timestamp;
use crate::metrics::{CertificateCounters, Registry, Scrape, names};

use super::Inventory;

/// Adds the inventory's figures to every scrape. They are read from it when somebody asks, so there
/// is nothing to keep up to date, and what goes away is gone. Once for a registry.
pub fn describe(registry: &Registry, inventory: Inventory) {
    registry.collector(move |scrape| collect_all(&inventory(), scrape));
}

/// Counters for all reason codes.
pub fn counters(registry: &Registry) -> CertificateCounters {
    CertificateCounters::new(registry, Reason::ALL.into_iter().map(Reason::code))
}

/// Counts an event.
pub fn count(counters: &CertificateCounters, event: &Event) {
    match event {
        Event::Swapped { .. } => counters.swaps.inc(),
        Event::Rejected { rejection, .. } => counters.rejected(rejection.reason.code()),
        Event::HeldBack { rejection, .. } => counters.held_back(rejection.reason.code()),
        Event::Loaded { .. }
        | Event::Accepted { .. }
        | Event::Recovered { .. }
        | Event::Removed { .. } => {}
    }
}

/// One series for each source and name. Both what is served and what was kept may be of the same, and
/// paths that are not UTF-8 may look the same: a second series with the same labels would spoil the
/// whole scrape. What is served speaks.
fn collect_all(reports: &[Report], scrape: &mut Scrape) {
    let mut certificates: BTreeMap<(&str, String), (&Report, bool)> = BTreeMap::new();
    let mut faults = BTreeSet::new();
    for report in reports {
        let source = report.source.first().map_or("", String::as_str);
        if let Some(state) = fault(report.disk.state) {
            faults.insert((source, state, report.disk.reason.map_or("", Reason::code)));
        }
        let stale = report.disk.state != DiskState::Same || report.origin == Origin::LastGood;
        let known = certificates.entry((source, first_name(report)));
        let known = known.or_insert((report, stale));
        known.1 |= stale;
        if weight(report) > weight(known.0) {
            known.0 = report;
        }
    }
    for ((source, name), (report, stale)) in certificates {
        collect(source, &name, report, stale, scrape);
    }
    for (source, state, reason) in faults {
        let labels = [("source", source), ("state", state), ("reason", reason)];
        scrape.gauge(names::CERTIFICATE_DISK_FAULT, &labels, 1.0);
    }
}

fn first_name(report: &Report) -> String {
    let certificate = report.certificate.as_ref();
    let first = certificate.and_then(|certificate| certificate.names.first());
    first.map_or_else(String::new, ToString::to_string)
}

fn weight(report: &Report) -> (bool, Option<Timestamp>) {
    let until = report.certificate.as_ref().map(|it| it.not_after);
    (report.serving, until)
}

#[allow(clippy::cast_precision_loss)] // seconds since the epoch
fn collect(source: &str, name: &str, report: &Report, stale: bool, scrape: &mut Scrape) {
    let labels = [("source", source), ("name", name)];
    if let Some(certificate) = &report.certificate {
        let not_before = certificate.not_before.unix() as f64;
        let not_after = certificate.not_after.unix() as f64;
        scrape.gauge(names::CERTIFICATE_NOT_BEFORE, &labels, not_before);
        scrape.gauge(names::CERTIFICATE_NOT_AFTER, &labels, not_after);
    }
    let flag = |yes: bool| f64::from(u8::from(yes));
    scrape.gauge(names::CERTIFICATE_SERVING, &labels, flag(report.serving));
    scrape.gauge(names::CERTIFICATE_STALE, &labels, flag(stale));
}

/// The state as the interface spells it, unless it is as it should be.
const fn fault(state: DiskState) -> Option<&'static str> {
    match state {
        DiskState::Same => None,
        DiskState::Rejected => Some("rejected"),
        DiskState::HeldBack => Some("held-back"),
        DiskState::Missing => Some("missing"),
        DiskState::Pinned => Some("pinned"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admin::tests::reports;

    #[test]
    fn the_figures_are_those_of_the_inventory() {
        let registry = Registry::new();
        describe(&registry, Arc::new(reports));
        let text = registry.encode();
        let labels = r#"{source="/etc/a.pem",name="*.a.test"}"#;
        for line in [
            format!("staunch_certificate_not_before_timestamp_seconds{labels} 1717545600"),
            format!("staunch_certificate_not_after_timestamp_seconds{labels} 1725321600"),
            format!("staunch_certificate_serving{labels} 1"),
            format!("staunch_certificate_stale{labels} 0"),
            r#"staunch_certificate_stale{source="/etc/b.pem",name=""} 1"#.into(),
            concat!(
                "staunch_certificate_disk_fault",
                r#"{source="/etc/b.pem",state="rejected",reason="key_mismatch"} 1"#
            )
            .into(),
        ] {
            assert!(
                text.contains(&format!("\n{line}\n")),
                "no {line} in\n{text}"
            );
        }
        assert!(
            !text.contains(r#"disk_fault{source="/etc/a.pem""#),
            "{text}"
        );
    }

    #[test]
    fn no_two_series_are_the_same_and_what_is_served_speaks() {
        let registry = Registry::new();
        let several = || {
            let mut all = reports();
            let mut kept = all[0].clone();
            kept.serving = false;
            kept.certificate.as_mut().unwrap().not_after = Timestamp::from_unix(2_000_000_000);
            all.insert(0, kept);
            all.push(all[2].clone());
            all
        };
        describe(&registry, Arc::new(several));
        let text = registry.encode();
        let labels = r#"{source="/etc/a.pem",name="*.a.test"}"#;
        let line = format!("staunch_certificate_not_after_timestamp_seconds{labels} 1725321600");
        assert!(text.contains(&line), "{text}");
        let mut series: Vec<_> = text
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .collect();
        let count = series.len();
        series.sort_unstable();
        series.dedup_by_key(|(name, _)| *name);
        assert_eq!(series.len(), count, "{text}");
    }

    #[test]
    fn every_reason_has_a_counter() {
        let registry = Registry::new();
        let counters = counters(&registry);
        counters.rejected(Reason::Expired.code());
        let text = registry.encode();
        assert_eq!(
            text.matches("certificate_rejections_total{").count(),
            Reason::ALL.len()
        );
        assert!(text.contains("staunch_certificate_rejections_total{reason=\"expired\"} 1\n"));
    }
}
