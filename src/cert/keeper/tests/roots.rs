//! This system trusts other roots than before, and is told to look.

use std::sync::Arc;

use super::{Bench, NOW, Running};
use crate::cert::load::Roots;
use crate::cert::testing::{Authority, Leaf, day};
use crate::cert::{DiskState, Event, Reason};

fn is_trusted(running: &Running) -> bool {
    let report = running.report(NOW);
    report[0].certificate.as_ref().unwrap().trusted
}

#[test]
fn a_root_that_is_trusted_now_is_taken_up_by_a_reload() {
    let bench = Bench::new();
    bench.write("a", &bench.issue(&["a.test"], -30, 60));
    let sources = vec![bench.pair("a")];
    let mut running = bench.start(sources.clone());
    assert!(is_trusted(&running));
    let before = running.inventory().choice("a.test", NOW).unwrap();

    let none = Arc::new(Roots::empty());
    running.keeper.reload(bench.wanted(sources.clone()), none);
    assert!(!is_trusted(&running));
    let now = running.inventory().choice("a.test", NOW).unwrap();
    assert!(Arc::ptr_eq(before.certificate.key(), now.certificate.key()));

    let report = running.keeper.reload(bench.wanted(sources), bench.roots());
    assert!(is_trusted(&running));
    assert!(report.changed.is_empty() && report.refused.is_empty());
    running.collect();
    let swaps = running.seen.iter();
    let swaps = swaps.filter(|it| matches!(***it, Event::Swapped { .. }));
    assert_eq!(swaps.count(), 0, "nothing was swapped");
}

#[test]
fn what_was_held_back_for_its_root_is_taken_when_that_is_trusted() {
    let bench = Bench::new();
    bench.write("a", &bench.issue(&["a.test"], -30, 60));
    let sources = vec![bench.pair("a")];
    let running = bench.start(sources.clone());
    let other = Authority::root("Other Root");
    let leaf = Leaf::new(&["a.test"]).valid(day(-1), day(90));
    let renewed = leaf.issue(&other).and(&other);
    bench.write("a", &renewed);
    running.expect_disk(DiskState::HeldBack, Reason::UntrustedChain);

    let both = [bench.world.root.der.clone(), other.der.clone()];
    let both = Arc::new(Roots::from_ders(both));
    running.keeper.reload(bench.wanted(sources), both);
    running.expect_disk(DiskState::Same, None);
    running.expect_served("a.test", &renewed);
    assert!(is_trusted(&running));
}
