//! What can be used and is hardly meant: routes that nothing reaches, clients that are kept out of
//! less than it seems, variables that stay empty, terms of a compression that there is none of.

use std::collections::HashMap;

use super::RawSite;
use crate::config::diagnostic::{Diagnostic, Span, quoted};
use crate::config::read::{At, Context};
use crate::config::rules::{RawAction, RawRoute};
use crate::config::{
    Conditions, Matcher, Pattern, Rewrite, Rules, Setting, Template, Variable, is_below,
};

/// Looks at each site.
pub(super) fn sites(sites: &[RawSite], defaults: &Rules, ja4: bool, cx: &Context<'_>) {
    for site in sites {
        expressions(site, cx);
        shadowed(site, cx);
        unreachable(site, cx);
        if ![defaults, &site.rules].into_iter().any(keeps_out) {
            uncovered(site, cx);
        }
    }
    empty_variables(sites, defaults, ja4, cx);
    uncompressed(sites, defaults, cx);
}

impl RawSite {
    /// The route for a path that is plain, for any client; `None` where conditions may decide. Those
    /// of `met` are known to hold, where they ask only for what a client is.
    pub(super) fn find(&self, path: &str, met: Option<&RawRoute>) -> Option<&RawRoute> {
        let is_met = |route: &RawRoute| {
            route.conditions.is_empty()
                || met.is_some_and(|met| std::ptr::eq(met, route))
                    && route.conditions.are_of_client()
        };
        let is_for = |route: &&RawRoute| match &route.matcher.value {
            Matcher::Any => true,
            Matcher::Exact(exact) => **exact == *path,
            Matcher::Regex(pattern) => pattern.regex().is_match(path.as_bytes()),
            Matcher::Prefix(prefix) => is_below(prefix.as_bytes(), path.as_bytes()),
            Matcher::StartsWith(start) => path.starts_with(&**start),
        };
        let mut all: Vec<_> = self.routes.iter().filter(is_for).collect();
        all.sort_by_key(|route| std::cmp::Reverse(super::order(&route.matcher.value)));
        let is_prefix = |route: &&&RawRoute| {
            matches!(
                route.matcher.value,
                Matcher::Prefix(_) | Matcher::StartsWith(_)
            )
        };
        let is_regex = |route: &RawRoute| matches!(route.matcher.value, Matcher::Regex(_));
        let longest = all.iter().find(is_prefix);
        let last = longest.is_some_and(|route| route.last && is_met(route));
        let unsure = longest.is_some_and(|route| !is_met(route))
            && all.iter().filter(is_prefix).any(|route| route.last);
        let first = (all.into_iter()).find(|route| !(last && is_regex(route)))?;
        (is_met(first) && !(unsure && is_regex(first))).then_some(first)
    }
}

fn warn(cx: &Context<'_>, matcher: &At<Matcher>, message: impl Into<String>, help: &str) {
    cx.report(Diagnostic::warning(matcher.span.clone(), message).help(help));
}

/// Expressions that match hardly anything.
fn expressions(site: &RawSite, cx: &Context<'_>) {
    for RawRoute { matcher, .. } in &site.routes {
        if let Matcher::Regex(pattern) = &matcher.value
            && let Some((message, help)) = pattern.doubt()
        {
            warn(cx, matcher, message, help);
        }
    }
}

/// Routes with conditions, behind one that has the same paths and takes all that they would.
fn shadowed(site: &RawSite, cx: &Context<'_>) {
    let mut taken: HashMap<String, &RawRoute> = HashMap::new();
    for route in &site.routes {
        let own = format!("{:?}", route.conditions);
        // Without conditions, or with the same ones.
        let all = format!("{:?}", Conditions::default());
        let key = |conditions: &str| format!("{:?} {conditions}", route.matcher.value);
        let before = [key(&all), key(&own)]
            .into_iter()
            .find_map(|key| taken.get(&key));
        match before {
            Some(first) if !route.conditions.is_empty() => {
                let line = cx.line(&first.matcher.span);
                let help = match first.conditions.is_empty() {
                    true => format!(
                        "the one on line {line} has no conditions and takes the same paths; write this \
                         one before it"
                    ),
                    false => format!("the one on line {line} has the same paths and conditions"),
                };
                warn(cx, &route.matcher, "a route that nothing reaches", &help);
            }
            _ => drop(taken.entry(key(&own)).or_insert(route)),
        }
    }
}

/// Routes whose paths all go to others.
fn unreachable(site: &RawSite, cx: &Context<'_>) {
    let (mut expressions, mut prefixes) = (Vec::new(), Vec::new());
    for route in &site.routes {
        match &route.matcher.value {
            Matcher::Any | Matcher::Exact(_) => {}
            Matcher::Regex(pattern) => expressions.push((pattern, route)),
            Matcher::Prefix(path) | Matcher::StartsWith(path) => prefixes.push((path, route)),
        }
    }
    let nothing = "a route that nothing reaches";
    let is_plain = |route: &RawRoute| route.conditions.is_empty();
    let all = (prefixes.iter()).any(|(path, route)| ***path == *"/" && is_plain(route));
    if all && prefixes.iter().all(|(_, route)| route.last) {
        for (_, route) in expressions {
            let help = "every path has a `path` with `final = true`; take that out";
            warn(cx, &route.matcher, nothing, help);
        }
        return;
    }
    let takes_all =
        |(pattern, route): &(&Pattern, &RawRoute)| is_plain(route) && pattern.takes_all();
    let Some(first) = expressions.iter().position(takes_all) else {
        return;
    };
    let line = cx.line(&expressions[first].1.matcher.span);
    for (_, route) in &expressions[first + 1..] {
        let help = format!("the `regex` on line {line} takes all paths; write this one before it");
        warn(cx, &route.matcher, nothing, &help);
    }
    // What the site does itself is there for routes too that say nothing else.
    let inherited = (site.routes.iter()).any(|route| route.action.is_none() && !route.leads);
    let own = site.routes.last().filter(|_| site.has_own && inherited);
    for (_, route) in prefixes {
        if !route.last && !own.is_some_and(|own| std::ptr::eq(own, route)) {
            let help = format!(
                "the `regex` on line {line} takes all paths; take it out, or write `final = true` here"
            );
            warn(cx, &route.matcher, nothing, &help);
        }
    }
}

/// Whether somebody is kept out.
fn keeps_out(rules: &Rules) -> bool {
    let some = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    some(&rules.allow)
        || some(&rules.deny)
        || matches!(rules.maintenance, Some(Setting::On(_)))
        || matches!(rules.basic_auth, Some(Setting::On(_)))
        || matches!(rules.forward_auth, Some(Setting::On(_)))
}

/// Whether staunch answers by itself, so that nothing behind is open.
const fn is_answered_here(route: &RawRoute) -> bool {
    matches!(
        route.action,
        Some(RawAction::Redirect(..) | RawAction::Respond { .. })
    )
}

/// `/admin/` is not `/admin`.
fn uncovered(site: &RawSite, cx: &Context<'_>) {
    for RawRoute { matcher, rules, .. } in &site.routes {
        if let Matcher::Prefix(path) | Matcher::StartsWith(path) = &matcher.value
            && let Some(bare) = path.strip_suffix('/').filter(|bare| !bare.is_empty())
            && keeps_out(rules)
            && site
                .find(bare, None)
                .is_some_and(|other| !keeps_out(&other.rules) && !is_answered_here(other))
        {
            let message = format!(
                "{} itself is open to all: this does not cover it",
                quoted(bare)
            );
            let help = format!("write `path = \"{bare}\"`, which covers both");
            warn(cx, matcher, message, &help);
        }
    }
}

/// Variables that nothing gives a value to.
fn empty_variables(sites: &[RawSite], defaults: &Rules, ja4: bool, cx: &Context<'_>) {
    // An id that is in the value of a rule is there.
    report_empty(None, defaults.templates(), (ja4, true), cx);
    for site in sites {
        report_empty(Some(&site.span), site.rules.templates(), (ja4, true), cx);
        for route in &site.routes {
            let all = [&route.rules, &site.rules, defaults];
            let id = all.into_iter().any(Rules::identify);
            let location = match &route.action {
                Some(RawAction::Redirect(location, _)) => Some(location),
                Some(RawAction::Forward(_) | RawAction::Respond { .. }) | None => None,
            };
            let rewrite = match &route.rewrite {
                Some(Rewrite::Path(path)) => Some(path),
                Some(Rewrite::Prefix(_) | Rewrite::Start(_)) | None => None,
            };
            let templates = route.rules.templates().chain(location).chain(rewrite);
            let templates = templates.chain(route.conditions.templates());
            report_empty(Some(&route.matcher.span), templates, (ja4, id), cx);
        }
    }
}

fn report_empty<'t>(
    span: Option<&Span>,
    templates: impl Iterator<Item = &'t Template>,
    (ja4, id): (bool, bool),
    cx: &Context<'_>,
) {
    let variables: Vec<_> = templates.flat_map(Template::variables).collect();
    for (variable, known, message, help) in [
        (
            Variable::Ja4,
            ja4,
            "`{ja4}` is always empty here",
            "write `ja4 = true` in `[tls]`",
        ),
        (
            Variable::RequestId,
            id,
            "`{request_id}` is always empty here",
            "write `request_id = \"X-Request-Id\"`",
        ),
    ] {
        if !known && variables.contains(&&variable) {
            let warning = match span {
                Some(span) => Diagnostic::warning(span.clone(), message),
                None => Diagnostic::general_warning(format!("{message}: `[defaults]`")),
            };
            cx.report(warning.help(help));
        }
    }
}

/// Terms of compression where nothing is compressed.
fn uncompressed(sites: &[RawSite], defaults: &Rules, cx: &Context<'_>) {
    const MESSAGE: &str = "how to compress is said, and nothing is compressed";
    const HELP: &str = "say with what, as in `compression = [\"zstd\", \"br\", \"gzip\"]`";

    let names = |rules: &Rules| rules.compression.names_codings();
    if names(defaults) {
        return;
    }
    let mut used = false;
    for site in sites {
        let narrow = (site.routes.iter()).any(|route| names(&route.rules));
        used |= names(&site.rules) || narrow;
        if names(&site.rules) {
            continue;
        }
        for route in &site.routes {
            if route.rules.compression.is_vague() {
                warn(cx, &route.matcher, MESSAGE, HELP);
            }
        }
        if site.rules.compression.is_vague() && !narrow {
            cx.report(Diagnostic::warning(site.span.clone(), MESSAGE).help(HELP));
        }
    }
    if defaults.compression.is_vague() && !used {
        cx.report(Diagnostic::general_warning(MESSAGE).help(HELP));
    }
}
