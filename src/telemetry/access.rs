//! The access log: one line for each request, for a cost that can be left on.
//!
//! Each worker has a [`Writer`], which formats a [`Record`] into a buffer that it uses again and
//! appends it to a lane of its own; one thread writes all lanes. No worker waits for a disk: what
//! has no room is dropped, and counted.
//!
//! There are two forms. **JSON Lines**, one object a line, with the fields of [`Record`]; what is
//! not known is left out. **Combined**, the form of Apache and nginx, with five fields behind it:
//!
//! ```text
//! CLIENT - - [TIME] "METHOD TARGET PROTOCOL" STATUS SENT "REFERER" "USER-AGENT" "HOST" SECONDS
//! "UPSTREAM" "SITE" "ERROR"
//! ```
//!
//! all on one line, `-` for what is not known. JSON is written where the log is JSON, and to a file
//! where the log's form is not configured; combined where the log is for eyes. In both a line is a
//! line: whatever a client sends is escaped, and cut at 4 KiB a field.

mod format;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use format::Formatter;
pub use format::Record;

use super::Throttle;
use super::lane::Lane;

/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(20);

/// Whether, where and how the access log is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where it goes.
    pub target: Target,
    /// Share of requests that are written, 0 to 1. Those answered with 500 or above always are.
    pub sample: f64,
    /// The form that is configured for the log.
    pub format: Option<super::Format>,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, opened again by [`AccessLog::reopen`].
    File(PathBuf),
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Combined,
}

impl Settings {
    fn form(&self) -> Form {
        let json = match (self.format, &self.target) {
            (Some(format), _) => format == super::Format::Json,
            (None, Target::Stdout) => !io::stdout().is_terminal(),
            (None, _) => true,
        };
        if json { Form::Json } else { Form::Combined }
    }
}

/// The present, as a [`Record`] wants it. The system's clock also where certificates live in another
/// time: a log says when it was written.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default()
}

/// The access log. Clones are the same log; the thread that writes ends with the last of them and
/// of their writers.
#[derive(Clone, Debug)]
pub struct AccessLog(Arc<Owner>);

/// Settings whose file is open: what can be committed without failing.
#[derive(Debug)]
pub struct Prepared {
    output: Output,
    form: Form,
    sample: f64,
}

impl AccessLog {
    /// A log that is off. Fails only when no thread can be started.
    pub fn new() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new().name("access-log".into()).spawn({
            let shared = Arc::clone(&shared);
            move || Scribe::new(&shared).run()
        })?;
        let thread = thread.thread().clone();
        Ok(Self(Arc::new(Owner { shared, thread })))
    }

    /// Opens what the settings name. May wait for a disk.
    pub fn prepare(settings: &Settings) -> io::Result<Prepared> {
        let output = match &settings.target {
            Target::Off => Output::Off,
            Target::Stdout => Output::Stdout,
            Target::File(path) => Output::File(path.clone(), open(path)?),
        };
        Ok(Prepared {
            output,
            form: settings.form(),
            sample: settings.sample,
        })
    }

    /// Goes by other settings from now on.
    pub fn commit(&self, prepared: Prepared) {
        let shared = &self.0.shared;
        let on = !matches!(prepared.output, Output::Off);
        let mode = match (on, prepared.form) {
            (false, _) => OFF,
            (true, Form::Json) => JSON,
            (true, Form::Combined) => COMBINED,
        };
        lock(&shared.next).push(prepared.output);
        shared.sample.store(threshold(prepared.sample), Relaxed);
        shared.mode.store(mode, Relaxed);
        self.0.thread.unpark();
    }

    /// Opens the file again under its name, after somebody has moved it away. When that fails, the
    /// old file is written on, and the log says so.
    pub fn reopen(&self) {
        self.0.shared.reopen.store(true, Relaxed);
        self.0.thread.unpark();
    }

    /// A writer for one worker.
    pub fn writer(&self) -> Writer {
        let lane = Arc::new(Lane::default());
        let mut lanes = lock(&self.0.shared.lanes);
        lanes.push(Arc::clone(&lane));
        Writer {
            owner: Arc::clone(&self.0),
            lane,
            formatter: Formatter::default(),
            // Any number but 0; it need not be unpredictable, only differ between workers.
            random: 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(lanes.len() as u64 * 2 + 1),
        }
    }

    /// Lines dropped so far: for want of room, or because they could not be written.
    pub fn dropped(&self) -> u64 {
        self.0.shared.dropped()
    }

    /// Waits until all lines so far are written, at most for `patience`. False when they are not.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, written) = mpsc::sync_channel(1);
        lock(&self.0.shared.flushes).push(done);
        self.0.thread.unpark();
        written.recv_timeout(patience).is_ok()
    }
}

/// One worker's end of the access log.
#[derive(Debug)]
pub struct Writer {
    owner: Arc<Owner>,
    lane: Arc<Lane>,
    formatter: Formatter,
    random: u64,
}

impl Writer {
    /// Whether there is a log at all: if not, a record need not be put together.
    pub fn is_on(&self) -> bool {
        self.owner.shared.mode.load(Relaxed) != OFF
    }

    /// Writes a request, if it is in the sample. Waits for nothing; drops the line where there is
    /// no room.
    pub fn write(&mut self, record: &Record<'_>) {
        let form = match self.owner.shared.mode.load(Relaxed) {
            OFF => return,
            JSON => Form::Json,
            _ => Form::Combined,
        };
        if record.status < 500 && !self.sampled() {
            return;
        }
        let line = self.formatter.line(record, form);
        if self.lane.append(line) {
            self.owner.thread.unpark();
        }
    }

    /// Drawn at random rather than counted: every tenth request may always be the same one.
    fn sampled(&mut self) -> bool {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random <= self.owner.shared.sample.load(Relaxed)
    }
}

const OFF: u8 = 0;
const JSON: u8 = 1;
const COMBINED: u8 = 2;

/// The highest number of those drawn that is in the sample; none is 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
#[allow(clippy::cast_precision_loss)]
fn threshold(sample: f64) -> u64 {
    (sample * u64::MAX as f64) as u64
}

/// What workers, the control plane and the thread share.
#[derive(Debug, Default)]
struct Shared {
    /// [`OFF`], [`JSON`] or [`COMBINED`].
    mode: AtomicU8,
    /// See [`threshold`].
    sample: AtomicU64,
    /// Taken when a worker starts and when the thread writes, never for a request.
    lanes: Mutex<Vec<Arc<Lane>>>,
    /// Outputs that were committed and not yet taken up, in that order.
    next: Mutex<Vec<Output>>,
    reopen: AtomicBool,
    flushes: Mutex<Vec<SyncSender<()>>>,
    closed: AtomicBool,
    /// Of lanes that are gone, and lines that could not be written.
    lost: AtomicU64,
}

impl Shared {
    fn dropped(&self) -> u64 {
        let waiting: u64 = lock(&self.lanes).iter().map(|lane| lane.dropped()).sum();
        self.lost.load(Relaxed) + waiting
    }
}

/// Ends the thread when nobody can write any more.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.closed.store(true, Release);
        self.thread.unpark();
    }
}

#[derive(Debug)]
enum Output {
    Off,
    Stdout,
    File(PathBuf, File),
}

impl Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Off => Ok(()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File(_, file) => file.write_all(lines),
        }
    }
}

/// For appending; not for others to read, because it says who asked for what.
fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .map_err(|error| {
            let shown = path.display();
            let words = format!(
                "{shown}: {error}; see that its folder is there and that the user staunch runs as \
                 may write to it, or change `log.access.to`"
            );
            io::Error::new(error.kind(), words)
        })
}

/// The thread that writes.
struct Scribe<'a> {
    shared: &'a Shared,
    output: Output,
    spare: Vec<u8>,
    /// Of the dropped lines, those that were spoken of.
    told: u64,
    complaints: Throttle,
}

impl<'a> Scribe<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            output: Output::Off,
            spare: Vec::new(),
            told: 0,
            complaints: Throttle::new(1, Duration::from_secs(10)),
        }
    }

    fn run(mut self) {
        loop {
            let closed = self.shared.closed.load(Acquire);
            let flushes = std::mem::take(&mut *lock(&self.shared.flushes));
            self.change_output();
            self.write();
            self.complain();
            for done in flushes {
                let _ = done.try_send(());
            }
            if closed {
                return;
            }
            // A worker wakes us with the first line after this; the others gather meanwhile.
            thread::park();
            thread::sleep(GATHER);
        }
    }

    /// Writes all lanes.
    fn write(&mut self) {
        for lane in self.lanes() {
            lane.drain(&mut self.spare, |lines| {
                if let Err(error) = self.output.write(lines) {
                    let lost = lines.iter().filter(|byte| **byte == b'\n').count();
                    self.shared.lost.fetch_add(lost as u64, Relaxed);
                    if let Some(suppressed) = self.complaints.allow() {
                        tracing::error!(%error, suppressed, "cannot write the access log");
                    }
                }
            });
        }
    }

    /// All lanes; those whose worker is gone for the last time. The lock is not held while anything
    /// is written, so that a worker can start meanwhile.
    fn lanes(&self) -> Vec<Arc<Lane>> {
        let mut gone = Vec::new();
        let mut lanes = lock(&self.shared.lanes);
        lanes.retain_mut(|lane| {
            let finished = Arc::get_mut(lane).is_some();
            if finished {
                self.shared.lost.fetch_add(lane.dropped(), Relaxed);
                gone.push(Arc::clone(lane));
            }
            !finished
        });
        gone.extend_from_slice(&lanes);
        gone
    }

    /// Does what was asked for since the last time.
    fn change_output(&mut self) {
        let next = std::mem::take(&mut *lock(&self.shared.next));
        for next in next {
            // What was written to be kept is kept, what is in a new form goes to the new place.
            if matches!(next, Output::Off) {
                self.write();
            }
            self.output = next;
        }
        if self.shared.reopen.swap(false, Relaxed)
            && let Output::File(path, file) = &mut self.output
        {
            match open(path) {
                Ok(new) => *file = new,
                Err(error) => tracing::error!(
                    path = %path.display(), %error,
                    "cannot open the access log again; writing on to the file opened before"
                ),
            }
        }
    }

    fn complain(&mut self) {
        let dropped = self.shared.dropped();
        if dropped > self.told && self.complaints.allow().is_some() {
            let lines = dropped - self.told;
            self.told = dropped;
            tracing::warn!(lines, "access log lines dropped: it is written too slowly");
        }
    }
}

/// A thread that panicked while it held the lock left whole values behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn settings(path: &Path, sample: f64) -> Settings {
        Settings {
            target: Target::File(path.into()),
            sample,
            format: None,
        }
    }

    fn log_to(path: &Path, sample: f64) -> AccessLog {
        let log = AccessLog::new().unwrap();
        log.commit(AccessLog::prepare(&settings(path, sample)).unwrap());
        log
    }

    fn written(log: &AccessLog, path: &Path) -> String {
        assert!(log.flush(Duration::from_secs(10)));
        fs::read_to_string(path).unwrap()
    }

    const OK: Record<'_> = Record {
        status: 200,
        ..Record::EMPTY
    };

    #[test]
    fn a_rotated_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let [path, moved] = ["access.log", "access.log.1"].map(|name| folder.path().join(name));
        let log = log_to(&path, 1.0);
        let mut writer = log.writer();
        writer.write(&OK);
        assert_eq!(written(&log, &path).lines().count(), 1);
        fs::rename(&path, &moved).unwrap();
        writer.write(&OK);
        assert_eq!(written(&log, &moved).lines().count(), 2);
        log.reopen();
        writer.write(&OK);
        assert_eq!(written(&log, &path).lines().count(), 1);
        assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 2);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        log.reopen();
        writer.write(&OK);
        assert!(log.flush(Duration::from_secs(10)));
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn a_sample_holds_its_share_and_every_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = log_to(&path, 0.1);
        let mut writer = log.writer();
        for n in 0..2000 {
            let status = if n % 100 == 0 { 503 } else { 200 };
            writer.write(&Record { status, ..OK });
        }
        let text = written(&log, &path);
        let errors = text.matches(r#""status":503"#).count();
        let rest = text.lines().count() - errors;
        assert_eq!(errors, 20);
        assert!((120..300).contains(&rest), "{rest} of 1980 for a tenth");
    }

    #[test]
    fn it_is_turned_off_and_on_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = AccessLog::new().unwrap();
        let mut writer = log.writer();
        assert!(!writer.is_on());
        writer.write(&OK);
        log.commit(AccessLog::prepare(&settings(&path, 1.0)).unwrap());
        assert!(writer.is_on());
        writer.write(&OK);
        let off = Settings {
            target: Target::Off,
            ..settings(&path, 1.0)
        };
        log.commit(AccessLog::prepare(&off).unwrap());
        writer.write(&OK);
        assert_eq!(written(&log, &path).lines().count(), 1);
    }

    #[test]
    fn what_a_worker_wrote_last_is_kept_when_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let log = log_to(&path, 1.0);
        for _ in 0..3 {
            thread::scope(|scope| scope.spawn(|| log.writer().write(&OK)).join()).unwrap();
        }
        assert_eq!(written(&log, &path).lines().count(), 3);
        assert_eq!(lock(&log.0.shared.lanes).len(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_refused_before_anything_changes() {
        let folder = tempfile::tempdir().unwrap();
        assert!(AccessLog::prepare(&settings(folder.path(), 1.0)).is_err());
    }
}
