//! Frontends: addresses, certificates, and the rules that say who answers.

use super::Import;
use super::bind::Binds;
use super::condition::{All, Lists, Test};
use super::door::Door;
use super::parse::{Line, Section};
use super::route::Rule;
use super::rule::Act;
use crate::import::Loss;
use crate::import::site::Rules;

impl Import {
    pub(super) fn frontend(&mut self, section: &Section) {
        if only_statistics(section) {
            return self.statistics(section);
        }
        self.general(section);
        let binds = self.binds(section);
        if section.is_tcp() {
            return self.stream(section, &binds);
        }
        let Binds {
            secure, plain, tls, ..
        } = binds;
        if secure.is_empty() && plain.is_empty() {
            let advice = "has no address that staunch can listen on: it is left out";
            return self.whole(section, Loss::Real, advice);
        }
        self.https.extend(secure.iter().cloned());
        self.http.extend(plain.iter().cloned());
        for (addresses, tls) in [(secure, Some(tls)), (plain, None)] {
            if !addresses.is_empty() {
                self.doors.push(Door::new(section, &addresses, tls));
            }
        }
    }

    /// A page of statistics needs no address of its own here.
    fn statistics(&mut self, section: &Section) {
        let advice = "a page of statistics: see /metrics and `staunch upstreams` at the admin \
                      address, listen.admin";
        self.whole(section, Loss::Slight, advice);
    }

    /// Where goes what no rule takes.
    pub(super) fn default_backend(&mut self, section: &Section) -> Option<String> {
        let own = section.kind == "listen" && section.all("server").next().is_some();
        match section.nearest("default_backend") {
            Some(line) => {
                self.seen(&line);
                Some(line.word(1).to_owned())
            }
            None => own.then(|| section.name.clone()),
        }
    }

    /// The rules of a section, in the order in which they are asked.
    pub(super) fn rules<'s>(&mut self, section: &'s Section, lists: &Lists) -> Vec<Rule<'s>> {
        let mut rules = Vec::new();
        let only = match section.all("use_backend").next() {
            None => self.default_backend(section),
            Some(_) => None,
        };
        for line in &section.lines {
            // What never holds behind this door need not be known.
            let never = |all: &All| all.iter().any(|term| term.not && term.test == Test::Always);
            if self.asked(line, lists).iter().all(never) {
                self.idle.insert(line.place.clone());
                continue;
            }
            let act = match (line.word(0), line.word(1)) {
                // What is let past the rules behind it goes where all goes.
                ("http-request", "allow") if only.is_some() => only.clone().map(Act::Use),
                ("http-request" | "http-response" | "http-after-response", _) => {
                    self.request_rule(line)
                }
                ("redirect", _) => self.redirect(line),
                ("tcp-request", "inspect-delay") => {
                    self.tell(line, Loss::None, "there is nothing to wait for");
                    None
                }
                ("monitor", "fail") => {
                    let advice = "answered monitor-uri with 503; see /readyz at the admin address";
                    self.tell(line, Loss::Real, advice);
                    None
                }
                ("tcp-request", "connection" | "content" | "session") => match line.word(2) {
                    "reject" => Some(Act::Deny(403)),
                    "accept" | "inspect-delay" => {
                        self.tell(line, Loss::None, "there is nothing to wait for");
                        None
                    }
                    _ => None,
                },
                ("block", _) => Some(Act::Deny(403)),
                ("monitor-uri", path) => {
                    self.seen(line);
                    let all = vec![super::condition::Term {
                        not: false,
                        test: Test::Exact(vec![path.to_owned()]),
                    }];
                    rules.push(Rule {
                        line,
                        alternatives: vec![all],
                        act: Act::Answer(vec!["respond = 200".to_owned()], Rules::default()),
                    });
                    None
                }
                _ => None,
            };
            if let Some(act) = act {
                self.seen(line);
                let alternatives = self.asked(line, lists);
                rules.push(Rule {
                    line,
                    alternatives,
                    act,
                });
            }
        }
        // They come behind all of those.
        for line in section.all("use_backend") {
            self.seen(line);
            let alternatives = self.asked(line, lists);
            if line.word(1).contains("%[") {
                let default = self.default_backend(section);
                rules.extend(self.by_look_up(line, &alternatives, lists, default.as_deref()));
                continue;
            }
            let act = Act::Use(line.word(1).to_owned());
            rules.push(Rule {
                line,
                alternatives,
                act,
            });
        }
        rules
    }
}

/// Whether nothing but HAProxy's own page is behind it.
fn only_statistics(section: &Section) -> bool {
    let page = |line: &Line| {
        line.word(0) == "stats" && line.word(1) != "socket"
            || line.words.join(" ").contains("use-service prometheus")
    };
    let leads = |line: &Line| {
        matches!(
            line.word(0),
            "server" | "server-template" | "use_backend" | "default_backend" | "redirect"
        ) || line.word(1) == "redirect"
    };
    section.lines.iter().any(page) && !section.lines.iter().any(leads)
}
