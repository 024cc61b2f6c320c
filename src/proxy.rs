//! One request, as one readable pipeline: [`handle`].
//!
//! The client's side of it is behind [`Client`], implemented for HTTP/1.1 and HTTP/2; the server's
//! side is [`crate::upstream`]. Any failure anywhere becomes one [`Failure`], which becomes one
//! response or a broken-off connection in one place; metrics and the access log are written in one
//! place, whatever happened.

pub mod auth;
mod client;
mod compress;
mod condition;
pub mod error;
pub mod exchange;
mod forward;
mod greeting;
mod grpc;
pub mod headers;
mod identity;
pub mod limit;
pub mod local;
mod own;
mod path;
mod preamble;
mod quota;
mod redirect;
pub mod route;
pub mod rules;
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
use crate::metrics::{ErrorKind, Limit, Timeout};
use crate::telemetry::access::{self, Record};
use crate::telemetry::spans::{Outbox, Span};
use crate::tls::identity::Identity;
use crate::tls::{Current, Ja4, Session};
use crate::upstream::health::Moment;
use crate::upstream::pool::ClientId;
use crate::wire::Body;
use auth::{Auth, Guest};
use compress::{Compressed, Wish};
pub use condition::Asked;
use error::{Failure, Refusal, Side};
use exchange::Upload;
use forward::{Answer, Forward};
use headers::Hop;
use limit::{Bucket, Buckets, Key, Member};
pub use local::{Local, Snapshot};
use own::Own;
pub use redirect::plain;
use route::{Action, Respond, Route, SiteIndex, Table};
use rules::material::Material;
use rules::{Known, Marks, Rules};

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
    /// Where spans are put, if anywhere.
    pub spans: Option<Outbox>,
    /// Clients whose word on those before them is believed.
    pub forwarded_from: Vec<ipnet::IpNet>,
    /// What rules were made with.
    pub material: Material,
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
    /// The port of the listener that it came in at.
    pub local_port: u16,
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

/// What a request was, for metrics and the access log.
#[derive(Debug)]
struct Account<'w> {
    /// Who asks: the peer, or for whom a peer asks that is believed.
    client: IpAddr,
    site: Option<SiteIndex>,
    /// Who the client has shown to be, where the site asks for that.
    identity: Option<&'w Identity>,
    /// The rules that hold for it, as far as that is known.
    rules: Option<&'w Rules>,
    /// What it is known by, where that is asked for.
    marks: Option<Box<Marks>>,
    status: u16,
    received: u64,
    sent: u64,
    server: Option<Arc<str>>,
    upstream_time: Option<Duration>,
    /// When the response was through, where it was.
    ended: Option<Instant>,
    started: bool,
    tunnelled: bool,
    /// Its places in quotas of what is worked on at once.
    held: Vec<Member>,
}

impl<'w> Account<'w> {
    fn new(world: &'w Snapshot, peer: &Peer, head: &RequestHead) -> Self {
        Self {
            client: client::of(world, peer.client.ip(), head),
            rules: world.table().rules(),
            site: None,
            identity: None,
            marks: None,
            status: 0,
            received: 0,
            sent: 0,
            server: None,
            upstream_time: None,
            ended: None,
            started: false,
            tunnelled: false,
            held: Vec::new(),
        }
    }
}

/// Serves one request from head to log line. The client's connection is left for its owner to keep
/// or close.
pub async fn handle<C: Client>(local: &Local, peer: &Peer, mut head: RequestHead, client: &mut C) {
    let begin = Instant::now();
    let world = local.world();
    let mut account = Account::new(&world, peer, &head);
    local.edge().requests_in_flight.inc();
    let result = serve(local, &world, peer, &mut head, client, begin, &mut account).await;
    local.edge().requests_in_flight.dec();
    if let Err(failure) = &result {
        fail(local, &world, peer, &head, client, &mut account, failure).await;
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
    let head = RequestHead::unread();
    let mut account = Account::new(&world, peer, &head);
    fail(local, &world, peer, &head, client, &mut account, &failure).await;
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

async fn serve<'w, C: Client>(
    local: &Local,
    world: &'w Snapshot,
    peer: &'w Peer,
    head: &mut RequestHead,
    client: &mut C,
    begin: Instant,
    account: &mut Account<'w>,
) -> Result<(), Failure> {
    admissible(head).inspect_err(|_| account.rules = world.table().rules_of(head.authority()))?;
    let found = route(local, world, peer, head, account)?;
    if let Some(auth) = account.rules.and_then(Rules::auth) {
        let asked = Guest {
            local,
            world,
            peer,
            head,
            client,
            account,
        };
        // Boxed: most sites are open, and its state would make every request's larger.
        if Box::pin(auth.admit(asked)).await?.is_break() {
            return Ok(());
        }
    }
    let route = found?;
    if head.method == Method::Options && headers::max_forwards(head) == Some(0) {
        let own = Own::last_hop(local);
        return answer(world, peer, head, client, account, own).await;
    }
    match &route.action {
        Action::Forward(to) => {
            let limit = route.request_body;
            if let (Framing::Length(length), Some(limit)) = (head.framing, limit)
                && length > limit
            {
                return Err(Refusal::TooLarge.into());
            }
            let upload = Upload::new(head.framing, limit);
            forward(
                local,
                world,
                peer,
                head,
                client,
                account,
                (to, upload, begin),
            )
            .await
        }
        Action::Redirect { location, status } => {
            let location = with_known(peer, head, account, |known| {
                rules::location(location, known)
            });
            let own = Own::redirect(local, *status, &location?, head.method);
            answer(world, peer, head, client, account, own).await
        }
        Action::Respond(to) => respond(local, world, peer, head, client, account, to).await,
    }
}

/// Passes a request on, and the response back.
async fn forward<C: Client>(
    local: &Local,
    world: &Snapshot,
    peer: &Peer,
    head: &mut RequestHead,
    client: &mut C,
    account: &mut Account<'_>,
    (to, mut upload, begin): (&route::Forward, Upload, Instant),
) -> Result<(), Failure> {
    let (upstream, timeouts) = (&*to.upstream, to.timeouts());
    let rewritten = match &to.rewrite {
        Some(rewrite) if head.target() != b"*" => Some(with_known(peer, head, account, |known| {
            rules::rewritten(rewrite, known)
        })?),
        _ => None,
    };
    // Read before the request is edited: it is the client's word that counts.
    let compression = (to.compression.as_deref()).map(|terms| (terms, Wish::of(head)));
    let upgrade = headers::to_upstream(head, hop(world, peer));
    identity::replace(&mut head.fields, account.identity);
    // What the client asked for is what the log and the response's rules know.
    let asked = (head.target, head.authority);
    if let Some(rules) = account.rules {
        let none = Marks::default();
        let marks = account.marks.as_deref().unwrap_or(&none);
        rules.to_upstream(head, peer, account.identity, account.client, marks);
    }
    if let Some(target) = rewritten {
        head.target = head.fields.store(&target);
    }
    let mut deadline = local.deadline();
    let forward = Forward {
        local,
        world,
        peer,
        upstream,
        timeouts,
        total: to.total(),
        head,
        upgrade: upgrade.as_deref(),
    };
    let result = forward
        .run(client, &mut upload, &mut deadline, begin, account)
        .await;
    (head.target, head.authority) = asked;
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
    if let Some(rules) = account.rules {
        with_known(peer, head, account, |known| {
            rules.rewrite_location(&mut response, known);
            rules.to_client(&mut response, known);
        });
    }
    let plan = (compression.as_ref().filter(|_| !upgraded)).and_then(|(terms, wish)| {
        let full = || local.edge().limit(Limit::Compressions);
        compress::choose(
            terms,
            wish,
            head.method,
            local.compressing(),
            &mut response,
            full,
        )
    });
    client.start(response, upgraded)?;
    account.started = true;
    if upgraded {
        account.tunnelled = true;
        // That was for the request; a tunnel may last.
        deadline.unbound();
        let passed = tunnel::run(client, &mut server, timeouts.tunnel, &mut deadline).await?;
        account.received = passed.up;
        account.sent = passed.down;
        if passed.silent {
            local.edge().timeout(Timeout::Tunnel);
        }
        return Ok(());
    }
    let sent = match plan {
        None => exchange::response(client, &mut server, &mut upload, timeouts, &mut deadline).await,
        // Boxed: not every response need carry room for what few have.
        Some(plan) => {
            Box::pin(async {
                let series = &local.edge().compression;
                let mut client = Compressed::new(client, plan, series)?;
                exchange::response(
                    &mut client,
                    &mut server,
                    &mut upload,
                    timeouts,
                    &mut deadline,
                )
                .await
                .map(|_| client.output)
            })
            .await
        }
    };
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

/// Answers without an upstream.
async fn answer<C: Client>(
    world: &Snapshot,
    peer: &Peer,
    head: &RequestHead,
    client: &mut C,
    account: &mut Account<'_>,
    own: Own<'_>,
) -> Result<(), Failure> {
    account.status = own.status();
    account.sent = own.length();
    let rules = account.rules;
    let own = with_known(peer, head, account, |known| own.by(rules, known));
    own::hear(client, head).await;
    own.deliver(client, world.timeouts().send).await
}

/// Answers with what the configuration says, compressed where that is asked for.
async fn respond<C: Client>(
    local: &Local,
    world: &Snapshot,
    peer: &Peer,
    head: &RequestHead,
    client: &mut C,
    account: &mut Account<'_>,
    respond: &Respond,
) -> Result<(), Failure> {
    let own = Own::respond(local, respond, account.rules, head.method);
    let Some(terms) = respond.compression.as_deref() else {
        return answer(world, peer, head, client, account, own).await;
    };
    account.status = own.status();
    let rules = account.rules;
    let mut own = with_known(peer, head, account, |known| own.by(rules, known));
    let plan = compress::choose(
        terms,
        &Wish::of(head),
        head.method,
        local.compressing(),
        own.head(),
        || local.edge().limit(Limit::Compressions),
    );
    own::hear(client, head).await;
    let send = world.timeouts().send;
    let Some(plan) = plan else {
        account.sent = own.length();
        return own.deliver(client, send).await;
    };
    Box::pin(async {
        let mut client = Compressed::new(client, plan, &local.edge().compression)?;
        account.started = true;
        let delivered = own.deliver(&mut client, send).await;
        account.sent = client.output;
        delivered
    })
    .await
}

/// Does something that needs to know of the request.
fn with_known<T>(
    peer: &Peer,
    head: &RequestHead,
    account: &Account<'_>,
    work: impl FnOnce(&Known<'_>) -> T,
) -> T {
    let none = Marks::default();
    let marks = account.marks.as_deref().unwrap_or(&none);
    work(&Known {
        peer,
        identity: account.identity,
        client: account.client,
        head,
        marks,
    })
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

/// Finds the site, then the route; lets the client's address in, or not. Which route there is, if
/// any, is for nobody but who is let in for good.
fn route<'w>(
    local: &Local,
    world: &'w Snapshot,
    peer: &'w Peer,
    head: &RequestHead,
    account: &mut Account<'w>,
) -> Result<Result<&'w Route, Refusal>, Refusal> {
    let index = match head.authority() {
        [] => world.table().nameless(),
        authority => {
            let host = Host::parse(authority).ok_or(Refusal::Host)?;
            if let Some(name) = &peer.sni
                && !is_same_host(name, host.as_str())
                && !local.certificates().serves_both(name, host.as_str())
            {
                return Err(Refusal::Misdirected);
            }
            world.table().find(host.as_str())
        }
    };
    let index = index.ok_or(Refusal::Misdirected)?;
    account.site = Some(index);
    let site = world.table().site(index);
    account.rules = site.rules.as_deref();
    identity::admit(peer, site)?;
    account.identity = identity::shown(peer, site);
    let asked = Asked {
        head,
        peer,
        identity: account.identity,
        client: account.client,
    };
    let found = match site.route(asked) {
        Ok((route, marks)) => {
            account.rules = route.rules.as_deref();
            account.marks = marks;
            Ok(route)
        }
        Err(refusal) => Err(refusal),
    };
    // Who is not let in learns nothing of what there is, and takes nothing from what others may ask.
    if let Some(rules) = account.rules {
        name(local, world, peer, head, account);
        rules.admit(account.client)?;
        rules.admit_method(head.method_text())?;
    }
    within_rates(world, account)?;
    within_quotas(peer, head, account)?;
    Ok(found)
}

/// Gives the request an id and a place in a trace, where its rules want that.
fn name(
    local: &Local,
    world: &Snapshot,
    peer: &Peer,
    head: &RequestHead,
    account: &mut Account<'_>,
) {
    if let Some(rules) = account.rules
        && rules.name_requests()
    {
        let marks = account.marks.get_or_insert_default();
        let (trusted, spans) = (world.trusts(peer.client.ip()), world.spans().is_some());
        marks.name(rules, head, trusted, spans, local.random());
    }
}

/// Whether the name that the handshake asked for is this host, which is in lower case.
fn is_same_host(name: &str, host: &str) -> bool {
    name.strip_suffix('.')
        .unwrap_or(name)
        .eq_ignore_ascii_case(host)
}

/// Takes the request from what its client and its site may still have.
fn within_rates(world: &Snapshot, account: &Account<'_>) -> Result<(), Refusal> {
    if let Some(clients) = world.client_rate() {
        let taken = clients.take(Key::Client(account.client));
        taken.map_err(|wait| Refusal::ClientRate(seconds(wait)))?;
    }
    let site = (account.site).and_then(|site| world.table().site(site).rate.as_ref());
    match site.map(Bucket::take) {
        Some(Err(wait)) => Err(Refusal::SiteRate(seconds(wait))),
        _ => Ok(()),
    }
}

/// Takes the request from what its route is a part of.
fn within_quotas(
    peer: &Peer,
    head: &RequestHead,
    account: &mut Account<'_>,
) -> Result<(), Refusal> {
    for quota in account.rules.map(Rules::quotas).unwrap_or_default() {
        let client = account.client;
        let taken = with_known(peer, head, account, |known| quota.take(client, known));
        let member = taken.map_err(|wait| Refusal::Quota(seconds(wait)))?;
        account.held.extend(member);
    }
    Ok(())
}

/// What a client is told to wait.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX)
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
    world: &Snapshot,
    peer: &Peer,
    head: &RequestHead,
    client: &mut C,
    account: &mut Account<'_>,
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
        match failure.side() {
            // It must not take the beginning for all, and is told so in its own words.
            Side::Upstream if grpc::asks(head) => {
                client.finish(Some(grpc::trailers(failure.status())));
            }
            _ => client.abort(),
        }
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
    if account.marks.is_none() {
        name(local, world, peer, head, account);
    }
    let (status, retry_after) = (account.status, failure.retry_after());
    let mut own = match grpc::asks(head) {
        true => Own::grpc(local, status),
        false => Own::error(local, status, retry_after, account.rules, head.method),
    };
    // RFC 9110, section 11.6.1.
    if let Failure::Refused(Refusal::Anonymous | Refusal::Credentials) = failure
        && let Some(challenge) = (account.rules.and_then(Rules::auth)).and_then(Auth::challenge)
    {
        own.head().fields.push(b"WWW-Authenticate", challenge);
    }
    // It failed already; that its explanation cannot be delivered either is no news.
    let _ = answer(world, peer, head, client, account, own).await;
}

/// Says in the log what an operator can act upon; what only a client did wrong, at debug level.
fn report(peer: &Peer, head: &RequestHead, account: &Account<'_>, failure: &Failure) {
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
    account: &Account<'_>,
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
    let span = (account.marks.as_deref()).and_then(Marks::span);
    if let (Some(outbox), Some(span)) = (world.spans(), span) {
        let (trace, id, parent) = span;
        outbox.put(&Span {
            trace,
            id,
            parent,
            begin: access::now().saturating_sub(took),
            took,
            method: head.method_text(),
            is_known: head.method != Method::Other,
            scheme: peer.scheme,
            path: head.path(),
            host: head.authority(),
            client: &account.client.to_canonical().to_string(),
            protocol: head.version.label(),
            user_agent: head.fields.get(Id::UserAgent),
            status: account.status,
            received: account.received,
            sent: account.sent,
            tls: peer.tls_version,
            site: account.site.map(|site| &*world.table().site(site).label),
            server: account.server.as_deref(),
            error: failure.map(|failure| failure.kind().map_or("client_gone", ErrorKind::code)),
        });
    }
    local.log(|access| {
        let error = failure.map(ToString::to_string);
        access.write(&Record {
            time: access::now().saturating_sub(took),
            client: account.client.to_canonical(),
            method: head.method_text(),
            target: head.target(),
            protocol: head.version.label(),
            host: head.authority(),
            site: account.site.map(|site| &*world.table().site(site).label),
            user: account
                .marks
                .as_ref()
                .and_then(|marks| marks.user.as_deref()),
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
            request_id: account.marks.as_ref().and_then(|marks| marks.request_id()),
            trace_id: account.marks.as_ref().and_then(|marks| marks.trace_id()),
            error: error.as_deref(),
        });
    });
}
