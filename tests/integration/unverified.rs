//! Servers whose certificates nobody verifies (`tls.verify = false`), with the real programs that
//! stand behind, and whose certificates no client would take.

use std::path::Path;

use crate::support::{HOST, Origin, Port, Server, Site, Staunch, TestCa, Tls, until};

/// Self-signed, of version 1, for no name at all; the key is in it too.
fn odd() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/certificates/v1.pem");
    path.display().to_string()
}

fn answers_over_http2(server: &Server) {
    let url = format!("https://{}", server.address());
    let builder = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("odd", &[&url])
        .set("upstream.odd.protocol", "\"auto\"")
        .set("upstream.odd.health.path", "\"/health\"")
        .set("upstream.odd.health.fall", 1)
        .set("upstream.odd.health.rise", 1)
        .set("upstream.odd.health.interval", "\"50ms\"")
        .sites(Site::new(&[HOST], "odd"));
    let up = |proxy: &Staunch| {
        let labels = [("upstream", "odd"), ("server", &*url)];
        proxy.count("staunch_upstream_up", &labels) == 1.0
    };
    let mut proxy = builder.start();
    until("the check refuses it", || !up(&proxy));
    proxy.get("/").expect(502);
    proxy.reconfigure(|config| config.change("upstream.odd.tls.verify", false));
    proxy.reload().expect(200);
    until("the check accepts it", || up(&proxy));
    for _ in 0..3 {
        assert_eq!(proxy.get("/").expect(200).text().trim(), "HTTP/2.0");
    }
}

#[test]
fn nginx_answers_over_http2_and_passes_its_checks() {
    let pem = odd();
    answers_over_http2(&Server::nginx(|port, _| {
        format!(
            "server {{ listen {} ssl http2; ssl_certificate {pem}; ssl_certificate_key {pem};\n\
             location / {{ return 200 $server_protocol; }} }}",
            port.address()
        )
    }));
}

#[test]
fn haproxy_answers_over_http2_and_passes_its_checks() {
    let pem = odd();
    answers_over_http2(&Server::haproxy(|port| {
        format!(
            "bind {} ssl crt {pem} alpn h2,http/1.1\n \
             http-request return status 200 content-type text/plain lf-string %HV",
            port.address()
        )
    }));
}

#[test]
fn a_stream_goes_on_over_tls_to_a_server_that_nobody_verifies() {
    let origin = Origin::echo();
    let strange = TestCa::new().leaf(&["strange.test"]).days(-89, -1).issue();
    let second = Staunch::build()
        .leaf(&strange)
        .site("strange.test", &origin)
        .start();
    let port = Port::free();
    let builder = Staunch::serving(&origin)
        .upstream("second", &[&format!("tls://{}", second.https())])
        .set("upstream.second.tls.name", "\"strange.test\"")
        .stream(&port, "tls = true\nupstream = \"second\"\n");
    let connect = || Tls::to(port.address()).name(HOST).connect();
    let verifying = builder.clone().start();
    assert!(connect().try_get("strange.test", "/").is_err());
    drop(verifying);
    let _proxy = builder.set("upstream.second.tls.verify", false).start();
    connect().get("strange.test", "/").expect(200);
    assert_eq!(origin.last().field("host"), "strange.test");
}

#[test]
fn servers_whose_tls_is_passed_through_are_asked_over_tls() {
    let pem = odd();
    let server = Server::haproxy(|port| {
        format!(
            "bind {} ssl crt {pem}\n http-request deny deny_status 404 unless {{ path /healthz }}\n \
             http-request return status 200 content-type text/plain string well",
            port.address()
        )
    });
    let url = format!("tcp://{}", server.address());
    let (origin, port) = (Origin::echo(), Port::free());
    let mut proxy = Staunch::serving(&origin)
        .upstream("odd", &[&url])
        .set("upstream.odd.health.path", "\"/healthz\"")
        .set("upstream.odd.health.body", "\"well\"")
        .set("upstream.odd.health.fall", 1)
        .set("upstream.odd.health.rise", 1)
        .set("upstream.odd.health.interval", "\"50ms\"")
        .stream(&port, "upstream = \"odd\"\n")
        .start();
    let up = |proxy: &Staunch| {
        let labels = [("upstream", "odd"), ("server", &*url)];
        proxy.count("staunch_upstream_up", &labels) == 1.0
    };
    until("a check in plain text fails", || !up(&proxy));
    proxy.reconfigure(|config| config.change("upstream.odd.health.tls", true));
    proxy.reload().expect(200);
    until("one over TLS is answered", || up(&proxy));
    proxy.reconfigure(|config| config.change("upstream.odd.health.path", "\"/other\""));
    proxy.reload().expect(200);
    until("its status counts", || !up(&proxy));
}
