//! All that a connection does for a request, on connections in memory: it is read, routed, held
//! against limits, answered by a route's own response, and counted.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use staunch::cert::inventory::Inventory;
use staunch::cert::select::Resolver;
use staunch::clock::Clock;
use staunch::drain::{Draining, Guard};
use staunch::http::frame;
use staunch::http::hpack::Encoder;
use staunch::metrics::Registry;
use staunch::proxy::route::Table;
use staunch::proxy::rules::material::Material;
use staunch::proxy::{Local, Peer, World};
use staunch::serve::h1::Http1;
use staunch::serve::h2;
use staunch::serve::{Role, Service};
use staunch::telemetry::access::AccessLog;
use staunch::tls::{Keep, Options};
use staunch::upstream::Upstreams;
use staunch::upstream::pool::ClientId;
use staunch::wire::cork::Stream;
use staunch::{config, tls};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A site that answers by itself.
const PLAIN: &str = r#"
[[site]]
names = ["n7.example.test"]
[[site.route]]
path = "/api/"
respond = 200
body = "all is well\n"
"#;

/// The same, with rules for the fields of its responses.
const RULES: &str = r#"
hsts = "730d"
[site.response_headers]
set = { X-Frame-Options = "DENY", Content-Security-Policy = "default-src 'self'", X-Client = "{client_address}" }
remove = ["Server"]
"#;

/// What a browser sends in HTTP/2.
const FIELDS: [(&str, &str); 9] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "n7.example.test"),
    (":path", "/api/items?page=2"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    ),
    ("accept-language", "en-GB,en;q=0.5"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark",
    ),
];

/// A worker's things, and a client.
pub struct Pipeline {
    runtime: tokio::runtime::Runtime,
    service: Service,
    peer: Peer,
    guard: Guard,
    _keep: Keep,
}

impl Pipeline {
    /// With rules for header fields, or without.
    pub fn new(rules: bool) -> Self {
        let site = match rules {
            true => PLAIN.replacen("[[site.route]]", &format!("{RULES}[[site.route]]"), 1),
            false => PLAIN.to_owned(),
        };
        let text = format!("[listen]\nhttps = [\"127.0.0.1:443\"]\n{site}");
        let config = config::parse(&text, "staunch.toml".as_ref()).expect("a configuration");
        let (clock, registry) = (Clock::system(), Registry::new());
        let none = Upstreams::default();
        let upstreams = Upstreams::build(
            &config.upstreams,
            &config.timeouts,
            &Arc::default(),
            &clock,
            &none,
        );
        let material = Material::default();
        let world = World {
            table: Table::build(&config, &upstreams, &material),
            streams: Default::default(),
            upstreams,
            timeouts: config.timeouts,
            limits: config.limits,
            spans: None,
            forwarded_from: Vec::new(),
            material,
        };
        let inventory = Arc::new(ArcSwap::from_pointee(Inventory::default()));
        let certificates = Arc::new(Resolver::new(inventory, clock.clone()));
        let keep = Keep::start(Options {
            resolver: Arc::<Resolver>::clone(&certificates),
            clock: clock.clone(),
            registry: registry.clone(),
            key_log: None,
        });
        let keep = keep.expect("a thread");
        let address = ([127, 0, 0, 1], 443).into();
        let prepared = keep.prepare(&config).expect("TLS");
        let policies = Arc::<tls::Policies>::clone(prepared.at(address).expect("a listener"));
        let draining = Rc::new(Draining::default());
        let local = Local::new(
            Arc::new(ArcSwap::from_pointee(world)),
            registry,
            clock,
            &AccessLog::new().expect("a thread"),
            Rc::clone(&draining),
            certificates,
        );
        let peer = Peer {
            id: local.pool().client(),
            sni: Some("n7.example.test".into()),
            policy: Some(policies.choose(Some("n7.example.test")).current()),
            ..peer()
        };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            service: Service {
                local: Rc::new(local),
                role: Role::Https {
                    policies,
                    passthrough: None,
                },
                port: 443,
                proxy_protocol_from: Arc::new([]),
            },
            peer,
            guard: draining.guard(),
            _keep: keep,
        }
    }

    /// One connection of HTTP/1.1 with so many of this request; how many bytes it was answered with.
    pub fn run(&self, request: &[u8], times: usize) -> usize {
        let mut client = Http1::new(Memory {
            request,
            at: 0,
            left: times,
            written: 0,
        });
        let serving = client.serve(&self.service, &self.peer, &self.guard);
        self.runtime.block_on(serving);
        client.stream().written
    }

    /// One connection of HTTP/2 with so many requests, one after the other; how many bytes it was
    /// answered with.
    pub fn run_http2(&self, times: usize) -> usize {
        let mut client = Streams {
            encoder: Encoder::default(),
            next: 1,
            left: times,
            written: 0,
        };
        let serving = h2::serve(&mut client, &self.service, &self.peer, &self.guard);
        self.runtime.block_on(serving);
        client.written
    }
}

/// Who asks.
pub fn peer() -> Peer {
    Peer {
        id: ClientId::default(),
        client: ([192, 0, 2, 1], 40_000).into(),
        destination: None,
        local_port: 443,
        scheme: "https",
        sni: None,
        alpn: None,
        tls_version: Some("1.3"),
        session: None,
        ja4: None,
        policy: None,
        identity: None,
    }
}

/// A client that sends one request after the other, and only counts what comes back.
struct Memory<'r> {
    request: &'r [u8],
    at: usize,
    left: usize,
    written: usize,
}

impl Stream for Memory<'_> {}

impl AsyncRead for Memory<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left > 0 {
            let rest = &self.request[self.at..];
            let count = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..count]);
            self.at += count;
            if self.at == self.request.len() {
                self.at = 0;
                self.left -= 1;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Memory<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        assert!(
            data.starts_with(b"HTTP/1.1 200"),
            "it is not measured what is meant"
        );
        self.written += data.len();
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The same with HTTP/2: each request is a stream.
struct Streams {
    encoder: Encoder,
    next: u32,
    left: usize,
    written: usize,
}

impl Streams {
    fn frames(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut frame = |kind, flags, stream, payload: &[u8]| {
            let head = frame::Head {
                length: payload.len(),
                kind,
                flags,
                stream,
            };
            out.extend_from_slice(&head.bytes());
            out.extend_from_slice(payload);
        };
        if self.next == 1 {
            frame(frame::kind::SETTINGS, 0, 0, &[]);
            frame(
                frame::kind::WINDOW_UPDATE,
                0,
                0,
                &(1u32 << 30).to_be_bytes(),
            );
        }
        let mut block = Vec::new();
        self.encoder.begin(&mut block);
        for (name, value) in FIELDS {
            self.encoder
                .field(&mut block, name.as_bytes(), value.as_bytes());
        }
        let flags = frame::flag::END_STREAM | frame::flag::END_HEADERS;
        frame(frame::kind::HEADERS, flags, self.next, &block);
        if self.next == 1 {
            out.splice(0..0, frame::PREFACE.iter().copied());
        }
        self.next += 2;
        out
    }
}

impl AsyncRead for Streams {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left > 0 {
            let frames = self.frames();
            buffer.put_slice(&frames);
            self.left -= 1;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Streams {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written += data.len();
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
