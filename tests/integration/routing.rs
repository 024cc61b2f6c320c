//! From listener, host and path to an upstream.

use std::net::{Ipv6Addr, SocketAddr};

use crate::support::{Connection, HOST, Origin, Port, Site, Staunch, TestCa, Tls};

#[test]
fn each_site_goes_to_its_own_upstream() {
    let ca = TestCa::new();
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = Staunch::build()
        .leaf(&ca.leaf(&["one.test", "two.test"]).issue())
        .site("one.test", &one)
        .site("two.test", &two)
        .start();
    for name in ["one", "two"] {
        let host = format!("{name}.test");
        let echo = proxy.tls(&host).connect().get(&host, "/").json();
        assert_eq!(echo["origin"], name);
    }
}

#[test]
fn the_longest_matching_prefix_wins() {
    let [root, api, deep] = ["root", "api", "deep"].map(Origin::named);
    let site = Site::new(&[HOST], &root.url())
        .route("/api/", &api.url())
        .route("/api/deep", &deep.url());
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .start();
    let mut client = proxy.connect();
    for (path, expected) in [
        ("/", "root"),
        ("/api", "root"),
        ("/api/", "api"),
        ("/api/x?y=/api/deep", "api"),
        ("/api/deep", "deep"),
        ("/api/deep/er", "deep"),
        ("/api/deeper", "api"),
        ("/apiary", "root"),
        ("/?/api/", "root"),
    ] {
        let echo = client.get(HOST, path).expect(200).json();
        assert_eq!(echo["origin"], expected, "{path}");
        assert_eq!(echo["target"], path);
    }
}

#[test]
fn a_path_cannot_climb_out_of_its_route() {
    let (public, internal) = (Origin::named("public"), Origin::named("internal"));
    let site = Site::new(&[HOST], &public.url()).route("/internal/", &internal.url());
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .start();
    let mut client = proxy.connect();
    // What the origin would take for /internal/x must not reach the public one.
    for path in ["/a/../internal/x", "/a/%2e%2e/internal/x", "/./internal/x"] {
        let response = client.get(HOST, path);
        if response.status == 200 {
            assert_eq!(response.json()["origin"], "internal", "{path}");
        }
    }
}

#[test]
fn an_exact_name_goes_before_a_wildcard() {
    let ca = TestCa::new();
    let (exact, wildcard) = (Origin::named("exact"), Origin::named("wildcard"));
    let proxy = Staunch::build()
        .leaf(&ca.leaf(&["*.example.test", "example.test"]).issue())
        .site("*.example.test", &wildcard)
        .site("a.example.test", &exact)
        .start();
    let mut client = proxy.tls("a.example.test").connect();
    for (host, expected) in [
        ("a.example.test", "exact"),
        ("A.Example.TEST", "exact"),
        ("a.example.test:443", "exact"),
        ("b.example.test", "wildcard"),
    ] {
        let echo = client.get(host, "/").expect(200).json();
        assert_eq!(echo["origin"], expected, "{host}");
    }
    // A wildcard stands for one label.
    client.get("a.b.example.test", "/").expect(421);
    client.get("example.test", "/").expect(421);
}

#[test]
fn a_host_that_no_site_answers_to_is_misdirected() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    proxy.connect().get("other.test", "/").expect(421);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_site_for_any_name_takes_the_rest() {
    let (one, any) = (Origin::named("one"), Origin::named("any"));
    let proxy = Staunch::build()
        .leaf(&TestCa::new().leaf(&[HOST, "other.test"]).issue())
        .site(HOST, &one)
        .site("*", &any)
        .start();
    let mut client = proxy.connect();
    assert_eq!(client.get(HOST, "/").json()["origin"], "one");
    assert_eq!(client.get("other.test", "/").json()["origin"], "any");
}

#[test]
fn a_path_without_a_route_is_not_found() {
    let origin = Origin::echo();
    let site = Site::without_upstream(&[HOST]).route("/api/", &origin.url());
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .start();
    let mut client = proxy.connect();
    client.get(HOST, "/api/x").expect(200);
    client.get(HOST, "/other").expect(404);
}

#[test]
fn a_site_in_plain_text_is_served_and_others_redirect() {
    let origin = Origin::echo();
    let site = |name: &str| Site::new(&[name], &origin.url());
    let plain = site("plain.test").also("plain_text = true\nhsts = '1d'\n");
    let tls = site(HOST).also("[site.tls]\nversions = ['1.3']\n");
    let proxy = Staunch::build()
        .leaf(&TestCa::new().leaf(&[HOST, "plain.test"]).issue())
        .sites(plain.also("request_headers = { set = { X-Scheme = '{scheme} {port}' } }\n"))
        .sites(tls)
        .start();
    let mut client = Connection::plain(proxy.http()).unwrap();
    for _ in 0..2 {
        let response = client.get("plain.test", "/a?b").expect(200);
        assert_eq!(response.json()["target"], "/a?b");
        // RFC 6797, section 7.2.
        assert!(response.all("strict-transport-security").is_empty());
        let asked = origin.last();
        assert_eq!(asked.field("x-forwarded-proto"), "http");
        assert_eq!(asked.field("x-scheme"), "http 80");
        // Another site on the same connection.
        client.get(HOST, "/").expect(308);
    }
    client.get("unknown.test", "/").expect(308);
    let mut client = proxy.tls("plain.test").connect();
    let response = client.get("plain.test", "/").expect(200);
    assert_eq!(response.all("strict-transport-security"), ["max-age=86400"]);
    assert_eq!(origin.last().field("x-forwarded-proto"), "https");
}

#[test]
fn every_listener_serves() {
    let origin = Origin::echo();
    let (second, v6) = (Port::free(), Port::free());
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, v6.number()));
    let builder = Staunch::serving(&origin);
    let listeners = [builder.https(), second.address(), v6].map(|address| address.to_string());
    let proxy = builder
        .set("listen.https", format!("{listeners:?}"))
        .start();
    for address in [proxy.https(), second.address(), v6] {
        let mut client = Tls::to(address).name(HOST).connect();
        client.get(HOST, "/").expect(200);
    }
    assert_eq!(origin.last().field("x-forwarded-for"), "::1");
    assert!(origin.last().field("forwarded").contains("for=\"[::1]\""));
}

#[test]
fn a_dual_stack_listener_serves_both() {
    let origin = Origin::echo();
    let port = Port::free().number();
    let proxy = Staunch::serving(&origin)
        .set("listen.https", format!("[\"[::]:{port}\"]"))
        .start();
    for address in [
        SocketAddr::from(([127, 0, 0, 1], port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ] {
        let mut client = Tls::to(address).name(HOST).connect();
        client.get(HOST, "/").expect(200);
    }
    let requests = origin.requests();
    assert_eq!(requests[0].field("x-forwarded-for"), "127.0.0.1");
    drop(proxy);
}

#[test]
fn plain_http_is_redirected_with_host_and_path() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let port = proxy.https().port();
    let mut client = Connection::plain(proxy.http()).unwrap();
    for (host, target) in [
        (HOST, "/"),
        (HOST, "/a%20b?c=d&e"),
        ("example.test:8080", "/x"),
        ("unknown.test", "/"),
    ] {
        let response = client.get(host, target).expect(308);
        let name = host.split(':').next().unwrap();
        let expected = format!("https://{name}:{port}{target}");
        assert_eq!(response.field("location"), Some(expected.as_str()));
    }
    client
        .ask("POST", HOST, "/form", "Content-Length: 4\r\n")
        .unwrap();
    client.send("body").unwrap();
    client.read("POST").expect(308);
    assert!(origin.requests().is_empty());
}

#[test]
fn what_says_so_is_answered_in_plain_text() {
    let origin = Origin::echo();
    let one = Site::new(&[HOST], &origin.url())
        .also("hsts = '730d'\n[[site.route]]\npath = '/challenge/'\nplain_text = true\n");
    let plain = Site::new(&["plain.test"], "sticky").also(
        "plain_text = true\n\
         [[site.route]]\npath = '/secure/'\nplain_text = false\n\
         [[site.route]]\npath = '/which'\n\
         when = { '{local_port} {scheme}' = '^[1-9][0-9]* http$' }\nrespond = 200\n",
    );
    let kept = Site::new(&["kept.test"], &origin.url()).also(&format!(
        "plain_text = true\n[site.tls]\npolicy = 'modern'\n\
         [upstream.sticky]\nservers = [{:?}]\nsticky = 'at'\n",
        origin.url()
    ));
    let leaf = TestCa::new()
        .leaf(&[HOST, "plain.test", "kept.test"])
        .issue();
    let builder = Staunch::build().leaf(&leaf);
    let proxy = builder.sites(one).sites(plain).sites(kept).start();
    let mut client = Connection::plain(proxy.http()).unwrap();
    for (host, target, status) in [
        (HOST, "/", 308),
        (HOST, "/challenge/x", 200),
        (HOST, "/challenge/../x", 308),
        ("plain.test", "/", 200),
        ("plain.test", "/secure/x", 308),
        ("plain.test", "/which", 200),
        // It asks for more than plain text can have.
        ("kept.test", "/", 421),
        ("unknown.test", "/", 308),
    ] {
        let response = client.get(host, target).expect(status);
        assert_eq!(
            response.field("strict-transport-security"),
            None,
            "{host}{target}"
        );
        let cookie = response.field("set-cookie").unwrap_or_default();
        assert!(!cookie.contains("Secure"), "{cookie}");
    }
    let requests = origin.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].field("x-forwarded-proto"), "http");
    // Over TLS nothing is different.
    let mut client = proxy.tls("plain.test").connect();
    let response = client.get("plain.test", "/").expect(200);
    let cookie = response.field("set-cookie").unwrap_or_default();
    assert!(cookie.contains("Secure"), "{cookie}");
}

#[test]
fn curl_follows_the_redirect() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let resolve = |port: u16| format!("{HOST}:{port}:127.0.0.1");
    let body = crate::support::curl(&[
        "--insecure",
        "--location",
        "--resolve",
        &resolve(proxy.http().port()),
        "--resolve",
        &resolve(proxy.https().port()),
        &format!("http://{HOST}:{}/kept?too", proxy.http().port()),
    ])
    .ok();
    assert_eq!(crate::support::json(body.as_bytes())["target"], "/kept?too");
}

#[test]
fn a_redirect_does_not_repeat_what_is_not_a_host() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for host in ["evil.test/x", "user@evil.test", "a b"] {
        let mut client = Connection::plain(proxy.http()).unwrap();
        client.ask("GET", host, "/", "").unwrap();
        client.read("GET").expect(400);
    }
}
