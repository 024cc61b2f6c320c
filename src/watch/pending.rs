//! Events between the thread that hears of them and the one that acts on them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{CEILING, QUIET};

/// Paths remembered at most; beyond, everyone looks again.
const PATHS: usize = 8192;

/// Paths that were touched and not yet taken.
pub(super) struct Pending {
    touched: Mutex<Touched>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Touched {
    paths: HashSet<PathBuf>,
    all: bool,
    /// The first and the latest event.
    span: Option<(Instant, Instant)>,
}

impl Pending {
    pub(super) fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self {
            touched: Mutex::default(),
            wake,
        }
    }

    /// Notes a path; `None` when events were lost.
    pub(super) fn touch(&self, path: Option<PathBuf>) {
        let now = Instant::now();
        let mut touched = self.lock();
        match path {
            Some(path) if touched.paths.len() < PATHS => drop(touched.paths.insert(path)),
            _ => touched.all = true,
        }
        let first = touched.span.is_none();
        touched.span = Some((touched.span.map_or(now, |(first, _)| first), now));
        drop(touched);
        if first {
            (self.wake)();
        }
    }

    /// How long to collect on; `None` when there is nothing.
    pub(super) fn due(&self, now: Instant) -> Option<Duration> {
        let (first, latest) = self.lock().span?;
        let at = (latest + QUIET).min(first + CEILING);
        Some(at.saturating_duration_since(now))
    }

    pub(super) fn take(&self) -> (HashSet<PathBuf>, bool) {
        let touched = std::mem::take(&mut *self.lock());
        (touched.paths, touched.all)
    }

    fn lock(&self) -> MutexGuard<'_, Touched> {
        // Nothing between lock and unlock can leave it half changed.
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_stream_of_events_cannot_put_a_look_off_for_ever() {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let pending = Pending::new(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(pending.due(Instant::now()), None);
        pending.touch(Some("a".into()));
        let first = Instant::now();
        pending.touch(Some("b".into()));
        let due = pending.due(first + CEILING);
        assert_eq!(due, Some(Duration::ZERO));
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let (paths, all) = pending.take();
        assert_eq!((paths.len(), all), (2, false));
        assert_eq!(pending.due(Instant::now()), None);
    }

    #[test]
    fn too_many_paths_mean_all() {
        let pending = Pending::new(Box::new(|| {}));
        for n in 0..=PATHS {
            pending.touch(Some(n.to_string().into()));
        }
        let (paths, all) = pending.take();
        assert_eq!((paths.len(), all), (PATHS, true));
    }
}
