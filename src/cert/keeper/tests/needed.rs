//! What is kept because a site's name has no other certificate.

use std::collections::HashSet;
use std::fs;

use super::super::folders::Folders;
use super::{Bench, NOW, print, until};
use crate::cert::{DiskState, Reason};
use crate::config::SiteName;
use crate::watch::Watch;

fn bench() -> Bench {
    Bench {
        sites: vec![SiteName::Exact("a.test".into())],
        ..Bench::new()
    }
}

#[test]
fn a_reload_does_not_leave_a_name_without_the_certificate_that_it_had() {
    let bench = bench();
    let (a, other) = (
        bench.issue(&["a.test"], -30, 60),
        bench.issue(&["a.test"], -20, 70),
    );
    bench.write("a", &a);
    let running = bench.start(vec![bench.pair("a")]);
    // A slip of the hand.
    let mistaken = bench.wanted(vec![bench.pair("b")]);
    let report = running.keeper.reload(mistaken.clone(), bench.roots());
    assert!(report.removed.is_empty());
    assert_eq!(report.refused.len(), 2);
    assert_eq!(report.refused[0].reason, Some(Reason::NotConfigured));
    assert_eq!(running.served("a.test", NOW), Some(print(&a)));
    // It is not read any more, and named again as if nothing had been.
    running
        .keeper
        .reload(bench.wanted(vec![bench.pair("a")]), bench.roots());
    assert_eq!(running.report(NOW)[0].disk.state, DiskState::Same);
    // What takes its place ends it.
    running.keeper.reload(mistaken, bench.roots());
    bench.write("b", &other);
    until("the other is served", || {
        running.served("a.test", NOW) == Some(print(&other))
    });
    until("the one before is let go", || {
        running.report(NOW).len() == 1
    });
}

#[test]
fn of_two_that_vanish_together_one_stays_for_a_name_that_has_no_other() {
    let bench = bench();
    for name in ["live/a", "live/b"] {
        bench.write(name, &bench.issue(&["a.test"], -30, 60));
    }
    bench.write("live/c", &bench.issue(&["c.test"], -30, 60));
    let running = bench.start(vec![bench.folder("live")]);
    for file in ["live/a.crt", "live/b.crt"] {
        fs::remove_file(bench.path(file)).unwrap();
    }
    until("one of them is let go", || running.report(NOW).len() == 2);
    assert!(running.served("a.test", NOW).is_some());
}

#[test]
fn a_folder_is_looked_at_once_for_all_that_vanished_from_it() {
    let bench = bench();
    for name in ["live/a", "live/b"] {
        bench.write(name, &bench.issue(&["a.test"], -30, 60));
    }
    let mut watch = Watch::start(|| {});
    let sources = [bench.folder("live")];
    let mut folders = Folders::new(&sources, Folders::default(), &mut watch);
    folders.search();
    let all: Vec<_> = folders.sources().collect();
    let live = bench.path("live");
    for file in ["live/a.crt", "live/b.crt"] {
        fs::remove_file(bench.path(file)).unwrap();
    }
    let mut looked = HashSet::new();
    let vanished = all.iter().map(|source| {
        let found = folders.look_for(&source.files, &live, &mut looked, &mut watch);
        found.vanished.len()
    });
    assert_eq!(vanished.collect::<Vec<_>>(), [2, 0]);
    bench.write("live/a", &bench.issue(&["a.test"], -30, 60));
    let found = folders.look_for(&all[0].files, &live, &mut looked, &mut watch);
    assert!(found.appeared.is_empty(), "it was looked at just now");
    let found = folders.look_for(&all[0].files, &live, &mut HashSet::new(), &mut watch);
    assert_eq!(found.appeared.len(), 1);
}
