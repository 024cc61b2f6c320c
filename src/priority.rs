//! Threads whose work can wait.
//!
//! The data plane's threads run as the system starts them. Those that read ten thousand
//! certificates, build a configuration or sign with RSA have a thousandth of a second of work at
//! least; they make way, so that the kernel lets a thread that serves run as soon as it has something
//! to do. They are not left without: on a machine that is busy with nothing but requests they get
//! about a tenth of a core.

/// How nice they are (`setpriority(2)`, `sched(7)`).
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Has the calling thread, and those that it starts from now on, make way for the others. Where the
/// kernel knows this of whole processes only, nothing is done.
pub fn make_way() {
    // It may always be nicer; were it not so, it would be work as usual.
    #[cfg(target_os = "linux")]
    let _as_before = rustix::process::nice(NICE);
}
