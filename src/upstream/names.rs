//! What the names of servers resolve to.
//!
//! The control plane resolves each name again and again ([`dns`](super::dns)); connections are made
//! to what was found last, in turn. A name that stops resolving keeps its last addresses: a name
//! server that is down takes no site down.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::health::Moment;

/// How long an address to which no connection could be made comes last.
const AVOID: u64 = 10_000;

/// The addresses of one server, in the order they were found.
#[derive(Debug, Default)]
pub struct Addresses {
    found: ArcSwap<Vec<Address>>,
    /// Why nothing was found, while nothing ever was.
    fault: ArcSwapOption<String>,
    /// Told when one of these is there.
    known: Notify,
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Address {
    address: SocketAddr,
    /// When no connection could be made last; 0: that never happened.
    failed: AtomicU64,
}

impl Addresses {
    /// All of them, in the order to try them: in turn, those that failed of late last.
    pub fn order(&self, now: Moment) -> SmallVec<[SocketAddr; 8]> {
        let found = self.found.load();
        let turn = self.turn.fetch_add(1, Relaxed);
        let mut order = SmallVec::with_capacity(found.len());
        for avoided in [false, true] {
            for offset in 0..found.len() {
                let entry = &found[turn.wrapping_add(offset) % found.len()];
                let failed = entry.failed.load(Relaxed);
                let avoid = failed != 0 && now.0.saturating_sub(failed) < AVOID;
                if avoid == avoided {
                    order.push(entry.address);
                }
            }
        }
        order
    }

    /// Notes that no connection could be made, or that one could.
    pub fn note(&self, address: SocketAddr, failed: Option<Moment>) {
        let found = self.found.load();
        if let Some(entry) = found.iter().find(|entry| entry.address == address) {
            let failed = failed.map_or(0, |now| now.0);
            if entry.failed.load(Relaxed) != failed {
                entry.failed.store(failed, Relaxed);
            }
        }
    }

    /// Takes what was found; nothing found changes nothing. Whether it is different.
    pub fn set(&self, mut found: Vec<SocketAddr>) -> bool {
        // Name servers shuffle; who shuffles here is `turn`.
        found.sort_unstable();
        found.dedup();
        let before = self.found.load();
        let same = before.iter().map(|entry| &entry.address).eq(&found);
        if found.is_empty() || same {
            return false;
        }
        let found = found.into_iter().map(|address| Address {
            address,
            failed: AtomicU64::new(0),
        });
        self.found.store(Arc::new(found.collect()));
        self.fault.store(None);
        self.known.notify_waiters();
        true
    }

    /// Notes that nothing was found. Whether nothing ever was.
    pub fn failed(&self, why: String) -> bool {
        if !self.found.load().is_empty() {
            return false;
        }
        self.fault.store(Some(Arc::new(why)));
        self.known.notify_waiters();
        true
    }

    /// Waits until the name was asked for, by the control plane, for the first time.
    ///
    /// # Errors
    /// Why nothing was found.
    pub async fn wait(&self) -> Result<(), String> {
        loop {
            let mut told = pin!(self.known.notified());
            told.as_mut().enable();
            if !self.found.load().is_empty() {
                return Ok(());
            }
            if let Some(fault) = &*self.fault.load() {
                return Err(fault.to_string());
            }
            told.await;
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<SocketAddr> {
        self.found
            .load()
            .iter()
            .map(|entry| entry.address)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 80).into()
    }

    #[test]
    fn addresses_are_used_in_turn_and_what_failed_last() {
        let addresses = Addresses::default();
        assert!(addresses.order(Moment(1)).is_empty());
        assert!(addresses.set(vec![address(2), address(1), address(2)]));
        assert!(
            !addresses.set(vec![address(1), address(2)]),
            "the same, shuffled"
        );
        let firsts: Vec<_> = (0..4).map(|_| addresses.order(Moment(1))[0]).collect();
        assert_eq!(firsts[0], firsts[2]);
        assert_ne!(firsts[0], firsts[1]);
        addresses.note(address(1), Some(Moment(5)));
        for _ in 0..3 {
            assert_eq!(addresses.order(Moment(6))[..], [address(2), address(1)]);
        }
        let later: Vec<_> = (0..2).map(|_| addresses.order(Moment(20_000))[0]).collect();
        assert_ne!(later[0], later[1]);
    }

    #[test]
    fn a_name_that_stops_resolving_keeps_its_addresses() {
        let addresses = Addresses::default();
        addresses.set(vec![address(1)]);
        assert!(!addresses.set(Vec::new()));
        assert_eq!(addresses.all(), [address(1)]);
    }
}
