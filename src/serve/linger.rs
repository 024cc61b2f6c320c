//! Closing a connection in order.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::Framing;
use crate::wire::{Body, Deadline, Reader};

/// How long a closing connection waits for the client to have read all and close too.
pub const LINGER: Duration = Duration::from_secs(2);

/// Closes the sending side, then reads what the client still sends, for a while: closing over
/// unread data would reset the connection and could take the end of the response away from the
/// client (RFC 9112, section 9.6). What was not yet sent has `send` for it. A client from which
/// nothing more is expected is not waited for, unless something of it is there already.
pub async fn close<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I, send: Duration, wait: bool) {
    let mut deadline = Deadline::default();
    deadline.set(send);
    let mut ignored = Reader::default();
    ignored.begin_body(Framing::UntilClose);
    let mut said = false;
    poll_fn(|cx| {
        if !said {
            match Pin::new(&mut *io).poll_shutdown(cx) {
                Poll::Ready(Ok(())) => {
                    said = true;
                    deadline.set(LINGER);
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return deadline.poll(cx),
            }
        }
        loop {
            match ignored.poll_body(cx, io) {
                // Looked at between two reads: a client that never pauses ends all the same.
                Poll::Ready(Ok(Body::Data)) if !deadline.has_passed() => {
                    let count = ignored.data().len();
                    ignored.consume(count);
                }
                Poll::Pending if wait => return deadline.poll(cx),
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(()),
            }
        }
    })
    .await;
}

/// A stream that outlives who it was given to, so that it can be closed in order afterwards. Of one
/// thread, and never borrowed across a wait.
#[derive(Debug)]
pub struct Shared<I>(Rc<RefCell<I>>);

impl<I> Shared<I> {
    /// Shares a stream.
    pub fn new(io: I) -> Self {
        Self(Rc::new(RefCell::new(io)))
    }

    /// Another end of the same stream.
    pub fn other(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    /// Does something with the stream itself.
    pub fn with<T>(&self, act: impl FnOnce(&mut I) -> T) -> T {
        act(&mut self.0.borrow_mut())
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Shared<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Shared<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}
