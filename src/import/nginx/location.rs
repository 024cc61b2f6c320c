//! Locations: which paths they are for, and what is done with their requests.

use std::collections::BTreeSet;

use super::action::{FILES, Outcome};
use super::auth;
use super::choice::Chosen;
use super::condition::Question;
use super::plain::only_redirects;
use super::rules::{Access, access};
use super::scope::Scope;
use super::server::{Server, closed};
use super::value::{By, escape};
use super::{Directive, Import, quoted, rewrite};
use crate::import::Loss;
use crate::import::formula::{Formula, Term};
use crate::import::pattern;
use crate::import::site::{CLOSED, Deed, Matcher, Route, Rules};

impl Import {
    /// All locations of a server, and what is left for the rest.
    pub(super) fn locations(&mut self, server: &mut Server<'_>) {
        for location in server.scope.own().all("location") {
            let scope = server.scope.clone();
            self.location(server, location, &scope, None);
        }
        for route in std::mem::take(&mut server.slashes) {
            let Matcher::Exact(bare) = &route.matcher else {
                continue;
            };
            let taken = |other: &Route| {
                other.matcher == route.matcher || other.matcher == Matcher::Prefix(bare.clone())
            };
            if !server.routes.iter().any(taken) {
                server.routes.push(route);
            }
        }
        let root = Matcher::Prefix("/".to_owned());
        if server.routes.iter().any(|route| route.matcher == root) {
            return;
        }
        let scope = server.scope.clone();
        if let Some(named) = self.named_location(server, &scope) {
            let scope = scope.inside(named.inside());
            server.variables.path = Some("/".to_owned());
            let (deed, action, rules) = self.outcome(server, named, &root, &scope);
            let chosen = std::mem::take(&mut server.chosen);
            server.routes.extend(chosen);
            return server.routes.push(Route {
                deed,
                action,
                rules,
                ..closed(named, root)
            });
        }
        let content = ["root", "try_files"];
        let files = scope.any_of(&content).first().copied().cloned();
        let route = match files {
            Some(files) => {
                self.lost(&files, FILES);
                closed(&files, root)
            }
            None => Route {
                deed: Deed::Answer,
                action: vec!["respond = 404".to_owned()],
                ..closed(server.directive, root)
            },
        };
        server.routes.push(route);
    }

    /// One location, and those inside it. `within`: what the one that it is inside of is for.
    fn location<'d>(
        &mut self,
        server: &mut Server<'d>,
        location: &'d Directive,
        outer: &Scope<'d>,
        within: Option<&Matcher>,
    ) {
        let mut groups = uses_groups(location);
        let scope = outer.inside(location.inside());
        let (mut last, mut also) = (false, None);
        let matcher = match location.args.as_slice() {
            // Only what leads there is carried over.
            [name] if name.starts_with('@') => return,
            [path] if !path.starts_with(['~', '=']) => Matcher::Prefix(path.clone()),
            [modifier, path] if modifier == "^~" => {
                last = true;
                Matcher::Prefix(path.clone())
            }
            [modifier, path] if modifier == "=" => Matcher::Exact(path.clone()),
            [glued] if glued.starts_with('=') => Matcher::Exact(glued[1..].to_owned()),
            [modifier, text] if modifier == "~" || modifier == "~*" => {
                match pattern::convert(text, modifier == "~*", groups) {
                    Ok(found) => {
                        let (found, asked) = match within {
                            Some(outer) => rewrite::within(found, outer),
                            None => (found, None),
                        };
                        also = asked;
                        Matcher::Regex(found)
                    }
                    Err(why) if location.inside().iter().any(restricts) => {
                        let wider = pattern::wider(text, modifier == "~*");
                        let advice = format!(
                            "{why}, in an expression here; it keeps out all that {wider} matches, \
                             which is more"
                        );
                        self.lost(location, advice);
                        Matcher::Regex(wider)
                    }
                    Err(why) => {
                        let advice = format!(
                            "{why}, in an expression here; it is left out, and its requests go \
                             where their path says"
                        );
                        return self.whole(location, Loss::Real, advice);
                    }
                }
            }
            _ => return self.whole(location, Loss::Real, "is not understood; it is left out"),
        };
        if let Matcher::Prefix(path) | Matcher::Exact(path) = &matcher
            && !path.starts_with('/')
        {
            return self.whole(location, Loss::Real, "is not a path; it is left out");
        }
        let matcher = match (within, matcher) {
            (Some(Matcher::Regex(outer)), Matcher::Prefix(path)) => {
                match pattern::both(outer, &format!("^{}", pattern::literal(&path))) {
                    Some(found) => Matcher::Regex(found),
                    None => {
                        let advice = "is inside a location for an expression: it is left out";
                        return self.whole(location, Loss::Real, advice);
                    }
                }
            }
            (_, matcher) => matcher,
        };
        groups &= matches!(matcher, Matcher::Regex(_));
        let known = |route: &Route| route.matcher == matcher;
        if server.routes.iter().chain(&server.first).any(known) {
            let advice = "another location has this path already; it is left out";
            return self.whole(location, Loss::Real, advice);
        }
        self.seen.mark(location);
        if self.is_error_page(&matcher, location) {
            if !location.inside().iter().any(|one| one.name == "internal") {
                let advice = "is sent with errors; whoever asks for this path itself gets 404 here, and \
                              got the page";
                self.differs(location, advice);
            }
            let rules = self.rules(&scope, &server.variables, None);
            return server.routes.push(Route {
                deed: Deed::Answer,
                action: vec!["respond = 404".to_owned()],
                rules,
                ..closed(location, matcher)
            });
        }
        let before = server.first.len();
        let outer = server.variables.known.clone();
        server.variables.add_sets(location.inside());
        server.variables.groups = groups;
        server.variables.path = match &matcher {
            Matcher::Prefix(path) | Matcher::Exact(path) => Some(path.clone()),
            Matcher::Any | Matcher::Regex(_) => None,
        };
        if let Matcher::Regex(pattern) = &matcher {
            server.variables.named = pattern::names(pattern);
        }
        server.is_final = last;
        let mut variants = self.variants(server, &scope);
        let last_one = variants.pop().and_then(|(_, known)| known);
        let mut routes = Vec::new();
        for (formula, known) in variants {
            let whose = (&formula, known);
            self.variant(server, location, &matcher, &scope, whose, &mut routes);
        }
        server.variables.known.extend(last_one);
        let flags = server.flags.clone();
        let (deed, action, rules) = self.outcome(server, location, &matcher, &scope);
        let mut rewritten = Vec::new();
        match matcher {
            Matcher::Prefix(_) if !last => {
                // What it rewrites it does once no expression has been found.
                let rewritten = server.first.split_off(before);
                server
                    .rewritten
                    .extend(guarded(rewritten, server, &matcher, None));
            }
            // An expression that stands before it goes before what it rewrites.
            Matcher::Regex(_) => rewritten = server.first.split_off(before),
            _ => {}
        }
        server.flags = flags;
        server.is_final = false;
        let variables = server.variables.clone();
        server.variables.known = outer;
        server.variables.groups = false;
        server.variables.named.clear();
        if deed == Deed::Closed {
            // It was told why, once.
            let inner = location
                .inside()
                .iter()
                .filter(|inner| inner.name != "location");
            inner.for_each(|inner| self.seen.mark_all(inner));
        }
        let route = Route {
            place: location.place.clone(),
            matcher: matcher.clone(),
            conditions: Vec::new(),
            last,
            deed,
            action,
            rules,
        };
        if let (Matcher::Prefix(path), Deed::Forward) = (&matcher, deed)
            && path.len() > 1
            && let Some(bare) = path.strip_suffix('/')
        {
            // As nginx does for what it proxies.
            let url = format!("{}{{rest}}", escape(path));
            let rules = self.rules(&scope, &variables, None);
            server.slashes.push(Route {
                matcher: Matcher::Exact(bare.to_owned()),
                last: false,
                deed: Deed::Answer,
                action: vec![
                    format!("redirect = {}", quoted(&url)),
                    "status = 301".to_owned(),
                ],
                rules,
                ..route.clone()
            });
        }
        routes.append(&mut server.chosen);
        routes.push(route);
        // Behind what holds for all there is nothing.
        if let Some(at) = routes.iter().position(|route| route.conditions.is_empty()) {
            routes.truncate(at + 1);
        }
        routes.splice(0..0, rewritten);
        for route in &mut routes {
            route.conditions.extend(also.clone());
        }
        match (within, &matcher) {
            (Some(Matcher::Regex(_)), Matcher::Regex(_)) => {
                // Before the one that it is inside of.
                let outer = |route: &Route| Some(&route.matcher) == within;
                let at = server.routes.iter().position(outer);
                let at = at.unwrap_or(0);
                server.routes.splice(at..at, routes);
            }
            (Some(_), Matcher::Regex(_)) => server.first.extend(routes),
            _ => server.routes.extend(routes),
        }
        let before = server.first.len();
        for inner in scope.own().all("location") {
            self.location(server, inner, &scope, Some(&matcher));
        }
        let inner = server.first.split_off(before.min(server.first.len()));
        let inner = guarded(inner, server, &matcher, Some(location));
        server.first.extend(inner);
    }

    /// Routes of a location for requests of which one variable is known.
    fn variant<'d>(
        &mut self,
        server: &mut Server<'d>,
        location: &'d Directive,
        matcher: &Matcher,
        scope: &Scope<'d>,
        (formula, known): (&Formula, Option<(String, String)>),
        routes: &mut Vec<Route>,
    ) {
        let outer = (server.variables.clone(), server.flags.clone());
        server.variables.known.extend(known);
        let before = server.first.len();
        let (deed, action, rules) = self.outcome(server, location, matcher, scope);
        (server.variables, server.flags) = outer;
        let rewritten = server.first.split_off(before);
        let mut found = std::mem::take(&mut server.chosen);
        found.push(Route {
            last: server.is_final,
            deed,
            action,
            rules,
            ..closed(location, matcher.clone())
        });
        if let Some(at) = found.iter().position(|route| route.conditions.is_empty()) {
            found.truncate(at + 1);
        }
        for all in formula.alternatives().unwrap_or_default() {
            let with = |route: &Route| Route {
                conditions: all.iter().chain(&route.conditions).cloned().collect(),
                ..route.clone()
            };
            server.first.extend(rewritten.iter().map(with));
            routes.extend(found.iter().map(with));
        }
    }

    /// Whether a location is there for an error page alone, which is read as a file.
    fn is_error_page(&self, matcher: &Matcher, location: &Directive) -> bool {
        let Matcher::Exact(path) = matcher else {
            return false;
        };
        if !self.pages.contains_key(path) || location.inside().iter().any(is_handler) {
            return false;
        }
        self.seen.mark_all(location);
        true
    }

    /// What is done with the requests of a location, and what holds for them.
    fn outcome<'d>(
        &mut self,
        server: &mut Server<'d>,
        location: &'d Directive,
        matcher: &Matcher,
        scope: &Scope<'d>,
    ) -> (Deed, Vec<String>, Rules) {
        let shut = || (Deed::Closed, vec![CLOSED.to_owned()], Rules::default());
        server.chosen.clear();
        let (mut methods, mut passing, mut excepted) = (Rules::default(), Vec::new(), Vec::new());
        for directive in scope.here() {
            match directive.name.as_str() {
                "if" if self.methods(directive, &mut methods) => {}
                "limit_except" => excepted.extend(self.excepted(directive, scope)),
                "if" => match self.choose(directive, server, scope, matcher, &methods) {
                    Chosen::Shut => {
                        server.chosen.clear();
                        return shut();
                    }
                    Chosen::Settled => {}
                    Chosen::Passes(formula) => passing.push((formula, directive)),
                },
                "set" => {
                    self.seen.mark(directive);
                    server.flags.set(directive, Some(&Formula::always()));
                }
                "return" => break,
                _ => {}
            }
        }
        let base = self.unconditional(server, location, matcher, scope, methods);
        // Who may is asked once it is known that a request is not answered at once.
        if base.0 == Deed::Forward {
            let routes = excepted.iter().map(|except| except.route(&base, matcher));
            server.chosen.extend(routes.map(|route| Route {
                last: server.is_final,
                ..route
            }));
        }
        self.passing(passing, &base, server, matcher, scope);
        base
    }

    /// What is done with those that no `if` is for.
    fn unconditional<'d>(
        &mut self,
        server: &mut Server<'d>,
        location: &'d Directive,
        matcher: &Matcher,
        scope: &Scope<'d>,
        methods: Rules,
    ) -> (Deed, Vec<String>, Rules) {
        let shut = || (Deed::Closed, vec![CLOSED.to_owned()], Rules::default());
        if let Some(internal) = scope.own().nearest("internal") {
            let inner = scope.here().iter().filter(|inner| inner.name != "location");
            inner.for_each(|inner| self.seen.mark_all(inner));
            let pages = self.pages.keys().any(|page| matcher.is_for(page));
            match pages {
                true => self.seen.mark(internal),
                false => self.differs(
                    internal,
                    "answers nobody from outside, with 404, as in nginx; a server that answers with \
                     X-Accel-Redirect has to send the file itself from now on",
                ),
            }
            return (
                Deed::Answer,
                vec!["respond = 404".to_owned()],
                Rules::default(),
            );
        }
        // It comes before it is asked who may.
        if let Some(answer) = scope.own().all("return").first().copied() {
            let _ = access(scope);
            let never = scope
                .here()
                .iter()
                .filter(|inner| inner.name.ends_with("_pass"));
            never.for_each(|inner| self.seen.mark(inner));
            return match self.answer(answer, server, scope, matcher.clone()) {
                Some(route) => {
                    let rules = self.rules(scope, &server.variables, None);
                    (route.deed, route.action, rules)
                }
                None => shut(),
            };
        }
        if let Some(guard) = self.guard(scope) {
            let advice = "decides who is let in: the path is closed until you have decided how";
            self.whole(guard, Loss::Real, advice);
            return shut();
        }
        let Some(asked) = self.auth(server, scope) else {
            return shut();
        };
        let mut who = match access(scope) {
            _ if asked.addresses => Rules::default(),
            Access::Said(rules) => rules,
            Access::Nobody => {
                // Nothing else in it is ever reached.
                let inner = scope.here().iter().filter(|inner| inner.name != "location");
                inner.for_each(|inner| self.seen.mark_all(inner));
                let rules = self.rules(scope, &server.variables, None);
                return (Deed::Answer, vec!["respond = 403".to_owned()], rules);
            }
            Access::Unclear(directive) => {
                self.lost(
                    directive,
                    "cannot be said by `allow` and `deny` here: the path is closed until you have \
                     decided how",
                );
                return shut();
            }
        };
        who.extend(asked.rules.clone());
        let before = server.first.len();
        let outcome = self.handler(server, location, matcher, scope);
        // What is rewritten is kept from the same people.
        for route in &mut server.first[before..] {
            route.rules.extend(who.clone());
            asked.finish(&mut route.rules);
        }
        match outcome {
            Outcome::Forward(action, mut rules) => {
                rules.extend(who);
                asked.finish(&mut rules);
                rules.extend(methods);
                (Deed::Forward, action, rules)
            }
            Outcome::Answer(action) => {
                let rules = self.rules(scope, &server.variables, None);
                (Deed::Answer, action, rules)
            }
            Outcome::Closed => shut(),
        }
    }

    /// The location that `try_files` goes to where there is no file.
    pub(super) fn named_location<'d>(
        &mut self,
        server: &mut Server<'d>,
        scope: &Scope<'d>,
    ) -> Option<&'d Directive> {
        let files = scope.nearest("try_files")?;
        let name = files.args.last().filter(|name| name.starts_with('@'))?;
        let is = |directive: &&Directive| directive.name == "location" && directive.first() == name;
        let Some(named) = server.scope.here().iter().find(is) else {
            self.lost(files, format!("{name} is nowhere: the path is closed"));
            return None;
        };
        self.seen.mark(named);
        server.variables.add_sets(named.inside());
        // The usual way to say that there is none.
        let (_, tried) = files.args.split_last()?;
        if tried
            .iter()
            .all(|file| matches!(file.trim(), "/dev/null" | ""))
        {
            self.note_as(files, Loss::None, "no file has such a name");
        } else {
            let advice = "served files where there were any; now all goes to the server behind: let \
                          it serve them";
            self.lost(files, advice);
        }
        Some(named)
    }

    /// What keeps anybody out by means that staunch has not.
    fn guard<'d>(&self, scope: &Scope<'d>) -> Option<&'d Directive> {
        for name in GUARDS.into_iter().filter(|name| !auth::READ.contains(name)) {
            let found = scope.nearest(name);
            if let Some(found) = found.filter(|found| found.first() != "off") {
                return Some(found);
            }
        }
        let own = scope.here();
        let unseen = |found: &&Directive| !self.seen.has(found);
        let except = own.iter().filter(|inner| inner.name == "limit_except");
        except.rev().find(unseen)
    }

    /// Tells of an `if`. `true`: what it is in has to be closed.
    pub(super) fn condition(&mut self, directive: &Directive, by: By) -> bool {
        let test = directive.args.join(" ");
        let of_https = [
            "$scheme",
            "$ssl_protocol",
            "$https",
            "$http_x_forwarded_proto",
        ];
        if by == By::Tls && of_https.iter().any(|variable| test.contains(variable)) {
            self.whole(directive, Loss::None, "requests always come by https here");
            return false;
        }
        if by == By::Tls && only_redirects(directive, &BTreeSet::new()) {
            let advice = "would send a client to where it is: requests always come by https here";
            self.whole(directive, Loss::None, advice);
            return false;
        }
        if restricts(directive) {
            let advice = "decides what is let in: this is closed until you have decided how";
            self.whole(directive, Loss::Real, advice);
            return true;
        }
        let advice = "holds for some requests only, which cannot be said here; it is left out";
        self.whole(directive, Loss::Real, advice);
        false
    }
}

/// Routes for expressions that are asked only where the path of their location is the longest, or
/// where that is inside of one.
fn guarded(
    mut routes: Vec<Route>,
    server: &Server<'_>,
    matcher: &Matcher,
    inside: Option<&Directive>,
) -> Vec<Route> {
    let Matcher::Prefix(path) = matcher else {
        return routes;
    };
    let mut longer = BTreeSet::new();
    collect_longer(server.scope.here(), path, inside, &mut longer);
    if longer.is_empty() {
        return routes;
    }
    let any: Vec<_> = longer.into_iter().map(pattern::literal).collect();
    let elsewhere = Term::of("{path}", format!("^(?:{})", any.join("|")), true);
    for route in &mut routes {
        if matches!(route.matcher, Matcher::Regex(_)) && !route.conditions.contains(&elsewhere) {
            route.conditions.push(elsewhere.clone());
        }
    }
    routes
}

/// The paths of locations that are longer than another and begin with it, but for those inside of one.
fn collect_longer<'d>(
    level: &'d [Directive],
    path: &str,
    inside: Option<&Directive>,
    longer: &mut BTreeSet<&'d str>,
) {
    for location in level.iter().filter(|one| one.name == "location") {
        let own = match location.args.as_slice() {
            [own] if own.starts_with('/') => Some(own),
            [modifier, own] if modifier == "^~" => Some(own),
            _ => None,
        };
        if let Some(own) = own.filter(|own| own.len() > path.len() && own.starts_with(path)) {
            longer.insert(own);
        }
        if inside.is_none_or(|inside| inside.id != location.id) {
            collect_longer(location.inside(), path, inside, longer);
        }
    }
}

/// Whoever is let in is decided by something that staunch does not have, or has not alike.
const GUARDS: [&str; 10] = [
    "auth_basic",
    "auth_request",
    "auth_jwt",
    "auth_oidc",
    "auth_digest",
    "secure_link",
    "satisfy_any",
    "access_by_lua_file",
    "access_by_lua_block",
    "auth_pam",
];

/// Whether a directive keeps anybody out.
pub(super) fn restricts(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "deny" | "internal" | "limit_except" => true,
        // What succeeds keeps nobody out.
        "return" => directive.first().starts_with(['4', '5']),
        // What succeeds keeps nobody out; where to log in is another matter.
        "if" => directive.inside().iter().any(|inner| {
            restricts(inner) || inner.name == "return" && !inner.first().starts_with('2')
        }),
        name => GUARDS.contains(&name) && directive.first() != "off",
    }
}

/// Whether a directive says who answers.
pub(super) fn is_handler(directive: &Directive) -> bool {
    matches!(directive.name.as_str(), "return" | "rewrite" | "try_files")
        || directive.name.ends_with("_pass")
}

/// Whether groups of the location's expression are used.
fn uses_groups(location: &Directive) -> bool {
    let pattern = location.args.last().map_or("", String::as_str);
    // What an expression was asked has groups of its own.
    let plain = |inner: &&Directive| {
        inner.name == "if" && !Question::of(inner).is_some_and(|asked| asked.is_expression())
    };
    let own = location.inside().iter();
    let inner = own.clone().filter(plain).flat_map(Directive::inside);
    own.chain(inner).any(|directive| {
        let used = |arg: &String| {
            let mut letters = arg.as_bytes().windows(2);
            letters.any(|two| two[0] == b'$' && two[1].is_ascii_digit())
        };
        let own = directive.name != "rewrite" || pattern::is_same(directive.first(), pattern);
        own && directive.args.iter().any(used)
    })
}
