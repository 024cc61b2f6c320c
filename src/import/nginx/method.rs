//! Methods that are let through: `limit_except`, and an `if` that asks for nothing else.

use super::{Directive, Import};
use crate::import::array;
use crate::import::site::Rules;

/// What is refused by staunch whatever is said.
const NEVER: [&str; 2] = ["TRACE", "CONNECT"];

/// What is left where some methods are refused.
const USUAL: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY",
];

impl Import {
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
        ("limit_except", [deny]) if deny.name == "deny" && deny.first() == "all" => {
            Some(Some(directive.args.clone()))
        }
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
