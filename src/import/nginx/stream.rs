//! `stream`: whole connections, as `[[stream]]`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::rules::{Access, access};
use super::scope::Scope;
use super::server::address;
use super::upstream::{Pass, groups};
use super::value::Variables;
use super::{Directive, Import, map, unit};
use crate::import::{Loss, array, quoted};

/// Ports that one `listen` may stand for.
const MOST_PORTS: u16 = 100;

/// A server of `stream` while it is read.
struct Reader<'d> {
    server: &'d Directive,
    pass: &'d Directive,
    scope: Scope<'d>,
    /// The directives of `stream`.
    top: &'d [Directive],
    /// What is written before an address: `tcp`, or `tls`.
    scheme: &'static str,
}

impl Import {
    /// All servers of `stream`.
    pub(super) fn streams(&mut self, stream: &Directive) {
        self.seen.mark(stream);
        let top = stream.inside();
        // Groups of `stream` and of `http` may have the same name.
        self.upstreams.groups = groups(top);
        self.upstreams.used.clear();
        self.upstreams.hosts.clear();
        let seen = self.seen.clone();
        let scope = Scope::new(top, &seen);
        for server in top.iter().filter(|directive| directive.name == "server") {
            self.seen.mark(server);
            self.stream_server(server, &scope, top);
        }
        self.unused_groups(top);
    }

    fn stream_server<'d>(
        &mut self,
        server: &'d Directive,
        outer: &Scope<'d>,
        top: &'d [Directive],
    ) {
        let scope = outer.inside(server.inside());
        let Some((listen, tls)) = self.stream_listen(server, &scope) else {
            return;
        };
        let Some(pass) = scope.own().nearest("proxy_pass") else {
            let advice = "does something else than to pass connections on: it is left out";
            return self.whole(server, Loss::Real, advice);
        };
        let secure = scope.is_on("proxy_ssl");
        let reader = Reader {
            server,
            pass,
            scope,
            top,
            scheme: if secure { "tls" } else { "tcp" },
        };
        let Some((upstream, routes)) = self.stream_targets(&reader) else {
            return;
        };
        if upstream.is_none() && tls {
            let advice = "has a map without a default beside TLS that is terminated here: it is \
                          left out";
            return self.whole(server, Loss::Real, advice);
        }
        let mut text = format!(
            "\n[[stream]]  # from {}\nlisten = {}\n",
            server.place,
            array(&listen)
        );
        if tls {
            text.push_str("tls = true\n");
            self.certificates(server, &reader.scope);
            self.stream_tls(&reader.scope, &mut text);
        }
        if let Some(upstream) = upstream {
            let _ = writeln!(text, "upstream = {}", quoted(&upstream));
        }
        if let Some(directive) = reader.scope.nearest("proxy_timeout") {
            match unit::deadline(directive.first()) {
                Some(time) => _ = writeln!(text, "idle = {}", quoted(&time)),
                None => self.lost(directive, "is not a time that staunch has; see idle"),
            }
        }
        for limit in reader.scope.all("limit_conn") {
            self.lost(
                limit,
                "bounded connections here; limits.connections_per_client is for all",
            );
        }
        match access(&reader.scope) {
            Access::Said(rules) => text.push_str(&rules.text()),
            Access::Nobody => {
                let advice = "lets nobody in: it is left out";
                return self.whole(server, Loss::None, advice);
            }
            Access::Unclear(_) => {
                let advice = "lets some clients in, by rules that cannot be said by `allow` and \
                              `deny` here: it is left out";
                return self.whole(server, Loss::Real, advice);
            }
        }
        for (upstream, (place, names)) in routes {
            let (names, upstream) = (array(&names), quoted(&upstream));
            let _ = write!(
                text,
                "\n[[stream.route]]  # from {place}\nnames = {names}\nupstream = {upstream}\n"
            );
        }
        self.streams.push_str(&text);
    }

    /// Where it listens, and whether TLS is terminated there.
    fn stream_listen(
        &mut self,
        server: &Directive,
        scope: &Scope<'_>,
    ) -> Option<(Vec<String>, bool)> {
        let (mut all, mut tls) = (Vec::new(), false);
        for listen in scope.own().all("listen") {
            let has = |word: &str| listen.args.iter().any(|arg| arg == word);
            if has("udp") {
                let advice = "is for UDP, which staunch does not pass on: keep nginx for it";
                self.lost(listen, advice);
                continue;
            }
            let Some(found) = addresses(listen.first()) else {
                let advice = "staunch listens on IP addresses, and on at most 100 ports of one \
                              line; write them in [[stream]]";
                self.lost(listen, advice);
                continue;
            };
            all.extend(found);
            tls |= has("ssl");
            if has("proxy_protocol") {
                self.proxy_protocol(scope);
            }
        }
        if all.is_empty() {
            let advice = "listens nowhere where staunch could: it is left out";
            self.whole(server, Loss::Real, advice);
            return None;
        }
        super::without_covered(&mut all);
        Some((all, tls))
    }

    fn stream_tls(&mut self, scope: &Scope<'_>, text: &mut String) {
        if let Some(alpn) = scope.nearest("ssl_alpn") {
            let _ = writeln!(text, "alpn = {}", array(&alpn.args));
        }
        if let Some(line) = self.client_certificates(scope) {
            let _ = writeln!(text, "{line}");
        }
        if let Some(protocols) = scope.nearest("ssl_protocols")
            && !protocols.args.iter().any(|arg| arg == "TLSv1.2")
        {
            let advice = "is of all streams here: see [tls], or [[tls.listener]] for this address";
            self.lost(protocols, advice);
        }
    }

    /// Where connections go: those that no name takes, and those of names.
    #[allow(clippy::type_complexity)] // what is written, as it is written
    fn stream_targets(
        &mut self,
        reader: &Reader<'_>,
    ) -> Option<(Option<String>, BTreeMap<String, (String, Vec<String>)>)> {
        let mut routes: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
        let to = reader.pass.first();
        if !to.contains('$') {
            return self
                .stream_target(reader, to)
                .map(|upstream| (Some(upstream), routes));
        }
        let unclear = "depends on variables: write where its connections go in a [[stream]]";
        let map = map::find(reader.top, to);
        let by_name = |map: &map::Map<'_>| map.source == "ssl_preread_server_name";
        let Some(map) = map.filter(|map| by_name(map) && reader.scope.is_on("ssl_preread")) else {
            self.whole(reader.server, Loss::Real, unclear);
            return None;
        };
        self.seen.mark_all(map.directive);
        for entry in &map.entries {
            let Some((names, fewer)) = map::names(entry) else {
                // Clients that name nobody.
                if !entry.name.is_empty() {
                    self.lost(entry, "is a pattern; write the names that it stands for");
                }
                continue;
            };
            if fewer {
                let advice = "stands for one more label here, for any number of them in nginx";
                self.differs(entry, advice);
            }
            if entry.first().contains('$') {
                self.lost(entry, unclear);
                continue;
            }
            if let Some(upstream) = self.stream_target(reader, entry.first()) {
                let of = || (entry.place.to_string(), Vec::new());
                routes.entry(upstream).or_insert_with(of).1.extend(names);
            }
        }
        let default = map.default.filter(|entry| !entry.first().is_empty());
        let upstream = default.and_then(|entry| self.stream_target(reader, entry.first()));
        if upstream.is_none() && routes.is_empty() {
            self.whole(reader.server, Loss::Real, unclear);
            return None;
        }
        Some((upstream, routes))
    }

    /// One address or group, as a stream names it.
    fn stream_target(&mut self, reader: &Reader<'_>, to: &str) -> Option<String> {
        let plain = Variables::default().plain(to);
        let Some(pass) = Pass::stream(&plain, reader.scheme) else {
            self.lost(
                reader.pass,
                "is TLS over a unix socket, which is not spoken",
            );
            return None;
        };
        let (name, notes) = self.upstreams.add(&pass, reader.pass, &reader.scope);
        for (directive, loss, advice) in notes {
            self.note_as(&directive, loss, advice);
        }
        Some(name)
    }
}

/// The addresses of a `listen`, which may have a range of ports.
fn addresses(text: &str) -> Option<Vec<String>> {
    let range = text.rsplit_once('-').and_then(|(before, to)| {
        let (host, from) = before.rsplit_once(':').unwrap_or(("*", before));
        let (from, to) = (from.parse::<u16>().ok()?, to.parse::<u16>().ok()?);
        Some((host, from, to))
    });
    match range {
        Some((host, from, to)) if from <= to && to - from < MOST_PORTS => (from..=to)
            .map(|port| address(&format!("{host}:{port}")))
            .collect(),
        Some(_) => None,
        None => address(text).map(|address| vec![address]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_written_out() {
        let of = |text| addresses(text).map(|all| all.join(" "));
        assert_eq!(of("12-13").as_deref(), Some("0.0.0.0:12 0.0.0.0:13"));
        assert_eq!(of("[::]:12-12").as_deref(), Some("[::]:12"));
        assert_eq!(of("127.0.0.1:5432").as_deref(), Some("127.0.0.1:5432"));
        assert_eq!(of("1-60000"), None);
        assert_eq!(of("unix:/run/a-b"), None);
    }
}
