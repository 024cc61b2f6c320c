//! The kernel's side: one inotify instance and the table of mounts, and the thread that listens to
//! both.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use smallvec::SmallVec;

use super::mounts::Mounts;
use super::pending::Pending;
use crate::priority;

/// What can change where a path leads, or what it leads to. Not *opened*, *read* and *closed*:
/// those would be our own reads.
const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

/// An inotify instance. Dropping it ends its thread.
pub(super) struct Inotify {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    sentinel: i32,
}

struct Shared {
    fd: OwnedFd,
    /// The paths behind a watch: one folder may be known by several.
    paths: Mutex<HashMap<i32, SmallVec<[Arc<Path>; 1]>>>,
    stop: AtomicBool,
}

impl Inotify {
    pub(super) fn start(pending: Arc<Pending>) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC)?;
        // The thread waits for events. Taking this watch away is one, which ends it.
        let sentinel = inotify::add_watch(&fd, "/proc/self", WatchFlags::DELETE_SELF)
            .or_else(|_| inotify::add_watch(&fd, "/", WatchFlags::DELETE_SELF))?;
        let shared = Arc::new(Shared {
            fd,
            paths: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let listener = Arc::clone(&shared);
        // Where `/proc` is not mounted, mounts are found by polling.
        let mounts = Mounts::open().ok();
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                priority::make_way();
                listener.listen(&pending, mounts);
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
            sentinel,
        })
    }

    /// Watches a folder. `before` is what this returned for the path earlier; the same again means
    /// that it is still the same folder.
    pub(super) fn add(&self, path: &Arc<Path>, before: Option<i32>) -> io::Result<i32> {
        // Held over the system call, so that no event can come before its path is known.
        let mut paths = self.shared.lock();
        let added = inotify::add_watch(&self.shared.fd, &**path, EVENTS);
        if let Some(before) = before
            && added != Ok(before)
        {
            self.shared.forget(&mut paths, path, before);
        }
        let watch = added?;
        let known = paths.entry(watch).or_default();
        if !known.contains(path) {
            known.push(Arc::clone(path));
        }
        Ok(watch)
    }

    /// Stops watching a folder under this path.
    pub(super) fn remove(&self, path: &Path, watch: i32) {
        let mut paths = self.shared.lock();
        self.shared.forget(&mut paths, path, watch);
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let woken = inotify::remove_watch(&self.shared.fd, self.sentinel).is_ok();
        if let Some(thread) = self.thread.take()
            && woken
        {
            // It can only have panicked, and is then gone as well.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, SmallVec<[Arc<Path>; 1]>>> {
        // Nothing between lock and unlock can leave it half changed.
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, paths: &mut HashMap<i32, SmallVec<[Arc<Path>; 1]>>, path: &Path, watch: i32) {
        let Some(known) = paths.get_mut(&watch) else {
            return;
        };
        known.retain(|other| **other != *path);
        if known.is_empty() {
            paths.remove(&watch);
            // Gone already when the folder is.
            let _gone = inotify::remove_watch(&self.fd, watch);
        }
    }

    fn listen(&self, pending: &Pending, mut mounts: Option<Mounts>) {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
        while !self.stop.load(Ordering::Acquire) {
            if reader.is_buffer_empty()
                && let Some(table) = &mut mounts
                && let Err(error) = self.wait(table, pending)
            {
                tracing::warn!(%error, "mounts cannot be watched: they are found by polling");
                mounts = None;
            }
            match reader.next() {
                Ok(event) => self.handle(&event, pending),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "inotify failed: changed files are found by polling");
                    return;
                }
            }
        }
    }

    /// Waits until inotify has something to say. Mount points that change meanwhile are touched.
    fn wait(&self, mounts: &mut Mounts, pending: &Pending) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(&self.fd, PollFlags::IN),
                PollFd::new(&mounts.file, PollFlags::PRI),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                polled => polled?,
            };
            let [events, table] = fds.map(|fd| fd.revents());
            if table.contains(PollFlags::PRI) {
                for point in mounts.changed()? {
                    pending.touch(Some(point));
                }
            } else if !table.is_empty() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            if !events.is_empty() {
                return Ok(());
            }
        }
    }

    fn handle(&self, event: &inotify::Event<'_>, pending: &Pending) {
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            pending.touch(None);
            return;
        }
        let mut paths = self.lock();
        let known = if event.events().contains(ReadFlags::IGNORED) {
            paths.remove(&event.wd())
        } else {
            paths.get(&event.wd()).cloned()
        };
        drop(paths);
        for path in known.into_iter().flatten() {
            pending.touch(Some(match event.file_name() {
                Some(name) => path.join(OsStr::from_bytes(name.to_bytes())),
                None => PathBuf::from(&*path),
            }));
        }
    }
}
