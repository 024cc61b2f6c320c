//! A key that does not belong to its certificate: half of a renewal, or all of a mistake.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

use super::{Bench, Running};
use crate::cert::{DiskState, Event, Reason};

impl Running {
    fn read(&self) -> u64 {
        self.keeper.work().read.load(Ordering::Relaxed)
    }

    fn expect_mismatch(&mut self) {
        self.expect_event("the mismatch is told", |event| {
            matches!(event, Event::Rejected { rejection, .. }
                if rejection.reason == Reason::KeyMismatch)
        });
    }
}

#[test]
fn both_files_swapped_at_once_are_no_half_even_if_one_holds_what_it_held() {
    let bench = Bench::new();
    let first = bench.issue(&["a.test"], -30, 60);
    let swap = |folder: &str| {
        let link = bench.path("temporary-link");
        symlink(folder, &link).unwrap();
        fs::rename(&link, bench.path("k8s/..data")).unwrap();
    };
    bench.write("k8s/..1/tls", &first);
    swap("..1");
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), bench.path(&format!("k8s/{file}"))).unwrap();
    }
    let mut running = bench.start(vec![bench.folder("k8s")]);
    running.expect_served("a.test", &first);
    // A renewal whose key was forgotten.
    let next = bench.issue(&["a.test"], -1, 89);
    bench.write_chain("k8s/..2/tls", &next);
    bench.write_key("k8s/..2/tls", &first);
    swap("..2");
    running.expect_mismatch();
    running.expect_served("a.test", &first);
    bench.write("k8s/..3/tls", &next);
    swap("..3");
    running.expect_served("a.test", &next);
}

#[test]
fn a_file_written_again_with_what_it_held_leaves_a_later_half_a_half() {
    let bench = Bench::new();
    let first = bench.issue(&["a.test"], -30, 60);
    bench.write("a", &first);
    let witness = bench.issue(&["b.test"], -30, 80);
    bench.write("b", &witness);
    let mut running = bench.start(vec![bench.pair("a"), bench.pair("b")]);
    running.expect_served("a.test", &first);
    running.expect_served("b.test", &witness);
    let read = running.read();
    bench.write_key("a", &first);
    super::until("it is read again", || running.read() > read);
    let next = bench.issue(&["a.test"], -1, 89);
    bench.write_chain("a", &next);
    running.expect_disk(DiskState::Rejected, Reason::KeyMismatch);
    // What is no half, and came later, has been told of: so would this have been.
    let broken = bench.issue(&["b.test"], -1, 89);
    bench.write_chain("b", &broken);
    bench.write_key("b", &first);
    running.expect_mismatch();
    assert_eq!(running.complaints(), 1, "{:?}", running.seen);
    assert!(running.seen.iter().any(|event| {
        matches!(&**event, Event::Rejected { source, .. } if source.contains("b.crt"))
    }));
    running.seen.clear();
    // Now the other half was written too, and is not the right one.
    let other = bench.issue(&["a.test"], -1, 89);
    bench.write_key("a", &other);
    running.expect_mismatch();
    running.expect_served("a.test", &first);
    bench.write_key("a", &next);
    running.expect_served("a.test", &next);
}
