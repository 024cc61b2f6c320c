//! What the service manager is told (`sd_notify(3)`). Without one, nothing happens.

use sd_notify::NotifyState;
use tracing::debug;

use crate::clock::Timestamp;

/// Requests are served.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// A reload begins; [`ready`] ends it (`Type=notify-reload`).
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no monotonic clock"),
    }
}

/// Another process is the service from now on. Only the main process may say so
/// (`NotifyAccess=main`), so that it is the old one that does.
pub fn main_process(id: u32) {
    tell(&[
        NotifyState::MainPid(id),
        NotifyState::Ready,
        NotifyState::Status("serving"),
    ]);
}

/// A new process is to take over.
pub fn upgrading() {
    tell(&[NotifyState::Status(
        "serving; a new process is being started",
    )]);
}

/// It did not, at that time. Whoever waits for the end of an upgrade knows it by this, or by another
/// main process.
pub fn not_upgraded(at: Timestamp, why: &str) {
    // One line of `systemctl status`; all of it is in the log.
    const LONGEST: usize = 300;
    let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let why: String = why.chars().take(LONGEST).collect();
    tell(&[NotifyState::Status(&format!(
        "serving; no upgrade at {at}: {why}"
    ))]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager cannot be told");
    }
}
