//! Rules of a backend that answer some of its requests: routes before the one that leads there.

use super::condition::{All, Lists, Test};
use super::parse::Line;
use super::rule::Act;
use super::{Import, sample};
use crate::import::Loss;
use crate::import::formula::{self, Ask, Term};

impl Import {
    /// What a backend answers by itself, to whom.
    pub(super) fn answered_inside(&mut self, name: &str) -> Vec<(Line, Act, formula::All)> {
        let Some(section) = self.backends.get(name).cloned() else {
            return Vec::new();
        };
        if section.kind == "listen" {
            return Vec::new();
        }
        let lists = Lists::of(&section, &self.folder, self.over_tls);
        let mut found = Vec::new();
        for rule in &section.lines {
            let answers = match (rule.word(0), rule.word(1)) {
                ("http-request", action) => ANSWERS.contains(&action),
                ("redirect", _) => true,
                _ => false,
            };
            if !answers {
                continue;
            }
            let alternatives = self.asked(rule, &lists);
            let act = match rule.word(0) {
                "redirect" => self.redirect(rule),
                _ => self.request_rule(rule),
            };
            let Some(act @ (Act::Answer(..) | Act::Deny(_) | Act::Refuse(..))) = act else {
                continue;
            };
            self.seen(rule);
            for all in alternatives {
                // It is asked at the routes that lead there.
                if Self::is_password(rule, &all) {
                    continue;
                }
                let Some((terms, unknown)) = terms(&all) else {
                    continue;
                };
                match (unknown, &act) {
                    (false, act) => found.push((rule.clone(), act.clone(), terms)),
                    (true, Act::Deny(_)) if rule.word(1) == "auth" => {
                        found.push((rule.clone(), Act::Deny(0), terms));
                    }
                    (true, Act::Deny(_) | Act::Refuse(..)) => {
                        let advice = "refused requests by what cannot be asked here: what it may \
                                      have been for is closed until you have decided how";
                        self.tell(rule, Loss::Real, advice);
                        found.push((rule.clone(), Act::Deny(0), terms));
                    }
                    (true, _) => self.tell(rule, Loss::Real, "goes by what cannot be asked here"),
                }
            }
        }
        found
    }
}

/// Actions that end what is asked.
pub(super) const ANSWERS: [&str; 7] = [
    "auth",
    "deny",
    "reject",
    "tarpit",
    "silent-drop",
    "redirect",
    "return",
];

/// What all of these ask, and whether there is something among them that cannot be asked here.
/// `None`: they never hold.
pub(super) fn terms(all: &All) -> Option<(formula::All, bool)> {
    let (mut found, mut unknown) = (formula::All::new(), false);
    let mut inside = false;
    for term in all {
        let of_path = |how, values: &[String]| {
            let pattern = sample::pattern_of(how, false, false, values);
            pattern.map(|pattern| Term::of("{path}", pattern, term.not))
        };
        let made = match &term.test {
            Test::Tls | Test::Always | Test::Never if term.not => return None,
            Test::Tls | Test::Always | Test::Never => continue,
            Test::Value { of, pattern } => Some(Term::of(of, pattern.clone(), term.not)),
            Test::Exact(list) => of_path("str", list),
            Test::Prefix(list) => of_path("beg", list),
            Test::Regex(list) => crate::import::pattern::all(list)
                .map(|list| Term::of("{path}", formula::any(&list), term.not)),
            Test::Client(nets) if term.not || !std::mem::replace(&mut inside, true) => Some(Term {
                not: term.not,
                ask: Ask::Client(nets.clone()),
            }),
            Test::Host(hosts) => Some(Term::of("{host}", hosts.whole(), term.not)),
            Test::Client(_) | Test::Unknown(_) => None,
        };
        unknown |= made.is_none();
        found.extend(made);
    }
    Some((found, unknown))
}
