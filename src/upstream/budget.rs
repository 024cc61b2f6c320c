//! How many requests may be sent again.
//!
//! A server that fails under load is not helped by more of it. So each request that comes pays a
//! share of a further try into a purse, and each further try takes a whole one out; what is in it
//! lets a burst pass (a server that dies with many requests in flight), and a trickle that needs
//! no requests keeps small sites served. A try after which nothing had been sent costs nobody
//! anything and is not taken from it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::health::Moment;

/// One further try.
const TRY: i64 = 1000;
/// What the purse holds at most, and at the start.
const FULL: i64 = 1000 * TRY;
/// What flows in each millisecond: ten tries a second.
const TRICKLE: u64 = 10;

/// See the module.
#[derive(Debug)]
pub struct Budget {
    purse: AtomicI64,
    share: i64,
    /// Until when the trickle was paid in.
    paid: AtomicU64,
}

impl Budget {
    /// A full purse, into which each request pays `share` of a try.
    #[allow(clippy::cast_possible_truncation)] // a share of 1000
    pub fn new(share: f64) -> Self {
        Self {
            purse: AtomicI64::new(FULL),
            share: (share * TRY as f64).round() as i64,
            paid: AtomicU64::new(0),
        }
    }

    /// Counts a request that came.
    pub fn pay(&self) {
        // Mostly it is full, and nothing is written.
        if self.purse.load(Relaxed) < FULL {
            self.purse.fetch_add(self.share, Relaxed);
        }
    }

    /// Whether a try is in it.
    pub fn is_left(&self) -> bool {
        self.purse.load(Relaxed) >= TRY
    }

    /// Takes out a try, if one is in it.
    pub fn take(&self, now: Moment) -> bool {
        let before = self.paid.swap(now.0, Relaxed);
        let trickle = now.0.saturating_sub(before).saturating_mul(TRICKLE);
        let trickle = i64::try_from(trickle).unwrap_or(FULL).min(FULL);
        let take = |purse: i64| {
            let purse = (purse + trickle).min(FULL);
            Some(if purse >= TRY { purse - TRY } else { purse })
        };
        match self.purse.fetch_update(Relaxed, Relaxed, take) {
            Ok(before) | Err(before) => before + trickle >= TRY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_a_share_of_what_comes() {
        let budget = Budget::new(0.2);
        let now = Moment(1);
        assert_eq!((0..5000).filter(|_| budget.take(now)).count(), 1000);
        let tries = (0..1000).filter(|_| {
            budget.pay();
            budget.take(now)
        });
        assert_eq!(tries.count(), 200);
    }

    #[test]
    fn some_are_always_allowed() {
        let budget = Budget::new(0.0);
        while budget.take(Moment(1)) {}
        let tries = (0..1000).filter(|second| budget.take(Moment(1 + second * 1000)));
        assert!(tries.count() >= 999);
        while budget.take(Moment(1_000_000)) {}
        assert!(!budget.take(Moment(1_000_050)));
        assert!(budget.take(Moment(1_000_100)));
    }
}
