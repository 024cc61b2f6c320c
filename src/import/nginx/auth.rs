//! Who may ask: `auth_basic`, `auth_request`, `satisfy`.

use std::fmt::Write as _;

use super::rules::network;
use super::scope::Scope;
use super::server::Server;
use super::upstream::Pass;
use super::value::{Variables, title};
use super::{Directive, Import, unit};
use crate::config::SignIn;
use crate::import::site::{Change, Rules, Side};
use crate::import::{Loss, array, quoted};

/// Those of a location that are read here.
pub(super) const READ: [&str; 2] = ["auth_basic", "auth_request"];

/// Fields that the server which is asked gets in any case.
const SENT: [&str; 13] = [
    "Host",
    "Content-Length",
    "Connection",
    "Cookie",
    "Authorization",
    "X-Original-URL",
    "X-Original-URI",
    "X-Original-Method",
    "X-Forwarded-Method",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Uri",
];

/// What holds for who may ask.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) rules: Rules,
    /// `allow` and `deny` are in it.
    pub(super) addresses: bool,
    /// Fields that a server is believed, which the one behind is told under other names.
    copied: Vec<String>,
}

impl Asked {
    /// Takes out what the server behind was not told by nginx.
    pub(super) fn finish(&self, rules: &mut Rules) {
        for name in &self.copied {
            if rules.field(Side::Request, name).is_none() {
                rules.change(Side::Request, Change::Remove, name, String::new());
            }
        }
    }
}

/// Whether clients are sent somewhere to sign in by this `error_page`.
pub(super) fn signs_in(page: &Directive, scope: &Scope<'_>) -> bool {
    on(scope, "auth_request").is_some() && is_of_strangers(page)
}

/// Whether nobody gets this `error_page`: nginx itself turns nobody away there.
pub(super) fn is_for_nobody(page: &Directive, scope: &Scope<'_>) -> bool {
    let turns = [
        "auth_basic",
        "auth_request",
        "auth_jwt",
        "proxy_intercept_errors",
    ];
    is_of_strangers(page) && turns.iter().all(|name| on(scope, name).is_none())
}

/// Whether an `error_page` is for clients only that have not shown who they are.
fn is_of_strangers(page: &Directive) -> bool {
    let mut codes = page.args.iter().rev().skip(1);
    codes.all(|code| code == "401" || code.starts_with('='))
        && page.args.iter().any(|code| code == "401")
}

fn on<'d>(scope: &Scope<'d>, name: &str) -> Option<&'d Directive> {
    scope.nearest(name).filter(|found| found.first() != "off")
}

impl Import {
    /// Reads it; what `auth_request_set` sets is a variable from then on. `None`: it cannot be said
    /// here, which is told, and all must be closed.
    pub(super) fn auth<'d>(&mut self, server: &mut Server<'d>, scope: &Scope<'d>) -> Option<Asked> {
        let file = scope.nearest("auth_basic_user_file");
        let (basic, request) = (on(scope, "auth_basic"), on(scope, "auth_request"));
        let any = scope
            .nearest("satisfy")
            .filter(|word| word.first() == "any");
        let mut asked = Asked::default();
        if request.is_none() {
            // Where nobody is asked, nothing is set: least of all by the client.
            for set in scope.all("auth_request_set") {
                let name = set.first().trim_start_matches('$').to_owned();
                server.variables.known.insert(name, String::new());
            }
        }
        if basic.is_none() && request.is_none() {
            return Some(asked);
        }
        let mut except = String::new();
        if let Some(any) = any {
            if basic.is_some() && request.is_some() {
                self.shut(
                    any,
                    "is one of several ways in, and here all have to be gone",
                );
                return None;
            }
            let networks = self.let_in(scope)?;
            if !networks.is_empty() {
                except = format!(", except = {}", array(&networks));
            }
            asked.addresses = true;
        }
        if let Some(basic) = basic {
            let rule = self.basic(basic, file, server)?;
            asked
                .rules
                .insert("basic_auth", format!("{{ {rule}{except} }}"));
        }
        if let Some(request) = request {
            let rule = self.request(request, server, scope, &mut asked)?;
            asked
                .rules
                .insert("forward_auth", format!("{{ {rule}{except} }}"));
        }
        Some(asked)
    }

    fn shut(&mut self, directive: &Directive, why: &str) {
        let advice = format!(
            "{why}: the path is closed until you have decided how; see docs/authentication.md"
        );
        self.whole(directive, Loss::Real, advice);
    }

    /// Who is let in by `allow` alone, where that is enough.
    fn let_in(&mut self, scope: &Scope<'_>) -> Option<Vec<String>> {
        let mut networks = Vec::new();
        for directive in scope.any_of(&["allow", "deny"]) {
            match (directive.name.as_str(), directive.first()) {
                ("deny", "all") => break,
                (_, "unix:") => {}
                ("allow", text) if network(text).is_some() => networks.extend(network(text)),
                _ => {
                    self.shut(directive, "cannot be said by `except` here");
                    return None;
                }
            }
        }
        Some(networks)
    }

    fn basic(
        &mut self,
        basic: &Directive,
        file: Option<&Directive>,
        server: &Server<'_>,
    ) -> Option<String> {
        let path = file.map(|file| server.variables.plain(file.first()));
        let path = path.filter(|path| !path.is_empty() && !path.contains('$'));
        let Some(path) = path else {
            self.shut(
                basic,
                "names no file of users that is the same for every request",
            );
            return None;
        };
        let mut rule = format!("file = {}", quoted(&self.absolute(&path)));
        let realm = server.variables.plain(basic.first());
        if realm.contains('$') {
            self.lost(basic, "may be off for some; here everybody is asked");
            return Some(rule);
        }
        match realm.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            true => drop(write!(rule, ", realm = {}", quoted(&realm))),
            false => self.differs(basic, "the realm is \"Restricted\" here"),
        }
        Some(rule)
    }

    fn request<'d>(
        &mut self,
        request: &'d Directive,
        server: &mut Server<'d>,
        scope: &Scope<'d>,
        asked: &mut Asked,
    ) -> Option<String> {
        let uri = request.first();
        let found = (!uri.contains('$'))
            .then(|| location_of(server, uri))
            .flatten();
        let Some((location, prefix)) = found else {
            self.shut(request, "asks a location that cannot be told beforehand");
            return None;
        };
        let mut inside = server.scope.inside(location.inside());
        if inside.own().nearest("proxy_pass").is_none()
            && let Some(named) = self.named_location(server, &inside.own())
        {
            inside = server.scope.inside(named.inside());
        }
        let mut variables = server.variables.clone();
        variables.add_sets(inside.here());
        let pass = inside.own().nearest("proxy_pass");
        let wanted = pass.and_then(|pass| Pass::read(pass, &variables));
        let varies = |pass: &Directive| variables.plain(pass.first()).contains('$');
        let (Some(pass), Some(wanted)) = (pass.filter(|pass| !varies(pass)), wanted) else {
            self.shut(
                request,
                "asks a location that has no proxy_pass to one server",
            );
            return None;
        };
        let path = match (&wanted.uri, prefix) {
            (None, _) => uri.to_owned(),
            (Some(path), Some(prefix)) if !wanted.whole => {
                format!("{path}{}", &uri[prefix.len()..])
            }
            (Some(path), _) => path.clone(),
        };
        let told = self.sent(&inside, &variables);
        let (name, _) = self.upstreams.add(&wanted, pass, &inside);
        let mut rule = format!("upstream = {}, path = {}", quoted(&name), quoted(&path));
        if !told.is_empty() {
            let _ = write!(rule, ", set = {{ {} }}", told.join(", "));
        }
        for set in inside.own().all("auth_request_set") {
            let name = set.first().trim_start_matches('$').to_owned();
            server.variables.known.insert(name, String::new());
            let advice = "is never done in the location that is asked, by nginx neither: write it where \
                          auth_request is";
            self.note_as(set, Loss::None, advice);
        }
        for set in scope.all("auth_request_set") {
            self.set(set, server, asked);
        }
        let sign_in = self.sign_in(server, scope);
        if sign_in.as_deref() == Some(SignIn::ANSWERED) {
            asked.copied.retain(|name| name != "Location");
        }
        if !asked.copied.is_empty() {
            let _ = write!(rule, ", copy = {}", array(&asked.copied));
        }
        if let Some(to) = sign_in {
            let _ = write!(rule, ", sign_in = {}", quoted(&to));
        }
        let timeout = inside.nearest("proxy_read_timeout");
        if let Some(timeout) = timeout.and_then(|timeout| unit::deadline(timeout.first())) {
            let _ = write!(rule, ", timeout = {}", quoted(&timeout));
        }
        Some(rule)
    }

    /// What the server that is asked is told besides.
    fn sent(&mut self, inside: &Scope<'_>, variables: &Variables) -> Vec<String> {
        let mut told: Vec<(&str, String)> = Vec::new();
        for set in inside.all("proxy_set_header") {
            let [name, value] = set.args.as_slice() else {
                continue;
            };
            let known = SENT.iter().any(|sent| name.eq_ignore_ascii_case(sent));
            // It asks for no other protocol, and nobody is told `Proxy`.
            if known
                || ["Upgrade", "Proxy"]
                    .iter()
                    .any(|it| name.eq_ignore_ascii_case(it))
            {
                continue;
            }
            match variables.template(value) {
                Ok(value) => {
                    told.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                    told.push((name, value));
                }
                Err(variable) => {
                    let advice = format!(
                        "told the server that is asked {variable}, which is not known here; see \
                         docs/authentication.md for what it is told"
                    );
                    self.whole(set, Loss::Real, advice);
                }
            }
        }
        let told = told.into_iter();
        told.map(|(name, value)| format!("{} = {}", quoted(name), quoted(value.trim())))
            .collect()
    }

    /// `auth_request_set $name $upstream_http_field`
    fn set(&mut self, set: &Directive, server: &mut Server<'_>, asked: &mut Asked) {
        let [name, value] = set.args.as_slice() else {
            return;
        };
        let name = name.trim_start_matches('$').to_owned();
        let field = value.trim_start_matches('$').trim_matches(['{', '}']);
        match field.strip_prefix("upstream_http_") {
            // Cookies are given to the client in any case.
            Some("set_cookie") => drop(server.variables.known.insert(name, String::new())),
            Some(field) => {
                let title = title(field);
                server
                    .variables
                    .known
                    .insert(name, format!("${{http_{field}}}"));
                if !asked.copied.contains(&title) {
                    asked.copied.push(title);
                }
            }
            None => self.lost(
                set,
                "is not a field of the answer, and nothing else is known here",
            ),
        }
    }

    /// Where clients are sent that have to sign in.
    fn sign_in<'d>(&mut self, server: &Server<'d>, scope: &Scope<'d>) -> Option<String> {
        let pages = scope.all("error_page");
        let page = pages.into_iter().find(|page| signs_in(page, scope))?;
        let mut target = page.args.last()?;
        if target.starts_with('@') {
            let named = server.scope.here().iter();
            let named = (named.filter(|other| other.name == "location"))
                .find(|other| other.first() == target);
            let answer = named.and_then(|named| {
                let returns = named.inside().iter().find(|inner| inner.name == "return");
                returns.filter(|found| found.first().starts_with("30"))
            });
            let Some(to) = answer.and_then(|answer| answer.args.get(1)) else {
                self.lost(page, "leads to more than a redirect; see sign_in");
                return None;
            };
            named
                .into_iter()
                .for_each(|named| self.seen.mark_all(named));
            target = to;
        }
        let to = server.variables.template(target).ok();
        if to.as_deref() == Some("{header:Location}") {
            return Some(SignIn::ANSWERED.to_owned());
        }
        let to = to.filter(|to| leads(to));
        match &to {
            None => self.lost(page, "leads where sign_in cannot; see there"),
            Some(to)
                if to.starts_with('/') && !page.args.iter().any(|it| it.starts_with("=30")) =>
            {
                self.differs(page, "answered in place; here clients are sent there");
            }
            Some(_) => {}
        }
        to
    }
}

/// The location that a path is for, as far as that goes without expressions; and its prefix, where
/// it is one.
fn location_of<'d>(server: &Server<'d>, uri: &str) -> Option<(&'d Directive, Option<&'d str>)> {
    let locations = || (server.scope.here().iter()).filter(|found| found.name == "location");
    let exact = locations().find(|found| match found.args.as_slice() {
        [modifier, path] => modifier == "=" && path == uri,
        [glued] => glued.strip_prefix('=') == Some(uri),
        _ => false,
    });
    if let Some(exact) = exact {
        return Some((exact, None));
    }
    let prefixes = locations().filter_map(|found| match found.args.as_slice() {
        [path] if path.starts_with('/') => Some((found, Some(path.as_str()))),
        [modifier, path] if modifier == "^~" => Some((found, Some(path.as_str()))),
        _ => None,
    });
    prefixes
        .filter(|(_, prefix)| prefix.is_some_and(|prefix| uri.starts_with(prefix)))
        .max_by_key(|(_, prefix)| prefix.map(str::len))
}

/// Whether `sign_in` may lead there: nobody but us may choose the host.
fn leads(to: &str) -> bool {
    let Some(rest) = ["https://", "http://", "{scheme}://"]
        .iter()
        .find_map(|s| to.strip_prefix(s))
    else {
        return to.starts_with('/') && !to.starts_with("//");
    };
    let host = rest.split('/').next().unwrap_or_default();
    host == "{host}"
        || !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b))
}
