//! What an HTTP/2 connection has to say: frames of all its streams, gathered until they have no
//! more for now, so that many small responses leave in one TLS record.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::http::frame::{Head, flag, kind};
use crate::wire::buffer::Store;

/// What is gathered of bodies at most: four full TLS records.
pub const FULL: usize = 64 << 10;

/// A place in all that a connection has said, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Output {
    pending: Store,
    /// What leaves by itself, when all that is pending has been written.
    apart: Vec<u8>,
    /// Bytes that were written.
    written: u64,
    /// Something was written that the stream may still hold back.
    unflushed: bool,
}

impl Output {
    /// How much is gathered, in bytes.
    pub const fn len(&self) -> usize {
        self.pending.len() + self.apart.len()
    }

    /// Whether nothing is gathered.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The memory, to append frames to.
    pub fn end(&mut self) -> &mut Vec<u8> {
        self.pending.end()
    }

    /// Appends a frame, and tells where it begins.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Place {
        let place = Place(self.written + self.pending.len() as u64);
        append(self.pending.end(), kind, flags, stream, payload);
        place
    }

    /// Appends a frame that does not share a TLS record with anything said before it.
    pub fn frame_apart(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        append(&mut self.apart, kind, flags, stream, payload);
    }

    /// Makes the frame there the last of its stream, if it has not been written yet.
    pub fn make_last(&mut self, Place(place): Place) -> bool {
        const FLAGS: usize = 4;
        let at = place.checked_sub(self.written);
        let at = at.and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| self.pending.get_mut(at + FLAGS)) {
            Some(flags) => {
                *flags |= flag::END_STREAM;
                true
            }
            None => false,
        }
    }

    /// Appends the end of a stream.
    pub fn end_stream(&mut self, stream: u32) {
        self.frame(kind::DATA, flag::END_STREAM, stream, &[]);
    }

    /// Writes some of what is gathered; how much. 0: there is no more, and all has been passed on.
    pub fn poll_write<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<usize>> {
        if self.pending.is_empty() && !self.apart.is_empty() {
            self.pending.end().append(&mut self.apart);
        }
        if self.pending.is_empty() {
            if self.unflushed {
                ready!(Pin::new(io).poll_flush(cx))?;
                self.unflushed = false;
            }
            self.pending.release();
            return Poll::Ready(Ok(0));
        }
        let count = ready!(Pin::new(io).poll_write(cx, self.pending.data()))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.unflushed = true;
        self.written += count as u64;
        self.pending.consume(count);
        Poll::Ready(Ok(count))
    }
}

fn append(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let head = Head {
        length: payload.len(),
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&head.bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_frame_becomes_the_last_until_it_is_written() {
        let mut output = Output::default();
        let mut sink = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        let first = output.frame(kind::DATA, 0, 1, b"one");
        assert!(output.poll_write(&mut cx, &mut sink).is_ready());
        let second = output.frame(kind::DATA, 0, 3, b"two");
        assert!(!output.make_last(first));
        assert!(output.make_last(second));
        assert!(output.poll_write(&mut cx, &mut sink).is_ready());
        let frames = [
            &b"\0\0\x03\0\0\0\0\0\x01one"[..],
            b"\0\0\x03\0\x01\0\0\0\x03two",
        ];
        assert_eq!(sink, frames.concat());
    }

    #[test]
    fn a_frame_apart_is_written_by_itself() {
        let mut output = Output::default();
        let mut sink = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        output.frame_apart(kind::RST_STREAM, 0, 1, b"last");
        output.frame(kind::DATA, 0, 1, b"one");
        assert_eq!(output.len(), 25);
        for end in [12, 25] {
            assert!(!output.is_empty());
            assert!(output.poll_write(&mut cx, &mut sink).is_ready());
            assert_eq!(sink.len(), end);
        }
        assert!(output.is_empty() && sink.ends_with(b"last"));
    }
}
