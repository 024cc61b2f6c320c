//! A stream that can wait with what is written, so that it leaves with what comes next: each write
//! to a socket is a packet, and wakes the other side.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Socket;

/// What is kept at most: one full TLS record (RFC 8446, section 5.2) and a small one.
const MOST: usize = 17 << 10;

/// Whom a response is written to.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// What is written from now on may wait for the end of the stream, which follows at once.
    fn ends(&mut self) {}

    /// Ready where a read may find something, or where this cannot tell: a read that finds nothing
    /// costs more.
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cork<I: AsyncWrite + Unpin> {
    io: I,
    kept: Vec<u8>,
    keeping: bool,
    /// What is kept waits although there is nothing to read.
    patient: bool,
}

impl Stream for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.get_ref().poll_read_ready(cx).map(|_| ())
    }
}

impl Cork<Socket> {
    /// Like [`Stream::poll_readable`]; ready also where something is kept, which a read sends.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.kept.is_empty() {
            true => self.io.poll_readable(cx),
            false => Poll::Ready(()),
        }
    }
}

impl<I: AsyncWrite + Unpin> Cork<I> {
    /// Keeps nothing yet.
    pub const fn new(io: I) -> Self {
        Self {
            io,
            kept: Vec::new(),
            keeping: false,
            patient: false,
        }
    }

    /// Keeps what is written from now on, until the other side has to say something, the stream
    /// ends, or it is too much.
    pub const fn keep(&mut self) {
        self.keeping = true;
    }

    /// Keeps no more than it has; that goes with what is written next, or before anybody waits for
    /// the other side.
    pub const fn stop(&mut self) {
        self.keeping = false;
    }

    /// What is kept waits for what is written next in any case: that will be soon.
    pub const fn wait(&mut self) {
        self.patient = true;
    }

    /// Writes what is kept, and these after it; how much of them.
    fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while !self.kept.is_empty() {
            let mut all = Vec::with_capacity(data.len() + 1);
            all.push(IoSlice::new(&self.kept));
            all.extend_from_slice(data);
            let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if count < self.kept.len() {
                self.kept.drain(..count);
                continue;
            }
            let count = count - self.kept.len();
            self.kept = Vec::new();
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        match data {
            [one] => Pin::new(&mut self.io).poll_write(cx, one),
            several => Pin::new(&mut self.io).poll_write_vectored(cx, several),
        }
    }

    /// Writes what is kept.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.kept))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.kept.drain(..count);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether this was kept.
    fn kept(&mut self, data: &[u8]) -> bool {
        if self.keeping && self.kept.len() + data.len() <= MOST {
            self.kept.extend_from_slice(data);
            return true;
        }
        self.keeping = false;
        false
    }
}

impl<I: AsyncWrite + Unpin> Drop for Cork<I> {
    /// The alert that ends a handshake may be kept (RFC 8446, section 6.2). Nobody waits for it any
    /// more, so it goes now or never.
    fn drop(&mut self) {
        if !self.kept.is_empty() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.io).poll_write(&mut cx, &self.kept);
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Cork<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        // The other side may be waiting for it.
        if read.is_pending() && !this.patient && (this.keeping || !this.kept.is_empty()) {
            this.keeping = false;
            if let Poll::Ready(Err(error)) = this.poll_release(cx) {
                return Poll::Ready(Err(error));
            }
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Cork<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.kept(data) {
            true => Poll::Ready(Ok(data.len())),
            false => self.poll_through(cx, &[IoSlice::new(data)]),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for piece in data {
            if !self.kept(piece) {
                break;
            }
            count += piece.len();
        }
        // Where it was too much for all of them, the rest comes again.
        match count {
            0 => self.poll_through(cx, data),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.keeping {
            return Poll::Ready(Ok(()));
        }
        if !this.patient {
            ready!(this.poll_release(cx))?;
        }
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.keeping = false;
        ready!(this.poll_release(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    async fn arrived(far: &mut DuplexStream) -> Vec<u8> {
        let mut seen = vec![0; 64 << 10];
        poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut seen);
            match Pin::new(&mut *far).poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Ready(Vec::new()),
                Poll::Ready(read) => {
                    read.unwrap();
                    Poll::Ready(buffer.filled().to_vec())
                }
            }
        })
        .await
    }

    async fn waits(cork: &mut Cork<DuplexStream>) {
        poll_fn(|cx| {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            assert!(Pin::new(&mut *cork).poll_read(cx, &mut buffer).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_kept_goes_with_what_is_written_next() {
        let (near, mut far) = duplex(1 << 20);
        let mut cork = Cork::new(near);
        cork.write_all(b"flight").await.unwrap();
        assert_eq!(arrived(&mut far).await, b"flight");
        cork.keep();
        cork.write_all(b"ticket ").await.unwrap();
        cork.flush().await.unwrap();
        cork.stop();
        cork.wait();
        waits(&mut cork).await;
        assert_eq!(arrived(&mut far).await, b"");
        cork.write_all(b"response").await.unwrap();
        assert_eq!(arrived(&mut far).await, b"ticket response");
        cork.write_all(b"more").await.unwrap();
        assert_eq!(arrived(&mut far).await, b"more");
    }

    #[tokio::test]
    async fn it_goes_before_anybody_waits_for_the_other_side() {
        let (near, mut far) = duplex(1 << 20);
        let mut cork = Cork::new(near);
        cork.keep();
        cork.write_all(b"finished").await.unwrap();
        waits(&mut cork).await;
        assert_eq!(arrived(&mut far).await, b"finished");
        cork.write_all(b"x").await.unwrap();
        assert_eq!(arrived(&mut far).await, b"x");
    }

    #[tokio::test]
    async fn it_goes_with_the_end_and_without_one_too_if_it_is_much() {
        let (near, mut far) = duplex(1 << 20);
        let mut cork = Cork::new(near);
        cork.keep();
        let much = vec![b'a'; MOST];
        cork.write_all(&much).await.unwrap();
        assert_eq!(arrived(&mut far).await, b"");
        cork.write_all(b"b").await.unwrap();
        assert_eq!(arrived(&mut far).await.len(), MOST + 1);

        cork.keep();
        cork.write_all(b"the end").await.unwrap();
        cork.shutdown().await.unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"the end");
    }

    #[tokio::test]
    async fn it_goes_when_the_stream_is_let_go_of() {
        let (near, mut far) = duplex(1 << 20);
        let mut cork = Cork::new(near);
        cork.keep();
        cork.write_all(b"alert").await.unwrap();
        drop(cork);
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"alert");
    }

    #[tokio::test]
    async fn nothing_is_lost_where_only_little_is_taken_at_once() {
        let (near, mut far) = duplex(3);
        let mut cork = Cork::new(near);
        cork.keep();
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        });
        cork.write_all(b"kept and ").await.unwrap();
        cork.stop();
        let rest = [IoSlice::new(b"not "), IoSlice::new(b"kept")];
        let count = cork.write_vectored(&rest).await.unwrap();
        assert!((1..=8).contains(&count), "{count}");
        cork.write_all(&b"not kept"[count..]).await.unwrap();
        cork.shutdown().await.unwrap();
        assert_eq!(reading.await.unwrap(), b"kept and not kept");
    }
}
