//! A look each second at files that requests depend on, so that no request has to look.
//!
//! It costs microseconds, and sees what a watch would not: files of the network, a folder that is
//! not there yet, a link that leads elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::Server;
use crate::proxy::rules::material::Material;

/// How soon a change is noticed.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at those of the world that is, for as long as the runtime lives.
pub fn at<T: Send + Sync + 'static>(
    server: &Arc<Server>,
    those: impl Fn(&Material) -> Vec<Arc<T>> + Send + 'static,
    look: fn(&T),
) {
    let server = Arc::clone(server);
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let found = those(&server.shared.world.load().material);
            if !found.is_empty() {
                // One at a time, however long a disk hangs.
                let _ = spawn_blocking(move || found.iter().for_each(|it| look(it))).await;
            }
        }
    });
}
