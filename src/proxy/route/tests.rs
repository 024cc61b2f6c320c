//! Which route a path leads to.

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::config;
use crate::http::parse;
use crate::proxy::rules::testing::peer;

fn config(text: &str) -> Config {
    config::parse(text, std::path::Path::new("/s.toml")).unwrap()
}

fn build(config: &Config) -> Table {
    let upstreams = Upstreams::build(
        &config.upstreams,
        &config.timeouts,
        &Arc::default(),
        &Clock::system(),
        &Upstreams::default(),
    );
    Table::build(config, &upstreams, &Material::default())
}

fn table(names: &[&str]) -> Table {
    let site = |names: &&str| format!("[[site]]\nnames = {names}\nrespond = 200\n");
    build(&config(&names.iter().map(site).collect::<String>()))
}

#[test]
fn an_exact_name_comes_before_a_wildcard_before_any() {
    let table = table(&["['*']", "['*.example.com']", "['a.example.com']"]);
    let find = |host| table.find(host).map(SiteIndex::get);
    assert_eq!(find("a.example.com"), Some(2));
    assert_eq!(find("b.example.com"), Some(1));
    assert_eq!(find("a.b.example.com"), Some(0));
    assert_eq!(find("example.com"), Some(0));
    assert_eq!(table.nameless().map(SiteIndex::get), Some(0));
}

#[test]
fn without_a_site_for_any_an_unknown_host_has_none() {
    let table = table(&["['a.test']"]);
    assert_eq!(table.find("b.test"), None);
}

/// Which body a site answers with.
fn body(table: &Table, target: &str) -> Result<String, Refusal> {
    asked(table, target, "")
}

fn asked(table: &Table, target: &str, fields: &str) -> Result<String, Refusal> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
    let head = parse::complete(parse::request(head.as_bytes(), 100)).unwrap();
    let peer = peer();
    let client = peer.client.ip();
    let (route, _) = table.sites()[0].route(Asked {
        head: &head,
        peer: &peer,
        identity: None,
        client,
    })?;
    match &route.action {
        Action::Respond(Respond {
            body: Some(config::Body::Text(body)),
            ..
        }) => Ok(body.to_string()),
        Action::Respond(_) => Ok(String::new()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn exact_goes_before_expressions_before_the_longest_prefix() {
    let route = |key: &str, path: &str, body: &str| {
        format!("[[site.route]]\n{key} = '{path}'\nrespond = 200\nbody = '{body}'\n")
    };
    let table = build(&config(
        &["[[site]]\nnames = ['a.test']\n".to_owned()]
            .into_iter()
            .chain([
                route("path", "/", "root"),
                route("path", "/img/", "img"),
                route("path", "/static/", "static") + "final = true\n",
                route("regex", "[.]png$", "png"),
                route("regex", "(?i)[.]PNG$", "never"),
                route("exact", "/img/one.png", "one"),
                route("path", "/caf%C3%A9/", "coffee"),
                route("starts_with", "/ad", "ad"),
                route("path", "/ad", "segment"),
                route("starts_with", "/a/.", "hidden"),
            ])
            .collect::<String>(),
    ));
    for (target, expected) in [
        ("/", "root"),
        ("/img", "root"),
        ("/img/", "img"),
        ("/img/one.png", "one"),
        ("/img/o%6ee.png?x", "one"),
        ("/img//one.png", "one"),
        ("/img/one.png/", "img"),
        ("/img/two.png", "png"),
        ("/x.PNG", "never"),
        ("/img/two.%70ng", "png"),
        ("/img/two.png?.jpg", "png"),
        ("/img/two.jpg?.png", "img"),
        ("/static/two.png", "static"),
        ("/caf%C3%A9/x", "coffee"),
        ("/caf%c3%a9/x", "coffee"),
        ("/ad", "segment"),
        ("/ad/x", "segment"),
        ("/a%64min/x", "ad"),
        ("/x/../admin.png", "png"),
        ("/a/.git", "hidden"),
        ("/a/./git", "root"),
    ] {
        assert_eq!(body(&table, target).unwrap(), expected, "{target}");
    }
    assert_eq!(body(&table, "/../x"), Err(Refusal::Path));
}

/// One route of a model, and what is asked of it.
#[derive(Clone, Debug)]
struct Line {
    matcher: &'static str,
    when: Option<&'static str>,
    unless: Option<&'static str>,
    last: bool,
}

impl Line {
    fn text(&self, index: usize) -> String {
        let condition = |key: &str, name: Option<&str>| match name {
            Some(name) => format!("{key} = {{ '{{header:{name}}}' = '.' }}\n"),
            None => String::new(),
        };
        let last = if self.last { "final = true\n" } else { "" };
        format!(
            "[[site.route]]\n{}\n{}{}{last}respond = 200\nbody = '{index}'\n",
            self.matcher,
            condition("when", self.when),
            condition("unless", self.unless),
        )
    }

    /// Which kind it is, and how long its path is, where it is for this request.
    fn rank(&self, path: &str, fields: &str) -> Option<(u8, usize)> {
        let has = |name: &str| fields.contains(&format!("{name}: "));
        if self.when.is_some_and(|name| !has(name)) || self.unless.is_some_and(has) {
            return None;
        }
        let text = self.matcher.split('\'').nth(1).unwrap_or_default();
        match self.matcher.split(' ').next()? {
            "path" => is_below(text, path).then_some((1, 2 * text.len() + 1)),
            "starts_with" => path.starts_with(text).then_some((1, 2 * text.len())),
            "exact" => (text == path).then_some((3, 0)),
            "regex" => path.contains(text).then_some((2, 0)),
            _ => Some((4, 0)),
        }
    }
}

fn is_below(prefix: &str, path: &str) -> bool {
    path == prefix
        || path.starts_with(prefix)
            && (prefix.ends_with('/') || path[prefix.len()..].starts_with('/'))
}

/// Of those that are for a request, the one of the highest rank, the first of several.
fn expected(lines: &[Line], path: &str, fields: &str) -> Option<usize> {
    let mut best: Option<((u8, usize), usize)> = None;
    let ranks =
        || (lines.iter().enumerate()).filter_map(|(at, line)| Some((line.rank(path, fields)?, at)));
    for (rank, at) in ranks().filter(|(rank, _)| rank.0 == 1) {
        if best.is_none_or(|(before, _)| rank > before) {
            best = Some((rank, at));
        }
    }
    let last = best.is_some_and(|(_, at)| lines[at].last);
    for (rank, at) in ranks().filter(|(rank, _)| rank.0 > if last { 2 } else { 1 }) {
        if best.is_none_or(|(before, _)| rank > before) {
            best = Some((rank, at));
        }
    }
    best.map(|(_, at)| at)
}

fn line() -> impl Strategy<Value = Line> {
    let matcher = prop::sample::select(vec![
        "",
        "path = '/'",
        "path = '/a'",
        "path = '/a/'",
        "path = '/a/b'",
        "starts_with = '/a'",
        "starts_with = '/a/b'",
        "exact = '/a/b'",
        "exact = '/'",
        "regex = 'b'",
        "regex = '/a'",
    ]);
    let name = || prop::option::of(prop::sample::select(vec!["X-One", "X-Two"]));
    (matcher, name(), name(), any::<bool>()).prop_map(|(matcher, when, unless, last)| Line {
        when: when.or_else(|| (matcher.is_empty() && unless.is_none()).then_some("X-One")),
        matcher,
        unless,
        last: last && (matcher.starts_with("path") || matcher.starts_with("starts_with")),
    })
}

proptest! {
    #[test]
    fn the_order_of_routes_is_the_one_of_the_rule(mut lines in prop::collection::vec(line(), 1..9)) {
        let mut plain = std::collections::HashSet::new();
        lines.retain(|line| {
            line.when.is_some() || line.unless.is_some() || plain.insert(line.matcher)
        });
        let routes: String = lines.iter().enumerate().map(|(at, line)| line.text(at)).collect();
        let table = build(&config(&format!("[[site]]\nnames = ['a.test']\n{routes}")));
        for path in ["/", "/a", "/ab", "/a/", "/a/b", "/a/bc", "/a/b/c", "/b", "/c"] {
            for fields in ["", "X-One: 1\r\n", "X-Two: 1\r\n", "X-One: 1\r\nX-Two: 1\r\n"] {
                let expected = expected(&lines, path, fields);
                let expected = expected.ok_or(Refusal::NoRoute).map(|at| at.to_string());
                prop_assert_eq!(asked(&table, path, fields), expected, "{} {}\n{}", path, fields, routes);
            }
        }
    }
}
