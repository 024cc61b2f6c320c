//! The story of 2024-06-05, replayed: a certificate of ninety days, a renewal that fails in silence
//! from day 60 on, and day 90 passes. Who was told what, and when? And was anybody turned away?

use std::sync::Arc;
use std::time::Duration;

use super::clockwatch::{ClockWatch, Moment};
use super::condition::Code;
use super::engine::Engine;
use super::evaluate::{self, Known};
use super::judge::{Judge, Observed};
use super::memory::Memory;
use super::message::{Notification, Occasion, Status};
use super::testing::alerts;
use crate::cert::Verified;
use crate::cert::load::Roots;
use crate::cert::testing::{Authority, Front, Leaf, World};
use crate::clock::{Clock, Timestamp};
use crate::config::{Severity, SiteName};

const SOURCE: &str = "/etc/letsencrypt/live/www.example.com/fullchain.pem";
const NAME: &str = "www.example.com";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// What was told, and when.
struct Story {
    clock: Clock,
    /// What clients meet.
    front: Front,
    begin: Timestamp,
    judge: Judge,
    told: Vec<(Timestamp, Notification)>,
}

impl Story {
    fn begin(at: Timestamp) -> Self {
        let clock = Clock::manual(at);
        Self {
            front: Front::new(clock.clone()),
            clock,
            begin: at,
            judge: Judge {
                memory: Memory::default(),
                clock: ClockWatch::new(None),
                engine: Engine::new(alerts().repeat),
                known: Known::default(),
            },
            told: Vec::new(),
        }
    }

    /// Lets time pass. Every ten minutes staunch looks at what it holds; twice a day, and
    /// each time around the expiry, a client comes, and is served with this.
    fn until(&mut self, end: Timestamp, served: &Verified) {
        let sites = [SiteName::Exact(NAME.into())];
        while self.clock.now() < end {
            let now = self.clock.now().plus(600);
            self.clock.set(now);
            let reports = self.front.inventory.load().report(now);
            let coverage = evaluate::coverage(&sites, &reports, now);
            let observed = Observed {
                reports,
                coverage,
                ..Observed::default()
            };
            let told = self
                .judge
                .tick(self.moment(), &observed, Vec::new(), &alerts());
            self.told.extend(told.into_iter().map(|it| (now, it)));
            let to_expiry = now.since(served.facts().validity.not_after).abs();
            if to_expiry <= HOUR || now.unix() % (DAY / 2) == 0 {
                let shown = self.front.shake_hands(NAME);
                assert_eq!(shown.as_ref(), Ok(&served.key().cert[0]), "at {now:?}");
            }
        }
    }

    fn moment(&self) -> Moment {
        let wall = self.clock.now();
        let ran = u64::try_from(wall.since(self.begin)).unwrap();
        Moment {
            wall,
            monotonic: Duration::from_secs(ran),
        }
    }

    /// Everything of this occasion that was told so far: when, what, and how grave.
    fn of(&self, occasion: Occasion) -> Vec<(Timestamp, Code, Severity)> {
        let all = self.told.iter().filter(|(_, it)| it.occasion == occasion);
        all.map(|(at, it)| (*at, it.alert.condition, it.alert.severity))
            .collect()
    }

    fn says(&self, code: Code) -> String {
        let first = self.told.iter().find(|(_, it)| it.alert.condition == code);
        first
            .map(|(_, it)| format!("{} {}", it.alert.summary, it.alert.next_step))
            .unwrap()
    }
}

/// Authorities of that time.
fn authorities() -> World {
    let (from, to) = (at("2020-01-01"), at("2030-01-01"));
    let root = Authority::make("Test Root", None, from, to);
    World {
        intermediate: Authority::make("Test Intermediate", Some(&root), from, to),
        roots: Arc::new(Roots::from_ders([root.der.clone()])),
        root,
    }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

#[test]
fn people_are_told_weeks_before_by_name_with_the_way_out() {
    let not_after = at("2024-06-05");
    let not_before = not_after.plus(-90 * DAY);
    let world = authorities();
    let issue = |from, to| {
        let leaf = Leaf::new(&[NAME]).valid(from, to);
        Arc::new(world.verified(&leaf))
    };
    let served = issue(not_before, not_after);
    let mut story = Story::begin(not_before);
    story.front.hold(SOURCE, &[&served]);

    // Day 60: the renewal fails, and nobody hears of it. Day 90 passes, and two more days.
    story.until(not_after.plus(2 * DAY), &served);
    assert_eq!(
        story.of(Occasion::Fired),
        [
            (
                at("2024-05-13T12:10:00Z"),
                Code::RenewalOverdue,
                Severity::Warning
            ),
            (
                at("2024-05-27T00:10:00Z"),
                Code::Expiring,
                Severity::Critical
            ),
            (
                at("2024-06-05T00:10:00Z"),
                Code::Expired,
                Severity::Critical
            ),
            (
                at("2024-06-05T00:10:00Z"),
                Code::NamesUncovered,
                Severity::Critical
            ),
        ]
    );
    for (code, words) in [
        (
            Code::RenewalOverdue,
            "for www.example.com expires in 22 days, on 2024-06-05 00:00 UTC",
        ),
        (
            Code::RenewalOverdue,
            "`certbot renew --cert-name www.example.com --dry-run`",
        ),
        (
            Code::Expiring,
            "for www.example.com expires in 8 days, on 2024-06-05 00:00 UTC",
        ),
        (Code::Expired, "for www.example.com expired 10 minutes ago"),
        (Code::Expired, "It is still served"),
        (
            Code::NamesUncovered,
            "www.example.com is answered with a certificate that expired",
        ),
    ] {
        assert!(
            story.says(code).contains(words),
            "{code} says: {}",
            story.says(code)
        );
    }
    assert_eq!(story.of(Occasion::Resolved), []);

    // Reminders come, more often in the end, and never as a flood.
    let reminders = |from: Timestamp, to: Timestamp| {
        let within = |(at, ..): &&(Timestamp, Code, Severity)| from <= *at && *at < to;
        story.of(Occasion::Repeated).iter().filter(within).count()
    };
    assert_eq!(reminders(not_before, at("2024-05-13")), 0);
    let (a_week, a_day) = (
        reminders(at("2024-05-28"), at("2024-06-01")),
        reminders(not_after.plus(-DAY), not_after),
    );
    assert!((7..=12).contains(&a_week), "{a_week} in four days");
    assert!((12..=24).contains(&a_day), "{a_day} on the last day");

    // Somebody mends the renewal: everything resolves by itself, each alert once.
    let begin = story.told.len();
    let now = story.clock.now();
    let renewed = issue(now, now.plus(90 * DAY));
    story.front.hold(SOURCE, &[&renewed]);
    let (old, new) = (served.facts(), renewed.facts());
    story.judge.memory.swapped(SOURCE, old, new, now);
    story.until(now.plus(30 * DAY), &renewed);
    let after: Vec<_> = story.told[begin..]
        .iter()
        .map(|(at, it)| (*at, it.occasion, it.alert.condition))
        .collect();
    let over = |code| (now.plus(600), Occasion::Resolved, code);
    assert_eq!(
        after,
        [
            over(Code::RenewalOverdue),
            over(Code::Expiring),
            over(Code::Expired),
            over(Code::NamesUncovered),
        ]
    );
    assert!(
        story.told[begin..]
            .iter()
            .all(|(_, it)| it.alert.status == Status::Resolved)
    );
    assert!(story.judge.engine.firing().is_empty());
}
