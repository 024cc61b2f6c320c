//! What the conductor knows of each source, and the books it keeps of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Conductor, Found, Key, Mode, Standing, Timing, info, rejection_for_folder};
use crate::cert::inventory::Change;
use crate::cert::source::{Files, Parts, Source, Writings};
use crate::cert::{DiskState, Rejection, Verified};
use crate::clock::Timestamp;
use crate::priority;
use crate::watch::Reach;

/// One source.
pub(super) struct Tracked {
    pub(super) source: Arc<Source>,
    pub(super) standing: Standing,
    /// What its files held when they were last read.
    pub(super) parts: Option<Parts>,
    pub(super) writings: Option<Writings>,
    /// How they were when the current certificate was last seen on disk.
    pub(super) on_disk: Option<OnDisk>,
    pub(super) stamp: u64,
    /// The stamp that it had when the way to it was last watched.
    covered: Option<u64>,
    pub(super) reach: Reach,
    pub(super) trouble: Option<Trouble>,
    /// What everybody was told is wrong.
    pub(super) told: Option<Arc<Rejection>>,
    /// When to read it again because it was changing.
    pub(super) again: Option<Instant>,
    /// The configuration no longer names it: it is not read any more.
    pub(super) dismissed: bool,
    /// When its entry was found to be gone from its folder, or it was dismissed.
    pub(super) vanished: Option<Instant>,
    pub(super) timer: Option<Instant>,
    turns: Vec<Timestamp>,
}

/// How the files of a source were.
#[derive(Clone, Copy)]
pub(super) struct OnDisk {
    /// What they held.
    pub(super) parts: Parts,
    /// Which they were.
    writings: Writings,
}

/// What is wrong with what is on disk. It may be a renewal under way.
pub(super) struct Trouble {
    pub(super) what: What,
    pub(super) rejection: Arc<Rejection>,
    /// Only one of two files is new.
    pub(super) half: bool,
    /// When it became as it is, and when anything was wrong first.
    since: Instant,
    first: Instant,
    pub(super) shown: bool,
    pub(super) told: bool,
}

/// See [`Trouble`].
pub(super) enum What {
    /// It cannot be served.
    Broken,
    /// It is worse.
    Worse(Arc<Verified>),
}

impl Tracked {
    fn new(source: Source, now: Timestamp) -> Self {
        Self {
            source: Arc::new(source),
            standing: Standing::new(now),
            parts: None,
            writings: None,
            on_disk: None,
            stamp: 0,
            covered: None,
            reach: Reach::Events,
            trouble: None,
            told: None,
            again: None,
            dismissed: false,
            vanished: None,
            timer: None,
            turns: Vec::new(),
        }
    }

    /// Whether what is on disk is what is held, and that is something.
    pub(super) fn is_well(&self) -> bool {
        self.trouble.is_none()
            && self.again.is_none()
            && self.standing.current().is_some()
            && self.standing.disk().state == DiskState::Same
    }

    /// What its files hold now is the current certificate.
    pub(super) fn note_on_disk(&mut self) {
        self.on_disk = self.found();
    }

    /// Whether exactly one of its two files was left alone since the current certificate was on
    /// disk, so that somebody may still be at it. Where both were written, there is nothing to wait
    /// for, even if one holds what it held: Kubernetes writes all of a Secret, and swaps it at once.
    pub(super) fn is_half_new(&self) -> bool {
        let (Some(now), Some(then)) = (self.found(), self.on_disk) else {
            return false;
        };
        let (chain, key) = (
            now.parts.chain == then.parts.chain,
            now.parts.key == then.parts.key,
        );
        let untouched = match chain {
            true => now.writings.chain == then.writings.chain,
            false => now.writings.key == then.writings.key,
        };
        chain != key && untouched
    }

    fn found(&self) -> Option<OnDisk> {
        Some(OnDisk {
            parts: self.parts?,
            writings: self.writings?,
        })
    }

    /// When something has to be looked at again.
    fn next_timer(&self, timing: &Timing) -> Option<Instant> {
        let trouble = self
            .trouble
            .as_ref()
            .and_then(|trouble| trouble.next(timing));
        let vanished = self.vanished.map(|since| since + timing.grace);
        [self.again, trouble, vanished].into_iter().flatten().min()
    }
}

impl Trouble {
    pub(super) fn new(
        what: What,
        rejection: Arc<Rejection>,
        half: bool,
        before: Option<&Self>,
    ) -> Self {
        let now = Instant::now();
        Self {
            what,
            rejection,
            half,
            since: now,
            first: before.map_or(now, |before| before.first),
            shown: false,
            told: false,
        }
    }

    pub(super) fn show_at(&self, timing: &Timing) -> Instant {
        self.after(timing.settle)
    }

    pub(super) fn tell_at(&self, timing: &Timing) -> Instant {
        self.after(match self.half {
            true => timing.tell_half,
            false => timing.tell,
        })
    }

    /// When it has been left alone for so long; or, since somebody may be at it all the time, has
    /// not been right for several times as long.
    fn after(&self, patience: Duration) -> Instant {
        (self.since + patience).min(self.first + 5 * patience)
    }

    fn next(&self, timing: &Timing) -> Option<Instant> {
        match (self.shown, self.told) {
            (false, _) => Some(self.show_at(timing)),
            (true, false) => Some(self.tell_at(timing)),
            (true, true) => None,
        }
    }
}

impl Conductor {
    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Tracked> {
        self.tracked.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.tracked.len()).unwrap_or(u32::MAX)
    }

    /// Every source that is configured, or found in a configured folder.
    pub(super) fn wanted_sources(&self) -> Vec<Source> {
        let configured = self.wanted.sources.iter().enumerate();
        configured
            .filter_map(|(order, config)| Source::configured(config, order))
            .chain(self.folders.sources())
            .collect()
    }

    /// Begins to look after a source, or takes note that it is still wanted.
    pub(super) fn track(&mut self, source: Source) -> u32 {
        if let Some(&slot) = self.by_files.get(&source.files) {
            self.update(slot, source);
            return slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.tracked.push(None);
            self.slots() - 1
        });
        self.departed.remove(&source.files);
        self.by_files.insert(source.files.clone(), slot);
        self.in_order
            .insert((source.order, source.files.clone()), slot);
        let tracked = Tracked::new(source, self.clock.now());
        self.tracked[slot as usize] = Some(tracked);
        self.dirty.insert(slot);
        slot
    }

    fn update(&mut self, slot: u32, source: Source) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.vanished = None;
        if std::mem::take(&mut tracked.dismissed) {
            tracked.parts = None;
        }
        // A pair that is configured and also found in a folder is the former: it comes first.
        let is_other = tracked.source.folder.is_none() && source.folder.is_some();
        if *tracked.source == source || is_other && tracked.source.order <= source.order {
            return;
        }
        let old = (tracked.source.order, tracked.source.files.clone());
        let new = (source.order, source.files.clone());
        tracked.source = Arc::new(source);
        // The staple may be another file now.
        tracked.parts = None;
        self.in_order.remove(&old);
        self.in_order.insert(new, slot);
        self.dirty.insert(slot);
        self.stage(slot);
    }

    /// Forgets a source. It is gone from the inventory with the next one.
    pub(super) fn untrack(&mut self, slot: u32) -> Option<Tracked> {
        let tracked = self.tracked.get_mut(slot as usize)?.take()?;
        self.watch.uncover(Key::Source(slot));
        self.by_files.remove(&tracked.source.files);
        self.in_order
            .remove(&(tracked.source.order, tracked.source.files.clone()));
        if let Some(at) = tracked.timer {
            self.timers.remove(&(at, slot));
        }
        for at in &tracked.turns {
            self.turns.remove(&(*at, slot));
        }
        self.dirty.remove(&slot);
        self.unwatched.remove(&slot);
        self.unsaved.retain(|other| *other != slot);
        self.unpublished.insert(slot, Change { slot, held: None });
        self.free.push(slot);
        Some(tracked)
    }

    /// The next inventory will show this source as it is now.
    pub(super) fn stage(&mut self, slot: u32) {
        let now = self.clock.now();
        let Some(tracked) = self.tracked.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        let standing = &tracked.standing;
        let is_known = standing.current().is_some() || standing.disk().state != DiskState::Same;
        let held = is_known.then(|| Arc::new(standing.held(slot, &tracked.source)));
        let turns: BTreeSet<_> = held
            .iter()
            .flat_map(|held| &held.candidates)
            .flat_map(|candidate| candidate.turning_points())
            .filter(|at| *at > now)
            .collect();
        for at in std::mem::take(&mut tracked.turns) {
            self.turns.remove(&(at, slot));
        }
        self.turns.extend(turns.iter().map(|at| (*at, slot)));
        tracked.turns = turns.into_iter().collect();
        self.unpublished.insert(slot, Change { slot, held });
    }

    /// Sets the timer for what is next to be looked at.
    pub(super) fn reschedule(&mut self, slot: u32) {
        let timing = self.timing;
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let next = tracked.next_timer(&timing);
        let old = std::mem::replace(&mut tracked.timer, next);
        if let Some(at) = old {
            self.timers.remove(&(at, slot));
        }
        self.timers.extend(next.map(|at| (at, slot)));
    }

    /// Watches the way to a source, if that may have changed since the last time. `stamp` is what
    /// its files were when they were read; should they have changed until they were watched, or one
    /// be missing to which more of the way is there now, they are read again.
    pub(super) fn cover(&mut self, slot: u32, stamp: Option<u64>) {
        let Some(tracked) = self.tracked.get_mut(slot as usize).and_then(Option::as_mut) else {
            return;
        };
        let stamp = stamp.unwrap_or(tracked.stamp);
        // The way to what is missing gets longer as folders are made on it, and its stamp stays.
        let is_whole = tracked.source.is_whole();
        if tracked.source.is_folder() || is_whole && tracked.covered == Some(stamp) {
            return;
        }
        let paths: Vec<_> = tracked.source.paths().collect();
        let paths = paths.iter().map(|path| path.as_path());
        let cover = self.watch.cover(Key::Source(slot), paths);
        tracked.covered = Some(stamp);
        tracked.reach = cover.reach;
        if cover.reach == Reach::Events {
            self.unwatched.remove(&slot);
        } else {
            self.unwatched.insert(slot);
        }
        let as_read = is_whole && self.gatherer.reader.stamp(&tracked.source) == stamp;
        if cover.fresh && !as_read {
            self.dirty.insert(slot);
        }
    }

    /// Takes note of what appeared in folders, and of what vanished from them.
    pub(super) fn apply_found(&mut self, found: Found) {
        for source in found.appeared {
            let slot = self.track(source);
            self.reschedule(slot);
            priority::breathe();
        }
        for files in found.vanished {
            self.vanish(&files);
            priority::breathe();
        }
    }

    fn vanish(&mut self, files: &Files) {
        // It may have moved between folders that are both searched.
        if self.folders.hold(files) {
            return;
        }
        let Some(&slot) = self.by_files.get(files) else {
            return;
        };
        let Some(tracked) = self.get(slot) else {
            return;
        };
        if tracked.source.folder.is_some() {
            tracked.vanished = tracked.vanished.or_else(|| Some(Instant::now()));
            self.dirty.insert(slot);
            self.reschedule(slot);
        }
    }

    /// Looks after what was held in an earlier run and is not found in its folder now.
    pub(super) fn track_strangers(&mut self) {
        let strangers = self.memory.strangers(self.by_files.keys());
        let (mut kept, mut unknown) = (0, 0);
        for (files, folder) in strangers {
            let source = folder.and_then(|at| self.folders.earlier(&files, Path::new(&at)));
            let Some(source) = source else {
                unknown += 1;
                continue;
            };
            kept += 1;
            let slot = self.track(source);
            if let Some(tracked) = self.get(slot) {
                // Whether it is needed is asked after the usual grace.
                tracked.vanished = Some(Instant::now());
            }
            self.reschedule(slot);
        }
        if kept + unknown > 0 {
            info!(
                kept,
                unknown, "certificates of an earlier run are not on disk"
            );
        }
    }

    /// An entry for each folder that cannot be searched.
    pub(super) fn track_lost_folders(&mut self, mode: Mode) {
        self.drop_found_folders();
        let lost: Vec<_> = self
            .folders
            .problems()
            .filter(|(path, ..)| !self.lost_folders.contains_key(*path))
            .map(|(path, order, error)| (path.to_owned(), order, error))
            .collect();
        for (path, order, problem) in lost {
            let Some(config) = self.wanted.sources.get(order) else {
                continue;
            };
            let files = Files {
                chain: path.clone(),
                key: None,
            };
            if self.by_files.contains_key(&files) {
                // It was a bundle until now.
                continue;
            }
            let source = Source::found(files, &Arc::from(path.as_path()), config, order);
            let rejection = Arc::new(rejection_for_folder(&path, &problem));
            let slot = self.track(source);
            self.dirty.remove(&slot);
            self.lost_folders.insert(path, slot);
            self.trouble(slot, What::Broken, rejection, false, mode);
        }
    }

    /// Removes the entries of folders that can be searched again.
    pub(super) fn drop_found_folders(&mut self) {
        if self.lost_folders.is_empty() {
            return;
        }
        let problems = self.folders.problems();
        let lost: BTreeSet<_> = problems.map(|(path, ..)| path.to_owned()).collect();
        let all = std::mem::take(&mut self.lost_folders).into_iter();
        let (still, found): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.partition(|(path, _)| lost.contains(path));
        self.lost_folders = still;
        for slot in found.into_values() {
            self.tell_recovered(slot);
            self.untrack(slot);
        }
    }
}
