//! A connection to a server, and where its present exchange stands: the same whichever version of
//! HTTP is spoken.

pub mod http1;
pub mod http2;
pub mod io;
mod pulse;

use std::io as std_io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Server;
use crate::http::field::Fields;
use crate::http::{Method, RequestHead, ResponseHead};
use crate::wire::{Body, ReadError};
use http1::Http1;
use http2::{Http2, Unsayable};

/// See the module.
#[derive(Debug)]
pub enum Connection {
    /// A connection of its own.
    Http1(Box<Http1>),
    /// A stream of a connection that others use too.
    Http2(Box<Http2>),
}

/// Calls the same method of whichever it is.
macro_rules! each {
    ($connection:expr, $one:ident => $call:expr) => {
        match $connection {
            Connection::Http1($one) => $call,
            Connection::Http2($one) => $call,
        }
    };
}

impl Connection {
    /// The server at the other end.
    pub fn server(&self) -> &Arc<Server> {
        each!(self, one => one.server())
    }

    /// Whether it has carried an exchange before this one.
    pub fn is_reused(&self) -> bool {
        each!(self, one => one.is_reused())
    }

    /// Gathers the head of a request. Whether its body is chunked is for the caller to know, since
    /// HTTP/2 needs no framing of its own.
    ///
    /// # Errors
    /// When HTTP/2 has no words for it, which says nothing of the server or the connection.
    pub fn send_head(
        &mut self,
        head: &RequestHead,
        upgrade: Option<&[u8]>,
    ) -> Result<(), Unsayable> {
        match self {
            Self::Http1(one) => {
                one.send_head(head, upgrade);
                Ok(())
            }
            Self::Http2(one) => one.send_head(head),
        }
    }

    /// Whether the server may have done anything about the present request.
    pub fn has_sent(&self) -> bool {
        each!(self, one => one.has_sent())
    }

    /// Takes data of the request's body; how much.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<std_io::Result<usize>> {
        each!(self, one => one.poll_send(cx, data))
    }

    /// Gathers the end of the request's body.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        each!(self, one => one.finish(trailers));
    }

    /// Writes what is gathered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<std_io::Result<()>> {
        match self {
            Self::Http1(one) => one.poll_flush(cx),
            // The connection's own task writes; flow control holds us back, not the socket.
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Waits for the head of a response, interim ones included.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        to: Method,
    ) -> Poll<Result<ResponseHead, ReadError>> {
        each!(self, one => one.poll_head(cx, to))
    }

    /// Waits for data of the response's body, or its end.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, ReadError>> {
        each!(self, one => one.poll_body(cx))
    }

    /// The data that [`poll_body`](Self::poll_body) found.
    pub fn data(&self) -> &[u8] {
        each!(self, one => one.data())
    }

    /// Drops data from the front.
    pub fn consume(&mut self, count: usize) {
        each!(self, one => one.consume(count));
    }

    /// The trailer section, once the body is over.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        each!(self, one => one.take_trailers())
    }

    /// Makes both directions plain bytes, after a `101`, which there is in HTTP/1.1 only.
    pub fn begin_tunnel(&mut self) {
        if let Self::Http1(one) = self {
            one.begin_tunnel();
        }
    }

    /// Closes the sending side.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<std_io::Result<()>> {
        match self {
            Self::Http1(one) => one.poll_shutdown(cx),
            Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether its server was asked whether it is there, and did not answer.
    pub fn is_given_up(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(one) => one.is_given_up(),
        }
    }

    /// Lets nobody begin another exchange on it: this one went wrong.
    pub fn retire(&mut self) {
        if let Self::Http2(one) = self {
            one.retire();
        }
    }
}
