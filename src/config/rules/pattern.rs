//! Regular expressions for paths, and what can be said of one without trying it.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// A regular expression that matches in time linear in the path's length.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// By its text.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// What one expression may take when compiled: far more than any path needs.
    const LARGEST: usize = 256 << 10;

    /// Compiles one. It works on bytes and `.` is any of them: a path that is not UTF-8, or has a
    /// line feed in it, must not slip by.
    pub(in crate::config) fn new(text: &str) -> Result<Self, regex::Error> {
        RegexBuilder::new(text)
            .unicode(false)
            .dot_matches_new_line(true)
            .size_limit(Self::LARGEST)
            .dfa_size_limit(Self::LARGEST)
            .build()
            .map(Self)
    }

    /// The expression.
    pub const fn regex(&self) -> &Regex {
        &self.0
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The names of its groups, in the order in which [`Variable::Capture`] counts them.
    ///
    /// [`Variable::Capture`]: super::Variable::Capture
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.capture_names().flatten()
    }

    /// Its structure.
    fn parsed(&self) -> Option<Hir> {
        ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .dot_matches_new_line(true)
            .build()
            .parse(self.as_str())
            .ok()
    }

    /// Whether it matches every path, as `^/` and `.*` do. Where that is hard to see, it is not said.
    pub(in crate::config) fn takes_all(&self) -> bool {
        let Some(hir) = self.parsed() else {
            return false;
        };
        let mut parts = Vec::new();
        flatten(&hir, &mut parts);
        let is = |part: &Hir, look| *part.kind() == HirKind::Look(look);
        if let [first, ..] = &parts[..]
            && is(first, Look::Start)
        {
            parts.remove(0);
        }
        if let [.., last] = &parts[..]
            && is(last, Look::End)
        {
            parts.pop();
            if !parts.last().is_some_and(|part| is_anything(part.kind())) {
                return false;
            }
        }
        // Every path has one slash, at its beginning.
        let slash =
            |part: &&&Hir| matches!(part.kind(), HirKind::Literal(text) if *text.0 == *b"/");
        let slashes = parts.iter().filter(slash).count();
        let rest = parts.iter().filter(|part| is_anything(part.kind())).count();
        slashes <= 1 && slashes + rest == parts.len()
    }

    /// Whether it matches any text at all, or none, where that is easy to see.
    pub(in crate::config) fn verdict(&self) -> Option<bool> {
        verdict(&self.parsed()?)
    }

    /// Whether there are upper-case letters in it, and not the lower-case ones in their place.
    pub(in crate::config) fn has_upper_case(&self) -> bool {
        let upper = |text: &[u8]| text.iter().any(u8::is_ascii_uppercase);
        self.parsed().is_some_and(|hir| has_literal(&hir, &upper))
    }

    /// Why it matches hardly anything, and what to do about it.
    pub(in crate::config) fn doubt(&self) -> Option<(&'static str, &'static str)> {
        let hir = self.parsed()?;
        let prefixes = Extractor::new().extract(&hir);
        let begins = |text: &[u8]| text.first().is_none_or(|&byte| byte == b'/');
        if let Some(prefixes) = prefixes.literals()
            && !prefixes.iter().any(|prefix| begins(prefix.as_bytes()))
            && (prefixes.is_empty() || hir.properties().look_set_prefix().contains(Look::Start))
        {
            return Some((
                "an expression that no path matches",
                "a path begins with `/`: write `^/…`",
            ));
        }
        if has_literal(&hir, &|text| text.contains(&b'?')) {
            return Some((
                "an expression with a question mark in it",
                "it is matched against the path alone, without the query",
            ));
        }
        let encoded = |text: &[u8]| {
            let mut threes = text.windows(3);
            threes.any(|three| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit))
        };
        has_literal(&hir, &encoded).then_some((
            "an expression with something percent-encoded in it",
            "it is matched against the path percent-decoded: write the character itself, or `\\xHH`",
        ))
    }
}

/// Whether it matches any text at all, or none.
fn verdict(hir: &Hir) -> Option<bool> {
    // An empty class.
    if hir.properties().minimum_len().is_none() {
        return Some(false);
    }
    if let HirKind::Alternation(all) = hir.kind() {
        let mut verdicts = all.iter().map(verdict);
        if verdicts.clone().any(|verdict| verdict == Some(true)) {
            return Some(true);
        }
        return (verdicts.all(|verdict| verdict == Some(false))).then_some(false);
    }
    let mut parts = Vec::new();
    flatten(hir, &mut parts);
    let is = |part: &Hir, look| *part.kind() == HirKind::Look(look);
    let (start, end) = (Look::Start, Look::End);
    let before = (parts.iter().rposition(|part| is(part, start))).map(|at| &parts[..at]);
    let behind = (parts.iter().position(|part| is(part, end))).map(|at| &parts[at..]);
    let mut sides = [before, behind].into_iter().flatten().flatten();
    if sides.any(|part| part.properties().minimum_len() != Some(0)) {
        return Some(false);
    }
    let free = |part: &&Hir| {
        part.properties().minimum_len() == Some(0) && part.properties().look_set().is_empty()
    };
    let all = match &parts[..] {
        [first, inner @ .., last] if is(first, start) && is(last, end) => {
            !inner.is_empty() && inner.iter().all(|part| is_anything(part.kind()))
        }
        [first, inner @ ..] if is(first, start) => inner.iter().all(free),
        [inner @ .., last] if is(last, end) => inner.iter().all(free),
        inner => inner.iter().all(free),
    };
    all.then_some(true)
}

/// What follows each other in it.
fn flatten<'h>(hir: &'h Hir, parts: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        HirKind::Concat(all) => all.iter().for_each(|part| flatten(part, parts)),
        _ => parts.push(hir),
    }
}

/// Whether it is `.*`.
fn is_anything(kind: &HirKind) -> bool {
    let HirKind::Repetition(repetition) = kind else {
        return false;
    };
    let all = match repetition.sub.kind() {
        HirKind::Class(Class::Bytes(class)) => match class.ranges() {
            [range] => range.start() == 0 && range.end() == 0xFF,
            _ => false,
        },
        _ => false,
    };
    all && repetition.min == 0 && repetition.max.is_none()
}

fn has_literal(hir: &Hir, test: &dyn Fn(&[u8]) -> bool) -> bool {
    match hir.kind() {
        HirKind::Literal(text) => test(&text.0),
        HirKind::Repetition(repetition) => has_literal(&repetition.sub, test),
        HirKind::Capture(capture) => has_literal(&capture.sub, test),
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            all.iter().any(|part| has_literal(part, test))
        }
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_takes_any_byte_for_a_character() {
        let pattern = Pattern::new("^/admin/.+[.]php$").unwrap();
        for path in [&b"/admin/a.php"[..], b"/admin/\xff.php", b"/admin/\n.php"] {
            assert!(pattern.regex().is_match(path), "{path:?}");
        }
        assert!(Pattern::new("(a{1000}){1000}").is_err());
    }

    #[test]
    fn what_takes_all_paths_is_recognised() {
        for (text, expected) in [
            ("", true),
            ("/", true),
            ("^/", true),
            (".*", true),
            ("^.*$", true),
            ("^/(?<rest>.*)$", true),
            (".*/", true),
            ("^/$", false),
            (".*/$", false),
            ("^/.+", false),
            ("^/[^/]*$", false),
            ("//", false),
            ("^/a", false),
            ("a|/", false),
            ("$", false),
        ] {
            assert_eq!(Pattern::new(text).unwrap().takes_all(), expected, "{text}");
        }
    }

    #[test]
    fn what_matches_anything_or_nothing_is_recognised() {
        for (text, expected) in [
            ("", Some(true)),
            ("^", Some(true)),
            ("$", Some(true)),
            (".*", Some(true)),
            ("^.*$", Some(true)),
            ("^(.*)$", Some(true)),
            ("^a*", Some(true)),
            ("a*$", Some(true)),
            ("(?i)bot|", Some(true)),
            ("[a&&b]", Some(false)),
            ("a^b", Some(false)),
            ("a$b", Some(false)),
            ("a^|b^", Some(false)),
            ("^$", None),
            ("^a*$", None),
            (".", None),
            ("^bot", None),
            (r"\b", None),
            (r"a*\b", None),
            ("(?m)a$\nb", None),
            ("^a|b$", None),
            ("a*^", None),
            ("^(^a|b)$", None),
        ] {
            assert_eq!(Pattern::new(text).unwrap().verdict(), expected, "{text}");
        }
    }

    #[test]
    fn what_no_path_matches_is_recognised() {
        for (text, words) in [
            ("^api/", Some("begins with `/`")),
            ("^(?:api|v[12])/", Some("begins with `/`")),
            ("(?i)^api", Some("begins with `/`")),
            ("[a&&b]", Some("begins with `/`")),
            (r"^/x\?id=", Some("without the query")),
            ("^/x[?]", Some("without the query")),
            ("^/a%20b", Some("percent-decoded")),
            ("api/", None),
            ("^/?api", None),
            ("^api|/x", None),
            ("^.api", None),
            ("^/100%$", None),
            ("^/a?b", None),
            ("", None),
        ] {
            let doubt = Pattern::new(text).unwrap().doubt();
            let found = doubt.is_some_and(|(_, help)| help.contains(words.unwrap_or_default()));
            assert_eq!(found, words.is_some(), "{text}: {doubt:?}");
        }
    }
}
