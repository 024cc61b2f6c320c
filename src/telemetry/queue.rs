//! The queue of log lines, and the thread that writes them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait.
const LINES: usize = 4096;
/// Bytes gathered for one write.
const BATCH: usize = 64 * 1024;
/// How often it is said that lines were dropped, at most.
const COMPLAINT: Duration = Duration::from_secs(10);

/// A bounded queue to a thread that writes. Clones are the same queue.
#[derive(Clone)]
pub(super) struct Queue {
    sender: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

enum Item {
    /// With its line feed.
    Line(Box<[u8]>),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

impl Queue {
    /// Starts the thread, which lives as long as any clone of the queue.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            output,
            dropped: Arc::clone(&dropped),
            told: 0,
            last_told: None,
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, dropped })
    }

    /// Adds a line, or drops it when the queue is full. Never waits.
    pub(super) fn push(&self, line: Box<[u8]>) {
        if self.sender.try_send(Item::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until all that is in the queue is written. False when that takes longer than
    /// `patience`.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let left = || deadline.saturating_duration_since(Instant::now());
        let (done, written) = mpsc::sync_channel(1);
        let mut item = Item::Flush(done);
        loop {
            match self.sender.try_send(item) {
                Ok(()) => return written.recv_timeout(left()).is_ok(),
                Err(TrySendError::Full(back)) if !left().is_zero() => item = back,
                Err(_) => return false,
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Writer<W> {
    output: W,
    dropped: Arc<AtomicU64>,
    /// Of the dropped lines, those that were spoken of.
    told: u64,
    last_told: Option<Instant>,
}

impl<W: Write> Writer<W> {
    fn run(mut self, receiver: &Receiver<Item>) {
        let mut batch = Vec::new();
        while let Ok(first) = receiver.recv() {
            let mut flushed = Vec::new();
            for item in std::iter::once(first).chain(receiver.try_iter()) {
                match item {
                    Item::Line(line) => batch.extend_from_slice(&line),
                    Item::Flush(done) => {
                        flushed.push(done);
                        break;
                    }
                }
                if batch.len() >= BATCH {
                    break;
                }
            }
            // There is nowhere to tell of a failure to write to standard error.
            let _ = self.output.write_all(&batch);
            let _ = self.output.flush();
            batch.clear();
            for done in flushed {
                let _ = done.try_send(());
            }
            self.complain();
        }
    }

    /// Says that lines were dropped, through the same queue, now that there is room in it.
    fn complain(&mut self) {
        let dropped = self.dropped.load(Relaxed);
        let lines = dropped - self.told;
        let due = self.last_told.is_none_or(|at| at.elapsed() >= COMPLAINT);
        if lines > 0 && due {
            self.told = dropped;
            self.last_told = Some(Instant::now());
            tracing::warn!(
                lines,
                "log lines dropped: standard error is read too slowly"
            );
        }
    }
}
