//! The engine on both clocks: once, again, over; groups, flapping, restarts, jumps.

use super::*;
use crate::alert::testing::day;

const HOUR: u64 = 3600;
const BASE: i64 = 20_000;

/// A moment this many hours after a common beginning, on both clocks.
fn hour(n: u64) -> Moment {
    seconds(n * HOUR)
}

fn seconds(n: u64) -> Moment {
    Moment {
        wall: day(BASE).plus(i64::try_from(n).unwrap()),
        monotonic: Duration::from_secs(30 * 24 * HOUR + n),
    }
}

fn engine() -> Engine {
    Engine::new(Duration::from_secs(6 * HOUR))
}

fn condition(code: Code, subject: impl Into<String>) -> Condition {
    Condition::new(code, subject, Severity::Critical, "It is so.", "Do this.")
}

fn tick(engine: &mut Engine, at: Moment, conditions: Vec<Condition>) -> Vec<Notification> {
    engine.tick(at, conditions.into_iter().map(Arc::new).collect())
}

fn occasions(told: &[Notification]) -> Vec<(Occasion, Code, &str)> {
    told.iter()
        .map(|it| (it.occasion, it.alert.condition, it.alert.subject.as_str()))
        .collect()
}

#[test]
fn it_fires_once_repeats_and_resolves_once() {
    let mut engine = engine();
    let holds = || vec![condition(Code::CertificateMissing, "a")];
    let told = tick(&mut engine, hour(0), holds());
    assert_eq!(
        occasions(&told),
        [(Occasion::Fired, Code::CertificateMissing, "a")]
    );
    assert_eq!(tick(&mut engine, hour(1), holds()), []);
    assert_eq!(
        tick(&mut engine, hour(6), holds())[0].occasion,
        Occasion::Repeated
    );
    assert_eq!(tick(&mut engine, hour(7), holds()), []);
    let over = tick(&mut engine, hour(8), vec![]);
    assert_eq!(over[0].occasion, Occasion::Resolved);
    assert_eq!(over[0].alert.status, Status::Resolved);
    assert_eq!(over[0].alert.resolved_at, Some(hour(8).wall));
    assert_eq!(tick(&mut engine, hour(9), vec![]), []);
    assert_eq!(engine.resolved().len(), 1);
    assert!(engine.firing().is_empty());
}

#[test]
fn the_interval_shortens_as_the_deadline_nears() {
    const DAY: i64 = 24;
    let hours = |severity, hours_left: i64| {
        let urgency = Urgency {
            severity,
            since: day(BASE - 1),
            deadline: Some(day(BASE).plus(hours_left * 3600)),
        };
        let found = interval(Duration::from_secs(6 * HOUR), urgency, day(BASE)).unwrap();
        found.as_secs() / HOUR
    };
    let warning = [100, 50, 24, 12, 3].map(|days| hours(Severity::Warning, days * DAY));
    assert_eq!(warning, [7 * 24, 100, 48, 24, 24]);
    let critical = [
        20 * DAY,
        6 * DAY,
        3 * DAY,
        DAY,
        6,
        0,
        -DAY,
        -3 * DAY,
        -20 * DAY,
    ];
    let critical = critical.map(|left| hours(Severity::Critical, left));
    assert_eq!(critical, [24, 12, 6, 2, 1, 1, 2, 6, 24]);
}

#[test]
fn what_lasts_is_told_less_often_and_information_once() {
    let hours = |severity, days: i64| {
        let urgency = Urgency {
            severity,
            since: day(BASE - days),
            deadline: None,
        };
        let found = interval(Duration::from_secs(6 * HOUR), urgency, day(BASE));
        found.map(|it| it.as_secs() / HOUR)
    };
    let critical = [0, 6, 100].map(|days| hours(Severity::Critical, days));
    assert_eq!(critical, [Some(6), Some(12), Some(24)]);
    let warning = [0, 24, 200].map(|days| hours(Severity::Warning, days));
    assert_eq!(warning, [Some(24), Some(48), Some(7 * 24)]);
    assert_eq!(hours(Severity::Information, 1), None);
}

#[test]
fn a_certificate_that_nobody_renews_is_told_of_a_hundred_times_at_most() {
    // Overdue at a quarter, critical at a tenth, looked at every ten minutes until a week after.
    for lifetime in [6, 47, 90, 200] {
        let mut engine = engine();
        let (mut warned, mut alarmed) = (0, 0);
        let end = lifetime * 24 * 6;
        for n in end * 3 / 4..end + 7 * 24 * 6 {
            let at = seconds(u64::try_from(n).unwrap() * 600);
            let deadline = seconds(u64::try_from(end).unwrap() * 600).wall;
            let (code, severity) = match n {
                _ if n < end * 9 / 10 => (Code::RenewalOverdue, Severity::Warning),
                _ => (Code::Expiring, Severity::Critical),
            };
            let it = Condition {
                severity,
                ..condition(code, "a")
            }
            .deadline(deadline);
            let told = tick(&mut engine, at, vec![it]).len();
            *(if severity == Severity::Warning {
                &mut warned
            } else {
                &mut alarmed
            }) += told;
        }
        assert!((1..=12).contains(&warned), "{lifetime} days: {warned}");
        assert!((50..=105).contains(&alarmed), "{lifetime} days: {alarmed}");
    }
}

#[test]
fn what_gets_graver_is_told_at_once() {
    let mut engine = engine();
    let mut it = condition(Code::ProbeFailed, "a");
    it.severity = Severity::Warning;
    tick(&mut engine, hour(0), vec![it.clone()]);
    it.severity = Severity::Critical;
    let told = tick(&mut engine, seconds(5), vec![it.clone()]);
    assert_eq!(told[0].occasion, Occasion::Escalated);
    assert_eq!(tick(&mut engine, seconds(10), vec![it]), []);
}

#[test]
fn what_gets_less_grave_is_told_when_it_has_stayed_so() {
    let mut engine = engine();
    let as_grave_as = |severity| {
        let mut it = condition(Code::UpstreamDown, "a");
        it.severity = severity;
        vec![it]
    };
    let (grave, less) = (Severity::Critical, Severity::Warning);
    tick(&mut engine, seconds(0), as_grave_as(grave));
    assert_eq!(tick(&mut engine, seconds(10), as_grave_as(less)), []);
    assert_eq!(engine.firing()[0].severity, grave, "it may be back");
    assert_eq!(tick(&mut engine, seconds(60), as_grave_as(grave)), []);
    assert_eq!(tick(&mut engine, seconds(80), as_grave_as(less)), []);

    let told = tick(&mut engine, seconds(140), as_grave_as(less));
    assert_eq!(
        occasions(&told),
        [(Occasion::Eased, Code::UpstreamDown, "a")]
    );
    let alert = &told[0].alert;
    assert_eq!(
        (alert.severity, alert.previous_severity),
        (less, Some(grave))
    );
    assert_eq!(engine.firing()[0].severity, less);
    assert_eq!(engine.counts()[&(Code::UpstreamDown, less)], 1);
    assert_eq!(engine.standing()[0].severity, less);
    assert_eq!(tick(&mut engine, seconds(200), as_grave_as(less)), []);

    let told = tick(&mut engine, seconds(300), as_grave_as(grave));
    assert_eq!(told[0].occasion, Occasion::Escalated);
    assert_eq!(told[0].alert.previous_severity, Some(less));
    tick(&mut engine, seconds(310), as_grave_as(less));
    assert_eq!(
        tick(&mut engine, seconds(370), as_grave_as(less)),
        [],
        "twice as long"
    );
    let told = tick(&mut engine, seconds(430), as_grave_as(less));
    assert_eq!(told[0].occasion, Occasion::Eased);
}

#[test]
fn a_group_gets_less_grave_too() {
    let mut engine = engine();
    let all = |severity| {
        (0..9)
            .map(|i| Condition {
                severity: if i == 0 { severity } else { Severity::Warning },
                ..condition(Code::RenewalRejected, i.to_string())
            })
            .collect()
    };
    let told = tick(&mut engine, hour(0), all(Severity::Critical));
    assert_eq!(told[0].alert.severity, Severity::Critical);
    assert_eq!(tick(&mut engine, seconds(10), all(Severity::Warning)), []);
    let told = tick(&mut engine, hour(2), all(Severity::Warning));
    assert_eq!((told.len(), told[0].occasion), (1, Occasion::Eased));
    let alert = &told[0].alert;
    assert_eq!(alert.id, "renewal_rejected/*");
    assert_eq!(alert.previous_severity, Some(Severity::Critical));
    assert_eq!(tick(&mut engine, hour(3), all(Severity::Warning)), []);
    assert_eq!(engine.standing()[0].previous_severity, None);
}

#[test]
fn what_was_told_as_critical_is_over_as_critical() {
    let mut engine = engine();
    tick(
        &mut engine,
        hour(0),
        vec![condition(Code::NamesUncovered, "a")],
    );
    let mut less = condition(Code::NamesUncovered, "a");
    less.severity = Severity::Warning;
    tick(&mut engine, hour(1), vec![less]);
    let over = tick(&mut engine, hour(2), vec![]);
    assert_eq!(over[0].occasion, Occasion::Resolved);
    assert_eq!(over[0].alert.severity, Severity::Critical);
}

#[test]
fn the_graver_alert_speaks_for_the_lesser_one_and_both_resolve() {
    let mut engine = engine();
    let both = || {
        vec![
            condition(Code::RenewalOverdue, "a"),
            condition(Code::Expiring, "a"),
        ]
    };
    tick(
        &mut engine,
        hour(0),
        vec![condition(Code::RenewalOverdue, "a")],
    );
    let told = tick(&mut engine, hour(1), both());
    assert_eq!(occasions(&told), [(Occasion::Fired, Code::Expiring, "a")]);
    let told = tick(&mut engine, hour(7), both());
    assert_eq!(
        occasions(&told),
        [(Occasion::Repeated, Code::Expiring, "a")]
    );
    assert_eq!(tick(&mut engine, hour(8), vec![]).len(), 2);

    let mut engine = self::engine();
    assert_eq!(
        tick(&mut engine, hour(0), both()).len(),
        1,
        "found late: only the graver one is told"
    );
    assert_eq!(
        tick(&mut engine, hour(1), vec![]).len(),
        1,
        "and what was not told does not resolve"
    );
}

#[test]
fn ten_thousand_at_once_are_one_message_and_one_resolution() {
    let mut engine = engine();
    let all = |n: usize| {
        (0..n)
            .map(|i| condition(Code::Expired, format!("{i:05}")))
            .collect()
    };
    let told = tick(&mut engine, hour(0), all(10_000));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].alert.count, 10_000);
    assert_eq!(told[0].alert.subjects.len(), 20);
    assert_eq!(told[0].alert.subject, "10000 certificates");
    assert!(
        told[0].alert.summary.len() < 1000,
        "{}",
        told[0].alert.summary
    );
    assert_eq!(tick(&mut engine, hour(1), all(9000)), []);
    let told = tick(&mut engine, hour(6), all(3));
    assert_eq!((told.len(), told[0].alert.count), (1, 3));
    let told = tick(&mut engine, hour(7), vec![]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].occasion, Occasion::Resolved);
    assert_eq!(told[0].alert.id, "expired/*");
}

#[test]
fn those_that_come_one_by_one_are_a_group_in_the_end_too() {
    let mut engine = engine();
    let mut told = 0;
    let many = 600;
    for n in 1..=many {
        let now = (0..n)
            .map(|i| condition(Code::RenewalOverdue, format!("{i:04}")))
            .collect();
        told += tick(&mut engine, seconds(n), now).len();
    }
    assert!(told <= GROUP_ABOVE + 12, "{told} messages");
    assert_eq!(engine.standing().len(), GROUP_ABOVE + 1);
    assert_eq!(engine.firing().len(), 600);
}

#[test]
fn a_few_are_told_one_by_one() {
    let mut engine = engine();
    let five = (0..5)
        .map(|i| condition(Code::Expired, i.to_string()))
        .collect();
    assert_eq!(tick(&mut engine, hour(0), five).len(), 5);
}

#[test]
fn what_flaps_must_be_gone_for_a_while_and_longer_each_time() {
    let mut engine = engine();
    let down = || vec![condition(Code::UpstreamDown, "a")];
    assert_eq!(tick(&mut engine, seconds(0), down()).len(), 1);
    for n in 1..20 {
        let up_and_down = if n % 2 == 0 { down() } else { vec![] };
        assert_eq!(tick(&mut engine, seconds(n), up_and_down), []);
    }
    assert_eq!(tick(&mut engine, seconds(70), vec![]), []);
    assert_eq!(
        tick(&mut engine, seconds(100), vec![])[0].occasion,
        Occasion::Resolved
    );
    assert_eq!(
        tick(&mut engine, seconds(110), down())[0].occasion,
        Occasion::Fired
    );
    assert_eq!(tick(&mut engine, seconds(120), vec![]), []);
    assert_eq!(tick(&mut engine, seconds(185), vec![]), [], "twice as long");
    assert_eq!(
        tick(&mut engine, seconds(241), vec![])[0].occasion,
        Occasion::Resolved
    );
}

#[test]
fn a_restart_is_neither_a_flood_nor_silence() {
    let mut engine = engine();
    let holds = || {
        let mut all = vec![
            condition(Code::CertificateMissing, "a"),
            condition(Code::UpstreamDown, "b"),
        ];
        all.extend((0..9).map(|i| condition(Code::Expired, i.to_string())));
        all
    };
    tick(&mut engine, hour(0), holds());
    let saved = serde_json::to_string(&engine.save(hour(2).monotonic)).unwrap();
    let restored = |ago: u64| {
        let saved = serde_json::from_str(&saved).unwrap();
        let ago = Duration::from_secs(ago * HOUR);
        Engine::restore(
            Duration::from_secs(6 * HOUR),
            saved,
            hour(2).monotonic + ago,
            ago,
        )
    };
    assert_eq!(tick(&mut restored(1), hour(3), holds()), [], "no flood");
    assert_eq!(
        tick(&mut restored(4), hour(6), holds()).len(),
        3,
        "reminders are due"
    );
    let mut engine = restored(1);
    let mut without = holds();
    without.retain(|it| it.code != Code::UpstreamDown);
    assert_eq!(
        tick(&mut engine, hour(3), without.clone()),
        [],
        "detectors need a while"
    );
    let told = tick(&mut engine, seconds(3 * HOUR + 121), without);
    assert_eq!(
        occasions(&told),
        [(Occasion::Resolved, Code::UpstreamDown, "b")]
    );
}

#[test]
fn a_wall_clock_that_jumps_neither_floods_nor_silences() {
    let mut engine = engine();
    let holds = || vec![condition(Code::CertificateMissing, "a")];
    tick(&mut engine, hour(0), holds());
    for jump in [-1000, 1000] {
        let at = Moment {
            wall: day(BASE + jump),
            monotonic: hour(1).monotonic,
        };
        assert_eq!(tick(&mut engine, at, holds()), []);
    }
    let back = Moment {
        wall: day(BASE - 1000),
        monotonic: hour(24).monotonic,
    };
    assert_eq!(
        tick(&mut engine, back, holds())[0].occasion,
        Occasion::Repeated
    );
}

#[test]
fn a_damaged_memory_is_not_believed() {
    assert!(serde_json::from_str::<Saved>("{\"firing\": 3}").is_err());
    assert_eq!(
        serde_json::from_str::<Saved>("{}").unwrap(),
        Saved::default()
    );
}
