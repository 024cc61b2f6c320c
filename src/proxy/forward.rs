//! The way to one of the servers of an upstream, with further tries where they cannot hurt.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::account::Account;
use super::error::{Failure, Progress, Refusal};
use super::exchange::{self, Upload};
use super::{Client, Local, Peer, Snapshot, preamble};
use crate::config::{Protocol, Timeouts};
use crate::http::{Framing, RequestHead, ResponseHead};
use crate::metrics::{UpstreamOutcome, UpstreamSeries};
use crate::upstream::balance::Tried;
use crate::upstream::connection::Connection;
use crate::upstream::connection::http2::Unsayable;
use crate::upstream::gate::Gate;
use crate::upstream::health::Moment;
use crate::upstream::pool::Preamble;
use crate::upstream::{InFlight, Upstream};

/// One request on its way to one of the servers of an upstream.
pub(super) struct Forward<'a, 'w> {
    pub(super) local: &'a Local,
    pub(super) world: &'w Snapshot,
    pub(super) peer: &'a Peer,
    pub(super) upstream: &'w Upstream,
    /// The deadlines that hold, for the whole request too.
    pub(super) timeouts: &'a Timeouts,
    pub(super) total: Option<Duration>,
    pub(super) head: &'a RequestHead,
    pub(super) upgrade: Option<&'a [u8]>,
}

/// A response that has begun.
pub(super) struct Answer<'w> {
    pub(super) connection: Connection,
    pub(super) head: ResponseHead,
    pub(super) in_flight: InFlight<'w>,
    /// The server's place in its upstream.
    pub(super) server: usize,
}

/// How far an attempt got.
#[derive(Default)]
struct Attempt {
    /// The connection had carried an exchange before.
    reused: bool,
    /// Some of the request may have reached the server.
    sent: bool,
    /// The server was asked whether it is there, and was silent.
    given_up: bool,
}

impl<'w> Forward<'_, 'w> {
    /// Tries servers until one answers, all were tried, or trying again could do harm. `begin` is
    /// now, or as good as now.
    pub(super) async fn run<C: Client>(
        &self,
        client: &mut C,
        upload: &mut Upload,
        mut begin: Instant,
        account: &mut Account<'w>,
    ) -> Result<Answer<'w>, Failure> {
        let upstream = self.upstream;
        upstream.budget.pay();
        if let Some(total) = self.total {
            client.deadline().bound(total);
        }
        let idempotent = self.head.method.is_idempotent();
        // HTTP/2 can say that it has not touched a request.
        let may_return = idempotent || upstream.protocol() != Protocol::Http1;
        if may_return && self.head.framing != Framing::None && upstream.retries > 0 {
            upload.keep();
        }
        let key = upstream.key(account.client, self.head);
        let mut tried = Tried::new();
        let mut server = upstream
            .choose(key, &tried, Moment::of(begin))
            .ok_or(Failure::NoServer)?;
        // A connection that rested may have died without a word; then the next one is a new one.
        let mut fresh = false;
        loop {
            let url = &upstream.servers()[server].url;
            account.server = Some(url);
            let series = self.world.server(upstream, server);
            let mut attempt = Attempt::default();
            let result = self
                .attempt(client, server, fresh, series, upload, begin, &mut attempt)
                .await;
            let now = Instant::now();
            let took = now - begin;
            account.upstream_time = Some(took);
            let failure = match result {
                Ok(mut answer) => {
                    upstream.succeeded(server, Moment::of(now), took);
                    series.response_duration.observe(took);
                    series.outcome(match answer.head.status {
                        500.. => UpstreamOutcome::ServerError,
                        _ => UpstreamOutcome::Response,
                    });
                    let tag = upstream.servers()[server].tag();
                    if key.tag != Some(tag)
                        && let Some(cookie) = upstream.cookie(server, self.peer.scheme == "https")
                    {
                        answer.head.fields.push(b"Set-Cookie", cookie.as_bytes());
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            series.outcome(failure.outcome());
            let no_response = matches!(failure, Failure::NoResponse(_));
            let died_at_rest = no_response && attempt.reused && !attempt.given_up;
            let untouched = died_at_rest || (no_response && !attempt.sent);
            if failure.is_of_server() && !died_at_rest {
                upstream.failed(server, Moment::of(now), &failure);
            }
            let progress = Progress {
                sent: attempt.sent,
                idempotent,
                replayable: upload.is_replayable(),
            };
            if tried.len() >= upstream.retries
                || client.deadline().left() == Some(Duration::ZERO)
                || !failure.may_retry(progress)
            {
                return Err(failure);
            }
            tried.push(server);
            let now = Moment::of(now);
            let next = match upstream.choose(key, &tried, now) {
                Some(other) => other,
                // No other is left, but this one has not even looked at it.
                None if untouched && !fresh => server,
                None => return Err(failure),
            };
            if attempt.sent && !upstream.budget.take(now) {
                debug!(%url, error = %failure, "not tried again: the retry budget is spent");
                return Err(failure);
            }
            debug!(%url, error = %failure, tries = tried.len(), "trying again");
            series.retries.inc();
            fresh = next == server;
            server = next;
            begin = Instant::now();
            upload.restart();
        }
    }

    #[allow(clippy::too_many_arguments)] // all of it is one request's
    async fn attempt<C: Client>(
        &self,
        client: &mut C,
        index: usize,
        fresh: bool,
        series: &UpstreamSeries,
        upload: &mut Upload,
        now: Instant,
        attempt: &mut Attempt,
    ) -> Result<Answer<'w>, Failure> {
        let timeouts = self.timeouts;
        let server = &self.upstream.servers()[index];
        // As far as nothing is waited for.
        let mut now = Some(now);
        let pass = match self.upstream.gate(index) {
            None => None,
            Some(gate) => Some(match gate.try_pass() {
                Some(pass) => pass,
                None => {
                    now = None;
                    Box::pin(self.wait(client, gate)).await?
                }
            }),
        };
        let in_flight = InFlight::new(server, pass);
        // HTTP/2 knows no `Upgrade`: the server answers as if it had not been asked.
        let upgrade = match self.upstream.protocol() {
            Protocol::Http2 => None,
            Protocol::Http1 | Protocol::Auto => self.upgrade,
        };
        let pool = self.local.pool();
        let alone = upgrade.is_some();
        let told = self.upstream.proxy_protocol();
        let rested = match fresh {
            true => None,
            false => pool.take(server, alone, told.map(|_| self.peer.id)),
        };
        let mut connection = match rested {
            Some(connection) => {
                series.reused.inc();
                connection
            }
            None => {
                series.connects.inc();
                now = None;
                let limit = timeouts.upstream_connect;
                let left = client.deadline().left();
                let limit = left.map_or(limit, |left| left.min(limit));
                let preamble = told.map(|version| Preamble {
                    client: self.peer.id,
                    header: preamble::header(self.peer, version),
                });
                // Boxed: it is rare, and its state would make every request's larger.
                let connecting = Box::pin(pool.connect(server, limit, alone, preamble));
                unless_gone(client, connecting).await??
            }
        };
        attempt.reused = connection.is_reused();
        let said = connection.send_head(self.head, upgrade);
        said.map_err(|Unsayable| Refusal::Unsayable)?;
        let checked = self.upstream.check.is_some() && self.head.method.is_idempotent();
        let elsewhere = checked.then_some(self.upstream);
        let response = exchange::request(
            client,
            &mut connection,
            self.head,
            upload,
            timeouts,
            now,
            elsewhere,
        )
        .await;
        attempt.sent = connection.has_sent();
        attempt.given_up = connection.is_given_up();
        if response.as_ref().is_err_and(Failure::is_of_server) {
            connection.retire();
        }
        let head = response?;
        if head.status == 101 && upgrade.is_none() {
            return Err(Failure::UnaskedUpgrade);
        }
        Ok(Answer {
            connection,
            head,
            in_flight,
            server: index,
        })
    }

    /// Waits until a server that is full takes the request.
    async fn wait<C: Client>(
        &self,
        client: &mut C,
        gate: &Arc<Gate>,
    ) -> Result<crate::upstream::gate::Pass, Failure> {
        let waiting = Arc::clone(gate).pass();
        Ok(unless_gone(client, waiting).await??)
    }
}

/// Does something for as long as there is a client that wants it.
pub(super) async fn unless_gone<C: Client, T>(
    client: &mut C,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        client.poll_gone(cx).map(|()| Err(Failure::ClientGone))
    })
    .await
}
