//! Copies in the state directory: which are made, and when they go.

use std::fs;
use std::time::Duration;

use super::{Bench, NOW, print, until};
use crate::cert::Fingerprint;
use crate::config::{CertificateSource, SiteName};

impl Bench {
    fn has_copy(&self, of: Fingerprint) -> bool {
        let names = fs::read_dir(self.path("state/last-good")).unwrap();
        let of = of.to_string();
        names
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().contains(&of))
    }
}

#[test]
fn no_copy_is_made_of_what_may_not_be_kept() {
    let bench = Bench::new();
    let (kept, other) = (
        bench.issue(&["a.test"], -30, 60),
        bench.issue(&["b.test"], -30, 60),
    );
    bench.write("a", &other);
    bench.write("b", &kept);
    let not_kept = CertificateSource {
        keep: false,
        routine: false,
        ..bench.pair("a")
    };
    let running = bench.start(vec![not_kept, bench.pair("b")]);
    bench.wait_for_copy(print(&kept));
    drop(running);
    let copies = fs::read_dir(bench.path("state/last-good")).unwrap().count();
    assert_eq!(copies, 1);
}

#[test]
fn copies_go_when_they_are_no_longer_wanted() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &good);
    let running = bench.start(vec![bench.pair("a")]);
    bench.wait_for_copy(print(&good));
    let not_kept = CertificateSource {
        keep: false,
        routine: false,
        ..bench.pair("a")
    };
    running
        .keeper
        .reload(bench.wanted(vec![not_kept]), bench.roots());
    until("the copies are gone", || {
        fs::read_dir(bench.path("state/last-good"))
            .unwrap()
            .next()
            .is_none()
    });
}

#[test]
fn copies_of_what_is_no_longer_configured_outlast_a_start_by_a_while() {
    let mut bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &good);
    bench.write("b", &bench.issue(&["b.test"], -30, 60));
    let running = bench.start(vec![bench.pair("a")]);
    bench.wait_for_copy(print(&good));
    drop(running);
    let copies = || fs::read_dir(bench.path("state/last-good")).unwrap().count();
    drop(bench.start(vec![bench.pair("b")]));
    assert!(copies() >= 1, "a mistake may be mended");
    bench.timing.forget = Duration::from_millis(100);
    let _running = bench.start(vec![bench.pair("b")]);
    let kept = format!("{}", print(&good));
    until("the copy is gone", || {
        let names = fs::read_dir(bench.path("state/last-good")).unwrap();
        names
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().contains(&kept))
    });
}

#[test]
fn the_copy_of_what_was_let_go_outlasts_it_by_a_while() {
    for (forget, is_kept) in [(3_600_000, true), (100, false)] {
        let mut bench = Bench::new();
        bench.timing.forget = Duration::from_millis(forget);
        let [gone, stays] = ["gone", "stays"].map(|name| {
            let issued = bench.issue(&[&format!("{name}.test")], -30, 60);
            bench.write(&format!("live/{name}/tls"), &issued);
            issued
        });
        let running = bench.start(vec![bench.folder("live")]);
        bench.wait_for_copy(print(&gone));
        bench.wait_for_copy(print(&stays));
        fs::remove_dir_all(bench.path("live/gone")).unwrap();
        until("it is let go", || {
            running.served("gone.test", NOW).is_none()
        });
        // What was to be written before is written by then.
        let other = bench.issue(&["other.test"], -30, 60);
        bench.write("live/other/tls", &other);
        bench.wait_for_copy(print(&other));
        if is_kept {
            assert!(bench.has_copy(print(&gone)));
            drop(running);
            bench.sites = vec![SiteName::Exact("gone.test".into())];
            let running = bench.start(vec![bench.folder("live")]);
            assert_eq!(running.served("gone.test", NOW), Some(print(&gone)));
        } else {
            until("the copy is gone", || !bench.has_copy(print(&gone)));
            assert!(bench.has_copy(print(&stays)));
        }
    }
}

#[test]
fn copies_are_made_without_a_ledger_and_it_is_written_when_it_can_be() {
    let bench = Bench::new();
    let first = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &first);
    let ledger = bench.path("state/ledger.jsonl");
    // Whoever runs this, a folder is no file.
    fs::create_dir_all(&ledger).unwrap();
    let running = bench.start(vec![bench.pair("a")]);
    bench.wait_for_copy(print(&first));
    let second = bench.issue(&["a.test"], -1, 89);
    bench.write("a", &second);
    bench.wait_for_copy(print(&second));
    assert!(!running.keeper.degraded().is_empty());
    fs::remove_dir(&ledger).unwrap();
    until("it is written", || {
        let written = fs::read_to_string(&ledger).unwrap_or_default();
        written.contains("loaded") && written.contains("swapped")
    });
    until("it is over", || running.keeper.degraded().is_empty());
}

#[test]
fn copies_that_cannot_be_listed_at_the_start_are_made_when_they_can_be() {
    let bench = Bench::new();
    let issued = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &issued);
    bench.put("state/last-good", "a file where a folder should be");
    let running = bench.start(vec![bench.pair("a")]);
    running.expect_served("a.test", &issued);
    until("it is said", || !running.keeper.degraded().is_empty());
    fs::remove_file(bench.path("state/last-good")).unwrap();
    until("it is over", || running.keeper.degraded().is_empty());
    bench.wait_for_copy(print(&issued));
}
