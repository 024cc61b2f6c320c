//! One request, as one readable pipeline: [`handle`].
//!
//! The client's side of it is behind [`Client`], implemented for HTTP/1.1 and HTTP/2; the server's
//! side is [`crate::upstream`]. Any failure anywhere becomes one [`Failure`], which becomes one
//! response or a broken-off connection in one place; metrics and the access log are written in one
//! place, whatever happened.

pub mod error;
pub mod exchange;
mod forward;
pub mod headers;
mod identity;
pub mod limit;
pub mod local;
mod preamble;
mod redirect;
pub mod route;
pub mod stream;
pub mod tunnel;

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::config::{Limits, Timeouts};
use crate::http::field::{Fields, Id};
use crate::http::host::Host;
use crate::http::{Framing, Method, RequestHead, ResponseHead};
use crate::telemetry::access::{self, Record};
use crate::tls::identity::Identity;
use crate::tls::{Current, Ja4, Session};
use crate::upstream::Upstream;
use crate::upstream::health::Moment;
use crate::upstream::pool::ClientId;
use crate::wire::{Body, Deadline};
use error::{Failure, Refusal, Side, phrase};
use exchange::Upload;
use forward::{Answer, Forward};
use headers::Hop;
use limit::{Bucket, Buckets};
pub use local::{Local, Snapshot};
pub use redirect::redirect;
use route::{SiteIndex, Table};

/// What requests are served by: one immutable snapshot of the configuration, shared by all threads.
#[derive(Debug)]
pub struct World {
    /// Sites and routes.
    pub table: Table,
    /// Upstreams, for whoever asks about them.
    pub upstreams: crate::upstream::Upstreams,
    /// Those of them that whole connections are passed on to.
    pub streams: BTreeSet<Arc<str>>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds.
    pub limits: Limits,
    /// What each client may still ask for, where that is limited.
    pub client_rate: Option<Buckets>,
    /// Clients whose word on those before them is believed.
    pub forwarded_from: Vec<ipnet::IpNet>,
}

/// What is known of the connection that a request came on.
#[derive(Debug)]
pub struct Peer {
    /// Tells its connection from all others of this worker.
    pub id: ClientId,
    /// Who is at the other end: the peer, or whom the PROXY protocol names.
    pub client: std::net::SocketAddr,
    /// Where it connected to, where a server is to be told.
    pub destination: Option<std::net::SocketAddr>,
    /// `https` or `http`; of streams `tls` or `tcp`.
    pub scheme: &'static str,
    /// The name that the TLS handshake asked for.
    pub sni: Option<Box<str>>,
    /// What was agreed on by ALPN.
    pub alpn: Option<Box<[u8]>>,
    /// The TLS version, for the access log.
    pub tls_version: Option<&'static str>,
    /// What was agreed on.
    pub session: Option<Session>,
    /// What the client's greeting looks like, where that is asked for.
    pub ja4: Option<Ja4>,
    /// What the connection was accepted under.
    pub policy: Option<Arc<Current>>,
    /// Who the client has shown to be, where that was asked for.
    pub identity: Option<Arc<Identity>>,
}

/// The client's side of one exchange. All is polled by the one task that owns it.
pub trait Client {
    /// Waits for data of the request's body, or its end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Failure>>;
    /// The data that [`poll_body`](Self::poll_body) found.
    fn data(&self) -> &[u8];
    /// Drops data from the front.
    fn consume(&mut self, count: usize);
    /// The request's trailer section, once its body is over.
    fn take_trailers(&mut self) -> Option<Box<Fields>>;
    /// Ready once the client has gone away, where that can be seen.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Gathers an interim response, where the client understands those.
    fn interim(&mut self, head: ResponseHead);
    /// Gathers the head of the final response. `upgrade`: the connection changes its protocol.
    fn start(&mut self, head: ResponseHead, upgrade: bool) -> Result<(), Failure>;
    /// Takes data of the response's body; how much.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Failure>>;
    /// Gathers the end of the response.
    fn finish(&mut self, trailers: Option<Box<Fields>>);
    /// Sends what is gathered.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>>;
    /// Makes both directions plain bytes, after a `101`.
    fn begin_tunnel(&mut self);
    /// Closes the sending side, after all that is gathered.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Breaks the response off so that the client cannot take it for whole.
    fn abort(&mut self);
    /// Lets the connection end with this exchange, where it carries one at a time. Before
    /// [`start`](Self::start).
    fn last(&mut self);
}

/// The methods that are told to whoever asks; others pass too.
const ALLOW: &[u8] = b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";

/// What a request was, for metrics and the access log.
#[derive(Debug, Default)]
struct Account {
    site: Option<SiteIndex>,
    status: u16,
    received: u64,
    sent: u64,
    server: Option<Arc<str>>,
    upstream_time: Option<Duration>,
    /// When the response was through, where it was.
    ended: Option<Instant>,
    started: bool,
    tunnelled: bool,
}

/// Serves one request from head to log line. The client's connection is left for its owner to keep
/// or close.
pub async fn handle<C: Client>(local: &Local, peer: &Peer, mut head: RequestHead, client: &mut C) {
    let begin = Instant::now();
    let world = local.world();
    let mut account = Account::default();
    local.edge().requests_in_flight.inc();
    let result = serve(local, &world, peer, &mut head, client, begin, &mut account).await;
    local.edge().requests_in_flight.dec();
    if let Err(failure) = &result {
        fail(local, peer, &head, client, &mut account, failure).await;
    }
    let took = account.ended.unwrap_or_else(Instant::now) - begin;
    record(
        local,
        &world,
        peer,
        &head,
        &account,
        took,
        result.as_ref().err(),
    );
}

/// Answers a request that could not even be read. `failure` says why.
pub async fn refuse<C: Client>(local: &Local, peer: &Peer, client: &mut C, failure: Failure) {
    let world = local.world();
    let mut account = Account::default();
    let head = RequestHead::unread();
    fail(local, peer, &head, client, &mut account, &failure).await;
    record(
        local,
        &world,
        peer,
        &head,
        &account,
        Duration::ZERO,
        Some(&failure),
    );
}

async fn serve<C: Client>(
    local: &Local,
    world: &Snapshot,
    peer: &Peer,
    head: &mut RequestHead,
    client: &mut C,
    begin: Instant,
    account: &mut Account,
) -> Result<(), Failure> {
    admissible(head)?;
    let upstream = route(local, world, peer, head, account)?;
    if head.method == Method::Options && headers::max_forwards(head) == Some(0) {
        return last_hop(local, client, account).await;
    }
    let limit = world.limits().request_body;
    if let (Framing::Length(length), Some(limit)) = (head.framing, limit)
        && length > limit
    {
        return Err(Refusal::TooLarge.into());
    }
    let upgrade = headers::to_upstream(head, hop(world, peer));
    let site = account.site.map(|site| world.table().site(site));
    identity::replace(&mut head.fields, peer, site);
    let mut upload = Upload::new(head.framing, limit);
    let mut deadline = local.deadline();

    let forward = Forward {
        local,
        world,
        peer,
        upstream: &upstream,
        head,
        upgrade: upgrade.as_deref(),
    };
    let result = forward
        .run(client, &mut upload, &mut deadline, begin, account)
        .await;
    account.received = upload.taken;
    let Answer {
        connection: mut server,
        head: mut response,
        in_flight,
        server: index,
    } = result?;

    account.status = response.status;
    let upgraded = response.status == 101;
    if !upgraded {
        headers::to_client(&mut response, |out| {
            out.extend_from_slice(&local.date()[..]);
        });
    }
    client.start(response, upgraded)?;
    account.started = true;
    if upgraded {
        account.tunnelled = true;
        // That was for the request; a tunnel may last.
        deadline.unbound();
        let passed =
            tunnel::run(client, &mut server, world.timeouts().tunnel, &mut deadline).await?;
        account.received = passed.up;
        account.sent = passed.down;
        return Ok(());
    }
    let sent = exchange::response(
        client,
        &mut server,
        &mut upload,
        &upstream.timeouts,
        &mut deadline,
    )
    .await;
    account.received = upload.taken;
    if let Err(failure) = &sent
        && failure.is_of_server()
    {
        upstream.failed(index, Moment::now(), failure);
    }
    account.sent = sent?;
    drop(in_flight);
    let now = Instant::now();
    account.ended = Some(now);
    local.pool().put(server, now);
    Ok(())
}

/// Refuses what a gateway must not pass on, whatever the site.
fn admissible(head: &RequestHead) -> Result<(), Refusal> {
    match head.method {
        // No tunnels through here (RFC 9110, section 9.3.6), and no echo of what was added on the
        // way (section 9.3.8).
        Method::Connect | Method::Trace => return Err(Refusal::Method),
        _ => {}
    }
    match head.fields.get(Id::Expect) {
        Some(expected) if !expected.eq_ignore_ascii_case(b"100-continue") => {
            Err(Refusal::Expectation)
        }
        _ => Ok(()),
    }
}

/// Answers a request that may be forwarded no further (RFC 9110, section 7.6.2).
async fn last_hop<C: Client>(
    local: &Local,
    client: &mut C,
    account: &mut Account,
) -> Result<(), Failure> {
    account.status = 204;
    let mut fields = Fields::with_capacity(128);
    fields.push(b"Allow", ALLOW);
    fields.push_with(Id::Date, |out| out.extend_from_slice(&local.date()[..]));
    let response = ResponseHead::own(204, phrase(204), Framing::None, fields);
    deliver(local, client, response, &[]).await
}

/// Finds the site, then the upstream.
fn route(
    local: &Local,
    world: &Snapshot,
    peer: &Peer,
    head: &RequestHead,
    account: &mut Account,
) -> Result<Arc<Upstream>, Refusal> {
    let site = match head.authority() {
        [] => world.table().nameless(),
        authority => {
            let host = Host::parse(authority).ok_or(Refusal::Host)?;
            if let Some(name) = &peer.sni
                && !is_same_host(name, host.as_str())
                && !local.serves_both(name, host.as_str())
            {
                return Err(Refusal::Misdirected);
            }
            world.table().find(host.as_str())
        }
    };
    let site = site.ok_or(Refusal::Misdirected)?;
    account.site = Some(site);
    identity::admit(peer, world.table().site(site))?;
    within_rates(world, peer, account.site)?;
    world.table().site(site).upstream(head.path()).cloned()
}

/// Whether the name that the handshake asked for is this host, which is in lower case.
fn is_same_host(name: &str, host: &str) -> bool {
    name.strip_suffix('.')
        .unwrap_or(name)
        .eq_ignore_ascii_case(host)
}

/// Takes the request from what its client and its site may still have.
fn within_rates(world: &Snapshot, peer: &Peer, site: Option<SiteIndex>) -> Result<(), Refusal> {
    let seconds = |wait: Duration| u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
    if let Some(clients) = world.client_rate() {
        let taken = clients.take(peer.client.ip());
        taken.map_err(|wait| Refusal::ClientRate(seconds(wait)))?;
    }
    let site = site.and_then(|site| world.table().site(site).rate.as_ref());
    match site.map(Bucket::take) {
        Some(Err(wait)) => Err(Refusal::SiteRate(seconds(wait))),
        _ => Ok(()),
    }
}

fn hop(world: &Snapshot, peer: &Peer) -> Hop {
    let client: IpAddr = peer.client.ip();
    Hop {
        client,
        trusted: world.trusts(client),
        scheme: peer.scheme,
    }
}

/// Tells the client what went wrong, or breaks off where it is too late for that.
async fn fail<C: Client>(
    local: &Local,
    peer: &Peer,
    head: &RequestHead,
    client: &mut C,
    account: &mut Account,
    failure: &Failure,
) {
    if let Some(kind) = failure.kind() {
        local.edge().error(kind);
    }
    if let Some(timeout) = failure.timeout() {
        local.edge().timeout(timeout);
    }
    if let Some(limit) = failure.limit() {
        local.edge().limit(limit);
    }
    report(peer, head, account, failure);
    if account.started {
        // What has come is passed on all the same: the client may have use for it.
        poll_fn(|cx| {
            let _ = client.poll_flush(cx);
            Poll::Ready(())
        })
        .await;
        client.abort();
        return;
    }
    account.status = failure.status();
    if account.status == 499 {
        client.abort();
        return;
    }
    if matches!(account.status, 400 | 413) {
        // What the client meant is not certain, and so is not what follows; or more would follow
        // than is worth reading.
        client.last();
    }
    let (response, body) = page(
        account.status,
        failure.retry_after(),
        &local.date()[..],
        head.method == Method::Head,
    );
    account.sent = body.len() as u64;
    // It failed already; that its explanation cannot be delivered either is no news.
    let _ = deliver(local, client, response, &body).await;
}

/// Sends a response of the proxy's own, within the time that any sending has.
async fn deliver<C: Client>(
    local: &Local,
    client: &mut C,
    response: ResponseHead,
    body: &[u8],
) -> Result<(), Failure> {
    client.start(response, false)?;
    let mut deadline = Deadline::default();
    deadline.set(local.world().timeouts().send);
    let mut rest = body;
    let mut finished = false;
    poll_fn(|cx| {
        while !rest.is_empty() {
            match client.poll_send(cx, rest)? {
                Poll::Ready(count) => rest = &rest[count..],
                Poll::Pending => return deadline.poll(cx).map(|()| Err(Failure::ClientNotReading)),
            }
        }
        if !finished {
            client.finish(None);
            finished = true;
        }
        match client.poll_flush(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => deadline.poll(cx).map(|()| Err(Failure::ClientNotReading)),
        }
    })
    .await
}

/// The response that the proxy makes itself: small, and without a word on what is behind.
fn page(
    status: u16,
    retry_after: Option<u32>,
    date: &[u8],
    head_only: bool,
) -> (ResponseHead, Vec<u8>) {
    let reason = phrase(status);
    let body = format!("{status} {reason}\n").into_bytes();
    let mut fields = Fields::with_capacity(256);
    fields.push(b"Content-Type", b"text/plain; charset=utf-8");
    fields.push(b"Content-Length", body.len().to_string().as_bytes());
    fields.push_with(Id::Date, |out| out.extend_from_slice(date));
    if status == 405 {
        fields.push(b"Allow", ALLOW);
    }
    if let Some(seconds) = retry_after {
        fields.push(b"Retry-After", seconds.to_string().as_bytes());
    }
    let length = body.len() as u64;
    let response = ResponseHead::own(status, reason, Framing::Length(length), fields);
    (response, if head_only { Vec::new() } else { body })
}

/// Says in the log what an operator can act upon; what only a client did wrong, at debug level.
fn report(peer: &Peer, head: &RequestHead, account: &Account, failure: &Failure) {
    let target = String::from_utf8_lossy(head.target());
    let host = String::from_utf8_lossy(head.authority());
    match failure.side() {
        Side::Client => debug!(client = %peer.client, %host, %target, error = %failure, "request"),
        Side::Upstream | Side::Here => warn!(
            client = %peer.client,
            %host,
            %target,
            server = account.server.as_deref().unwrap_or_default(),
            status = if account.started { account.status } else { failure.status() },
            error = %failure,
            "request failed"
        ),
    }
}

/// The single exit: metrics and access log.
fn record(
    local: &Local,
    world: &Snapshot,
    peer: &Peer,
    head: &RequestHead,
    account: &Account,
    took: Duration,
    failure: Option<&Failure>,
) {
    if matches!(failure, Some(Failure::ClientGone)) {
        local.edge().client_aborts.inc();
    }
    if let Some(site) = account.site {
        let series = world.site(site);
        series.record(head.method as usize, account.status, took);
        series.bytes(account.received, account.sent);
    }
    local.log(|access| {
        let error = failure.map(ToString::to_string);
        access.write(&Record {
            time: access::now().saturating_sub(took),
            client: peer.client.ip().to_canonical(),
            method: head.method_text(),
            target: head.target(),
            protocol: head.version.label(),
            host: head.authority(),
            site: account.site.map(|site| &*world.table().site(site).label),
            status: account.status,
            received: account.received,
            sent: account.sent,
            duration: took,
            upstream: account.server.as_deref(),
            upstream_duration: account.upstream_time,
            tls: peer.tls_version,
            sni: peer.sni.as_deref(),
            cipher: peer.session.and_then(|session| session.cipher),
            group: peer.session.and_then(|session| session.group),
            resumed: peer.session.is_some_and(|session| session.resumed),
            ja4: peer.ja4.as_ref().map(Ja4::as_str),
            client_certificate: (peer.identity.as_ref())
                .filter(|identity| identity.verified)
                .map(|identity| identity.fingerprint.as_str()),
            referer: head.fields.get(Id::Referer),
            user_agent: head.fields.get(Id::UserAgent),
            request_id: None,
            error: error.as_deref(),
        });
    });
}
