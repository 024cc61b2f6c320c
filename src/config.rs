//! The configuration, typed: what the rest of the program is built from.
//!
//! [`parse`] turns the text of a TOML file into a [`Config`], or into every fault it could find,
//! each with its place. A `Config` holds no strings that still need reading and has no `validate`:
//! what exists is right. Nothing here knows of the rest of the program, opens a socket or reads a
//! certificate.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

mod address;
mod check;
mod compression;
mod default;
mod diagnostic;
mod flags;
mod limits;
mod load;
mod quota;
mod read;
mod reference;
mod rules;
mod section;
mod sink;
mod stream;
mod syntax;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod units;
mod upstream;
mod value;

pub use compression::{Coding, Compression, CompressionRules, Effort, MediaRange};
pub use diagnostic::{Diagnostic, Level, Report, Span};
pub use flags::{Flags, from_flags};
pub use load::{LARGEST, load, parse};
pub use quota::Quota;
pub use reference::{KeyDoc, reference};
pub use rules::{
    Action, BasicAuth, Body, Change, Condition, Conditions, Cookies, ErrorPage, FieldRule,
    ForwardAuth, Instead, Maintenance, Matcher, Pattern, Piece, Rewrite, Route, RouteTimeouts,
    Rules, Setting, SignIn, Template, Trace, Variable, is_below,
};
pub use stream::{StartTls, Stream, StreamTls};
pub use tls::{
    CipherSuite, ClientCertificates, ClientHeader, ClientMode, GUIDELINES, Group, OcspFetch,
    PolicyName, SiteTls, Tls, TlsChoice, TlsPolicy, TlsVersion,
};
pub use upstream::{
    Capacity, Ejection, HashKey, Health, Protocol, ProxyProtocol, Retry, StatusSet,
};
pub use upstream::{Upstream, UpstreamTimeouts, UpstreamTls};

/// Everything that can be configured, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where last-good certificates, the ledger and alert state are kept.
    pub state_dir: PathBuf,
    /// Whether certificates and keys may be copied to `state_dir` at all.
    pub keep_last_good: bool,
    /// Addresses to listen on, and whom to believe there.
    pub listen: Listen,
    /// How TLS is spoken.
    pub tls: Tls,
    /// The data plane's threads.
    pub workers: Workers,
    /// Where certificates come from, in the order of the file.
    pub certificates: Vec<CertificateSource>,
    /// What holds for all sites, and for requests that reach none.
    pub defaults: Rules,
    /// Sites, in the order of the file.
    pub sites: Vec<Site>,
    /// Upstreams by name. One given as a URL in a site or route is here under that URL.
    pub upstreams: BTreeMap<Arc<str>, Upstream>,
    /// What clients may ask for where sites and routes name it.
    pub quotas: BTreeMap<Arc<str>, Quota>,
    /// Name servers to ask in place of the system's.
    pub dns: Vec<SocketAddr>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
    /// How to stop.
    pub drain: Drain,
    /// How to give way to a new process.
    pub upgrade: Upgrade,
    /// Whom to tell, and when.
    pub alerts: Alerts,
    /// The program's own log and the access log.
    pub log: Log,
    /// Where spans are sent, if anywhere.
    pub traces: Option<Traces>,
    /// What is hardly meant, though it can be used. Its `Display` is what to show.
    pub warnings: Report,
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Addresses that terminate TLS.
    pub https: Vec<SocketAddr>,
    /// Plain-text addresses that redirect to HTTPS.
    pub http: Vec<SocketAddr>,
    /// The admin address; `None` when turned off with `admin = ""`.
    pub admin: Option<SocketAddr>,
    /// Peers that must send a PROXY protocol header.
    pub proxy_protocol_from: Vec<IpNet>,
    /// The addresses of listeners that they are asked at; empty: all.
    pub proxy_protocol_at: Vec<SocketAddr>,
    /// Clients whose own `X-Forwarded-*` and `Forwarded` are believed and extended.
    pub forwarded_from: Vec<IpNet>,
    /// Connections that are passed on byte by byte, in the order of the file.
    pub streams: Vec<Stream>,
    /// Names whose TLS is passed through by the addresses in `https`, and to which upstream.
    pub passthrough: Vec<(SiteName, Arc<str>)>,
}

impl Listen {
    /// The peers that must send a PROXY protocol header at this address.
    pub fn proxies_at(&self, address: SocketAddr) -> &[IpNet] {
        match self.proxy_protocol_at.is_empty() || self.proxy_protocol_at.contains(&address) {
            true => &self.proxy_protocol_from,
            false => &[],
        }
    }
}

/// `[workers]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// Threads of the data plane.
    pub threads: NonZeroUsize,
}

/// One `[[certificate]]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateSource {
    /// Where it is.
    pub location: Location,
    /// Take what is on disk even when it is worse than what is served (`accept = true`).
    pub accept_worse: bool,
    /// Keep a copy in the state directory (`keep = false` turns it off for this source).
    pub keep: bool,
    /// Renewed by the program itself all day long: its renewals are no news.
    pub routine: bool,
    /// Line of the configuration file, for messages; 0 when it came from flags.
    pub line: usize,
}

/// Where a certificate and its key are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// A file with the chain and one with the key.
    Pair {
        /// The chain, leaf first.
        chain: PathBuf,
        /// The private key.
        key: PathBuf,
        /// An OCSP response to staple (DER); default: `<chain>.ocsp` where it exists.
        ocsp: Option<PathBuf>,
    },
    /// One file that holds both.
    Bundle {
        /// The file.
        file: PathBuf,
        /// As for a pair.
        ocsp: Option<PathBuf>,
    },
    /// A folder searched below for pairs and bundles.
    Folder {
        /// The folder.
        folder: PathBuf,
    },
}

/// A name a site answers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SiteName {
    /// A host name in lower case, without a trailing dot; or an IP address literal.
    Exact(Arc<str>),
    /// `*.example.com`, holding `example.com`: any name with exactly one more label.
    Wildcard(Arc<str>),
    /// `*`: whatever no other site answers to.
    Any,
}

/// As it is written.
impl std::fmt::Display for SiteName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// One `[[site]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// At least one name.
    pub names: Vec<SiteName>,
    /// The site for clients that name none (`default = true`); else the first site is.
    pub default: bool,
    /// In the order in which they are tried: exact ones, expressions in the order of the file,
    /// prefixes by descending length. What a site does itself is the route with the path `/`.
    pub routes: Vec<Route>,
    /// The rules that hold where no route does, the defaults among them.
    pub rules: Rules,
    /// What it asks of TLS.
    pub tls: Arc<SiteTls>,
    /// Requests of all clients.
    pub rate: Option<Rate>,
}

impl Site {
    /// Whether somebody is turned away where none is held for its names: all of it is answered in
    /// plain text otherwise.
    pub fn needs_certificate(&self) -> bool {
        self.rules.plain_text != Some(true)
    }
}

/// A server behind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// As written, for people.
    pub url: Arc<str>,
    /// Where it is.
    pub address: ServerAddress,
    /// Whether it is spoken to over TLS (`https://`).
    pub tls: bool,
    /// Its share of the requests, beside the weights of the others.
    pub weight: u32,
    /// Used only while no other is up.
    pub backup: bool,
    /// Of one that stands for a service (`+srv://`), or was found for it: the domain that it was
    /// asked for.
    pub domain: Option<Arc<str>>,
}

impl Server {
    /// Whether it speaks anything but HTTP (`tcp://`, `tls://`).
    pub fn is_raw(&self) -> bool {
        let scheme = self.url.split("://").next().unwrap_or_default();
        let scheme = scheme.split('+').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case("tcp") || scheme.eq_ignore_ascii_case("tls")
    }
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// An address.
    Ip(SocketAddr),
    /// A name to resolve, and a port.
    Name(Arc<str>, u16),
    /// A unix socket.
    Unix(PathBuf),
    /// A service, whose servers the DNS names (SRV records, RFC 2782).
    Service(Arc<str>),
}

/// How a server is chosen among several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastRequests,
    /// Of two at random, the one with fewer requests in flight.
    Random,
    /// By a hash of something that the request has, consistently.
    Hash,
}

/// `[timeouts]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to a finished TLS handshake, PROXY header included.
    pub tls_handshake: Duration,
    /// From the first byte of a request to the end of its head.
    pub request_head: Duration,
    /// Between two reads of a request body that make progress.
    pub request_body: Duration,
    /// How long a kept connection may wait for its next request.
    pub idle: Duration,
    /// Between two writes to a client that make progress.
    pub send: Duration,
    /// To connect to an upstream server.
    pub upstream_connect: Duration,
    /// From the end of the request to the head of the response.
    pub upstream_response: Duration,
    /// Between two reads of a response body that make progress.
    pub upstream_idle: Duration,
    /// How long an unused upstream connection is kept.
    pub upstream_keep: Duration,
    /// For how long an HTTP/2 connection with requests on it may be silent before a PING, and after.
    pub upstream_ping: Duration,
    /// How long a tunnel (WebSocket and other upgrades) may be silent.
    pub tunnel: Duration,
}

/// `[limits]`. For each, 0 in the file means no limit and `None` here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once, over all listeners.
    pub connections: Option<NonZeroUsize>,
    /// Bytes of a request's head (a limit always applies here).
    pub request_head: usize,
    /// Header fields of a request (a limit always applies here).
    pub request_fields: usize,
    /// Bytes of a request's body.
    pub request_body: Option<u64>,
    /// Concurrent HTTP/2 streams of a connection.
    pub streams: u32,
    /// Connections that one client has open at once.
    pub connections_per_client: Option<NonZeroUsize>,
    /// Handshakes in flight at once.
    pub handshakes: Option<NonZeroUsize>,
    /// Requests that a connection carries.
    pub requests_per_connection: u64,
    /// Requests of one client.
    pub client_rate: Option<Rate>,
}

/// How many requests are answered in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// On average, in this time.
    pub requests: NonZeroU32,
    /// See `requests`.
    pub within: Duration,
    /// At once.
    pub burst: NonZeroU32,
}

/// `[drain]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long `/readyz` says 503 before the listeners close.
    pub notice: Duration,
    /// How long requests may then still take.
    pub deadline: Duration,
}

/// `[upgrade]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// How long a new process may take until it is ready to take over.
    pub ready: Duration,
    /// How long the old one may go on with what is open.
    pub deadline: Duration,
}

/// `[traces]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Where they are sent, as it is written.
    pub endpoint: Arc<str>,
    /// What the service is called in them.
    pub service: Arc<str>,
    /// What is shown to the collector.
    pub token: Option<Secret>,
    /// The field that this is shown in; `None`: `Authorization`, as a bearer token.
    pub header: Option<Arc<str>>,
}

/// `[alerts]`
#[derive(Clone, Debug, PartialEq)]
pub struct Alerts {
    /// Share of the lifetime left at which a renewal is overdue.
    pub overdue: f64,
    /// Share of the lifetime left at which it is critical.
    pub expiring: f64,
    /// How often a firing alert is told again.
    pub repeat: Duration,
    /// Whether to go back to the certificate from before a swap where clients refuse the new one.
    pub go_back: bool,
    /// Where clients reach this machine, besides where it listens; probed too.
    pub probe: Vec<SocketAddr>,
    /// Where people read the runbook, for links to its sections.
    pub runbook: Option<Arc<str>>,
    /// Whom to tell.
    pub sinks: Vec<Sink>,
}

/// One `[[alerts.sink]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// For messages and metrics: `name`, or else the type and its place in the file.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SinkKind,
    /// The least severity that is sent.
    pub minimum: Severity,
    /// For one attempt.
    pub timeout: Duration,
    /// How often it is sent a test alert, if at all.
    pub test_every: Option<Duration>,
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// `POST` of one JSON object to a URL.
    Webhook {
        /// Where to.
        url: Arc<str>,
        /// The body's form.
        format: WebhookFormat,
        /// Sent as `Authorization: Bearer`.
        token: Option<Secret>,
    },
    /// Alertmanager's v2 API.
    Alertmanager {
        /// Its base URL.
        url: Arc<str>,
        /// Sent as `Authorization: Bearer`.
        token: Option<Secret>,
    },
    /// SMTP.
    Email {
        /// `smtp://host:port` (STARTTLS where offered) or `smtps://host:port`.
        server: Arc<str>,
        /// The sender.
        from: Arc<str>,
        /// The recipients.
        to: Vec<Arc<str>>,
        /// User name, where the server wants one.
        username: Option<Arc<str>>,
        /// Its password.
        password: Option<Secret>,
    },
    /// A program, run with the alert as JSON on its standard input.
    Command {
        /// The program and its arguments; no shell is involved.
        argv: Vec<Arc<str>>,
    },
    /// A URL called at an interval while staunch lives, for a dead man's switch.
    Heartbeat {
        /// What to `GET`.
        url: Arc<str>,
        /// How often.
        every: Duration,
    },
}

/// The form of a webhook's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The object that the interface documents.
    #[default]
    Json,
    /// `{"text": …}`, understood by Slack, Mattermost and others.
    Slack,
    /// PagerDuty Events API v2; the token is the routing key.
    PagerDuty,
}

/// A secret that is read when it is used, and that no log can show.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// From a file, trailing newline removed.
    File(PathBuf),
    /// From an environment variable.
    Environment(Arc<str>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "the content of {}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
        }
    }
}

/// How grave a condition is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Information,
    /// To be dealt with in working hours.
    Warning,
    /// To be dealt with now.
    Critical,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// Least level written, as `tracing` filter directives.
    pub level: Arc<str>,
    /// Human or JSON; `None`: human on a terminal, else JSON.
    pub format: Option<LogFormat>,
    /// The access log.
    pub access: AccessLog,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[log.access]`
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Where it goes.
    pub to: AccessLogTarget,
    /// Share of requests that are written, 0 to 1. Errors (5xx) are always written.
    pub sample: f64,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// A file, opened again on `USR1`.
    File(PathBuf),
}

/// Whether `address` lies in one of `nets`. An IPv4 address seen on a dual-stack socket
/// (`::ffff:192.0.2.1`) is compared as IPv4.
pub fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}
