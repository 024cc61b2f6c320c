//! From nginx's configuration to one of staunch's.
//!
//! Whatever reads a directive marks it, and in the end all that nobody marked becomes a note: so
//! nothing is dropped in silence, not even what is not known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use super::{Error, Imported, Loss, Note, array, quoted, without_covered};
use parse::Directive;
use scope::{Scope, Seen};

mod action;
mod advice;
mod auth;
mod choice;
mod compression;
mod condition;
mod cookie;
mod limit;
mod location;
mod map;
mod method;
mod parse;
mod plain;
mod port;
mod rewrite;
mod rules;
mod scope;
mod server;
mod stream;
mod unit;
mod upstream;
mod value;

/// Reads nginx's configuration in `path`. `names_of`: the names that a certificate is for.
///
/// # Errors
/// When a file cannot be read, or is not what nginx would accept.
pub fn import(path: &Path, names_of: fn(&Path) -> Vec<String>) -> Result<Imported, Error> {
    let top = parse::read(path)?;
    let mut import = Import {
        folder: parse::folder_of(path).display().to_string(),
        names_of: Some(names_of),
        ..Import::default()
    };
    let named = |name: &str| top.iter().find(|directive| directive.name == name);
    match (named("http"), named("stream")) {
        (Some(http), _) => {
            import.seen.mark(http);
            import.http(http.inside());
        }
        (None, Some(_)) => {}
        // A file of `sites-enabled` alone is taken as if it stood in `http`.
        (None, None) => import.http(&top),
    }
    if let Some(stream) = named("stream") {
        import.streams(stream);
    }
    import.rest(&top);
    Ok(import.finish(path))
}

#[derive(Default)]
struct Import {
    /// Relative paths are below this folder.
    folder: String,
    /// The names that a certificate is for.
    names_of: Option<fn(&Path) -> Vec<String>>,
    notes: Vec<Note>,
    seen: Seen,
    https: BTreeSet<String>,
    http: BTreeSet<String>,
    proxy_from: BTreeSet<String>,
    forwarded_from: BTreeSet<String>,
    certificates: Vec<(String, String, String)>,
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
    /// Ports for which a server is named as the default.
    default_ports: port::Ports,
    /// No server with TLS listens at the usual port.
    odd_tls: bool,
    /// Where the server that is read listens.
    here: port::Here,
    /// The names of servers with TLS.
    secured: BTreeSet<String>,
    /// Of those, the ones of servers that ask more of connections.
    strict: BTreeSet<String>,
    /// What requests to the server that is read come by.
    by: value::By,
    /// Servers with TLS that another serves in plain text, and those others.
    twins: plain::Twins,
    quotas: Quotas,
    sites: port::Sites,
    streams: String,
    upstreams: upstream::Upstreams,
}

/// Names of tables, each for one content.
#[derive(Default)]
struct Names {
    /// By what they stand for.
    written: BTreeMap<String, String>,
    taken: BTreeMap<String, usize>,
}

impl Names {
    /// The name of a table with this content, and whether it is new. `wanted`: how it would be
    /// called if nothing else were.
    fn name(&mut self, wanted: &str, content: &str) -> (String, bool) {
        // What a name may have at most, and room for a number.
        const LONGEST: usize = 56;
        if let Some(name) = self.written.get(content) {
            return (name.clone(), false);
        }
        let keep = |c: char| match c.is_ascii_alphanumeric() || c == '_' {
            true => c,
            false => '-',
        };
        let base: String = wanted.chars().map(keep).take(LONGEST).collect();
        let base = match base.trim_matches('-') {
            "" => "unnamed",
            base => base,
        };
        let count = self.taken.entry(base.to_owned()).or_default();
        *count += 1;
        let name = match *count {
            1 => base.to_owned(),
            count => format!("{base}--{count}"),
        };
        self.written.insert(content.to_owned(), name.clone());
        (name, true)
    }
}

/// Quotas written so far.
#[derive(Default)]
struct Quotas {
    names: Names,
    text: String,
}

impl Quotas {
    /// See [`Names::name`].
    fn name(&mut self, zone: &str, text: &str) -> (String, bool) {
        self.names.name(zone, &format!("{zone}\n{text}"))
    }
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
            // Nobody has gone to this one.
            let unused = directive.name == "location"
                && directive.first().starts_with('@')
                && !directive.inside().iter().any(|inner| self.seen.has(inner));
            if self.seen.has(directive) && !unused {
                self.rest(directive.inside());
                continue;
            }
            let (loss, advice) = match directive.args.as_slice() {
                [source, _] if directive.name == "map" && source == "$http_upgrade" => {
                    (Loss::None, "upgrades are passed on by themselves")
                }
                [status] if status == "429" && directive.name.ends_with("_status") => {
                    (Loss::None, "it is 429 here in any case")
                }
                [off] if off == "off" && !advice::is_on_here(&directive.name) => {
                    (Loss::None, "it is off here, unless told otherwise")
                }
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
        self.upstreams.groups = upstream::groups(http);
        self.upstreams.folder.clone_from(&self.folder);
        let seen = self.seen.clone();
        let scope = Scope::new(http, &seen);
        self.general(&scope);
        let servers = || http.iter().filter(|directive| directive.name == "server");
        let secure = |server: &Directive| {
            server.inside().iter().any(|one| match one.name.as_str() {
                "listen" => one.args.iter().any(|arg| arg == "ssl"),
                "ssl" => one.first() == "on",
                _ => false,
            })
        };
        for server in servers().filter(|server| secure(server)) {
            let names = server
                .inside()
                .iter()
                .filter(|one| one.name == "server_name");
            let names = names.flat_map(|names| names.args.iter().cloned());
            // One without a name is there all the same.
            let names: Vec<_> = names.chain(["_".to_owned()]).collect();
            if !port::guard(&scope.inside(server.inside())).is_empty() {
                self.strict.extend(names.iter().cloned());
            }
            self.secured.extend(names);
        }
        let mut at = servers()
            .filter(|server| secure(server))
            .flat_map(Directive::inside)
            .filter(|one| one.name == "listen");
        let usual = |listen: &Directive| listen.first().rsplit(':').next() == Some("443");
        self.odd_tls = !self.secured.is_empty() && !at.any(usual);
        self.twins = plain::Twins::find(servers(), secure);
        // Without one that is named as the default, it is the first.
        let listens = servers()
            .flat_map(Directive::inside)
            .filter(|one| one.name == "listen");
        let defaults =
            listens.filter(|listen| listen.args.iter().any(|arg| arg.starts_with("default")));
        let addresses = defaults.filter_map(|listen| server::address(listen.first()));
        self.default_ports = addresses.map(|address| port::of(&address)).collect();
        for server in http.iter().filter(|directive| directive.name == "server") {
            self.seen.mark(server);
            self.server(server, &scope);
        }
        self.unused_groups(http);
    }

    fn unused_groups(&mut self, level: &[Directive]) {
        for group in level
            .iter()
            .filter(|directive| directive.name == "upstream")
        {
            match self.upstreams.used.contains(group.first()) {
                true => self.seen.mark_all(group),
                false => self.whole(group, Loss::None, "nothing that was imported leads to it"),
            }
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
            let mut addresses: Vec<_> = std::mem::take(addresses).into_iter().collect();
            without_covered(&mut addresses);
            let _ = writeln!(text, "{key} = {}", array(addresses));
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
        match self.sites.is_empty() {
            true => text.push_str("\n# No server was found.\n"),
            false => text.push_str(&self.written_sites()),
        }
        text.push_str(&self.streams);
        text.push_str(&self.upstreams.text);
        text.push_str(&self.quotas.text);
        self.notes.sort();
        self.notes.dedup();
        Imported {
            text,
            notes: self.notes,
        }
    }
}
