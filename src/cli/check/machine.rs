//! What this machine allows, beside what the configuration asks for.
//!
//! It is advice: nothing here keeps staunch from serving. A limit that is too low shows only on the
//! day when everybody comes.

use std::fs;
use std::num::NonZeroUsize;

use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, Level};
use crate::config::{Config, Location};
use crate::listen;

/// Descriptors besides connections: sockets, watches, logs, files that are being read.
const OWN_FILES: u64 = 256;
/// The oldest kernel default of watches is 8192; below this some folders may have to be polled.
const WATCHES_PER_FOLDER: u64 = 2048;
/// Ports for connections to one server: with fewer, a busy proxy runs out.
const PORTS: u64 = 28_000;

/// What was read from the system. `None`: it cannot be known here.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    /// Files that one process may have open, by the limits of this shell.
    files: Option<u64>,
    somaxconn: Option<u64>,
    syn_backlog: Option<u64>,
    watches: Option<u64>,
    ports: Option<(u64, u64)>,
}

impl Machine {
    /// The one this runs on.
    pub(super) fn this() -> Self {
        let ports = sysctl("net/ipv4/ip_local_port_range").and_then(|text| {
            let (from, to) = text.split_once(char::is_whitespace)?;
            Some((from.parse().ok()?, to.trim().parse().ok()?))
        });
        Self {
            files: getrlimit(Resource::Nofile).maximum,
            somaxconn: listen::somaxconn().map(Into::into),
            syn_backlog: number("net/ipv4/tcp_max_syn_backlog"),
            watches: number("fs/inotify/max_user_watches"),
            ports,
        }
    }

    /// What is less than the configuration asks for, each with what to do.
    pub(super) fn advice(&self, config: &Config) -> Vec<Finding> {
        let mut advice = Vec::new();
        let mut advise = |what: String, then: String| {
            advice.push(Finding::new(Level::Advice, "this machine", what, &then));
        };
        let connections = config.limits.connections.map_or(0, NonZeroUsize::get) as u64;
        // One for the client and one for the server behind.
        let files = connections * 2 + OWN_FILES;
        if let Some(found) = self.files.filter(|found| *found < files) {
            advise(
                format!(
                    "a process started here may open {found} files; limits.connections = \
                     {connections} may need {files}, two for each connection"
                ),
                format!(
                    "LimitNOFILE={files} in the systemd unit (a service does not have this \
                     shell's limit), else `ulimit -Hn {files}`"
                ),
            );
        }
        let backlog = u64::from(listen::BACKLOG.unsigned_abs());
        let queues = [
            ("net.core.somaxconn", self.somaxconn),
            ("net.ipv4.tcp_max_syn_backlog", self.syn_backlog),
        ];
        for (name, found) in queues {
            if let Some(found) = found.filter(|found| *found < backlog) {
                advise(
                    format!(
                        "{name} is {found}: in a burst, connections beyond that are dropped \
                         before staunch sees them"
                    ),
                    set(name, backlog),
                );
            }
        }
        let folders = config.certificates.iter();
        let folders = folders
            .filter(|source| matches!(source.location, Location::Folder { .. }))
            .count();
        let watches = 8192.max(folders as u64 * WATCHES_PER_FOLDER);
        if let Some(found) = self.watches.filter(|found| *found < watches) {
            advise(
                format!(
                    "fs.inotify.max_user_watches is {found}: folders beyond that are polled, and \
                     renewals in them are noticed later"
                ),
                set("fs.inotify.max_user_watches", 524_288),
            );
        }
        if let Some((from, to)) = self
            .ports
            .filter(|(from, to)| to.saturating_sub(*from) < PORTS)
        {
            advise(
                format!(
                    "net.ipv4.ip_local_port_range is {from} to {to}: so many connections at most \
                     can be open to one server behind"
                ),
                "sysctl -w net.ipv4.ip_local_port_range=\"10240 65000\", and in /etc/sysctl.d"
                    .to_owned(),
            );
        }
        advice
    }
}

fn set(name: &str, value: u64) -> String {
    format!("sysctl -w {name}={value}, and in /etc/sysctl.d")
}

fn sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().to_owned())
}

fn number(name: &str) -> Option<u64> {
    sysctl(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn config() -> Config {
        let text = "[[site]]\nnames = [\"a.test\"]\nupstream = \"http://127.0.0.1:1\"\n\
                    [limits]\nconnections = 1000\n";
        config::parse(text, Path::new("staunch.toml")).unwrap()
    }

    const ENOUGH: Machine = Machine {
        files: Some(2256),
        somaxconn: Some(4096),
        syn_backlog: Some(4096),
        watches: Some(8192),
        ports: Some((32_768, 60_999)),
    };

    #[test]
    fn what_is_enough_or_cannot_be_known_is_not_told() {
        assert!(ENOUGH.advice(&config()).is_empty());
        assert!(Machine::default().advice(&config()).is_empty());
    }

    #[test]
    fn what_is_too_little_is_told_with_what_to_do() {
        let little = [
            (
                Machine {
                    files: Some(1024),
                    ..ENOUGH
                },
                "LimitNOFILE=2256",
            ),
            (
                Machine {
                    somaxconn: Some(128),
                    ..ENOUGH
                },
                "net.core.somaxconn=4096",
            ),
            (
                Machine {
                    syn_backlog: Some(512),
                    ..ENOUGH
                },
                "tcp_max_syn_backlog=4096",
            ),
            (
                Machine {
                    watches: Some(128),
                    ..ENOUGH
                },
                "max_user_watches=524288",
            ),
            (
                Machine {
                    ports: Some((40_000, 50_000)),
                    ..ENOUGH
                },
                "ip_local_port_range=",
            ),
        ];
        for (machine, part) in little {
            let advice = machine.advice(&config());
            assert_eq!(advice.len(), 1, "{advice:?}");
            let advice = advice[0].to_string();
            assert!(advice.starts_with("\nthis machine: "), "{advice}");
            assert!(advice.contains(part), "{part}: {advice}");
        }
    }
}
