//! What a client does on an HTTP/2 connection besides asking: counted, and bounded.
//!
//! `h2` answers PING and SETTINGS, takes notice of priorities and windows, and forgets streams that
//! are reset, and tells nobody. A client that does nothing else costs more than it pays. A
//! [`Meter`] lies beneath `h2`, sees the heads of the frames that come by, and takes one token for
//! each that carries nothing: PING, SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, CONTINUATION,
//! empty DATA, and what it does not know. Tokens come back with time, with data that is really
//! transferred and with pieces and responses that are delivered; so an honest client never runs out of them (RFC
//! 9113, section 10.5; CVE-2019-9511 to -9518, CVE-2023-44487, CVE-2024-27316).
//!
//! What breaks the rules of the protocol and `h2` lets pass is told by [`Frames`], and ends the
//! connection.
//!
//! It also watches that what is written gets away: a client that reads nothing at all would hold
//! what is buffered for it as long as it likes.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::frames::Frames;
use crate::wire::Deadline;

/// Tokens of a connection that has just begun, and the most it can have.
pub const TOKENS: u32 = 2000;
/// Tokens that come back each second.
const PER_SECOND: u32 = 100;
/// Bytes whose transfer brings a token back. Windows are opened at least every few KiB.
const BYTES: u64 = 256;
/// Tokens that a stream brings back when its response was delivered.
const PER_RESPONSE: u32 = 4;
/// Tokens that a piece of a response brings back: a simple client opens its two windows for each,
/// however small it is.
const PER_PIECE: u32 = 2;

/// What is left, and what was wrong, for whoever asks.
#[derive(Clone, Debug)]
pub struct Tokens(Rc<Account>);

#[derive(Debug)]
struct Account {
    left: Cell<u32>,
    fault: Cell<Option<Reason>>,
}

impl Tokens {
    fn new() -> Self {
        Self(Rc::new(Account {
            left: Cell::new(TOKENS),
            fault: Cell::new(None),
        }))
    }

    /// Whether there are none left: the client has overdone it.
    fn are_spent(&self) -> bool {
        self.0.left.get() == 0
    }

    /// What broke the rules. Nothing that comes behind it is to be believed.
    pub fn fault(&self) -> Option<Reason> {
        self.0.fault.get()
    }

    /// Why the connection is to end.
    pub fn overdrawn(&self) -> Option<Reason> {
        let spent = self.are_spent().then_some(Reason::ENHANCE_YOUR_CALM);
        self.fault().or(spent)
    }

    /// A response was delivered.
    pub fn responded(&self) {
        self.give(PER_RESPONSE);
    }

    /// A piece of a response was delivered.
    pub fn carried(&self) {
        self.give(PER_PIECE);
    }

    fn give(&self, count: u32) {
        // Once they are spent, the connection is over.
        if !self.are_spent() {
            let left = &self.0.left;
            left.set(left.get().saturating_add(count).min(TOKENS));
        }
    }

    fn take(&self, count: u32) {
        self.0.left.set(self.0.left.get().saturating_sub(count));
    }
}

/// See the module.
#[derive(Debug)]
pub struct Meter<I> {
    io: I,
    frames: Frames,
    tokens: Tokens,
    /// When tokens last came back with time.
    since: Instant,
    /// Bytes transferred that have not brought a token back yet.
    bytes: u64,
    /// How long writing may wait.
    patience: Duration,
    stalled: Deadline,
    stalling: bool,
}

impl<I> Meter<I> {
    /// Counts what comes over this stream. `patience`: how long a write may wait.
    pub fn new(io: I, patience: Duration) -> Self {
        Self {
            io,
            frames: Frames::default(),
            tokens: Tokens::new(),
            since: Instant::now(),
            bytes: 0,
            patience,
            stalled: Deadline::default(),
            stalling: false,
        }
    }

    /// What is left.
    pub fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    fn transferred(&mut self, bytes: u64) {
        self.bytes += bytes;
        let tokens = u32::try_from(self.bytes / BYTES).unwrap_or(u32::MAX);
        self.bytes %= BYTES;
        self.tokens.give(tokens);
    }

    fn saw(&mut self, bytes: &[u8]) {
        let seen = self.frames.see(bytes);
        if seen.fault.is_some() && self.tokens.fault().is_none() {
            self.tokens.0.fault.set(seen.fault);
        }
        if seen.cost > 0 {
            let seconds = self.since.elapsed().as_secs();
            if seconds > 0 {
                self.since = Instant::now();
                let back = u32::try_from(seconds).unwrap_or(u32::MAX);
                self.tokens.give(back.saturating_mul(PER_SECOND));
            }
            self.tokens.take(seen.cost);
        }
        self.transferred(seen.data);
    }

    /// Watches that writing goes on.
    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Pending => {
                if !self.stalling {
                    self.stalling = true;
                    self.stalled.set(self.patience);
                }
                self.stalled
                    .poll(cx)
                    .map(|()| Err(ErrorKind::TimedOut.into()))
            }
            Poll::Ready(result) => {
                self.stalling = false;
                if let Ok(count) = &result {
                    self.transferred(*count as u64);
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Meter<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if result.is_ready() {
            self.saw(&buf.filled()[before..]);
        }
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Meter<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_flush(cx);
        self.wrote(cx, result.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        frame.resize(frame.len() + usize::from(length), 7);
        frame
    }

    #[test]
    fn tokens_are_spent_and_come_back_with_what_is_transferred() {
        let mut meter = Meter::new((), Duration::from_secs(1));
        meter.saw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        meter.saw(&frame(4, 0, 0));
        for _ in 0..TOKENS - 2 {
            meter.saw(&frame(6, 0, 8));
        }
        assert!(!meter.tokens().are_spent());
        meter.saw(&frame(0, 0, 255));
        meter.saw(&frame(0, 0, 255));
        meter.saw(&frame(6, 0, 8));
        assert!(!meter.tokens().are_spent());
        meter.saw(&frame(6, 0, 8));
        assert!(meter.tokens().are_spent());
        meter.tokens().responded();
        assert!(meter.tokens().are_spent());
    }
}
