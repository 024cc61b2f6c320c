//! The probe against servers that are good, bad and silent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::report::Report;
use super::*;
use crate::cert::testing::{Issued, Leaf, World, day};

fn target(text: &str) -> Result<(String, u16), String> {
    Target::parse(text).map(|target| (target.host, target.port))
}

#[test]
fn a_target_is_read_in_every_form() {
    for (text, host, port) in [
        ("a.test", "a.test", 443),
        ("a.test:8443", "a.test", 8443),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("2001:db8::1", "2001:db8::1", 443),
        ("[2001:db8::1]", "2001:db8::1", 443),
        ("[2001:db8::1]:8443", "2001:db8::1", 8443),
        ("https://a.test:8443/path?q#f", "a.test", 8443),
    ] {
        assert_eq!(target(text), Ok((host.to_owned(), port)), "{text}");
    }
    for text in [
        "",
        ":443",
        "a.test:",
        "a.test:0",
        "a.test:http",
        "[::1",
        "[::1]443",
    ] {
        assert!(target(text).is_err(), "{text}");
    }
}

/// A server that shakes hands once with this certificate.
fn server(issued: &Issued) -> SocketAddr {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(issued.chain.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(chain, key)
    .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    listen(move |socket| {
        let connection = ServerConnection::new(Arc::new(config)).unwrap();
        let _ = StreamOwned::new(connection, socket).read(&mut [0]);
    })
}

fn listen(answer: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        if let Ok((socket, _)) = listener.accept() {
            answer(socket);
        }
    });
    address
}

fn seen(address: SocketAddr, name: &str, timeout: Duration) -> Result<handshake::Seen, String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    handshake::with("127.0.0.1", address.port(), &name, timeout)
}

fn report(issued: &Issued, world: &World, name: &str) -> Report {
    let seen = seen(server(issued), name, Duration::from_secs(10)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    Report::new(seen, &name, &world.roots, day(0))
}

#[test]
fn a_good_server_is_trusted() {
    let world = World::new();
    let issued = world.issue(&Leaf::new(&["a.test"]));
    let report = report(&issued, &world, "a.test");
    assert!(report.trusted(), "{report}");
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["trusted"], true);
    assert_eq!(json["problems"], serde_json::json!([]));
    assert_eq!(json["protocol"], "TLS 1.3");
    assert_eq!(json["alpn"], "h2");
    assert_eq!(json["key_exchange"], "X25519MLKEM768");
    assert_eq!(json["stapled"], false);
    assert_eq!(json["days_left"], 60);
    assert_eq!(json["chain"][0]["names"][0], "a.test");
    assert_eq!(json["chain"][1]["subject"], "Test Intermediate");
    let text = report.to_string();
    for word in [
        "a.test at 127.0.0.1",
        ": trusted",
        "X25519MLKEM768",
        "60 days left",
    ] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn what_a_client_would_refuse_is_said_in_words() {
    let world = World::new();
    let leaf = || Leaf::new(&["a.test"]);
    for (issued, name, problem) in [
        (
            world.issue(&leaf()),
            "b.test",
            "it does not cover b.test; it covers a.test",
        ),
        (
            leaf().issue(&world.intermediate),
            "a.test",
            "'Test Intermediate', is neither in",
        ),
        (
            world.issue(&leaf().valid(day(-9), day(-2))),
            "a.test",
            "2 days ago",
        ),
        (
            world.issue(&leaf().valid(day(2), day(9))),
            "a.test",
            "it is not valid before",
        ),
        (leaf().self_signed(), "a.test", "it is self-signed"),
        (
            world.issue(&Leaf::new(&[])),
            "a.test",
            "it covers no name at all",
        ),
    ] {
        let report = report(&issued, &world, name);
        assert!(!report.trusted());
        let text = report.to_string();
        assert!(
            text.contains("NOT trusted") && text.contains(problem),
            "{problem}: {text}"
        );
    }
}

#[test]
fn a_server_that_speaks_no_tls_is_told() {
    let address = listen(|mut socket| {
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
        let _ = socket.read(&mut [0; 4096]);
    });
    let why = seen(address, "a.test", Duration::from_secs(10)).unwrap_err();
    assert!(why.contains("not with TLS"), "{why}");
}

#[test]
fn a_silent_server_is_given_up_in_time() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let address = listen(move |_socket| wait.recv().unwrap_or(()));
    let begun = Instant::now();
    let why = seen(address, "a.test", Duration::from_millis(200)).unwrap_err();
    drop(done);
    assert!(why.contains("does not finish a handshake"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn nobody_there_is_no_connection() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let why = seen(address, "a.test", Duration::from_secs(5)).unwrap_err();
    assert!(why.contains("no connection"), "{why}");
}
