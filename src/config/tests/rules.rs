//! Rules of sites and routes: what they come to, and what is said of those that cannot be.

use super::*;

/// A site with these lines, after [`COMPLETE`].
fn site(lines: &str) -> String {
    with(&format!(
        "[[site]]\nnames = ['b.test']\nupstream = 'http://x'\n{lines}\n"
    ))
}

fn route(lines: &str) -> String {
    site(&format!("[[site.route]]\n{lines}"))
}

#[test]
fn routes_have_their_own_rules_over_those_of_their_site_and_the_defaults() {
    let config = parse(
        "
[defaults]
hsts = '730d'
request_id = 'X-Request-Id'
[defaults.response_headers]
set = { 'X-Frame-Options' = 'DENY' }
[[site]]
names = ['a.test']
upstream = 'http://u'
request_body = '10MiB'
[site.response_headers]
remove = ['Server']
[[site.route]]
path = '/up/'
request_body = '0'
hsts = false
timeouts = { response = '1s' }
response_headers = { add = { 'Link' = ['</a>', '</b>'] } }
[[site.route]]
exact = '/health'
respond = 200
[[site.route]]
regex = '^/(?<name>[a-z]+)$'
redirect = '/x/{name}'
status = 302
",
    )
    .unwrap();
    let site = &config.sites[0];
    let kinds: Vec<_> = (site.routes.iter())
        .map(|route| route.matcher.to_string())
        .collect();
    assert_eq!(kinds, ["/health", "^/(?<name>[a-z]+)$", "/up/", "/"]);
    let [health, _, up, root] = &site.routes[..] else {
        panic!("{site:?}");
    };
    let names = |rules: &Rules| -> Vec<_> {
        let names = rules.response.iter().map(|rule| rule.name.to_string());
        names.collect()
    };
    assert_eq!(names(&root.rules), ["X-Frame-Options", "Server"]);
    assert_eq!(root.rules, site.rules);
    assert_eq!(health.rules, site.rules);
    let hsts = root.rules.hsts.as_ref().and_then(Setting::on);
    assert_eq!(hsts.map(|hsts| &**hsts), Some("max-age=63072000"));
    assert_eq!(root.rules.request_body, Some(Setting::On(10 << 20)));
    assert_eq!(
        names(&up.rules),
        ["X-Frame-Options", "Server", "Link", "Link"]
    );
    assert_eq!(up.rules.hsts, Some(Setting::Off));
    assert_eq!(up.rules.request_body, Some(Setting::Off));
    assert_eq!(
        up.rules.timeouts.response,
        Some(std::time::Duration::from_secs(1))
    );
    assert_eq!(upstream_of(up), "http://u");
    assert!(matches!(
        site.routes[1].action,
        Action::Redirect { status: 302, .. }
    ));
}

#[test]
fn a_page_for_one_status_goes_before_one_for_all() {
    let config = parse(&site(
        "error_pages = { 5xx = 'a.html', 503 = '/b.html', 4xx = 'c' }",
    ))
    .unwrap();
    let pages: Vec<_> = (config.sites[1].rules.error_pages.iter())
        .map(|page| (page.from, page.to, page.instead.clone()))
        .collect();
    let file = |path: &str| Instead::File(path.into());
    assert_eq!(pages[0], (503, 503, file("/b.html")));
    assert!(pages.contains(&(500, 599, file("/etc/staunch/a.html"))));
}

#[test]
fn an_error_page_is_a_file_a_text_or_a_redirect() {
    let config = parse(&site(
        "error_pages = { 429 = { body = '{}', content_type = 'application/json' }, \
         503 = { redirect = '/sorry' }, 504 = { redirect = 'https://b.test/', status = 303 } }",
    ))
    .unwrap();
    let pages: Vec<_> = (config.sites[1].rules.error_pages.iter())
        .map(|page| page.instead.clone())
        .collect();
    let redirect = |to: &str, status| Instead::Redirect {
        to: to.into(),
        status,
    };
    let expected = [
        Instead::Text {
            body: "{}".into(),
            content_type: "application/json".into(),
        },
        redirect("/sorry", 302),
        redirect("https://b.test/", 303),
    ];
    assert_eq!(pages, expected);
    for (page, message) in [
        ("{ }", "has to have either `body` or `redirect`"),
        ("{ body = 'x', redirect = '/' }", "has to have either"),
        ("{ body = 'x', status = 302 }", "has to have either"),
        (
            "{ redirect = '//evil.test/' }",
            "is neither a URL nor a path",
        ),
        ("{ redirect = '/', status = 200 }", "200 is no redirect"),
        ("{ file = 'x' }", "unknown key `file`"),
    ] {
        let said = refused(&site(&format!("error_pages = {{ 503 = {page} }}")));
        assert!(said.contains(message), "{page}: {said}");
    }
}

#[test]
fn hsts_and_maintenance_have_a_short_form_and_a_long_one() {
    let config = parse(&site(
        "hsts = { max_age = '365d', subdomains = true, preload = true }\n\
         maintenance = { file = 'm', retry_after = '1h', allow = ['10.0.0.1'] }",
    ))
    .unwrap();
    let rules = &config.sites[1].rules;
    assert_eq!(
        rules.hsts,
        Some(Setting::On(
            "max-age=31536000; includeSubDomains; preload".into()
        ))
    );
    let maintenance = rules.maintenance.as_ref().and_then(Setting::on).unwrap();
    assert_eq!(
        maintenance.file.as_deref(),
        Some(Path::new("/etc/staunch/m"))
    );
    assert_eq!(maintenance.retry_after, Duration::from_secs(3600));
    for (value, file) in [("true", None), ("'/run/m'", Some(Path::new("/run/m")))] {
        let config = parse(&site(&format!("maintenance = {value}"))).unwrap();
        let rules = &config.sites[1].rules;
        let maintenance = rules.maintenance.as_ref().and_then(Setting::on).unwrap();
        assert_eq!(maintenance.file.as_deref(), file);
    }
}

#[test]
fn a_fault_in_a_value_is_shown_where_it_is() {
    let text = site("[site.request_headers]\nset = { 'X-Real-IP' = '{client_adress}' }\n");
    assert_eq!(
        refused(&text),
        "\
/etc/staunch/staunch.toml:12:23: error: `site.request_headers`: there is no variable `{client_adress}`
  12 | set = { 'X-Real-IP' = '{client_adress}' }
     |                       ^^^^^^^^^^^^^^^^^
       help: did you mean `{client_address}`?
"
    );
}

/// Each fault, and something of what must be said of it.
#[test]
fn every_fault_has_its_words() {
    for (lines, words) in [
        ("hst = '1d'", "did you mean `hsts`?"),
        ("hsts = true", "does not say how long"),
        ("hsts = 3600", "expected a duration such as \"730d\""),
        ("hsts = { subdomains = true }", "has no `max_age`"),
        (
            "hsts = { max_age = '1d', maxage = '1d' }",
            "did you mean `max_age`?",
        ),
        (
            "hsts = { max_age = '30d', subdomains = true, preload = true }",
            "a `max_age` of a year",
        ),
        ("maintenance = 1", "expected `true`, `false` or a path"),
        ("error_pages = { 200 = 'x' }", "`200` is no error"),
        ("error_pages = { 6xx = 'x' }", "write a status from 400"),
        ("error_pages = 'x'", "expected a table of files"),
        ("allow = '10.0.0.0/8'", "put it in brackets"),
        ("deny = ['10.0.0.1/8']", "has bits set beyond its prefix"),
        ("request_id = 'X Id'", "is not a name"),
        ("request_id = 'Content-Length'", "says where a message ends"),
        ("trace_context = 'begin'", "write \"off\""),
        ("trace_sample = 2", "2 is out of range"),
        ("request_body = 10", "put it in quotes"),
        ("timeouts = { respons = '1s' }", "did you mean `response`?"),
        ("timeouts = { total = '0s' }", "out of range"),
        ("redirect = '/x'", "has both `upstream` and `redirect`"),
        ("status = 301", "`status` goes only with `redirect`"),
        ("body = 'x'", "`body` goes only with `respond`"),
        ("rewrite = 'x'", "does not begin with `/`"),
        (
            "rewrite = '/x'\nreplace_prefix = '/y'",
            "goes only with no `replace_prefix`",
        ),
        (
            "[site.request_headers]\nset = { 'Content-Length' = '1' }",
            "`Content-Length` says where a message ends",
        ),
        (
            "[site.request_headers]\nset = { 'X-Forwarded-For' = 'x' }",
            "`forwarded_from` in `[listen]`",
        ),
        (
            "[site.request_headers]\nset = { 'X-Client-Cert-SAN' = 'x' }",
            "`[site.client_certificates]`",
        ),
        (
            "[site.request_headers]\nadd = { 'Host' = 'x' }",
            "write it under `set`",
        ),
        (
            "[site.response_headers]\nremove = ['Connection']",
            "belongs to one connection",
        ),
        (
            "[site.response_headers]\nset = { 'X' = \"a\\r\\nb\" }",
            "has a control character",
        ),
        (
            "[site.response_headers]\nset = { 'X' = ' a' }",
            "begins or ends with a space",
        ),
        (
            "[site.response_headers]\nset = { 'X' = 7 }",
            "expected text in quotes",
        ),
        (
            "[site.response_headers]\nset = { 'X' = '{rest}' }",
            "only a route with `path` or `exact` has",
        ),
        ("[site.response_headers]\nste = {}", "did you mean `set`?"),
    ] {
        let said = refused(&site(lines));
        assert!(said.contains(words), "{lines}\n{said}");
    }
    for (lines, words) in [
        (
            "upstream = 'http://y'",
            "without `path`, `starts_with`, `exact` and `regex`",
        ),
        (
            "path = '/a'\nexact = '/a'",
            "a route has both `path` and `exact`",
        ),
        (
            "exact = '/a'\nfinal = true",
            "`final` goes only with `path`",
        ),
        ("regex = '('", "is no regular expression"),
        ("regex = '(a{1000}){1000}'", "is no regular expression"),
        ("regex = 'a(?=b)'", "no look-around"),
        (
            "regex = '^/(?<name>.*)$'\nredirect = '/{nam}'",
            "did you mean `{name}`?",
        ),
        (
            "regex = '/a'\nreplace_prefix = '/'",
            "`replace_prefix` goes only with `path`",
        ),
        (
            "path = '/a'\nredirect = 'www.example.com'",
            "is neither a URL nor a path",
        ),
        (
            "path = '/a'\nredirect = 'https://example.com{rest}'",
            "by which a client could choose",
        ),
        (
            "path = '/a'\nredirect = '/b'\nstatus = 304",
            "304 is no redirect",
        ),
        (
            "path = '/a'\nredirect = '/b'\nstatus = 200",
            "200 is out of range",
        ),
        ("path = '/a'\nrespond = 99", "99 is out of range"),
        (
            "path = '/a'\nrespond = 204\nbody = 'x'",
            "a response with 204 has none",
        ),
        (
            "path = '/a'\nrespond = 200\nrewrite = '/b'",
            "`rewrite` goes only with `upstream`",
        ),
        ("path = '/a/../b'", "is never asked for like that"),
    ] {
        let said = refused(&route(lines));
        assert!(said.contains(words), "{lines}\n{said}");
    }
    for (text, words) in [
        (
            "[defaults]\ntimeouts = { idle = '1s' }",
            "write them in `[timeouts]`",
        ),
        (
            "[defaults]\nrequest_body = '1KiB'",
            "write it in `[limits]`",
        ),
        (
            "[[site]]\nnames = ['b.test']\npassthrough = 'tcp://x:1'\nallow = ['10.0.0.1']",
            "whoever the connections are passed to",
        ),
        (
            "[[site]]\nnames = ['b.test']\nrespond = 200\n[[site.route]]\npath = '/a'",
            "a route that leads nowhere",
        ),
        (
            "[[site]]\nnames = ['b.test']\n[[site.route]]\npath = '/a'",
            "a route that leads nowhere",
        ),
    ] {
        let said = refused(&with(text));
        assert!(said.contains(words), "{text}\n{said}");
    }
}

#[test]
fn the_same_path_may_be_exact_and_a_prefix_but_not_twice_the_same() {
    let two = |one: &str, other: &str| {
        let route = |key: &str| format!("[[site.route]]\n{key} = '/a'\nrespond = 200\n");
        with(&format!(
            "[[site]]\nnames = ['b.test']\n{}{}",
            route(one),
            route(other)
        ))
    };
    for keys in [
        ("exact", "path"),
        ("path", "regex"),
        ("regex", "exact"),
        ("path", "starts_with"),
    ] {
        parse(&two(keys.0, keys.1)).unwrap();
    }
    for key in ["exact", "path", "starts_with", "regex"] {
        assert!(refused(&two(key, key)).contains("is there twice"), "{key}");
    }
}

#[test]
fn terms_without_a_coding_are_warned_of() {
    let site = |site: &str, route: &str| {
        format!(
            "[[site]]\nnames = ['a.test']\nupstream = 'http://u'\n{site}\n\
             [[site.route]]\npath = '/a/'\n{route}\n"
        )
    };
    let (terms, codings) = ("compression_minimum = '1B'", "compression = ['gzip']");
    let defaults = |text: &str| format!("[defaults]\n{text}\n");
    for (text, expected) in [
        (site("", ""), 0),
        (site(terms, ""), 1),
        (site("", terms), 1),
        (site(terms, terms), 2),
        (site(terms, codings), 0),
        (site(codings, terms), 0),
        (site("compression = []", terms), 0),
        (defaults(terms) + &site("", ""), 1),
        (defaults(terms) + &site("", codings), 0),
        (defaults(codings) + &site(terms, terms), 0),
    ] {
        let said = parse(&text).unwrap().warnings.to_string();
        let count = said.matches("nothing is compressed").count();
        assert_eq!(count, expected, "{text}\n{said}");
    }
}

#[test]
fn compression_is_inherited_key_by_key() {
    let config = parse(
        "
[defaults]
compression = ['gzip']
compression_minimum = '1B'
[[site]]
names = ['a.test']
upstream = 'http://u'
compression_types = ['text/html']
[[site.route]]
path = '/none/'
compression = []
[[site.route]]
path = '/br/'
compression = ['br', 'gzip', 'br']
compression_effort = 'high'
",
    )
    .unwrap();
    let site = &config.sites[0];
    let of = |path: &str| {
        let mut routes = site.routes.iter();
        let route = routes.find(|route| route.matcher.to_string() == path);
        route.unwrap().rules.compression.finish()
    };
    let [root, br] = ["/", "/br/"].map(|path| of(path).unwrap());
    assert_eq!(root.codings, [Coding::Gzip]);
    assert_eq!(br.codings, [Coding::Brotli, Coding::Gzip]);
    for terms in [&root, &br] {
        assert_eq!(terms.minimum, 1);
        assert_eq!(terms.types.len(), 1);
    }
    assert_eq!((root.effort, br.effort), (Effort::Medium, Effort::High));
    assert_eq!(of("/none/"), None);
}

/// What is warned of in a configuration that can be used.
fn warned(text: &str) -> String {
    let config = parse(text).unwrap_or_else(|report| panic!("{text}\n{report}"));
    config.warnings.to_string()
}

#[test]
fn what_is_hardly_meant_is_said() {
    for (lines, words) in [
        (
            "regex = '^/'\nrespond = 200\n[[site.route]]\nregex = '^/a'\nrespond = 200",
            "the `regex` on line 12 takes all paths; write this one before it",
        ),
        (
            "regex = '.*'\nrespond = 200\n[[site.route]]\npath = '/a/'\nrespond = 200",
            "take it out, or write `final = true` here",
        ),
        ("regex = '^a'\nrespond = 200", "no path matches"),
        ("regex = 'a[?]b'\nrespond = 200", "without the query"),
        ("regex = 'a%20b'\nrespond = 200", "percent-decoded"),
        (
            "path = '/admin/'\nallow = ['10.0.0.0/8']",
            "write `path = \"/admin\"`, which covers both",
        ),
        (
            "path = '/admin/'\nmaintenance = true",
            "`/admin` itself is open to all",
        ),
        (
            "path = '/a'\n[[site.route]]\npath = '/a'\nwhen = { '{header:X}' = '.' }",
            "the one on line 12 has no conditions and takes the same paths; write this one before it",
        ),
        (
            "regex = '/a'\nwhen = { '{header:X}' = '.' }\n\
             [[site.route]]\nregex = '/a'\nwhen = { '{header:X}' = '.' }",
            "the one on line 12 has the same paths and conditions",
        ),
        (
            "when = { '{header:User-Agent}' = 'Mobile' }\nredirect = '/m/'",
            "leads back to itself",
        ),
        (
            "path = '/a'\nrequest_headers.set = { 'X' = '{ja4}' }",
            "write `ja4 = true` in `[tls]`",
        ),
        (
            "path = '/a'\nredirect = '/b?{request_id}'",
            "write `request_id = \"X-Request-Id\"`",
        ),
        (
            "path = '/a'\nredirect = '/a{rest}'",
            "a client is sent to `https://b.test/a/~something`, and from there again",
        ),
        ("path = '/a'\nredirect = '{uri}'", "leads back to itself"),
        ("exact = '/a'\nredirect = '/a?b'", "leads back to itself"),
        (
            "path = '/a/'\nredirect = 'https://b.test:443/a/x/{rest}'",
            "leads back to itself",
        ),
        (
            "regex = '^/a'\nredirect = '{scheme}://{host}{path}'",
            "leads back to itself",
        ),
    ] {
        let said = warned(&route(lines));
        assert!(said.contains(words), "{lines}\n{said}");
    }
    let site = |names: &str, to: &str| format!("[[site]]\nnames = {names}\nredirect = '{to}'\n");
    for text in [
        site("['a.test', 'www.a.test']", "https://www.a.test{uri}"),
        site("['a.test']", "https://www.a.test{uri}")
            + &site("['www.a.test']", "https://a.test{uri}"),
        site("['*.a.test']", "https://www.a.test/"),
        site("['*']", "https://{host}/{rest}"),
    ] {
        let said = warned(&with(&text));
        assert!(said.contains("leads back to itself"), "{text}\n{said}");
    }
    let said = warned(&with(
        "[listen]\nhttps = []\nhttp = ['[::]:80']\n[[site]]\nnames = ['c.test']\nrespond = 200",
    ));
    assert!(said.contains("no site is ever served"), "{said}");
    let said = warned(&with(
        "[[site]]\nnames = ['c.test']\n[[site.route]]\nregex = 'x'\nrespond = 200\n\
         [[site.route]]\npath = '/'\nfinal = true\nrespond = 200",
    ));
    assert!(said.contains("take that out"), "{said}");
}

#[test]
fn what_is_well_meant_is_not_warned_of() {
    for lines in [
        "regex = '^/'\n[[site.route]]\npath = '/static/'\nfinal = true",
        "regex = '^/a'\n[[site.route]]\nregex = '^/'",
        "path = '/admin'\nallow = ['10.0.0.0/8']",
        "path = '/admin/'\nallow = ['10.0.0.0/8']\n[[site.route]]\nexact = '/admin'\nallow = ['10.0.0.0/8']",
        "path = '/admin/'\nallow = ['10.0.0.0/8']\n[[site.route]]\nexact = '/admin'\nredirect = '/admin/'",
        "path = '/admin/'\nallow = []",
        "path = '/a'\nrequest_headers.set = { 'X' = '{request_id}' }",
        "path = '/a'\nrequest_id = 'X-Id'\nredirect = '/b?{request_id}'",
        "path = '/a'\nredirect = '/b{rest}'",
        "path = '/a'\nredirect = 'https://a.test{uri}'",
        "path = '/a'\nredirect = 'https://b.test:8443{uri}'",
        "path = '/'\nredirect = '/en{uri}'\n[[site.route]]\npath = '/en/'",
        "path = '/'\nredirect = '/{cookie:lang}{uri}'\n[[site.route]]\npath = '/en/'",
        "path = '/v1/'\nredirect = '/{rest}'",
        "when = { '{scheme}' = '^http$' }\nredirect = 'https://{host}{uri}'",
        "when = { '{cookie:new}' = '^$' }\nredirect = '{uri}'",
        "path = '/a'\nwhen = { '{header:X}' = '.' }\n[[site.route]]\npath = '/a'",
        "regex = '^/'\nwhen = { '{header:X}' = '.' }\n[[site.route]]\nregex = '^/a'",
        "path = '/admin/'\nallow = ['10.0.0.0/8']\n[[site.route]]\nexact = '/admin'\n\
         unless = { '{client_address}' = '^10[.]' }\nrespond = 403",
        "regex = '^/old/(?<name>.*)$'\nredirect = '/{name}'",
    ] {
        let lines = match lines.starts_with("path = '/'") {
            true => with(&format!(
                "[[site]]\nnames = ['b.test']\n[[site.route]]\n{lines}{}",
                if lines.contains("'/en/'") {
                    "\nrespond = 200"
                } else {
                    ""
                }
            )),
            false => route(lines),
        };
        assert_eq!(warned(&lines), "", "{lines}");
    }
    let ja4 = "[tls]\nja4 = true\n[defaults.response_headers]\nset = { 'X' = '{ja4}' }";
    assert_eq!(warned(&with(ja4)), "");
}
