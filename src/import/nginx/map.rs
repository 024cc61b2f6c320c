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
