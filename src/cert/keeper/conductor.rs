//! The keeper's thread: one loop, which owns everything that changes.

mod asked;
mod pace;
mod passing;
mod refused;
mod taking;
mod tracked;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::announce::announce;
use super::folders::{Folders, Found, Key};
use super::gather::{Gathered, Gatherer, Job, in_parallel};
use super::memory::Memory;
use super::standing::{Standing, Verdict};
use super::terms::{
    AcceptError, Accepted, Degraded, LoadReport, Message, Options, Refusal, Setback, Shared,
    Timing, Wanted,
};
use crate::cert::compare::Needs;
use crate::cert::inventory::Change;
use crate::cert::last_good::Generation;
use crate::cert::load::rejection_for_folder;
use crate::cert::source::{Files, Reader};
use crate::cert::{Event, Facts, Verified};
use crate::clock::{Clock, Timestamp};
use crate::priority;
use crate::watch::{Reach, Round, Watch};
use pace::Pace;
use tracked::Tracked;

/// Sources that are looked at before what was found is published.
const BATCH: usize = 512;

/// Certificates copied to the state directory before messages are looked at again.
const SAVES: usize = 4;

/// How soon files that changed under the reader are read again.
const AGAIN: Duration = Duration::from_millis(50);

/// How long the thread sleeps at most: the clock may be set.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Things a second that a round looks at, so that polling stays cheap however many there are: up to
/// 1,500 certificates the period is kept, and 10,000 take a few minutes.
const POLLED_PER_SECOND: f64 = 50.0;

/// The same where polling is all there is.
const UNWATCHED_PER_SECOND: f64 = 5000.0;

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
    pace: Pace,
    dirty: BTreeSet<u32>,
    /// Sources of which the kernel does not tell everything.
    unwatched: BTreeSet<u32>,
    /// Entries of folders that cannot be searched.
    lost_folders: BTreeMap<PathBuf, u32>,
    unpublished: BTreeMap<u32, Change>,
    unsaved: VecDeque<u32>,
    save_pause: Duration,
    /// Who waits until all is saved.
    settling: Vec<Sender<()>>,
    /// When copies that nobody names are forgotten, unless that is done.
    forget_at: Option<Instant>,
    /// When copies of what was let go are.
    departed: HashMap<Files, Instant>,
    failed: bool,
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
        let pace = Pace::new(now, clock.now());
        let memory = Memory::open(state, Arc::clone(&shared.rest));
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
            memory,
            watch: Watch::start(wake),
            folders: Folders::default(),
            tracked: Vec::new(),
            free: Vec::new(),
            by_files: HashMap::new(),
            in_order: BTreeMap::new(),
            timers: BTreeSet::new(),
            turns: BTreeSet::new(),
            pace,
            dirty: BTreeSet::new(),
            unwatched: BTreeSet::new(),
            lost_folders: BTreeMap::new(),
            unpublished: BTreeMap::new(),
            unsaved: VecDeque::new(),
            save_pause: Duration::ZERO,
            settling: Vec::new(),
            forget_at: Some(now + timing.forget),
            departed: HashMap::new(),
            failed: false,
            round: round(timing.poll, POLLED_PER_SECOND),
            unwatched_round: round(timing.poll_unwatched, UNWATCHED_PER_SECOND),
            folder_round: round(timing.poll, POLLED_PER_SECOND),
            report: LoadReport::default(),
        }
    }

    /// Goes by this memory instead of its own.
    pub(super) fn remember(&mut self, memory: Memory) {
        self.memory = memory;
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
        let dirty = std::mem::take(&mut self.dirty);
        let jobs = self.jobs(&dirty);
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
        self.memory.begin(self.timing.rewrite);
        self.drop_copies();
        self.count_exposed_keys();
        let inventory = self.shared.inventory.load();
        info!(
            sources = self.by_files.len(),
            stale = inventory.stale(),
            took = ?started.elapsed(),
            "certificates loaded"
        );
    }

    /// Keys that everybody may read, once for all of them.
    fn count_exposed_keys(&self) {
        let all = self.tracked.iter().flatten().map(|it| &it.source);
        let own = all.filter(|source| !source.routine);
        let exposed: Vec<_> = own.filter_map(|source| source.exposed_key()).collect();
        if let Some(first) = exposed.first() {
            warn!(
                keys = exposed.len(),
                first = %first.display(),
                help = "take the permission from others: chmod o-r",
                "private keys are readable by everyone on this machine"
            );
        }
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
            let message = match inbox.recv_timeout(self.sleep()) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => Message::Look,
            };
            // Nothing here is known to panic. If something does, today's certificates must not be
            // served for ever for it.
            let turn = || {
                self.obey(message);
                self.tick();
            };
            if catch_unwind(AssertUnwindSafe(turn)).is_err() {
                error!("the keeper of certificates failed and goes on; please report this");
                self.failed = true;
            }
        }
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::Look | Message::Stop => {}
            Message::Reload(wanted, roots, reply) => {
                // It may have given up waiting.
                let _gone = reply.send(self.reload(*wanted, roots));
            }
            Message::Accept {
                source,
                because,
                reply,
            } => {
                let _gone = reply.send(self.accept(&source, &because));
            }
            Message::GoBack(setback) => self.go_back(setback),
            Message::Settle(reply) => self.settling.push(reply),
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
        let unwatched = !self.unwatched.is_empty() || self.folders.any_unwatched();
        let poll = unwatched.then(|| self.timing.poll_unwatched / 4);
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
        self.forget_strangers();
        self.look(Mode::Watching);
        self.save_some();
        if self.unsaved.is_empty() {
            for reply in self.settling.drain(..) {
                self.memory.settle(reply);
            }
        }
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
        for n in self
            .round
            .next(now, self.tracked.len())
            .into_iter()
            .flatten()
        {
            if n == 0 {
                self.gatherer.reader.look_at_mounts();
            }
            let touched = slot_of(n).filter(|slot| !self.is_untouched(*slot));
            self.dirty.extend(touched);
        }
        let slice = self.unwatched_round.next(now, self.unwatched.len());
        let unwatched = slice.into_iter().flat_map(|range| {
            let unwatched = self.unwatched.iter().copied();
            unwatched.skip(range.start).take(range.len())
        });
        let changed = unwatched.filter(|slot| {
            let tracked = self.tracked[*slot as usize].as_ref();
            tracked.is_some_and(|tracked| match tracked.reach {
                Reach::Events => false,
                Reach::Polled => self.gatherer.reader.stamp(&tracked.source) != tracked.stamp,
                Reach::Remote => true,
            })
        });
        self.dirty.extend(changed);
        self.poll_folders(now);
    }

    /// Whether a source was well when it was last read, and its files are still those: then they need
    /// not be read. What is wrong may end without a trace on the files, such as an error of the disk.
    fn is_untouched(&self, slot: u32) -> bool {
        let tracked = self.tracked[slot as usize].as_ref();
        tracked.is_none_or(|tracked| {
            tracked.is_well()
                && tracked.reach != Reach::Remote
                && self.gatherer.reader.stamp(&tracked.source) == tracked.stamp
        })
    }

    fn poll_folders(&mut self, now: Instant) {
        let slice = self.folder_round.next(now, self.folders.count());
        let found = self.folders.poll(slice, &mut self.watch);
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
                    priority::breathe();
                    stamp
                })
                .collect();
            // What was found is served before anything else is done.
            self.publish();
            for (slot, stamp) in stamps {
                self.cover(slot, Some(stamp));
                priority::breathe();
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
                (!tracked.source.is_folder() && !tracked.dismissed).then(|| Job {
                    slot: *slot,
                    source: Arc::clone(&tracked.source),
                    before: tracked.parts,
                })
            })
            .collect()
    }

    /// What the state directory has of a source, where the disk does not give the same.
    fn recall(&self, job: &Job, gathered: &Gathered, now: Timestamp) -> Vec<Arc<Verified>> {
        if !job.source.keep {
            return Vec::new();
        }
        let mut generations = self.memory.recall(&job.source.files);
        generations.retain(|kept| !self.memory.refused().contains(&kept.fingerprint));
        let on_disk = gathered.news.as_ref().and_then(|news| news.as_ref().ok());
        let on_disk = on_disk.map(|on_disk| on_disk.facts());
        let is_on_disk =
            |kept: &Generation| on_disk.is_some_and(|it| it.fingerprint == kept.fingerprint);
        let is_same = generations.first().is_some_and(is_on_disk);
        let is_valid = |facts: &Facts| facts.validity.contains(now);
        if is_same && on_disk.is_some_and(is_valid) {
            return Vec::new();
        }
        // It may have been taken too early, by a clock that was wrong.
        generations.retain(|kept| !is_same || !is_on_disk(kept));
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
            .filter(|kept| !is_same || is_valid(kept.facts()))
            .map(Arc::new)
            .collect()
    }

    /// Copies some of what was taken to the state directory.
    fn save_some(&mut self) {
        self.save_pause = Duration::ZERO;
        if self.memory.take_missed() {
            self.unsaved.extend(self.in_order.values());
        }
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
            if Some(reading.parts) != tracked.on_disk.map(|on_disk| on_disk.parts) {
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

    /// Removes the copies of what may not be copied, or no longer.
    fn drop_copies(&self) {
        let all = self.tracked.iter().flatten();
        let not_kept = all.filter(|tracked| !tracked.source.keep);
        // Asked for whether or not there are any: one may be on its way to the disk.
        let files = not_kept.map(|tracked| tracked.source.files.clone());
        self.memory.forget(files.collect());
    }

    fn tell_degraded(&self) {
        let watch = self.watch.degraded().map(Degraded::Watch);
        let state = self.memory.degraded().map(Degraded::State);
        let failed = self.failed.then_some(Degraded::Failed);
        let now: Vec<_> = [watch, state, failed].into_iter().flatten().collect();
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
