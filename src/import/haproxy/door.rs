//! Sites: what is behind the addresses of each section, for each host, put together.

use std::collections::BTreeSet;

use super::condition::{All, Lists, Term, Test, of};
use super::parse::{Line, Section};
use super::{Import, rule};
use crate::import::Loss;
use crate::import::formula;
use crate::import::site::{Matcher, Route, Site};

/// A way into a section: over TLS, or in plain text.
pub(super) struct Door {
    section: Section,
    ports: BTreeSet<String>,
    /// What is said of TLS; `None`: there is none.
    tls: Option<Vec<String>>,
}

impl Door {
    pub(super) fn new(section: &Section, addresses: &[String], tls: Option<Vec<String>>) -> Self {
        let port = |address: &String| address.rsplit(':').next().map(str::to_owned);
        Self {
            section: section.clone(),
            ports: addresses.iter().filter_map(port).collect(),
            tls,
        }
    }

    const fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// A field of requests that a rule makes.
pub(super) struct Made {
    name: String,
    line: usize,
    /// The lines of its section.
    section: std::ops::Range<usize>,
    /// Whether backends come behind it.
    ahead: bool,
}

impl Made {
    /// All of them.
    pub(super) fn all(sections: &[Section]) -> Vec<Self> {
        let mut found = Vec::new();
        for section in sections {
            let last = section.lines.last().map_or(0, |line| line.place.line);
            let makes =
                |line: &&Line| matches!(line.word(1), "set-header" | "add-header" | "del-header");
            found.extend(section.all("http-request").filter(makes).map(|line| Self {
                name: line.word(2).to_owned(),
                line: line.place.line,
                section: section.place.line..last + 1,
                ahead: section.kind == "frontend",
            }));
        }
        found
    }
}

/// Doors behind which the same is done for a host.
struct Group {
    doors: Vec<usize>,
    ports: BTreeSet<String>,
    routes: Vec<Route>,
    /// What no route is for goes to HTTPS.
    open: bool,
}

impl Import {
    /// What a rule asks for, of requests that come by the door that is looked at.
    pub(super) fn asked(&self, rule: &Line, lists: &Lists) -> Vec<All> {
        // Nobody gets in without a good certificate, so that there is nothing to ask.
        const CERTAIN: [&str; 4] = [
            "ssl_c_verify 0",
            "ssl_c_used",
            "ssl_c_used 1",
            "ssl_fc_has_crt",
        ];
        let mut all = of(rule, lists);
        for term in all.iter_mut().flatten() {
            if matches!(&term.test, Test::Unknown(what) if self.certain && CERTAIN.contains(&what.as_str()))
            {
                term.test = Test::Always;
            }
            if let Test::Value { of, .. } = &term.test
                && let Some(name) = self.made_before(rule, of)
            {
                let what = format!("{name}, which a rule before it sets");
                term.test = Test::Unknown(what);
            }
            // HAProxy does not know the request any more where it has the response, but by variables.
            let of_request = match &term.test {
                Test::Exact(_) | Test::Prefix(_) | Test::Regex(_) => true,
                Test::Value { of, .. } => of != "{local_port}",
                _ => false,
            };
            if of_request && !self.by_variables && rule.word(0).ends_with("-response") {
                *term = Term {
                    not: !term.not,
                    test: Test::Always,
                };
            }
            if term.test == Test::Tls {
                *term = Term {
                    not: term.not == self.over_tls,
                    test: Test::Always,
                };
            }
        }
        all
    }

    /// The field in a value that is not the client's any more where a rule asks for it.
    fn made_before<'a>(&self, rule: &Line, of: &'a str) -> Option<&'a str> {
        let name = of.strip_prefix("{header:")?.strip_suffix('}')?;
        let line = rule.place.line;
        let made = |made: &Made| {
            let same = made.section.contains(&line);
            let before = made.line < line || same && rule.word(0) == "use_backend";
            made.name.eq_ignore_ascii_case(name) && before && (same || made.ahead)
        };
        self.made.iter().any(made).then_some(name)
    }

    fn enter(&mut self, door: &Door) {
        self.over_tls = door.is_secure();
        let required = |lines: &Vec<String>| lines.iter().any(|line| line.contains("\"required\""));
        self.certain = door.tls.as_ref().is_some_and(required);
    }

    /// A site for each host that a rule goes by, and one for the rest.
    pub(super) fn sites(&mut self) {
        let doors = std::mem::take(&mut self.doors);
        let mut rules = Vec::new();
        for door in &doors {
            self.enter(door);
            let lists = Lists::of(&door.section, &self.folder, self.over_tls);
            rules.push(self.rules(&door.section, &lists));
        }
        let mut hosts = BTreeSet::from(["*".to_owned()]);
        let alternatives = rules.iter().flatten().flat_map(|rule| &rule.alternatives);
        for term in alternatives.flatten() {
            if let Test::Host(found) = &term.test {
                hosts.extend(found.names.iter().cloned());
            }
        }
        let mut found: Vec<(Vec<String>, Vec<usize>, Vec<Route>)> = Vec::new();
        for host in hosts {
            let mut groups: [Vec<Group>; 2] = Default::default();
            for (at, door) in doors.iter().enumerate() {
                self.enter(door);
                let default = self.default_backend(&door.section);
                let mut routes = self.routes(&door.section, &rules[at], &host, default.as_deref());
                let open = !door.is_secure() && without_redirect(&mut routes);
                let groups = &mut groups[usize::from(!door.is_secure())];
                let same =
                    |group: &&mut Group| group.open == open && is_same(&group.routes, &routes);
                match groups.iter_mut().find(same) {
                    Some(group) => {
                        group.doors.push(at);
                        group.ports.extend(door.ports.iter().cloned());
                    }
                    None => groups.push(Group {
                        doors: vec![at],
                        ports: door.ports.clone(),
                        routes,
                        open,
                    }),
                }
            }
            for groups in &groups {
                self.one_port(&doors, groups);
            }
            let [secure, plain] = groups;
            let (own, routes) = together(secure, plain);
            if routes.is_empty() {
                continue;
            }
            let shown = format!("{own:?} {routes:?}");
            match (found.iter_mut())
                .find(|(_, doors, known)| format!("{doors:?} {known:?}") == shown)
            {
                Some((names, ..)) => names.push(host),
                None => found.push((vec![host], own, routes)),
            }
        }
        for (names, own, routes) in found {
            self.site(&doors, names, &own, routes);
        }
    }

    fn site(&mut self, doors: &[Door], names: Vec<String>, own: &[usize], routes: Vec<Route>) {
        let first = &doors[own.first().copied().unwrap_or_default()].section;
        let mut tls: Vec<&Vec<String>> = (own.iter())
            .filter_map(|door| doors[*door].tls.as_ref())
            .collect();
        tls.sort_by_key(|lines| !lines.iter().any(|line| line.contains("\"required\"")));
        tls.dedup();
        if tls.len() > 1 {
            let piece = format!("{} {}", first.kind, first.name);
            let advice = format!(
                "{}: other addresses ask for other client certificates, or for none; here a name \
                 does, wherever it is asked for",
                names.join(", ")
            );
            self.note(&first.place, piece, Loss::Real, advice);
        }
        let site = Site {
            place: first.place.clone(),
            default: names.iter().any(|name| name == "*"),
            tls: tls.first().map(|lines| lines.to_vec()).unwrap_or_default(),
            names,
            routes,
        };
        self.sites.push_str(&site.text());
    }

    /// Tells of sections that only their addresses tell apart, not their ports.
    fn one_port(&mut self, doors: &[Door], groups: &[Group]) {
        for (at, group) in groups.iter().enumerate() {
            let before = groups[..at]
                .iter()
                .find(|other| !other.ports.is_disjoint(&group.ports));
            let (Some(_), Some(door)) = (before, group.doors.first()) else {
                continue;
            };
            let section = &doors[*door].section;
            let piece = format!("{} {}", section.kind, section.name);
            let advice = "another section has the same port at another address, and they are told \
                          apart by their ports here: its requests are taken by the other";
            self.note(&section.place, piece, Loss::Real, advice);
        }
    }
}

/// Takes away that what is left goes to HTTPS, which plain-text addresses see to by themselves;
/// whether it did.
fn without_redirect(routes: &mut Vec<Route>) -> bool {
    let all = Matcher::Prefix("/".to_owned());
    let is_rest = |route: &Route| {
        route.matcher == all
            && route.conditions.is_empty()
            // Those that are sent by themselves have no more than that.
            && !route.rules.has_fields_beside("cache-control")
            && route
                .action
                .first()
                .is_some_and(|line| line == rule::TO_HTTPS)
    };
    match routes.iter().position(is_rest) {
        // Behind it there is nothing.
        Some(at) if routes[at + 1..].is_empty() => {
            routes.truncate(at);
            for route in routes.iter_mut() {
                route.rules.insert("plain_text", "true".to_owned());
            }
            true
        }
        _ => {
            for route in routes.iter_mut() {
                route.rules.insert("plain_text", "true".to_owned());
            }
            false
        }
    }
}

/// Whether the same is done, wherever it is said.
fn is_same(one: &[Route], other: &[Route]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|(one, other)| are_same(one, other))
}

fn are_same(one: &Route, other: &Route) -> bool {
    let rules = |route: &Route| {
        let mut rules = route.rules.clone();
        rules.remove("plain_text");
        rules.text()
    };
    one.matcher == other.matcher
        && one.conditions == other.conditions
        && one.deed == other.deed
        && one.action == other.action
        && rules(one) == rules(other)
}

/// What is done for a host, whatever the door; and the doors that lead to something.
fn together(mut secure: Vec<Group>, mut plain: Vec<Group>) -> (Vec<usize>, Vec<Route>) {
    if let ([one], [other]) = (secure.as_slice(), plain.as_slice())
        && !other.open
        && !one.routes.is_empty()
        && is_same(&one.routes, &other.routes)
    {
        let doors = one.doors.clone();
        return (doors, std::mem::take(&mut plain[0].routes));
    }
    let whole = |group: &Group| !group.open && !group.routes.is_empty();
    let apart = plain.iter().any(whole);
    let (some_secure, several) = (!secure.is_empty(), [secure.len() > 1, plain.len() > 1]);
    // Each port belongs to the first that has it.
    for groups in [&mut secure, &mut plain] {
        let mut taken = BTreeSet::new();
        for group in groups.iter_mut() {
            group.ports.retain(|port| taken.insert(port.clone()));
            if group.ports.is_empty() {
                group.routes.clear();
            }
        }
    }
    // What both do, where the rest of one goes to the other.
    if let ([one], [other]) = (secure.as_mut_slice(), plain.as_mut_slice())
        && other.open
    {
        other.routes.retain(
            |route| match one.routes.iter_mut().find(|own| are_same(own, route)) {
                Some(own) => {
                    own.rules.insert("plain_text", "true".to_owned());
                    false
                }
                None => true,
            },
        );
    }
    let (mut doors, mut routes) = (Vec::new(), Vec::new());
    for (groups, several, scheme, split) in [
        // Of two for the same paths the first is asked first, and what is for all is not.
        (plain, several[1], "http", some_secure),
        (secure, several[0], "https", apart),
    ] {
        for group in groups.into_iter().filter(|group| !group.routes.is_empty()) {
            let term = match (several, split) {
                (true, _) => {
                    let ports: Vec<_> = group.ports.into_iter().collect();
                    let ports = match ports.as_slice() {
                        [one] => one.clone(),
                        several => format!("(?:{})", several.join("|")),
                    };
                    Some(formula::Term::of(
                        "{local_port}",
                        format!("^{ports}$"),
                        false,
                    ))
                }
                (false, true) => Some(formula::Term::of("{scheme}", format!("^{scheme}$"), false)),
                (false, false) => None,
            };
            doors.extend(group.doors);
            routes.extend(group.routes.into_iter().map(|mut route| {
                route.conditions.extend(term.clone());
                route
            }));
        }
    }
    (doors, routes)
}
