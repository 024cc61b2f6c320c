//! The keeper's memory: last-good certificates and the ledger, written by a thread of their own.
//!
//! Writing waits for the disk. A swap does not: what was taken is served before it is copied, and
//! a state directory on a dead disk costs nothing but the copies. What could not be written is
//! written when it can be again: the disk that was full is what a restart may need next.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::cert::Fingerprint;
use crate::cert::last_good::{Generation, LastGood};
use crate::cert::ledger::{Entry, Ledger};
use crate::cert::load::Input;
use crate::cert::source::{Files, Source};
use crate::priority;
use crate::state::StateDir;

/// Things to write that may wait. Beyond, copies wait their turn, and lines of the ledger are lost.
const QUEUE: usize = 1024;

/// Copies among them: ten thousand at a start leave room for the ledger.
const COPIES: usize = QUEUE / 2;

/// Things kept until they can be written after all; the oldest are lost first.
const LATE: usize = 1024;

/// See the [module](self). Without a state directory it remembers nothing.
pub(super) struct Memory {
    /// Set as soon as it can be read.
    last_good: Arc<OnceLock<LastGood>>,
    ledger: Option<Ledger>,
    /// Lines from before there was a writer.
    early: Vec<Entry>,
    writer: Option<SyncSender<Task>>,
    refused: Vec<Fingerprint>,
    /// Until there is a writer.
    state: Option<StateDir>,
    problem: Arc<Problem>,
    /// Copies that are on their way to the disk.
    copies: Arc<AtomicUsize>,
    /// Copies were not made that can be made now.
    missed: Arc<AtomicBool>,
    rest: Arc<Rest>,
}

/// Lets another process write in our place for a while, and us no more until it is over.
#[derive(Debug, Default)]
pub(super) struct Rest {
    resting: Mutex<bool>,
    over: Condvar,
}

impl Rest {
    /// Begins once what is being written is whole; or ends.
    pub(super) fn set(&self, resting: bool) {
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = resting;
        self.over.notify_all();
    }

    /// A turn to write, held while it lasts.
    fn turn(&self) -> MutexGuard<'_, bool> {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let over = self.over.wait_while(resting, |resting| *resting);
        over.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something to write.
enum Task {
    Save {
        source: Arc<Source>,
        input: Box<Input>,
        is: Fingerprint,
    },
    Forget(Vec<Files>),
    Note(Entry),
    Refused(Vec<Fingerprint>),
    /// To be answered: all before it is written.
    Settled(Sender<()>),
}

impl Task {
    /// Whether it is for the ledger.
    const fn is_note(&self) -> bool {
        matches!(self, Self::Note(_))
    }

    const fn is_copy(&self) -> bool {
        matches!(self, Self::Save { .. })
    }
}

/// The file that says what clients refused: fingerprints, the latest last.
const REFUSED: &str = "refused.json";

/// Fingerprints kept there.
const MOST_REFUSED: usize = 100;

/// What does not work, in words.
#[derive(Debug, Default)]
struct Problem {
    /// The state directory.
    path: PathBuf,
    text: Mutex<Option<String>>,
}

impl Problem {
    fn of(state: Option<&StateDir>) -> Self {
        Self {
            path: state.map_or_else(PathBuf::new, |state| state.path().to_owned()),
            text: Mutex::default(),
        }
    }

    fn text(&self) -> MutexGuard<'_, Option<String>> {
        // A string is never half written.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether writing works; logs when that changes.
    fn report(&self, written: Result<(), &io::Error>) {
        let path = self.path.display();
        let mut text = self.text();
        match (written, text.is_some()) {
            (Ok(()), true) => {
                info!(%path, "the state directory can be written again");
                *text = None;
            }
            (Err(cause), known) => {
                if !known {
                    error!(
                        %path,
                        error = %cause,
                        "the state directory cannot be used: a restart has only what is on disk then"
                    );
                }
                *text = Some(format!(
                    "the state directory {path} cannot be used: {cause}"
                ));
            }
            (Ok(()), false) => {}
        }
    }
}

impl Memory {
    pub(super) fn open(state: Option<StateDir>, rest: Arc<Rest>) -> Self {
        let mut memory = Self {
            last_good: Arc::default(),
            ledger: None,
            early: Vec::new(),
            writer: None,
            refused: Vec::new(),
            state: None,
            problem: Arc::new(Problem::of(state.as_ref())),
            copies: Arc::default(),
            missed: Arc::default(),
            rest,
        };
        let Some(state) = state else {
            return memory;
        };
        if let Err(error) = open_last_good(&memory.last_good, &state) {
            memory.problem.report(Err(&error));
        }
        match Ledger::open(&state) {
            Ok(ledger) => memory.ledger = Some(ledger),
            Err(error) => memory.problem.report(Err(&error)),
        }
        memory.refused = refused(&state);
        memory.state = Some(state);
        memory
    }

    /// What is in the state directory at this path, for a look: nothing is written. Where it cannot
    /// be read, there is nothing.
    pub(super) fn peek(state: &Path) -> Self {
        let mut memory = Self::open(None, Arc::default());
        if let Ok(last_good) = LastGood::peek(state) {
            memory.last_good = Arc::new(OnceLock::from(last_good));
            memory.refused = refused(&StateDir::existing(state));
        }
        memory
    }

    /// What clients refused when it was served.
    pub(super) fn refused(&self) -> &[Fingerprint] {
        &self.refused
    }

    /// Remembers that clients refuse this one.
    pub(super) fn refuse(&mut self, certificate: Fingerprint) {
        self.refused.push(certificate);
        let too_many = self.refused.len().saturating_sub(MOST_REFUSED);
        self.refused.drain(..too_many);
        self.send(Task::Refused(self.refused.clone()));
    }

    /// Forgets that clients refused this one.
    pub(super) fn pardon(&mut self, certificate: Fingerprint) {
        if self.refused.contains(&certificate) {
            self.refused.retain(|refused| *refused != certificate);
            self.send(Task::Refused(self.refused.clone()));
        }
    }

    /// Begins to write. What cannot be written is tried again at this interval.
    pub(super) fn begin(&mut self, retry: Duration) {
        let Some(state) = self.state.take() else {
            return;
        };
        let (writer, tasks) = mpsc::sync_channel(QUEUE);
        let scribe = Scribe {
            last_good: Arc::clone(&self.last_good),
            ledger: self.ledger.take(),
            state,
            problem: Arc::clone(&self.problem),
            copies: Arc::clone(&self.copies),
            missed: Arc::clone(&self.missed),
            rest: Arc::clone(&self.rest),
            late: VecDeque::new(),
            skipped: false,
            retry,
        };
        let early = std::mem::take(&mut self.early);
        let spawned = thread::Builder::new()
            .name("scribe".to_owned())
            .spawn(move || {
                priority::make_way();
                scribe.run(early, &tasks);
            });
        match spawned {
            Ok(_) => self.writer = Some(writer),
            Err(error) => self.problem.report(Err(&error)),
        }
    }

    /// The copies of a source, the latest first.
    pub(super) fn recall(&self, files: &Files) -> Vec<Generation> {
        let last_good = self.last_good.get();
        last_good.map_or_else(Vec::new, |last_good| last_good.generations(files))
    }

    /// Reads a copy.
    pub(super) fn read(&self, generation: &Generation) -> Option<Input> {
        self.last_good.get()?.read(generation)
    }

    /// Sources of which there are copies and which are not `known`, with the folder that they were
    /// found in.
    pub(super) fn strangers<'a>(
        &self,
        known: impl Iterator<Item = &'a Files>,
    ) -> Vec<(Files, Option<PathBuf>)> {
        let Some(last_good) = self.last_good.get() else {
            return Vec::new();
        };
        let strangers = last_good.strangers(known).into_iter();
        strangers
            .map(|header| (header.files, header.folder))
            .collect()
    }

    /// Whether a copy of this certificate is still to be made.
    pub(super) fn wants(&self, files: &Files, is: Fingerprint) -> bool {
        self.writer.is_some()
            && self
                .recall(files)
                .first()
                .is_none_or(|latest| latest.fingerprint != is)
    }

    /// Whether copies that could not be made are to be asked for again. Said once.
    pub(super) fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    /// Has a copy made. `false` when there is too much to write already.
    pub(super) fn save(&self, source: &Arc<Source>, input: Input, is: Fingerprint) -> bool {
        let Some(writer) = &self.writer else {
            return true;
        };
        if self.copies.load(Ordering::Relaxed) >= COPIES {
            return false;
        }
        let task = Task::Save {
            source: Arc::clone(source),
            input: Box::new(input),
            is,
        };
        self.copies.fetch_add(1, Ordering::Relaxed);
        let sent = writer.try_send(task);
        if sent.is_err() {
            self.copies.fetch_sub(1, Ordering::Relaxed);
        }
        !matches!(sent, Err(TrySendError::Full(_)))
    }

    /// Has every copy of these sources removed, those included that are still to be written.
    pub(super) fn forget(&self, all: Vec<Files>) {
        self.send(Task::Forget(all));
    }

    /// Has a line written.
    pub(super) fn note(&mut self, entry: Entry) {
        if self.state.is_some() {
            self.early.push(entry);
        } else {
            self.send(Task::Note(entry));
        }
    }

    /// Answers when all is written that is to be written so far.
    pub(super) fn settle(&self, reply: Sender<()>) {
        match &self.writer {
            // Who does not get in has no answer, and waits no longer than he wants to.
            Some(writer) => drop(writer.try_send(Task::Settled(reply))),
            None => drop(reply.send(())),
        }
    }

    /// What does not work, in words.
    pub(super) fn degraded(&self) -> Option<String> {
        self.problem.text().clone()
    }

    fn send(&self, task: Task) {
        if let Some(writer) = &self.writer
            && let Err(TrySendError::Full(_)) = writer.try_send(task)
        {
            let cause = io::Error::other("the disk is too slow");
            self.problem.report(Err(&cause));
        }
    }
}

/// What the writing thread has.
struct Scribe {
    last_good: Arc<OnceLock<LastGood>>,
    ledger: Option<Ledger>,
    state: StateDir,
    problem: Arc<Problem>,
    copies: Arc<AtomicUsize>,
    missed: Arc<AtomicBool>,
    rest: Arc<Rest>,
    /// What could not be written yet, in its order, with one copy at most: they are large.
    late: VecDeque<Task>,
    /// Other copies were not made meanwhile.
    skipped: bool,
    retry: Duration,
}

impl Scribe {
    fn run(mut self, early: Vec<Entry>, tasks: &Receiver<Task>) {
        for entry in early {
            self.write(Task::Note(entry));
        }
        let mut tried = Instant::now();
        loop {
            let is_behind = self.is_behind();
            if is_behind && tried.elapsed() >= self.retry {
                self.catch_up();
                tried = Instant::now();
                continue;
            }
            let task = match is_behind {
                true => tasks.recv_timeout(self.retry.saturating_sub(tried.elapsed())),
                false => tasks.recv().map_err(RecvTimeoutError::from),
            };
            match task {
                Ok(task) => {
                    self.write(task);
                    if !is_behind {
                        tried = Instant::now();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.catch_up();
                    return;
                }
            }
        }
    }

    /// Whether something is left to be written, or could not be opened yet.
    fn is_behind(&self) -> bool {
        !self.late.is_empty() || self.ledger.is_none() || self.last_good.get().is_none()
    }

    /// Whether something else has to be written first: all goes in its order, but the ledger and the
    /// copies do not wait for each other.
    fn must_wait(&self, task: &Task) -> bool {
        let before = |other: &Task| other.is_note() == task.is_note();
        self.late.iter().any(before)
    }

    fn write(&mut self, task: Task) {
        let rest = Arc::clone(&self.rest);
        let _turn = rest.turn();
        if let Task::Settled(reply) = task {
            // Who asked may have given up.
            let _gone = reply.send(());
            return;
        }
        if task.is_copy() {
            self.copies.fetch_sub(1, Ordering::Relaxed);
        }
        if self.must_wait(&task) {
            self.put_off(task);
            return;
        }
        match self.attempt(&task) {
            Ok(()) if self.is_behind() => {}
            Ok(()) => self.problem.report(Ok(())),
            Err(cause) => {
                self.problem.report(Err(&cause));
                self.put_off(task);
            }
        }
    }

    fn attempt(&mut self, task: &Task) -> io::Result<()> {
        match task {
            Task::Save { source, input, is } => self.last_good()?.save(source, input, *is),
            Task::Forget(all) => {
                let last_good = self.last_good()?;
                all.iter().try_for_each(|files| last_good.forget(files))
            }
            Task::Note(entry) => self.ledger()?.write(entry),
            Task::Refused(refused) => serde_json::to_vec(refused)
                .map_err(io::Error::from)
                .and_then(|json| self.state.write(REFUSED, &[&json])),
            Task::Settled(_) => Ok(()),
        }
    }

    fn last_good(&self) -> io::Result<&LastGood> {
        open_last_good(&self.last_good, &self.state)
    }

    fn ledger(&mut self) -> io::Result<&mut Ledger> {
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => Ledger::open(&self.state)?,
        };
        Ok(self.ledger.insert(ledger))
    }

    fn put_off(&mut self, task: Task) {
        if task.is_copy() && self.late.iter().any(Task::is_copy) {
            self.skipped = true;
            return;
        }
        if self.late.len() >= LATE {
            // A copy can be asked for again.
            self.skipped |= self.late.pop_front().is_some_and(|lost| lost.is_copy());
        }
        self.late.push_back(task);
    }

    /// Writes what could not be written before, as far as it can be now.
    fn catch_up(&mut self) {
        let rest = Arc::clone(&self.rest);
        let _turn = rest.turn();
        let unopened = [self.last_good().err(), self.ledger().err()];
        let mut problem = unopened.into_iter().flatten().next();
        for task in std::mem::take(&mut self.late) {
            let written = match self.must_wait(&task) {
                true => Err(None),
                false => self.attempt(&task).map_err(Some),
            };
            if let Err(cause) = written {
                problem = problem.or(cause);
                self.late.push_back(task);
            }
        }
        self.problem.report(match &problem {
            Some(cause) => Err(cause),
            None => Ok(()),
        });
        if !self.late.iter().any(Task::is_copy) && std::mem::take(&mut self.skipped) {
            self.missed.store(true, Ordering::Relaxed);
        }
    }
}

/// The copies, listed when that can be done for the first time.
fn open_last_good<'a>(
    last_good: &'a OnceLock<LastGood>,
    state: &StateDir,
) -> io::Result<&'a LastGood> {
    if let Some(open) = last_good.get() {
        return Ok(open);
    }
    let opened = LastGood::open(state)?;
    Ok(last_good.get_or_init(|| opened))
}

/// What an earlier run remembered. Where it cannot be read, clients may have to refuse once more.
fn refused(state: &StateDir) -> Vec<Fingerprint> {
    const LIMIT: u64 = 64 * 1024;
    let json = match state.read(REFUSED, LIMIT) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!(%error, file = %state.file(REFUSED).display(), "cannot be read: ignored");
            return Vec::new();
        }
    };
    serde_json::from_slice(&json).unwrap_or_else(|error| {
        warn!(%error, file = %state.file(REFUSED).display(), "cannot be understood: ignored");
        Vec::new()
    })
}
