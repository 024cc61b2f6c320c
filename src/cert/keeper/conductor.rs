//! The keeper's thread: one loop, which owns everything that changes.

mod tracked;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::announce::announce;
use super::folders::{Folders, Found};
use super::gather::{Gathered, Gatherer, Job, in_parallel};
use super::memory::Memory;
use super::standing::{Standing, Verdict};
use super::{AcceptError, Accepted, LoadReport, Message, Options, Refusal, Shared, Timing, Wanted};
use crate::cert::compare::Needs;
use crate::cert::inventory::Change;
use crate::cert::load::rejection_for_io;
use crate::cert::source::{Files, Reader};
use crate::cert::{DiskState, Event, Rejection, Verified};
use crate::clock::{Clock, Timestamp};
use crate::config::SiteName;
use crate::watch::{Reach, Round, Watch};
use tracked::{Tracked, Trouble, What, may_be_half};

/// Sources that are looked at before what was found is published.
const BATCH: usize = 512;

/// Certificates copied to the state directory before messages are looked at again.
const SAVES: usize = 4;

/// How soon files that changed under the reader are read again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long the thread sleeps at most: the clock may be set.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Things a second that a round looks at, so that polling stays cheap however many there are.
const POLLED_PER_SECOND: f64 = 200.0;

/// The same where polling is all there is.
const UNWATCHED_PER_SECOND: f64 = 5000.0;

/// Who depends on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// The source in this slot.
    Source(u32),
    /// The searched folder of this number.
    Folder(u32),
}

/// How news of a source are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It changed, and may be changing still.
    Watching,
    /// An operator waits for an answer: what is wrong is told at once.
    Asked,
    /// The same, at the start: what is held was held before.
    Starting,
}

/// See the [module](self).
pub(super) struct Conductor {
    shared: Arc<Shared>,
    wanted: Wanted,
    needs: Needs,
    clock: Clock,
    timing: Timing,
    gatherer: Gatherer,
    memory: Memory,
    watch: Watch<Key>,
    folders: Folders,
    tracked: Vec<Option<Tracked>>,
    free: Vec<u32>,
    by_files: HashMap<Files, u32>,
    in_order: BTreeMap<(usize, Files), u32>,
    /// When to look at a source's affairs again.
    timers: BTreeSet<(Instant, u32)>,
    /// When the clock changes how good a certificate is.
    turns: BTreeSet<(Timestamp, u32)>,
    dirty: BTreeSet<u32>,
    unpublished: BTreeMap<u32, Change>,
    unsaved: VecDeque<u32>,
    save_pause: Duration,
    round: Round,
    unwatched_round: Round,
    folder_round: Round,
    report: LoadReport,
}

impl Conductor {
    pub(super) fn new(
        options: Options,
        shared: Arc<Shared>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let Options {
            wanted,
            state,
            clock,
            roots,
            timing,
        } = options;
        let now = Instant::now();
        let round = |period, rate| Round::new(period, rate, now);
        Self {
            gatherer: Gatherer {
                reader: Reader::new(),
                roots,
                work: Arc::clone(&shared.work),
            },
            shared,
            needs: Needs::new(&wanted.sites),
            wanted,
            clock,
            timing,
            memory: Memory::open(state),
            watch: Watch::start(wake),
            folders: Folders::default(),
            tracked: Vec::new(),
            free: Vec::new(),
            by_files: HashMap::new(),
            in_order: BTreeMap::new(),
            timers: BTreeSet::new(),
            turns: BTreeSet::new(),
            dirty: BTreeSet::new(),
            unpublished: BTreeMap::new(),
            unsaved: VecDeque::new(),
            save_pause: Duration::ZERO,
            round: round(timing.poll, POLLED_PER_SECOND),
            unwatched_round: round(timing.poll_unwatched, UNWATCHED_PER_SECOND),
            folder_round: round(timing.poll, POLLED_PER_SECOND),
            report: LoadReport::default(),
        }
    }

    /// Reads everything for the first time.
    pub(super) fn begin(&mut self) {
        let started = Instant::now();
        let now = self.clock.now();
        self.folders = Folders::new(&self.wanted.sources, Folders::default(), &mut self.watch);
        self.folders.search();
        for source in self.wanted_sources() {
            self.track(source);
        }
        self.track_strangers();
        let jobs = self.jobs(&(0..self.slots()).collect());
        let gathered = in_parallel(&jobs, |job| {
            let gathered = self.gatherer.one(job, now);
            let remembered = self.recall(job, &gathered, now);
            (gathered, remembered)
        });
        for (gathered, remembered) in gathered {
            if let Some(tracked) = self.get(gathered.slot) {
                tracked.standing.remember(remembered);
            }
            self.process(gathered, Mode::Starting);
        }
        self.track_lost_folders(Mode::Starting);
        self.publish();
        self.memory.begin();
        let inventory = self.shared.inventory.load();
        info!(
            sources = self.by_files.len(),
            stale = inventory.stale(),
            took = ?started.elapsed(),
            "certificates loaded"
        );
    }

    /// Keeps what was loaded until told to stop.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        let found = self.folders.visit_all(&mut self.watch);
        self.apply_found(found);
        // Nothing was watched while it was loaded: what was touched since is looked at again.
        for slot in 0..self.slots() {
            self.cover(slot, None);
        }
        loop {
            match inbox.recv_timeout(self.sleep()) {
                Ok(Message::Look) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Reload(wanted, reply)) => {
                    // It may have given up waiting.
                    let _gone = reply.send(self.reload(*wanted));
                }
                Ok(Message::Accept {
                    source,
                    because,
                    reply,
                }) => {
                    let _gone = reply.send(self.accept(&source, &because));
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tick();
        }
    }

    /// How long there is nothing to do.
    fn sleep(&self) -> Duration {
        if !self.dirty.is_empty() {
            return Duration::ZERO;
        }
        let save = (!self.unsaved.is_empty()).then_some(self.save_pause);
        let timer = self.timers.first().map(|(at, _)| *at);
        let timer = timer.map(|at| at.saturating_duration_since(Instant::now()));
        let poll = self.any_unwatched().then(|| self.timing.poll_unwatched / 4);
        [
            self.watch.due(),
            timer,
            poll,
            save,
            Some(self.timing.poll / 4),
        ]
        .into_iter()
        .flatten()
        .fold(HEARTBEAT, Duration::min)
    }

    fn tick(&mut self) {
        if self.watch.due() == Some(Duration::ZERO) {
            self.take_changes();
        }
        self.poll();
        self.check_timers();
        self.check_clock();
        self.look(Mode::Watching);
        self.save_some();
        self.tell_degraded();
    }

    fn take_changes(&mut self) {
        let changes = self.watch.take();
        if changes.all {
            self.dirty.extend(0..self.slots());
            let found = self.folders.visit_all(&mut self.watch);
            self.apply_found(found);
            return;
        }
        let mut folders = Vec::new();
        for key in changes.keys {
            match key {
                Key::Source(slot) => drop(self.dirty.insert(slot)),
                Key::Folder(number) => folders.push(number),
            }
        }
        let found =
            self.folders
                .visit_changed(folders.into_iter(), changes.paths.iter(), &mut self.watch);
        self.apply_found(found);
    }

    /// Looks at a slice of what may have changed without a word.
    fn poll(&mut self) {
        let now = Instant::now();
        let slots = self.tracked.len();
        for n in self.round.next(now, slots).into_iter().flatten() {
            if n == 0 {
                self.gatherer.reader.look_at_mounts();
            }
            self.dirty.extend(slot_of(n));
        }
        for n in self.unwatched_round.next(now, slots).into_iter().flatten() {
            let Some(tracked) = self.tracked[n].as_ref() else {
                continue;
            };
            let changed = match tracked.reach {
                Reach::Events => false,
                Reach::Polled => self.gatherer.reader.stamp(&tracked.source) != tracked.stamp,
                Reach::Remote => true,
            };
            if changed {
                self.dirty.extend(slot_of(n));
            }
        }
        self.poll_folders(now);
    }

    fn poll_folders(&mut self, now: Instant) {
        let all = self.folders.numbers();
        let mut due: BTreeSet<u32> = self
            .folder_round
            .next(now, all.len())
            .into_iter()
            .flatten()
            .map(|n| all[n].0)
            .collect();
        if due.is_empty() && !self.folders.any_unwatched() {
            return;
        }
        due.extend(
            all.iter()
                .filter(|(_, reach)| *reach != Reach::Events)
                .map(|(n, _)| *n),
        );
        let found = self.folders.visit_numbers(due.into_iter(), &mut self.watch);
        self.apply_found(found);
    }

    /// Looks at everything dirty.
    fn look(&mut self, mode: Mode) {
        while !self.dirty.is_empty() {
            let batch: BTreeSet<u32> = self.dirty.iter().take(BATCH).copied().collect();
            self.dirty.retain(|slot| !batch.contains(slot));
            let jobs = self.jobs(&batch);
            let now = self.clock.now();
            let stamps: Vec<_> = self
                .gatherer
                .all(&jobs, now)
                .into_iter()
                .map(|gathered| {
                    let stamp = (gathered.slot, gathered.stamp);
                    self.process(gathered, mode);
                    stamp
                })
                .collect();
            // What was found is served before anything else is done.
            self.publish();
            for (slot, stamp) in stamps {
                self.cover(slot, Some(stamp));
            }
        }
        self.track_lost_folders(mode);
        self.publish();
    }

    fn jobs(&self, slots: &BTreeSet<u32>) -> Vec<Job> {
        slots
            .iter()
            .filter_map(|slot| {
                let tracked = self.tracked.get(*slot as usize)?.as_ref()?;
                (!tracked.is_folder).then(|| Job {
                    slot: *slot,
                    source: Arc::clone(&tracked.source),
                    before: tracked.parts,
                })
            })
            .collect()
    }

    /// What the state directory has of a source, where the disk does not give the same.
    fn recall(&self, job: &Job, gathered: &Gathered, now: Timestamp) -> Vec<Arc<Verified>> {
        let generations = self.memory.recall(&job.source.files);
        if let Some(Ok(on_disk)) = &gathered.news
            && generations
                .first()
                .is_some_and(|latest| latest.fingerprint == on_disk.facts().fingerprint)
        {
            return Vec::new();
        }
        let inputs = generations.iter().filter_map(|kept| self.memory.read(kept));
        inputs
            .filter_map(|input| {
                let loaded = self.gatherer.load(&input, now);
                loaded
                    .inspect_err(|rejection| {
                        error!(%rejection, source = %job.source.label, "a kept copy is ignored");
                    })
                    .ok()
            })
            .map(Arc::new)
            .collect()
    }

    /// Takes what was found at a source.
    fn process(&mut self, gathered: Gathered, mode: Mode) {
        let now = self.clock.now();
        let Gathered {
            slot,
            parts,
            stamp,
            moving,
            pinned,
            news,
        } = gathered;
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.stamp = stamp;
        if moving {
            tracked.again = Some(Instant::now() + AGAIN);
            self.reschedule(slot);
            return;
        }
        tracked.again = None;
        let before = tracked.parts.replace(parts);
        match news {
            None if mode != Mode::Watching => self.hurry(slot),
            None => {}
            Some(Ok(certificate)) => self.offer(slot, certificate, mode),
            Some(Err(rejection)) => {
                let half = before.is_some() && may_be_half(&rejection);
                self.trouble(slot, What::Broken, rejection, half, mode);
            }
        }
        if let Some(tracked) = self.get(slot)
            && tracked.standing.pin(pinned, now)
        {
            self.stage(slot);
        }
        self.reschedule(slot);
    }

    /// A source gives a certificate.
    fn offer(&mut self, slot: u32, certificate: Arc<Verified>, mode: Mode) {
        let now = self.clock.now();
        let needs = self.needs.clone();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        match tracked.standing.judge(&certificate, &needs, now) {
            Verdict::Same => self.recover(slot),
            Verdict::Take => self.take(slot, certificate, mode),
            Verdict::HoldBack(rejection) => {
                let what = What::Worse(certificate);
                self.trouble(slot, what, Arc::new(rejection), false, mode);
            }
        }
    }

    /// What is on disk is what is held, after all.
    fn recover(&mut self, slot: u32) {
        let now = self.clock.now();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.trouble = None;
        tracked.on_disk_parts = tracked.parts;
        tracked.standing.recover(now);
        self.tell_recovered(slot);
        self.stage(slot);
    }

    /// A certificate takes its place.
    fn take(&mut self, slot: u32, certificate: Arc<Verified>, mode: Mode) {
        let now = self.clock.now();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.trouble = None;
        tracked.on_disk_parts = tracked.parts;
        let old = tracked.standing.take(Arc::clone(&certificate), now);
        let source = Arc::clone(&tracked.source.label);
        match old {
            Some(old) if mode != Mode::Starting => {
                // A new staple alone is no swap.
                if old.key().cert != certificate.key().cert {
                    self.announce(
                        Event::Swapped {
                            source,
                            old,
                            new: certificate,
                        },
                        false,
                    );
                }
            }
            _ => {
                let facts = certificate;
                self.announce(Event::Loaded { source, facts }, mode == Mode::Starting);
            }
        }
        self.note_changed(slot);
        self.tell_recovered(slot);
        self.unsaved.push_back(slot);
        self.stage(slot);
    }

    /// What is on disk cannot be used, or is worse: nothing changes, for now or for good.
    fn trouble(
        &mut self,
        slot: u32,
        what: What,
        rejection: Arc<Rejection>,
        half: bool,
        mode: Mode,
    ) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        // Half of a pair only if the other half is what it was.
        let half = half && tracked.is_half_new();
        tracked.trouble = Some(Trouble::new(what, rejection, half));
        if mode != Mode::Watching {
            self.hurry(slot);
        }
        self.reschedule(slot);
    }

    /// Shows and tells what is wrong without waiting longer.
    fn hurry(&mut self, slot: u32) {
        self.show(slot);
        self.tell(slot);
    }

    /// The inventory shows what is wrong with a source.
    fn show(&mut self, slot: u32) {
        let now = self.clock.now();
        let needs = self.needs.clone();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some(trouble) = tracked.trouble.as_mut().filter(|trouble| !trouble.shown) else {
            return;
        };
        trouble.shown = true;
        let rejection = Arc::clone(&trouble.rejection);
        match &trouble.what {
            What::Broken => tracked.standing.reject(&rejection, now),
            What::Worse(certificate) => {
                let certificate = Arc::clone(certificate);
                if tracked.source.accept_worse {
                    self.use_worse(slot, certificate, "`accept = true` in the configuration");
                    return;
                }
                tracked
                    .standing
                    .hold_back(certificate, rejection, &needs, now);
            }
        }
        self.stage(slot);
    }

    /// Everybody is told what is wrong with a source, unless they know.
    fn tell(&mut self, slot: u32) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some(trouble) = tracked.trouble.as_mut().filter(|trouble| !trouble.told) else {
            return;
        };
        trouble.told = true;
        let rejection = Arc::clone(&trouble.rejection);
        if tracked.told.as_ref() == Some(&rejection) {
            return;
        }
        tracked.told = Some(Arc::clone(&rejection));
        let source = Arc::clone(&tracked.source.label);
        let event = match &trouble.what {
            What::Broken => Event::Rejected { source, rejection },
            What::Worse(certificate) => Event::HeldBack {
                source,
                fingerprint: certificate.facts().fingerprint,
                rejection,
            },
        };
        self.announce(event, false);
    }

    fn tell_recovered(&mut self, slot: u32) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        if tracked.told.take().is_some() {
            let source = Arc::clone(&tracked.source.label);
            self.announce(Event::Recovered { source }, false);
        }
    }

    /// Uses a certificate although it is worse.
    fn use_worse(&mut self, slot: u32, certificate: Arc<Verified>, because: &str) {
        let now = self.clock.now();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.trouble = None;
        tracked.told = None;
        tracked.on_disk_parts = tracked.parts;
        let fingerprint = certificate.facts().fingerprint;
        tracked.standing.accept(certificate, now);
        let source = Arc::clone(&tracked.source.label);
        self.announce(
            Event::Accepted {
                source,
                fingerprint,
                because: because.into(),
            },
            false,
        );
        self.note_changed(slot);
        self.unsaved.push_back(slot);
        self.stage(slot);
    }

    /// Does what has come due at this time.
    fn check_timers(&mut self) {
        let now = Instant::now();
        while let Some(&(at, slot)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(tracked) = self.get(slot) else {
                continue;
            };
            tracked.timer = None;
            if tracked.again.take_if(|again| *again <= now).is_some() {
                self.dirty.insert(slot);
            }
            self.check_vanished(slot, now);
            self.check_trouble(slot, now);
            self.reschedule(slot);
        }
    }

    fn check_trouble(&mut self, slot: u32, now: Instant) {
        let timing = self.timing;
        let Some(trouble) = self.get(slot).and_then(|tracked| tracked.trouble.as_ref()) else {
            return;
        };
        let (show, tell) = (trouble.show_at(&timing), trouble.tell_at(&timing));
        if show <= now {
            self.show(slot);
        }
        if tell <= now {
            self.tell(slot);
        }
    }

    /// An entry that has been gone from its folder for long enough is let go, unless that would
    /// leave a configured name without a valid certificate.
    fn check_vanished(&mut self, slot: u32, now: Instant) {
        let grace = self.timing.grace;
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some(since) = tracked.vanished else {
            return;
        };
        if now < since + grace {
            return;
        }
        if self.may_let_go(slot) {
            self.let_go(slot);
        } else if let Some(tracked) = self.get(slot) {
            // Perhaps another will cover its names by then.
            tracked.vanished = Some(now);
        }
    }

    fn may_let_go(&self, slot: u32) -> bool {
        let Some(tracked) = self.tracked.get(slot as usize).and_then(Option::as_ref) else {
            return true;
        };
        let Some(current) = tracked.standing.current() else {
            return true;
        };
        let folder = tracked.source.folder.as_deref();
        if folder.is_some_and(|folder| self.folders.is_lost(folder)) {
            return false;
        }
        let inventory = self.shared.inventory.load();
        let now = self.clock.now();
        self.wanted.sites.iter().all(|site| {
            let host = match site {
                SiteName::Exact(host) => host.to_string(),
                SiteName::Wildcard(parent) => format!("*.{parent}"),
                // It names nothing in particular that would be missed.
                SiteName::Any => return true,
            };
            !current.covers(&host) || inventory.is_covered_without(slot, &host, now)
        })
    }

    fn let_go(&mut self, slot: u32) {
        let Some(tracked) = self.untrack(slot) else {
            return;
        };
        self.memory.forget(&tracked.source.files);
        let source = Arc::clone(&tracked.source.label);
        self.report.removed.push(source.to_string());
        if tracked.standing.current().is_some() || tracked.told.is_some() {
            self.announce(Event::Removed { source }, false);
        }
    }

    /// Judges again where the clock has made a certificate better or worse. What is served does
    /// not wait for this: validity is looked at for each handshake.
    fn check_clock(&mut self) {
        let now = self.clock.now();
        while let Some(&(at, slot)) = self.turns.first()
            && at <= now
        {
            self.turns.pop_first();
            let Some(tracked) = self.get(slot) else {
                continue;
            };
            let label = Arc::clone(&tracked.source.label);
            if let Some(current) = tracked.standing.current()
                && current.facts().validity.not_after.plus(1) == at
            {
                error!(
                    source = %label,
                    fingerprint = %current.facts().fingerprint,
                    not_after = %current.facts().validity.not_after,
                    "a certificate that is held has expired"
                );
            }
            self.judge_again(slot);
            self.stage(slot);
        }
    }

    /// Whether what is held back is still worse.
    fn judge_again(&mut self, slot: u32) {
        let (now, needs) = (self.clock.now(), self.needs.clone());
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some((waiting, _)) = tracked.standing.waiting() else {
            return;
        };
        let waiting = Arc::clone(waiting);
        match tracked.standing.judge(&waiting, &needs, now) {
            Verdict::Same | Verdict::Take => self.take(slot, waiting, Mode::Watching),
            Verdict::HoldBack(rejection) => {
                let reason = tracked.standing.disk().reason;
                if reason != Some(rejection.reason) {
                    let what = What::Worse(waiting);
                    self.trouble(slot, what, Arc::new(rejection), false, Mode::Asked);
                }
            }
        }
    }

    fn reload(&mut self, wanted: Wanted) -> LoadReport {
        self.report = LoadReport::default();
        self.needs = Needs::new(&wanted.sites);
        self.wanted = wanted;
        let old = std::mem::take(&mut self.folders);
        self.folders = Folders::new(&self.wanted.sources, old, &mut self.watch);
        let found = self.folders.visit_all(&mut self.watch);
        self.apply_found(found);
        self.track_wanted();
        self.gatherer.reader.look_at_mounts();
        self.dirty.extend(0..self.slots());
        self.look(Mode::Asked);
        for slot in 0..self.slots() {
            self.judge_again(slot);
            self.reschedule(slot);
        }
        self.publish();
        self.finish_report()
    }

    /// Makes what is tracked what is wanted.
    fn track_wanted(&mut self) {
        let wanted = self.wanted_sources();
        let keep: BTreeSet<&Files> = wanted.iter().map(|source| &source.files).collect();
        let unwanted: Vec<u32> = (0..self.slots())
            .filter(|slot| {
                let tracked = self.tracked[*slot as usize].as_ref();
                tracked.is_some_and(|tracked| {
                    let files = &tracked.source.files;
                    // What vanished from a folder that is still wanted has its own rule.
                    let folder = tracked.source.folder.as_deref();
                    let earlier = folder.and_then(|at| self.folders.earlier(files, at));
                    !tracked.is_folder && !keep.contains(files) && earlier.is_none()
                })
            })
            .collect();
        for slot in unwanted {
            self.let_go(slot);
        }
        for source in wanted {
            self.track(source);
        }
        self.drop_found_folders();
    }

    fn finish_report(&mut self) -> LoadReport {
        let mut report = std::mem::take(&mut self.report);
        let mut seen = BTreeSet::new();
        report.changed.retain(|source| seen.insert(source.clone()));
        for slot in self.in_order.values() {
            let Some(tracked) = self.tracked[*slot as usize].as_ref() else {
                continue;
            };
            report.sources += usize::from(!tracked.is_folder);
            report.held += usize::from(tracked.standing.current().is_some());
            let disk = tracked.standing.disk();
            if disk.state != DiskState::Same {
                report.refused.push(Refusal {
                    source: tracked.source.label.to_string(),
                    reason: disk.reason,
                    detail: disk.detail.clone(),
                });
            }
        }
        report
    }

    fn accept(&mut self, source: &str, because: &str) -> Result<Accepted, AcceptError> {
        let called = |slot: &u32| {
            let tracked = self.tracked[*slot as usize].as_ref();
            tracked.is_some_and(|tracked| !tracked.is_folder && tracked.source.is_called(source))
        };
        let Some(slot) = self.in_order.values().copied().find(called) else {
            return Err(AcceptError::UnknownSource(source.to_owned()));
        };
        self.dirty.insert(slot);
        self.look(Mode::Asked);
        let Some(tracked) = self.get(slot) else {
            return Err(AcceptError::UnknownSource(source.to_owned()));
        };
        let waiting = tracked.standing.waiting().map(|(held, _)| Arc::clone(held));
        let changed = waiting.is_some();
        if let Some(certificate) = waiting {
            self.use_worse(slot, certificate, because);
            self.reschedule(slot);
            self.publish();
        }
        let Some(tracked) = self.get(slot) else {
            return Err(AcceptError::UnknownSource(source.to_owned()));
        };
        if let Some(trouble) = &tracked.trouble {
            return Err(AcceptError::CannotBeServed(Arc::clone(&trouble.rejection)));
        }
        let current = tracked.standing.current();
        let current = current.ok_or_else(|| AcceptError::UnknownSource(source.to_owned()))?;
        Ok(Accepted {
            source: tracked.source.label.to_string(),
            fingerprint: current.facts().fingerprint,
            changed,
        })
    }

    /// Copies some of what was taken to the state directory.
    fn save_some(&mut self) {
        self.save_pause = Duration::ZERO;
        for _ in 0..SAVES {
            let Some(slot) = self.unsaved.pop_front() else {
                return;
            };
            let Some(tracked) = self.tracked.get(slot as usize).and_then(Option::as_ref) else {
                continue;
            };
            let Some(current) = tracked.standing.current() else {
                continue;
            };
            let fingerprint = current.facts().fingerprint;
            if !tracked.source.keep || !self.memory.wants(&tracked.source.files, fingerprint) {
                continue;
            }
            // Read once more rather than held in memory until now. If it is something else, that
            // is looked at by and by.
            let reading = self.gatherer.reader.read(&tracked.source);
            if Some(reading.parts) != tracked.on_disk_parts {
                continue;
            }
            if let Ok(input) = reading.input
                && !self.memory.save(&tracked.source, input, fingerprint)
            {
                // The writer is busy.
                self.unsaved.push_front(slot);
                self.save_pause = AGAIN;
                return;
            }
        }
    }

    fn tell_degraded(&self) {
        let now: Vec<_> = [self.watch.degraded(), self.memory.degraded()]
            .into_iter()
            .flatten()
            .collect();
        if **self.shared.degraded.load() != now {
            self.shared.degraded.store(Arc::new(now));
        }
    }

    /// One store: from here on, handshakes use what was staged.
    fn publish(&mut self) {
        let old = self.shared.inventory.load();
        let settings = &self.wanted.settings;
        if self.unpublished.is_empty() && old.settings() == settings {
            return;
        }
        let changes = std::mem::take(&mut self.unpublished).into_values();
        let fallback = self.in_order.values().copied();
        let next = old.with(changes, fallback, settings);
        self.shared.inventory.store(Arc::new(next));
        self.shared.work.published.fetch_add(1, Ordering::Relaxed);
    }

    fn announce(&mut self, event: Event, quietly: bool) {
        let now = self.clock.now();
        let events = &self.shared.events;
        announce(event, quietly, events, &mut self.memory, now);
    }

    fn note_changed(&mut self, slot: u32) {
        let tracked = self.tracked[slot as usize].as_ref();
        let label = tracked.map(|tracked| tracked.source.label.to_string());
        self.report.changed.extend(label);
    }
}

/// An index as the number of a slot.
fn slot_of(n: usize) -> Option<u32> {
    u32::try_from(n).ok()
}
