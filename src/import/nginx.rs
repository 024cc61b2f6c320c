//! From nginx's configuration to one of staunch's.
//!
//! Each level's directives are gone through once: what is not in the list of those that the level's
//! own code reads becomes a note. So nothing is dropped in silence, not even what is not known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::{Error, Imported, Loss, Note, array, quoted};
use parse::Directive;

mod advice;
mod parse;
mod upstream;

/// The upstream of what must not be answered until somebody has decided how.
const CLOSED: &str = "not-imported";

/// Reads nginx's configuration in `path`.
///
/// # Errors
/// When a file cannot be read, or is not what nginx would accept.
pub fn import(path: &Path) -> Result<Imported, Error> {
    let top = parse::read(path)?;
    let mut import = Import {
        folder: parse::folder_of(path).display().to_string(),
        ..Import::default()
    };
    // A file of `sites-enabled` alone is taken as if it stood in `http`.
    let alone = !top.iter().any(|directive| directive.name == "http");
    for directive in &top {
        match directive.name.as_str() {
            "http" => import.http(directive.inside()),
            "server" | "upstream" if alone => {}
            _ => import.note(directive),
        }
    }
    if alone {
        let (known, _): (Vec<_>, Vec<_>) = (top.iter().cloned())
            .partition(|directive| matches!(directive.name.as_str(), "server" | "upstream"));
        import.http(&known);
    }
    Ok(import.finish(path))
}

/// What encloses a directive, innermost first.
type Scope<'d> = [&'d [Directive]];

/// The nearest directive of a name.
fn nearest<'d>(scope: &Scope<'d>, name: &str) -> Option<&'d Directive> {
    let mut levels = scope.iter();
    levels.find_map(|level| level.iter().rev().find(|directive| directive.name == name))
}

/// All of a name on the nearest level that has any: an inner list replaces an outer one.
fn nearest_all<'d>(scope: &Scope<'d>, name: &str) -> Vec<&'d Directive> {
    let of = |level: &'d [Directive]| level.iter().filter(|d| d.name == name).collect::<Vec<_>>();
    let mut levels = scope.iter().map(|level| of(level));
    levels.find(|found| !found.is_empty()).unwrap_or_default()
}

#[derive(Default)]
struct Import {
    /// Relative paths are below this folder.
    folder: String,
    notes: Vec<Note>,
    https: BTreeSet<String>,
    http: BTreeSet<String>,
    proxy_from: BTreeSet<String>,
    forwarded_from: BTreeSet<String>,
    certificates: Vec<(String, String, String)>,
    names: BTreeSet<String>,
    timeouts: Vec<String>,
    sites: String,
    upstreams: upstream::Upstreams,
    closed: bool,
}

impl Import {
    /// Tells of a directive by what is known of its name.
    fn note(&mut self, directive: &Directive) {
        let (loss, advice) = advice::of(&directive.name);
        self.notes.push(Note {
            place: directive.place.clone(),
            piece: directive.shown(),
            loss,
            advice: advice.to_owned(),
        });
    }

    /// Tells of a directive that is not carried over as it stands.
    fn lost(&mut self, directive: &Directive, advice: impl Into<String>) {
        self.notes.push(Note {
            place: directive.place.clone(),
            piece: directive.shown(),
            loss: Loss::Real,
            advice: advice.into(),
        });
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.folder),
        }
    }

    fn http(&mut self, http: &[Directive]) {
        let groups: BTreeMap<_, _> = (http.iter())
            .filter(|directive| directive.name == "upstream")
            .map(|directive| (directive.first().to_owned(), directive.clone()))
            .collect();
        self.upstreams.groups = groups;
        self.upstreams.folder.clone_from(&self.folder);
        for directive in http {
            match directive.name.as_str() {
                "upstream" => {}
                "server" => self.server(directive, http),
                name if INHERITED.contains(&name) => {}
                "keepalive_timeout" => self.timeout(directive, "idle"),
                "client_header_timeout" => self.timeout(directive, "request_head"),
                "client_body_timeout" => self.timeout(directive, "request_body"),
                "send_timeout" => self.timeout(directive, "send"),
                _ => self.note(directive),
            }
        }
        if self.sites.is_empty() {
            self.sites
                .push_str("\n# No server that terminates TLS was found.\n");
        }
    }

    fn timeout(&mut self, directive: &Directive, key: &str) {
        match time(directive.first()) {
            Some(time) if time != "0s" => {
                let place = &directive.place;
                (self.timeouts).push(format!("{key} = {}  # from {place}", quoted(&time)));
            }
            _ => self.lost(
                directive,
                "is a time that staunch does not have; see [timeouts]",
            ),
        }
    }

    fn server(&mut self, server: &Directive, http: &[Directive]) {
        let inside = server.inside();
        let scope = [inside, http];
        let (mut secure, mut plain, mut default) = (Vec::new(), Vec::new(), false);
        let all_secure = nearest(&[inside], "ssl").is_some_and(|ssl| ssl.first() == "on");
        for listen in inside.iter().filter(|directive| directive.name == "listen") {
            default |= listen.args.iter().any(|arg| arg.starts_with("default"));
            let Some(address) = address(listen.first()) else {
                self.lost(
                    listen,
                    "staunch listens on IP addresses; write one in [listen]",
                );
                continue;
            };
            if listen.args.iter().any(|arg| arg == "proxy_protocol") {
                self.proxy_protocol(&scope);
            }
            match all_secure || listen.args.iter().any(|arg| arg == "ssl") {
                true => secure.push(address),
                false => plain.push(address),
            }
        }
        if secure.is_empty() && plain.is_empty() {
            plain.push("0.0.0.0:80".to_owned());
        }
        self.http.extend(plain.iter().cloned());
        if secure.is_empty() {
            return self.plain_server(server);
        }
        if !plain.is_empty() {
            self.lost(
                server,
                "was served in plain text too; those addresses redirect to https now",
            );
        }
        self.https.extend(secure);
        self.certificates(server, &scope);
        self.forwarded(&scope);
        self.site(server, http, default);
    }

    /// A server without TLS: its addresses redirect, and what else it did is told.
    fn plain_server(&mut self, server: &Directive) {
        for directive in server.inside() {
            let text = format!("{:?}", directive);
            match directive.name.as_str() {
                "listen" | "server_name" => {}
                "return" | "if" | "location" | "rewrite" if text.contains("https://") => {
                    self.notes.push(Note {
                        place: directive.place.clone(),
                        piece: directive.shown(),
                        loss: Loss::None,
                        advice: "plain-text addresses redirect to the same host and path on https \
                                 by themselves, with 308; look whether it led anywhere else"
                            .to_owned(),
                    });
                }
                "return" if directive.first() == "404" => self.note_needless(directive),
                _ => self.lost(
                    directive,
                    "was served in plain text; this address only redirects to https now",
                ),
            }
        }
    }

    fn note_needless(&mut self, directive: &Directive) {
        self.notes.push(Note {
            place: directive.place.clone(),
            piece: directive.shown(),
            loss: Loss::None,
            advice: "other hosts are redirected too, and refused over https".to_owned(),
        });
    }

    fn proxy_protocol(&mut self, scope: &Scope<'_>) {
        let from = nearest_all(scope, "set_real_ip_from");
        match from.is_empty() {
            true => (self.proxy_from).extend(["0.0.0.0/0", "::/0"].map(str::to_owned)),
            false => self.networks(&from, true),
        }
    }

    fn forwarded(&mut self, scope: &Scope<'_>) {
        let from = nearest_all(scope, "set_real_ip_from");
        match nearest(scope, "real_ip_header").map(Directive::first) {
            Some(header) if header.eq_ignore_ascii_case("X-Forwarded-For") => {
                self.networks(&from, false);
            }
            Some("proxy_protocol") => {}
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
                Err(_) => self.lost(directive, "is not a network; name its addresses instead"),
            }
        }
    }

    fn certificates(&mut self, server: &Directive, scope: &Scope<'_>) {
        let chains = nearest_all(scope, "ssl_certificate");
        let keys = nearest_all(scope, "ssl_certificate_key");
        if chains.is_empty() {
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

    fn site(&mut self, server: &Directive, http: &[Directive], default: bool) {
        let inside = server.inside();
        let names = self.site_names(inside, default);
        if names.is_empty() {
            return self.lost(server, "has no name that can be a site's; it is left out");
        }
        let mut text = format!(
            "\n[[site]]  # from {}\nnames = {}\n",
            server.place,
            array(&names)
        );
        if default {
            text.push_str("default = true\n");
        }
        let closed = inside
            .iter()
            .chain(http)
            .find(|directive| restricts(directive));
        let mut routes = String::new();
        let mut root = false;
        for directive in inside {
            match directive.name.as_str() {
                "listen" | "server_name" | "ssl" => {}
                "location" => root |= self.location(directive, inside, http, &mut routes),
                name if INHERITED.contains(&name) => {}
                _ => self.note(directive),
            }
        }
        if let Some(closed) = closed {
            let advice = "decides who or what is let in: the whole site is closed until you have \
                          decided how; then give it its upstream";
            self.lost(closed, advice);
            routes.clear();
            root = false;
        }
        if !root {
            self.closed = true;
            if closed.is_none() {
                self.lost(
                    server,
                    "has no `location /` that proxies; what it answered itself is closed",
                );
            }
            let _ = writeln!(text, "upstream = {}", quoted(CLOSED));
        }
        self.site_tls(&[inside, http], &mut text);
        self.sites.push_str(&text);
        self.sites.push_str(&routes);
    }

    fn site_names(&mut self, inside: &[Directive], default: bool) -> Vec<String> {
        let mut names = Vec::new();
        let mut add = |name: String, all: &mut BTreeSet<String>| {
            let new = all.insert(name.clone());
            if new {
                names.push(name);
            }
            new
        };
        for directive in inside
            .iter()
            .filter(|directive| directive.name == "server_name")
        {
            for name in &directive.args {
                let name = name.to_ascii_lowercase();
                let advice = match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
                    Some(parent) => {
                        let mut new = add(format!("*.{parent}"), &mut self.names);
                        if name.starts_with('.') {
                            new |= add(parent.to_owned(), &mut self.names);
                        }
                        match new {
                            true => {
                                "stands for one more label here, for any number of them in nginx"
                            }
                            false => "another server has this name already",
                        }
                    }
                    None if name == "_" || name.is_empty() => continue,
                    None if name.starts_with('~') || name.contains(['*', '$']) => {
                        "is a pattern; write the names that it stands for"
                    }
                    None => match add(name.clone(), &mut self.names) {
                        true => continue,
                        false => "another server has this name already",
                    },
                };
                self.lost(directive, format!("{name}: {advice}"));
            }
        }
        if default {
            add("*".to_owned(), &mut self.names);
        }
        names
    }

    fn site_tls(&mut self, scope: &Scope<'_>, text: &mut String) {
        if let Some(protocols) = nearest(scope, "ssl_protocols") {
            let has = |name: &str| protocols.args.iter().any(|arg| arg == name);
            let versions: Vec<_> = [("TLSv1.2", "1.2"), ("TLSv1.3", "1.3")]
                .into_iter()
                .filter_map(|(name, version)| has(name).then_some(version))
                .collect();
            if ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1"].into_iter().any(has) {
                self.lost(
                    protocols,
                    "TLS before 1.2 is not spoken: RFC 8996 forbids it",
                );
            }
            if !versions.is_empty() {
                let (list, place) = (array(&versions), &protocols.place);
                let _ = writeln!(text, "tls = {{ versions = {list} }}  # from {place}");
            }
        }
        let Some(verify) = nearest(scope, "ssl_verify_client") else {
            return;
        };
        let mode = match verify.first() {
            "on" => "required",
            "optional" => "optional",
            "optional_no_ca" => "request",
            _ => return,
        };
        let _ = write!(text, "client_certificates = {{ mode = \"{mode}\"");
        for (name, key) in [("ssl_client_certificate", "ca"), ("ssl_crl", "crl")] {
            if let Some(file) = nearest(scope, name) {
                let _ = write!(text, ", {key} = {}", quoted(&self.absolute(file.first())));
            }
        }
        let _ = writeln!(text, " }}  # from {}", verify.place);
    }

    /// Writes the route of a location. `true`: it is the one that takes all that is left.
    fn location(
        &mut self,
        location: &Directive,
        server: &[Directive],
        http: &[Directive],
        routes: &mut String,
    ) -> bool {
        let path = match location.args.as_slice() {
            [path] if !path.starts_with(['@', '~', '=']) => path,
            [modifier, path] if modifier == "^~" => path,
            [modifier, path] if modifier == "=" && shadowed(path, server) => {
                let advice = "matched this path alone: its requests go where the prefix says. IF IT \
                              KEPT ANYBODY OUT, it does not any more";
                self.lost(location, advice);
                return false;
            }
            [modifier, path] if modifier == "=" => {
                self.lost(
                    location,
                    "matched this path alone; here it matches what is below it too",
                );
                path
            }
            [name] if name.starts_with('@') => {
                self.lost(
                    location,
                    "was gone to from within; there is no such thing here",
                );
                return false;
            }
            _ => {
                let advice = "matched a pattern: its requests go where their path says. IF IT KEPT \
                              ANYBODY OUT, it does not any more; write routes by prefix";
                self.lost(location, advice);
                return false;
            }
        };
        if !path.starts_with('/') {
            self.lost(location, "is not a path; it is left out");
            return false;
        }
        if path.len() > 1 && !path.ends_with('/') {
            let advice = format!("matches {path} and {path}/…; in nginx {path}… of any kind");
            self.lost(location, advice);
        }
        let inside = location.inside();
        let scope = [inside, server, http];
        let (target, place) = match self.target(location, path, &scope) {
            Some((name, place)) => (name, place),
            None => {
                self.closed = true;
                (CLOSED.to_owned(), location.place.to_string())
            }
        };
        for directive in inside {
            match directive.name.as_str() {
                "proxy_pass" | "grpc_pass" => {}
                "location" if target == CLOSED => {
                    self.lost(directive, "is below a path that is closed")
                }
                "location" => drop(self.location(directive, server, http, routes)),
                name if INHERITED.contains(&name) => {}
                _ => self.note(directive),
            }
        }
        let route = format!(
            "\n[[site.route]]  # from {place}\npath = {}\nupstream = {}\n",
            quoted(path),
            quoted(&target)
        );
        routes.push_str(&route);
        path == "/"
    }

    /// The upstream of a location, or `None` where it must not be answered.
    fn target(
        &mut self,
        location: &Directive,
        path: &str,
        scope: &Scope<'_>,
    ) -> Option<(String, String)> {
        if let Some(closed) = location
            .inside()
            .iter()
            .find(|directive| restricts(directive))
        {
            let advice =
                "decides who or what is let in: the path is closed until you have decided how";
            self.lost(closed, advice);
            return None;
        }
        let own = |name| nearest(&scope[..1], name);
        let Some(pass) = own("proxy_pass").or_else(|| own("grpc_pass")) else {
            self.lost(
                location,
                "does not proxy: what nginx answered itself is closed here",
            );
            return None;
        };
        let Some(wanted) = upstream::Pass::read(pass, path) else {
            let advice = "rewrites the path or depends on variables: the path is closed here";
            self.lost(pass, advice);
            return None;
        };
        self.headers(pass, scope);
        let (name, notes) = self.upstreams.add(&wanted, pass, scope);
        for (directive, advice) in notes {
            self.lost(&directive, advice);
        }
        Some((name, pass.place.to_string()))
    }

    /// What is done anyway with fields of the request, and what is not.
    fn headers(&mut self, pass: &Directive, scope: &Scope<'_>) {
        let set = nearest_all(scope, "proxy_set_header");
        let is = |directive: &Directive, name: &str| directive.first().eq_ignore_ascii_case(name);
        if pass.name == "proxy_pass" && !set.iter().any(|directive| is(directive, "Host")) {
            self.lost(
                pass,
                "sent the upstream's name as Host; here it is the client's Host",
            );
        }
        const ANYWAY: [&str; 6] = [
            "Host",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "Upgrade",
            "Connection",
        ];
        for directive in set {
            let value = directive.args.get(1).map_or("", String::as_str);
            let usual =
                value.is_empty() || value.starts_with('$') || value.eq_ignore_ascii_case("upgrade");
            if !(usual && ANYWAY.iter().any(|name| is(directive, name))) {
                self.lost(directive, "this field is not sent to the upstream any more");
            }
        }
    }

    fn finish(mut self, path: &Path) -> Imported {
        let mut text = format!(
            "# Imported from {}. What has no equivalent was told on standard error.\n\n[listen]\n",
            path.display()
        );
        for (key, addresses) in [("https", &mut self.https), ("http", &mut self.http)] {
            // The IPv6 wildcard takes IPv4 as well.
            let all = addresses.clone();
            addresses.retain(|address| {
                let port = address.strip_prefix("0.0.0.0:");
                !port.is_some_and(|port| all.contains(&format!("[::]:{port}")))
            });
            let _ = writeln!(text, "{key} = {}", array(addresses.iter()));
        }
        let trust = [
            ("proxy_protocol_from", &self.proxy_from),
            ("forwarded_from", &self.forwarded_from),
        ];
        for (key, nets) in trust.into_iter().filter(|(_, nets)| !nets.is_empty()) {
            let _ = writeln!(text, "{key} = {}", array(nets));
        }
        if !self.timeouts.is_empty() {
            let _ = writeln!(text, "\n[timeouts]\n{}", self.timeouts.join("\n"));
        }
        for (chain, key, place) in &self.certificates {
            let _ = writeln!(
                text,
                "\n[[certificate]]  # from {place}\nchain = {}",
                quoted(chain)
            );
            if key != chain {
                let _ = writeln!(text, "key = {}", quoted(key));
            }
        }
        text.push_str(&self.sites);
        text.push_str(&self.upstreams.text);
        if self.closed {
            let _ = writeln!(
                text,
                "\n# Nobody is there: what could not be carried over is answered with 502 or 503.\n\
                 [upstream.{CLOSED}]\nservers = [\"unix:/run/staunch/{CLOSED}.sock\"]"
            );
        }
        self.notes.sort();
        self.notes.dedup();
        Imported {
            text,
            notes: self.notes,
        }
    }
}

/// Read where they are needed, on whatever level they stand.
const INHERITED: [&str; 20] = [
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_protocols",
    "ssl_verify_client",
    "ssl_client_certificate",
    "ssl_crl",
    "set_real_ip_from",
    "real_ip_header",
    "proxy_set_header",
    "proxy_connect_timeout",
    "proxy_read_timeout",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_name",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_verify",
    "grpc_connect_timeout",
    "grpc_read_timeout",
    "grpc_ssl_trusted_certificate",
    "grpc_ssl_name",
];

/// Whether a location by prefix has the path of one for that path alone.
fn shadowed(path: &str, server: &[Directive]) -> bool {
    let prefix = |directive: &Directive| {
        directive.name == "location"
            && directive.args.last().is_some_and(|last| last == path)
            && (directive.args.len() == 1 || directive.first() == "^~")
    };
    path == "/" || server.iter().any(prefix)
}

/// Whether a directive keeps anybody out.
fn restricts(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "deny" | "auth_basic" | "auth_request" | "internal" | "limit_except" | "auth_jwt"
        | "secure_link" | "satisfy" | "access_by_lua_file" => directive.first() != "off",
        "return" => true,
        "if" => directive
            .inside()
            .iter()
            .any(|inner| inner.name == "return" || restricts(inner)),
        _ => false,
    }
}

/// An address to listen on, as staunch writes it.
fn address(text: &str) -> Option<String> {
    let text = text.replacen("*:", "0.0.0.0:", 1);
    let whole = match (text.parse::<u16>(), text.contains(':')) {
        (Ok(port), _) => format!("0.0.0.0:{port}"),
        (_, false) => format!("{text}:80"),
        (_, true) if text.ends_with(']') => format!("{text}:80"),
        _ => text,
    };
    let address: std::net::SocketAddr = whole.parse().ok()?;
    Some(address.to_string())
}

/// nginx's time, as staunch writes it: seconds unless told otherwise.
fn time(text: &str) -> Option<String> {
    match text.parse::<u64>() {
        Ok(seconds) => Some(format!("{seconds}s")),
        Err(_) => {
            let units = text.trim_start_matches(|c: char| c.is_ascii_digit());
            let one = ["ms", "s", "m", "h", "d"].contains(&units) && units.len() < text.len();
            one.then(|| text.to_owned())
        }
    }
}
