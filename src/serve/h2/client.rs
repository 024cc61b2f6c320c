//! One stream, as the proxy sees its client.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::connection::Connection;
use super::streams::Slot;
use super::websocket::Opening;
use crate::http::field::Fields;
use crate::http::frame::ErrorCode;
use crate::http::parse::HeadError;
use crate::http::{Framing, RequestHead, ResponseHead};
use crate::proxy::Client;
use crate::proxy::error::{Failure, Refusal};
use crate::wire::buffer::Store;
use crate::wire::{Body, Deadline};

/// See the module.
#[derive(Debug)]
pub struct Http2Client {
    connection: Rc<RefCell<Connection>>,
    slot: Slot,
    /// What was taken from the connection, of the request's body.
    chunk: Store,
    tunnel: Tunnel,
    deadline: Deadline,
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
    /// Of a stream that has begun.
    pub fn new(connection: &Rc<RefCell<Connection>>, slot: Slot, deadline: Deadline) -> Self {
        Self {
            connection: Rc::clone(connection),
            slot,
            chunk: Store::default(),
            tunnel: Tunnel::None,
            deadline,
        }
    }

    /// Makes a request for a WebSocket one that a server of HTTP/1.1 understands.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn ask(&mut self, head: &mut RequestHead) -> Result<(), Refusal> {
        if head.upgrade {
            self.tunnel = Tunnel::Asked(Opening::ask(head)?);
        }
        Ok(())
    }

    /// Ends the stream of a request that was malformed, behind the response that says so.
    pub fn reject(&self) {
        self.connection.borrow_mut().reject(self.slot);
    }
}

impl Client for Http2Client {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Failure>> {
        if matches!(self.tunnel, Tunnel::Asked(_)) {
            return Poll::Ready(Ok(Body::End)); // of the request: it has none
        }
        if !self.chunk.is_empty() {
            return Poll::Ready(Ok(Body::Data));
        }
        let mut connection = self.connection.borrow_mut();
        let stream = connection.stream(self.slot);
        if stream.reset.is_some() {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        if !stream.body.is_empty() {
            std::mem::swap(&mut self.chunk, &mut stream.body);
            return Poll::Ready(Ok(Body::Data));
        }
        if stream.remote_ended {
            return Poll::Ready(Ok(Body::End));
        }
        stream.wait(cx);
        Poll::Pending
    }

    fn data(&self) -> &[u8] {
        self.chunk.data()
    }

    fn consume(&mut self, count: usize) {
        self.chunk.consume(count);
        // A window is smaller than that.
        let count = u32::try_from(count).unwrap_or_default();
        self.connection.borrow_mut().release(self.slot, count);
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        let mut connection = self.connection.borrow_mut();
        connection.stream(self.slot).trailers.take()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut connection = self.connection.borrow_mut();
        let stream = connection.stream(self.slot);
        if stream.reset.is_some() {
            return Poll::Ready(());
        }
        stream.wait(cx);
        Poll::Pending
    }

    fn interim(&mut self, head: ResponseHead) {
        let mut connection = self.connection.borrow_mut();
        if connection.stream(self.slot).reset.is_none() {
            connection.respond(self.slot, &head, false);
        }
    }

    fn start(&mut self, mut head: ResponseHead, upgrade: bool) -> Result<(), Failure> {
        match &self.tunnel {
            Tunnel::Asked(opening) if upgrade => opening.accepted(&mut head)?,
            Tunnel::Asked(_) => Opening::declined(head.status)?,
            // HTTP/2 has no other `Upgrade` (RFC 9113, section 8.6), so nobody can have asked.
            Tunnel::None | Tunnel::Open => debug_assert!(!upgrade),
        }
        // RFC 9113, section 8.6.
        if head.status == 101 {
            return Err(Failure::BadHead(HeadError::Malformed(
                "HTTP/2 has no status 101",
            )));
        }
        let mut connection = self.connection.borrow_mut();
        if connection.stream(self.slot).reset.is_some() {
            return Err(Failure::ClientGone);
        }
        let end = head.framing == Framing::None && !upgrade;
        connection.respond(self.slot, &head, end);
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Failure>> {
        let mut connection = self.connection.borrow_mut();
        let stream = connection.stream(self.slot);
        if stream.reset.is_some() {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        if stream.local_ended {
            return Poll::Ready(Ok(data.len())); // the body of a response to HEAD
        }
        connection.poll_send(cx, self.slot, data).map(Ok)
    }

    fn finish(&mut self, trailers: Option<Box<Fields>>) {
        let mut connection = self.connection.borrow_mut();
        connection.finish(self.slot, trailers.as_deref());
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        // The connection writes; windows hold us back, not the socket.
        Poll::Ready(Ok(()))
    }

    fn begin_tunnel(&mut self) {
        self.tunnel = Tunnel::Open;
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        self.connection.borrow_mut().finish(self.slot, None);
        Poll::Ready(())
    }

    fn abort(&mut self) {
        let code = match self.tunnel {
            // RFC 8441, section 5: what a reset of the TCP connection would be.
            Tunnel::Open => ErrorCode::CANCEL,
            Tunnel::None | Tunnel::Asked(_) => ErrorCode::INTERNAL_ERROR,
        };
        self.connection.borrow_mut().end(self.slot, code);
    }

    fn last(&mut self) {}

    fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        let mut connection = self.connection.borrow_mut();
        // What was not even looked at.
        let left = u32::try_from(self.chunk.len()).unwrap_or_default();
        connection.release(self.slot, left);
        connection.leave(self.slot);
        let deadline = std::mem::take(&mut self.deadline);
        connection.deadlines.push(deadline);
    }
}
