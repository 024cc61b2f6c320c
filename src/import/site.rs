//! Sites as they are written: what holds in all routes is said once, at the site.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::import::formula::{self, All};
use crate::import::{Place, array, quoted};

/// What holds in a site or route: keys with their values, as TOML.
#[derive(Clone, Debug, Default)]
pub(in crate::import) struct Rules(BTreeMap<Key, String>);

/// A key, or one field in a list of changes to fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Plain(&'static str),
    Field {
        side: Side,
        change: Change,
        /// In lower case, and as it is written.
        name: (String, String),
    },
}

/// Which messages a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::import) enum Side {
    Request,
    Response,
}

impl Side {
    const fn key(self) -> &'static str {
        match self {
            Self::Request => "request_headers",
            Self::Response => "response_headers",
        }
    }
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::import) enum Change {
    Remove,
    Set,
    SetIfOk,
    Add,
    AddIfOk,
}

impl Change {
    const fn key(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Set => "set",
            Self::SetIfOk => "set_if_ok",
            Self::Add => "add",
            Self::AddIfOk => "add_if_ok",
        }
    }
}

impl Key {
    const fn name(&self) -> &'static str {
        match self {
            Self::Plain(name) => name,
            Self::Field { side, .. } => side.key(),
        }
    }

    /// What a route says that a field of responses, which its site sets, is not for.
    fn taken_back(&self) -> Option<Self> {
        match self {
            Self::Field {
                side: Side::Response,
                change: Change::Set | Change::SetIfOk | Change::Add | Change::AddIfOk,
                name,
            } => Some(Self::Field {
                side: Side::Response,
                change: Change::Remove,
                name: name.clone(),
            }),
            Self::Field { .. } | Self::Plain(_) => None,
        }
    }

    /// Whether both are about one field.
    fn is_beside(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Field { side, name, .. },
                Self::Field {
                    side: there,
                    name: (other, _),
                    ..
                },
            ) => side == there && name.0 == *other,
            _ => false,
        }
    }
}

impl Rules {
    pub(in crate::import) fn insert(&mut self, key: &'static str, value: String) {
        self.0.insert(Key::Plain(key), value);
    }

    pub(in crate::import) fn change(
        &mut self,
        side: Side,
        change: Change,
        name: &str,
        value: String,
    ) {
        let name = (name.to_ascii_lowercase(), name.to_owned());
        let key = Key::Field { side, change, name };
        match self.0.get_mut(&key) {
            // Several values of one field.
            Some(before) if matches!(change, Change::Add | Change::AddIfOk) => {
                *before = format!("{before}, {value}")
            }
            _ => drop(self.0.insert(key, value)),
        }
    }

    pub(in crate::import) fn remove(&mut self, key: &'static str) {
        self.0.remove(&Key::Plain(key));
    }

    /// What a key is, as TOML.
    pub(in crate::import) fn plain(&self, key: &'static str) -> Option<&str> {
        self.0.get(&Key::Plain(key)).map(String::as_str)
    }

    /// What a field is changed to, as TOML.
    pub(in crate::import) fn field(&self, side: Side, name: &str) -> Option<&str> {
        let is = |key: &Key| match key {
            Key::Field {
                side: there,
                name: (lower, _),
                ..
            } => *there == side && lower.eq_ignore_ascii_case(name),
            Key::Plain(_) => false,
        };
        let found = self.0.iter().find(|(key, _)| is(key));
        found.map(|(_, value)| value.as_str())
    }

    /// That what clients say in fields of requests that are set or removed is not believed.
    pub(in crate::import) fn unbelieved(&self) -> Self {
        let mut rules = Self::default();
        for key in self.0.keys() {
            if let Key::Field {
                side: Side::Request,
                change: Change::Set | Change::Remove,
                name,
            } = key
            {
                rules.change(Side::Request, Change::Remove, &name.1, String::new());
            }
        }
        rules
    }

    /// Whether other fields of responses than this one are changed.
    pub(in crate::import) fn has_fields_beside(&self, known: &str) -> bool {
        self.0.keys().any(|key| match key {
            Key::Field { side, name, .. } => *side == Side::Response && name.0 != known,
            Key::Plain(_) => false,
        })
    }

    /// Takes away what is said of responses' fields.
    pub(in crate::import) fn without_response_fields(&mut self) {
        self.0.retain(|key, _| {
            let of_side = matches!(key, Key::Field { side, .. } if *side == Side::Response);
            !(of_side || *key == Key::Plain("hsts"))
        });
    }

    pub(in crate::import) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The same, but that fields which both add are added both.
    pub(in crate::import) fn join(&mut self, other: Self) {
        for (key, value) in other.0 {
            match (&key, self.0.get_mut(&key)) {
                (
                    Key::Field {
                        change: Change::Add | Change::AddIfOk,
                        ..
                    },
                    Some(before),
                ) => *before = format!("{before}, {value}"),
                _ => drop(self.0.insert(key, value)),
            }
        }
    }

    /// Adds a name to a list of names.
    pub(in crate::import) fn include(&mut self, key: &'static str, name: &str) {
        let name = quoted(name);
        let list = match self.0.get(&Key::Plain(key)) {
            Some(list) if list.contains(&name) => return,
            Some(list) => format!("{}, {name}]", list.trim_end_matches(']')),
            None => format!("[{name}]"),
        };
        self.insert(key, list);
    }

    pub(in crate::import) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lines of TOML.
    pub(in crate::import) fn text(&self) -> String {
        let mut lines: BTreeMap<&str, BTreeMap<Option<Change>, Vec<String>>> = BTreeMap::new();
        for (key, value) in &self.0 {
            let line = lines.entry(key.name()).or_default();
            match key {
                Key::Plain(_) => line.entry(None).or_default().push(value.clone()),
                Key::Field { change, name, .. } => {
                    let name = quoted(&name.1);
                    line.entry(Some(*change)).or_default().push(match change {
                        Change::Remove => name,
                        Change::Add | Change::AddIfOk if value.contains("\", \"") => {
                            format!("{name} = [{value}]")
                        }
                        _ => format!("{name} = {value}"),
                    });
                }
            }
        }
        let mut text = String::new();
        for (name, changes) in lines {
            let parts = changes.into_iter().map(|(change, parts)| {
                let parts = parts.join(", ");
                match change {
                    None => parts,
                    Some(Change::Remove) => format!("remove = [{parts}]"),
                    Some(change) => format!("{} = {{ {parts} }}", change.key()),
                }
            });
            let parts = parts.collect::<Vec<_>>().join(", ");
            let _ = match name {
                "request_headers" | "response_headers" => writeln!(text, "{name} = {{ {parts} }}"),
                _ => writeln!(text, "{name} = {parts}"),
            };
        }
        text
    }
}

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::import) enum Matcher {
    /// All of them, with conditions; before all other routes.
    Any,
    Exact(String),
    Regex(String),
    /// Those that begin with it.
    Prefix(String),
}

impl Matcher {
    /// Whether it is for a path, as far as one location tells.
    pub(in crate::import) fn is_for(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(own) => own == path,
            Self::Prefix(own) => path.starts_with(own.as_str()),
            Self::Regex(expression) => regex::bytes::RegexBuilder::new(expression)
                .unicode(false)
                .build()
                .is_ok_and(|expression| expression.is_match(path.as_bytes())),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Exact(path) => format!("exact = {}\n", quoted(path)),
            Self::Regex(pattern) => format!("regex = {}\n", quoted(pattern)),
            Self::Prefix(path) if path.ends_with('/') => format!("path = {}\n", quoted(path)),
            Self::Prefix(text) => format!("starts_with = {}\n", quoted(text)),
        }
    }
}

/// What is done with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Deed {
    /// It goes to an upstream.
    Forward,
    /// It is answered here.
    Answer,
    /// It must not be answered until somebody has decided how.
    Closed,
}

/// One route.
#[derive(Clone, Debug)]
pub(in crate::import) struct Route {
    pub(in crate::import) place: Place,
    pub(in crate::import) matcher: Matcher,
    /// What it asks of requests, beside their paths.
    pub(in crate::import) conditions: All,
    /// No expression is tried where this is the longest prefix.
    pub(in crate::import) last: bool,
    pub(in crate::import) deed: Deed,
    /// Lines that say what is done.
    pub(in crate::import) action: Vec<String>,
    pub(in crate::import) rules: Rules,
}

/// One site.
#[derive(Clone, Debug)]
pub(in crate::import) struct Site {
    pub(in crate::import) place: Place,
    pub(in crate::import) names: Vec<String>,
    pub(in crate::import) default: bool,
    /// What is said of the site alone: TLS.
    pub(in crate::import) tls: Vec<String>,
    pub(in crate::import) routes: Vec<Route>,
}

/// What is done where nothing else is said.
pub(in crate::import) const CLOSED: &str = "respond = 503";

/// What makes no difference to a request that is answered here.
const OF_UPSTREAMS: [&str; 11] = [
    "compression",
    "compression_effort",
    "compression_minimum",
    "compression_types",
    "cookies",
    "rewrite_location",
    "request_headers",
    "request_body",
    "timeouts",
    "error_pages",
    "quotas",
];

impl Route {
    /// Whether it is all the same to this route what is said of a key.
    fn is_indifferent(&self, key: &str) -> bool {
        match self.deed {
            Deed::Forward => false,
            Deed::Answer => OF_UPSTREAMS.contains(&key),
            Deed::Closed => true,
        }
    }
}

impl Site {
    /// What all routes say alike.
    fn hoist(&mut self) -> Rules {
        let mut common = Rules::default();
        let keys: BTreeSet<_> = (self.routes.iter())
            .flat_map(|route| route.rules.0.keys().cloned())
            .collect();
        for key in keys {
            let said = || {
                (self.routes.iter())
                    .filter(|route| !route.is_indifferent(key.name()))
                    .map(|route| route.rules.0.get(&key))
            };
            let Some(first) = said().flatten().next().cloned() else {
                continue;
            };
            // It can be taken back.
            let revocable = key == Key::Plain("hsts");
            let silent = said().filter(Option::is_none).count();
            let several = silent < said().count() - silent;
            let taken = key.taken_back().filter(|_| several);
            let lacks = |route: &Route| {
                taken.is_some() && route.deed == Deed::Answer && !route.rules.0.contains_key(&key)
            };
            let alike = self.routes.iter().all(|route| {
                let other = route.rules.0.get(&key);
                route.is_indifferent(key.name())
                    || lacks(route)
                    || other.map_or(revocable, |other| *other == first)
            });
            let alone = |route: &Route| {
                lacks(route) || !route.rules.0.keys().any(|k| *k != key && k.is_beside(&key))
            };
            if !alike || !self.routes.iter().all(alone) {
                continue;
            }
            for route in &mut self.routes {
                let indifferent = route.is_indifferent(key.name());
                if route.rules.0.remove(&key).is_none() && !indifferent {
                    match &taken {
                        Some(back) => route.rules.0.insert(back.clone(), String::new()),
                        None => route.rules.0.insert(key.clone(), "false".to_owned()),
                    };
                }
            }
            common.0.insert(key, first);
        }
        common
    }

    /// As TOML.
    pub(in crate::import) fn text(mut self) -> String {
        let common = self.hoist();
        let root = Matcher::Prefix("/".to_owned());
        // What is done with all that is left is said at the site.
        let rest = (self.routes.iter())
            .position(|route| {
                route.matcher == root
                    && route.conditions.is_empty()
                    && route.rules.is_empty()
                    && !route.last
            })
            .map(|at| self.routes.remove(at));
        let mut text = format!(
            "\n[[site]]  # from {}\nnames = {}\n",
            self.place,
            array(&self.names)
        );
        if self.default {
            text.push_str("default = true\n");
        }
        if let Some(rest) = rest {
            actions(&rest, &mut text);
        }
        text.push_str(&common.text());
        for line in &self.tls {
            let _ = writeln!(text, "{line}");
        }
        for route in &self.routes {
            let (place, line) = (&route.place, route.matcher.line());
            let _ = write!(text, "\n[[site.route]]  # from {place}\n{line}");
            text.push_str(&formula::lines(&route.conditions));
            if route.last {
                text.push_str("final = true\n");
            }
            actions(route, &mut text);
            text.push_str(&route.rules.text());
        }
        text
    }
}

/// Takes out what nothing reaches, as what stands before it asks for the same.
pub(in crate::import) fn without_repeated(routes: &mut Vec<Route>) {
    let mut kept: Vec<Route> = Vec::with_capacity(routes.len());
    for route in std::mem::take(routes) {
        let same = |one: &Route| one.matcher == route.matcher && one.conditions == route.conditions;
        if !kept.iter().any(same) {
            kept.push(route);
        }
    }
    *routes = kept;
}

fn actions(route: &Route, text: &mut String) {
    for line in &route.action {
        let closed = match route.deed {
            Deed::Closed => format!("  # closed: see {}", route.place),
            _ => String::new(),
        };
        let _ = writeln!(text, "{line}{closed}");
    }
}
