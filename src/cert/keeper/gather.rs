//! Reading and verifying, over several threads when there is much to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;

use crate::cert::load::{self, Input, Roots};
use crate::cert::source::{Parts, Reader, Reading, Source, Writings};
use crate::cert::{Reason, Rejection, Verified};
use crate::clock::Timestamp;
use crate::priority;

/// Below this many, starting threads costs more than it saves.
const WORTH_THREADS: usize = 8;

/// Asked once: the answer is gathered from several files.
static CORES: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// How much was done since the start, to hold the cost of a change to account.
#[derive(Debug, Default)]
pub struct Work {
    /// Sources read.
    pub read: AtomicU64,
    /// Certificates parsed and verified.
    pub verified: AtomicU64,
    /// Inventories published.
    pub published: AtomicU64,
}

/// A source to look at.
pub(super) struct Job {
    pub(super) slot: u32,
    pub(super) source: Arc<Source>,
    /// What it held the last time.
    pub(super) before: Option<Parts>,
}

/// What was found.
pub(super) struct Gathered {
    pub(super) slot: u32,
    pub(super) parts: Parts,
    pub(super) writings: Writings,
    pub(super) stamp: u64,
    pub(super) moving: bool,
    pub(super) pinned: bool,
    /// `None` when it holds what it held before.
    pub(super) news: Option<Outcome>,
}

/// What a source holds.
pub(super) type Outcome = Result<Arc<Verified>, Arc<Rejection>>;

/// What gathering needs.
pub(super) struct Gatherer {
    pub(super) reader: Reader,
    pub(super) roots: Arc<Roots>,
    pub(super) work: Arc<Work>,
}

impl Gatherer {
    /// Reads one source, and verifies what it holds unless that is what it held before.
    pub(super) fn one(&self, job: &Job, now: Timestamp) -> Gathered {
        let Reading {
            input,
            parts,
            writings,
            stamp,
            moving,
            pinned,
        } = self.reader.read(&job.source);
        self.work.read.fetch_add(1, Ordering::Relaxed);
        let news = (job.before != Some(parts) && !moving).then(|| self.verify(input, now));
        Gathered {
            slot: job.slot,
            parts,
            writings,
            stamp,
            moving,
            pinned,
            news,
        }
    }

    /// The same for many, in order.
    pub(super) fn all(&self, jobs: &[Job], now: Timestamp) -> Vec<Gathered> {
        in_parallel(jobs, |job| self.one(job, now))
    }

    fn verify(&self, input: Result<Input, Rejection>, now: Timestamp) -> Outcome {
        input
            .and_then(|input| self.load(&input, now))
            .map(Arc::new)
            .map_err(Arc::new)
    }

    /// Verifies what was read. Should the way through the parsers panic, that costs this
    /// certificate only: a keeper that has died would serve today's certificates for ever.
    pub(super) fn load(&self, input: &Input, now: Timestamp) -> Result<Verified, Rejection> {
        self.work.verified.fetch_add(1, Ordering::Relaxed);
        let load = || load::load(input, &self.roots, now);
        catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
            Err(Rejection {
                reason: Reason::MalformedCertificate,
                path: input.chain.path.clone(),
                detail: "reading it failed in a way that was not foreseen".to_owned(),
                help: "look at it with: openssl x509 -noout -text; and please report it".to_owned(),
            })
        })
    }
}

/// Applies `work` to each, on as many threads as there are cores, and returns the results in order.
pub(super) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = match items.len() {
        few if few < WORTH_THREADS => 1,
        _ => *CORES,
    };
    let work = |item| {
        let result = work(item);
        priority::breathe();
        result
    };
    if threads == 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let worker = || {
            let mut mine = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(n) else {
                    return mine;
                };
                mine.push((n, work(item)));
            }
        };
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut all = worker();
        for worker in workers {
            match worker.join() {
                Ok(part) => all.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    done.sort_unstable_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order() {
        let items: Vec<_> = (0..1000_usize).collect();
        let doubled: Vec<_> = items.iter().map(|n| n * 2).collect();
        assert_eq!(in_parallel(&items, |n| n * 2), doubled);
        assert_eq!(in_parallel(&items[..3], |n| n * 2), doubled[..3]);
    }
}
