//! `[upstream.NAME]`: a group of servers, and how it is used.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check::RawUpstream;
use super::default;
use super::diagnostic::{Complaint, Diagnostic, Span};
use super::read::{At, Table};
use super::section::{LONGEST, SHORTEST};
use super::{Balance, Server};

/// One `[upstream.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// At least one server.
    pub servers: Vec<Server>,
    /// How a server is chosen.
    pub balance: Balance,
    /// What `hash` balances by.
    pub hash: HashKey,
    /// The cookie by which a client keeps its server.
    pub sticky: Option<Arc<str>>,
    /// Further tries.
    pub retry: Retry,
    /// How much one server is given at once.
    pub capacity: Capacity,
    /// When a server that fails is left alone.
    pub ejection: Ejection,
    /// How long a server that comes back is eased in.
    pub slow_start: Option<Duration>,
    /// How often names are resolved again; `None`: as their records say.
    pub refresh: Option<Duration>,
    /// Active checks.
    pub health: Option<Health>,
    /// What is spoken to its servers.
    pub protocol: Protocol,
    /// TLS to its `https://` servers.
    pub tls: UpstreamTls,
    /// Deadlines of its own.
    pub timeouts: UpstreamTimeouts,
    /// Whether servers are told whose connection it is.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Upstream {
    /// These servers, and otherwise the defaults.
    pub fn of(servers: Vec<Server>) -> Self {
        Self {
            servers,
            balance: Balance::default(),
            hash: HashKey::default(),
            sticky: None,
            retry: Retry::default(),
            capacity: Capacity::default(),
            ejection: Ejection::default(),
            slow_start: None,
            refresh: None,
            health: None,
            protocol: Protocol::default(),
            tls: UpstreamTls::default(),
            timeouts: UpstreamTimeouts::default(),
            proxy_protocol: None,
        }
    }
}

/// What is spoken to servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, known to be spoken: without asking, or as the only protocol offered in TLS.
    Http2,
    /// HTTP/2 where the server offers it in TLS, else HTTP/1.1.
    Auto,
}

/// Which version of the PROXY protocol is spoken to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text, with addresses.
    V1,
    /// Binary, with addresses.
    V2,
    /// The same, with what is known of the client's TLS.
    V2Tls,
}

/// `[upstream.NAME.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whether servers' certificates are verified.
    pub verify: bool,
    /// Certificates to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// The name to ask for and to verify; `None`: the server's own.
    pub name: Option<Arc<str>>,
    /// Nothing older than TLS 1.3.
    pub only_tls13: bool,
    /// A certificate to show, where servers ask for one.
    pub chain: Option<PathBuf>,
    /// Its key, where it is not in the same file.
    pub key: Option<PathBuf>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self {
            verify: true,
            ca: None,
            name: None,
            only_tls13: false,
            chain: None,
            key: None,
        }
    }
}

/// What of a request is hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The client's address.
    #[default]
    Client,
    /// The path, without the query.
    Path,
    /// A header field; requests without it go by the client's address.
    Header(Arc<str>),
    /// A cookie; requests without it go by the client's address.
    Cookie(Arc<str>),
}

/// Further tries of a request that failed in a way that makes them safe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Tries after the first; 0: none.
    pub most: u32,
    /// How many requests may be sent again, as a share of those that come.
    pub share: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            most: default::RETRIES,
            share: default::RETRY_SHARE,
        }
    }
}

/// How much one server is given at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Requests in flight, from all workers; each has a connection of its own in HTTP/1.1.
    pub connections: Option<NonZeroUsize>,
    /// Requests that wait for one of these.
    pub queue: usize,
    /// How long they do.
    pub wait: Duration,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            connections: None,
            queue: default::QUEUE,
            wait: default::QUEUE_TIMEOUT,
        }
    }
}

/// When a server that fails is left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ejection {
    /// After this many failures in a row; 0: never.
    pub after: u32,
    /// For this long the first time; each time in a row for twice as long.
    pub time: Duration,
    /// At most this share of the servers.
    pub share: f64,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            after: default::EJECT_AFTER,
            time: default::EJECT_TIME,
            share: default::EJECT_SHARE,
        }
    }
}

/// `[upstream.NAME.timeouts]`: `None` leaves what `[timeouts]` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    /// To connect.
    pub connect: Option<Duration>,
    /// To the head of the response.
    pub response: Option<Duration>,
    /// Between two reads of the response's body.
    pub idle: Option<Duration>,
    /// For the whole request, all tries together; `None`: no such deadline.
    pub total: Option<Duration>,
}

/// `[upstream.NAME.health]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The path to ask for; `None`: a connection that can be made is enough.
    pub path: Option<Arc<str>>,
    /// The service to ask the gRPC health protocol for; empty: the server as a whole.
    pub grpc: Option<Arc<str>>,
    /// The host to ask for; `None`: the server's own.
    pub host: Option<Arc<str>>,
    /// The port to ask at; `None`: the server's own.
    pub port: Option<u16>,
    /// Servers without TLS are asked over TLS, too.
    pub tls: bool,
    /// Statuses that a server in good health answers with.
    pub status: StatusSet,
    /// What the body has to hold.
    pub body: Option<Arc<str>>,
    /// From one check to the next.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Good ones in a row that make a server up.
    pub rise: u32,
    /// Bad ones in a row that make it down.
    pub fall: u32,
}

/// Status codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl StatusSet {
    /// Whether it holds this one.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// As it is written.
impl std::fmt::Display for StatusSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

/// Reads `200`, `200-399`, `200-299,404`.
pub(super) fn status_set(text: &str) -> Result<StatusSet, Complaint> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (100 <= from && from <= to && to <= 999).then_some(from..=to)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    ranges.map(StatusSet).ok_or_else(|| {
        Complaint::new(
            "is not a list of status codes",
            "write codes and ranges from 100 to 999, as in `\"200\"`, `\"200-399\"` or \
             `\"200-299,404\"`",
        )
    })
}

/// Reads `client`, `path`, `header:NAME`, `cookie:NAME`.
pub(super) fn hash_key(text: &str) -> Result<HashKey, Complaint> {
    match text.split_once(':') {
        None if text == "client" => Ok(HashKey::Client),
        None if text == "path" => Ok(HashKey::Path),
        Some(("header", name)) => token(name).map(HashKey::Header),
        Some(("cookie", name)) => token(name).map(HashKey::Cookie),
        _ => Err(Complaint::new(
            "is nothing to hash",
            "write `\"client\"`, `\"path\"`, `\"header:NAME\"` or `\"cookie:NAME\"`",
        )),
    }
}

/// The name of a field or a cookie (RFC 9110, section 5.6.2; RFC 6265, section 4.1.1).
pub(super) fn token(text: &str) -> Result<Arc<str>, Complaint> {
    let fits = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    match fits {
        true => Ok(text.into()),
        false => Err(Complaint::new(
            "is not a name",
            "use letters, digits, hyphens and underscores",
        )),
    }
}

/// How a hash key is written.
pub(super) fn show_hash_key(key: &HashKey) -> String {
    match key {
        HashKey::Client => "client".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Header(name) => format!("header:{name}"),
        HashKey::Cookie(name) => format!("cookie:{name}"),
    }
}

/// Reads one `[upstream.NAME]`.
pub(super) fn upstream(t: &mut Table<'_>, name: &str, span: Span) -> Option<RawUpstream> {
    let servers = t.mixed(
        "servers",
        "upstream.NAME.servers",
        "`http://host:port`, `https://host:port` or `unix:/path`, one or more; \
         `http+srv://_service._tcp.domain` for those that SRV records name; or a table in braces, \
         `{ url = …, weight = …, backup = … }`.",
        server,
    );
    if servers.as_ref().is_some_and(Vec::is_empty) {
        t.cx.report(
            Diagnostic::error(t.span.clone(), format!("{} has no server", t.label))
                .help("write `servers = [\"http://host:port\"]`"),
        );
    }
    let name: Arc<str> = match super::address::label(name) {
        Ok(name) => name,
        Err(complaint) => {
            let message = format!("the name of {} {}", t.label, complaint.message);
            t.cx.report(Diagnostic::error(span.clone(), message).help(complaint.help));
            name.into()
        }
    };
    let settings = settings(t);
    Some(RawUpstream {
        name,
        span,
        servers: servers.unwrap_or_default(),
        settings,
    })
}

/// A server that is more than a URL.
fn server(t: &mut Table<'_>) -> Option<At<Server>> {
    let url: Option<At<Server>> = t.required(
        "url",
        "`http://host:port`, `https://host:port` or `unix:/path`.",
    );
    let weight = t.or_within(
        "weight",
        1_u32,
        1..=1000,
        "Its share of the requests, beside the weights of the others.",
    );
    let backup = t.or(
        "backup",
        false,
        "Whether it is used only while no other server is up.",
    );
    let mut server = url?;
    server.value.weight = weight;
    server.value.backup = backup;
    Some(server)
}

fn settings(t: &mut Table<'_>) -> Upstream {
    let base = Upstream::of(Vec::new());
    let balance = t.or(
        "balance",
        base.balance,
        "How a server is chosen: in turn; the one with the fewest requests in flight; of two at \
         random the one with fewer; or by a hash, so that the same goes to the same server.",
    );
    let hash = t.or(
        "hash",
        base.hash,
        "What `balance = \"hash\"` goes by: `client` (its address), `path`, `header:NAME` or \
         `cookie:NAME`. Requests without the field or cookie go by the client's address.",
    );
    let sticky: Option<super::value::CookieName> = t.optional(
        "sticky",
        "Name of a cookie by which a client comes back to the server that it had first.",
    );
    let most = t.or_within(
        "retries",
        base.retry.most,
        0..=100,
        "How many other servers a request is sent to after a failure that makes it safe: no \
         connection could be made, or the method is idempotent and no response has begun.",
    );
    let share = t.or_within(
        "retry_share",
        base.retry.share,
        0.0..=1.0,
        "Requests that may be sent again, as a share of those that come; some are always allowed.",
    );
    let connections = t.or_within(
        "connections",
        0_usize,
        0..=1_000_000,
        "Requests that one server works on at once, from all threads together; in HTTP/1.1 each \
         has its own connection. 0: no limit.",
    );
    let queue = t.or_within(
        "queue",
        base.capacity.queue,
        0..=1_000_000,
        "Requests that may wait while all servers have as many as `connections` allows; more are \
         answered with 503.",
    );
    let wait = t.or_within(
        "queue_timeout",
        base.capacity.wait,
        SHORTEST..=LONGEST,
        "How long a request may wait there before it is answered with 503.",
    );
    let after = t.or_within(
        "eject_after",
        base.ejection.after,
        0..=1000,
        "Failures in a row after which a server gets no requests for a while; 0: never.",
    );
    let time = t.or_within(
        "eject_time",
        base.ejection.time,
        SHORTEST..=LONGEST,
        "How long that is the first time. It doubles with each further time in a row.",
    );
    let eject_share = t.or_within(
        "eject_share",
        base.ejection.share,
        0.0..=1.0,
        "The largest share of the servers that may be ejected like this at the same time.",
    );
    let slow_start: Option<Within> = t.optional(
        "slow_start",
        "How long a server that comes back gets fewer requests than its share, rising to it.",
    );
    let refresh: Option<Within> = t.optional(
        "resolve_every",
        "How often the names of servers are resolved again. Without it, as their records in the DNS \
         say, and every ten seconds where that is not known. A name that stops resolving keeps its \
         last addresses.",
    );
    let has_health = t.has("health");
    let health = t.section("health", "upstream.NAME.health", health);
    let proxy_protocol: Option<At<ProxyProtocol>> = t.optional(
        "proxy_protocol",
        "Tell servers whose connection it is by a PROXY protocol header; `v2-tls` also tells the \
         name, protocol, version and cipher suite of the client's TLS, and the common name of its \
         certificate. A connection then carries requests of one client's connection only.",
    );
    let protocol = t.or(
        "protocol",
        base.protocol,
        "What is spoken to servers: HTTP/1.1; HTTP/2, without asking; or, with `https://` \
         servers, whichever of them TLS agrees on.",
    );
    if let Some(At { span, .. }) = &proxy_protocol
        && protocol != Protocol::Http1
    {
        t.cx.report(
            Diagnostic::error(span.clone(), "`proxy_protocol` does not go with HTTP/2").help(
                "a connection of HTTP/2 carries requests of many clients; take `protocol` out",
            ),
        );
    }
    Upstream {
        balance,
        hash,
        sticky: sticky.map(|name| name.0),
        retry: Retry { most, share },
        capacity: Capacity {
            connections: NonZeroUsize::new(connections),
            queue,
            wait,
        },
        ejection: Ejection {
            after,
            time,
            share: eject_share,
        },
        slow_start: slow_start.map(|time| time.0),
        refresh: refresh.map(|every| every.0),
        protocol,
        proxy_protocol: proxy_protocol.map(|version| version.value),
        tls: t.section("tls", "upstream.NAME.tls", tls),
        health: health.filter(|_| has_health),
        timeouts: t.section("timeouts", "upstream.NAME.timeouts", timeouts),
        ..base
    }
}

/// A duration within the bounds of all deadlines.
pub(super) struct Within(pub(super) Duration);

/// See [`Within`].
pub(super) fn within(duration: Duration) -> Result<Within, Complaint> {
    match (SHORTEST..=LONGEST).contains(&duration) {
        true => Ok(Within(duration)),
        false => Err(Complaint::new(
            "is out of range",
            "write a duration from `\"1ms\"` to `\"1d\"`",
        )),
    }
}

fn tls(t: &mut Table<'_>) -> UpstreamTls {
    let verify = t.or(
        "verify",
        true,
        "Whether servers' certificates are verified: name, issuer and dates. With `false`, whoever \
         can take a server's place on the network can read and change what is sent to it.",
    );
    let ca: Option<At<PathBuf>> = t.optional(
        "ca",
        "PEM file with the certificates that servers are verified by, in place of the system's.",
    );
    if let Some(At { span, .. }) = ca.as_ref().filter(|_| !verify) {
        t.cx.report(
            Diagnostic::error(span.clone(), "`ca` has no use beside `verify = false`")
                .help("take `verify` out: servers are verified by `ca` then"),
        );
    }
    let name: Option<super::value::TlsName> = t.optional(
        "name",
        "The name to ask for (SNI) and to verify; else the one in the server's URL.",
    );
    let minimum = t.or(
        "minimum",
        TlsMinimum::Tls12,
        "The oldest version of TLS that is spoken.",
    );
    let chain = t.optional(
        "chain",
        "PEM file with a certificate to show to servers that ask for one; and its key, when there \
         is no `key`.",
    );
    let key: Option<PathBuf> = t.optional("key", "PEM file with the key of that certificate.");
    if key.is_some() && !t.has("chain") {
        t.cx.report_missing(
            Diagnostic::error(t.span.clone(), "a key without a certificate")
                .help("write `chain = …` beside `key`"),
        );
    }
    UpstreamTls {
        verify,
        ca: ca.map(|ca| ca.value),
        name: name.map(|name| name.0),
        only_tls13: minimum == TlsMinimum::Tls13,
        chain,
        key,
    }
}

/// The oldest version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsMinimum {
    Tls12,
    Tls13,
}

fn timeouts(t: &mut Table<'_>) -> UpstreamTimeouts {
    let mut read = |key, meaning| t.optional::<Within>(key, meaning).map(|within| within.0);
    UpstreamTimeouts {
        connect: read(
            "connect",
            "To connect. Without it: `timeouts.upstream_connect`.",
        ),
        response: read(
            "response",
            "To the head of the response. Without it: `timeouts.upstream_response`.",
        ),
        idle: read(
            "idle",
            "Between two reads of the response's body. Without it: `timeouts.upstream_idle`.",
        ),
        total: read(
            "total",
            "For the whole request, from its head to the end of its response, all tries together.",
        ),
    }
}

fn health(t: &mut Table<'_>) -> Option<Health> {
    let path: Option<super::value::CheckPath> = t.optional(
        "path",
        "What to `GET`. Without it, a connection that can be made is enough.",
    );
    let grpc: Option<At<Arc<str>>> = t.optional(
        "grpc",
        "Ask by gRPC's health protocol instead, for this service; `\"\"`: for the server as a \
         whole.",
    );
    if let Some(At { value, span }) = &grpc
        && (t.has("path") || value.len() > 100)
    {
        let (message, help) = match t.has("path") {
            true => ("`path` and `grpc` do not go together", "write one of them"),
            false => (
                "the name of the service is too long",
                "write up to 100 characters",
            ),
        };
        t.cx.report(Diagnostic::error(span.clone(), message).help(help));
    }
    let host: Option<Arc<str>> = t.optional("host", "The host to ask for; else the server's own.");
    let port: Option<u32> = t.optional("port", "The port to ask at; else the server's own.");
    let tls = t.or(
        "tls",
        At::nowhere(false),
        "Ask over TLS also where the server's URL is without it, as where the TLS of clients is passed \
         through. Its certificate is not verified.",
    );
    if tls.value && grpc.is_some() {
        t.cx.report(
            Diagnostic::error(tls.span.clone(), "`tls` and `grpc` do not go together")
                .help("write an `https` URL for servers of gRPC that speak TLS"),
        );
    }
    let status = t.or(
        "status",
        StatusSet(vec![200..=399]),
        "Status codes that a server in good health answers with.",
    );
    let body: Option<Arc<str>> = t.optional("body", "Text that has to be in its answer.");
    let interval = t.or_within(
        "interval",
        default::HEALTH_INTERVAL,
        SHORTEST..=LONGEST,
        "From one check to the next, give or take a tenth; a fifth of it once an answer is not as \
         those before.",
    );
    let timeout = t.or_within(
        "timeout",
        default::HEALTH_TIMEOUT,
        SHORTEST..=LONGEST,
        "For one check, connection and answer together.",
    );
    let rise = t.or_within(
        "rise",
        default::HEALTH_RISE,
        1..=100,
        "Good checks in a row after which a server that was down is up.",
    );
    let fall = t.or_within(
        "fall",
        default::HEALTH_FALL,
        1..=100,
        "Bad checks in a row after which a server that was up is down.",
    );
    let place = t.place("port").unwrap_or_default();
    let port = match port {
        None => None,
        Some(port) => match u16::try_from(port) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                let message = format!("`upstream.NAME.health.port`: {port} is no port");
                t.cx.report(
                    Diagnostic::error(place, message).help("write a number from 1 to 65535"),
                );
                None
            }
        },
    };
    Some(Health {
        path: path.map(|path| path.0),
        grpc: grpc.map(|grpc| grpc.value),
        host,
        port,
        tls: tls.value,
        status,
        body,
        interval,
        timeout,
        rise,
        fall,
    })
}
