//! What an upstream can do wrong, and what a client sees of it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Gate, HOST, Nginx, Origin, PATIENCE, Port, Site, Staunch, TestCa, until};

/// A server where nobody listens.
fn nobody() -> (Port, String) {
    let port = Port::free();
    let url = format!("http://{}", port.address());
    (port, url)
}

#[test]
fn a_server_that_is_down_is_a_bad_gateway_at_once() {
    let (_port, url) = nobody();
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &url))
        .start();
    let begin = Instant::now();
    proxy.get("/").expect(502);
    assert!(begin.elapsed() < Duration::from_secs(5));
    proxy.wait_log("connect");
}

#[test]
fn a_site_that_is_down_does_not_harm_another() {
    let ca = TestCa::new();
    let up = Origin::echo();
    let (_port, url) = nobody();
    let proxy = Staunch::build()
        .leaf(&ca.leaf(&["up.test", "down.test"]).issue())
        .sites(Site::new(&["down.test"], &url))
        .site("up.test", &up)
        .start();
    let mut client = proxy.tls("up.test").connect();
    client.get("up.test", "/").expect(200);
    client.get("down.test", "/").expect(502);
    client.get("up.test", "/").expect(200);
}

#[test]
fn a_server_that_comes_up_is_used() {
    let port = Port::free();
    let url = format!("http://{}", port.address());
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &url))
        .start();
    proxy.get("/").expect(502);
    let listener = std::net::TcpListener::bind(port.address()).unwrap();
    let _origin = Origin::plan("late").start_on(listener);
    until("the server is used", || proxy.get("/").status == 200);
}

#[test]
fn a_server_that_is_down_leaves_its_requests_to_the_others() {
    let up = Origin::echo();
    let (_port, down) = nobody();
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("pair", &[&down, &up.url()])
        .sites(Site::new(&[HOST], "pair"))
        .start();
    let mut client = proxy.connect();
    for _ in 0..10 {
        client.get(HOST, "/").expect(200);
    }
}

#[test]
fn requests_are_shared_in_turn() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("pair", &[&one.url(), &two.url()])
        .sites(Site::new(&[HOST], "pair"))
        .start();
    let mut client = proxy.connect();
    for _ in 0..20 {
        client.get(HOST, "/").expect(200);
    }
    assert_eq!(one.requests().len(), 10);
    assert_eq!(two.requests().len(), 10);
}

#[test]
fn a_unix_socket_is_spoken_to() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::plan("unix").start_unix(&folder.path().join("origin.sock"));
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    for _ in 0..5 {
        let echo = client.get(HOST, "/").expect(200).json();
        assert_eq!(echo["origin"], "unix");
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(client.post(HOST, "/", b"hello").json()["body"], "hello");
}

/// Another staunch, which speaks TLS, in front of the origin.
fn over_tls(ca: &TestCa, origin: &Origin, name: &str) -> Staunch {
    Staunch::build()
        .leaf(&ca.issue(name))
        .site(HOST, origin)
        .start()
}

#[test]
fn a_server_over_tls_is_spoken_to_if_it_is_trusted() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let right = over_tls(&ca, &origin, "127.0.0.1");
    let another = over_tls(&ca, &origin, "other.test");
    let untrusted = over_tls(&TestCa::new(), &origin, "127.0.0.1");
    let url = |server: &Staunch| format!("https://{}", server.https());
    let site = Site::new(&[HOST], &url(&right))
        .route("/another/", &url(&another))
        .route("/untrusted/", &url(&untrusted));
    let proxy = Staunch::build()
        .trusting(&ca)
        .leaf(&ca.issue(HOST))
        .sites(site)
        .start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.get(HOST, "/").expect(200);
    }
    client.get(HOST, "/another/").expect(502);
    client.get(HOST, "/untrusted/").expect(502);
    assert_eq!(origin.requests().len(), 3);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn a_root_that_the_system_trusts_since_the_start_is_taken_up_by_a_reload() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let origin = Origin::echo();
    let server = over_tls(&other, &origin, "127.0.0.1");
    let leaf = other.issue(HOST);
    let proxy = Staunch::build()
        .trusting(&ca)
        .leaf(&leaf)
        .sites(Site::new(&[HOST], &format!("https://{}", server.https())))
        .start();
    let trusts = || proxy.certificate_for(&leaf)["trusted"] == true;
    proxy.get("/").expect(502);
    assert!(!trusts());

    let roots = proxy.config().path("roots.pem");
    fs::write(&roots, format!("{}{}", ca.root().pem, other.root().pem)).unwrap();
    let changed = || proxy.reload().expect(200).json()["changed"].to_string();
    assert!(changed().contains("the system's trusted roots"));
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(200);
    assert!(trusts());

    // While it is being written, it is empty.
    fs::write(&roots, "").unwrap();
    assert!(!changed().contains("roots"));
    proxy.get("/").expect(200);

    // One that is trusted no longer is not believed by new connections.
    fs::write(&roots, &ca.root().pem).unwrap();
    changed();
    assert!(!trusts());
    client.get(HOST, "/").expect(200);
}

#[test]
fn every_way_to_balance_serves() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    for balance in ["round-robin", "least-requests", "random", "hash"] {
        let proxy = Staunch::build()
            .leaf(&TestCa::new().issue(HOST))
            .upstream("pair", &[&one.url(), &two.url()])
            .set("upstream.pair.balance", format!("{balance:?}"))
            .sites(Site::new(&[HOST], "pair"))
            .start();
        let mut client = proxy.connect();
        let asked: Vec<_> = (0..20)
            .map(|_| client.get(HOST, "/").expect(200).json()["origin"].clone())
            .collect();
        if balance == "hash" {
            // The same client goes to the same server.
            assert!(asked.iter().all(|origin| *origin == asked[0]), "{asked:?}");
        }
    }
}

#[test]
fn the_server_with_the_fewest_requests_is_chosen() {
    let gate = Gate::new();
    let slow = |name| {
        let gate = gate.clone();
        let wait = move |exchange: &mut crate::support::Exchange<'_>| {
            gate.pass();
            exchange.echo()
        };
        Origin::plan(name).route("/slow", wait).start()
    };
    let (one, two) = (slow("one"), slow("two"));
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("pair", &[&one.url(), &two.url()])
        .set("upstream.pair.balance", "\"least-requests\"")
        .set("workers.threads", 1)
        .sites(Site::new(&[HOST], "pair"))
        .start();
    let mut waiting = proxy.connect();
    waiting.ask("GET", HOST, "/slow", "").unwrap();
    until("it is in flight", || {
        one.requests().len() + two.requests().len() == 1
    });
    let busy = if one.requests().is_empty() {
        "two"
    } else {
        "one"
    };
    let mut client = proxy.connect();
    for _ in 0..10 {
        let echo = client.get(HOST, "/").expect(200).json();
        assert_ne!(echo["origin"], busy);
    }
    gate.open();
    waiting.read("GET").expect(200);
}

#[test]
fn nginx_is_spoken_to() {
    let nginx = Nginx::start();
    nginx.file("large", &vec![b'a'; 10 << 20]);
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &nginx.url()))
        .start();
    let mut client = proxy.connect();
    assert_eq!(
        client.get(HOST, "/hello").expect(200).text(),
        "hello from nginx\n"
    );
    assert_eq!(client.get(HOST, "/large").expect(200).body.len(), 10 << 20);
    client.get(HOST, "/empty").expect(204);
    client.get(HOST, "/none").expect(404);
    client
        .ask("GET", HOST, "/large", "Range: bytes=5-9\r\n")
        .unwrap();
    assert_eq!(client.read("GET").expect(206).text(), "aaaaa");
    client.ask("HEAD", HOST, "/large", "").unwrap();
    let length = client.read("HEAD").expect(200);
    assert_eq!(length.field("content-length"), Some("10485760"));
}

#[test]
fn a_response_that_breaks_off_is_not_completed() {
    let origin = Origin::plan("origin")
        .route("/length", |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
            exchange.close();
            Ok(())
        })
        .route("/chunked", |exchange| {
            exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")?;
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    for path in ["/length", "/chunked"] {
        let mut client = proxy.connect();
        let error = client.try_get(HOST, path).expect_err(path);
        assert!(!crate::support::is_timeout(&error), "{path}: {error}");
        let url = proxy.curl(HOST, path, &["--http2"]);
        assert!(!url.status.success(), "{path}: {url:?}");
    }
}

#[test]
fn a_server_that_says_nothing_is_a_bad_gateway() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    proxy.get("/").expect(502);
    let mut client = proxy.connect();
    client.post(HOST, "/", b"x").expect(502);
    // The client's connection is still good.
    client.get(HOST, "/").expect(502);
}

#[test]
fn a_server_that_speaks_nonsense_is_a_bad_gateway() {
    let origin = Origin::plan("origin")
        .raw("/ssh", "SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
        .raw("/status", "HTTP/1.1 2000 OK\r\n\r\n")
        .raw("/version", "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n")
        .raw(
            "/lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        )
        .raw(
            "/both",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: gzip\r\n\r\na",
        )
        .raw("/field", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n")
        .start();
    let proxy = Staunch::serving(&origin)
        .set("timeouts.upstream_response", "\"10s\"")
        .start();
    let mut client = proxy.connect();
    for path in ["/ssh", "/status", "/version", "/lengths", "/both", "/field"] {
        assert_eq!(client.get(HOST, path).status, 502, "{path}");
    }
}

#[test]
fn a_server_that_sends_more_than_it_said_poisons_no_other_response() {
    let origin = Origin::plan("origin")
        .raw(
            "/more",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\
             Content-Length: 6\r\n\r\npoison",
        )
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/more").expect(200).text(), "ok");
        let next = client.get(HOST, "/next").expect(200);
        assert_eq!(next.json()["target"], "/next");
    }
}

#[test]
fn a_server_that_takes_too_long_is_a_gateway_timeout() {
    let gate = Gate::new();
    let origin = Origin::plan("origin").gated("/slow", &gate).start();
    let proxy = Staunch::serving(&origin)
        .set("timeouts.upstream_response", "\"300ms\"")
        .start();
    let mut client = proxy.connect();
    client.get(HOST, "/slow").expect(504);
    client.get(HOST, "/").expect(200);
    gate.open();
}

#[test]
fn a_server_that_stalls_in_its_body_ends_the_response_unfinished() {
    let gate = Gate::new();
    let origin = Origin::plan("origin")
        .route("/", {
            let gate = gate.clone();
            move |exchange| {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
                gate.pass();
                Ok(())
            }
        })
        .start();
    let proxy = Staunch::serving(&origin)
        .set("timeouts.upstream_idle", "\"300ms\"")
        .start();
    let begin = Instant::now();
    let error = proxy.connect().try_get(HOST, "/").unwrap_err();
    assert!(!crate::support::is_timeout(&error), "{error}");
    assert!(begin.elapsed() < PATIENCE);
    gate.open();
}

/// Which is the normal end of a kept connection, and no news for a client.
#[test]
fn a_kept_connection_that_was_closed_is_replaced() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    for _ in 0..10 {
        client.get(HOST, "/").expect(200);
        origin.close_connections();
    }
    assert!(origin.connections() > 5);
}

#[test]
fn a_kept_connection_that_dies_under_an_idempotent_request_is_replaced() {
    let dies = Arc::new(AtomicBool::new(false));
    let origin = Origin::plan("origin")
        .route("/", {
            let dies = Arc::clone(&dies);
            move |exchange| {
                // Reads the request, and is gone: what a server that closes at that moment does.
                if dies.swap(false, Ordering::SeqCst) {
                    exchange.close();
                    return Ok(());
                }
                exchange.echo()
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(200);
    dies.store(true, Ordering::SeqCst);
    client.get(HOST, "/").expect(200);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_request_that_is_not_idempotent_is_not_sent_twice() {
    let origin = Origin::plan("origin")
        .route("/dies", |exchange| {
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(200);
    client.post(HOST, "/dies", b"order").expect(502);
    let posts = origin.requests();
    assert_eq!(posts.iter().filter(|r| r.method == "POST").count(), 1);
}

#[test]
fn how_servers_do_is_counted() {
    let up = Origin::echo();
    let (_port, down) = nobody();
    let proxy = Staunch::build()
        .leaf(&TestCa::new().leaf(&["up.test", "down.test"]).issue())
        .upstream("good", &[&up.url()])
        .upstream("bad", &[&down])
        .sites(Site::new(&["up.test"], "good"))
        .sites(Site::new(&["down.test"], "bad"))
        .start();
    let mut client = proxy.tls("up.test").connect();
    client.get("up.test", "/").expect(200);
    client.get("down.test", "/").expect(502);
    until("it is counted", || {
        let metrics = proxy.metrics();
        let requests = "staunch_upstream_requests_total";
        let code = |code| metrics.count("staunch_requests_total", &[("code", code)]);
        metrics.count(requests, &[("upstream", "good"), ("server", &up.url())]) >= 1.0
            && metrics.count(requests, &[("upstream", "bad"), ("server", &down)]) >= 1.0
            && code("200") >= 1.0
            && code("502") >= 1.0
    });
}

#[test]
fn a_server_that_answers_is_up() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    proxy.get("/").expect(200);
    let up = proxy
        .metrics()
        .get("staunch_upstream_up", &[("server", &origin.url())]);
    assert_eq!(up, Some(1.0));
}
