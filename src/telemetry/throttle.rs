//! Fewer messages, where somebody outside decides how many there are.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Lets a number of messages through in each interval, and counts the rest. For whatever a client
/// can provoke:
///
/// ```
/// # use std::time::Duration;
/// let throttle = staunch::telemetry::Throttle::new(5, Duration::from_secs(10));
/// if let Some(suppressed) = throttle.allow() {
///     tracing::warn!(suppressed, "a client sent nonsense");
/// }
/// ```
#[derive(Debug)]
pub struct Throttle {
    start: Instant,
    interval: Duration,
    most: u32,
    /// The interval's number above, how many were let through in it below.
    state: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    /// At most `most` messages in each `interval`, which is at least a millisecond.
    pub fn new(most: u32, interval: Duration) -> Self {
        Self {
            start: Instant::now(),
            interval: interval.max(Duration::from_millis(1)),
            most,
            state: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether a message may be written now: if so, with the number of those suppressed since the
    /// last that was. Takes no lock.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(self.start.elapsed())
    }

    #[allow(clippy::cast_possible_truncation)] // the interval's number may wrap; only equality counts
    fn allow_at(&self, elapsed: Duration) -> Option<u64> {
        let number = (elapsed.as_nanos() / self.interval.as_nanos()) as u32;
        let next = |state: u64| {
            let (then, count) = ((state >> 32) as u32, state as u32);
            let count = if then == number { count } else { 0 };
            (count < self.most).then(|| u64::from(number) << 32 | u64::from(count + 1))
        };
        if self.state.fetch_update(Relaxed, Relaxed, next).is_ok() {
            Some(self.suppressed.swap(0, Relaxed))
        } else {
            self.suppressed.fetch_add(1, Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lets_so_many_through_and_tells_of_the_rest() {
        let throttle = Throttle::new(2, Duration::from_secs(10));
        let at = |second| throttle.allow_at(Duration::from_secs(second));
        assert_eq!([at(0), at(1), at(2), at(9)], [Some(0), Some(0), None, None]);
        assert_eq!([at(10), at(11), at(12)], [Some(2), Some(0), None]);
        assert_eq!(at(1000), Some(1));
    }
}
