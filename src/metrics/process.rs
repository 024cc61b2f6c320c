//! The process, as Linux' `/proc` shows it. A figure that cannot be read is left out.

use std::fs;

use super::names;
use super::registry::Registry;
use super::scrape::Scrape;

/// Ticks of the clock that `/proc` counts in, a second. A constant of the kernel's interface on
/// every architecture this program builds for, whatever `sysconf` is asked.
const TICKS: f64 = 100.0;

/// Adds the build's and the process' own figures to every scrape.
pub fn describe_process(registry: &Registry) {
    registry.collector(|scrape| {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        scrape.gauge(names::BUILD_INFO, &version, 1.0);
        collect(scrape);
    });
}

/// Adds all figures.
fn collect(scrape: &mut Scrape) {
    if let Some(stat) = Stat::read() {
        scrape.seconds(names::PROCESS_CPU, stat.cpu);
        if let Some(boot) = boot_time() {
            scrape.gauge(names::PROCESS_START_TIME, &[], boot + stat.started);
        }
    }
    let gauges = [
        (names::PROCESS_RESIDENT_MEMORY, resident_memory()),
        (names::PROCESS_OPEN_FDS, open_fds()),
        (names::PROCESS_MAX_FDS, max_fds()),
    ];
    for (metric, value) in gauges {
        if let Some(value) = value {
            scrape.gauge(metric, &[], value);
        }
    }
}

/// Of `/proc/self/stat` (proc_pid_stat(5)).
struct Stat {
    /// User and system time, in seconds.
    cpu: f64,
    /// Seconds from boot to the start of the process.
    started: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything; the third
        // follows the last parenthesis.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<_> = rest.split_ascii_whitespace().collect();
        let seconds = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS);
        Some(Self {
            cpu: seconds(14)? + seconds(15)?,
            started: seconds(22)?,
        })
    }
}

/// In seconds since the epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// In bytes.
fn resident_memory() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024.0)
}

#[allow(clippy::cast_precision_loss)] // file descriptors
fn open_fds() -> Option<f64> {
    const FOLDER: &str = "/proc/self/fd";
    // Since Linux 6.2 the folder's size is the number; before, it is 0 and they must be listed,
    // the one that lists them not being counted.
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count().saturating_sub(1) as f64),
        number => Some(number as f64),
    }
}

#[allow(clippy::cast_precision_loss)] // file descriptors
fn max_fds() -> Option<f64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map(|most| most as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_confuse_the_figures() {
        let text = "7 (a) R 1) S 1 7 7 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 4 0 12300 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.cpu, stat.started), (4.0, 123.0));
        assert!(Stat::parse("7 (a) S 1").is_none());
    }
}
