//! Reading what a route is for and what it does: `path`, `starts_with`, `exact` and `regex`;
//! `upstream`, `redirect` and `respond`.

use std::sync::Arc;

use super::condition::{self, Conditions, conditions};
use super::read::{Place, rules};
use super::template::Scope;
use super::{Body, Matcher, Pattern, Piece, Rewrite, Rules, Template, Variable};
use crate::config::default;
use crate::config::diagnostic::{Complaint, Diagnostic, Span};
use crate::config::read::{At, Table};
use crate::config::value::{PathStart, RoutePath, Target};

/// What can be done with a request, of which a route does one.
const ACTIONS: [&str; 3] = ["upstream", "redirect", "respond"];

/// One `[[site.route]]`, or what a site does itself.
pub(in crate::config) struct RawRoute {
    pub(in crate::config) matcher: At<Matcher>,
    pub(in crate::config) last: bool,
    pub(in crate::config) conditions: Conditions,
    /// `None`: what the site does.
    pub(in crate::config) action: Option<RawAction>,
    /// It says what is done, well written or not.
    pub(in crate::config) leads: bool,
    pub(in crate::config) rewrite: Option<Rewrite>,
    /// Its own, without those of the site.
    pub(in crate::config) rules: Rules,
}

/// What is done with a request.
#[derive(Clone)]
pub(in crate::config) enum RawAction {
    Forward(At<Target>),
    Redirect(Template, u16),
    Respond {
        status: u16,
        body: Option<Body>,
        content_type: Arc<str>,
    },
}

/// What a `[[site]]` does and the rules that hold in it.
pub(in crate::config) fn site(t: &mut Table<'_>) -> (Option<RawRoute>, Rules) {
    // Everything is below `/`: what follows it is all but the slash.
    let scope = Scope::of_route(Vec::new(), true);
    let (action, rewrite) = action(t, Place::Site, &scope, true);
    let rules = rules(t, Place::Site, &Scope::default());
    let place = ACTIONS.into_iter().find_map(|key| t.place(key));
    let route = place.map(|span| RawRoute {
        matcher: At {
            value: Matcher::Prefix("/".into()),
            span,
        },
        last: false,
        conditions: Conditions::default(),
        action,
        leads: true,
        rewrite,
        rules: Rules::default(),
    });
    (route, rules)
}

/// One `[[site.route]]`.
pub(in crate::config) fn route(t: &mut Table<'_>, _index: usize) -> Option<RawRoute> {
    let (matcher, scope) = matcher(t);
    let conditions = conditions(t);
    let last = t.or(
        "final",
        false,
        "Where this `path` or `starts_with` is the longest that matches, no `regex` is tried.",
    );
    let prefix = t.has("path") || t.has("starts_with");
    if last && matcher.is_some() && !prefix {
        misfit(
            t,
            "final",
            "`path` and `starts_with`: a `regex` is never tried before `exact`",
        );
    }
    let (action, mut rewrite) = action(t, Place::Route, &scope, prefix);
    if let Some(Rewrite::Prefix(text)) = &rewrite
        && t.has("starts_with")
    {
        rewrite = Some(Rewrite::Start(Arc::clone(text)));
    }
    let rules = rules(t, Place::Route, &scope);
    Some(RawRoute {
        matcher: matcher?,
        last,
        conditions,
        action,
        leads: ACTIONS.iter().any(|key| t.has(key)),
        rewrite,
        rules,
    })
}

/// Which paths it is for, and what can be named because of that.
fn matcher(t: &mut Table<'_>) -> (Option<At<Matcher>>, Scope) {
    let path: Option<At<RoutePath>> = t.optional(
        "path",
        "Prefix of the path; the longest that matches wins. `/api/` is what is below it; `/api` \
         is that and itself, but not `/apiary`.",
    );
    let start: Option<At<PathStart>> = t.optional(
        "starts_with",
        "Text that the path begins with, whether a segment ends there or not: `/api` is `/apiary` \
         too. The longest of these and of `path` wins.",
    );
    let exact: Option<At<RoutePath>> =
        t.optional("exact", "This path and no other; goes before all others.");
    let regex: Option<At<Pattern>> = t.optional(
        "regex",
        "Regular expression for the path, percent-decoded; tried in their order before the \
         prefixes. A named group, `(?<name>…)`, is a variable.",
    );
    let keys = ["path", "starts_with", "exact", "regex"];
    let given: Vec<_> = keys.into_iter().filter(|key| t.has(key)).collect();
    let condition = condition::KEYS.into_iter().find_map(|key| t.place(key));
    match &given[..] {
        [] if condition.is_some() => {}
        [] => t.cx.report_missing(
            Diagnostic::error(
                t.span.clone(),
                "a route without `path`, `starts_with`, `exact` and `regex`",
            )
            .help(
                "write `path = \"/api/\"` for what is below it, or one of the others; or `when`, \
                 `unless` or `clients`, for any path",
            ),
        ),
        [_] => {}
        [first, second, ..] => {
            let message = format!("a route has both `{first}` and `{second}`");
            t.cx.report(
                Diagnostic::error(t.span.clone(), message)
                    .help("write a `[[site.route]]` for each"),
            );
        }
    }
    let captures: Vec<Arc<str>> = match &regex {
        Some(pattern) => pattern.value.names().map(Into::into).collect(),
        None => Vec::new(),
    };
    let scope = Scope::of_route(captures, regex.is_none());
    let all = [
        path.map(|path| at(path.span, Matcher::Prefix(path.value.0))),
        start.map(|start| at(start.span, Matcher::StartsWith(start.value.0))),
        exact.map(|exact| at(exact.span, Matcher::Exact(exact.value.0))),
        regex.map(|regex| at(regex.span, Matcher::Regex(regex.value))),
    ];
    let matcher = match given[..] {
        [] => condition.map(|span| at(span, Matcher::Any)),
        [_] => all.into_iter().flatten().next(),
        _ => None,
    };
    (matcher, scope)
}

const fn at<T>(span: Span, value: T) -> At<T> {
    At { value, span }
}

/// What is done with a request, and how its path is written anew.
fn action(
    t: &mut Table<'_>,
    place: Place,
    scope: &Scope,
    prefix: bool,
) -> (Option<RawAction>, Option<Rewrite>) {
    let upstream: Option<At<Target>> = t.optional(
        "upstream",
        match place {
            Place::Route => {
                "Where its requests go: a URL, or the NAME of an `[upstream.NAME]`; without: where \
                 the site's go."
            }
            Place::Defaults | Place::Site => {
                "Where requests go that no route matches: a URL, or the NAME of an \
                 `[upstream.NAME]`."
            }
        },
    );
    let redirect = redirect(t, scope);
    let respond = respond(t, scope);
    let given: Vec<_> = ACTIONS.into_iter().filter(|key| t.has(key)).collect();
    if let [first, second, ..] = &given[..] {
        let message = format!("{} has both `{first}` and `{second}`", t.label);
        let span = t.place(second).unwrap_or(0..0);
        t.cx.report(
            Diagnostic::error(span, message)
                .help("a request is passed on, or redirected, or answered here: choose one"),
        );
    }
    let rewrite = rewrite(t, scope, prefix);
    let action = match (upstream, redirect, respond) {
        (Some(upstream), ..) => Some(RawAction::Forward(upstream)),
        (_, Some(redirect), _) => Some(redirect),
        (_, _, respond) => respond,
    };
    (action, rewrite)
}

/// Says that a key does not go with the others.
fn misfit(t: &Table<'_>, key: &str, with: &str) {
    if let Some(span) = t.place(key) {
        let message = format!("`{key}` goes only with {with}");
        t.cx.report(Diagnostic::error(span, message).help("take it out"));
    }
}

/// Reads a value with variables.
fn template(
    t: &Table<'_>,
    key: &str,
    text: &At<Arc<str>>,
    scope: &Scope,
    check: impl FnOnce(&Template) -> Result<(), Complaint>,
) -> Option<Template> {
    let read = scope.read(&text.value, t.cx);
    match read.and_then(|template| check(&template).map(|()| template)) {
        Ok(template) => Some(template),
        Err(Complaint { message, help }) => {
            let message = format!("`{key}`: {message}");
            t.complain(&text.span, Complaint { message, help });
            None
        }
    }
}

fn redirect(t: &mut Table<'_>, scope: &Scope) -> Option<RawAction> {
    let to: Option<At<Arc<str>>> = t.optional(
        "redirect",
        "Where the client is sent, with variables: `\"https://www.example.com/new/{rest}\"`.",
    );
    let status = t.or_within(
        "status",
        default::REDIRECT,
        301..=308,
        "Status of the redirect: 301, 302, 303, 307 or 308, which keeps the method and is for good.",
    );
    if t.has("status") && !t.has("redirect") {
        misfit(
            t,
            "status",
            "`redirect`; the status of `respond` is its value",
        );
    }
    if matches!(status, 304..=306) {
        let span = t.place("status").unwrap_or(0..0);
        t.complain(
            &span,
            Complaint::new(
                format!("`status`: {status} is no redirect"),
                "write 301, 302, 303, 307 or 308",
            ),
        );
    }
    let template = template(t, "redirect", &to?, scope, location)?;
    #[allow(clippy::cast_possible_truncation)] // it is within bounds
    Some(RawAction::Redirect(template, status as u16))
}

fn respond(t: &mut Table<'_>, scope: &Scope) -> Option<RawAction> {
    let status: Option<u32> = t.optional_within(
        "respond",
        200..=599,
        "Status with which staunch answers requests itself.",
    );
    let body: Option<Arc<str>> = t.optional(
        "body",
        "Body of that response, as it is; without: none, or for an error the one of `error_pages`.",
    );
    let written: Option<At<Arc<str>>> = t.optional(
        "body_template",
        "The same with variables, as in `\"no page {path}\\n\"`. In HTML, XML and JSON, by \
         `content_type`, they are escaped.",
    );
    let content_type: At<Arc<str>> = t.or(
        "content_type",
        At::nowhere(default::CONTENT_TYPE.into()),
        "Its type.",
    );
    if !t.has("respond") {
        misfit(t, "body", "`respond`");
        misfit(t, "body_template", "`respond`");
        misfit(t, "content_type", "`respond`");
    }
    if let Err(complaint) = super::owned::value(&content_type.value) {
        t.complain(&content_type.span, complaint);
    }
    if t.has("body") {
        misfit(t, "body_template", "no `body`");
    }
    let written = written.and_then(|text| template(t, "body_template", &text, scope, |_| Ok(())));
    let status = status?;
    let key = ["body", "body_template"].into_iter().find(|key| t.has(key));
    if let Some(key) = key.filter(|_| matches!(status, 204 | 205 | 304)) {
        let span = t.place(key).unwrap_or(0..0);
        t.complain(
            &span,
            Complaint::new(
                format!("`{key}`: a response with {status} has none"),
                "take it out, or respond with 200",
            ),
        );
    }
    #[allow(clippy::cast_possible_truncation)] // it is within bounds
    Some(RawAction::Respond {
        status: status as u16,
        body: body.map(Body::Text).or(written.map(Body::Template)),
        content_type: content_type.value,
    })
}

fn rewrite(t: &mut Table<'_>, scope: &Scope, prefix: bool) -> Option<Rewrite> {
    let replace: Option<RoutePath> = t.optional(
        "replace_prefix",
        "What stands in place of `path` or `starts_with` in what the upstream is asked for; `\"/\"` \
         takes it away.",
    );
    let whole: Option<At<Arc<str>>> = t.optional(
        "rewrite",
        "The path that the upstream is asked for, with variables; the query is kept, unless there \
         is a `?` in it.",
    );
    for key in ["replace_prefix", "rewrite"] {
        if t.has("redirect") || t.has("respond") {
            misfit(t, key, "`upstream`");
        }
    }
    if !prefix {
        misfit(
            t,
            "replace_prefix",
            "`path` and `starts_with`; write `rewrite` for the whole path",
        );
    }
    if t.has("replace_prefix") {
        misfit(t, "rewrite", "no `replace_prefix`");
    }
    match (replace, whole) {
        (Some(replace), None) => Some(Rewrite::Prefix(replace.0)),
        (_, Some(whole)) => template(t, "rewrite", &whole, scope, path).map(Rewrite::Path),
        (None, None) => None,
    }
}

/// Whether all text in it can stand in a URL.
fn is_url_text(template: &Template, also: &[u8]) -> Result<(), Complaint> {
    for piece in template.pieces() {
        let Piece::Text(text) = piece else { continue };
        let wrong = |byte: &u8| {
            !byte.is_ascii_graphic() || b"\"<>\\^`{|}#".contains(byte) && !also.contains(byte)
        };
        if let Some(byte) = text.bytes().find(|byte| wrong(byte)) {
            return Err(Complaint::new(
                "has a character that no URL has",
                format!("write it percent-encoded, as `%{byte:02X}`"),
            ));
        }
    }
    Ok(())
}

/// Whether it is a path for an upstream.
fn path(template: &Template) -> Result<(), Complaint> {
    is_url_text(template, b"")?;
    match template.pieces() {
        [Piece::Text(text), ..] if text.starts_with('/') => Ok(()),
        [Piece::Variable(Variable::Path | Variable::Uri), ..] => Ok(()),
        _ => Err(Complaint::new(
            "does not begin with `/`",
            "write it as in `\"/assets/{path}\"`",
        )),
    }
}

/// Whether it is something to redirect to, whose host no client can choose: what a client says may
/// stand behind the host, and before it only as labels of their own.
pub(super) fn location(template: &Template) -> Result<(), Complaint> {
    is_url_text(template, b"#")?;
    let authority = match template.pieces() {
        [Piece::Text(text), ..] if text.starts_with("//") => {
            return Err(Complaint::new(
                "begins with `//`",
                "write the scheme too, as in `\"https://…\"`",
            ));
        }
        [Piece::Text(text), ..] if text.starts_with('/') => return Ok(()),
        [Piece::Variable(Variable::Path | Variable::Uri), ..] => return Ok(()),
        [
            Piece::Variable(Variable::Scheme),
            Piece::Text(text),
            rest @ ..,
        ] => text.strip_prefix("://").map(|text| (text, rest)),
        [Piece::Text(text), rest @ ..] => ["https://", "http://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .map(|text| (text, rest)),
        _ => None,
    };
    let Some((text, rest)) = authority else {
        return Err(Complaint::new(
            "is neither a URL nor a path",
            "write it as in `\"https://www.example.com/{rest}\"` or `\"/new/{rest}\"`",
        ));
    };
    host(text, rest)
}

/// Whether nobody else can say which host this ends in.
fn host(first: &str, rest: &[Piece]) -> Result<(), Complaint> {
    let first = Piece::Text(first.into());
    // Whether what was seen last, and something before, is ours.
    let (mut settled, mut some) = (true, false);
    for piece in std::iter::once(&first).chain(rest) {
        match piece {
            Piece::Text(text) => {
                let end = text.find(['/', '?', '#']);
                let part = &text[..end.unwrap_or(text.len())];
                if part.contains('@') {
                    return Err(Complaint::new(
                        "has a user name or password in it",
                        "take it out",
                    ));
                }
                if !part.is_empty() {
                    // A label that a client chose ends with a dot, and a name of ours follows.
                    settled = settled || part.len() > 1 && part.starts_with('.');
                    some = true;
                }
                if end.is_some() {
                    return ended(settled, some);
                }
            }
            Piece::Variable(Variable::Host) => (settled, some) = (true, true),
            Piece::Variable(Variable::Port) if some && settled => {}
            Piece::Variable(Variable::Capture(_)) => settled = false,
            Piece::Variable(Variable::Path | Variable::Uri) if some => {
                return ended(settled, some);
            }
            Piece::Variable(_) => {
                return Err(Complaint::new(
                    "has a variable where the host stands, by which a client could choose where \
                     others are sent",
                    "write a `/` behind the host; in it, `{host}`, or a group of the `regex` before \
                     a dot, as in `\"https://{name}.example.com/\"`",
                ));
            }
        }
    }
    ended(settled, some)
}

fn ended(settled: bool, some: bool) -> Result<(), Complaint> {
    match (settled, some) {
        (_, false) => Err(Complaint::new(
            "names no host",
            "write it as in `\"https://www.example.com/{rest}\"`",
        )),
        (false, _) => Err(Complaint::new(
            "ends its host with a group of the `regex`, by which a client could choose where others \
             are sent",
            "write a `/` before it; or the rest of the name behind it, as in \
             `\"https://{name}.example.com/\"`",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::Context;

    fn read(text: &str) -> Template {
        let scope = Scope::of_route(vec!["name".into()], true);
        let cx = Context::new("", Path::new(""), None);
        scope.read(text, &cx).unwrap()
    }

    #[test]
    fn no_client_can_choose_where_others_are_sent() {
        for good in [
            "/",
            "/new/{rest}",
            "{path}",
            "{uri}",
            "https://www.example.com",
            "https://www.example.com/{rest}",
            "https://www.example.com{uri}",
            "https://www.example.com?from={host}",
            "https://{host}/",
            "https://{host}:8443{uri}",
            "https://{host}:{port}/",
            "{scheme}://www.{host}{uri}",
            "https://{name}.example.com/{rest}#top",
            "https://a-{name}.example.com",
        ] {
            assert_eq!(location(&read(good)), Ok(()), "{good}");
        }
        for bad in [
            "",
            "//evil.test/",
            "evil.test",
            "ftp://a.test/",
            "javascript:alert(1)",
            "{rest}",
            "{header:Referer}",
            "{query}",
            "https://{rest}",
            "https://example.com{rest}",
            "https://example.com{name}",
            "https://example.com.{name}/",
            "https://{name}",
            "https://{name}example.com/",
            "https://{name}./",
            "https://{name}@a.test/",
            "https://u:p@a.test/",
            "https://{header:Host}/",
            "https://{query}.example.com/",
            "https:///x",
            "https://{path}",
            "/a b",
            "/\"",
            "/caf\u{e9}",
        ] {
            assert!(location(&read(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_for_an_upstream_begins_at_the_root() {
        for good in ["/", "/a/{name}", "{path}/x", "/a?{query}&b=c"] {
            assert_eq!(path(&read(good)), Ok(()), "{good}");
        }
        for bad in ["", "a", "{rest}", "{name}/", "https://a.test/", "/a#b"] {
            assert!(path(&read(bad)).is_err(), "{bad}");
        }
    }
}
