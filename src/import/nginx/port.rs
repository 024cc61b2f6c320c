//! Sites, and the ports of their servers: of servers with one name that only their ports tell apart,
//! one site comes whose routes ask for the port.

use std::collections::{BTreeMap, BTreeSet};

use super::scope::Scope;
use super::value::By;
use super::{Directive, Import};
use crate::import::formula::Term;
use crate::import::pattern;
use crate::import::site::{Route, Site};
use crate::import::{Loss, Note};

/// Ports, as they are written.
pub(super) type Ports = BTreeSet<String>;

/// The sites so far.
#[derive(Default)]
pub(super) struct Sites {
    all: Vec<Placed>,
    /// Who has a name.
    names: BTreeMap<String, Owner>,
    /// Each server that became a site, and where it listens.
    servers: Vec<(Note, Ports, bool)>,
}

/// Who has a name: at which ports, and what is asked of connections there.
struct Owner {
    ports: Ports,
    guard: String,
    /// Its place among the sites, once it has one.
    at: Option<usize>,
}

/// A site with the ports that it is for.
struct Placed {
    site: Site,
    ports: Ports,
    secure: bool,
    certificates: Vec<String>,
    whose: Note,
    /// Its routes ask for the port.
    by_port: bool,
}

/// What is read of a server before its site is.
#[derive(Clone, Default)]
pub(super) struct Here {
    pub(super) ports: Ports,
    /// Of those, where TLS is spoken, or where it is not if it is nowhere.
    main: Ports,
    secure: bool,
    /// See [`guard`].
    guard: String,
    certificates: Vec<String>,
}

impl Here {
    /// `ports`: all of them; `main`: those with TLS, where there are any.
    pub(super) fn new(scope: &Scope<'_>, ports: Ports, main: Ports, by: By) -> Self {
        let chains = match by {
            By::Plain => Vec::new(),
            By::Tls | By::Both => scope.all("ssl_certificate"),
        };
        Self {
            ports,
            main,
            secure: by != By::Plain,
            guard: match by {
                By::Plain => String::new(),
                By::Tls | By::Both => guard(scope),
            },
            certificates: chains.iter().map(|one| one.first().to_owned()).collect(),
        }
    }
}

/// What a server with TLS asks of connections; nothing where it asks for nothing, so that what is
/// served in plain text may be of the same site.
pub(super) fn guard(scope: &Scope<'_>) -> String {
    // What nothing is made of is not looked at, so that it is told of.
    let first = |name| scope.nearest(name).map(Directive::first);
    if scope.is_on("ssl_reject_handshake") {
        return "nobody".to_owned();
    }
    let protocols = scope.nearest("ssl_protocols");
    let versions = protocols.map(|protocols| protocols.args.join(" "));
    let versions = versions.filter(|said| said.contains("TLSv1.2") != said.contains("TLSv1.3"));
    let verify = first("ssl_verify_client").filter(|verify| *verify != "off");
    let verify = verify.map(|verify| {
        let files = [first("ssl_client_certificate"), first("ssl_crl")];
        [
            verify,
            files[0].unwrap_or_default(),
            files[1].unwrap_or_default(),
        ]
        .join(" ")
    });
    [verify, versions]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The port of an address.
pub(super) fn of(address: &str) -> String {
    address.rsplit(':').next().unwrap_or_default().to_owned()
}

impl Sites {
    pub(super) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether no other server has a name at any of these ports, nor elsewhere on other terms.
    pub(super) fn is_free(&self, name: &str, here: &Here) -> bool {
        let owner = self.names.get(name);
        owner.is_none_or(|owner| owner.guard == here.guard && owner.ports.is_disjoint(&here.ports))
    }

    /// Gives a name to a server where it is free.
    pub(super) fn take(&mut self, name: &str, here: &Here) -> bool {
        let free = self.is_free(name, here);
        if free {
            let owner = self.names.entry(name.to_owned()).or_insert_with(|| Owner {
                ports: Ports::new(),
                guard: here.guard.clone(),
                at: None,
            });
            owner.ports.extend(here.ports.iter().cloned());
        }
        free
    }

    /// Adds a site; what has to be told of it.
    fn add(&mut self, mut site: Site, here: &Here, whose: &Note) -> Vec<Note> {
        let mut notes = Vec::new();
        let known: BTreeSet<usize> = (site.names.iter())
            .filter_map(|name| self.names.get(name)?.at)
            .collect();
        for at in known {
            let old = &mut self.all[at];
            let (shared, own): (Vec<_>, Vec<_>) =
                (site.names.drain(..)).partition(|name| old.site.names.contains(name));
            site.names = own;
            if shared.is_empty() {
                continue;
            }
            let both = old.with(&site, shared, here, whose, &mut notes);
            match old.site.names.is_empty() {
                true => *old = both,
                false => self.push(both),
            }
        }
        if !site.names.is_empty() {
            site.default &= site.names.iter().any(|name| name == "*");
            self.push(Placed {
                site,
                ports: here.ports.clone(),
                secure: here.secure,
                certificates: here.certificates.clone(),
                whose: whose.clone(),
                by_port: false,
            });
        }
        notes
    }

    fn push(&mut self, placed: Placed) {
        for name in &placed.site.names {
            if let Some(owner) = self.names.get_mut(name) {
                owner.at = Some(self.all.len());
            }
        }
        self.all.push(placed);
    }

    /// What is told of servers at ports of their own, whose sites are answered at others too.
    fn apart(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        for secure in [true, false] {
            let servers = || self.servers.iter().filter(|server| server.2 == secure);
            let all: Ports = servers().flat_map(|server| server.1.clone()).collect();
            let mut sites = (self.all.iter()).filter(|placed| placed.secure == secure);
            if sites.all(|placed| all.is_subset(&placed.ports)) {
                continue;
            }
            let mut counts: BTreeMap<&Ports, usize> = BTreeMap::new();
            for (_, ports, _) in servers() {
                *counts.entry(ports).or_default() += 1;
            }
            // The first of those that most have.
            let most = counts.values().max();
            let usual = servers().find(|server| counts.get(&server.1) == most);
            let usual = usual.map(|server| server.1.clone());
            let odd = servers().filter(|server| Some(&server.1) != usual.as_ref());
            notes.extend(odd.map(|server| Note {
                advice: format!(
                    "listens at another port than other servers: each site is answered at all \
                     addresses of listen.{} here, by its names. Where one port must not serve it, \
                     use a staunch of its own, or a condition on {{local_port}}",
                    if secure { "https" } else { "http" }
                ),
                ..server.0.clone()
            }));
        }
        notes
    }
}

impl Placed {
    /// The site for the names that another one has as well, which it gives up.
    fn with(
        &mut self,
        other: &Site,
        names: Vec<String>,
        here: &Here,
        whose: &Note,
        notes: &mut Vec<Note>,
    ) -> Self {
        let mut tell = |advice: &str| {
            notes.push(Note {
                advice: advice.to_owned(),
                ..whose.clone()
            });
        };
        let tls = match (self.secure, here.secure) {
            (true, true) => {
                if !alike(&self.site.tls, &other.tls) {
                    tell(
                        "has other TLS settings than the server of the same name before it, which \
                          hold here at both ports",
                    );
                }
                if self.certificates != here.certificates {
                    tell(
                        "has another certificate than the server of the same name before it: the \
                          best of all that are for a name is served here at both ports",
                    );
                }
                self.site.tls.clone()
            }
            // What has settings of its own is never answered in plain text; these are the usual ones.
            (true, false) => without_versions(&self.site.tls),
            (false, true) => without_versions(&other.tls),
            (false, false) => Vec::new(),
        };
        self.site.names.retain(|name| !names.contains(name));
        let default = names.iter().any(|name| name == "*");
        let mut routes = self.site.routes.clone();
        if !self.by_port {
            ask(&mut routes, &self.ports);
        }
        let mut behind = other.routes.clone();
        ask(&mut behind, &here.ports);
        routes.append(&mut behind);
        let both = Self {
            site: Site {
                names,
                default: default && (self.site.default || other.default),
                routes,
                tls,
                place: self.site.place.clone(),
            },
            ports: self.ports.union(&here.ports).cloned().collect(),
            secure: self.secure || here.secure,
            certificates: match self.secure {
                true => self.certificates.clone(),
                false => here.certificates.clone(),
            },
            whose: self.whose.clone(),
            by_port: true,
        };
        self.site.default &= !default;
        both
    }
}

/// Without the versions of TLS.
fn without_versions(lines: &[String]) -> Vec<String> {
    let other = |line: &&String| !line.starts_with("tls = { versions = ");
    lines.iter().filter(other).cloned().collect()
}

/// Whether lines say the same, wherever they are from.
fn alike(some: &[String], others: &[String]) -> bool {
    let bare = |line: &String| line.split("  # from ").next().map(str::to_owned);
    let bare = |lines: &[String]| lines.iter().map(bare).collect::<Vec<_>>();
    bare(some) == bare(others)
}

/// Lets routes ask for ports.
fn ask(routes: &mut [Route], ports: &Ports) {
    let each: Vec<_> = ports.iter().map(|port| pattern::literal(port)).collect();
    let ports = match each.as_slice() {
        [one] => format!("^{one}$"),
        several => format!("^(?:{})$", several.join("|")),
    };
    for route in routes {
        let term = Term::of("{local_port}", ports.clone(), false);
        route.conditions.insert(0, term);
    }
}

impl Import {
    /// Adds a site of the server that is read.
    pub(super) fn add_site(&mut self, site: Site, server: &Directive) {
        let whose = Note {
            place: server.place.clone(),
            piece: server.shown(),
            loss: Loss::Slight,
            advice: String::new(),
        };
        let notes = self.sites.add(site, &self.here, &whose);
        self.notes.extend(notes);
        let (main, secure) = (self.here.main.clone(), self.here.secure);
        self.sites.servers.push((whose, main, secure));
    }

    /// All sites, as TOML.
    pub(super) fn written_sites(&mut self) -> String {
        let notes = self.sites.apart();
        self.notes.extend(notes);
        let sites = std::mem::take(&mut self.sites.all);
        sites.into_iter().map(|placed| placed.site.text()).collect()
    }
}
