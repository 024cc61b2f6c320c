//! Paths that are written anew on their way to a backend.

use super::format::{line, template};
use super::parse::Line;
use crate::import::pattern;
use crate::import::site::Matcher;

/// What becomes of the path.
pub(super) enum Rewrite {
    /// A line for the route.
    All(String),
    /// The same for the paths of an expression, of those that the route is for.
    Some(String, String),
}

/// What a rule does with the paths of a route. `None`: it cannot be said here.
pub(super) fn rewritten(rule: &Line, matcher: &Matcher) -> Option<Rewrite> {
    if let Some(prefix) = by_prefix(rule, matcher) {
        return Some(Rewrite::All(prefix));
    }
    let (pattern, to) = match (rule.word(1), rule.word(2).split_once("%[path,regsub(")) {
        ("set-path", Some(("", inner))) => {
            let (from, to) = inner.strip_suffix(")]")?.split_once(',')?;
            // What is replaced is at the beginning, and what follows stays.
            from.strip_prefix('^').filter(|from| !from.ends_with('$'))?;
            let to = template(&to.replace("%", "%%")).ok()?;
            let pattern = format!("{}(?<tail>.*)$", pattern::convert(from, false, true).ok()?);
            (Some(pattern), format!("{to}{{tail}}"))
        }
        ("set-path", None) => (None, template(rule.word(2)).ok()?),
        ("replace-path" | "replace-uri", _) => {
            let from = rule.word(2);
            // The query is kept here, and a part of it there.
            if rule.word(1) == "replace-uri" && !from.trim_end_matches('$').ends_with("(.*)") {
                return None;
            }
            (
                Some(pattern::convert(from, false, true).ok()?),
                template(rule.word(3)).ok()?,
            )
        }
        _ => return None,
    };
    let to = with_groups(&to)?;
    if !to.starts_with('/') {
        return None;
    }
    let rewrite = line("rewrite", &to);
    let Some(pattern) = pattern else {
        return Some(Rewrite::All(rewrite));
    };
    let regex = match matcher {
        Matcher::Any => pattern,
        Matcher::Prefix(path) => pattern::below(&pattern, path)?,
        Matcher::Exact(_) | Matcher::Regex(_) => return None,
    };
    Some(Rewrite::Some(regex, rewrite))
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

/// `replace-path ^/api/(.*) /\1` and `set-path`, where they are for a route's path.
fn by_prefix(rule: &Line, matcher: &Matcher) -> Option<String> {
    if matches!(rule.word(1), "set-path" | "set-uri") {
        let to = rule.word(2);
        let inner = to.strip_prefix("%[path,regsub(")?.strip_suffix(")]")?;
        let (from, to) = inner.split_once(',')?;
        let from = from.trim_start_matches('^');
        let Matcher::Prefix(path) = matcher else {
            return None;
        };
        let same = from.trim_end_matches('/') == path.trim_end_matches('/');
        return (same && to.starts_with('/')).then(|| line("replace_prefix", to));
    }
    let (Matcher::Prefix(path), from, to) = (matcher, rule.word(2), rule.word(3)) else {
        return None;
    };
    let head = from.trim_start_matches('^').trim_end_matches('$');
    let head = head
        .strip_suffix("(.*)")
        .or_else(|| head.strip_suffix("(/)?(.*)"))?;
    let head = head.trim_end_matches("(/)?").trim_end_matches("/?");
    let before = to.strip_suffix("\\1").or_else(|| to.strip_suffix("\\2"))?;
    let same = head.trim_end_matches('/') == path.trim_end_matches('/');
    let before = if before.is_empty() { "/" } else { before };
    (same && before.starts_with('/')).then(|| line("replace_prefix", before))
}
