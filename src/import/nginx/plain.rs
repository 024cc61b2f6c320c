//! A `server` without TLS: what only leads to https is there by itself; what serves is a site that is
//! served in plain text.

use std::collections::BTreeSet;

use super::port::{self, Ports};
use super::scope::Scope;
use super::server::address;
use super::{Directive, Import};
use crate::import::Loss;

/// What is told where a server without TLS cannot be of the site with its name.
const OTHER: &str = "was served in plain text beside a server with TLS of the same name, which asks \
                     for client certificates or versions of TLS: its addresses redirect there now. \
                     What has to stay in plain text needs a name of its own, with `plain_text = true`";

/// Servers that are written twice, with TLS and without.
#[derive(Default)]
pub(super) struct Twins(Vec<(usize, usize, Ports)>);

impl Twins {
    /// Those that have the same names and serve the same.
    pub(super) fn find<'d>(
        servers: impl Iterator<Item = &'d Directive> + Clone,
        secure: impl Fn(&Directive) -> bool,
    ) -> Self {
        let both = |server: &&Directive| {
            let mut listens = server.inside().iter().filter(|one| one.name == "listen");
            listens.any(|listen| !listen.args.iter().any(|arg| arg == "ssl"))
        };
        let plain = servers.clone().filter(|server| !secure(server));
        let twins = plain.filter_map(|plain| {
            let named = plain.inside().iter().any(|one| one.name == "server_name");
            let mut others = servers
                .clone()
                .filter(|server| secure(server) && !both(server));
            let other = others.find(|other| named && serves_same(plain, other))?;
            let listens = plain.inside().iter().filter(|one| one.name == "listen");
            let addresses = listens.filter_map(|listen| address(listen.first()));
            let mut ports: Ports = addresses.map(|address| port::of(&address)).collect();
            if ports.is_empty() {
                ports.insert("80".to_owned());
            }
            Some((other.id, plain.id, ports))
        });
        Self(twins.collect())
    }

    /// Whether what a server with TLS serves is served in plain text by another.
    pub(super) fn has(&self, server: &Directive) -> bool {
        self.0.iter().any(|(secure, ..)| *secure == server.id)
    }

    /// Whether a server without TLS serves what one with TLS does.
    pub(super) fn in_plain(&self, server: &Directive) -> bool {
        self.0.iter().any(|(_, plain, _)| *plain == server.id)
    }

    /// Where a server with TLS is served in plain text by another.
    pub(super) fn ports(&self, server: &Directive) -> Ports {
        let own = self.0.iter().filter(|(secure, ..)| *secure == server.id);
        own.flat_map(|(.., ports)| ports.clone()).collect()
    }
}

/// Whether two servers are the same but for TLS.
fn serves_same(one: &Directive, other: &Directive) -> bool {
    let of_tls = |directive: &&Directive| {
        let name = directive.name.as_str();
        matches!(name, "listen" | "http2" | "access_log" | "error_log")
            || name.starts_with("ssl_")
            || name == "ssl"
            || name == "add_header" && directive.first() == "Strict-Transport-Security"
    };
    let content = |server: &'_ Directive| -> Vec<Directive> {
        let inner = server.inside().iter().filter(|inner| !of_tls(inner));
        inner.cloned().collect()
    };
    are_alike(&content(one), &content(other))
}

fn are_alike(some: &[Directive], others: &[Directive]) -> bool {
    let alike = |(one, other): (&Directive, &Directive)| {
        one.name == other.name && one.args == other.args && are_alike(one.inside(), other.inside())
    };
    some.len() == others.len() && some.iter().zip(others).all(alike)
}

impl Import {
    /// Reads one. `true`: it is a site, which is left to whoever reads those.
    pub(super) fn plain_server(&mut self, server: &Directive, scope: &Scope<'_>) -> bool {
        let directives = scope.own().all("server_name");
        let names: BTreeSet<&str> = (directives.iter())
            .flat_map(|names| names.args.iter().map(String::as_str))
            .collect();
        if self.leads_on(server, &names) {
            self.redirects(server, &names);
            return false;
        }
        let named = |name: &&&str| !matches!(**name, "_" | "");
        let mut own = names.iter().filter(named).peekable();
        // Hosts that nobody names are those of the default server with TLS.
        let taken = match own.peek() {
            None => !self.secured.is_empty(),
            Some(_) => own.any(|name| self.secured.contains(*name)),
        };
        let mut own = names.iter().filter(named).peekable();
        let strict = match own.peek() {
            None => self.strict.contains("_"),
            Some(_) => own.any(|name| self.strict.contains(*name)),
        };
        if taken && strict {
            self.lost(server, OTHER);
            for inner in server.inside() {
                self.seen.mark_all(inner);
            }
            return false;
        }
        true
    }

    /// Whether nothing is served but redirects: to https, or elsewhere where a server with TLS has
    /// the name.
    fn leads_on(&self, server: &Directive, names: &BTreeSet<&str>) -> bool {
        let of_tls = |name: &&str| self.secured.contains(*name);
        let unnamed = |name: &&str| matches!(*name, "_" | "");
        let beside =
            names.iter().any(of_tls) || names.iter().all(unnamed) && !self.secured.is_empty();
        let (mut leads, mut serves) = (false, false);
        for inner in server.inside() {
            match inner {
                one if is_of_no_matter(one) || is_challenge(one) => {}
                one if only_redirects(one, names) => leads = true,
                one if is_refusal(one) || beside && moves(one) => leads |= beside,
                _ => serves = true,
            }
        }
        leads && !serves
    }

    /// One whose addresses redirect; what else it did is told.
    fn redirects(&mut self, server: &Directive, names: &BTreeSet<&str>) {
        for directive in server.inside() {
            match directive.name.as_str() {
                "listen" | "server_name" => self.seen.mark(directive),
                _ if self.odd_tls && only_redirects(directive, names) => self.whole(
                    directive,
                    Loss::Slight,
                    "plain-text addresses redirect to the port that listen.https has, which is not \
                     443: where something in front serves it as 443, listen at 443",
                ),
                _ if only_redirects(directive, names) && !keeps(directive, names) => self.whole(
                    directive,
                    Loss::Slight,
                    "plain-text addresses redirect to the same host and path on https, whichever \
                     they are; a [[site]] for it can send clients on",
                ),
                _ if only_redirects(directive, names) => self.whole(
                    directive,
                    Loss::None,
                    "plain-text addresses redirect to the same host and path on https by \
                     themselves, with 308",
                ),
                _ if is_refusal(directive) => self.whole(
                    directive,
                    Loss::None,
                    "other hosts are redirected too, and refused over https",
                ),
                _ if is_challenge(directive) => self.whole(
                    directive,
                    Loss::Real,
                    "served the challenges of a certificate authority in plain text; see \
                     docs/certificates.md for what to do instead",
                ),
                "return" | "rewrite" | "location" => self.whole(
                    directive,
                    Loss::Slight,
                    "plain-text addresses redirect to the same host on https first; a [[site]] \
                     for it can send clients on",
                ),
                _ => self.whole(
                    directive,
                    Loss::None,
                    "only redirects are served in plain text",
                ),
            }
        }
    }
}

/// Whether a redirect to https is to the host and the path that a client asked for.
fn keeps(directive: &Directive, names: &BTreeSet<&str>) -> bool {
    let same = |arg: &String| {
        let Some(rest) = arg.strip_prefix("https://") else {
            return true;
        };
        let path = ["$request_uri", "$uri", "$1"];
        let host = ["$host", "${host}", "$http_host"];
        path.iter().any(|path| rest.contains(path))
            && (names.len() < 2 || host.iter().any(|host| rest.starts_with(host)))
    };
    let mut inner = directive.inside().iter();
    directive.args.iter().all(same) && inner.all(|inner| keeps(inner, names))
}

/// Sends clients elsewhere.
fn moves(directive: &Directive) -> bool {
    match directive.name.as_str() {
        "return" => directive.first().starts_with('3') || directive.first().contains("://"),
        "rewrite" => true,
        "location" | "if" => directive.inside().iter().all(moves),
        _ => false,
    }
}

/// Says nothing of what is answered.
fn is_of_no_matter(directive: &Directive) -> bool {
    matches!(
        directive.name.as_str(),
        "listen"
            | "server_name"
            | "access_log"
            | "error_log"
            | "root"
            | "index"
            | "server_tokens"
            | "add_header"
            | "expires"
            | "charset"
            | "http2"
            | "keepalive_timeout"
            | "log_not_found"
    ) || directive.name.starts_with("ssl_")
        || directive.name.starts_with("client_")
        || directive.name.starts_with("set_real_ip")
        || directive.name.starts_with("real_ip")
}

/// Nobody is served.
fn is_refusal(directive: &Directive) -> bool {
    directive.name == "return" && matches!(directive.first(), "404" | "444" | "403" | "410")
}

/// Answers a certificate authority, from files.
fn is_challenge(directive: &Directive) -> bool {
    let passes = |inner: &Directive| inner.name.ends_with("_pass");
    directive.name == "location"
        && directive
            .args
            .last()
            .is_some_and(|path| path.contains("well-known"))
        && !directive.inside().iter().any(passes)
}

/// Whether a server with TLS and without redirects what comes without it: `if ($scheme = http) { … }`.
pub(super) fn leads_to_tls(directive: &Directive) -> bool {
    let asks = ["$scheme", "$https", "$server_port", "$ssl_protocol"];
    let test = directive.args.join(" ");
    directive.name == "if"
        && asks.iter().any(|variable| test.contains(variable))
        && only_redirects(directive, &BTreeSet::new())
}

/// Whether all that is done is to redirect to the same host on https.
pub(super) fn only_redirects(directive: &Directive, names: &BTreeSet<&str>) -> bool {
    let to_itself = |arg: &String| {
        let Some(rest) = arg.strip_prefix("https://") else {
            return false;
        };
        let end = rest.find("$request_uri").or_else(|| rest.find("$1"));
        let end = end.or_else(|| rest.find('/')).unwrap_or(rest.len());
        let host = rest[..end].trim_end_matches('/').trim_end_matches(":443");
        matches!(host, "$host" | "$http_host" | "$server_name" | "${host}") || names.contains(host)
    };
    match directive.name.as_str() {
        "return" | "rewrite" => directive.args.iter().any(to_itself),
        "if" | "location" if !directive.inside().is_empty() => directive
            .inside()
            .iter()
            .all(|inner| only_redirects(inner, names)),
        _ => false,
    }
}
