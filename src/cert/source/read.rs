//! Reading a source's files: bounded, without ever waiting for one, and twice if they move.

use std::collections::HashSet;
use std::fs::{File as Handle, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Source;
use crate::cert::Rejection;
use crate::cert::load::{File, Input, MAX_BYTES, rejection_for_io};
use crate::watch::Mount;

/// How often files that change under the reader are read at once, before it says so.
const ATTEMPTS: usize = 3;

/// What a source's files hold, each as a number that changes when its content does. An error is
/// content too: the same one twice is no news.
///
/// 64 bits keyed at random suffice: whoever could find a collision may write the files anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Of the chain.
    pub chain: u64,
    /// Of the key; the chain's again for a bundle.
    pub key: u64,
    /// Of the staple.
    pub ocsp: u64,
}

/// Which files hold that: changes when one is replaced or written, be it with what it held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writings {
    /// The chain's.
    pub chain: u64,
    /// The key's; the chain's again for a bundle.
    pub key: u64,
}

/// A source as it was read.
#[derive(Debug)]
pub struct Reading {
    /// What was read, or why it could not be.
    pub input: Result<Input, Rejection>,
    /// Its content in three numbers.
    pub parts: Parts,
    /// Which files those are.
    pub writings: Writings,
    /// What the file system says of the files: changes when they are touched.
    pub stamp: u64,
    /// The files changed while they were read: read them again in a moment.
    pub moving: bool,
    /// A path is a bind-mounted file whose host copy was replaced.
    pub pinned: bool,
}

/// Reads sources. Numbers are comparable only between readings of one reader.
#[derive(Debug, Default)]
pub struct Reader {
    hasher: RandomState,
    /// Mount points whose mounted file was deleted.
    deleted: HashSet<PathBuf>,
}

impl Reader {
    /// A reader that knows the mounts of this moment.
    pub fn new() -> Self {
        let mut reader = Self::default();
        reader.look_at_mounts();
        reader
    }

    /// Looks again which mounted files were deleted behind their mounts.
    pub fn look_at_mounts(&mut self) {
        let mounts = Mount::all().unwrap_or_default().into_iter();
        let deleted = mounts.filter(|mount| mount.is_deleted);
        self.deleted = deleted.map(|mount| mount.point).collect();
    }

    /// What the file system says of a source's files, and of what is mounted there, without reading
    /// them.
    pub fn stamp(&self, source: &Source) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for path in source.paths() {
            match std::fs::metadata(&path) {
                Ok(meta) => (stamp(&meta), self.deleted.contains(&path)).hash(&mut hasher),
                Err(error) => error.raw_os_error().hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// Reads all of a source's files.
    pub fn read(&self, source: &Source) -> Reading {
        let mut before = self.stamp(source);
        let mut attempt = 1;
        loop {
            let mut reading = self.read_once(source);
            reading.stamp = self.stamp(source);
            reading.moving = reading.stamp != before;
            if !reading.moving || attempt == ATTEMPTS {
                return reading;
            }
            before = reading.stamp;
            attempt += 1;
        }
    }

    fn read_once(&self, source: &Source) -> Reading {
        let chain = self.file(&source.files.chain);
        let key = source.files.key.as_deref().map(|key| self.file(key));
        let ocsp = self.file(&source.ocsp_path());
        let pinned = chain.pinned || key.as_ref().is_some_and(|key| key.pinned);
        let parts = Parts {
            chain: chain.number,
            key: key.as_ref().map_or(chain.number, |key| key.number),
            ocsp: ocsp.number,
        };
        let writings = Writings {
            chain: chain.writing,
            key: key.as_ref().map_or(chain.writing, |key| key.writing),
        };
        let input = chain.content.and_then(|chain| {
            Ok(Input {
                chain,
                key: key.map(|key| key.content).transpose()?,
                // A staple that cannot be read is a staple that is not there.
                ocsp: ocsp.content.ok(),
            })
        });
        Reading {
            input,
            parts,
            writings,
            stamp: 0,
            moving: false,
            pinned,
        }
    }

    fn file(&self, path: &Path) -> Content {
        match read_bounded(path) {
            Ok((bytes, meta)) => Content {
                number: self.hasher.hash_one(&bytes),
                writing: (self.hasher).hash_one((meta.ino(), meta.mtime(), meta.mtime_nsec())),
                pinned: meta.nlink() == 0 && is_still(path, &meta) || self.deleted.contains(path),
                content: Ok(File {
                    path: path.to_owned(),
                    bytes,
                }),
            },
            Err(error) => Content {
                number: self.hasher.hash_one((error.kind(), error.raw_os_error())),
                writing: 0,
                pinned: false,
                content: Err(rejection_for_io(path, &error)),
            },
        }
    }
}

/// One file as it was read.
struct Content {
    content: Result<File, Rejection>,
    number: u64,
    writing: u64,
    pinned: bool,
}

/// All of a file, which must be one, and of bounded length.
fn read_bounded(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    // Looked at first: opening a device may have effects, and opening a pipe is seen by its writer.
    must_be_file(&std::fs::metadata(path)?)?;
    let handle = open(path)?;
    let meta = handle.metadata()?;
    must_be_file(&meta)?;
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).map_or(0, |len| len + 1));
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    handle.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok((bytes, meta))
}

/// Opens without waiting, should it have become a pipe in between.
pub(in crate::cert::source) fn open(path: &Path) -> io::Result<Handle> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or_default())
        .open(path)
}

fn must_be_file(meta: &Metadata) -> io::Result<()> {
    if meta.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !meta.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    if meta.len() > u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

fn stamp(meta: &Metadata) -> impl Hash + use<> {
    (
        (meta.dev(), meta.ino(), meta.size(), meta.mode()),
        (meta.mtime(), meta.mtime_nsec()),
        (meta.ctime(), meta.ctime_nsec()),
    )
}

/// Whether the path still leads to this file. A file without any name that a path leads to is one
/// that is mounted there.
fn is_still(path: &Path, meta: &Metadata) -> bool {
    std::fs::metadata(path).is_ok_and(|now| now.ino() == meta.ino() && now.dev() == meta.dev())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::cert::Reason;
    use crate::cert::source::Files;

    fn source(chain: &Path, key: Option<&Path>) -> Source {
        Source {
            files: Files {
                chain: chain.to_owned(),
                key: key.map(Path::to_owned),
            },
            label: Arc::from("x"),
            shown: [String::from("x")].into(),
            ocsp: None,
            folder: None,
            order: 0,
            accept_worse: false,
            keep: true,
            routine: false,
        }
    }

    fn reason(path: &Path) -> Reason {
        Reader::new()
            .read(&source(path, None))
            .input
            .unwrap_err()
            .reason
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert_eq!(reason(&pipe), Reason::Unreadable);
        assert_eq!(reason(dir.path()), Reason::Unreadable);
        assert_eq!(reason(Path::new("/dev/zero")), Reason::Unreadable);
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(reason(&socket), Reason::Unreadable);
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert_eq!(reason(&dir.path().join("a")), Reason::Unreadable);
        assert_eq!(reason(&dir.path().join("no")), Reason::Missing);
        symlink("no", dir.path().join("dangling")).unwrap();
        assert_eq!(reason(&dir.path().join("dangling")), Reason::Missing);
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert_eq!(reason(&path), Reason::Unreadable);
    }

    #[test]
    fn equal_content_has_equal_numbers_and_a_touch_changes_the_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("c"), dir.path().join("k"));
        fs::write(&chain, "chain").unwrap();
        fs::write(&key, "key").unwrap();
        let reader = Reader::new();
        let source = source(&chain, Some(&key));
        let first = reader.read(&source);
        assert!(!first.moving && !first.pinned);
        fs::write(dir.path().join("c2"), "chain").unwrap();
        fs::rename(dir.path().join("c2"), &chain).unwrap();
        let second = reader.read(&source);
        assert_eq!(first.parts, second.parts);
        assert_ne!(first.stamp, second.stamp);
        fs::write(&key, "other").unwrap();
        let third = reader.read(&source);
        assert_eq!(first.parts.chain, third.parts.chain);
        assert_ne!(first.parts.key, third.parts.key);
    }

    #[test]
    fn a_staple_lies_beside_the_chain() {
        let dir = tempfile::tempdir().unwrap();
        let chain = dir.path().join("c.pem");
        fs::write(&chain, "chain").unwrap();
        let reader = Reader::new();
        let source = source(&chain, None);
        assert_eq!(reader.read(&source).input.unwrap().ocsp, None);
        fs::write(dir.path().join("c.pem.ocsp"), "staple").unwrap();
        let input = reader.read(&source).input.unwrap();
        assert_eq!(input.ocsp.unwrap().bytes, b"staple");
    }
}
