//! What is counted of connections that are passed on byte by byte.

use std::time::Duration;

use super::handle::{Counter, Gauge, Histogram};
use super::label::{Set, label};
use super::names;
use super::registry::Registry;

label! {
    /// How a connection that was passed on ended.
    pub enum StreamOutcome {
        /// Both sides closed.
        Closed = "closed",
        /// Both were silent for too long.
        Idle = "idle",
        /// One of them broke.
        Broken = "broken",
        /// There was no server to pass it on to.
        NoServer = "no_server",
    }
}

/// One worker's handles of one upstream. Make one for each worker.
#[derive(Debug)]
pub struct StreamSeries {
    outcomes: Set<StreamOutcome>,
    received: Counter,
    sent: Counter,
    duration: Histogram,
    /// Connections that are being passed on.
    pub open: Gauge,
}

impl StreamSeries {
    /// `upstream` is the name in the configuration.
    pub fn new(registry: &Registry, upstream: &str) -> Self {
        let labels = [("upstream", upstream)];
        Self {
            outcomes: Set::new(registry, names::STREAM_CONNECTIONS, &labels, "outcome"),
            received: names::STREAM_RECEIVED_BYTES.counter(registry, &labels),
            sent: names::STREAM_SENT_BYTES.counter(registry, &labels),
            duration: names::STREAM_DURATION.seconds(registry, &labels),
            open: names::STREAM_OPEN.gauge(registry, &labels),
        }
    }

    /// Counts bytes from the client and to it, as they pass.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.received.add(received);
        self.sent.add(sent);
    }

    /// Counts a connection that has ended.
    pub fn ended(&self, outcome: StreamOutcome, took: Duration) {
        self.outcomes.inc(outcome);
        self.duration.observe(took);
    }
}
