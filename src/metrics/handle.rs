//! Handles and the shards behind them.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A shard of one writer: it can be given to another thread, but not shared with one.
#[derive(Debug, Default)]
pub(super) struct Own<T> {
    shard: Arc<T>,
    unshared: PhantomData<std::cell::Cell<()>>,
}

impl<T> From<Arc<T>> for Own<T> {
    fn from(shard: Arc<T>) -> Self {
        Self {
            shard,
            unshared: PhantomData,
        }
    }
}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shard
    }
}

/// Adds to a number of a shard. It has one writer, so that no locked instruction is needed, of which
/// each request would take a dozen.
pub(super) fn add(number: &AtomicU64, n: u64) {
    number.store(number.load(Relaxed).wrapping_add(n), Relaxed);
}

/// A monotonically increasing count. It is one thread's; ask the registry again for another.
#[derive(Debug, Default)]
pub struct Counter(pub(super) Own<Cell>);

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        add(&self.0.0, n);
    }
}

/// A value that goes up and down. The shards of a series are summed, so a value that is not a sum
/// (a moment, a yes or no) must have one handle only. When the last handle of a series is dropped,
/// the series disappears.
#[derive(Debug, Default)]
pub struct Gauge(pub(super) Own<Cell>);

impl Gauge {
    /// Sets this shard.
    pub fn set(&self, value: f64) {
        self.0.0.store(value.to_bits(), Relaxed);
    }

    /// Adds to this shard; subtracts when negative.
    pub fn add(&self, difference: f64) {
        self.set(self.0.value() + difference);
    }

    /// Adds one.
    pub fn inc(&self) {
        self.add(1.0);
    }

    /// Subtracts one.
    pub fn dec(&self) {
        self.add(-1.0);
    }
}

/// A distribution of durations over fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram(pub(super) Own<Distribution>);

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        self.0.observe(took);
    }
}

/// A series' shards: those with a handle, and the sum of those whose handle is gone, so that a
/// counter never goes backwards.
#[derive(Debug)]
pub(super) struct Shards<T> {
    retired: T,
    live: Vec<Arc<T>>,
}

impl<T: Shard> Shards<T> {
    /// No shards yet; `empty` is one that counted nothing.
    pub(super) const fn new(empty: T) -> Self {
        Self {
            retired: empty,
            live: Vec::new(),
        }
    }

    /// Takes in a new shard.
    pub(super) fn push(&mut self, shard: T) -> Arc<T> {
        self.retire();
        let shard = Arc::new(shard);
        self.live.push(Arc::clone(&shard));
        shard
    }

    /// Folds the shards that nobody else holds any more. Found out here rather than in a `Drop`, so
    /// that a worker that lets go of a handle takes no lock.
    pub(super) fn retire(&mut self) {
        let retired = &self.retired;
        self.live.retain_mut(|shard| {
            let held = is_held(shard);
            if !held {
                retired.absorb(shard);
            }
            held
        });
    }

    /// All shards, the retired ones as one.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.retired).chain(self.live.iter().map(AsRef::as_ref))
    }
}

/// Whether a shard still has a handle. `get_mut` rather than the count of owners, because it
/// synchronises with what the last of them wrote.
pub(super) fn is_held<T>(shard: &mut Arc<T>) -> bool {
    Arc::get_mut(shard).is_none()
}

/// What can be folded into another of its kind.
pub(super) trait Shard {
    /// Adds what `other` counted.
    fn absorb(&self, other: &Self);
}

/// One number on a cache line that it shares with nobody's numbers: counters hold an integer,
/// gauges the bits of an `f64`.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// As a counter.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// As a gauge.
    pub(super) fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl Shard for Cell {
    fn absorb(&self, other: &Self) {
        add(&self.0, other.count());
    }
}

/// A shard of a histogram.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Distribution {
    /// Upper bounds in microseconds, ascending, without the last, infinite one.
    bounds: Box<[u64]>,
    /// One more than bounds.
    counts: Box<[AtomicU64]>,
    /// The sum in microseconds: an integer, so that adding is one instruction; not nanoseconds,
    /// because twenty thousand waiting requests would overflow those within a fortnight.
    micros: AtomicU64,
}

impl Distribution {
    /// One that counted nothing. `bounds` are in seconds.
    pub(super) fn new(bounds: &[f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let micros = |bound: &f64| micros(Duration::from_secs_f64(*bound));
        Self {
            bounds: bounds.iter().map(micros).collect(),
            counts,
            micros: AtomicU64::new(0),
        }
    }

    fn observe(&self, took: Duration) {
        let took = micros(took);
        let beyond = || self.bounds.len();
        let bucket = (self.bounds.iter())
            .position(|bound| took <= *bound)
            .unwrap_or_else(beyond);
        // Only the shard of a default handle, which belongs to no series, has no buckets.
        if let Some(count) = self.counts.get(bucket) {
            add(count, 1);
            add(&self.micros, took);
        }
    }

    /// Counts for each bucket, not cumulative.
    pub(super) fn counts(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().map(|count| count.load(Relaxed))
    }

    /// Microseconds in total.
    pub(super) fn micros(&self) -> u64 {
        self.micros.load(Relaxed)
    }
}

/// Whole microseconds, in integers: a request is measured twice.
const fn micros(span: Duration) -> u64 {
    let whole = span.as_secs().saturating_mul(1_000_000);
    whole.saturating_add(span.subsec_micros() as u64)
}

impl Shard for Distribution {
    fn absorb(&self, other: &Self) {
        for (mine, theirs) in self.counts.iter().zip(other.counts()) {
            add(mine, theirs);
        }
        add(&self.micros, other.micros());
    }
}
