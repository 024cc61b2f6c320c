//! Everything that is held, at one moment: immutable, and shared with the data plane.
//!
//! A new inventory is built from the old one at the cost of the change ([`Inventory::with`]): names
//! lie in shards and sources in chunks, each behind an `Arc`, and only those that are touched are
//! copied. With ten thousand certificates, a renewal copies a few of a thousand shards.

mod index;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rank::{self, Candidate, Client};
use super::source::Source;
use super::{Disk, DiskState, Name, Origin, Report, ReportedCertificate, Stage, Verified};
use crate::clock::Timestamp;
use crate::priority;
use index::Index;

/// Sources in one chunk.
const CHUNK: usize = 64;

/// Sources among whose certificates the default is looked for, in configuration order, when no
/// name leads to one. The first is taken, the rest are for clients that cannot use it.
pub const FALLBACKS: usize = 16;

/// What is held of one source.
#[derive(Debug)]
pub struct Held {
    /// Where it comes from.
    pub source: Arc<Source>,
    /// Its certificates, the current one first; empty when it never gave one.
    pub candidates: Vec<Candidate>,
    /// What is on disk now, compared with the first.
    pub disk: Disk,
}

/// What an inventory has to know of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The name whose certificate is the default: the default site's first.
    pub default_name: Option<Arc<str>>,
    /// As in `[alerts]`.
    pub overdue: f64,
    /// As in `[alerts]`.
    pub expiring: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_name: None,
            overdue: 0.25,
            expiring: 0.10,
        }
    }
}

/// What one slot is to hold from now on.
#[derive(Debug)]
pub struct Change {
    /// The number of the source.
    pub slot: u32,
    /// What is held; `None` lets go of it.
    pub held: Option<Arc<Held>>,
}

/// Everything that is held.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    generation: u64,
    settings: Settings,
    chunks: Vec<Arc<Vec<Option<Arc<Held>>>>>,
    exact: Index,
    wildcard: Index,
    fallback: Arc<[Candidate]>,
}

impl Inventory {
    /// How many inventories came before this one.
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// What it knows of the configuration.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The next inventory. `fallback` are slots, in configuration order, whose certificates are
    /// served where no name leads to one; those that hold nothing are skipped, and no more than
    /// [`FALLBACKS`] are used.
    pub fn with(
        &self,
        changes: impl IntoIterator<Item = Change>,
        fallback: impl IntoIterator<Item = u32>,
        settings: &Settings,
    ) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        next.settings = settings.clone();
        for change in changes {
            next.apply(change);
        }
        let fallback: Vec<_> = fallback
            .into_iter()
            .filter_map(|slot| next.held(slot))
            // What the program makes for itself is nobody's certificate.
            .filter(|held| !held.candidates.is_empty() && !held.source.routine)
            .take(FALLBACKS)
            .flat_map(|held| held.candidates.iter().cloned())
            .collect();
        next.fallback = fallback.into();
        next
    }

    fn apply(&mut self, change: Change) {
        let slot = change.slot as usize;
        while self.chunks.len() <= slot / CHUNK {
            self.chunks.push(Arc::new(vec![None; CHUNK]));
        }
        let chunk = Arc::make_mut(&mut self.chunks[slot / CHUNK]);
        let old = std::mem::replace(&mut chunk[slot % CHUNK], change.held.clone());
        let old = old.as_ref().map_or(&[][..], |held| &held.candidates);
        let new = change
            .held
            .as_ref()
            .map_or(&[][..], |held| &held.candidates);
        let same = old.len() == new.len() && old.iter().zip(new).all(|(a, b)| is_same(a, b));
        if same {
            return;
        }
        for (index, key, candidate) in keys(old) {
            self.index(index).remove(&key, candidate);
        }
        for (index, key, candidate) in keys(new) {
            self.index(index).insert(key, candidate);
        }
    }

    const fn index(&mut self, which: Which) -> &mut Index {
        match which {
            Which::Exact => &mut self.exact,
            Which::Wildcard => &mut self.wildcard,
        }
    }

    /// What is held of a source.
    pub fn held(&self, slot: u32) -> Option<&Arc<Held>> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)?.as_ref()
    }

    /// How many shards of names are not shared with another inventory.
    #[cfg(test)]
    pub(super) fn shards_apart_from(&self, other: &Self) -> usize {
        self.exact.shards_apart_from(&other.exact)
            + self.wildcard.shards_apart_from(&other.wildcard)
    }

    /// Everything held, by number of the source.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Held>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// The best certificate that covers `host`: a lower-case name without a trailing dot, or an
    /// address in its canonical form. `None` when none does.
    pub fn best(&self, host: &str, client: Client<'_>, now: Timestamp) -> Option<&Candidate> {
        rank::best(self.covering(host), client, now)
    }

    /// How many names that `*.parent` stands for have certificates of their own that are valid now.
    pub fn covered_below(&self, parent: &str, now: Timestamp) -> usize {
        let candidates = self.all().flat_map(|held| &held.candidates);
        let facts = candidates.map(|candidate| candidate.certificate.facts());
        let valid = facts.filter(|facts| facts.validity.contains(now));
        let below: BTreeSet<&str> = valid
            .flat_map(|facts| facts.names.iter())
            .filter_map(|name| match name {
                Name::Dns(host) => host.split_once('.').filter(|(_, rest)| *rest == parent),
                Name::Wildcard(_) | Name::Ip(_) => None,
            })
            .map(|(first, _)| first)
            .collect();
        below.len()
    }

    /// Whether another source holds a certificate for `host` that is valid now.
    pub fn is_covered_without(&self, slot: u32, host: &str, now: Timestamp) -> bool {
        self.covering(host).any(|(other, _)| {
            other.slot != slot && other.certificate.facts().validity.contains(now)
        })
    }

    /// Everything that covers `host`, and whether by the name itself rather than a wildcard.
    fn covering(&self, host: &str) -> impl Iterator<Item = (&Candidate, bool)> + Clone {
        let exact = self.exact.get(host).iter().map(|held| (held, true));
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty());
        exact.chain(
            parent
                .into_iter()
                .flat_map(|(_, parent)| self.below(parent)),
        )
    }

    /// Everything that covers any one more label before `parent`.
    fn below(&self, parent: &str) -> impl Iterator<Item = (&Candidate, bool)> + Clone {
        self.wildcard.get(parent).iter().map(|held| (held, false))
    }

    /// The certificate for clients whose name leads to none, or who name none: the best for the
    /// default name; else the first in configuration order that the client can use.
    pub fn fallback(&self, client: Client<'_>, now: Timestamp) -> Option<&Candidate> {
        let named = self.settings.default_name.as_deref();
        let named = named.and_then(|name| self.best(name, client, now));
        if let Some(named) = named
            && client.can_use(named.certificate.facts().key_type)
        {
            return Some(named);
        }
        let usable = |held: &&Candidate| client.can_use(held.certificate.facts().key_type);
        let first = self.fallback.iter().find(usable).or(named);
        let Some(first) = first.or_else(|| self.fallback.first()) else {
            return named;
        };
        let of_source = self.fallback.iter().filter(|held| held.slot == first.slot);
        rank::best(of_source.map(|held| (held, true)), client, now).or(Some(first))
    }

    /// The inventory as `/api/certificates`, `staunch certs` and alerts see it: one entry for each
    /// source, in configuration order, and one for each certificate of a source beside its current
    /// one that a name is answered with.
    pub fn report(&self, now: Timestamp) -> Vec<Report> {
        let mut all: Vec<_> = self.all().collect();
        all.sort_by_key(|held| (held.source.order, &held.source.files));
        self.entries(all, now)
    }

    /// The same in no order, for those who look often.
    pub fn unordered_report(&self, now: Timestamp) -> Vec<Report> {
        self.entries(self.all(), now)
    }

    fn entries<'a>(
        &self,
        all: impl IntoIterator<Item = &'a Arc<Held>>,
        now: Timestamp,
    ) -> Vec<Report> {
        let serving = self.serving(now);
        let mut reports = Vec::with_capacity(serving.0.len());
        for held in all {
            if held.candidates.is_empty() {
                reports.push(self.entry(held, None, false, now));
            }
            for (n, candidate) in held.candidates.iter().enumerate() {
                let serving = serving.contains(&candidate.certificate);
                if n == 0 || serving {
                    reports.push(self.entry(held, Some(candidate), serving, now));
                }
            }
            priority::breathe();
        }
        reports
    }

    /// The certificate in use that expires first, and its source.
    pub fn soonest(&self, now: Timestamp) -> Option<(Timestamp, Arc<str>)> {
        let serving = self.serving(now);
        let held = self.all().flat_map(|held| {
            let candidates = held.candidates.iter();
            candidates.map(move |candidate| (&candidate.certificate, &held.source.label))
        });
        held.filter(|(certificate, _)| serving.contains(certificate))
            .map(|(certificate, label)| (certificate.facts().validity.not_after, label))
            .min_by_key(|(until, _)| *until)
            .map(|(until, label)| (until, Arc::clone(label)))
    }

    /// Every source of which something is known.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.all().map(|held| &*held.source)
    }

    /// How many sources' disks do not hold what is held.
    pub fn stale(&self) -> usize {
        let stale = |held: &&Arc<Held>| held.disk.state != DiskState::Same;
        self.all().filter(stale).count()
    }

    /// The certificates that some client is answered with: one that can do everything, or, where
    /// keys of several types stand side by side, one that can only use the other type.
    fn serving(&self, now: Timestamp) -> Serving {
        let mut serving = Vec::new();
        for name in self.exact.names() {
            note_serving(&mut serving, self.covering(name), now);
        }
        for parent in self.wildcard.names() {
            note_serving(&mut serving, self.below(parent), now);
        }
        let default = self.fallback(Client::Any, now);
        serving.extend(default.map(|held| Arc::as_ptr(&held.certificate)));
        serving.sort_unstable();
        serving.dedup();
        Serving(serving)
    }

    fn entry(
        &self,
        held: &Held,
        candidate: Option<&Candidate>,
        serving: bool,
        now: Timestamp,
    ) -> Report {
        Report {
            source: Arc::clone(&held.source.shown),
            certificate: candidate.map(|held| self.reported(&held.certificate, now)),
            serving,
            origin: candidate.map_or(Origin::Disk, Candidate::origin),
            disk: held.disk.clone(),
            is_folder: held.source.is_folder(),
            routine: held.source.routine,
        }
    }

    fn reported(&self, certificate: &Verified, now: Timestamp) -> ReportedCertificate {
        let facts = certificate.facts();
        ReportedCertificate {
            names: Arc::clone(&facts.names),
            serial: Arc::clone(&facts.serial),
            fingerprint_sha256: facts.fingerprint,
            issuer: Arc::clone(&facts.issuer),
            key_type: facts.key_type,
            not_before: facts.validity.not_before,
            not_after: facts.validity.not_after,
            stage: self.stage(certificate, now),
            trusted: facts.trusted,
            chain_complete: facts.chain_complete,
            chain_length: facts.chain_length,
            revoked: certificate.status().revoked(),
            must_staple: facts.must_staple,
            staple: certificate.status().report(now),
        }
    }

    /// Where in its life a certificate is.
    pub fn stage(&self, certificate: &Verified, now: Timestamp) -> Stage {
        let Settings {
            overdue, expiring, ..
        } = self.settings;
        certificate.facts().validity.stage(now, overdue, expiring)
    }
}

/// Which of the two indices.
#[derive(Clone, Copy)]
enum Which {
    Exact,
    Wildcard,
}

/// Where candidates are found by name.
fn keys(candidates: &[Candidate]) -> impl Iterator<Item = (Which, Arc<str>, &Candidate)> {
    candidates.iter().flat_map(|candidate| {
        let names = candidate.certificate.facts().names.iter();
        names.map(move |name| match name {
            Name::Dns(name) => (Which::Exact, Arc::clone(name), candidate),
            Name::Wildcard(parent) => (Which::Wildcard, Arc::clone(parent), candidate),
            Name::Ip(ip) => (Which::Exact, Arc::from(ip.to_string()), candidate),
        })
    })
}

/// Certificates in order of their addresses, to be found by halving.
struct Serving(Vec<*const Verified>);

impl Serving {
    fn contains(&self, certificate: &Arc<Verified>) -> bool {
        self.0.binary_search(&Arc::as_ptr(certificate)).is_ok()
    }
}

/// Notes which of those that cover a name are in use.
fn note_serving<'a>(
    serving: &mut Vec<*const Verified>,
    covering: impl Iterator<Item = (&'a Candidate, bool)> + Clone,
    now: Timestamp,
) {
    let mut few = covering.clone();
    if let (Some((only, _)), None) = (few.next(), few.next()) {
        serving.push(Arc::as_ptr(&only.certificate));
        return;
    }
    let best = rank::best(covering.clone(), Client::Any, now);
    serving.extend(best.map(|held| Arc::as_ptr(&held.certificate)));
    let types: BTreeSet<_> = covering
        .clone()
        .map(|(held, _)| held.certificate.facts().key_type)
        .collect();
    if types.len() < 2 {
        return;
    }
    for only in types {
        let best = rank::best(covering.clone(), Client::Only(only), now);
        // A dead one of another type is what few clients would get; it is not in use.
        let best = best.filter(|held| held.certificate.facts().validity.contains(now));
        serving.extend(best.map(|held| Arc::as_ptr(&held.certificate)));
    }
}

fn is_same(one: &Candidate, other: &Candidate) -> bool {
    Arc::ptr_eq(&one.certificate, &other.certificate)
        && (one.slot, one.order, one.on_disk, one.held_back)
            == (other.slot, other.order, other.on_disk, other.held_back)
}

#[cfg(test)]
mod tests;
