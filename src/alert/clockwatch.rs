//! Whether the system's clock can be believed.
//!
//! Everything here hangs on dates, so a clock that jumps would fire every alert, or worse, resolve
//! every one. Three witnesses are asked: the day this program was built, the latest time it ever
//! saw, and the certificates themselves. A clock that went back does not turn an expiring
//! certificate fresh: for as long as it is doubted, the later time counts.

use std::time::Duration;

use crate::clock::Timestamp;

/// A difference that no leap second, NTP step or time zone mistake of hours explains away.
const JUMP: i64 = 24 * 3600;
/// How long a clock that went back is doubted. After that it is believed, since the earlier, later
/// time may have been the wrong one.
const DOUBT_BACKWARD: Duration = Duration::from_secs(24 * 3600);
/// How long a clock that leapt ahead is told of. A machine that was suspended leaps too.
const DOUBT_FORWARD: Duration = Duration::from_secs(3600);
/// No staunch runs before this: 2024-01-01. A constant, not the moment of the build, so that builds
/// stay reproducible; it is there for machines that wake up in 1970 or 2000.
const BUILT: Timestamp = Timestamp::from_unix(1_704_067_200);

/// A moment on both clocks: the wall's, which can be set, and a monotonic one, which only runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// What the wall clock says.
    pub wall: Timestamp,
    /// Since any fixed point, such as the start of the program.
    pub monotonic: Duration,
}

/// What is thought of the clock now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The time to judge certificates by.
    pub now: Timestamp,
    /// Why the clock is doubted, in a sentence.
    pub doubt: Option<String>,
}

/// Watches the clock from one evaluation to the next.
#[derive(Clone, Debug, Default)]
pub struct ClockWatch {
    last: Option<Moment>,
    /// The latest time that was believed; kept across restarts.
    seen: Option<Timestamp>,
    backward_since: Option<Duration>,
    leap: Option<(Duration, i64, i64)>,
    built: Option<Timestamp>,
}

impl ClockWatch {
    /// Goes on from the latest time that an earlier run believed.
    pub fn new(seen: Option<Timestamp>) -> Self {
        Self {
            seen,
            built: Some(BUILT),
            ..Self::default()
        }
    }

    /// One that believes any day, for playing time forward or back.
    pub fn credulous() -> Self {
        Self::default()
    }

    /// The latest time that was believed.
    pub const fn seen(&self) -> Option<Timestamp> {
        self.seen
    }

    /// Hears what the clock says now; `not_before` is the earliest of all certificates held.
    pub fn judge(&mut self, at: Moment, not_before: Option<Timestamp>) -> Verdict {
        self.notice_leap(at);
        let ahead = self
            .leap
            .filter(|(since, ..)| at.monotonic < *since + DOUBT_FORWARD);
        let behind = self.behind(at);
        let doubt = if self.built.is_some_and(|built| at.wall < built) {
            Some(format!(
                "The clock says {}, which is before staunch was built.",
                at.wall
            ))
        } else if let Some(seen) = behind {
            Some(format!(
                "The clock says {}, and has gone back: it was {seen} already. Certificates are \
                 judged by the later time.",
                at.wall
            ))
        } else if let Some(not_before) = not_before.filter(|it| at.wall < *it) {
            Some(format!(
                "The clock says {}, and not one of the certificates held is valid yet; the first \
                 is from {not_before}.",
                at.wall
            ))
        } else {
            ahead.map(|(_, wall, ran)| {
                format!(
                    "The clock leapt ahead by {} within {}. It was set, or this machine was \
                     suspended.",
                    super::words::span(wall.saturating_sub(ran)),
                    super::words::span(ran)
                )
            })
        };
        if behind.is_none() && ahead.is_none() && self.built.is_none_or(|built| at.wall >= built) {
            self.seen = Some(at.wall);
        }
        Verdict {
            now: behind.map_or(at.wall, |seen| seen.max(at.wall)),
            doubt,
        }
    }

    /// Compares how far both clocks went since the last time.
    fn notice_leap(&mut self, at: Moment) {
        let Some(last) = self.last.replace(at) else {
            return;
        };
        let wall = at.wall.since(last.wall);
        let ran = at.monotonic.saturating_sub(last.monotonic).as_secs();
        let ran = i64::try_from(ran).unwrap_or(i64::MAX);
        let leap = wall.saturating_sub(ran);
        // Coming back from a time that was never believed is no leap.
        let ahead = self
            .seen
            .is_none_or(|seen| at.wall.since(seen).saturating_sub(ran) > JUMP);
        if leap > JUMP && ahead {
            self.leap = Some((at.monotonic, wall, ran));
        } else if leap < -JUMP {
            // Back again: whatever it was, it is over, and is judged by what was believed before.
            self.leap = None;
        }
    }

    /// The time that was believed before, while the clock is clearly behind it.
    fn behind(&mut self, at: Moment) -> Option<Timestamp> {
        let seen = self.seen.filter(|seen| seen.since(at.wall) > JUMP);
        let Some(seen) = seen else {
            self.backward_since = None;
            return None;
        };
        let since = *self.backward_since.get_or_insert(at.monotonic);
        if at.monotonic.saturating_sub(since) < DOUBT_BACKWARD {
            return Some(seen);
        }
        self.backward_since = None;
        self.seen = Some(at.wall);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::day;
    use super::*;

    const BASE: i64 = 21_000; // 2027-07-01

    fn at(days: i64, monotonic: u64) -> Moment {
        Moment {
            wall: day(BASE + days),
            monotonic: Duration::from_secs(monotonic),
        }
    }

    #[test]
    fn time_that_passes_is_believed() {
        let mut watch = ClockWatch::new(None);
        for n in 0..10 {
            let verdict = watch.judge(at(n, 86_400 * n.unsigned_abs()), None);
            assert_eq!((verdict.now, verdict.doubt), (day(BASE + n), None));
        }
        assert_eq!(watch.seen(), Some(day(BASE + 9)));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_make_certificates_fresh() {
        let mut watch = ClockWatch::new(None);
        watch.judge(at(0, 0), None);
        let verdict = watch.judge(at(-30, 10), None);
        assert_eq!(verdict.now, day(BASE));
        assert!(verdict.doubt.unwrap().contains("has gone back"));
        let mended = watch.judge(at(0, 20), None);
        assert_eq!(mended.doubt, None);
        watch.judge(at(-30, 30), None);
        let later = watch.judge(at(-29, 30 + 86_400), None);
        assert_eq!((later.now, later.doubt), (day(BASE - 29), None));
    }

    #[test]
    fn a_leap_ahead_and_back_leaves_no_trace() {
        let mut watch = ClockWatch::new(None);
        watch.judge(at(0, 0), None);
        let verdict = watch.judge(at(3650, 10), None);
        assert_eq!(verdict.now, day(BASE + 3650));
        assert!(
            verdict
                .doubt
                .unwrap()
                .contains("3649 days within 10 seconds")
        );
        assert_eq!(watch.seen(), Some(day(BASE)));
        assert_eq!(watch.judge(at(0, 20), None).doubt, None);
    }

    #[test]
    fn an_earlier_run_and_the_certificates_are_witnesses() {
        let mut watch = ClockWatch::new(Some(day(BASE)));
        assert!(watch.judge(at(-2, 0), None).doubt.is_some());
        let mut watch = ClockWatch::new(None);
        let epoch = Moment {
            wall: day(0),
            monotonic: Duration::ZERO,
        };
        assert!(watch.judge(epoch, None).doubt.unwrap().contains("built"));
        assert_eq!(watch.seen(), None);
        let verdict = watch.judge(at(0, 5), Some(day(BASE + 3)));
        assert!(
            verdict
                .doubt
                .unwrap()
                .contains("not one of the certificates")
        );
    }
}
