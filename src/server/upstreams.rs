//! What the control plane does for the servers behind: checks them, resolves their names, counts
//! them, shows them, and lets an operator take one out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::{info, warn};

use super::Server;
use super::services::follow;
use crate::admin::{Call, Reply, Route};
use crate::config::{self, ServerAddress};
use crate::metrics::{Scrape, names as metric};
use crate::proxy::World;
use crate::upstream::files::Files;
use crate::upstream::health::{Moment, Standing};
use crate::upstream::report::report;
use crate::upstream::{self, ServerId, Upstream, check};

/// How soon a name of which nothing is known is asked for again.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// How often a name is asked for where it is not known how long the answer holds: what answers is
/// the system, at no cost.
const UNKNOWN: Duration = Duration::from_secs(10);
/// Records may say that they hold for no time at all.
const SHORTEST: Duration = Duration::from_secs(1);

/// A server that is looked after.
struct Tended {
    check: Option<config::Health>,
    refresh: Option<Duration>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Tended {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// A service that is asked for again and again.
struct Followed {
    every: Option<Duration>,
    task: AbortHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks after the servers of the world that is, for as long as the runtime lives.
pub fn start(server: &Arc<Server>) {
    describe(server);
    let server = Arc::clone(server);
    let files = Files::start(server.shared.clock.clone());
    if let Err(error) = &files {
        warn!(%error, "files of TLS to upstreams are read at a reload only");
    }
    tokio::spawn(async move {
        let mut tended: HashMap<ServerId, Tended> = HashMap::new();
        let mut followed: HashMap<Arc<str>, Followed> = HashMap::new();
        loop {
            let world = server.shared.world.load_full();
            reconcile(&mut tended, &server, &world);
            let wanted = server.services.wanted();
            followed.retain(|name, followed| wanted.get(name) == Some(&followed.every));
            for (name, every) in wanted {
                followed.entry(Arc::clone(&name)).or_insert_with(|| {
                    let follow = follow(Arc::clone(&server), name, every);
                    let task = tokio::spawn(follow).abort_handle();
                    Followed { every, task }
                });
            }
            if let Ok(files) = &files {
                files.mind(&world.upstreams);
            }
            server.reloaded.notified().await;
        }
    });
}

/// Begins what the world asks for, and ends what it no longer does.
fn reconcile(tended: &mut HashMap<ServerId, Tended>, server: &Arc<Server>, world: &World) {
    let mut before = std::mem::take(tended);
    for upstream in world.upstreams.iter() {
        for one in upstream.servers() {
            let kept = before
                .remove(&one.id)
                .filter(|kept| kept.check == upstream.check && kept.refresh == upstream.refresh);
            let kept = kept.unwrap_or_else(|| tend(server, upstream, one));
            tended.insert(one.id, kept);
        }
    }
}

fn tend(world: &Arc<Server>, upstream: &Upstream, server: &Arc<upstream::Server>) -> Tended {
    let mut tasks = Vec::new();
    match &upstream.check {
        Some(check) => {
            let watch = check::watch(
                Arc::clone(&upstream.name),
                Arc::clone(server),
                check.clone(),
            );
            tasks.push(tokio::spawn(watch).abort_handle());
        }
        None => server.health.unchecked(),
    }
    if let ServerAddress::Name(..) = server.address {
        let resolve = resolve(Arc::clone(world), Arc::clone(server), upstream.refresh);
        tasks.push(tokio::spawn(resolve).abort_handle());
    }
    Tended {
        check: upstream.check.clone(),
        refresh: upstream.refresh,
        tasks,
    }
}

/// Resolves a server's name again and again.
async fn resolve(world: Arc<Server>, server: Arc<upstream::Server>, every: Option<Duration>) {
    let ServerAddress::Name(name, port) = &server.address else {
        return;
    };
    let mut failing = false;
    loop {
        let dns = world.dns.load_full();
        let wait = match dns.addresses(name, *port).await {
            Ok(found) => {
                if server.addresses.set(found.what) {
                    let addresses = server.addresses.all();
                    info!(server = %server.url, ?addresses, "the name was resolved");
                }
                failing = false;
                pause(found.holds, every)
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(
                        server = %server.url,
                        %error,
                        "the name cannot be resolved; what it was is used on"
                    );
                }
                match server.addresses.failed(error) {
                    true => RETRY,
                    false => check::jitter(UNKNOWN),
                }
            }
        };
        sleep(wait).await;
    }
}

/// How long to wait before asking for a name again.
pub(super) fn pause(holds: Option<Duration>, every: Option<Duration>) -> Duration {
    match (every, holds) {
        (Some(every), _) => check::jitter(every),
        (None, Some(holds)) => holds.max(SHORTEST),
        (None, None) => check::jitter(UNKNOWN),
    }
}

/// Adds what is known of servers to every scrape.
fn describe(server: &Arc<Server>) {
    let world = Arc::clone(&server.shared.world);
    server.registry.collector(move |scrape| {
        for upstream in world.load().upstreams.iter() {
            collect(upstream, scrape);
        }
    });
}

#[allow(clippy::cast_precision_loss)] // small numbers
fn collect(upstream: &Upstream, scrape: &mut Scrape) {
    for (at, server) in upstream.servers().iter().enumerate() {
        let labels = [("upstream", &*upstream.name), ("server", &*server.url)];
        let (health, load) = (&server.health, &server.load);
        let up = health.proven() == Standing::Up;
        let queued = upstream.gate(at).map_or(0, |gate| gate.queued());
        for (metric, value) in [
            (metric::UPSTREAM_UP, usize::from(up)),
            (metric::UPSTREAM_IN_FLIGHT, load.in_flight()),
            (metric::UPSTREAM_CONNECTIONS_OPEN, load.open()),
            (metric::UPSTREAM_QUEUED, queued),
        ] {
            scrape.gauge(metric, &labels, value as f64);
        }
        scrape.counter(metric::UPSTREAM_EJECTIONS, &labels, health.ejections());
        if let Some(presented) = &*server.presented.load() {
            let at = presented.certificate.not_after.unix() as f64;
            scrape.gauge(metric::UPSTREAM_CERTIFICATE_NOT_AFTER, &labels, at);
        }
    }
    if let Some(trust) = upstream
        .trusts()
        .next()
        .filter(|it| it.files().next().is_some())
    {
        let labels = [("upstream", &*upstream.name)];
        let stale = f64::from(u8::from(trust.fault().is_some()));
        scrape.gauge(metric::UPSTREAM_TLS_STALE, &labels, stale);
        if let Some(shown) = trust.current().as_ref().and_then(|it| it.shown.as_ref()) {
            let at = shown.not_after.unix() as f64;
            scrape.gauge(metric::UPSTREAM_CLIENT_CERTIFICATE_NOT_AFTER, &labels, at);
        }
    }
}

/// A server that an operator means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    upstream: String,
    server: String,
    /// Also the last one.
    #[serde(default)]
    force: bool,
}

/// The routes of the admin address.
pub fn routes(server: &Arc<Server>) -> Vec<Route> {
    let world = || Arc::clone(&server.shared.world);
    let (shown, drained, used) = (world(), world(), world());
    vec![
        Route::get("/api/upstreams", "the servers behind", move |_| {
            let upstreams = report(&shown.load().upstreams);
            async move { Reply::json(StatusCode::OK, &json!({ "upstreams": upstreams })) }
        }),
        Route::post(
            "/api/upstreams/drain",
            "send a server no further requests: {\"upstream\": …, \"server\": URL}",
            move |call| {
                let reply = change(&call, &drained.load(), true);
                async move { reply }
            },
        ),
        Route::post(
            "/api/upstreams/undrain",
            "send it requests again",
            move |call| {
                let reply = change(&call, &used.load(), false);
                async move { reply }
            },
        ),
    ]
}

/// Takes a server out, or in again.
fn change(call: &Call, world: &World, out: bool) -> Reply {
    let which: Which = match serde_json::from_slice(&call.body) {
        Ok(which) => which,
        Err(error) => {
            let detail = format!("the body is not what it should be: {error}");
            return Reply::error(StatusCode::BAD_REQUEST, "bad_request", &detail);
        }
    };
    let not_found = |detail: &str| Reply::error(StatusCode::NOT_FOUND, "not_found", detail);
    let Some(upstream) = world.upstreams.get(&which.upstream) else {
        return not_found("there is no such upstream; GET /api/upstreams lists them");
    };
    let mut servers = upstream.servers().iter();
    let Some(server) = servers.find(|server| *server.url == *which.server) else {
        return not_found("it has no such server; GET /api/upstreams lists them");
    };
    let now = Moment::now();
    let is_drained = |server: &upstream::Server| server.health.proven() == Standing::Drained;
    let others = upstream.servers().iter().filter(|s| s.id != server.id);
    if out && !which.force && others.into_iter().all(|other| is_drained(other)) {
        let detail = "it is the last one: requests would be answered with 503; \
                      say \"force\": true if that is meant";
        return Reply::error(StatusCode::CONFLICT, "last_server", detail);
    }
    if is_drained(server) != out {
        let (upstream, url) = (&upstream.name, &server.url);
        match out {
            true => info!(%upstream, server = %url, "the server is drained"),
            false => info!(%upstream, server = %url, "the server is used again"),
        }
    }
    server.health.drain(out, now);
    let in_flight = server.load.in_flight();
    Reply::json(
        StatusCode::OK,
        &json!({ "drained": out, "in_flight": in_flight }),
    )
}
