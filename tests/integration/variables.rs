//! What is known of a connection and a request, where rules name it.

use std::fs;

use crate::support::{Connection, Exchange, HOST, Origin, Site, Staunch, TestCa, until};

const TLS: &str = "{tls_version} {tls_cipher} {tls_group} {tls_resumed} {sni} {scheme}";

/// A site that tells both sides of `value`, and more lines.
fn telling(origin: &Origin, value: &str, more: &str) -> crate::support::Builder {
    let fields = format!("set = {{ 'X-Known' = '{value}' }}\n");
    let site = Site::new(&[HOST], &origin.url()).also(&format!(
        "[site.request_headers]\n{fields}[site.response_headers]\n{fields}{more}"
    ));
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
}

fn known(client: &mut Connection, origin: &Origin) -> String {
    let response = client.get(HOST, "/").expect(200);
    let known = response.field("x-known").unwrap().to_owned();
    assert_eq!(origin.last().field("x-known"), known);
    known
}

#[test]
fn what_was_agreed_on_in_tls() {
    let origin = Origin::echo();
    let proxy = telling(&origin, TLS, "").start();
    assert_eq!(
        known(&mut proxy.connect(), &origin),
        format!("1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768 false {HOST} https")
    );
    let old = proxy.tls(HOST).version(&rustls::version::TLS12);
    let told = known(&mut old.connect(), &origin);
    assert!(told.starts_with("1.2 TLS_ECDHE_ECDSA_WITH_"), "{told}");
    let again = proxy.tls(HOST).resuming();
    known(&mut again.connect(), &origin);
    let told = known(&mut again.connect(), &origin);
    assert!(told.contains(" true example.test https"), "{told}");
    for version in ["--http1.1", "--http2"] {
        let head = proxy.curl(HOST, "/", &["-sD", "-", "-o", "/dev/null", version]);
        let head = head.ok();
        assert!(head.contains("false example.test https\r\n"), "{head}");
    }
}

#[test]
fn what_the_greeting_looks_like() {
    let origin = Origin::echo();
    let builder = telling(&origin, "{ja4}", "").set("tls.ja4", true);
    let log = builder.path("access.log");
    let proxy = builder.set("log.access.to", format!("{log:?}")).start();
    let told = known(&mut proxy.connect(), &origin);
    assert!(told.starts_with("t13d") && told.len() == 36, "{told}");
    until("it is logged", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains(&told))
    });
    // Where it is not taken, nothing is said, and a client's word is not passed on.
    let proxy = telling(&origin, "{ja4}", "").start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", "X-Known: forged\r\n").unwrap();
    assert_eq!(client.read("GET").expect(200).field("x-known"), None);
    assert!(origin.last().all("x-known").is_empty());
    proxy.wait_log("`{ja4}` is always empty here");
}

/// W3C Trace Context, sections 3.2.2 and 4.
#[test]
fn a_traceparent_is_continued_or_it_is_none() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let origin = Origin::echo();
    let proxy = telling(&origin, "{trace_id}", "")
        .set("defaults.trace_context", "'continue'")
        .start();
    let mut client = proxy.connect();
    for (value, continued) in [
        (format!("00-{TRACE}-00f067aa0ba902b7-01"), true),
        (format!("00-{TRACE}-00f067aa0ba902b7-ff"), true),
        (format!("cc-{TRACE}-00f067aa0ba902b7-01"), true),
        (format!("cc-{TRACE}-00f067aa0ba902b7-01-what-comes"), true),
        (format!("cc-{TRACE}-00f067aa0ba902b7-01."), false),
        (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
        (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), false),
        (format!("00-{TRACE}-00f067aa0ba902b7-1"), false),
        (format!("00-{TRACE}-00f067aa0ba902b7"), false),
        (format!("00-{TRACE}-0000000000000000-01"), false),
        (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
        (
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            false,
        ),
        (format!("00_{TRACE}_00f067aa0ba902b7_01"), false),
        (format!("0-{TRACE}-00f067aa0ba902b7-01"), false),
        (String::new(), false),
    ] {
        let fields = format!("traceparent: {value}\r\ntracestate: a=1\r\ntracestate: b=2\r\n");
        client.ask("GET", HOST, "/", &fields).unwrap();
        client.read("GET").expect(200);
        let request = origin.last();
        let parent = request.field("traceparent");
        assert_eq!(request.field("x-known"), &parent[3..35], "{value}");
        let state: &[&str] = if continued { &["a=1", "b=2"] } else { &[] };
        assert_eq!(request.all("tracestate"), state, "{value}");
        match continued {
            true => assert_eq!(parent, value),
            false => assert!(
                parent.starts_with("00-") && parent.ends_with("-01"),
                "{parent}"
            ),
        }
    }
}

#[test]
fn a_group_of_an_expression_is_decoded_once_and_encoded_again() {
    let origin = Origin::echo();
    let routes = "[[site.route]]\nregex = '^/from/(?<what>.*)$'\nredirect = '/to/{what}'\n\
        [[site.route]]\nregex = '^/in/(?<what>.*)$'\nrewrite = '/out/{what}'\n";
    let proxy = telling(&origin, "", routes).start();
    let mut client = proxy.connect();
    for (from, to) in [
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("a%3Fb", "a%3Fb"),
        ("a%23b", "a%23b"),
        ("a%252Fb", "a%252Fb"),
        ("%e2%82%ac", "%E2%82%AC"),
        ("a%0d%0ab", "a%0D%0Ab"),
        ("a%20b%22", "a%20b%22"),
    ] {
        let response = client.get(HOST, &format!("/from/{from}?q")).expect(308);
        assert_eq!(response.field("location").unwrap(), format!("/to/{to}"));
        client.get(HOST, &format!("/in/{from}?q")).expect(200);
        assert_eq!(origin.last().target, format!("/out/{to}?q"));
    }
}

#[test]
fn clients_of_grpc_get_errors_of_grpc_whatever_the_pages() {
    let origin = Origin::echo();
    let builder = telling(&origin, "", "");
    let page = builder.path("403.html");
    fs::write(&page, "keep out").unwrap();
    let more = format!("error_pages = {{ 4xx = {page:?} }}\ndeny = ['0.0.0.0/0', '::/0']\n");
    let site = Site::new(&[HOST], &origin.url()).also(&more);
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .start();
    let ask = |kind: &str| {
        let kind = format!("Content-Type: {kind}");
        let said = proxy.curl(HOST, "/", &["--http2", "-sD", "-", "-d", "x", "-H", &kind]);
        said.ok().to_lowercase()
    };
    assert!(ask("text/plain").ends_with("keep out"));
    let said = ask("application/grpc");
    assert!(said.contains("grpc-status: 7\r\n"), "{said}");
    assert!(
        said.starts_with("http/2 200") && !said.contains("keep out"),
        "{said}"
    );
}

#[test]
fn responses_are_compressed_by_route() {
    let page = |exchange: &mut Exchange<'_>| {
        exchange.respond(200, "Content-Type: text/css\r\n", &[b'a'; 5000])
    };
    let origin = Origin::plan("o").route("/", page).start();
    let routes = "[[site.route]]\npath = '/none/'\ncompression = []\n\
        [[site.route]]\npath = '/br/'\ncompression = ['br', 'gzip']\n\
        [[site.route]]\npath = '/html/'\ncompression_types = ['text/html']\n\
        [[site.route]]\npath = '/large/'\ncompression_minimum = '1MiB'\n";
    let proxy = telling(&origin, "", routes)
        .set("defaults.compression", "['gzip']")
        .start();
    let mut client = proxy.connect();
    for (target, coding) in [
        ("/", Some("gzip")),
        ("/br/", Some("br")),
        ("/none/", None),
        ("/html/", None),
        ("/large/", None),
    ] {
        client
            .ask("GET", HOST, target, "Accept-Encoding: gzip, br\r\n")
            .unwrap();
        let response = client.read("GET").expect(200);
        assert_eq!(response.field("content-encoding"), coding, "{target}");
    }
}
