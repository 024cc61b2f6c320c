//! Files that TLS goes by, read within bounds and only when they stand still.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A revocation list of a large authority has some ten million bytes.
const LARGEST: u64 = 64 << 20;

/// How long files must not change to be believed whole, and how often that is waited for.
const STILL: Duration = Duration::from_millis(40);
const LOOKS: usize = 25;

const NO_FILE: &str = "it is a device, a pipe or a socket";

/// What is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}; {help}", path.display())]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Fault {
    /// In these words.
    pub fn new(path: &Path, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
            help: help.into(),
        }
    }
}

/// A file and what is in it.
pub type Content = (PathBuf, Vec<u8>);

/// One of the ways to read: [`read`] or [`read_still`].
pub type Read = fn(&[PathBuf]) -> Result<Vec<Content>, Fault>;

/// Reads all of these files, again until two looks show the same: whoever writes one in place must
/// not be caught in the middle.
pub fn read_still(paths: &[PathBuf]) -> Result<Vec<Content>, Fault> {
    let mut last = read(paths);
    for _ in 0..LOOKS {
        std::thread::sleep(STILL);
        let again = read(paths);
        if again == last {
            break;
        }
        last = again;
    }
    last
}

/// Reads all of these files.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Content>, Fault> {
    paths
        .iter()
        .map(|path| match read_one(path, LARGEST) {
            Ok(bytes) => Ok((path.clone(), bytes)),
            Err(error) => Err(in_words(path, &error)),
        })
        .collect()
}

/// Reads a file of so many bytes at most.
///
/// # Errors
/// Those of the system; [`ErrorKind::FileTooLarge`]; [`ErrorKind::InvalidInput`] of what is no file.
pub fn read_one(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Without waiting, so that a pipe that nobody writes to is found out.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !about.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, NO_FILE));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let message = format!("it is larger than {most} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

fn in_words(path: &Path, error: &io::Error) -> Fault {
    let (what, help) = match error.kind() {
        ErrorKind::NotFound => ("there is no such file".to_owned(), "check the path"),
        ErrorKind::PermissionDenied => (
            format!(
                "user {} may not read it",
                rustix::process::geteuid().as_raw()
            ),
            "see which part of the path forbids it with namei -l; give the right with chgrp and chmod g+r",
        ),
        ErrorKind::IsADirectory => (
            "it is a folder".to_owned(),
            "name the files in it, one by one",
        ),
        ErrorKind::InvalidInput => (NO_FILE.to_owned(), "name a file"),
        ErrorKind::FileTooLarge => (
            format!("it is larger than {} MiB", LARGEST >> 20),
            "see what it is",
        ),
        _ => (format!("reading it failed: {error}"), "see why"),
    };
    Fault::new(path, what, help)
}
