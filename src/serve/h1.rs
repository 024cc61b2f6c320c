//! One HTTP/1.1 connection of a client (RFC 9112): requests one after the other, in one task.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::Service;
use super::linger;
use crate::drain::Guard;
use crate::http::encode::{self, Connection};
use crate::http::field::{Fields, Id};
use crate::http::framing::BodyError;
use crate::http::{Framing, Method, RequestHead, ResponseHead, Version, parse};
use crate::metrics::{Limit, Timeout};
use crate::proxy::error::{Failure, Refusal};
use crate::proxy::{self, Client, Peer, Snapshot};
use crate::wire::cork::Stream;
use crate::wire::{Body, Deadline, Message, ReadError, Reader, Writer};

/// What of an unwanted body is read so that the connection can be kept.
const MAX_DISCARD: u64 = 256 << 10;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// In order: all was said.
    Close,
    /// The same, and the client has said that it has nothing more to say.
    Done,
    /// The client has gone, or must see that it did not get all.
    Abort,
}

/// A connection of a client that speaks it.
pub struct Http1<I> {
    io: I,
    reader: Reader,
    writer: Writer,
    deadline: Deadline,
}

impl<I: Stream> Http1<I> {
    /// One on which nothing has been said.
    pub fn new(io: I) -> Self {
        Self {
            io,
            reader: Reader::default(),
            writer: Writer::default(),
            deadline: Deadline::default(),
        }
    }

    /// What it is spoken over.
    pub const fn stream(&mut self) -> &mut I {
        &mut self.io
    }

    /// Serves requests until one side closes.
    pub async fn serve(&mut self, service: &Service, peer: &Peer, guard: &Guard) {
        let mut requests = 0;
        // When the last one was over.
        let mut since = None;
        let end = loop {
            if let Some(end) = self.idle(service, guard, since).await {
                break end;
            }
            requests += 1;
            // Boxed: a connection idles most of its life, and need not carry this with it. It is made
            // where it will be, and not moved there.
            let exchange = Box::new_uninit();
            let exchange = Box::write(exchange, self.exchange(service, peer, guard, requests));
            match Box::into_pin(exchange).await {
                Ok(ended) => since = Some(ended),
                Err(end) => break end,
            }
        };
        if end != End::Abort {
            Box::pin(self.close(service, end == End::Done)).await;
        }
    }

    /// Waits for a request to begin. A connection that has had none yet is not cut by a shutdown:
    /// its client could not know whether its request was taken.
    async fn idle(
        &mut self,
        service: &Service,
        guard: &Guard,
        since: Option<Instant>,
    ) -> Option<End> {
        if self.reader.has_leftover() {
            return None;
        }
        let fresh = since.is_none();
        let world = service.local.world();
        match since {
            None => self.deadline.set(world.timeouts().request_head),
            Some(since) => self.deadline.set_from(since, world.timeouts().idle),
        }
        drop(world); // it may be another one before a request comes
        self.writer.release();
        poll_fn(|cx| {
            if let Poll::Ready(result) = self.reader.poll_start(cx, &mut self.io) {
                return Poll::Ready(match result {
                    Ok(()) => None,
                    Err(ReadError::Closed) => Some(End::Close),
                    Err(_) => Some(End::Abort),
                });
            }
            if !fresh && guard.poll_closing(cx).is_ready() {
                return Poll::Ready(Some(End::Close));
            }
            if self.deadline.poll(cx).is_ready() {
                let kind = if fresh {
                    Timeout::RequestHead
                } else {
                    Timeout::Idle
                };
                service.local.edge().timeout(kind);
                return Poll::Ready(Some(End::Close));
            }
            Poll::Pending
        })
        .await
    }

    /// One request and its response; when that was over, or how the connection ends.
    async fn exchange(
        &mut self,
        service: &Service,
        peer: &Peer,
        guard: &Guard,
        count: u64,
    ) -> Result<Instant, End> {
        let world = service.local.world();
        let last = count >= world.limits().requests_per_connection;
        if last {
            service.local.edge().limit(Limit::RequestsPerConnection);
        }
        let head = self.head(service, &world).await;
        drop(world); // it may be another one when the request is served
        let head = match head {
            Ok(head) => head,
            Err(ReadError::Head(error)) => return self.refuse(service, peer, error.into()).await,
            Err(ReadError::Body(_)) => {
                return self.refuse(service, peer, Refusal::HeadTimeout).await;
            }
            Err(_) => return Err(End::Abort),
        };
        self.reader.begin_body(head.framing);
        let leaves = !head.keep_alive;
        let mut client = Http1Client {
            version: head.version,
            method: head.method,
            keep: head.keep_alive && !last,
            awaits_continue: head.expects_continue && head.framing != Framing::None,
            guard: Some(guard),
            aborted: false,
            tunnel: false,
            finished: false,
            connection: self,
        };
        let mut ended = service.handle(peer, head, &mut client).await;
        let (mut keep, aborted, tunnel) = (client.keep, client.aborted, client.tunnel);
        if keep && !aborted && !tunnel && !self.reader.is_end() {
            keep = self.discard(service).await;
            ended = Instant::now();
        }
        match () {
            () if aborted || tunnel => Err(End::Abort),
            () if keep => Ok(ended),
            () if leaves && self.reader.is_end() && !self.reader.has_leftover() => Err(End::Done),
            () => Err(End::Close),
        }
    }

    /// Reads a head within its time. A timeout is a [`ReadError::Body`], which nothing else here
    /// can be.
    async fn head(
        &mut self,
        service: &Service,
        world: &Snapshot,
    ) -> Result<RequestHead, ReadError> {
        let limits = world.limits();
        self.deadline.set(world.timeouts().request_head);
        poll_fn(|cx| {
            let parsed = self.reader.poll_head(
                cx,
                &mut self.io,
                limits.request_head,
                Message::Request,
                |head| parse::request(head, limits.request_fields),
            );
            if parsed.is_pending() && self.deadline.poll(cx).is_ready() {
                service.local.edge().timeout(Timeout::RequestHead);
                return Poll::Ready(Err(BodyError::Truncated.into()));
            }
            parsed
        })
        .await
    }

    /// Answers what could not be read; nothing after it can be either.
    async fn refuse(
        &mut self,
        service: &Service,
        peer: &Peer,
        refusal: Refusal,
    ) -> Result<Instant, End> {
        let mut client = Http1Client {
            version: Version::Http11,
            method: Method::Other,
            keep: false,
            awaits_continue: false,
            guard: None,
            aborted: false,
            tunnel: false,
            finished: false,
            connection: self,
        };
        proxy::refuse(&service.local, peer, &mut client, refusal.into()).await;
        Err(End::Close)
    }

    /// Whether more of the request's body is to come than is read where nobody wants it.
    fn is_too_much(&self) -> bool {
        (self.reader.remaining()).is_some_and(|left| left > MAX_DISCARD)
    }

    /// Reads what is left of a body that nobody wanted; whether that brought it to its end.
    async fn discard(&mut self, service: &Service) -> bool {
        if self.is_too_much() {
            return false;
        }
        self.deadline
            .set(service.local.world().timeouts().request_body);
        let mut read = 0;
        poll_fn(|cx| {
            while read <= MAX_DISCARD {
                match self.reader.poll_body(cx, &mut self.io) {
                    Poll::Pending if self.deadline.poll(cx).is_pending() => return Poll::Pending,
                    Poll::Pending | Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Ready(Ok(Body::End)) => return Poll::Ready(true),
                    Poll::Ready(Ok(Body::Data)) => {
                        let count = self.reader.data().len();
                        self.reader.consume(count);
                        read += count as u64;
                    }
                }
            }
            Poll::Ready(false)
        })
        .await
    }

    /// Closes in order, after what is gathered.
    async fn close(&mut self, service: &Service, done: bool) {
        let send = service.local.world().timeouts().send;
        self.deadline.set(send);
        let flushed = poll_fn(|cx| match self.writer.poll_flush(cx, &mut self.io) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending => self.deadline.poll(cx).map(|()| false),
        });
        if flushed.await {
            linger::close(&mut self.io, send, !done).await;
        }
    }
}

/// One exchange, as the proxy sees it.
struct Http1Client<'a, I> {
    connection: &'a mut Http1<I>,
    version: Version,
    /// The request's.
    method: Method,
    /// The connection can carry another request.
    keep: bool,
    /// The client waits for `100 (Continue)` before it sends the body.
    awaits_continue: bool,
    /// Tells when this connection is to end; `None` where it ends anyway.
    guard: Option<&'a Guard>,
    aborted: bool,
    tunnel: bool,
    /// The response has been gathered to its end.
    finished: bool,
}

impl<I: Stream> Client for Http1Client<'_, I> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Failure>> {
        self.connection
            .reader
            .poll_body(cx, &mut self.connection.io)
            .map_err(|error| match error {
                ReadError::Body(BodyError::Truncated) => Failure::ClientGone,
                ReadError::Body(error) => Failure::ClientBody(error),
                _ => Failure::ClientGone,
            })
    }

    fn data(&self) -> &[u8] {
        self.connection.reader.data()
    }

    fn consume(&mut self, count: usize) {
        self.awaits_continue = false;
        self.connection.reader.consume(count);
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.connection.reader.take_trailers()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Of a body that is still to come, the end is what a client that is there may well send.
        if !self.connection.reader.is_end() {
            return Poll::Pending;
        }
        self.connection
            .reader
            .poll_gone(cx, &mut self.connection.io)
    }

    fn interim(&mut self, mut head: ResponseHead) {
        // RFC 9110, section 15.2: HTTP/1.0 has no interim responses.
        if self.version == Version::Http10 {
            return;
        }
        if head.status == 100 {
            self.awaits_continue = false;
        }
        head.fields.remove_hop_by_hop();
        self.connection.writer.head(|out| {
            encode::response(out, &head, false, Connection::Default, None);
        });
    }

    fn start(&mut self, mut head: ResponseHead, upgrade: bool) -> Result<(), Failure> {
        let writer = &mut self.connection.writer;
        if upgrade {
            let protocol = head.fields.get(Id::Upgrade).unwrap_or_default().to_vec();
            head.fields.remove_hop_by_hop();
            writer.head(|out| {
                encode::response(out, &head, false, Connection::Upgrade, Some(&protocol));
            });
            return Ok(());
        }
        // HTTP/2 ends a response with its head where it has no body, and need not say how long that
        // is. Here it would last until the connection ends (RFC 9112, section 6.3).
        if head.framing == Framing::None
            && self.method != Method::Head
            && !matches!(head.status, 204 | 304)
            && head.fields.get(Id::ContentLength).is_none()
        {
            head.fields.push(b"Content-Length", b"0");
        }
        let unbounded = matches!(head.framing, Framing::Chunked | Framing::UntilClose);
        let chunked = unbounded && self.version != Version::Http10;
        // Asked as late as can be: the shutdown may have begun while the request was served.
        let draining = self.guard.is_some_and(Guard::is_draining);
        // A client that was not told to continue may send its body all the same, or not (RFC 9110,
        // section 10.1.1): what comes next could be either.
        if (unbounded && !chunked) || draining || self.awaits_continue {
            self.keep = false;
        }
        let connection = match (self.keep, self.version) {
            (false, _) => Connection::Close,
            (true, Version::Http10) => Connection::KeepAlive,
            (true, _) => Connection::Default,
        };
        writer.head(|out| encode::response(out, &head, chunked, connection, None));
        writer.begin_body(chunked);
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Failure>> {
        let count = ready!(
            self.connection
                .writer
                .poll_data(cx, &mut self.connection.io, data)
        )?;
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self, trailers: Option<Box<Fields>>) {
        self.connection.writer.finish(trailers.as_deref());
        self.finished = true;
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.finished && !self.keep {
            // What is left of it goes with the end of the connection.
            self.connection.io.ends();
        }
        ready!(
            self.connection
                .writer
                .poll_flush(cx, &mut self.connection.io)
        )?;
        Poll::Ready(Ok(()))
    }

    fn begin_tunnel(&mut self) {
        self.tunnel = true;
        self.connection.reader.begin_body(Framing::UntilClose);
        self.connection.writer.begin_body(false);
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(
            self.connection
                .writer
                .poll_flush(cx, &mut self.connection.io)
        )
        .is_err()
        {
            return Poll::Ready(());
        }
        let _ = ready!(Pin::new(&mut self.connection.io).poll_shutdown(cx));
        Poll::Ready(())
    }

    fn abort(&mut self) {
        self.aborted = true;
    }

    fn last(&mut self) {
        self.keep = false;
    }

    fn leave_body(&mut self) {
        self.keep &= !self.connection.is_too_much();
    }

    fn deadline(&mut self) -> &mut Deadline {
        &mut self.connection.deadline
    }
}
