//! One HTTP/1.1 connection to a server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::io::Io;
use crate::http::{Framing, Method, RequestHead, ResponseHead, encode, field::Fields, parse};
use crate::upstream::pool::ClientId;
use crate::upstream::{Open, Server};
use crate::wire::{Body, Message, ReadError, Reader, Writer};

/// Bytes of a response's head that are let in.
const MAX_HEAD: usize = 128 << 10;

/// A connection, and where its present exchange stands.
#[derive(Debug)]
pub struct Http1 {
    io: Io,
    open: Open,
    reader: Reader,
    writer: Writer,
    /// It has carried an exchange before this one.
    reused: bool,
    /// Whose own it is, where the server was told whose connection it has.
    client: Option<ClientId>,
    /// The response allows another request after it.
    keep_alive: bool,
    request_sent: bool,
}

impl Http1 {
    /// A connection that was just made.
    pub fn new(io: Io, open: Open, client: Option<ClientId>) -> Self {
        Self {
            io,
            open,
            reader: Reader::default(),
            writer: Writer::default(),
            reused: false,
            client,
            keep_alive: true,
            request_sent: false,
        }
    }

    /// The server at the other end.
    pub const fn server(&self) -> &Arc<Server> {
        self.open.server()
    }

    /// Whose own it is, if some client's.
    pub const fn client(&self) -> Option<ClientId> {
        self.client
    }

    /// Whether it has carried an exchange before this one.
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Gathers the head of a request. Whether its body is chunked is for the caller to know, since
    /// HTTP/2 needs no framing of its own.
    pub fn send_head(&mut self, head: &RequestHead, upgrade: Option<&[u8]>) {
        let chunked = head.framing == Framing::Chunked;
        self.request_sent = false;
        self.io.wrote = false;
        self.writer
            .head(|out| encode::request(out, head, chunked, upgrade));
        self.writer.begin_body(chunked);
    }

    /// Whether any of the present request may have reached the server.
    pub const fn has_sent(&self) -> bool {
        self.io.wrote
    }

    /// Takes data of the request's body; how much.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.writer.poll_data(cx, &mut self.io, data)
    }

    /// Gathers the end of the request's body.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        self.writer.finish(trailers);
        self.request_sent = true;
    }

    /// Writes what is gathered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.poll_flush(cx, &mut self.io)
    }

    /// Waits for the head of a response, interim ones included.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        to: Method,
    ) -> Poll<Result<ResponseHead, ReadError>> {
        let head = ready!(self.reader.poll_head(
            cx,
            &mut self.io,
            MAX_HEAD,
            Message::Response,
            |head| { parse::response(head, to) }
        ))?;
        if head.status == 101 {
            self.keep_alive = false;
            self.reader.begin_body(Framing::UntilClose);
        } else if !head.is_interim() {
            self.keep_alive = head.keep_alive;
            self.reader.begin_body(head.framing);
        }
        Poll::Ready(Ok(head))
    }

    /// Waits for data of the response's body, or its end.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, ReadError>> {
        self.reader.poll_body(cx, &mut self.io)
    }

    /// The data that [`poll_body`](Self::poll_body) found.
    pub fn data(&self) -> &[u8] {
        self.reader.data()
    }

    /// Drops data from the front.
    pub fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    /// Whether the response's body is over.
    pub fn is_end(&self) -> bool {
        self.reader.is_end()
    }

    /// The trailer section, once the body is over.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.reader.take_trailers()
    }

    /// Makes both directions plain bytes, after a `101`.
    pub fn begin_tunnel(&mut self) {
        self.reader.begin_body(Framing::UntilClose);
        self.writer.begin_body(false);
    }

    /// Closes the sending side.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.writer.poll_flush(cx, &mut self.io))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Whether it can carry another exchange: this one is over on both sides, nothing is left over,
    /// and neither side wants to close.
    pub fn is_reusable(&self) -> bool {
        self.keep_alive
            && self.request_sent
            && !self.writer.has_pending()
            && self.reader.is_end()
            && !self.reader.has_leftover()
    }

    /// Makes it ready for the pool.
    pub fn rest(&mut self) {
        self.reused = true;
        self.writer.release();
    }

    /// Whether it died, or said something unasked, while it rested.
    pub fn is_stale(&self) -> bool {
        self.io.is_stale()
    }
}
