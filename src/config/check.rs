//! What holds between the sections of a file: names that meet, references that lead somewhere.

mod circles;
mod doubt;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Report, Span, quoted};
use super::read::{At, Context};
use super::rules::{RawAction, RawRoute};
use super::section::File;
use super::stream::{RawStream, Stream};
use super::tls::{self, RawSiteTls};
use super::value::Target;
use super::{
    Action, Config, Listen, Matcher, Rate, Rewrite, Route, Rules, Server, Setting, Site, SiteName,
    Trace, Upstream,
};

/// One `[[site]]`, as it was read.
pub(super) struct RawSite {
    pub(super) span: Span,
    pub(super) names: Vec<At<SiteName>>,
    pub(super) default: At<bool>,
    pub(super) routes: Vec<RawRoute>,
    /// Where its TLS is passed through to.
    pub(super) passthrough: Option<At<Target>>,
    /// The last of the routes is what the site does itself.
    pub(super) has_own: bool,
    pub(super) rules: Rules,
    pub(super) tls: RawSiteTls,
    pub(super) rate: Option<Rate>,
}

impl RawSite {
    /// Whether requests in plain text are answered anywhere in it.
    fn is_plain(&self, defaults: &Rules) -> bool {
        self.in_plain(defaults, |_| true)
    }

    /// Whether passwords are asked for where they are.
    fn asks_in_plain(&self, defaults: &Rules) -> bool {
        self.in_plain(defaults, |rules| {
            matches!(rules.basic_auth, Some(Setting::On(_)))
        })
    }

    /// Whether something holds for rules under which requests in plain text are answered.
    fn in_plain(&self, defaults: &Rules, holds: impl Fn(&Rules) -> bool) -> bool {
        let own = self.rules.plain_text.or(defaults.plain_text);
        let of = |rules: &Rules| rules.plain_text.or(own) == Some(true) && holds(rules);
        of(&self.rules) || self.routes.iter().any(|route| of(&route.rules))
    }

    /// What is done where a route does not say: what the site does, if that is to pass on.
    fn upstream(&self) -> Option<&At<Target>> {
        // The site's own is last.
        match self.routes.last()?.action.as_ref()? {
            RawAction::Forward(upstream) if self.has_own => Some(upstream),
            _ => None,
        }
    }
}

/// One `[upstream.NAME]`, as it was read.
pub(super) struct RawUpstream {
    pub(super) name: Arc<str>,
    pub(super) span: Span,
    pub(super) servers: Vec<At<Server>>,
    /// All but the servers.
    pub(super) settings: Upstream,
}

/// Sees the file as a whole. What it returns is only right when nothing was reported.
pub(super) fn config(file: File, cx: &Context<'_>) -> Config {
    if cx.is_whole() {
        listeners(&file, cx);
        certificates(&file, cx);
        if !file.sites.is_empty() || file.streams.is_empty() {
            names(&file.sites, cx);
        }
        routes(&file.sites, cx);
        doubt::sites(&file.sites, &file.defaults, file.tls.value.ja4, cx);
        circles::redirects(&file.sites, cx);
        streams(&file.streams, cx);
        raw_servers(&file, cx);
        upstreams(&file, cx);
        quotas(&file, cx);
        let sites = file.sites.iter().map(|site| &site.tls);
        let terminating = file.streams.iter().filter(|stream| stream.tls.is_some());
        let streams = terminating.flat_map(|stream| &stream.listen);
        let addresses: Vec<_> = file.listen.https.iter().chain(streams).cloned().collect();
        tls::check(&file.tls, &addresses, sites, cx);
    }
    let named = file.upstreams.into_iter().map(|upstream| {
        let servers = upstream.servers.into_iter().map(|server| server.value);
        let servers = servers.collect();
        let settings = upstream.settings;
        (
            upstream.name,
            Upstream {
                servers,
                ..settings
            },
        )
    });
    let mut upstreams: BTreeMap<_, _> = named.collect();
    for target in file.asked {
        finish_target(target, &mut upstreams);
    }
    let mut defaults = file.defaults;
    if file.traces.is_some() {
        // Whoever has somewhere to send them wants traces.
        let _ = defaults.trace.get_or_insert(Setting::On(Trace::Continue));
    }
    let (passed, terminated): (Vec<_>, Vec<_>) =
        (file.sites.into_iter()).partition(|site| site.passthrough.is_some());
    let sites = terminated
        .into_iter()
        .map(|site| finish_site(site, &defaults, &mut upstreams))
        .collect();
    let mut passthrough = Vec::new();
    for site in passed {
        let Some(target) = site.passthrough else {
            continue;
        };
        let upstream = finish_target(target, &mut upstreams);
        let names = site.names.into_iter();
        passthrough.extend(names.map(|name| (name.value, Arc::clone(&upstream))));
    }
    let streams = (file.streams.into_iter())
        .map(|stream| finish_stream(stream, &mut upstreams))
        .collect();
    Config {
        state_dir: file.state_dir,
        keep_last_good: file.keep_last_good,
        listen: Listen {
            https: plain(file.listen.https),
            http: plain(file.listen.http),
            proxy_protocol_at: plain(file.listen.proxy_protocol_at),
            admin: file.listen.admin.value.0,
            streams,
            passthrough,
            ..file.listen.rest
        },
        tls: file.tls.value,
        workers: file.workers,
        certificates: plain(file.certificates),
        defaults,
        sites,
        upstreams,
        quotas: (file.quotas.into_iter())
            .map(|quota| (quota.name, quota.quota))
            .collect(),
        dns: file.dns,
        timeouts: file.timeouts,
        limits: file.limits,
        drain: file.drain,
        upgrade: file.upgrade,
        alerts: file.alerts,
        log: file.log,
        traces: file.traces,
        warnings: Report::default(),
    }
}

fn plain<T>(all: Vec<At<T>>) -> Vec<T> {
    all.into_iter().map(|at| at.value).collect()
}

fn finish_site(
    site: RawSite,
    defaults: &Rules,
    upstreams: &mut BTreeMap<Arc<str>, Upstream>,
) -> Site {
    let inherited = site.upstream().cloned();
    let rules = site.rules.over(defaults);
    let mut routes: Vec<_> = site
        .routes
        .into_iter()
        .filter_map(|route| {
            let action = route
                .action
                .or_else(|| inherited.clone().map(RawAction::Forward));
            Some(Route {
                matcher: route.matcher.value,
                last: route.last,
                conditions: route.conditions,
                action: finish_action(action?, route.rewrite, upstreams),
                rules: route.rules.over(&rules),
            })
        })
        .collect();
    routes.sort_by_key(|route| std::cmp::Reverse(order(&route.matcher)));
    Site {
        names: plain(site.names),
        default: site.default.value,
        routes,
        rules,
        tls: Arc::new(site.tls.value),
        rate: site.rate,
    }
}

/// What goes before others is larger. Expressions stay in the order of the file.
fn order(matcher: &Matcher) -> (u8, usize, bool) {
    match matcher {
        Matcher::Any => (3, 0, false),
        Matcher::Exact(_) => (2, 0, false),
        Matcher::Regex(_) => (1, 0, false),
        Matcher::Prefix(path) => (0, path.len(), true),
        Matcher::StartsWith(path) => (0, path.len(), false),
    }
}

fn finish_action(
    action: RawAction,
    rewrite: Option<Rewrite>,
    upstreams: &mut BTreeMap<Arc<str>, Upstream>,
) -> Action {
    match action {
        RawAction::Forward(upstream) => Action::Forward {
            upstream: finish_target(upstream, upstreams),
            rewrite,
        },
        RawAction::Redirect(location, status) => Action::Redirect { location, status },
        RawAction::Respond {
            status,
            body,
            content_type,
        } => Action::Respond {
            status,
            body,
            content_type,
        },
    }
}

fn finish_target(target: At<Target>, upstreams: &mut BTreeMap<Arc<str>, Upstream>) -> Arc<str> {
    match target.value {
        Target::Named(name) => name,
        Target::Url(server) => single(server, upstreams),
    }
}

fn finish_stream(stream: RawStream, upstreams: &mut BTreeMap<Arc<str>, Upstream>) -> Stream {
    let upstream = (stream.upstream).map(|target| finish_target(target, upstreams));
    let mut names = Vec::new();
    for route in stream.routes {
        let upstream = finish_target(route.upstream, upstreams);
        let of_route = route.names.into_iter();
        names.extend(of_route.map(|name| (name.value, Arc::clone(&upstream))));
    }
    Stream {
        listen: plain(stream.listen),
        tls: stream.tls,
        upstream,
        names,
        idle: stream.idle,
        allow: stream.allow,
        deny: stream.deny,
    }
}

/// An upstream of one server, under its URL.
pub(super) fn single(server: Server, upstreams: &mut BTreeMap<Arc<str>, Upstream>) -> Arc<str> {
    let url = Arc::clone(&server.url);
    upstreams
        .entry(Arc::clone(&url))
        .or_insert_with(|| Upstream::of(vec![server]));
    url
}

/// Finds what is there before, and remembers where everything was first.
struct Firsts<T>(HashMap<T, Span>);

impl<T: Hash + Eq> Firsts<T> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// Where an equal one was first, if this is not it.
    fn before(&mut self, value: T, span: &Span) -> Option<Span> {
        match self.0.entry(value) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(span.clone());
                None
            }
        }
    }
}

fn listeners(file: &File, cx: &Context<'_>) {
    let listen = &file.listen;
    if listen.https.is_empty() && listen.http.is_empty() && file.streams.is_empty() {
        cx.report(
            Diagnostic::error(listen.span.clone(), "nothing to listen on")
                .help("write `https = [\"[::]:443\"]` in `[listen]`"),
        );
    }
    let admin = listen.admin.value.0.map(|value| At {
        value,
        span: listen.admin.span.clone(),
    });
    let is_served = |site: &RawSite| site.passthrough.is_none() && !site.is_plain(&file.defaults);
    if listen.https.is_empty() && !listen.http.is_empty() && file.sites.iter().any(is_served) {
        cx.report(
            Diagnostic::warning(listen.span.clone(), "no `https`: no site is ever served").help(
                "addresses in `http` redirect; write `https = [\"[::]:443\"]` too, or \
                     `plain_text = true` in a site that is to be served there",
            ),
        );
    }
    for site in file
        .sites
        .iter()
        .filter(|site| site.is_plain(&file.defaults))
    {
        let warn = |message, help| {
            cx.report(Diagnostic::warning(site.span.clone(), message).help(help));
        };
        if listen.http.is_empty() {
            warn(
                "`plain_text`, and no address where anybody could ask so",
                "write `http = [\"[::]:80\"]` in `[listen]`",
            );
        } else if !site.tls.value.is_default() {
            warn(
                "`plain_text`, and TLS settings of its own: it is never answered in plain text",
                "take one of them out",
            );
        } else if site.asks_in_plain(&file.defaults) {
            warn(
                "`basic_auth` asks for passwords in plain text",
                "take `plain_text` out, or ask for them where there is TLS",
            );
        }
    }
    for At { value, span } in &listen.proxy_protocol_at {
        let streams = file.streams.iter().flat_map(|stream| &stream.listen);
        let mut all = listen.https.iter().chain(&listen.http).chain(streams);
        if all.all(|address| address.value != *value) {
            cx.report(
                Diagnostic::error(span.clone(), format!("nothing listens on `{value}`"))
                    .help("write an address of `[listen]` or of a `[[stream]]`"),
            );
        }
    }
    let mut firsts = Firsts::new();
    let streams = file.streams.iter().flat_map(|stream| &stream.listen);
    let all = listen.https.iter().chain(&listen.http).chain(&admin);
    for At { value, span } in all.chain(streams) {
        // Port 0 is another port each time.
        if value.port() != 0
            && let Some(first) = firsts.before(value, span)
        {
            twice(cx, "address", value, span, &first);
        }
    }
    overlaps(file, admin.as_ref(), cx);
}

/// Warns of an address whose port is taken at every address by something else: connections to the
/// one do not come to the other, which is legal, and rarely meant.
fn overlaps(file: &File, admin: Option<&At<SocketAddr>>, cx: &Context<'_>) {
    let listen = &file.listen;
    let mut lists: Vec<(&str, Vec<&At<SocketAddr>>)> = vec![
        ("listen.https", listen.https.iter().collect()),
        ("listen.http", listen.http.iter().collect()),
        ("listen.admin", admin.into_iter().collect()),
    ];
    let streams = file.streams.iter();
    lists.extend(streams.map(|stream| ("stream.listen", stream.listen.iter().collect())));
    for (index, (key, addresses)) in lists.iter().enumerate() {
        for At { value, span } in addresses.iter().filter(|a| !a.value.ip().is_unspecified()) {
            let covers = |wide: &SocketAddr| {
                let family = wide.is_ipv6() || value.is_ipv4();
                wide.ip().is_unspecified() && wide.port() == value.port() && family
            };
            let others = lists
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index);
            let mut wider = others.flat_map(|(_, (key, all))| all.iter().map(move |a| (key, a)));
            if value.port() != 0
                && let Some((other, wide)) = wider.find(|(_, wide)| covers(&wide.value))
            {
                let wide = wide.value;
                let message = format!("`{wide}` in `{other}` is for this address too");
                let help = format!(
                    "connections to `{value}` come to `{key}`; write another port if they should \
                     not"
                );
                cx.report(Diagnostic::warning(span.clone(), message).help(help));
            }
        }
    }
}

/// Reports something that may be there only once.
fn twice(cx: &Context<'_>, what: &str, value: impl Display, span: &Span, first: &Span) {
    // One of the two may be a default, which has no place.
    let (place, other) = match span.is_empty() {
        true => (first, "a default".to_owned()),
        false if first.is_empty() => (span, "a default".to_owned()),
        false => (span, format!("on line {}", cx.line(first))),
    };
    let message = format!("the {what} {} is there twice", quoted(&value.to_string()));
    cx.report(Diagnostic::error(place.clone(), message).help(format!("the other one is {other}")));
}

fn certificates(file: &File, cx: &Context<'_>) {
    let terminates = !file.listen.https.is_empty() || file.streams.iter().any(|s| s.tls.is_some());
    if file.certificates.is_empty() && terminates && !cx.has_errors() {
        cx.report(
            Diagnostic::general_warning("no `[[certificate]]`: no TLS handshake can succeed")
                .help("write `[[certificate]]` with `chain = …` and `key = …`, or `folder = …`"),
        );
    }
    let mut firsts = Firsts::new();
    for At { value, span } in &file.certificates {
        if let Some(first) = firsts.before(&value.location, span) {
            cx.report(
                Diagnostic::warning(span.clone(), "this certificate is there twice")
                    .help(format!("the other one is on line {}", cx.line(&first))),
            );
        }
    }
}

fn names(sites: &[RawSite], cx: &Context<'_>) {
    if sites.is_empty() && !cx.has_errors() {
        cx.report(
            Diagnostic::general_warning("no `[[site]]`: no request can be answered")
                .help("write `[[site]]` with `names = […]` and `upstream = …`"),
        );
    }
    let mut firsts = Firsts::new();
    for At { value, span } in sites.iter().flat_map(|site| &site.names) {
        if let Some(first) = firsts.before(value, span) {
            twice(cx, "name", value, span, &first);
        }
    }
    let mut defaults = sites.iter().filter(|site| site.default.value);
    if let Some(first) = defaults.next() {
        for site in defaults {
            cx.report(
                Diagnostic::error(site.default.span.clone(), "a second default site").help(
                    format!("the other one begins on line {}", cx.line(&first.span)),
                ),
            );
        }
    }
}

fn routes(sites: &[RawSite], cx: &Context<'_>) {
    for site in sites {
        let mut firsts = Firsts::new();
        // Those with conditions may be there beside others.
        let plain = (site.routes.iter()).filter(|route| route.conditions.is_empty());
        for RawRoute { matcher, .. } in plain {
            let (kind, what) = match &matcher.value {
                Matcher::Any | Matcher::Exact(_) => (0, "path"),
                Matcher::Regex(_) => (1, "expression"),
                Matcher::Prefix(_) => (2, "path"),
                Matcher::StartsWith(_) => (3, "beginning"),
            };
            let value = matcher.value.to_string();
            if let Some(first) = firsts.before((kind, value), &matcher.span) {
                twice(cx, what, &matcher.value, &matcher.span, &first);
            }
        }
        let lost = |route: &&RawRoute| route.action.is_none() && !route.leads;
        for route in site.routes.iter().filter(lost) {
            if site.upstream().is_none() {
                cx.report(
                    Diagnostic::error(route.matcher.span.clone(), "a route that leads nowhere")
                        .help(
                            "write `upstream`, `redirect` or `respond` in it, or `upstream` in its \
                             site",
                        ),
                );
            }
        }
    }
}

fn streams(streams: &[RawStream], cx: &Context<'_>) {
    for stream in streams {
        let mut firsts = Firsts::new();
        let names = stream.routes.iter().flat_map(|route| &route.names);
        for At { value, span } in names {
            if let Some(first) = firsts.before(value, span) {
                twice(cx, "name", value, span, &first);
            }
            if *value == SiteName::Any && stream.upstream.is_some() {
                let message = "`*` beside an `upstream`, which takes all other names";
                cx.report(
                    Diagnostic::error(stream.span.clone(), message).help("take one of them out"),
                );
            }
        }
    }
}

/// What requests are sent to.
fn http_targets(file: &File) -> impl Iterator<Item = &At<Target>> {
    let routes = file.sites.iter().flat_map(|site| &site.routes);
    let forwarded = routes.filter_map(|route| match &route.action {
        Some(RawAction::Forward(upstream)) => Some(upstream),
        _ => None,
    });
    forwarded.chain(&file.asked)
}

/// What connections are passed on to.
fn raw_targets(file: &File) -> impl Iterator<Item = &At<Target>> {
    let sites = file
        .sites
        .iter()
        .filter_map(|site| site.passthrough.as_ref());
    sites.chain(file.streams.iter().flat_map(RawStream::targets))
}

/// A server of `tcp://` or `tls://` may speak anything: no requests are sent there.
fn raw_servers(file: &File, cx: &Context<'_>) {
    let is_raw = |target: &At<Target>| match &target.value {
        Target::Url(server) => server.is_raw(),
        Target::Named(name) => {
            let named = file
                .upstreams
                .iter()
                .filter(|upstream| upstream.name == *name);
            let mut servers = named.flat_map(|upstream| &upstream.servers);
            servers.any(|server| server.value.is_raw())
        }
    };
    for target in http_targets(file).filter(|target| is_raw(target)) {
        cx.report(
            Diagnostic::error(
                target.span.clone(),
                "requests cannot go to `tcp://` or `tls://`",
            )
            .help("write the server as `http://host:port` or `https://host:port`"),
        );
    }
}

fn quotas(file: &File, cx: &Context<'_>) {
    let wanted = cx.wanted_quotas();
    for At { value: name, span } in &wanted {
        if file.quotas.iter().any(|quota| quota.name == *name) {
            continue;
        }
        let known = file.quotas.iter().map(|quota| &*quota.name);
        let help = match cx.nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write `[quota.{name}]` with `requests = \"10/s\"`"),
        };
        let message = format!("there is no quota {}", quoted(name));
        cx.report(Diagnostic::error(span.clone(), message).help(help));
    }
    for quota in &file.quotas {
        if !wanted.iter().any(|wanted| wanted.value == quota.name) {
            let message = format!("nothing uses the quota {}", quoted(&quota.name));
            cx.report(
                Diagnostic::warning(quota.span.clone(), message)
                    .help("name it in the `quotas` of a site or route, or take it out"),
            );
        }
    }
}

fn upstreams(file: &File, cx: &Context<'_>) {
    let mut used: HashMap<&str, bool> = file
        .upstreams
        .iter()
        .map(|upstream| (&*upstream.name, false))
        .collect();
    for upstream in http_targets(file).chain(raw_targets(file)) {
        let Target::Named(name) = &upstream.value else {
            continue;
        };
        match used.get_mut(&**name) {
            Some(used) => *used = true,
            None => {
                let known = file.upstreams.iter().map(|upstream| &*upstream.name);
                let help = match cx.nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "write `[upstream.{name}]` with `servers = […]`, or a URL here, as in \
                         `\"http://{name}:8080\"`"
                    ),
                };
                cx.report(
                    Diagnostic::error(
                        upstream.span.clone(),
                        format!("there is no upstream {}", quoted(name)),
                    )
                    .help(help),
                );
            }
        }
    }
    for upstream in &file.upstreams {
        if !used.get(&*upstream.name).copied().unwrap_or_default() {
            cx.report(
                Diagnostic::warning(
                    upstream.span.clone(),
                    format!("nothing uses the upstream {}", quoted(&upstream.name)),
                )
                .help("name it as the `upstream` of a site or route, or take it out"),
            );
        }
        if !upstream.settings.tls.verify {
            let name = quoted(&upstream.name);
            let message = format!("the servers of the upstream {name} are not verified");
            cx.report(Diagnostic::warning(upstream.span.clone(), message).help(
                "name the authority that signed their certificates as `ca` in place of \
                 `verify = false`, or take that out where the system knows it",
            ));
        }
        let mut firsts = Firsts::new();
        for At { value, span } in &upstream.servers {
            if let Some(first) = firsts.before(&value.address, span) {
                twice(cx, "server", &value.url, span, &first);
            }
        }
    }
}
