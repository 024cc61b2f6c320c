//! What every handshake and every request costs, piece by piece, without sockets: `cargo bench`.
//!
//! Absolute times belong to one machine on one day. What counts is how they compare with each
//! other, and with the same pieces before a change.
#![allow(clippy::expect_used)] // a benchmark that cannot be set up has nothing to measure

mod pipeline;

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use divan::{Bencher, black_box};
use rcgen::{CertificateParams, KeyPair};
use staunch::cert::inventory::Inventory;
use staunch::cert::keeper::{self, Wanted};
use staunch::cert::load::Roots;
use staunch::cert::rank::Client;
use staunch::clock::{Clock, Timestamp};
use staunch::config;
use staunch::http::host::Host;
use staunch::http::{Method, encode, parse};
use staunch::proxy::Asked;
use staunch::proxy::headers::{self, Hop};
use staunch::proxy::route::Table;
use staunch::proxy::rules::material::Material;
use staunch::upstream::Upstreams;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}

/// What a browser sends.
const REQUEST: &[u8] = b"GET /api/items?page=2 HTTP/1.1\r\n\
    Host: n7.example.test\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://n7.example.test/\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Connection: keep-alive\r\n\r\n";

/// What nginx answers.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: nginx\r\n\
    Date: Mon, 23 Nov 2026 06:44:02 GMT\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Last-Modified: Mon, 23 Nov 2026 06:44:00 GMT\r\n\
    ETag: \"6b03e0b0-400\"\r\n\
    Cache-Control: max-age=60\r\n\
    Connection: keep-alive\r\n\r\n";

fn host(n: usize) -> String {
    format!("n{n}.example.test")
}

/// An inventory of this many certificates, each for a name of its own.
fn inventory(count: usize) -> (Arc<Inventory>, Timestamp) {
    let folder = tempfile::tempdir().expect("a folder for certificates");
    let mut text = String::new();
    for n in 0..count {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host(n)]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let path = folder.path().join(format!("{n}.pem"));
        fs::write(&path, certificate.pem() + &key.serialize_pem()).expect("a file");
        let _ = writeln!(text, "[[certificate]]\nchain = {path:?}");
    }
    let config =
        config::parse(&text, &folder.path().join("staunch.toml")).expect("a configuration");
    let clock = Clock::manual(Timestamp::from_unix(1_800_000_000));
    let inventory = keeper::survey(
        Wanted::of(&config),
        folder.path(),
        clock.clone(),
        Arc::new(Roots::empty()),
    );
    (inventory, clock.now())
}

/// The certificate for a handshake.
#[divan::bench(args = [10, 10_000])]
fn select_certificate(bencher: Bencher<'_, '_>, count: usize) {
    let (inventory, now) = inventory(count);
    let host = host(count / 2);
    bencher.bench_local(|| inventory.best(black_box(&host), Client::Any, now).is_some());
}

/// Site and upstream for a request.
#[divan::bench(args = [10, 1_000])]
fn route(bencher: Bencher<'_, '_>, count: usize) {
    let mut text = String::new();
    for n in 0..count {
        let _ = writeln!(
            text,
            "[[site]]\nnames = [\"{}\"]\nupstream = \"http://127.0.0.1:{}\"\n\
             [[site.route]]\npath = \"/api/\"\nupstream = \"http://127.0.0.1:1\"",
            host(n),
            2 + n % 60_000
        );
    }
    let config = config::parse(&text, "staunch.toml".as_ref()).expect("a configuration");
    let previous = Upstreams::default();
    let upstreams = Upstreams::build(
        &config.upstreams,
        &config.timeouts,
        &Arc::default(),
        &Clock::system(),
        &previous,
    );
    let table = Table::build(&config, &upstreams, &Material::default());
    let head = b"GET /api/items HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = parse::complete(parse::request(head, 100)).expect("a head");
    let authority = host(count / 2);
    let peer = pipeline::peer();
    bencher.bench_local(|| {
        let host = Host::parse(black_box(authority.as_bytes())).expect("a host");
        let site = table.find(host.as_str()).expect("a site");
        let asked = Asked {
            head: black_box(&head),
            identity: None,
            peer: &peer,
            client: peer.client.ip(),
        };
        table.site(site).route(asked).is_ok()
    });
}

/// A request's head, from bytes to bytes.
#[divan::bench]
fn request_head(bencher: Bencher<'_, '_>) {
    let client: IpAddr = [192, 0, 2, 1].into();
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        let mut head = parse::complete(parse::request(black_box(REQUEST), 100)).expect("a request");
        let hop = Hop {
            client,
            trusted: false,
            scheme: "https",
        };
        let upgrade = headers::to_upstream(&mut head, hop);
        out.clear();
        encode::request(&mut out, &head, false, upgrade.as_deref());
        out.len()
    });
}

/// A thousand requests on a connection in memory, from bytes to bytes; with rules for header fields,
/// or without.
#[divan::bench(args = [false, true])]
fn thousand_requests(bencher: Bencher<'_, '_>, rules: bool) {
    let pipeline = pipeline::Pipeline::new(rules);
    bencher.bench_local(|| pipeline.run(black_box(REQUEST), 1000));
}

/// The same over HTTP/2, without rules.
#[divan::bench]
fn thousand_requests_of_http2(bencher: Bencher<'_, '_>) {
    let pipeline = pipeline::Pipeline::new(false);
    bencher.bench_local(|| pipeline.run_http2(black_box(1000)));
}

/// A response's head, from bytes to bytes.
#[divan::bench]
fn response_head(bencher: Bencher<'_, '_>) {
    let mut out = Vec::with_capacity(4096);
    bencher.bench_local(|| {
        let mut head =
            parse::complete(parse::response(black_box(RESPONSE), Method::Get)).expect("a response");
        headers::to_client(&mut head, |_| {});
        out.clear();
        encode::response(&mut out, &head, false, encode::Connection::Default, None);
        out.len()
    });
}
