//! Upstreams: nginx's groups and addresses, with what locations ask of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Directive, Scope, nearest, time};
use crate::import::{array, quoted};

/// What `proxy_pass` or `grpc_pass` leads to.
pub(super) struct Pass {
    scheme: &'static str,
    http2: bool,
    /// A group, `host:port` or `unix:/path`.
    to: String,
}

impl Pass {
    /// `None` where the path would be another one, or variables decide.
    pub(super) fn read(pass: &Directive, path: &str) -> Option<Self> {
        let text = pass.first();
        let http2 = pass.name == "grpc_pass";
        let (scheme, rest) = match text.split_once("://") {
            Some(("http" | "grpc", rest)) => ("http", rest),
            Some(("https" | "grpcs", rest)) => ("https", rest),
            None if http2 => ("http", text),
            _ => return None,
        };
        let (to, uri) = match rest.strip_prefix("unix:") {
            Some(socket) => match socket.split_once(':') {
                Some((socket, uri)) => (format!("unix:{socket}"), uri),
                None => (rest.to_owned(), ""),
            },
            None => match rest.find('/') {
                Some(end) => (rest[..end].to_owned(), &rest[end..]),
                None => (rest.to_owned(), ""),
            },
        };
        let plain = !text.contains('$') && (uri.is_empty() || uri == path) && !to.is_empty();
        // TLS over a unix socket is not spoken.
        let spoken = scheme == "http" || !to.starts_with("unix:");
        (plain && spoken).then_some(Self { scheme, http2, to })
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
    /// `upstream NAME { … }`.
    pub(super) groups: BTreeMap<String, Directive>,
    /// Names by what they stand for.
    written: BTreeMap<String, String>,
    taken: BTreeMap<String, usize>,
    pub(super) text: String,
}

type Lost = Vec<(Directive, String)>;

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
            Some(group) => (group_text(pass, group, &mut lost), &group.place),
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
        if let Some(name) = self.written.get(&wanted) {
            return (name.clone(), lost);
        }
        let base = name_of(&pass.to);
        let count = self.taken.entry(base.clone()).or_default();
        *count += 1;
        let name = match *count {
            1 => base,
            count => format!("{base}--{count}"),
        };
        let _ = write!(self.text, "\n[upstream.{name}]  # from {place}\n{text}");
        self.written.insert(wanted, name.clone());
        (name, lost)
    }
}

/// A bare key of TOML.
fn name_of(address: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = address
        .trim_start_matches("unix:")
        .chars()
        .map(keep)
        .collect();
    name.trim_matches('-').to_owned()
}

fn group_text(pass: &Pass, group: &Directive, lost: &mut Lost) -> String {
    let (mut servers, mut balance, mut rest) = (Vec::new(), String::new(), String::new());
    for directive in group.inside() {
        match (directive.name.as_str(), directive.first()) {
            ("server", _) => servers.extend(server(pass, directive, lost)),
            ("least_conn", _) => balance = "balance = \"least-requests\"\n".to_owned(),
            ("random", _) => balance = "balance = \"random\"\n".to_owned(),
            ("ip_hash", _) => balance = "balance = \"hash\"\nhash = \"client\"\n".to_owned(),
            ("hash", key) => match hash(key) {
                Some(key) => balance = format!("balance = \"hash\"\nhash = {}\n", quoted(&key)),
                None => lost.push((
                    directive.clone(),
                    "cannot be hashed; see hash in config/staunch.toml".to_owned(),
                )),
            },
            // Shared memory is not needed, and connections are kept anyway.
            ("zone" | "keepalive" | "keepalive_timeout" | "keepalive_requests", _) => {}
            _ => lost.push((
                directive.clone(),
                "has no equivalent in an upstream; see [upstream.NAME]".to_owned(),
            )),
        }
    }
    let _ = write!(rest, "servers = [\n{}]\n{balance}", servers.concat());
    rest
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

fn server(pass: &Pass, directive: &Directive, lost: &mut Lost) -> Option<String> {
    let mut address = directive.first().to_owned();
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !has_port && !address.starts_with("unix:") {
        // Whatever the scheme: a server of a group has port 80 unless told otherwise.
        address.push_str(":80");
    }
    let mut more = String::new();
    for arg in &directive.args[1.min(directive.args.len())..] {
        match arg.split_once('=').unwrap_or((arg, "")) {
            ("weight", weight) if weight.parse::<u32>().is_ok() => {
                let _ = write!(more, ", weight = {weight}");
            }
            ("backup", _) => more.push_str(", backup = true"),
            ("down", _) => {
                lost.push((directive.clone(), "is down; it is left out".to_owned()));
                return None;
            }
            ("resolve", _) => {}
            _ => lost.push((
                directive.clone(),
                format!("{arg} is of one server; see eject_after, eject_time, connections of the upstream"),
            )),
        }
    }
    let (url, place) = (quoted(&pass.server(&address)), &directive.place);
    Some(format!("  {{ url = {url}{more} }},  # from {place}\n"))
}

impl Upstreams {
    /// Deadlines and TLS, which nginx has in locations.
    fn settings(
        &self,
        pass: &Pass,
        directive: &Directive,
        scope: &Scope<'_>,
        text: &mut String,
        lost: &mut Lost,
    ) {
        let prefix = if pass.http2 { "grpc" } else { "proxy" };
        let of = |name: &str| nearest(scope, &format!("{prefix}_{name}"));
        let mut tables = Vec::new();
        for (name, keys) in [
            ("connect_timeout", &["connect"][..]),
            ("read_timeout", &["response", "idle"]),
        ] {
            let Some(found) = of(name) else { continue };
            match time(found.first()).filter(|time| time != "0s") {
                Some(time) => {
                    tables.extend(keys.iter().map(|key| format!("{key} = {}", quoted(&time))))
                }
                None => lost.push((found.clone(), "is not a time that staunch has".to_owned())),
            }
        }
        if !tables.is_empty() {
            let _ = writeln!(text, "timeouts = {{ {} }}", tables.join(", "));
        }
        if pass.scheme != "https" {
            return;
        }
        if of("ssl_verify").is_none_or(|verify| verify.first() != "on") {
            lost.push((
            directive.clone(),
            "nginx did not verify these servers; they are verified here: see [upstream.NAME.tls]"
                .to_owned(),
        ));
        }
        let keys = [
            ("ssl_trusted_certificate", "ca"),
            ("ssl_name", "name"),
            ("ssl_certificate", "chain"),
            ("ssl_certificate_key", "key"),
        ];
        let tls: Vec<_> = (keys.iter())
            .filter_map(|(name, key)| {
                Some(format!(
                    "{key} = {}",
                    quoted(&self.value(key, of(name)?.first()))
                ))
            })
            .collect();
        if !tls.is_empty() {
            let _ = writeln!(text, "tls = {{ {} }}", tls.join(", "));
        }
    }
    /// A name as it is, a path made absolute.
    fn value(&self, key: &str, text: &str) -> String {
        match key == "name" || text.starts_with('/') {
            true => text.to_owned(),
            false => format!("{}/{text}", self.folder),
        }
    }
}
