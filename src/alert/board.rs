//! The board: where other parts of the program pin what they found wrong.
//!
//! A probe that fails, an upstream that is down, a configuration that was refused: whoever detects
//! it raises a [`Condition`] here and clears it when it is over. Both are cheap, never wait for
//! the alert engine, and may be repeated as often as the detector likes; the engine decides what
//! people are told. For the control plane only: there is a lock inside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::condition::{Code, Condition, Key};

/// More than this is a detector gone wild; what comes after it is not pinned.
const MOST: usize = 10_000;

/// A handle on the board. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pinned: Mutex<BTreeMap<Key, Condition>>,
    changed: Notify,
}

impl Board {
    /// An empty board.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pins a condition, or replaces the one with the same code and subject.
    pub fn raise(&self, condition: Condition) {
        let mut pinned = self.lock();
        let key = condition.key();
        let known = pinned.get(&key);
        if known == Some(&condition) || (known.is_none() && pinned.len() >= MOST) {
            return;
        }
        pinned.insert(key, condition);
        drop(pinned);
        self.0.changed.notify_one();
    }

    /// Takes it down. Nothing happens when it is not there.
    pub fn clear(&self, code: Code, subject: &str) {
        let key = Key {
            code,
            subject: subject.to_owned(),
        };
        if self.lock().remove(&key).is_some() {
            self.0.changed.notify_one();
        }
    }

    /// Takes down every condition of this code whose subject `gone` names, such as the servers of
    /// an upstream that is no longer configured.
    pub fn clear_where(&self, code: Code, gone: impl Fn(&str) -> bool) {
        let mut pinned = self.lock();
        let before = pinned.len();
        pinned.retain(|key, _| key.code != code || !gone(&key.subject));
        let changed = pinned.len() != before;
        drop(pinned);
        if changed {
            self.0.changed.notify_one();
        }
    }

    /// Whether this is pinned now.
    pub fn holds(&self, code: Code, subject: &str) -> bool {
        self.lock()
            .keys()
            .any(|key| key.code == code && key.subject == subject)
    }

    /// Everything pinned now.
    pub fn conditions(&self) -> Vec<Condition> {
        self.lock().values().cloned().collect()
    }

    /// Returns when something was raised or cleared since the last call. For one listener.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Condition>> {
        // A panic elsewhere leaves the map whole: every change to it is a single call.
        self.0.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Severity;

    fn down(server: &str) -> Condition {
        Condition::new(
            Code::UpstreamDown,
            server,
            Severity::Warning,
            "It is down.",
            "Look at it.",
        )
    }

    #[tokio::test]
    async fn what_is_raised_stays_until_it_is_cleared() {
        let board = Board::new();
        board.raise(down("a"));
        board.raise(down("b"));
        board.changed().await;
        assert_eq!(board.conditions().len(), 2);
        board.clear(Code::UpstreamDown, "a");
        assert_eq!(board.conditions(), [down("b")]);
        assert!(board.holds(Code::UpstreamDown, "b"));
    }

    #[test]
    fn a_detector_gone_wild_is_bounded() {
        let board = Board::new();
        for n in 0..MOST + 5 {
            board.raise(down(&n.to_string()));
        }
        assert_eq!(board.conditions().len(), MOST);
        board.clear_where(Code::UpstreamDown, |_| true);
        assert!(board.conditions().is_empty());
    }
}
