//! One HTTP/2 connection of a client (RFC 9113), in one task: its streams share the connection's turn,
//! so that a client with a hundred streams gets no more of the thread than one with a single request.
//!
//! The engine is our own, because the proxy's requests and responses are: a field goes from the
//! frame it came in to the buffer that is written to the server, and back, with one copy each way.

pub mod budget;
mod client;
pub mod connection;
pub mod output;
pub mod request;
pub mod streams;
mod websocket;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_util::stream::{FuturesUnordered, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::Service;
use super::linger::{self, LINGER};
use crate::config::Timeouts;
use crate::drain::Guard;
use crate::http::RequestHead;
use crate::http::frame::{HEAD, MAX_PAYLOAD};
use crate::http::parse::HeadError;
use crate::metrics::{Limit, Timeout};
use crate::proxy::error::Refusal;
use crate::proxy::{self, Peer};
use crate::wire::{Buffer, Deadline, Rest};
use client::Http2Client;
use connection::{Connection, Fault};
use request::Bounds;

/// What a connection reads or writes before others have their turn: as much as is written at once.
const TURN: usize = output::FULL;
/// What may wait to be written while more is read: a client that does not read is not listened to.
const CROWDED: usize = output::FULL + (16 << 10);

/// Serves streams until one side closes.
pub async fn serve<I: AsyncRead + AsyncWrite + Unpin>(
    io: &mut I,
    service: &Service,
    peer: &Peer,
    guard: &Guard,
) {
    let mut serving = Serving::new(io, service, peer, guard);
    let end = poll_fn(|cx| serving.poll(cx)).await;
    serving.clear().await;
    match end {
        End::InOrder => linger::close(io, LINGER, true).await,
        // Time to read why. Nothing that still comes is read: it would cost us, and not them.
        End::Overdone => tokio::time::sleep(LINGER).await,
        End::Broken => {}
    }
}

/// The streams of a connection.
type Streams<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All was said on both sides.
    InOrder,
    /// The client asked too much.
    Overdone,
    /// There is nobody to say anything to.
    Broken,
}

/// A connection that is being served.
struct Serving<'a, I> {
    io: &'a mut I,
    service: &'a Service,
    peer: &'a Peer,
    guard: &'a Guard,
    connection: Rc<RefCell<Connection>>,
    streams: Streams<'a>,
    input: Buffer,
    requests: u64,
    requests_at_most: u64,
    timeouts: Timeouts,
    /// Until the client says what it is like; then while there is no stream.
    idle: Deadline,
    was_idle: bool,
    settled: bool,
    /// The client was asked to go.
    ending: bool,
    /// How it ends, once what was said is written.
    faulty: Option<End>,
    /// Nothing of what is to be written gets away.
    stalled: bool,
    stall: Deadline,
    /// What was read and written since the last rest.
    turn: usize,
    rest: Rest,
}

impl<'a, I: AsyncRead + AsyncWrite + Unpin> Serving<'a, I> {
    fn new(io: &'a mut I, service: &'a Service, peer: &'a Peer, guard: &'a Guard) -> Self {
        let (limits, timeouts) = {
            let world = service.local.world();
            (*world.limits(), *world.timeouts())
        };
        let bounds = Bounds {
            size: limits.request_head,
            fields: limits.request_fields,
        };
        let connection = Connection::new(bounds, limits.streams);
        let mut idle = Deadline::default();
        idle.set(timeouts.request_head);
        Self {
            io,
            service,
            peer,
            guard,
            connection: Rc::new(RefCell::new(connection)),
            streams: Streams::new(),
            input: Buffer::default(),
            requests: 0,
            requests_at_most: limits.requests_per_connection,
            timeouts,
            idle,
            was_idle: true,
            settled: false,
            ending: false,
            faulty: None,
            stalled: false,
            stall: Deadline::default(),
            turn: 0,
            rest: Rest::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        // What they have to say is sent below.
        self.poll_streams(cx);
        if let Poll::Ready(end) = self.poll_exchange(cx) {
            return Poll::Ready(end);
        }
        let is_written = self.connection.borrow().output.is_empty();
        if let Some(end) = self.faulty {
            return match is_written || self.idle.poll(cx).is_ready() {
                true => Poll::Ready(end),
                false => Poll::Pending,
            };
        }
        if is_written && self.connection.borrow().is_over() {
            return Poll::Ready(End::InOrder);
        }
        self.poll_time(cx)
    }

    /// Lets those streams go on that have something to go on with.
    fn poll_streams(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = Pin::new(&mut self.streams).poll_next(cx) {}
    }

    /// Reads what has come, lets it be worked on, and writes what there is to say, until there is no
    /// more of either.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.turn >= TURN {
                self.turn = 0;
                self.rest.begin(cx);
            }
            ready!(self.rest.poll());
            // Who does not read is not listened to.
            let listens = self.faulty.is_none() && self.connection.borrow().output.len() < CROWDED;
            let mut more = false;
            if listens && let Poll::Ready(result) = self.poll_read(cx) {
                match result {
                    Ok(true) => {}
                    Ok(false) => return Poll::Ready(self.gone()),
                    Err(fault) => self.blame(fault),
                }
                self.poll_streams(cx);
                more = true;
            }
            if let Err(error) = self.write(cx) {
                debug!(client = %self.peer.client, %error, "HTTP/2 connection");
                return Poll::Ready(End::Broken);
            }
            more |= !listens
                && self.faulty.is_none()
                && self.connection.borrow().output.len() < CROWDED;
            // After a turn's share, the rest of it follows when others have had theirs.
            if !more && self.turn < TURN {
                return Poll::Pending;
            }
        }
    }

    /// Reads once, and takes the frames that are whole. `false`: the client has closed.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        let count = match ready!(self.input.poll_read(cx, self.io, HEAD + MAX_PAYLOAD)) {
            Ok(0) | Err(_) => return Poll::Ready(Ok(false)),
            Ok(count) => count,
        };
        self.turn += count;
        let mut connection = self.connection.borrow_mut();
        loop {
            match connection.take(self.input.data()) {
                Ok(None) => break,
                Err(fault) => return Poll::Ready(Err(fault)),
                Ok(Some((taken, opened))) => {
                    self.input.consume(taken);
                    if let Some((slot, head)) = opened {
                        self.requests += 1;
                        let deadline = connection.deadlines.pop().unwrap_or_default();
                        let client = Http2Client::new(&self.connection, slot, deadline);
                        // Boxed: a set of large futures would make every connection large.
                        let serving = stream(client, head, self.service, self.peer);
                        self.streams.push(Box::pin(serving));
                    }
                    if connection.is_littered() {
                        drop(connection);
                        self.poll_streams(cx);
                        connection = self.connection.borrow_mut();
                        if connection.is_littered() {
                            return Poll::Ready(Err(Fault::Resets));
                        }
                    }
                }
            }
        }
        if !self.settled && connection.is_settled() {
            self.settled = true;
            self.idle.set(self.timeouts.idle);
        }
        Poll::Ready(Ok(true))
    }

    /// Writes what all streams have had to say since the last time, as far as it gets away, and has
    /// those go on that waited for room.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.turn < TURN {
            while self.connection.borrow_mut().grant() {
                self.poll_streams(cx);
            }
            let mut connection = self.connection.borrow_mut();
            match connection.output.poll_write(cx, self.io) {
                Poll::Ready(Ok(0)) => {
                    self.stalled = false;
                    break;
                }
                Poll::Ready(Ok(count)) => {
                    self.stalled = false;
                    self.turn += count;
                    connection.budget.transferred(count);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    if !self.stalled {
                        self.stalled = true;
                        self.stall.set(self.timeouts.send);
                    }
                    return match self.stall.poll(cx) {
                        Poll::Ready(()) => Err(ErrorKind::TimedOut.into()),
                        Poll::Pending => Ok(()),
                    };
                }
            }
        }
        Ok(())
    }

    /// The client has closed.
    fn gone(&self) -> End {
        let connection = self.connection.borrow();
        match connection.is_idle() && connection.output.is_empty() {
            true => End::InOrder,
            false => End::Broken,
        }
    }

    /// The client has done what it must not: it is told, and that is the end.
    fn blame(&mut self, fault: Fault) {
        let edge = self.service.local.edge();
        self.faulty = Some(match fault {
            Fault::Protocol(_) => End::InOrder,
            Fault::Frames => {
                edge.limit(Limit::Http2Frames);
                End::Overdone
            }
            Fault::Resets => {
                edge.limit(Limit::Streams);
                End::Overdone
            }
        });
        let code = fault.code();
        debug!(client = %self.peer.client, error = %code, "HTTP/2 frames that must not be");
        let mut connection = self.connection.borrow_mut();
        connection.close(code);
        connection.abandon();
        self.input = Buffer::default();
        self.idle.set(LINGER);
    }

    /// What ends a connection with time: idling, requests, a shutdown.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let edge = self.service.local.edge();
        if self.connection.borrow().is_provoked() {
            self.blame(Fault::Resets);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.settled {
            return self.idle.poll(cx).map(|()| {
                edge.timeout(Timeout::RequestHead);
                End::Broken
            });
        }
        if !self.ending && self.requests >= self.requests_at_most {
            edge.limit(Limit::RequestsPerConnection);
            self.farewell(cx);
        }
        if !self.ending && self.guard.poll_draining(cx).is_ready() {
            self.farewell(cx);
        }
        let is_idle = self.connection.borrow().is_idle();
        if is_idle && !self.was_idle {
            self.connection.borrow_mut().deadlines = Vec::new();
            self.idle.set(self.timeouts.idle);
        }
        self.was_idle = is_idle;
        if is_idle && self.idle.poll(cx).is_ready() {
            if self.ending {
                return Poll::Ready(End::Broken); // it was asked to go and did not
            }
            edge.timeout(Timeout::Idle);
            self.farewell(cx);
            self.idle.set(self.timeouts.request_head);
        }
        Poll::Pending
    }

    /// Asks the client to go.
    fn farewell(&mut self, cx: &Context<'_>) {
        self.ending = true;
        self.connection.borrow_mut().farewell();
        cx.waker().wake_by_ref();
    }

    /// Ends what is left of streams.
    async fn clear(mut self) {
        self.connection.borrow_mut().abandon();
        poll_fn(|cx| {
            self.poll_streams(cx);
            match self.streams.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Serves one request.
async fn stream(
    mut client: Http2Client,
    head: Result<RequestHead, Refusal>,
    service: &Service,
    peer: &Peer,
) {
    let asked = head.and_then(|mut head| client.ask(&mut head).map(|()| head));
    match asked {
        Ok(head) => {
            service.handle(peer, head, &mut client).await;
        }
        Err(refusal) => {
            proxy::refuse(&service.local, peer, &mut client, refusal.into()).await;
            if matches!(
                refusal,
                Refusal::Host | Refusal::Head(HeadError::Malformed(_))
            ) {
                client.reject();
            }
        }
    }
}
