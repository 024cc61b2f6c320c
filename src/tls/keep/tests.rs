//! Files that change while a reload is prepared, and what metrics say of files.

use std::fs;
use std::path::Path;

use rustls::server::ResolvesServerCertUsingSni;

use super::*;
use crate::config;
use crate::tls::testing::{Ca, at, day};

/// Files of an authority, and what keeps them.
struct Bench {
    folder: tempfile::TempDir,
    ca: Ca,
    registry: Registry,
    keep: Keep,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("mine");
        fs::write(folder.path().join("ca.pem"), &ca.pem).unwrap();
        let registry = Registry::new();
        let keep = Keep::start(Options {
            resolver: Arc::new(ResolvesServerCertUsingSni::new()),
            clock: Clock::manual(Timestamp::from_unix(day(0).unix_timestamp())),
            registry: registry.clone(),
            key_log: None,
        })
        .unwrap();
        Self {
            folder,
            ca,
            registry,
            keep,
        }
    }

    fn list(&self, name: &str, number: u64, until: i64, revoked: &[u64]) {
        let text = self.ca.list(number, (-1, until), revoked);
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Sites that ask for client certificates by the list of this name, each with these lines.
    fn config(&self, top: &str, sites: &[(&str, &str)]) -> Config {
        let site = |(n, (list, lines)): (usize, &(&str, &str))| {
            let path = |name: &str| self.folder.path().join(name);
            format!(
                "[[site]]\nnames = ['{n}.test']\nupstream = 'http://127.0.0.1:1'\n\
                 [site.client_certificates]\nmode = 'required'\nca = {:?}\ncrl = {:?}\n{lines}\n",
                path("ca.pem"),
                path(list)
            )
        };
        let sites: String = sites.iter().enumerate().map(site).collect();
        let text = format!("listen.https = ['127.0.0.1:1']\n{top}\n{sites}");
        config::parse(&text, Path::new("/staunch.toml")).unwrap()
    }

    fn take(&self, config: &Config) {
        self.keep.commit(self.keep.prepare(config).unwrap());
    }

    /// Looks at all files, as the thread does when it hears of them.
    fn look(&self) {
        let mut watch = Watch::start(|| {});
        let units: Vec<_> = (self.keep.shared.state().units.iter())
            .map(|unit| (unit.number, unit.purpose.clone()))
            .collect();
        for (number, purpose) in units {
            look_at(&self.keep.shared, &mut watch, number, &purpose);
        }
    }
}

/// The files change between the two halves of a reload.
#[test]
fn what_was_read_while_a_reload_was_prepared_holds_for_its_policies_too() {
    let bench = Bench::new();
    bench.list("a.crl", 1, 7, &[]);
    bench.take(&bench.config("", &[("a.crl", "")]));
    let others = bench.config("tls.policy = 'modern'", &[("a.crl", "")]);
    let prepared = bench.keep.prepare(&others).unwrap();
    bench.list("a.crl", 2, 7, &[66]);
    bench.look();
    bench.keep.commit(prepared);
    let revoked = bench.ca.client(66);
    let state = bench.keep.shared.state();
    let asking = state.policies.values().filter_map(|policy| policy.trust());
    let judged: Vec<_> = asking
        .map(|trust| trust.verify(std::slice::from_ref(&revoked), at(0)).is_err())
        .collect();
    assert_eq!(judged, [true], "she is revoked");
}

/// Two sites that differ in more than their list have the same label.
#[test]
fn files_that_are_used_in_several_ways_have_one_series() {
    let bench = Bench::new();
    let show = || bench.registry.encode();
    assert_eq!(show(), "");
    bench.list("a.crl", 1, 7, &[]);
    bench.list("b.crl", 1, 5, &[]);
    let headers = "headers = ['subject']";
    bench.take(&bench.config("", &[("a.crl", ""), ("a.crl", headers), ("b.crl", "")]));
    let first = day(5).unix_timestamp();
    let value = |name: &str| {
        let text = show();
        let lines: Vec<_> = text.lines().filter(|it| it.starts_with(name)).collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].rsplit_once(' ').unwrap().1.to_owned()
    };
    let expires = || value("staunch_client_crl_next_update_timestamp_seconds{");
    assert_eq!(expires(), first.to_string());
    assert_eq!(value("staunch_tls_file_stale{"), "0");
    fs::write(bench.folder.path().join("a.crl"), "").unwrap();
    bench.look();
    assert_eq!(value("staunch_tls_file_stale{"), "1");
    assert_eq!(expires(), first.to_string());
}
