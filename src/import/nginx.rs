//! From nginx's configuration to one of staunch's.
//!
//! Whatever reads a directive marks it, and in the end all that nobody marked becomes a note: so
//! nothing is dropped in silence, not even what is not known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use super::{Error, Imported, Loss, Note, array, quoted};
use parse::Directive;
use scope::{Scope, Seen};

mod action;
mod advice;
mod compression;
mod limit;
mod location;
mod parse;
mod rules;
mod scope;
mod server;
mod unit;
mod upstream;
mod value;

/// Reads nginx's configuration in `path`.
///
/// # Errors
/// When a file cannot be read, or is not what nginx would accept.
pub fn import(path: &Path) -> Result<Imported, Error> {
    let top = parse::read(path)?;
    let mut import = Import {
        folder: parse::folder_of(path).display().to_string(),
        ..Import::default()
    };
    // A file of `sites-enabled` alone is taken as if it stood in `http`.
    match top.iter().find(|directive| directive.name == "http") {
        Some(http) => {
            import.seen.mark(http);
            import.http(http.inside());
        }
        None => import.http(&top),
    }
    import.rest(&top);
    Ok(import.finish(path))
}

#[derive(Default)]
struct Import {
    /// Relative paths are below this folder.
    folder: String,
    notes: Vec<Note>,
    seen: Seen,
    https: BTreeSet<String>,
    http: BTreeSet<String>,
    proxy_from: BTreeSet<String>,
    forwarded_from: BTreeSet<String>,
    certificates: Vec<(String, String, String)>,
    names: BTreeSet<String>,
    /// Addresses whose default server is known.
    defaults: BTreeSet<String>,
    timeouts: Vec<String>,
    limits: BTreeMap<&'static str, String>,
    /// Bytes of a request's body, where nothing else is said.
    request_body: Option<u64>,
    /// Error pages of the server that is read: files by path.
    pages: HashMap<String, String>,
    no_tickets: bool,
    /// The server that is read listens on another port than the usual one.
    odd_port: bool,
    /// A server that is named as the default is still to come.
    default_follows: bool,
    sites: String,
    upstreams: upstream::Upstreams,
}

impl Import {
    /// Tells of a directive, and that it has been looked at.
    fn note_as(&mut self, directive: &Directive, loss: Loss, advice: impl Into<String>) {
        self.seen.mark(directive);
        self.notes.push(Note {
            place: directive.place.clone(),
            piece: directive.shown(),
            loss,
            advice: advice.into(),
        });
    }

    /// Tells of a directive that is not carried over as it stands.
    fn lost(&mut self, directive: &Directive, advice: impl Into<String>) {
        self.note_as(directive, Loss::Real, advice);
    }

    /// Tells of a directive that is carried over almost as it stands.
    fn differs(&mut self, directive: &Directive, advice: impl Into<String>) {
        self.note_as(directive, Loss::Slight, advice);
    }

    /// Tells of a directive and all that is in its braces at once.
    fn whole(&mut self, directive: &Directive, loss: Loss, advice: impl Into<String>) {
        self.note_as(directive, loss, advice);
        self.seen.mark_all(directive);
    }

    /// Tells of what nobody has looked at.
    fn rest(&mut self, level: &[Directive]) {
        for directive in level {
            if self.seen.has(directive) {
                self.rest(directive.inside());
                continue;
            }
            let (loss, advice) = match directive.args.as_slice() {
                [off] if off == "off" => (Loss::None, "it is off here, unless told otherwise"),
                _ => advice::of(&directive.name),
            };
            self.whole(directive, loss, advice);
        }
    }

    fn absolute(&self, path: &str) -> String {
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}/{path}", self.folder),
        }
    }

    fn http(&mut self, http: &[Directive]) {
        let groups = http.iter().filter(|directive| directive.name == "upstream");
        self.upstreams.groups = groups
            .clone()
            .map(|directive| (directive.first().to_owned(), directive.clone()))
            .collect();
        self.upstreams.folder.clone_from(&self.folder);
        let seen = self.seen.clone();
        let scope = Scope::new(http, &seen);
        self.general(&scope);
        // Without one that is named as the default, it is the first.
        self.default_follows = http.iter().flat_map(Directive::inside).any(|directive| {
            let secure = |arg: &String| arg == "ssl";
            let default = |arg: &String| arg.starts_with("default");
            directive.name == "listen"
                && directive.args.iter().any(secure)
                && directive.args.iter().any(default)
        });
        for server in http.iter().filter(|directive| directive.name == "server") {
            self.seen.mark(server);
            self.server(server, &scope);
        }
        for group in groups {
            match self.upstreams.used.contains(group.first()) {
                true => self.seen.mark_all(group),
                false => self.whole(group, Loss::None, "nothing that was imported leads to it"),
            }
        }
        if self.sites.is_empty() {
            self.sites
                .push_str("\n# No server that terminates TLS was found.\n");
        }
    }

    /// What holds for all servers.
    fn general(&mut self, http: &Scope<'_>) {
        for (name, key) in [
            ("keepalive_timeout", "idle"),
            ("client_header_timeout", "request_head"),
            ("client_body_timeout", "request_body"),
            ("send_timeout", "send"),
        ] {
            let Some(directive) = http.nearest(name) else {
                continue;
            };
            match unit::deadline(directive.first()) {
                Some(time) => {
                    let place = &directive.place;
                    (self.timeouts).push(format!("{key} = {}  # from {place}", quoted(&time)));
                }
                None => self.lost(
                    directive,
                    "is a time that staunch does not have; see [timeouts]",
                ),
            }
        }
        self.limits(http);
    }

    fn finish(mut self, path: &Path) -> Imported {
        let mut text = format!(
            "# Imported from {}. What has no equivalent was told on standard error.\n\n[listen]\n",
            path.display()
        );
        for (key, addresses) in [("https", &mut self.https), ("http", &mut self.http)] {
            // The IPv6 wildcard takes IPv4 as well.
            let all = addresses.clone();
            addresses.retain(|address| {
                let port = address.strip_prefix("0.0.0.0:");
                !port.is_some_and(|port| all.contains(&format!("[::]:{port}")))
            });
            let _ = writeln!(text, "{key} = {}", array(addresses.iter()));
        }
        let trust = [
            ("proxy_protocol_from", &self.proxy_from),
            ("forwarded_from", &self.forwarded_from),
        ];
        for (key, nets) in trust.into_iter().filter(|(_, nets)| !nets.is_empty()) {
            let _ = writeln!(text, "{key} = {}", array(nets));
        }
        if self.no_tickets {
            text.push_str("\n[tls]\ntickets = false\n");
        }
        if !self.timeouts.is_empty() {
            let _ = writeln!(text, "\n[timeouts]\n{}", self.timeouts.join("\n"));
        }
        if !self.limits.is_empty() {
            text.push_str("\n[limits]\n");
            for (key, value) in &self.limits {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        for (chain, key, place) in &self.certificates {
            let _ = writeln!(
                text,
                "\n[[certificate]]  # from {place}\nchain = {}",
                quoted(chain)
            );
            if key != chain {
                let _ = writeln!(text, "key = {}", quoted(key));
            }
        }
        text.push_str(&self.sites);
        text.push_str(&self.upstreams.text);
        self.notes.sort();
        self.notes.dedup();
        Imported {
            text,
            notes: self.notes,
        }
    }
}
