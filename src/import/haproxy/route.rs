//! Routes: what becomes of the requests for one host, by their paths.

use std::collections::BTreeSet;

use super::condition::{All, Test};
use super::format::line;
use super::inner::ANSWERS;
use super::parse::{Line, Section};
use super::rule::{Act, counted, rewritten};
use super::{Import, array};
use crate::import::Loss;
use crate::import::formula::{self, Ask, Term};
use crate::import::site::{CLOSED, Deed, Matcher, Route, Rules};

/// Where something holds; `None`: everywhere.
type Places = Option<Vec<Matcher>>;

/// One rule, in its order.
pub(super) struct Rule<'s> {
    pub(super) line: &'s Line,
    pub(super) alternatives: Vec<All>,
    pub(super) act: Act,
}

impl Rule<'_> {
    /// Whether it is for some requests by more than their path, so that the order of rules matters.
    fn is_by_order(&self) -> bool {
        let denies = matches!(self.act, Act::Deny(_));
        self.alternatives
            .iter()
            .flatten()
            .any(|term| match term.test {
                Test::Value { .. } => true,
                Test::Client(_) => !denies && !matches!(self.act, Act::Fields(_)),
                _ => false,
            })
    }
}

/// A rule with conditions, which goes before what comes later for narrower paths.
struct Asked {
    line: Line,
    act: Act,
    conditions: formula::All,
    path: String,
}

impl Asked {
    fn is_before(&self, matcher: &Matcher) -> bool {
        match matcher {
            Matcher::Prefix(path) => path.starts_with(&self.path) && *path != self.path,
            Matcher::Exact(path) => path.starts_with(&self.path),
            Matcher::Regex(_) => self.path == "/",
            Matcher::Any => false,
        }
    }
}

/// What is left to ask where the host is known.
enum Left {
    /// Nothing.
    Everything,
    /// One of these paths.
    Paths(Vec<Matcher>),
    /// Other conditions, and where.
    Some {
        all: formula::All,
        paths: Option<Vec<Matcher>>,
    },
    /// Clients, and where.
    Clients {
        inside: bool,
        nets: Vec<String>,
        paths: Option<Vec<Matcher>>,
    },
    /// What is not known here, and where.
    Unknown {
        what: String,
        paths: Option<Vec<Matcher>>,
        /// Clients that it is not for.
        except: Vec<String>,
        /// What is known of it.
        all: formula::All,
    },
}

impl Import {
    /// The routes of one host, in their order.
    pub(super) fn routes(
        &mut self,
        section: &Section,
        rules: &[Rule<'_>],
        host: &str,
        default: Option<&str>,
    ) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        let mut common = self.compression(section);
        let (mut guards, mut quotas) = (Vec::new(), Vec::new());
        let mut asked = Vec::new();
        let by_order = rules.iter().any(Rule::is_by_order);
        let mut done = false;
        for rule in rules {
            for all in &rule.alternatives {
                let Some(left) = left(all, host) else {
                    continue;
                };
                if done && !matches!(rule.act, Act::Fields(_)) {
                    continue;
                }
                let left = match left {
                    Left::Clients {
                        inside,
                        nets,
                        paths,
                    } if by_order && !matches!(rule.act, Act::Fields(_)) => Left::Some {
                        all: vec![Term {
                            not: !inside,
                            ask: Ask::Client(nets),
                        }],
                        paths,
                    },
                    left => left,
                };
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
                        let known = (&mut routes, &mut asked);
                        self.push(known, rule.line, act, None, formula::All::new());
                        done = true;
                    }
                    (act, Left::Paths(paths)) => {
                        for path in paths {
                            let known = (&mut routes, &mut asked);
                            self.push(known, rule.line, act, Some(path), formula::All::new());
                        }
                    }
                    (act, Left::Some { all, paths }) => {
                        for path in places(paths) {
                            let known = (&mut routes, &mut asked);
                            self.push(known, rule.line, act, path, all.clone());
                        }
                    }
                    (
                        Act::Deny(_),
                        Left::Unknown {
                            what,
                            paths,
                            except,
                            all,
                        },
                    ) => {
                        if counted(&what) {
                            let quota = self.quota(section, rule.line, &what, &except);
                            quotas.extend(quota.map(|quota| (paths, quota)));
                            continue;
                        }
                        let advice = format!(
                            "refused requests by what cannot be asked here ({what}): what it may \
                             have been for is closed until you have decided how"
                        );
                        self.tell(rule.line, Loss::Real, advice);
                        done |= paths.is_none() && all.is_empty();
                        for path in places(paths) {
                            let known = (&mut routes, &mut asked);
                            self.push(known, rule.line, &Act::Deny(0), path, all.clone());
                        }
                    }
                    (_, Left::Unknown { what, .. }) => {
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
                return guarded(routes, common, guards, quotas);
            };
            let line = Line {
                words: vec!["default_backend".to_owned(), default.to_owned()],
                place: section.place.clone(),
            };
            let act = Act::Use(default.to_owned());
            let known = (&mut routes, &mut asked);
            self.push(known, &line, &act, None, formula::All::new());
        }
        guarded(routes, common, guards, quotas)
    }

    /// Adds a route, unless an earlier one takes all that it is for.
    /// What else takes its requests first for other reasons is for its path too.
    fn push(
        &mut self,
        (routes, asked): (&mut Vec<Route>, &mut Vec<Asked>),
        rule: &Line,
        act: &Act,
        matcher: Option<Matcher>,
        conditions: formula::All,
    ) {
        let first = routes.iter().all(|route| route.matcher == Matcher::Any);
        let matcher = match matcher {
            Some(matcher) => matcher,
            None if first && !conditions.is_empty() => Matcher::Any,
            None => Matcher::Prefix("/".to_owned()),
        };
        let shadowed = routes
            .iter()
            .filter(|earlier| earlier.conditions.is_empty())
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
        for earlier in asked.iter().filter(|earlier| earlier.is_before(&matcher)) {
            let same = |route: &Route| {
                route.matcher == matcher
                    && route.place == earlier.line.place
                    && route.conditions == earlier.conditions
            };
            if routes.iter().any(same) {
                continue;
            }
            let conditions = earlier.conditions.clone();
            self.add(
                routes,
                &earlier.line,
                &earlier.act,
                matcher.clone(),
                conditions,
            );
        }
        if let Matcher::Prefix(path) = &matcher
            && !conditions.is_empty()
        {
            asked.push(Asked {
                line: rule.clone(),
                act: act.clone(),
                conditions: conditions.clone(),
                path: path.clone(),
            });
        }
        self.add(routes, rule, act, matcher, conditions);
    }

    fn add(
        &mut self,
        routes: &mut Vec<Route>,
        rule: &Line,
        act: &Act,
        matcher: Matcher,
        conditions: formula::All,
    ) {
        if let Act::Use(name) = act {
            for (line, act, terms) in self.answered_inside(name) {
                let mut all: formula::All = conditions.iter().cloned().chain(terms).collect();
                if Term::has_two_networks(&all) {
                    // Only one of them can be asked for: rather closed too far than open.
                    self.tell(&line, Loss::Real, "goes by two lists of clients at once");
                    all.truncate(conditions.len());
                    self.add(routes, &line, &Act::Deny(0), matcher.clone(), all);
                    continue;
                }
                self.add(routes, &line, &act, matcher.clone(), all);
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
            Act::Answer(lines, fields) => {
                rules.extend(fields.clone());
                (Deed::Answer, lines.clone())
            }
            Act::Deny(0) => {
                if rule.word(1) == "auth" {
                    let advice = "asked for a password: it is closed until you have written the \
                                  users of its list into a file, as `name:hash` with the hashes \
                                  as they are, and named that in basic_auth; see \
                                  docs/authentication.md";
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
            conditions,
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
        let always = |rule: &&Line| !rule.has("if") && !rule.has("unless");
        for rule in section.all("http-request").filter(always) {
            match self.request_rule(rule) {
                Some(Act::Answer(lines, _)) => {
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
                        // It has a route of its own.
                        false if ANSWERS.contains(&rule.word(1)) || rule.word(0) == "redirect" => {}
                        false => self.tell(rule, Loss::Real, "holds for some requests only"),
                    }
                }
            }
        }
        rewrite
    }
}

/// Who is let in, at the routes that it is for; and what holds for all.
fn guarded(
    mut routes: Vec<Route>,
    common: Rules,
    guards: Vec<(Places, &'static str, String)>,
    quotas: Vec<(Places, String)>,
) -> Vec<Route> {
    let places = guards.iter().map(|(paths, _, _)| paths);
    for paths in places.chain(quotas.iter().map(|(paths, _)| paths)) {
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
        for route in routes.iter_mut().filter(|route| covers(&paths, route)) {
            route.rules.insert(key, nets.clone());
        }
    }
    for route in &mut routes {
        let of = quotas.iter().filter(|(paths, _)| covers(paths, route));
        let names: BTreeSet<_> = of.map(|(_, name)| name).collect();
        if !names.is_empty() {
            route.rules.insert("quotas", array(names));
        }
    }
    for route in &mut routes {
        let mut rules = common.clone();
        rules.extend(std::mem::take(&mut route.rules));
        route.rules = rules;
    }
    routes
}

/// Whether a route is for paths that something holds for.
fn covers(paths: &Places, route: &Route) -> bool {
    paths.as_ref().is_none_or(|paths| {
        paths.iter().any(|path| match (path, &route.matcher) {
            (Matcher::Prefix(one), Matcher::Prefix(two) | Matcher::Exact(two)) => {
                two.starts_with(one.as_str())
            }
            // Some of its paths may be.
            (Matcher::Prefix(_), Matcher::Any | Matcher::Regex(_)) => route.deed == Deed::Forward,
            (one, two) => one == two,
        })
    })
}

fn closed(section: &Section, action: &str) -> Route {
    Route {
        place: section.place.clone(),
        matcher: Matcher::Prefix("/".to_owned()),
        conditions: Vec::new(),
        last: false,
        deed: Deed::Answer,
        action: vec![action.to_owned()],
        rules: Rules::default(),
    }
}

/// What is left to ask of a request for this host. `None`: it cannot hold.
fn left(all: &All, host: &str) -> Option<Left> {
    let (mut paths, mut unknown) = (None, None);
    let mut terms = formula::All::new();
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
            Test::Unknown(what) => {
                let not = if term.not { "!" } else { "" };
                unknown = Some(match unknown {
                    Some(before) => format!("{before}, {not}{what}"),
                    None => format!("{not}{what}"),
                });
            }
            Test::Value { of, pattern } => terms.push(Term::of(of, pattern.clone(), term.not)),
            test if term.not || paths.is_some() => match path_pattern(test) {
                Some(pattern) => terms.push(Term::of("{path}", pattern, term.not)),
                None => unknown = Some("several paths at once".to_owned()),
            },
            Test::Exact(list) => paths = Some(list.iter().cloned().map(Matcher::Exact).collect()),
            Test::Prefix(list) => paths = Some(list.iter().cloned().map(Matcher::Prefix).collect()),
            Test::Regex(list) => match crate::import::pattern::all(list) {
                Some(list) => paths = Some(list.into_iter().map(Matcher::Regex).collect()),
                None => unknown = Some(list.join(" ")),
            },
        }
    }
    Some(match (unknown, clients, paths) {
        (Some(what), clients, paths) => {
            let (what, except) = match clients {
                Some((false, nets)) => (what, nets),
                Some((true, _)) => (format!("{what}, src"), Vec::new()),
                None => (what, Vec::new()),
            };
            Left::Unknown {
                what,
                paths,
                except,
                all: terms,
            }
        }
        (None, clients, paths) if !terms.is_empty() => {
            terms.extend(clients.map(|(inside, nets)| Term {
                not: !inside,
                ask: Ask::Client(nets),
            }));
            Left::Some { all: terms, paths }
        }
        (None, Some((inside, nets)), paths) => Left::Clients {
            inside,
            nets,
            paths,
        },
        (None, None, Some(paths)) => Left::Paths(paths),
        (None, None, None) => Left::Everything,
    })
}

/// An expression for the paths of a test.
fn path_pattern(test: &Test) -> Option<String> {
    let each =
        |list: &[String]| -> Vec<_> { list.iter().map(|text| regex::escape(text)).collect() };
    match test {
        Test::Exact(list) => Some(format!("^(?:{})$", each(list).join("|"))),
        Test::Prefix(list) => Some(format!("^(?:{})", each(list).join("|"))),
        Test::Regex(list) => Some(formula::any(&crate::import::pattern::all(list)?)),
        _ => None,
    }
}

/// Each of these, or all there is.
fn places(paths: Places) -> Vec<Option<Matcher>> {
    match paths {
        Some(paths) => paths.into_iter().map(Some).collect(),
        None => vec![None],
    }
}

fn is_one_of(host: &str, names: &[String]) -> bool {
    names.iter().any(|name| match name.strip_prefix('*') {
        Some(end) => host == name || !host.starts_with('*') && host.ends_with(end),
        None => host == name,
    })
}
