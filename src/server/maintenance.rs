//! Looks for the files by which sites are in maintenance, so that no request has to.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use super::Server;
use crate::metrics::names as metric;
use crate::proxy::route::Site;
use crate::proxy::rules::material::Flag;

/// How soon a file is noticed. A look costs microseconds, and a watch would see neither a network
/// file system nor a folder that is not there yet.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at the files of the world that is, for as long as the runtime lives.
pub fn start(server: &Arc<Server>) {
    describe(server);
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let flags: Vec<_> = (server.shared.world.load().material.flags())
                .map(Arc::clone)
                .collect();
            if !flags.is_empty() {
                // One at a time, however long a disk hangs.
                let _ = spawn_blocking(move || flags.iter().for_each(|flag| look(flag))).await;
            }
        }
    });
}

fn look(flag: &Flag) {
    let path = flag.path().display();
    match flag.look() {
        Some(true) => info!(%path, "maintenance begins: the file is there"),
        Some(false) => info!(%path, "maintenance ends: the file is gone"),
        None => {}
    }
}

/// Adds to every scrape which sites are in maintenance, of those that can be.
fn describe(server: &Arc<Server>) {
    let world = Arc::clone(&server.shared.world);
    server.registry.collector(move |scrape| {
        for site in world.load().table.sites() {
            if let Some(on) = of_site(site) {
                let labels = [("site", &*site.label)];
                scrape.gauge(metric::SITE_MAINTENANCE, &labels, f64::from(u8::from(on)));
            }
        }
    });
}

/// Whether a site or a route of it is; `None` where none can be.
fn of_site(site: &Site) -> Option<bool> {
    let routes = site.routes().filter_map(|route| route.rules.as_ref());
    let all = site.rules.iter().chain(routes);
    all.filter_map(|rules| rules.maintenance())
        .reduce(|one, other| one || other)
}
