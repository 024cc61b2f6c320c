//! Which server a request goes to.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use smallvec::SmallVec;

use super::Upstream;
use super::health::{Moment, Standing};
use crate::config::{Balance, HashKey};
use crate::http::RequestHead;
use crate::http::field::Id;

/// Servers, by their places, that a request was sent to already.
pub type Tried = SmallVec<[usize; 8]>;

/// What of a request a server is chosen by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Key {
    /// For `balance = "hash"`.
    pub hash: u64,
    /// The server that the client's cookie names, by [`Server::tag`](super::Server::tag).
    pub tag: Option<u64>,
}

/// How willingly a server is used, the best first. It is tried in any case: better a server that is
/// thought to be down than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Free,
    Full,
    FreeBackup,
    FullBackup,
    Unfit,
    UnfitBackup,
}

/// A server that may be chosen, and how much of the requests it should have.
#[derive(Clone, Copy)]
struct Candidate {
    index: usize,
    weight: u32,
}

impl Upstream {
    /// What of this request its server is chosen by.
    pub fn key(&self, client: IpAddr, head: &RequestHead) -> Key {
        let tag = |value: &[u8]| {
            let text = std::str::from_utf8(value).ok()?;
            u64::from_str_radix(text, 16).ok()
        };
        Key {
            hash: match self.balance {
                Balance::Hash => self.hash(client, head),
                _ => 0,
            },
            tag: (self.sticky.as_ref())
                .and_then(|name| cookie(head, name.as_bytes()))
                .and_then(tag),
        }
    }

    /// What the server of a whole connection is chosen by.
    pub fn key_of(&self, client: IpAddr) -> Key {
        Key {
            hash: match self.balance {
                Balance::Hash => of_address(client),
                _ => 0,
            },
            tag: None,
        }
    }

    fn hash(&self, client: IpAddr, head: &RequestHead) -> u64 {
        let found = match &self.hash {
            HashKey::Client => None,
            HashKey::Path => Some(head.path()),
            HashKey::Header(name) => field(head, name.as_bytes()),
            HashKey::Cookie(name) => cookie(head, name.as_bytes()),
        };
        found.map_or_else(|| of_address(client), |found| fnv(&[found]))
    }

    /// Chooses a server, by its place in [`servers`](Self::servers), that was not tried. `None`: all
    /// were, or are drained.
    pub fn choose(&self, key: Key, tried: &[usize], now: Moment) -> Option<usize> {
        let chosen = self.pick(key, tried, now)?;
        self.servers[chosen].health.chosen(now);
        Some(chosen)
    }

    fn pick(&self, key: Key, tried: &[usize], now: Moment) -> Option<usize> {
        if self.servers.len() == 1 {
            return (tried.is_empty() && self.rank(0, now).is_some()).then_some(0);
        }
        if let Some(tag) = key.tag
            && let Some(index) = self.servers.iter().position(|server| server.tag() == tag)
            && !tried.contains(&index)
            && (self.rank(index, now)).is_some_and(|rank| rank < Rank::Unfit)
        {
            return Some(index);
        }
        let candidates = self.candidates(tried, now);
        match candidates.as_slice() {
            [] => None,
            [only] => Some(only.index),
            several => Some(match self.balance {
                Balance::RoundRobin => self.in_turn(several),
                Balance::LeastRequests => self.least_busy(several),
                Balance::Random => self.of_two(several),
                Balance::Hash => self.by_hash(several, key.hash),
            }),
        }
    }

    /// How willingly a server is used; `None`: not at all.
    fn rank(&self, index: usize, now: Moment) -> Option<Rank> {
        let server = &self.servers[index];
        let full = self.gates[index]
            .as_ref()
            .is_some_and(|gate| gate.is_full());
        let standing = server.health.standing(now, server.load.in_flight());
        Some(match (standing, self.shares[index].backup, full) {
            (Standing::Drained, ..) => return None,
            (Standing::Up, false, false) => Rank::Free,
            (Standing::Up, false, true) => Rank::Full,
            (Standing::Up, true, false) => Rank::FreeBackup,
            (Standing::Up, true, true) => Rank::FullBackup,
            (Standing::Ejected | Standing::Down, false, _) => Rank::Unfit,
            (Standing::Ejected | Standing::Down, true, _) => Rank::UnfitBackup,
        })
    }

    /// Those of the best rank there is.
    fn candidates(&self, tried: &[usize], now: Moment) -> SmallVec<[Candidate; 16]> {
        let mut best = None;
        let mut found = SmallVec::new();
        for (index, server) in self.servers.iter().enumerate() {
            let Some(rank) = self.rank(index, now).filter(|_| !tried.contains(&index)) else {
                continue;
            };
            if best.is_some_and(|best| rank > best) {
                continue;
            }
            if best.is_some_and(|best| rank < best) {
                found.clear();
            }
            best = Some(rank);
            let weight = self.shares[index].weight * server.health.ease(now, self.slow_start);
            found.push(Candidate { index, weight });
        }
        found
    }

    /// Smooth weighted round robin, nginx's: each server gains its weight, the richest is chosen
    /// and pays what all gained. Threads that choose at the same time may choose alike, but all
    /// that is gained is paid, so that shares are exact in the long run.
    fn in_turn(&self, candidates: &[Candidate]) -> usize {
        if candidates.iter().all(|c| c.weight == candidates[0].weight) {
            let turn = self.turn.fetch_add(1, Relaxed);
            return candidates[turn % candidates.len()].index;
        }
        let mut richest = (i64::MIN, candidates[0].index);
        let mut total = 0;
        for candidate in candidates {
            let weight = i64::from(candidate.weight);
            let purse = &self.shares[candidate.index].purse;
            let has = purse.fetch_add(weight, Relaxed).wrapping_add(weight);
            if has > richest.0 {
                richest = (has, candidate.index);
            }
            total += weight;
        }
        self.shares[richest.1].purse.fetch_sub(total, Relaxed);
        richest.1
    }

    /// The server with the fewest requests in flight for its weight; ties are broken in turn, so
    /// that idle servers share the work.
    fn least_busy(&self, candidates: &[Candidate]) -> usize {
        let turn = self.turn.fetch_add(1, Relaxed);
        let count = candidates.len();
        let mut best = candidates[turn % count];
        for offset in 1..count {
            let other = candidates[turn.wrapping_add(offset) % count];
            if self.is_less_busy(other, best) {
                best = other;
            }
        }
        best.index
    }

    fn is_less_busy(&self, one: Candidate, other: Candidate) -> bool {
        // One more than there are: that is what it would be, and tells the heavier of two that idle.
        let load = |candidate: Candidate| self.servers[candidate.index].load.in_flight() as u64 + 1;
        load(one) * u64::from(other.weight) < load(other) * u64::from(one.weight)
    }

    /// Of two at random the less busy (Mitzenmacher, 2001): nearly as even as asking all, and no
    /// two threads run to the same server.
    fn of_two(&self, candidates: &[Candidate]) -> usize {
        let bits = random();
        #[allow(clippy::cast_possible_truncation)] // any bits will do
        let (high, low) = ((bits >> 32) as usize, bits as u32 as usize);
        let first = high % candidates.len();
        let second = low % (candidates.len() - 1);
        let second = second + usize::from(second >= first);
        let (first, second) = (candidates[first], candidates[second]);
        match self.is_less_busy(second, first) {
            true => second.index,
            false => first.index,
        }
    }

    /// Weighted rendezvous hashing (Thaler and Ravishankar, 1998): each key ranks the servers by a
    /// hash of both, so that a server that comes or goes moves only its own share of the keys.
    #[allow(clippy::cast_precision_loss)] // 53 bits are enough
    fn by_hash(&self, candidates: &[Candidate], key: u64) -> usize {
        let score = |candidate: &Candidate| {
            let hash = mix(key ^ self.servers[candidate.index].tag());
            let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            // Not the eased weight: a key that wandered would find no cache anywhere.
            f64::from(self.shares[candidate.index].weight) / -unit.ln()
        };
        let best = candidates
            .iter()
            .map(|candidate| (score(candidate), candidate.index))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        best.map_or(candidates[0].index, |(_, index)| index)
    }
}

/// The hash of a client's address.
fn of_address(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(ip) => fnv(&[&ip.octets()]),
        IpAddr::V6(ip) => fnv(&[&ip.octets()]),
    }
}

/// The value of a field; the first, where there are several.
fn field<'a>(head: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    head.fields
        .iter()
        .find(|(_, other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, _, value)| value)
}

/// The value of a cookie (RFC 6265, section 4.2.1).
pub fn cookie<'a>(head: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    head.fields
        .iter()
        .filter(|(id, ..)| *id == Id::Cookie)
        .flat_map(|(_, _, value)| value.split(|&byte| byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

/// FNV-1a with a final mix: the same on every machine and in every release, which a hash that
/// decides where clients go has to be.
pub(super) fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in parts.iter().copied().flatten() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    mix(hash)
}

/// The finalizer of MurmurHash3.
const fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// A random number from the standard library's per-process keys, which is random enough to
/// spread load.
pub(super) fn random() -> u64 {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static KEYS: std::hash::RandomState = std::hash::RandomState::new();
    }
    let count = COUNTER.fetch_add(1, Relaxed);
    KEYS.with(|keys| {
        let mut hasher = keys.build_hasher();
        hasher.write_usize(count);
        hasher.finish()
    })
}
