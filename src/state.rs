//! The state directory: atomic writes, owner-only files.
//!
//! What lies here is a convenience for the next start. Nothing in it is believed unseen, and
//! nothing that goes wrong with it stops anything else.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Owner-only, since it holds private keys.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What a file that is being written is called until it is whole.
const UNFINISHED: &str = ".unfinished";

/// A folder of ours. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: Arc<Path>,
    unique: Arc<AtomicU64>,
}

impl StateDir {
    /// The folder at this path, made if need be, and closed to others.
    ///
    /// # Errors
    /// When it cannot be made or closed.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)?;
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE)).map_err(|error| {
                let what = "others may read it or write to it, and it belongs to another user: \
                            name a folder in it, which staunch makes";
                io::Error::new(error.kind(), format!("{what}: {error}"))
            })?;
        }
        Ok(Self {
            path: Arc::from(path),
            unique: Arc::default(),
        })
    }

    /// The folder at this path as it is, for those who only read. It need not be there.
    pub fn existing(path: &Path) -> Self {
        Self {
            path: Arc::from(path),
            unique: Arc::default(),
        }
    }

    /// A folder in this one.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn folder(&self, name: &str) -> io::Result<Self> {
        Self::open(&self.path.join(name))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a file of this name is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file whole or not at all: after a crash there is the old one or the new one.
    ///
    /// # Errors
    /// When it cannot be written; what was there before is there still.
    pub fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let number = self.unique.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let unfinished = self.file(&format!("{name}.{process}.{number}{UNFINISHED}"));
        let written = Self::write_new(&unfinished, parts)
            .and_then(|()| fs::rename(&unfinished, self.file(name)))
            .and_then(|()| self.sync());
        if written.is_err() {
            // It may not be there at all.
            let _gone = fs::remove_file(&unfinished);
        }
        written
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// When it cannot be read or is longer.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.file(name))?
            .take(limit + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    /// Removes a file; one that is not there is as good as removed.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A file to append to.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn append(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(FILE_MODE)
            .open(self.file(name))
    }

    /// The names of the files in it that are whole.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = self.all_names()?;
        names.retain(|name| !name.ends_with(UNFINISHED));
        names.sort_unstable();
        Ok(names)
    }

    /// Removes what a crash left unfinished.
    ///
    /// # Errors
    /// When it cannot be listed, or something cannot be removed.
    pub fn tidy(&self) -> io::Result<()> {
        let names = self.all_names()?;
        let mut unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED));
        unfinished.try_for_each(|name| self.remove(name))
    }

    fn all_names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        // A name that is no text is none of ours.
        let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()
    }

    /// Makes renames and removals last.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_the_owners_and_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let state = StateDir::open(&path).unwrap();
        state.write("x", &[b"one ", b"two"]).unwrap();
        assert_eq!(state.read("x", 100).unwrap(), b"one two");
        assert_eq!(
            state.read("x", 3).unwrap_err().kind(),
            io::ErrorKind::FileTooLarge
        );
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&state.file("x")), 0o600);
        state.append("log").unwrap();
        assert_eq!(mode(&state.file("log")), 0o600);
    }

    #[test]
    fn a_folder_open_to_others_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        StateDir::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn what_a_crash_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.write("x", &[b"1"]).unwrap();
        fs::write(state.file("y.1.1.unfinished"), "half").unwrap();
        assert_eq!(state.names().unwrap(), ["x"]);
        state.tidy().unwrap();
        assert!(!state.file("y.1.1.unfinished").exists());
        state.remove("x").unwrap();
        state.remove("x").unwrap();
        assert!(state.names().unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(StateDir::open(&dir.path().join("file/state")).is_err());
    }
}
