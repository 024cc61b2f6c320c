//! `mode tcp`: whole connections, as `[[stream]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::bind::Binds;
use super::condition::{All, Lists, Test, of};
use super::format::{deadline, line, milliseconds};
use super::host::{self, Holds};
use super::parse::{Line, Section};
use super::rule::counted;
use super::{Import, array, quoted};
use crate::import::Loss;

/// Where connections go.
#[derive(Default)]
struct Targets {
    /// Those that no name takes.
    rest: Option<String>,
    /// Names that are asked for, by the upstream; with the line that says so.
    named: BTreeMap<String, (String, Vec<String>)>,
}

/// Who is let in.
#[derive(Default)]
struct Guards {
    accepted: Vec<String>,
    /// Some are let in by what cannot be asked here.
    unclear: bool,
    allow: Vec<String>,
    deny: Vec<String>,
}

impl Import {
    pub(super) fn stream(&mut self, section: &Section, binds: &Binds) {
        for word in ["mode", "use_backend", "tcp-request"] {
            section.all(word).for_each(|line| self.seen(line));
        }
        section
            .all("timeout")
            .filter(|line| matches!(line.word(1), "client" | "server" | "tunnel" | "client-fin"))
            .for_each(|line| self.seen(line));
        let lists = Lists::of(section, &self.folder, true);
        let Some(guards) = self.stream_guards(section, &lists) else {
            return;
        };
        if section.passes {
            self.ends = self.default_backend(section);
            let targets = self.stream_targets(section, &lists, false);
            self.ends = None;
            for (upstream, (place, names)) in targets.named {
                let (names, upstream) = (array(&names), quoted(&upstream));
                let _ = write!(
                    self.streams,
                    "\n[[site]]  # from {place}\nnames = {names}\npassthrough = {upstream}\n"
                );
            }
            return;
        }
        for (addresses, tls) in [(&binds.plain, false), (&binds.secure, true)] {
            if addresses.is_empty() {
                continue;
            }
            let targets = self.stream_targets(section, &lists, tls);
            let mut text = format!(
                "\n[[stream]]  # from {}\nlisten = {}\n",
                section.place,
                array(addresses)
            );
            if tls {
                text.push_str("tls = true\n");
                let protocols = binds.alpn.iter().map(|list| array(list.split(',')));
                protocols.for_each(|list| _ = writeln!(text, "alpn = {list}"));
                binds
                    .tls
                    .iter()
                    .for_each(|line| _ = writeln!(text, "{line}"));
            }
            if targets.rest.is_none() && (tls || targets.named.is_empty()) {
                let advice = "leads to no server that is known: it is left out";
                self.whole(section, Loss::Real, advice);
                continue;
            }
            let rest = targets.rest.iter();
            rest.for_each(|name| _ = writeln!(text, "{}", line("upstream", name)));
            let idle = self.idle(section).map(|time| line("idle", &time));
            idle.iter().for_each(|line| _ = writeln!(text, "{line}"));
            for (key, nets) in [("allow", &guards.allow), ("deny", &guards.deny)] {
                if !nets.is_empty() {
                    let _ = writeln!(text, "{key} = {}", array(nets));
                }
            }
            for (upstream, (place, names)) in targets.named {
                let (names, upstream) = (array(&names), quoted(&upstream));
                let _ = write!(
                    text,
                    "\n[[stream.route]]  # from {place}\nnames = {names}\nupstream = {upstream}\n"
                );
            }
            self.streams.push_str(&text);
        }
    }

    pub(super) fn whole(&mut self, section: &Section, loss: Loss, advice: &str) {
        let piece = format!("{} {}", section.kind, section.name);
        self.note(&section.place, piece, loss, advice);
        section.lines.iter().for_each(|line| self.seen(line));
    }

    /// The longest silence that either side was given.
    fn idle(&self, section: &Section) -> Option<String> {
        let behind = section.nearest("default_backend");
        let behind = behind.and_then(|line| self.backends.get(line.word(1)).cloned());
        let of = |what: &str| {
            let sections = [Some(section), behind.as_ref()];
            let found = sections
                .into_iter()
                .flatten()
                .filter_map(|section| section.nearest_two("timeout", what))
                .filter_map(|line| Some((milliseconds(line.word(2))?, line.word(2).to_owned())));
            found.max()
        };
        let (_, time) = of("tunnel").or_else(|| of("client").max(of("server")))?;
        deadline(&time)
    }

    /// What each rule leads to, in their order.
    fn stream_targets(&mut self, section: &Section, lists: &Lists, tls: bool) -> Targets {
        let mut targets = Targets::default();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for rule in section.all("use_backend") {
            if rule.word(1).contains("%[") {
                self.by_map(rule, lists, tls, &mut targets, &mut known);
                continue;
            }
            for all in of(rule, lists) {
                match names(&all, tls) {
                    Some(names) if names.is_empty() => {
                        targets.rest = self.stream_backend(rule, rule.word(1));
                        return targets;
                    }
                    // All that is TLS: here that is all there is, where nothing is for the others.
                    Some(names) if names == ["*"] => match section.nearest("default_backend") {
                        None => {
                            let advice = "what is not TLS, or asks for no name, goes there too";
                            self.tell(rule, Loss::Slight, advice);
                            targets.rest = self.stream_backend(rule, rule.word(1));
                            return targets;
                        }
                        Some(_) => {
                            let advice = "told TLS from what is not, which is not done here; its \
                                          connections go where the others do";
                            self.tell(rule, Loss::Real, advice);
                        }
                    },
                    Some(names) => {
                        self.named(rule, rule.word(1), names, &mut targets, &mut known);
                    }
                    None => {
                        let advice = "goes by what cannot be asked of a connection here; its \
                                      connections go where the others do";
                        self.tell(rule, Loss::Real, advice);
                    }
                }
            }
        }
        targets.rest = match self.default_backend(section) {
            Some(_) if section.passes => None,
            Some(name) => {
                let line = section.nearest("default_backend").unwrap_or_else(|| Line {
                    words: vec![section.kind.clone(), section.name.clone()],
                    place: section.place.clone(),
                });
                self.stream_backend(&line, &name)
            }
            None => None,
        };
        targets
    }

    /// `use_backend %[req.ssl_sni,lower,map(FILE,DEFAULT)]`
    fn by_map(
        &mut self,
        rule: &Line,
        lists: &Lists,
        tls: bool,
        targets: &mut Targets,
        known: &mut BTreeSet<String>,
    ) {
        let unclear = "depends on what is looked up: write where its connections go in a \
                       [[stream.route]]";
        let asked = of(rule, lists);
        // Names are all that can be asked for besides.
        let only = match asked.as_slice() {
            [all] => (all.iter().filter(|term| term.test != Test::Always))
                .map(|term| match &term.test {
                    Test::Host(hosts) if !term.not => Some(hosts),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let map = SniMap::read(rule.word(1), lists).filter(|_| !tls);
        let (Some(map), Some(only)) = (map, only) else {
            return self.tell(rule, Loss::Real, unclear);
        };
        for (name, backend) in map.entries {
            if (only.iter()).any(|hosts| matches!(hosts.holds(&name), Holds::Never)) {
                continue;
            }
            self.named(rule, &backend, vec![name], targets, known);
        }
        if let Some(default) = map.default {
            let advice = format!("{default}, for names that the map has not: see default_backend");
            self.tell(rule, Loss::Slight, advice);
        }
    }

    fn named(
        &mut self,
        rule: &Line,
        backend: &str,
        names: Vec<String>,
        targets: &mut Targets,
        known: &mut BTreeSet<String>,
    ) {
        if names.iter().any(|name| name.starts_with("*.")) {
            let advice = "stands for one more label here, for any number of them in HAProxy";
            self.tell(rule, Loss::Slight, advice);
        }
        // The first rule that has a name takes it.
        let names: Vec<_> = (names.into_iter())
            .filter(|name| known.insert(name.clone()))
            .collect();
        // Those that lead to what terminates TLS here are not passed through.
        if names.is_empty() || self.ends.as_deref() == Some(backend) {
            return;
        }
        if let Some(upstream) = self.stream_backend(rule, backend) {
            let of = || (rule.place.to_string(), Vec::new());
            targets
                .named
                .entry(upstream)
                .or_insert_with(of)
                .1
                .extend(names);
        }
    }

    fn stream_backend(&mut self, rule: &Line, name: &str) -> Option<String> {
        let found = self.backend(name);
        if found.is_none() {
            self.tell(rule, Loss::Real, "leads to no server that is known");
        }
        found
    }

    /// `tcp-request`: who is let in. `None`: it cannot be said here, and the stream is left out.
    fn stream_guards(&mut self, section: &Section, lists: &Lists) -> Option<Guards> {
        let mut guards = Guards::default();
        for rule in section.all("tcp-request") {
            let action = rule.word(2);
            match (rule.word(1), action) {
                ("inspect-delay", _) => {
                    let advice = "a greeting is waited for by timeouts.tls_handshake";
                    self.tell(rule, Loss::None, advice);
                }
                (_, "reject" | "accept" | "silent-drop") => {
                    for all in of(rule, lists) {
                        if !self.stream_guard(rule, action == "accept", &all, &mut guards) {
                            let advice = "lets some connections in by what cannot be asked here: \
                                          the stream is left out";
                            self.tell(rule, Loss::Real, advice);
                            self.whole(section, Loss::Real, "is left out: see its tcp-request");
                            return None;
                        }
                    }
                }
                _ if action.starts_with("track-sc") => {
                    let advice = "counted; see limits.connections_per_client";
                    self.tell(rule, Loss::Slight, advice);
                }
                (_, "capture" | "set-var") => {
                    let advice = "what used it is told by itself";
                    self.tell(rule, Loss::Slight, advice);
                }
                _ => self.tell(rule, Loss::Real, "is not done here; see docs/streams.md"),
            }
        }
        Some(guards)
    }

    /// One rule. `false`: it cannot be said here.
    fn stream_guard(&mut self, rule: &Line, accept: bool, all: &All, guards: &mut Guards) -> bool {
        let said: Vec<_> = all
            .iter()
            .filter(|term| term.test != Test::Always)
            .collect();
        match (accept, said.as_slice()) {
            (true, []) => true,
            (true, [term]) if !term.not && term.test == Test::Tls => true,
            (true, [term]) if !term.not && matches!(term.test, Test::Client(_)) => {
                if let Test::Client(nets) = &term.test {
                    guards.accepted.extend(nets.iter().cloned());
                }
                true
            }
            // It only matters where what is left is turned away.
            (true, _) => {
                guards.unclear = true;
                true
            }
            (false, []) if guards.unclear => false,
            (false, []) if !guards.accepted.is_empty() => {
                guards.allow.append(&mut guards.accepted);
                true
            }
            (false, []) => {
                let advice = "what is not TLS goes where clients go that name nobody";
                self.tell(rule, Loss::Slight, advice);
                true
            }
            (false, [term]) => match (&term.test, term.not) {
                (Test::Client(nets), false) => {
                    guards.deny.extend(nets.iter().cloned());
                    true
                }
                (Test::Client(nets), true) => {
                    guards.allow.extend(nets.iter().cloned());
                    true
                }
                (Test::Tls, true) => {
                    let advice = "what is not TLS goes where clients go that name nobody";
                    self.tell(rule, Loss::Slight, advice);
                    true
                }
                (Test::Unknown(what), _) if counted(what) => {
                    self.bounded(rule, what);
                    true
                }
                _ => false,
            },
            (false, terms) => {
                let counts = terms.iter().find_map(|term| match &term.test {
                    Test::Unknown(what) if counted(what) => Some(what.clone()),
                    _ => None,
                });
                counts.iter().for_each(|what| self.bounded(rule, what));
                counts.is_some()
            }
        }
    }
}

/// The names that a rule is for; none: all connections. `None`: it goes by something else.
fn names(all: &All, tls: bool) -> Option<Vec<String>> {
    let is_said = |test: &Test| *test != Test::Always;
    let said: Vec<_> = all.iter().filter(|term| is_said(&term.test)).collect();
    let named = said
        .iter()
        .any(|term| matches!(term.test, Test::Host(_)) && !term.not);
    let said: Vec<_> = said
        .into_iter()
        .filter(|term| term.test != Test::Tls || term.not || !(named || tls))
        .collect();
    match said.as_slice() {
        [] => Some(Vec::new()),
        [term] if !tls && !term.not => match &term.test {
            // Ends of names are wildcards here, other parts of them are nothing.
            Test::Host(hosts) => {
                let ends = hosts.names.iter().any(|name| name.starts_with('*'));
                (hosts.pattern.is_none() || ends).then(|| hosts.names.clone())
            }
            // Whatever name is asked for.
            Test::Tls => Some(vec!["*".to_owned()]),
            _ => None,
        },
        _ => None,
    }
}

/// A file of names with their backends.
struct SniMap {
    entries: Vec<(String, String)>,
    default: Option<String>,
}

impl SniMap {
    fn read(sample: &str, lists: &Lists) -> Option<Self> {
        let inner = sample.strip_prefix("%[")?.strip_suffix(")]")?;
        let (what, map) = inner.rsplit_once(",map")?;
        let what = what.trim_end_matches(",lower");
        if !["req_ssl_sni", "req.ssl_sni"].contains(&what) {
            return None;
        }
        let (how, of) = map.split_once('(')?;
        let (file, default) = match of.split_once(',') {
            Some((file, default)) => (file, Some(default.to_owned())),
            None => (of, None),
        };
        let ends = match how {
            "" | "_str" | "_dom" | "_reg" => false,
            "_end" => true,
            _ => return None,
        };
        let mut entries = Vec::new();
        for text in lists.values(file)? {
            let (name, backend) = text.split_once(char::is_whitespace)?;
            if how == "_reg" {
                entries.push((host::name_of(name)?, backend.trim().to_owned()));
                continue;
            }
            let name = match (ends, name.strip_prefix('.')) {
                (true, Some(parent)) => format!("*.{parent}"),
                (false, None) => name.to_owned(),
                (true, None) => return None,
                // No client asks for such a name.
                (false, Some(_)) => continue,
            };
            entries.push((name.to_ascii_lowercase(), backend.trim().to_owned()));
        }
        Some(Self { entries, default })
    }
}
