//! `rewrite` to another location: whose it is, is settled once and for all where that can be.

use super::action::Outcome;
use super::scope::Scope;
use super::server::{Server, closed};
use super::value::Variables;
use super::{Directive, Import, quoted};
use crate::import::formula::Term;
use crate::import::pattern;
use crate::import::site::{Deed, Matcher, Route};

impl Import {
    /// A route for what a `rewrite … last` takes to another location. `matcher`: what the location
    /// around it is for. `None`: it was told of.
    pub(super) fn rewritten_elsewhere<'d>(
        &mut self,
        rewrite: &'d Directive,
        server: &mut Server<'d>,
        matcher: &Matcher,
    ) -> Option<Route> {
        let text = rewrite.first();
        let to = rewrite.args.get(1).map_or("", String::as_str);
        // What matches all there is is the path.
        let to = &match is_all(text) {
            true => to.replace("/$1", "$1").replace("$1", "$uri"),
            false => to.to_owned(),
        };
        let advice = "changes the path and looks for another location, which cannot be told before \
                      the request comes; it is left out";
        let within = match matcher {
            Matcher::Prefix(path) | Matcher::Exact(path) => pattern::convert(text, false, true)
                .ok()
                .and_then(|found| pattern::below(&found, path)),
            Matcher::Any => None,
            // What it asks for the location has asked for already.
            Matcher::Regex(outer) => pattern::convert(text, false, true)
                .ok()
                .filter(|found| pattern::is_same(found, outer) || is_all(text)),
        };
        let mut variables = server.variables.clone();
        variables.groups = true;
        let target = rooted(to, &variables);
        let end = to.find(['$', '?']).unwrap_or(to.len());
        let (literal, behind) = to.split_at(end);
        let literal = &match behind.starts_with("$uri") {
            true => format!("{literal}/"),
            false => literal.to_owned(),
        };
        let found = target.and_then(|target| Some((within?, target, leads(server, literal)?)));
        let Some((expression, target, location)) = found else {
            self.lost(rewrite, advice);
            return None;
        };
        let (location, scope) = location;
        self.tell_slash(rewrite, matcher);
        let matcher = Matcher::Regex(expression);
        self.seen.mark(rewrite);
        let Some((mut action, rules)) = self.forwards(server, location, &matcher, &scope) else {
            let advice = "leads to a location that does not simply pass requests on: its paths are \
                          closed until you have decided what they do";
            self.lost(rewrite, advice);
            return Some(closed(rewrite, matcher));
        };
        action.push(format!("rewrite = {}", quoted(&target)));
        if to.contains('$') {
            let path = location.args.last().map_or("/", String::as_str);
            let advice = format!("always goes where {path} goes, whatever the new path is");
            self.differs(rewrite, advice);
        }
        Some(Route {
            deed: Deed::Forward,
            action,
            rules,
            ..closed(rewrite, matcher)
        })
    }

    /// Tells of a `rewrite` that may lead to a path without a slash at its begin.
    pub(super) fn tell_slash(&mut self, rewrite: &Directive, matcher: &Matcher) {
        if may_lack_slash(rewrite, matcher) {
            let advice = "puts a slash before what a group is, where it has none: nginx answers 500 \
                          where nothing is left of the path, and else asks for one without a slash";
            self.differs(rewrite, advice);
        }
    }

    /// The upstream and the rules of a location, where all that it does is to pass requests on.
    fn forwards<'d>(
        &mut self,
        server: &mut Server<'d>,
        location: &'d Directive,
        matcher: &Matcher,
        scope: &Scope<'d>,
    ) -> Option<(Vec<String>, crate::import::site::Rules)> {
        let keeps_out = location.inside().iter().any(|inner| {
            super::location::restricts(inner) || matches!(inner.name.as_str(), "allow" | "if")
        });
        if keeps_out {
            return None;
        }
        match self.handler(server, location, matcher, scope) {
            Outcome::Forward(action, rules) if action.len() == 1 => Some((action, rules)),
            _ => None,
        }
    }
}

/// Whether what a `rewrite` leads to begins with a group that need not begin with a slash.
fn may_lack_slash(rewrite: &Directive, matcher: &Matcher) -> bool {
    let (text, to) = (rewrite.first(), rewrite.args.get(1));
    let number = to.and_then(|to| to.strip_prefix('$')?.chars().next()?.to_digit(10));
    let Some(number @ 1..) = number else {
        return false;
    };
    let group = |at: &usize| {
        let (before, behind) = text.split_at(*at);
        behind.starts_with('(') && !behind.starts_with("(?") && !before.ends_with('\\')
    };
    let places = text.char_indices().map(|(at, _)| at);
    let Some(at) = places.filter(group).nth(number as usize - 1) else {
        return false;
    };
    let (before, group) = (text[..at].trim_start_matches('^'), &text[at + 1..]);
    let group = group.strip_prefix('\\').unwrap_or(group);
    if group.starts_with('/') && !group.starts_with("/?") {
        return false;
    }
    let before = before.replace("\\/", "/").replace("\\.", ".");
    match matcher {
        _ if before.is_empty() => false,
        Matcher::Prefix(path) => {
            let rest = path.strip_prefix(before.as_str());
            rest.is_none_or(|rest| !rest.starts_with('/'))
        }
        Matcher::Any | Matcher::Exact(_) | Matcher::Regex(_) => true,
    }
}

/// What a `rewrite` leads to, with the query of the request behind one of its own, but for where a
/// question mark at the end says that there is none.
pub(super) fn with_query(to: &str) -> String {
    match to.strip_suffix('?') {
        Some(inner) if inner.contains('?') => inner.to_owned(),
        None if to.contains('?') => format!("{to}&$args"),
        _ => to.to_owned(),
    }
}

/// What a `rewrite` leads to, from the root: a group begins with a slash or has none before it.
pub(super) fn rooted(to: &str, variables: &Variables) -> Option<String> {
    let target = variables.template(&with_query(to)).ok()?;
    Some(match target.starts_with('/') {
        true => target,
        false if target.starts_with("{uri}") || target.starts_with("{path}") => target,
        false => format!("/{target}"),
    })
}

/// An expression for what it matches of what is around it, and what else has to be asked where that
/// cannot be said by one.
pub(super) fn within(expression: String, matcher: &Matcher) -> (String, Option<Term>) {
    let asks = |pattern: String| Some(Term::of("{path}", pattern, false));
    let (found, else_asks) = match matcher {
        Matcher::Any => return (expression, None),
        Matcher::Prefix(path) => (
            pattern::below(&expression, path),
            asks(format!("^{}", pattern::literal(path))),
        ),
        Matcher::Exact(path) => (None, asks(format!("^{}$", pattern::literal(path)))),
        Matcher::Regex(outer) => (pattern::both(outer, &expression), asks(outer.clone())),
    };
    match found {
        Some(found) => (found, None),
        None => (expression, else_asks),
    }
}

/// Whether an expression matches every path.
pub(super) fn is_all(text: &str) -> bool {
    matches!(
        text,
        "^" | ".*"
            | "^.*"
            | "^.*$"
            | "(.*)"
            | "^(.*)$"
            | "^(.*)"
            | "^/"
            | "/"
            | "^/.*$"
            | "^/.*"
            | "^(/.*)$"
            | "^(/.*)"
            | "^/(.*)$"
            | "^/(.*)"
    )
}

/// The location for a path of which only the begin is known: the longest prefix of it, unless there
/// is an expression that asks for no more than is known.
fn leads<'d>(server: &Server<'d>, literal: &str) -> Option<(&'d Directive, Scope<'d>)> {
    let mut found = Vec::new();
    collect(&server.scope, literal, &mut found);
    let best = found.into_iter().max_by_key(|(length, ..)| *length);
    best.map(|(_, location, scope)| (location, scope))
}

fn collect<'d>(
    outer: &Scope<'d>,
    literal: &str,
    found: &mut Vec<(usize, &'d Directive, Scope<'d>)>,
) {
    // Expressions go before prefixes, the first of them before all.
    const EXPRESSION: usize = usize::MAX / 2;
    for location in outer.here().iter().filter(|inner| inner.name == "location") {
        let weight = match location.args.as_slice() {
            [modifier, path] if modifier == "=" && path == literal => usize::MAX,
            [path] if literal.starts_with(path.as_str()) => path.len(),
            [modifier, path] if modifier == "^~" && literal.starts_with(path.as_str()) => {
                path.len()
            }
            [modifier, text] if modifier == "~" && text.starts_with('^') => {
                let begin = text[1..].replace("\\/", "/");
                let plain = |c: char| c.is_ascii_alphanumeric() || "/-_".contains(c);
                match begin.chars().all(plain) && literal.starts_with(&begin) {
                    true => EXPRESSION - found.len(),
                    false => continue,
                }
            }
            _ => continue,
        };
        let scope = outer.inside(location.inside());
        found.push((weight, location, scope.clone()));
        collect(&scope, literal, found);
    }
}
