//! Limits for each client address and each site, shared by all workers without a lock.
//!
//! Clients are told apart by a sketch: two tables of atomics, and a client is what both of its
//! entries say at least. Its size is fixed, so that no number of addresses makes it grow, and
//! nothing is allocated for any of them. Two clients that share an entry in one table hardly ever
//! share the other one too; which do is decided by a seed that nobody knows.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Rate;

/// Entries of one table.
const WIDTH: usize = 1 << 15;

/// What stands for a client: an address, or the network that one customer is given in IPv6, where
/// addresses cost nothing.
fn client(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or_default(),
    }
}

/// Who is counted.
#[derive(Clone, Copy, Debug)]
pub enum Key<'k> {
    /// A client, by its address.
    Client(IpAddr),
    /// Whoever sends this.
    Text(&'k [u8]),
}

/// Finds a client's entries.
#[derive(Debug, Default)]
struct Places(RandomState);

impl Places {
    fn of(&self, key: Key<'_>) -> [usize; 2] {
        let hash = match key {
            Key::Client(address) => {
                let address = address.to_canonical();
                self.0.hash_one((address.is_ipv4(), client(address)))
            }
            Key::Text(text) => self.0.hash_one(text),
        };
        #[allow(clippy::cast_possible_truncation)] // masked
        [hash as usize % WIDTH, WIDTH + (hash >> 32) as usize % WIDTH]
    }
}

/// How many connections each client has open.
#[derive(Debug)]
pub struct Crowd {
    places: Places,
    open: Box<[AtomicU32]>,
}

impl Default for Crowd {
    fn default() -> Self {
        Self {
            places: Places::default(),
            open: (0..2 * WIDTH).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl Crowd {
    /// Lets another connection of this client in, unless it has `limit` already. It is counted
    /// until what is returned is dropped.
    pub fn enter(self: &Arc<Self>, key: Key<'_>, limit: usize) -> Option<Member> {
        let member = Member {
            places: self.places.of(key),
            crowd: Arc::clone(self),
        };
        let before = member
            .places
            .map(|place| self.open[place].fetch_add(1, Ordering::Relaxed));
        let least = before.into_iter().min().unwrap_or_default();
        ((least as usize) < limit).then_some(member)
    }
}

/// One connection of a client.
#[derive(Debug)]
pub struct Member {
    places: [usize; 2],
    crowd: Arc<Crowd>,
}

impl Drop for Member {
    fn drop(&mut self) {
        for place in self.places {
            self.crowd.open[place].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// When the next request would come if all came evenly, in nanoseconds since some beginning: the
/// whole state of a token bucket (the generic cell rate algorithm).
#[derive(Debug, Default)]
struct Due(AtomicU64);

/// A rate, in the form that it is applied in.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Nanoseconds that a request takes.
    each: u64,
    /// Nanoseconds that may be taken in advance.
    ahead: u64,
}

impl Pace {
    fn new(rate: Rate) -> Self {
        let within = u64::try_from(rate.within.as_nanos()).unwrap_or(u64::MAX);
        let each = within / u64::from(rate.requests.get());
        let ahead = each.saturating_mul(u64::from(rate.burst.get() - 1));
        Self { each, ahead }
    }
}

/// A token bucket for a site.
#[derive(Debug)]
pub struct Bucket {
    pace: Pace,
    begin: Instant,
    due: Due,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        Self {
            pace: Pace::new(rate),
            begin: Instant::now(),
            due: Due::default(),
        }
    }

    /// Takes a token; how long until there is one, where there is none.
    pub fn take(&self) -> Result<(), Duration> {
        take(&[&self.due], self.pace, now(self.begin))
    }
}

/// A token bucket for each client.
#[derive(Debug)]
pub struct Buckets {
    pace: Pace,
    begin: Instant,
    places: Places,
    due: Box<[Due]>,
}

impl Buckets {
    /// Full ones.
    pub fn new(rate: Rate) -> Self {
        Self {
            pace: Pace::new(rate),
            begin: Instant::now(),
            places: Places::default(),
            due: (0..2 * WIDTH).map(|_| Due::default()).collect(),
        }
    }

    /// Takes a token of a client's; how long until there is one, where there is none.
    pub fn take(&self, key: Key<'_>) -> Result<(), Duration> {
        let [first, second] = self.places.of(key);
        let due = [&self.due[first], &self.due[second]];
        take(&due, self.pace, now(self.begin))
    }
}

/// Nanoseconds since `begin`: 584 years of them.
fn now(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A client is as far ahead as the least of its entries says.
fn take(due: &[&Due], pace: Pace, now: u64) -> Result<(), Duration> {
    let least = due.iter().map(|due| due.0.load(Ordering::Relaxed)).min();
    let ahead = least.unwrap_or_default().saturating_sub(now);
    if ahead > pace.ahead {
        return Err(Duration::from_nanos(ahead - pace.ahead));
    }
    for due in due {
        let next = |due: u64| Some(due.max(now).saturating_add(pace.each));
        let _ = due
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate {
            requests: NonZeroU32::new(per_second).unwrap(),
            within: Duration::from_secs(1),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    fn ip(n: u32) -> Key<'static> {
        Key::Client(IpAddr::V4(n.into()))
    }

    #[test]
    fn a_bucket_holds_a_burst_and_fills_at_its_rate() {
        let (due, pace) = (Due::default(), Pace::new(rate(10, 3)));
        let second = 1_000_000_000;
        for _ in 0..3 {
            assert_eq!(take(&[&due], pace, 5 * second), Ok(()));
        }
        let wait = take(&[&due], pace, 5 * second).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(take(&[&due], pace, 5 * second + second / 10), Ok(()));
        assert!(take(&[&due], pace, 5 * second + second / 10).is_err());
        for _ in 0..3 {
            assert_eq!(take(&[&due], pace, 60 * second), Ok(()));
        }
        assert!(take(&[&due], pace, 60 * second).is_err());
    }

    #[test]
    fn clients_have_buckets_of_their_own() {
        let buckets = Buckets::new(rate(1, 1));
        assert!(buckets.take(ip(1)).is_ok() && buckets.take(ip(1)).is_err());
        let refused = (2..2000).filter(|&n| buckets.take(ip(n)).is_err()).count();
        assert!(refused < 20, "{refused}");
    }

    #[test]
    fn a_rate_may_be_slower_than_one_each_second() {
        let rate = Rate {
            within: Duration::from_secs(60),
            ..rate(6, 1)
        };
        let (due, pace, second) = (Due::default(), Pace::new(rate), 1_000_000_000);
        assert_eq!(take(&[&due], pace, 60 * second), Ok(()));
        let wait = take(&[&due], pace, 61 * second).unwrap_err();
        assert_eq!(wait, Duration::from_secs(9));
        assert_eq!(take(&[&due], pace, 70 * second), Ok(()));
    }

    #[test]
    fn texts_are_counted_as_clients_are() {
        let buckets = Buckets::new(rate(1, 1));
        assert!(buckets.take(Key::Text(b"a")).is_ok());
        assert!(buckets.take(Key::Text(b"a")).is_err());
        assert!(buckets.take(Key::Text(b"b")).is_ok());
    }

    #[test]
    fn a_client_in_ipv6_is_a_network() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let places = Places::default();
        let of = |text| places.of(Key::Client(address(text)));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn a_client_has_so_many_connections_and_others_have_theirs() {
        let crowd = Arc::<Crowd>::default();
        let first = crowd.enter(ip(1), 2).unwrap();
        let _second = crowd.enter(ip(1), 2).unwrap();
        assert!(crowd.enter(ip(1), 2).is_none());
        assert!(crowd.enter(ip(2), 2).is_some());
        drop(first);
        assert!(crowd.enter(ip(1), 2).is_some());
    }
}
