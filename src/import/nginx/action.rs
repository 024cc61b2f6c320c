//! Who answers: an upstream, a redirect, a fixed response.

use super::condition::Question;
use super::rewrite::{is_all, rooted, with_query, within};
use super::scope::Scope;
use super::server::{Server, closed};
use super::upstream::Pass;
use super::value::{Variables, escape};
use super::{Directive, Import, quoted};
use crate::import::Loss;
use crate::import::pattern;
use crate::import::site::{Deed, Matcher, Route, Rules};

/// What is told where files were served.
pub(super) const FILES: &str = "files are not served here: these paths are closed. Let a server \
                                behind do it, nginx itself on another address, and name that as \
                                `upstream`";

/// What is told where a beginning of the path is replaced.
const ENCODED: &str = "nginx decodes the path and encodes it again, and takes out slashes and dots: it \
                       is passed on here as the client wrote it, with %2F for what is no slash";

/// What is done with a location's requests.
pub(super) enum Outcome {
    /// They go to an upstream.
    Forward(Vec<String>, Rules),
    /// They are answered.
    Answer(Vec<String>),
    /// They must not be answered until somebody has decided how.
    Closed,
}

/// A `rewrite` that is for all that is below a path.
struct Cover {
    /// What stands before the rest, which has no slash at its begin.
    before: String,
}

impl Import {
    /// Where the error pages are, by the paths that nginx goes to for them.
    pub(super) fn find_pages(&mut self, server: &Server<'_>) {
        self.pages.clear();
        let own = server.scope.here();
        let mut targets = Vec::new();
        collect_pages(own, &mut targets);
        let inherited = server.scope.all("error_page").into_iter();
        targets.extend(inherited.filter_map(|page| page.args.last()));
        for target in targets {
            let locations = || own.iter().filter(|directive| directive.name == "location");
            let of = |directive: &&Directive| directive.args.last() == Some(target);
            let matching = |directive: &&Directive| match directive.args.as_slice() {
                [modifier, text] if modifier.starts_with('~') => {
                    let expression = pattern::convert(text, modifier == "~*", false);
                    expression.is_ok_and(|found| Matcher::Regex(found).is_for(target))
                }
                _ => false,
            };
            let location = locations().find(of).or_else(|| locations().find(matching));
            let scope = match location {
                Some(location) => server.scope.inside(location.inside()),
                None => server.scope.clone(),
            };
            if let Some(root) = scope.nearest("root")
                && target.starts_with('/')
                && !root.first().contains('$')
            {
                let root = self.absolute(root.first());
                let file = format!("{}{target}", root.trim_end_matches('/'));
                self.pages.insert(target.clone(), file);
            }
        }
    }

    /// Who answers the requests of a location.
    pub(super) fn handler<'d>(
        &mut self,
        server: &mut Server<'d>,
        location: &'d Directive,
        matcher: &Matcher,
        scope: &Scope<'d>,
    ) -> Outcome {
        let own = scope.own();
        let rewrites = own.all("rewrite");
        let pass = own.any_of(&["proxy_pass", "grpc_pass"]).pop();
        let Some(pass) = pass else {
            let goes_on = !own.all("try_files").is_empty();
            for rewrite in rewrites.into_iter().filter(|r| !goes_on || !is_break(r)) {
                if let Some(route) = self.answer(rewrite, server, scope, matcher.clone()) {
                    return match route.deed {
                        Deed::Answer => Outcome::Answer(route.action),
                        Deed::Forward => Outcome::Forward(route.action, route.rules),
                        Deed::Closed => Outcome::Closed,
                    };
                }
            }
            return self.without_pass(server, location, matcher, scope);
        };
        let Some(wanted) = Pass::read(pass, &server.variables) else {
            self.lost(
                pass,
                "depends on variables: the path is closed until you have named its upstream",
            );
            return Outcome::Closed;
        };
        let mut action = Vec::new();
        for rewrite in rewrites.iter().copied() {
            if redirects(rewrite) {
                match self.redirected(rewrite, server, scope, matcher.clone()) {
                    // All that its location takes.
                    Some(route) => return Outcome::Answer(route.action),
                    None => continue,
                }
            }
            // What follows is to be done to the path as the client wrote it.
            if rewrites.len() > 1 && rewrite.args == ["^", "$request_uri"] {
                self.note_as(
                    rewrite,
                    Loss::None,
                    "paths are passed on as clients write them",
                );
                continue;
            }
            match self.rewritten(rewrite, location, matcher, &server.variables) {
                Some(line) if action.is_empty() => {
                    match line.starts_with("replace_prefix") {
                        true => self.differs(rewrite, ENCODED),
                        false => self.tell_slash(rewrite, matcher),
                    }
                    action.push(line);
                }
                _ => self.rewrite_route(rewrite, matcher, server, &wanted, pass, scope),
            }
        }
        if action.is_empty()
            && let Some(uri) = &wanted.uri
        {
            action.extend(self.replaced(pass, uri, wanted.whole, matcher));
        }
        let (name, notes) = self.upstreams.add(&wanted, pass, scope);
        for (directive, loss, advice) in notes {
            self.note_as(&directive, loss, advice);
        }
        let rules = self.rules(scope, &server.variables, Some(&wanted));
        action.insert(0, format!("upstream = {}", quoted(&name)));
        Outcome::Forward(action, rules)
    }

    /// What `proxy_pass` with a path makes of the request's.
    fn replaced(
        &mut self,
        pass: &Directive,
        uri: &str,
        whole: bool,
        matcher: &Matcher,
    ) -> Option<String> {
        let rewrite = |text: &str| Some(format!("rewrite = {}", quoted(text)));
        let path = match matcher {
            // What is written here is all that the server behind is asked for.
            _ if whole && !uri.contains(['?', '{']) => return rewrite(&format!("{uri}?")),
            _ if whole => return rewrite(uri),
            Matcher::Any | Matcher::Exact(_) | Matcher::Regex(_) => return rewrite(&escape(uri)),
            Matcher::Prefix(path) => path,
        };
        self.differs(pass, ENCODED);
        if path == uri {
            return None;
        }
        if uri.contains('?') {
            self.lost(pass, "has a query, which is lost here");
        }
        let plain = uri.split('?').next().unwrap_or(uri);
        match (path.ends_with('/'), plain.ends_with('/')) {
            // `/api/x` becomes `/v1x`.
            (true, false) => rewrite(&format!("{}{{rest}}", escape(plain))),
            (false, true) => {
                self.differs(pass, "nginx asked for two slashes in a row; here it is one");
                Some(format!("replace_prefix = {}", quoted(plain)))
            }
            _ => Some(format!("replace_prefix = {}", quoted(plain))),
        }
    }

    /// A `rewrite` that replaces a location's path.
    fn rewritten(
        &self,
        rewrite: &Directive,
        location: &Directive,
        matcher: &Matcher,
        variables: &Variables,
    ) -> Option<String> {
        let [text, to, flag] = rewrite.args.as_slice() else {
            return None;
        };
        if flag != "break" || to.contains("://") {
            return None;
        }
        let path = match matcher {
            Matcher::Prefix(path) => path,
            Matcher::Regex(_) => {
                let expression = location.args.last()?;
                let target = rooted(to, variables)?;
                return pattern::is_same(text, expression)
                    .then(|| format!("rewrite = {}", quoted(&target)));
            }
            Matcher::Any | Matcher::Exact(_) => return None,
        };
        let before = cover(text, to, path)?.before;
        (before.starts_with('/') && before.ends_with('/') && !before.contains('$'))
            .then(|| format!("replace_prefix = {}", quoted(&before)))
    }

    /// Any other `rewrite` beside a `proxy_pass`: a route of its own, for its expression.
    fn rewrite_route(
        &mut self,
        rewrite: &Directive,
        matcher: &Matcher,
        server: &mut Server<'_>,
        wanted: &Pass,
        pass: &Directive,
        scope: &Scope<'_>,
    ) {
        let break_off = rewrite.args.get(2).is_some_and(|flag| flag == "break");
        let (Some(text), Some(to)) = (rewrite.args.first(), rewrite.args.get(1)) else {
            return;
        };
        if !break_off || to.contains("://") {
            return self.lost(rewrite, "changed the path and looked for another location");
        }
        let mut variables = server.variables.clone();
        variables.groups = true;
        let expression = pattern::convert(text, false, true).ok();
        let (Some(expression), Some(target)) = (expression, rooted(to, &variables)) else {
            return self.lost(
                rewrite,
                "cannot be written as a route with `regex` and `rewrite`",
            );
        };
        self.seen.mark(rewrite);
        self.tell_slash(rewrite, matcher);
        let (expression, asked) = within(expression, matcher);
        let (name, _) = self.upstreams.add(wanted, pass, scope);
        let rules = self.rules(scope, &variables, Some(wanted));
        server.first.push(Route {
            deed: Deed::Forward,
            action: vec![
                format!("upstream = {}", quoted(&name)),
                format!("rewrite = {}", quoted(&target)),
            ],
            rules,
            conditions: asked.into_iter().collect(),
            ..closed(rewrite, Matcher::Regex(expression))
        });
    }

    /// What `rewrite … break` of a location does to what `try_files` then sends to a server.
    fn rewritten_before(
        &mut self,
        server: &mut Server<'_>,
        location: &Directive,
        matcher: &Matcher,
        there: &Scope<'_>,
        action: &mut Vec<String>,
    ) {
        let pass = there.own().any_of(&["proxy_pass", "grpc_pass"]).pop();
        let Some(pass) = pass else {
            return;
        };
        let wanted = Pass::read(pass, &server.variables);
        let rewrites = location.inside().iter();
        for rewrite in rewrites.filter(|inner| is_break(inner)) {
            let (Some(wanted), 1) = (&wanted, action.len()) else {
                self.lost(rewrite, "changed the path; see rewrite of [[site.route]]");
                continue;
            };
            match self.rewritten(rewrite, location, matcher, &server.variables) {
                Some(line) => {
                    self.seen.mark(rewrite);
                    action.push(line);
                }
                None => self.rewrite_route(rewrite, matcher, server, wanted, pass, there),
            }
        }
    }

    /// A location that does not proxy.
    fn without_pass<'d>(
        &mut self,
        server: &mut Server<'d>,
        location: &'d Directive,
        matcher: &Matcher,
        scope: &Scope<'d>,
    ) -> Outcome {
        let own = scope.own();
        if let Some(other) = own
            .here()
            .iter()
            .find(|inner| inner.name.ends_with("_pass"))
        {
            self.lost(
                other,
                "speaks a protocol that staunch does not: keep nginx for it, behind staunch. The \
                 path is closed until then",
            );
            return Outcome::Closed;
        }
        // One of a server is not for its locations.
        if let Some(named) = self.named_location(server, &own) {
            for inner in own.here().iter().filter(|inner| !is_kept(inner)) {
                match inner.name.as_str() {
                    "add_header" | "expires" => {
                        self.note_as(inner, Loss::None, "was for files only");
                    }
                    _ => self.seen.mark_all(inner),
                }
            }
            let there = server.scope.inside(named.inside());
            let outcome = self.handler(server, named, matcher, &there);
            return match outcome {
                Outcome::Forward(mut action, mut rules) => {
                    self.rewritten_before(server, location, matcher, &there, &mut action);
                    // These are looked at before it is known where the request goes.
                    self.before_files(scope, &server.variables, &mut rules);
                    Outcome::Forward(action, rules)
                }
                outcome => outcome,
            };
        }
        // Where files came first, all that is no file goes on.
        let rest = own
            .here()
            .iter()
            .find(|inner| passes_what_is_no_file(inner));
        if let Some(rest) = rest.filter(|_| server.flags.live.is_always()) {
            let advice = "served files where there were any; now all goes to the server behind: let \
                          it serve them";
            self.lost(rest, advice);
            return self.handler(server, rest, matcher, &scope.inside(rest.inside()));
        }
        let gone = scope
            .own()
            .here()
            .iter()
            .any(|inner| inner.name == "stub_status");
        if gone {
            self.whole(
                location,
                Loss::Real,
                "see /metrics at the admin address; it is closed here",
            );
            return Outcome::Closed;
        }
        if scope.any_of(&["root", "alias", "try_files"]).is_empty() {
            return Outcome::Answer(vec!["respond = 404".to_owned()]);
        }
        let nested = scope
            .own()
            .here()
            .iter()
            .any(|inner| inner.name == "location");
        match nested {
            true => self.lost(location, FILES),
            false => self.whole(location, Loss::Real, FILES),
        }
        Outcome::Closed
    }

    /// `return`, or a `rewrite` that redirects, for all that a route is for. `None`: it is neither,
    /// or was told of.
    pub(super) fn answer<'d>(
        &mut self,
        directive: &'d Directive,
        server: &mut Server<'d>,
        scope: &Scope<'_>,
        matcher: Matcher,
    ) -> Option<Route> {
        match directive.name.as_str() {
            "return" => self.returned(directive, server, scope, matcher),
            "rewrite" => self.redirected(directive, server, scope, matcher),
            _ => None,
        }
    }

    fn returned(
        &mut self,
        directive: &Directive,
        server: &Server<'_>,
        scope: &Scope<'_>,
        matcher: Matcher,
    ) -> Option<Route> {
        self.seen.mark(directive);
        let route = |action| Route {
            deed: Deed::Answer,
            action,
            ..closed(directive, matcher.clone())
        };
        let (status, text) = match directive.args.as_slice() {
            [url] if url.parse::<u16>().is_err() => (302, Some(url)),
            [status] => (status.parse().ok()?, None),
            [status, text] => (status.parse().ok()?, Some(text)),
            _ => return None,
        };
        match (status, text) {
            (301 | 302 | 303 | 307 | 308, Some(url)) => {
                let lines = self.redirect(directive, url, status, &server.variables)?;
                Some(route(lines))
            }
            (444, _) => {
                self.differs(
                    directive,
                    "closed the connection; here it is answered with 403",
                );
                Some(route(vec!["respond = 403".to_owned()]))
            }
            (200..=599, None) => Some(route(vec![format!("respond = {status}")])),
            (200..=599, Some(body)) => {
                let body = server.variables.plain(body);
                if body.contains('$') {
                    self.lost(directive, "has variables in its body; the path is closed");
                    return Some(closed(directive, matcher));
                }
                let mut lines = vec![format!("respond = {status}")];
                if !matches!(status, 204 | 205 | 304) {
                    lines.push(format!("body = {}", quoted(&body)));
                    lines.extend(content_type(scope));
                }
                Some(route(lines))
            }
            _ => {
                self.lost(directive, "is no response that can be written here");
                Some(closed(directive, matcher))
            }
        }
    }

    pub(super) fn redirect(
        &mut self,
        directive: &Directive,
        url: &str,
        status: u16,
        variables: &Variables,
    ) -> Option<Vec<String>> {
        // A host is taken as it was checked.
        let url = variables.plain(url);
        let url = match variables.scheme() {
            Some(scheme) => url.replacen("${scheme}://", &format!("{scheme}://"), 1),
            None => url,
        };
        let url = url.replace("${http_host}", "${host}");
        match variables.template(&url) {
            Ok(url) => Some(vec![
                format!("redirect = {}", quoted(&url)),
                format!("status = {status}"),
            ]),
            Err(variable) => {
                self.lost(
                    directive,
                    format!("{variable} is not known here; the path is closed"),
                );
                None
            }
        }
    }

    /// A `rewrite` to another URL.
    fn redirected<'d>(
        &mut self,
        directive: &'d Directive,
        server: &mut Server<'d>,
        scope: &Scope<'_>,
        matcher: Matcher,
    ) -> Option<Route> {
        let (text, to, flag) = match directive.args.as_slice() {
            [text, to] => (text, to, ""),
            [text, to, flag] => (text, to, flag.as_str()),
            _ => return None,
        };
        let away = ["http://", "https://", "$scheme"]
            .iter()
            .any(|begin| to.starts_with(begin));
        let status = match flag {
            "permanent" => 301,
            _ if away || flag == "redirect" => 302,
            _ => {
                let route = self.rewritten_elsewhere(directive, server, &matcher)?;
                // All that its location takes: it is what the location does.
                if is_all(text) || matches!(matcher, Matcher::Regex(_)) {
                    return Some(Route { matcher, ..route });
                }
                server.first.push(route);
                return None;
            }
        };
        // A question mark at the end takes the query away.
        let (to, query) = match to.strip_suffix('?') {
            Some(to) => (to, ""),
            None => (to.as_str(), "kept"),
        };
        let path = match &matcher {
            Matcher::Prefix(path) => path.clone(),
            _ => "/".to_owned(),
        };
        if is_all(text) && to.ends_with("$request_uri") {
            self.seen.mark(directive);
            let action = self.redirect(directive, to, status, &server.variables)?;
            return Some(answer(directive, matcher, action));
        }
        if let (Matcher::Prefix(_), "kept", Some(cover)) = (&matcher, query, cover(text, to, &path))
        {
            self.seen.mark(directive);
            // No variable is called so.
            let url = format!("{}${{the rest}}", cover.before);
            let mut variables = server.variables.clone();
            variables
                .known
                .insert("the rest".to_owned(), "\u{1}".to_owned());
            let lines = self.redirect(directive, &url, status, &variables)?;
            let lines = lines
                .into_iter()
                .map(|line| line.replace("\\u0001", "{rest}"));
            return Some(answer(directive, matcher, lines.collect()));
        }
        // For some paths only: a route of its own.
        let mut variables = server.variables.clone();
        variables.groups = true;
        match pattern::convert(text, false, true) {
            Ok(expression) => {
                let (expression, asked) = within(expression, &matcher);
                self.seen.mark(directive);
                // A group may begin with the slash.
                let rooted = to.starts_with(['/', '$']) && !away;
                let to = match to.strip_prefix('$').filter(|_| rooted) {
                    Some(rest) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                        format!("/{to}")
                    }
                    _ => to.to_owned(),
                };
                let to = match (query, to.contains('?')) {
                    ("kept", false) => format!("{to}?$args"),
                    ("kept", true) => with_query(&to),
                    _ => to,
                };
                let action = self.redirect(directive, &to, status, &variables)?;
                let mut route = answer(directive, Matcher::Regex(expression), action);
                route.rules = self.rules(scope, &variables, None);
                route.conditions.extend(asked);
                server.first.push(route);
            }
            Err(why) => self.lost(directive, format!("{why} cannot be in an expression here")),
        }
        None
    }
}

/// Whether a `rewrite` sends the client elsewhere.
pub(super) fn redirects(rewrite: &Directive) -> bool {
    let to = rewrite.args.get(1).map_or("", String::as_str);
    let away = ["http://", "https://", "$scheme"];
    let flag = rewrite.args.get(2).map_or("", String::as_str);
    matches!(flag, "permanent" | "redirect") || away.iter().any(|begin| to.starts_with(begin))
}

/// Whether an `if` passes on what no file is there for.
fn passes_what_is_no_file(directive: &Directive) -> bool {
    let mut inner = directive.inside().iter();
    directive.name == "if"
        && matches!(
            Question::of(directive),
            Some(Question::File { not: true, .. })
        )
        && inner.any(|one| one.name == "proxy_pass")
}

/// Whether a `rewrite` only changes what the server behind is asked for.
fn is_break(directive: &Directive) -> bool {
    let flag = directive.args.get(2).map(String::as_str);
    let away = |to: &String| to.contains("://");
    directive.name == "rewrite" && flag == Some("break") && !directive.args.get(1).is_some_and(away)
}

fn answer(directive: &Directive, matcher: Matcher, action: Vec<String>) -> Route {
    Route {
        deed: Deed::Answer,
        action,
        ..closed(directive, matcher)
    }
}

/// What a `rewrite` puts before the rest, where it is for all that is below a path.
fn cover(text: &str, to: &str, path: &str) -> Option<Cover> {
    let bare = path.trim_end_matches('/');
    // The path of the location itself, where it may be there or not, is there.
    let optional = format!("^({bare})?(/");
    let (text, to) = match (text.strip_prefix(&optional), to.strip_suffix("$2")) {
        (Some(rest), Some(to)) => (format!("^{bare}(/{rest}"), format!("{to}$1")),
        _ => (text.to_owned(), to.to_owned()),
    };
    // A group that begins with the slash is one without, behind it.
    let (text, to) = match (text.contains("(/.*)"), to.strip_suffix("$1")) {
        (true, Some(to)) if !to.ends_with('/') => {
            (text.replace("(/.*)", "/(.*)"), format!("{to}/$1"))
        }
        _ => (text, to),
    };
    let body = text.trim_start_matches('^').trim_end_matches('$');
    let head = body
        .strip_suffix("(.*)")
        .or_else(|| body.strip_suffix("(.+)"))?;
    let head = head
        .replace("\\/", "/")
        .replace("\\.", ".")
        .replace("\\-", "-");
    let before = to.strip_suffix("$1")?;
    if before.contains("$1") || !path.ends_with('/') && path != "/" {
        return None;
    }
    // All that the location takes has this before what the group takes.
    let more = match head == format!("{bare}/?") {
        true => "",
        false => path.strip_prefix(head.as_str())?,
    };
    let before = format!("{before}{more}");
    Some(Cover { before })
}

/// The type of a body that is written in the configuration, where it is not the usual one.
fn content_type(scope: &Scope<'_>) -> Option<String> {
    let mut added = scope.all("add_header").into_iter();
    let added = added.find(|field| field.first().eq_ignore_ascii_case("Content-Type"));
    let kind = match added {
        Some(field) => field.args.get(1).map(String::as_str),
        None => scope.nearest("default_type").map(Directive::first),
    };
    kind.map(|kind| format!("content_type = {}", quoted(kind)))
}

fn collect_pages<'d>(level: &'d [Directive], targets: &mut Vec<&'d String>) {
    for directive in level {
        if directive.name == "error_page" {
            targets.extend(directive.args.last());
        }
        collect_pages(directive.inside(), targets);
    }
}

/// Whether a directive of a location that goes elsewhere is looked at all the same.
fn is_kept(directive: &Directive) -> bool {
    matches!(directive.name.as_str(), "location" | "if" | "rewrite")
}
