//! HTTP/1.1 towards clients and upstreams (RFC 9112).

use crate::support::{Connection, Gate, HOST, Origin, Site, Staunch, TestCa, until};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

#[test]
fn a_request_arrives_as_it_was_sent() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("GET", HOST, "/a%20b//c/?q=1&r=%2F", "X-Own: some thing\r\n")
        .unwrap();
    let echo = client.read("GET").expect(200).json();
    assert_eq!(echo["target"], "/a%20b//c/?q=1&r=%2F");
    let request = origin.last();
    assert_eq!(request.method, "GET");
    assert_eq!(request.field("host"), HOST);
    assert_eq!(request.field("x-own"), "some thing");
    assert!(
        request
            .head
            .starts_with(b"GET /a%20b//c/?q=1&r=%2F HTTP/1.1\r\n")
    );
}

#[test]
fn a_response_arrives_as_it_was_sent() {
    let origin = Origin::plan("origin")
        .raw(
            "/",
            "HTTP/1.1 418 I'm a teapot\r\nX-Own: a\r\nX-Own: b\r\nSet-Cookie: a=1\r\n\
             Set-Cookie: b=2\r\nContent-Length: 5\r\n\r\nshort",
        )
        .start();
    let proxy = Staunch::serving(&origin).start();
    let response = proxy.get("/").expect(418);
    assert_eq!(response.all("x-own"), ["a", "b"]);
    assert_eq!(response.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.text(), "short");
}

#[test]
fn every_method_passes() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    for method in [
        "GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND",
    ] {
        client
            .ask(method, HOST, "/", "Content-Length: 0\r\n")
            .unwrap();
        client.read(method).expect(200);
        assert_eq!(origin.last().method, method);
    }
}

#[test]
fn a_response_to_head_has_no_body_and_keeps_the_connection() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("HEAD", HOST, "/", "").unwrap();
    let response = client.read("HEAD").expect(200);
    let length = response.field("content-length").unwrap();
    assert!(length.parse::<u64>().unwrap() > 0);
    client.get(HOST, "/again").expect(200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn responses_without_a_body_keep_the_connection() {
    let origin = Origin::plan("origin")
        .raw("/204", "HTTP/1.1 204 No Content\r\n\r\n")
        .raw("/304", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n")
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.get(HOST, "/204").expect(204);
    client.get(HOST, "/304").expect(304);
    client.get(HOST, "/").expect(200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_client_that_expects_100_continue_is_told_by_the_origin() {
    let told = Gate::new();
    let origin = Origin::plan("origin")
        .route("/", {
            let told = told.clone();
            move |exchange| {
                told.pass();
                exchange.send("HTTP/1.1 100 Continue\r\n\r\n")?;
                exchange.echo()
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask(
            "POST",
            HOST,
            "/",
            "Expect: 100-continue\r\nContent-Length: 5\r\n",
        )
        .unwrap();
    // The head must not wait for the body, nor does the proxy answer for the origin.
    until("the head arrives", || !origin.requests().is_empty());
    assert!(client.is_open());
    told.open();
    let interim = client.incoming().response_head().unwrap();
    assert_eq!(interim.status, 100);
    client.send("hello").unwrap();
    assert_eq!(client.read("POST").expect(200).json()["body"], "hello");
    assert_eq!(origin.last().field("expect"), "100-continue");
}

#[test]
fn an_origin_can_refuse_a_body_that_was_not_sent_yet() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.respond(413, "Connection: close\r\n", b"too big")?;
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask(
            "POST",
            HOST,
            "/",
            "Expect: 100-continue\r\nContent-Length: 5000000\r\n",
        )
        .unwrap();
    let response = client.read("POST").expect(413);
    assert_eq!(response.text(), "too big");
    assert!(response.interim.is_empty());
}

#[test]
fn early_hints_are_passed_on_before_the_response() {
    let seen = Gate::new();
    let origin = Origin::plan("origin")
        .route("/", {
            let seen = seen.clone();
            move |exchange| {
                exchange.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
                seen.pass();
                exchange.echo()
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", "").unwrap();
    let hints = client.incoming().response_head().unwrap();
    assert_eq!(hints.status, 103);
    assert_eq!(hints.field("link"), Some("</a.css>; rel=preload"));
    seen.open();
    client.read("GET").expect(200);
}

#[test]
fn a_chunked_request_passes_with_its_trailers() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("POST", HOST, "/", &format!("{CHUNKED}Trailer: X-Sum\r\n"))
        .unwrap();
    client
        .send("5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nX-Sum: 12\r\n\r\n")
        .unwrap();
    let echo = client.read("POST").expect(200).json();
    assert_eq!(echo["body"], "hello, world");
    assert_eq!(echo["trailers"][0][0], "x-sum");
    assert_eq!(echo["trailers"][0][1], "12");
    assert_eq!(origin.last().field("transfer-encoding"), "chunked");
    client.get(HOST, "/").expect(200);
}

#[test]
fn a_chunked_response_passes_with_its_trailers() {
    let origin = Origin::plan("origin")
        .raw(
            "/",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\nX-Sum: 12\r\n\r\n",
        )
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("GET", HOST, "/", "TE: trailers\r\nConnection: TE\r\n")
        .unwrap();
    let response = client.read("GET").expect(200);
    assert_eq!(response.text(), "hello, world");
    assert_eq!(response.trailers, [("x-sum".into(), "12".into())]);
    client.get(HOST, "/").expect(200);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn chunks_are_passed_on_as_they_come() {
    let seen = Gate::new();
    let origin = Origin::plan("origin")
        .route("/", {
            let seen = seen.clone();
            move |exchange| {
                exchange
                    .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
                seen.pass();
                exchange.send("6\r\nsecond\r\n0\r\n\r\n")
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", "").unwrap();
    let incoming = client.incoming();
    assert_eq!(incoming.response_head().unwrap().status, 200);
    let mut pieces = Vec::new();
    incoming
        .chunked(|piece| {
            pieces.extend_from_slice(piece);
            if pieces == b"first" {
                seen.open();
            }
        })
        .unwrap();
    assert_eq!(pieces, b"firstsecond");
}

#[test]
fn a_response_that_ends_with_its_connection_ends_properly() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\n\r\nuntil the end")?;
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    assert_eq!(client.get(HOST, "/").expect(200).text(), "until the end");
    // It was chunked for this client, which can go on.
    client.get(HOST, "/").expect(200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let post = format!("POST /2 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody");
    client.send(one("/1") + &post + &one("/3")).unwrap();
    for target in ["/1", "/2", "/3"] {
        assert_eq!(client.read("GET").expect(200).json()["target"], target);
    }
}

#[test]
fn a_kept_connection_to_the_origin_is_used_again() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        client.get(HOST, "/").expect(200);
    }
    assert_eq!(origin.requests().len(), 20);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn fields_for_one_hop_end_there() {
    let origin = Origin::plan("origin")
        .raw(
            "/",
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Back\r\nKeep-Alive: timeout=5\r\n\
             X-Back: 1\r\nProxy-Authenticate: Basic\r\nX-Stays: 1\r\nContent-Length: 0\r\n\r\n",
        )
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask(
            "GET",
            HOST,
            "/",
            "Connection: keep-alive, X-There\r\nKeep-Alive: 5\r\nX-There: 1\r\n\
             Proxy-Connection: keep-alive\r\nTE: gzip\r\nX-Stays: 1\r\n",
        )
        .unwrap();
    let response = client.read("GET").expect(200);
    for gone in ["keep-alive", "x-back"] {
        assert_eq!(response.field(gone), None);
    }
    assert_eq!(response.field("x-stays"), Some("1"));
    let request = origin.last();
    for gone in ["keep-alive", "x-there", "proxy-connection", "te"] {
        assert!(request.all(gone).is_empty(), "{gone} in {request:?}");
    }
    assert_eq!(request.field("x-stays"), "1");
}

const CLAIMS: &str = "X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: gopher\r\n\
    X-Forwarded-Host: evil.test\r\nForwarded: for=192.0.2.9\r\n";

#[test]
fn the_origin_learns_who_asks_and_how() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    proxy.get("/");
    let request = origin.last();
    assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), "https");
    assert_eq!(request.field("x-forwarded-host"), HOST);
    let forwarded = request.field("forwarded");
    for part in ["for=127.0.0.1", "host=example.test", "proto=https"] {
        assert!(forwarded.contains(part), "{forwarded}");
    }
}

#[test]
fn what_a_client_says_of_itself_is_not_believed() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", CLAIMS).unwrap();
    client.read("GET").expect(200);
    let request = origin.last();
    assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), "https");
    assert_eq!(request.field("x-forwarded-host"), HOST);
    assert!(!request.field("forwarded").contains("192.0.2.9"));
}

#[test]
fn what_a_trusted_proxy_says_of_its_client_is_passed_on() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("listen.forwarded_from", "[\"127.0.0.0/8\"]")
        .start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", CLAIMS).unwrap();
    client.read("GET").expect(200);
    let request = origin.last();
    assert_eq!(request.field("x-forwarded-for"), "192.0.2.9, 127.0.0.1");
    assert_eq!(request.field("x-forwarded-proto"), "gopher");
    assert_eq!(request.field("x-forwarded-host"), "evil.test");
    assert!(
        request
            .field("forwarded")
            .starts_with("for=192.0.2.9, for=127.0.0.1")
    );
}

#[test]
fn a_head_that_is_too_long_is_answered_with_431() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.request_head", "\"8KiB\"")
        .start();
    let mut client = proxy.connect();
    let long = format!("X-Long: {}\r\n", "a".repeat(16 << 10));
    // The answer may come, and the connection close, before all is sent.
    let _ = client.ask("GET", HOST, "/", &long);
    client.read("GET").expect(431);
    assert!(origin.requests().is_empty());
}

#[test]
fn too_many_fields_are_answered_with_431() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.request_fields", 20)
        .start();
    let mut client = proxy.connect();
    client
        .ask("GET", HOST, "/", &"X-Many: 1\r\n".repeat(30))
        .unwrap();
    client.read("GET").expect(431);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_body_over_the_limit_is_answered_with_413() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.request_body", "\"1KiB\"")
        .start();
    let mut client = proxy.connect();
    client.post(HOST, "/", &[b'a'; 1024]).expect(200);
    client
        .ask("POST", HOST, "/", "Content-Length: 1025\r\n")
        .unwrap();
    client.read("POST").expect(413);
    let mut client = proxy.connect();
    client.ask("POST", HOST, "/", CHUNKED).unwrap();
    let _ = client.send(format!("401\r\n{}\r\n0\r\n\r\n", "a".repeat(1025)));
    client.read("POST").expect(413);
}

#[test]
fn what_is_malformed_or_ambiguous_is_refused_and_the_connection_closed() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for bad in [
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: example.test\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: example.test\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.test\r\nHost: other.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : example.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.test\r\n folded: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: example.test\r\nX: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: example.test\r\nContent-Length: 1\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: example.test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: example.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut client = proxy.connect();
        client.send(bad).unwrap();
        let response = client.incoming().response("GET");
        let response = response.unwrap_or_else(|error| panic!("{bad:?}: {error}"));
        // 501 for transfer codings that it does not know (RFC 9112, section 6.1).
        assert!(
            [400, 501].contains(&response.status),
            "{bad:?}: {response:?}"
        );
        assert_eq!(response.field("connection"), Some("close"), "{bad:?}");
        assert!(client.closed(), "{bad:?}");
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
}

/// Where it ends is clear, so the connection need not.
#[test]
fn a_host_that_is_none_is_answered_with_400() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for host in [
        "ex ample.test",
        "user@example.test",
        "example.test/x",
        "a:b",
    ] {
        let mut client = proxy.connect();
        client.get(host, "/").expect(400);
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn a_malformed_chunk_never_completes_a_request() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for bad in ["x\r\nhello\r\n", "5\r\nhello!\r\n", "-5\r\nhello\r\n"] {
        let mut client = proxy.connect();
        client.ask("POST", HOST, "/", CHUNKED).unwrap();
        client.send(bad).unwrap();
        client.read("POST").expect(400);
    }
    proxy.get("/").expect(200);
}

#[test]
fn errors_of_its_own_are_small_and_not_cached() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    let response = client.get("other.test", "/").expect(421);
    assert!(response.body.len() < 1024);
    // Nothing was wrong with the connection.
    client.get(HOST, "/").expect(200);
}

#[test]
fn connection_close_is_honoured() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("GET", HOST, "/", "Connection: close\r\n")
        .unwrap();
    let response = client.read("GET").expect(200);
    assert_eq!(response.field("connection"), Some("close"));
    assert!(client.closed());
}

#[test]
fn http_1_0_is_served_and_closed() {
    let origin = Origin::plan("origin")
        .raw(
            "/chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        .start();
    let proxy = Staunch::serving(&origin).start();
    for target in ["/", "/chunked"] {
        let mut client = proxy.connect();
        client
            .send(format!("GET {target} HTTP/1.0\r\nHost: {HOST}\r\n\r\n"))
            .unwrap();
        let response = client.read("GET").expect(200);
        assert_eq!(response.field("transfer-encoding"), None);
        if target == "/chunked" {
            assert_eq!(response.text(), "hello");
        }
        assert!(client.closed());
    }
    assert!(origin.last().head.starts_with(b"GET /chunked HTTP/1.1\r\n"));
}

#[test]
fn http_1_0_with_keep_alive_is_kept() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    for _ in 0..2 {
        client
            .send(format!(
                "GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n"
            ))
            .unwrap();
        let response = client.read("GET").expect(200);
        assert_eq!(response.field("connection"), Some("keep-alive"));
    }
}

#[test]
fn a_client_that_gives_up_lets_the_origin_know() {
    let begun = Gate::new();
    let origin = Origin::plan("origin")
        .route("/", {
            let begun = begun.clone();
            move |exchange| {
                exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                begun.open();
                // Ends with an error when the other side is gone.
                loop {
                    exchange.send(["1000\r\n", &"a".repeat(4096), "\r\n"].concat())?;
                }
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", "").unwrap();
    begun.pass();
    drop(client);
    until("the origin's connection is closed", || origin.open() == 0);
}

#[test]
fn an_answer_before_which_too_much_would_be_to_read_says_that_it_is_the_last() {
    let origin = Origin::echo();
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::without_upstream(&[HOST]).route("/there/", &origin.url()))
        .start();
    let mut client = proxy.connect();
    let little = client.post(HOST, "/none", b"little").expect(404);
    assert_eq!(little.field("connection"), None);
    client
        .ask("POST", HOST, "/none", "Content-Length: 10000000\r\n")
        .unwrap();
    let much = client.read("POST").expect(404);
    assert_eq!(much.field("connection"), Some("close"));
    assert!(client.closed());
}

#[test]
fn curl_is_served() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let written = proxy
        .curl(HOST, "/path", &["--http1.1", "--data", "hello"])
        .ok();
    let echo = crate::support::json(written.as_bytes());
    assert_eq!(echo["method"], "POST");
    assert_eq!(echo["body"], "hello");
}

#[test]
fn plain_text_on_the_tls_port_gets_no_response_and_harms_nobody() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = Connection::plain(proxy.https()).unwrap();
    client.ask("GET", HOST, "/", "").unwrap();
    // An alert may come; a response must not.
    let rest = client.incoming().rest().unwrap_or_default();
    assert!(!rest.starts_with(b"HTTP/"));
    proxy.get("/").expect(200);
}
