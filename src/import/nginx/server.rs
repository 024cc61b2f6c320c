//! One `server`: its addresses, names, certificates, and the site that comes of it.

use std::collections::BTreeSet;

use super::choice::Chosen;
use super::condition::Flags;
use super::plain::leads_to_tls;
use super::rules::is_anyway;
use super::scope::Scope;
use super::value::{By, Variables};
use super::{Directive, Import, array, map, port, quoted};
use crate::import::formula::Formula;
use crate::import::site::{CLOSED, Deed, Matcher, Route, Rules, Site, without_repeated};
use crate::import::{Loss, pattern};

/// A server while it is read.
pub(super) struct Server<'d> {
    pub(super) directive: &'d Directive,
    pub(super) scope: Scope<'d>,
    pub(super) variables: Variables,
    /// What goes before all locations: expressions that rewrite, and those inside of locations.
    pub(super) first: Vec<Route>,
    pub(super) routes: Vec<Route>,
    /// What locations rewrite where no expression is found.
    pub(super) rewritten: Vec<Route>,
    /// What holds in all routes, unless they say something else.
    pub(super) rules: Rules,
    /// Redirects to a path from the same without its slash.
    pub(super) slashes: Vec<Route>,
    /// What `set` has said so far.
    pub(super) flags: Flags,
    /// Routes of the location that is read, for some requests only, before its own.
    pub(super) chosen: Vec<Route>,
    /// That location is `^~`.
    pub(super) is_final: bool,
    /// The site's names.
    pub(super) names: Vec<String>,
}

impl Import {
    pub(super) fn server<'d>(&mut self, server: &'d Directive, http: &Scope<'d>) {
        let scope = http.inside(server.inside());
        let (mut secure, mut plain, mut default) = (Vec::new(), Vec::new(), false);
        let all_secure = scope.own().is_on("ssl");
        for listen in scope.own().all("listen") {
            let has = |word: &str| listen.args.iter().any(|arg| arg == word);
            default |= listen.args.iter().any(|arg| arg.starts_with("default"));
            let Some(address) = address(listen.first()) else {
                self.lost(
                    listen,
                    "staunch listens on IP addresses; write one in [listen]",
                );
                continue;
            };
            if has("quic") {
                self.differs(listen, "HTTP/3 is not spoken: clients use HTTP/2");
                continue;
            }
            if has("proxy_protocol") {
                self.proxy_protocol(&scope);
            }
            match all_secure || has("ssl") {
                true => secure.push(address),
                false => plain.push(address),
            }
        }
        if secure.is_empty() && plain.is_empty() {
            plain.push("0.0.0.0:80".to_owned());
        }
        let in_plain = secure.is_empty();
        if self.twins.in_plain(server) {
            self.seen.mark_all(server);
            self.defaults.extend(plain.iter().cloned());
            return self.http.extend(plain);
        }
        if !in_plain {
            self.http.extend(plain.iter().cloned());
        } else if !self.plain_server(server, &scope) {
            self.defaults.extend(plain.iter().cloned());
            return self.http.extend(plain);
        }
        self.by = match (in_plain, plain.is_empty()) {
            (true, _) => By::Plain,
            (false, true) if self.twins.has(server) => By::Both,
            (false, true) => By::Tls,
            // Where it redirects there, that is done by itself.
            (false, false) if scope.here().iter().any(leads_to_tls) => By::Tls,
            (false, false) => By::Both,
        };
        // The first on an address is its default, unless another is named so.
        let odd = |addresses: &[String], port| addresses.iter().any(|one| !one.ends_with(port));
        self.odd_port = odd(&secure, ":443") || self.by != By::Tls && odd(&plain, ":80");
        let (addresses, also_plain) = match in_plain {
            true => (plain, Vec::new()),
            false => (secure, plain),
        };
        for address in &addresses {
            let new = self.defaults.insert(address.clone());
            default |= new && !self.default_ports.contains(&port::of(address));
        }
        self.defaults.extend(also_plain.iter().cloned());
        let main: port::Ports = addresses.iter().map(|one| port::of(one)).collect();
        let mut ports = main.clone();
        if self.by == By::Both {
            ports.extend(also_plain.iter().map(|one| port::of(one)));
            ports.extend(self.twins.ports(server));
        }
        self.here = port::Here::new(&scope, ports, main, self.by);
        // There is one for each port.
        default &= self.sites.is_free("*", &self.here);
        if in_plain {
            self.forwarded(&scope);
        } else {
            self.certificates(server, &scope);
            self.forwarded(&scope);
        }
        // Where it is left out, its addresses would be those of other sites.
        if self.site(server, scope, default) {
            match in_plain {
                true => self.http.extend(addresses),
                false => self.https.extend(addresses),
            }
        }
    }

    pub(super) fn proxy_protocol(&mut self, scope: &Scope<'_>) {
        let from = scope.all("set_real_ip_from");
        match from.is_empty() {
            true => (self.proxy_from).extend(["0.0.0.0/0", "::/0"].map(str::to_owned)),
            false => self.networks(&from, true),
        }
    }

    fn forwarded(&mut self, scope: &Scope<'_>) {
        let from = scope.all("set_real_ip_from");
        let _ = scope.nearest("real_ip_recursive");
        match scope.nearest("real_ip_header").map(Directive::first) {
            Some(header) if header.eq_ignore_ascii_case("X-Forwarded-For") => {
                self.networks(&from, false);
            }
            Some("proxy_protocol") => {}
            Some("CF-Connecting-IP" | "True-Client-IP") => {
                self.networks(&from, false);
                for directive in scope.all("real_ip_header") {
                    let advice = "the client's address is read from X-Forwarded-For, which these \
                                  proxies send as well";
                    self.differs(directive, advice);
                }
            }
            _ => {
                for directive in from {
                    let advice = "the client's address is read from X-Forwarded-For, Forwarded or \
                                  the PROXY protocol only; see listen.forwarded_from";
                    self.lost(directive, advice);
                }
            }
        }
    }

    fn networks(&mut self, directives: &[&Directive], proxy: bool) {
        for directive in directives {
            let text = directive.first();
            let net = (text.parse::<ipnet::IpNet>())
                .or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into));
            match net {
                Ok(net) if proxy => drop(self.proxy_from.insert(net.trunc().to_string())),
                Ok(net) => drop(self.forwarded_from.insert(net.trunc().to_string())),
                Err(_) if text == "unix:" => {}
                Err(_) => self.lost(directive, "is not a network; name its addresses instead"),
            }
        }
    }

    pub(super) fn certificates(&mut self, server: &Directive, scope: &Scope<'_>) {
        let chains = scope.all("ssl_certificate");
        let keys = scope.all("ssl_certificate_key");
        if chains.is_empty() && !scope.is_on("ssl_reject_handshake") {
            self.lost(
                server,
                "has no ssl_certificate; add a [[certificate]] for its names",
            );
        }
        for (at, chain) in chains.iter().enumerate() {
            let key = keys.get(at).copied().unwrap_or(chain);
            let odd = |text: &str| {
                ["data:", "engine:", "store:"]
                    .iter()
                    .any(|p| text.starts_with(p))
            };
            if [chain.first(), key.first()]
                .iter()
                .any(|text| text.contains('$') || odd(text))
            {
                self.lost(
                    chain,
                    "is not a file; name files, or their folder, in [[certificate]]",
                );
                continue;
            }
            let pair = (self.absolute(chain.first()), self.absolute(key.first()));
            let known = |(a, b, _): &(String, String, String)| (a, b) == (&pair.0, &pair.1);
            if !self.certificates.iter().any(known) {
                (self.certificates).push((pair.0, pair.1, chain.place.to_string()));
            }
        }
    }

    /// The sites that come of a server. `false`: it is left out.
    fn site<'d>(&mut self, directive: &'d Directive, scope: Scope<'d>, default: bool) -> bool {
        let mut names = self.site_names(&scope, default);
        if self.by != By::Plain && scope.is_on("ssl_reject_handshake") {
            self.differs(
                directive,
                "refused the handshake for names that are not known; here they are answered with \
                 a certificate for another name, and requests with 421",
            );
            self.seen.mark_all(directive);
            return true;
        }
        if names.is_empty() {
            let advice = match self.by == By::Plain {
                true => {
                    "is told apart from others by its address alone, and sites are by their names: \
                     give it a name of its own, or a staunch of its own; it is left out"
                }
                false => "has no name that can be a site's; it is left out",
            };
            self.whole(directive, Loss::Real, advice);
            return false;
        }
        for (value, names) in by_host(&scope, directive, &mut names, default) {
            self.one_site(directive, scope.clone(), false, names, Some(value));
        }
        let rest = chosen(&scope, directive).map(|(name, map)| {
            let text = map.default.map_or("", Directive::first);
            (name.to_owned(), text.to_owned())
        });
        if !names.is_empty() {
            self.one_site(directive, scope, default, names, rest);
        }
        true
    }

    /// The site for some names, where one variable may stand for a text.
    fn one_site<'d>(
        &mut self,
        directive: &'d Directive,
        scope: Scope<'d>,
        default: bool,
        mut names: Vec<String>,
        known: Option<(String, String)>,
    ) {
        let mut variables = Variables::of_server(directive, self.by);
        variables.port = self.odd_port;
        variables.known.extend(known);
        for map in variables.add_maps(scope.outermost()) {
            match map::keeps_id(map) {
                true => self.whole(
                    map,
                    Loss::Slight,
                    "kept an id that a client sent; here each request gets a new one. `request_id` of \
                     [defaults] keeps those of listen.forwarded_from",
                ),
                false => self.seen.mark_all(map),
            }
        }
        let mut server = Server {
            directive,
            variables,
            scope,
            first: Vec::new(),
            routes: Vec::new(),
            rewritten: Vec::new(),
            slashes: Vec::new(),
            flags: Flags::default(),
            chosen: Vec::new(),
            is_final: false,
            names: names.clone(),
            rules: Rules::default(),
        };
        self.upstreams.hosts.clone_from(&names);
        for set in directive
            .inside()
            .iter()
            .filter(|directive| directive.name == "set")
        {
            self.seen.mark(set);
        }
        self.find_pages(&server);
        let tls = match self.by {
            By::Plain => Vec::new(),
            By::Tls | By::Both => self.site_tls(&server.scope),
        };
        self.redirects_of_names(&mut server, &mut names, &tls);
        server.names.clone_from(&names);
        match self.whole_server(&mut server) {
            Some(mut route) => {
                route.rules = self.rules(&server.scope, &server.variables, None);
                server.routes.push(route);
            }
            None => self.locations(&mut server),
        }
        let mut routes = server.first;
        routes.append(&mut server.routes);
        routes.append(&mut server.rewritten);
        without_repeated(&mut routes);
        for route in &mut routes {
            let mut rules = server.rules.clone();
            rules.extend(std::mem::take(&mut route.rules));
            route.rules = rules;
            self.in_plain(route);
        }
        if names.is_empty() {
            return;
        }
        let site = Site {
            place: directive.place.clone(),
            names,
            default,
            tls,
            routes,
        };
        self.add_site(site, directive);
    }

    /// What a route says where its requests come in plain text.
    fn in_plain(&self, route: &mut Route) {
        if self.by != By::Tls {
            route.rules.insert("plain_text", "true".to_owned());
        }
    }

    /// `if ($host = name) { return … }`: a site for that name.
    fn redirects_of_names(
        &mut self,
        server: &mut Server<'_>,
        names: &mut Vec<String>,
        tls: &[String],
    ) {
        let own = server.scope.here();
        for condition in own.iter().filter(|directive| directive.name == "if") {
            let text = condition.args.join(" ");
            let text = text.trim_matches(['(', ')', ' ']);
            let [inner] = condition.inside() else {
                continue;
            };
            let variable = ["$host ", "$http_host "];
            let Some(test) = variable.iter().find_map(|name| text.strip_prefix(name)) else {
                continue;
            };
            let (is, name) = match test.split_once(' ') {
                Some(("=", name)) => (true, name),
                Some(("!=", name)) => (false, name),
                _ => continue,
            };
            let name = name.trim_matches(['"', '\'']).to_ascii_lowercase();
            let split = |known: &String| (*known == name) == is;
            let scope = server.scope.clone();
            let root = Matcher::Prefix("/".to_owned());
            let Some(mut route) = self.answer(inner, server, &scope, root) else {
                continue;
            };
            self.in_plain(&mut route);
            self.seen.mark_all(condition);
            let (own, rest): (Vec<_>, Vec<_>) = names.drain(..).partition(split);
            *names = rest;
            if own.is_empty() {
                continue;
            }
            let site = Site {
                place: condition.place.clone(),
                names: own,
                default: false,
                tls: tls.to_vec(),
                routes: vec![route],
            };
            self.add_site(site, server.directive);
        }
    }

    /// What a server does with all requests, before it looks at locations.
    fn whole_server(&mut self, server: &mut Server<'_>) -> Option<Route> {
        let root = || Matcher::Prefix("/".to_owned());
        let own = server.scope.here();
        let mut route = None;
        for directive in own {
            match directive.name.as_str() {
                "if" if self.moved(directive, server) => {}
                "if" if self.methods(directive, &mut server.rules) => {}
                "if" if !self.seen.has(directive) => {
                    let (scope, rules) = (server.scope.clone(), server.rules.clone());
                    match self.choose(directive, server, &scope, &Matcher::Any, &rules) {
                        Chosen::Shut => route = Some(closed(directive, root())),
                        Chosen::Settled => {}
                        Chosen::Passes(_) => {
                            self.lost(directive, "is left out: nginx does not allow it here");
                        }
                    }
                    for chosen in std::mem::take(&mut server.chosen) {
                        match chosen.conditions.is_empty() {
                            true => route = Some(chosen),
                            false => server.first.push(chosen),
                        }
                    }
                }
                "set" => server.flags.set(directive, Some(&Formula::always())),
                "break" => {
                    self.seen.mark(directive);
                    break;
                }
                "return" | "rewrite" if route.is_none() => {
                    let scope = server.scope.clone();
                    route = self.answer(directive, server, &scope, root());
                }
                _ => {}
            }
            if route.is_some() {
                break;
            }
        }
        // A `break` ends what is asked before locations, no more.
        server.flags.live = Formula::always();
        let route = route?;
        for location in own.iter().filter(|directive| directive.name == "location") {
            let advice = "is never reached: the server answers before";
            self.whole(location, Loss::None, advice);
        }
        Some(route)
    }

    /// `if ($new) { return 301 $new; }` with a map from paths to `$new`: a redirect for each.
    fn moved(&mut self, condition: &Directive, server: &mut Server<'_>) -> bool {
        let test = condition.args.join(" ");
        let test = test.trim_matches(['(', ')', ' ']);
        let [inner] = condition.inside() else {
            return false;
        };
        let status = match (inner.name.as_str(), inner.args.as_slice()) {
            ("return", [status, to]) if to == test => status.parse::<u16>().ok(),
            ("rewrite", [_, to, flag]) if to.trim_end_matches('?') == test => match flag.as_str() {
                "permanent" => Some(301),
                "redirect" => Some(302),
                _ => None,
            },
            _ => None,
        };
        let map = map::find(server.scope.outermost(), test);
        let of_path = |map: &map::Map<'_>| matches!(map.source, "uri" | "request_uri");
        let (Some(status), Some(map)) = (status, map.filter(of_path)) else {
            return false;
        };
        if !matches!(map.default.map_or("", Directive::first), "" | "0") {
            return false;
        }
        self.seen.mark_all(condition);
        self.seen.mark_all(map.directive);
        for entry in map.entries {
            let key = map::key(entry);
            let expression = key.strip_prefix('~').map(|text| {
                let (text, caseless) = match text.strip_prefix('*') {
                    Some(text) => (text, true),
                    None => (text, false),
                };
                pattern::convert(text, caseless, true)
            });
            let matcher = match expression {
                Some(Ok(expression)) => Matcher::Regex(expression),
                None if key.starts_with('/') && !key.contains('?') => {
                    Matcher::Exact(key.to_owned())
                }
                _ => {
                    self.lost(entry, "cannot be written as a route; see [[site.route]]");
                    continue;
                }
            };
            let mut variables = server.variables.clone();
            variables.groups = matches!(matcher, Matcher::Regex(_));
            if let Matcher::Regex(expression) = &matcher {
                variables.named = pattern::names(expression);
            }
            if let Some(action) = self.redirect(entry, entry.first(), status, &variables) {
                let rules = self.rules(&server.scope.clone(), &variables, None);
                server.first.push(Route {
                    deed: Deed::Answer,
                    action,
                    rules,
                    ..closed(entry, matcher)
                });
            }
        }
        true
    }

    fn site_names(&mut self, scope: &Scope<'_>, default: bool) -> Vec<String> {
        let mut names = Vec::new();
        let here = self.here.clone();
        let mut add = |name: String, all: &mut port::Sites| {
            let new = all.take(&name, &here);
            if new {
                names.push(name);
            }
            new
        };
        for directive in scope.own().all("server_name") {
            for name in &directive.args {
                let name = name.to_ascii_lowercase();
                if let Some((found, _)) = name.strip_prefix('~').and_then(map::of_expression) {
                    for name in &found {
                        add(name.clone(), &mut self.sites);
                    }
                    let found = found.join(", ");
                    let advice = format!("is {found} here, which is for one label only");
                    self.note_as(directive, Loss::Slight, format!("{name}: {advice}"));
                    continue;
                }
                let begin = name.strip_suffix(".*");
                let certified = begin.map(|begin| self.certified(scope, begin));
                if let Some(found) = certified.filter(|found| !found.is_empty()) {
                    for name in &found {
                        add(name.clone(), &mut self.sites);
                    }
                    let found = found.join(", ");
                    let advice = format!("is {found} here, by the certificate; add others");
                    self.note_as(directive, Loss::Slight, format!("{name}: {advice}"));
                    continue;
                }
                let (loss, advice) = match name
                    .strip_prefix("*.")
                    .or_else(|| name.strip_prefix('.'))
                {
                    Some(parent) => {
                        let mut new = add(format!("*.{parent}"), &mut self.sites);
                        if name.starts_with('.') {
                            new |= add(parent.to_owned(), &mut self.sites);
                        }
                        match new {
                            true => (
                                Loss::Slight,
                                "stands for one more label here, for any number of them in nginx",
                            ),
                            false => (Loss::Real, "another server has this name already"),
                        }
                    }
                    None if name == "_" || name.is_empty() => continue,
                    None if name.starts_with('~') || name.contains(['*', '$']) => (
                        Loss::Real,
                        "is a pattern; write the names that it stands for",
                    ),
                    None => match add(name.clone(), &mut self.sites) {
                        true => continue,
                        false => (
                            Loss::Real,
                            "another server has this name already, at the same port or on other terms \
                             (plain text, client certificates): give this one a name of its own",
                        ),
                    },
                };
                self.note_as(directive, loss, format!("{name}: {advice}"));
            }
        }
        if default {
            add("*".to_owned(), &mut self.sites);
        }
        names
    }

    /// The names that begin so and that a server's certificates are for.
    fn certified(&self, scope: &Scope<'_>, begin: &str) -> Vec<String> {
        let files = scope.all("ssl_certificate").into_iter();
        let files = files.map(|chain| self.absolute(chain.first()));
        let names = files.flat_map(|file| match self.names_of {
            Some(names_of) => names_of(file.as_ref()),
            None => Vec::new(),
        });
        let found: BTreeSet<_> = names
            .filter_map(|name| match name.strip_prefix("*.") {
                Some(parent) => Some(format!("{begin}.{parent}")),
                None => (name.split_once('.')?.0 == begin).then_some(name),
            })
            .collect();
        found.into_iter().collect()
    }

    fn site_tls(&mut self, scope: &Scope<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(protocols) = scope.nearest("ssl_protocols") {
            let has = |name: &str| protocols.args.iter().any(|arg| arg == name);
            let versions: Vec<_> = [("TLSv1.2", "1.2"), ("TLSv1.3", "1.3")]
                .into_iter()
                .filter_map(|(name, version)| has(name).then_some(version))
                .collect();
            if ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1"].into_iter().any(has) {
                self.differs(
                    protocols,
                    "TLS before 1.2 is not spoken: RFC 8996 forbids it",
                );
            }
            // What has settings of its own is never answered in plain text.
            if self.by == By::Both {
                if versions == ["1.3"] {
                    let advice = "holds for all sites where one is served in plain text too: write \
                                  versions in [tls]";
                    self.lost(protocols, advice);
                } else if versions.len() == 1 {
                    self.differs(protocols, "TLS 1.3 is spoken too; see versions in [tls]");
                }
            } else if !versions.is_empty() {
                let (list, place) = (array(&versions), &protocols.place);
                lines.push(format!("tls = {{ versions = {list} }}  # from {place}"));
            }
        }
        if scope
            .nearest("ssl_session_tickets")
            .is_some_and(|found| found.first() == "off")
        {
            self.no_tickets = true;
        }
        if let Some(ciphers) = scope.nearest("ssl_ciphers") {
            // What is safe is in Mozilla's policy anyway; what it names alone is another matter.
            let broad = [
                "HIGH",
                "DEFAULT",
                "ECDHE-ECDSA-AES128-GCM-SHA256",
                "EECDH",
                "MEDIUM",
            ];
            let first = ciphers.first();
            let modern =
                broad.iter().any(|word| first.contains(word)) && first.contains("CHACHA20");
            if !(modern || first.contains("HIGH")) {
                self.differs(
                    ciphers,
                    "policy \"intermediate\" of [tls] is Mozilla's; set cipher_suites there to \
                     differ from it",
                );
            }
        }
        let client = self.client_certificates(scope);
        if let (By::Both, Some(verify), true) = (
            self.by,
            scope.nearest("ssl_verify_client"),
            client.is_some(),
        ) {
            let advice = "was asked for over TLS only; what asks for certificates is never answered in \
                          plain text here: those addresses redirect to https or get 421";
            self.lost(verify, advice);
        }
        lines.extend(client);
        lines
    }

    /// Whose certificates are asked for.
    pub(super) fn client_certificates(&mut self, scope: &Scope<'_>) -> Option<String> {
        let verify = scope.nearest("ssl_verify_client")?;
        // Who has shown none, or not a good one, is refused later: he may as well be at once.
        let refuses = scope.here().iter().find(|one| {
            let asks = one.name == "if" && one.args.join(" ").contains("$ssl_client_verify != ");
            asks && one.args.iter().any(|arg| arg.contains("SUCCESS")) && refused(one)
        });
        if let Some(refuses) = refuses.filter(|_| verify.first() == "optional") {
            let advice = "a client without a good certificate is refused in the handshake";
            self.whole(refuses, Loss::Slight, advice);
        }
        let mode = match verify.first() {
            "optional" if refuses.is_some() => "required",
            "on" => "required",
            "optional" => "optional",
            "optional_no_ca" => "request",
            _ => return None,
        };
        let mut line = format!("client_certificates = {{ mode = \"{mode}\"");
        for (name, key) in [("ssl_client_certificate", "ca"), ("ssl_crl", "crl")] {
            if let Some(file) = scope.nearest(name) {
                line += &format!(", {key} = {}", quoted(&self.absolute(file.first())));
            }
        }
        Some(format!("{line} }}  # from {}", verify.place))
    }
}

/// Whether nobody gets more than an error.
fn refused(condition: &Directive) -> bool {
    let mut inner = condition.inside().iter();
    inner.all(|one| one.name == "return" && one.first().starts_with('4'))
}

/// The map by the host that a server's directives use, and its variable.
fn chosen<'d>(scope: &Scope<'d>, server: &Directive) -> Option<(&'d str, map::Map<'d>)> {
    let level = scope.outermost();
    let maps = level.iter().filter(|directive| directive.name == "map");
    maps.filter_map(|directive| {
        let name = map::bare(directive.args.get(1)?);
        let map = map::find(level, name)?;
        let of_host = matches!(
            map.source,
            "host" | "http_host" | "ssl_server_name" | "server_name"
        );
        (of_host && uses(server.inside(), name)).then_some((name, map))
    })
    .next()
}

/// Whether a variable is used in what decides where requests go.
fn uses(level: &[Directive], name: &str) -> bool {
    level.iter().any(|directive| {
        let here = directive.name.ends_with("_pass")
            || directive.name == "set"
            || directive.name.ends_with("_set_header") && !is_anyway(directive.first());
        let (plain, braced) = (format!("${name}"), format!("${{{name}}}"));
        let used = |arg: &String| arg.contains(&braced) || arg.contains(&plain);
        here && directive.args.iter().any(used) || uses(directive.inside(), name)
    })
}

/// The names that a map gives a value of their own, taken out of all names of a server.
#[allow(clippy::type_complexity)] // a variable with its value, and names
fn by_host(
    scope: &Scope<'_>,
    server: &Directive,
    names: &mut Vec<String>,
    default: bool,
) -> Vec<((String, String), Vec<String>)> {
    let Some((variable, map)) = chosen(scope, server) else {
        return Vec::new();
    };
    // Another server answers to it.
    let elsewhere = |name: &String| {
        let servers = scope.outermost().iter().flat_map(Directive::inside);
        let mut named = servers.filter(|inner| inner.name == "server_name");
        named.any(|inner| inner.args.contains(name))
    };
    let mut found = Vec::new();
    for entry in &map.entries {
        let Some((wanted, _)) = map::names(entry) else {
            continue;
        };
        let covered = |name: &String| {
            let parent = name.split_once('.').map_or("", |(_, parent)| parent);
            names.contains(name)
                || !elsewhere(name) && (default || names.contains(&format!("*.{parent}")))
        };
        let own: Vec<_> = wanted.into_iter().filter(covered).collect();
        if !own.is_empty() {
            names.retain(|name| !own.contains(name));
            found.push(((variable.to_owned(), entry.first().to_owned()), own));
        }
    }
    scope.mark_all(map.directive);
    found
}

/// A route that is not answered until somebody has decided how.
pub(super) fn closed(directive: &Directive, matcher: Matcher) -> Route {
    Route {
        place: directive.place.clone(),
        matcher,
        conditions: Vec::new(),
        last: false,
        deed: Deed::Closed,
        action: vec![CLOSED.to_owned()],
        rules: Rules::default(),
    }
}

/// An address to listen on, as staunch writes it.
pub(super) fn address(text: &str) -> Option<String> {
    let text = text.replacen("*:", "0.0.0.0:", 1);
    let whole = match (text.parse::<u16>(), text.contains(':')) {
        (Ok(port), _) => format!("0.0.0.0:{port}"),
        (_, false) => format!("{text}:80"),
        (_, true) if text.ends_with(']') => format!("{text}:80"),
        _ => text,
    };
    let whole = whole.replacen("localhost:", "127.0.0.1:", 1);
    let address: std::net::SocketAddr = whole.parse().ok()?;
    Some(address.to_string())
}
