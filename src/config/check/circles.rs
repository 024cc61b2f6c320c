//! Redirects that lead in circles, as far as that can be seen without a request.

use std::collections::HashMap;

use super::RawSite;
use crate::config::diagnostic::Diagnostic;
use crate::config::read::Context;
use crate::config::rules::{RawAction, RawRoute};
use crate::config::{Matcher, Piece, SiteName, Template, Variable};

/// As many as browsers follow, about.
const HOPS: usize = 10;

/// Routes looked at, over all. A file may be all redirects.
const MOST: usize = 100_000;

/// What stands for something that only a request knows; no path has it.
const UNKNOWN: char = '\u{0}';

/// What stands for a path that is not known.
const SAME: &str = "/\u{1}";

/// What stands for something that nobody else has a route for.
const SOMETHING: &str = "~something";

/// What a client asks for.
struct Asked {
    host: String,
    /// `None`: some path that the route matches.
    path: Option<String>,
}

/// Follows each redirect.
pub(super) fn redirects(sites: &[RawSite], cx: &Context<'_>) {
    let map = Map::new(sites);
    let mut left = MOST;
    for site in sites {
        for route in &site.routes {
            let Some(RawAction::Redirect(..)) = route.action else {
                continue;
            };
            let circle = (site.names.iter()).find_map(|name| {
                let host = example(&name.value);
                map.circle(site, route, host, &mut left)
            });
            if let Some(to) = circle {
                let warning = Diagnostic::warning(
                    route.matcher.span.clone(),
                    "a redirect that leads back to itself",
                );
                cx.report(warning.help(format!("a client is sent to {to}, and from there again")));
            }
        }
    }
}

/// A host that has this name.
fn example(name: &SiteName) -> String {
    match name {
        SiteName::Exact(name) => name.to_string(),
        SiteName::Wildcard(parent) => format!("{SOMETHING}.{parent}"),
        SiteName::Any => SOMETHING.to_owned(),
    }
}

/// Sites by name.
struct Map<'s> {
    exact: HashMap<&'s str, &'s RawSite>,
    wildcard: HashMap<&'s str, &'s RawSite>,
    any: Option<&'s RawSite>,
}

impl<'s> Map<'s> {
    fn new(sites: &'s [RawSite]) -> Self {
        let (mut exact, mut wildcard, mut any) = (HashMap::new(), HashMap::new(), None);
        for site in sites {
            for name in &site.names {
                match &name.value {
                    SiteName::Exact(name) => {
                        exact.insert(&**name, site);
                    }
                    SiteName::Wildcard(parent) => {
                        wildcard.insert(&**parent, site);
                    }
                    SiteName::Any => any = Some(site),
                }
            }
        }
        Self {
            exact,
            wildcard,
            any,
        }
    }

    fn find(&self, host: &str) -> Option<&'s RawSite> {
        let below = || self.wildcard.get(host.split_once('.')?.1);
        let found = self.exact.get(host).or_else(below).copied();
        found.or(self.any)
    }

    /// Where a client is sent that comes back to this route.
    fn circle(
        &self,
        site: &'s RawSite,
        route: &'s RawRoute,
        host: String,
        left: &mut usize,
    ) -> Option<String> {
        let path = match &route.matcher.value {
            Matcher::Exact(path) => Some(path.to_string()),
            Matcher::Prefix(path) if !path.ends_with('/') => Some(format!("{path}/{SOMETHING}")),
            Matcher::Prefix(path) | Matcher::StartsWith(path) => Some(format!("{path}{SOMETHING}")),
            Matcher::Any | Matcher::Regex(_) => None,
        };
        let (mut asked, mut from) = (Asked { host, path }, route);
        let (mut at, mut sent) = (site, None);
        let mut seen: Vec<(*const RawRoute, String)> = Vec::new();
        for _ in 0..HOPS {
            let Some(RawAction::Redirect(location, _)) = &from.action else {
                return None;
            };
            let here = (std::ptr::from_ref(from), asked.host.clone());
            if seen.contains(&here) {
                // Another route's circle is told of there.
                return sent.filter(|_| std::ptr::eq(from, route));
            }
            seen.push(here);
            *left = left.checked_sub(at.routes.len())?;
            let next = asked.follow(location, &from.matcher.value)?;
            sent.get_or_insert_with(|| next.to_string());
            let there = self.find(&next.host)?;
            from = match &next.path {
                Some(path) => there.find(path, Some(route))?,
                // What holds for a client holds again; what it asks for may differ.
                None if std::ptr::eq(there, at) && from.conditions.are_of_client() => from,
                None => return None,
            };
            (asked, at) = (next, there);
        }
        None
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.as_deref().unwrap_or("/…");
        write!(f, "`https://{}{path}`", self.host)
    }
}

impl Asked {
    /// What is asked for next; `None` where that cannot be known, or is somewhere else.
    fn follow(&self, location: &Template, from: &Matcher) -> Option<Self> {
        let url = self.url(location, from);
        let (host, rest) = match url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
        {
            None => (self.host.as_str(), url.as_str()),
            Some(url) => {
                let end = url.find(['/', '?', '#']).unwrap_or(url.len());
                let (authority, rest) = url.split_at(end);
                (authority.strip_suffix(":443").unwrap_or(authority), rest)
            }
        };
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let path = if path.is_empty() { "/" } else { path };
        let same = path == SAME;
        // What is not plain would have to be read as requests are.
        let is_plain =
            !path.contains([UNKNOWN, '\u{1}', '%']) && !path.contains("//") && !path.contains("/.");
        if host.contains([UNKNOWN, ':']) || !(same || is_plain) {
            return None;
        }
        Some(Self {
            host: host.to_ascii_lowercase(),
            path: (!same).then(|| path.to_owned()),
        })
    }

    /// What the location comes to.
    fn url(&self, location: &Template, from: &Matcher) -> String {
        let path = self.path.as_deref().unwrap_or(SAME);
        let mut url = String::new();
        for piece in location.pieces() {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Variable(Variable::Host) => url.push_str(&self.host),
                Piece::Variable(Variable::Port) => url.push_str("443"),
                Piece::Variable(Variable::Scheme) => url.push_str("https"),
                Piece::Variable(Variable::Path | Variable::Uri) => url.push_str(path),
                Piece::Variable(Variable::Query) => {}
                Piece::Variable(Variable::Rest) => match from {
                    Matcher::Prefix(prefix)
                    | Matcher::StartsWith(prefix)
                    | Matcher::Exact(prefix) => {
                        url.push_str(path.strip_prefix(&**prefix).unwrap_or_default());
                    }
                    Matcher::Any => url.push_str(path.strip_prefix('/').unwrap_or_default()),
                    Matcher::Regex(_) => url.push(UNKNOWN),
                },
                Piece::Variable(_) => url.push(UNKNOWN),
            }
        }
        url
    }
}
