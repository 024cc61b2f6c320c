//! Paths that are written anew on their way to a backend.

use super::format::{line, template};
use super::parse::Line;
use crate::import::formula::{All, Term};
use crate::import::pattern;
use crate::import::site::Matcher;

/// What becomes of the path.
#[derive(Clone)]
pub(super) enum Rewrite {
    /// Nothing: the rule is for none of these paths.
    Nothing,
    /// A line for the route.
    All(String),
    /// The same for some paths of those that the route is for.
    Some {
        matcher: Matcher,
        conditions: All,
        line: String,
    },
}

impl Rewrite {
    /// What it writes for the route.
    fn line(&self) -> &str {
        match self {
            Self::Nothing => "",
            Self::All(line) | Self::Some { line, .. } => line,
        }
    }

    /// Whether groups of an expression are a part of what it writes.
    pub(super) fn is_decoded(&self) -> bool {
        let groups = ["{c", "{head}", "{tail}"];
        let line = self.line();
        line.starts_with("rewrite ") && groups.iter().any(|group| line.contains(group))
    }

    /// Whether a rule that always holds is for what it comes to.
    pub(super) fn is_for(&self, other: &Line) -> bool {
        let line = self.line();
        let text = line.split('"').nth(1).unwrap_or_default();
        let mut comes_to = String::new();
        for part in text.split('{') {
            match part.split_once('}') {
                Some((_, behind)) => comes_to.push_str(&format!("x{behind}")),
                None => comes_to.push_str(part),
            }
        }
        if line.starts_with("replace_prefix") {
            comes_to.push('x');
        }
        let path = comes_to.split('?').next().unwrap_or_default();
        let always = !other.has("if") && !other.has("unless");
        let is_for = |pattern| Matcher::Regex(pattern).is_for(path);
        always && only(other).is_none_or(is_for)
    }
}

/// What a rule does with the paths of a route. `None`: it cannot be said here.
pub(super) fn rewritten(rule: &Line, matcher: &Matcher) -> Option<Rewrite> {
    // No path has a space in it.
    if rule.word(1).starts_with("replace-") && asks_for_space(rule.word(2)) {
        return Some(Rewrite::Nothing);
    }
    if let Some(rewrite) = by_prefix(rule, matcher) {
        return Some(rewrite);
    }
    let (pattern, to) = match (rule.word(1), substitution(rule)) {
        ("set-path" | "set-uri" | "set-pathq", Some(Substitution { from, to, caseless })) => {
            let to = template(&to.replace('%', "%%")).ok()?;
            let (begin, from) = match from.strip_prefix('^') {
                Some(from) => ("", from),
                None => ("(?<head>.*?)", from),
            };
            let (from, tail) = match from.strip_suffix('$') {
                Some(from) => (from, ""),
                None => (from, "(?<tail>.*)"),
            };
            let case = if caseless { "(?i)" } else { "" };
            let from = pattern::convert(from, false, true).ok()?;
            let head = if begin.is_empty() { "" } else { "{head}" };
            let end = if tail.is_empty() { "" } else { "{tail}" };
            (
                Some(format!("{case}^{begin}{from}{tail}$")),
                format!("{head}{to}{end}"),
            )
        }
        ("set-query", _) => (None, format!("{{path}}?{}", template(rule.word(2)).ok()?)),
        ("set-path", None) => (None, template(rule.word(2)).ok()?),
        ("replace-path" | "replace-uri" | "replace-pathq", _) => {
            let from = rule.word(2);
            // The query is kept here, and a part of it there.
            if rule.word(1) != "replace-path" && !from.trim_end_matches('$').ends_with("(.*)") {
                return None;
            }
            let to = template(&rule.word(3).replace("\\/", "/")).ok()?;
            (Some(pattern::convert(from, false, true).ok()?), to)
        }
        _ => return None,
    };
    let to = with_groups(&to)?;
    let Some(pattern) = pattern else {
        return (to.starts_with('/') || to.starts_with("{path}") || to.starts_with("{uri}"))
            .then(|| Rewrite::All(line("rewrite", &to)));
    };
    if let Matcher::Exact(path) = matcher
        && !Matcher::Regex(pattern.clone()).is_for(path)
    {
        return Some(Rewrite::Nothing);
    }
    // Without a slash it begins with what is matched only where that begins with one.
    let to = match to.starts_with('/') {
        true => to,
        false
            if ["{head}", "{tail}", "{c"]
                .iter()
                .any(|begin| to.starts_with(begin)) =>
        {
            format!("/{to}")
        }
        false => return None,
    };
    let asked = |of: String| vec![Term::of("{path}", of, false)];
    let (matcher, conditions) = match matcher {
        Matcher::Any => (Matcher::Regex(pattern), All::new()),
        Matcher::Prefix(path) => match pattern::below(&pattern, path) {
            Some(pattern) => (Matcher::Regex(pattern), All::new()),
            None => {
                let of = format!("^{}", pattern::literal(path));
                (Matcher::Regex(pattern), asked(of))
            }
        },
        Matcher::Regex(own) => (Matcher::Regex(pattern), asked(own.clone())),
        // It goes before all expressions: what comes of it is known.
        Matcher::Exact(path) => {
            let to = replaced(&pattern, path, &to)?;
            return Some(Rewrite::All(line("rewrite", &to)));
        }
    };
    let line = line("rewrite", &to);
    Some(Rewrite::Some {
        matcher,
        conditions,
        line,
    })
}

/// The paths that a rule is for, as an expression. `None`: all of them.
pub(super) fn only(rule: &Line) -> Option<String> {
    let (from, caseless) = match substitution(rule) {
        Some(Substitution { from, caseless, .. }) => (from, caseless),
        None => Some((rule.word(2), false)).filter(|_| rule.word(1).starts_with("replace-"))?,
    };
    pattern::convert(from, caseless, false).ok()
}

/// Actions that write paths anew.
pub(super) const REWRITES: [&str; 7] = [
    "replace-path",
    "set-path",
    "replace-uri",
    "set-uri",
    "replace-pathq",
    "set-pathq",
    "set-query",
];

/// `%[path,regsub(FROM,TO,FLAGS)]`
struct Substitution<'w> {
    from: &'w str,
    to: &'w str,
    caseless: bool,
}

fn substitution(rule: &Line) -> Option<Substitution<'_>> {
    let samples = [
        "%[path,regsub(",
        "%[pathq,regsub(",
        "%[url,regsub(",
        "%[capture.req.uri,regsub(",
    ];
    let of = |sample: &&str| rule.word(2).strip_prefix(*sample);
    let inner = samples.iter().find_map(of)?.strip_suffix(")]")?;
    let (inner, flags) = match inner.rsplit_once(',') {
        Some((inner, flags)) if inner.contains(',') && ["g", "i", "gi", "ig"].contains(&flags) => {
            (inner, flags)
        }
        _ => (inner, ""),
    };
    let (from, to) = inner.split_once(',')?;
    let (from, to) = (bare(from), bare(to));
    let anchored = from.starts_with('^');
    // What is replaced in the query as well, or more than once, cannot be said.
    if !anchored && (flags.contains('g') || rule.word(1) != "set-path") || from.contains(',') {
        return None;
    }
    Some(Substitution {
        from,
        to,
        caseless: flags.contains('i'),
    })
}

/// Whether an expression has a space outside of its classes.
fn asks_for_space(text: &str) -> bool {
    let mut in_class = false;
    text.chars().any(|c| {
        in_class = match c {
            '[' => true,
            ']' => false,
            _ => in_class,
        };
        c == ' ' && !in_class
    })
}

/// Without the quotes of arguments.
fn bare(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// What a text with groups comes to for one path.
fn replaced(pattern: &str, path: &str, to: &str) -> Option<String> {
    let expression = regex::Regex::new(pattern).ok()?;
    let found = expression.captures(path)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let mut to = to.to_owned();
    for name in expression.capture_names().flatten() {
        let text = found.name(name).map_or("", |group| group.as_str());
        if !text.bytes().all(plain) {
            return None;
        }
        to = to.replace(&format!("{{{name}}}"), text);
    }
    to.starts_with('/')
        .then(|| format!("/{}", to.trim_start_matches('/')))
}

/// `\1` as the variable for a group.
fn with_groups(text: &str) -> Option<String> {
    let (mut out, mut left) = (String::new(), text);
    while let Some((before, behind)) = left.split_once('\\') {
        let digit = behind.chars().next().filter(char::is_ascii_digit)?;
        out.push_str(&format!("{before}{{c{digit}}}"));
        left = &behind[1..];
    }
    out.push_str(left);
    (!out.contains("{c0}")).then_some(out)
}

/// What stands at the beginning of a path, and how it is followed.
struct Head<'w> {
    path: &'w str,
    /// A slash has to follow, and is taken away with it.
    slash: bool,
    /// One may follow, and is taken away as well.
    may_slash: bool,
    /// What stands in its place.
    to: String,
}

impl<'w> Head<'w> {
    /// `replace-path ^/api/(.*) /\1` and `set-path %[path,regsub(^/api/,/)]`.
    fn of(rule: &'w Line) -> Option<Self> {
        let (head, to) = match rule.word(1) {
            "set-path" | "set-uri" | "set-pathq" => {
                let Substitution { from, to, caseless } = substitution(rule)?;
                (from.strip_prefix('^').filter(|_| !caseless)?, to.to_owned())
            }
            "replace-path" | "replace-uri" | "replace-pathq" => {
                let (from, to) = (rule.word(2), rule.word(3));
                let from = from.trim_end_matches('$').strip_suffix("(.*)")?;
                let (from, group) = match from.strip_suffix("(/)?") {
                    Some(_) => (from, "\\2"),
                    None => (from, "\\1"),
                };
                // Without a sign of the beginning it is the first place, and hardly another.
                (
                    from.trim_start_matches('^'),
                    to.strip_suffix(group)?.to_owned(),
                )
            }
            _ => return None,
        };
        let may = ["(?:/)?", "(/)?", "\\/?", "/?"];
        let optional = may.iter().find_map(|end| head.strip_suffix(end));
        let (path, slash) = match optional {
            Some(path) => (path, false),
            None => match head.strip_suffix('/') {
                Some(path) => (path, true),
                None => (head, false),
            },
        };
        let plain =
            path.starts_with('/') && !path.contains(['(', '[', '*', '+', '?', '\\', '|', '^']);
        plain.then(|| Self {
            path,
            slash,
            may_slash: optional.is_some(),
            to: to.replace("\\/", "/"),
        })
    }
}

/// Where what is taken away is the path of the route.
fn by_prefix(rule: &Line, matcher: &Matcher) -> Option<Rewrite> {
    let head = Head::of(rule)?;
    let Matcher::Prefix(path) = matcher else {
        return None;
    };
    if path.trim_end_matches('/') != head.path {
        return None;
    }
    let to = if head.to.is_empty() { "/" } else { &head.to };
    // Without its slash, what stands in its place goes on in the same segment.
    if !to.starts_with('/') || (head.slash || head.may_slash) && !to.ends_with('/') {
        return None;
    }
    let line = line("replace_prefix", to);
    Some(match head.slash && !path.ends_with('/') {
        // Not for the path itself.
        true => Rewrite::Some {
            matcher: Matcher::Prefix(format!("{path}/")),
            conditions: All::new(),
            line,
        },
        false => Rewrite::All(line),
    })
}
