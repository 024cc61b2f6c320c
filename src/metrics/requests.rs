//! Requests of a site, by method and status code.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::handle::{Counter, Histogram, Own, Shard, add};
use super::names;
use super::registry::Registry;

/// The methods that are told apart; the last stands for all others (RFC 9110, section 9, RFC 5789,
/// and QUERY).
pub const METHODS: [&str; 11] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    "other",
];

/// The index of a method in [`METHODS`]. Methods are case-sensitive.
pub fn method_index(method: &str) -> usize {
    let known = METHODS.len() - 1;
    (METHODS[..known].iter())
        .position(|name| *name == method)
        .unwrap_or(known)
}

/// What one worker counts for one site.
#[derive(Debug)]
pub struct RequestSeries {
    codes: Own<CodeTable>,
    duration: Histogram,
    received: Counter,
    sent: Counter,
}

impl RequestSeries {
    /// Handles for the site of this first name. Make one for each worker.
    pub fn new(registry: &Registry, site: &str) -> Self {
        let labels = [("site", site)];
        Self {
            codes: registry.codes(names::REQUESTS, &labels),
            duration: names::REQUEST_DURATION.seconds(registry, &labels),
            received: names::RECEIVED_BYTES.counter(registry, &labels),
            sent: names::SENT_BYTES.counter(registry, &labels),
        }
    }

    /// Counts one request. `method` is a [`method_index`]. Takes no lock, and allocates only when a
    /// method or a range of codes is seen for the first time.
    pub fn record(&self, method: usize, status: u16, duration: Duration) {
        self.codes.count(method).at(slot(status), 1);
        self.duration.observe(duration);
    }

    /// Counts bytes of bodies, received from and sent to the client.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.received.add(received);
        self.sent.add(sent);
    }
}

/// Codes of one block. A site sees a handful of codes, so the table is filled block by block.
const BLOCK: usize = 32;
/// Blocks of one method.
const BLOCKS: usize = 16;
/// The code of the first slot; the last ones are beyond 599 and stand for all that is no code.
const FIRST: u16 = 96;
/// The slot of every status outside 100 to 599.
const NO_CODE: usize = 600 - FIRST as usize;

/// Where a status is counted.
const fn slot(status: u16) -> usize {
    match status {
        100..=599 => (status - FIRST) as usize,
        _ => NO_CODE,
    }
}

/// A shard of a site's requests: a counter for each method and code, made when it is needed.
#[derive(Debug, Default)]
pub(super) struct CodeTable([OnceLock<Box<Row>>; METHODS.len()]);

/// One method.
#[derive(Debug, Default)]
struct Row([OnceLock<Box<Block>>; BLOCKS]);

type Block = [AtomicU64; BLOCK];

/// The requests of one method and code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CodeCount {
    method: usize,
    slot: usize,
    pub(super) requests: u64,
}

impl CodeCount {
    /// `method="GET",code="200"`
    pub(super) fn labels(&self) -> String {
        let method = METHODS[self.method];
        match self.slot {
            NO_CODE => format!("method=\"{method}\",code=\"other\""),
            slot => format!("method=\"{method}\",code=\"{}\"", slot + usize::from(FIRST)),
        }
    }
}

impl CodeTable {
    /// The row of a method, made when it is not there. Only the owner makes rows, so nobody waits.
    fn count(&self, method: usize) -> &Row {
        self.0[method.min(METHODS.len() - 1)].get_or_init(Box::default)
    }

    /// All that is not 0.
    fn counts(&self) -> impl Iterator<Item = CodeCount> {
        let rows = self.0.iter().enumerate();
        rows.filter_map(|(method, row)| Some((method, row.get()?)))
            .flat_map(|(method, row)| {
                row.counts().map(move |(slot, requests)| CodeCount {
                    method,
                    slot,
                    requests,
                })
            })
    }

    /// The sum of several tables, by method and code.
    pub(super) fn sum<'a>(tables: impl Iterator<Item = &'a Self>) -> Vec<CodeCount> {
        let mut sum = BTreeMap::new();
        for count in tables.flat_map(Self::counts) {
            *sum.entry((count.method, count.slot)).or_insert(0) += count.requests;
        }
        sum.into_iter()
            .map(|((method, slot), requests)| CodeCount {
                method,
                slot,
                requests,
            })
            .collect()
    }
}

impl Shard for CodeTable {
    fn absorb(&self, other: &Self) {
        for count in other.counts() {
            self.count(count.method).at(count.slot, count.requests);
        }
    }
}

impl Row {
    /// Counts `n` in a slot.
    fn at(&self, slot: usize, n: u64) {
        let block = self.0[slot / BLOCK].get_or_init(Box::default);
        add(&block[slot % BLOCK], n);
    }

    /// All slots that are not 0.
    fn counts(&self) -> impl Iterator<Item = (usize, u64)> {
        let blocks = self.0.iter().enumerate();
        blocks
            .filter_map(|(index, block)| Some((index * BLOCK, block.get()?)))
            .flat_map(|(first, block)| {
                let counts = block.iter().map(|count| count.load(Relaxed));
                counts.enumerate().map(move |(i, n)| (first + i, n))
            })
            .filter(|(_, n)| *n > 0)
    }
}
