//! Servers behind that are down, as conditions.
//!
//! A server that is restarted is away for seconds, which is nobody's news: only what lasts is told.
//! One that an operator took out is not down.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::condition::{Code, Condition};
use super::words;
use crate::config::Severity;
use crate::upstream::health::Standing;
use crate::upstream::{Upstream, Upstreams};

/// How long a server is away before anybody is told.
const LASTS: Duration = Duration::from_secs(10);

/// Since when each server has been away.
#[derive(Debug, Default)]
pub struct Backends {
    away: HashMap<String, Instant>,
}

impl Backends {
    /// What is wrong with these servers now.
    pub fn look(&mut self, upstreams: &Upstreams, now: Instant) -> Vec<Condition> {
        let mut before = std::mem::take(&mut self.away);
        let mut found = Vec::new();
        for upstream in upstreams.iter() {
            let others = (0..upstream.servers().len()).any(|at| is_up(upstream, at));
            for at in 0..upstream.servers().len() {
                let Some(why) = fault(upstream, at) else {
                    continue;
                };
                let subject = subject(upstream, at);
                let since = before.remove(&subject).unwrap_or(now);
                if now.saturating_duration_since(since) >= LASTS {
                    found.push(condition(upstream, at, &why, others));
                }
                self.away.insert(subject, since);
            }
        }
        found
    }
}

fn is_up(upstream: &Upstream, at: usize) -> bool {
    let health = &upstream.servers()[at].health;
    health.proven() == Standing::Up && !upstream.is_failing(at)
}

/// Why a server is away, if it is.
fn fault(upstream: &Upstream, at: usize) -> Option<String> {
    let health = &upstream.servers()[at].health;
    let trouble = || {
        let why = upstream.trouble(at);
        why.map_or_else(String::new, |why| format!(" ({})", words::clean(&why)))
    };
    match health.proven() {
        Standing::Drained => None,
        Standing::Down => Some(match health.complaint() {
            Some(complaint) => format!("its health check fails: {}", words::clean(&complaint)),
            None => "its health check fails".to_owned(),
        }),
        Standing::Ejected => Some(format!(
            "its requests fail{}, and it is left alone for a while",
            trouble()
        )),
        Standing::Up if upstream.is_failing(at) => Some(format!(
            "the last {} failed{}, and there is no other server to spare it",
            words::plural(health.failures().into(), "request"),
            trouble()
        )),
        Standing::Up => None,
    }
}

fn subject(upstream: &Upstream, at: usize) -> String {
    let (name, server) = (&upstream.name, &upstream.servers()[at].url);
    // An upstream that is a URL is called by it.
    if name == server {
        return words::clean(server);
    }
    words::clean(&format!("{name}: {server}"))
}

fn condition(upstream: &Upstream, at: usize, why: &str, others: bool) -> Condition {
    let (name, server) = (&upstream.name, &upstream.servers()[at].url);
    let (severity, meanwhile) = match others {
        true => (Severity::Warning, "the others take its requests"),
        false => (
            Severity::Critical,
            "no other server is up, so clients get 502 or 503",
        ),
    };
    Condition::new(
        Code::UpstreamDown,
        subject(upstream, at),
        severity,
        format!(
            "The server {} of the upstream {} is down: {why}; {meanwhile}.",
            words::clean(server),
            words::clean(name)
        ),
        format!(
            "Ask it from this machine: `curl -v {}`. How all stand: `GET /api/upstreams` on the admin \
             address. It is tried again by itself.",
            words::shell(server)
        ),
    )
    .label("upstream", &**name)
    .label("server", &**server)
}
