//! Routes that ask for more than a path.

use std::fs;

use bytes::Bytes;
use http::Method;

use crate::support::{Builder, H2, HOST, Origin, Response, Site, Staunch, TestCa};
use crate::support::{block_on, json, request, until};

/// One site at [`HOST`] with these lines.
fn with(origin: &Origin, lines: &str) -> Builder {
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &origin.url()).also(lines))
}

#[track_caller]
fn ask(proxy: &Staunch, method: &str, target: &str, fields: &str) -> Response {
    let mut client = proxy.connect();
    client.ask(method, HOST, target, fields).unwrap();
    client.read(method)
}

#[test]
fn a_request_takes_the_first_route_whose_conditions_hold() {
    let [plain, beta, test] = ["plain", "beta", "test"].map(Origin::named);
    let proxy = with(
        &plain,
        &format!(
            "[[site.route]]\npath = '/'\nupstream = '{}'\nwhen = {{ '{{cookie:beta}}' = '^1$' }}\n\
             [[site.route]]\npath = '/'\nupstream = '{}'\nwhen = {{ '{{query:test}}' = '.' }}\n\
             unless = {{ '{{method}}' = '^POST$' }}\n\
             [[site.route]]\nexact = '/whoami'\nrespond = 200\nbody = 'known'\n\
             when = {{ '{{header:User-Agent}}' = ['(?i)staunch', '[0-9]'] }}\n",
            beta.url(),
            test.url()
        ),
    )
    .start();
    let origin = |method: &str, target: &str, fields: &str| {
        let response = ask(&proxy, method, target, fields).expect(200);
        response.json()["origin"].as_str().unwrap().to_owned()
    };
    for (method, target, fields, expected) in [
        ("GET", "/", "", "plain"),
        ("GET", "/", "Cookie: beta=1\r\n", "beta"),
        ("GET", "/", "Cookie: a=b; beta=1; c=d\r\n", "beta"),
        ("GET", "/", "Cookie: beta=10\r\n", "plain"),
        ("GET", "/?test=1", "Cookie: beta=1\r\n", "beta"),
        ("GET", "/?test=1", "", "test"),
        ("GET", "/x?a&%74est=%31", "", "test"),
        ("GET", "/?test=", "", "plain"),
        ("POST", "/?test=1", "Content-Length: 0\r\n", "plain"),
        ("GET", "/whoami", "User-Agent: curl/8\r\n", "plain"),
        ("GET", "/whoami", "User-Agent: Staunch\r\n", "plain"),
    ] {
        assert_eq!(
            origin(method, target, fields),
            expected,
            "{target} {fields}"
        );
    }
    let known = ask(&proxy, "GET", "/whoami", "User-Agent: Staunch/2\r\n");
    assert_eq!(known.expect(200).text(), "known");
    // RFC 9113, section 8.2.3: in HTTP/2 cookies may come in several fields.
    block_on(async {
        let h2 = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut several = request(Method::GET, HOST, "/");
        for cookie in ["a=b", "beta=1"] {
            several
                .headers_mut()
                .append("cookie", cookie.parse().unwrap());
        }
        let response = h2.request(several, Bytes::new(), None).await.unwrap();
        assert_eq!(json(&response.body)["origin"], "beta");
    });
}

/// The client is the one that `allow` means, also behind a proxy that is believed.
#[test]
fn conditions_on_clients_are_of_the_true_client() {
    let origin = Origin::echo();
    let lines = "[[site.route]]\nclients = ['192.0.2.0/24']\nexcept_clients = ['192.0.2.7']\n\
                 respond = 403\n";
    let deny = |proxy: &Staunch, forwarded: &str| {
        let fields = format!("X-Forwarded-For: {forwarded}\r\n");
        ask(proxy, "GET", "/", &fields).status
    };
    let proxy = with(&origin, lines)
        .set("listen.forwarded_from", "['127.0.0.1']")
        .start();
    assert_eq!(deny(&proxy, "192.0.2.1"), 403);
    assert_eq!(deny(&proxy, "192.0.2.1, 198.51.100.1"), 200);
    assert_eq!(deny(&proxy, "192.0.2.7"), 200);
    let proxy = with(&origin, lines).start();
    assert_eq!(deny(&proxy, "192.0.2.1"), 200);
}

/// What is logged and counted is the site's, and its rules hold in such a route too.
#[test]
fn rules_hold_in_a_route_with_conditions() {
    let origin = Origin::echo();
    let builder = with(
        &origin,
        "hsts = '1h'\nerror_pages = { 403 = 'no.html' }\n\
         [[site.route]]\nwhen = { '{header:X-Bot}' = '.' }\nrespond = 403\n\
         [[site.route]]\nwhen = { '{header:X-Old}' = '.' }\nredirect = '/new/{rest}'\n\
         [[site.route]]\npath = '/api/'\nclients = ['127.0.0.1']\nreplace_prefix = '/'\n",
    );
    let (log, page) = (builder.path("access.log"), builder.path("no.html"));
    fs::write(page, "not you").unwrap();
    let proxy = builder.set("log.access.to", format!("{log:?}")).start();
    let refused = ask(&proxy, "GET", "/a", "X-Bot: 1\r\n").expect(403);
    assert_eq!(refused.text(), "not you");
    assert_eq!(
        refused.field("strict-transport-security"),
        Some("max-age=3600")
    );
    let moved = ask(&proxy, "GET", "/a?b", "X-Old: 1\r\n").expect(308);
    assert_eq!(moved.field("location"), Some("/new/a?b"));
    ask(&proxy, "GET", "/api/x", "").expect(200);
    assert_eq!(origin.last().target, "/x");
    until("all is logged", || {
        fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 3)
    });
    let counted = proxy.metrics();
    let labels = [("site", HOST), ("method", "GET"), ("code", "403")];
    assert_eq!(counted.count("staunch_requests_total", &labels), 1.0);
}

/// A route that comes to hold, or goes, does so at a reload.
#[test]
fn conditions_follow_a_reload() {
    let origin = Origin::echo();
    let route = "[[site.route]]\nwhen = { '{header:X-A}' = '^1$' }\nrespond = 404\n";
    let builder = with(&origin, route);
    let config = builder.config_path();
    let proxy = builder.start();
    let mut client = proxy.connect();
    let mut status = |value: &str| {
        let fields = format!("X-A: {value}\r\n");
        client.ask("GET", HOST, "/", &fields).unwrap();
        client.read("GET").status
    };
    assert_eq!((status("1"), status("2")), (404, 200));
    let text = fs::read_to_string(config).unwrap();
    proxy.write_config(&text.replace("'^1$'", "'^2$'"));
    proxy.reload().expect(200);
    assert_eq!((status("1"), status("2")), (200, 404));
}
