//! Frontends: addresses, certificates, and the rules that say who answers.

use std::collections::BTreeSet;
use std::fs;

use super::condition::{All, Lists, Test, lists, of};
use super::format::line;
use super::parse::{Line, Section};
use super::rule::{Act, rewritten};
use super::{Import, array, quoted};
use crate::import::Loss;
use crate::import::site::{CLOSED, Deed, Matcher, Route, Rules, Site};

/// One rule, in its order.
struct Rule<'s> {
    line: &'s Line,
    alternatives: Vec<All>,
    act: Act,
}

/// What is left to ask where the host is known.
enum Left {
    /// Nothing.
    Everything,
    /// One of these paths.
    Paths(Vec<Matcher>),
    /// Clients, and where.
    Clients {
        inside: bool,
        nets: Vec<String>,
        paths: Option<Vec<Matcher>>,
    },
    /// What is not known here, and where.
    Unknown(String, Option<Vec<Matcher>>),
}

impl Import {
    pub(super) fn frontend(&mut self, section: &Section) {
        let mode = section.last("mode").or_else(|| self.inherited("mode"));
        let tcp = mode.is_some_and(|mode| mode.word(1) == "tcp");
        let (mut secure, mut plain, mut tls) = (Vec::new(), Vec::new(), Vec::new());
        for bind in section.all("bind") {
            let addresses = bind.word(1).split(',').map(address);
            let Some(addresses) = addresses.collect::<Option<Vec<_>>>() else {
                self.tell(
                    bind,
                    Loss::Real,
                    "staunch listens on IP addresses; write one in [listen]",
                );
                continue;
            };
            self.seen(bind);
            if bind.has("accept-proxy") {
                self.proxy_from
                    .extend(["0.0.0.0/0", "::/0"].map(str::to_owned));
                let advice = "anybody may send a PROXY header: name the balancers in \
                              listen.proxy_protocol_from";
                self.tell(bind, Loss::Slight, advice);
            }
            match bind.has("ssl") {
                true => {
                    secure.extend(addresses);
                    self.bind_tls(bind, &mut tls);
                }
                false => plain.extend(addresses),
            }
        }
        if tcp {
            let piece = format!("{} {}", section.kind, section.name);
            let advice = "passes bytes of any protocol on: write a [[stream]], see docs/streams.md";
            self.note(&section.place, piece, Loss::Real, advice);
            return section.lines.iter().for_each(|line| self.seen(line));
        }
        self.http.extend(plain.iter().cloned());
        if secure.is_empty() {
            return self.plain(section);
        }
        self.https.extend(secure);
        self.sites(section, &tls);
    }

    /// Without TLS: its addresses redirect, and what else it did is told.
    fn plain(&mut self, section: &Section) {
        for line in &section.lines {
            let redirect = line.has("redirect") && line.after("scheme") == Some("https");
            let (loss, advice) = match line.word(0) {
                _ if redirect => (
                    Loss::None,
                    "plain-text addresses redirect to https by themselves, with 308",
                ),
                "bind" | "mode" | "acl" | "option" | "log" | "timeout" | "maxconn" => continue,
                "server" | "balance" if section.kind == "listen" => (
                    Loss::Real,
                    "was served in plain text; that is not done here",
                ),
                "stats" => (Loss::Slight, "see /metrics at the admin address"),
                _ => (
                    Loss::Real,
                    "was done in plain text; these addresses only redirect to https now",
                ),
            };
            self.tell(line, loss, advice);
        }
    }

    /// What `bind` says of TLS.
    fn bind_tls(&mut self, bind: &Line, tls: &mut Vec<String>) {
        self.bind_options(bind);
        for (at, word) in bind.words.iter().enumerate() {
            let file = bind.word(at + 1);
            match word.as_str() {
                "crt" => self.certificate(file, &bind.place),
                "crt-list" => self.certificate_list(bind, file),
                _ => {}
            }
        }
        if let Some(ca) = bind.after("ca-file") {
            let mode = match bind.after("verify") {
                Some("required") => "required",
                Some("optional") => "optional",
                _ => return,
            };
            let mut text = format!("mode = \"{mode}\", ca = {}", quoted(&self.absolute(ca)));
            if let Some(crl) = bind.after("crl-file") {
                text += &format!(", crl = {}", quoted(&self.absolute(crl)));
            }
            tls.push(format!(
                "client_certificates = {{ {text} }}  # from {}",
                bind.place
            ));
        }
    }

    fn certificate_list(&mut self, bind: &Line, file: &str) {
        let path = self.absolute(file);
        let Ok(text) = fs::read_to_string(&path) else {
            let advice = format!("{path} cannot be read: add its certificates yourself");
            return self.tell(bind, Loss::Real, advice);
        };
        for line in text.lines() {
            let line = line.trim();
            let Some(certificate) = line.split_whitespace().next() else {
                continue;
            };
            if certificate.starts_with('#') {
                continue;
            }
            self.certificate(certificate, &bind.place);
            if line.contains('[') {
                let advice = format!("{path}: options of one certificate are not carried over");
                self.tell(bind, Loss::Slight, advice);
            }
        }
    }

    /// A site for each host that a rule goes by, and one for the rest.
    fn sites(&mut self, section: &Section, tls: &[String]) {
        let lists = lists(section);
        let rules = self.rules(section, &lists);
        let mut hosts: BTreeSet<String> = BTreeSet::new();
        for term in rules
            .iter()
            .flat_map(|rule| rule.alternatives.iter().flatten())
        {
            if let Test::Host(names) = &term.test {
                hosts.extend(names.iter().cloned());
            }
        }
        hosts.insert("*".to_owned());
        let default = section
            .last("default_backend")
            .or_else(|| self.inherited("default_backend"));
        let default = default.cloned();
        let own = section.kind == "listen" && section.all("server").next().is_some();
        let default = match (&default, own) {
            (Some(line), _) => {
                self.seen(line);
                Some(line.word(1).to_owned())
            }
            (None, true) => Some(section.name.clone()),
            (None, false) => None,
        };
        let mut found: Vec<(Vec<String>, Vec<Route>)> = Vec::new();
        for host in hosts {
            let routes = self.routes(section, &rules, &host, default.as_deref());
            if routes.is_empty() {
                continue;
            }
            if !self.names.insert(host.clone()) {
                let advice = format!("{host}: another frontend has this name already");
                let piece = format!("frontend {}", section.name);
                self.note(&section.place, piece, Loss::Real, advice);
                continue;
            }
            let alike = |routes: &[Route]| format!("{routes:?}");
            match found
                .iter_mut()
                .find(|(_, known)| alike(known) == alike(&routes))
            {
                Some((names, _)) => names.push(host),
                None => found.push((vec![host], routes)),
            }
        }
        for (names, routes) in found {
            let mut site = Site {
                place: section.place.clone(),
                default: names.iter().any(|name| name == "*"),
                names,
                tls: tls.to_vec(),
                routes,
            };
            if !site.settle() {
                let piece = format!("{} {}", section.kind, section.name);
                let advice = "compression differs between its backends, and is of a whole site \
                              here: none is compressed; see compression";
                self.note(&section.place, piece, Loss::Real, advice);
            }
            self.sites.push_str(&site.text());
        }
    }

    /// The rules of a section, in the order in which they are asked.
    fn rules<'s>(&mut self, section: &'s Section, lists: &Lists) -> Vec<Rule<'s>> {
        let mut rules = Vec::new();
        for line in &section.lines {
            let act = match (line.word(0), line.word(1)) {
                ("http-request" | "http-response", _) => self.request_rule(line),
                ("redirect", _) => self.redirect(line, 1),
                ("tcp-request", "connection" | "content" | "session") => match line.word(2) {
                    "reject" => Some(Act::Deny(403)),
                    "accept" | "inspect-delay" => {
                        self.tell(line, Loss::None, "there is nothing to wait for");
                        None
                    }
                    _ => None,
                },
                ("block", _) => Some(Act::Deny(403)),
                ("monitor-uri", path) => {
                    self.seen(line);
                    let all = vec![super::condition::Term {
                        not: false,
                        test: Test::Exact(vec![path.to_owned()]),
                    }];
                    rules.push(Rule {
                        line,
                        alternatives: vec![all],
                        act: Act::Answer(vec!["respond = 200".to_owned()]),
                    });
                    None
                }
                _ => None,
            };
            if let Some(act) = act {
                self.seen(line);
                let alternatives = of(line, lists);
                rules.push(Rule {
                    line,
                    alternatives,
                    act,
                });
            }
        }
        // They come behind all of those.
        for line in section.all("use_backend") {
            self.seen(line);
            let alternatives = of(line, lists);
            let act = Act::Use(line.word(1).to_owned());
            rules.push(Rule {
                line,
                alternatives,
                act,
            });
        }
        rules
    }

    /// The routes of one host, in their order.
    fn routes(
        &mut self,
        section: &Section,
        rules: &[Rule<'_>],
        host: &str,
        default: Option<&str>,
    ) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        let mut common = self.compression(section);
        let mut guards = Vec::new();
        let mut done = false;
        for rule in rules {
            for all in &rule.alternatives {
                let Some(left) = left(all, host) else {
                    continue;
                };
                if done && !matches!(rule.act, Act::Fields(_)) {
                    continue;
                }
                match (&rule.act, left) {
                    (Act::Fields(fields), Left::Everything) => common.extend(fields.clone()),
                    (Act::Fields(_), _) => {
                        let advice = "changed fields of some requests; write it at a route";
                        self.tell(rule.line, Loss::Real, advice);
                    }
                    (
                        Act::Deny(_),
                        Left::Clients {
                            inside,
                            nets,
                            paths,
                        },
                    ) => {
                        guards.push((paths, if inside { "deny" } else { "allow" }, array(&nets)));
                    }
                    (act, Left::Everything) => {
                        self.push(&mut routes, rule.line, act, Matcher::Prefix("/".to_owned()));
                        done = true;
                    }
                    (act, Left::Paths(paths)) => {
                        for path in paths {
                            self.push(&mut routes, rule.line, act, path);
                        }
                    }
                    (Act::Deny(_), Left::Unknown(what, paths)) => {
                        let counts = ["sc_", "sc0_", "sc1_", "src_", "be_conn", "fe_", "nbsrv"];
                        if counts.iter().any(|count| what.contains(count)) {
                            let advice = "bounded rates; see limits.client_rate and a site's rate";
                            self.tell(rule.line, Loss::Real, advice);
                            continue;
                        }
                        let advice = format!(
                            "refused requests by what cannot be asked here ({what}): what it may \
                             have been for is closed until you have decided how"
                        );
                        self.tell(rule.line, Loss::Real, advice);
                        let root = || vec![Matcher::Prefix("/".to_owned())];
                        done |= paths.is_none();
                        for path in paths.unwrap_or_else(root) {
                            self.push(&mut routes, rule.line, &Act::Deny(0), path);
                        }
                    }
                    (_, Left::Unknown(what, _)) => {
                        let advice = format!("goes by what cannot be asked here ({what})");
                        self.tell(rule.line, Loss::Real, advice);
                    }
                    (_, Left::Clients { .. }) => {
                        let advice = "goes by the client's address, which only allow and deny do";
                        self.tell(rule.line, Loss::Real, advice);
                    }
                }
            }
        }
        if !done {
            // What no rule is for, and no name either, is refused by itself.
            let Some(default) = default else {
                if host == "*" && routes.is_empty() {
                    return routes;
                }
                routes.push(closed(section, "respond = 503"));
                return self.guarded(routes, common, guards);
            };
            let line = Line {
                words: vec!["default_backend".to_owned(), default.to_owned()],
                place: section.place.clone(),
            };
            let act = Act::Use(default.to_owned());
            self.push(&mut routes, &line, &act, Matcher::Prefix("/".to_owned()));
        }
        self.guarded(routes, common, guards)
    }

    /// Adds a route, unless an earlier one takes all that it is for.
    fn push(&mut self, routes: &mut Vec<Route>, rule: &Line, act: &Act, matcher: Matcher) {
        let shadowed = routes
            .iter()
            .any(|earlier| match (&earlier.matcher, &matcher) {
                (Matcher::Prefix(one), Matcher::Prefix(two) | Matcher::Exact(two)) => {
                    two.starts_with(one.as_str())
                }
                (one, two) => one == two,
            });
        if shadowed {
            return;
        }
        if matches!(matcher, Matcher::Regex(_)) {
            // What comes before an expression is not to be taken by it.
            for earlier in routes.iter_mut() {
                earlier.last |= matches!(earlier.matcher, Matcher::Prefix(_));
            }
        }
        let mut rules = Rules::default();
        let (deed, action) = match act {
            Act::Use(name) => match self.backend(name) {
                Some(upstream) => {
                    let mut action = vec![line("upstream", &upstream)];
                    action.extend(self.backend_rules(name, &matcher, &mut rules));
                    (Deed::Forward, action)
                }
                None => match self.backend_answer(name) {
                    Some(lines) => (Deed::Answer, lines),
                    None => {
                        let advice = "leads to no server that is known: it is closed";
                        self.tell(rule, Loss::Real, advice);
                        (Deed::Closed, vec![CLOSED.to_owned()])
                    }
                },
            },
            Act::Answer(lines) => (Deed::Answer, lines.clone()),
            Act::Deny(0) => {
                if rule.word(1) == "auth" {
                    let advice = "asked for a password: it is closed until you have decided how";
                    self.tell(rule, Loss::Real, advice);
                }
                (Deed::Closed, vec![CLOSED.to_owned()])
            }
            Act::Deny(status) => (Deed::Answer, vec![format!("respond = {status}")]),
            Act::Fields(_) => return,
        };
        let route = Route {
            place: rule.place.clone(),
            matcher,
            last: false,
            deed,
            action,
            rules,
        };
        if let Matcher::Prefix(path) = &route.matcher
            && !path.ends_with('/')
        {
            match act {
                Act::Deny(_) => routes.push(Route {
                    matcher: Matcher::Regex(format!("^{}[^/]", regex::escape(path))),
                    ..route.clone()
                }),
                _ => {
                    let advice =
                        format!("matches {path} and {path}/…; in HAProxy {path}… of any kind");
                    self.tell(rule, Loss::Slight, advice);
                }
            }
        }
        routes.push(route);
    }

    /// What a backend answers by itself.
    fn backend_answer(&mut self, name: &str) -> Option<Vec<String>> {
        let section = self.backends.get(name).cloned()?;
        for rule in section.all("http-request") {
            match self.request_rule(rule) {
                Some(Act::Answer(lines)) => {
                    self.seen(rule);
                    return Some(lines);
                }
                Some(Act::Deny(status)) if status > 0 => {
                    self.seen(rule);
                    return Some(vec![format!("respond = {status}")]);
                }
                _ => {}
            }
        }
        None
    }

    /// What a backend does with its requests; `Some`: how their path is written anew.
    fn backend_rules(
        &mut self,
        name: &str,
        matcher: &Matcher,
        rules: &mut Rules,
    ) -> Option<String> {
        let section = self.backends.get(name).cloned()?;
        rules.extend(self.compression(&section));
        if section.kind == "listen" {
            return None;
        }
        let mut rewrite = None;
        for rule in &section.lines {
            if !matches!(rule.word(0), "http-request" | "http-response" | "redirect") {
                continue;
            }
            let always = !rule.has("if") && !rule.has("unless");
            match (rule.word(1), always) {
                ("replace-path" | "set-path" | "replace-uri" | "set-uri", true) => {
                    rewrite = rewritten(rule, matcher);
                    match rewrite {
                        Some(_) => self.seen(rule),
                        None => self.tell(rule, Loss::Real, "see rewrite and replace_prefix"),
                    }
                }
                (_, true) => match self.request_rule(rule) {
                    Some(Act::Fields(fields)) => {
                        self.seen(rule);
                        rules.extend(fields);
                    }
                    Some(_) => self.tell(rule, Loss::Real, "is not done in front of a server here"),
                    None => {}
                },
                (_, false) => {
                    let tls = rule.words.join(" ").replace(['{', '}', ' '], "");
                    match tls.ends_with("ifssl_fc") || rule.has("scheme") {
                        true => match self.request_rule(rule) {
                            Some(Act::Fields(fields)) => {
                                self.seen(rule);
                                rules.extend(fields);
                            }
                            _ => self.seen(rule),
                        },
                        false => self.tell(rule, Loss::Real, "holds for some requests only"),
                    }
                }
            }
        }
        rewrite
    }

    /// Who is let in, at the routes that it is for; and what holds for all.
    fn guarded(
        &self,
        mut routes: Vec<Route>,
        common: Rules,
        guards: Vec<(Option<Vec<Matcher>>, &'static str, String)>,
    ) -> Vec<Route> {
        for (paths, _, _) in &guards {
            for path in paths.iter().flatten() {
                if routes.iter().any(|route| route.matcher == *path) {
                    continue;
                }
                let Matcher::Prefix(wanted) = path else {
                    continue;
                };
                // As what takes its requests now, without what makes a path anew.
                let taker = routes.iter().rfind(|route| {
                    matches!(&route.matcher, Matcher::Prefix(p) if wanted.starts_with(p.as_str()))
                });
                let copy = taker.map(|taker| Route {
                    matcher: path.clone(),
                    ..taker.clone()
                });
                routes.extend(copy);
            }
        }
        for (paths, key, nets) in guards {
            for route in &mut routes {
                let covered = paths.as_ref().is_none_or(|paths| {
                    paths.iter().any(|path| match (path, &route.matcher) {
                        (Matcher::Prefix(one), Matcher::Prefix(two) | Matcher::Exact(two)) => {
                            two.starts_with(one.as_str())
                        }
                        // Some of its paths may be.
                        (Matcher::Prefix(_), Matcher::Regex(_)) => route.deed == Deed::Forward,
                        (one, two) => one == two,
                    })
                });
                if covered {
                    route.rules.insert(key, nets.clone());
                }
            }
        }
        for route in &mut routes {
            let mut rules = common.clone();
            rules.extend(std::mem::take(&mut route.rules));
            route.rules = rules;
        }
        routes
    }
}

fn closed(section: &Section, action: &str) -> Route {
    Route {
        place: section.place.clone(),
        matcher: Matcher::Prefix("/".to_owned()),
        last: false,
        deed: Deed::Answer,
        action: vec![action.to_owned()],
        rules: Rules::default(),
    }
}

/// What is left to ask of a request for this host. `None`: it cannot hold.
fn left(all: &All, host: &str) -> Option<Left> {
    let (mut paths, mut unknown) = (None, None);
    let mut clients: Option<(bool, Vec<String>)> = None;
    for term in all {
        match &term.test {
            Test::Host(names) => {
                if is_one_of(host, names) == term.not {
                    return None;
                }
            }
            Test::Tls | Test::Always if term.not => return None,
            Test::Tls | Test::Always => {}
            Test::Client(nets) => match (&mut clients, term.not) {
                (None, not) => clients = Some((!not, nets.clone())),
                (Some((false, known)), true) => known.extend(nets.iter().cloned()),
                _ => unknown = Some("several networks at once".to_owned()),
            },
            Test::Unknown(what) => unknown = Some(what.clone()),
            _ if term.not || paths.is_some() => unknown = Some("several paths at once".to_owned()),
            Test::Exact(list) => paths = Some(list.iter().cloned().map(Matcher::Exact).collect()),
            Test::Prefix(list) => paths = Some(list.iter().cloned().map(Matcher::Prefix).collect()),
            Test::Regex(list) => match crate::import::pattern::all(list) {
                Some(list) => paths = Some(list.into_iter().map(Matcher::Regex).collect()),
                None => unknown = Some(list.join(" ")),
            },
        }
    }
    Some(match (unknown, clients, paths) {
        (Some(what), _, paths) => Left::Unknown(what, paths),
        (None, Some((inside, nets)), paths) => Left::Clients {
            inside,
            nets,
            paths,
        },
        (None, None, Some(paths)) => Left::Paths(paths),
        (None, None, None) => Left::Everything,
    })
}

fn is_one_of(host: &str, names: &[String]) -> bool {
    names.iter().any(|name| match name.strip_prefix('*') {
        Some(end) => host == name || !host.starts_with('*') && host.ends_with(end),
        None => host == name,
    })
}

/// An address to listen on, as staunch writes it.
fn address(text: &str) -> Option<String> {
    let text = text.trim_start_matches("ipv4@").trim_start_matches("ipv6@");
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let host = match host {
        "" | "*" | "0.0.0.0" => "0.0.0.0".to_owned(),
        "::" | "[::]" => "[::]".to_owned(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let address: std::net::SocketAddr = format!("{host}:{port}").parse().ok()?;
    Some(address.to_string())
}
