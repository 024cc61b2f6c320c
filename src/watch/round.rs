//! A round over many things, spread over its period.

use std::ops::Range;
use std::time::{Duration, Instant};

/// Hands out slices of `0..len` so that each is visited once in a period, or as often as a rate
/// allows: looking at everything at once would be a spike, and for ten thousand things a long one.
#[derive(Debug)]
pub struct Round {
    period: Duration,
    /// Things a second, at most.
    rate: f64,
    cursor: usize,
    last: Instant,
    credit: f64,
}

impl Round {
    /// A round that takes `period`, or longer where that would be more than `rate` things a second.
    pub fn new(period: Duration, rate: f64, now: Instant) -> Self {
        Self {
            period,
            rate,
            cursor: 0,
            last: now,
            credit: 0.0,
        }
    }

    /// What is to be visited now: up to two ranges, since a slice may go over the end.
    #[allow(clippy::cast_precision_loss)] // no set has 2^53 members
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bounded by `len`
    pub fn next(&mut self, now: Instant, len: usize) -> [Range<usize>; 2] {
        let elapsed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        if len == 0 {
            return [0..0, 0..0];
        }
        let speed = (len as f64 / self.period.as_secs_f64()).min(self.rate);
        self.credit = (self.credit + elapsed * speed).min(len as f64);
        let due = self.credit as usize;
        self.credit -= due as f64;
        let start = self.cursor % len;
        let end = start + due;
        self.cursor = end % len;
        [start..end.min(len), 0..end.saturating_sub(len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_visits_everything_once_in_a_period() {
        let start = Instant::now();
        let mut round = Round::new(Duration::from_secs(10), 1e6, start);
        let mut visits = [0_u32; 7];
        for tenth in 1..=100_u64 {
            let now = start + Duration::from_millis(tenth * 100);
            for n in round.next(now, visits.len()).into_iter().flatten() {
                visits[n] += 1;
            }
        }
        // The last may still be due, by rounding.
        assert!(
            visits.iter().sum::<u32>() >= 6 && visits.iter().all(|n| *n <= 1),
            "{visits:?}"
        );
    }

    #[test]
    fn a_rate_makes_a_round_longer_and_a_pause_is_no_reason_to_go_round_twice() {
        let start = Instant::now();
        let mut round = Round::new(Duration::from_secs(1), 100.0, start);
        let count = |ranges: [Range<usize>; 2]| ranges.into_iter().flatten().count();
        let later = start + Duration::from_secs(1);
        assert_eq!(count(round.next(later, 1000)), 100);
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(count(round.next(much_later, 1000)), 1000);
        assert_eq!(count(round.next(much_later, 0)), 0);
    }
}
