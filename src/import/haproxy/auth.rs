//! Users and passwords: `http-request auth`, with what `userlist` says.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::condition::{All, Lists, Term, Test};
use super::inner::terms;
use super::left::left;
use super::parse::{Line, Section};
use super::{Import, key_of, quoted};
use crate::import::Loss;
use crate::import::formula::{self, Ask, Formula};
use crate::import::site::{CLOSED, Deed, Matcher, Route};

/// Who is asked for a password.
pub(super) struct Asking {
    /// `basic_auth`, as TOML.
    table: String,
    /// Requests that it is for: one of these.
    alternatives: Vec<formula::All>,
    /// Lines of rules that are asked before it.
    before: BTreeSet<usize>,
    rule: Line,
}

/// Users of a `userlist`, by one criterion.
struct Wanted<'w> {
    list: &'w str,
    /// Only those of one of these groups.
    groups: Option<Vec<&'w str>>,
}

impl<'w> Wanted<'w> {
    /// `http_auth(LIST)`, `http_auth_group(LIST) GROUP`, where who is not of it is asked.
    fn of(term: &'w Term) -> Option<Self> {
        let Test::Unknown(what) = &term.test else {
            return None;
        };
        let mut words = what.split_whitespace();
        let (kind, list) = words.next()?.strip_suffix(')')?.split_once('(')?;
        let groups: Vec<_> = words.collect();
        let groups = match (kind, groups.is_empty()) {
            ("http_auth", true) => None,
            ("http_auth_group", false) => Some(groups),
            _ => return None,
        };
        term.not.then_some(Self { list, groups })
    }

    fn name(&self) -> String {
        let groups = self.groups.iter().flatten().copied();
        let parts: Vec<_> = std::iter::once(self.list).chain(groups).collect();
        parts.join("-")
    }

    /// Whether a user is one of these.
    fn has(&self, user: &Line, all: &Section) -> bool {
        let Some(groups) = &self.groups else {
            return true;
        };
        let named = |list: Option<&str>, name: &str| {
            list.is_some_and(|list| list.split(',').any(|one| one == name))
        };
        groups.iter().any(|group| {
            let mut lines = all.all("group").filter(|line| line.word(1) == *group);
            named(user.after("groups"), group)
                || lines.any(|line| named(line.after("users"), user.word(1)))
        })
    }
}

impl Import {
    /// `basic_auth` for a rule `auth` where this holds, and what else it asks. `None`: who it asks
    /// is never content.
    fn password(&mut self, section: &Section, rule: &Line, all: &All) -> Option<(String, All)> {
        let (wanted, rest): (Vec<_>, Vec<_>) =
            all.iter().partition(|term| Wanted::of(term).is_some());
        let wanted: Vec<_> = wanted.into_iter().filter_map(Wanted::of).collect();
        let names: Vec<_> = wanted.iter().map(Wanted::name).collect();
        if names.is_empty() {
            return None;
        }
        let file = format!("{}.users", key_of(&names.join("-")));
        for wanted in &wanted {
            self.users(wanted, &file);
        }
        self.seen(rule);
        let realm = rule.after("realm").unwrap_or(&section.name);
        let mut table = format!("{{ file = {}", quoted(&file));
        let _ = write!(table, ", realm = {} }}", quoted(realm));
        Some((table, rest.into_iter().cloned().collect()))
    }

    /// Tells what has to be in a file of users.
    fn users(&mut self, wanted: &Wanted<'_>, file: &str) {
        let Some(list) = self.userlists.get(wanted.list).cloned() else {
            return;
        };
        list.lines.iter().for_each(|line| self.seen(line));
        for user in list.all("user").filter(|user| wanted.has(user, &list)) {
            let (name, hash) = (user.word(1), user.word(3));
            let usable = ["$1$", "$5$", "$6$", "$2a$", "$2b$", "$2y$"];
            let usable = usable.iter().any(|scheme| hash.starts_with(scheme));
            let how = match user.word(2) == "password" && usable {
                true => format!("the line `{name}:{hash}` belongs in it"),
                false => format!("`htpasswd -B {file} {name}` writes such a line anew"),
            };
            let advice = format!(
                "{file}, beside the configuration, is the file of basic_auth: {how}; nobody is let \
                 in before it is there"
            );
            self.tell(user, Loss::Real, advice);
        }
    }

    /// Who is asked in a section where a rule `auth` holds, of requests for one host. `None`: it is
    /// not known here.
    pub(super) fn asking(
        &mut self,
        section: &Section,
        rule: &Line,
        all: &All,
        host: &str,
    ) -> Option<Asking> {
        let (table, rest) = self.password(section, rule, all)?;
        let alternatives = match left(&rest, host).map(super::left::Left::terms) {
            None => Vec::new(),
            Some(Ok(terms)) => vec![terms],
            Some(Err(what)) => {
                self.asks_all(rule, &what);
                vec![formula::All::new()]
            }
        };
        Some(Asking {
            table,
            alternatives,
            before: before(section, rule),
            rule: rule.clone(),
        })
    }

    fn asks_all(&mut self, rule: &Line, what: &str) {
        let advice = format!("asks everybody for a password here, not by {what}");
        self.tell(rule, Loss::Real, advice);
    }

    /// Who is asked by a backend.
    fn asking_inside(&mut self, name: &str) -> Vec<Asking> {
        let Some(section) = self.backends.get(name).cloned() else {
            return Vec::new();
        };
        if section.kind == "listen" {
            return Vec::new();
        }
        let lists = Lists::of(&section, &self.folder, self.over_tls);
        let (mut found, mut others) = (Vec::new(), Some(Formula::always()));
        for rule in section.all("http-request") {
            if rule.word(1) == "allow" {
                // What is let past is not asked.
                let known = (self.asked(rule, &lists).iter())
                    .filter_map(terms)
                    .map(|(terms, unknown)| (!unknown).then(|| of(&terms)))
                    .try_fold(Formula::never(), |all, one| all.or(&one?));
                others = known.and_then(|known| others?.and(&known.not()?));
            }
            if rule.word(1) != "auth" {
                continue;
            }
            for all in self.asked(rule, &lists) {
                let Some((table, rest)) = self.password(&section, rule, &all) else {
                    continue;
                };
                let asked = match terms(&rest) {
                    None => continue,
                    Some((terms, false)) => {
                        others.as_ref().and_then(|others| of(&terms).and(others))
                    }
                    Some((_, true)) => None,
                };
                let alternatives = asked.and_then(|asked| asked.alternatives());
                if alternatives.is_none() {
                    self.asks_all(rule, "the conditions of its rules");
                }
                found.push(Asking {
                    table,
                    alternatives: alternatives.unwrap_or_else(|| vec![formula::All::new()]),
                    before: before(&section, rule),
                    rule: rule.clone(),
                });
            }
        }
        found
    }

    /// Whether all that a rule `allow` of a backend lets requests past are rules `auth`.
    pub(super) fn lets_past_passwords(section: &Section, allow: &Line) -> bool {
        let behind = |line: &&Line| {
            line.place.line > allow.place.line && matches!(line.word(0), "http-request")
                || line.word(0) == "redirect"
        };
        let mut behind = section.lines.iter().filter(behind).peekable();
        behind.peek().is_some() && behind.all(|line| line.word(1) == "auth")
    }

    /// Whether a rule `auth` is written as `basic_auth` wherever it holds.
    pub(super) fn is_password(rule: &Line, all: &All) -> bool {
        rule.word(1) == "auth" && all.iter().any(|term| Wanted::of(term).is_some())
    }

    /// Asks at the routes that lead to a backend, which are these from one on.
    pub(super) fn ask_inside(&mut self, name: &str, routes: &mut Vec<Route>, first: usize) {
        let askings = self.asking_inside(name);
        if !askings.is_empty() {
            let mut own = routes.split_off(first);
            self.ask(&askings, &mut own);
            routes.append(&mut own);
        }
    }

    /// Asks at the routes that it is for.
    pub(super) fn ask(&mut self, askings: &[Asking], routes: &mut Vec<Route>) {
        for asking in askings {
            for route in std::mem::take(routes) {
                let own = asking.before.contains(&route.place.line);
                if own || route.deed == Deed::Closed {
                    routes.push(route);
                    continue;
                }
                self.ask_at(asking, route, routes);
            }
        }
    }

    fn ask_at(&mut self, asking: &Asking, route: Route, routes: &mut Vec<Route>) {
        for terms in &asking.alternatives {
            let Some(terms) = remaining(terms, &route) else {
                continue;
            };
            let mut asked = route.clone();
            let whole = terms.is_empty();
            asked.conditions.extend(terms);
            // Rather asked too often than let in.
            let whole = whole || formula::Term::has_two_networks(&asked.conditions);
            if whole {
                asked.conditions.clone_from(&route.conditions);
            }
            match asked.rules.plain("basic_auth") {
                Some(other) if other != asking.table => {
                    let advice = "asks by two lists of users at once: closed here";
                    self.tell(&asking.rule, Loss::Real, advice);
                    (asked.deed, asked.action) = (Deed::Closed, vec![CLOSED.to_owned()]);
                }
                _ => asked.rules.insert("basic_auth", asking.table.clone()),
            }
            routes.push(asked);
            if whole {
                return;
            }
        }
        routes.push(route);
    }
}

/// Lines of rules that are asked before a rule of the same section.
fn before(section: &Section, rule: &Line) -> BTreeSet<usize> {
    let is_before = |line: &&Line| match line.word(0) {
        "monitor-uri" => true,
        "http-request" | "tcp-request" => line.place.line < rule.place.line,
        _ => false,
    };
    let lines = section.lines.iter().filter(is_before);
    lines.map(|line| line.place.line).collect()
}

/// All of these.
fn of(terms: &formula::All) -> Formula {
    let each = terms.iter().map(|term| match &term.ask {
        Ask::Value { of, pattern } => Formula::value(of, pattern.clone(), term.not),
        ask @ Ask::Client(_) => Formula::of(term.not, ask.clone()),
    });
    // One by one they are never too many.
    each.fold(Formula::always(), |all, one| all.and(&one).unwrap_or(all))
}

/// What of these is not settled by what a route is for. `None`: they do not hold there.
fn remaining(terms: &formula::All, route: &Route) -> Option<formula::All> {
    let mut left = formula::All::new();
    for term in terms {
        if route.conditions.contains(&term.opposite()) {
            return None;
        }
        let settled = match &term.ask {
            _ if route.conditions.contains(term) => Some(true),
            Ask::Value { of, pattern } if of == "{path}" => settled(pattern, &route.matcher),
            _ => None,
        };
        match settled {
            None => left.push(term.clone()),
            Some(holds) if holds == term.not => return None,
            Some(_) => {}
        }
    }
    Some(left)
}

/// Whether an expression matches all paths of a route, or none of them.
fn settled(expression: &str, matcher: &Matcher) -> Option<bool> {
    let matches = |path: &str| Matcher::Regex(expression.to_owned()).is_for(path);
    match matcher {
        Matcher::Exact(path) => Some(matches(path)),
        // What matches a beginning matches all that begins so, where nothing asks for the end.
        Matcher::Prefix(path) => {
            let open = !expression.contains('$') && !expression.contains("\\b");
            (open && matches(path)).then_some(true)
        }
        Matcher::Regex(own) => (own == expression).then_some(true),
        Matcher::Any => None,
    }
}
