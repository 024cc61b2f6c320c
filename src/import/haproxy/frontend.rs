//! Frontends: addresses, certificates, and the rules that say who answers.

use super::Import;
use super::bind::Binds;
use super::condition::{All, Lists, Term, Test};
use super::door::Door;
use super::format::line;
use super::parse::{Line, Section};
use super::rewrite::{self, REWRITES};
use super::route::Rule;
use super::rule::{Act, no_cache};
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
        self.expect_proxy(section, &binds);
        if section.is_tcp() {
            return self.stream(section, &binds);
        }
        self.ports_of_names(section, &binds);
        self.names_in_capitals(section);
        let Binds {
            secure, plain, tls, ..
        } = binds;
        let quic = |bind: &Line| bind.word(1).starts_with("quic");
        if section.all("bind").next().is_some() && section.all("bind").all(quic) {
            return self.whole(section, Loss::Slight, "is for HTTP/3 alone: it is left out");
        }
        if secure.is_empty() && plain.is_empty() {
            let advice = "has no address that staunch can listen on: it is left out";
            return self.whole(section, Loss::Real, advice);
        }
        self.https.extend(secure.iter().cloned());
        self.http.extend(plain.iter().cloned());
        self.in_general(section);
        for (addresses, tls) in [(secure, Some(tls)), (plain, None)] {
            if !addresses.is_empty() {
                self.doors.push(Door::new(section, &addresses, tls));
            }
        }
    }

    /// What is otherwise of all that is answered, once.
    fn in_general(&mut self, section: &Section) {
        if !self.doors.is_empty() {
            return;
        }
        let mut told = vec![
            "where no server can be reached, staunch answers 502, and HAProxy 503; its own errors \
             have no Cache-Control: no-cache, without which caches keep no 408, 502, 503 or 504",
        ];
        if section.option("forwardfor").is_none() {
            told.push("servers are always told of clients: X-Forwarded-For, -Proto and -Host");
        }
        if self.is_checked {
            told.push(
                "where checks find no server well, requests are sent all the same, to see whether \
                 one is; HAProxy answers 503",
            );
        }
        for advice in told {
            let piece = format!("{} {}", section.kind, section.name);
            self.note(&section.place, piece, Loss::Slight, advice);
        }
    }

    /// Without `-i` a name is told apart by case, which it is not here.
    fn names_in_capitals(&mut self, section: &Section) {
        let names = [
            "hdr(host)",
            "hdr_beg(host)",
            "hdr_dom(host)",
            "hdr_end(host)",
            "ssl_fc_sni",
        ];
        for line in &section.lines {
            let sample = |word: &String| {
                let word = word.to_ascii_lowercase();
                names.contains(&word.trim_start_matches("req."))
            };
            let Some(at) = line.words.iter().position(sample) else {
                continue;
            };
            let behind = &line.words[at + 1..];
            let end = behind.iter().position(|word| word == "}" || word == "if");
            let behind = &behind[..end.unwrap_or(behind.len())];
            let is_other = |word: &String| word == "-i" || word == "reg";
            let capital = |word: &String| word.bytes().any(|byte| byte.is_ascii_uppercase());
            if !behind.iter().any(is_other) && behind.iter().any(capital) {
                let advice = "was only for clients that write the name with these capitals, which \
                              browsers do not: here it is for all that ask for the name";
                self.tell(line, Loss::Slight, advice);
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
        for line in section
            .lines
            .iter()
            .filter(|line| line.word(0) == "redirect" || line.word(1) == "redirect")
        {
            let host = ["%[hdr(host)]", "%[req.hdr(host)]"];
            let names = |word: &String| {
                let word = word.to_ascii_lowercase();
                host.iter().any(|host| word.contains(host))
            };
            if line.has("scheme") || line.words.iter().any(names) {
                let advice =
                    "leads to the name alone here, without the port that is behind it in Host";
                self.tell(line, Loss::Slight, advice);
            }
        }
        let mut lines: Vec<_> = section.lines.iter().collect();
        lines.retain(|line| {
            let looks_up = line.word(0) == "use_backend" && line.word(1).contains("%[");
            looks_up || line.has("if") || line.has("unless") || line.word(0) == "acl"
        });
        for line in lines {
            let words = line.words.iter().map(|word| word.to_ascii_lowercase());
            let mut words = words.skip_while(|word| {
                let sample = word.trim_start_matches("%[").trim_start_matches("req.");
                let sample = sample.trim_start_matches('f');
                let whole = !sample.contains("field(1") && !sample.contains("host_only");
                !(whole && (sample.starts_with("hdr(host)") || sample == "hdr_end(host)"))
            });
            if words.next().is_some() && words.all(|word| !word.contains(':')) {
                let advice = "a name is taken here whatever port is behind it in Host";
                self.tell(line, Loss::Slight, advice);
            }
        }
    }

    /// A page of statistics needs no address of its own here.
    fn statistics(&mut self, section: &Section) {
        let addresses: Vec<_> = section.all("bind").map(|bind| bind.word(1)).collect();
        let advice = format!(
            "a page of statistics: see /metrics and `staunch upstreams` at the admin address, \
             listen.admin; nothing listens at its own here{}",
            match addresses.is_empty() {
                true => String::new(),
                false => format!(", {}", addresses.join(", ")),
            }
        );
        self.whole(section, Loss::Slight, &advice);
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
        // Of a section they are asked kind by kind, and in their order only within a kind.
        let kind = |line: &&Line| match line.word(0) {
            "monitor-uri" => 0,
            "tcp-request" => 1,
            "redirect" => 3,
            _ => 2,
        };
        let mut lines: Vec<_> = section.lines.iter().collect();
        lines.sort_by_key(kind);
        let mut statistics = self.statistics_inside(section);
        let (mut over, mut past) = (false, Vec::new());
        for line in lines {
            // What answers all leaves nothing to the rules behind it.
            if over && line.word(0) != "http-after-response" {
                if matches!(line.word(0), "http-request" | "http-response" | "redirect") {
                    self.idle.insert(line.place.clone());
                }
                continue;
            }
            if line.word(0) == "redirect" {
                rules.extend(statistics.take());
            }
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
                        true if action == "set-query" => {
                            let advice = "a rule behind it looks at the query that it has written \
                                          anew: write both at a route; see rewrite";
                            self.tell(line, Loss::Real, advice);
                            None
                        }
                        true => {
                            let advice = "a rule behind it looks at the path that it has written \
                                          anew: what it is for is closed until you have written \
                                          both at a route; see rewrite";
                            self.tell(line, Loss::Real, advice);
                            rules.push(Rule {
                                line,
                                alternatives: self.written_anew(line, lists),
                                act: Act::Deny(0),
                            });
                            None
                        }
                        false => Some(Act::Rewrite),
                    }
                }
                ("http-request", "use-service") if line.word(2) == "prometheus-exporter" => {
                    let advice = "HAProxy's own metrics are none here, and their path is answered with \
                                  404: see /metrics at the admin address";
                    self.tell(line, Loss::Slight, advice);
                    Some(Act::Answer(
                        vec!["respond = 404".to_owned()],
                        Rules::default(),
                    ))
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
                    "accept" => {
                        let passed = self.let_past(section, line, lists);
                        past.extend(passed.map(|term| (line.word(1), term)));
                        None
                    }
                    _ => None,
                },
                ("block", _) => Some(Act::Deny(403)),
                ("monitor-uri", path) if !path.starts_with('/') => {
                    let advice = "is no path, and nobody asks for it";
                    self.tell(line, Loss::Slight, advice);
                    None
                }
                ("monitor-uri", path) => {
                    self.seen(line);
                    let all = vec![super::condition::Term {
                        not: false,
                        test: Test::Exact(vec![path.to_owned()]),
                    }];
                    rules.push(Rule {
                        line,
                        alternatives: vec![all],
                        act: ready(),
                    });
                    None
                }
                _ => None,
            };
            if let Some(act) = act {
                self.seen(line);
                let mut alternatives = self.asked(line, lists);
                if line.word(0) == "tcp-request" {
                    let same = past.iter().filter(|(kind, _)| *kind == line.word(1));
                    let others: All = same.map(|(_, term)| term.clone()).collect();
                    alternatives
                        .iter_mut()
                        .for_each(|all| all.extend(others.iter().cloned()));
                }
                let answers = matches!(act, Act::Answer(..) | Act::Refuse(..) | Act::Deny(1..));
                let always = |all: &All| {
                    all.iter()
                        .all(|term| !term.not && term.test == Test::Always)
                };
                over = answers && alternatives.iter().any(always);
                rules.push(Rule {
                    line,
                    alternatives,
                    act,
                });
            }
        }
        rules.extend(statistics);
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

    /// What does not hold for whom `tcp-request … accept` lets past the rules behind it. `None`: that
    /// is told.
    fn let_past(&mut self, section: &Section, line: &Line, lists: &Lists) -> Option<Term> {
        let rejects = |other: &&Line| {
            other.word(1) == line.word(1)
                && other.word(2) != "accept"
                && other.place.line > line.place.line
        };
        if section.all("tcp-request").find(rejects).is_none() {
            self.tell(line, Loss::None, "there is nothing to wait for");
            return None;
        }
        let alternatives = self.asked(line, lists);
        let term = match alternatives.as_slice() {
            [all] => match all.as_slice() {
                [] => Some((false, Test::Always)),
                [term] => Some((term.not, term.test.clone())),
                _ => None,
            },
            _ => None,
        };
        let Some((not, test)) = term else {
            let advice = "lets some past the rules behind it by several conditions: what those refuse \
                          is refused to all here; see allow";
            self.tell(line, Loss::Real, advice);
            return None;
        };
        self.seen(line);
        Some(Term { not: !not, test })
    }

    /// Which requests a rule writes the path of anew.
    fn written_anew(&self, line: &Line, lists: &Lists) -> Vec<All> {
        let only = rewrite::only(line).map(|pattern| Term {
            not: false,
            test: Test::Value {
                of: "{path}".to_owned(),
                pattern,
            },
        });
        let with = |all: All| all.into_iter().chain(only.clone()).collect();
        self.asked(line, lists).into_iter().map(with).collect()
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
        // Without its own a section has that of its defaults.
        let sections = [Some(section), section.defaults.as_deref()];
        let mut sections = sections.into_iter().flatten();
        let (section, any) =
            sections.find_map(|section| Some((section, section.all("stats").find(is_on)?)))?;
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

/// What is answered at `monitor-uri`.
fn ready() -> Act {
    let mut fields = Rules::default();
    no_cache(&mut fields);
    let body = "<html><body><h1>200 OK</h1>\nService ready.\n</body></html>\n";
    let lines = [
        "respond = 200".to_owned(),
        line("body", body),
        line("content_type", "text/html"),
    ];
    Act::Answer(lines.to_vec(), fields)
}

/// Whether nothing but HAProxy's own page is behind it.
fn only_statistics(section: &Section) -> bool {
    let page = |line: &Line| {
        line.word(0) == "stats" && line.word(1) != "socket"
            || line.words.join(" ").contains("use-service prometheus")
    };
    // Nothing gets past a page that is for all paths.
    let all = |line: &Line| line.word(0) == "stats" && line.word(1) == "uri" && line.word(2) == "/";
    let over = section.lines.iter().any(all);
    let leads = |line: &Line| match line.word(0) {
        "redirect" | "monitor-uri" => true,
        "server" | "server-template" | "use_backend" | "default_backend" => !over,
        _ => matches!(line.word(1), "redirect" | "return"),
    };
    section.lines.iter().any(page) && !section.lines.iter().any(leads)
}
