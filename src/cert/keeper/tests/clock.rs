//! A clock that leaps ahead, and comes back.

use std::time::Duration;

use super::{Bench, NOW, print, until};
use crate::cert::testing::day;
use crate::cert::{DiskState, Event, Reason};

fn is_swap(event: &Event) -> bool {
    matches!(event, Event::Swapped { .. })
}

#[test]
fn what_is_good_outlasts_a_leap_after_which_another_would_be() {
    let mut bench = Bench::new();
    bench.timing.steady = Duration::from_secs(3600);
    let (good, future) = (
        bench.issue(&["a.test"], -30, 60),
        bench.issue(&["a.test"], 2, 90),
    );
    bench.write("a", &good);
    bench.write("b", &bench.issue(&["b.test"], -30, 60));
    let mut running = bench.start(vec![bench.pair("a"), bench.pair("b")]);
    bench.write("a", &future);
    running.expect_disk(DiskState::HeldBack, Reason::NotYetValid);
    bench.clock.set(day(3));
    assert_eq!(running.served("a.test", day(3)), Some(print(&future)));
    // Whatever the clock says is noticed before a renewal is.
    let witness = bench.issue(&["b.test"], -1, 89);
    bench.write("b", &witness);
    running.expect_served("b.test", &witness);
    bench.clock.set(NOW);
    assert_eq!(running.served("a.test", NOW), Some(print(&good)));
    running.collect();
    let of_a = |event: &Event| {
        matches!(event, Event::Swapped { new, .. }
            if new.facts().fingerprint == print(&future))
    };
    assert!(!running.seen.iter().any(|event| of_a(event)));
}

#[test]
fn a_restart_serves_the_one_before_where_the_latest_was_taken_too_early() {
    let bench = Bench::new();
    let (good, future) = (
        bench.issue(&["a.test"], -30, 60),
        bench.issue(&["a.test"], 2, 90),
    );
    bench.write("a", &good);
    let mut running = bench.start(vec![bench.pair("a")]);
    bench.wait_for_copy(print(&good));
    bench.clock.set(day(3));
    bench.write("a", &future);
    running.expect_event("it is taken", is_swap);
    bench.wait_for_copy(print(&future));
    drop(running);
    bench.clock.set(NOW);
    let running = bench.start(vec![bench.pair("a")]);
    assert_eq!(running.served("a.test", NOW), Some(print(&good)));
    assert_eq!(
        running.disk(),
        (DiskState::HeldBack, Some(Reason::NotYetValid))
    );
    // At its time it is taken once more.
    bench.clock.set(day(2));
    until("it is taken", || running.disk() == (DiskState::Same, None));
    assert_eq!(running.served("a.test", day(2)), Some(print(&future)));
}
