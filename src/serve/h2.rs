//! One HTTP/2 connection of a client (RFC 9113), in one task: its streams share the connection's turn,
//! so that a client with a hundred streams gets no more of the thread than one with a single request.

mod websocket;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::stream::{FuturesUnordered, Stream};
use h2::ext::Protocol;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::Service;
use super::gather::Gather;
use super::linger::{self, LINGER, Shared};
use super::meter::{Meter, Tokens};
use crate::drain::Guard;
use crate::http::field::{Fields, Id, is_token};
use crate::http::framing::may_be_trailer;
use crate::http::{Framing, Method, RequestHead, ResponseHead, Version};
use crate::metrics::{Limit, Timeout};
use crate::proxy::error::{Failure, Refusal};
use crate::proxy::{self, Client, Peer};
use crate::wire::{Body, Deadline, buffer};
use websocket::Opening;

/// What a client may send on one stream before it is read: bounds what a slow upstream makes us
/// hold (RFC 9113, section 5.2).
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What small DATA frames may cost that were not read yet, in `h2`'s measure: 256 less their length.
/// A stream's window is full of messages of eight bytes before it is reached. Half of a connection's
/// window, the library's own measure, ends gRPC and WebSockets that have much to say at once.
const DATA_FRAME_BUDGET: usize = STREAM_WINDOW as usize / 8 * 256;
/// What is held of one response for a client that reads slowly.
const SEND_BUFFER: usize = 128 << 10;
/// Streams that the client has reset and that still cost us something (CVE-2023-44487).
const MAX_RESETS: usize = 32;
/// Streams of a connection that the client's mistakes have made us reset (CVE-2025-8671).
const MAX_PROVOKED_RESETS: usize = 128;

/// Serves streams until one side closes.
pub async fn serve<I: AsyncRead + AsyncWrite + Unpin>(
    io: I,
    service: &Service,
    peer: &Peer,
    guard: &Guard,
) {
    let local = &service.local;
    let timeouts = *local.world().timeouts();
    let limits = *local.world().limits();
    let meter = Meter::new(io, timeouts.send);
    let tokens = meter.tokens();
    let mut io = Shared::new(Gather::new(meter));
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.request_head).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(DATA_FRAME_BUDGET)
        .enable_connect_protocol()
        .max_concurrent_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(Some(MAX_PROVOKED_RESETS))
        .max_pending_accept_reset_streams(MAX_RESETS);
    let handshake = tokio::time::timeout(
        timeouts.request_head,
        builder.handshake::<_, Bytes>(io.other()),
    );
    let mut connection = match handshake.await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            debug!(client = %peer.client, %error, "HTTP/2 preface");
            return;
        }
        Err(_) => {
            local.edge().timeout(Timeout::RequestHead);
            return;
        }
    };
    io.with(Gather::hold);
    let mut idle = Deadline::default();
    idle.set(timeouts.idle);
    let mut ending = false;
    let mut overdone = false;
    let mut was_idle = true;
    let mut requests = 0;
    let mut streams = Streams::new();
    let end = poll_fn(|cx| {
        // What they have to say is sent below.
        poll_streams(&mut streams, cx);
        let before = requests;
        loop {
            match connection.poll_accept(cx) {
                Poll::Pending => break,
                Poll::Ready(None) if overdone => return Poll::Ready(End::Overdone),
                Poll::Ready(None) => return Poll::Ready(End::InOrder),
                Poll::Ready(Some(Ok((request, respond)))) => {
                    requests += 1;
                    let (client, head) = open(request, respond, service, tokens.clone());
                    // Boxed: a set of large futures would make every connection large.
                    streams.push(Box::pin(stream(client, head, service, peer)));
                }
                Poll::Ready(Some(Err(error))) => {
                    if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        local.edge().limit(Limit::Streams);
                    }
                    debug!(client = %peer.client, %error, "HTTP/2 connection");
                    return Poll::Ready(End::Broken);
                }
            }
        }
        if let Some(reason) = tokens.overdrawn()
            && !overdone
        {
            overdone = true;
            if reason == Reason::ENHANCE_YOUR_CALM {
                local.edge().limit(Limit::Http2Frames);
            }
            debug!(client = %peer.client, %reason, "HTTP/2 frames that must not be");
            connection.abrupt_shutdown(reason);
            idle.set(LINGER);
            cx.waker().wake_by_ref();
        }
        if requests > before {
            poll_streams(&mut streams, cx);
        }
        // What all streams had to say since the last time goes out together.
        if let Poll::Ready(Err(error)) = io.with(|io| io.poll_release(cx)) {
            debug!(client = %peer.client, %error, "HTTP/2 connection");
            return Poll::Ready(End::Broken);
        }
        if overdone {
            // What was said may not get through to whoever overdid it.
            return idle.poll(cx).map(|()| End::Broken);
        }
        if !ending && requests >= limits.requests_per_connection {
            ending = true;
            local.edge().limit(Limit::RequestsPerConnection);
            connection.graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        if !ending && guard.poll_draining(cx).is_ready() {
            ending = true;
            connection.graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        let is_idle = !connection.has_streams();
        if is_idle && !was_idle {
            idle.set(timeouts.idle);
        }
        was_idle = is_idle;
        if is_idle && idle.poll(cx).is_ready() {
            if ending {
                return Poll::Ready(End::Broken); // it was asked to go and did not
            }
            local.edge().timeout(Timeout::Idle);
            ending = true;
            idle.set(timeouts.request_head);
            connection.graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
    // The connection's own end has let go of its half by now, and what is left of streams sees it.
    drop(connection);
    if end != End::InOrder {
        // Why it ends may still get through.
        poll_fn(|cx| Poll::Ready(io.with(|io| io.poll_release(cx).is_ready()))).await;
    }
    poll_fn(|cx| {
        poll_streams(&mut streams, cx);
        match streams.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    match end {
        End::InOrder => linger::close(&mut io, LINGER, true).await,
        // Time to read why. Nothing that still comes is read: it would cost us, and not them.
        End::Overdone => tokio::time::sleep(LINGER).await,
        End::Broken => {}
    }
}

/// The streams of a connection.
type Streams<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = ()> + 'a>>>;

/// Lets those streams go on that have something to go on with.
fn poll_streams(streams: &mut Streams<'_>, cx: &mut Context<'_>) {
    while let Poll::Ready(Some(())) = Pin::new(&mut *streams).poll_next(cx) {}
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All was said on both sides.
    InOrder,
    /// The client did what it must not.
    Overdone,
    /// There is nobody to say anything to.
    Broken,
}

/// A request, as the proxy sees it. What `h2` made of its head is let go of at once: hundreds may be
/// under way.
fn open(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    service: &Service,
    tokens: Tokens,
) -> (Http2Client, Result<RequestHead, Refusal>) {
    let (parts, body) = request.into_parts();
    let max_fields = service.local.world().limits().request_fields;
    let head = import(&parts, body.is_end_stream(), max_fields);
    let mut client = Http2Client {
        body,
        chunk: Bytes::new(),
        trailers: None,
        respond,
        send: None,
        held: Bytes::new(),
        tokens,
        tunnel: Tunnel::None,
    };
    let opened = head.and_then(|mut head| {
        if head.upgrade {
            client.tunnel = Tunnel::Asked(Opening::ask(&mut head)?);
        }
        Ok(head)
    });
    (client, opened)
}

async fn stream(
    mut client: Http2Client,
    head: Result<RequestHead, Refusal>,
    service: &Service,
    peer: &Peer,
) {
    match head {
        Ok(head) => service.handle(peer, head, &mut client).await,
        Err(refusal) => {
            proxy::refuse(&service.local, peer, &mut client, refusal.into()).await;
        }
    }
}

/// Brings a request into the form that the proxy works on. What `h2` has not refused already
/// (RFC 9113, section 8.2) is refused here: what HTTP/1.1 could read in two ways.
pub fn import(
    parts: &http::request::Parts,
    ended: bool,
    max_fields: usize,
) -> Result<RequestHead, Refusal> {
    use crate::http::parse::HeadError;

    if parts.headers.len() > max_fields {
        return Err(HeadError::TooManyFields.into());
    }
    let mut head = RequestHead::unread();
    head.version = Version::Http2;
    head.keep_alive = true;
    head.fields = Fields::with_capacity(1024);
    head.upgrade = is_websocket(parts)?;
    // RFC 8441, section 5: what asks for a WebSocket here is a GET elsewhere.
    let method = match head.upgrade {
        true => "GET",
        false => parts.method.as_str(),
    };
    head.method = Method::from_bytes(method.as_bytes());
    head.method_text = head.fields.store(method.as_bytes());
    let target = match (head.method, parts.uri.path_and_query()) {
        (Method::Connect, _) => "",
        (_, Some(target)) => target.as_str(),
        (_, None) => return Err(HeadError::Malformed("there is no :path").into()),
    };
    // `http` reads a query without a path, and `*` for any method, more kindly than it should.
    if !(target.starts_with('/')
        || (target == "*" && head.method == Method::Options)
        || head.method == Method::Connect)
    {
        return Err(HeadError::Malformed(":path is malformed").into());
    }
    head.target = head.fields.store(target.as_bytes());
    // RFC 9113, section 8.3.1: it could be any scheme, and this is a gateway to one kind.
    if (parts.uri.scheme_str()).is_some_and(|scheme| scheme != "https" && scheme != "http") {
        return Err(HeadError::Malformed(":scheme is neither https nor http").into());
    }
    let authority = authority(parts)?;
    head.authority = head.fields.store(authority);

    let mut length = None;
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        let value = value.as_bytes();
        // `http` takes a quotation mark for part of a name, which no token has (RFC 9110, section
        // 5.1).
        if !is_token(name.as_str().as_bytes()) {
            return Err(HeadError::Malformed("a field name is malformed").into());
        }
        // RFC 9113, section 8.2.1. The other characters that a value must not have, `h2` refuses.
        if value.trim_ascii().len() != value.len() {
            return Err(HeadError::Malformed("a field value begins or ends with a space").into());
        }
        match Id::of(name.as_str().as_bytes()) {
            Id::Host => continue,
            // RFC 9113, section 8.2.3: what was split for compression is one field elsewhere.
            Id::Cookie => {
                if !cookies.is_empty() {
                    cookies.extend_from_slice(b"; ");
                }
                cookies.extend_from_slice(value);
                continue;
            }
            Id::ContentLength if length.is_some() => {
                return Err(HeadError::Malformed("content-length is repeated").into());
            }
            Id::ContentLength => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                length = number.filter(|_| digits);
                if length.is_none() {
                    return Err(HeadError::Malformed("content-length is malformed").into());
                }
            }
            Id::Te => head.accepts_trailers |= value.eq_ignore_ascii_case(b"trailers"),
            Id::Expect => {
                head.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        head.fields.push(name.as_str().as_bytes(), value);
    }
    if !cookies.is_empty() {
        head.fields.push(b"Cookie", &cookies);
    }
    if head.upgrade {
        if length.is_some() {
            return Err(HeadError::Malformed("CONNECT has no body, and no content-length").into());
        }
        head.fields.push(b"Upgrade", websocket::PROTOCOL.as_bytes());
        return Ok(head); // what follows is the tunnel
    }
    head.framing = match (ended, length) {
        // RFC 9113, section 8.1.1. `h2` refuses it too; what came through would be a request that
        // its upstream waits to read the rest of.
        (true, Some(1..)) => {
            return Err(HeadError::Malformed("content-length without a body").into());
        }
        (true, _) | (false, Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Chunked,
    };
    Ok(head)
}

/// Whether the request asks for a WebSocket, by an extended CONNECT (RFC 8441, section 4).
fn is_websocket(parts: &http::request::Parts) -> Result<bool, Refusal> {
    match parts.extensions.get::<Protocol>() {
        None => Ok(false),
        Some(protocol) if protocol.as_str().eq_ignore_ascii_case(websocket::PROTOCOL) => Ok(true),
        Some(_) => Err(Refusal::Protocol),
    }
}

/// `:authority`, or `host` where there is none; both must say the same (RFC 9113, section 8.3.1).
fn authority(parts: &http::request::Parts) -> Result<&[u8], Refusal> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    let authority = parts
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    match (authority, host, hosts.next()) {
        (_, _, Some(_)) => Err(Refusal::Host),
        (Some(authority), Some(host), _) if !authority.eq_ignore_ascii_case(host) => {
            Err(Refusal::Host)
        }
        (Some(authority), _, _) => Ok(authority),
        (None, Some(host), _) => Ok(host),
        (None, None, _) => Err(Refusal::Host),
    }
}

/// One stream, as the proxy sees it.
struct Http2Client {
    body: RecvStream,
    /// The frame at hand, or what is left of it.
    chunk: Bytes,
    trailers: Option<Box<Fields>>,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    /// The last data, held back so that the end of the stream can go with it.
    held: Bytes,
    /// What is delivered pays for frames that carry nothing.
    tokens: Tokens,
    tunnel: Tunnel,
}

/// What the stream's data is.
#[derive(Debug, PartialEq, Eq)]
enum Tunnel {
    /// The bodies of request and response.
    None,
    /// Nothing yet: a WebSocket was asked for.
    Asked(Opening),
    /// What passes both ways.
    Open,
}

impl Http2Client {
    /// Passes the held data on.
    fn release(&mut self, end: bool) -> Result<(), Failure> {
        let held = std::mem::take(&mut self.held);
        match &mut self.send {
            Some(send) if end || !held.is_empty() => {
                self.tokens.carried();
                send.send_data(held, end).map_err(|_| Failure::ClientGone)
            }
            _ => Ok(()),
        }
    }
}

impl Client for Http2Client {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Failure>> {
        if matches!(self.tunnel, Tunnel::Asked(_)) {
            return Poll::Ready(Ok(Body::End)); // of the request: it has none
        }
        if self.tokens.fault().is_some() {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        while self.chunk.is_empty() {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
                None => {
                    return match ready!(self.body.poll_trailers(cx)) {
                        Err(_) => Poll::Ready(Err(Failure::ClientGone)),
                        Ok(trailers) => {
                            self.trailers = trailers.and_then(|map| import_trailers(&map));
                            Poll::Ready(Ok(Body::End))
                        }
                    };
                }
            }
        }
        Poll::Ready(Ok(Body::Data))
    }

    fn data(&self) -> &[u8] {
        &self.chunk
    }

    fn consume(&mut self, count: usize) {
        self.chunk.advance(count);
        // Fails only where the stream is gone, which shows elsewhere.
        let _ = self.body.flow_control().release_capacity(count);
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.send {
            Some(send) => send.poll_reset(cx).map(|_| ()),
            None => self.respond.poll_reset(cx).map(|_| ()),
        }
    }

    fn interim(&mut self, head: ResponseHead) {
        if let Some(response) = export(head) {
            let _ = self.respond.send_informational(response);
        }
    }

    fn start(&mut self, mut head: ResponseHead, upgrade: bool) -> Result<(), Failure> {
        match &self.tunnel {
            Tunnel::Asked(opening) if upgrade => opening.accepted(&mut head)?,
            Tunnel::Asked(_) => Opening::declined(head.status)?,
            // HTTP/2 has no other `Upgrade` (RFC 9113, section 8.6), so nobody can have asked.
            Tunnel::None | Tunnel::Open => debug_assert!(!upgrade),
        }
        let end = head.framing == Framing::None && !upgrade;
        let Some(response) = export(head) else {
            use crate::http::parse::HeadError;
            return Err(Failure::BadHead(HeadError::Malformed(
                "a field cannot be sent in HTTP/2",
            )));
        };
        let send = self
            .respond
            .send_response(response, end)
            .map_err(|_| Failure::ClientGone)?;
        self.send = (!end).then_some(send);
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Failure>> {
        self.release(false)?;
        let Some(send) = &mut self.send else {
            return Poll::Ready(Ok(data.len())); // the body of a response to HEAD
        };
        send.reserve_capacity(data.len().min(SEND_BUFFER));
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Failure::ClientGone)),
            }
        }
        let count = send.capacity().min(data.len());
        self.held = buffer::copy(&data[..count]);
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self, trailers: Option<Box<Fields>>) {
        self.tokens.responded();
        let _ = self.release(trailers.is_none());
        if let (Some(trailers), Some(send)) = (trailers, &mut self.send) {
            let _ = send.send_trailers(export_fields(&trailers));
        }
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // The connection's own task writes; flow control holds us back, not the socket.
        Poll::Ready(self.release(false))
    }

    fn begin_tunnel(&mut self) {
        self.tunnel = Tunnel::Open;
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        let _ = self.release(true);
        Poll::Ready(())
    }

    fn abort(&mut self) {
        let reason = match self.tunnel {
            // RFC 8441, section 5: what a reset of the TCP connection would be.
            Tunnel::Open => Reason::CANCEL,
            Tunnel::None | Tunnel::Asked(_) => Reason::INTERNAL_ERROR,
        };
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    fn last(&mut self) {}
}

fn import_trailers(map: &HeaderMap) -> Option<Box<Fields>> {
    let mut fields = Fields::default();
    for (name, value) in map {
        let name = name.as_str().as_bytes();
        if may_be_trailer(Id::of(name)) && is_token(name) {
            fields.push(name, value.as_bytes());
        }
    }
    (!fields.is_empty()).then(|| Box::new(fields))
}

/// `None` where the status cannot be sent.
fn export(head: ResponseHead) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *response.headers_mut() = export_fields(&head.fields);
    Some(response)
}

/// A field that HTTP/2 has no room for (RFC 9113, section 8.2.1) is left out: a server's slip must
/// not cost the response.
fn export_fields(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (id, name, value) in fields.iter() {
        if matches!(
            id,
            Id::Connection | Id::KeepAlive | Id::ProxyConnection | Id::Upgrade
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
