//! Stopping: each connection of a worker is told, and counted until it is gone.
//!
//! Everything here belongs to one thread. A connection holds a [`Guard`] for as long as it is open,
//! tunnels included, and asks it whether the end has come.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// The process will go in a moment. Those over HTTP/1.1 are told with their next response, so that
    /// few of them rest when it does; nothing else changes.
    Soon,
    /// The process is about to go: those that rest are closed.
    Now,
    /// There is time. Those that rest over HTTP/1.1 are told with their next response, or left to
    /// their idle timeout: one that is closed may just be bringing a request, and HTTP/1.1 has no
    /// way to say that it was not taken.
    Gently,
}

/// Whether this worker is stopping, and which connections are still open.
#[derive(Debug, Default)]
pub struct Draining {
    told: Cell<Option<Manner>>,
    open: Cell<usize>,
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    /// Whoever waits for the last connection.
    emptied: Option<Waker>,
}

impl Draining {
    /// Tells all connections, now and in future.
    pub fn begin(&self, manner: Manner) {
        self.told.set(Some(manner));
        let wakers: Vec<_> = self
            .slots
            .borrow_mut()
            .wakers
            .iter_mut()
            .filter_map(Option::take)
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether it has begun, and nothing is to begin any more.
    pub const fn has_begun(&self) -> bool {
        matches!(self.told.get(), Some(Manner::Gently | Manner::Now))
    }

    /// Connections that are open.
    pub const fn open(&self) -> usize {
        self.open.get()
    }

    /// A guard for a connection that was just accepted.
    pub fn guard(self: &Rc<Self>) -> Guard {
        self.open.set(self.open.get() + 1);
        let mut slots = self.slots.borrow_mut();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.wakers.push(None);
            slots.wakers.len() - 1
        });
        Guard {
            draining: Rc::clone(self),
            slot,
        }
    }

    /// Ready once no connection is open.
    pub fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.get() == 0 {
            return Poll::Ready(());
        }
        self.slots.borrow_mut().emptied = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One open connection.
#[derive(Debug)]
pub struct Guard {
    draining: Rc<Draining>,
    slot: usize,
}

impl Guard {
    /// Whether the end has come, or comes soon: the next response is the last one.
    pub fn is_draining(&self) -> bool {
        self.draining.told.get().is_some()
    }

    /// Ready once the end has come, for a connection that rests and has no other way to be told.
    pub fn poll_closing(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.draining.told.get() == Some(Manner::Now) {
            return Poll::Ready(());
        }
        self.listen(cx);
        Poll::Pending
    }

    /// Ready once the end has come.
    pub fn poll_draining(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.draining.has_begun() {
            return Poll::Ready(());
        }
        self.listen(cx);
        Poll::Pending
    }

    /// To be woken when the end has come, or comes sooner than was said.
    fn listen(&self, cx: &Context<'_>) {
        let waker = &mut self.draining.slots.borrow_mut().wakers[self.slot];
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let open = self.draining.open.get() - 1;
        self.draining.open.set(open);
        let mut slots = self.draining.slots.borrow_mut();
        slots.wakers[self.slot] = None;
        slots.free.push(self.slot);
        let emptied = if open == 0 {
            slots.emptied.take()
        } else {
            None
        };
        drop(slots);
        if let Some(waker) = emptied {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn every_connection_is_told_and_waited_for() {
        let draining = Rc::new(Draining::default());
        let (first, second) = (draining.guard(), draining.guard());
        let connection = async {
            poll_fn(|cx| first.poll_draining(cx)).await;
            drop(first);
        };
        let stop = async {
            draining.begin(Manner::Now);
            assert_eq!(draining.open(), 2);
            assert!(second.is_draining());
            drop(second);
            poll_fn(|cx| draining.poll_empty(cx)).await;
        };
        tokio::join!(connection, stop);
        assert_eq!(draining.open(), 0);
    }

    #[tokio::test]
    async fn gently_leaves_those_that_rest() {
        let draining = Rc::new(Draining::default());
        let guard = draining.guard();
        draining.begin(Manner::Gently);
        assert!(guard.is_draining());
        poll_fn(|cx| guard.poll_draining(cx)).await;
        let closing = poll_fn(|cx| Poll::Ready(guard.poll_closing(cx))).await;
        assert!(closing.is_pending());
    }

    #[tokio::test]
    async fn soon_changes_nothing_but_the_next_response() {
        let draining = Rc::new(Draining::default());
        let guard = draining.guard();
        draining.begin(Manner::Soon);
        assert!(guard.is_draining() && !draining.has_begun());
        let told = poll_fn(|cx| Poll::Ready(guard.poll_draining(cx))).await;
        assert!(told.is_pending());
    }

    #[tokio::test]
    async fn those_that_were_left_are_told_when_it_gets_serious() {
        let draining = Rc::new(Draining::default());
        let guard = draining.guard();
        draining.begin(Manner::Gently);
        let resting = poll_fn(|cx| guard.poll_closing(cx));
        tokio::join!(resting, async {
            tokio::task::yield_now().await;
            draining.begin(Manner::Now);
        });
    }
}
