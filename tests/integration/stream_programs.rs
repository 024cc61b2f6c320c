//! The same as in `stream`, with the real programs that stand before and behind: Redis, nginx,
//! HAProxy, OpenSSL.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{HOST, Origin, Port, Ran, Server, Site, Staunch, TestCa, require, run, until};

/// `redis-cli`, over TLS.
fn redis(port: &Port, ca: &Path, arguments: &[&str]) -> Ran {
    run(Command::new(require("redis-cli"))
        .args(["-h", "127.0.0.1", "-p", &port.number().to_string()])
        .args(["--tls", "--sni", HOST, "--cacert"])
        .arg(ca)
        .args(arguments))
}

#[test]
fn redis_is_spoken_to_through_terminated_tls() {
    let redis_server = Server::redis();
    let ca = TestCa::new();
    let port = Port::free();
    let lines = format!("tls = true\nupstream = {:?}\n", redis_server.tcp());
    let leaf = ca.leaf(&[HOST, "127.0.0.1"]).issue();
    let proxy = Staunch::build()
        .leaf(&leaf)
        .site(HOST, &Origin::echo())
        .stream(&port, &lines)
        .start();
    let file = redis_server.folder().join("ca.pem");
    fs::write(&file, &ca.root().pem).unwrap();
    assert_eq!(redis(&port, &file, &["PING"]).ok().trim(), "PONG");
    let large = "x".repeat(100_000);
    assert_eq!(redis(&port, &file, &["SET", "a", &large]).ok().trim(), "OK");
    assert_eq!(redis(&port, &file, &["GET", "a"]).ok().trim(), large);
    // Many commands at once, and their answers in order.
    let many = redis(&port, &file, &["-r", "500", "INCR", "n"]).ok();
    assert_eq!(many.lines().last(), Some("500"));
    until("all are counted", || {
        proxy.count("staunch_stream_connections_total", &[("outcome", "closed")]) == 4.0
    });
}

#[test]
fn a_real_server_terminates_what_is_passed_through() {
    let ca = TestCa::new();
    let leaf = ca.issue("passed.test");
    let nginx = Server::nginx(|port, folder| {
        fs::write(folder.join("chain"), &leaf.chain).unwrap();
        fs::write(folder.join("key"), &leaf.key).unwrap();
        format!(
            "server {{ listen {} ssl http2; ssl_certificate {at}/chain; ssl_certificate_key \
             {at}/key; ssl_protocols TLSv1.2 TLSv1.3; return 200 \"$ssl_server_name $ssl_protocol $server_protocol\"; }}",
            port.address(),
            at = folder.display()
        )
    });
    let proxy = Staunch::build()
        .leaf(&ca.issue(HOST))
        .site(HOST, &Origin::echo())
        .sites(Site::passed(&["passed.test"], &nginx.tcp()))
        .start();
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let ran = proxy.curl("passed.test", "/", &[flag]).ok();
        assert_eq!(ran, format!("passed.test TLSv1.3 {version}"));
    }
    let old = ["--tls-max", "1.2"];
    let ran = proxy.curl("passed.test", "/", &old).ok();
    assert_eq!(ran, "passed.test TLSv1.2 HTTP/2.0");
    proxy.curl(HOST, "/", &[]).ok();
}

/// Asks over two connections that a load balancer passed on, and compares what the server was told.
fn each_client_is_told_of(server: &Server, version: &str, said: impl Fn(u16) -> String) {
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .set("listen.proxy_protocol_from", "[\"127.0.0.1\"]")
        .upstream("told", &[&format!("http://{}", server.address())])
        .set("upstream.told.proxy_protocol", format!("{version:?}"))
        .set("upstream.told.health.interval", "\"50ms\"")
        .set("upstream.told.health.path", "\"/\"")
        .sites(Site::new(&[HOST], "told"))
        .start();
    let connect = |port: u16| {
        let header = format!("PROXY TCP4 192.0.2.7 198.51.100.1 {port} 443\r\n");
        proxy.tls(HOST).preamble(header.as_bytes()).connect()
    };
    let (mut one, mut other) = (connect(1001), connect(1002));
    for _ in 0..3 {
        assert_eq!(
            one.get(HOST, "/").expect(200).text(),
            said(1001),
            "{version}"
        );
        assert_eq!(
            other.get(HOST, "/").expect(200).text(),
            said(1002),
            "{version}"
        );
    }
    // Kept for the client whose they are, and no other's.
    let connects = proxy.count("staunch_upstream_connects_total", &[]);
    assert!(connects <= 2.0, "{connects}");
    until("the checks are understood", || {
        let standing = proxy.admin_get("/api/upstreams").text();
        standing.contains("\"standing\":\"up\"") || standing.contains("\"standing\": \"up\"")
    });
    drop((one, other));
    until("what was a client's own goes with it", || {
        proxy.count("staunch_upstream_connections_open", &[]) == 0.0
    });
}

#[test]
fn haproxy_is_told_of_each_client() {
    let haproxy = Server::haproxy(|port| {
        format!(
            "bind {} accept-proxy\n http-request return status 200 content-type text/plain lf-string \
             \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_authority]\"",
            port.address()
        )
    });
    for (version, authority) in [("v1", ""), ("v2", ""), ("v2-tls", HOST)] {
        each_client_is_told_of(&haproxy, version, |port| {
            format!("192.0.2.7:{port} 198.51.100.1:443 {authority}")
        });
    }
}

#[test]
fn nginx_is_told_of_each_client() {
    let nginx = Server::nginx(|port, _| {
        format!(
            "server {{ listen {} proxy_protocol; return 200 \"$proxy_protocol_addr:\
             $proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port\"; }}",
            port.address()
        )
    });
    for version in ["v1", "v2", "v2-tls"] {
        each_client_is_told_of(&nginx, version, |port| {
            format!("192.0.2.7:{port} 198.51.100.1:443")
        });
    }
}
