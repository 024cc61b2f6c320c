//! The watch over the files of all upstreams' TLS: what is new and whole is used by the next
//! connection, what cannot be used changes nothing but what is told.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Upstreams;
use super::trust::Trust;
use crate::clock::Clock;
use crate::priority;
use crate::tls::file;
use crate::watch::{Reach, Watch};

/// How often files are looked at although nothing was heard of them; and those of which nothing
/// can be heard, or that are broken.
const ROUND: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(5);

/// See the module. Ends when it is dropped.
#[derive(Debug)]
pub struct Files {
    wanted: Arc<Mutex<Wanted>>,
    wake: SyncSender<()>,
}

#[derive(Debug, Default)]
struct Wanted {
    trusts: Vec<Arc<Trust>>,
    fresh: bool,
}

impl Files {
    /// Watches nothing yet, on a thread of its own.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(clock: Clock) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let wanted = Arc::default();
        let files = Self {
            wanted: Arc::clone(&wanted),
            wake: wake.clone(),
        };
        let mut watch = Watch::start(move || {
            let _ = wake.try_send(());
        });
        thread::Builder::new()
            .name("upstream-files".into())
            .spawn(move || {
                priority::make_way();
                mind(&wanted, &mut watch, &woken, &clock);
            })?;
        Ok(files)
    }

    /// Watches the files of these upstreams from now on.
    pub fn mind(&self, upstreams: &Upstreams) {
        let trusts = upstreams
            .trusts()
            .filter(|trust| trust.files().next().is_some());
        let trusts = trusts.cloned().collect();
        let fresh = true;
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Wanted { trusts, fresh };
        let _ = self.wake.try_send(());
    }
}

/// What is known of the files of one upstream.
struct Minded {
    trust: Arc<Trust>,
    looked: Instant,
    reach: Reach,
}

fn mind(
    wanted: &Arc<Mutex<Wanted>>,
    watch: &mut Watch<usize>,
    woken: &Receiver<()>,
    clock: &Clock,
) {
    // By the place of the trust in memory, which is its own for as long as it is here.
    let mut minded: HashMap<usize, Minded> = HashMap::new();
    loop {
        let pause = watch.due().unwrap_or(POLL);
        match woken.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if Arc::strong_count(wanted) == 1 {
            return;
        }
        {
            let mut wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::take(&mut wanted.fresh) {
                let mut before = std::mem::take(&mut minded);
                for trust in &wanted.trusts {
                    let key = Arc::as_ptr(trust).addr();
                    let known = before.remove(&key).unwrap_or_else(|| Minded {
                        trust: Arc::clone(trust),
                        looked: Instant::now(),
                        reach: Reach::Polled,
                    });
                    if known.reach == Reach::Polled {
                        let files = trust.files().map(PathBuf::as_path);
                        watch.cover(key, files);
                    }
                    minded.insert(key, known);
                }
                before.keys().for_each(|gone| watch.uncover(*gone));
            }
        }
        // Collected until it is quiet.
        let touched = match watch.due() {
            Some(due) if due.is_zero() => Some(watch.take()),
            _ => None,
        };
        for (&key, one) in &mut minded {
            let is_touched = (touched.as_ref())
                .is_some_and(|changes| changes.all || changes.keys.contains(&key));
            let age = one.looked.elapsed();
            let slow = one.reach != Reach::Events || one.trust.fault().is_some();
            if !is_touched && age < ROUND && (!slow || age < POLL) {
                continue;
            }
            // Watched before they are read: what changes later is heard of.
            let files = one.trust.files().map(PathBuf::as_path);
            one.reach = watch.cover(key, files).reach;
            one.looked = Instant::now();
            if one.trust.is_stale() {
                one.trust.look(file::read_still, clock.now());
            }
        }
    }
}
