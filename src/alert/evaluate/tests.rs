//! What is told of certificates at each point of their lives, and in which words.

use super::*;
use crate::alert::testing::{alerts, day, facts, report};
use crate::cert::Stage;

/// The conditions of these reports on this day, with names of sites covered as they are.
fn on(day_: i64, reports: &[Report], sites: &[&str], memory: &Memory) -> Vec<Condition> {
    at(day(day_), reports, sites, memory)
}

fn at(now: Timestamp, reports: &[Report], sites: &[&str], memory: &Memory) -> Vec<Condition> {
    let sites: Vec<SiteName> = sites
        .iter()
        .map(|it| match it.strip_prefix("*.") {
            Some(parent) => SiteName::Wildcard(parent.into()),
            None => SiteName::Exact((*it).into()),
        })
        .collect();
    judged(&World {
        now,
        clock: None,
        reports,
        coverage: &coverage(&sites, reports, now),
        config: &alerts(),
        memory,
    })
}

fn judged(world: &World<'_>) -> Vec<Condition> {
    let found = evaluate(world, &mut Known::default());
    found.iter().map(|it| (**it).clone()).collect()
}

fn codes(conditions: &[Condition]) -> Vec<Code> {
    conditions.iter().map(|it| it.code).collect()
}

/// A certificate of ninety days from day 0.
fn ninety(source: &str) -> Report {
    report(source, "www.example.com", day(0), day(90))
}

#[test]
fn the_stages_of_a_life_are_told_with_their_numbers() {
    let reports = [ninety(
        "/etc/letsencrypt/live/www.example.com/fullchain.pem",
    )];
    let at = |n| on(n, &reports, &["www.example.com"], &Memory::default());
    assert_eq!(at(67), []);
    let overdue = at(68);
    assert_eq!(codes(&overdue), [Code::RenewalOverdue]);
    assert_eq!(overdue[0].severity, Severity::Warning);
    assert_eq!(
        overdue[0].summary,
        "The certificate for www.example.com expires in 22 days, on 1970-04-01 00:00 UTC, and \
         should have been renewed by now: 24 % of its 90 days are left."
    );
    assert!(
        overdue[0]
            .next_step
            .contains("`certbot renew --cert-name www.example.com --dry-run`")
    );
    assert_eq!(overdue[0].labels["not_after"], "1970-04-01T00:00:00Z");
    let expiring = at(82);
    assert_eq!(codes(&expiring), [Code::RenewalOverdue, Code::Expiring]);
    assert_eq!(expiring[1].severity, Severity::Critical);
    assert!(
        expiring[1].summary.contains("expires in 8 days"),
        "{}",
        expiring[1].summary
    );
    let expired = at(91);
    assert_eq!(
        codes(&expired),
        [
            Code::RenewalOverdue,
            Code::Expiring,
            Code::Expired,
            Code::NamesUncovered
        ]
    );
    assert!(
        expired[2].summary.contains("expired 24 hours ago"),
        "{}",
        expired[2].summary
    );
    assert!(
        expired[3]
            .summary
            .contains("www.example.com is answered with a certificate that expired")
    );
}

#[test]
fn a_turning_point_is_where_the_conditions_change() {
    let report = ninety("a");
    let config = alerts();
    for point in turning_points(&report, &config, &Memory::default(), day(1)) {
        let at = |now: Timestamp| {
            let coverage = coverage(
                &[SiteName::Exact("www.example.com".into())],
                std::slice::from_ref(&report),
                now,
            );
            codes(&judged(&World {
                now,
                clock: None,
                reports: std::slice::from_ref(&report),
                coverage: &coverage,
                config: &config,
                memory: &Memory::default(),
            }))
        };
        assert_ne!(at(point), at(point.plus(-2)), "{point}");
    }
    assert_eq!(
        turning_points(&report, &config, &Memory::default(), day(1)).len(),
        3
    );
}

#[test]
fn what_nobody_gets_is_nobodys_emergency() {
    let mut old = ninety("/old.pem");
    old.serving = false;
    let found = on(91, &[old], &[], &Memory::default());
    assert!(found.iter().all(|it| it.severity == Severity::Warning));
    assert!(
        found
            .last()
            .unwrap()
            .summary
            .ends_with("No name is answered with it.")
    );
}

#[test]
fn a_source_that_is_later_than_its_habit_is_told_of_before_the_common_threshold() {
    let mut memory = Memory::default();
    for n in 0..3 {
        let begin = n * 45;
        let (old, new) = (
            facts(day(begin), day(begin + 90)),
            facts(day(begin + 45), day(begin + 135)),
        );
        memory.swapped("/a.pem", &old, &new, day(begin + 45));
    }
    let reports = [ninety("/a.pem")];
    assert_eq!(
        on(49, &reports, &[], &memory),
        [],
        "half is left, or a little less"
    );
    let found = on(51, &reports, &[], &memory);
    assert_eq!(codes(&found), [Code::RenewalOverdue]);
    assert!(
        found[0].summary.contains("came with at least 50 % left"),
        "{}",
        found[0].summary
    );
    assert_eq!(on(51, &reports, &[], &Memory::default()), []);
}

#[test]
fn a_wildcard_of_which_some_names_have_certificates_is_no_emergency() {
    let reports = [ninety("/a.pem")];
    let found = |day, site| on(day, &reports, &[site], &Memory::default());
    let some = found(10, "*.example.com");
    assert_eq!(codes(&some), [Code::NamesUncovered]);
    assert_eq!(some[0].severity, Severity::Warning);
    assert!(some[0].summary.contains("one name below it has one"));
    let none = found(10, "*.other.test");
    assert_eq!(none[0].severity, Severity::Critical);
    let expired = found(91, "*.example.com");
    let uncovered = expired.iter().find(|it| it.code == Code::NamesUncovered);
    assert_eq!(uncovered.unwrap().severity, Severity::Critical);
}

#[test]
fn names_without_a_certificate_are_told_one_by_one() {
    let reports = [ninety("/a.pem")];
    let found = on(
        10,
        &reports,
        &["www.example.com", "shop.example.com"],
        &Memory::default(),
    );
    assert_eq!(codes(&found), [Code::NamesUncovered]);
    assert_eq!(found[0].subject, "shop.example.com");
    assert!(
        found[0]
            .next_step
            .contains("staunch probe shop.example.com")
    );
    let early = on(-3, &reports, &["www.example.com"], &Memory::default());
    assert!(
        early[0].summary.contains("is not valid before 1970-01-01"),
        "{}",
        early[0].summary
    );
}

#[test]
fn coverage_prefers_the_valid_one_and_knows_wildcards_and_addresses() {
    let mut wild = report("/wild.pem", "x", day(0), day(60));
    let mut exact = report("/exact.pem", "a.example.com", day(0), day(90));
    wild.certificate.as_mut().unwrap().names = [
        Name::Wildcard("example.com".into()),
        Name::Ip("192.0.2.1".parse().unwrap()),
    ]
    .into();
    let of = |reports: &[Report], site: SiteName, now| {
        let fingerprint = coverage(&[site], reports, day(now)).remove(0).certificate;
        reports
            .iter()
            .find(|it| it.certificate.as_ref().map(|it| it.fingerprint_sha256) == fingerprint)
            .map(|it| it.source[0].clone())
    };
    let site = || SiteName::Exact("a.example.com".into());
    let both = [wild.clone(), exact.clone()];
    assert_eq!(of(&both, site(), 10).as_deref(), Some("/exact.pem"));
    exact.certificate.as_mut().unwrap().not_after = day(5);
    let both = [wild, exact];
    assert_eq!(of(&both, site(), 10).as_deref(), Some("/wild.pem"));
    assert_eq!(
        of(&both, SiteName::Exact("192.0.2.1".into()), 10).as_deref(),
        Some("/wild.pem")
    );
    assert_eq!(
        of(&both, SiteName::Wildcard("example.com".into()), 10).as_deref(),
        Some("/wild.pem")
    );
    assert_eq!(of(&both, SiteName::Exact("example.com".into()), 10), None);
    assert_eq!(coverage(&[SiteName::Any], &both, day(10)), []);
}

fn with_disk(state: DiskState, reason: Option<Reason>, since: i64) -> Report {
    let mut report = ninety("/etc/ssl/a b.pem");
    if !matches!(state, DiskState::Same | DiskState::Pinned) {
        report.origin = Origin::LastGood;
    }
    report.disk = Disk {
        state,
        reason,
        detail: Some("the key belongs to another certificate".into()),
        file: None,
        since: day(since),
        half: false,
    };
    report
}

#[test]
fn what_is_on_disk_is_told_with_its_reason_and_what_goes_on() {
    let cases = [
        (
            DiskState::Rejected,
            Some(Reason::MalformedPem),
            Code::RenewalRejected,
            "openssl x509 -in '/etc/ssl/a b.pem'",
        ),
        (
            DiskState::HeldBack,
            Some(Reason::NamesLost),
            Code::RenewalHeldBack,
            "staunch accept '/etc/ssl/a b.pem'",
        ),
        (
            DiskState::Missing,
            Some(Reason::Missing),
            Code::CertificateMissing,
            "ls -l '/etc/ssl/a b.pem'",
        ),
        (
            DiskState::Pinned,
            None,
            Code::CertificatePinned,
            "Mount the folder",
        ),
    ];
    for (state, reason, code, step) in cases {
        let found = on(30, &[with_disk(state, reason, 29)], &[], &Memory::default());
        assert_eq!(codes(&found), [code]);
        let it = &found[0];
        assert_eq!(it.severity, Severity::Warning);
        assert_eq!(it.since, Some(day(29)));
        assert_eq!(
            it.labels.get("reason").map(String::as_str),
            reason.map(Reason::code)
        );
        assert!(
            it.summary
                .contains("still served for www.example.com, valid until 1970-04-01"),
            "{}",
            it.summary
        );
        assert!(
            it.summary
                .ends_with("The key belongs to another certificate.")
        );
        assert!(it.next_step.contains(step), "{}", it.next_step);
    }
}

#[test]
fn chain_and_key_that_arrive_apart_are_no_news_until_it_lasts() {
    let mut report = with_disk(DiskState::Rejected, Some(Reason::KeyMismatch), 30);
    let after = |report: &Report, seconds| {
        let now = day(30).plus(seconds);
        let told = at(now, std::slice::from_ref(report), &[], &Memory::default());
        told.len()
    };
    // Both files were written, or nobody was at them since before the start.
    assert_eq!((after(&report, 9), after(&report, 10)), (0, 1));
    report.disk.half = true;
    assert_eq!((after(&report, 299), after(&report, 300)), (0, 1));
    assert_eq!(
        on(30, std::slice::from_ref(&report), &[], &Memory::default()),
        []
    );
    assert_eq!(
        on(31, std::slice::from_ref(&report), &[], &Memory::default()).len(),
        1
    );
    report.disk.since = day(85);
    let late = on(85, std::slice::from_ref(&report), &[], &Memory::default());
    let told = late
        .iter()
        .find(|it| it.code == Code::RenewalRejected)
        .unwrap();
    assert_eq!(told.severity, Severity::Critical, "no time left to wait");
    report.certificate = None;
    let nothing = on(30, &[report], &[], &Memory::default());
    assert_eq!(nothing[0].severity, Severity::Critical);
    assert!(nothing[0].summary.contains("none is held from before"));
}

#[test]
fn a_chain_that_clients_doubt_is_told_once_and_by_its_cause() {
    let mut report = ninety("/a.pem");
    report.certificate.as_mut().unwrap().trusted = false;
    assert_eq!(
        codes(&on(
            1,
            std::slice::from_ref(&report),
            &[],
            &Memory::default()
        )),
        [Code::UntrustedChain]
    );
    report.certificate.as_mut().unwrap().chain_complete = false;
    let broken = on(1, std::slice::from_ref(&report), &[], &Memory::default());
    assert_eq!(codes(&broken), [Code::BrokenChain]);
    assert!(broken[0].next_step.contains("fullchain.pem, not cert.pem"));
}

#[test]
fn the_served_one_speaks_for_a_source_with_several() {
    let mut kept = ninety("/a.pem");
    kept.certificate.as_mut().unwrap().stage = Stage::Fresh;
    let mut on_disk = report("/a.pem", "www.example.com", day(0), day(10));
    on_disk.serving = false;
    assert_eq!(on(20, &[on_disk, kept], &[], &Memory::default()), []);
}

#[test]
fn of_two_files_the_one_at_fault_is_named() {
    for (state, said) in [
        (DiskState::Missing, "is not there"),
        (DiskState::Rejected, "cannot be used"),
    ] {
        let mut report = with_disk(state, None, 29);
        report.disk.file = Some("/etc/ssl/a.key".to_owned());
        let found = on(30, &[report], &[], &Memory::default());
        let head = format!(
            "/etc/ssl/a.key, the key of the certificate in /etc/ssl/a b.pem, {said}; the one from \
             before is still served"
        );
        assert!(found[0].summary.starts_with(&head), "{}", found[0].summary);
        assert_eq!(found[0].subject, "/etc/ssl/a b.pem");
    }
}

#[test]
fn a_folder_that_cannot_be_searched_is_told_as_one_with_what_is_held_from_it() {
    let lost = |reason| {
        let mut report = with_disk(DiskState::Rejected, Some(reason), 29);
        report.source = ["/etc/certs".to_owned()].into();
        report.certificate = None;
        report.is_folder = true;
        report
    };
    let (one, two) = (ninety("/etc/certs/a.pem"), ninety("/etc/certs/b/c.pem"));
    let beside = ninety("/etc/certs-2/a.pem");
    for (reason, others, code, severity, said) in [
        (
            Reason::Unreadable,
            vec![one.clone(), one, two, beside.clone()],
            Code::RenewalRejected,
            Severity::Warning,
            "The folder /etc/certs cannot be searched; the 2 certificates that were found in it are \
             still held.",
        ),
        (
            Reason::Missing,
            vec![beside],
            Code::CertificateMissing,
            Severity::Critical,
            "The folder /etc/certs is not there; no certificate is held from it.",
        ),
    ] {
        let mut reports = others;
        reports.push(lost(reason));
        let found = on(30, &reports, &[], &Memory::default());
        assert_eq!(codes(&found), [code]);
        assert_eq!(found[0].severity, severity);
        assert!(found[0].summary.starts_with(said), "{}", found[0].summary);
        assert!(found[0].next_step.contains("`namei -l /etc/certs`"));
    }
}

#[test]
fn a_hostile_file_name_stays_on_its_line() {
    let mut report = ninety("/a\nwww: \u{1b}[31m.pem");
    report.disk.state = DiskState::Missing;
    let found = on(91, &[report], &[], &Memory::default());
    for it in found {
        let text = format!("{}{}{}", it.subject, it.summary, it.next_step);
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn what_is_held_back_does_not_hide_that_what_is_served_runs_out() {
    let mut served = ninety("/a.pem");
    served.origin = Origin::LastGood;
    served.disk = Disk {
        state: DiskState::HeldBack,
        reason: Some(Reason::NamesLost),
        detail: Some("held back: it does not cover www.example.com".to_owned()),
        file: None,
        since: day(80),
        half: false,
    };
    // It answers for its own name, for which there is no site, and for much longer.
    let mut held_back = report("/a.pem", "other.example.com", day(80), day(170));
    held_back.disk = served.disk.clone();
    let reports = [held_back, served];
    let found = on(84, &reports, &["www.example.com"], &Memory::default());
    assert_eq!(
        codes(&found),
        [Code::RenewalOverdue, Code::Expiring, Code::RenewalHeldBack]
    );
    assert!(
        found[2]
            .summary
            .contains("still served for www.example.com, valid until 1970-04-01"),
        "{}",
        found[2].summary
    );
    assert_eq!(found[2].severity, Severity::Critical);
}
