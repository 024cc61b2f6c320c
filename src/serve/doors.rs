//! Who is let in: connections open at all workers together, counted without a lock.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Limits;
use crate::metrics::Limit;
use crate::proxy::limit::{Crowd, Key, Member};

/// What all workers count together.
#[derive(Debug, Default)]
pub struct Doors {
    open: Arc<AtomicUsize>,
    handshaking: Arc<AtomicUsize>,
    crowd: Arc<Crowd>,
}

impl Doors {
    /// The limit that lets nobody in at this moment, if one does.
    pub fn closed_by(&self, limits: &Limits) -> Option<Limit> {
        let full = |count: &AtomicUsize, limit: Option<NonZeroUsize>| {
            limit.is_some_and(|limit| count.load(Ordering::Relaxed) >= limit.get())
        };
        if full(&self.open, limits.connections) {
            Some(Limit::Connections)
        } else if full(&self.handshaking, limits.handshakes) {
            Some(Limit::Handshakes)
        } else {
            None
        }
    }

    /// Counts a connection.
    pub fn enter(&self) -> Permit {
        Permit::new(&self.open)
    }

    /// Counts a handshake.
    pub fn greet(&self) -> Permit {
        Permit::new(&self.handshaking)
    }

    /// Counts a connection of this client; `None` where it has too many.
    pub fn know(&self, client: IpAddr, limits: &Limits) -> Option<Known> {
        let Some(limit) = limits.connections_per_client else {
            return Some(Known(None));
        };
        let member = self.crowd.enter(Key::Client(client), limit.get())?;
        Some(Known(Some(member)))
    }
}

/// Counts one until it is dropped.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's connection, counted until it is dropped where that is asked for.
#[derive(Debug)]
#[must_use]
pub struct Known(#[allow(dead_code)] Option<Member>);
