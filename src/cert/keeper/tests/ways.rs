//! Ways to files that are not there yet.

use std::fs;
use std::sync::atomic::Ordering;

use super::{Bench, until};

#[test]
fn a_pair_is_found_at_the_end_of_folders_that_are_made_one_after_the_other() {
    let bench = Bench::new();
    let running = bench.start(vec![bench.pair("a/b/c/tls")]);
    let read = || running.keeper.work().read.load(Ordering::Relaxed);
    for folder in ["a", "a/b", "a/b/c"] {
        let before = read();
        fs::create_dir(bench.path(folder)).unwrap();
        until(&format!("{folder} is noticed"), || read() > before);
    }
    let issued = bench.issue(&["a.test"], -30, 60);
    bench.write("a/b/c/tls", &issued);
    running.expect_served("a.test", &issued);
}
