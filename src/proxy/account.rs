//! What a request was: the metrics, the access log, its span, and what an operator is to know.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::error::{Failure, Side};
use super::limit::Member;
use super::route::SiteIndex;
use super::rules::{Marks, Rules, UNMARKED};
use super::{Exchange, Peer, Snapshot, client};
use crate::http::field::Id;
use crate::http::{Method, RequestHead};
use crate::metrics::ErrorKind;
use crate::telemetry::access::{self, Record};
use crate::telemetry::spans::Span;
use crate::tls::identity::Identity;

/// What a request was, for metrics and the access log.
#[derive(Debug)]
pub(super) struct Account<'w> {
    /// Who asks: the peer, or for whom a peer asks that is believed.
    pub(super) client: IpAddr,
    pub(super) site: Option<SiteIndex>,
    /// Who the client has shown to be, where the site asks for that.
    pub(super) identity: Option<&'w Identity>,
    /// The rules that hold for it, as far as that is known.
    pub(super) rules: Option<&'w Rules>,
    /// What it is known by, where that is asked for.
    pub(super) marks: Option<Box<Marks>>,
    pub(super) status: u16,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) server: Option<&'w str>,
    pub(super) upstream_time: Option<Duration>,
    /// When the response was through, where it was.
    pub(super) ended: Option<Instant>,
    pub(super) started: bool,
    pub(super) tunnelled: bool,
    /// Its places in quotas of what is worked on at once.
    pub(super) held: Vec<Member>,
}

impl<'w> Account<'w> {
    pub(super) fn new(world: &'w Snapshot, peer: &Peer, head: &RequestHead) -> Self {
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

    /// What it is known by.
    pub(super) fn marks(&self) -> &Marks {
        self.marks.as_deref().unwrap_or(&UNMARKED)
    }
}

impl<C> Exchange<'_, '_, C> {
    /// Says in the log what an operator can act upon; what only a client did wrong, at debug level.
    pub(super) fn report(&self, failure: &Failure) {
        let (peer, head, account) = (self.peer, &*self.head, &self.account);
        let target = String::from_utf8_lossy(head.target());
        let host = String::from_utf8_lossy(head.authority());
        match failure.side() {
            Side::Client => {
                debug!(client = %peer.client, %host, %target, error = %failure, "request")
            }
            Side::Upstream | Side::Here => warn!(
                client = %peer.client,
                %host,
                %target,
                server = account.server.unwrap_or_default(),
                status = if account.started { account.status } else { failure.status() },
                error = %failure,
                "request failed"
            ),
        }
    }

    /// The single exit: metrics and access log.
    pub(super) fn record(&self, took: Duration, failure: Option<&Failure>) {
        let (local, world, peer) = (self.local, self.world, self.peer);
        let (head, account) = (&*self.head, &self.account);
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
                server: account.server,
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
                upstream: account.server,
                upstream_duration: account.upstream_time,
                referer: head.fields.get(Id::Referer),
                user_agent: head.fields.get(Id::UserAgent),
                request_id: account.marks.as_ref().and_then(|marks| marks.request_id()),
                trace_id: account.marks.as_ref().and_then(|marks| marks.trace_id()),
                error: error.as_deref(),
                ..peer.record()
            });
        });
    }
}
