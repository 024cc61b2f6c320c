//! Going back to the certificate from before a swap.

use std::fs;
use std::sync::Arc;

use super::super::Setback;
use super::{Bench, print, until};
use crate::cert::testing::{NOW, day};
use crate::cert::{DiskState, Event, Reason};

#[test]
fn what_clients_refuse_is_held_back_over_restarts_until_there_is_another() {
    let bench = Bench::new();
    let good = bench.issue(&["a.test"], -30, 10);
    bench.write("a", &good);
    let mut running = bench.start(vec![bench.pair("a")]);
    bench.wait_for_copy(print(&good));
    let refused = bench.issue(&["a.test"], -1, 89);
    bench.write("a", &refused);
    running.expect_served("a.test", &refused);
    bench.wait_for_copy(print(&refused));
    let mut swap = None;
    running.expect_event("swapped", |event| {
        if let Event::Swapped { source, old, new } = event {
            swap = Some(Setback {
                source: Arc::clone(source),
                refused: new.facts().fingerprint,
                earlier: Arc::clone(old),
                because: "Clients refuse it.".to_owned(),
            });
        }
        swap.is_some()
    });
    running.keeper.go_back(swap.unwrap());
    running.expect_served("a.test", &good);
    assert_eq!(
        running.disk(),
        (DiskState::HeldBack, Some(Reason::RefusedByClients))
    );
    running
        .keeper
        .reload(bench.wanted(vec![bench.pair("a")]), bench.roots());
    assert_eq!(running.served("a.test", NOW), Some(print(&good)));
    until("it is written down", || {
        fs::read_to_string(bench.path("state/refused.json"))
            .is_ok_and(|text| text.contains(&print(&refused).to_string()))
    });
    drop(running);

    let running = bench.start(vec![bench.pair("a")]);
    assert_eq!(running.served("a.test", NOW), Some(print(&good)));
    assert_eq!(
        running.disk(),
        (DiskState::HeldBack, Some(Reason::RefusedByClients))
    );
    // Better than one that has expired, and what an operator says goes.
    assert_eq!(
        running.served("a.test", day(10).plus(1)),
        Some(print(&refused))
    );
    let label = bench.path("a.crt").to_string_lossy().into_owned();
    let accepted = running.keeper.accept(&label, "they were updated").unwrap();
    assert_eq!(accepted.fingerprint, print(&refused));
    assert_eq!(running.served("a.test", NOW), Some(print(&refused)));
    let next = bench.issue(&["a.test"], 0, 90);
    bench.write("a", &next);
    running.expect_served("a.test", &next);
}
