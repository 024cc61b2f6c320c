//! What is remembered of the past: how early each source used to be renewed, and what its last
//! renewal changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{canary, words};
use crate::cert::{Event, Facts};
use crate::clock::Timestamp;

/// Renewals remembered of one source.
const RENEWALS: usize = 5;
/// Sources remembered; beyond that, new ones have no habit.
const SOURCES: usize = 50_000;
/// How long a difference is shown.
const DIFFERENCE_LASTS: i64 = 24 * 3600;
/// A certificate replaced this early in its life was issued anew for some other reason than its
/// age, and says nothing about a habit.
const REISSUED: f64 = 0.9;

/// What is remembered. Survives restarts with the state of the alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// By source: the shares of the lifetime that were left at its last renewals, oldest first.
    habits: BTreeMap<String, Vec<f64>>,
    /// By source: what its last renewal changed besides the dates.
    differences: BTreeMap<String, Difference>,
}

/// What a renewal changed besides the dates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// When it was swapped in.
    pub at: Timestamp,
    /// Each change in words: "issuer: R3 → R10".
    pub changes: Vec<String>,
    /// What changed: `issuer`, `names`, …
    pub kinds: Vec<String>,
}

impl Memory {
    /// Learns from what happened to a certificate.
    pub fn observe(&mut self, event: &Event, now: Timestamp) {
        match event {
            Event::Swapped { new, .. } if canary::is_its_name(&new.facts().names) => {}
            Event::Swapped { source, old, new } => {
                self.swapped(source, old.facts(), new.facts(), now);
            }
            Event::Removed { source } => {
                self.habits.remove(&**source);
                self.differences.remove(&**source);
            }
            _ => {}
        }
    }

    /// Learns from one certificate that took another's place.
    pub(super) fn swapped(&mut self, source: &str, old: &Facts, new: &Facts, now: Timestamp) {
        let share = old.validity.share_left(now);
        let renewed = new.validity.not_after > old.validity.not_after && share < REISSUED;
        if renewed && (self.habits.len() < SOURCES || self.habits.contains_key(source)) {
            let shares = self.habits.entry(source.to_owned()).or_default();
            shares.push(share);
            if shares.len() > RENEWALS {
                shares.remove(0);
            }
        }
        let (kinds, changes): (Vec<_>, Vec<_>) = differences(old, new).into_iter().unzip();
        if changes.is_empty() {
            self.differences.remove(source);
        } else if self.differences.len() < SOURCES {
            let difference = Difference {
                at: now,
                changes,
                kinds: kinds.into_iter().map(str::to_owned).collect(),
            };
            self.differences.insert(source.to_owned(), difference);
        }
    }

    /// The share of the lifetime below which this source never fell in its last renewals; `None`
    /// until two were seen, since one may have been made by hand.
    pub fn habit(&self, source: &str) -> Option<f64> {
        let shares = self.habits.get(source).filter(|shares| shares.len() >= 2)?;
        shares.iter().copied().min_by(f64::total_cmp)
    }

    /// What recent renewals changed, by source.
    pub fn differences(&self, now: Timestamp) -> impl Iterator<Item = (&str, &Difference)> {
        self.differences
            .iter()
            .filter(move |(_, it)| now.since(it.at).abs() < DIFFERENCE_LASTS)
            .map(|(source, it)| (source.as_str(), it))
    }

    /// Lets go of what is too old to be shown.
    pub fn forget_old(&mut self, now: Timestamp) {
        self.differences
            .retain(|_, it| now.since(it.at).abs() < DIFFERENCE_LASTS);
    }
}

/// What distinguishes two certificates besides their dates, serials and keys.
fn differences(old: &Facts, new: &Facts) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut differs = |kind: &'static str, title: &str, was: String, is: String| {
        if was != is {
            found.push((
                kind,
                format!("{title}: {} → {}", words::clean(&was), words::clean(&is)),
            ));
        }
    };
    differs(
        "issuer",
        "issuer",
        old.issuer.to_string(),
        new.issuer.to_string(),
    );
    differs(
        "key_type",
        "key",
        old.key_type.to_string(),
        new.key_type.to_string(),
    );
    differs(
        "usage",
        "server usage",
        yes(old.server_usage),
        yes(new.server_usage),
    );
    differs(
        "chain_length",
        "certificates in the chain",
        old.chain_length.to_string(),
        new.chain_length.to_string(),
    );
    let (was, is) = (old.validity.lifetime(), new.validity.lifetime());
    // Authorities round their periods; a tenth is a decision.
    if was.abs_diff(is) > was.unsigned_abs() / 10 {
        differs("lifetime", "lifetime", words::span(was), words::span(is));
    }
    if let Some(change) = names_changed(old, new) {
        found.push(("names", change));
    }
    found
}

fn yes(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

fn names_changed(old: &Facts, new: &Facts) -> Option<String> {
    let only_in = |these: &Facts, those: &Facts| -> Vec<String> {
        these
            .names
            .iter()
            .filter(|name| !those.names.contains(name))
            .map(ToString::to_string)
            .collect()
    };
    let (lost, gained) = (only_in(old, new), only_in(new, old));
    let part = |word: &str, names: &[String]| format!("{word} {}", words::list(names, 3));
    match (lost.is_empty(), gained.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("names: {}", part("lost", &lost))),
        (true, false) => Some(format!("names: {}", part("gained", &gained))),
        (false, false) => Some(format!(
            "names: {}, {}",
            part("lost", &lost),
            part("gained", &gained)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{day, facts};
    use super::*;

    #[test]
    fn a_habit_is_the_latest_of_several_renewals() {
        let mut memory = Memory::default();
        let swap = |memory: &mut Memory, left: i64| {
            let old = facts(day(0), day(90));
            let new = facts(day(90 - left), day(180 - left));
            memory.swapped("a", &old, &new, day(90 - left));
        };
        swap(&mut memory, 30);
        assert_eq!(memory.habit("a"), None);
        swap(&mut memory, 45);
        let habit = memory.habit("a").unwrap();
        assert!((habit - 30.0 / 90.0).abs() < 1e-9);
        swap(&mut memory, 88);
        assert_eq!(memory.habits["a"].len(), 2, "issued anew, not renewed");
    }

    #[test]
    fn a_difference_is_told_for_a_day() {
        let mut memory = Memory::default();
        let old = facts(day(0), day(90));
        let mut new = facts(day(60), day(107));
        new.issuer = "R10".into();
        new.names = [crate::cert::Name::Dns("new.example".into())].into();
        memory.swapped("a", &old, &new, day(60));
        let (source, difference) = memory.differences(day(60)).next().unwrap();
        assert_eq!(source, "a");
        assert_eq!(difference.kinds, ["issuer", "lifetime", "names"]);
        assert_eq!(difference.changes[0], "issuer: R3 → R10");
        assert_eq!(difference.changes[1], "lifetime: 90 days → 47 days");
        assert_eq!(
            difference.changes[2],
            "names: lost www.example.com, gained new.example"
        );
        assert_eq!(memory.differences(day(62)).count(), 0);
        memory.forget_old(day(62));
        assert!(memory.differences.is_empty());
    }
}
