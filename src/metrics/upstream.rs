//! What is counted of the servers behind.

use super::handle::{Counter, Histogram};
use super::label::{Set, label};
use super::names;
use super::registry::Registry;

label! {
    /// How a request to a server ended.
    pub enum UpstreamOutcome {
        /// The head of a response came, with a status below 500.
        Response = "response",
        /// The head of a response came, with a status of 500 or above.
        ServerError = "server_error",
        /// No connection could be made, TLS included.
        Connect = "connect",
        /// The connection was closed or reset before a response came.
        Closed = "closed",
        /// No response came in time.
        Timeout = "timeout",
        /// What came was no HTTP response.
        Malformed = "malformed",
        /// It had as many requests as it may have.
        Full = "full",
        /// The client went away before a response came.
        Aborted = "aborted",
    }
}

/// One worker's handles of one server. Make one for each worker.
#[derive(Debug)]
pub struct UpstreamSeries {
    outcomes: Set<UpstreamOutcome>,
    /// Seconds from choosing the server to the head of its response.
    pub response_duration: Histogram,
    /// Requests sent again because the failure here made it safe.
    pub retries: Counter,
    /// Connections opened.
    pub connects: Counter,
    /// Requests sent on a connection that was kept.
    pub reused: Counter,
}

impl UpstreamSeries {
    /// `upstream` is the name in the configuration, `server` the URL as written there.
    pub fn new(registry: &Registry, upstream: &str, server: &str) -> Self {
        let labels = [("upstream", upstream), ("server", server)];
        Self {
            outcomes: Set::new(registry, names::UPSTREAM_REQUESTS, &labels, "outcome"),
            response_duration: names::UPSTREAM_RESPONSE_DURATION.seconds(registry, &labels),
            retries: names::UPSTREAM_RETRIES.counter(registry, &labels),
            connects: names::UPSTREAM_CONNECTS.counter(registry, &labels),
            reused: names::UPSTREAM_REUSED.counter(registry, &labels),
        }
    }

    /// Counts a request, when its outcome is known.
    pub fn outcome(&self, outcome: UpstreamOutcome) {
        self.outcomes.inc(outcome);
    }
}
