//! The files of `basic_auth`: what is found in them is told.

use std::sync::Arc;

use tracing::{info, warn};

use super::{Server, glance};
use crate::metrics::names as metric;
use crate::proxy::auth::users::Users;

/// Looks at them, for as long as the runtime lives.
pub fn start(server: &Arc<Server>) {
    describe(server);
    glance::at(
        server,
        |material| material.all_users().map(Arc::clone).collect(),
        look,
    );
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
