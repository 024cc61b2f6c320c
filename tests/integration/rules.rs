//! What is done with a request besides passing it on.

use std::fs;
use std::path::Path;

use crate::support::{Builder, Gate, H2, Request};
use crate::support::{Connection, HOST, Origin, Response, Site, Staunch, TestCa, block_on, until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// One site at [`HOST`] with these lines.
fn with(origin: &Origin, lines: &str) -> Builder {
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &origin.url()).also(lines))
}

/// `GET` with more fields.
#[track_caller]
fn get(client: &mut Connection, target: &str, fields: &str) -> Response {
    client.ask("GET", HOST, target, fields).unwrap();
    client.read("GET")
}

/// What arrived of it.
#[track_caller]
fn arrived(proxy: &Staunch, origin: &Origin, target: &str, fields: &str) -> Request {
    get(&mut proxy.connect(), target, fields).expect(200);
    origin.last()
}

#[test]
fn fields_of_requests_are_removed_then_set_then_added() {
    let origin = Origin::echo();
    let proxy = with(
        &origin,
        "[site.request_headers]\n\
         remove = ['X-Debug']\n\
         set = { 'X-Real-IP' = '{client_address}', 'X-Who' = '{header:user-agent} of {cookie:team}' }\n\
         add = { 'X-Via' = 'edge', 'X-Empty' = '{header:none}' }\n\
         [[site.route]]\npath = '/narrow/'\nupstream = 'http://127.0.0.1:1'\n\
         [[site.route]]\npath = '/host/'\nupstream = 'ORIGIN'\n\
         request_headers.set = { 'Host' = 'app.internal', 'X-Real-IP' = 'narrower' }\n"
            .replace("ORIGIN", &origin.url())
            .as_str(),
    )
    .start();
    let fields = "X-Debug: 1\r\nx-debug: 2\r\nX-REAL-IP: 9.9.9.9\r\nUser-Agent: me\r\n\
                  Cookie: a=b; team=red\r\nX-Via: before\r\n";
    let request = arrived(&proxy, &origin, "/", fields);
    assert!(request.all("x-debug").is_empty());
    assert_eq!(request.field("x-real-ip"), "127.0.0.1");
    assert_eq!(request.field("x-who"), "me of red");
    assert_eq!(request.all("x-via"), ["before", "edge"]);
    // A value of nothing is no field.
    assert!(request.all("x-empty").is_empty());
    assert_eq!(request.field("host"), HOST);
    let request = arrived(&proxy, &origin, "/host/x", "");
    assert_eq!(request.field("host"), "app.internal");
    assert_eq!(request.field("x-real-ip"), "narrower");
    assert_eq!(request.field("x-via"), "edge");
    assert_eq!(request.field("x-forwarded-host"), HOST);
}

#[test]
fn fields_of_responses_are_changed_whoever_answers() {
    let origin = Origin::plan("o")
        .raw(
            "/up",
            "HTTP/1.1 200 OK\r\nServer: o/1\r\nX-Powered-By: a\r\nX-Powered-By: b\r\n\
             Strict-Transport-Security: max-age=1\r\nX-Frame-Options: SAMEORIGIN\r\n\
             Content-Length: 0\r\n\r\n",
        )
        .start();
    let site = "hsts = '1d'\n\
        [site.response_headers]\nremove = ['Server', 'X-Powered-By']\n\
        set = { 'X-Frame-Options' = 'DENY', 'X-Asked' = '{method} {host}{uri}' }\n\
        [[site.route]]\nexact = '/away'\nredirect = 'https://{host}/elsewhere'\nstatus = 302\n\
        [[site.route]]\nexact = '/down'\nupstream = 'http://127.0.0.1:1'\n\
        [[site.route]]\nexact = '/text'\nrespond = 200\nbody = 'ok'\n";
    let proxy = with(&origin, site).start();
    let mut client = proxy.connect();
    for (target, status) in [("/up", 200), ("/away", 302), ("/down", 502), ("/text", 200)] {
        let response = client.get(HOST, target).expect(status);
        assert!(response.all("server").is_empty() && response.all("x-powered-by").is_empty());
        assert_eq!(response.all("x-frame-options"), ["DENY"], "{target}");
        let hsts = response.all("strict-transport-security");
        assert_eq!(hsts, ["max-age=86400"], "{target}");
        assert_eq!(
            response.field("x-asked").unwrap(),
            format!("GET {HOST}{target}")
        );
    }
    block_on(async {
        let h2 = H2::connect(&proxy.tls(HOST)).await.unwrap();
        for (target, status) in [("/up", 200), ("/away", 302), ("/down", 502), ("/text", 200)] {
            let response = h2.get(HOST, target).await.unwrap();
            assert_eq!(response.status, status, "{target}");
            assert_eq!(response.headers["x-frame-options"], "DENY", "{target}");
        }
    });
    // RFC 6797, section 7.2: never over plain text.
    let mut plain = Connection::plain(proxy.http()).unwrap();
    let redirect = plain.get(HOST, "/up");
    assert!(redirect.all("strict-transport-security").is_empty());
}

#[test]
fn some_fields_are_not_for_errors() {
    let plan = Origin::plan("a").route("/gone", |exchange| {
        exchange.respond(404, "Cache-Control: no-store\r\n", b"gone")
    });
    let origin = plan.start();
    let site = "[site.response_headers]\nset = { X-All = 'yes' }\n\
        set_if_ok = { Cache-Control = 'max-age=60' }\nadd_if_ok = { Link = ['</a>', '</b>'] }\n\
        [[site.route]]\nexact = '/away'\nredirect = 'https://elsewhere.test/'\nstatus = 302\n\
        [[site.route]]\nexact = '/closed'\nrespond = 403\n\
        [[site.route]]\nexact = '/down'\nupstream = 'http://127.0.0.1:1'\n";
    let proxy = with(&origin, site).start();
    let mut client = proxy.connect();
    for (target, status) in [("/", 200), ("/away", 302)] {
        let response = client.get(HOST, target).expect(status);
        assert_eq!(response.all("cache-control"), ["max-age=60"], "{target}");
        assert_eq!(response.all("link"), ["</a>", "</b>"], "{target}");
    }
    for (target, status, left) in [
        ("/gone", 404, "no-store"),
        ("/closed", 403, ""),
        ("/down", 502, ""),
    ] {
        let response = client.get(HOST, target).expect(status);
        assert_eq!(response.all("cache-control").join(""), left, "{target}");
        assert!(response.all("link").is_empty(), "{target}");
        assert_eq!(response.all("x-all"), ["yes"], "{target}");
    }
    // What is refused before a route is looked for.
    client.ask("TRACE", HOST, "/", "").unwrap();
    let response = client.read("TRACE").expect(405);
    assert_eq!(response.all("x-all"), ["yes"]);
}

#[test]
fn the_host_that_a_server_is_told_of_can_be_said_anew() {
    let origin = Origin::echo();
    let site = "[site.request_headers]\nset = { X-Forwarded-Host = '{host}' }\n\
        [[site.route]]\npath = '/none/'\nrequest_headers.remove = ['X-Forwarded-Host']\n";
    let proxy = with(&origin, site).start();
    let mut client = proxy.connect();
    let host = format!("{}:8443", HOST.to_ascii_uppercase());
    client.get(&host, "/").expect(200);
    assert_eq!(origin.last().all("x-forwarded-host"), [HOST]);
    client.get(&host, "/none/").expect(200);
    assert!(origin.last().all("x-forwarded-host").is_empty());
}

#[test]
fn what_tells_how_a_message_is_sent_cannot_be_a_rule() {
    let origin = Origin::echo();
    for name in [
        "Connection",
        "content-length",
        "Transfer-Encoding",
        "X-Forwarded-For",
        "TE",
        "Upgrade",
        "Trailer",
        "Client-Cert",
    ] {
        for (section, key) in [("request_headers", "set"), ("request_headers", "add")] {
            let lines = format!("[site.{section}]\n{key} = {{ '{name}' = 'x' }}\n");
            let ran = with(&origin, &lines).run("check", &[]);
            assert_eq!(ran.status.code(), Some(1), "{name}: {}", ran.output());
            assert!(ran.output().contains(name), "{}", ran.output());
        }
    }
    for value in ["a\\nb", "a\\u0000"] {
        let lines = format!("[site.response_headers]\nset = {{ 'X-A' = \"{value}\" }}\n");
        let ran = with(&origin, &lines).run("check", &[]);
        assert_eq!(ran.status.code(), Some(1), "{}", ran.output());
    }
}

#[test]
fn a_value_that_a_client_chose_cannot_break_a_message() {
    let origin = Origin::echo();
    let site = "[[site.route]]\npath = '/go/'\nredirect = '/to/{rest}'\n\
        [[site.route]]\npath = '/host/'\nupstream = 'ORIGIN'\n\
        request_headers.set = { Host = '{header:x-want}' }\n"
        .replace("ORIGIN", &origin.url());
    let proxy = with(&origin, &site).start();
    let mut client = proxy.connect();
    let response = client.get(HOST, "/go/a%0d%0aSet-Cookie:%20x").expect(308);
    let location = response.field("location").unwrap();
    assert_eq!(location, "/to/a%0d%0aSet-Cookie:%20x");
    assert!(response.all("set-cookie").is_empty());
    // A redirect to `//evil` would be to another host.
    let response = client.get(HOST, "/go//evil.test/").expect(308);
    assert!(response.field("location").unwrap().starts_with("/to/"));
    // A host that is none leaves the request what it was.
    let request = arrived(&proxy, &origin, "/host/", "X-Want: a b/@\r\n");
    assert_eq!(request.field("host"), HOST);
}

#[test]
fn maintenance_is_announced_by_a_file_and_ends_with_it() {
    let origin = Origin::echo();
    let builder = with(&origin, "");
    let flag = builder.path("maintenance");
    let page = builder.path("sorry.html");
    fs::write(&page, "<h1>back soon</h1>").unwrap();
    let site = format!(
        "maintenance = {{ file = {flag:?}, retry_after = '5m', allow = ['127.0.0.2'] }}\n\
         error_pages = {{ 503 = {page:?} }}\n"
    );
    let proxy = with(&origin, &site).start();
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(200);
    fs::write(&flag, "").unwrap();
    until("there is maintenance", || {
        client.get(HOST, "/").status == 503
    });
    let response = client.get(HOST, "/").expect(503);
    assert_eq!(response.field("retry-after"), Some("300"));
    assert_eq!(response.text(), "<h1>back soon</h1>");
    assert_eq!(
        response.field("content-type"),
        Some("text/html; charset=utf-8")
    );
    client.ask("HEAD", HOST, "/", "").unwrap();
    let head = client.read("HEAD").expect(503);
    assert_eq!(head.field("content-length"), Some("18"));
    let before = origin.requests().len();
    client.get(HOST, "/").expect(503);
    assert_eq!(origin.requests().len(), before, "nobody is asked");
    fs::remove_file(&flag).unwrap();
    until("it is over", || client.get(HOST, "/").status == 200);
}

#[test]
fn maintenance_may_be_on_without_a_file_except_for_some() {
    let origin = Origin::echo();
    let proxy = with(&origin, "[site.maintenance]\nallow = ['192.0.2.0/24']\n")
        .set("listen.forwarded_from", "['127.0.0.1']")
        .start();
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(503);
    get(&mut client, "/", "X-Forwarded-For: 192.0.2.7\r\n").expect(200);
}

#[test]
fn a_proxy_in_front_says_who_the_client_is() {
    let origin = Origin::echo();
    let site = "deny = ['192.0.2.66']\nrequest_headers.set = { 'X-Who' = '{client_address}' }\n";
    let builder = with(&origin, site);
    let log = builder.path("access.log");
    let proxy = builder
        .set("listen.forwarded_from", "['127.0.0.1', '10.0.0.0/8']")
        .set("limits.client_rate", 1)
        .set("limits.client_burst", 1)
        .set("log.access.to", format!("{log:?}"))
        .start();
    let mut client = proxy.connect();
    for (fields, status, who) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", 200, "192.0.2.1"),
        // Each has a rate of its own.
        ("X-Forwarded-For: 192.0.2.1\r\n", 429, ""),
        (
            "X-Forwarded-For: 192.0.2.66, 192.0.2.2, 10.1.1.1\r\n",
            200,
            "192.0.2.2",
        ),
        ("X-Forwarded-For: 192.0.2.3, 192.0.2.66\r\n", 403, ""),
        (
            "X-Forwarded-For: 192.0.2.3\r\nX-Forwarded-For: [2001:db8::1]:5\r\n",
            200,
            "2001:db8::1",
        ),
        ("", 200, "127.0.0.1"),
    ] {
        let response = get(&mut client, "/", fields).expect(status);
        if response.status == 200 {
            assert_eq!(origin.last().field("x-who"), who, "{fields}");
        }
    }
    until("it is logged", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("2001:db8::1"))
    });
    // Of nobody else that is believed.
    let proxy = with(&origin, site).start();
    let request = arrived(&proxy, &origin, "/", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(request.field("x-who"), "127.0.0.1");
    assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
}

#[test]
fn error_pages_are_of_what_staunch_answers_itself() {
    let origin = Origin::plan("o")
        .raw(
            "/own",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nown",
        )
        .start();
    let builder = with(&origin, "");
    let (gone, sorry) = (builder.path("404.json"), builder.path("sorry.html"));
    fs::write(&gone, "{\"error\":404}").unwrap();
    fs::write(&sorry, "sorry").unwrap();
    let pages = |missing: &Path| {
        format!(
            "error_pages = {{ 404 = {gone:?}, 403 = {missing:?}, 5xx = {sorry:?} }}\n\
             [[site.route]]\npath = '/down/'\nupstream = 'http://127.0.0.1:1'\n\
             [[site.route]]\npath = '/closed/'\ndeny = ['127.0.0.0/8', '::1']\n\
             [[site.route]]\npath = '/none/'\nrespond = 404\n"
        )
    };
    let missing = builder.path("missing.html");
    let proxy = with(&origin, &pages(&missing)).start();
    proxy.wait_log("missing.html");
    let mut client = proxy.connect();
    assert_eq!(client.get(HOST, "/own").expect(404).text(), "own");
    let response = client.get(HOST, "/none/").expect(404);
    assert_eq!(response.text(), "{\"error\":404}");
    assert_eq!(response.field("content-type"), Some("application/json"));
    assert_eq!(client.get(HOST, "/down/").expect(502).text(), "sorry");
    // The file that is missing harms itself only, and is there after a reload.
    let plain = client.get(HOST, "/closed/").expect(403);
    assert_eq!(plain.text(), "403 Forbidden\n");
    fs::write(&missing, "keep out").unwrap();
    proxy.reload().expect(200);
    assert_eq!(client.get(HOST, "/closed/").expect(403).text(), "keep out");
    // One that can no longer be read is kept.
    fs::remove_file(&missing).unwrap();
    proxy.reload().expect(200);
    assert_eq!(client.get(HOST, "/closed/").expect(403).text(), "keep out");
}

#[test]
fn traces_are_continued_begun_or_begun_anew() {
    let origin = Origin::echo();
    let route = |path: &str, what: &str| {
        format!("[[site.route]]\npath = '/{path}/'\ntrace_context = '{what}'\n")
    };
    let site = ["trace_sample = 0.0\n".to_owned()]
        .into_iter()
        .chain([("on", "continue"), ("new", "restart"), ("off", "off")].map(|(p, w)| route(p, w)))
        .collect::<String>();
    let proxy = with(&origin, &site).start();
    let fields = format!("traceparent: {PARENT}\r\ntracestate: a=b\r\n");
    // What somebody began is passed on as it came.
    let request = arrived(&proxy, &origin, "/on/", &fields);
    assert_eq!(request.field("traceparent"), PARENT);
    assert_eq!(request.field("tracestate"), "a=b");
    let request = arrived(&proxy, &origin, "/off/", &fields);
    assert_eq!(request.field("traceparent"), PARENT);
    // W3C Trace Context, section 3.3.1: state of a trace that is not continued is not passed on.
    for (target, fields) in [
        ("/new/", fields.clone()),
        ("/on/", String::new()),
        (
            "/on/",
            "traceparent: 00-zz\r\ntracestate: a=b\r\n".to_owned(),
        ),
        ("/on/", format!("{fields}traceparent: {PARENT}\r\n")),
    ] {
        let request = arrived(&proxy, &origin, target, &fields);
        let parent = request.field("traceparent");
        assert!(parent.len() == 55 && !parent.contains(TRACE), "{parent}");
        assert!(parent.ends_with("-00"), "sampled: {parent}");
        assert!(request.all("tracestate").is_empty());
    }
    let request = arrived(&proxy, &origin, "/off/", "");
    assert!(request.all("traceparent").is_empty());
}

#[test]
fn a_request_has_one_id_for_all_who_see_it() {
    let origin = Origin::echo();
    let site = "request_id = 'X-Request-Id'\n";
    let log = |builder: &Builder| builder.path("access.log");
    let builder = with(&origin, site);
    let file = log(&builder);
    let proxy = builder.set("log.access.to", format!("{file:?}")).start();
    let mut client = proxy.connect();
    let response = get(&mut client, "/", "X-Request-ID: forged\r\n").expect(200);
    let id = response.field("x-request-id").unwrap().to_owned();
    assert_eq!(origin.last().field("x-request-id"), id);
    assert!(id.len() == 32 && id != "forged");
    let other = client.get(HOST, "/").expect(200);
    assert_ne!(other.field("x-request-id").unwrap(), id);
    until("it is logged", || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(&id))
    });
    let trusting = with(&origin, site)
        .set("listen.forwarded_from", "['127.0.0.1']")
        .start();
    let mut client = trusting.connect();
    let response = get(&mut client, "/", "X-Request-ID: theirs-1\r\n").expect(200);
    assert_eq!(response.field("x-request-id"), Some("theirs-1"));
    let response = get(&mut client, "/", "X-Request-ID: a b\"\r\n").expect(200);
    assert_ne!(response.field("x-request-id"), Some("a b\""));
}

#[test]
fn some_are_let_in() {
    let origin = Origin::echo();
    let site = "[[site.route]]\npath = '/inside/'\nallow = ['10.0.0.0/8']\n\
        [[site.route]]\npath = '/here/'\nallow = ['127.0.0.0/8']\n\
        [[site.route]]\npath = '/but/'\nallow = ['127.0.0.0/8']\ndeny = ['127.0.0.1']\n";
    let proxy = with(&origin, site).start();
    for (target, status) in [
        ("/", 200),
        ("/inside/x", 403),
        ("/here/", 200),
        ("/but/", 403),
        // Walking around it.
        ("/x/../inside/x", 403),
        ("/%69nside/x", 403),
        ("//inside//x", 403),
        ("/inside%2fx", 403),
        ("/./inside/", 403),
        // To some upstreams these would be inside.
        ("/inside;a=1/x", 400),
        (r"/inside\x", 400),
        ("/inside%5Cx", 400),
        ("/x/..;/inside/x", 400),
        (r"/x\..\inside\x", 400),
        ("/inside/..;/x", 400),
        ("/inside%00/x", 400),
        ("/inside/../../x", 400),
        // What is encoded twice is decoded once: to whoever decodes once, it is outside.
        ("/%2569nside/x", 200),
        ("/INSIDE/x", 200),
        // These are outside, however they are read.
        ("/x;a=1/y", 200),
        (r"/x\y", 200),
        ("/insider", 200),
    ] {
        let response = proxy.connect().get(HOST, target);
        assert_eq!(response.status, status, "{target}");
    }
    for request in origin.requests() {
        assert!(!request.target.contains("inside/"), "{request:?}");
    }
}

#[test]
fn who_is_not_let_in_learns_and_takes_nothing() {
    let origin = Origin::echo();
    let site = Site::without_upstream(&[HOST])
        .also("allow = ['10.0.0.0/8']\nrate = 1\nburst = 1\n[[site.route]]\n")
        .also(&format!("path = '/a/'\nupstream = {:?}\n", origin.url()))
        .also("[[site.route]]\npath = '/open/'\nallow = ['0.0.0.0/0', '::/0']\n")
        .also(&format!("upstream = {:?}\n", origin.url()));
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .start();
    let mut client = proxy.connect();
    for target in ["/a/", "/a/b", "/nothing", "/"] {
        client.get(HOST, target).expect(403);
    }
    client.get(HOST, "/open/").expect(200);
    client.get(HOST, "/open/").expect(429);
}

#[test]
fn who_a_client_is_the_proxy_protocol_may_say() {
    let origin = Origin::echo();
    let proxy = with(&origin, "allow = ['192.0.2.0/24', '2001:db8::/32']\n")
        .set("listen.proxy_protocol_from", "['127.0.0.1']")
        .start();
    for (line, status) in [
        ("PROXY TCP4 192.0.2.9 192.0.2.1 5 443\r\n", 200),
        ("PROXY TCP4 198.51.100.9 192.0.2.1 5 443\r\n", 403),
        ("PROXY TCP6 2001:db8::1 2001:db8::2 5 443\r\n", 200),
        ("PROXY TCP6 ::ffff:192.0.2.9 2001:db8::2 5 443\r\n", 200),
        ("PROXY TCP6 2001:db9::1 2001:db8::2 5 443\r\n", 403),
    ] {
        let mut client = proxy.tls(HOST).preamble(line.as_bytes()).connect();
        assert_eq!(client.get(HOST, "/").status, status, "{line}");
    }
}

#[test]
fn a_body_may_be_so_large_where_it_goes() {
    let origin = Origin::echo();
    let site = "request_body = '10B'\n\
        [[site.route]]\npath = '/large/'\nrequest_body = '1KiB'\n\
        [[site.route]]\npath = '/any/'\nrequest_body = '0'\n\
        [[site.route]]\npath = '/moved/'\nredirect = '/large/{rest}'\nstatus = 307\n";
    let proxy = with(&origin, site)
        .set("limits.request_body", "'100B'")
        .start();
    for (target, length, status) in [
        ("/", 10, 200),
        ("/", 11, 413),
        ("/large/", 1024, 200),
        ("/large/", 1025, 413),
        ("/any/", 100_000, 200),
        // Where it does not go anywhere, it may have any.
        ("/moved/", 1000, 307),
    ] {
        let response = proxy.connect().post(HOST, target, &vec![b'x'; length]);
        assert_eq!(response.status, status, "{target} {length}");
    }
    // HTTP/2 has lengths too, and need not.
    let body = "x".repeat(11);
    for more in [&[][..], &["-H", "Content-Length:"]] {
        let arguments = [&["--http2", "-w", "%{http_code}", "-d", &body][..], more].concat();
        let said = proxy.curl(HOST, "/", &arguments).ok();
        assert!(said.ends_with("413"), "{said}");
    }
    // Of unknown length.
    let mut client = proxy.connect();
    client
        .ask("POST", HOST, "/", "Transfer-Encoding: chunked\r\n")
        .unwrap();
    client
        .send("14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n")
        .unwrap();
    client.read("POST").expect(413);
}

#[test]
fn a_route_waits_as_long_as_it_says() {
    let gate = Gate::new();
    let origin = Origin::plan("o")
        .gated("/slow", &gate)
        .gated("/total", &gate)
        .start();
    let site = "[[site.route]]\npath = '/slow'\ntimeouts.response = '100ms'\n\
        [[site.route]]\npath = '/total'\ntimeouts.total = '150ms'\n";
    let proxy = with(&origin, site)
        .set("upstream.o.servers", "['http://127.0.0.1:1']")
        .start();
    proxy.connect().get(HOST, "/slow").expect(504);
    proxy.connect().get(HOST, "/total").expect(504);
    gate.open();
    proxy.connect().get(HOST, "/slow").expect(200);
}

#[test]
fn other_methods_are_not_let_through() {
    let origin = Origin::echo();
    let lines = "[[site.route]]\npath = '/read/'\nmethods = ['GET']\n\
                 [[site.route]]\npath = '/dav/'\nmethods = ['PROPFIND', 'PUT']\n";
    let proxy = with(&origin, lines).start();
    for (method, target, expected) in [
        ("GET", "/read/", 200),
        ("HEAD", "/read/", 200),
        ("POST", "/read/", 405),
        ("get", "/read/", 405),
        ("DELETE", "/", 200),
        ("PROPFIND", "/dav/", 200),
        ("PROPPATCH", "/dav/", 405),
        ("GET", "/dav/", 405),
    ] {
        let mut client = proxy.connect();
        let fields = "Content-Length: 0\r\n";
        client.ask(method, HOST, target, fields).unwrap();
        let answer = client.read(method).expect(expected);
        let allowed = match (expected, target) {
            (405, "/read/") => Some("GET, HEAD"),
            (405, _) => Some("PROPFIND, PUT"),
            _ => None,
        };
        assert_eq!(answer.field("allow"), allowed, "{method} {target}");
    }
}

#[test]
fn a_server_that_redirects_to_itself_is_known_by_another_name() {
    let origin = Origin::plan("o")
        .raw(
            "/login",
            "HTTP/1.1 302 Found\r\nLocation: http://inner:8080/app/in?x=1\r\nContent-Length: 0\r\n\r\n",
        )
        .raw(
            "/away",
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
        )
        .raw(
            "/longer",
            "HTTP/1.1 302 Found\r\nlocation: http://inner:8080/x\r\nContent-Length: 0\r\n\r\n",
        )
        .start();
    let lines = "rewrite_location = { 'http://inner:8080/' = 'https://{host}/', \
                 'http://inner:8080/app/' = '/' }\n";
    let proxy = with(&origin, lines).start();
    let to = |target: &str| {
        let answer = get(&mut proxy.connect(), target, "").expect(302);
        answer.field("location").unwrap().to_owned()
    };
    assert_eq!(to("/login"), "/in?x=1");
    assert_eq!(to("/away"), "http://elsewhere/");
    assert_eq!(to("/longer"), format!("https://{HOST}/x"));
}

#[test]
fn paths_are_written_anew() {
    let origin = Origin::echo();
    let site = "[[site.route]]\npath = '/api/'\nreplace_prefix = '/'\n\
        [[site.route]]\npath = '/v1'\nreplace_prefix = '/v2'\n\
        [[site.route]]\nregex = '^/img/(?<name>.+)[.]png$'\nrewrite = '/assets/{name}?of={query}'\n\
        [[site.route]]\nexact = '/old'\nredirect = 'https://{host}/new?{query}'\nstatus = 301\n";
    let proxy = with(&origin, site).start();
    let mut client = proxy.connect();
    for (target, expected) in [
        ("/api/", "/"),
        ("/api/x/y?z=1", "/x/y?z=1"),
        ("/api//x", "/x"),
        // That is not below /api/.
        ("/api/%2e%2e/x", "/api/%2e%2e/x"),
        ("/api/a%20b?%0a", "/a%20b?%0a"),
        ("/v1", "/v2"),
        ("/v1/x", "/v2/x"),
        ("/img/a/b.png?c", "/assets/a/b?of=c"),
        ("/img/%41%20b.png", "/assets/A%20b?of="),
        ("/v1x", "/v1x"),
    ] {
        client.get(HOST, target).expect(200);
        assert_eq!(origin.last().target, expected, "{target}");
    }
    let response = client.get(HOST, "/old?a=b").expect(301);
    assert_eq!(
        response.field("location").unwrap(),
        format!("https://{HOST}/new?a=b")
    );
}

#[test]
fn what_holds_for_all_sites_can_be_put_aside() {
    let origin = Origin::echo();
    let proxy = Staunch::build()
        .leaf(&TestCa::new().leaf(&[HOST, "b.test"]).issue())
        .sites(Site::new(&[HOST], &origin.url()))
        .sites(Site::new(&["b.test"], &origin.url()).also("hsts = false\nrequest_id = ''\n"))
        .set("defaults.hsts", "'1d'")
        .set("defaults.request_id", "'X-Id'")
        .start();
    let response = proxy.connect().get(HOST, "/").expect(200);
    assert_eq!(
        response.field("strict-transport-security"),
        Some("max-age=86400")
    );
    assert!(response.field("x-id").is_some());
    let response = proxy.tls("b.test").connect().get("b.test", "/").expect(200);
    assert_eq!(response.field("strict-transport-security"), None);
    assert_eq!(response.field("x-id"), None);
}
