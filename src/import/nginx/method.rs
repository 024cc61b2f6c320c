//! Methods that are let through: `limit_except`, and an `if` that asks for nothing else.

use super::rules::{Access, access};
use super::scope::Scope;
use super::server::closed;
use super::{Directive, Import};
use crate::import::array;
use crate::import::formula::Term;
use crate::import::site::{Deed, Matcher, Route, Rules};

/// What is refused by staunch whatever is said.
const NEVER: [&str; 2] = ["TRACE", "CONNECT"];

/// What is left where some methods are refused.
const USUAL: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY",
];

/// A `limit_except`: who may ask by other methods than some.
pub(super) struct Excepted<'d> {
    directive: &'d Directive,
    /// `None`: nobody.
    who: Option<Rules>,
}

impl Excepted<'_> {
    /// The route for those other methods. `base`: what is done with the rest.
    pub(super) fn route(&self, base: &(Deed, Vec<String>, Rules), matcher: &Matcher) -> Route {
        let mut methods: Vec<_> = self.directive.args.iter().map(String::as_str).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        let methods = format!("^(?:{})$", methods.join("|"));
        let (deed, action, rules) = match &self.who {
            None => (
                Deed::Answer,
                vec!["respond = 403".to_owned()],
                Rules::default(),
            ),
            Some(who) => {
                let (deed, action, mut rules) = base.clone();
                rules.extend(who.clone());
                (deed, action, rules)
            }
        };
        Route {
            conditions: vec![Term::of("{method}", methods, true)],
            deed,
            action,
            rules,
            ..closed(self.directive, matcher.clone())
        }
    }
}

impl Import {
    /// Reads a `limit_except`. `None`: what it asks for is left to whoever looks for guards.
    pub(super) fn excepted<'d>(
        &self,
        directive: &'d Directive,
        scope: &Scope<'d>,
    ) -> Option<Excepted<'d>> {
        let mut inner = directive.inside().iter();
        if !inner.all(|one| matches!(one.name.as_str(), "allow" | "deny")) {
            return None;
        }
        let who = match access(&scope.inside(directive.inside())) {
            Access::Nobody => None,
            Access::Said(rules) => Some(rules),
            Access::Unclear(_) => return None,
        };
        self.seen.mark_all(directive);
        Some(Excepted { directive, who })
    }

    /// Whether it was about methods alone, and is said in `rules` now.
    pub(super) fn methods(&self, directive: &Directive, rules: &mut Rules) -> bool {
        let Some(methods) = let_through(directive) else {
            return false;
        };
        self.seen.mark_all(directive);
        if let Some(methods) = methods {
            rules.insert("methods", array(methods));
        }
        true
    }
}

/// The methods that a directive lets through, `None` where that is all that staunch does.
#[allow(clippy::option_option)] // nothing is said of methods, or nothing new
fn let_through(directive: &Directive) -> Option<Option<Vec<String>>> {
    let words = |text: &str| -> Option<Vec<String>> {
        let inner = text.trim_start_matches('^').trim_end_matches('$');
        let inner = inner
            .strip_prefix("(?:")
            .or_else(|| inner.strip_prefix('('))
            .unwrap_or(inner);
        let inner = inner.strip_suffix(')').unwrap_or(inner);
        let is_name =
            |word: &&str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        let words: Vec<_> = inner.split('|').collect();
        let names = words.iter().all(is_name);
        names.then(|| words.iter().map(|word| word.to_ascii_uppercase()).collect())
    };
    match (directive.name.as_str(), directive.inside()) {
        ("if", [refuse]) if refuse.name == "return" && refuse.args == ["405"] => {
            let test = directive.args.join(" ");
            let test = test.trim_matches(['(', ')', ' ']).trim_matches('"');
            let test = test.strip_prefix("$request_method ")?;
            let (operator, text) = test.split_once(' ')?;
            let names = words(text.trim().trim_matches(['"', '\'']))?;
            match operator {
                "!~" | "!~*" | "!=" => Some(Some(names)),
                "~" | "~*" | "=" => {
                    let left = |name: &&str| !names.iter().any(|refused| refused == name);
                    let new = names.iter().any(|name| !NEVER.contains(&name.as_str()));
                    Some(new.then(|| {
                        let usual = USUAL.iter().filter(|name| left(name));
                        usual.map(|name| (*name).to_owned()).collect()
                    }))
                }
                _ => None,
            }
        }
        _ => None,
    }
}
