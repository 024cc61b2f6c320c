//! Threads whose work can wait.
//!
//! The data plane's threads run as the system starts them. Those that read ten thousand
//! certificates, build a configuration or sign with RSA are busy for a millisecond and more at a
//! time; they make way for the others. They are not left without: on a machine that is busy with
//! nothing but requests they get a share of a core, only a small one.
//!
//! Being nice decides on shares of seconds. It does not decide who waits for whom now: a thread
//! that got a core keeps it until its slice or the tick of the clock is over (`sched(7)`), which is
//! as long as a dozen requests take. Hence those with much to do offer it by themselves.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How nice they are (`setpriority(2)`).
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// How long one of them keeps a core.
const STINT: Duration = Duration::from_micros(500);

thread_local! {
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Has the calling thread, and those that it starts from now on, make way for the others. Where the
/// system knows this of whole processes only, nothing is done.
pub fn make_way() {
    // It may always be nicer; were it not so, it would work as usual.
    #[cfg(target_os = "linux")]
    let _as_before = rustix::process::nice(NICE);
}

/// How long the calling thread has had a core so far. What others had of it meanwhile is not in it.
pub fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Offers the core to whoever waits for it, if the calling thread had it for a while. For the end of
/// each piece of something long.
pub fn breathe() {
    let now = Instant::now();
    let since = SINCE.get().unwrap_or(now);
    let over = now.duration_since(since) >= STINT;
    if over {
        thread::yield_now();
    }
    // How long others had it does not count.
    SINCE.set(Some(if over { Instant::now() } else { since }));
}
