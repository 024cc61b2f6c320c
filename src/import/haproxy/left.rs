//! What is left to ask of a request where its host is known: paths, clients, other conditions.

use super::condition::{All, Test};
use super::host::Holds;
use crate::import::formula::{self, Ask, Term};
use crate::import::pattern;
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
    /// All of it as what routes ask; `Err`: what is not known here.
    pub(super) fn terms(self) -> Result<formula::All, String> {
        let (mut all, paths) = match self {
            Self::Everything => return Ok(formula::All::new()),
            Self::Paths(paths) => (formula::All::new(), Some(paths)),
            Self::Some { all, paths } => (all, paths),
            Self::Clients {
                inside,
                nets,
                paths,
            } => {
                let ask = Ask::Client(nets);
                (vec![Term { not: !inside, ask }], paths)
            }
            Self::Unknown { what, .. } => return Err(what),
        };
        let patterns = paths.map(|paths| {
            let pattern = |path: Matcher| match path {
                Matcher::Any => String::new(),
                Matcher::Exact(path) => format!("^{}$", pattern::literal(&path)),
                Matcher::Prefix(path) => format!("^{}", pattern::literal(&path)),
                Matcher::Regex(pattern) => pattern,
            };
            formula::any(&paths.into_iter().map(pattern).collect::<Vec<_>>())
        });
        all.extend(patterns.map(|pattern| Term::of("{path}", pattern, false)));
        Ok(all)
    }

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
            Test::Host(hosts)
                if matches!(
                    (hosts.holds(host), term.not),
                    (Holds::Always, false) | (Holds::Never, true)
                ) => {}
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
            Test::Host(hosts) => match (hosts.holds(host), term.not) {
                (Holds::Always, true) | (Holds::Never, false) => return None,
                (Holds::Always, false) | (Holds::Never, true) => {}
                (Holds::Where(pattern), not) => terms.push(Term::of("{host}", pattern, not)),
            },
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
