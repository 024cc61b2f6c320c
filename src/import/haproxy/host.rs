//! Which hosts a rule is for.

use super::condition::Test;
use super::sample;
use crate::import::formula;

/// Names that have sites of their own, and what else it holds for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    /// A name, or `*.parent`.
    pub(super) names: Vec<String>,
    /// An expression for hosts that have no site of their own.
    pub(super) pattern: Option<String>,
}

/// What it comes to at one site.
pub(super) enum Holds {
    Always,
    Never,
    /// Where this expression matches the host.
    Where(String),
}

impl Hosts {
    /// These names.
    pub(super) fn named(names: Vec<String>) -> Self {
        Self {
            names,
            pattern: None,
        }
    }

    /// These too.
    pub(super) fn join(&mut self, more: Self) {
        self.names.extend(more.names);
        let both: Vec<_> = self
            .pattern
            .take()
            .into_iter()
            .chain(more.pattern)
            .collect();
        self.pattern = (!both.is_empty()).then(|| formula::any(&both));
    }

    /// Whether it holds at the site of a name, of `*.parent`, or of all others (`*`).
    pub(super) fn holds(&self, site: &str) -> Holds {
        let ends = |end: &str| {
            let mut wild = self.names.iter().filter_map(|name| name.strip_prefix('*'));
            wild.any(|parent| end.ends_with(parent))
        };
        let Some(below) = site.strip_prefix('*') else {
            if ends(site) || self.names.iter().any(|name| name == site) {
                return Holds::Always;
            }
            return match self.pattern.as_deref().map(|it| (it, expression(it))) {
                None => Holds::Never,
                Some((_, Some(expression))) if expression.is_match(site.as_bytes()) => {
                    Holds::Always
                }
                Some((_, Some(_))) => Holds::Never,
                Some((pattern, None)) => Holds::Where(pattern.to_owned()),
            };
        };
        match &self.pattern {
            _ if !below.is_empty() && ends(below) => Holds::Always,
            // An end that begins within a label of what is below it.
            Some(_) if !below.is_empty() && self.is_ends() && !self.reaches(below) => Holds::Never,
            Some(pattern) => Holds::Where(pattern.clone()),
            None => Holds::Never,
        }
    }

    /// An expression for all of them.
    pub(super) fn whole(&self) -> String {
        let exact = self.names.iter().filter(|name| !name.starts_with('*'));
        let exact = exact.map(|name| format!("^{}$", regex::escape(name)));
        formula::any(&exact.chain(self.pattern.clone()).collect::<Vec<_>>())
    }

    /// Whether what it holds for has one of some ends.
    fn is_ends(&self) -> bool {
        self.names.iter().any(|name| name.starts_with('*'))
            && (self.pattern.as_deref()).is_some_and(|it| it.ends_with('$') && !it.contains('|'))
    }

    fn reaches(&self, below: &str) -> bool {
        (self.names.iter()).any(|name| name.len() > below.len() && name.ends_with(below))
    }
}

fn expression(pattern: &str) -> Option<regex::bytes::Regex> {
    let mut builder = regex::bytes::RegexBuilder::new(pattern);
    builder.unicode(false).build().ok()
}

/// What is asked of `Host`. `None`: nothing that can be asked here.
pub(super) fn test(how: &str, values: &[String]) -> Option<Test> {
    let lower = |value: &String| match how {
        // `\D` is not `\d`.
        "reg" => value.clone(),
        _ => value.to_ascii_lowercase(),
    };
    let values: Vec<_> = values.iter().map(lower).collect();
    let with_port = |value: &str| {
        // A port that may be left out is left out here.
        let mut value = value.to_owned();
        for optional in [
            "(:[0-9]+)?",
            "(:\\d+)?",
            "(?::[0-9]+)?",
            "(?::\\d+)?",
            "(:.*)?",
        ] {
            value = value.replace(optional, "");
        }
        value.replace("(?:", "").replace("[:", "").contains(':')
    };
    if values.iter().any(|value| with_port(value)) {
        return by_port(how, &values);
    }
    let whole = |value: &str| value.contains('.') && !value.ends_with('.');
    let mut names = Vec::new();
    for value in &values {
        match how {
            "str" => names.push(value.clone()),
            "end" if value.starts_with('.') => names.push(format!("*{value}")),
            // A part of the name, or its end: it, and what is below it.
            "end" | "dom" if whole(value.trim_matches('.')) => {
                let name = value.trim_matches('.');
                names.extend([format!("*.{name}"), name.to_owned()]);
            }
            "beg" if whole(value) => names.push(value.clone()),
            _ => {}
        }
    }
    let pattern = match how {
        "str" => None,
        // Where a part begins and ends is not a part of it.
        "dom" => {
            let parts: Vec<_> = values
                .iter()
                .map(|it| it.trim_matches('.').to_owned())
                .collect();
            let part = sample::pattern_of("sub", false, false, &parts)?;
            Some(format!(r"(?:^|\.){part}(?:\.|$)"))
        }
        how => Some(sample::pattern_of(how, how == "reg", false, &values)?),
    };
    Some(Test::Host(Hosts { names, pattern }))
}

/// The one name that an expression is for, or `*.parent`.
pub(super) fn name_of(expression: &str) -> Option<String> {
    let inner = expression.strip_prefix('^')?.strip_suffix('$')?;
    let labels = ["[^\\.]*\\.", "[^.]*\\.", "[^\\.]+\\.", "[^.]+\\."];
    let parent = labels.iter().find_map(|label| inner.strip_prefix(label));
    let name = parent.unwrap_or(inner);
    let plain = name.replace("\\.", "");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if plain.is_empty() || !plain.bytes().all(is_plain) {
        return None;
    }
    let name = name.replace("\\.", ".").to_ascii_lowercase();
    Some(match parent {
        Some(_) => format!("*.{name}"),
        None => name,
    })
}

/// The names that these expressions are for, where each is a name, its end, or either:
/// `^(.+\.)?example\.com$`.
pub(super) fn names_of(expressions: &[String]) -> Option<Vec<String>> {
    const BELOW: [&str; 4] = [r"(.+\.)?", r"(.*\.)?", r"(?:.+\.)?", r"(?:.*\.)?"];
    const LABELS: [&str; 3] = [r".+\.", r".*\.", r"[^\.]+\."];
    let mut names = Vec::new();
    for expression in expressions {
        let inner = expression.strip_prefix('^')?;
        let below = BELOW.iter().find_map(|group| inner.strip_prefix(group));
        if let Some(name) = below {
            let name = name_of(&format!("^{name}"))?;
            names.extend([format!("*.{name}"), name]);
            continue;
        }
        let label = LABELS.iter().find_map(|label| inner.strip_prefix(label));
        if let Some(name) = label {
            names.push(format!("*.{}", name_of(&format!("^{name}"))?));
            continue;
        }
        let named = inner
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(")?"));
        if let Some((label, name)) = named {
            names.push(name_of(&format!("^{label}{name}"))?);
            names.push(name_of(&format!("^{name}"))?);
            continue;
        }
        names.push(name_of(expression)?);
    }
    Some(names)
}

/// The same with a port behind the name.
fn by_port(how: &str, values: &[String]) -> Option<Test> {
    let bare = |value: &String| value.rsplit_once(':').map(|(name, _)| name.to_owned());
    // With and without: the port makes no difference.
    let known = |value: &String| bare(value).is_none_or(|name| values.contains(&name));
    if how == "str" && values.iter().all(known) {
        let names = values.iter().filter(|value| bare(value).is_none());
        return Some(Test::Host(Hosts::named(names.cloned().collect())));
    }
    let pattern = match how {
        "str" | "beg" => {
            let each = values.iter().map(|value| match (bare(value), how) {
                (Some(_), _) => regex::escape(value),
                (None, "str") => format!("{}:[0-9]+", regex::escape(value)),
                (None, _) => regex::escape(value),
            });
            let end = if how == "str" { "$" } else { "" };
            format!("^(?:{}){end}", each.collect::<Vec<_>>().join("|"))
        }
        "dom" => return None,
        how => sample::pattern_of(how, how == "reg", false, values)?,
    };
    Some(Test::Value {
        of: "{host}:{port}".to_owned(),
        pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(how: &str, values: &[&str]) -> Hosts {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        match test(how, &values) {
            Some(Test::Host(hosts)) => hosts,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_criterion_holds_at_the_sites_that_haproxy_finds_it_for() {
        for (how, value, site, expected) in [
            ("str", "A.test", "a.test", "always"),
            ("str", "a.test", "*", "never"),
            ("end", ".a.test", "b.a.test", "always"),
            ("end", ".a.test", "*.a.test", "always"),
            ("end", ".a.test", "*.b.a.test", "always"),
            ("end", ".a.test", "a.test", "never"),
            ("end", ".a.test", "*", r"\.a\.test$"),
            ("end", "a.test", "not-a.test", "always"),
            ("end", "a.test", "*.test", r"a\.test$"),
            ("end", ".a.test", "*.b.test", "never"),
            ("end", "a.test", "*", r"a\.test$"),
            ("beg", "api.", "api.a.test", "always"),
            ("beg", "api.", "a.test", "never"),
            ("beg", "api.", "*.a.test", r"^api\."),
            ("sub", "stage", "*", "stage"),
            ("dom", "shop", "shop.a.test", "always"),
            ("dom", "shop", "shoppy.a.test", "never"),
            ("dom", "a.test", "*", r"(?:^|\.)a\.test(?:\.|$)"),
            ("reg", "^w[0-9]+\\.a$", "w1.a", "always"),
            ("reg", "^a\\.test(:[0-9]+)?$", "a.test", "always"),
        ] {
            let found = match hosts(how, &[value]).holds(site) {
                Holds::Always => "always".to_owned(),
                Holds::Never => "never".to_owned(),
                Holds::Where(pattern) => pattern,
            };
            assert_eq!(found, expected, "{how} {value} at {site}");
        }
    }

    #[test]
    fn an_expression_for_one_name_is_known() {
        for (expression, expected) in [
            (r"^a\.test$", Some("a.test")),
            (r"^[^\.]*\.a\.test$", Some("*.a.test")),
            (r"^[^.]+\.a-b\.test$", Some("*.a-b.test")),
            (r"^a.test$", None),
            (r"a\.test$", None),
            (r"^(a|b)\.test$", None),
            (r"^$", None),
        ] {
            assert_eq!(name_of(expression).as_deref(), expected, "{expression}");
        }
    }

    #[test]
    fn a_port_behind_a_name_is_asked_for_where_it_makes_a_difference() {
        let of = |values: &[&str]| {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            match test("str", &values) {
                Some(Test::Value { of, pattern }) => format!("{of} {pattern}"),
                Some(Test::Host(hosts)) => hosts.names.join(" "),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(&["a.test", "a.test:8443"]), "a.test");
        assert_eq!(
            of(&["a.test:8443", "b.test"]),
            r"{host}:{port} ^(?:a\.test:8443|b\.test:[0-9]+)$"
        );
    }
}
