//! nginx's variables, as staunch writes them.

use std::collections::{HashMap, HashSet};

use super::Directive;
use super::map::{self, Map};

/// What requests to a server come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum By {
    #[default]
    Tls,
    Plain,
    Both,
}

/// What variables stand for where a value is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    /// `set $name text`, where it is the same for every request.
    pub(super) known: HashMap<String, String>,
    /// The first name of the server.
    pub(super) server: String,
    /// Groups of the expression that matched, which are called `c1`, `c2`, …
    pub(super) groups: bool,
    /// Groups that have a name of their own.
    pub(super) named: Vec<String>,
    /// The location's path, where it has one.
    pub(super) path: Option<String>,
    /// Clients write a port in `Host`, as it is not the usual one.
    pub(super) port: bool,
    /// What requests come by.
    pub(super) by: By,
}

/// A part of a value.
pub(super) enum Part<'t> {
    Text(&'t str),
    Variable(&'t str),
}

pub(super) fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut left = text;
    while let Some(at) = left.find('$') {
        let (before, behind) = (&left[..at], &left[at + 1..]);
        let braced = behind
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'));
        let (name, rest) = match braced {
            Some(found) => found,
            None => {
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                // A group is one digit.
                let end = match behind.starts_with(|c: char| c.is_ascii_digit()) {
                    true => 1,
                    false => behind.find(|c| !word(c)).unwrap_or(behind.len()),
                };
                behind.split_at(end)
            }
        };
        if name.is_empty() {
            break;
        }
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        parts.push(Part::Variable(name));
        left = rest;
    }
    if !left.is_empty() {
        parts.push(Part::Text(left));
    }
    parts
}

impl Variables {
    /// Those of a server: what `set` says once and for all.
    pub(super) fn of_server(server: &Directive, by: By) -> Self {
        let name = server.inside().iter().find(|d| d.name == "server_name");
        let mut variables = Self {
            server: name.map(|name| name.first().to_owned()).unwrap_or_default(),
            by,
            ..Self::default()
        };
        variables.add_sets(server.inside());
        variables
    }

    /// Takes in what `set` says on a level.
    pub(super) fn add_sets(&mut self, level: &[Directive]) {
        let (mut found, mut varying) = (HashMap::new(), HashSet::new());
        collect(level, self.by, false, &mut found, &mut varying);
        self.known.extend(found);
        self.known.retain(|name, _| !varying.contains(name));
    }

    /// Takes in what maps say that is the same for every request here; which those are.
    pub(super) fn add_maps<'d>(&mut self, level: &'d [Directive]) -> Vec<&'d Directive> {
        let mut settled = Vec::new();
        for directive in level.iter().filter(|directive| directive.name == "map") {
            let Some(name) = directive.args.get(1).map(|name| map::bare(name)) else {
                continue;
            };
            if let Some(map) = map::find(level, name)
                && let Some(value) = self.settled(&map).or_else(|| self.hsts(&map))
                && !self.known.contains_key(name)
            {
                self.known.insert(name.to_owned(), value);
                settled.push(map.directive);
            }
        }
        settled
    }

    /// What a map says over TLS, where that is for browsers to stay with it, which is never said
    /// in plain text.
    fn hsts(&self, map: &Map<'_>) -> Option<String> {
        let secure = Self {
            by: By::Tls,
            ..self.clone()
        };
        let value = secure.settled(map).filter(|_| self.by == By::Both);
        value.filter(|value| value.starts_with("max-age="))
    }

    /// What a map says, where that is settled.
    fn settled(&self, map: &Map<'_>) -> Option<String> {
        let known;
        let source = match map.source {
            "" => "",
            "scheme" => self.scheme()?,
            "https" => self.https()?,
            "server_port" if !self.port => self.usual_port()?,
            // The idiom for an id of the request.
            _ if map::keeps_id(map.directive) => return Some("$request_id".to_owned()),
            // Who says no host is not answered here.
            source @ "http_host" => {
                let own = map
                    .default
                    .is_some_and(|entry| map::bare(entry.first()) == source);
                let rest = map.entries.iter().all(|entry| map::key(entry).is_empty());
                return (own && rest).then(|| "$http_host".to_owned());
            }
            // What a client says of those before it, or what is so here: that is not believed.
            source if source.starts_with("http_x_forwarded_") => {
                let own = map
                    .default
                    .is_some_and(|entry| map::bare(entry.first()) == source);
                match own {
                    true => "",
                    false => return None,
                }
            }
            _ if map.entries.is_empty() => "",
            source => {
                known = self.plain(self.known.get(source)?);
                match known.as_str() {
                    "${scheme}" => self.scheme()?,
                    text if text.contains('$') => return None,
                    text => text,
                }
            }
        };
        if map.entries.iter().any(|entry| entry.name.starts_with('~')) {
            return None;
        }
        let mut entries = map.entries.iter();
        let found = entries.find(|entry| map::key(entry) == source);
        let found = found.or(map.default.as_ref());
        Some(found.map_or("", |entry| entry.first()).to_owned())
    }

    /// What all requests come by.
    pub(super) const fn scheme(&self) -> Option<&'static str> {
        match self.by {
            By::Tls => Some("https"),
            By::Plain => Some("http"),
            By::Both => None,
        }
    }

    /// `$https`, where it is the same for all requests.
    pub(super) const fn https(&self) -> Option<&'static str> {
        match self.by {
            By::Tls => Some("on"),
            By::Plain => Some(""),
            By::Both => None,
        }
    }

    /// The port that clients need not write.
    pub(super) const fn usual_port(&self) -> Option<&'static str> {
        match self.by {
            By::Tls => Some("443"),
            By::Plain => Some("80"),
            By::Both => None,
        }
    }

    /// A value without those variables that stand for a text.
    pub(super) fn plain(&self, text: &str) -> String {
        // One may stand for a text with another in it.
        (0..4).fold(text.to_owned(), |text, _| {
            let expand = |part| match part {
                Part::Text(text) => text.to_owned(),
                Part::Variable(name) => match self.known.get(name) {
                    Some(value) => value.clone(),
                    None => format!("${{{name}}}"),
                },
            };
            parts(&text).into_iter().map(expand).collect()
        })
    }

    /// A value with staunch's variables, or the first variable that it has not.
    pub(super) fn template(&self, text: &str) -> Result<String, String> {
        let text = self.plain(text);
        // These three together are what the client asked for.
        let text = text.replace("${uri}${is_args}${args}", "${request_uri}");
        let text = text.replace("${uri}?${args}", "${request_uri}");
        let text = text.replace("${is_args}${args}", "?${args}");
        let mut out = String::new();
        for part in parts(&text) {
            match part {
                Part::Text(text) => out.push_str(&escape(text)),
                Part::Variable(name) => match self.variable(name) {
                    Some(word) => out.push_str(&word),
                    None => return Err(format!("${name}")),
                },
            }
        }
        Ok(out)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let word = match name {
            "remote_addr" | "realip_remote_addr" | "binary_remote_addr" => "client_address",
            "remote_port" => "client_port",
            "host" => "host",
            "http_host" => "header:Host",
            "server_port" => "local_port",
            "scheme" => "scheme",
            "request_method" => "method",
            "request_uri" => "uri",
            "uri" | "document_uri" => "path",
            "args" | "query_string" => "query",
            "server_protocol" => "protocol",
            "ssl_server_name" => "sni",
            "ssl_protocol" => "tls_version",
            "ssl_curve" => "tls_group",
            "request_id" => "request_id",
            "remote_user" => "user",
            "https" => return self.https().map(str::to_owned),
            // Early data is never taken.
            "ssl_early_data" => return Some(String::new()),
            "server_name" => return Some(self.server.clone()),
            name if self.named.iter().any(|group| group == name) => name,
            _ => {
                let group = |c: char| ('1'..='9').contains(&c);
                if self.groups && name.len() == 1 && name.starts_with(group) {
                    return Some(format!("{{c{name}}}"));
                }
                let field = name.strip_prefix("http_").map(|name| ("header", name));
                let cookie = || name.strip_prefix("cookie_").map(|name| ("cookie", name));
                let (kind, name) = field.or_else(cookie)?;
                let name = match kind {
                    "header" => title(name),
                    _ => name.to_owned(),
                };
                return Some(format!("{{{kind}:{name}}}"));
            }
        };
        Some(format!("{{{word}}}"))
    }
}

/// `x_real_ip`: `X-Real-Ip`
pub(super) fn title(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join("-")
}

/// Text in which no brace begins a variable.
pub(super) fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

/// Whether a test of what requests come by holds, where it is the same for all of them.
fn settled_by(by: By, test: &[String]) -> Option<bool> {
    let secure = match by {
        By::Tls => true,
        By::Plain => false,
        By::Both => return None,
    };
    match test {
        [https] if https == "($https)" => Some(secure),
        [variable, is, text] if variable == "($scheme" && is == "=" && text.contains("http)") => {
            Some(!secure)
        }
        _ => None,
    }
}

/// What is set on a level, and what is set only sometimes. Locations are by
/// themselves.
fn collect(
    level: &[Directive],
    by: By,
    sometimes: bool,
    found: &mut HashMap<String, String>,
    varying: &mut HashSet<String>,
) {
    for directive in level {
        match (directive.name.as_str(), directive.args.as_slice()) {
            ("set", [name, value]) => {
                let name = map::bare(name);
                // The last one holds.
                found.insert(name.to_owned(), value.clone());
                if sometimes {
                    varying.insert(name.to_owned());
                }
            }
            ("if", test) => match settled_by(by, test) {
                Some(true) => collect(directive.inside(), by, sometimes, found, varying),
                Some(false) => {}
                None => collect(directive.inside(), by, true, found, varying),
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_written_as_here_or_told() {
        let mut variables = Variables {
            groups: true,
            server: "a.test".to_owned(),
            ..Variables::default()
        };
        let known = [("up", "http://${port_of}"), ("port_of", "b:1")];
        let known = known.map(|(name, text)| (name.to_owned(), text.to_owned()));
        variables.known = known.into_iter().collect();
        for (text, expected) in [
            ("plain", "plain"),
            ("a{1}", "a{{1}}"),
            ("https://$host$request_uri", "https://{host}{uri}"),
            ("${host}x", "{host}x"),
            ("$uri$is_args$args", "{uri}"),
            ("/$1/$2x", "/{c1}/{c2}x"),
            ("$http_x_forwarded_proto", "{header:X-Forwarded-Proto}"),
            ("$cookie_sid", "{cookie:sid}"),
            ("$remote_user:$server_port", "{user}:{local_port}"),
            ("https://$server_name/", "https://a.test/"),
            ("$up/", "http://b:1/"),
            ("5$", "5$"),
        ] {
            assert_eq!(variables.template(text).as_deref(), Ok(expected), "{text}");
        }
        let unknown = variables.template("$host $upstream_cache_status");
        assert_eq!(unknown, Err("$upstream_cache_status".to_owned()));
    }
}
