//! Whether clients refuse a certificate since it was swapped.
//!
//! A renewal may pass every check here and still be refused out there: a new intermediate that old
//! devices do not know, a root that was dropped. Clients say so, with an alert in the handshake. A
//! few always do; what counts is that clearly more do than before the swap.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::board::Board;
use super::condition::{Code, Condition};
use super::{canary, next_step, words};
use crate::cert::{Event, Shown, Verified};
use crate::config::Severity;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);
/// How long after a swap refusals are laid at its door.
const WINDOW: Duration = Duration::from_secs(3600);
/// What is looked at to say how it is now: between one and two of these, or all since the swap.
const RECENT: Duration = Duration::from_secs(300);
/// Refusals below which nothing is concluded.
const FEW: u64 = 20;
/// How many times the earlier share is clearly more.
const TIMES: f64 = 3.0;
/// A share that is no news even where there were no refusals before.
const SHARE: f64 = 0.02;
/// The share from which it is an outage.
const OUTAGE: f64 = 0.25;

/// A swap, and how clients received what came with it.
#[derive(Debug)]
struct Swap {
    at: Duration,
    event: Arc<Event>,
    new: Arc<Verified>,
    /// The share that refused the certificate from before.
    before: f64,
    /// What was counted when the span began that is looked at, and the one after it.
    from: Shown,
    then: Shown,
    next: Duration,
    undone: bool,
}

/// The swaps of the last hour, by source: the latest of each.
#[derive(Debug, Default)]
struct Swaps(HashMap<Arc<str>, Swap>);

impl Swaps {
    /// Takes note of what was swapped, or is no longer served.
    fn note(&mut self, at: Duration, event: &Arc<Event>) {
        match &**event {
            Event::Swapped { source, old, new } if !canary::is_its_name(&new.facts().names) => {
                let swap = Swap {
                    at,
                    event: Arc::clone(event),
                    new: Arc::clone(new),
                    before: old.tally().shown().share_refused(),
                    from: Shown::default(),
                    then: Shown::default(),
                    next: at + RECENT,
                    undone: false,
                };
                self.0.insert(Arc::clone(source), swap);
            }
            Event::HeldBack {
                source,
                fingerprint,
                ..
            } => {
                let is_it = |swap: &Swap| swap.new.facts().fingerprint == *fingerprint;
                if self.0.get(source).is_some_and(is_it) {
                    self.0.remove(source);
                }
            }
            Event::Accepted { source, .. } | Event::Removed { source } => {
                self.0.remove(source);
            }
            _ => {}
        }
    }

    /// What is wrong at this moment. For each swap that is an outage `undo` is called once, with
    /// what is wrong in words: if that was not it, going back and forth helps nobody. A swap that
    /// is over an hour old is forgotten as soon as nothing is wrong with it.
    fn look(&mut self, at: Duration, undo: impl Fn(&Event, &str)) -> Vec<Condition> {
        let mut found = Vec::new();
        self.0.retain(|source, swap| {
            let Some(condition) = swap.look(at, source) else {
                return at.saturating_sub(swap.at) <= WINDOW;
            };
            if condition.severity == Severity::Critical && !swap.undone {
                swap.undone = true;
                undo(&swap.event, &condition.summary);
            }
            found.push(condition);
            true
        });
        found
    }
}

impl Swap {
    fn look(&mut self, at: Duration, source: &str) -> Option<Condition> {
        let counted = self.new.tally().shown();
        if at >= self.next {
            self.from = std::mem::replace(&mut self.then, counted);
            self.next = at + RECENT;
        }
        let recent = counted.since(self.from);
        let share = recent.share_refused();
        let more = recent.refused >= FEW && share > (TIMES * self.before).max(SHARE);
        more.then(|| condition(source, share, recent, self.before))
    }
}

fn condition(source: &str, share: f64, recent: Shown, before: f64) -> Condition {
    let summary = format!(
        "Since {source} was swapped, clients refuse the certificate in {} of the handshakes ({} of \
         them lately); before, it was {}.",
        words::percent(share),
        recent.refused,
        words::percent(before)
    );
    let step = format!(
        "See what changed: `{}`, and `staunch certs --history`. A new issuer that older clients do \
         not know is the usual cause: ask for the other chain (certbot: --preferred-chain), or put \
         the previous files back while they are valid.",
        next_step::look_at(source)
    );
    let severity = if share >= OUTAGE {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let subject = words::clean(source);
    Condition::new(Code::ClientsRefuse, subject, severity, summary, step)
}

/// Looks for ever, and pins what it finds to the board.
pub async fn run(mut events: Receiver<Arc<Event>>, board: Board, undo: impl Fn(&Event, &str)) {
    let started = Instant::now();
    let mut swaps = Swaps::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let at = started.elapsed();
        loop {
            match events.try_recv() {
                Ok(event) => swaps.note(at, &event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let found = swaps.look(at, &undo);
        board.clear_where(Code::ClientsRefuse, |pinned| {
            !found.iter().any(|it| it.subject == pinned)
        });
        for condition in found {
            board.raise(condition);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::cert::testing::{Leaf, World};
    use crate::cert::{Reason, Rejection};

    /// Two certificates, the first swapped for the second after a time; every ten seconds bring
    /// handshakes.
    struct Play {
        swaps: Swaps,
        old: Arc<Verified>,
        new: Arc<Verified>,
        at: Duration,
        undone: RefCell<Vec<String>>,
    }

    impl Play {
        fn new(before: (u64, u64)) -> Self {
            let world = World::new();
            let one = || Arc::new(world.verified(&Leaf::new(&["a.test"])));
            let mut play = Self {
                swaps: Swaps::default(),
                old: one(),
                new: one(),
                at: Duration::from_secs(7200),
                undone: RefCell::default(),
            };
            count(&play.old, before);
            let event = play.swap();
            play.swaps.note(play.at, &event);
            play
        }

        fn swap(&self) -> Arc<Event> {
            Arc::new(Event::Swapped {
                source: "/a.pem".into(),
                old: Arc::clone(&self.old),
                new: Arc::clone(&self.new),
            })
        }

        /// What is found at the end of so many minutes of this.
        fn minutes(&mut self, minutes: u64, each: (u64, u64)) -> Option<Condition> {
            let mut found = Vec::new();
            for _ in 0..minutes * 6 {
                self.at += EVERY;
                count(&self.new, each);
                let undo = |_: &Event, because: &str| {
                    self.undone.borrow_mut().push(because.to_owned());
                };
                found = self.swaps.look(self.at, undo);
            }
            assert!(found.len() <= 1);
            found.pop()
        }
    }

    fn count(certificate: &Verified, (done, refused): (u64, u64)) {
        (0..done).for_each(|_| certificate.tally().done());
        (0..refused).for_each(|_| certificate.tally().refused());
    }

    #[test]
    fn refusals_that_were_always_there_are_no_news() {
        let mut play = Play::new((9500, 500));
        assert_eq!(play.minutes(120, (90, 10)), None);
    }

    #[test]
    fn clearly_more_than_before_is_told_within_a_minute_and_clears_when_it_is_over() {
        let mut play = Play::new((1000, 1));
        let told = play.minutes(1, (95, 5)).unwrap();
        assert_eq!(
            (told.severity, &*told.subject),
            (Severity::Warning, "/a.pem")
        );
        let summary = &told.summary;
        let begin = "Since /a.pem was swapped, clients refuse the certificate in 5 %";
        assert!(summary.starts_with(begin), "{summary}");
        assert!(summary.ends_with("before, it was 0 %."), "{summary}");
        assert!(play.minutes(19, (95, 5)).is_some());
        assert_eq!(play.minutes(11, (1000, 1)), None);
        assert!(play.undone.borrow().is_empty());
    }

    #[test]
    fn a_few_prove_nothing_and_most_are_an_outage_that_is_undone_once() {
        let mut play = Play::new((0, 0));
        assert_eq!(play.minutes(3, (0, 1)), None);
        let told = play.minutes(5, (20, 80)).unwrap();
        assert_eq!(told.severity, Severity::Critical);
        assert_eq!(play.undone.borrow().len(), 1);
    }

    #[test]
    fn what_others_refuse_and_what_begins_long_after_is_not_laid_at_its_door() {
        let mut play = Play::new((100, 0));
        count(&play.old, (0, 1000));
        assert_eq!(play.minutes(62, (100, 0)), None);
        assert_eq!(play.minutes(5, (50, 50)), None);
    }

    #[test]
    fn a_swap_that_was_taken_back_is_forgotten() {
        let mut play = Play::new((100, 0));
        assert!(play.minutes(1, (20, 80)).is_some());
        let held_back = Arc::new(Event::HeldBack {
            source: "/a.pem".into(),
            fingerprint: play.new.facts().fingerprint,
            rejection: Arc::new(Rejection {
                reason: Reason::RefusedByClients,
                path: "/a.pem".into(),
                detail: String::new(),
                help: String::new(),
            }),
        });
        play.swaps.note(play.at, &held_back);
        assert_eq!(play.minutes(1, (20, 80)), None);
    }
}
