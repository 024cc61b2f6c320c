//! Regular expressions of others (PCRE), as the expressions here are written.

/// One, with its groups named `c1`, `c2`, … where they are asked for. `Err`: what is not known here.
pub(in crate::import) fn convert(
    text: &str,
    caseless: bool,
    groups: bool,
) -> Result<String, String> {
    let text = without_lookahead(text, groups)?;
    let mut out = String::new();
    if caseless {
        out.push_str("(?i)");
    }
    let mut letters = text.chars().peekable();
    let (mut in_class, mut count) = (false, 0);
    while let Some(c) = letters.next() {
        match c {
            '\\' => {
                let next = letters.next().unwrap_or('\\');
                match next {
                    '1'..='9' if !in_class => return Err(format!("\\{next}")),
                    'Z' => out.push_str("\\z"),
                    'h' => out.push_str("[ \\t]"),
                    // Known here, or not a letter at all.
                    'A' | 'b' | 'B' | 'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'n' | 'r' | 't' | 'z'
                    | 'x' => out.extend(['\\', next]),
                    c if c.is_ascii_alphanumeric() => return Err(format!("\\{c}")),
                    c if c.is_ascii_punctuation() => out.extend(['\\', c]),
                    c => out.push(c),
                }
            }
            // A bracket inside is a letter in PCRE, and a class here.
            '[' if in_class && letters.peek() != Some(&':') => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                if letters.peek() == Some(&'^') {
                    out.extend(letters.next());
                }
                if letters.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' | '-' if in_class && letters.peek() == Some(&c) => out.extend(['\\', c]),
            '(' if !in_class && letters.peek() != Some(&'?') => {
                count += 1;
                match groups {
                    true => out.push_str(&format!("(?<c{count}>")),
                    false => out.push_str("(?:"),
                }
            }
            '(' if !in_class => {
                let rest: String = letters.clone().collect();
                if ["?P<", "?<"].iter().any(|begin| rest.starts_with(begin))
                    && !["?<=", "?<!"].iter().any(|begin| rest.starts_with(begin))
                {
                    count += 1;
                }
                out.push('(');
            }
            '+' if out.ends_with(['+', '*', '?']) && !out.ends_with("\\+") => {
                return Err("a possessive quantifier".to_owned());
            }
            c => out.push(c),
        }
    }
    match regex::bytes::RegexBuilder::new(&out).unicode(false).build() {
        Ok(_) => Ok(out),
        Err(error) => {
            let why = error.to_string();
            let last = why.lines().last().unwrap_or_default();
            Err(last.trim_start_matches("error: ").to_owned())
        }
    }
}

/// Several, where all of them can be written here.
pub(in crate::import) fn all(texts: &[String]) -> Option<Vec<String>> {
    let convert = |text: &String| match text.strip_prefix("(?i)") {
        Some(rest) => convert(rest, true, false).ok(),
        None => convert(text, false, false).ok(),
    };
    texts.iter().map(convert).collect()
}

/// One that matches at least what another does, which cannot be written here: for what keeps
/// somebody out.
pub(in crate::import) fn wider(text: &str, caseless: bool) -> String {
    convert(&without_looking(text), caseless, false).unwrap_or_else(|_| "^/".to_owned())
}

/// An expression that looks neither ahead nor behind, and so matches at least as much.
pub(in crate::import) fn without_looking(text: &str) -> String {
    let mut left = text.to_owned();
    for begin in ["(?=", "(?!", "(?<=", "(?<!"] {
        while let Some(at) = left.find(begin) {
            let mut depth = 0;
            let end = left[at..].char_indices().find_map(|(end, c)| {
                match c {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                (depth == 0).then_some(at + end + 1)
            });
            left.replace_range(at..end.unwrap_or(left.len()), "");
        }
    }
    left
}

/// `^(?!no)yes`: what must not stand at the beginning, and what is matched else.
pub(in crate::import) fn refused_first(text: &str) -> Option<(String, String)> {
    let behind = text.strip_prefix("^(?!")?;
    let end = end_of_group(behind)?;
    let (no, yes) = (&behind[..end], &behind[end + 1..]);
    Some((format!("^(?:{no})"), format!("^{yes}")))
}

/// Where the group ends that this is the inside of.
fn end_of_group(inside: &str) -> Option<usize> {
    let (mut depth, mut escaped) = (1, false);
    inside.char_indices().find_map(|(at, c)| {
        match c {
            _ if escaped => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        (depth == 0).then_some(at)
    })
}

/// Writes `(?!literal)` without looking ahead, where nothing that matters follows it.
fn without_lookahead(text: &str, groups: bool) -> Result<String, String> {
    let Some(at) = text.find("(?!") else {
        return Ok(text.to_owned());
    };
    let (before, behind) = (&text[..at], &text[at + 3..]);
    let Some((literal, rest)) = behind.split_once(')') else {
        return Err("(?!".to_owned());
    };
    // What is written in its place has a length: a group around it would have more in it.
    let in_group = rest.starts_with(['|', ')']);
    match another(literal) {
        Some(not) if is_anything(rest) && !(groups && in_group) => {
            let rest = if in_group { rest } else { "" };
            Ok(format!("{before}{not}{rest}"))
        }
        _ => Err(format!("(?!{literal})")),
    }
}

/// What begins with something else than a row of letters, some of which may be of several. `None`:
/// it is more than that.
fn another(literal: &str) -> Option<String> {
    let mut letters = literal.chars();
    let mut row = Vec::new();
    while let Some(c) = letters.next() {
        let is = match c {
            '\\' => {
                let next = letters.next().filter(char::is_ascii_punctuation)?;
                format!("\\{next}")
            }
            '[' => {
                let inside: String = letters.by_ref().take_while(|c| *c != ']').collect();
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
                (!inside.is_empty() && inside.chars().all(plain)).then_some(inside)?
            }
            '-' | '/' | '_' => format!("\\{c}"),
            c if "|()]*+?^${}".contains(c) => return None,
            c => c.to_string(),
        };
        row.push(is);
    }
    let not = row
        .into_iter()
        .rev()
        .fold(String::new(), |not, is| match (&*is, not.is_empty()) {
            (".", true) => "$".to_owned(),
            (".", false) => format!("(?:$|.{not})"),
            (_, true) => format!("(?:$|[^{is}])"),
            (_, false) => format!("(?:$|[^{is}]|[{is}]{not})"),
        });
    (!not.is_empty()).then_some(not)
}

/// Whether the rest of an expression matches whatever comes, from the inside of its groups on.
fn is_anything(rest: &str) -> bool {
    match rest {
        "" | ".*" | ".*$" => true,
        _ if rest.starts_with('|') => {
            // Another way: what follows is behind the group.
            end_of_group(rest).is_none_or(|end| is_anything(&rest[end..]))
        }
        _ => rest
            .strip_prefix(')')
            .is_some_and(|rest| !rest.starts_with(['*', '+', '?', '{']) && is_anything(rest)),
    }
}

/// One for what is below a path too. `None`: it is for something else as well.
pub(in crate::import) fn below(pattern: &str, path: &str) -> Option<String> {
    if path == "/" {
        return Some(pattern.to_owned());
    }
    let (caseless, rest) = match pattern.strip_prefix("(?i)") {
        Some(rest) => ("(?i)", rest),
        None => ("", pattern),
    };
    match rest.strip_prefix('^') {
        None => Some(format!("{caseless}{}", unanchored(rest, path))),
        Some(anchored) => {
            let begins = anchored.replace("\\/", "/").starts_with(&literal(path))
                || anchored.starts_with(path);
            (begins && !anchored.contains('|')).then(|| pattern.to_owned())
        }
    }
}

/// What is below a path and has something that an expression matches, which may begin with the
/// path's own slash, or with all of the path.
fn unanchored(rest: &str, path: &str) -> String {
    let (begin, groups) = (literal(path), rest.contains("(?<"));
    let bare = path.trim_end_matches('/');
    let slash = ["/", "(?:^|/)", "(?:/|^)", "(?:^/|/)"];
    if rest.replace("\\/", "/").starts_with(path) || rest.starts_with(&begin) {
        return match groups {
            // The first place is where it matches.
            true => format!("^(?:{rest})"),
            false => format!("^(?:{rest}|{begin}.*(?:{rest}))"),
        };
    }
    match path.ends_with('/') && slash.iter().any(|slash| rest.starts_with(slash)) {
        true => format!("^{}(?:/.*)?(?:{rest})", literal(bare)),
        false => format!("^{begin}.*(?:{rest})"),
    }
}

/// One for what two match both, as far as that can be written.
pub(in crate::import) fn both(outer: &str, inner: &str) -> Option<String> {
    let bare = |text: &str| match text.strip_prefix("(?i)") {
        Some(rest) => (true, rest.to_owned()),
        None => (false, text.to_owned()),
    };
    let part = |(caseless, text): (bool, &str)| match caseless {
        true => format!("(?i:{text})"),
        false => format!("(?:{text})"),
    };
    let ((outer_caseless, outer), (inner_caseless, inner)) = (bare(outer), bare(inner));
    // One that says how a path begins, and one that does not.
    let first = |text: &str| text.starts_with('^') && !text.ends_with('$') && !text.contains('|');
    let (begin, end) = match (first(&outer), first(&inner)) {
        (true, false) if !inner.contains('^') => {
            ((outer_caseless, &outer[1..]), (inner_caseless, &*inner))
        }
        (false, true) if !outer.contains('^') => {
            ((inner_caseless, &inner[1..]), (outer_caseless, &*outer))
        }
        _ => return None,
    };
    Some(format!("^{}.*{}", part(begin), part(end)))
}

/// Whether two are for the same paths, as they are written.
pub(in crate::import) fn is_same(one: &str, other: &str) -> bool {
    let bare = |text: &str| {
        let text = text.trim_start_matches("(?i)").trim_start_matches('^');
        text.trim_end_matches('$').to_owned()
    };
    bare(one) == bare(other)
}

/// The groups of an expression that have names.
pub(in crate::import) fn names(pattern: &str) -> Vec<String> {
    let built = regex::bytes::RegexBuilder::new(pattern)
        .unicode(false)
        .build();
    let names = built
        .iter()
        .flat_map(regex::bytes::Regex::capture_names)
        .flatten();
    names.map(str::to_owned).collect()
}

/// An expression for a text.
pub(in crate::import) fn literal(text: &str) -> String {
    regex::escape(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_those_of_here() {
        for (text, groups, expected) in [
            (r"\.php$", false, r"\.php$"),
            (r"^/a/(\d+)/(.*)$", true, r"^/a/(?<c1>\d+)/(?<c2>.*)$"),
            (r"^/(?:a|b)(/|$)", false, r"^/(?:a|b)(?:/|$)"),
            (r"[[/]", false, r"[\[/]"),
            (r"[]a]", false, r"[\]a]"),
            (r"^\/x\_y", false, r"^\/x\_y"),
            (r"(?<id>\d)(.)", true, r"(?<id>\d)(?<c2>.)"),
        ] {
            assert_eq!(
                convert(text, false, groups).as_deref(),
                Ok(expected),
                "{text}"
            );
        }
        assert_eq!(convert("a", true, false).as_deref(), Ok("(?i)a"));
        for text in [
            r"(?=a)b", r"(a)\1", r"a++", r"(?!a|b)", r"(?!a)b", r"(", r"\K",
        ] {
            assert!(convert(text, false, false).is_err(), "{text}");
        }
    }

    #[test]
    fn what_keeps_somebody_out_is_never_narrower() {
        for (text, expected) in [
            (r"(?=x)y", "y"),
            (r"^/a(?!(b|c))d\.php$", r"^/ad\.php$"),
            (r"(?<!x)secret", "secret"),
            (r"(a)\1", "^/"),
        ] {
            assert_eq!(wider(text, false), expected, "{text}");
        }
    }

    #[test]
    fn what_must_not_follow_is_written_without_looking_ahead() {
        let pattern = convert(r"/\.(?!well-known)", false, false).unwrap();
        let pattern = regex::bytes::RegexBuilder::new(&pattern)
            .unicode(false)
            .build()
            .unwrap();
        for (path, expected) in [
            ("/.env", true),
            ("/.", true),
            ("/.w", true),
            ("/.well-know", true),
            ("/.well-knowx", true),
            ("/.well-known/x", false),
            ("/a/.well-known/.git", true),
            ("/a.b", false),
        ] {
            assert_eq!(pattern.is_match(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn what_must_not_follow_may_be_in_a_group() {
        let text = r"^(docker\/1\.(3|4|5(?!\.[0-9]-dev))|Go ).*$";
        let pattern = convert(text, false, false).unwrap();
        for (client, expected) in [
            ("docker/1.5", true),
            ("docker/1.5.0 go/1.3", true),
            ("docker/1.5.0-dev go/1.3", false),
            ("docker/1.4.0-dev", true),
            ("docker/1.6.0", false),
            ("Go 1.1", true),
        ] {
            assert_eq!(matches(&pattern, client), expected, "{pattern} {client}");
        }
        let pattern = convert("^/(?!.ab)", false, false).unwrap();
        for (path, expected) in [("/", true), ("/xa", true), ("/xb", true), ("/xab", false)] {
            assert_eq!(matches(&pattern, path), expected, "{pattern} {path}");
        }
        for text in [r"(a(?!b))+c", r"(a(?!b))c", r"a(?![^b])", r"(a(?!b)|c)*"] {
            assert!(convert(text, false, false).is_err(), "{text}");
        }
        assert!(convert(text, false, true).is_err());
    }

    #[test]
    fn one_inside_a_path_may_begin_with_its_slash() {
        for (pattern, path, expected) in [
            (r"/.*\.php$", "/up/x.php", true),
            (r"/.*\.php$", "/up/a/x.php", true),
            (r"/.*\.php$", "/upx.php", false),
            (r"/\.", "/up/.git", true),
            (r"\.php$", "/up.php", false),
            ("/up/x", "/up/x", true),
            ("/up/x", "/up/a/up/x", true),
            ("/up/x", "/up/a", false),
        ] {
            let both = below(pattern, "/up/").unwrap();
            assert_eq!(matches(&both, path), expected, "{both} {path}");
        }
    }

    fn matches(pattern: &str, path: &str) -> bool {
        let mut pattern = regex::bytes::RegexBuilder::new(pattern);
        let pattern = pattern.unicode(false).build().unwrap();
        pattern.is_match(path.as_bytes())
    }

    #[test]
    fn what_two_match_both_is_one() {
        let json = both("^/api/v[0-9]/", r"(?i)\.json$").unwrap();
        for (path, expected) in [
            ("/api/v1/x.JSON", true),
            ("/api/v1/x.xml", false),
            ("/x/api/v1/x.json", false),
            ("/API/v1/x.json", false),
        ] {
            assert_eq!(matches(&json, path), expected, "{path}");
        }
        assert!(matches(&both(r"\.php$", "^/a/").unwrap(), "/a/b.php"));
        for (outer, inner) in [("^/a|^/b", "x$"), ("a", "b"), ("^/a$", "b")] {
            assert_eq!(both(outer, inner), None);
        }
    }

    #[test]
    fn one_inside_a_path_is_for_what_is_below_it() {
        for (pattern, path, expected) in [
            (r"\.php$", "/a/", Some(r"^/a/.*(?:\.php$)")),
            (r"(?i)\.php$", "/a.b/", Some(r"(?i)^/a\.b/.*(?:\.php$)")),
            ("^/a/x", "/a/", Some("^/a/x")),
            ("^/b", "/a/", None),
            ("^/a/|^/b", "/a/", None),
            ("^/b", "/", Some("^/b")),
        ] {
            assert_eq!(below(pattern, path).as_deref(), expected, "{pattern}");
        }
    }

    #[test]
    fn what_must_not_begin_a_text_is_told_apart() {
        let split = |text| refused_first(text).map(|(no, yes)| format!("{no} {yes}"));
        for (text, expected) in [
            (r"^(?!(GET|HEAD)).*:", Some("^(?:(GET|HEAD)) ^.*:")),
            (r"^(?!a\)b)c$", Some(r"^(?:a\)b) ^c$")),
            (r"^a(?!b)", None),
            (r"^(?!a", None),
        ] {
            assert_eq!(split(text).as_deref(), expected, "{text}");
        }
        assert_eq!(without_looking("^(a|b(?!(c|d))|e)$"), "^(a|b|e)$");
    }
}
