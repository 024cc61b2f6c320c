//! Looks whether files of `basic_auth` have changed, so that no request has to.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Server;
use crate::metrics::names as metric;
use crate::proxy::auth::users::Users;

/// How soon a change is noticed. A look costs microseconds, and sees what a watch would not: files
/// of the network, a folder that is not there yet, a link that leads elsewhere.
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
            let files: Vec<_> = (server.shared.world.load().material.all_users())
                .map(Arc::clone)
                .collect();
            if !files.is_empty() {
                // One at a time, however long a disk hangs.
                let _ = spawn_blocking(move || files.iter().for_each(|users| look(users))).await;
            }
        }
    });
}

fn look(users: &Users) {
    if users.look() {
        tell(users);
    }
}

/// Says what was found in a file.
pub(super) fn tell(users: &Users) {
    let (path, count) = (users.path().display(), users.count());
    for fault in users.faults().iter() {
        warn!(
            error = %fault,
            users = count,
            "a file of basic_auth is not used as it is; users it had before that can still be let \
             in are kept"
        );
    }
    if users.faults().is_empty() {
        info!(%path, users = count, "the users of basic_auth are read");
    }
}

/// Adds to every scrape how the files stand.
fn describe(server: &Arc<Server>) {
    let world = Arc::clone(&server.shared.world);
    server.registry.collector(move |scrape| {
        for users in world.load().material.all_users() {
            let file = users.path().display().to_string();
            let labels = [("file", &*file)];
            #[allow(clippy::cast_precision_loss)] // a file holds far fewer
            scrape.gauge(metric::USERS, &labels, users.count() as f64);
            let fault = f64::from(u8::from(!users.faults().is_empty()));
            scrape.gauge(metric::USERS_FAULT, &labels, fault);
        }
    });
}
