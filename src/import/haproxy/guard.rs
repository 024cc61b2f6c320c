//! What holds at routes beside what they do: who is let in, quotas, changes to the fields of some
//! requests.

use super::left::Places;
use super::parse::Line;
use crate::import::formula::{self, Term};
use crate::import::pattern;
use crate::import::site::{Deed, Matcher, Route, Rules};

/// Changes to the fields of some requests.
pub(super) struct Partial {
    paths: Places,
    conditions: formula::All,
    fields: Rules,
    /// Only of what a server answers.
    served: bool,
}

impl Partial {
    pub(super) fn new(paths: Places, conditions: formula::All, fields: &Rules) -> Self {
        Self {
            paths,
            conditions,
            fields: fields.clone(),
            served: true,
        }
    }

    /// Those of a rule: `http-after-response` is for what is answered here, too.
    pub(super) fn by(self, rule: &Line) -> Self {
        Self {
            served: rule.word(0) != "http-after-response",
            ..self
        }
    }

    /// Changes them at the routes that they are for; those with conditions become two.
    pub(super) fn apply(&self, routes: &mut Vec<Route>) {
        split(routes, &self.paths, &self.conditions, &|route| {
            if route.deed == Deed::Forward || !self.served {
                route.rules.join(self.fields.clone());
            }
        });
    }
}

/// Changes routes where something holds; those that it holds for some requests of become two.
fn split(
    routes: &mut Vec<Route>,
    paths: &Places,
    conditions: &formula::All,
    change: &dyn Fn(&mut Route),
) {
    for route in std::mem::take(routes) {
        let some = match part(paths, &route) {
            Part::None => {
                routes.push(route);
                continue;
            }
            Part::All => None,
            Part::Some(pattern) => Some(Term::of("{path}", pattern, false)),
        };
        let mut changed = route.clone();
        change(&mut changed);
        if changed.rules.text() == route.rules.text() {
            routes.push(route);
            continue;
        }
        // What is asked already need not be asked again.
        let asked: Vec<_> = (conditions.iter().cloned().chain(some))
            .filter(|term| !route.conditions.contains(term))
            .collect();
        let never = |term: &Term| route.conditions.contains(&term.opposite());
        if asked.iter().any(never) {
            routes.push(route);
            continue;
        }
        let whole = asked.is_empty();
        changed.conditions.extend(asked);
        let same =
            |one: &Route| one.matcher == changed.matcher && one.conditions == changed.conditions;
        if !Term::has_two_networks(&changed.conditions) && !routes.iter().any(same) {
            routes.push(changed);
        }
        if !whole {
            routes.push(route);
        }
    }
}

/// Which of the requests of a route something holds for.
enum Part {
    None,
    All,
    /// Those whose path an expression matches.
    Some(String),
}

fn part(paths: &Places, route: &Route) -> Part {
    let Some(paths) = paths else {
        return Part::All;
    };
    let mut some = Vec::new();
    for path in paths {
        let begins = |text: &str| format!("^{}", pattern::literal(text));
        match (path, &route.matcher) {
            (one, two) if one == two => return Part::All,
            (Matcher::Prefix(one), Matcher::Prefix(two) | Matcher::Exact(two))
                if two.starts_with(one.as_str()) =>
            {
                return Part::All;
            }
            (Matcher::Prefix(one), Matcher::Regex(two)) if two.starts_with(&begins(one)) => {
                return Part::All;
            }
            (Matcher::Regex(_), Matcher::Exact(two)) if path.is_for(two) => return Part::All,
            (Matcher::Prefix(one), Matcher::Prefix(two)) => {
                if !one.ends_with('/') && one.starts_with(two.as_str()) {
                    some.push(begins(one));
                }
            }
            (_, Matcher::Exact(_)) => {}
            (Matcher::Prefix(one), _) => some.push(begins(one)),
            (Matcher::Exact(one), Matcher::Any | Matcher::Regex(_)) => {
                some.push(format!("{}$", begins(one)));
            }
            (Matcher::Regex(one), _) => some.push(one.clone()),
            (Matcher::Exact(_) | Matcher::Any, _) => {}
        }
    }
    match some.is_empty() {
        true => Part::None,
        false => Part::Some(formula::any(&some)),
    }
}

/// What holds for all routes, and for all that lead to servers.
#[derive(Default)]
pub(super) struct Common {
    pub(super) all: Rules,
    pub(super) served: Rules,
}

/// Who is let in, at the routes that it is for; and what holds for all.
pub(super) fn guarded(
    mut routes: Vec<Route>,
    common: &Common,
    guards: Vec<(Places, &'static str, String)>,
    quotas: Vec<(Places, String)>,
    partial: &[Partial],
) -> Vec<Route> {
    let places = guards.iter().map(|(paths, _, _)| paths);
    let places = places.chain(quotas.iter().map(|(paths, _)| paths));
    for paths in places.chain(partial.iter().map(|partial| &partial.paths)) {
        for path in paths.iter().flatten() {
            if routes.iter().any(|route| route.matcher == *path) {
                continue;
            }
            let wanted = match path {
                Matcher::Prefix(path) if path.ends_with('/') => path,
                Matcher::Exact(path) => path,
                // It is asked at the routes that there are.
                _ => continue,
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
    for (paths, name) in &quotas {
        split(&mut routes, paths, &formula::All::new(), &|route| {
            route.rules.include("quotas", name);
        });
    }
    for route in &mut routes {
        let mut rules = common.all.clone();
        if route.deed == Deed::Forward {
            rules.join(common.served.clone());
        }
        rules.join(std::mem::take(&mut route.rules));
        route.rules = rules;
    }
    for partial in partial {
        partial.apply(&mut routes);
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
