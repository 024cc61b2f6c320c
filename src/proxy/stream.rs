//! One connection, passed on byte by byte: to a server of an upstream, and back.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::error::Failure;
use super::{Local, Peer, Snapshot, greeting, preamble};
use crate::config::StartTls;
use crate::metrics::{StreamOutcome, StreamSeries, Timeout, UpstreamOutcome};
use crate::telemetry::access::{self, Record};
use crate::upstream::balance::Tried;
use crate::upstream::connection::io::Io;
use crate::upstream::health::Moment;
use crate::upstream::pool::{self, Speak};
use crate::upstream::{InFlight, Open, Upstream};
use crate::wire::{Buffer, Deadline};

/// What is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What came in plain text, or in TLS that was terminated.
    Bytes,
    /// The same, to a client that was greeted before its TLS began.
    Greeted(StartTls),
    /// TLS, as the client speaks it.
    Passed,
}

/// What a connection was, for metrics and the access log.
#[derive(Debug, Default)]
struct Account {
    server: Option<Arc<str>>,
    connected: Option<Duration>,
    received: u64,
    sent: u64,
}

/// How both directions came to their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Idle,
}

/// Passes a connection on until both sides have closed, one breaks, or both are silent for
/// `silence`; by default for as long as other tunnels may be.
pub async fn run<C>(
    local: &Local,
    peer: &Peer,
    client: C,
    kind: Kind,
    upstream: &str,
    silence: Option<Duration>,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let begin = Instant::now();
    let world = local.world();
    let Some(upstream) = world.upstream(upstream) else {
        return; // a configuration names only upstreams that exist
    };
    let series = world.stream(upstream);
    let mut account = Account::default();
    let result = match connect(&world, peer, kind, upstream, &mut account).await {
        Err(failure) => Err(Broken::NoServer(failure)),
        Ok((server, in_flight)) => {
            let silence = silence.unwrap_or_else(|| world.timeouts().tunnel);
            let open = Open::new(in_flight.server());
            if let Some(series) = series {
                series.open.inc();
            }
            let ended = copy(client, server, silence, series, &mut account).await;
            if let Some(series) = series {
                series.open.dec();
            }
            drop((open, in_flight));
            ended.map_err(Broken::Pipe)
        }
    };
    let took = begin.elapsed();
    if matches!(result, Ok(End::Idle)) {
        local.edge().timeout(Timeout::Tunnel);
    }
    record(local, peer, kind, upstream, series, &account, took, &result);
}

/// Why a connection did not come to a good end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    NoServer(Failure),
    #[error("the connection broke: {0}")]
    Pipe(io::Error),
}

/// A connection to one of the servers. Nothing was sent before there is one, so that another can
/// always be tried.
async fn connect<'u>(
    world: &Snapshot,
    peer: &Peer,
    kind: Kind,
    upstream: &'u Upstream,
    account: &mut Account,
) -> Result<(Io, InFlight<'u>), Failure> {
    let header = upstream
        .proxy_protocol()
        .map(|version| preamble::header(peer, version));
    let header = header.as_deref().unwrap_or_default();
    let key = upstream.key_of(peer.client.ip());
    let mut tried = Tried::new();
    let mut last = Failure::NoServer;
    while tried.len() <= upstream.retries {
        let begin = Instant::now();
        let Some(index) = upstream.choose(key, &tried, Moment::of(begin)) else {
            return Err(last);
        };
        tried.push(index);
        let server = &upstream.servers()[index];
        account.server = Some(Arc::clone(&server.url));
        let series = world.server(upstream, index);
        let result = attempt(upstream, index, kind, header).await;
        let now = Instant::now();
        let took = now - begin;
        account.connected = Some(took);
        match result {
            Ok(done) => {
                upstream.succeeded(index, Moment::of(now), took);
                series.connects.inc();
                series.response_duration.observe(took);
                series.outcome(UpstreamOutcome::Response);
                return Ok(done);
            }
            Err(failure) => {
                series.outcome(failure.outcome());
                if failure.is_of_server() {
                    upstream.failed(index, Moment::of(now), &failure);
                }
                debug!(server = %server.url, error = %failure, "no connection");
                if tried.len() <= upstream.retries {
                    series.retries.inc();
                }
                last = failure;
            }
        }
    }
    Err(last)
}

async fn attempt<'u>(
    upstream: &'u Upstream,
    index: usize,
    kind: Kind,
    header: &[u8],
) -> Result<(Io, InFlight<'u>), Failure> {
    let server = &upstream.servers()[index];
    let pass = match upstream.gate(index) {
        None => None,
        Some(gate) => Some(match gate.try_pass() {
            Some(pass) => pass,
            None => Arc::clone(gate).pass().await?,
        }),
    };
    let in_flight = InFlight::new(server, pass);
    let speak = match kind {
        Kind::Bytes | Kind::Greeted(_) => Speak::Raw,
        Kind::Passed => Speak::Passed,
    };
    let limit = upstream.timeouts.upstream_connect;
    let mut io = pool::dial(server, None, limit, speak, header).await?;
    if let Kind::Greeted(protocol) = kind {
        greeting::take(&mut io, protocol, upstream.timeouts.upstream_response).await?;
    }
    Ok((io, in_flight))
}

/// One direction.
#[derive(Default)]
struct Way {
    buffer: Buffer,
    state: State,
    /// Something was written since the last flush.
    wrote: bool,
    passed: u64,
    /// Why the other end takes no more.
    refused: Option<io::Error>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The source has ended; the other end is still to be told.
    Ending,
    Closed,
}

impl Way {
    /// Moves what can be moved; how much. Fails where the source does. That the other end takes no
    /// more ends this direction only: what it said before it closed is still to be passed on.
    fn poll<A, B>(&mut self, cx: &mut Context<'_>, from: &mut A, to: &mut B) -> io::Result<u64>
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
    {
        let before = self.passed;
        let _ = self.poll_move(cx, from, to)?;
        if self.wrote {
            match Pin::new(&mut *to).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.wrote = false,
                Poll::Ready(Err(error)) => self.refuse(error),
                Poll::Pending => {}
            }
        }
        if self.state == State::Ending && Pin::new(to).poll_shutdown(cx).is_ready() {
            // The other end may have closed already, which is no news.
            self.state = State::Closed;
        }
        Ok(self.passed - before)
    }

    fn refuse(&mut self, error: io::Error) {
        self.refused = Some(error);
        self.state = State::Closed;
        self.buffer = Buffer::default();
        self.wrote = false;
    }

    fn poll_move<A, B>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut A,
        to: &mut B,
    ) -> Poll<io::Result<()>>
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
    {
        while self.state == State::Open {
            if self.buffer.is_empty() {
                match ready!(self.buffer.poll_read(cx, from, 0)) {
                    Ok(0) => self.state = State::Ending,
                    Ok(_) => {}
                    // Many clients close without TLS's own word for it.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        self.state = State::Ending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
                continue;
            }
            match ready!(Pin::new(&mut *to).poll_write(cx, self.buffer.data())) {
                Ok(0) => self.refuse(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.buffer.consume(count);
                    self.passed += count as u64;
                    self.wrote = true;
                }
                Err(error) => self.refuse(error),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Passes bytes both ways. An end that closes only its sending side can still receive.
async fn copy<C>(
    mut client: C,
    mut server: Io,
    silence: Duration,
    series: Option<&StreamSeries>,
    account: &mut Account,
) -> io::Result<End>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Way::default(), Way::default());
    let mut deadline = Deadline::default();
    deadline.set(silence);
    let end = poll_fn(|cx| {
        let received = up.poll(cx, &mut client, &mut server)?;
        let sent = down.poll(cx, &mut server, &mut client)?;
        if received + sent > 0 {
            if let Some(series) = series {
                series.bytes(received, sent);
            }
            deadline.set(silence);
        }
        if up.state == State::Closed && down.state == State::Closed {
            let refused = up.refused.take().or_else(|| down.refused.take());
            return Poll::Ready(refused.map_or(Ok(End::Closed), Err));
        }
        deadline.poll(cx).map(|()| Ok(End::Idle))
    })
    .await;
    account.received = up.passed;
    account.sent = down.passed;
    end
}

/// The single exit: metrics, the log and the access log.
#[allow(clippy::too_many_arguments)] // all of it is one connection's
fn record(
    local: &Local,
    peer: &Peer,
    kind: Kind,
    upstream: &Upstream,
    series: Option<&StreamSeries>,
    account: &Account,
    took: Duration,
    result: &Result<End, Broken>,
) {
    let outcome = match result {
        Ok(End::Closed) => StreamOutcome::Closed,
        Ok(End::Idle) => StreamOutcome::Idle,
        Err(Broken::Pipe(_)) => StreamOutcome::Broken,
        Err(Broken::NoServer(_)) => StreamOutcome::NoServer,
    };
    if let Some(series) = series {
        series.ended(outcome, took);
    }
    if let Err(Broken::NoServer(failure)) = result {
        if let Some(kind) = failure.kind() {
            local.edge().error(kind);
        }
        let server = account.server.as_deref().unwrap_or_default();
        warn!(client = %peer.client, upstream = %upstream.name, server, error = %failure,
            "a connection could not be passed on");
    }
    local.log(|access| {
        let error = result.as_ref().err().map(ToString::to_string);
        access.write(&Record {
            time: access::now().saturating_sub(took),
            client: peer.client.ip().to_canonical(),
            method: match kind {
                Kind::Bytes | Kind::Greeted(_) => b"STREAM",
                Kind::Passed => b"PASSTHROUGH",
            },
            target: upstream.name.as_bytes(),
            protocol: if peer.scheme == "tls" { "TLS" } else { "TCP" },
            host: peer.sni.as_deref().unwrap_or_default().as_bytes(),
            status: match result {
                Err(Broken::NoServer(failure)) => failure.status(),
                _ => 200,
            },
            received: account.received,
            sent: account.sent,
            duration: took,
            upstream: account.server.as_deref(),
            upstream_duration: account.connected,
            error: error.as_deref(),
            ..peer.record()
        });
    });
}
