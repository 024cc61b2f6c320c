//! Frontends: addresses, certificates, and the rules that say who answers.

use std::collections::BTreeSet;

use super::Import;
use super::bind::Binds;
use super::condition::{Lists, Test, of};
use super::parse::{Line, Section};
use super::route::Rule;
use super::rule::Act;
use crate::import::Loss;
use crate::import::site::{Route, Rules, Site};

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
        self.http.extend(plain.iter().cloned());
        if secure.is_empty() {
            return self.plain(section);
        }
        self.https.extend(secure);
        self.sites(section, &tls);
    }

    /// A page of statistics needs no address of its own here.
    fn statistics(&mut self, section: &Section) {
        for line in &section.lines {
            let (loss, advice) = match line.word(0) {
                "stats" | "http-request" | "bind" => (
                    Loss::Slight,
                    "see /metrics and `staunch upstreams` at the admin address: listen.admin",
                ),
                _ => (Loss::None, "belongs to a page of statistics"),
            };
            self.tell(line, loss, advice);
        }
    }

    /// Without TLS: its addresses redirect, and what else it did is told.
    fn plain(&mut self, section: &Section) {
        for line in &section.lines {
            let redirect = line.has("redirect") && line.after("scheme") == Some("https");
            let (loss, advice) = match line.word(0) {
                _ if redirect => (
                    Loss::None,
                    "plain-text addresses redirect to https by themselves, with 308",
                ),
                "bind" | "mode" | "acl" | "option" | "log" | "timeout" | "maxconn" => continue,
                "server" | "balance" if section.kind == "listen" => (
                    Loss::Real,
                    "was served in plain text; that is not done here",
                ),
                "stats" => (Loss::Slight, "see /metrics at the admin address"),
                _ => (
                    Loss::Real,
                    "was done in plain text; these addresses only redirect to https now",
                ),
            };
            self.tell(line, loss, advice);
        }
    }

    /// A site for each host that a rule goes by, and one for the rest.
    fn sites(&mut self, section: &Section, tls: &[String]) {
        let lists = Lists::of(section, &self.folder);
        let rules = self.rules(section, &lists);
        let mut hosts: BTreeSet<String> = BTreeSet::new();
        for term in rules
            .iter()
            .flat_map(|rule| rule.alternatives.iter().flatten())
        {
            if let Test::Host(names) = &term.test {
                hosts.extend(names.iter().cloned());
            }
        }
        hosts.insert("*".to_owned());
        let default = self.default_backend(section);
        let mut found: Vec<(Vec<String>, Vec<Route>)> = Vec::new();
        for host in hosts {
            let routes = self.routes(section, &rules, &host, default.as_deref());
            if routes.is_empty() {
                continue;
            }
            if !self.names.insert(host.clone()) {
                let advice = format!("{host}: another frontend has this name already");
                let piece = format!("frontend {}", section.name);
                self.note(&section.place, piece, Loss::Real, advice);
                continue;
            }
            let alike = |routes: &[Route]| format!("{routes:?}");
            match found
                .iter_mut()
                .find(|(_, known)| alike(known) == alike(&routes))
            {
                Some((names, _)) => names.push(host),
                None => found.push((vec![host], routes)),
            }
        }
        for (names, routes) in found {
            let mut site = Site {
                place: section.place.clone(),
                default: names.iter().any(|name| name == "*"),
                names,
                tls: tls.to_vec(),
                routes,
            };
            if !site.settle() {
                let piece = format!("{} {}", section.kind, section.name);
                let advice = "compression differs between its backends, and is of a whole site \
                              here: none is compressed; see compression";
                self.note(&section.place, piece, Loss::Real, advice);
            }
            self.sites.push_str(&site.text());
        }
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
    fn rules<'s>(&mut self, section: &'s Section, lists: &Lists) -> Vec<Rule<'s>> {
        let mut rules = Vec::new();
        for line in &section.lines {
            let act = match (line.word(0), line.word(1)) {
                ("http-request" | "http-response", _) => self.request_rule(line),
                ("redirect", _) => self.redirect(line, 1),
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
                let alternatives = of(line, lists);
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
            let alternatives = of(line, lists);
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
