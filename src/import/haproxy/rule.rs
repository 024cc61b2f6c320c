//! Rules: what each does, wherever it holds.

use super::Import;
use super::format::{line, template};
use super::parse::{Line, Section};
use crate::http::field::is_claim;
use crate::http::kept::Kept;
use crate::import::site::{Change, Rules, Side};
use crate::import::{Loss, array, quoted};

/// What a plain-text address does where nothing else is said.
pub(super) const TO_HTTPS: &str = "redirect = \"https://{host}{uri}\"";

/// Fields of requests that staunch writes itself, and what that comes to.
const OWN: [(&str, &[&str]); 4] = [
    ("X-Forwarded-For", &["{client_address}"]),
    ("X-Forwarded-Proto", &[]),
    (
        "X-Forwarded-Host",
        &["{host}", "{header:host}", "{header:Host}"],
    ),
    ("Forwarded", &[]),
];

/// Fields that say how a message is sent, and of which messages.
const FRAMING: [(&str, Option<Side>); 13] = [
    ("Transfer-Encoding", None),
    ("Content-Length", None),
    ("Trailer", None),
    ("Connection", None),
    ("Keep-Alive", None),
    ("Proxy-Connection", None),
    ("TE", None),
    ("Upgrade", None),
    ("HTTP2-Settings", None),
    ("Max-Forwards", None),
    ("Via", None),
    ("Expect", Some(Side::Request)),
    ("Date", Some(Side::Response)),
];

/// What follows the last slash of a path: a group of the expression of the route that answers so.
pub(super) const LAST: &str = "{last}";

/// What a rule does where it holds.
#[derive(Clone)]
pub(super) enum Act {
    /// The request goes to a backend.
    Use(String),
    /// It is answered.
    Answer(Vec<String>, Rules),
    /// It is refused.
    Deny(u16),
    /// It is refused with what is written, status first.
    Refuse(Vec<String>, Rules),
    /// A change to fields.
    Fields(Rules),
    /// Its path is written anew.
    Rewrite,
}

/// Whether a sample is a count of what clients do.
pub(super) fn counted(what: &str) -> bool {
    const COUNTS: [&str; 8] = [
        "sc_", "sc0_", "sc1_", "sc2_", "src_", "be_conn", "fe_", "nbsrv",
    ];
    let what = what.trim_start_matches('!');
    COUNTS.iter().any(|count| what.starts_with(count))
}

impl Import {
    /// A rule that refuses by a count, as the bound of each client where there is such a one.
    pub(super) fn bounded(&mut self, rule: &Line, what: &str) {
        let mut words = what.split_whitespace();
        let sample = words.next().unwrap_or_default();
        let most = words.last().and_then(|most| most.parse::<u32>().ok());
        let name = sample.split('(').next().unwrap_or_default();
        match most.filter(|most| *most > 0 && name.ends_with("_conn_cur")) {
            Some(most) => {
                self.limits
                    .insert("connections_per_client", most.to_string());
                let advice = "holds for all addresses here: limits.connections_per_client";
                self.tell(rule, Loss::Slight, advice);
            }
            None => {
                let advice = "bounded connections by a count; see limits.connections_per_client";
                self.tell(rule, Loss::Real, advice);
            }
        }
    }

    /// How responses are compressed, by a section or by `defaults`.
    pub(super) fn compression(&mut self, section: &Section) -> Rules {
        let defaults = section.defaults.clone();
        let lines = |what: &str| {
            let of = |section: &Section| {
                let lines = section.all("compression");
                lines
                    .filter(|line| line.word(1) == what)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let own = of(section);
            match own.is_empty() {
                true => defaults.as_deref().map(of).unwrap_or_default(),
                false => own,
            }
        };
        let (algorithms, types) = (lines("algo"), lines("type"));
        let mut rules = Rules::default();
        for line in algorithms.iter().chain(&types) {
            self.seen(line);
        }
        let gzip = |line: &Line| line.has("gzip");
        match algorithms.last() {
            None => return rules,
            Some(line) if !algorithms.iter().any(gzip) => {
                let advice = "is no coding that is known here; see compression";
                self.tell(line, Loss::Slight, advice);
                return rules;
            }
            Some(line) => {
                let advice = "Vary: Accept-Encoding is said of all that could be compressed, also \
                              where a client takes it as it is";
                self.tell(line, Loss::Slight, advice);
                rules.insert("compression", array(["gzip"]));
            }
        }
        // Without any it is for all.
        // And each is how the type begins.
        let kind = |kind: &String| match kind.strip_suffix('/') {
            Some(all) => format!("{all}/*"),
            None if !kind.contains('/') => format!("{kind}/*"),
            None => kind.split(';').next().unwrap_or_default().to_owned(),
        };
        let mut kinds: Vec<_> = (types.iter().flat_map(|line| &line.words[2..]))
            .map(kind)
            .collect();
        if kinds.is_empty() {
            kinds.push("*/*".to_owned());
        }
        rules.insert("compression_types", array(kinds));
        rules.insert("compression_minimum", quoted("1"));
        rules
    }

    /// A field of another name than usual, or of all, that says who asks: `option forwardfor`.
    pub(super) fn forwarded(&mut self, section: &Section, own: bool, rules: &mut Rules) {
        let option = match own {
            true => section
                .all("option")
                .find(|line| line.word(1) == "forwardfor")
                .cloned(),
            false => section.option("forwardfor"),
        };
        let Some((option, name)) = option.and_then(|option| {
            let name = option.after("header")?.to_owned();
            Some((option, name))
        }) else {
            return;
        };
        if name.eq_ignore_ascii_case("X-Forwarded-For") {
            return;
        }
        rules.change(
            Side::Request,
            Change::Set,
            &name,
            quoted("{client_address}"),
        );
        let advice = "set for every request, also where a client sends one itself";
        self.tell(&option, Loss::Slight, advice);
    }

    /// What a line says is done.
    pub(super) fn request_rule(&mut self, rule: &Line) -> Option<Act> {
        let side = match rule.word(0) {
            "http-request" => Side::Request,
            _ => Side::Response,
        };
        let action = rule.word(1);
        match action {
            "deny" | "reject" | "tarpit" | "silent-drop" => {
                let status = rule.after("deny_status").or_else(|| rule.after("status"));
                let status = status.and_then(|status| status.parse().ok());
                let usual = if action == "tarpit" { 500 } else { 403 };
                let status = status.unwrap_or(usual);
                if action != "deny" {
                    let advice = format!("is answered at once here, with {status}");
                    self.tell(rule, Loss::Slight, advice);
                }
                let own = [
                    "string",
                    "lf-string",
                    "file",
                    "lf-file",
                    "errorfile",
                    "errorfiles",
                    "hdr",
                ];
                match own.iter().any(|word| rule.has(word)) {
                    true => Some(match self.written(rule, &status.to_string()) {
                        Some((lines, fields)) => Act::Refuse(lines, fields),
                        None => Act::Deny(status),
                    }),
                    false => Some(Act::Deny(status)),
                }
            }
            "return" | "redirect" if side == Side::Response => {
                let advice = "answered in place of some responses; see error_pages, and let the server \
                              behind do the rest";
                self.tell(rule, Loss::Real, advice);
                None
            }
            "auth" => Some(Act::Deny(0)),
            "redirect" => self.redirect(rule),
            "return" => {
                let status = rule.after("status").unwrap_or("200").to_owned();
                Some(match self.written(rule, &status) {
                    Some((lines, fields)) => Act::Answer(lines, fields),
                    None => Act::Deny(0),
                })
            }
            "set-header" | "add-header" | "del-header" => {
                self.field(rule, side, rule.word(2)).map(Act::Fields)
            }
            "replace-header" | "replace-value" => self.replaced(rule, side).map(Act::Fields),
            "allow" => {
                let advice = "let some requests past the rules behind it, which hold for all here";
                self.tell(rule, Loss::Real, advice);
                None
            }
            "sc-inc-gpc0" | "set-var" | "capture" | "set-log-level" | "disable-l7-retry"
            | "wait-for-body" => {
                self.tell(rule, Loss::Slight, "what used it is told by itself");
                None
            }
            _ => None,
        }
    }

    /// What a rule answers with. `None`: its body is told.
    fn written(&mut self, rule: &Line, status: &str) -> Option<(Vec<String>, Rules)> {
        if let Some(text) = self.returned(rule) {
            return Some((answer(rule, &text, status), self.returned_fields(rule)));
        }
        let mut lines = vec![format!("respond = {status}")];
        let formatted = rule.after("lf-string");
        let body = match (rule.after("string"), formatted) {
            (Some(text), _) => Some(line("body", text)),
            (None, Some(text)) if !text.contains('%') => Some(line("body", text)),
            (None, Some(text)) => {
                let last = "%[path,field(-1,/)]";
                let text = text.replace(last, "%[str(staunch-last)]");
                match template(&text) {
                    Ok(text) => {
                        let text = text.replace("staunch-last", LAST);
                        Some(line("body_template", &text))
                    }
                    Err(variable) => {
                        let advice = format!(
                            "{variable} is not known here: its body is not carried over; see \
                             body_template"
                        );
                        self.tell(rule, Loss::Real, advice);
                        return None;
                    }
                }
            }
            (None, None)
                if ["file", "lf-file", "errorfile", "errorfiles"]
                    .iter()
                    .any(|word| rule.has(word)) =>
            {
                self.tell(rule, Loss::Real, "its body is not carried over; see body");
                return None;
            }
            // Nothing is said besides.
            (None, None) if rule.word(1) == "return" && !rule.has("default-errorfiles") => {
                Some(line("body", ""))
            }
            (None, None) => None,
        };
        if let Some(body) = body.filter(|_| !["204", "205", "304"].contains(&status)) {
            lines.push(body);
            let kind = rule.after("content-type");
            lines.extend(kind.map(|kind| line("content_type", kind)));
        }
        Some((lines, self.returned_fields(rule)))
    }

    /// The fields that a `return` writes: `hdr NAME VALUE`.
    fn returned_fields(&mut self, rule: &Line) -> Rules {
        let mut rules = Rules::default();
        let end = (rule.words.iter()).position(|word| word == "if" || word == "unless");
        let words = &rule.words[..end.unwrap_or(rule.words.len())];
        let at = (0..words.len()).filter(|at| words[*at] == "hdr");
        for (name, value) in at.filter_map(|at| Some((words.get(at + 1)?, words.get(at + 2)?))) {
            match template(value) {
                Ok(value) => {
                    rules.change(Side::Response, Change::Add, name, quoted(value.trim()));
                }
                Err(variable) => {
                    let advice =
                        format!("{variable} is not known here; see docs/rules.md for variables");
                    self.tell(rule, Loss::Real, advice);
                }
            }
        }
        rules
    }

    /// A field that is written anew: where that comes to one text, or to another beginning of where a
    /// response leads.
    fn replaced(&mut self, rule: &Line, side: Side) -> Option<Rules> {
        let (name, from, to) = (rule.word(2), rule.word(3), rule.word(4));
        let mut rules = Rules::default();
        let all = ["^.*$", ".*", "(.*)", "^(.*)$", "^(.*)"].contains(&from);
        if side == Side::Request && all && !to.contains('\\') && !to.is_empty() {
            rules.change(side, Change::Set, name, quoted(&template(to).ok()?));
            return Some(rules);
        }
        let stem = |text: &str| {
            let text = text
                .strip_suffix("(.*)$")
                .or_else(|| text.strip_suffix("(.*)"))?;
            // Without a sign of the beginning a scheme stands nowhere else.
            let text = match text.strip_prefix('^') {
                Some(text) => text,
                None => Some(text).filter(|text| text.starts_with("http"))?,
            };
            let text = text.replace("\\.", ".").replace("\\/", "/");
            let plain = !text.contains(['(', '[', '*', '+', '?', '\\', '|']);
            (plain && !text.is_empty()).then_some(text)
        };
        if side == Side::Response
            && name.eq_ignore_ascii_case("location")
            && let (Some(from), Some(to)) = (stem(from), to.strip_suffix("\\1"))
            && let Ok(to) = template(to)
        {
            let table = format!("{{ {} = {} }}", quoted(&from), quoted(&to));
            rules.insert("rewrite_location", table);
            return Some(rules);
        }
        // All that do not say so themselves, which is no difference here.
        let unsaid = from.starts_with("^((?:(?!") && from.ends_with(").)*)$")
            || from.starts_with("^((?:.(?!") && from.ends_with("))*)$");
        if side == Side::Response
            && name.eq_ignore_ascii_case("set-cookie")
            && (all || unsaid)
            && let Some(attributes) = to.strip_prefix("\\1").and_then(attributes)
        {
            rules.insert("cookies", attributes);
            return Some(rules);
        }
        let advice = "changed a part of a field's value: only a whole value is set here, and the \
                      beginning of Location; see response_headers and rewrite_location";
        self.tell(rule, Loss::Real, advice);
        None
    }

    /// One change to a field.
    fn field(&mut self, rule: &Line, side: Side, name: &str) -> Option<Rules> {
        let mut rules = Rules::default();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_letter) {
            let advice =
                format!("{name} is not the name of a field: is there a character too many?");
            self.tell(rule, Loss::Real, advice);
            return None;
        }
        if side == Side::Request
            && let Some((_, own)) = (OWN.iter()).find(|(other, _)| is(other))
        {
            let scheme = if self.over_tls { "https" } else { "http" };
            let value = template(rule.word(3)).unwrap_or_else(|sample| sample);
            let alike = match name.to_ascii_lowercase().as_str() {
                "x-forwarded-proto" => ["", scheme, "{scheme}"].contains(&value.as_str()),
                "forwarded" => rule
                    .word(3)
                    .split(';')
                    .all(|part| is_forwarded(part, scheme)),
                _ => value.is_empty() || own.contains(&value.trim()),
            };
            match alike {
                true => self.tell(rule, Loss::None, "staunch writes this field by itself"),
                false => {
                    let advice = "staunch writes this field itself, by what it sees; where a proxy \
                                  in front knows better, see listen.forwarded_from";
                    self.tell(rule, Loss::Real, advice);
                }
            }
            return None;
        }
        if side == Side::Request && is_claim(name.as_bytes()) {
            let (loss, advice) = match rule.word(1) {
                "del-header" => (Loss::None, "no client can say that here"),
                _ => (
                    Loss::Real,
                    "is staunch's own field, and its form another: see headers in \
                     client_certificates, or give the field another name",
                ),
            };
            self.tell(rule, loss, advice);
            return None;
        }
        let of_side = |(_, of): &(&str, Option<Side>)| of.is_none_or(|of| of == side);
        let of_message = FRAMING.iter().filter(|known| of_side(known));
        let host = is("Host") && side == Side::Request && rule.word(1) != "set-header";
        if host || of_message.into_iter().any(|(other, _)| is(other)) {
            self.tell(
                rule,
                Loss::Slight,
                "staunch keeps this field right by itself",
            );
            return None;
        }
        if is("Alt-Svc") && rule.word(3).contains("h3") {
            self.tell(
                rule,
                Loss::Slight,
                "HTTP/3 is not spoken here, and not offered",
            );
            return None;
        }
        let value = rule.word(3);
        let over_tls = if self.over_tls { "1" } else { "0" };
        let value = &*value.replace("%[ssl_fc]", over_tls);
        if side == Side::Response && is("Strict-Transport-Security") {
            rules.change(Side::Response, Change::Set, name, quoted(value));
            return Some(rules);
        }
        let change = match rule.word(1) {
            "del-header" if rule.word(3) == "-m" => {
                let advice =
                    "took away fields by a part of their names; see response_headers.remove";
                self.tell(rule, Loss::Real, advice);
                return None;
            }
            "del-header" => {
                rules.change(side, Change::Remove, name, String::new());
                return Some(rules);
            }
            "set-header" => Change::Set,
            _ => Change::Add,
        };
        match template(value) {
            Ok(value) => {
                if value.contains("{client_subject}") || value.contains("{client_issuer}") {
                    let advice = "names are written as CN=…,O=… here (RFC 4514), and as /O=…/CN=… \
                                  in HAProxy: tell the server behind";
                    self.tell(rule, Loss::Slight, advice);
                }
                if may_be_empty(&value) {
                    let advice = "is left out here where its value is empty";
                    self.tell(rule, Loss::Slight, advice);
                }
                if rule.word(0) == "http-response" {
                    let advice = "is in errors that staunch answers itself, too";
                    self.tell(rule, Loss::Slight, advice);
                }
                rules.change(side, change, name, quoted(value.trim()));
                Some(rules)
            }
            Err(variable) if variable.contains("ssl_c_") => {
                let advice = "says what is not told here; see the variables for client certificates in \
                              docs/rules.md, and headers in client_certificates";
                self.tell(rule, Loss::Real, advice);
                taken_out(side, change, name)
            }
            Err(variable) => {
                let advice =
                    format!("{variable} is not known here; see docs/rules.md for variables");
                self.tell(rule, Loss::Real, advice);
                taken_out(side, change, name)
            }
        }
    }

    /// `redirect`; `code 301` may stand anywhere in it.
    pub(super) fn redirect(&mut self, rule: &Line) -> Option<Act> {
        let end = (rule.words.iter()).position(|word| word == "if" || word == "unless");
        let said = Line {
            words: rule.words[..end.unwrap_or(rule.words.len())].to_vec(),
            place: rule.place.clone(),
        };
        let code = said.after("code").unwrap_or("302").to_owned();
        let to = if let Some(scheme) = said.after("scheme") {
            if self.over_tls || scheme != "https" {
                let advice = "requests come by https here, and others are redirected";
                self.tell(rule, Loss::None, advice);
                return None;
            }
            let advice = "plain-text addresses redirect to https by themselves, with 308";
            self.tell(rule, Loss::None, advice);
            let lines = vec![TO_HTTPS.to_owned(), format!("status = {code}")];
            return Some(Act::Answer(lines, Rules::default()));
        } else if let Some(location) = said.after("location") {
            template(location)
        } else if let Some(prefix) = said.after("prefix") {
            template(prefix).map(|to| {
                let slash = if said.has("append-slash") { "/" } else { "" };
                let what = match (said.has("drop-query"), slash) {
                    (true, _) => format!("{{path}}{slash}"),
                    (false, _) => "{uri}".to_owned(),
                };
                format!("{}{what}", to.trim_end_matches('/'))
            })
        } else {
            return None;
        };
        let mut fields = Rules::default();
        let set = said
            .after("set-cookie")
            .map(|cookie| format!("{cookie}; path=/;"));
        let cleared = said.after("clear-cookie").map(|cookie| {
            let name = cookie.trim_end_matches('=');
            format!("{name}=; path=/; Max-Age=0;")
        });
        for cookie in set.into_iter().chain(cleared) {
            let cookie = cookie.replace('{', "{{").replace('}', "}}");
            fields.change(Side::Response, Change::Add, "Set-Cookie", quoted(&cookie));
        }
        // It says so of those that could be kept.
        if ["302", "303", "307"].contains(&&*code) {
            no_cache(&mut fields);
        }
        match to {
            Ok(to) if !is_location(&to) => {
                let advice = "leads to no URL, as it has neither a scheme nor a slash in front: it is \
                              closed";
                self.tell(rule, Loss::Real, advice);
                Some(Act::Deny(0))
            }
            Ok(to) => Some(Act::Answer(
                vec![line("redirect", &to), format!("status = {code}")],
                fields,
            )),
            Err(variable) => {
                let advice = format!("{variable} is not known here: it is closed");
                self.tell(rule, Loss::Real, advice);
                Some(Act::Deny(0))
            }
        }
    }
}

/// What HAProxy says in its own errors, and in redirects that could be kept otherwise.
pub(super) fn no_cache(rules: &mut Rules) {
    let value = quoted("no-cache");
    rules.change(Side::Response, Change::Set, "Cache-Control", value);
}

/// What is answered from a file.
pub(super) fn answer(rule: &Line, text: &str, usual: &str) -> Vec<String> {
    let kept = Kept::read(text.as_bytes());
    let status = rule.after("status").map(str::to_owned);
    let status = status.or_else(|| kept.status.map(|status| status.to_string()));
    let kind = rule.after("content-type").or(kept.content_type);
    let mut lines = vec![
        format!("respond = {}", status.as_deref().unwrap_or(usual)),
        line("body", &String::from_utf8_lossy(kept.body)),
    ];
    lines.extend(kind.map(|kind| line("content_type", kind)));
    lines
}

/// Whether a parameter of `Forwarded` says what staunch says in it.
fn is_forwarded(part: &str, scheme: &str) -> bool {
    let (name, value) = part.trim().split_once('=').unwrap_or((part, ""));
    let value = value.trim_matches('"').to_ascii_lowercase();
    match name.to_ascii_lowercase().as_str() {
        "for" => matches!(value.as_str(), "%[src]" | "%ci"),
        "host" => matches!(value.as_str(), "%[req.hdr(host)]" | "%[hdr(host)]"),
        "proto" => value == scheme || value == "%[req.hdr(x-forwarded-proto)]",
        _ => false,
    }
}

/// Whether a browser can be sent there.
fn is_location(to: &str) -> bool {
    let begins = ["/", "http://", "https://", "{path}", "{uri}", "{scheme}://"];
    begins.iter().any(|begin| to.starts_with(begin))
}

/// Whether nothing is in a value but what some requests have none of.
fn may_be_empty(value: &str) -> bool {
    let kinds = [
        "header:", "cookie:", "query", "client_s", "client_c", "client_i", "sni",
    ];
    let mut left = value.trim();
    while let Some(rest) = left.strip_prefix('{') {
        let Some((name, behind)) = rest.split_once('}') else {
            return false;
        };
        if !kinds.iter().any(|kind| name.starts_with(kind)) {
            return false;
        }
        left = behind;
    }
    left.is_empty()
}

/// What clients say in a field that was set for them is not believed, even where it is not known what
/// it was set to.
fn taken_out(side: Side, change: Change, name: &str) -> Option<Rules> {
    let mut rules = Rules::default();
    rules.change(side, Change::Remove, name, String::new());
    (side == Side::Request && change == Change::Set && !name.eq_ignore_ascii_case("host"))
        .then_some(rules)
}

/// What is added behind each cookie, as keys of `cookies`.
fn attributes(text: &str) -> Option<String> {
    let mut found = Vec::new();
    for attribute in text
        .split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        found.push(match attribute.to_ascii_lowercase().as_str() {
            "secure" => "secure = true".to_owned(),
            "httponly" => "http_only = true".to_owned(),
            "samesite=lax" => "same_site = \"Lax\"".to_owned(),
            "samesite=strict" => "same_site = \"Strict\"".to_owned(),
            "samesite=none" => "same_site = \"None\"".to_owned(),
            _ => return None,
        });
    }
    (!found.is_empty()).then(|| format!("{{ {} }}", found.join(", ")))
}
