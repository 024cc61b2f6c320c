//! Which site and which route a request is for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::condition::Asked;
use super::error::Refusal;
use super::limit::Bucket;
use super::path;
use super::path::{clean, normalise};
use super::rules::material::Material;
use super::rules::{Marks, Rules, encode_path};
use crate::config::{
    self, Compression, CompressionRules, Conditions, Config, Limits, Matcher, Pattern, Rewrite,
    RouteTimeouts, SiteName, SiteTls, Template, Timeouts, Variable,
};
use crate::http::RequestHead;
use crate::http::host::Host;
use crate::upstream::{Upstream, Upstreams};

/// Identifies a site within one table, for tables beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteIndex(usize);

impl SiteIndex {
    /// Its place in [`Table::sites`].
    pub const fn get(self) -> usize {
        self.0
    }
}

/// A site, as requests see it.
#[derive(Debug)]
pub struct Site {
    /// Its first name, for logs and metrics.
    pub label: Arc<str>,
    /// What it asks of the connection that its requests come on.
    pub tls: Arc<SiteTls>,
    /// What it may still be asked for, where that is limited.
    pub rate: Option<Arc<Bucket>>,
    /// The rules that hold where no route does.
    pub rules: Option<Arc<Rules>>,
    /// All its requests take its one route, which is for `/` and asks for nothing.
    is_single: bool,
    /// Routes for any path, in their order.
    any: Vec<Route>,
    /// Routes for one path, by that; several in their order.
    exact: HashMap<Box<[u8]>, Vec<Route>>,
    /// Routes with an expression, in their order.
    patterns: Vec<(Expression, Route)>,
    /// The longest first, and of two paths the one that a segment ends with; those of one path in
    /// their order.
    prefixes: Vec<Prefix>,
}

/// What is done with some requests of a site.
#[derive(Debug)]
pub struct Route {
    /// What is done.
    pub action: Action,
    /// The rules that hold, those of its site among them.
    pub rules: Option<Arc<Rules>>,
    /// Bytes that a request's body may have.
    pub request_body: Option<u64>,
    /// What it asks of requests, beside their paths.
    conditions: Option<Box<Conditions>>,
    /// Something in it needs to know what follows its path.
    uses_rest: bool,
}

/// A route that a path leads to.
struct Found<'s> {
    route: &'s Route,
    /// Its own path; nothing where it has an expression.
    path: &'s [u8],
    /// What the named groups of its expression matched.
    groups: Vec<Vec<u8>>,
}

/// What is done with a request.
#[derive(Debug)]
pub enum Action {
    /// It goes to an upstream.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect {
        /// Where to.
        location: Template,
        /// With which status.
        status: u16,
    },
    /// It is answered as it is written.
    Respond(Respond),
}

/// The way to an upstream.
#[derive(Debug)]
pub struct Forward {
    /// Which one.
    pub upstream: Arc<Upstream>,
    /// How the path is written anew.
    pub rewrite: Option<Rewrite>,
    /// How responses are compressed, where they are.
    pub compression: Option<Arc<Compression>>,
    /// The route's own deadlines, where it has any.
    own: Option<Box<(Timeouts, Option<Duration>)>>,
}

/// A response that is written in the configuration.
#[derive(Debug)]
pub struct Respond {
    /// The status.
    pub status: u16,
    /// The body; `None`: one for the status.
    pub body: Option<config::Body>,
    /// Its type.
    pub content_type: Arc<str>,
    /// How it is compressed, where it is.
    pub compression: Option<Arc<Compression>>,
}

impl Forward {
    /// The deadlines that hold.
    pub fn timeouts(&self) -> &Timeouts {
        self.own
            .as_ref()
            .map_or(&self.upstream.timeouts, |own| &own.0)
    }

    /// The deadline for the whole request.
    pub fn total(&self) -> Option<Duration> {
        self.own.as_ref().map_or(self.upstream.total, |own| own.1)
    }
}

/// An expression, and which of its groups have names.
#[derive(Debug)]
struct Expression {
    pattern: Pattern,
    groups: Vec<usize>,
}

impl Prefix {
    fn covers(&self, path: &[u8]) -> bool {
        match self.whole {
            true => config::is_below(&self.path, path),
            false => path.starts_with(&self.path),
        }
    }
}

impl Expression {
    fn new(pattern: &Pattern) -> Self {
        let names = pattern.regex().capture_names().enumerate();
        Self {
            pattern: pattern.clone(),
            groups: names.filter_map(|(at, name)| name.map(|_| at)).collect(),
        }
    }

    /// The values of its groups where it matches.
    fn find(&self, path: &[u8]) -> Option<Vec<Vec<u8>>> {
        let regex = self.pattern.regex();
        if self.groups.is_empty() {
            return regex.is_match(path).then(Vec::new);
        }
        let found = regex.captures(path)?;
        let value = |&at: &usize| {
            let group = found.get(at).map_or(&b""[..], |group| group.as_bytes());
            encode_path(group)
        };
        Some(self.groups.iter().map(value).collect())
    }
}

#[derive(Debug)]
struct Prefix {
    /// As paths are compared.
    path: Box<[u8]>,
    /// A segment has to end with it.
    whole: bool,
    /// No expression is tried where this is the longest.
    last: bool,
    route: Route,
}

/// All sites and routes of a configuration.
#[derive(Debug, Default)]
pub struct Table {
    sites: Vec<Site>,
    exact: HashMap<Arc<str>, SiteIndex>,
    wildcard: HashMap<Arc<str>, SiteIndex>,
    any: Option<SiteIndex>,
    /// For requests that name no host, which only HTTP/1.0 may.
    nameless: Option<SiteIndex>,
    /// For requests that reach no site.
    rules: Option<Arc<Rules>>,
}

impl Table {
    /// Builds it. A configuration names only upstreams that exist.
    pub fn build(config: &Config, upstreams: &Upstreams, material: &Material) -> Self {
        let mut shared = Shared {
            limits: &config.limits,
            upstreams,
            material,
            compression: HashMap::new(),
        };
        let mut table = Self {
            rules: shared.rules(&config.defaults, None),
            ..Self::default()
        };
        let defaults = (&config.defaults, table.rules.clone());
        for (index, site) in config.sites.iter().enumerate() {
            let index = SiteIndex(index);
            for name in &site.names {
                match name {
                    SiteName::Exact(name) => {
                        table.exact.insert(Arc::clone(name), index);
                    }
                    SiteName::Wildcard(parent) => {
                        table.wildcard.insert(Arc::clone(parent), index);
                    }
                    SiteName::Any => table.any = Some(index),
                }
            }
            if site.default || table.nameless.is_none() {
                table.nameless = Some(index);
            }
            let built = Site::build(site, &defaults, &mut shared);
            table.sites.push(built);
        }
        table
    }

    /// The rules for requests that reach no site.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_deref()
    }

    /// Those of the site that a request names, or what holds for all: for what is refused before
    /// its route is looked for.
    pub fn rules_of(&self, authority: &[u8]) -> Option<&Rules> {
        match self.named(authority) {
            Some(index) => self.site(index).rules.as_deref(),
            None => self.rules(),
        }
    }

    /// All sites, in the order of the configuration.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// One of them.
    pub fn site(&self, index: SiteIndex) -> &Site {
        &self.sites[index.0]
    }

    /// The site for a host (lower case, without port or trailing dot): an exact name before a
    /// wildcard before `*`.
    pub fn find(&self, host: &str) -> Option<SiteIndex> {
        self.exact
            .get(host)
            .or_else(|| {
                if self.wildcard.is_empty() {
                    return None;
                }
                let (label, parent) = host.split_once('.')?;
                self.wildcard.get(parent).filter(|_| !label.is_empty())
            })
            .copied()
            .or(self.any)
    }

    /// The site for a host, as a request gives it.
    pub fn named(&self, authority: &[u8]) -> Option<SiteIndex> {
        Host::parse(authority).and_then(|host| self.find(host.as_str()))
    }

    /// The site for a request that names no host.
    pub const fn nameless(&self) -> Option<SiteIndex> {
        self.nameless
    }
}

/// What sites and routes are built with. Most of them say nothing of their own: ten thousand that
/// follow the defaults share one copy of those.
struct Shared<'c> {
    limits: &'c Limits,
    upstreams: &'c Upstreams,
    material: &'c Material,
    compression: HashMap<&'c CompressionRules, Option<Arc<Compression>>>,
}

impl<'c> Shared<'c> {
    /// Rules made ready, or those of `wider` where they are the same.
    fn rules(
        &self,
        rules: &config::Rules,
        wider: Option<&(&config::Rules, Option<Arc<Rules>>)>,
    ) -> Option<Arc<Rules>> {
        match wider {
            Some((same, ready)) if *same == rules => ready.clone(),
            _ => Rules::new(rules, self.upstreams, self.material).map(Arc::new),
        }
    }

    fn compression(&mut self, rules: &'c CompressionRules) -> Option<Arc<Compression>> {
        let finish = || rules.finish();
        self.compression.entry(rules).or_insert_with(finish).clone()
    }
}

impl Site {
    fn build<'c>(
        site: &'c config::Site,
        defaults: &(&config::Rules, Option<Arc<Rules>>),
        shared: &mut Shared<'c>,
    ) -> Self {
        let rules = shared.rules(&site.rules, Some(defaults));
        let label = match &site.names[..] {
            [SiteName::Exact(name), ..] => Arc::clone(name),
            [SiteName::Wildcard(parent), ..] => format!("*.{parent}").into(),
            [SiteName::Any, ..] | [] => "*".into(),
        };
        let mut built = Self {
            label,
            tls: Arc::clone(&site.tls),
            rate: shared.material.tally().site(&site.names),
            rules: rules.clone(),
            is_single: false,
            any: Vec::new(),
            exact: HashMap::new(),
            patterns: Vec::new(),
            prefixes: Vec::new(),
        };
        let of_site = (&site.rules, rules);
        for route in &site.routes {
            let rules = shared.rules(&route.rules, Some(&of_site));
            let Some(ready) = Route::build(route, rules, shared) else {
                continue;
            };
            let or_as_written = |normal: Option<Vec<u8>>, path: &str| {
                let path = normal.unwrap_or_else(|| path.as_bytes().to_vec());
                path.into_boxed_slice()
            };
            let normal = |path: &str| {
                let normal = normalise(path.as_bytes()).map(|path| path.into_owned());
                or_as_written(normal, path)
            };
            let last = route.last;
            let prefix = |path, whole, route| Prefix {
                path,
                whole,
                last,
                route,
            };
            match &route.matcher {
                Matcher::Any => built.any.push(ready),
                Matcher::Exact(path) => built.exact.entry(normal(path)).or_default().push(ready),
                Matcher::Regex(pattern) => {
                    built.patterns.push((Expression::new(pattern), ready));
                }
                Matcher::Prefix(path) => {
                    built.prefixes.push(prefix(normal(path), true, ready));
                }
                Matcher::StartsWith(text) => {
                    let path = or_as_written(path::beginning(text.as_bytes()), text);
                    built.prefixes.push(prefix(path, false, ready));
                }
            }
        }
        built
            .prefixes
            .sort_by_key(|prefix| std::cmp::Reverse((prefix.path.len(), prefix.whole)));
        built.is_single = built.any.is_empty()
            && built.exact.is_empty()
            && built.patterns.is_empty()
            && matches!(&built.prefixes[..], [only] if *only.path == *b"/" && only.route.conditions.is_none());
        built
    }

    /// The route for a request, and what it found in the path. The path is compared as an upstream
    /// would read it, so that a route cannot be walked around by `/a/../b` or `%61`.
    pub fn route(&self, asked: Asked<'_>) -> Result<(&Route, Option<Box<Marks>>), Refusal> {
        let head = asked.head;
        // Most sites have one route, and most paths are plain.
        if self.is_single
            && let [only, ..] = &self.prefixes[..]
        {
            return only.route.with_rest(head, b"/");
        }
        let path = normalise(head.path()).ok_or(Refusal::Path)?;
        let found = self.find(&path, asked);
        // To another upstream it may be another path: then no route is surely the right one.
        for reading in path::other_readings(head.path()) {
            let other = normalise(&reading).ok_or(Refusal::Path)?;
            let same = match (&found, self.find(&other, asked)) {
                (Some(one), Some(other)) => std::ptr::eq(one.route, other.route),
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Err(Refusal::Path);
            }
        }
        let Found {
            route,
            path,
            groups,
        } = found.ok_or(Refusal::NoRoute)?;
        if groups.is_empty() {
            return route.with_rest(head, path);
        }
        Ok((route, Some(Box::new(Marks::of_groups(groups)))))
    }

    /// The route for a path that is normal: the first of those for it whose conditions hold.
    fn find(&self, path: &[u8], asked: Asked<'_>) -> Option<Found<'_>> {
        let of = |route, path| Found {
            route,
            path,
            groups: Vec::new(),
        };
        let takes = |route: &&Route| route.takes(path, asked);
        if let Some(route) = self.any.iter().find(takes) {
            return Some(of(route, b"/"));
        }
        if let Some((own, routes)) = self.exact.get_key_value(path)
            && let Some(route) = routes.iter().find(takes)
        {
            return Some(of(route, own));
        }
        let mut prefixes = self.prefixes.iter();
        let prefix = prefixes.find(|prefix| prefix.covers(path) && takes(&&prefix.route));
        if prefix.is_none_or(|prefix| !prefix.last) {
            for (expression, route) in &self.patterns {
                if let Some(groups) = expression.find(path)
                    && takes(&route)
                {
                    return Some(Found {
                        groups,
                        ..of(route, b"")
                    });
                }
            }
        }
        prefix.map(|prefix| of(&prefix.route, &prefix.path))
    }

    /// Its routes, in no order that matters.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        let patterns = self.patterns.iter().map(|(_, route)| route);
        let prefixes = self.prefixes.iter().map(|prefix| &prefix.route);
        let exact = self.exact.values().flatten();
        self.any.iter().chain(exact).chain(patterns).chain(prefixes)
    }
}

impl Route {
    fn build<'c>(
        route: &'c config::Route,
        rules: Option<Arc<Rules>>,
        shared: &mut Shared<'c>,
    ) -> Option<Self> {
        let (mut uses_rest, mut value) = (false, None);
        let action = match &route.action {
            config::Action::Forward { upstream, rewrite } => {
                match rewrite {
                    Some(Rewrite::Prefix(_) | Rewrite::Start(_)) => uses_rest = true,
                    Some(Rewrite::Path(template)) => value = Some(template),
                    None => {}
                }
                let upstream = Arc::clone(shared.upstreams.get(upstream)?);
                Action::Forward(Forward {
                    own: deadlines(&route.rules.timeouts, &upstream),
                    rewrite: rewrite.clone(),
                    compression: shared.compression(&route.rules.compression),
                    upstream,
                })
            }
            config::Action::Redirect { location, status } => {
                value = Some(location);
                Action::Redirect {
                    location: location.clone(),
                    status: *status,
                }
            }
            config::Action::Respond {
                status,
                body,
                content_type,
            } => {
                if let Some(config::Body::Template(template)) = body {
                    value = Some(template);
                }
                Action::Respond(Respond {
                    status: *status,
                    body: body.clone(),
                    content_type: Arc::clone(content_type),
                    compression: shared.compression(&route.rules.compression),
                })
            }
        };
        let request_body = match &route.rules.request_body {
            None => shared.limits.request_body,
            Some(setting) => setting.on().copied(),
        };
        let conditions = &route.conditions;
        Some(Self {
            conditions: (!conditions.is_empty()).then(|| Box::new(conditions.clone())),
            uses_rest: uses_rest || uses(&Variable::Rest, route.rules.templates().chain(value)),
            action,
            rules,
            request_body,
        })
    }

    /// Whether its conditions hold, where it has any.
    #[inline]
    fn takes(&self, path: &[u8], asked: Asked<'_>) -> bool {
        match &self.conditions {
            None => true,
            Some(conditions) => asked.meets(conditions, path),
        }
    }

    /// Itself, and what follows its path, where something needs that.
    fn with_rest(
        &self,
        head: &RequestHead,
        own: &[u8],
    ) -> Result<(&Self, Option<Box<Marks>>), Refusal> {
        if !self.uses_rest {
            return Ok((self, None));
        }
        let path = clean(head.path()).ok_or(Refusal::Path)?;
        let mut rest = path::after(&path, own.len()).to_vec();
        if let Some(query) = head.query() {
            rest.push(b'?');
            rest.extend_from_slice(query);
        }
        Ok((self, Some(Box::new(Marks::of_rest(rest)))))
    }
}

fn uses<'a>(variable: &Variable, mut templates: impl Iterator<Item = &'a Template>) -> bool {
    templates.any(|template| template.variables().any(|found| found == variable))
}

/// A route's own deadlines, over those of its upstream.
fn deadlines(
    own: &RouteTimeouts,
    upstream: &Upstream,
) -> Option<Box<(Timeouts, Option<Duration>)>> {
    if *own == RouteTimeouts::default() {
        return None;
    }
    let wider = upstream.timeouts;
    let timeouts = Timeouts {
        upstream_response: own.response.unwrap_or(wider.upstream_response),
        upstream_idle: own.idle.unwrap_or(wider.upstream_idle),
        request_body: own.request_body.unwrap_or(wider.request_body),
        send: own.send.unwrap_or(wider.send),
        tunnel: own.tunnel.unwrap_or(wider.tunnel),
        ..wider
    };
    Some(Box::new((timeouts, own.total.or(upstream.total))))
}

#[cfg(test)]
mod tests;
