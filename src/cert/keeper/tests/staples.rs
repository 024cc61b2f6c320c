//! The file of a staple changes, and the certificate does not.

use std::fs;
use std::sync::Arc;

use super::{Bench, NOW, Running, source, until};
use crate::cert::testing::fixture;
use crate::cert::{Event, Verified};
use crate::config::Location;

const HOST: &str = "fixture.test";

impl Bench {
    fn put_staple(&self, staple: &[u8]) {
        fs::write(self.path("a.pem.ocsp"), staple).unwrap();
    }

    fn start_with_fixture(&self) -> Running {
        fs::write(self.path("a.pem"), fixture("ocsp.pem")).unwrap();
        let file = self.path("a.pem");
        self.start(vec![source(Location::Bundle { file, ocsp: None })])
    }
}

impl Running {
    fn certificate(&self) -> Arc<Verified> {
        let choice = self.inventory().choice(HOST, NOW).unwrap();
        Arc::clone(&choice.certificate)
    }

    fn is_stapled(&self) -> bool {
        self.certificate().key_at(NOW).ocsp.is_some()
    }

    fn notes(&self) -> String {
        self.certificate().facts().notes.join("\n")
    }
}

#[test]
fn clients_are_counted_on_when_only_the_staple_is_new() {
    let bench = Bench::new();
    let mut running = bench.start_with_fixture();
    let before = running.certificate();
    before.tally().done();
    bench.put_staple(&fixture("ocsp.good.der"));
    until("it is stapled", || running.is_stapled());
    running.certificate().tally().refused();
    // Whoever looks at the one that was swapped in sees what becomes of it.
    let shown = before.tally().shown();
    assert_eq!((shown.done, shown.refused), (1, 1));
    running.collect();
    let swaps = running.seen.iter();
    let swaps = swaps.filter(|it| matches!(***it, Event::Swapped { .. }));
    assert_eq!(swaps.count(), 0);
}

#[test]
fn a_staple_that_is_good_outlasts_a_file_that_gives_none() {
    let bench = Bench::new();
    let good = fixture("ocsp.good.der");
    bench.put_staple(&good);
    let running = bench.start_with_fixture();
    assert!(running.is_stapled());
    for (worse, why) in [
        (&good[..good.len() / 2], "not an OCSP response"),
        (&fixture("ocsp.stale.der"), "it was good until"),
    ] {
        bench.put_staple(worse);
        until("it is said", || running.notes().contains(why));
        assert!(running.is_stapled(), "{why}");
    }
    bench.put_staple(&good);
    until("nothing is wrong", || !running.notes().contains("staple"));
    assert!(running.is_stapled());
    // What the issuer takes back is not sent on.
    bench.put_staple(&fixture("ocsp.revoked.der"));
    until("it is revoked", || {
        running.certificate().status().revoked().is_some()
    });
    assert!(!running.is_stapled());
}
