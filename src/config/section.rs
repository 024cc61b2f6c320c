//! The sections of the file, key by key: what each is called, what it means, what applies without
//! it. What holds between sections is for [`super::check`].

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::check::{RawSite, RawUpstream};
use super::default;
use super::diagnostic::{Diagnostic, Span};
use super::quota::{RawQuota, quota};
use super::read::{At, Table};
use super::rules;
use super::stream::{RawStream, stream};
use super::tls::RawTls;
use super::upstream::upstream;
use super::value::{Address, CallUrl, LogLevel, NameServer, Target};
use super::{
    AccessLog, AccessLogTarget, Alerts, CertificateSource, Drain, Limits, Listen, Location, Log,
    Rules, Timeouts, Traces, Upgrade, Workers,
};

/// The shortest and longest time that a deadline can be set to: none is off by being zero, and
/// none is off by being endless.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What the defaults depend on besides the program.
#[derive(Clone, Debug)]
pub(super) struct Environment {
    /// `$STATE_DIRECTORY`, as systemd sets it.
    pub(super) state_directory: Option<OsString>,
    /// How many threads can run at once.
    pub(super) threads: NonZeroUsize,
}

impl Environment {
    /// The one this process runs in.
    pub(super) fn current() -> Self {
        Self {
            state_directory: std::env::var_os("STATE_DIRECTORY"),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }

    fn state_dir(&self) -> PathBuf {
        // systemd joins several by colons; the first is the one that the unit names first.
        let given = self
            .state_directory
            .as_deref()
            .and_then(|list| std::env::split_paths(list).next())
            .filter(|path| path.is_absolute());
        given.unwrap_or_else(|| default::STATE_DIR.into())
    }
}

/// The file as it was read, with what is still to be seen in context.
pub(super) struct File {
    pub(super) state_dir: PathBuf,
    pub(super) keep_last_good: bool,
    pub(super) listen: RawListen,
    pub(super) tls: RawTls,
    pub(super) workers: Workers,
    pub(super) certificates: Vec<At<CertificateSource>>,
    pub(super) defaults: Rules,
    pub(super) sites: Vec<RawSite>,
    pub(super) streams: Vec<RawStream>,
    pub(super) upstreams: Vec<RawUpstream>,
    pub(super) quotas: Vec<RawQuota>,
    pub(super) dns: Vec<std::net::SocketAddr>,
    pub(super) timeouts: Timeouts,
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    pub(super) upgrade: Upgrade,
    pub(super) alerts: Alerts,
    pub(super) log: Log,
    pub(super) traces: Option<Traces>,
    /// Whom rules ask.
    pub(super) asked: Vec<At<Target>>,
}

/// `[listen]`, with the place of each address.
pub(super) struct RawListen {
    pub(super) span: Span,
    pub(super) https: Vec<At<std::net::SocketAddr>>,
    pub(super) http: Vec<At<std::net::SocketAddr>>,
    pub(super) admin: At<Address>,
    pub(super) proxy_protocol_at: Vec<At<std::net::SocketAddr>>,
    pub(super) rest: Listen,
}

/// Reads the file from its top.
pub(super) fn file(t: &mut Table<'_>, environment: &Environment) -> File {
    File {
        state_dir: t.or_described(
            "state_dir",
            || environment.state_dir(),
            "$STATE_DIRECTORY, else \"/var/lib/staunch\"",
            "Folder for last-good certificates, the ledger and alert state.",
        ),
        keep_last_good: t.or(
            "keep_last_good",
            true,
            "Whether certificates and keys may be copied to `state_dir`, so that a restart finds \
             one that works even if what is on disk does not.",
        ),
        listen: t.section("listen", "listen", listen),
        tls: t.section("tls", "tls", super::tls::tls),
        workers: t.section("workers", "workers", |t| workers(t, environment)),
        certificates: t.each("certificate", "certificate", certificate),
        defaults: t.section("defaults", "defaults", rules::defaults),
        sites: t.each("site", "site", |t, _| Some(site(t))),
        streams: t.each("stream", "stream", stream),
        upstreams: t.named("upstream", "upstream.NAME", upstream),
        quotas: t.named("quota", "quota.NAME", quota),
        dns: t.section("dns", "dns", dns),
        timeouts: t.section("timeouts", "timeouts", timeouts),
        limits: t.section("limits", "limits", super::limits::limits),
        drain: t.section("drain", "drain", drain),
        upgrade: t.section("upgrade", "upgrade", upgrade),
        alerts: t.section("alerts", "alerts", alerts),
        log: t.section("log", "log", log),
        traces: t.section("traces", "traces", super::traces::traces),
        // Last: who is asked is known when all else was read.
        asked: t.cx.wanted_targets(),
    }
}

fn listen(t: &mut Table<'_>) -> RawListen {
    RawListen {
        span: t.span.clone(),
        https: t.or(
            "https",
            vec![At::nowhere(default::HTTPS)],
            "Addresses that terminate TLS.",
        ),
        http: t.or(
            "http",
            Vec::new(),
            "Plain-text addresses; they answer with a redirect to https, except for sites and \
             routes with `plain_text`.",
        ),
        admin: t.or(
            "admin",
            At::nowhere(Address(Some(default::ADMIN))),
            "Address for health, metrics and the inventory; `\"\"` turns it off.",
        ),
        proxy_protocol_at: t.or(
            "proxy_protocol_at",
            Vec::new(),
            "Addresses of listeners to which `proxy_protocol_from` applies; without: all.",
        ),
        rest: Listen {
            https: Vec::new(),
            http: Vec::new(),
            admin: None,
            streams: Vec::new(),
            passthrough: Vec::new(),
            proxy_protocol_at: Vec::new(),
            proxy_protocol_from: t.or(
                "proxy_protocol_from",
                Vec::new(),
                "Peers that must send a PROXY protocol header (v1 or v2). Nobody else may.",
            ),
            forwarded_from: t.or(
                "forwarded_from",
                Vec::new(),
                "Proxies whose own `Forwarded` and `X-Forwarded-*` are believed and extended; \
                 everybody else's are replaced. The client is then the last address in \
                 `X-Forwarded-For` that is not of these: for `allow` and `deny`, rates, hashing, \
                 the log.",
            ),
        },
    }
}

fn workers(t: &mut Table<'_>, environment: &Environment) -> Workers {
    const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
    Workers {
        threads: t.or_described_within(
            "threads",
            || environment.threads.min(MOST),
            NonZeroUsize::MIN..=MOST,
            "one for each core it may run on",
            "Threads that serve connections.",
        ),
    }
}

fn certificate(t: &mut Table<'_>, _index: usize) -> Option<At<CertificateSource>> {
    let chain: Option<PathBuf> = t.optional(
        "chain",
        "PEM file with the chain, leaf first; and the key too, when there is no `key`.",
    );
    let key: Option<At<PathBuf>> = t.optional("key", "PEM file with the private key.");
    let ocsp: Option<At<PathBuf>> = t.optional(
        "ocsp",
        "DER file with an OCSP response to staple. Without it: `<chain>.ocsp`, where that exists.",
    );
    let folder: Option<PathBuf> = t.optional(
        "folder",
        "Folder searched below for certificates and their keys; new ones are picked up as they \
         appear.",
    );
    let accept_worse = t.or(
        "accept",
        false,
        "Use what is on disk even when it is worse than what is served.",
    );
    let keep = t.or(
        "keep",
        true,
        "Keep a copy in `state_dir`, for when what is on disk cannot be used.",
    );

    match (t.has("chain"), t.has("folder")) {
        (true, true) => t.cx.report(
            Diagnostic::error(
                t.span.clone(),
                "a certificate has both `chain` and `folder`",
            )
            .help("write a `[[certificate]]` for each"),
        ),
        (false, false) => t.cx.report_missing(
            Diagnostic::error(t.span.clone(), "a certificate without `chain` and `folder`").help(
                match key {
                    Some(_) => {
                        "write `chain = …` beside `key`; a file that holds both is a `chain`"
                    }
                    None => "write `chain = …` and `key = …`, or `folder = …`",
                },
            ),
        ),
        (true, false) => {}
        (false, true) => {
            for (key, value) in [("key", &key), ("ocsp", &ocsp)] {
                if let Some(At { span, .. }) = value {
                    t.cx.report(
                        Diagnostic::error(
                            span.clone(),
                            format!("`certificate.{key}` does not go with `folder`"),
                        )
                        .help("what belongs together in a folder is found by its content"),
                    );
                }
            }
        }
    }
    let ocsp = ocsp.map(|ocsp| ocsp.value);
    // A key that is there and could not be read must not turn a pair into a bundle.
    let key_given = t.has("key");
    let location = match (chain, key, folder) {
        (Some(chain), Some(At { value: key, .. }), None) => Location::Pair { chain, key, ocsp },
        (Some(file), None, None) if !key_given => Location::Bundle { file, ocsp },
        (None, _, Some(folder)) => Location::Folder { folder },
        _ => return None,
    };
    let span = t.span.clone();
    let line = t.cx.line(&span);
    let value = CertificateSource {
        location,
        accept_worse,
        keep,
        routine: false,
        line,
    };
    Some(At { value, span })
}

fn site(t: &mut Table<'_>) -> RawSite {
    let names: Option<Vec<_>> = t.required(
        "names",
        "Names it answers to: `example.com`; `*.example.com` for one more label; `*` for whatever \
         no other site answers to.",
    );
    let default = t.or(
        "default",
        At::nowhere(false),
        "The site for clients that name none. Without any, the first site is.",
    );
    let (own, rules) = rules::site(t);
    let passthrough: Option<At<Target>> = t.optional(
        "passthrough",
        "Where connections go for its names without their TLS being terminated: a URL, or the NAME \
         of an `[upstream.NAME]`. The site has nothing else then.",
    );
    let tls = super::tls::site(t);
    let rate = super::limits::rate(
        t,
        "rate",
        "Requests per second of all its clients together, over all workers; 0: no limit. More are \
         answered with 429.",
        "burst",
    );
    let mut routes = t.each("route", "site.route", rules::route);
    let has_own = own.is_some();
    // Last, so that a fault of two is shown there.
    routes.extend(own);
    if names.as_ref().is_some_and(Vec::is_empty) {
        t.cx.report(
            Diagnostic::error(t.span.clone(), "a site without a name")
                .help("write `names = [\"example.com\"]`, or `[\"*\"]` for any name"),
        );
    }
    // An `allow` that keeps nobody out would be worse than none.
    if let Some(passthrough) = &passthrough
        && let Some(key) = t.beside(&["names", "passthrough"])
    {
        let message = format!("`{key}` beside `passthrough`");
        t.cx.report(
            Diagnostic::error(passthrough.span.clone(), message)
                .help("whoever the connections are passed to sees to it; take one of them out"),
        );
    }
    let leads = ["upstream", "redirect", "respond", "route", "passthrough"];
    if !leads.iter().any(|key| t.has(key)) {
        t.cx.report_missing(
            Diagnostic::error(t.span.clone(), "a site that leads nowhere").help(
                "write `upstream = \"http://host:port\"`, `redirect`, `respond`, or a \
                 `[[site.route]]`",
            ),
        );
    }
    RawSite {
        span: t.span.clone(),
        names: names.unwrap_or_default(),
        default,
        routes,
        passthrough,
        has_own,
        rules,
        tls,
        rate,
    }
}

fn dns(t: &mut Table<'_>) -> Vec<SocketAddr> {
    let servers: Vec<NameServer> = t.or(
        "servers",
        Vec::new(),
        "Name servers that are asked for the names of servers, as `IP:PORT`, in place of those in \
         `/etc/resolv.conf`.",
    );
    servers
        .into_iter()
        .map(|NameServer(address)| address)
        .collect()
}

fn timeouts(t: &mut Table<'_>) -> Timeouts {
    let mut within = |key, default, meaning| t.or_within(key, default, SHORTEST..=LONGEST, meaning);
    Timeouts {
        tls_handshake: within(
            "tls_handshake",
            default::TLS_HANDSHAKE,
            "From accept to a finished TLS handshake, PROXY header included.",
        ),
        request_head: within(
            "request_head",
            default::REQUEST_HEAD,
            "From the first byte of a request to the end of its head.",
        ),
        request_body: within(
            "request_body",
            default::REQUEST_BODY,
            "Between two reads of a request body that make progress.",
        ),
        idle: within(
            "idle",
            default::IDLE,
            "How long a kept connection may wait for its next request.",
        ),
        send: within(
            "send",
            default::SEND,
            "Between two writes to a client that make progress.",
        ),
        upstream_connect: within(
            "upstream_connect",
            default::UPSTREAM_CONNECT,
            "To connect to an upstream server.",
        ),
        upstream_response: within(
            "upstream_response",
            default::UPSTREAM_RESPONSE,
            "From the end of the request to the head of the response.",
        ),
        upstream_idle: within(
            "upstream_idle",
            default::UPSTREAM_IDLE,
            "Between two reads of a response body that make progress.",
        ),
        upstream_keep: within(
            "upstream_keep",
            default::UPSTREAM_KEEP,
            "How long an unused upstream connection is kept. Shorter than the upstream's own.",
        ),
        upstream_ping: within(
            "upstream_ping",
            default::UPSTREAM_PING,
            "How long an HTTP/2 connection to a server may be silent while requests wait on it, \
             before a PING asks whether the server is there; without an answer for as long again, \
             the connection is given up.",
        ),
        tunnel: within(
            "tunnel",
            default::TUNNEL,
            "How long a tunnel (WebSocket and other upgrades) may be silent.",
        ),
    }
}

fn drain(t: &mut Table<'_>) -> Drain {
    Drain {
        notice: t.or_within(
            "notice",
            default::DRAIN_NOTICE,
            Duration::ZERO..=LONGEST,
            "How long `/readyz` answers 503 before the listeners close. In its last second, responses over HTTP/1.1 say `Connection: close`, so that hardly any connection rests when it is closed.",
        ),
        deadline: t.or_within(
            "deadline",
            default::DRAIN_DEADLINE,
            Duration::ZERO..=LONGEST,
            "How long requests may then still take; what is open after that is closed.",
        ),
    }
}

fn upgrade(t: &mut Table<'_>) -> Upgrade {
    Upgrade {
        ready: t.or_within(
            "ready",
            default::UPGRADE_READY,
            SHORTEST..=LONGEST,
            "How long a new process may take until it is ready to take over. One that is not ready \
             by then is ended, and the old one goes on.",
        ),
        deadline: t.or_within(
            "deadline",
            default::UPGRADE_DEADLINE,
            Duration::ZERO..=LONGEST,
            "How long the old process then goes on with the connections that it has; what is open \
             after that is closed.",
        ),
    }
}

fn alerts(t: &mut Table<'_>) -> Alerts {
    const SHARE: (f64, f64) = (0.001, 0.999);
    const REPEAT: (Duration, Duration) =
        (Duration::from_secs(60), Duration::from_secs(30 * 24 * 3600));
    let overdue = t.or_within(
        "overdue",
        default::OVERDUE,
        SHARE.0..=SHARE.1,
        "Share of a certificate's lifetime left at which its renewal is overdue.",
    );
    let expiring = t.or_within(
        "expiring",
        default::EXPIRING,
        SHARE.0..=SHARE.1,
        "Share of a certificate's lifetime left at which that is critical.",
    );
    if expiring >= overdue {
        let place = t.place("expiring").or_else(|| t.place("overdue"));
        let message =
            format!("`alerts.expiring` ({expiring}) is not below `alerts.overdue` ({overdue})");
        t.cx.report_missing(
            Diagnostic::error(place.unwrap_or(0..0), message)
                .help("a renewal is overdue first, and critical when less is left"),
        );
    }
    Alerts {
        overdue,
        expiring,
        repeat: t.or_within(
            "repeat",
            default::REPEAT,
            REPEAT.0..=REPEAT.1,
            "How often a critical alert is told again while it lasts: more often as the expiry nears, \
             down to a sixth; less often, up to four times, while that is far or when it has lasted \
             long. Warnings are told again after four to twenty-eight times as long.",
        ),
        go_back: t.or(
            "go_back",
            false,
            "Whether staunch goes back to the certificate from before a swap by itself, where that \
             is still valid, when clients refuse the new one in a quarter of the handshakes or more \
             (and in three times as many as before). Whoever can open many connections can feign \
             that.",
        ),
        probe: t.or_described(
            "probe",
            Vec::new,
            "none",
            "Further addresses on which clients reach this machine, such as its public one: the \
             probe asks them too for what is served. Not for one that is shared with other machines.",
        ),
        runbook: t
            .optional(
                "runbook",
                "Where your people read the runbook, such as \"https://wiki.example.com/staunch/runbook\": \
                 alerts link to its sections, `#expired` for example. Without it they name its file.",
            )
            .map(|CallUrl(url)| url),
        sinks: super::sink::all(t),
    }
}

fn log(t: &mut Table<'_>) -> Log {
    Log {
        level: t
            .or(
                "level",
                LogLevel(default::LOG_LEVEL.into()),
                "Least level written: error, warn, info, debug or trace, below info of staunch only; \
                 or for parts of the program, as in `\"info,staunch::cert=debug\"`.",
            )
            .0,
        format: t.or_described(
            "format",
            || None,
            "human on a terminal, else json",
            "How a line is written.",
        ),
        access: t.section("access", "log.access", |t| AccessLog {
            to: t.or(
                "to",
                AccessLogTarget::Off,
                "Where the access log goes: nowhere, to standard output, or to a file that is \
                 opened again on `USR1`.",
            ),
            sample: t.or_within(
                "sample",
                default::LOG_SAMPLE,
                0.0..=1.0,
                "Share of requests that are written; those that failed (5xx) always are.",
            ),
        }),
    }
}
