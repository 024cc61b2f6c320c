//! `map`: a value chosen by another.

use super::Directive;

/// One `map`.
#[derive(Clone, Debug)]
pub(super) struct Map<'d> {
    pub(super) directive: &'d Directive,
    /// The variable that it goes by, without the `$`.
    pub(super) source: &'d str,
    /// What stands where no entry fits.
    pub(super) default: Option<&'d Directive>,
    /// The others, in their order: a text, or an expression behind `~`.
    pub(super) entries: Vec<&'d Directive>,
}

/// The `map` that says what a variable is, among the directives of a level.
pub(super) fn find<'d>(level: &'d [Directive], variable: &str) -> Option<Map<'d>> {
    let directive = level.iter().find(|directive| {
        let wanted = directive.args.get(1).map(|name| bare(name));
        directive.name == "map" && wanted == Some(bare(variable))
    })?;
    let mut map = Map {
        directive,
        source: bare(directive.first()),
        default: None,
        entries: Vec::new(),
    };
    for entry in directive.inside() {
        match entry.name.as_str() {
            "default" => map.default = Some(entry),
            "hostnames" | "volatile" => {}
            _ => map.entries.push(entry),
        }
    }
    Some(map)
}

/// Whether a `map` is the idiom for an id of the request: the client's own, else a new one.
pub(super) fn keeps_id(map: &Directive) -> bool {
    let source = bare(map.first());
    let makes = |entry: &Directive| entry.first().contains("request_id");
    matches!(source, "http_x_request_id" | "http_x_correlation_id")
        && map.inside().iter().any(makes)
}

/// `name` of `$name` and `${name}`.
pub(super) fn bare(variable: &str) -> &str {
    let name = variable.strip_prefix('$').unwrap_or(variable);
    let braced = name
        .strip_prefix('{')
        .and_then(|name| name.strip_suffix('}'));
    braced.unwrap_or(name)
}

/// What an entry stands for, which a backslash may keep from being taken for something else.
pub(super) fn key(entry: &Directive) -> &str {
    entry.name.strip_prefix('\\').unwrap_or(&entry.name)
}

/// The names that an entry of a map of names stands for, and whether they are fewer than in nginx.
/// `None`: an expression, or a pattern that staunch has not.
pub(super) fn names(entry: &Directive) -> Option<(Vec<String>, bool)> {
    let name = key(entry).to_ascii_lowercase();
    if let Some(expression) = entry.name.strip_prefix('~') {
        return of_expression(expression);
    }
    if let Some(parent) = name.strip_prefix('.') {
        return Some((vec![parent.to_owned(), format!("*.{parent}")], true));
    }
    let (rest, wild) = match name.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (&*name, false),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (!rest.is_empty() && rest.chars().all(is_name)).then(|| (vec![name.clone()], wild))
}

/// The names that an expression stands for, where that is some words before a name, or anything.
pub(super) fn of_expression(text: &str) -> Option<(Vec<String>, bool)> {
    let text = text.trim_start_matches(['*', '^']).trim_end_matches('$');
    let text = text.to_ascii_lowercase();
    let (first, parent) = match text.strip_prefix('(') {
        Some(inner) => {
            let (group, rest) = inner.split_once(')')?;
            let group = match group.strip_prefix('?') {
                // A group with a name of its own.
                Some(named) => named.split_once(['>', ':'])?.1,
                None => group,
            };
            (group.to_owned(), rest.strip_prefix("\\.")?.to_owned())
        }
        None => {
            let (first, rest) = text.split_once("\\.")?;
            (first.to_owned(), rest.to_owned())
        }
    };
    // A dot that is any letter is meant to be one.
    let parent = parent.replace("\\.", ".").replace("\\-", "-");
    let plain = |text: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        !text.is_empty() && text.chars().all(fits)
    };
    if !parent.split('.').all(plain) {
        return None;
    }
    if matches!(
        &*first,
        ".+" | ".*" | "[^.]+" | "[^.]*" | "\\w+" | "[a-z0-9-]+" | "[a-z0-9]+"
    ) {
        return Some((vec![format!("*.{parent}")], true));
    }
    let words: Vec<_> = first.split('|').collect();
    (words.iter().all(|word| plain(word))).then(|| {
        (
            words
                .iter()
                .map(|word| format!("{word}.{parent}"))
                .collect(),
            false,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_expressions_are_names() {
        for (text, expected) in [
            (r"^(a|b)\.x\.test$", Some("a.x.test b.x.test")),
            (r"^(?<sub>.+)\.x-y\.test$", Some("*.x-y.test")),
            (r"*^[^.]+\.x\.test$", Some("*.x.test")),
            (r"^one\.x\.test$", Some("one.x.test")),
            (r"^(www\.)?x\.test$", None),
            (r"^a.*\.x\.test$", None),
            (r"^(.+)$", None),
        ] {
            let names = of_expression(text).map(|(names, _)| names.join(" "));
            assert_eq!(names.as_deref(), expected, "{text}");
        }
    }
}
