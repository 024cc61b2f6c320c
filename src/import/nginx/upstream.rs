//! Upstreams: nginx's groups and addresses, with what locations ask of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::scope::Scope;
use super::value::{Variables, escape};
use super::{Directive, Names, unit};
use crate::import::{Loss, array, quoted};

/// What `proxy_pass` or `grpc_pass` leads to.
pub(super) struct Pass {
    scheme: &'static str,
    pub(super) http2: bool,
    /// A group, `host:port` or `unix:/path`.
    to: String,
    /// What stands in place of the location's path.
    pub(super) uri: Option<String>,
    /// `uri` is all that is asked for.
    pub(super) whole: bool,
}

impl Pass {
    /// `None` where variables decide where to.
    pub(super) fn read(pass: &Directive, variables: &Variables) -> Option<Self> {
        let text = variables.plain(pass.first());
        let http2 = pass.name == "grpc_pass";
        let (scheme, rest) = match text.split_once("://") {
            Some(("http" | "grpc", rest)) => ("http", rest),
            Some(("https" | "grpcs", rest)) => ("https", rest),
            None if http2 => ("http", &*text),
            _ => return None,
        };
        let (to, uri) = match rest.strip_prefix("unix:") {
            Some(socket) => match socket.split_once(':') {
                Some((socket, uri)) => (format!("unix:{socket}"), uri),
                None => (rest.to_owned(), ""),
            },
            None => {
                // What the client asked for may follow at once.
                let end = rest.find('/').or_else(|| rest.find("${request_uri}"));
                let end = end.or_else(|| rest.find("${uri}")).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        let as_asked = [
            "${request_uri}",
            "${uri}",
            "${uri}${is_args}${args}",
            "/${request_uri}",
        ];
        let varies = pass.first().contains('$');
        // The query is kept in any case.
        let of_client = [
            "${is_args}${args}",
            "?${args}",
            "${is_args}${query_string}",
            "?${query_string}",
        ];
        let uri = of_client
            .iter()
            .find_map(|query| uri.strip_suffix(query))
            .unwrap_or(uri);
        let uri = match uri {
            "" => None,
            // With a variable in it, nginx takes it as a whole.
            _ if as_asked.contains(&uri) => None,
            _ if varies && variables.template(uri).is_err() => return None,
            _ if varies => variables.template(uri).ok(),
            _ => Some(uri.to_owned()),
        };
        let plain = !to.contains('$') && !to.is_empty();
        // TLS over a unix socket is not spoken.
        let spoken = scheme == "http" || !to.starts_with("unix:");
        (plain && spoken).then_some(Self {
            scheme,
            http2,
            to,
            uri,
            whole: varies,
        })
    }

    /// What `proxy_pass` of `stream` leads to. `None`: TLS over a unix socket is not spoken.
    pub(super) fn stream(to: &str, scheme: &'static str) -> Option<Self> {
        let spoken = scheme == "tcp" || !to.starts_with("unix:");
        spoken.then(|| Self {
            scheme,
            http2: false,
            to: to.to_owned(),
            uri: None,
            whole: false,
        })
    }

    /// What nginx puts in place of which beginning of `Location` where nothing is said of it: what
    /// a server says of itself that was asked by the name of its upstream.
    pub(super) fn own_location(&self, path: Option<&str>) -> Option<(String, String)> {
        let url = format!("{}://{}", self.scheme, self.to);
        match (&self.uri, path) {
            // Where variables decide, nothing is changed.
            _ if self.whole || self.to.starts_with("unix:") => None,
            (None, _) => Some((format!("{url}/"), "/".to_owned())),
            (Some(uri), Some(path)) => {
                let uri = uri.split('?').next().unwrap_or(uri);
                Some((format!("{url}{uri}"), escape(path)))
            }
            (Some(_), None) => None,
        }
    }

    /// `$proxy_host`: what is asked for unless something else is said.
    pub(super) fn host(&self) -> &str {
        // `proxy_pass` leaves out the port that a scheme has anyway.
        let usual = match self.scheme {
            _ if self.http2 => None,
            "https" => self.to.strip_suffix(":443"),
            _ => self.to.strip_suffix(":80"),
        };
        match self.to.starts_with("unix:") {
            true => "localhost",
            false => usual.unwrap_or(&self.to),
        }
    }

    fn server(&self, address: &str) -> String {
        match address.starts_with("unix:") {
            true => address.to_owned(),
            false => format!("{}://{address}", self.scheme),
        }
    }
}

/// Those written so far.
#[derive(Default)]
pub(super) struct Upstreams {
    /// Relative paths are below this folder.
    pub(super) folder: String,
    /// Names of the site that is read.
    pub(super) hosts: Vec<String>,
    /// `upstream NAME { … }`.
    pub(super) groups: BTreeMap<String, Directive>,
    names: Names,
    /// Groups that something leads to.
    pub(super) used: BTreeSet<String>,
    pub(super) text: String,
}

/// `upstream NAME { … }` of a level.
pub(super) fn groups(level: &[Directive]) -> BTreeMap<String, Directive> {
    let groups = level
        .iter()
        .filter(|directive| directive.name == "upstream");
    groups
        .map(|directive| (directive.first().to_owned(), directive.clone()))
        .collect()
}

/// What is to be told.
type Lost = Vec<(Directive, Loss, String)>;

impl Upstreams {
    /// The name of an upstream with these settings, written unless it is already.
    pub(super) fn add(
        &mut self,
        pass: &Pass,
        directive: &Directive,
        scope: &Scope<'_>,
    ) -> (String, Lost) {
        let mut lost = Lost::new();
        let (mut text, place) = match self.groups.get(&pass.to) {
            Some(group) => {
                self.used.insert(pass.to.clone());
                (group_text(pass, group, &mut lost), &group.place)
            }
            None => {
                let servers = array([pass.server(&pass.to)]);
                (format!("servers = {servers}\n"), &directive.place)
            }
        };
        if pass.http2 {
            text.push_str("protocol = \"http2\"\n");
        }
        self.settings(pass, directive, scope, &mut text, &mut lost);
        let wanted = format!("{}\n{text}", pass.to);
        let (name, new) = self
            .names
            .name(pass.to.trim_start_matches("unix:"), &wanted);
        if new {
            let _ = write!(self.text, "\n[upstream.{name}]  # from {place}\n{text}");
        }
        (name, lost)
    }
}

fn group_text(pass: &Pass, group: &Directive, lost: &mut Lost) -> String {
    let (mut servers, mut balance, mut rest) = (Vec::new(), String::new(), String::new());
    let mut options = Options::default();
    for directive in group.inside() {
        let mut tell = |loss, advice: &str| lost.push((directive.clone(), loss, advice.to_owned()));
        match (directive.name.as_str(), directive.first()) {
            ("server", _) => servers.extend(server(pass, directive, &mut options, lost)),
            ("least_conn" | "least_time", _) => {
                balance = "balance = \"least-requests\"\n".to_owned();
            }
            ("random", _) => balance = "balance = \"random\"\n".to_owned(),
            ("ip_hash", _) => balance = "balance = \"hash\"\nhash = \"client\"\n".to_owned(),
            ("hash", key) => match hash(key) {
                Some(key) => balance = format!("balance = \"hash\"\nhash = {}\n", quoted(&key)),
                None => tell(
                    Loss::Real,
                    "cannot be hashed; see hash in config/staunch.toml",
                ),
            },
            ("sticky", "cookie") => {
                let name = directive.args.get(1).map_or("", String::as_str);
                let _ = writeln!(rest, "sticky = {}", quoted(name));
            }
            ("zone", _) => tell(Loss::None, "workers agree on servers without shared memory"),
            ("keepalive" | "keepalive_timeout" | "keepalive_requests" | "keepalive_time", _) => {
                tell(
                    Loss::None,
                    "connections to servers are always kept, for timeouts.upstream_keep",
                );
            }
            ("resolver" | "resolver_timeout", _) => {
                tell(
                    Loss::None,
                    "names are resolved by the system, see resolve_every",
                );
            }
            _ => tell(
                Loss::Real,
                "has no equivalent in an upstream; see [upstream.NAME]",
            ),
        }
    }
    options.text(&mut rest, group, lost);
    format!("servers = [\n{}]\n{balance}{rest}", servers.concat())
}

/// What nginx says of each server, and staunch of all of an upstream.
#[derive(Default)]
struct Options {
    count: usize,
    found: BTreeMap<&'static str, Vec<String>>,
}

impl Options {
    fn text(&self, text: &mut String, group: &Directive, lost: &mut Lost) {
        for (key, values) in &self.found {
            let mut all = values.clone();
            all.dedup();
            if all.len() > 1 || values.len() < self.count {
                let advice = format!("{key} differs between its servers; one is for all here");
                lost.push((group.clone(), Loss::Slight, advice));
            }
            let least = values.iter().min_by_key(|value| value.len());
            let _ = writeln!(text, "{key} = {}", least.map_or("", String::as_str));
        }
    }
}

fn hash(key: &str) -> Option<String> {
    let key = key
        .trim_start_matches("${")
        .trim_start_matches('$')
        .trim_end_matches('}');
    match key {
        "remote_addr" | "binary_remote_addr" => Some("client".to_owned()),
        "uri" | "request_uri" => Some("path".to_owned()),
        _ => match (key.strip_prefix("http_"), key.strip_prefix("cookie_")) {
            (Some(header), _) => Some(format!("header:{}", header.replace('_', "-"))),
            (_, Some(cookie)) => Some(format!("cookie:{cookie}")),
            _ => None,
        },
    }
}

fn server(
    pass: &Pass,
    directive: &Directive,
    options: &mut Options,
    lost: &mut Lost,
) -> Option<String> {
    let mut address = directive.first().to_owned();
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !has_port && !address.starts_with("unix:") {
        // Whatever the scheme: a server of a group has port 80 unless told otherwise.
        address.push_str(":80");
    }
    let mut more = String::new();
    let mut tell = |loss, advice: String| lost.push((directive.clone(), loss, advice));
    for arg in &directive.args[1.min(directive.args.len())..] {
        let (key, value) = arg.split_once('=').unwrap_or((arg, ""));
        let number = value.parse::<u32>().ok();
        let mut all = |key, value: String| options.found.entry(key).or_default().push(value);
        match (key, number) {
            ("weight", Some(weight)) => {
                let _ = write!(more, ", weight = {weight}");
            }
            ("max_fails", Some(fails)) => all("eject_after", fails.to_string()),
            ("max_conns", Some(most)) => all("connections", most.to_string()),
            // Failures of no time at all are never too many.
            ("fail_timeout", Some(0)) => all("eject_after", "0".to_owned()),
            ("fail_timeout", _) if unit::deadline(value).is_some() => {
                all(
                    "eject_time",
                    quoted(&unit::deadline(value).unwrap_or_default()),
                );
            }
            ("slow_start", _) if unit::deadline(value).is_some() => {
                all(
                    "slow_start",
                    quoted(&unit::deadline(value).unwrap_or_default()),
                );
            }
            ("backup", _) => more.push_str(", backup = true"),
            ("down", _) => {
                tell(Loss::None, "is down; it is left out".to_owned());
                return None;
            }
            ("resolve", _) => tell(
                Loss::None,
                "resolve: names are always resolved again, see resolve_every".to_owned(),
            ),
            _ => tell(
                Loss::Real,
                format!("{arg} has no equivalent; see [upstream.NAME]"),
            ),
        }
    }
    options.count += 1;
    let (url, place) = (quoted(&pass.server(&address)), &directive.place);
    Some(format!("  {{ url = {url}{more} }},  # from {place}\n"))
}

impl Upstreams {
    /// What nginx has in locations: the deadline to connect, retries and TLS.
    fn settings(
        &self,
        pass: &Pass,
        directive: &Directive,
        scope: &Scope<'_>,
        text: &mut String,
        lost: &mut Lost,
    ) {
        let prefix = if pass.http2 { "grpc" } else { "proxy" };
        let of = |name: &str| scope.nearest(&format!("{prefix}_{name}"));
        if let Some(found) = of("connect_timeout") {
            match unit::deadline(found.first()) {
                Some(time) => {
                    let _ = writeln!(text, "timeouts = {{ connect = {} }}", quoted(&time));
                }
                None => {
                    let advice = "is not a time that staunch has".to_owned();
                    lost.push((found.clone(), Loss::Real, advice));
                }
            }
        }
        let tries = of("next_upstream_tries").and_then(|tries| tries.first().parse::<u32>().ok());
        match (of("next_upstream"), tries) {
            (Some(next), _) if next.first() == "off" => text.push_str("retries = 0\n"),
            (next, tries) => {
                if let Some(tries) = tries.filter(|tries| *tries > 0) {
                    let _ = writeln!(text, "retries = {}", tries - 1);
                }
                lost.extend(next.map(|next| {
                    let advice = "a request is sent again where nothing came of it and that can do \
                                  no harm, whatever its method; what a server answers, an error \
                                  too, is passed on: see retries";
                    (next.clone(), Loss::Slight, advice.to_owned())
                }));
            }
        }
        if let Some(proxy) = of("protocol").filter(|found| found.first() == "on")
            && matches!(pass.scheme, "tcp" | "tls")
        {
            let place = &proxy.place;
            let _ = writeln!(text, "proxy_protocol = \"v1\"  # from {place}");
        }
        if matches!(pass.scheme, "https" | "tls") {
            self.tls(pass, (directive, scope), prefix, text, lost);
        }
    }

    fn tls(
        &self,
        pass: &Pass,
        (directive, scope): (&Directive, &Scope<'_>),
        prefix: &str,
        text: &mut String,
        lost: &mut Lost,
    ) {
        let of = |name: &str| scope.nearest(&format!("{prefix}_{name}"));
        let verified = of("ssl_verify").is_some_and(|verify| verify.first() == "on");
        let _ = (of("ssl_session_reuse"), of("ssl_verify_depth"));
        let asked = of("ssl_server_name").is_some_and(|name| name.first() == "on");
        let keys = [
            ("ssl_trusted_certificate", "ca"),
            ("ssl_certificate", "chain"),
            ("ssl_certificate_key", "key"),
        ];
        let mut tls = Vec::new();
        if !verified {
            tls.push("verify = false".to_owned());
            let advice = "these servers are not verified, as in nginx. To have them verified, write \
                          the authority that signed their certificates as `ca` in the place of \
                          `verify = false` in [upstream.NAME.tls]";
            lost.push((directive.clone(), Loss::Slight, advice.to_owned()));
        }
        for (name, key) in keys {
            let Some(found) = of(name) else { continue };
            // It is not looked at.
            if key == "ca" && !verified {
                continue;
            }
            if found.first().contains('$') {
                let advice = "a file that is the same for all requests is wanted here".to_owned();
                lost.push((found.clone(), Loss::Real, advice));
                continue;
            }
            tls.push(format!("{key} = {}", quoted(&self.absolute(found.first()))));
        }
        let name = of("ssl_name");
        if verified || asked {
            let name = self.tls_name(pass, name, lost);
            tls.extend(name.map(|name| format!("name = {}", quoted(&name))));
        }
        if of("ssl_protocols").is_some_and(|found| found.args == ["TLSv1.3"]) {
            tls.push("minimum = \"1.3\"".to_owned());
        }
        if !tls.is_empty() {
            let comment = match verified {
                true => "",
                false => "  # any certificate will do, as in nginx: better name its `ca`",
            };
            let _ = writeln!(text, "tls = {{ {} }}{comment}", tls.join(", "));
        }
    }

    /// The name that servers are asked for, where it is not the one in their URLs.
    fn tls_name(&self, pass: &Pass, given: Option<&Directive>, lost: &mut Lost) -> Option<String> {
        // What leads there, without a port.
        let own = || {
            let host = pass.host().rsplit_once(':');
            let host = host.map_or_else(|| pass.host(), |(host, _)| host);
            let is_name = host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[');
            (is_name && self.groups.contains_key(&pass.to)).then(|| host.to_owned())
        };
        let Some(given) = given else {
            return own();
        };
        let Some(variable) = given.first().strip_prefix('$') else {
            return Some(given.first().to_owned());
        };
        let first = self.hosts.iter().find(|name| !name.contains('*'));
        match (variable.trim_matches(['{', '}']), first) {
            ("proxy_host", _) => own(),
            ("host" | "http_host" | "server_name" | "ssl_server_name", Some(first)) => {
                if self.hosts.len() > 1 {
                    let advice = format!("{first} is asked for here, whatever clients ask for");
                    lost.push((given.clone(), Loss::Slight, advice));
                }
                Some(first.clone())
            }
            _ => {
                let advice = "a name that is the same for all requests is wanted here".to_owned();
                lost.push((given.clone(), Loss::Real, advice));
                None
            }
        }
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.folder),
        }
    }
}
