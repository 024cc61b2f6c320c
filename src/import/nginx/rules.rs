//! What holds for requests and responses of a location: fields, access, sizes, deadlines, pages.

use std::collections::{BTreeMap, BTreeSet};

use super::auth::{is_for_nobody, signs_in};
use super::scope::Scope;
use super::upstream::Pass;
use super::value::{By, Part, Variables, parts};
use super::{Directive, Import, unit};
use crate::import::site::{Change, Rules, Side};
use crate::import::{Loss, array, quoted};

/// Who is let in.
pub(super) enum Access<'d> {
    /// What is said of it, which may be nothing.
    Said(Rules),
    /// Nobody.
    Nobody,
    /// It cannot be said here.
    Unclear(&'d Directive),
}

/// Fields that staunch sends to upstreams by itself, whatever their value is here.
const ANYWAY: [&str; 5] = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "Upgrade",
    "Connection",
    "Forwarded",
];

/// Whether a field is sent in any case, or only says how messages are.
pub(super) fn is_anyway(name: &str) -> bool {
    let is = |other: &&str| name.eq_ignore_ascii_case(other);
    ANYWAY.iter().chain(&OWN).any(is)
}

/// Fields that nobody but staunch can write, as they say how messages are sent.
const OWN: [&str; 11] = [
    "Content-Length",
    "Transfer-Encoding",
    "Trailer",
    "TE",
    "Keep-Alive",
    "Proxy-Connection",
    "HTTP2-Settings",
    "Expect",
    "Max-Forwards",
    "Via",
    "Date",
];

/// Whether clients never see what the server behind sends in a field.
fn hides(scope: &Scope<'_>, name: &str) -> bool {
    let hidden = scope.all("proxy_hide_header");
    hidden
        .iter()
        .any(|one| one.first().eq_ignore_ascii_case(name))
}

impl Import {
    /// What holds in a location, but for who is let in. `pass`: where its requests go.
    pub(super) fn rules(
        &mut self,
        scope: &Scope<'_>,
        variables: &Variables,
        pass: Option<&Pass>,
    ) -> Rules {
        let mut rules = Rules::default();
        self.response_fields(scope, variables, pass.is_none(), &mut rules);
        let Some(pass) = pass else {
            return rules;
        };
        self.request_fields(scope, variables, pass, &mut rules);
        self.body_size(scope, &mut rules);
        self.deadlines(scope, pass, &mut rules);
        self.error_pages(scope, &mut rules);
        self.compression(scope, &mut rules);
        self.quotas(scope, variables, &mut rules);
        self.rewrites_location(scope, variables, pass, &mut rules);
        self.cookies(scope, &mut rules);
        rules
    }

    /// What holds for a request before `try_files` takes it to another location.
    pub(super) fn before_files(
        &mut self,
        scope: &Scope<'_>,
        variables: &Variables,
        rules: &mut Rules,
    ) {
        for key in ["request_body", "quotas"] {
            rules.remove(key);
        }
        self.body_size(scope, rules);
        self.quotas(scope, variables, rules);
    }

    pub(super) fn response_fields(
        &mut self,
        scope: &Scope<'_>,
        variables: &Variables,
        is_answer: bool,
        rules: &mut Rules,
    ) {
        let hidden = ["proxy_hide_header", "grpc_hide_header"];
        let hidden = hidden.into_iter().flat_map(|name| scope.all(name));
        for directive in hidden.chain(scope.all("more_clear_headers")) {
            for name in &directive.args {
                rules.change(Side::Response, Change::Remove, name, String::new());
            }
        }
        for directive in scope.all("add_header") {
            let [name, value, ..] = directive.args.as_slice() else {
                continue;
            };
            // In plain text, `hsts` is left out; it is meant for what ends TLS in front.
            if name.eq_ignore_ascii_case("Strict-Transport-Security")
                && variables.by != By::Plain
                && let Some((hsts, whole)) = hsts(&variables.plain(value))
                // In plain text, `hsts` alone is left out.
                && (whole || variables.by == By::Both)
            {
                rules.insert("hsts", hsts);
                if !whole {
                    let advice = "`preload` is left out: browsers take no host up without \
                                  includeSubDomains and a max-age of a year";
                    self.differs(directive, advice);
                } else if directive.args.len() < 3 {
                    self.differs(directive, "is said with errors too, as with `always`");
                }
                if !is_answer && !hides(scope, name) {
                    let advice = "takes the place of one that the server behind sends: nginx sent both, \
                                  of which browsers take the first";
                    self.differs(directive, advice);
                }
                continue;
            }
            // The type of what is answered here is said with its body.
            if is_answer && name.eq_ignore_ascii_case("Content-Type") {
                continue;
            }
            if name.eq_ignore_ascii_case("Alt-Svc") && value.contains("h3") {
                self.differs(directive, "told of HTTP/3, which is not spoken here");
                continue;
            }
            let change = match directive.args.get(2).map(String::as_str) {
                Some("always") => Change::Add,
                _ => Change::AddIfOk,
            };
            self.field(directive, change, name, value, variables, rules);
        }
        for directive in scope.all("more_set_headers") {
            for (name, value) in directive.args.iter().filter_map(|arg| arg.split_once(':')) {
                let (name, value) = (name.trim(), value.trim());
                self.field(directive, Change::Set, name, value, variables, rules);
            }
        }
        if let Some(directive) = scope.nearest("expires") {
            self.expires(directive, rules);
        }
    }

    /// `expires`: `Cache-Control`, and `Expires` where that is the same for all responses.
    fn expires(&mut self, directive: &Directive, rules: &mut Rules) {
        let Ok(said) = cache_control(directive) else {
            let advice = "set Cache-Control and Expires by the response or the time of the day: see \
                          response_headers, or let the upstream say it";
            return self.lost(directive, advice);
        };
        let Some((value, expires)) = said else {
            return;
        };
        let change = Change::SetIfOk;
        rules.change(Side::Response, change, "Cache-Control", quoted(&value));
        match expires {
            Some(time) => rules.change(Side::Response, change, "Expires", quoted(time)),
            None => self.differs(
                directive,
                "set Expires as well, which nothing goes by where there is a max-age: Cache-Control \
                 alone is set here",
            ),
        }
    }

    /// A field of responses, unless a variable in it is not known here.
    fn field(
        &mut self,
        directive: &Directive,
        change: Change,
        name: &str,
        value: &str,
        variables: &Variables,
        rules: &mut Rules,
    ) {
        if name.eq_ignore_ascii_case("Content-Length") && value == "0" {
            return self.note_as(directive, Loss::None, "is written where it is needed");
        }
        if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return self.lost(directive, "this field is written by staunch itself");
        }
        match variables.template(value) {
            Ok(value) if value.is_empty() => {}
            Ok(value) => rules.change(Side::Response, change, name, quoted(value.trim())),
            Err(variable) => self.unknown_variable(directive, &variable),
        }
    }

    fn unknown_variable(&mut self, directive: &Directive, variable: &str) {
        self.lost(
            directive,
            format!("{variable} is not known here; see docs/rules.md for the variables there are"),
        );
    }

    fn request_fields(
        &mut self,
        scope: &Scope<'_>,
        variables: &Variables,
        pass: &Pass,
        rules: &mut Rules,
    ) {
        let name = match pass.http2 {
            true => "grpc_set_header",
            false => "proxy_set_header",
        };
        let mut host = Some(pass.host().to_owned());
        let mut known = BTreeSet::new();
        for set in scope.all(name) {
            let [name, value] = set.args.as_slice() else {
                continue;
            };
            if !known.insert(name.to_ascii_lowercase()) && !value.is_empty() {
                let advice = "is there twice: nginx sent both, here the last one is sent";
                self.differs(set, advice);
            }
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("Host") {
                host = match variables.plain(value).as_str() {
                    // In small letters, without a port.
                    "${host}" => Some("{host}".to_owned()),
                    "${http_host}" => None,
                    "${proxy_host}" => host,
                    _ => self.template(set, value, variables),
                };
                continue;
            }
            if OWN.iter().any(|own| is(own)) {
                // Nothing of it, as where only the head of a request is sent, is what it says then.
                if !value.is_empty() {
                    self.lost(set, "this field is written by staunch itself");
                }
                continue;
            }
            if ANYWAY.iter().any(|anyway| is(anyway)) {
                self.anyway(set, name, value, variables.by == By::Plain);
                continue;
            }
            if is("X-Forwarded-Host") && variables.plain(value) == "${http_host}" {
                // It says so by itself.
                continue;
            }
            if variables.plain(value).contains("${http_x_forwarded_") {
                let advice = "is what staunch itself tells the server behind in that field; what a \
                              client says there is believed where listen.forwarded_from names it";
                self.differs(set, advice);
            }
            match value.is_empty() {
                true => rules.change(Side::Request, Change::Remove, name, String::new()),
                false => {
                    let Some(value) = self.template(set, value, variables) else {
                        if is("X-Forwarded-Host") {
                            let advice = "is the host that the client asked for here, whatever it \
                                          says in this field";
                            self.differs(set, advice);
                            continue;
                        }
                        // nginx wrote over what a client says there: a server behind may believe it.
                        rules.change(Side::Request, Change::Remove, name, String::new());
                        let advice = "what a client says in this field is taken out, as nginx wrote \
                                      over it";
                        self.differs(set, advice);
                        continue;
                    };
                    // A field without a value is not sent.
                    match value.is_empty() {
                        true => rules.change(Side::Request, Change::Remove, name, value),
                        false => {
                            rules.change(Side::Request, Change::Set, name, quoted(value.trim()));
                        }
                    }
                }
            }
        }
        if let Some(host) = host {
            rules.change(Side::Request, Change::Set, "Host", quoted(&host));
        }
    }

    /// What becomes of `Location` where the server behind redirects to itself.
    fn rewrites_location(
        &mut self,
        scope: &Scope<'_>,
        variables: &Variables,
        pass: &Pass,
        rules: &mut Rules,
    ) {
        let mut pairs = Vec::new();
        // Who is told what the client asked for does not speak of itself by another name.
        // Where both names are one, it does so all the same.
        let host = rules.field(Side::Request, "Host");
        let told = host.is_none_or(|host| host == "\"{host}\"") && pass.host() != variables.server;
        let own = pass.own_location(variables.path.as_deref());
        let default = || own.clone().filter(|_| !told);
        let said = scope.all("proxy_redirect");
        if said.is_empty() {
            pairs.extend(default());
        }
        for directive in said {
            match directive.args.as_slice() {
                [word] if word == "off" => {}
                [word] if word == "default" => pairs.extend(default()),
                [from, to] if !from.starts_with('~') && !from.contains('$') => {
                    let to = match variables.scheme() {
                        Some(scheme) => to.replacen("$scheme://", &format!("{scheme}://"), 1),
                        None => to.clone(),
                    };
                    let to = to
                        .replace(":$server_port", "")
                        .replace("$http_host", "$host");
                    match variables.template(&to) {
                        Ok(to) if !to.is_empty() => pairs.push((from.clone(), to)),
                        _ => self.lost(directive, "changed Location; see rewrite_location"),
                    }
                }
                _ => self.lost(directive, "changed Location; see rewrite_location"),
            }
        }
        let same = |(from, to): &(String, String)| from != to;
        let pairs: Vec<_> = (pairs.iter().filter(|pair| same(pair)))
            .map(|(from, to)| format!("{} = {}", quoted(from), quoted(to)))
            .collect();
        if !pairs.is_empty() {
            rules.insert("rewrite_location", format!("{{ {} }}", pairs.join(", ")));
        }
    }

    fn template(
        &mut self,
        directive: &Directive,
        value: &str,
        variables: &Variables,
    ) -> Option<String> {
        match variables.template(value) {
            Ok(value) => Some(value),
            Err(variable) if variable.starts_with("$ssl_client") => {
                let advice = "told of the client's certificate: see headers in \
                              [site.client_certificates]";
                self.lost(directive, advice);
                None
            }
            Err(variable) => {
                self.unknown_variable(directive, &variable);
                None
            }
        }
    }

    /// A field that is sent in any case: told where it said something else.
    fn anyway(&mut self, set: &Directive, name: &str, value: &str, plain: bool) {
        let usual = match name.to_ascii_lowercase().as_str() {
            "upgrade" | "connection" => true,
            "forwarded" => false,
            "x-forwarded-proto" if value == "https" && plain => {
                let advice = "is http here, as requests come; what TLS ends at before it is believed \
                              where listen.forwarded_from names it";
                return self.lost(set, advice);
            }
            "x-forwarded-proto" => matches!(value, "$scheme" | "https" | "${scheme}"),
            _ => matches!(parts(value).as_slice(), [Part::Variable(_)]),
        };
        if !usual && value.starts_with('$') {
            return self.differs(
                set,
                "this field is written by staunch itself; for proxies in front see \
                 listen.forwarded_from",
            );
        }
        if !usual {
            self.lost(
                set,
                "this field is written by staunch itself; see listen.forwarded_from",
            );
        }
    }

    fn body_size(&mut self, scope: &Scope<'_>, rules: &mut Rules) {
        let Some(directive) = scope.nearest("client_max_body_size") else {
            return;
        };
        match unit::bytes(directive.first()) {
            // At the top it is in [limits].
            Some(bytes) if self.request_body == Some(bytes) => {}
            Some(bytes) => rules.insert("request_body", quoted(&unit::size(bytes))),
            None => self.lost(directive, "is not a size; see request_body"),
        }
    }

    fn deadlines(&mut self, scope: &Scope<'_>, pass: &Pass, rules: &mut Rules) {
        let prefix = if pass.http2 { "grpc" } else { "proxy" };
        let mut keys = Vec::new();
        if let Some(directive) = scope.nearest(&format!("{prefix}_read_timeout")) {
            match unit::deadline(directive.first()) {
                Some(time) => {
                    let time = quoted(&time);
                    keys.extend(["response", "idle"].map(|key| format!("{key} = {time}")));
                    let upgrades = scope
                        .all("proxy_set_header")
                        .iter()
                        .any(|set| set.first().eq_ignore_ascii_case("Upgrade"));
                    if upgrades {
                        keys.push(format!("tunnel = {time}"));
                    }
                }
                None => self.lost(directive, "is not a time that staunch has; see timeouts"),
            }
        }
        if let Some(directive) = scope.nearest(&format!("{prefix}_send_timeout")) {
            self.note_as(
                directive,
                Loss::None,
                "what a server does not take is bounded by idle",
            );
        }
        if !keys.is_empty() {
            rules.insert("timeouts", format!("{{ {} }}", keys.join(", ")));
        }
    }

    fn error_pages(&mut self, scope: &Scope<'_>, rules: &mut Rules) {
        let mut pages = BTreeMap::new();
        for directive in scope.all("error_page") {
            let Some((target, statuses)) = directive.args.split_last() else {
                continue;
            };
            if statuses == ["497"] {
                let advice = "a request in plain text to a TLS address is not answered here";
                self.differs(directive, advice);
                continue;
            }
            if statuses
                .iter()
                .all(|status| matches!(&**status, "495" | "496") || status.starts_with('='))
            {
                let advice = "a client without a good certificate is refused in the handshake, and not \
                              answered";
                self.differs(directive, advice);
                continue;
            }
            if signs_in(directive, scope) || is_for_nobody(directive, scope) {
                continue;
            }
            let statuses: Vec<_> = (statuses.iter())
                .filter(|status| status.parse::<u16>().is_ok_and(|s| (400..600).contains(&s)))
                .collect();
            let plain = statuses.len() + 1 == directive.args.len();
            match self.pages.get(target).filter(|_| plain) {
                Some(file) => {
                    pages.extend(statuses.into_iter().map(|s| (s.clone(), quoted(file))));
                }
                None => self.lost(
                    directive,
                    "is more than a file for errors that nginx makes itself; see error_pages",
                ),
            }
        }
        if !pages.is_empty() {
            let pages = pages
                .into_iter()
                .map(|(status, file)| format!("{status} = {file}"));
            let pages = pages.collect::<Vec<_>>().join(", ");
            rules.insert("error_pages", format!("{{ {pages} }}"));
        }
    }
}

/// `allow` and `deny`: nginx takes the first that fits, staunch lets those in that are allowed and
/// not denied.
pub(super) fn access<'d>(scope: &Scope<'d>) -> Access<'d> {
    let (mut allow, mut deny) = (Vec::new(), Vec::new());
    let mut only = false;
    for directive in scope.any_of(&["allow", "deny"]) {
        let text = directive.first();
        let net = || network(text);
        match (directive.name.as_str(), text) {
            ("deny", "all") => {
                only = true;
                break;
            }
            ("allow", "all") => break,
            (_, "unix:") => {}
            ("allow", _) => match net() {
                Some(net) => allow.push(net),
                None => return Access::Unclear(directive),
            },
            // Behind what is allowed it does not hold for that.
            _ if !allow.is_empty() => return Access::Unclear(directive),
            _ => match net() {
                Some(net) => deny.push(net),
                None => return Access::Unclear(directive),
            },
        }
    }
    let mut rules = Rules::default();
    match (only, allow.is_empty()) {
        (true, true) => return Access::Nobody,
        (true, false) => rules.insert("allow", array(&allow)),
        // Everybody is let in.
        (false, _) => {}
    }
    if !deny.is_empty() {
        rules.insert("deny", array(&deny));
    }
    Access::Said(rules)
}

/// An address or a network.
pub(super) fn network(text: &str) -> Option<String> {
    let net = text.parse::<ipnet::IpNet>();
    let net = net.or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into));
    net.ok().map(|net| net.trunc().to_string())
}

/// `hsts`, where the value is one that can be written so, and whether that is all of it.
fn hsts(value: &str) -> Option<(String, bool)> {
    const YEAR: u64 = 365 * 24 * 3600;
    let (mut age, mut subdomains, mut preload) = (None, false, false);
    for part in value
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        match part.to_ascii_lowercase().split_once('=') {
            Some(("max-age", seconds)) => age = seconds.trim_matches('"').parse::<u64>().ok(),
            None if part.eq_ignore_ascii_case("includeSubDomains") => subdomains = true,
            None if part.eq_ignore_ascii_case("preload") => preload = true,
            _ => return None,
        }
    }
    let age = age?;
    let whole = !preload || subdomains && age >= YEAR;
    preload &= whole;
    let age = match age % 86_400 {
        0 if age > 0 => format!("{}d", age / 86_400),
        _ => format!("{age}s"),
    };
    let text = match (subdomains, preload) {
        (false, false) => quoted(&age),
        _ => format!("{{ max_age = \"{age}\", subdomains = {subdomains}, preload = {preload} }}"),
    };
    Some((text, whole))
}

/// `Cache-Control`, and `Expires` where that does not go by the time of the response.
#[allow(clippy::type_complexity)] // two fields, where anything is said of them
fn cache_control(expires: &Directive) -> Result<Option<(String, Option<&'static str>)>, ()> {
    // Whatever lies before now says the same.
    const PAST: &str = "Thu, 01 Jan 1970 00:00:01 GMT";
    const FAR: &str = "Thu, 31 Dec 2037 23:55:55 GMT";
    match (expires.first(), expires.args.len()) {
        ("off", 1) => Ok(None),
        ("epoch", 1) => Ok(Some(("no-cache".to_owned(), Some(PAST)))),
        ("max", 1) => Ok(Some(("max-age=315360000".to_owned(), Some(FAR)))),
        (text, 1) => match text.strip_prefix('-') {
            Some(ago) => {
                unit::milliseconds(ago).ok_or(())?;
                Ok(Some(("no-cache".to_owned(), Some(PAST))))
            }
            None => {
                let time = unit::milliseconds(text).ok_or(())?;
                Ok(Some((format!("max-age={}", time / 1000), None)))
            }
        },
        _ => Err(()),
    }
}
