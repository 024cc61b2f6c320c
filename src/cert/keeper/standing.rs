//! What is held of one source, and how it changes: a value without files, threads or time of its
//! own.

use std::sync::Arc;

use crate::cert::compare::{self, Needs};
use crate::cert::inventory::Held;
use crate::cert::rank::Candidate;
use crate::cert::source::Source;
use crate::cert::{Disk, DiskState, Reason, Rejection, Verified};
use crate::clock::Timestamp;

/// Certificates of one source that are kept beside its current one and the one on disk.
const KEPT: usize = 3;

/// What is held of one source, and what the disk holds.
#[derive(Debug)]
pub(super) struct Standing {
    current: Option<Arc<Verified>>,
    /// The current one is what is on disk.
    on_disk: bool,
    waiting: Option<Waiting>,
    kept: Vec<Kept>,
    disk: Disk,
}

/// What is on disk and held back.
#[derive(Debug)]
struct Waiting {
    certificate: Arc<Verified>,
    rejection: Arc<Rejection>,
    /// It is worse whatever the time. One that only has to wait for its `notBefore` is not: it
    /// shall come into use at that second, by its rank alone.
    worse: bool,
}

/// A certificate from before.
#[derive(Debug)]
struct Kept {
    certificate: Arc<Verified>,
    /// It was held back when it was on disk.
    held_back: bool,
}

/// What is to be done with a certificate that was found on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the current one.
    Same,
    /// It is no worse than the current one.
    Take,
    /// It is worse.
    HoldBack(Rejection),
}

impl Standing {
    /// Nothing is held.
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            current: None,
            on_disk: false,
            waiting: None,
            kept: Vec::new(),
            disk: Disk {
                state: DiskState::Same,
                reason: None,
                detail: None,
                file: None,
                since: now,
                half: false,
            },
        }
    }

    /// What was kept from an earlier run: the best first, which becomes the current one until the
    /// disk gives another.
    pub(super) fn remember(&mut self, mut generations: Vec<Arc<Verified>>) {
        if generations.is_empty() || self.current.is_some() {
            return;
        }
        self.current = Some(generations.remove(0));
        self.kept = generations
            .into_iter()
            .map(|certificate| Kept {
                certificate,
                held_back: false,
            })
            .collect();
    }

    /// The current certificate.
    pub(super) const fn current(&self) -> Option<&Arc<Verified>> {
        self.current.as_ref()
    }

    /// What is on disk and held back, and why.
    pub(super) fn waiting(&self) -> Option<(&Arc<Verified>, &Arc<Rejection>)> {
        let waiting = self.waiting.as_ref()?;
        Some((&waiting.certificate, &waiting.rejection))
    }

    /// What the disk holds.
    pub(super) const fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What to do with a certificate found on disk.
    pub(super) fn judge(&self, new: &Verified, needs: &Needs, now: Timestamp) -> Verdict {
        let Some(current) = &self.current else {
            return Verdict::Take;
        };
        if is_identical(current, new) || is_only_without_staple(current, new, now) {
            return Verdict::Same;
        }
        match compare::judge(current, new, needs, now) {
            Ok(()) => Verdict::Take,
            Err(rejection) => Verdict::HoldBack(rejection),
        }
    }

    /// The certificate on disk becomes the current one. Returns the one it takes the place of.
    pub(super) fn take(&mut self, new: Arc<Verified>, now: Timestamp) -> Option<Arc<Verified>> {
        let new = match &self.current {
            Some(old) if old.key().cert == new.key().cert => Arc::new(new.continuing(old)),
            _ => new,
        };
        let old = self.current.replace(new);
        self.on_disk = true;
        self.set_aside_waiting();
        if let Some(old) = &old {
            self.kept.insert(
                0,
                Kept {
                    certificate: Arc::clone(old),
                    held_back: false,
                },
            );
        }
        self.set_disk(DiskState::Same, None, now);
        self.prune(now);
        old
    }

    /// The same at an operator's word: what is better is let go, or it would be served still.
    pub(super) fn accept(&mut self, new: Arc<Verified>, now: Timestamp) -> Option<Arc<Verified>> {
        self.waiting = None;
        self.kept.clear();
        let old = self.current.replace(new);
        self.on_disk = true;
        self.set_disk(DiskState::Same, None, now);
        old
    }

    /// What is on disk is held back after all, and an earlier one is the current one again.
    pub(super) fn go_back(
        &mut self,
        earlier: Arc<Verified>,
        rejection: Arc<Rejection>,
        now: Timestamp,
    ) {
        self.kept
            .retain(|kept| !is_identical(&kept.certificate, &earlier));
        let refused = self.current.replace(earlier);
        self.on_disk = false;
        self.set_aside_waiting();
        self.set_disk(DiskState::HeldBack, Some(&rejection), now);
        self.waiting = refused.map(|certificate| Waiting {
            certificate,
            rejection,
            worse: true,
        });
        self.prune(now);
    }

    /// What was found out about the chain of the current one, anew. Returns whether that is news.
    pub(super) fn learn(&mut self, again: &Verified) -> bool {
        let chain = |it: &Verified| {
            let facts = it.facts();
            let why = facts.chain_shortcoming.clone();
            (facts.fingerprint, facts.chain_complete, facts.trusted, why)
        };
        let Some(current) = &self.current else {
            return false;
        };
        let (before, now) = (chain(current), chain(again));
        let news = before.0 == now.0 && before != now;
        if news {
            self.current = Some(Arc::new(current.with_facts_of(again)));
        }
        news
    }

    /// What is on disk is the current one again, as it was read now.
    pub(super) fn recover(&mut self, again: &Verified, now: Timestamp) {
        if let Some(current) = &self.current
            && current.facts().notes != again.facts().notes
        {
            self.current = Some(Arc::new(current.with_facts_of(again)));
        }
        self.on_disk = true;
        self.set_aside_waiting();
        self.set_disk(DiskState::Same, None, now);
        self.prune(now);
    }

    /// What is on disk is worse than what is held.
    pub(super) fn hold_back(
        &mut self,
        new: Arc<Verified>,
        rejection: Arc<Rejection>,
        needs: &Needs,
        now: Timestamp,
    ) {
        let begins = now.max(new.facts().validity.not_before);
        let is_worse =
            |current: &Arc<Verified>| compare::judge(current, &new, needs, begins).is_err();
        let worse = rejection.reason == Reason::RefusedByClients
            || self.current.as_ref().is_some_and(is_worse);
        self.set_aside_waiting();
        self.on_disk = false;
        self.set_disk(DiskState::HeldBack, Some(&rejection), now);
        self.waiting = Some(Waiting {
            certificate: new,
            rejection,
            worse,
        });
        self.prune(now);
    }

    /// What is on disk cannot be served. `half`: its other half may follow.
    pub(super) fn reject(&mut self, rejection: &Rejection, half: bool, now: Timestamp) {
        self.set_aside_waiting();
        self.on_disk = false;
        let state = match rejection.reason {
            Reason::Missing | Reason::NotConfigured => DiskState::Missing,
            _ => DiskState::Rejected,
        };
        self.set_disk(state, Some(rejection), now);
        self.disk.half = half;
        self.prune(now);
    }

    /// The files are, or are no longer, bind mounts whose host copies were replaced. Returns
    /// whether that is news.
    pub(super) fn pin(&mut self, pinned: bool, now: Timestamp) -> bool {
        let state = match (self.disk.state, pinned) {
            (DiskState::Same, true) => DiskState::Pinned,
            (DiskState::Pinned, false) => DiskState::Same,
            _ => return false,
        };
        self.set_disk(state, None, now);
        if pinned {
            self.disk.detail = Some(
                "the path is a single file mounted into this place, and its original was \
                 replaced, which never arrives here; mount the folder instead of the file"
                    .to_owned(),
            );
        }
        true
    }

    /// Everything held, for the inventory.
    pub(super) fn held(&self, slot: u32, source: &Arc<Source>) -> Held {
        let order = u32::try_from(source.order).unwrap_or(u32::MAX);
        let candidate = |certificate: &Arc<Verified>, on_disk, held_back| Candidate {
            certificate: Arc::clone(certificate),
            slot,
            order,
            on_disk,
            held_back,
        };
        let current = self.current.iter();
        let waiting = self.waiting.iter();
        let kept = self.kept.iter();
        let candidates = current
            .map(|current| candidate(current, self.on_disk, false))
            .chain(waiting.map(|waiting| candidate(&waiting.certificate, true, waiting.worse)))
            .chain(kept.map(|kept| candidate(&kept.certificate, false, kept.held_back)))
            .collect();
        Held {
            source: Arc::clone(source),
            candidates,
            disk: self.disk.clone(),
        }
    }

    /// What was held back is no longer on disk. It was verified, and may be better than nothing.
    fn set_aside_waiting(&mut self) {
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        let is_current = |current: &Arc<Verified>| Arc::ptr_eq(current, &waiting.certificate);
        if !self.current.as_ref().is_some_and(is_current) {
            self.kept.push(Kept {
                certificate: waiting.certificate,
                held_back: waiting.worse,
            });
        }
    }

    fn set_disk(&mut self, state: DiskState, why: Option<&Rejection>, now: Timestamp) {
        let since = if self.disk.state == state {
            self.disk.since
        } else {
            now
        };
        self.disk = Disk {
            state,
            reason: why.map(|why| why.reason),
            detail: why.map(|why| format!("{}; {}", why.detail, why.help)),
            file: why.map(|why| why.path.to_string_lossy().into_owned()),
            since,
            half: false,
        };
    }

    /// Lets go of what can no longer be the best for anything, so that ten thousand renewals do
    /// not mean ten thousand more certificates in memory.
    fn prune(&mut self, now: Timestamp) {
        let as_candidate = |certificate: &Arc<Verified>, on_disk, held_back| Candidate {
            certificate: Arc::clone(certificate),
            slot: 0,
            order: 0,
            on_disk,
            held_back,
        };
        let mut better: Vec<_> = self
            .current
            .iter()
            .map(|current| as_candidate(current, self.on_disk, false))
            .chain(
                self.waiting
                    .iter()
                    .map(|waiting| as_candidate(&waiting.certificate, true, waiting.worse)),
            )
            .collect();
        // Sorted, so that of those that were held back the last are let go first.
        self.kept.sort_by_key(|kept| kept.held_back);
        self.kept.retain(|kept| {
            let candidate = as_candidate(&kept.certificate, false, kept.held_back);
            let outshone = better
                .iter()
                .any(|better| better.outshines(&candidate, now));
            if !outshone {
                better.push(candidate);
            }
            !outshone
        });
        self.kept.truncate(KEPT);
    }
}

/// Whether all that `new` changes is that it has no staple, while that of `current` is still good. A
/// file that was cut short on a full disk, or written too late, takes nothing from clients.
fn is_only_without_staple(current: &Verified, new: &Verified, now: Timestamp) -> bool {
    current.key().cert == new.key().cert
        && new.status().is_empty()
        && current.status().is_provided(now)
}

/// The same certificates in the same order, with the same staple: nothing a client could tell apart.
fn is_identical(one: &Verified, other: &Verified) -> bool {
    one.key().cert == other.key().cert && one.status().is_like(other.status())
}
