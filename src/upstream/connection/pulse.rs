//! Whether the server at the other end of an HTTP/2 connection is still there.
//!
//! A connection that carries requests and on which nothing is heard for a while is asked by a PING
//! (RFC 9113, section 6.7). Without a word for as long again it is given up, so that a server that
//! is gone, or a network that loses everything, holds requests no longer than that. A connection
//! that rests is not asked: it would cost a resting server its rest, and the first request on it
//! asks at once, since nothing was heard for long.
//!
//! Servers of gRPC count PINGs between which they sent nothing, and close a connection at the third
//! within five minutes each. So it is asked again only once something other than an answer to a PING
//! was heard, or after that time.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A PING that was answered and nothing else: a frame's header, and eight bytes.
const ANSWER: u64 = 9 + 8;
/// See the module.
const SELDOM: Duration = Duration::from_secs(301);
/// Looks at an unanswered connection before it is given up: between two of them the thread has read
/// all that had come, however late they are.
const LOOKS: u32 = 2;

/// How a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As it should be.
    Well,
    /// Asked, and silent so far: nothing new should be begun on it.
    Doubtful,
    /// Gone.
    Dead,
}

/// See the module.
pub struct Pulse {
    heard: Rc<Cell<u64>>,
    state: RefCell<State>,
}

struct State {
    pings: Option<PingPong>,
    /// What had been heard when it was looked at last, and since when it was no more.
    heard: u64,
    since: Instant,
    /// The last PING, and what had been heard by then.
    asked: Option<(Instant, u64)>,
    /// How often it was looked at since, in vain; `None`: it was answered.
    unanswered: Option<u32>,
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse").finish_non_exhaustive()
    }
}

impl Pulse {
    /// Of a connection that is read through [`Heard`].
    pub fn new(pings: Option<PingPong>, heard: Rc<Cell<u64>>) -> Self {
        let state = State {
            pings,
            heard: 0,
            since: Instant::now(),
            asked: None,
            unanswered: None,
        };
        Self {
            heard,
            state: RefCell::new(state),
        }
    }

    /// Looks, about once a second. `waiting`: something is to come. `limit`: for how long it may be
    /// silent before it is asked, and again before it is given up.
    pub fn look(&self, waiting: bool, limit: Duration) -> Condition {
        self.state
            .borrow_mut()
            .look(self.heard.get(), waiting, limit)
    }
}

impl State {
    fn look(&mut self, heard: u64, waiting: bool, limit: Duration) -> Condition {
        let now = Instant::now();
        if heard != self.heard {
            self.heard = heard;
            self.since = now;
            self.unanswered = None;
            return Condition::Well;
        }
        if let (Some(looks), Some((at, _))) = (&mut self.unanswered, self.asked) {
            *looks += 1;
            return match *looks >= LOOKS && now - at >= limit {
                true => Condition::Dead,
                false => Condition::Doubtful,
            };
        }
        let worth = self
            .asked
            .is_none_or(|(at, heard_then)| heard - heard_then > ANSWER || now - at >= SELDOM);
        if waiting && worth && now - self.since >= limit && self.ask() {
            self.asked = Some((now, heard));
            self.unanswered = Some(0);
        }
        Condition::Well
    }

    fn ask(&mut self) -> bool {
        let Some(pings) = &mut self.pings else {
            return false;
        };
        // Takes the answer to the one before, without which there can be no other.
        let _ = pings.poll_pong(&mut Context::from_waker(Waker::noop()));
        pings.send_ping(Ping::opaque()).is_ok()
    }
}

/// A byte stream that counts what is read.
pub struct Heard<I> {
    io: I,
    bytes: Rc<Cell<u64>>,
}

impl<I> Heard<I> {
    /// And the count.
    pub fn new(io: I) -> (Self, Rc<Cell<u64>>) {
        let bytes = Rc::new(Cell::new(0));
        let count = Rc::clone(&bytes);
        (Self { io, bytes }, count)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Heard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let count = buffer.filled().len() - before;
        self.bytes.set(self.bytes.get() + count as u64);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Heard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// A client's end, driven; and the server's, to be driven or not.
    async fn pair() -> (Pulse, tokio::io::DuplexStream) {
        let (near, far) = duplex(64 << 10);
        let (near, heard) = Heard::new(near);
        let (_sender, mut connection) = h2::client::handshake(near).await.unwrap();
        let pulse = Pulse::new(connection.ping_pong(), heard);
        tokio::task::spawn_local(async move {
            let _sender = _sender;
            let _ = connection.await;
        });
        (pulse, far)
    }

    async fn second() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true, flavor = "local")]
    async fn who_does_not_answer_is_dead() {
        let (pulse, _far) = pair().await;
        for _ in 0..20 {
            second().await;
            assert_eq!(pulse.look(false, LIMIT), Condition::Well, "nobody waits");
        }
        assert_eq!(pulse.look(true, LIMIT), Condition::Well, "asked");
        for _ in 0..4 {
            second().await;
            assert_eq!(pulse.look(true, LIMIT), Condition::Doubtful);
        }
        second().await;
        assert_eq!(pulse.look(true, LIMIT), Condition::Dead);
    }

    #[tokio::test(start_paused = true, flavor = "local")]
    async fn who_answers_lives_and_is_asked_seldom() {
        let (pulse, far) = pair().await;
        let (far, heard) = Heard::new(far);
        let mut server = h2::server::handshake(far).await.unwrap();
        tokio::task::spawn_local(async move { while server.accept().await.is_some() {} });
        second().await;
        assert_eq!(pulse.look(true, LIMIT), Condition::Well);
        let before = heard.get();
        for _ in 0..290 {
            second().await;
            assert_eq!(pulse.look(true, LIMIT), Condition::Well);
        }
        assert_eq!(heard.get() - before, ANSWER, "one PING");
        for _ in 0..290 {
            second().await;
            assert_eq!(pulse.look(true, LIMIT), Condition::Well);
        }
        assert_eq!(heard.get() - before, 2 * ANSWER, "another");
    }
}
