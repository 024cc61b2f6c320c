//! `if`: routes that are for some requests only, before the one that is for all of a path.

use super::action::{Outcome, redirects};
use super::condition::{Asking, Question, Test};
use super::plain::only_redirects;
use super::rules::{Access, access, is_anyway};
use super::scope::Scope;
use super::server::{Server, closed};
use super::value::{By, Part, parts};
use super::{Directive, Import};
use crate::import::Loss;
use crate::import::formula::Formula;
use crate::import::pattern;
use crate::import::site::{CLOSED, Deed, Matcher, Route, Rules};

/// What has become of an `if`.
pub(super) enum Chosen {
    /// It is said, or told of.
    Settled,
    /// What it is in must be closed.
    Shut,
    /// It changes how requests are passed on.
    Passes(Formula),
}

impl Import {
    /// Reads an `if`, and writes the routes of what it answers at once. `matcher`: of what it is in.
    pub(super) fn choose<'d>(
        &mut self,
        directive: &'d Directive,
        server: &mut Server<'d>,
        scope: &Scope<'d>,
        matcher: &Matcher,
        rules: &Rules,
    ) -> Chosen {
        let by = server.variables.by;
        if by == By::Tls && only_redirects(directive, &std::collections::BTreeSet::new()) {
            let advice = "would send a client to where it is: requests always come by https here";
            self.whole(directive, Loss::None, advice);
            return Chosen::Settled;
        }
        let question = Question::of(directive);
        if let Some(Question::File { path, not }) = &question {
            return self.of_file(directive, path, *not, server, scope);
        }
        let formula = match &question {
            Some(Question::Value(value, test)) => self
                .of_host(directive, value, test, server, scope, matcher)
                .or_else(|| asking(server, scope).formula(value, test)),
            _ => None,
        };
        let formula = formula.or_else(|| self.of_more(directive, &question, server, scope));
        let formula = formula.and_then(|formula| formula.and(&server.flags.live));
        let Some(formula) = formula.filter(|one| one.alternatives().is_some()) else {
            for set in directive.inside().iter().filter(|one| one.name == "set") {
                server.flags.set(set, None);
            }
            return match self.condition(directive, by) {
                true => Chosen::Shut,
                false => Chosen::Settled,
            };
        };
        if formula.is_never() {
            if !self.seen.has(directive) {
                let advice = match by {
                    By::Plain => "never holds here: requests come in plain text",
                    By::Tls => "never holds here: requests come by https",
                    By::Both => "never holds here",
                };
                self.whole(directive, Loss::None, advice);
            }
            return Chosen::Settled;
        }
        let expression = question.is_some_and(|question| question.is_expression());
        self.chosen(
            directive, &formula, expression, server, scope, matcher, rules,
        )
    }

    /// What keeps somebody out by an expression that cannot be written here keeps out all that one
    /// which is wider matches.
    fn of_more(
        &mut self,
        directive: &Directive,
        question: &Option<Question>,
        server: &Server<'_>,
        scope: &Scope<'_>,
    ) -> Option<Formula> {
        let refuses = |one: &Directive| match one.name.as_str() {
            "return" => one.first().starts_with('4'),
            name => name == "break",
        };
        let Some(Question::Value(
            value,
            Test::Matches {
                text,
                caseless,
                not: false,
            },
        )) = question
        else {
            return None;
        };
        if !directive.inside().iter().all(refuses) {
            return None;
        }
        let wider = pattern::without_looking(text);
        let test = Test::Matches {
            text: wider.clone(),
            caseless: *caseless,
            not: false,
        };
        let formula = asking(server, scope).formula(value, &test)?;
        let advice = format!(
            "looks ahead or behind, which no expression does here; it keeps out all that {wider} \
             matches, which is more"
        );
        self.lost(directive, advice);
        Some(formula)
    }

    /// What is done where an `if` holds.
    #[allow(clippy::too_many_arguments)] // what is in it, where it stands, what holds there
    fn chosen<'d>(
        &mut self,
        directive: &'d Directive,
        formula: &Formula,
        expression: bool,
        server: &mut Server<'d>,
        scope: &Scope<'d>,
        matcher: &Matcher,
        rules: &Rules,
    ) -> Chosen {
        self.seen.mark(directive);
        let inner = scope.inside(directive.inside());
        let mut passes = false;
        for one in directive.inside() {
            match one.name.as_str() {
                "set" => {
                    self.seen.mark(one);
                    server.flags.set(one, Some(formula));
                }
                "break" => {
                    self.seen.mark(one);
                    let rest = formula.not().and_then(|not| server.flags.live.and(&not));
                    match rest {
                        Some(rest) => server.flags.live = rest,
                        None => self.lost(one, "ends what is looked at, for too many cases"),
                    }
                    break;
                }
                "return" | "rewrite" => {
                    let fits = one.name == "return" || redirects(one);
                    let outer = server.variables.clone();
                    if expression {
                        // They are groups of what was asked, which are not known.
                        server.variables.groups = false;
                        server.variables.named.clear();
                    }
                    self.answers(one, fits, formula, server, &inner, matcher, rules);
                    server.variables = outer;
                    if passes {
                        // What else is in it is for the fields of this answer.
                        return Chosen::Settled;
                    }
                    if fits {
                        return Chosen::Settled;
                    }
                }
                name if is_passing(name) => {
                    passes |= !directive.inside().iter().any(|one| one.name == "return");
                }
                _ => {}
            }
        }
        match passes {
            true => Chosen::Passes(formula.clone()),
            false => Chosen::Settled,
        }
    }

    /// Routes for a `return` or a `rewrite` inside an `if`.
    #[allow(clippy::too_many_arguments)] // what is done, where, and what holds there
    fn answers<'d>(
        &mut self,
        directive: &'d Directive,
        fits: bool,
        formula: &Formula,
        server: &mut Server<'d>,
        scope: &Scope<'d>,
        matcher: &Matcher,
        rules: &Rules,
    ) {
        if !fits {
            let advice = "changes the path of some requests only, which is not carried over";
            return self.lost(directive, advice);
        }
        let asked = match matcher {
            Matcher::Any => Matcher::Prefix("/".to_owned()),
            other => other.clone(),
        };
        let known = server.first.len();
        let made = self.answer(directive, server, scope, asked.clone());
        let mut added = server.first.split_off(known);
        let mut made = match made {
            Some(route) => Some(route),
            // It was told why.
            None if added.is_empty() => Some(closed(directive, asked)),
            None => None,
        };
        let own = self.rules(scope, &server.variables, None);
        if let Some(route) = &mut made {
            if *matcher == Matcher::Any && !formula.is_always() {
                route.matcher = Matcher::Any;
            }
            route.last = server.is_final;
            route.rules = own;
            route.rules.extend(rules.clone());
        }
        for all in formula.alternatives().unwrap_or_default() {
            let with = |route: &Route| Route {
                conditions: all.clone(),
                ..route.clone()
            };
            server.first.extend(added.iter().map(with));
            server.chosen.extend(made.iter().map(with));
        }
        added.clear();
    }

    /// Where a location does by a variable what differs between requests: its values, the last one
    /// for all requests that are left.
    pub(super) fn variants<'d>(
        &self,
        server: &Server<'d>,
        scope: &Scope<'d>,
    ) -> Vec<(Formula, Option<(String, String)>)> {
        let looks = |one: &&Directive| {
            one.name.ends_with("_pass") || matches!(one.name.as_str(), "return" | "add_header")
        };
        // What is answered at once is sent nowhere.
        let answers = scope.here().iter().any(|one| one.name == "return");
        let sent = scope.all("proxy_set_header").into_iter();
        let sent = sent.filter(|set| !answers && !is_anyway(set.first()));
        let fields = scope.all("add_header").into_iter().chain(sent);
        let chosen = scope.here().iter().filter(|one| one.name == "if");
        let chosen = chosen.flat_map(Directive::inside).filter(looks);
        let used = scope
            .here()
            .iter()
            .filter(looks)
            .chain(chosen)
            .chain(fields);
        let texts: Vec<_> = used.flat_map(|one| &one.args).collect();
        let names = texts.iter().flat_map(|text| parts(text));
        let names = names.filter_map(|part| match part {
            Part::Variable(name) => Some(name),
            Part::Text(_) => None,
        });
        // What is set in the location itself.
        let mut flags = server.flags.clone();
        for one in scope.here() {
            let holds = match (one.name.as_str(), Question::of(one)) {
                ("set", _) => {
                    flags.set(one, Some(&Formula::always()));
                    continue;
                }
                ("if", Some(Question::Value(value, test))) => {
                    let asking = Asking {
                        flags: &flags,
                        ..asking(server, scope)
                    };
                    asking.formula(&value, &test)
                }
                ("if", _) => None,
                _ => continue,
            };
            let sets = one.inside().iter().filter(|inner| inner.name == "set");
            sets.for_each(|set| flags.set(set, holds.as_ref()));
        }
        for name in names {
            let asking = Asking {
                flags: &flags,
                ..asking(server, scope)
            };
            let Some(mut values) = asking.values(name) else {
                continue;
            };
            let can = |(formula, _): &(Formula, String)| formula.alternatives().is_some();
            if !values.iter().all(can) {
                continue;
            }
            if let Some((last, _)) = values.last_mut() {
                *last = Formula::always();
            }
            let values = values.into_iter();
            return values
                .map(|(formula, value)| (formula, Some((name.to_owned(), value))))
                .collect();
        }
        vec![(Formula::always(), None)]
    }

    /// Routes for what some requests of a location are passed on with, the last one first, as nginx
    /// takes the last that holds.
    pub(super) fn passing<'d>(
        &mut self,
        found: Vec<(Formula, &'d Directive)>,
        base: &(Deed, Vec<String>, Rules),
        server: &mut Server<'d>,
        matcher: &Matcher,
        scope: &Scope<'d>,
    ) {
        for (formula, directive) in found.into_iter().rev() {
            let inner = scope.inside(directive.inside());
            let who = match access(scope) {
                Access::Said(who) => Some(who),
                _ => None,
            };
            let elsewhere = directive
                .inside()
                .iter()
                .any(|one| one.name.ends_with("_pass"));
            let made = match (elsewhere, base.0, who) {
                (_, Deed::Closed, _) | (true, _, None) => {
                    self.seen.mark_all(directive);
                    continue;
                }
                (true, _, Some(who)) => match self.handler(server, directive, matcher, &inner) {
                    Outcome::Forward(action, mut rules) => {
                        rules.extend(who);
                        (Deed::Forward, action, rules)
                    }
                    Outcome::Answer(action) => (Deed::Answer, action, base.2.clone()),
                    Outcome::Closed => (Deed::Closed, vec![CLOSED.to_owned()], Rules::default()),
                },
                (false, ..) => {
                    let (deed, action, mut rules) = base.clone();
                    rules.without_response_fields();
                    let is_answer = deed != Deed::Forward;
                    self.response_fields(&inner, &server.variables, is_answer, &mut rules);
                    (deed, action, rules)
                }
            };
            let (deed, action, rules) = made;
            for conditions in formula.alternatives().unwrap_or_default() {
                server.chosen.push(Route {
                    conditions,
                    last: server.is_final,
                    deed,
                    action: action.clone(),
                    rules: rules.clone(),
                    ..closed(directive, matcher.clone())
                });
            }
        }
    }

    /// `if ($host ~ …)` whose groups are used: for each name of the server what they are is known.
    fn of_host<'d>(
        &mut self,
        directive: &'d Directive,
        value: &str,
        test: &Test<'_>,
        server: &mut Server<'d>,
        scope: &Scope<'d>,
        matcher: &Matcher,
    ) -> Option<Formula> {
        let Test::Matches {
            text,
            caseless,
            not: false,
        } = test
        else {
            return None;
        };
        let is_used = |arg: &String| {
            let digits = arg.split('$').skip(1);
            let mut digits = digits.map(|rest| rest.trim_start_matches('{'));
            digits.any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let sets_or_returns = |one: &&Directive| matches!(one.name.as_str(), "set" | "return");
        let mut inner = directive.inside().iter().filter(sets_or_returns);
        if !matches!(value, "$host" | "$http_host")
            || !inner.any(|one| one.args.iter().any(is_used))
        {
            return None;
        }
        // With its groups.
        let grouped = pattern::convert(text, *caseless, true).ok()?;
        let grouped = regex::bytes::RegexBuilder::new(&grouped)
            .unicode(false)
            .build();
        let grouped = grouped.ok()?;
        let names = server.names.clone();
        if names.iter().any(|name| name.contains('*') && name != "*") {
            return None;
        }
        let outer = server.variables.clone();
        for name in names.iter().filter(|name| *name != "*") {
            let Some(found) = grouped.captures(name.as_bytes()) else {
                continue;
            };
            for (at, group) in found.iter().enumerate().skip(1) {
                let group = group.map_or(&b""[..], |group| group.as_bytes());
                let group = String::from_utf8_lossy(group).into_owned();
                server.variables.known.insert(at.to_string(), group);
            }
            // A `rewrite` has groups of its own.
            for set in directive.inside().iter().filter(|one| one.name == "set") {
                if let [variable, value] = set.args.as_slice() {
                    let value = server.variables.plain(value);
                    let variable = super::map::bare(variable).to_owned();
                    server.variables.known.insert(variable, value);
                }
            }
            let rewrites = directive.inside().iter().any(|one| one.name == "rewrite");
            if rewrites {
                let is_group = |key: &String| key.starts_with(|c: char| c.is_ascii_digit());
                server.variables.known.retain(|key, _| !is_group(key));
            }
            let pattern = format!("^{}$", regex::escape(name));
            let formula = Formula::value("{host}", pattern, false).and(&server.flags.live)?;
            self.chosen(
                directive,
                &formula,
                false,
                server,
                scope,
                matcher,
                &Rules::default(),
            );
            server.variables = outer.clone();
        }
        Some(Formula::never())
    }

    /// `if (-f …)`: files are not served here, so there are none; but for one that closes a site.
    fn of_file<'d>(
        &mut self,
        directive: &'d Directive,
        path: &str,
        not: bool,
        server: &mut Server<'d>,
        scope: &Scope<'d>,
    ) -> Chosen {
        let closes = directive
            .inside()
            .iter()
            .any(|one| one.name == "return" && one.first() == "503");
        let root = scope.nearest("root").map(Directive::first);
        let file = server.variables.plain(path);
        let file = match (file.strip_prefix("${document_root}"), root) {
            (Some(rest), Some(root)) => format!("{}{rest}", self.absolute(root)),
            _ => file,
        };
        if closes && !not && !file.contains('$') {
            self.seen.mark_all(directive);
            let file = crate::import::quoted(&self.absolute(&file));
            server.rules.insert("maintenance", file);
            return Chosen::Settled;
        }
        if not
            && directive
                .inside()
                .iter()
                .any(|one| one.name == "proxy_pass")
        {
            let advice = "served files where there were any; now all goes to the server behind: let \
                          it serve them";
            self.lost(directive, advice);
            return Chosen::Passes(server.flags.live.clone());
        }
        match self.condition(directive, server.variables.by) {
            true => Chosen::Shut,
            false => Chosen::Settled,
        }
    }
}

fn asking<'a, 'd>(server: &'a Server<'d>, scope: &'a Scope<'d>) -> Asking<'a, 'd> {
    Asking {
        scope,
        variables: &server.variables,
        flags: &server.flags,
    }
}

/// Whether a directive in an `if` says something of requests that go on.
fn is_passing(name: &str) -> bool {
    matches!(
        name,
        "add_header" | "expires" | "more_set_headers" | "more_clear_headers"
    ) || name.ends_with("_pass")
}
