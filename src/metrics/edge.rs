//! What a worker counts of connections and of requests that belong to no site.

use std::rc::Rc;
use std::time::Duration;

use super::compression::CompressionSeries;
use super::handle::{Counter, Gauge, Histogram};
use super::label::{Label, Set, label};
use super::names;
use super::registry::Registry;
use super::tls::ClientAlert;

label! {
    /// A TLS version.
    pub enum TlsVersion {
        /// 1.2 (RFC 5246).
        Tls12 = "1.2",
        /// 1.3 (RFC 8446).
        Tls13 = "1.3",
    }
}

label! {
    /// Why a handshake failed.
    pub enum HandshakeFailure {
        /// It took longer than `timeouts.tls_handshake`.
        Timeout = "timeout",
        /// The client closed the connection, or it broke.
        Closed = "closed",
        /// What came was not TLS.
        NotTls = "not_tls",
        /// A PROXY protocol header was missing, unexpected or malformed.
        ProxyHeader = "proxy_header",
        /// No protocol version in common.
        NoSharedVersion = "no_shared_version",
        /// No cipher suite, group or signature scheme in common.
        NoSharedSuite = "no_shared_suite",
        /// Something else that one side needs and the other has not.
        Incompatible = "incompatible",
        /// No certificate is held that could answer.
        NoCertificate = "no_certificate",
        /// The client refused the certificate: unknown CA, bad, expired, revoked …
        CertificateRefused = "certificate_refused",
        /// The client sent some other alert.
        ClientAlert = "client_alert",
        /// The client showed no certificate where one is required.
        ClientCertificateMissing = "client_certificate_missing",
        /// The client's certificate is not good: its issuer unknown, expired, revoked …
        ClientCertificateRefused = "client_certificate_refused",
        /// Anything else against the protocol.
        Protocol = "protocol",
    }
}

label! {
    /// A limit of `[limits]`.
    pub enum Limit {
        /// `limits.connections`
        Connections = "connections",
        /// `limits.request_head`
        RequestHead = "request_head",
        /// `limits.request_fields`
        RequestFields = "request_fields",
        /// `limits.request_body`
        RequestBody = "request_body",
        /// `limits.streams`, or a rate of resets that no honest client has.
        Streams = "streams",
        /// `limits.connections_per_client`
        ConnectionsPerClient = "connections_per_client",
        /// `limits.handshakes`
        Handshakes = "handshakes",
        /// `limits.requests_per_connection`
        RequestsPerConnection = "requests_per_connection",
        /// `limits.client_rate`
        ClientRate = "client_rate",
        /// `site.rate`
        SiteRate = "site_rate",
        /// A `[quota.NAME]`
        Quota = "quota",
        /// Passwords that are hashed at once, and that wait for it.
        Passwords = "passwords",
        /// Frames of HTTP/2 that carry nothing, more than an honest client sends.
        Http2Frames = "http2_frames",
        /// Responses that a worker compresses at once; more are sent as they are.
        Compressions = "compressions",
    }
}

label! {
    /// A timeout of `[timeouts]`.
    pub enum Timeout {
        /// `timeouts.tls_handshake`
        TlsHandshake = "tls_handshake",
        /// `timeouts.request_head`
        RequestHead = "request_head",
        /// `timeouts.request_body`
        RequestBody = "request_body",
        /// `timeouts.idle`
        Idle = "idle",
        /// `timeouts.send`
        Send = "send",
        /// `timeouts.upstream_connect`
        UpstreamConnect = "upstream_connect",
        /// `timeouts.upstream_response`
        UpstreamResponse = "upstream_response",
        /// `timeouts.upstream_idle`
        UpstreamIdle = "upstream_idle",
        /// `timeouts.upstream_ping`
        UpstreamPing = "upstream_ping",
        /// `timeouts.tunnel`
        Tunnel = "tunnel",
    }
}

label! {
    /// Why staunch answered with an error of its own, or broke a response off.
    pub enum ErrorKind {
        /// The request is malformed or ambiguous (400).
        BadRequest = "bad_request",
        /// No site answers to the name on this connection (421).
        Misdirected = "misdirected",
        /// No route of the site matches (404).
        NoRoute = "no_route",
        /// The client does not show who it is (401).
        Unauthorized = "unauthorized",
        /// Whether the client may ask cannot be found out (502, 503, 508).
        Undecided = "undecided",
        /// The client's address is not let in (403).
        Forbidden = "forbidden",
        /// A rate is exceeded (429).
        TooManyRequests = "too_many_requests",
        /// The head is too large (431).
        HeadTooLarge = "head_too_large",
        /// The body is too large (413).
        BodyTooLarge = "body_too_large",
        /// The request took too long to come (408).
        RequestTimeout = "request_timeout",
        /// There is maintenance (503).
        Maintenance = "maintenance",
        /// Too much is going on already (503).
        Overloaded = "overloaded",
        /// Nobody is to be asked: all servers are drained (503).
        NoServer = "no_server",
        /// The server's name does not resolve (502).
        UpstreamResolve = "upstream_resolve",
        /// The server refuses connections, or cannot be reached (502).
        UpstreamConnect = "upstream_connect",
        /// The server did not accept in time (504).
        UpstreamConnectTimeout = "upstream_connect_timeout",
        /// The TLS handshake with the server failed (502).
        UpstreamTls = "upstream_tls",
        /// The server closed or reset the connection without a response (502).
        UpstreamClosed = "upstream_closed",
        /// The server's response is malformed (502).
        UpstreamMalformed = "upstream_malformed",
        /// The server did not respond in time (504).
        UpstreamTimeout = "upstream_timeout",
        /// The server broke off, or stalled, in the body; the response is cut.
        UpstreamBody = "upstream_body",
        /// A fault of staunch (500).
        Internal = "internal",
    }
}

label! {
    /// What became of a request where there is a `basic_auth`.
    pub enum BasicOutcome {
        /// The password was verified.
        Accepted = "accepted",
        /// The same as one that was verified.
        Remembered = "remembered",
        /// There is no such user, or the password is another.
        Refused = "refused",
        /// Nothing was shown.
        Anonymous = "anonymous",
        /// Too many wait to be verified.
        Busy = "busy",
        /// There are no users yet: their file could never be read.
        Unavailable = "unavailable",
    }
}

label! {
    /// What became of a request where there is a `forward_auth`.
    pub enum ForwardOutcome {
        /// It was let in.
        Accepted = "accepted",
        /// It was not.
        Refused = "refused",
        /// Its client was sent elsewhere.
        Redirected = "redirected",
        /// There was no answer, or none that means anything.
        Failed = "failed",
    }
}

label! {
    /// What is spoken on a connection.
    pub enum Protocol {
        /// The handshake is not over.
        Handshake = "handshake",
        /// HTTP/1.1 or HTTP/1.0.
        Http1 = "http1",
        /// HTTP/2.
        Http2 = "http2",
        /// A tunnel, after an upgrade.
        Tunnel = "tunnel",
        /// Bytes of any protocol, passed on.
        Stream = "stream",
    }
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It is done.
    Done {
        /// The version agreed on.
        version: TlsVersion,
        /// Whether a session was resumed.
        resumed: bool,
    },
    /// It failed.
    Failed(HandshakeFailure),
}

/// One worker's handles that belong to no listener and no site. Make one for each worker.
#[derive(Debug)]
pub struct Edge {
    /// By version; new sessions, then resumed ones.
    handshakes: [[Counter; 2]; 2],
    failures: Box<[Counter]>,
    handshake_duration: Histogram,
    limits: Set<Limit>,
    timeouts: Set<Timeout>,
    errors: Set<ErrorKind>,
    client_alerts: Set<ClientAlert>,
    basic_auth: Set<BasicOutcome>,
    forward_auth: Set<ForwardOutcome>,
    /// Requests not yet answered in full.
    pub requests_in_flight: Gauge,
    /// Requests whose client went away before the end.
    pub client_aborts: Counter,
    /// Responses that are compressed.
    pub compression: CompressionSeries,
}

impl Edge {
    /// New shards of all of them.
    pub fn new(registry: &Registry) -> Self {
        let handshakes = |outcome, version, resumed| {
            let labels = [
                ("outcome", outcome),
                ("version", version),
                ("resumed", resumed),
            ];
            names::TLS_HANDSHAKES.counter(registry, &labels)
        };
        let done = |version: TlsVersion| {
            ["false", "true"].map(|resumed| handshakes("done", version.code(), resumed))
        };
        Self {
            handshakes: [done(TlsVersion::Tls12), done(TlsVersion::Tls13)],
            failures: (HandshakeFailure::CODES.iter())
                .map(|outcome| handshakes(outcome, "none", "false"))
                .collect(),
            handshake_duration: names::TLS_HANDSHAKE_DURATION.seconds(registry, &[]),
            limits: Set::new(registry, names::LIMITS_HIT, &[], "limit"),
            timeouts: Set::new(registry, names::TIMEOUTS, &[], "timeout"),
            errors: Set::new(registry, names::PROXY_ERRORS, &[], "kind"),
            client_alerts: Set::new(registry, names::TLS_CLIENT_ALERTS, &[], "alert"),
            basic_auth: Set::new(registry, names::BASIC_AUTH, &[], "outcome"),
            forward_auth: Set::new(registry, names::FORWARD_AUTH, &[], "outcome"),
            requests_in_flight: names::REQUESTS_IN_FLIGHT.gauge(registry, &[]),
            client_aborts: names::CLIENT_ABORTS.counter(registry, &[]),
            compression: CompressionSeries::new(registry),
        }
    }

    /// Counts a handshake; `took` from accept to its end.
    pub fn handshake(&self, handshake: Handshake, took: Duration) {
        match handshake {
            Handshake::Done { version, resumed } => {
                self.handshakes[version.index()][usize::from(resumed)].inc();
                self.handshake_duration.observe(took);
            }
            Handshake::Failed(failure) => self.failures[failure.index()].inc(),
        }
    }

    /// Counts that a limit acted.
    pub fn limit(&self, limit: Limit) {
        self.limits.inc(limit);
    }

    /// Counts that a timeout acted.
    pub fn timeout(&self, timeout: Timeout) {
        self.timeouts.inc(timeout);
    }

    /// Counts an alert that a client sent.
    pub fn client_alert(&self, alert: ClientAlert) {
        self.client_alerts.inc(alert);
    }

    /// Counts what became of a request where users have passwords.
    pub fn basic_auth(&self, outcome: BasicOutcome) {
        self.basic_auth.inc(outcome);
    }

    /// Counts what became of a request that another server was asked about.
    pub fn forward_auth(&self, outcome: ForwardOutcome) {
        self.forward_auth.inc(outcome);
    }

    /// Counts an error of staunch's own making.
    pub fn error(&self, kind: ErrorKind) {
        self.errors.inc(kind);
    }
}

/// One worker's handles of one listener. Make one for each worker and listener.
#[derive(Debug)]
pub struct ListenerSeries {
    accepted: Counter,
    accept_errors: Counter,
    open: Box<[Gauge]>,
}

impl ListenerSeries {
    /// `listener` is its address as configured.
    pub fn new(registry: &Registry, listener: &str) -> Rc<Self> {
        let labels = [("listener", listener)];
        let open = |protocol: &&'static str| {
            let labels = [("listener", listener), ("protocol", *protocol)];
            names::CONNECTIONS_OPEN.gauge(registry, &labels)
        };
        Rc::new(Self {
            accepted: names::CONNECTIONS.counter(registry, &labels),
            accept_errors: names::ACCEPT_ERRORS.counter(registry, &labels),
            open: Protocol::CODES.iter().map(open).collect(),
        })
    }

    /// Counts an accepted connection; it is open until what is returned is dropped.
    pub fn accepted(self: &Rc<Self>, protocol: Protocol) -> OpenConnection {
        self.accepted.inc();
        self.open[protocol.index()].inc();
        OpenConnection {
            listener: Rc::clone(self),
            protocol,
        }
    }

    /// Counts a failure to accept.
    pub fn accept_error(&self) {
        self.accept_errors.inc();
    }
}

/// Counts a connection as open while it exists.
#[derive(Debug)]
pub struct OpenConnection {
    listener: Rc<ListenerSeries>,
    protocol: Protocol,
}

impl OpenConnection {
    /// From now on something else is spoken on it.
    pub fn becomes(&mut self, protocol: Protocol) {
        self.listener.open[self.protocol.index()].dec();
        self.listener.open[protocol.index()].inc();
        self.protocol = protocol;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.listener.open[self.protocol.index()].dec();
    }
}
