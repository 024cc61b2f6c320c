//! What is served is there after a restart.

use std::fs;

use super::{Bench, PATIENCE};

#[test]
fn all_that_is_served_is_copied_before_the_end() {
    const COUNT: usize = 30;
    let bench = Bench::new();
    let names: Vec<_> = (0..COUNT).map(|n| format!("n{n}")).collect();
    for name in &names {
        bench.write(name, &bench.issue(&[&format!("{name}.test")], -30, 60));
    }
    let pairs = names.iter().map(|name| bench.pair(name));
    let running = bench.start(pairs.collect());
    assert!(running.keeper.settle(PATIENCE));
    let copies = fs::read_dir(bench.path("state/last-good")).unwrap();
    assert_eq!(copies.count(), COUNT);
}
