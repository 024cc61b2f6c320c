//! What holds at routes beside what they do: who is let in, quotas, changes to the fields of some
//! requests.

use std::collections::BTreeSet;

use super::array;
use super::left::Places;
use crate::import::formula::{self, Term};
use crate::import::site::{Deed, Matcher, Route, Rules};

/// Changes to the fields of some requests.
pub(super) struct Partial {
    paths: Places,
    conditions: formula::All,
    fields: Rules,
}

impl Partial {
    pub(super) fn new(paths: Places, conditions: formula::All, fields: &Rules) -> Self {
        Self {
            paths,
            conditions,
            fields: fields.clone(),
        }
    }

    /// Changes them at the routes that they are for; those with conditions become two.
    pub(super) fn apply(&self, routes: &mut Vec<Route>) {
        for route in std::mem::take(routes) {
            let is_for = covers(&self.paths, &route) && route.deed == Deed::Forward;
            let mut changed = route.clone();
            changed.rules.extend(self.fields.clone());
            changed.conditions.extend(self.conditions.iter().cloned());
            match (is_for, self.conditions.is_empty()) {
                (false, _) => routes.push(route),
                (true, true) => routes.push(changed),
                (true, false) => {
                    if !Term::has_two_networks(&changed.conditions) {
                        routes.push(changed);
                    }
                    routes.push(route);
                }
            }
        }
    }
}

/// Who is let in, at the routes that it is for; and what holds for all.
pub(super) fn guarded(
    mut routes: Vec<Route>,
    common: Rules,
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
            let (Matcher::Prefix(wanted) | Matcher::Exact(wanted)) = path else {
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
