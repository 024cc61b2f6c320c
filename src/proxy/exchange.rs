//! One attempt at one server: the request goes out, the response comes back, both at once if need
//! be, in the one task that owns both connections.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Client;
use super::error::Failure;
use crate::config::Timeouts;
use crate::http::field::Fields;
use crate::http::framing::BodyError;
use crate::http::{Framing, Method, RequestHead, ResponseHead};
use crate::upstream::Upstream;
use crate::upstream::connection::Connection;
use crate::wire::{Body, ReadError, rest};

/// Interim responses that are passed on before a server is taken for broken.
const MAX_INTERIM: usize = 64;

/// Bytes of a request's body that are kept for a further try.
const MAX_KEPT: u64 = 64 << 10;

/// Bytes of a body that are moved before others have their turn.
const TURN: u64 = 256 << 10;

/// How far the request's body got.
#[derive(Debug)]
pub struct Upload {
    /// All of it, its end included, was handed to the server's connection.
    done: bool,
    /// The server takes no more of it; what it answers is still worth reading.
    refused: bool,
    /// Bytes that were taken from the client.
    pub taken: u64,
    /// Bytes it may have.
    limit: u64,
    /// Bytes it said it has.
    announced: Option<u64>,
    /// What was taken is kept, to be sent again.
    keeps: bool,
    kept: Vec<u8>,
    /// How much of what is kept was sent to this server.
    resent: usize,
    /// The client has sent all of it, with these trailers.
    ended: bool,
    trailers: Option<Box<Fields>>,
}

impl Upload {
    /// Nothing yet, of at most `limit` bytes.
    pub const fn new(framing: Framing, limit: Option<u64>) -> Self {
        let limit = match limit {
            Some(limit) => limit,
            None => u64::MAX,
        };
        let announced = match framing {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        };
        Self {
            done: false,
            refused: false,
            taken: 0,
            limit,
            announced,
            keeps: false,
            kept: Vec::new(),
            resent: 0,
            ended: false,
            trailers: None,
        }
    }

    /// Keeps what is taken from now on, as long as it is little.
    pub const fn keep(&mut self) {
        self.keeps = self.taken == 0;
    }

    /// Whether all that was taken can be sent again.
    pub const fn is_replayable(&self) -> bool {
        self.keeps || self.taken == 0
    }

    /// Begins again on another connection. Only where that can be.
    pub fn restart(&mut self) {
        debug_assert!(self.is_replayable());
        self.done = false;
        self.refused = false;
        self.resent = 0;
    }

    /// Drops this much of the client's data, which was sent.
    fn took(&mut self, client: &mut impl Client, count: usize) -> Result<(), Failure> {
        if self.keeps {
            if self.taken + count as u64 <= MAX_KEPT {
                self.kept.extend_from_slice(&client.data()[..count]);
                self.resent = self.kept.len();
            } else {
                self.forget();
            }
        }
        client.consume(count);
        self.taken += count as u64;
        match self.taken > self.limit {
            true => Err(super::error::Refusal::TooLarge.into()),
            false => Ok(()),
        }
    }

    /// Keeps no more: there will be no further try.
    fn forget(&mut self) {
        self.keeps = false;
        self.kept = Vec::new();
        self.resent = 0;
    }

    /// Moves what can be moved from the client to the server. Break: no more for now, because of
    /// what it says.
    fn poll<C: Client>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut Connection,
    ) -> Result<(Stall, bool), Failure> {
        let mut moved = false;
        let mut stall = Stall::Server;
        let turn = self.taken;
        while !self.done && !self.refused {
            if self.taken - turn >= TURN {
                rest(cx);
                break;
            }
            if self.resent < self.kept.len() {
                match server.poll_send(cx, &self.kept[self.resent..]) {
                    Poll::Pending => break,
                    Poll::Ready(Err(_)) => self.refused = true,
                    Poll::Ready(Ok(count)) => {
                        self.resent += count;
                        moved = true;
                    }
                }
                continue;
            }
            if self.ended {
                server.finish(self.trailers.as_deref());
                self.done = true;
                moved = true;
                continue;
            }
            match client.poll_body(cx)? {
                Poll::Pending => {
                    stall = Stall::Client;
                    break;
                }
                Poll::Ready(Body::End) => {
                    // The client's side sees to that; a mistake there must not become two
                    // requests here.
                    if self.announced.is_some_and(|length| length != self.taken) {
                        return Err(Failure::ClientBody(BodyError::Truncated));
                    }
                    self.trailers = client.take_trailers();
                    self.ended = true;
                }
                Poll::Ready(Body::Data)
                    if self.announced.is_some_and(|length| {
                        length.saturating_sub(self.taken) < client.data().len() as u64
                    }) =>
                {
                    return Err(Failure::ClientBody(BodyError::TooLong));
                }
                Poll::Ready(Body::Data) => match server.poll_send(cx, client.data()) {
                    Poll::Pending => break,
                    Poll::Ready(Err(_)) => self.refused = true,
                    Poll::Ready(Ok(count)) => {
                        self.took(client, count)?;
                        moved = true;
                    }
                },
            }
        }
        if !self.refused && matches!(server.poll_flush(cx), Poll::Ready(Err(_))) {
            self.refused = true;
        }
        Ok((stall, moved))
    }
}

/// Whom an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stall {
    Client,
    Server,
}

/// How often a request that waits looks whether its server has gone down.
const LOOK: Duration = Duration::from_secs(1);

/// Sends the request and waits for the head of the final response; interim ones are passed on. It
/// does not wait for a server that checks have found to be down where `elsewhere` has another for
/// it. `now`: where the clock was just looked at.
pub async fn request<C: Client>(
    client: &mut C,
    server: &mut Connection,
    head: &RequestHead,
    upload: &mut Upload,
    timeouts: &Timeouts,
    now: Option<Instant>,
    elsewhere: Option<&Upstream>,
) -> Result<ResponseHead, Failure> {
    let mut interim = 0;
    let mut left = timeouts.upstream_response;
    // The part of what is left that the deadline is set to.
    let part = |left: Duration| elsewhere.map_or(left, |_| left.min(LOOK));
    match now {
        Some(now) => client.deadline().set_from(now, part(left)),
        None => client.deadline().set(part(left)),
    }
    let mut waiting = Stall::Server;
    // The deadline was just set.
    let mut first = true;
    poll_fn(|cx| {
        loop {
            let (stall, moved) = upload.poll(cx, client, server)?;
            match poll_response(cx, client, server, head.method, &mut interim)? {
                Poll::Ready(ControlFlow::Break(response)) => return Poll::Ready(Ok(response)),
                Poll::Ready(ControlFlow::Continue(())) => continue,
                Poll::Pending => {}
            }
            let stall = if upload.done || upload.refused {
                Stall::Server
            } else {
                stall
            };
            if moved && !first || stall != waiting {
                waiting = stall;
                left = timeouts.upstream_response;
                client.deadline().set(match stall {
                    Stall::Client => timeouts.request_body,
                    Stall::Server => part(left),
                });
            }
            first = false;
            if client.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::ClientGone));
            }
            if client.deadline().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if waiting == Stall::Client {
                return Poll::Ready(Err(Failure::ClientStalled));
            }
            left = left.saturating_sub(part(left));
            if left.is_zero() || client.deadline().left() == Some(Duration::ZERO) {
                return Poll::Ready(Err(Failure::ResponseTimeout));
            }
            let is_down = server.server().health.is_down();
            if is_down && upload.is_replayable() && elsewhere.is_some_and(Upstream::can_spare) {
                return Poll::Ready(Err(Failure::WentDown));
            }
            client.deadline().set(part(left));
        }
    })
    .await
}

fn poll_response<C: Client>(
    cx: &mut Context<'_>,
    client: &mut C,
    server: &mut Connection,
    method: Method,
    interim: &mut usize,
) -> Result<Poll<ControlFlow<ResponseHead>>, Failure> {
    let response = match server.poll_head(cx, method) {
        Poll::Pending => return Ok(Poll::Pending),
        Poll::Ready(Ok(response)) => response,
        Poll::Ready(Err(ReadError::Head(error))) => return Err(Failure::BadHead(error)),
        Poll::Ready(Err(error)) => return Err(Failure::NoResponse(error)),
    };
    if !response.is_interim() {
        return Ok(Poll::Ready(ControlFlow::Break(response)));
    }
    *interim += 1;
    if *interim > MAX_INTERIM {
        return Err(Failure::BadHead(crate::http::parse::HeadError::Malformed(
            "there are too many interim responses",
        )));
    }
    client.interim(response);
    // It must not wait for the final response.
    if let Poll::Ready(Err(_)) = client.poll_flush(cx) {
        return Err(Failure::ClientGone);
    }
    Ok(Poll::Ready(ControlFlow::Continue(())))
}

/// Passes the response's body on, until both it and what is left of the request's have ended; the
/// bytes of the body that were sent are in `sent`, however it ends.
pub async fn response<C: Client>(
    client: &mut C,
    server: &mut Connection,
    upload: &mut Upload,
    timeouts: &Timeouts,
    sent: &mut u64,
) -> Result<(), Failure> {
    upload.forget();
    let mut ended = false;
    let mut waiting = Stall::Server;
    client.deadline().set(timeouts.upstream_idle);
    poll_fn(|cx| {
        let (_, mut moved) = upload.poll(cx, client, server)?;
        let mut stall = Stall::Server;
        let turn = *sent;
        while !ended {
            if *sent - turn >= TURN {
                rest(cx);
                break;
            }
            match server.poll_body(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::BrokenBody(error))),
                Poll::Ready(Ok(Body::End)) => {
                    let trailers = server.take_trailers();
                    client.finish(trailers);
                    ended = true;
                }
                Poll::Ready(Ok(Body::Data)) => match client.poll_send(cx, server.data())? {
                    Poll::Pending => {
                        stall = Stall::Client;
                        break;
                    }
                    Poll::Ready(count) => {
                        server.consume(count);
                        *sent += count as u64;
                        moved = true;
                    }
                },
            }
        }
        match client.poll_flush(cx) {
            Poll::Ready(Ok(())) if ended => return Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::ClientGone)),
            Poll::Pending => stall = Stall::Client,
        }
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        if moved || stall != waiting {
            waiting = stall;
            client.deadline().set(match stall {
                Stall::Client => timeouts.send,
                Stall::Server => timeouts.upstream_idle,
            });
        }
        if client.deadline().poll(cx).is_ready() {
            return Poll::Ready(Err(match waiting {
                Stall::Client => Failure::ClientNotReading,
                Stall::Server => Failure::BodyTimeout,
            }));
        }
        Poll::Pending
    })
    .await
}
