//! What holds for some requests only: alternatives of conditions, as routes ask them.

use std::fmt::Write as _;

use super::{array, quoted};

/// Alternatives that one rule may come to: there is a route for each.
const MOST: usize = 16;

/// One thing that is asked of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::import) enum Ask {
    /// An expression matches a value, which is written with variables.
    Value { of: String, pattern: String },
    /// The client is in one of these networks.
    Client(Vec<String>),
}

/// It, or what is not it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::import) struct Term {
    pub(in crate::import) not: bool,
    pub(in crate::import) ask: Ask,
}

impl Term {
    /// Whether the client has to be in two lists of networks, which no route can ask.
    pub(in crate::import) fn has_two_networks(all: &[Self]) -> bool {
        let inside = |term: &&Self| !term.not && matches!(term.ask, Ask::Client(_));
        all.iter().filter(inside).count() > 1
    }

    /// What holds where this does not.
    pub(in crate::import) fn opposite(&self) -> Self {
        Self {
            not: !self.not,
            ask: self.ask.clone(),
        }
    }

    /// An expression that matches a value, or does not.
    pub(in crate::import) fn of(of: &str, pattern: String, not: bool) -> Self {
        let of = of.to_owned();
        Self {
            not,
            ask: Ask::Value { of, pattern },
        }
    }
}

/// What a route asks for: all of these.
pub(in crate::import) type All = Vec<Term>;

/// One of these holds. Without any it never does; with an empty one it always does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::import) struct Formula(Vec<All>);

impl Formula {
    pub(in crate::import) fn never() -> Self {
        Self(Vec::new())
    }

    pub(in crate::import) fn always() -> Self {
        Self(vec![All::new()])
    }

    pub(in crate::import) fn is(yes: bool) -> Self {
        match yes {
            true => Self::always(),
            false => Self::never(),
        }
    }

    pub(in crate::import) fn of(not: bool, ask: Ask) -> Self {
        Self(vec![vec![Term { not, ask }]])
    }

    /// An expression that matches a value, or does not.
    pub(in crate::import) fn value(of: &str, pattern: String, not: bool) -> Self {
        Self(vec![vec![Term::of(of, pattern, not)]])
    }

    pub(in crate::import) fn is_never(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::import) fn is_always(&self) -> bool {
        self.0.iter().any(Vec::is_empty)
    }

    /// `None`: there are too many.
    pub(in crate::import) fn or(&self, other: &Self) -> Option<Self> {
        let all = self.0.iter().chain(&other.0).cloned();
        Self(all.collect()).settled()
    }

    /// See [`Formula::or`].
    pub(in crate::import) fn and(&self, other: &Self) -> Option<Self> {
        let pairs = (self.0.iter()).flat_map(|one| other.0.iter().map(move |two| (one, two)));
        let all = pairs.map(|(one, two)| one.iter().chain(two).cloned().collect());
        Self(all.collect()).settled()
    }

    /// See [`Formula::or`].
    pub(in crate::import) fn not(&self) -> Option<Self> {
        let mut found = Self::always();
        for all in &self.0 {
            let opposites = all.iter().map(|term| vec![term.opposite()]);
            found = found.and(&Self(opposites.collect()))?;
        }
        Some(found)
    }

    /// Without what says nothing new.
    fn settled(self) -> Option<Self> {
        let mut found: Vec<All> = Vec::new();
        for all in self.0 {
            let mut one = All::new();
            for term in all {
                if !one.contains(&term) {
                    one.push(term);
                }
            }
            let both = |term: &Term| {
                one.iter()
                    .any(|other| other.ask == term.ask && other.not != term.not)
            };
            let within = |wide: &All, narrow: &All| wide.iter().all(|term| narrow.contains(term));
            if one.iter().any(both) || found.iter().any(|other| within(other, &one)) {
                continue;
            }
            found.retain(|other| !within(&one, other));
            found.push(one);
        }
        (found.len() <= MOST).then_some(Self(found))
    }

    /// The alternatives, where each can be what a route asks for.
    pub(in crate::import) fn alternatives(&self) -> Option<Vec<All>> {
        let two = self.0.iter().any(|all| Term::has_two_networks(all));
        (!two).then(|| self.0.clone())
    }
}

/// Conditions of a route, as lines of TOML.
pub(in crate::import) fn lines(all: &All) -> String {
    let mut text = String::new();
    for (key, not) in [("when", false), ("unless", true)] {
        let mut values: Vec<(&str, Vec<String>)> = Vec::new();
        for term in all.iter().filter(|term| term.not == not) {
            let Ask::Value { of, pattern } = &term.ask else {
                continue;
            };
            let pattern = quoted(pattern);
            match values.iter_mut().find(|(known, _)| known == of) {
                Some((_, patterns)) => patterns.push(pattern),
                None => values.push((of, vec![pattern])),
            }
        }
        if values.is_empty() {
            continue;
        }
        let values = values.into_iter().map(|(of, patterns)| {
            let patterns = match patterns.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            format!("{} = {patterns}", quoted(of))
        });
        let values: Vec<_> = values.collect();
        let _ = writeln!(text, "{key} = {{ {} }}", values.join(", "));
    }
    for (key, not) in [("clients", false), ("except_clients", true)] {
        let nets = all.iter().filter_map(|term| match &term.ask {
            Ask::Client(nets) if term.not == not => Some(nets),
            _ => None,
        });
        let nets: Vec<_> = nets.flatten().collect();
        if !nets.is_empty() {
            let _ = writeln!(text, "{key} = {}", array(nets));
        }
    }
    text
}

/// One expression for several.
pub(in crate::import) fn any(patterns: &[String]) -> String {
    match patterns {
        [one] => one.clone(),
        several => {
            let each: Vec<_> = several.iter().map(|one| format!("(?:{one})")).collect();
            each.join("|")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str) -> Formula {
        Formula::value(name, "x".to_owned(), false)
    }

    /// Whether it holds where these do.
    fn holds(formula: &Formula, those: &[&str]) -> bool {
        formula.0.iter().any(|all| {
            all.iter().all(|term| match &term.ask {
                Ask::Value { of, .. } => those.contains(&of.as_str()) != term.not,
                Ask::Client(_) => false,
            })
        })
    }

    #[test]
    fn formulas_hold_where_what_they_are_made_of_does() {
        let (a, b, c) = (one("a"), one("b"), one("c"));
        let made = a.and(&b).and_then(|both| both.or(&c.not()?)).unwrap();
        let not = made.not().unwrap();
        for those in 0..8_usize {
            let named = ["a", "b", "c"].into_iter().enumerate();
            let those: Vec<_> = (named.filter(|(at, _)| those >> at & 1 == 1))
                .map(|(_, name)| name)
                .collect();
            let has = |name| those.contains(&name);
            let expected = has("a") && has("b") || !has("c");
            assert_eq!(holds(&made, &those), expected, "{those:?}");
            assert_eq!(holds(&not, &those), !expected, "{those:?}");
        }
        assert!(a.and(&a.not().unwrap()).unwrap().is_never());
        assert!(Formula::never().not().unwrap().is_always());
        assert_eq!(a.or(&a.and(&b).unwrap()).unwrap(), a);
    }

    #[test]
    fn conditions_are_lines_of_toml() {
        let clients = |net: &str, not| Formula::of(not, Ask::Client(vec![net.to_owned()]));
        let value = |of, pattern: &str, not| Formula::value(of, pattern.to_owned(), not);
        let all = [
            value("{method}", "^GET$", false),
            value("{query:a}", "b", true),
            value("{query:a}", "c", true),
            clients("10.0.0.0/8", false),
            clients("10.0.0.1", true),
        ];
        let all = (all.iter()).fold(Formula::always(), |all, one| all.and(one).unwrap());
        let [only] = all.alternatives().unwrap().try_into().unwrap();
        assert_eq!(
            lines(&only),
            "when = { \"{method}\" = \"^GET$\" }\nunless = { \"{query:a}\" = [\"b\", \"c\"] }\n\
             clients = [\"10.0.0.0/8\"]\nexcept_clients = [\"10.0.0.1\"]\n"
        );
        let two = clients("10.0.0.0/8", false).and(&clients("10.1.0.0/16", false));
        assert_eq!(two.unwrap().alternatives(), None);
    }
}
