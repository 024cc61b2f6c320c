//! What was found of each source, for as long as it stays true.
//!
//! Where thousands of certificates are in trouble, to put each of them in words again is most of what
//! a look costs. What is said of a source follows from its reports, the thresholds, its habit and the
//! time: while the first three are what they were, it is said again as it is until the moment at which
//! time alone would change a word of it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{
    HALVES_SETTLE, SETTLES, World, of_source, source_of, threshold, turning_points, validity,
};
use crate::alert::condition::Condition;
use crate::alert::words;
use crate::cert::Report;
use crate::clock::Timestamp;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// From which shares of a lifetime on it is overdue, and expiring.
    thresholds: (f64, f64),
    /// By the file that the source is named after.
    sources: HashMap<Box<str>, Finding>,
    /// Counts the looks.
    look: u64,
}

/// What was found of one source.
#[derive(Clone, Debug)]
struct Finding {
    reports: Box<[Report]>,
    /// From when on, and before when, that is how it is.
    holds: (Timestamp, Timestamp),
    conditions: Box<[Arc<Condition>]>,
    /// When it was last asked for.
    look: u64,
}

impl Known {
    /// A look begins.
    pub(super) fn begin(&mut self, world: &World<'_>) {
        self.look += 1;
        let thresholds = (world.config.overdue, world.config.expiring);
        if self.thresholds != thresholds {
            self.thresholds = thresholds;
            self.sources.clear();
        }
    }

    /// What is wrong with the source of these reports.
    pub(super) fn of_source(&mut self, world: &World<'_>, reports: &[Report]) -> &[Arc<Condition>] {
        let source = reports.first().map_or("", source_of);
        let now = world.now;
        let known = self.sources.get(source);
        if !known.is_some_and(|it| it.is_of(reports, now)) {
            let found = of_source(world, reports);
            let finding = Finding {
                reports: reports.into(),
                holds: (now, until(world, reports)),
                conditions: found.into_iter().map(Arc::new).collect(),
                look: 0,
            };
            self.sources.insert(source.into(), finding);
        }
        let Some(finding) = self.sources.get_mut(source) else {
            return &[];
        };
        finding.look = self.look;
        &finding.conditions
    }

    /// A look ends: what is no longer there is let go of.
    pub(super) fn end(&mut self) {
        self.sources.retain(|_, it| it.look == self.look);
    }

    /// It is to be looked at again, whatever its reports say.
    pub fn forget(&mut self, source: &str) {
        self.sources.remove(source);
    }
}

impl Finding {
    /// Whether it is what would be found of these now.
    fn is_of(&self, reports: &[Report], now: Timestamp) -> bool {
        let (from, until) = self.holds;
        (from..until).contains(&now) && *self.reports == *reports
    }
}

/// The next moment at which what is said of these changes by the mere passing of time.
fn until(world: &World<'_>, reports: &[Report]) -> Timestamp {
    let now = world.now;
    let of = |report: &Report| {
        let mut points = turning_points(report, world.config, world.memory, now);
        let since = report.disk.since;
        points.extend([since, since.plus(SETTLES), since.plus(HALVES_SETTLE)]);
        if let Some(held) = &report.certificate {
            let validity = validity(held);
            points.push(now.plus(words::span_holds(validity.not_after.since(now))));
            // One second into the next percentage, whatever was rounded.
            let percent = (validity.share_left(now) * 100.0).floor() / 100.0;
            points.extend([0, 1].map(|later| threshold(validity, percent).plus(later)));
        }
        points
    };
    let points = reports.iter().flat_map(of).filter(|at| *at > now);
    // Where nothing is ahead, there is no harm in looking again.
    points.min().unwrap_or_else(|| now.plus(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Coverage, evaluate};
    use super::*;
    use crate::alert::memory::Memory;
    use crate::alert::testing::{alerts, day, facts, report};
    use crate::cert::{DiskState, Reason};

    /// What happens between one look and the next.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// So many seconds pass; the clock may be set back.
        Passes(i64),
        /// This one is renewed.
        Renewed(usize),
        /// What is on disk of this one changes.
        Disk(usize, DiskState, bool),
        /// Whether this one is served changes.
        Serving(usize),
        /// Its entry is gone, or there again.
        Gone(usize),
        /// The thresholds change.
        Threshold(bool),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let spans = prop_oneof![
            0..20_i64,
            0..10_000_i64,
            0..10 * 86_400_i64,
            -100_000..0_i64,
        ];
        let state = prop_oneof![
            Just(DiskState::Same),
            Just(DiskState::Rejected),
            Just(DiskState::HeldBack),
            Just(DiskState::Missing),
        ];
        let step = prop_oneof![
            4 => spans.prop_map(Step::Passes),
            1 => (0..3_usize).prop_map(Step::Renewed),
            1 => (0..3_usize, state, any::<bool>()).prop_map(|(n, state, half)| Step::Disk(n, state, half)),
            1 => (0..3_usize).prop_map(Step::Serving),
            1 => (0..3_usize).prop_map(Step::Gone),
            1 => any::<bool>().prop_map(Step::Threshold),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn what_is_known_is_what_would_be_found_anew(steps in steps(), lives in 1..100_i64) {
            let mut now = day(100);
            let mut known = Known::default();
            let mut memory = Memory::default();
            let mut config = alerts();
            let mut all: Vec<_> = ["a", "b", "c"]
                .map(|it| (true, report(it, it, now, now.plus(lives * 86_400))))
                .into();
            for step in steps {
                match step {
                    Step::Passes(span) => now = now.plus(span),
                    Step::Renewed(n) => {
                        let (_, it) = &mut all[n];
                        let held = it.certificate.as_mut().unwrap();
                        let old = facts(held.not_before, held.not_after);
                        (held.not_before, held.not_after) = (now, now.plus(lives * 86_400));
                        let new = facts(held.not_before, held.not_after);
                        memory.swapped(&it.source[0], &old, &new, now);
                        known.forget(&it.source[0]);
                    }
                    Step::Disk(n, state, half) => {
                        let disk = &mut all[n].1.disk;
                        (disk.state, disk.half, disk.since) = (state, half, now);
                        disk.reason = (state != DiskState::Same).then_some(Reason::Expired);
                    }
                    Step::Serving(n) => all[n].1.serving ^= true,
                    Step::Gone(n) => all[n].0 ^= true,
                    Step::Threshold(early) => config.overdue = if early { 0.5 } else { 0.25 },
                }
                let there = all.iter().filter(|(there, _)| *there);
                let reports: Vec<Report> = there.map(|(_, it)| it.clone()).collect();
                let world = World {
                    now,
                    clock: None,
                    reports: &reports,
                    coverage: &[] as &[Coverage],
                    config: &config,
                    memory: &memory,
                };
                let anew = evaluate(&world, &mut Known::default());
                prop_assert_eq!(evaluate(&world, &mut known), anew);
            }
        }
    }

    #[test]
    fn what_has_not_changed_is_not_put_in_words_again() {
        let (memory, config) = (Memory::default(), alerts());
        let mut reports = ["a", "b"].map(|it| report(it, it, day(0), day(90)));
        let mut known = Known::default();
        let mut look = |now, reports: &[Report]| {
            let world = World {
                now,
                clock: None,
                reports,
                coverage: &[],
                config: &config,
                memory: &memory,
            };
            evaluate(&world, &mut known)
        };
        let first = look(day(85).plus(60), &reports);
        reports[1].serving = false;
        let second = look(day(85).plus(120), &reports);
        let same = |n: usize| Arc::ptr_eq(&first[n], &second[n]);
        assert_eq!([0, 1, 2, 3].map(same), [true, true, false, false]);
        assert_eq!(look(day(85).plus(180), &reports[..1]).len(), 2);
    }
}
