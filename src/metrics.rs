//! Every metric: name, help, labels, handle.
//!
//! A [`Registry`] holds families of series. Whoever counts something asks it once for a handle
//! ([`Counter`], [`Gauge`], [`Histogram`]) and keeps it: each handle is a *shard* of its series, an
//! atomic of its own on a cache line of its own with one writer, so that counting takes no lock, not
//! even a locked instruction, allocates nothing and does not contend with other threads.
//! [`Registry::encode`] sums the shards of equal name and
//! labels. Asking takes a lock for a moment and belongs where a worker or a snapshot is made, not
//! where a request is served.
//!
//! What is known only when somebody asks (the inventory, the process) is no handle but a collector,
//! called at each scrape: see [`Registry::collector`].
//!
//! The rest are handles in groups, resolved beforehand for those who count: [`Edge`] and
//! [`ListenerSeries`] for connections, [`RequestSeries`] for a site, [`UpstreamSeries`] for a server
//! behind, [`CertificateCounters`] and [`Reloads`] for the control plane. All names, helps, labels
//! and buckets are in [`names`].
//!
//! It is not a client library on purpose: those lock or hash on the hot path, or leave the series of
//! what is gone in the output for ever.

mod compression;
mod control;
mod edge;
mod handle;
mod label;
pub mod names;
mod process;
mod registry;
mod requests;
mod scrape;
mod stream;
mod tls;
mod upstream;

pub use compression::{Coding, CompressionSeries};
pub use control::{CertificateCounters, OcspOutcome, OcspRequests, SpanOutcome, Spans};
pub use control::{ReloadResult, Reloads, UpgradeResult, Upgrades};
pub use edge::{
    BasicOutcome, Edge, ErrorKind, ForwardOutcome, Handshake, HandshakeFailure, Limit, Timeout,
    TlsVersion,
};
pub use edge::{ListenerSeries, OpenConnection, Protocol};
pub use handle::{Counter, Gauge, Histogram};
pub use process::describe_process;
pub use registry::Registry;
pub use requests::{METHODS, RequestSeries, method_index};
pub use scrape::Scrape;
pub use stream::{StreamOutcome, StreamSeries};
pub use tls::{ClientAlert, TlsFiles, describe_tls_files};
pub use upstream::{UpstreamOutcome, UpstreamSeries};

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    /// A registry in which everything has happened once.
    fn busy() -> Registry {
        let registry = Registry::new();
        describe_process(&registry);
        let edge = Edge::new(&registry);
        let version = TlsVersion::Tls13;
        let resumed = true;
        edge.handshake(
            Handshake::Done { version, resumed },
            Duration::from_millis(3),
        );
        edge.handshake(
            Handshake::Failed(HandshakeFailure::NotTls),
            Duration::from_millis(3),
        );
        edge.limit(Limit::Connections);
        edge.timeout(Timeout::Idle);
        edge.error(ErrorKind::UpstreamConnect);
        let listener = ListenerSeries::new(&registry, "[::]:443");
        let mut open = listener.accepted(Protocol::Handshake);
        open.becomes(Protocol::Http2);
        drop(open);
        RequestSeries::new(&registry, "a.test").record(0, 200, Duration::from_millis(1));
        let server = UpstreamSeries::new(&registry, "api", "http://127.0.0.1:1");
        server.outcome(UpstreamOutcome::Response);
        CertificateCounters::new(&registry, ["expired"].into_iter()).rejected("expired");
        Reloads::new(&registry).record(ReloadResult::Refused);
        Upgrades::new(&registry).record(UpgradeResult::Failed);
        registry
    }

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = busy().encode();
        for line in [
            r#"staunch_tls_handshakes_total{outcome="done",version="1.3",resumed="true"} 1"#,
            r#"staunch_tls_handshakes_total{outcome="done",version="1.2",resumed="false"} 0"#,
            r#"staunch_tls_handshakes_total{outcome="not_tls",version="none",resumed="false"} 1"#,
            r#"staunch_limits_hit_total{limit="connections"} 1"#,
            r#"staunch_limits_hit_total{limit="streams"} 0"#,
            r#"staunch_proxy_errors_total{kind="upstream_connect"} 1"#,
            r#"staunch_connections_total{listener="[::]:443"} 1"#,
            r#"staunch_certificate_rejections_total{reason="expired"} 1"#,
        ] {
            assert!(
                text.contains(&format!("\n{line}\n")),
                "no {line} in\n{text}"
            );
        }
        for process in ["start_time_seconds", "resident_memory_bytes", "open_fds"] {
            assert!(text.contains(&format!("\nprocess_{process} ")), "{text}");
        }
    }

    #[test]
    fn a_connection_is_open_under_what_is_spoken_on_it() {
        let registry = Registry::new();
        let listener = ListenerSeries::new(&registry, "l");
        let mut open = listener.accepted(Protocol::Handshake);
        open.becomes(Protocol::Http2);
        let line = r#"staunch_connections_open{listener="l",protocol="http2"} "#;
        assert!(registry.encode().contains(&format!("{line}1\n")));
        drop(open);
        assert!(registry.encode().contains(&format!("{line}0\n")));
    }

    /// What promtool says to a text: nothing, when all is well. `None` where there is no promtool.
    fn complaints(text: &str) -> Option<String> {
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: promtool (Debian's package prometheus) is not in PATH");
            return None;
        };
        let mut input = child.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let complaints = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{complaints}\n{text}");
        Some(complaints)
    }

    #[test]
    fn promtool_finds_nothing_to_complain_of() {
        let text = busy().encode();
        assert_eq!(complaints(&text).unwrap_or_default(), "");
    }

    #[test]
    fn promtool_likes_every_name() {
        let strings = include_str!("metrics/names.rs").split('"');
        let names =
            strings.filter(|name| name.starts_with("staunch_") || name.starts_with("process_"));
        let mut text = String::new();
        for name in names.filter(|name| !name.ends_with("_duration_seconds")) {
            let kind = if name.ends_with("_total") {
                "counter"
            } else {
                "gauge"
            };
            text += &format!("# HELP {name} Help\n# TYPE {name} {kind}\n{name} 1\n");
        }
        assert!(text.lines().count() > 90, "{text}");
        assert_eq!(complaints(&text).unwrap_or_default(), "");
    }
}
