//! Routes: what becomes of the requests for one host, by their paths.

use super::condition::{self, All, Lists, Test};
use super::format::{deadline, line};
use super::guard::{Common, Partial, guarded};
use super::inner::{ANSWERS, terms};
use super::left::{Left, Places, all_but, left};
use super::page;
use super::parse::{Line, Section};
use super::rewrite::{REWRITES, Rewrite, rewritten};
use super::rule::{Act, LAST, TO_HTTPS, counted, no_cache};
use super::{Import, array, quoted};
use crate::import::Loss;
use crate::import::formula::{self, Ask, Term};
use crate::import::pattern;
use crate::import::site::{CLOSED, Deed, Matcher, Route, Rules};

/// One rule, in its order.
pub(super) struct Rule<'s> {
    pub(super) line: &'s Line,
    pub(super) alternatives: Vec<All>,
    pub(super) act: Act,
}

impl Rule<'_> {
    /// Whether it sends requests to HTTPS.
    fn is_to_https(&self) -> bool {
        match &self.act {
            Act::Answer(lines, _) => lines.first().is_some_and(|line| line == TO_HTTPS),
            _ => false,
        }
    }

    /// Whether it is for some requests by more than their path, so that the order of rules matters.
    fn is_by_order(&self) -> bool {
        // `allow` and `deny` answer with 403.
        let denies = matches!(self.act, Act::Deny(0 | 403));
        // They are said of whole paths.
        let is_whole = |term: &condition::Term| match &term.test {
            Test::Regex(_) => false,
            Test::Prefix(list) => !term.not && list.iter().all(|path| path.ends_with('/')),
            _ => true,
        };
        self.alternatives.iter().any(|all| {
            let whole = all.iter().all(is_whole);
            all.iter().any(|term| match term.test {
                Test::Value { .. } => true,
                Test::Host(ref hosts) => hosts.names.is_empty(),
                Test::Client(_) => match self.act {
                    Act::Fields(_) => false,
                    _ => !(denies && whole),
                },
                _ => false,
            })
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
        let mut common = Common {
            all: self.compression(section),
            served: Rules::default(),
        };
        self.forwarded(section, false, &mut common.all);
        self.pages = self.pages(section, true);
        if !self.pages.is_empty() {
            common.all.insert("error_pages", page::table(&self.pages));
        }
        let (mut guards, mut quotas, mut partial) = (Vec::new(), Vec::new(), Vec::new());
        let (mut asked, mut passwords) = (Vec::new(), Vec::new());
        let by_order = rules.iter().any(Rule::is_by_order);
        let mut exempt: Option<(&Rule<'_>, Vec<Matcher>)> = None;
        self.front.clear();
        let mut done = false;
        for rule in rules {
            for all in &rule.alternatives {
                if Self::is_password(rule.line, all) {
                    let asking = self.asking(section, rule.line, all, host);
                    passwords.extend(asking.filter(|_| !done));
                    continue;
                }
                let Some(left) = left(all, host) else {
                    continue;
                };
                if done && !matches!(rule.act, Act::Fields(_)) {
                    continue;
                }
                // All but some paths: those that come after it are for these.
                if exempt.is_none()
                    && !self.over_tls
                    && rule.is_to_https()
                    && let Some(paths) = all_but(all, host)
                {
                    exempt = Some((rule, paths));
                    continue;
                }
                let left = match (&exempt, &rule.act) {
                    (Some((_, paths)), act) if !matches!(act, Act::Fields(_)) => {
                        match left.within(paths) {
                            Some(left) => left,
                            None => continue,
                        }
                    }
                    _ => left,
                };
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
                    (Act::Rewrite, left) => match left.terms() {
                        Ok(terms) => self.front.push((rule.line.clone(), terms)),
                        Err(what) => {
                            let advice = format!("goes by what cannot be asked here ({what})");
                            self.tell(rule.line, Loss::Real, advice);
                        }
                    },
                    (Act::Fields(fields), Left::Everything) => {
                        match rule.line.word(0) == "http-response" {
                            true => common.served.join(fields.clone()),
                            false => common.all.join(fields.clone()),
                        }
                    }
                    (Act::Fields(fields), Left::Paths(paths)) => {
                        let part = Partial::new(Some(paths), Vec::new(), fields);
                        partial.push(part.by(rule.line));
                    }
                    (Act::Fields(fields), Left::Some { all, paths }) => {
                        partial.push(Partial::new(paths, all, fields).by(rule.line));
                    }
                    (
                        Act::Fields(fields),
                        Left::Clients {
                            inside,
                            nets,
                            paths,
                        },
                    ) => {
                        let ask = Ask::Client(nets);
                        let all = vec![Term { not: !inside, ask }];
                        partial.push(Partial::new(paths, all, fields).by(rule.line));
                    }
                    (Act::Fields(fields), Left::Unknown { what, paths, .. }) => {
                        let advice = format!(
                            "changed fields by what cannot be asked here ({what}); write it at a route"
                        );
                        self.tell(rule.line, Loss::Real, advice);
                        // Rather taken out too often than believed.
                        partial.push(Partial::new(paths, Vec::new(), &fields.unbelieved()));
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
                        Act::Answer(lines, _),
                        Left::Unknown {
                            what,
                            paths,
                            except,
                            ..
                        },
                    ) if counted(&what) && is_refusal(lines) => {
                        let quota = self.quota(section, rule.line, &what, &except);
                        if quota.is_some() {
                            self.page_of_quota(rule.line, lines);
                            common.all.insert("error_pages", page::table(&self.pages));
                        }
                        quotas.extend(quota.map(|quota| (paths, quota)));
                    }
                    (
                        Act::Deny(_) | Act::Refuse(..),
                        Left::Unknown {
                            what,
                            paths,
                            except,
                            all,
                        },
                    ) => {
                        if counted(&what) {
                            let quota = self.quota(section, rule.line, &what, &except);
                            if let (Act::Refuse(lines, _), Some(_)) = (&rule.act, &quota) {
                                self.page_of_quota(rule.line, lines);
                                common.all.insert("error_pages", page::table(&self.pages));
                            }
                            quotas.extend(quota.map(|quota| (paths, quota)));
                            continue;
                        }
                        if rule.line.has("redirect") {
                            let advice =
                                format!("redirected by what cannot be asked here ({what})");
                            self.tell(rule.line, Loss::Real, advice);
                            continue;
                        }
                        // That is told with the route.
                        if rule.line.word(1) != "auth" {
                            let advice = format!(
                                "refused requests by what cannot be asked here ({what}): what it \
                                 may have been for is closed until you have decided how"
                            );
                            self.tell(rule.line, Loss::Real, advice);
                        }
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
        if let Some((rule, paths)) = exempt {
            let line = default.filter(|_| !done).map(|default| Line {
                words: vec!["default_backend".to_owned(), default.to_owned()],
                place: section.place.clone(),
            });
            for (line, path) in line
                .iter()
                .flat_map(|line| paths.iter().map(move |p| (line, p)))
            {
                let act = Act::Use(line.word(1).to_owned());
                let known = (&mut routes, &mut asked);
                self.push(known, line, &act, Some(path.clone()), formula::All::new());
            }
            let known = (&mut routes, &mut asked);
            self.push(known, rule.line, &rule.act, None, formula::All::new());
            done = true;
        }
        if !done {
            let Some(default) = default else {
                routes.push(closed(section, "respond = 503"));
                let mut routes = guarded(routes, &common, guards, quotas, &partial);
                self.ask(&passwords, &mut routes);
                return routes;
            };
            let line = Line {
                words: vec!["default_backend".to_owned(), default.to_owned()],
                place: section.place.clone(),
            };
            let act = Act::Use(default.to_owned());
            let known = (&mut routes, &mut asked);
            self.push(known, &line, &act, None, formula::All::new());
        }
        let mut routes = guarded(routes, &common, guards, quotas, &partial);
        self.ask(&passwords, &mut routes);
        routes
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
        let (matcher, conditions) = match act {
            Act::Answer(lines, _) | Act::Refuse(lines, _)
                if lines.iter().any(|line| line.contains(LAST)) =>
            {
                with_last(matcher, conditions)
            }
            _ => (matcher, conditions),
        };
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
        let mut conditions = conditions;
        conditions.extend(giving_way(routes, &matcher));
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
        let first = routes.len();
        if let Act::Use(name) = act {
            for (line, act, terms) in self.answered_inside(name) {
                let always = terms.is_empty();
                let mut all: formula::All = conditions.iter().cloned().chain(terms).collect();
                if Term::has_two_networks(&all) {
                    // Only one of them can be asked for: rather closed too far than open.
                    self.tell(&line, Loss::Real, "goes by two lists of clients at once");
                    all.truncate(conditions.len());
                    self.add(routes, &line, &Act::Deny(0), matcher.clone(), all);
                    continue;
                }
                self.add(routes, &line, &act, matcher.clone(), all);
                // What is behind it never comes to be asked.
                if always {
                    return self.ask_inside(name, routes, first);
                }
            }
        }
        let (mut rules, mut partial) = (Rules::default(), Vec::new());
        let from = routes.len();
        let (deed, action) = match act {
            Act::Use(name) => match self.backend(name) {
                Some(upstream) => {
                    let mut action = vec![line("upstream", &upstream)];
                    let (rewrites, some) = self.backend_rules(name, &mut rules);
                    partial = some;
                    let known = (&matcher, &conditions);
                    for (terms, rewrite) in self.rewrites(rewrites, known) {
                        let (some, more, rewrite) = match rewrite {
                            Rewrite::Nothing => continue,
                            Rewrite::All(line) if terms.is_empty() => {
                                action.push(line);
                                break;
                            }
                            Rewrite::All(line) => (matcher.clone(), formula::All::new(), line),
                            Rewrite::Some {
                                matcher,
                                conditions,
                                line,
                            } => (matcher, conditions, line),
                        };
                        // Of the paths that it is for, those that are written anew.
                        let before = match matches!(matcher, Matcher::Regex(_)) {
                            // It has given way already.
                            true => formula::All::new(),
                            false => giving_way(routes, &some),
                        };
                        let all = conditions.iter().cloned().chain(more).chain(terms);
                        routes.push(Route {
                            place: rule.place.clone(),
                            matcher: some,
                            conditions: all.chain(before).collect(),
                            last: false,
                            deed: Deed::Forward,
                            action: vec![line("upstream", &upstream), rewrite],
                            rules: rules.clone(),
                        });
                    }
                    (Deed::Forward, action)
                }
                None => match self.backend_answer(name) {
                    Some(lines) => (Deed::Answer, lines),
                    // HAProxy has nobody to ask there either.
                    None if self.has_no_server(name) => {
                        no_cache(&mut rules);
                        (Deed::Answer, vec![CLOSED.to_owned()])
                    }
                    None => {
                        let advice = "leads to no server that is known: it is closed";
                        self.tell(rule, Loss::Real, advice);
                        (Deed::Closed, vec![CLOSED.to_owned()])
                    }
                },
            },
            Act::Answer(lines, fields) | Act::Refuse(lines, fields) => {
                rules.extend(fields.clone());
                (Deed::Answer, lines.clone())
            }
            Act::Deny(0) => {
                if rule.word(1) == "auth" {
                    let advice = "asked for a password: closed until its users are in a file, \
                                  `name:hash` each, that basic_auth names; see \
                                  docs/from-haproxy.md";
                    self.tell(rule, Loss::Real, advice);
                }
                (Deed::Closed, vec![CLOSED.to_owned()])
            }
            Act::Deny(status) => {
                if !self.pages.contains_key(status) {
                    no_cache(&mut rules);
                }
                (Deed::Answer, vec![format!("respond = {status}")])
            }
            Act::Fields(_) | Act::Rewrite => return,
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
        routes.push(route);
        let mut own = routes.split_off(from);
        for partial in &partial {
            partial.apply(&mut own);
        }
        routes.append(&mut own);
        if let Act::Use(name) = act {
            self.ask_inside(name, routes, first);
        }
    }

    /// What a backend answers by itself.
    fn backend_answer(&mut self, name: &str) -> Option<Vec<String>> {
        let section = self.backends.get(name).cloned()?;
        let always = |rule: &&Line| !rule.has("if") && !rule.has("unless");
        for rule in section.all("http-request").filter(always) {
            match self.request_rule(rule) {
                Some(Act::Answer(lines, _) | Act::Refuse(lines, _)) => {
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
        // Without servers its page for that is what it is there for.
        self.page_of_nobody(&section)
    }

    /// Whether no server is named in a backend.
    fn has_no_server(&self, name: &str) -> bool {
        let names = |line: &Line| match line.word(0) {
            "server" | "server-template" | "dispatch" => true,
            "option" => matches!(line.word(1), "http_proxy" | "transparent"),
            _ => false,
        };
        self.backends
            .get(name)
            .is_some_and(|section| !section.lines.iter().any(names))
    }

    /// What a backend does with its requests: how their path is written anew, and what is done with
    /// the fields of some.
    fn backend_rules(&mut self, name: &str, rules: &mut Rules) -> (Vec<Rewriting>, Vec<Partial>) {
        let (mut rewrites, mut partial) = (Vec::new(), Vec::new());
        let Some(section) = self.backends.get(name).cloned() else {
            return (rewrites, partial);
        };
        rules.extend(self.compression(&section));
        self.forwarded(&section, true, rules);
        let own = self.pages(&section, false);
        if !own.is_empty() && section.kind != "listen" {
            let mut pages = self.pages.clone();
            pages.extend(own);
            rules.insert("error_pages", page::table(&pages));
        }
        let tunnel = section
            .all("timeout")
            .filter(|line| line.word(1) == "tunnel")
            .last();
        if let Some(time) = tunnel.and_then(|line| deadline(line.word(2))) {
            rules.insert("timeouts", format!("{{ tunnel = {} }}", quoted(&time)));
        }
        if section.kind == "listen" {
            return (rewrites, partial);
        }
        let lists = Lists::of(&section, &self.folder, self.over_tls);
        for rule in &section.lines {
            if !matches!(
                rule.word(0),
                "http-request" | "http-response" | "http-after-response" | "redirect"
            ) {
                continue;
            }
            let always = !rule.has("if") && !rule.has("unless");
            match (rule.word(1), always) {
                ("allow", _) if Self::lets_past_passwords(&section, rule) => self.seen(rule),
                (action, true) if REWRITES.contains(&action) => {
                    rewrites.push((rule.clone(), formula::All::new()));
                }
                (_, true) => match self.request_rule(rule) {
                    Some(Act::Fields(fields)) => {
                        self.seen(rule);
                        rules.join(fields);
                    }
                    Some(_) => self.tell(rule, Loss::Real, "is not done in front of a server here"),
                    None => {}
                },
                // It has a route of its own.
                (action, false) if ANSWERS.contains(&action) || rule.word(0) == "redirect" => {}
                (_, false) => {
                    let all = self.asked(rule, &lists);
                    let never = |all: &All| all.iter().any(|t| t.not && t.test == Test::Always);
                    if all.iter().all(never) {
                        self.idle.insert(rule.place.clone());
                    } else if let Some(all) = known(&all) {
                        if REWRITES.contains(&rule.word(1)) {
                            rewrites.extend(all.into_iter().map(|all| (rule.clone(), all)));
                            continue;
                        }
                        // What it is otherwise is told with all that nobody has looked at.
                        if let Some(Act::Fields(fields)) = self.request_rule(rule) {
                            self.seen(rule);
                            match all.iter().any(Vec::is_empty) {
                                true => rules.join(fields),
                                false => partial.extend(
                                    all.into_iter().map(|all| Partial::new(None, all, &fields)),
                                ),
                            }
                        }
                    } else {
                        let advice =
                            "holds for some requests of a backend only; write it at a route";
                        self.tell(rule, Loss::Real, advice);
                    }
                }
            }
        }
        (rewrites, partial)
    }

    /// What becomes of the paths of a route: what its section says, then what its backend says.
    fn rewrites(
        &mut self,
        behind: Vec<Rewriting>,
        (matcher, conditions): (&Matcher, &formula::All),
    ) -> Vec<(formula::All, Rewrite)> {
        let mut found = Vec::new();
        for (rule, terms) in self.front.clone().into_iter().chain(behind) {
            let terms: formula::All = (terms.into_iter())
                .filter(|term| !conditions.contains(term))
                .collect();
            let never = terms
                .iter()
                .any(|term| conditions.contains(&term.opposite()));
            let all: formula::All = conditions.iter().chain(&terms).cloned().collect();
            let rewrite = match rewritten(&rule, matcher) {
                _ if never => continue,
                Some(rewrite) if !Term::has_two_networks(&all) => rewrite,
                _ => {
                    let advice = "wrote the path anew in a way that is not known here; see rewrite \
                                  and replace_prefix";
                    self.tell(&rule, Loss::Real, advice);
                    continue;
                }
            };
            self.seen(&rule);
            if matches!(rewrite, Rewrite::Nothing) {
                continue;
            }
            let again = |(_, before): &(formula::All, Rewrite)| before.is_for(&rule);
            if found.iter().any(again) {
                let advice = "wrote anew what a rule before it had written already; here the first \
                              that is for a path is applied: write what comes of both in one";
                self.tell(&rule, Loss::Real, advice);
            } else if !found.is_empty() {
                let advice = "of several, one writes a path anew here: the first that is for it";
                self.tell(&rule, Loss::Slight, advice);
            }
            if rewrite.is_decoded() {
                let advice = "what it keeps of a path is percent-decoded and encoded again here: \
                              %2F becomes a slash";
                self.tell(&rule, Loss::Slight, advice);
            }
            found.push((terms, rewrite));
        }
        found
    }
}

/// Whether what is answered is an error.
fn is_refusal(lines: &[String]) -> bool {
    let mut lines = lines.iter();
    lines.any(|line| line.starts_with("respond = 4") || line.starts_with("respond = 5"))
}

/// A rule that writes paths anew, and what else it asks for.
pub(super) type Rewriting = (Line, formula::All);

/// The same paths, with a group for what follows the last slash.
fn with_last(
    matcher: Option<Matcher>,
    mut conditions: formula::All,
) -> (Option<Matcher>, formula::All) {
    const ALL: &str = "^(?:.*/)?(?<last>[^/]*)$";
    let pattern = match matcher {
        Some(Matcher::Prefix(path)) if path.ends_with('/') => {
            format!("^{}(?:.*/)?(?<last>[^/]*)$", pattern::literal(&path))
        }
        Some(matcher) => {
            let asked = match matcher {
                Matcher::Prefix(path) => format!("^{}", pattern::literal(&path)),
                Matcher::Exact(path) => format!("^{}$", pattern::literal(&path)),
                Matcher::Regex(pattern) => pattern,
                Matcher::Any => String::new(),
            };
            conditions.push(Term::of("{path}", asked, false));
            ALL.to_owned()
        }
        None => ALL.to_owned(),
    };
    (Some(Matcher::Regex(pattern)), conditions)
}

/// What an expression is not for, as it is taken by prefixes before it. Where nothing comes before
/// those, they say so themselves.
fn giving_way(routes: &mut Vec<Route>, matcher: &Matcher) -> formula::All {
    if !matches!(matcher, Matcher::Regex(_)) {
        return formula::All::new();
    }
    let (mut taken, mut copies, mut behind) = (Vec::new(), Vec::new(), false);
    for route in routes.iter_mut() {
        let path = match &route.matcher {
            Matcher::Regex(_) => {
                behind = true;
                continue;
            }
            Matcher::Prefix(path) if !route.last => path,
            _ => continue,
        };
        let begins = format!("^{}", pattern::literal(path));
        let bound = route
            .action
            .iter()
            .any(|line| line.starts_with("replace_prefix"));
        match (behind, route.conditions.is_empty()) {
            (true, true) => taken.push(begins),
            (true, false) if !bound => copies.push(Route {
                matcher: Matcher::Regex(begins),
                ..route.clone()
            }),
            _ => route.last = true,
        }
    }
    routes.extend(copies);
    match taken.is_empty() {
        true => formula::All::new(),
        false => vec![Term::of("{path}", formula::any(&taken), true)],
    }
}

/// What routes can ask of all of these. `None`: some of it is not known here.
fn known(alternatives: &[All]) -> Option<Vec<formula::All>> {
    let each = alternatives.iter().filter_map(terms);
    each.map(|(terms, unknown)| (!unknown).then_some(terms))
        .collect()
}

fn closed(section: &Section, action: &str) -> Route {
    let mut rules = Rules::default();
    no_cache(&mut rules);
    Route {
        place: section.place.clone(),
        matcher: Matcher::Prefix("/".to_owned()),
        conditions: Vec::new(),
        last: false,
        deed: Deed::Answer,
        action: vec![action.to_owned()],
        rules,
    }
}

/// Each of these, or all there is.
fn places(paths: Places) -> Vec<Option<Matcher>> {
    match paths {
        Some(paths) => paths.into_iter().map(Some).collect(),
        None => vec![None],
    }
}
