//! Frontends: addresses, certificates, and the rules that say who answers.

use super::Import;
use super::bind::Binds;
use super::condition::{All, Lists, Term, Test};
use super::door::Door;
use super::parse::{Line, Section};
use super::rewrite::REWRITES;
use super::route::Rule;
use super::rule::Act;
use crate::import::Loss;
use crate::import::pattern;
use crate::import::site::Rules;

impl Import {
    pub(super) fn frontend(&mut self, section: &Section) {
        if section.nearest("disabled").is_some() {
            return self.whole(section, Loss::None, "is disabled: it is left out");
        }
        if only_statistics(section) {
            return self.statistics(section);
        }
        self.general(section);
        let binds = self.binds(section);
        if section.is_tcp() {
            return self.stream(section, &binds);
        }
        self.ports_of_names(section, &binds);
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

    /// Clients say the port that they ask at where it is not the usual one.
    fn ports_of_names(&mut self, section: &Section, binds: &Binds) {
        let usual = |address: &String, port: &str| address.ends_with(port);
        if binds.secure.iter().all(|address| usual(address, ":443"))
            && binds.plain.iter().all(|address| usual(address, ":80"))
        {
            return;
        }
        let mut lines: Vec<_> = section.lines.iter().collect();
        lines.retain(|line| line.has("if") || line.has("unless") || line.word(0) == "acl");
        for line in lines {
            let words = line.words.iter().map(|word| word.to_ascii_lowercase());
            let mut words = words.skip_while(|word| {
                let sample = word.trim_start_matches("req.");
                !["hdr(host)", "hdr_end(host)", "hdr(host),lower"].contains(&sample)
            });
            if words.next().is_some() && words.all(|word| !word.contains(':')) {
                let advice = "a name is taken here whatever port is behind it in Host";
                self.tell(line, Loss::Slight, advice);
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
            let redirects = line.word(1) == "redirect" || line.word(0) == "redirect";
            if redirects && let Some(found) = self.redirects(line, lists) {
                rules.extend(found);
                continue;
            }
            let act = match (line.word(0), line.word(1)) {
                // What is let past the rules behind it goes where all goes.
                ("http-request", "allow") if only.is_some() => only.clone().map(Act::Use),
                ("http-request", action) if REWRITES.contains(&action) => {
                    match self.looks_at_path(section, line, lists) {
                        true => {
                            let advice = "a rule behind it looks at the path that it has written \
                                          anew: write both at a route; see rewrite";
                            self.tell(line, Loss::Real, advice);
                            None
                        }
                        false => Some(Act::Rewrite),
                    }
                }
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
                    "reject" | "silent-drop" => {
                        self.tell(line, Loss::Slight, "is answered with 403 here");
                        Some(Act::Deny(403))
                    }
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
        rules.extend(self.statistics_inside(section));
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

    /// Whether a rule that is asked behind this one goes by the path.
    fn looks_at_path(&self, section: &Section, line: &Line, lists: &Lists) -> bool {
        let mut behind = section.lines.iter().filter(|other| match other.word(0) {
            "use_backend" => true,
            "http-request" | "redirect" => other.place.line > line.place.line,
            _ => false,
        });
        let query = line.word(1) == "set-query";
        let is_of_path = |test: &Test| match test {
            Test::Exact(_) | Test::Prefix(_) | Test::Regex(_) => !query,
            Test::Value { of, .. } if query => of.contains("query") || of.contains("uri}"),
            Test::Value { of, .. } => of.contains("path}") || of.contains("uri}"),
            _ => false,
        };
        behind.any(|other| {
            // Rewriting goes on with what was written.
            let tests = self.asked(other, lists);
            let asks = tests.iter().flatten().any(|term| is_of_path(&term.test));
            asks && !REWRITES.contains(&other.word(1))
                || other.word(0) == "use_backend" && other.word(1).contains("path")
        })
    }

    /// The page of statistics beside other things: nothing is behind its path here.
    fn statistics_inside<'s>(&mut self, section: &'s Section) -> Option<Rule<'s>> {
        let is_on = |line: &&Line| {
            matches!(
                line.word(1),
                "enable" | "uri" | "auth" | "realm" | "admin" | "hide-version"
            )
        };
        let any = section.all("stats").find(is_on)?;
        let line = section
            .all("stats")
            .filter(|line| line.word(1) == "uri")
            .last();
        let uri = line.map_or("/haproxy?stats", |line| line.word(2));
        let line = line.unwrap_or(any);
        let advice = "the page of statistics is none here, and its path is answered with 404: see \
                      /metrics and `staunch upstreams` at the admin address";
        self.tell(line, Loss::Slight, advice);
        let test = Test::Value {
            of: "{uri}".to_owned(),
            pattern: format!("^{}", pattern::literal(uri)),
        };
        Some(Rule {
            line,
            alternatives: vec![vec![Term { not: false, test }]],
            act: Act::Answer(vec!["respond = 404".to_owned()], Rules::default()),
        })
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
