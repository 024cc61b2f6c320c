//! One request, as one readable pipeline: [`handle`].
//!
//! The client's side of it is behind [`Client`], implemented for HTTP/1.1 and HTTP/2; the server's
//! side is [`crate::upstream`]. Any failure anywhere becomes one [`Failure`], which becomes one
//! response or a broken-off connection in one place; metrics and the access log are written in one
//! place, whatever happened.

mod account;
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
mod tally;
pub mod tunnel;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{self, Compression, Limits, Timeouts};
use crate::http::field::{Fields, Id};
use crate::http::host::Host;
use crate::http::{Framing, Method, RequestHead, ResponseHead};
use crate::metrics::{Limit, Timeout};
use crate::telemetry::access::Record;
use crate::telemetry::spans::Outbox;
use crate::tls::identity::Identity;
use crate::tls::{Current, Ja4, Session};
use crate::upstream::health::Moment;
use crate::upstream::pool::ClientId;
use crate::wire::{Body, Deadline};
use account::Account;
use auth::Auth;
use compress::{Compressed, Plan, Wish};
pub use condition::Asked;
use error::{Failure, Refusal, Side};
use exchange::Upload;
use forward::{Answer, Forward};
use headers::Hop;
use limit::Key;
pub use local::{Local, Snapshot};
use own::Own;
pub use redirect::plain;
use route::{Action, Respond, Route, Table};
use rules::material::Material;
use rules::{Known, Rules};
use tunnel::Passed;

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

impl Peer {
    /// What the access log says of the connection.
    fn record(&self) -> Record<'_> {
        Record {
            tls: self.tls_version,
            sni: self.sni.as_deref(),
            cipher: self.session.and_then(|session| session.cipher),
            group: self.session.and_then(|session| session.group),
            resumed: self.session.is_some_and(|session| session.resumed),
            ja4: self.ja4.as_ref().map(Ja4::as_str),
            client_certificate: (self.identity.as_ref())
                .filter(|identity| identity.verified)
                .map(|identity| identity.fingerprint.as_str()),
            ..Record::EMPTY
        }
    }
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
    /// Ready once the client has gone away, where that can be seen: in HTTP/1.1 not before the
    /// request's body has come.
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
    /// The same, where more is left of the request's body, which nobody wants, than will be read.
    fn leave_body(&mut self) {}
    /// For what is waited for on behalf of the request. Whoever uses it sets it first.
    fn deadline(&mut self) -> &mut Deadline;
}

/// One request on its way through the pipeline: what is asked, by whom, and what has become of it.
struct Exchange<'a, 'w, C> {
    local: &'a Local,
    world: &'w Snapshot,
    peer: &'w Peer,
    head: &'a mut RequestHead,
    client: &'a mut C,
    account: Account<'w>,
}

/// Serves one request from head to log line; when it was over. The client's connection is left for
/// its owner to keep or close.
pub async fn handle<C: Client>(
    local: &Local,
    peer: &Peer,
    mut head: RequestHead,
    client: &mut C,
) -> Instant {
    let begin = Instant::now();
    let world = local.world();
    let mut exchange = Exchange::new(local, &world, peer, &mut head, client);
    local.edge().requests_in_flight.inc();
    let result = exchange.serve(begin).await;
    local.edge().requests_in_flight.dec();
    exchange.client.deadline().reset();
    if let Err(failure) = &result {
        exchange.fail(failure).await;
    }
    let ended = exchange.account.ended.unwrap_or_else(Instant::now);
    exchange.record(ended - begin, result.as_ref().err());
    ended
}

/// Answers a request that could not even be read. `failure` says why.
pub async fn refuse<C: Client>(local: &Local, peer: &Peer, client: &mut C, failure: Failure) {
    let world = local.world();
    let mut head = RequestHead::unread();
    let mut exchange = Exchange::new(local, &world, peer, &mut head, client);
    exchange.fail(&failure).await;
    exchange.record(Duration::ZERO, Some(&failure));
}

impl<'a, 'w, C: Client> Exchange<'a, 'w, C> {
    fn new(
        local: &'a Local,
        world: &'w Snapshot,
        peer: &'w Peer,
        head: &'a mut RequestHead,
        client: &'a mut C,
    ) -> Self {
        Self {
            account: Account::new(world, peer, head),
            local,
            world,
            peer,
            head,
            client,
        }
    }

    async fn serve(&mut self, mut begin: Instant) -> Result<(), Failure> {
        if let Err(refusal) = admissible(self.head) {
            self.account.rules = self.world.table().rules_of(self.head.authority());
            return Err(refusal.into());
        }
        let found = self.route()?;
        if let Some(auth) = self.account.rules.and_then(Rules::auth) {
            // Boxed: most sites are open, and its state would make every request's larger.
            if Box::pin(auth.admit(self)).await?.is_break() {
                return Ok(());
            }
            begin = Instant::now();
        }
        let route = found?;
        if self.head.method == Method::Options && headers::max_forwards(self.head) == Some(0) {
            return self.answer(Own::last_hop(self.local)).await;
        }
        match &route.action {
            Action::Forward(to) => {
                let limit = route.request_body;
                if let (Framing::Length(length), Some(limit)) = (self.head.framing, limit)
                    && length > limit
                {
                    return Err(Refusal::TooLarge.into());
                }
                let upload = Upload::new(self.head.framing, limit);
                self.forward(to, upload, begin).await
            }
            Action::Redirect { location, status } => {
                let location = self.knowing(|known| rules::location(location, known))?;
                let own = Own::redirect(self.local, *status, &location, self.head.method);
                self.answer(own).await
            }
            Action::Respond(to) => self.respond(to).await,
        }
    }

    /// Passes the request on, and the response back.
    async fn forward(
        &mut self,
        to: &'w route::Forward,
        mut upload: Upload,
        begin: Instant,
    ) -> Result<(), Failure> {
        let (local, world, peer) = (self.local, self.world, self.peer);
        let (upstream, timeouts) = (&*to.upstream, to.timeouts());
        let rewritten = match &to.rewrite {
            Some(rewrite) if self.head.target() != b"*" => {
                Some(self.knowing(|known| rules::rewritten(rewrite, known))?)
            }
            _ => None,
        };
        // Read before the request is edited: it is the client's word that counts.
        let compression = (to.compression.as_deref()).map(|terms| (terms, Wish::of(self.head)));
        let upgrade = headers::to_upstream(self.head, hop(world, peer));
        identity::replace(&mut self.head.fields, self.account.identity);
        // What the client asked for is what the log and the response's rules know.
        let asked = (self.head.target, self.head.authority);
        if let Some(rules) = self.account.rules {
            let (identity, client) = (self.account.identity, self.account.client);
            rules.to_upstream(self.head, peer, identity, client, self.account.marks());
        }
        if let Some(target) = rewritten {
            self.head.target = self.head.fields.store(&target);
        }
        let forward = Forward {
            local,
            world,
            peer,
            upstream,
            timeouts,
            total: to.total(),
            head: self.head,
            upgrade: upgrade.as_deref(),
        };
        let account = &mut self.account;
        let result = forward.run(self.client, &mut upload, begin, account).await;
        (self.head.target, self.head.authority) = asked;
        self.account.received = upload.taken;
        let Answer {
            connection: mut server,
            head: mut response,
            in_flight,
            server: index,
        } = result?;

        self.account.status = response.status;
        let upgraded = response.status == 101;
        if !upgraded {
            headers::to_client(&mut response, |out| {
                out.extend_from_slice(&local.date()[..]);
            });
        }
        if let Some(rules) = self.account.rules {
            self.knowing(|known| {
                rules.rewrite_location(&mut response, known);
                rules.to_client(&mut response, known);
            });
        }
        let plan = (compression.as_ref().filter(|_| !upgraded))
            .and_then(|(terms, wish)| self.compression(terms, wish, &mut response));
        self.client.start(response, upgraded)?;
        self.account.started = true;
        if upgraded {
            self.account.tunnelled = true;
            // That was for the request; a tunnel may last.
            self.client.deadline().unbound();
            let mut passed = Passed::default();
            let ended = tunnel::run(self.client, &mut server, timeouts.tunnel, &mut passed).await;
            self.account.received = passed.up;
            self.account.sent = passed.down;
            ended?;
            if passed.silent {
                local.edge().timeout(Timeout::Tunnel);
            }
            return Ok(());
        }
        let sent = &mut self.account.sent;
        let ended = match plan {
            None => {
                let (client, server) = (&mut *self.client, &mut server);
                exchange::response(client, server, &mut upload, timeouts, sent).await
            }
            // Boxed: not every response need carry room for what few have.
            Some(plan) => {
                Box::pin(async {
                    let series = &local.edge().compression;
                    let mut client = Compressed::new(&mut *self.client, plan, series)?;
                    let ended =
                        exchange::response(&mut client, &mut server, &mut upload, timeouts, &mut 0)
                            .await;
                    *sent = client.output;
                    ended
                })
                .await
            }
        };
        self.account.received = upload.taken;
        if let Err(failure) = &ended
            && failure.is_held_against_server()
        {
            upstream.failed(index, Moment::now(), failure);
        }
        ended?;
        drop(in_flight);
        let now = Instant::now();
        self.account.ended = Some(now);
        local.pool().put(server, now);
        Ok(())
    }

    /// Answers without an upstream.
    async fn answer(&mut self, own: Own<'_>) -> Result<(), Failure> {
        self.account.status = own.status();
        self.account.sent = own.length();
        let rules = self.account.rules;
        let own = self.knowing(|known| own.by(rules, known));
        own::hear(self.client, self.head).await;
        own.deliver(self.client, self.world.timeouts().send).await
    }

    /// Answers with what the configuration says, compressed where that is asked for.
    async fn respond(&mut self, respond: &Respond) -> Result<(), Failure> {
        let rules = self.account.rules;
        let body = respond.body.as_ref().map(|body| match body {
            config::Body::Text(text) => Cow::Borrowed(text.as_bytes()),
            config::Body::Template(template) => {
                Cow::Owned(self.knowing(|known| known.body(template, &respond.content_type)))
            }
        });
        let own = Own::respond(self.local, respond, body, rules, self.head.method);
        let Some(terms) = respond.compression.as_deref() else {
            return self.answer(own).await;
        };
        self.account.status = own.status();
        let mut own = self.knowing(|known| own.by(rules, known));
        let plan = self.compression(terms, &Wish::of(self.head), own.head());
        own::hear(self.client, self.head).await;
        let send = self.world.timeouts().send;
        let Some(plan) = plan else {
            self.account.sent = own.length();
            return own.deliver(self.client, send).await;
        };
        Box::pin(async {
            let series = &self.local.edge().compression;
            let mut client = Compressed::new(&mut *self.client, plan, series)?;
            self.account.started = true;
            let delivered = own.deliver(&mut client, send).await;
            self.account.sent = client.output;
            delivered
        })
        .await
    }

    /// How the response is to be compressed, if it is.
    fn compression<'t>(
        &self,
        terms: &'t Compression,
        wish: &Wish,
        response: &mut ResponseHead,
    ) -> Option<Plan<'t>>
    where
        'a: 't,
    {
        let full = || self.local.edge().limit(Limit::Compressions);
        let method = self.head.method;
        compress::choose(
            terms,
            wish,
            method,
            self.local.compressing(),
            response,
            full,
        )
    }

    /// Does something that needs to know of the request.
    fn knowing<T>(&self, work: impl FnOnce(&Known<'_>) -> T) -> T {
        work(&Known {
            peer: self.peer,
            identity: self.account.identity,
            client: self.account.client,
            head: self.head,
            marks: self.account.marks(),
        })
    }

    /// Finds the site, then the route; lets the client's address in, or not. Which route there is,
    /// if any, is for nobody but who is let in for good.
    fn route(&mut self) -> Result<Result<&'w Route, Refusal>, Refusal> {
        let (world, peer) = (self.world, self.peer);
        let index = match self.head.authority() {
            [] => world.table().nameless(),
            authority => {
                let named = (peer.sni.as_deref()).and_then(|name| Host::named(name, authority));
                let host = match named {
                    Some(host) => host,
                    None => self.other_host(authority)?,
                };
                world.table().find(host.as_str())
            }
        };
        let index = index.ok_or(Refusal::Misdirected)?;
        let account = &mut self.account;
        account.site = Some(index);
        let site = world.table().site(index);
        account.rules = site.rules.as_deref();
        identity::admit(peer, site)?;
        account.identity = identity::shown(peer, site);
        let asked = Asked {
            head: self.head,
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
        // Who is not let in learns nothing of what there is, and takes nothing from what others may
        // ask.
        if let Some(rules) = self.account.rules {
            self.name();
            rules.admit(self.account.client)?;
            rules.admit_method(self.head.method_text())?;
        }
        self.within_rates()?;
        self.within_quotas()?;
        Ok(found)
    }

    /// The host of a request that is not the one, byte for byte, that the handshake named.
    fn other_host<'h>(&self, authority: &'h [u8]) -> Result<Host<'h>, Refusal> {
        let host = Host::parse(authority).ok_or(Refusal::Host)?;
        match &self.peer.sni {
            Some(name)
                if !is_same_host(name, host.as_str())
                    && !(self.local.certificates()).serves_both(name, host.as_str()) =>
            {
                Err(Refusal::Misdirected)
            }
            _ => Ok(host),
        }
    }

    /// Gives the request an id and a place in a trace, where its rules want that.
    fn name(&mut self) {
        if let Some(rules) = self.account.rules
            && rules.name_requests()
        {
            let world = self.world;
            let marks = self.account.marks.get_or_insert_default();
            let trusted = world.trusts(self.peer.client.ip());
            let (spans, random) = (world.spans().is_some(), self.local.random());
            marks.name(rules, self.head, trusted, spans, random);
        }
    }

    /// Takes the request from what its client and its site may still have.
    fn within_rates(&self) -> Result<(), Refusal> {
        if let Some(clients) = self.world.tally().clients() {
            let taken = clients.take(Key::Client(self.account.client));
            taken.map_err(|wait| Refusal::ClientRate(seconds(wait)))?;
        }
        let table = self.world.table();
        let site = (self.account.site).and_then(|site| table.site(site).rate.as_deref());
        match site.map(limit::Bucket::take) {
            Some(Err(wait)) => Err(Refusal::SiteRate(seconds(wait))),
            _ => Ok(()),
        }
    }

    /// Takes the request from what its route is a part of.
    fn within_quotas(&mut self) -> Result<(), Refusal> {
        for quota in self.account.rules.map(Rules::quotas).unwrap_or_default() {
            let client = self.account.client;
            let taken = self.knowing(|known| quota.take(client, known));
            let member = taken.map_err(|wait| Refusal::Quota(seconds(wait)))?;
            self.account.held.extend(member);
        }
        Ok(())
    }

    /// Tells the client what went wrong, or breaks off where it is too late for that.
    async fn fail(&mut self, failure: &Failure) {
        let local = self.local;
        if let Some(kind) = failure.kind() {
            local.edge().error(kind);
        }
        if let Some(timeout) = failure.timeout() {
            local.edge().timeout(timeout);
        }
        if let Some(limit) = failure.limit() {
            local.edge().limit(limit);
        }
        self.report(failure);
        if self.account.started {
            // What has come is passed on all the same: the client may have use for it.
            poll_fn(|cx| {
                let _ = self.client.poll_flush(cx);
                Poll::Ready(())
            })
            .await;
            match failure.side() {
                // It must not take the beginning for all, and is told so in its own words.
                Side::Upstream if grpc::asks(self.head) => {
                    self.client.finish(Some(grpc::trailers(failure.status())));
                }
                _ => self.client.abort(),
            }
            return;
        }
        let status = failure.status();
        self.account.status = status;
        if status == 499 {
            self.client.abort();
            return;
        }
        if matches!(status, 400 | 408 | 413) {
            // What the client meant is not certain, and so is not what follows; or more would follow
            // than is worth reading, or waiting for.
            self.client.last();
        }
        if self.account.marks.is_none() {
            self.name();
        }
        let (rules, method) = (self.account.rules, self.head.method);
        let mut own = match grpc::asks(self.head) {
            true => Own::grpc(local, status),
            false => Own::error(local, status, failure.retry_after(), rules, method),
        };
        // RFC 9110, section 11.6.1.
        if let Failure::Refused(Refusal::Anonymous | Refusal::Credentials) = failure
            && let Some(challenge) = rules.and_then(Rules::auth).and_then(Auth::challenge)
        {
            own.head().fields.push(b"WWW-Authenticate", challenge);
        }
        // It failed already; that its explanation cannot be delivered either is no news.
        let _ = self.answer(own).await;
    }
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

/// Whether the name that the handshake asked for is this host, which is in lower case.
fn is_same_host(name: &str, host: &str) -> bool {
    name.strip_suffix('.')
        .unwrap_or(name)
        .eq_ignore_ascii_case(host)
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
