//! What is thought of a server: by checks, by what became of requests, by the operator.
//!
//! All of it is atomics, written by whoever learns something and read at each choice of a server.
//! Two threads may learn the same at once; what they then write differs by no more than either
//! could have found alone.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Ejection;

/// The longest that a server is left alone, unless the first time is configured to be longer.
const LONGEST: Duration = Duration::from_secs(300);

/// Milliseconds since some moment before the first request; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub(super) u64);

impl Moment {
    /// The present.
    pub fn now() -> Self {
        Self::of(Instant::now())
    }

    /// An instant that is at hand already.
    pub fn of(instant: Instant) -> Self {
        static BEGIN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
        let since = instant.into_std().saturating_duration_since(*BEGIN);
        Self(millis(since).saturating_add(1))
    }

    /// Milliseconds from `earlier` to this.
    const fn since(self, earlier: u64) -> u64 {
        self.0.saturating_sub(earlier)
    }
}

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is given requests.
    Up,
    /// It failed several times in a row, and is left alone for a while.
    Ejected,
    /// Checks say that it is down.
    Down,
    /// An operator took it out.
    Drained,
}

/// What a check found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was down, and is up.
    Up,
    /// It was up, and is down.
    Down,
}

/// What checks have found.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Health {
    checked: AtomicU8,
    drained: AtomicBool,
    /// Failures in a row.
    failures: AtomicU32,
    /// When it may be tried again; 0: it is not ejected.
    ejected_until: AtomicU64,
    /// For how long it was ejected last, in milliseconds.
    ejected_for: AtomicU64,
    /// When it was given a request last although it was ejected.
    tried: AtomicU64,
    /// Ejections in a row.
    in_row: AtomicU32,
    /// Ejections ever.
    ejections: AtomicU64,
    /// When it came back; 0: it was never away.
    back: AtomicU64,
    /// The last check that was bad, in words. The data plane never looks at it.
    complaint: Mutex<Option<String>>,
}

impl Health {
    /// How it stands, with this many requests in flight. Once its time is over an ejected server
    /// is given one request at a time, until one succeeds: whether it has recovered is found out
    /// at the cost of one. What is in flight may be older and last for long, as a WebSocket does;
    /// so another is given after as long as it was left alone.
    pub fn standing(&self, now: Moment, in_flight: usize) -> Standing {
        match self.proven() {
            Standing::Ejected if self.may_be_tried(now, in_flight) => Standing::Up,
            standing => standing,
        }
    }

    fn may_be_tried(&self, now: Moment, in_flight: usize) -> bool {
        let (until, tried) = (self.ejected_until.load(Relaxed), self.tried.load(Relaxed));
        let is_waited_for = || tried >= until && now.since(tried) < self.ejected_for.load(Relaxed);
        now.0 >= until && (in_flight == 0 || !is_waited_for())
    }

    /// The same, for whoever only looks: an ejected server is up again when it has shown that it is,
    /// not when it may be tried.
    pub fn proven(&self) -> Standing {
        if self.drained.load(Relaxed) {
            return Standing::Drained;
        }
        if self.checked.load(Relaxed) == DOWN {
            return Standing::Down;
        }
        match self.ejected_until.load(Relaxed) {
            0 => Standing::Up,
            _ => Standing::Ejected,
        }
    }

    /// Notes that it was chosen for a request.
    pub(super) fn chosen(&self, now: Moment) {
        if self.ejected_until.load(Relaxed) != 0 {
            self.tried.store(now.0, Relaxed);
        }
    }

    /// Whether it is left alone because of failures.
    pub(super) fn is_ejected(&self, now: Moment) -> bool {
        now.0 < self.ejected_until.load(Relaxed)
    }

    /// Takes it out, or back in.
    pub fn drain(&self, out: bool, now: Moment) {
        if self.drained.swap(out, Relaxed) && !out {
            self.come_back(now);
        }
    }

    /// Notes a request that was answered. Whether that ended an ejection.
    pub fn succeeded(&self, now: Moment, ejection: &Ejection) -> bool {
        // Mostly there is nothing to write, and the cache line stays shared.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        let until = self.ejected_until.load(Relaxed);
        if until != 0 {
            // What was sent before it was ejected says nothing of whether it has recovered.
            if now.0 < until {
                return false;
            }
            self.come_back(now);
            return true;
        }
        let in_row = self.in_row.load(Relaxed);
        if in_row != 0 && now.since(self.back.load(Relaxed)) > 2 * span(ejection, in_row) {
            self.in_row.store(0, Relaxed);
        }
        false
    }

    /// Notes a failure. Whether enough of them came in a row to leave it alone.
    pub fn failed(&self, now: Moment, ejection: &Ejection) -> bool {
        if ejection.after == 0 {
            return false;
        }
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let until = self.ejected_until.load(Relaxed);
        // One more when it was tried again is enough.
        (failures >= ejection.after && until == 0) || (until != 0 && now.0 >= until)
    }

    /// Leaves it alone for a time that doubles with each time in a row; for how long.
    pub fn eject(&self, now: Moment, ejection: &Ejection) -> Duration {
        let in_row = self.in_row.fetch_add(1, Relaxed).saturating_add(1);
        let span = span(ejection, in_row);
        self.ejections.fetch_add(1, Relaxed);
        self.failures.store(0, Relaxed);
        self.ejected_for.store(span, Relaxed);
        self.ejected_until
            .store(now.0.saturating_add(span), Relaxed);
        Duration::from_millis(span)
    }

    /// Notes what checks say, and why. What changed by it, if anything did.
    pub fn checked(&self, up: bool, complaint: Option<String>, now: Moment) -> Option<Change> {
        *self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = complaint;
        let before = self.checked.swap(if up { UP } else { DOWN }, Relaxed);
        match (before, up) {
            (DOWN, true) => {
                self.come_back(now);
                Some(Change::Up)
            }
            (UNKNOWN | UP, false) => Some(Change::Down),
            _ => None,
        }
    }

    /// Failures in a row, as far as they count for an ejection.
    pub fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }

    /// Forgets what checks said: there are none any more.
    pub fn unchecked(&self) {
        self.checked.store(UNKNOWN, Relaxed);
    }

    /// Whether checks say that it is down.
    pub fn is_down(&self) -> bool {
        self.checked.load(Relaxed) == DOWN
    }

    /// What was wrong at the last check.
    pub fn complaint(&self) -> Option<String> {
        self.complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// Its weight while it is eased in, in 256ths of the full one.
    pub(super) fn ease(&self, now: Moment, slow_start: Option<Duration>) -> u32 {
        const FULL: u64 = 256;
        let (Some(span), back @ 1..) = (slow_start, self.back.load(Relaxed)) else {
            return 256;
        };
        let share = now.since(back).saturating_mul(FULL) / millis(span).max(1);
        // It begins with a tenth: nothing at all would never warm anything up.
        u32::try_from(share.clamp(FULL / 10, FULL)).unwrap_or(256)
    }

    fn come_back(&self, now: Moment) {
        self.failures.store(0, Relaxed);
        self.ejected_until.store(0, Relaxed);
        self.back.store(now.0, Relaxed);
    }
}

/// How long the `in_row`-th ejection lasts, in milliseconds.
fn span(ejection: &Ejection, in_row: u32) -> u64 {
    let first = millis(ejection.time);
    let doubled = first.saturating_mul(1 << in_row.saturating_sub(1).min(20));
    doubled.min(millis(LONGEST).max(first))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Ejection = Ejection {
        after: 3,
        time: Duration::from_millis(100),
        share: 1.0,
    };

    fn fail_until_ejected(health: &Health, now: u64) -> u64 {
        while !health.failed(Moment(now), &RULE) {}
        millis(health.eject(Moment(now), &RULE))
    }

    #[test]
    fn failures_must_come_in_a_row() {
        let health = Health::default();
        for _ in 0..10 {
            assert!(!health.failed(Moment(1), &RULE));
            assert!(!health.failed(Moment(1), &RULE));
            health.succeeded(Moment(1), &RULE);
        }
        assert_eq!(health.standing(Moment(1), 0), Standing::Up);
    }

    #[test]
    fn each_ejection_in_a_row_lasts_twice_as_long() {
        let health = Health::default();
        assert_eq!(fail_until_ejected(&health, 1000), 100);
        assert_eq!(health.standing(Moment(1099), 0), Standing::Ejected);
        // One request at a time finds out.
        assert_eq!(health.standing(Moment(1100), 0), Standing::Up);
        health.chosen(Moment(1100));
        assert_eq!(health.standing(Moment(1100), 0), Standing::Up);
        assert_eq!(health.standing(Moment(1100), 1), Standing::Ejected);
        assert_eq!(health.proven(), Standing::Ejected);
        assert!(health.failed(Moment(1100), &RULE), "one more is enough");
        assert_eq!(millis(health.eject(Moment(1100), &RULE)), 200);
        assert!(health.succeeded(Moment(1300), &RULE));
        assert_eq!(health.standing(Moment(1300), 7), Standing::Up);
        // Soon after it came back the row goes on; long after it is forgotten.
        assert_eq!(fail_until_ejected(&health, 1400), 400);
        assert!(health.succeeded(Moment(2000), &RULE));
        health.succeeded(Moment(9000), &RULE);
        assert_eq!(fail_until_ejected(&health, 9000), 100);
        assert_eq!(span(&RULE, 50), millis(LONGEST));
    }

    #[test]
    fn what_lasts_keeps_no_server_out() {
        let health = Health::default();
        fail_until_ejected(&health, 1000);
        let standing = |now| health.standing(Moment(now), 5);
        // Those that all are ejected with may choose it all the same.
        health.chosen(Moment(1050));
        assert_eq!(standing(1099), Standing::Ejected);
        assert_eq!(standing(1100), Standing::Up);
        health.chosen(Moment(1100));
        assert_eq!(standing(1199), Standing::Ejected);
        assert_eq!(standing(1200), Standing::Up);
        assert_eq!(health.proven(), Standing::Ejected);
    }

    #[test]
    fn an_old_answer_ends_no_ejection() {
        let health = Health::default();
        fail_until_ejected(&health, 1000);
        assert!(!health.succeeded(Moment(1050), &RULE));
        assert_eq!(health.standing(Moment(1050), 0), Standing::Ejected);
    }

    #[test]
    fn who_comes_back_is_eased_in() {
        let health = Health::default();
        let slow = Some(Duration::from_millis(1000));
        assert_eq!(health.ease(Moment(5), slow), 256);
        assert_eq!(health.checked(false, None, Moment(5)), Some(Change::Down));
        assert_eq!(health.standing(Moment(5), 0), Standing::Down);
        assert_eq!(health.checked(true, None, Moment(1000)), Some(Change::Up));
        assert_eq!(health.ease(Moment(1001), slow), 25);
        assert_eq!(health.ease(Moment(1500), slow), 128);
        assert_eq!(health.ease(Moment(9000), slow), 256);
        assert_eq!(health.ease(Moment(1001), None), 256);
    }
}
