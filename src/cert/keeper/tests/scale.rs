//! What ten thousand certificates cost: a measurement, to be run by hand.
//!
//! ```text
//! cargo test --release --lib ten_thousand -- --ignored --nocapture
//! ```

use super::*;

const MANY: usize = 10_000;
const RENEWALS: usize = 50;

#[test]
#[ignore = "a measurement: it takes a while, and its figures are for people"]
fn ten_thousand_certificates_in_certbots_layout() {
    let mut bench = Bench::new();
    bench.timing = Timing::default();
    let leaves: Vec<usize> = (0..MANY).collect();
    crate::cert::keeper::gather::in_parallel(&leaves, |n| {
        let issued = bench.issue(&[&format!("n{n}.test")], -30, 60);
        install(&bench, *n, 1, &issued);
    });
    let before = memory();
    let started = Instant::now();
    let cpu = processor();
    let running = bench.start(vec![bench.folder("live")]);
    println!(
        "start: {:?}, CPU {:?}",
        started.elapsed(),
        processor() - cpu
    );
    println!("memory: {} KiB for {MANY} certificates", memory() - before);
    let copies = bench.path("state/last-good");
    until_idle(|| fs::read_dir(&copies).unwrap().count() >= MANY);
    println!(
        "copied and watched after {:?}; {:?}",
        started.elapsed(),
        running.keeper.degraded()
    );

    let idle = processor();
    thread::sleep(Duration::from_secs(10));
    let idle = (processor() - idle) / 10;
    println!("idle: CPU {idle:?} a second");

    let settled = memory();
    let (mut slowest, mut total, mut cpu) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for round in 0..RENEWALS {
        let n = round * 197 % MANY;
        let issued = bench.issue(&[&format!("n{n}.test")], -29, 61);
        let fingerprint = print(&issued);
        let (started, cpu_before) = (Instant::now(), processor());
        install(&bench, n, 2, &issued);
        let host = format!("n{n}.test");
        while running.served(&host, NOW) != Some(fingerprint) {
            assert!(started.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
        let took = started.elapsed();
        thread::sleep(Duration::from_millis(300));
        cpu += processor() - cpu_before;
        slowest = slowest.max(took);
        total += took;
    }
    let each = u32::try_from(RENEWALS).unwrap();
    println!(
        "renewal: served after {:?}, {slowest:?} at most",
        total / each
    );
    println!(
        "renewal: CPU {:?} each, the idle work of 0.3 s included",
        cpu / each
    );
    println!(
        "memory grew by {} KiB in {RENEWALS} renewals",
        memory() - settled
    );
    println!("verified {} in all", running.verified());
    let started = Instant::now();
    let length = serde_json::to_vec(&running.report(NOW)).unwrap().len();
    println!("report: {length} bytes in {:?}", started.elapsed());
    let started = Instant::now();
    running
        .keeper
        .reload(bench.wanted(vec![bench.folder("live")]), bench.roots());
    println!("reload: {:?}", started.elapsed());
    drop(running);
    let started = Instant::now();
    let running = bench.start(vec![bench.folder("live")]);
    println!("restart with copies: {:?}", started.elapsed());
    drop(running);
}

/// Puts a generation where certbot would.
fn install(bench: &Bench, n: usize, generation: usize, issued: &Issued) {
    let name = format!("n{n}.test");
    for (file, content) in [("fullchain", &issued.chain), ("privkey", &issued.key)] {
        let real = format!("archive/{name}/{file}{generation}.pem");
        bench.put(&real, content);
        let link = bench.path(&format!("live/{name}/{file}.pem"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let temporary = link.with_extension("new");
        symlink(format!("../../{real}"), &temporary).unwrap();
        fs::rename(temporary, link).unwrap();
    }
}

fn until_idle(mut condition: impl FnMut() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(Duration::from_secs(2));
}

/// Resident memory in KiB.
fn memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// CPU time of every thread of this process but the one that measures.
fn processor() -> Duration {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let Ok(name) = fs::read_to_string(task.join("comm")) else {
            continue;
        };
        if ["keeper", "watch", "scribe"].contains(&name.trim()) {
            let times = fs::read_to_string(task.join("schedstat")).unwrap();
            let spent: u64 = times.split_whitespace().next().unwrap().parse().unwrap();
            nanoseconds += spent;
        }
    }
    Duration::from_nanos(nanoseconds)
}
