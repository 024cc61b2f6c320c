//! What is settled before rules are read: variables that stand for samples, and sockets between
//! sections.

use std::collections::BTreeMap;

use super::Import;
use super::condition::{Lists, Test, of};
use super::parse::{Line, Section};
use crate::import::{Loss, Place};

/// Variables are put in the place of each other so many times.
const DEEPEST: usize = 4;

impl Import {
    /// Writes what is made of several rules for the scheme and the query as the one sample for it.
    pub(super) fn with_whole_samples(sections: &mut [Section]) {
        let lines = sections.iter().flat_map(|section| &section.lines);
        let mut made: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for line in lines {
            if let Some((name, _)) = defined(line) {
                made.entry(name).or_default().push(line.clone());
            }
        }
        let said = |line: &Line, wanted: &[&str]| {
            let rest = line.words.get(2..).unwrap_or_default().join(" ");
            wanted.contains(&rest.as_str())
        };
        const SECURE: [&str; 1] = ["str(https) if { ssl_fc }"];
        const PLAIN: [&str; 2] = ["str(http) if !{ ssl_fc }", "str(http) unless { ssl_fc }"];
        const ASKED: [&str; 3] = [
            "str(?) if { query -m found }",
            "str(?) if { query -m len gt 0 }",
            "str(?) if { query -m len ge 1 }",
        ];
        for (name, lines) in made {
            let variable = format!("%[var({name})]");
            let whole = match lines.as_slice() {
                [one, other] if said(one, &SECURE) && said(other, &PLAIN) => {
                    vec![(variable, "%[ssl_fc,iif(https,http)]")]
                }
                [one] if said(one, &ASKED) => vec![
                    (format!("%[path]{variable}%[query]"), "%[pathq]"),
                    (
                        format!("%[base]{variable}%[query]"),
                        "%[req.hdr(host)]%[pathq]",
                    ),
                ],
                _ => continue,
            };
            let words = sections.iter_mut().flat_map(|section| &mut section.lines);
            for word in words.flat_map(|line| &mut line.words) {
                for (from, to) in &whole {
                    *word = word.replace(from.as_str(), to);
                }
            }
            // What goes by it in no other way is nothing without it.
            let used = format!("var({name})");
            let mut all = sections.iter().flat_map(|section| &section.lines);
            let left = |line: &Line| !line.word(1).starts_with("set-var(");
            if !all.any(|line| left(line) && line.words.iter().any(|word| word.contains(&used))) {
                let made = |line: &Line| lines.iter().any(|made| made.place == line.place);
                for section in sections.iter_mut() {
                    section.lines.retain(|line| !made(line));
                }
            }
        }
        // A field that is `http`, and then `https` for what came so.
        for section in sections.iter_mut() {
            let is = |line: &Line, value: &str, condition: &[&str]| {
                let begin = ["http-request", "set-header", "X-Forwarded-Proto", value];
                let words: Vec<_> = line.words.iter().map(String::as_str).collect();
                words == begin.iter().chain(condition).copied().collect::<Vec<_>>()
            };
            let secure = ["if", "{", "ssl_fc", "}"];
            let last = (section.lines.iter()).rposition(|line| is(line, "https", &secure));
            let mut at = 0..;
            (section.lines).retain(|line| at.next() > last || !is(line, "http", &[]));
        }
    }

    /// Writes `var(NAME)` as what the variable is always made from.
    pub(super) fn without_variables(&mut self, sections: &mut [Section]) {
        let mut made: BTreeMap<String, Option<String>> = BTreeMap::new();
        for line in sections.iter().flat_map(|section| &section.lines) {
            let Some((name, sample)) = defined(line) else {
                continue;
            };
            // One that is made in two ways, or of some requests only, is nothing else.
            let sample = sample.filter(|_| !line.has("if") && !line.has("unless"));
            let known = made.entry(name).or_insert_with(|| sample.clone());
            if *known != sample {
                *known = None;
            }
        }
        let made: BTreeMap<_, _> = (made.into_iter())
            .filter_map(|(name, sample)| Some((format!("var({name})"), sample?)))
            .collect();
        self.by_variables = !made.is_empty();
        for line in sections.iter_mut().flat_map(|section| &mut section.lines) {
            if let Some((name, _)) = defined(line) {
                if made.contains_key(&format!("var({name})")) {
                    let advice = "what goes by it goes by what it is made from";
                    self.tell(line, Loss::None, advice);
                }
                continue;
            }
            for word in line.words.iter_mut().filter(|word| word.contains("var(")) {
                for _ in 0..DEEPEST {
                    for (variable, sample) in &made {
                        *word = word.replace(variable, sample);
                    }
                }
            }
        }
    }

    /// Puts the rules of `defaults` before those of the sections that go by them.
    pub(super) fn with_rules_of_defaults(sections: &mut [Section]) {
        const RULES: [&str; 5] = [
            "acl",
            "http-request",
            "http-response",
            "http-after-response",
            "tcp-request",
        ];
        for section in sections
            .iter_mut()
            .filter(|section| section.kind != "defaults")
        {
            let Some(defaults) = section.defaults.clone() else {
                continue;
            };
            let is_rule = |line: &&Line| RULES.contains(&line.word(0));
            let names: Vec<_> = defaults
                .all("acl")
                .map(|acl| acl.word(1).to_owned())
                .collect();
            // Each sees its own lists only.
            let own = |name: &str| format!("{name}@{}", defaults.place);
            let rules = defaults.lines.iter().filter(is_rule).map(|line| {
                let mut line = line.clone();
                let asks = line
                    .words
                    .iter()
                    .position(|word| word == "if" || word == "unless");
                let from = match line.word(0) {
                    "acl" => 1,
                    _ => asks.unwrap_or(line.words.len()),
                };
                let to = if from == 1 { 2 } else { line.words.len() };
                for word in &mut line.words[from..to] {
                    let name = word.trim_start_matches('!');
                    if names.iter().any(|known| known == name) {
                        let not = &word[..word.len() - name.len()];
                        *word = format!("{not}{}", own(name));
                    }
                }
                line
            });
            let rules: Vec<_> = rules.collect();
            section.lines.splice(0..0, rules);
        }
    }

    /// Writes `capture.req.hdr(NUMBER)` as the field that is captured under it.
    pub(super) fn without_captures(sections: &mut [Section]) {
        for section in sections {
            let mut made = Vec::new();
            for line in &section.lines {
                let name = match (line.word(0), line.word(1), line.word(2)) {
                    ("capture", "request", "header") => Some(line.word(3)),
                    ("http-request", "capture", sample) => Some(
                        (sample.strip_prefix("req.hdr("))
                            .and_then(|name| name.strip_suffix(')'))
                            .unwrap_or_default(),
                    ),
                    _ => None,
                };
                made.extend(name.map(str::to_owned));
            }
            let words = section.lines.iter_mut().flat_map(|line| &mut line.words);
            for word in words.filter(|word| word.contains("capture.req.hdr(")) {
                for (number, name) in made.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                    let captured = format!("capture.req.hdr({number})");
                    *word = word.replace(&captured, &format!("req.hdr({name})"));
                }
            }
        }
    }

    /// Takes a section that only tells names apart, and leads all others to sections that terminate
    /// TLS on this machine, for what it is here: names that are passed through at their addresses.
    pub(super) fn without_loops(&mut self, sections: &mut Vec<Section>) {
        for at in 0..sections.len() {
            if let Some(twin) = sections.get(at).and_then(|section| twin(section, sections)) {
                let advice = "who asks for no name is served here as those who ask for one";
                self.tell(&twin.rule, Loss::Slight, advice);
                let section = &mut sections[at];
                section.lines.retain(|line| line.place != twin.rule.place);
                for line in &mut section.lines {
                    if line.word(0) == "default_backend" {
                        line.words[1] = twin.rule.word(1).to_owned();
                    }
                }
                sections.retain(|section| section.place != twin.other);
            }
        }
        for at in 0..sections.len() {
            let Some(moved) = loops(&sections[at], sections) else {
                continue;
            };
            for (from, to) in moved {
                let proxied = from.has("accept-proxy");
                for section in sections.iter_mut() {
                    let binds = section
                        .lines
                        .iter_mut()
                        .filter(|line| line.word(0) == "bind");
                    for bind in binds.filter(|bind| bind.word(1) == to) {
                        bind.words[1] = from.word(1).to_owned();
                        if !proxied {
                            bind.words.retain(|word| word != "accept-proxy");
                        }
                    }
                }
                let advice =
                    "is terminated at this address itself, without a connection in between";
                self.tell(&from, Loss::Slight, advice);
            }
            sections[at].lines.retain(|line| line.word(0) != "bind");
            sections[at].passes = true;
        }
    }

    /// Gives an address of this machine to what one section says to another over a socket.
    pub(super) fn between_sections(&mut self, sections: &mut [Section]) {
        let is_socket = |word: &str| ["abns@", "unix@", "/"].iter().any(|b| word.starts_with(b));
        let at = |line: &Line| match line.word(0) {
            "bind" => Some(1),
            "server" => Some(2),
            _ => None,
        };
        let of = |kind: &str| -> Vec<String> {
            let lines = sections.iter().flat_map(|section| section.all(kind));
            let words = lines.map(|line| line.word(at(line).unwrap_or_default()).to_owned());
            words.filter(|word| is_socket(word)).collect()
        };
        let servers: Vec<_> = of("server").iter().map(|word| bare(word)).collect();
        let mut ports = 10443..;
        let taken = |port: u16| {
            let end = format!(":{port}");
            (sections.iter().flat_map(|section| &section.lines))
                .any(|line| line.words.iter().any(|word| word.ends_with(&end)))
        };
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for bind in of("bind") {
            let socket = bare(&bind);
            if servers.contains(&socket)
                && !given.contains_key(&socket)
                && let Some(port) = ports.find(|port| !taken(*port))
            {
                given.insert(socket, format!("127.0.0.1:{port}"));
            }
        }
        for line in sections.iter_mut().flat_map(|section| &mut section.lines) {
            let Some(at) = at(line) else { continue };
            let Some(address) = given.get(&bare(line.word(at))) else {
                continue;
            };
            if at == 1 {
                let advice = format!("led from one section to another: {address} here");
                self.tell(line, Loss::Slight, advice);
            }
            line.words[at].clone_from(address);
        }
    }
}

/// A socket without what is said of its kind.
fn bare(word: &str) -> String {
    word.trim_start_matches("unix@").to_owned()
}

/// The variable that a line makes, and from what, where that is known.
fn defined(line: &Line) -> Option<(String, Option<String>)> {
    let at = match line.word(0) {
        "http-request" => 1,
        "tcp-request" => 2,
        _ => return None,
    };
    let rest = line.word(at).strip_prefix("set-var(")?;
    let name = rest.strip_suffix(')')?;
    let name = name.split(',').next()?.to_owned();
    let sample = line.word(at + 1);
    let is_plain = |c: char| c.is_ascii_graphic() && c != '%';
    let is_sample =
        !sample.is_empty() && sample.chars().all(is_plain) && line.words.len() == at + 2;
    Some((name, is_sample.then(|| sample.to_owned())))
}

/// Who names nobody is led to another section, which does the same as the one for who does.
struct Twin {
    rule: Line,
    other: Place,
}

fn twin(section: &Section, sections: &[Section]) -> Option<Twin> {
    if section.kind != "frontend" || !section.is_tcp() {
        return None;
    }
    let behind = |name: &str| {
        let is = |other: &&Section| other.kind == "backend" && other.name == name;
        let backend = sections.iter().find(is)?;
        let servers: Vec<_> = backend.all("server").collect();
        let [server] = servers.as_slice() else {
            return None;
        };
        let leads = |bind: &Line| bind.word(1) == server.word(2);
        sections
            .iter()
            .find(|other| !other.is_tcp() && other.all("bind").any(leads))
    };
    let lists = Lists::of(section, "", true);
    let any_name = |rule: &&Line| match of(rule, &lists).as_slice() {
        [all] => match all.as_slice() {
            [term] => !term.not && matches!(&term.test, Test::Host(hosts) if hosts.names == ["*"]),
            _ => false,
        },
        _ => false,
    };
    let rule = section.all("use_backend").find(any_name)?;
    let other = section.nearest("default_backend")?;
    let (named, unnamed) = (behind(rule.word(1))?, behind(other.word(1))?);
    let said = |section: &Section| {
        let lines = section.lines.iter().filter(|line| line.word(0) != "bind");
        lines.map(|line| line.words.clone()).collect::<Vec<_>>()
    };
    (named.place != unnamed.place && said(named) == said(unnamed)).then(|| Twin {
        rule: rule.clone(),
        other: unnamed.place.clone(),
    })
}

/// The addresses of a section that leads what it knows no name of to other sections here, with those
/// that it leads to.
fn loops(section: &Section, sections: &[Section]) -> Option<Vec<(Line, String)>> {
    let guards = |line: &Line| line.word(2) == "reject" || line.word(2) == "silent-drop";
    if section.kind != "frontend" || !section.is_tcp() || section.lines.iter().any(guards) {
        return None;
    }
    let backend = section.nearest("default_backend")?;
    let backend =
        (sections.iter()).find(|other| other.kind == "backend" && other.name == backend.word(1))?;
    let servers: Vec<_> = backend.all("server").collect();
    let [server] = servers.as_slice() else {
        return None;
    };
    let is_there = |address: &str| {
        let mut others = sections.iter().filter(|other| !other.is_tcp());
        others.any(|other| other.all("bind").any(|bind| bind.word(1) == address))
    };
    let lead = |bind: &Line| {
        let (_, port) = bind.word(1).rsplit_once(':')?;
        let address = server.word(2);
        let is_port =
            address.contains(':') || address.starts_with("unix@") || address.contains('@');
        let to = match is_port || address.starts_with('/') {
            true => address.to_owned(),
            // The port is that of the client's connection.
            false => format!("{address}:{port}"),
        };
        let plain = !bind.has("ssl") && !bind.word(1).contains(',');
        (plain && is_there(&to)).then(|| (bind.clone(), to))
    };
    let moved: Option<Vec<_>> = section.all("bind").map(lead).collect();
    moved.filter(|moved| !moved.is_empty())
}
