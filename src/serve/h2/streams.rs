//! The streams of one connection (RFC 9113, section 5.1).

use std::collections::VecDeque;
use std::task::{Context, Waker};

use super::output::Place;
use crate::http::field::Fields;
use crate::http::frame::ErrorCode;
use crate::wire::buffer::Store;

/// Streams that are remembered when they have ended: frames of them may be under way.
const REMEMBERED: usize = 128;

/// Where a stream is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// A stream under way: there is a request, and somebody at work on it.
#[derive(Debug, Default)]
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What came of the request's body and was not taken yet.
    pub body: Store,
    /// What the client may still send.
    pub receive_window: i32,
    /// What of its window was used and may be used again, which it has not been told.
    pub unreleased: u32,
    /// What the client may be sent. Below 0 where its settings took something back.
    pub send_window: i32,
    /// What is still to come of the body, where that was said.
    pub announced: Option<u64>,
    /// The client has said all.
    pub remote_ended: bool,
    /// We have.
    pub local_ended: bool,
    /// It ended at once.
    pub reset: Option<Reset>,
    /// The trailer section of the request.
    pub trailers: Option<Box<Fields>>,
    /// The last frame of data, which may become the last of the stream.
    pub last_data: Option<Place>,
    /// It has a place in the queue.
    pub queued: bool,
    /// It is its turn.
    pub granted: bool,
    /// Of who works on it.
    pub waker: Option<Waker>,
}

/// By whom a stream was ended at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The client has had enough.
    Remote,
    /// We have.
    Local(ErrorCode),
}

impl Stream {
    /// Has its task woken by what happens next.
    pub fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Something has happened.
    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// What is known of a stream that is not under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// It has not begun.
    Idle,
    /// Both sides have ended it, or the client has.
    Closed,
    /// We have ended it at once, or before the client had; or it is long ago: the client may not know.
    Forgotten,
    /// It was passed over, and cannot begin any more.
    Skipped,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Streams {
    slots: Vec<Stream>,
    free: Vec<usize>,
    /// Those under way, by number.
    index: Vec<(u32, usize)>,
    /// Those that have ended, and whether more of them may come.
    past: VecDeque<(u32, bool)>,
    /// The last that is not remembered any more.
    forgotten: u32,
    /// The last that began.
    last: u32,
    /// Those under way that the client has reset.
    dying: usize,
}

impl Streams {
    /// How many are under way that the client still wants.
    pub fn wanted(&self) -> usize {
        self.index.len() - self.dying
    }

    /// How many are under way that the client has reset.
    pub const fn dying(&self) -> usize {
        self.dying
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The last that began.
    pub const fn last(&self) -> u32 {
        self.last
    }

    /// One begins, whatever becomes of it.
    pub const fn begin(&mut self, id: u32) {
        self.last = id;
    }

    /// Where a stream is held that is under way.
    pub fn find(&self, id: u32) -> Option<Slot> {
        let at = self.index.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(Slot(self.index[at].1))
    }

    /// What has become of a stream that is not under way.
    pub fn past(&self, id: u32) -> Past {
        // Those with even numbers are the server's to begin (RFC 9113, section 5.1.1), and none does.
        if id > self.last || id.is_multiple_of(2) {
            return Past::Idle;
        }
        match self.past.iter().rev().find(|&&(past, _)| past == id) {
            Some((_, true)) => Past::Forgotten,
            Some((_, false)) => Past::Closed,
            None if id <= self.forgotten => Past::Forgotten,
            None => Past::Skipped,
        }
    }

    /// Holds a stream, which is the last that began.
    pub fn insert(&mut self, stream: Stream) -> Slot {
        let id = stream.id;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                self.slots.len() - 1
            }
        };
        self.index.push((id, slot));
        Slot(slot)
    }

    /// The stream that is held there.
    pub fn get(&mut self, Slot(slot): Slot) -> &mut Stream {
        &mut self.slots[slot]
    }

    /// All that are under way.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        let slots = &mut self.slots;
        slots.iter_mut().filter(|stream| stream.id != 0)
    }

    /// The client has ended one at once.
    pub fn reset(&mut self, slot: Slot) {
        let stream = self.get(slot);
        if stream.reset.is_none() {
            stream.reset = Some(Reset::Remote);
            stream.wake();
            self.dying += 1;
        }
    }

    /// Lets go of a stream on which nobody works any more.
    pub fn remove(&mut self, Slot(slot): Slot) -> Stream {
        let stream = std::mem::take(&mut self.slots[slot]);
        if let Ok(at) = self.index.binary_search_by_key(&stream.id, |&(id, _)| id) {
            self.index.remove(at);
        }
        self.free.push(slot);
        if stream.reset == Some(Reset::Remote) {
            self.dying -= 1;
        }
        // What the client had still to say may come.
        let owed = !stream.remote_ended && stream.reset.is_none();
        let ours = matches!(stream.reset, Some(Reset::Local(_)));
        self.remember(stream.id, ours || owed);
        if self.index.is_empty() && self.slots.len() > 8 {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
        stream
    }

    /// Remembers a stream that has ended. `open`: what the client says of it may still come.
    pub fn remember(&mut self, id: u32, open: bool) {
        if self.past.len() == REMEMBERED
            && let Some((oldest, _)) = self.past.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.past.push_back((id, open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(id: u32) -> Stream {
        Stream {
            id,
            remote_ended: true,
            ..Stream::default()
        }
    }

    #[test]
    fn what_has_become_of_a_stream_is_known_for_a_while() {
        let mut streams = Streams::default();
        assert_eq!(streams.past(1), Past::Idle);
        streams.begin(5);
        let slot = streams.insert(stream(5));
        assert_eq!(streams.find(5), Some(slot));
        assert_eq!(streams.past(3), Past::Skipped);
        assert_eq!(streams.past(4), Past::Idle);
        streams.remove(slot);
        assert_eq!((streams.find(5), streams.past(5)), (None, Past::Closed));
        streams.begin(7);
        streams.remember(7, true);
        assert_eq!(streams.past(7), Past::Forgotten);
        for id in (9..).step_by(2).take(REMEMBERED) {
            streams.begin(id);
            streams.remember(id, false);
        }
        assert_eq!(streams.past(5), Past::Forgotten);
        assert_eq!(streams.past(streams.last()), Past::Closed);
    }

    #[test]
    fn a_stream_that_was_reset_is_not_counted_as_wanted() {
        let mut streams = Streams::default();
        let slots = [1, 3, 5].map(|id| {
            streams.begin(id);
            streams.insert(stream(id))
        });
        streams.reset(slots[1]);
        streams.reset(slots[1]);
        assert_eq!((streams.wanted(), streams.dying()), (2, 1));
        streams.remove(slots[1]);
        assert_eq!((streams.wanted(), streams.dying()), (2, 0));
        assert_eq!(streams.iter_mut().map(|stream| stream.id).sum::<u32>(), 6);
        streams.remove(slots[0]);
        assert_eq!(streams.find(5), Some(slots[2]));
    }
}
