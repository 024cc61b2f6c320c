//! Names and who covers them, in shards that inventories share.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::is_same;
use crate::cert::rank::Candidate;

/// Shards: enough that one holds few names, few enough that copying the list of them is nothing.
const SHARDS: usize = 1024;

/// Candidates by name. Cloning it, and changing the clone, costs the shards that are changed.
#[derive(Clone, Debug)]
pub(super) struct Index {
    hasher: RandomState,
    /// Empty until there is a name.
    shards: Vec<Arc<Shard>>,
}

/// Names in order, to be found by halving: copying it is one allocation.
type Shard = Vec<Entry>;

#[derive(Clone, Debug)]
struct Entry {
    name: Arc<str>,
    candidates: Arc<[Candidate]>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Vec::new(),
        }
    }
}

impl Index {
    /// The candidates for a name; none when it is unknown.
    pub(super) fn get(&self, name: &str) -> &[Candidate] {
        let Some(shard) = self.shards.get(self.shard_of(name)) else {
            return &[];
        };
        match find(shard, name) {
            Ok(at) => &shard[at].candidates,
            Err(_) => &[],
        }
    }

    /// Every name.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let entries = self.shards.iter().flat_map(|shard| shard.iter());
        entries.map(|entry| &entry.name)
    }

    pub(super) fn insert(&mut self, name: Arc<str>, candidate: &Candidate) {
        if self.shards.is_empty() {
            self.shards = vec![Arc::default(); SHARDS];
        }
        let shard = self.shard_of(&name);
        let shard = Arc::make_mut(&mut self.shards[shard]);
        match find(shard, &name) {
            Ok(at) => {
                let entry = &mut shard[at];
                // A certificate may carry a name twice.
                if entry
                    .candidates
                    .iter()
                    .any(|other| is_same(other, candidate))
                {
                    return;
                }
                // In configuration order, so that equals are told apart the same way every time.
                let place = entry.candidates.partition_point(|other| {
                    (other.order, other.slot) <= (candidate.order, candidate.slot)
                });
                let (before, after) = entry.candidates.split_at(place);
                entry.candidates = before
                    .iter()
                    .chain([candidate])
                    .chain(after)
                    .cloned()
                    .collect();
            }
            Err(at) => shard.insert(
                at,
                Entry {
                    name,
                    candidates: Arc::new([candidate.clone()]),
                },
            ),
        }
    }

    pub(super) fn remove(&mut self, name: &str, candidate: &Candidate) {
        let shard = self.shard_of(name);
        let Some(shard) = self.shards.get_mut(shard) else {
            return;
        };
        let Ok(at) = find(shard, name) else {
            return;
        };
        let shard = Arc::make_mut(shard);
        let left: Vec<_> = shard[at]
            .candidates
            .iter()
            .filter(|other| !is_same(other, candidate))
            .cloned()
            .collect();
        if left.is_empty() {
            shard.remove(at);
        } else {
            shard[at].candidates = left.into();
        }
    }

    /// How many shards are not shared with another index.
    #[cfg(test)]
    pub(super) fn shards_apart_from(&self, other: &Self) -> usize {
        self.shards
            .iter()
            .zip(&other.shards)
            .filter(|(one, other)| !Arc::ptr_eq(one, other))
            .count()
    }

    #[allow(clippy::cast_possible_truncation)] // any part of a hash is a hash
    fn shard_of(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize % SHARDS
    }
}

fn find(shard: &Shard, name: &str) -> Result<usize, usize> {
    shard.binary_search_by(|entry| (*entry.name).cmp(name))
}
