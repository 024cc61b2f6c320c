//! `[[stream]]`: connections whose bytes are passed on as they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::diagnostic::{Diagnostic, Span};
use super::read::{At, Table};
use super::tls::client_certificates;
use super::upstream::Within;
use super::value::Target;
use super::{ClientCertificates, SiteName};

/// One `[[stream]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// How TLS is terminated, where it is.
    pub tls: Option<StreamTls>,
    /// Where connections go that no name takes elsewhere: key into
    /// [`Config::upstreams`](super::Config::upstreams).
    pub upstream: Option<Arc<str>>,
    /// Where connections go whose TLS is passed through, by the name that the client asks for.
    pub names: Vec<(SiteName, Arc<str>)>,
    /// How long both sides may be silent; `None`: `timeouts.tunnel`.
    pub idle: Option<Duration>,
    /// The only clients that are let in; empty: all are.
    pub allow: Vec<IpNet>,
    /// Clients that are not let in.
    pub deny: Vec<IpNet>,
}

/// How the TLS of a stream is terminated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamTls {
    /// Protocols that are agreed on by ALPN, the preferred first; none: it is not spoken.
    pub alpn: Vec<Arc<str>>,
    /// Who is let in.
    pub client: Option<ClientCertificates>,
    /// What is spoken before TLS begins, where that is not at once.
    pub start: Option<StartTls>,
}

/// A protocol that begins in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartTls {
    /// PostgreSQL's request; TLS at once as well.
    PostgreSql,
    /// RFC 3207.
    Smtp,
    /// RFC 9051, section 6.2.1.
    Imap,
    /// RFC 2595, section 4.
    Pop3,
}

/// One `[[stream]]`, as it was read.
pub(super) struct RawStream {
    pub(super) span: Span,
    pub(super) listen: Vec<At<SocketAddr>>,
    pub(super) tls: Option<StreamTls>,
    pub(super) upstream: Option<At<Target>>,
    pub(super) routes: Vec<RawNames>,
    pub(super) idle: Option<Duration>,
    pub(super) allow: Vec<IpNet>,
    pub(super) deny: Vec<IpNet>,
}

/// One `[[stream.route]]`.
pub(super) struct RawNames {
    pub(super) names: Vec<At<SiteName>>,
    pub(super) upstream: At<Target>,
}

impl RawStream {
    /// Everything that it names as an upstream.
    pub(super) fn targets(&self) -> impl Iterator<Item = &At<Target>> {
        let routes = self.routes.iter().map(|route| &route.upstream);
        self.upstream.iter().chain(routes)
    }
}

/// Reads one.
pub(super) fn stream(t: &mut Table<'_>, _index: usize) -> Option<RawStream> {
    let listen: Option<Vec<At<SocketAddr>>> = t.required("listen", "Addresses to listen on.");
    let terminates = t.or(
        "tls",
        false,
        "Whether TLS is terminated here, with the same certificates as everywhere; for other \
         versions and suites than `[tls]` says, write a `[[tls.listener]]`.",
    );
    let alpn: Option<At<Vec<Arc<str>>>> = t.optional(
        "alpn",
        "Protocols to agree on by ALPN where TLS is terminated, the preferred first. Without it, \
         what clients offer is not answered.",
    );
    let start: Option<StartTls> = t.optional(
        "starttls",
        "What is spoken before TLS begins, where that is not at once: `\"postgresql\"`, \
         `\"smtp\"`, `\"imap\"` or `\"pop3\"`. The server behind is spoken to as after that.",
    );
    let upstream: Option<At<Target>> = t.optional(
        "upstream",
        "Where connections go that no route takes: `tcp://host:port`; `tls://host:port`, to speak \
         TLS to it; `unix:/path`; or the NAME of an `[upstream.NAME]`.",
    );
    let idle: Option<Within> = t.optional(
        "idle",
        "How long both sides may be silent. Without it: `timeouts.tunnel`.",
    );
    let allow = t.or(
        "allow",
        Vec::new(),
        "Clients that are let in, by address; where there are none, all are. The connections of \
         others are closed.",
    );
    let deny = t.or(
        "deny",
        Vec::new(),
        "Clients whose connections are closed, by address; also those that `allow` has.",
    );
    let given = t.has("client_certificates");
    let client = t.section("client_certificates", "stream.client_certificates", |t| {
        client_certificates(t, given)
    });
    let routes = t.each("route", "stream.route", route);
    if listen.as_ref().is_some_and(Vec::is_empty) {
        t.cx.report(
            Diagnostic::error(t.span.clone(), "a stream that listens nowhere")
                .help("write `listen = [\"[::]:5432\"]`"),
        );
    }
    if !t.has("upstream") && !t.has("route") {
        t.cx.report_missing(
            Diagnostic::error(t.span.clone(), "a stream that leads nowhere")
                .help("write `upstream = \"tcp://host:port\"`, or a `[[stream.route]]`"),
        );
    }
    if terminates && !t.has("upstream") {
        t.cx.report_missing(
            Diagnostic::error(t.span.clone(), "`tls = true` without an `upstream`")
                .help("write where the connections go whose TLS is terminated here"),
        );
    }
    if !terminates
        && let Some(key) = ["alpn", "client_certificates", "starttls"]
            .iter()
            .find(|k| t.has(k))
    {
        let place = t.place(key).unwrap_or_else(|| t.span.clone());
        t.cx.report_missing(
            Diagnostic::error(place, format!("`stream.{key}` without `tls = true`"))
                .help("write `tls = true` beside it, or take it out"),
        );
    }
    if start.is_some() && t.has("route") {
        let place = t.place("starttls").unwrap_or_else(|| t.span.clone());
        t.cx.report_missing(
            Diagnostic::error(place, "`starttls` beside routes by name")
                .help("what is passed through begins with TLS: give it a stream of its own"),
        );
    }
    if let Some(At { value, span }) = &alpn
        && (value
            .iter()
            .any(|protocol| protocol.is_empty() || protocol.len() > 255))
    {
        t.cx.report(
            Diagnostic::error(span.clone(), "`stream.alpn`: not a protocol")
                .help("write names of 1 to 255 bytes, as in `[\"postgresql\"]`"),
        );
    }
    Some(RawStream {
        span: t.span.clone(),
        listen: listen?,
        tls: terminates.then(|| StreamTls {
            alpn: match (alpn, start) {
                (Some(alpn), _) => alpn.value,
                // As the server itself has it.
                (None, Some(StartTls::PostgreSql)) => vec!["postgresql".into()],
                _ => Vec::new(),
            },
            client,
            start,
        }),
        upstream,
        routes,
        idle: idle.map(|idle| idle.0),
        allow,
        deny,
    })
}

fn route(t: &mut Table<'_>, _index: usize) -> Option<RawNames> {
    let names = t.required(
        "names",
        "Names that clients ask for by SNI: `example.com`, or `*.example.com` for one more label. \
         Their TLS is passed through, not terminated.",
    );
    let upstream = t.required(
        "upstream",
        "Where their connections go: `tcp://host:port`, or the NAME of an `[upstream.NAME]`.",
    );
    Some(RawNames {
        names: names?,
        upstream: upstream?,
    })
}
