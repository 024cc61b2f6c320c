//! HTTP/2 to a server: many exchanges at once on one connection of a worker.
//!
//! The connection is driven by a task of its own; an exchange is a stream of it, and ends with a
//! reset when it is let go early.

use std::cell::{Cell, OnceCell};
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::client::{self, Builder, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::uri::{self, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::io::Io;
use super::pulse::{Condition, Heard, Pulse};
use crate::http::field::{Fields, Id, is_token};
use crate::http::{Framing, Method, RequestHead, ResponseHead};
use crate::upstream::{Open, Server};
use crate::wire::{Body, ReadError, buffer};

/// Bytes that a server may send on one stream before we have passed them on.
const STREAM_WINDOW: u32 = 256 << 10;
/// And on one connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What small DATA frames may cost that were not read yet, in `h2`'s measure: 256 less their length.
/// Messages of eight bytes fill two streams' windows before: one client that reads slowly must not
/// end the connection for all others.
const DATA_FRAME_BUDGET: usize = 2 * STREAM_WINDOW as usize / 8 * 256;
/// Streams that a server is taken to allow before it has said how many: no server should allow fewer
/// (RFC 9113, section 6.5.2).
const STREAMS: usize = 100;
/// Bytes of a response's head that are let in.
const MAX_HEAD: u32 = 128 << 10;
/// Bytes of one stream that wait to be written.
const SEND_BUFFER: usize = 64 << 10;

/// A connection, as all its exchanges share it.
#[derive(Debug)]
pub struct Shared {
    sender: SendRequest<Bytes>,
    open: Open,
    streams: Cell<usize>,
    /// Nobody begins another exchange on it.
    retired: Cell<bool>,
    /// It has carried an exchange.
    used: Cell<bool>,
    /// When its last exchange ended.
    rests_since: Cell<Instant>,
    pulse: Pulse,
    /// It was asked whether it is there, and is silent so far.
    doubtful: Cell<bool>,
    /// And was for too long.
    given_up: Cell<bool>,
    /// The task that drives it.
    driver: OnceCell<AbortHandle>,
}

impl Shared {
    /// Makes a connection over a byte stream, and has it driven by a task of this thread.
    pub async fn connect(io: Io, open: Open) -> Result<Rc<Self>, h2::Error> {
        let (io, heard) = Heard::new(io);
        let (sender, mut connection) = handshake(io).await?;
        let pulse = Pulse::new(connection.ping_pong(), heard);
        let shared = Rc::new(Self {
            sender,
            open,
            streams: Cell::new(0),
            retired: Cell::new(false),
            used: Cell::new(false),
            rests_since: Cell::new(Instant::now()),
            pulse,
            doubtful: Cell::new(false),
            given_up: Cell::new(false),
            driver: OnceCell::new(),
        });
        let watched = Rc::downgrade(&shared);
        let driver = tokio::task::spawn_local(async move {
            let _ = connection.await;
            if let Some(shared) = watched.upgrade() {
                shared.retired.set(true);
            }
        });
        let _ = shared.driver.set(driver.abort_handle());
        Ok(shared)
    }

    /// Whether another exchange can begin on it.
    pub fn has_room(&self) -> bool {
        !self.retired.get()
            && !self.doubtful.get()
            && self.streams.get() < self.sender.current_max_send_streams()
    }

    /// Looks whether the server is still there; `limit` is for how long it may say nothing while
    /// exchanges wait, before it is asked and again after. False: it is not, and what waited for it
    /// has failed.
    pub fn tend(&self, limit: Duration) -> bool {
        if self.retired.get() && self.streams.get() == 0 {
            return true; // it is about to be let go
        }
        let condition = self.pulse.look(self.streams.get() > 0, limit);
        self.doubtful.set(condition != Condition::Well);
        if condition != Condition::Dead {
            return true;
        }
        self.retired.set(true);
        self.given_up.set(true);
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
        false
    }

    /// Whether it is of no more use: nobody can begin an exchange, or nobody has for long.
    pub fn is_over(&self, keep: Duration) -> bool {
        self.streams.get() == 0 && (self.retired.get() || self.rests_since.get().elapsed() >= keep)
    }

    /// Begins an exchange.
    pub fn exchange(self: &Rc<Self>) -> Http2 {
        self.streams.set(self.streams.get() + 1);
        let reused = self.used.replace(true);
        let shared = Rc::clone(self);
        Http2::new(self.sender.clone(), shared, reused)
    }
}

/// Speaks HTTP/2 over a byte stream: a handle to ask by, and what has to be polled.
async fn handshake<I>(io: I) -> Result<(SendRequest<Bytes>, client::Connection<I>), h2::Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(DATA_FRAME_BUDGET)
        .initial_max_send_streams(STREAMS)
        .handshake(io)
        .await
}

/// HTTP/2 has no words for a request.
#[derive(Clone, Copy, Debug)]
pub struct Unsayable;

/// One exchange.
#[derive(Debug)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
    shared: Rc<Shared>,
    reused: bool,
    sent: bool,
    send: Option<SendStream<Bytes>>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    chunk: Bytes,
    trailers: Option<Box<Fields>>,
    ended: bool,
    /// Why the request could not even begin.
    failed: Option<io::Error>,
}

impl Http2 {
    fn new(sender: SendRequest<Bytes>, shared: Rc<Shared>, reused: bool) -> Self {
        Self {
            sender,
            shared,
            reused,
            sent: false,
            send: None,
            response: None,
            body: None,
            chunk: Bytes::new(),
            trailers: None,
            ended: false,
            failed: None,
        }
    }

    /// See [`Connection`](super::Connection), as for all that follow.
    pub fn server(&self) -> &Arc<Server> {
        self.shared.open.server()
    }

    /// Whether the connection has carried an exchange before this one.
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether the server may have done anything about the request.
    pub const fn has_sent(&self) -> bool {
        self.sent
    }

    /// Lets nobody begin another exchange on the connection.
    pub fn retire(&mut self) {
        self.shared.retired.set(true);
    }

    /// Sends the head of a request.
    ///
    /// # Errors
    /// When HTTP/2 has no words for it, which says nothing of the server or the connection.
    pub fn send_head(&mut self, head: &RequestHead) -> Result<(), Unsayable> {
        let end = head.framing == Framing::None;
        let scheme = match self.server().tls {
            Some(_) => "https",
            None => "http",
        };
        let request = match head.authority() {
            // Only HTTP/1.0 may name no host, and HTTP/2 has to.
            [] => export(head, scheme, self.server().host().as_bytes()),
            authority => export(head, scheme, authority),
        };
        let request = request.ok_or(Unsayable)?;
        match self.sender.send_request(request, end) {
            Ok((response, send)) => {
                self.response = Some(response);
                self.send = (!end).then_some(send);
                self.sent = true;
            }
            Err(error) => self.failed = Some(io::Error::other(error)),
        }
        Ok(())
    }

    /// See [`Connection`](super::Connection).
    pub fn is_given_up(&self) -> bool {
        self.shared.given_up.get()
    }

    /// Takes data of the request's body; how much.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.send else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        send.reserve_capacity(data.len().min(SEND_BUFFER));
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = send.capacity().min(data.len());
        let sent = send.send_data(buffer::copy(&data[..count]), false);
        Poll::Ready(sent.map(|()| count).map_err(io::Error::other))
    }

    /// Sends the end of the request's body. That it cannot is told with the response.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        let Some(mut send) = self.send.take() else {
            return;
        };
        let _ = match trailers {
            Some(trailers) => send.send_trailers(fields_out(trailers)),
            None => send.send_data(Bytes::new(), true),
        };
    }

    /// Waits for the head of a response, interim ones included.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        to: Method,
    ) -> Poll<Result<ResponseHead, ReadError>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error.into()));
        }
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(ReadError::Closed));
        };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
            let (parts, ()) = interim.into_parts();
            return Poll::Ready(Ok(import(&parts, Framing::None)));
        }
        let response = match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                // It says that it has done nothing about it (RFC 9113, sections 6.8 and 8.7).
                let untouched = error.is_remote()
                    && (error.reason() == Some(Reason::REFUSED_STREAM)
                        || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)));
                self.sent = !untouched;
                if untouched {
                    self.retire();
                }
                return Poll::Ready(Err(io::Error::other(error).into()));
            }
        };
        let (parts, body) = response.into_parts();
        let length = content_length(&parts);
        let framing = match (to, parts.status.as_u16(), length) {
            (Method::Head, ..) | (_, 204 | 304, _) | (_, _, Some(0)) => Framing::None,
            _ if body.is_end_stream() => Framing::None,
            (_, _, Some(length)) => Framing::Length(length),
            (_, _, None) => Framing::Chunked,
        };
        self.response = None;
        self.ended = body.is_end_stream();
        self.body = Some(body);
        let mut head = import(&parts, framing);
        if head.status == 204 {
            head.fields.remove(Id::ContentLength); // RFC 9110, section 8.6: must not be there
        }
        Poll::Ready(Ok(head))
    }

    /// Waits for data of the response's body, or its end.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, ReadError>> {
        while self.chunk.is_empty() {
            let Some(body) = self.body.as_mut().filter(|_| !self.ended) else {
                return Poll::Ready(Ok(Body::End));
            };
            match ready!(body.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error).into())),
                None => {
                    let trailers = ready!(body.poll_trailers(cx)).map_err(io::Error::other)?;
                    self.trailers = trailers.map(|map| Box::new(fields_in(&map)));
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok(Body::Data))
    }

    /// The data that [`poll_body`](Self::poll_body) found.
    pub fn data(&self) -> &[u8] {
        &self.chunk
    }

    /// Drops data from the front.
    pub fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
        if let Some(body) = &mut self.body {
            // Fails only where the stream is gone, which shows elsewhere.
            let _ = body.flow_control().release_capacity(count);
        }
    }

    /// The trailer section, once the body is over.
    pub const fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.streams.set(shared.streams.get() - 1);
        shared.rests_since.set(Instant::now());
    }
}

/// `None` where HTTP/2 has no words for it.
fn export(head: &RequestHead, scheme: &str, authority: &[u8]) -> Option<Request<()>> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme.parse().ok()?);
    parts.authority = Some(authority.try_into().ok()?);
    let target = PathAndQuery::try_from(head.target());
    parts.path_and_query = Some(match target {
        Ok(target) => target,
        Err(_) => PathAndQuery::try_from(encoded(head.target())).ok()?,
    });
    let mut request = Request::new(());
    *request.method_mut() = http::Method::from_bytes(head.method_text()).ok()?;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = fields_out(&head.fields);
    if head.accepts_trailers {
        request
            .headers_mut()
            .insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    Some(request)
}

/// A target without what must not be in one (RFC 3986, section 2): HTTP/1.1 passes it on as it came,
/// as other proxies do, but `http` does not take it.
fn encoded(target: &[u8]) -> String {
    let mut encoded = String::with_capacity(3 * target.len());
    for byte in target {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => {
                encoded.push(char::from(*byte));
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// A field that HTTP/2 has no room for (RFC 9113, section 8.2.1) is left out.
fn fields_out(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (id, name, value) in fields.iter() {
        if matches!(
            id,
            Id::Host
                | Id::Connection
                | Id::KeepAlive
                | Id::ProxyConnection
                | Id::TransferEncoding
                | Id::Upgrade
                | Id::Te
        ) {
            continue;
        }
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

fn fields_in(map: &HeaderMap) -> Fields {
    let mut fields = Fields::with_capacity(1024);
    for (name, value) in map {
        let name = name.as_str().as_bytes();
        // `http` takes a quotation mark for part of a name, which HTTP/1.1 does not know.
        if is_token(name) {
            fields.push(name, value.as_bytes());
        }
    }
    fields
}

fn import(parts: &http::response::Parts, framing: Framing) -> ResponseHead {
    let status = parts.status;
    let reason = status.canonical_reason().unwrap_or_default();
    ResponseHead::own(status.as_u16(), reason, framing, fields_in(&parts.headers))
}

fn content_length(parts: &http::response::Parts) -> Option<u64> {
    let value = parts.headers.get(http::header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}
