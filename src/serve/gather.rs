//! Gathers what an HTTP/2 connection writes, so that the responses of many streams leave together.
//!
//! `h2` writes and flushes after each DATA frame that it does not copy: a TLS record and a system
//! call for each small response, although dozens may be ready. Here flushing waits until the
//! connection's task says that it has no more for now.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::{Rest, Writer};

/// What a connection writes before others have their turn.
const TURN: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub struct Gather<I> {
    io: I,
    writer: Writer,
    /// Flushing waits for [`poll_release`](Self::poll_release).
    holds: bool,
    /// Taken since the last rest.
    taken: usize,
    rest: Rest,
}

impl<I: AsyncWrite + Unpin> Gather<I> {
    /// Holds nothing back until [`hold`](Self::hold).
    pub fn new(io: I) -> Self {
        let writer = Writer::default();
        Self {
            io,
            writer,
            holds: false,
            taken: 0,
            rest: Rest::default(),
        }
    }

    /// From now on, only [`poll_release`](Self::poll_release) and closing flush.
    pub const fn hold(&mut self) {
        self.holds = true;
    }

    /// Writes what was gathered, and gives its memory back.
    pub fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.writer.poll_flush(cx, &mut self.io))?;
        self.writer.release();
        Poll::Ready(Ok(()))
    }

    /// Takes data, unless this turn has had its share.
    fn poll_take(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.taken >= TURN {
            self.taken = 0;
            self.rest.begin(cx);
        }
        ready!(self.rest.poll());
        let count = ready!(self.writer.poll_data(cx, &mut self.io, data))?;
        self.taken += count;
        Poll::Ready(Ok(count))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gather<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Gather<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match data.is_empty() {
            true => Poll::Ready(Ok(0)),
            false => self.poll_take(cx, data),
        }
    }

    /// Takes as many of the pieces as it can without waiting.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            match self.poll_take(cx, piece) {
                Poll::Ready(Ok(count)) => {
                    taken += count;
                    if count < piece.len() {
                        break;
                    }
                }
                // What was taken is told first; the rest is asked for again.
                Poll::Pending | Poll::Ready(Err(_)) if taken > 0 => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.holds {
            true => Poll::Ready(Ok(())),
            false => self.poll_release(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
