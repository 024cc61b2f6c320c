//! What is left to ask of a request where its host is known: paths, clients, other conditions.

use super::condition::{All, Test};
use crate::import::formula::{self, Ask, Term};
use crate::import::site::Matcher;

/// Where something holds; `None`: everywhere.
pub(super) type Places = Option<Vec<Matcher>>;

/// What is left to ask where the host is known.
pub(super) enum Left {
    /// Nothing.
    Everything,
    /// One of these paths.
    Paths(Vec<Matcher>),
    /// Other conditions, and where.
    Some {
        all: formula::All,
        paths: Option<Vec<Matcher>>,
    },
    /// Clients, and where.
    Clients {
        inside: bool,
        nets: Vec<String>,
        paths: Option<Vec<Matcher>>,
    },
    /// What is not known here, and where.
    Unknown {
        what: String,
        paths: Option<Vec<Matcher>>,
        /// Clients that it is not for.
        except: Vec<String>,
        /// What is known of it.
        all: formula::All,
    },
}

impl Left {
    /// What of it is for some paths. `None`: nothing.
    pub(super) fn within(self, only: &[Matcher]) -> Option<Self> {
        let narrow = |paths: Places| match paths {
            None => Some(only.to_vec()),
            Some(paths) => {
                let is_within = |path: &Matcher| {
                    only.iter().any(|only| match (only, path) {
                        (Matcher::Prefix(one), Matcher::Prefix(two) | Matcher::Exact(two)) => {
                            two.starts_with(one.as_str())
                        }
                        (one, two) => one == two,
                    })
                };
                let paths: Vec<_> = paths.into_iter().filter(is_within).collect();
                (!paths.is_empty()).then_some(paths)
            }
        };
        Some(match self {
            Self::Everything => Self::Paths(narrow(None)?),
            Self::Paths(paths) => Self::Paths(narrow(Some(paths))?),
            Self::Some { all, paths } => Self::Some {
                all,
                paths: Some(narrow(paths)?),
            },
            Self::Clients {
                inside,
                nets,
                paths,
            } => Self::Clients {
                inside,
                nets,
                paths: Some(narrow(paths)?),
            },
            Self::Unknown {
                what,
                paths,
                except,
                all,
            } => Self::Unknown {
                what,
                paths: Some(narrow(paths)?),
                except,
                all,
            },
        })
    }
}

/// The paths that something is not for, where it is for all others, whatever else is asked.
pub(super) fn all_but(all: &All, host: &str) -> Option<Vec<Matcher>> {
    let mut found = None;
    for term in all {
        match &term.test {
            Test::Always if !term.not => {}
            Test::Host(names) if host != "*" && is_one_of(host, names) != term.not => {}
            Test::Exact(_) | Test::Prefix(_) | Test::Regex(_) if term.not && found.is_none() => {
                let alone = vec![super::condition::Term {
                    not: false,
                    test: term.test.clone(),
                }];
                match left(&alone, host)? {
                    Left::Paths(paths) => found = Some(paths),
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
    found
}

/// What is left to ask of a request for this host. `None`: it cannot hold.
pub(super) fn left(all: &All, host: &str) -> Option<Left> {
    let (mut paths, mut unknown) = (None, None);
    let mut terms = formula::All::new();
    let mut clients: Option<(bool, Vec<String>)> = None;
    for term in all {
        match &term.test {
            Test::Host(names) => {
                // A wildcard is for one more label here, and for any number of them in HAProxy.
                let deeper = (host == "*").then(|| deeper(names)).flatten();
                match deeper {
                    Some(pattern) => terms.push(Term::of("{host}", pattern, term.not)),
                    None if is_one_of(host, names) == term.not => return None,
                    None => {}
                }
            }
            Test::Tls | Test::Always | Test::Never if term.not => return None,
            Test::Tls | Test::Always | Test::Never => {}
            Test::Client(nets) => match (&mut clients, term.not) {
                (None, not) => clients = Some((!not, nets.clone())),
                (Some((false, known)), true) => known.extend(nets.iter().cloned()),
                _ => unknown = Some("several networks at once".to_owned()),
            },
            Test::Unknown(what) => {
                let not = if term.not { "!" } else { "" };
                unknown = Some(match unknown {
                    Some(before) => format!("{before}, {not}{what}"),
                    None => format!("{not}{what}"),
                });
            }
            Test::Value { of, pattern } => terms.push(Term::of(of, pattern.clone(), term.not)),
            test if term.not || paths.is_some() => match path_pattern(test) {
                Some(pattern) => terms.push(Term::of("{path}", pattern, term.not)),
                None => unknown = Some("several paths at once".to_owned()),
            },
            Test::Exact(list) => paths = Some(list.iter().cloned().map(Matcher::Exact).collect()),
            Test::Prefix(list) => paths = Some(list.iter().cloned().map(Matcher::Prefix).collect()),
            Test::Regex(list) => match crate::import::pattern::all(list) {
                Some(list) => paths = Some(list.into_iter().map(Matcher::Regex).collect()),
                None => unknown = Some(list.join(" ")),
            },
        }
    }
    Some(match (unknown, clients, paths) {
        (Some(what), clients, paths) => {
            let (what, except) = match clients {
                Some((false, nets)) => (what, nets),
                Some((true, _)) => (format!("{what}, src"), Vec::new()),
                None => (what, Vec::new()),
            };
            Left::Unknown {
                what,
                paths,
                except,
                all: terms,
            }
        }
        (None, clients, paths) if !terms.is_empty() => {
            terms.extend(clients.map(|(inside, nets)| Term {
                not: !inside,
                ask: Ask::Client(nets),
            }));
            Left::Some { all: terms, paths }
        }
        (None, Some((inside, nets)), paths) => Left::Clients {
            inside,
            nets,
            paths,
        },
        (None, None, Some(paths)) => Left::Paths(paths),
        (None, None, None) => Left::Everything,
    })
}

/// An expression for the paths of a test.
fn path_pattern(test: &Test) -> Option<String> {
    let each =
        |list: &[String]| -> Vec<_> { list.iter().map(|text| regex::escape(text)).collect() };
    match test {
        Test::Exact(list) => Some(format!("^(?:{})$", each(list).join("|"))),
        Test::Prefix(list) => Some(format!("^(?:{})", each(list).join("|"))),
        Test::Regex(list) => Some(formula::any(&crate::import::pattern::all(list)?)),
        _ => None,
    }
}

/// An expression for hosts of more labels than wildcards are for, where there are any.
fn deeper(names: &[String]) -> Option<String> {
    let parents = names.iter().filter_map(|name| name.strip_prefix("*."));
    let parents: Vec<_> = parents.map(regex::escape).collect();
    (!parents.is_empty()).then(|| match parents.as_slice() {
        [one] => format!(r"\.{one}$"),
        several => format!(r"\.(?:{})$", several.join("|")),
    })
}

fn is_one_of(host: &str, names: &[String]) -> bool {
    names.iter().any(|name| match name.strip_prefix('*') {
        Some(end) => host == name || !host.starts_with('*') && host.ends_with(end),
        None => host == name,
    })
}
