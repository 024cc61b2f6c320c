//! Pieces of the hot path, repeated as often as asked: `instructions PIECE TIMES`. For
//! `scripts/instructions`, which counts what the processor executes for each, since that is the
//! same on a busy machine as on an idle one.
#![allow(clippy::expect_used)] // a benchmark that cannot be set up has nothing to measure

mod pipeline;

use std::future::poll_fn;
use std::hint::black_box;
use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use staunch::clock::Clock;
use staunch::config;
use staunch::http::host::Host;
use staunch::http::{Framing, Method, encode, parse};
use staunch::proxy::Asked;
use staunch::proxy::headers::{self, Hop};
use staunch::proxy::route::Table;
use staunch::proxy::rules::material::Material;
use staunch::upstream::Upstreams;
use staunch::wire::{Body, Message, Reader, Writer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a browser sends.
const REQUEST: &[u8] = b"GET /api/items?page=2 HTTP/1.1\r\n\
    Host: n7.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Connection: keep-alive\r\n\r\n";

/// The head of what nginx answers.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Mon, 23 Nov 2026 06:44:02 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Mon, 23 Nov 2026 06:44:00 GMT\r\n\
    ETag: \"6b03e0b0-400\"\r\n\
    Connection: keep-alive\r\n\r\n";

fn main() {
    let mut arguments = std::env::args().skip(1);
    let piece = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|text| text.parse().ok());
    let times: u32 = times.unwrap_or(1);
    match piece.as_str() {
        "request" => request(times),
        "response" => response(times),
        "route" => route(times),
        "pipeline" => pipeline(times, false),
        "rules" => pipeline(times, true),
        "http2" => http2(times),
        // What `cargo bench` and `cargo test` say.
        _ => println!("pieces: request, response, route, pipeline, rules, http2"),
    }
}

/// What is ready at once, in memory.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("memory never waits"),
    }
}

/// A request on a connection in memory, from bytes to bytes, with rules for header fields or without.
fn pipeline(times: u32, rules: bool) {
    let pipeline = pipeline::Pipeline::new(rules);
    black_box(pipeline.run(REQUEST, times as usize));
}

/// A request on a connection of HTTP/2 in memory, from bytes to bytes, its client's own work included.
fn http2(times: u32) {
    let pipeline = pipeline::Pipeline::new(false);
    black_box(pipeline.run_http2(times as usize));
}

/// A request's head: read, edited for the upstream, written.
fn request(times: u32) {
    let client: IpAddr = [192, 0, 2, 1].into();
    for _ in 0..times {
        let (mut reader, mut writer) = (Reader::default(), Writer::default());
        let mut input = black_box(REQUEST);
        let mut head = now(poll_fn(|cx| {
            reader.poll_head(cx, &mut input, 1 << 14, Message::Request, |head| {
                parse::request(head, 100)
            })
        }))
        .expect("a request");
        let hop = Hop {
            client,
            trusted: false,
            scheme: "https",
        };
        let upgrade = headers::to_upstream(&mut head, hop);
        writer.head(|out| encode::request(out, &head, false, upgrade.as_deref()));
        let mut output = tokio::io::sink();
        now(poll_fn(|cx| writer.poll_flush(cx, &mut output))).expect("a sink");
        writer.release();
    }
}

/// A response with a body: read, edited for the client, written.
fn response(times: u32) {
    let text = [RESPONSE, &[b'x'; 1024]].concat();
    for _ in 0..times {
        let (mut reader, mut writer) = (Reader::default(), Writer::default());
        let mut input = black_box(&text[..]);
        let mut head = now(poll_fn(|cx| {
            reader.poll_head(cx, &mut input, 1 << 14, Message::Response, |head| {
                parse::response(head, Method::Get)
            })
        }))
        .expect("a response");
        headers::to_client(&mut head, |_| {});
        let default = encode::Connection::Default;
        writer.head(|out| encode::response(out, &head, false, default, None));
        writer.begin_body(false);
        reader.begin_body(Framing::Length(1024));
        let mut output = tokio::io::sink();
        while now(poll_fn(|cx| reader.poll_body(cx, &mut input))).expect("a body") == Body::Data {
            let sent = now(poll_fn(|cx| {
                writer.poll_data(cx, &mut output, reader.data())
            }));
            reader.consume(sent.expect("a sink"));
        }
        writer.finish(None);
        now(poll_fn(|cx| writer.poll_flush(cx, &mut output))).expect("a sink");
        writer.release();
    }
}

/// Site and upstream for a request, among many.
fn route(times: u32) {
    let text: String = (0..100)
        .map(|n| {
            format!(
                "[[site]]\nnames = [\"n{n}.example.test\"]\nupstream = \"http://127.0.0.1:1\"\n\
                 [[site.route]]\npath = \"/api/\"\nupstream = \"http://127.0.0.1:2\"\n"
            )
        })
        .collect();
    let config = config::parse(&text, "staunch.toml".as_ref()).expect("a configuration");
    let none = Upstreams::default();
    let upstreams = Upstreams::build(
        &config.upstreams,
        &config.timeouts,
        &std::sync::Arc::default(),
        &Clock::system(),
        &none,
    );
    let table = Table::build(&config, &upstreams, &Material::default());
    let head = b"GET /api/items HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = parse::complete(parse::request(head, 100)).expect("a head");
    let peer = pipeline::peer();
    for _ in 0..times {
        let host = Host::parse(black_box(b"n7.example.test")).expect("a host");
        let site = table.find(host.as_str()).expect("a site");
        let asked = Asked {
            head: black_box(&head),
            identity: None,
            peer: &peer,
            client: peer.client.ip(),
        };
        let _ = black_box(table.site(site).route(asked).is_ok());
    }
}
