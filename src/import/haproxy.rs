//! From HAProxy's configuration to one of staunch's.
//!
//! HAProxy asks its rules in their order and takes the first that holds. Here there is a site for
//! each host that a rule names, and in it a route for each path; what comes later and can never hold
//! is left out. A line that nothing was made of becomes a note.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::{Error, Imported, Loss, Note, Place, array, quoted, without_covered};
use format::{deadline, line};
use parse::{Line, Section};

mod alive;
mod auth;
mod backend;
mod bind;
mod condition;
mod door;
mod format;
mod frontend;
mod given;
mod guard;
mod host;
mod inner;
mod left;
mod map;
mod page;
mod parse;
mod prepare;
mod quota;
mod rewrite;
mod route;
mod rule;
mod sample;
mod stream;
mod words;

/// Reads HAProxy's configuration in `path`.
///
/// # Errors
/// When the file cannot be read, or is not what HAProxy would accept.
pub fn import(path: &Path) -> Result<Imported, Error> {
    let (mut sections, notes) = parse::read(path)?;
    let mut early = Import {
        notes,
        ..Import::default()
    };
    Import::with_rules_of_defaults(&mut sections);
    Import::without_captures(&mut sections);
    Import::with_whole_samples(&mut sections);
    early.without_variables(&mut sections);
    early.without_counts_of_servers(&mut sections);
    early.without_loops(&mut sections);
    early.between_sections(&mut sections);
    let mut import = Import {
        folder: folder_of(path, &sections, "crt-base"),
        authorities: folder_of(path, &sections, "ca-base"),
        backends: (sections.iter())
            .filter(|section| matches!(section.kind.as_str(), "backend" | "listen"))
            .map(|section| (section.name.clone(), section.clone()))
            .collect(),
        tables: (sections.iter())
            .filter_map(|section| {
                Some((section.name.clone(), section.last("stick-table")?.clone()))
            })
            .collect(),
        error_lists: (sections.iter())
            .filter(|section| section.kind == "http-errors")
            .map(|section| {
                let lines = section.all("errorfile").cloned();
                (section.name.clone(), lines.collect())
            })
            .collect(),
        userlists: (sections.iter())
            .filter(|section| section.kind == "userlist")
            .map(|section| (section.name.clone(), section.clone()))
            .collect(),
        made: door::Made::all(&sections),
        bare: (sections.iter())
            .flat_map(|section| section.all("bind"))
            .any(|bind| !bind.has("accept-proxy")),
        is_checked: (sections.iter())
            .flat_map(|section| &section.lines)
            .any(|line| line.word(0).ends_with("server") && line.has("check")),
        unverified: (sections.iter())
            .filter(|section| section.kind == "global")
            .filter_map(|global| global.last("ssl-server-verify"))
            .any(|line| line.word(1) == "none"),
        ..early
    };
    for section in &sections {
        match section.kind.as_str() {
            "global" => import.global(section),
            "frontend" | "listen" => import.frontend(section),
            _ => {}
        }
    }
    import.sites();
    import.rest(&sections);
    Ok(import.finish(path))
}

/// Where files are whose paths are not whole: what `global` says, else the folder of the file.
fn folder_of(path: &Path, sections: &[Section], base: &str) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().map(|folder| folder.display().to_string());
    let global = sections.iter().find(|section| section.kind == "global");
    let base = global.and_then(|global| global.last(base));
    match base.map(|base| base.word(1)) {
        Some(base) if base.starts_with('/') => base.to_owned(),
        _ => folder.unwrap_or_default(),
    }
}

#[derive(Default)]
struct Import {
    /// Relative paths of certificates are below this folder.
    folder: String,
    /// And those of authorities below this one.
    authorities: String,
    notes: Vec<Note>,
    seen: BTreeSet<Place>,
    /// Lines that never hold, by one door at least.
    idle: BTreeSet<Place>,
    backends: BTreeMap<String, Section>,
    https: BTreeSet<String>,
    http: BTreeSet<String>,
    proxy_from: BTreeSet<String>,
    /// Where they have to.
    proxy_at: BTreeSet<String>,
    /// Whether clients come without a PROXY header somewhere.
    bare: bool,
    /// Whether servers are checked anywhere.
    is_checked: bool,
    /// Servers are not verified unless they say so themselves.
    unverified: bool,
    certificates: Vec<(Vec<String>, Place)>,
    doors: Vec<door::Door>,
    /// Fields of requests that rules make.
    made: Vec<door::Made>,
    /// Rules of the section that is looked at that write paths anew, for one host.
    front: Vec<route::Rewriting>,
    /// The pages that it has for errors.
    pages: page::Pages,
    userlists: BTreeMap<String, Section>,
    /// Lines of `http-errors` by their sections.
    error_lists: BTreeMap<String, Vec<Line>>,
    /// Whether what is read is for requests that came over TLS.
    over_tls: bool,
    /// Whether something goes by variables of what a request is.
    by_variables: bool,
    /// Whether all of their clients have a good certificate.
    certain: bool,
    timeouts: BTreeMap<&'static str, String>,
    limits: BTreeMap<&'static str, String>,
    versions: Option<String>,
    no_tickets: bool,
    /// Whether defaults of a site have been read.
    general: bool,
    sites: String,
    streams: String,
    /// The backend behind which TLS is terminated here, of a section that only tells names apart.
    ends: Option<String>,
    /// Backends whose servers are backups of others.
    spare: BTreeSet<String>,
    /// Names of upstreams by backends that something leads to.
    written: BTreeMap<String, Option<String>>,
    upstreams: String,
    quotas: String,
    /// Names of quotas by what they say.
    quota_names: BTreeMap<String, String>,
    /// Stick tables by their sections.
    tables: BTreeMap<String, Line>,
}

impl Import {
    fn seen(&mut self, line: &Line) {
        self.seen.insert(line.place.clone());
    }

    fn tell(&mut self, line: &Line, loss: Loss, advice: impl Into<String>) {
        self.seen(line);
        self.note(&line.place, line.shown(), loss, advice);
    }

    fn note(&mut self, place: &Place, piece: String, loss: Loss, advice: impl Into<String>) {
        self.notes.push(Note {
            place: place.clone(),
            piece,
            loss,
            advice: advice.into(),
        });
    }

    /// A file with authorities, or with what they revoked.
    fn authority(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.authorities),
        }
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.folder),
        }
    }

    fn global(&mut self, section: &Section) {
        for line in &section.lines {
            match (line.word(0), line.word(1)) {
                ("maxconn", number) if number.parse::<u32>().is_ok() => {
                    self.limits.insert("connections", number.to_owned());
                    self.seen(line);
                }
                ("ssl-default-bind-options", _) => {
                    self.bind_options(line);
                    self.seen(line);
                }
                _ => {}
            }
        }
    }

    /// `ssl-min-ver` and its like, in `global` or behind `bind`.
    fn bind_options(&mut self, line: &Line) {
        if line.after("ssl-min-ver") == Some("TLSv1.3") || line.has("force-tlsv13") {
            self.versions = Some(array(["1.3"]));
        } else if line.after("ssl-max-ver") == Some("TLSv1.2") || line.has("no-tlsv13") {
            self.versions = Some(array(["1.2"]));
        }
        self.no_tickets |= line.has("no-tls-tickets");
    }

    /// Deadlines of `defaults`, which are those of all; where several differ, those of the first.
    fn general(&mut self, section: &Section) {
        let Some(defaults) = section.defaults.clone() else {
            return;
        };
        if section.is_tcp() {
            // Each stream says its own.
            return defaults.all("timeout").for_each(|line| self.seen(line));
        }
        let mut found: BTreeMap<&'static str, String> = BTreeMap::new();
        for timeout in defaults.all("timeout") {
            let keys: &[&str] = match timeout.word(1) {
                "connect" => &["upstream_connect"],
                "server" => &["upstream_response", "upstream_idle"],
                "client" => &["request_body", "send"],
                "http-request" => &["request_head"],
                "http-keep-alive" => &["idle"],
                "tunnel" => &["tunnel"],
                // Said of each upstream.
                "queue" | "check" => {
                    self.seen(timeout);
                    continue;
                }
                _ => continue,
            };
            let Some(time) = deadline(timeout.word(2)) else {
                self.tell(timeout, Loss::Real, "is not a time that staunch has");
                continue;
            };
            let time = quoted(&time);
            let differs = |key: &&str| self.timeouts.get(*key).is_some_and(|known| *known != time);
            match self.general && keys.iter().any(differs) {
                true => self.tell(
                    timeout,
                    Loss::Slight,
                    "other defaults say otherwise; [timeouts] are those of all",
                ),
                false => self.seen(timeout),
            }
            found.extend(keys.iter().map(|key| (*key, time.clone())));
        }
        // Without one of its own, a kept connection waits as long as for a request.
        if !found.contains_key("idle") {
            let client = found.get("request_head").or_else(|| found.get("send"));
            let client = client.cloned();
            found.extend(client.map(|time| ("idle", time)));
        }
        self.general = true;
        for (key, time) in found {
            self.timeouts.entry(key).or_insert(time);
        }
    }

    /// The name of the upstream for a backend; `None` where it has no server.
    fn backend(&mut self, name: &str) -> Option<String> {
        if let Some(known) = self.written.get(name) {
            return known.clone();
        }
        let key = key_of(name);
        let section = self.backends.get(name).cloned();
        let text = section.and_then(|section| self.upstream(&section, &key));
        let found = text.map(|text| {
            self.upstreams.push_str(&text);
            key
        });
        self.written.insert(name.to_owned(), found.clone());
        found
    }

    /// Tells of what nobody has looked at.
    fn rest(&mut self, sections: &[Section]) {
        for section in sections {
            let unused = section.kind == "backend" && !self.written.contains_key(&section.name);
            if unused && self.spare.contains(&section.name) {
                section.lines.iter().for_each(|line| self.seen(line));
                continue;
            }
            if unused {
                let piece = format!("backend {}", section.name);
                let is_seen = |line: &Line| self.seen.contains(&line.place);
                let (loss, advice) = match section.lines.iter().any(is_seen) {
                    true => (
                        Loss::Slight,
                        "all that leads to it is closed or answered: the rest of it is left out",
                    ),
                    false => (Loss::None, "nothing that was imported leads to it"),
                };
                self.note(&section.place, piece, loss, advice);
                continue;
            }
            for line in &section.lines {
                if !self.seen.contains(&line.place) {
                    let (loss, advice) = match self.idle.contains(&line.place) {
                        true => (Loss::None, "never holds"),
                        false => advice(section, line),
                    };
                    self.tell(line, loss, advice);
                }
            }
        }
    }

    fn finish(mut self, path: &Path) -> Imported {
        let mut text = format!(
            "# Imported from {}. What has no equivalent was told on standard error.\n\n[listen]\n",
            path.display()
        );
        for (key, addresses) in [("https", &mut self.https), ("http", &mut self.http)] {
            let mut addresses: Vec<_> = std::mem::take(addresses).into_iter().collect();
            without_covered(&mut addresses);
            let _ = writeln!(text, "{key} = {}", array(addresses));
        }
        if !self.proxy_from.is_empty() {
            let _ = writeln!(text, "proxy_protocol_from = {}", array(&self.proxy_from));
            if self.bare {
                let _ = writeln!(text, "proxy_protocol_at = {}", array(&self.proxy_at));
            }
        }
        if self.versions.is_some() || self.no_tickets {
            text.push_str("\n[tls]\n");
            if let Some(versions) = &self.versions {
                let _ = writeln!(text, "versions = {versions}");
            }
            if self.no_tickets {
                text.push_str("tickets = false\n");
            }
        }
        for (section, keys) in [("timeouts", &self.timeouts), ("limits", &self.limits)] {
            if !keys.is_empty() {
                let _ = write!(text, "\n[{section}]\n");
            }
            for (key, value) in keys {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        for (lines, place) in &self.certificates {
            let _ = writeln!(
                text,
                "\n[[certificate]]  # from {place}\n{}",
                lines.join("\n")
            );
        }
        if self.sites.is_empty() && self.streams.is_empty() {
            text.push_str("\n# No frontend was found that could be written.\n");
        }
        text.push_str(&self.sites);
        text.push_str(&self.streams);
        text.push_str(&self.upstreams);
        text.push_str(&self.quotas);
        self.notes.sort();
        self.notes.dedup();
        Imported {
            text,
            notes: alike(self.notes),
        }
    }

    /// A file or folder of `crt`.
    fn certificate(&mut self, path: &str, place: &Place) {
        let path = self.absolute(path);
        let lines = match Path::new(&path).is_dir() || path.ends_with('/') {
            true => vec![line("folder", &path)],
            false => {
                let mut lines = vec![line("chain", &path)];
                // The key is in a file beside it, where it is not in the same.
                let key = format!("{path}.key");
                let alone = fs::read(&path)
                    .is_ok_and(|bytes| !String::from_utf8_lossy(&bytes).contains("PRIVATE KEY-"));
                if alone && Path::new(&key).exists() {
                    lines.push(line("key", &key));
                }
                lines
            }
        };
        if !self.certificates.iter().any(|(known, _)| *known == lines) {
            self.certificates.push((lines, place.clone()));
        }
    }
}

/// Lines that the same is told of are told of once.
fn alike(notes: Vec<Note>) -> Vec<Note> {
    let mut found: Vec<(Note, Vec<usize>)> = Vec::new();
    for note in notes {
        let first = |note: &Note| note.piece.split(' ').next().map(str::to_owned);
        match found.iter_mut().find(|(known, _)| {
            known.loss == note.loss && known.advice == note.advice && first(known) == first(&note)
        }) {
            Some((_, lines)) => lines.push(note.place.line),
            None => found.push((note, Vec::new())),
        }
    }
    let told = found.into_iter().map(|(mut note, mut lines)| {
        lines.dedup();
        lines.retain(|line| *line != note.place.line);
        if !lines.is_empty() {
            let lines: Vec<_> = lines.iter().map(usize::to_string).collect();
            note.advice = format!("{} (and so in line {})", note.advice, lines.join(", "));
        }
        note
    });
    told.collect()
}

/// A name as a key of TOML.
fn key_of(name: &str) -> String {
    let keep = |c: char| match c.is_ascii_alphanumeric() || c == '_' {
        true => c,
        false => '-',
    };
    name.chars().map(keep).collect()
}

/// What is told of a line that nothing was made of.
fn advice(section: &Section, line: &Line) -> (Loss, &'static str) {
    if section.kind == "global" {
        return match line.word(0) {
            "ssl-default-bind-ciphers"
            | "ssl-default-bind-ciphersuites"
            | "ssl-dh-param-file"
            | "tune.ssl.default-dh-param"
            | "ssl-default-bind-curves" => (
                Loss::None,
                "policy \"intermediate\" of [tls] is Mozilla's, and settles it",
            ),
            "stats" => (Loss::None, "see the admin address: listen.admin"),
            "log" => (
                Loss::Slight,
                "the log goes to standard error; see [log] and [log.access]",
            ),
            _ => (
                Loss::None,
                "the service manager's business, or of no concern here",
            ),
        };
    }
    if !matches!(
        section.kind.as_str(),
        "frontend" | "backend" | "listen" | "defaults"
    ) {
        return (
            Loss::Slight,
            "belongs to a section that there is none of; what used it is told",
        );
    }
    match (line.word(0), line.word(1)) {
        ("mode", _) | ("acl" | "option" | "no" | "maxconn" | "fullconn" | "id" | "bind", _) => {
            match (line.word(0), line.word(1)) {
                ("option", "httplog" | "tcplog" | "dontlognull" | "dontlog-normal" | "logasap") => {
                    (Loss::Slight, "see [log.access] for a log of requests")
                }
                ("option", "forwardfor" | "forwarded")
                    if line.has("if-none") || line.has("except") =>
                {
                    (
                        Loss::Slight,
                        "X-Forwarded-For says who the client is, whatever it says itself: name \
                         proxies in front in listen.forwarded_from",
                    )
                }
                ("option", "forwardfor" | "forwarded") => {
                    (Loss::None, "X-Forwarded-For and its like are always sent")
                }
                ("option", "originalto") => (Loss::Real, "X-Original-To is not sent here"),
                ("option", "external-check") => (
                    Loss::Real,
                    "no program is asked here; see [upstream.NAME.health]",
                ),
                ("option", "http_proxy" | "transparent" | "http-use-proxy-header") => (
                    Loss::Real,
                    "is not done here: requests go to servers that are named",
                ),
                ("option", name) if name.starts_with("accept-invalid-") => (
                    Loss::Slight,
                    "what is malformed is refused here, or not passed on",
                ),
                ("option", name) if name.starts_with("h1-case-adjust") => {
                    (Loss::Slight, "names of fields are passed on as they come")
                }
                ("maxconn", _) if section.kind != "backend" => (
                    Loss::Slight,
                    "there is one limit for all addresses here: limits.connections",
                ),
                ("acl", _) => (Loss::None, "where a rule goes by it, that is told"),
                _ => (Loss::None, "of no concern here"),
            }
        }
        (
            "log" | "log-format" | "log-tag" | "capture" | "unique-id-format" | "unique-id-header",
            _,
        ) => (
            Loss::Slight,
            "see [log.access], and request_id for an id of each request",
        ),
        ("errorfile" | "errorfiles" | "errorloc" | "errorloc302", _) => (
            Loss::Slight,
            "see error_pages: a file with the body alone, without the head",
        ),
        ("compression", "offload") => (
            Loss::None,
            "what a server has compressed itself is passed on so",
        ),
        ("compression", _) => (Loss::None, "nothing that was imported goes by it"),
        ("filter", "compression") => (Loss::None, "see compression"),
        ("filter", _) => (Loss::Real, "changed responses; let the server behind do it"),
        ("stats", _) => (
            Loss::Slight,
            "see /metrics and `staunch upstreams` at the admin address",
        ),
        ("http-request" | "tcp-request", action)
            if action.starts_with("track-sc") || line.word(2).starts_with("track-sc") =>
        {
            (
                Loss::Slight,
                "counted; where a rule goes by it, that is told",
            )
        }
        ("stick-table", _) => (Loss::Slight, "what used it is told"),
        ("timeout", _) => (Loss::Slight, "see [timeouts]"),
        (
            "http-reuse"
            | "description"
            | "default-server"
            | "hash-type"
            | "load-server-state-from-file"
            | "email-alert"
            | "backlog"
            | "balance"
            | "retries"
            | "retry-on"
            | "default_backend"
            | "http-check"
            | "cookie"
            | "tcp-check",
            _,
        ) => (Loss::Slight, "see [upstream.NAME]"),
        ("source", _) => (
            Loss::Real,
            "connections leave from the address that the system gives them",
        ),
        ("http-request" | "tcp-request", "set-src") => (
            Loss::Real,
            "whose word on who the client is is believed is said in listen.forwarded_from",
        ),
        ("use-server", _) => (
            Loss::Real,
            "chose one server of a backend: write an [upstream.NAME] with it alone, and a route \
             that leads there",
        ),
        _ => (
            Loss::Real,
            "has no equivalent that the importer knows; see config/staunch.toml for what there is",
        ),
    }
}
