//! The users of an htpasswd file, and who of them was seen lately.
//!
//! The file is read by the control plane. What cannot be read leaves the users as they were; a line
//! that cannot be used keeps out nobody but its own user. Whoever is let in is remembered by a keyed
//! hash of what was sent, until the file changes: to hash a password costs as much as a thousand
//! requests, on purpose.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};

use super::secret::Secret;
use crate::tls::file::{self, Fault};

/// The largest file: some tens of thousands of users.
const LARGEST: usize = 4 << 20;

/// Faults of single lines that are told.
const TOLD: usize = 10;

const HELP: &str = "write it with `htpasswd -B FILE NAME`";

/// What stands for credentials, to compare with those of before.
type Tag = [u8; 32];

/// The users of one file, as they are now.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    key: Key,
    /// `None`: the file could never be read.
    list: ArcSwapOption<List>,
    faults: ArcSwap<Vec<Fault>>,
    looked: Mutex<Look>,
}

/// A key that lives as long as its users. It is never shown.
struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// How a file looked when it was read last; `None`: it was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look(Option<[i128; 7]>);

impl Look {
    fn at(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok().map(|about| {
            [
                about.dev().into(),
                about.ino().into(),
                about.size().into(),
                about.mtime().into(),
                about.mtime_nsec().into(),
                about.ctime().into(),
                about.ctime_nsec().into(),
            ]
        }))
    }
}

/// All users of a file at one time.
#[derive(Debug, Default)]
pub(super) struct List {
    users: HashMap<Box<[u8]>, User>,
    /// Their names.
    names: Vec<Box<[u8]>>,
}

#[derive(Debug)]
struct User {
    secret: Secret,
    /// What this user was let in with last.
    seen: ArcSwapOption<Tag>,
}

impl Users {
    /// Reads them for the first time. Blocks.
    pub fn read(path: &Path) -> Self {
        let mut bytes = [0; 32];
        if rand::fill(&mut bytes).is_err() {
            // Nothing is remembered across processes, and no tag ever leaves this one.
            let keys = std::hash::RandomState::new();
            for (at, part) in bytes.chunks_mut(8).enumerate() {
                part.copy_from_slice(&std::hash::BuildHasher::hash_one(&keys, at).to_le_bytes());
            }
        }
        let users = Self {
            path: path.to_owned(),
            key: Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
            list: ArcSwapOption::empty(),
            faults: ArcSwap::default(),
            looked: Mutex::new(Look::at(path)),
        };
        users.take(file::read);
        users
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it.
    pub fn faults(&self) -> Arc<Vec<Fault>> {
        self.faults.load_full()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.load().as_ref().map_or(0, |list| list.names.len())
    }

    /// Reads the file again where it is another than before; whether it was. Blocks.
    pub fn look(&self) -> bool {
        let now = Look::at(&self.path);
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if *looked == now {
            return false;
        }
        *looked = now;
        self.take(file::read_still);
        true
    }

    fn take(&self, read: file::Read) {
        let faults = match self.content(read).and_then(|content| self.parse(&content)) {
            Ok((list, faults)) => {
                self.list.store(Some(Arc::new(list)));
                faults
            }
            Err(fault) => vec![fault],
        };
        self.faults.store(Arc::new(faults));
    }

    fn content(&self, read: file::Read) -> Result<Vec<u8>, Fault> {
        let mut read = read(std::slice::from_ref(&self.path))?;
        let (_, content) = read.pop().unwrap_or_default();
        match content.len() {
            0..=LARGEST => Ok(content),
            _ => {
                let what = format!("it is larger than {LARGEST} bytes");
                Err(Fault::new(&self.path, what, HELP))
            }
        }
    }

    /// The users that can be used, and what is wrong with the other lines. A file of which not one
    /// line can be used is something else, or cut.
    fn parse(&self, content: &[u8]) -> Result<(List, Vec<Fault>), Fault> {
        let (mut list, mut faults) = (List::default(), Vec::new());
        for (number, line) in (1_usize..).zip(content.split(|byte| *byte == b'\n')) {
            let line = line.trim_ascii_end();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            match user(line) {
                // The first of a name is the one, as everywhere.
                Ok((name, _)) if list.users.contains_key(name) => {}
                Ok((name, user)) => {
                    list.users.insert(name.into(), user);
                    list.names.push(name.into());
                }
                Err(why) if faults.len() < TOLD => {
                    let what = format!("line {number} is not used");
                    faults.push(Fault::new(&self.path, what, why));
                }
                Err(_) => {}
            }
        }
        if list.names.is_empty()
            && let Some(fault) = faults.pop()
        {
            return Err(fault);
        }
        Ok((list, faults))
    }

    /// All of them now.
    pub(super) fn list(&self) -> Option<Arc<List>> {
        self.list.load_full()
    }

    /// What stands for this text.
    pub(super) fn tag(&self, text: &[u8]) -> Tag {
        let mut tag = Tag::default();
        tag.copy_from_slice(hmac::sign(&self.key.0, text).as_ref());
        tag
    }

    /// Somebody who stands for a name that nobody has: always the same one.
    pub(super) fn double(&self, name: &[u8]) -> usize {
        let tag = self.tag(name);
        (tag.iter().take(7)).fold(0, |all, byte| all << 8 | usize::from(*byte))
    }
}

fn user(line: &[u8]) -> Result<(&[u8], User), String> {
    let malformed = || format!("it has no name and hash, as in `name:$2y$…`; {HELP}");
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, rest) = line.split_at(colon.filter(|at| *at > 0).ok_or_else(malformed)?);
    // A remark may follow the hash.
    let hash = rest[1..].split(|byte| *byte == b':').next();
    let hash = hash.and_then(|hash| std::str::from_utf8(hash).ok());
    let secret = Secret::parse(hash.ok_or_else(malformed)?).map_err(|why| why.to_string())?;
    let seen = ArcSwapOption::empty();
    Ok((name, User { secret, seen }))
}

impl List {
    /// Whether this user was let in with the same credentials before.
    pub fn remembers(&self, name: &[u8], tag: &Tag) -> bool {
        let seen = self.users.get(name).map(|user| user.seen.load());
        let same = |seen: &Arc<Tag>| verify_slices_are_equal(&seen[..], tag).is_ok();
        seen.is_some_and(|seen| seen.as_ref().is_some_and(same))
    }

    /// Whether this is the user's password. Blocks for as long as hashing it takes; so it does where
    /// there is no such user, by the hash of the `double`.
    pub fn check(&self, name: &[u8], password: &[u8], tag: Tag, double: usize) -> bool {
        if self.remembers(name, &tag) {
            // Others with the same came first.
            return true;
        }
        let Some(user) = self.users.get(name) else {
            let others = self.names.len().max(1);
            let other = self.names.get(double % others);
            if let Some(other) = other.and_then(|name| self.users.get(name)) {
                std::hint::black_box(other.secret.is(password));
            }
            return false;
        };
        let right = user.secret.is(password);
        if right {
            user.seen.store(Some(Arc::new(tag)));
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "alice:$1$abcd$Oy8OD9LGKv7H9yIMreLNV1";

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn lets_in(users: &Users, name: &str, password: &str) -> bool {
        let (name, tag) = (name.as_bytes(), users.tag(password.as_bytes()));
        let list = users.list().unwrap();
        list.check(name, password.as_bytes(), tag, users.double(name))
    }

    #[test]
    fn a_line_that_cannot_be_used_keeps_out_its_own_user_alone() {
        let (_folder, path) = file(&format!(
            "# people\r\n\r\nbob:plain\n{ALICE}:a remark\r\ncarol\n:x\nalice:$1$ab$x\n\
             dave:{{SHA}}6dcfXufJLW3J6S/9rRe4vUlBj5g=\n"
        ));
        let users = Users::read(&path);
        assert_eq!(users.count(), 1);
        assert!(lets_in(&users, "alice", "secret"));
        for (name, password) in [
            ("alice", "Secret"),
            ("bob", "plain"),
            ("carol", ""),
            ("", "x"),
            ("dave", "b"),
            ("nobody", "secret"),
        ] {
            assert!(!lets_in(&users, name, password), "{name}");
        }
        let faults: Vec<_> = users.faults().iter().map(ToString::to_string).collect();
        for (fault, words) in faults.iter().zip(["line 3", "line 5", "line 6", "line 7"]) {
            assert!(
                fault.contains(words) && !fault.contains("plain\n"),
                "{fault}"
            );
        }
        assert!(faults[4].contains("no salt"), "{faults:?}");
        let all = format!("{users:?}");
        assert!(!all.contains("Oy8OD9"), "{all}");
    }

    #[test]
    fn what_is_broken_changes_nothing_and_what_is_empty_lets_nobody_in() {
        let (_folder, path) = file(ALICE);
        let users = Users::read(&path);
        assert!(!users.look());
        for content in ["garbage\n", "bob:plain\n", "\u{0}\u{1}"] {
            std::fs::write(&path, content).unwrap();
            assert!(users.look());
            assert_eq!((users.count(), users.faults().len()), (1, 1), "{content:?}");
            assert!(lets_in(&users, "alice", "secret"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(users.look() && !users.look());
        assert!(users.faults()[0].to_string().contains("users"));
        assert!(lets_in(&users, "alice", "secret"));
        // Whoever takes the last one out means it.
        std::fs::write(&path, "# nobody\n").unwrap();
        assert!(users.look());
        assert_eq!((users.count(), users.faults().len()), (0, 0));
        assert!(!lets_in(&users, "alice", "secret"));
    }

    #[test]
    fn who_was_let_in_is_remembered_until_the_file_changes() {
        let (_folder, path) = file(ALICE);
        let users = Users::read(&path);
        let list = users.list().unwrap();
        let tag = users.tag(b"secret");
        assert!(!list.remembers(b"alice", &tag));
        assert!(lets_in(&users, "alice", "secret"));
        assert!(list.remembers(b"alice", &tag));
        assert!(!list.remembers(b"bob", &tag));
        assert!(!lets_in(&users, "alice", "wrong"));
        assert!(
            list.remembers(b"alice", &tag),
            "a wrong one changes nothing"
        );
        assert!(!list.remembers(b"alice", &users.tag(b"wrong")));
        std::fs::write(&path, format!("{ALICE}\n")).unwrap();
        assert!(users.look());
        assert!(!users.list().unwrap().remembers(b"alice", &tag));
        let other = Users::read(&path);
        assert_ne!(other.tag(b"secret"), tag, "each has a key of its own");
    }
}
