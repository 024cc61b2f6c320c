//! How upstreams stand, for people and programs that ask.

use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::health::Standing;
use super::{Upstream, Upstreams};
use crate::clock::Timestamp;

/// One upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Its name, or the URL it stands for.
    pub name: String,
    /// Its servers, in the order of the file.
    pub servers: Vec<ServerReport>,
}

/// One server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerReport {
    /// As configured.
    pub url: String,
    /// `up`, `ejected`, `down` or `drained`.
    pub standing: String,
    /// What was wrong at the last check, or with the last request while requests fail.
    pub detail: Option<String>,
    /// Its share, beside the others'.
    pub weight: u32,
    /// Used only while no other is up.
    pub backup: bool,
    /// What its name resolves to.
    pub addresses: Vec<String>,
    /// Requests in flight.
    pub in_flight: usize,
    /// Connections open, in use or kept.
    pub connections: usize,
    /// Requests that wait for it.
    pub queued: usize,
    /// Requests sent to it, or tried to.
    pub requests: u64,
    /// Those of them that failed.
    pub failures: u64,
    /// How often it was left alone because of failures.
    pub ejections: u64,
    /// Time to the head of a response, a moving average.
    pub latency_ms: f64,
    /// When the certificate expires that it presented last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_not_after: Option<Timestamp>,
}

/// All of them, as they stand.
pub fn report(upstreams: &Upstreams) -> Vec<Report> {
    upstreams
        .iter()
        .map(|upstream| Report {
            name: upstream.name.to_string(),
            servers: (0..upstream.servers.len())
                .map(|at| server(upstream, at))
                .collect(),
        })
        .collect()
}

#[allow(clippy::cast_precision_loss)] // microseconds
fn server(upstream: &Upstream, at: usize) -> ServerReport {
    let server = &upstream.servers[at];
    let load = &server.load;
    let standing = match server.health.proven() {
        Standing::Up => "up",
        Standing::Ejected => "ejected",
        Standing::Down => "down",
        Standing::Drained => "drained",
    };
    ServerReport {
        url: server.url.to_string(),
        standing: standing.to_owned(),
        detail: (server.health.complaint())
            .or_else(|| upstream.trouble(at).map(|why| why.to_string())),
        weight: upstream.shares[at].weight,
        backup: upstream.shares[at].backup,
        addresses: (server.addresses.all().iter())
            .map(|address| address.ip().to_string())
            .collect(),
        in_flight: load.in_flight(),
        connections: load.open(),
        queued: upstream.gates[at].as_ref().map_or(0, |gate| gate.queued()),
        requests: load.requests.load(Relaxed),
        failures: load.failures.load(Relaxed),
        ejections: server.health.ejections(),
        latency_ms: load.latency.load(Relaxed) as f64 / 1000.0,
        certificate_not_after: (server.presented.load().as_ref())
            .map(|presented| presented.certificate.not_after),
    }
}
