//! The files by which sites are in maintenance: what is found is told.

use std::sync::Arc;

use tracing::info;

use super::{Server, glance};
use crate::metrics::names as metric;
use crate::proxy::route::Site;
use crate::proxy::rules::material::Flag;

/// Looks at them, for as long as the runtime lives.
pub fn start(server: &Arc<Server>) {
    describe(server);
    glance::at(
        server,
        |material| material.flags().map(Arc::clone).collect(),
        look,
    );
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
