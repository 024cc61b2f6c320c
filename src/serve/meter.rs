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
//! It also watches that what is written gets away: a client that reads nothing at all would hold
//! what is buffered for it as long as it likes.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

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
/// What a reset costs: there was a request, which may have gone to an upstream.
const RESET: u32 = 8;

const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// What is left, for whoever asks.
#[derive(Clone, Debug)]
pub struct Tokens(Rc<Cell<u32>>);

impl Tokens {
    /// Whether there are none left: the client has overdone it.
    pub fn are_spent(&self) -> bool {
        self.0.get() == 0
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
            self.0.set(self.0.get().saturating_add(count).min(TOKENS));
        }
    }

    fn take(&self, count: u32) {
        self.0.set(self.0.get().saturating_sub(count));
    }
}

/// See the module.
#[derive(Debug)]
pub struct Meter<I> {
    io: I,
    scan: Scan,
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
            scan: Scan::default(),
            tokens: Tokens(Rc::new(Cell::new(TOKENS))),
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
        let seen = self.scan.see(bytes);
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

/// Follows the frames of one direction, whatever pieces they come in.
#[derive(Debug)]
struct Scan {
    /// Bytes that are of no interest: the preface, then payloads.
    skip: usize,
    head: [u8; FRAME_HEAD],
    have: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            head: [0; FRAME_HEAD],
            have: 0,
        }
    }
}

/// What some bytes had in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    cost: u32,
    /// Bytes of DATA.
    data: u64,
}

impl Scan {
    fn see(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (FRAME_HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + wanted].copy_from_slice(&bytes[..wanted]);
            self.have += wanted;
            bytes = &bytes[wanted..];
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.frame(&mut seen);
            }
        }
        seen
    }

    const fn frame(&mut self, seen: &mut Seen) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize;
        match kind {
            // An empty frame may end a stream.
            DATA if length == 0 => seen.cost += (flags & END_STREAM == 0) as u32,
            DATA => seen.data += length as u64,
            HEADERS => {}
            RST_STREAM => seen.cost += RESET,
            _ => seen.cost += 1,
        }
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
    fn frames_are_told_apart_however_they_arrive() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for (kind, flags, length) in [
            (4, 0, 12),  // SETTINGS
            (1, 4, 50),  // HEADERS
            (0, 0, 200), // DATA
            (0, 0, 0),   // empty
            (0, 1, 0),   // empty, the end
            (6, 0, 8),   // PING
            (3, 0, 4),   // RST_STREAM
            (9, 4, 30),  // CONTINUATION
        ] {
            bytes.extend(frame(kind, flags, length));
        }
        for step in 1..bytes.len() {
            let mut scan = Scan::default();
            let (mut cost, mut data) = (0, 0);
            for piece in bytes.chunks(step) {
                let seen = scan.see(piece);
                cost += seen.cost;
                data += seen.data;
            }
            assert_eq!((cost, data), (4 + RESET, 200), "{step}");
        }
    }

    #[test]
    fn tokens_are_spent_and_come_back_with_what_is_transferred() {
        let mut meter = Meter::new((), Duration::from_secs(1));
        meter.saw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        for _ in 0..TOKENS - 1 {
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
