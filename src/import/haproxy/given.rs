//! What is said of one server: its own words, and those of `default-server`.

use super::parse::{Line, Section};
use crate::import::Loss;

/// Words that a value follows, and whether something is made of it.
const VALUES: [(&str, Use); 61] = [
    ("weight", Use::Taken),
    ("maxconn", Use::Taken),
    ("rise", Use::Taken),
    ("fall", Use::Taken),
    ("port", Use::Taken),
    ("inter", Use::Taken),
    ("slowstart", Use::Taken),
    ("proto", Use::Taken),
    ("alpn", Use::Taken),
    ("verify", Use::Taken),
    ("ca-file", Use::Taken),
    ("crt", Use::Taken),
    ("sni", Use::Taken),
    ("verifyhost", Use::Taken),
    ("cookie", Use::Taken),
    ("id", Use::Idle),
    ("init-addr", Use::Idle),
    ("resolvers", Use::Idle),
    ("resolve-prefer", Use::Idle),
    ("resolve-opts", Use::Idle),
    ("resolve-net", Use::Idle),
    ("pool-max-conn", Use::Idle),
    ("pool-low-conn", Use::Idle),
    ("pool-purge-delay", Use::Idle),
    ("max-reuse", Use::Idle),
    ("fastinter", Use::Idle),
    ("downinter", Use::Idle),
    ("ssl-min-ver", Use::Taken),
    ("ssl-max-ver", Use::Idle),
    ("ciphers", Use::Idle),
    ("ciphersuites", Use::Idle),
    ("curves", Use::Idle),
    ("check-sni", CHECKED),
    ("check-alpn", CHECKED),
    ("check-proto", CHECKED),
    ("addr", ELSEWHERE),
    ("agent-addr", AGENT),
    ("agent-inter", AGENT),
    ("agent-port", AGENT),
    ("agent-send", AGENT),
    ("crl-file", REVOKED),
    ("log-proto", Use::Idle),
    ("namespace", LEAVES),
    ("npn", Use::Idle),
    ("redir", REDIRECTED),
    ("source", LEAVES),
    ("track", TRACKED),
    ("usesrc", LEAVES),
    ("ws", Use::Idle),
    ("tcp-ut", Use::Idle),
    ("observe", EJECTS),
    ("error-limit", EJECTS),
    ("on-error", EJECTS),
    ("on-marked-down", MARKED),
    ("on-marked-up", MARKED),
    ("minconn", QUEUE),
    ("maxqueue", QUEUE),
    ("proxy-v2-options", HEADER),
    ("pool-conn-name", Use::Idle),
    ("shard", Use::Idle),
    ("socks4", DETOUR),
];

/// Words that stand alone.
const ALONE: [(&str, Use); 36] = [
    ("check", Use::Taken),
    ("ssl", Use::Taken),
    ("backup", Use::Taken),
    ("disabled", Use::Taken),
    ("enabled", Use::Idle),
    ("send-proxy", Use::Taken),
    ("send-proxy-v2", Use::Taken),
    ("send-proxy-v2-ssl", Use::Taken),
    ("send-proxy-v2-ssl-cn", Use::Taken),
    ("check-ssl", Use::Taken),
    ("check-send-proxy", Use::Idle),
    ("no-check", Use::Idle),
    ("no-ssl", Use::Idle),
    ("no-check-ssl", Use::Idle),
    ("no-backup", Use::Idle),
    ("no-send-proxy", Use::Idle),
    ("no-send-proxy-v2", Use::Idle),
    ("no-verifyhost", Use::Idle),
    ("no-sslv3", Use::Idle),
    ("no-tlsv10", Use::Idle),
    ("no-tlsv11", Use::Idle),
    ("no-tlsv12", Use::Idle),
    ("no-ssl-reuse", Use::Idle),
    ("ssl-reuse", Use::Idle),
    ("no-tls-tickets", Use::Idle),
    ("tfo", Use::Idle),
    ("stick", Use::Idle),
    ("check-via-socks4", DETOUR),
    ("agent-check", AGENT),
    ("allow-0rtt", Use::Idle),
    ("force-tlsv12", Use::Taken),
    ("force-tlsv13", Use::Taken),
    ("no-agent-check", Use::Idle),
    ("no-stick", Use::Idle),
    ("no-tfo", Use::Idle),
    ("tls-tickets", Use::Idle),
];

/// What becomes of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Something is made of it.
    Taken,
    /// It is of no concern here.
    Idle,
    /// It is told.
    Told(Loss, &'static str),
}

const EJECTS: Use = Use::Told(
    Loss::Slight,
    "failures of requests count by themselves; see eject_after",
);
const MARKED: Use = Use::Told(
    Loss::Slight,
    "what is open goes on where a server goes down or comes up",
);
const QUEUE: Use = Use::Told(Loss::Slight, "see connections and queue");
const HEADER: Use = Use::Told(Loss::Slight, "see proxy_protocol");
const DETOUR: Use = Use::Told(
    Loss::Real,
    "a SOCKS proxy stood between: here connections go to the server itself",
);
const AGENT: Use = Use::Told(
    Loss::Real,
    "no agent is asked for the state and weight of a server; see health, and weight",
);
const CHECKED: Use = Use::Told(
    Loss::Slight,
    "checks speak as requests do, with the same name: see name in [upstream.NAME.tls]",
);
const ELSEWHERE: Use = Use::Told(
    Loss::Real,
    "checks go to the address of the server itself: see health.port for another port there",
);
const REVOKED: Use = Use::Told(
    Loss::Real,
    "no list of revoked certificates is read for servers: a good one of `ca` is enough",
);
const LEAVES: Use = Use::Told(
    Loss::Real,
    "connections leave from the address that the system gives them",
);
const REDIRECTED: Use = Use::Told(
    Loss::Real,
    "sent clients to the server itself: see redirect",
);
const TRACKED: Use = Use::Told(
    Loss::Slight,
    "was as well as another server: here it is asked itself where the upstream has `health`",
);

/// Words with their values, the first of each.
pub(super) struct Given(Vec<(String, Option<String>)>);

impl Given {
    /// What is said of a server from a word on, then by the defaults of its section, the nearest
    /// first.
    pub(super) fn of(section: &Section, server: &Line, from: usize) -> Self {
        let mut given = Self(Vec::new());
        given.add(&server.words[from.min(server.words.len())..]);
        let mut section = Some(section);
        while let Some(one) = section {
            let lines: Vec<_> = one.all("default-server").collect();
            for line in lines.iter().rev() {
                given.add(&line.words[1..]);
            }
            section = one.defaults.as_deref();
        }
        given
    }

    fn add(&mut self, words: &[String]) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let takes = VALUES.iter().any(|(name, _)| name == word);
            let known = takes || ALONE.iter().any(|(name, _)| name == word);
            // What is not known may have a value: it is told with it.
            let value = match (takes, known) {
                (true, _) => words.next().cloned(),
                (false, _) => None,
            };
            if !self.0.iter().any(|(name, _)| name == word) {
                self.0.push((word.clone(), value));
            }
        }
    }

    pub(super) fn has(&self, word: &str) -> bool {
        let at = |word: &str| self.0.iter().position(|(name, _)| name == word);
        let off = at(&format!("no-{word}"));
        at(word).is_some_and(|at| off.is_none_or(|off| at < off))
    }

    pub(super) fn value(&self, word: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(name, _)| name == word)?;
        value.as_deref()
    }

    /// Words that nothing is made of.
    pub(super) fn lost(&self) -> Vec<(&str, Loss, &'static str)> {
        let lost = self.0.iter().filter_map(|(word, _)| {
            let known = VALUES.iter().chain(&ALONE).find(|(name, _)| name == word);
            let (loss, advice) = match known.map(|(_, what)| *what) {
                Some(Use::Taken | Use::Idle) => return None,
                Some(Use::Told(loss, advice)) => (loss, advice),
                None => (Loss::Real, "is not known here; see [upstream.NAME]"),
            };
            Some((word.as_str(), loss, advice))
        });
        lost.collect()
    }
}

/// The URL of a server. `None`: it has none that can be written.
pub(super) fn url(address: &str, scheme: &str) -> Option<String> {
    let secure = matches!(scheme, "https" | "tls");
    let socket = address
        .strip_prefix("unix@")
        .or_else(|| address.starts_with('/').then_some(address));
    if let Some(path) = socket {
        return (!secure).then(|| format!("unix:{path}"));
    }
    let address = address
        .trim_start_matches("ipv4@")
        .trim_start_matches("ipv6@");
    if address.contains('@') || address.is_empty() {
        return None;
    }
    let (host, port) = match address.rsplit_once(':') {
        // An IPv6 address may stand without brackets.
        Some((_, port)) if port.starts_with('+') => return None,
        Some((host, port)) if !port.is_empty() && !host.ends_with(':') => {
            (host, Some(port.parse::<u16>().ok()?))
        }
        _ => (address.trim_end_matches(':'), None),
    };
    let port = match (port, scheme) {
        // The client's own, or what a rule looks up.
        (Some(0), _) => return None,
        (Some(port), _) => port,
        (None, "https") => 443,
        (None, "http") => 80,
        (None, _) => return None,
    };
    let host = match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    Some(format!("{scheme}://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_a_url() {
        for (address, scheme, expected) in [
            ("10.0.0.1:80", "http", Some("http://10.0.0.1:80")),
            ("app", "https", Some("https://app:443")),
            ("ipv6@::1:5432", "tcp", Some("tcp://[::1]:5432")),
            ("[2001:db8::1]:443", "tls", Some("tls://[2001:db8::1]:443")),
            ("/run/app.sock", "http", Some("unix:/run/app.sock")),
            ("unix@/run/a", "tcp", Some("unix:/run/a")),
            ("abns@a", "http", None),
            ("10.0.0.1", "tcp", None),
            ("10.0.0.1:+8000", "tcp", None),
        ] {
            assert_eq!(url(address, scheme).as_deref(), expected, "{address}");
        }
    }
}
