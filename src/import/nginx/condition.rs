//! What an `if` asks, as the conditions of routes: variables of the request, what `map`, `geo` and
//! `valid_referers` make of them, and what `set` says in other `if`s.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Directive;
use super::map::{self, Map};
use super::scope::Scope;
use super::value::{By, Part, Variables, parts};
use crate::import::formula::{self, Ask, Formula};
use crate::import::pattern;

/// Variables in one another.
const DEEPEST: usize = 8;

/// What an `if` asks of a text.
#[derive(Clone, Debug)]
pub(super) enum Test<'t> {
    /// It is not empty, and not `0`.
    Truthy,
    /// It is this one.
    Is { text: String, not: bool },
    /// An expression matches it.
    Matches {
        text: String,
        caseless: bool,
        not: bool,
    },
    /// It is written like this, before anything is put in the place of variables.
    Written(String),
    /// What a map makes of it is asked something.
    Through(&'t Map<'t>, &'t Self),
}

/// What is in the brackets of an `if`.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// A value is looked at.
    Value(String, Test<'static>),
    /// Whether there is a file.
    File { path: String, not: bool },
}

impl Question {
    /// Reads them as nginx does.
    pub(super) fn of(directive: &Directive) -> Option<Self> {
        let mut words: Vec<&str> = directive.args.iter().map(String::as_str).collect();
        let first = words.first_mut()?;
        *first = first.strip_prefix('(')?;
        if first.is_empty() {
            words.remove(0);
        }
        let last = words.last_mut()?;
        *last = last.strip_suffix(')')?;
        if last.is_empty() {
            words.pop();
        }
        Some(match *words.as_slice() {
            [value] if value.starts_with('$') => Self::Value(value.to_owned(), Test::Truthy),
            [op, path] if op.trim_start_matches('!').starts_with('-') => Self::File {
                path: path.to_owned(),
                not: op.starts_with('!'),
            },
            [value, op, text] => {
                let (not, op) = match op.strip_prefix('!') {
                    Some(op) => (true, op),
                    None => (false, op),
                };
                let text = text.to_owned();
                let test = match op {
                    "=" => Test::Is { text, not },
                    "~" | "~*" => Test::Matches {
                        text,
                        caseless: op == "~*",
                        not,
                    },
                    _ => return None,
                };
                Self::Value(value.to_owned(), test)
            }
            // `if ($a = )`, which is `""` to some.
            [value, "="] => Self::Value(
                value.to_owned(),
                Test::Is {
                    text: String::new(),
                    not: false,
                },
            ),
            _ => return None,
        })
    }

    /// Whether its expression has groups, which what follows may use.
    pub(super) fn is_expression(&self) -> bool {
        matches!(self, Self::Value(_, Test::Matches { .. }))
    }
}

impl Test<'_> {
    /// Whether it holds for a text that is known.
    fn on(&self, value: &str) -> Option<bool> {
        Some(match self {
            Self::Truthy => !matches!(value, "" | "0"),
            Self::Is { text, not } => (text == value) != *not,
            Self::Written(text) => text == value,
            Self::Matches {
                text,
                caseless,
                not,
            } => {
                let matches = |text: &str| {
                    let expression = pattern::convert(text, *caseless, false).ok()?;
                    let expression = regex::bytes::RegexBuilder::new(&expression)
                        .unicode(false)
                        .build();
                    Some(expression.ok()?.is_match(value.as_bytes()))
                };
                let found = match pattern::refused_first(text) {
                    Some((no, yes)) => !matches(&no)? && matches(&yes)?,
                    None => matches(text)?,
                };
                found != *not
            }
            Self::Through(map, test) => test.on(&entry_for(map, value)?)?,
        })
    }
}

/// What a map says for a text, where that has no variable in it.
fn entry_for(map: &Map<'_>, value: &str) -> Option<String> {
    let (texts, expressions): (Vec<_>, Vec<_>) =
        (map.entries.iter()).partition(|entry| !entry.name.starts_with('~'));
    let same = |entry: &&&&Directive| map::key(entry).eq_ignore_ascii_case(value);
    let mut found = texts.iter().find(same).map(|entry| **entry);
    for entry in expressions {
        if found.is_none() && Test::of_entry(entry).on(value)? {
            found = Some(*entry);
        }
    }
    let found = found.or(map.default).map_or("", Directive::first);
    (!found.contains('$')).then(|| found.to_owned())
}

impl Test<'static> {
    /// What the entry of a map is for.
    fn of_entry(entry: &Directive) -> Self {
        let (text, not) = (map::key(entry).to_owned(), false);
        match entry.name.strip_prefix('~') {
            None => Self::Matches {
                text: format!("^{}$", pattern::literal(&text)),
                caseless: true,
                not,
            },
            Some(text) => Self::Matches {
                text: text.trim_start_matches('*').to_owned(),
                caseless: text.starts_with('*'),
                not,
            },
        }
    }
}

/// What `set` has said so far: values, and where they hold. `None`: that cannot be told.
#[derive(Clone, Debug)]
pub(super) struct Flags {
    values: BTreeMap<String, Option<Vec<(Formula, String)>>>,
    /// What is left to look at goes for these requests.
    pub(super) live: Formula,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            live: Formula::always(),
        }
    }
}

impl Flags {
    /// `set $name value`, where a formula holds; `None`: where that cannot be told.
    pub(super) fn set(&mut self, set: &Directive, holds: Option<&Formula>) {
        let [name, value] = set.args.as_slice() else {
            return;
        };
        let name = map::bare(name).to_owned();
        // What was never said is nothing, also where a value has the variable itself in it.
        let nothing = || Some(vec![(Formula::always(), String::new())]);
        self.values.entry(name.clone()).or_insert_with(nothing);
        let made = holds.and_then(|holds| self.changed(&name, value, holds));
        self.values.insert(name, made);
    }

    fn changed(&self, name: &str, value: &str, holds: &Formula) -> Option<Vec<(Formula, String)>> {
        let (holds, others) = (holds.and(&self.live)?, holds.and(&self.live)?.not()?);
        let mut made: Vec<(Formula, String)> = Vec::new();
        let mut add = |formula: Formula, value: String| {
            match made.iter_mut().find(|(_, known)| *known == value) {
                Some((known, _)) => *known = known.or(&formula)?,
                None if formula.is_never() => {}
                None => made.push((formula, value)),
            }
            Some(())
        };
        let values = self.expanded(value, 0)?;
        // What is the same for all comes about whatever it was before.
        let constant = match values.as_slice() {
            [(always, value)] if always.is_always() => Some(value),
            _ => None,
        };
        for (formula, value) in &values {
            add(formula.and(&holds)?, value.clone())?;
        }
        for (formula, value) in self.values.get(name)?.clone()? {
            match constant == Some(&value) {
                true => add(formula, value)?,
                false => add(formula.and(&others)?, value)?,
            }
        }
        Some(made)
    }

    /// A text without the variables that `set` has said something of.
    fn expanded(&self, text: &str, depth: usize) -> Option<Vec<(Formula, String)>> {
        let mut made = vec![(Formula::always(), String::new())];
        for part in parts(text) {
            let values = match part {
                Part::Text(text) => vec![(Formula::always(), text.to_owned())],
                // Groups are of the expression that was looked at last.
                Part::Variable(name) if name.starts_with(|c: char| c.is_ascii_digit()) => {
                    return None;
                }
                Part::Variable(name) => match self.values.get(name) {
                    Some(values) => values.clone()?,
                    None => vec![(Formula::always(), format!("${{{name}}}"))],
                },
            };
            let mut next = Vec::new();
            for (one, before) in &made {
                for (two, value) in &values {
                    let both = one.and(two)?;
                    if !both.is_never() {
                        next.push((both, format!("{before}{value}")));
                    }
                }
            }
            made = next;
        }
        (depth < DEEPEST && made.len() <= 32).then_some(made)
    }

    /// What a variable can be, and for whom, where that differs.
    pub(super) fn values(&self, name: &str) -> Option<&[(Formula, String)]> {
        let values = self.values.get(name)?.as_deref()?;
        (values.len() > 1).then_some(values)
    }
}

/// What a question is answered with.
pub(super) struct Asking<'a, 'd> {
    pub(super) scope: &'a Scope<'d>,
    pub(super) variables: &'a Variables,
    pub(super) flags: &'a Flags,
}

impl<'d> Asking<'_, 'd> {
    /// For which requests a test holds. `None`: that cannot be told.
    pub(super) fn formula(&self, text: &str, test: &Test<'_>) -> Option<Formula> {
        self.text(text, test, 0)
    }

    /// What a variable can be, and for which requests; the last one for all others. `None`: it is
    /// the same for all, or that cannot be told.
    pub(super) fn values(&self, name: &str) -> Option<Vec<(Formula, String)>> {
        if self.variables.known.contains_key(name) {
            return None;
        }
        if let Some(values) = self.flags.values(name) {
            return Some(values.to_vec());
        }
        let level = self.scope.outermost();
        let map = map::find(level, name)?;
        let default = map.default.map_or("", Directive::first);
        let mut texts: Vec<&str> = Vec::new();
        for text in map.entries.iter().map(|entry| entry.first()) {
            if text != default && !texts.contains(&text) {
                texts.push(text);
            }
        }
        let has_group = |text: &&str| {
            let mut groups = text.split('$').skip(1);
            groups.any(|rest| {
                rest.trim_start_matches('{')
                    .starts_with(|c: char| c.is_ascii_digit())
            })
        };
        if texts.iter().chain([&default]).any(has_group) {
            return None;
        }
        let mut found = Vec::new();
        for text in texts {
            let written = Test::Written(text.to_owned());
            let test = Test::Through(&map, &written);
            found.push((self.text(map.directive.first(), &test, 0)?, text.to_owned()));
        }
        found.push((Formula::always(), default.to_owned()));
        self.scope.mark_all(map.directive);
        Some(found)
    }

    fn text(&self, text: &str, test: &Test<'_>, depth: usize) -> Option<Formula> {
        if depth > DEEPEST {
            return None;
        }
        if let Test::Written(wanted) = test {
            return Some(Formula::is(wanted == text));
        }
        let mut found = Formula::never();
        for (holds, text) in self.flags.expanded(text, depth)? {
            let holds = holds.and(&self.single(&text, test, depth)?)?;
            found = found.or(&holds)?;
        }
        Some(found)
    }

    /// One that `set` says nothing more of.
    fn single(&self, text: &str, test: &Test<'_>, depth: usize) -> Option<Formula> {
        let text = self.variables.plain(text);
        let found = parts(&text);
        match found.as_slice() {
            [] => test.on("").map(Formula::is),
            [Part::Text(text)] => test.on(text).map(Formula::is),
            [Part::Variable(name)] => self.variable(name, test, depth),
            several => {
                let mut of = String::new();
                for part in several {
                    match part {
                        Part::Text(text) => of.push_str(&super::value::escape(text)),
                        Part::Variable(name) => of.push_str(&self.subject(name)?),
                    }
                }
                self.leaf(&of, test, depth)
            }
        }
    }

    fn variable(&self, name: &str, test: &Test<'_>, depth: usize) -> Option<Formula> {
        let by_scheme = |secure, plain| self.by_scheme(test.on(secure)?, test.on(plain)?);
        let known = match (name, self.variables.by) {
            ("https", By::Both) => return by_scheme("on", ""),
            ("server_port", By::Both) if !self.variables.port => return by_scheme("443", "80"),
            // What a client says of those before it is not believed.
            ("http_x_forwarded_proto", By::Both) => return by_scheme("https", "http"),
            ("http_x_forwarded_proto", By::Tls) => Some("https"),
            (name, _) => self.settled(name),
        };
        if let Some(known) = known {
            return test.on(known).map(Formula::is);
        }
        let level = self.scope.outermost();
        if let Some(map) = map::find(level, name) {
            let source = map.directive.first().to_owned();
            let found = self.text(&source, &Test::Through(&map, test), depth + 1)?;
            self.scope.mark_all(map.directive);
            return Some(found);
        }
        if let Some(geo) = geo(level, name) {
            let found = self.geo(geo, test, depth)?;
            self.scope.mark_all(geo);
            return Some(found);
        }
        match (name, test) {
            ("invalid_referer", _) => self.referers(test),
            ("remote_addr" | "realip_remote_addr", Test::Is { text, not }) => {
                let net = text.parse::<std::net::IpAddr>().ok()?;
                Some(Formula::of(*not, Ask::Client(vec![net.to_string()])))
            }
            _ => self.leaf(&self.subject(name)?, test, depth),
        }
    }

    /// What a variable is for all requests.
    fn settled(&self, name: &str) -> Option<&str> {
        match name {
            "scheme" => self.variables.scheme(),
            "https" => self.variables.https(),
            "server_port" if !self.variables.port => self.variables.usual_port(),
            "server_name" => Some(self.variables.server.as_str()),
            _ => None,
        }
    }

    /// What holds for requests over TLS, and for those in plain text.
    fn by_scheme(&self, secure: bool, plain: bool) -> Option<Formula> {
        match (secure, plain) {
            (true, true) => Some(Formula::always()),
            (false, false) => Some(Formula::never()),
            _ => Some(Formula::value("{scheme}", "^https$".to_owned(), plain)),
        }
    }

    /// How routes call a variable of a request.
    fn subject(&self, name: &str) -> Option<String> {
        let field = |name: &str| Some(format!("{{header:{name}}}"));
        match name {
            "content_type" => field("Content-Type"),
            "content_length" => field("Content-Length"),
            "request_id" | "server_name" => None,
            name if is_table(self.scope, name) => None,
            name => match name.strip_prefix("arg_") {
                Some(name) => Some(format!("{{query:{name}}}")),
                None => self.variables.template(&format!("${{{name}}}")).ok(),
            },
        }
    }

    /// A test of a value that routes can look at.
    fn leaf(&self, of: &str, test: &Test<'_>, depth: usize) -> Option<Formula> {
        // What is always the same is not asked.
        if !of.contains('{') {
            return test.on(of).map(Formula::is);
        }
        let value = |pattern: String, not| Some(Formula::value(of, pattern, not));
        match test {
            Test::Truthy => value("^0?$".to_owned(), true),
            Test::Written(_) => None,
            Test::Is { text, .. } if text.contains('$') => None,
            Test::Is { text, not } => value(format!("^{}$", pattern::literal(text)), *not),
            Test::Matches {
                text,
                caseless,
                not,
            } => {
                let found = matching(of, text, *caseless)?;
                if *not { found.not() } else { Some(found) }
            }
            Test::Through(map, test) => self.entries(of, map, test, depth),
        }
    }

    /// A test of what a map makes of a value, where some entries are more than one expression.
    fn one_by_one<'m>(
        &self,
        of: &str,
        entries: impl Iterator<Item = &'m &'m Directive>,
        map: &Map<'_>,
        test: &Test<'_>,
        depth: usize,
    ) -> Option<Formula> {
        let (mut found, mut none) = (Formula::never(), Formula::always());
        for entry in entries {
            let Test::Matches { text, caseless, .. } = Test::of_entry(entry) else {
                continue;
            };
            let own = matching(of, &text, caseless)?;
            let then = self.text(entry.first(), test, depth + 1)?;
            found = found.or(&own.and(&then)?.and(&none)?)?;
            none = none.and(&own.not()?)?;
        }
        let default = map.default.map_or("", Directive::first);
        let rest = self.text(default, test, depth + 1)?;
        found.or(&none.and(&rest)?)
    }

    /// A test of what a map makes of a value: texts first, then expressions, in their order.
    fn entries(&self, of: &str, map: &Map<'_>, test: &Test<'_>, depth: usize) -> Option<Formula> {
        let wild = |entry: &&&Directive| {
            let special = entry.name.starts_with(['.']) || entry.name.starts_with("*.");
            special
                && map
                    .directive
                    .inside()
                    .iter()
                    .any(|one| one.name == "hostnames")
        };
        if map.entries.iter().any(|entry| wild(&entry)) {
            return None;
        }
        let is_text = |entry: &&&Directive| !entry.name.starts_with('~');
        let texts = map.entries.iter().filter(is_text);
        let expressions = map.entries.iter().filter(|entry| !is_text(entry));
        if (map.entries.iter()).any(|entry| entry.name.contains("^(?!")) {
            return self.one_by_one(of, texts.chain(expressions), map, test, depth);
        }
        let mut found = Formula::never();
        // Those that something else was said of, and those of one kind that follow each other.
        let mut before: Vec<String> = Vec::new();
        let mut run: Vec<String> = Vec::new();
        let none_of = |patterns: &[String]| match patterns {
            [] => Formula::always(),
            some => Formula::value(of, formula::any(some), true),
        };
        for entry in texts.chain(expressions) {
            let Test::Matches { text, caseless, .. } = Test::of_entry(entry) else {
                continue;
            };
            let own = pattern::convert(&text, caseless, false).ok()?;
            let then = self.text(entry.first(), test, depth + 1)?;
            if then.is_always() {
                run.push(own);
                continue;
            }
            if !run.is_empty() {
                let runs = Formula::value(of, formula::any(&run), false);
                found = found.or(&runs.and(&none_of(&before))?)?;
                run.clear();
            }
            let this = Formula::value(of, own.clone(), false).and(&then)?;
            found = found.or(&this.and(&none_of(&before))?)?;
            before.push(own);
        }
        if !run.is_empty() {
            let runs = Formula::value(of, formula::any(&run), false);
            found = found.or(&runs.and(&none_of(&before))?)?;
        }
        let default = map.default.map_or("", Directive::first);
        let rest = self.text(default, test, depth + 1)?;
        if rest.is_never() {
            return Some(found);
        }
        // Those of `run`s hold already, where the rest always does.
        if !rest.is_always() {
            let all = map.entries.iter().map(|entry| match Test::of_entry(entry) {
                Test::Matches { text, caseless, .. } => {
                    pattern::convert(&text, caseless, false).ok()
                }
                _ => None,
            });
            before = all.collect::<Option<_>>()?;
        }
        found.or(&rest.and(&none_of(&before))?)
    }

    /// A test of what `geo` says of clients.
    fn geo(&self, geo: &Directive, test: &Test<'_>, depth: usize) -> Option<Formula> {
        if geo.args.len() == 2 && map::bare(geo.first()) != "remote_addr" {
            return None;
        }
        let (mut yes, mut no, mut rest) = (Vec::new(), Vec::new(), "");
        for entry in geo.inside() {
            if entry.name == "default" {
                rest = entry.first();
                continue;
            }
            let net = (entry.name.parse::<IpNet>())
                .or_else(|_| entry.name.parse::<std::net::IpAddr>().map(Into::into));
            let then = self.text(entry.first(), test, depth + 1)?;
            match (then.is_always(), then.is_never()) {
                (true, _) => yes.push(net.ok()?.trunc()),
                (_, true) => no.push(net.ok()?.trunc()),
                _ => return None,
            }
        }
        let rest = self.text(rest, test, depth + 1)?;
        let clients = |nets: &[IpNet], not| match nets {
            [] => Formula::is(not),
            some => {
                let nets = some.iter().map(IpNet::to_string).collect();
                Formula::of(not, Ask::Client(nets))
            }
        };
        // The narrowest of all that have a client says what holds.
        let inside = |those: &[IpNet], others: &[IpNet]| {
            (those.iter()).any(|net| others.iter().any(|other| other.contains(net)))
        };
        match (rest.is_always(), rest.is_never()) {
            (_, true) if !inside(&yes, &no) => clients(&yes, false).and(&clients(&no, true)),
            (true, _) if !inside(&no, &yes) => clients(&no, true).or(&clients(&yes, false)),
            _ => None,
        }
    }

    /// `$invalid_referer`: from where a client says that it comes.
    fn referers(&self, test: &Test<'_>) -> Option<Formula> {
        let list = self.scope.nearest("valid_referers")?;
        let has = |word: &str| list.args.iter().any(|arg| arg == word);
        let mut hosts = Vec::new();
        for arg in &list.args {
            match arg.as_str() {
                "none" | "blocked" => {}
                "server_names" => {
                    let names = self.scope.all("server_name");
                    let names = names.iter().flat_map(|names| &names.args);
                    for name in names {
                        hosts.push(referer(name)?);
                    }
                }
                arg => hosts.push(referer(arg)?),
            }
        }
        let value =
            |pattern: &str, not| Formula::value("{header:Referer}", pattern.to_owned(), not);
        let mut valid = Formula::never();
        if !hosts.is_empty() {
            valid = valid.or(&value(&formula::any(&hosts), false))?;
        }
        if has("blocked") {
            valid = valid.or(&value("(?i)^https?://", true).and(&value("^$", true))?)?;
        }
        if has("none") {
            valid = valid.or(&value("^$", false))?;
        }
        let (one, none) = (test.on("1")?, test.on("")?);
        let invalid = valid.not()?;
        (invalid.and(&Formula::is(one))?).or(&valid.and(&Formula::is(none))?)
    }
}

/// An expression for a referer of `valid_referers`.
fn referer(name: &str) -> Option<String> {
    if let Some(expression) = name.strip_prefix('~') {
        let expression = expression.trim_start_matches('*');
        let expression = match expression.strip_prefix('^') {
            Some(rest) => rest.to_owned(),
            None => format!(".*(?:{expression})"),
        };
        return pattern::convert(&format!("^https?://{expression}"), true, false).ok();
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (name, None),
    };
    let literal = pattern::literal;
    let host = match (host.strip_prefix("*."), host.strip_suffix(".*")) {
        (Some(rest), None) => format!("[^/:]+\\.{}", literal(rest)),
        (None, Some(rest)) => format!("{}\\.[^/:]+", literal(rest)),
        (None, None) => match host.strip_prefix('.') {
            Some(rest) => format!("(?:[^/:]+\\.)?{}", literal(rest)),
            None => literal(host),
        },
        _ => return None,
    };
    if host.contains("\\*") {
        return None;
    }
    let behind = match path {
        Some(path) => format!("/{}", literal(path)),
        None => "(?:/|$)".to_owned(),
    };
    Some(format!("(?i)^https?://{host}(?::[0-9]*)?{behind}"))
}

/// For which values an expression matches, which may say at its beginning what must not be there.
fn matching(of: &str, text: &str, caseless: bool) -> Option<Formula> {
    let value = |text: &str, not| {
        let pattern = pattern::convert(text, caseless, false).ok()?;
        Some(Formula::value(of, pattern, not))
    };
    match pattern::refused_first(text) {
        Some((no, yes)) => value(&no, true)?.and(&value(&yes, false)?),
        None => value(text, false),
    }
}

/// The `geo` that says what a variable is.
fn geo<'d>(level: &'d [Directive], name: &str) -> Option<&'d Directive> {
    let is = |one: &&Directive| {
        one.name == "geo" && one.args.last().is_some_and(|own| map::bare(own) == name)
    };
    level.iter().find(is)
}

/// Whether a variable is of a table, not of the request.
fn is_table(scope: &Scope<'_>, name: &str) -> bool {
    let level = scope.outermost();
    map::find(level, name).is_some()
        || geo(level, name).is_some()
        || level.iter().any(|one| {
            one.name == "split_clients" && one.args.last().is_some_and(|own| map::bare(own) == name)
        })
}
