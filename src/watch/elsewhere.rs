//! Where there is no inotify, everything is polled.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::pending::Pending;

/// Cannot be had.
pub(super) struct Inotify(Infallible);

impl Inotify {
    pub(super) fn start(_pending: Arc<Pending>) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn add(&self, _path: &Arc<Path>, _before: Option<i32>) -> io::Result<i32> {
        match self.0 {}
    }

    pub(super) fn remove(&self, _path: &Path, _watch: i32) {
        match self.0 {}
    }
}
