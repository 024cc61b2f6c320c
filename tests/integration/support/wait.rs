//! Waiting for conditions: the only place that pauses.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Reached only when something is wrong: a slow machine must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(5);

/// Looks until there is something to see, and returns it.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "gave up after {PATIENCE:?} waiting until {what}"
        );
        sleep(INTERVAL);
    }
}

/// Looks until it is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || is_so().then_some(()));
}

/// The same where a connection of the test has to be served meanwhile.
pub async fn until_served(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < PATIENCE,
            "gave up after {PATIENCE:?} waiting until {what}"
        );
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Looks for a while, and fails if it is ever not so: for what must *not* happen.
#[track_caller]
pub fn continually(what: &str, time: Duration, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        assert!(is_so(), "after {:?} no longer: {what}", begin.elapsed());
        sleep(INTERVAL);
    }
}
