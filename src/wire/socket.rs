//! TCP with the fewest instructions: each request needs it four times.
//!
//! In a process with several threads, the C library makes of each `send` and `recv` a point at which
//! its thread can be cancelled, with two locked instructions around each. Nobody is cancelled here, so
//! the kernel is asked without it.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// See the module. All that is rare goes through the stream beneath.
#[derive(Debug)]
pub struct Socket(TcpStream);

impl Socket {
    /// Takes a stream over.
    pub const fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// The stream beneath.
    pub const fn get_ref(&self) -> &TcpStream {
        &self.0
    }

    /// Does what can move up to `most` bytes; how many it moved, at least one where the end has not
    /// come. `None`: none for now. A call that moved fewer has emptied or filled the socket (the
    /// reactor is told of edges), so that there is no need to ask again before something happens:
    /// that is what it is told, as tokio does it.
    fn attempt(
        &self,
        interest: Interest,
        most: usize,
        call: impl FnOnce() -> rustix::io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let mut moved = None;
        let result = self.0.try_io(interest, || {
            let count = call()?;
            moved = Some(count);
            match (1..most).contains(&count) {
                true => Err(ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        });
        match result {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(moved),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            let most = room.len();
            let call = || recv(&self.0, room, RecvFlags::empty()).map(|(_, count)| count);
            if let Some(count) = self.attempt(Interest::READABLE, most, call)? {
                buf.advance(count);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            let call = || send(&self.0, data, SendFlags::NOSIGNAL);
            if let Some(count) = self.attempt(Interest::WRITABLE, data.len(), call)? {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Short reads and writes leave the reactor to say when there is more; nothing may get lost, and
    /// nobody may wait for ever.
    #[tokio::test]
    async fn what_one_end_writes_the_other_reads_to_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        let (mut near, mut far) = (Socket::new(near.unwrap()), Socket::new(far.unwrap().0));
        let sent: Vec<u8> = (0..8 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        let write = async {
            // More than the buffers of the kernel hold, then little by little.
            let (much, little) = sent.split_at(sent.len() - 1000);
            near.write_all(much).await.unwrap();
            for piece in little.chunks(7) {
                near.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            near.shutdown().await.unwrap();
        };
        let read = async {
            let (mut got, mut room) = (Vec::new(), vec![0; 9000]);
            loop {
                match far.read(&mut room).await.unwrap() {
                    0 => return got,
                    count => got.extend_from_slice(&room[..count]),
                }
            }
        };
        let ((), got) = tokio::join!(write, read);
        assert!(got == sent);
    }
}
