//! `bind`: addresses, certificates, and what is said of TLS.

use std::fs;

use super::condition::{Lists, Term, Test, of};
use super::parse::{Line, Section};
use super::{Import, quoted};
use crate::import::{Loss, without_covered};

/// Ports that one `bind` may stand for.
const MOST_PORTS: u16 = 100;

/// What a section listens on.
#[derive(Default)]
pub(super) struct Binds {
    /// Addresses where TLS is terminated.
    pub(super) secure: Vec<String>,
    /// And where it is not.
    pub(super) plain: Vec<String>,
    /// Lines about TLS.
    pub(super) tls: Vec<String>,
    /// What is agreed on by ALPN.
    pub(super) alpn: Option<String>,
}

impl Import {
    /// All lines `bind` of a section.
    pub(super) fn binds(&mut self, section: &Section) -> Binds {
        let mut binds = Binds::default();
        for bind in section.all("bind") {
            if bind
                .word(1)
                .split(',')
                .all(|address| address.starts_with("quic"))
            {
                let advice = "HTTP/3 is not spoken here: clients speak HTTP/2";
                self.tell(bind, Loss::Slight, advice);
                continue;
            }
            let found = bind.word(1).split(',').map(addresses);
            let Some(found) = found.collect::<Option<Vec<_>>>() else {
                let advice = "staunch listens on IP addresses, and on at most 100 ports of one \
                              line; write them yourself";
                self.tell(bind, Loss::Real, advice);
                continue;
            };
            let found: Vec<_> = found.into_iter().flatten().collect();
            self.seen(bind);
            for word in ["interface", "accept-netscaler-cip", "transparent"] {
                if bind.has(word) {
                    let advice = format!("{word}: a listener goes by its address alone here");
                    self.tell(bind, Loss::Real, advice);
                }
            }
            if bind.has("accept-proxy") {
                self.accept_proxy(bind, &found);
            }
            match bind.has("ssl") {
                true => {
                    binds.secure.extend(found);
                    binds.alpn = bind.after("alpn").map(str::to_owned).or(binds.alpn);
                    self.bind_tls(bind, &mut binds.tls);
                }
                false => {
                    if bind.after("proto") == Some("h2") {
                        let advice =
                            "HTTP/2 without TLS is not spoken with clients here: HTTP/1.1 is";
                        self.tell(bind, Loss::Real, advice);
                    }
                    binds.plain.extend(found);
                }
            }
        }
        binds.tls.dedup();
        without_covered(&mut binds.secure);
        without_covered(&mut binds.plain);
        binds
    }

    /// Who sends PROXY headers, and where.
    fn accept_proxy(&mut self, bind: &Line, addresses: &[String]) {
        self.proxy_at.extend(addresses.iter().cloned());
        let address = |text: &String| text.parse::<std::net::SocketAddr>().ok();
        let is_own = |text: &String| address(text).is_some_and(|it| it.ip().is_loopback());
        if addresses.iter().all(is_own) {
            let own = addresses.iter().filter_map(address);
            return (self.proxy_from).extend(own.map(|address| address.ip().to_string()));
        }
        self.proxy_from
            .extend(["0.0.0.0/0", "::/0"].map(str::to_owned));
        let advice =
            "anybody may send a PROXY header: name the balancers in listen.proxy_protocol_from";
        self.tell(bind, Loss::Slight, advice);
    }

    /// Who sends PROXY headers where some clients do: `tcp-request connection expect-proxy`.
    pub(super) fn expect_proxy(&mut self, section: &Section, binds: &Binds) {
        let lists = Lists::of(section, &self.folder, true);
        let is = |line: &&Line| line.word(1) == "connection" && line.word(2) == "expect-proxy";
        for line in section.all("tcp-request").filter(is) {
            let each = of(line, &lists)
                .into_iter()
                .map(|all| match all.as_slice() {
                    [] => Some(["0.0.0.0/0", "::/0"].map(str::to_owned).to_vec()),
                    [
                        Term {
                            not: false,
                            test: Test::Client(nets),
                        },
                    ] => Some(nets.clone()),
                    _ => None,
                });
            match each.collect::<Option<Vec<_>>>() {
                Some(nets) => {
                    self.seen(line);
                    self.bare = true;
                    self.proxy_from.extend(nets.into_iter().flatten());
                    let all = binds.secure.iter().chain(&binds.plain);
                    self.proxy_at.extend(all.cloned());
                }
                None => {
                    let advice = "PROXY headers are expected by the peer's address alone here; see \
                                  listen.proxy_protocol_from";
                    self.tell(line, Loss::Real, advice);
                }
            }
        }
    }

    /// What `bind` says of TLS.
    fn bind_tls(&mut self, bind: &Line, tls: &mut Vec<String>) {
        self.bind_options(bind);
        if bind.has("strict-sni") {
            let advice = "strict-sni: who asks for a name that no certificate is for is served one \
                          all the same, which clients refuse";
            self.tell(bind, Loss::Slight, advice);
        }
        if bind.has("generate-certificates") {
            let advice = "generate-certificates: makes no certificates here";
            self.tell(bind, Loss::Real, advice);
        }
        for (at, word) in bind.words.iter().enumerate() {
            let file = bind.word(at + 1);
            match word.as_str() {
                "crt" => self.certificate(file, &bind.place),
                "crt-list" => self.certificate_list(bind, file),
                _ => {}
            }
        }
        if let Some(ca) = bind.after("ca-file") {
            let mode = match bind.after("verify") {
                Some("required") => "required",
                Some("optional") => "optional",
                _ => return,
            };
            if bind.has("crt-ignore-err") || bind.has("ca-ignore-err") {
                let advice = "lets in certificates that are not good: here they are refused; see mode \
                              \"request\" in client_certificates";
                self.tell(bind, Loss::Slight, advice);
            }
            let mut text = format!("mode = \"{mode}\", ca = {}", quoted(&self.authority(ca)));
            if let Some(crl) = bind.after("crl-file") {
                text += &format!(", crl = {}", quoted(&self.authority(crl)));
            }
            tls.push(format!(
                "client_certificates = {{ {text} }}  # from {}",
                bind.place
            ));
        }
    }

    fn certificate_list(&mut self, bind: &Line, file: &str) {
        let path = self.absolute(file);
        let Ok(text) = fs::read_to_string(&path) else {
            let advice = format!("{path} cannot be read: add its certificates yourself");
            return self.tell(bind, Loss::Real, advice);
        };
        for line in text.lines() {
            let line = line.trim();
            let Some(certificate) = line.split_whitespace().next() else {
                continue;
            };
            if certificate.starts_with('#') {
                continue;
            }
            self.certificate(certificate, &bind.place);
            let options = line
                .split_once('[')
                .and_then(|(_, rest)| rest.split_once(']'));
            let (options, names) = match options {
                Some((options, names)) => (options, names),
                None => (
                    "",
                    line.split_once(char::is_whitespace).unwrap_or_default().1,
                ),
            };
            if options.contains("verify") || options.contains("ca-file") {
                let advice = format!(
                    "{path}: some names ask for client certificates: write client_certificates at \
                     their sites"
                );
                self.tell(bind, Loss::Real, advice);
            } else if !options.trim().is_empty() {
                let advice = format!("{path}: options of one certificate are not carried over");
                self.tell(bind, Loss::Slight, advice);
            }
            if !names.trim().is_empty() {
                let advice = format!(
                    "{path}: which certificate is served goes by the names that are in it, not by \
                     those behind it"
                );
                self.tell(bind, Loss::Slight, advice);
            }
        }
    }
}

/// The addresses of a `bind`, which may have a range of ports.
fn addresses(text: &str) -> Option<Vec<String>> {
    let range = text.rsplit_once(':').and_then(|(host, ports)| {
        let (from, to) = ports.split_once('-')?;
        Some((host, from.parse::<u16>().ok()?, to.parse::<u16>().ok()?))
    });
    match range {
        Some((host, from, to)) if from <= to && to - from < MOST_PORTS => (from..=to)
            .map(|port| address(&format!("{host}:{port}")))
            .collect(),
        Some(_) => None,
        None => address(text).map(|address| vec![address]),
    }
}

/// An address to listen on, as staunch writes it.
fn address(text: &str) -> Option<String> {
    let (family, text) = match text.split_once('@') {
        Some((family @ ("ipv4" | "ipv6"), rest)) => (family, rest),
        _ => ("", text),
    };
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let host = match host {
        "" | "*" if family == "ipv6" => "[::]".to_owned(),
        "" | "*" | "0.0.0.0" => "0.0.0.0".to_owned(),
        "::" | "[::]" => "[::]".to_owned(),
        host if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let address: std::net::SocketAddr = format!("{host}:{port}").parse().ok()?;
    Some(address.to_string())
}
