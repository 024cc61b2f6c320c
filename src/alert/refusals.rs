//! Whether clients refuse a certificate since it was swapped.
//!
//! A renewal may pass every check here and still be refused out there: a new intermediate that old
//! devices do not know, a root that was dropped. Clients say so, with an alert in the handshake. A
//! few always do; what counts is that clearly more do than before the swap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::board::Board;
use super::condition::{Code, Condition};
use super::{canary, next_step, words};
use crate::cert::Event;
use crate::config::Severity;

/// Between two samples.
const EVERY: Duration = Duration::from_secs(10);
/// How far back the time before a swap is remembered, and how long after it refusals are laid at
/// its door.
const WINDOW: Duration = Duration::from_secs(3600);
/// What is looked at to say how it is now.
const RECENT: Duration = Duration::from_secs(600);
/// Refusals below which nothing is concluded.
const FEW: u64 = 20;
/// How many times the earlier share is clearly more.
const TIMES: f64 = 3.0;
/// A share that is no news even where there were no refusals before.
const SHARE: f64 = 0.02;
/// The share from which it is an outage.
const OUTAGE: f64 = 0.25;
/// Swaps within one window that are named.
const NAMED: usize = 20;

/// Full handshakes since the start. Resumed ones show no certificate and do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Completed.
    pub done: u64,
    /// Ended by an alert of the client about the certificate.
    pub refused: u64,
}

impl Handshakes {
    const fn since(self, earlier: Self) -> Self {
        Self {
            done: self.done.saturating_sub(earlier.done),
            refused: self.refused.saturating_sub(earlier.refused),
        }
    }

    #[allow(clippy::cast_precision_loss)] // a share
    fn share_refused(self) -> f64 {
        self.refused as f64 / (self.done + self.refused).max(1) as f64
    }
}

/// Swaps that may be the cause.
#[derive(Debug)]
struct Suspect {
    at: Duration,
    before: f64,
    sources: Vec<Arc<str>>,
}

/// Compares the time after a swap with the time before.
#[derive(Debug, Default)]
pub struct Refusals {
    samples: VecDeque<(Duration, Handshakes)>,
    suspect: Option<Suspect>,
}

impl Refusals {
    /// Takes note of a swap, before the sample of that moment.
    pub fn swapped(&mut self, at: Duration, source: &Arc<str>) {
        let before = self.over(at, WINDOW).share_refused();
        let suspect = self.suspect.get_or_insert_with(|| Suspect {
            at,
            before,
            sources: Vec::new(),
        });
        if suspect.sources.len() < NAMED && !suspect.sources.contains(source) {
            suspect.sources.push(Arc::clone(source));
        }
    }

    /// Takes the counts of a moment, and says what is wrong, as far as can be said.
    pub fn sample(&mut self, at: Duration, counts: Handshakes) -> Option<Condition> {
        while self
            .samples
            .front()
            .is_some_and(|(then, _)| at.saturating_sub(*then) > WINDOW)
        {
            self.samples.pop_front();
        }
        self.samples.push_back((at, counts));
        let suspect = self.suspect.as_ref()?;
        let recent = self.over(at, RECENT.min(at.saturating_sub(suspect.at)));
        let share = recent.share_refused();
        let more = recent.refused >= FEW && share > (TIMES * suspect.before).max(SHARE);
        let found = more.then(|| suspect.condition(share, recent));
        if !more && at.saturating_sub(suspect.at) > WINDOW {
            self.suspect = None;
        }
        found
    }

    /// What happened in this time before the latest sample.
    fn over(&self, at: Duration, span: Duration) -> Handshakes {
        let from = at.saturating_sub(span);
        let first = self.samples.iter().rev().find(|(then, _)| *then <= from);
        match (first.or_else(|| self.samples.front()), self.samples.back()) {
            (Some((_, first)), Some((_, last))) => last.since(*first),
            _ => Handshakes::default(),
        }
    }
}

impl Suspect {
    fn condition(&self, share: f64, recent: Handshakes) -> Condition {
        let sources: Vec<&str> = self.sources.iter().map(|it| &**it).collect();
        let summary = format!(
            "Since {} was swapped, clients refuse the certificate in {} of the handshakes ({} of \
             them lately); before, it was {}.",
            words::list(&sources, 3),
            words::percent(share),
            recent.refused,
            words::percent(self.before)
        );
        let first = sources.first().copied().unwrap_or_default();
        let step = format!(
            "See what changed: `{}`, and `staunch certs --history`. A new issuer that older clients \
             do not know is the usual cause: ask for the other chain (certbot: --preferred-chain), \
             or put the previous files back while they are valid.",
            next_step::look_at(first)
        );
        let severity = if share >= OUTAGE {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let subject = words::clean(first);
        Condition::new(Code::ClientsRefuse, subject, severity, summary, step)
    }
}

/// Samples for ever, and pins what it finds to the board. Where it is an outage, `undo` is called
/// for each swap that may be the cause, with what is wrong in words.
pub async fn run(
    handshakes: impl Fn() -> Handshakes,
    mut events: Receiver<Arc<Event>>,
    board: Board,
    undo: impl Fn(&Event, &str),
) {
    let started = Instant::now();
    let mut swaps: Vec<(Duration, Arc<Event>)> = Vec::new();
    let mut refusals = Refusals::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let at = started.elapsed();
        loop {
            match events.try_recv() {
                Ok(event) => {
                    if note(&mut refusals, at, &event) && swaps.len() < NAMED {
                        swaps.push((at, event));
                    }
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        swaps.retain(|(then, _)| at.saturating_sub(*then) <= WINDOW);
        let found = refusals.sample(at, handshakes());
        if let Some(outage) = found
            .as_ref()
            .filter(|it| it.severity == Severity::Critical)
        {
            // Once for each: if that was not it, going back and forth helps nobody.
            for (_, swap) in swaps.drain(..) {
                undo(&swap, &outage.summary);
            }
        }
        let subject = found.as_ref().map(|it| it.subject.clone());
        board.clear_where(Code::ClientsRefuse, |pinned| {
            Some(pinned) != subject.as_deref()
        });
        if let Some(condition) = found {
            board.raise(condition);
        }
    }
}

/// Takes note of an event, and says whether it is a swap that clients see.
fn note(refusals: &mut Refusals, at: Duration, event: &Event) -> bool {
    match event {
        Event::Swapped { source, new, .. } if !canary::is_its_name(&new.facts().names) => {
            refusals.swapped(at, source);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hours of samples; each ten seconds bring these handshakes. Swapped after one hour.
    /// Returns what was found at each minute after the swap.
    fn play(before: Handshakes, after: impl Fn(u64) -> Handshakes) -> Vec<Option<Condition>> {
        let mut refusals = Refusals::default();
        let mut counts = Handshakes::default();
        let mut found = Vec::new();
        for n in 0..1080 {
            let at = Duration::from_secs(10 * n);
            if n == 360 {
                refusals.swapped(at, &"/a.pem".into());
            }
            let more = if n < 360 { before } else { after(n - 360) };
            counts.done += more.done;
            counts.refused += more.refused;
            let result = refusals.sample(at, counts);
            if n >= 360 && n % 6 == 0 {
                found.push(result);
            }
        }
        found
    }

    const fn each(done: u64, refused: u64) -> Handshakes {
        Handshakes { done, refused }
    }

    #[test]
    fn refusals_that_were_always_there_are_no_news() {
        let found = play(each(95, 5), |_| each(90, 10));
        assert!(found.iter().all(Option::is_none));
    }

    #[test]
    fn clearly_more_than_before_is_told_within_minutes_and_clears_when_it_is_over() {
        let found = play(each(1000, 1), |n| {
            if n < 120 {
                each(950, 50)
            } else {
                each(1000, 1)
            }
        });
        assert_eq!(found[0], None);
        let told = found[1].as_ref().unwrap();
        assert_eq!(told.severity, Severity::Warning);
        assert!(
            told.summary
                .starts_with("Since /a.pem was swapped, clients refuse"),
            "{}",
            told.summary
        );
        assert!(
            told.summary.ends_with("before, it was 0 %."),
            "{}",
            told.summary
        );
        assert!(found[19].is_some());
        assert!(found[32..].iter().all(Option::is_none));
    }

    #[test]
    fn a_few_prove_nothing_and_most_are_an_outage() {
        assert!(
            play(each(1, 0), |n| each(1, u64::from(n % 60 == 0)))
                .iter()
                .all(Option::is_none)
        );
        let found = play(each(100, 0), |_| each(20, 80));
        assert_eq!(found[1].as_ref().unwrap().severity, Severity::Critical);
    }

    #[test]
    fn what_begins_long_after_a_swap_is_not_laid_at_its_door() {
        let found = play(each(100, 0), |n| {
            if n < 370 { each(100, 0) } else { each(50, 50) }
        });
        assert!(found.iter().all(Option::is_none));
    }
}
