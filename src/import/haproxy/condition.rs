//! What HAProxy's rules hold for: `if`, `unless`, and the lists they name.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::host::{self, Hosts};
use super::parse::{Line, Section};
use super::{map, sample};
use crate::import::formula;

/// One thing that is asked of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// One of these hosts.
    Host(Hosts),
    /// This path.
    Exact(Vec<String>),
    /// A path that begins so.
    Prefix(Vec<String>),
    /// A path for an expression.
    Regex(Vec<String>),
    /// A client in one of these networks.
    Client(Vec<String>),
    /// An expression matches a value, which is written with variables.
    Value { of: String, pattern: String },
    /// It came by TLS, as all do.
    Tls,
    /// It always holds.
    Always,
    /// It never does.
    Never,
    /// Something else.
    Unknown(String),
}

/// A test, or what is not it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) not: bool,
    pub(super) test: Test,
}

/// All of these.
pub(super) type All = Vec<Term>;

/// Bytes of a file of values.
const LARGEST: u64 = 1024 * 1024;

/// The lists of a section by name.
#[derive(Default)]
pub(super) struct Lists {
    named: BTreeMap<String, Vec<Test>>,
    /// Files of values are below this.
    folder: PathBuf,
    /// Whether bytes are looked at, of which little is known.
    tcp: bool,
    /// Whether it is for what came over TLS.
    over_tls: bool,
}

impl Lists {
    /// What `acl` defines: several of a name are alternatives.
    pub(super) fn of(section: &Section, folder: &str, over_tls: bool) -> Self {
        let mut lists = Self {
            named: BTreeMap::new(),
            folder: PathBuf::from(folder),
            tcp: section.is_tcp(),
            over_tls,
        };
        for line in section.all("acl") {
            let test = lists.test(&line.words[2.min(line.words.len())..]);
            let named = lists.named.entry(line.word(1).to_owned());
            named.or_default().push(test);
        }
        lists
    }

    /// The values in a file: one on each line.
    pub(super) fn values(&self, file: &str) -> Option<Vec<String>> {
        let path = self.folder.join(file);
        let size = fs::metadata(&path).ok()?.len();
        let text = (size <= LARGEST).then(|| fs::read_to_string(&path).ok())??;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        Some(lines.map(str::to_owned).collect())
    }
}

/// The alternatives that a line holds for; one without terms holds always.
pub(super) fn of(line: &Line, lists: &Lists) -> Vec<All> {
    let begin = line
        .words
        .iter()
        .position(|word| word == "if" || word == "unless");
    let Some(begin) = begin else {
        return vec![All::new()];
    };
    let unless = line.words[begin] == "unless";
    let mut alternatives = vec![Vec::new()];
    let mut words = line.words[begin + 1..].iter().peekable();
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("or") || word == "||" {
            alternatives.push(Vec::new());
            continue;
        }
        let (mut not, mut name) = (false, word.as_str());
        while let Some(rest) = name.strip_prefix('!') {
            (not, name) = (!not, rest);
        }
        // A lone `!` belongs to what follows.
        if name.is_empty() {
            name = words.next().map_or("", String::as_str);
        }
        let tests = match name {
            "{" => {
                let inner: Vec<_> = words
                    .by_ref()
                    .take_while(|word| *word != "}")
                    .cloned()
                    .collect();
                vec![lists.test(&inner)]
            }
            "TRUE" => vec![Test::Always],
            "FALSE" => {
                not = !not;
                vec![Test::Always]
            }
            "HTTP" | "HTTP_1.1" if !lists.tcp => vec![Test::Always],
            name => match lists.named.get(name) {
                Some(tests) => tests.clone(),
                None => match sample::predefined(name) {
                    Some(test) => vec![test],
                    None => vec![Test::Unknown(name.to_owned())],
                },
            },
        };
        if let Some(all) = alternatives.last_mut() {
            all.push((not, tests));
        }
    }
    let mut found: Vec<All> = Vec::new();
    for all in alternatives {
        found.extend(spread(all));
    }
    match unless {
        true => negated(&found),
        false => found,
    }
}

/// Several tests of one name are alternatives, unless they are of one kind.
fn spread(all: Vec<(bool, Vec<Test>)>) -> Vec<All> {
    let mut found = vec![All::new()];
    for (not, tests) in all {
        let tests = merged(tests);
        if not {
            // None of them.
            for all in &mut found {
                all.extend(tests.iter().map(|test| term(not, test)));
            }
            continue;
        }
        let each = found.iter().flat_map(|all| {
            tests.iter().map(|test| {
                let mut all = all.clone();
                all.push(term(not, test));
                all
            })
        });
        found = each.collect();
    }
    found
}

/// A test that holds, or does not.
pub(super) fn term(not: bool, test: &Test) -> Term {
    match test {
        Test::Never => Term {
            not: !not,
            test: Test::Always,
        },
        test => Term {
            not,
            test: test.clone(),
        },
    }
}

pub(super) fn merged(tests: Vec<Test>) -> Vec<Test> {
    let mut found: Vec<Test> = Vec::new();
    for test in tests {
        match (found.last_mut(), test) {
            (Some(Test::Host(all)), Test::Host(more)) => all.join(more),
            (Some(Test::Exact(all)), Test::Exact(more))
            | (Some(Test::Prefix(all)), Test::Prefix(more))
            | (Some(Test::Client(all)), Test::Client(more)) => all.extend(more),
            (
                Some(Test::Value { of, pattern }),
                Test::Value {
                    of: other,
                    pattern: more,
                },
            ) if *of == other => *pattern = formula::any(&[pattern.clone(), more]),
            (_, test) => found.push(test),
        }
    }
    found
}

/// What holds where none of these does.
fn negated(alternatives: &[All]) -> Vec<All> {
    // Alternatives that one rule may come to.
    const MOST: usize = 32;
    let mut found = vec![All::new()];
    for one in alternatives {
        let opposites = one.iter().map(|term| Term {
            not: !term.not,
            test: term.test.clone(),
        });
        let opposites: Vec<_> = opposites.collect();
        let each = found.iter().flat_map(|all| {
            opposites.iter().map(|term| {
                let mut all = all.clone();
                all.push(term.clone());
                all
            })
        });
        found = each.take(MOST + 1).collect();
        if found.len() > MOST {
            return vec![vec![Term {
                not: true,
                test: Test::Unknown("too many at once".to_owned()),
            }]];
        }
    }
    found
}

impl Lists {
    /// One criterion with its values.
    fn test(&self, words: &[String]) -> Test {
        let shown = words.join(" ");
        let Some(criterion) = words.first() else {
            return Test::Unknown(shown);
        };
        let (mut caseless, mut how, mut values) = (false, None, Vec::new());
        let mut rest = words[1..].iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "-i" => caseless = true,
                "-m" => how = rest.next().map(String::as_str),
                "--" => {
                    values.extend(rest.by_ref().cloned());
                }
                "-n" => {}
                "-f" => match rest.next().and_then(|file| self.values(file)) {
                    Some(more) => values.extend(more),
                    None => return Test::Unknown(shown),
                },
                // What is changed while it runs is not known here.
                "-M" | "-u" => return Test::Unknown(shown),
                value => values.push(value.to_owned()),
            }
        }
        if criterion.contains(",map")
            && how == Some("found")
            && values.is_empty()
            && let Some(test) = map::found(criterion, self)
        {
            return test;
        }
        // Names of cookies and parameters are told apart by case.
        let known = criterion.to_ascii_lowercase().contains("(host)") || criterion == "url_beg";
        if !known && let Some(test) = sample::test(criterion, how, caseless, &values) {
            return test;
        }
        if let Some(name) = criterion
            .strip_prefix("env(")
            .and_then(|n| n.strip_suffix(')'))
            && how == Some("bool")
            && values.is_empty()
        {
            // The environment is that of the importer, as everywhere.
            let value = std::env::var(name).unwrap_or_default().to_ascii_lowercase();
            return match value.parse::<i64>() {
                Ok(0) => Test::Never,
                Ok(_) => Test::Always,
                Err(_) if ["true", "yes", "on"].contains(&value.as_str()) => Test::Always,
                Err(_) => Test::Never,
            };
        }
        let criterion = criterion.to_ascii_lowercase();
        let name = match criterion.split_once(',') {
            // Paths are compared so in any case.
            // A converter makes it the whole path that is compared, whatever its name says.
            Some((name, "url_dec")) if name.starts_with("path") => "path",
            Some((name, "lower" | "url_dec,lower" | "lower,url_dec"))
                if name.starts_with("path") =>
            {
                caseless = true;
                "path"
            }
            // Neither case nor port is part of a site's name.
            Some((name, "lower" | "field(1,:)" | "field(1,:),lower" | "lower,field(1,:)")) => name,
            Some((name, "host_only" | "host_only,lower" | "lower,host_only")) => name,
            Some(_) => return Test::Unknown(shown),
            None => &criterion,
        };
        let name = name
            .trim_start_matches("req.")
            .trim_start_matches("req_")
            .to_owned();
        let host = [
            "hdr",
            "ssl_fc_sni",
            "ssl_fc_sni_end",
            "ssl_sni",
            "ssl_sni_end",
            "ssl_fc_sni_reg",
            "hdr_dom",
            "hdr_end",
            "hdr_reg",
            "hdr_beg",
            "hdr_sub",
        ];
        let (kind, of) = name.split_once('(').unwrap_or((&name, ""));
        if host.contains(&kind) && (of.starts_with("host") || kind.starts_with("ssl_")) {
            let how = how.unwrap_or(match kind {
                "hdr_end" | "ssl_fc_sni_end" | "ssl_sni_end" => "end",
                "ssl_fc_sni_reg" => "reg",
                "hdr_dom" => "dom",
                "hdr_reg" => "reg",
                "hdr_beg" => "beg",
                "hdr_sub" => "sub",
                _ => "str",
            });
            if kind.starts_with("ssl_fc_") && !self.over_tls && !self.tcp {
                return Test::Never;
            }
            if self.tcp && how == "found" && values.is_empty() {
                return Test::Host(Hosts::named(vec!["*".to_owned()]));
            }
            // Of a connection, names are all that is asked.
            if self.tcp
                && how == "reg"
                && let Some(names) = host::names_of(&values)
            {
                return Test::Host(Hosts::named(names));
            }
            return host::test(how, &values).unwrap_or(Test::Unknown(shown));
        }
        let kind = kind.trim_end_matches(')');
        match (kind, how) {
            ("path" | "path_beg" | "path_end" | "path_reg" | "path_dir" | "path_sub", how) => {
                let how = how.unwrap_or_else(|| kind.strip_prefix("path_").unwrap_or("str"));
                path(how, caseless, values).unwrap_or(Test::Unknown(shown))
            }
            ("url_beg", None) if values.iter().all(|value| !value.contains('?')) => {
                Test::Prefix(values)
            }
            ("src", None) => Test::Client(values),
            ("ssl_fc", None) => Test::Tls,
            ("ssl_hello_type", None) if values == ["1"] => Test::Tls,
            ("always_true", None) => Test::Always,
            ("always_false", None) => Test::Never,
            _ => Test::Unknown(shown),
        }
    }
}

fn path(how: &str, caseless: bool, mut values: Vec<String>) -> Option<Test> {
    // No path is without a slash in front.
    if matches!(how, "str" | "beg") && !values.is_empty() {
        values.retain(|value| value.starts_with('/'));
        if values.is_empty() {
            return Some(Test::Never);
        }
    }
    let escape = |text: &String| regex::escape(text);
    let prefix = if caseless { "(?i)" } else { "" };
    let expressions = |make: &dyn Fn(&String) -> String| {
        Some(Test::Regex(
            values
                .iter()
                .map(|value| format!("{prefix}{}", make(value)))
                .collect(),
        ))
    };
    match how {
        "str" if !caseless => Some(Test::Exact(values)),
        "beg" if !caseless => Some(Test::Prefix(values)),
        "str" => expressions(&|text| format!("^{}$", escape(text))),
        "beg" => expressions(&|text| format!("^{}", escape(text))),
        "end" => expressions(&|text| format!("{}$", escape(text))),
        "sub" => expressions(&|text| escape(text)),
        "dir" => expressions(&|text| {
            let parts = text.trim_matches('/');
            format!("/{}(?:/|$)", regex::escape(parts))
        }),
        "reg" => expressions(&|text| text.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::Place;

    fn of_line(line: &str) -> Vec<All> {
        let words = line.split(' ').map(str::to_owned).collect();
        let place = Place {
            file: std::path::Path::new("x").into(),
            line: 1,
        };
        let lists = [
            (
                "h".to_owned(),
                vec![Test::Host(Hosts::named(vec!["a.test".to_owned()]))],
            ),
            ("p".to_owned(), vec![Test::Prefix(vec!["/p".to_owned()])]),
        ];
        let lists = Lists {
            named: BTreeMap::from(lists),
            ..Lists::default()
        };
        of(&Line { words, place }, &lists)
    }

    #[test]
    fn conditions_are_alternatives_of_terms() {
        let term = |not, test| Term { not, test };
        let host = || Test::Host(Hosts::named(vec!["a.test".to_owned()]));
        let path = || Test::Prefix(vec!["/p".to_owned()]);
        for (line, expected) in [
            ("use_backend x", vec![vec![]]),
            (
                "x if h p",
                vec![vec![term(false, host()), term(false, path())]],
            ),
            (
                "x if h or p",
                vec![vec![term(false, host())], vec![term(false, path())]],
            ),
            ("x if !h", vec![vec![term(true, host())]]),
            ("x unless h", vec![vec![term(true, host())]]),
            ("x if { path_beg /p }", vec![vec![term(false, path())]]),
            ("x if !{ ssl_fc }", vec![vec![term(true, Test::Tls)]]),
            (
                "x if { path -i -m end .php }",
                vec![vec![term(
                    false,
                    Test::Regex(vec![r"(?i)\.php$".to_owned()]),
                )]],
            ),
            (
                "x if nobody",
                vec![vec![term(false, Test::Unknown("nobody".to_owned()))]],
            ),
        ] {
            assert_eq!(of_line(line), expected, "{line}");
        }
    }
}
