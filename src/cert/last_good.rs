//! The last good certificates, kept across restarts.
//!
//! Whenever a certificate is taken from disk, a copy goes to the state directory, so that a restart
//! while the disk holds something broken, or nothing, still serves. A copy is believed no more than
//! the disk: it goes through the same [`load`](super::load) before it is held.
//!
//! One file holds one certificate: a line of JSON, then chain and key as they were. Its name tells
//! the source, the order, and the fingerprint, so that one listing tells what is there.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::load::{File, Input, MAX_BYTES};
use super::source::{Files, Source};
use super::{Fingerprint, x509};
use crate::state::StateDir;

/// Copies kept of each source.
pub const GENERATIONS: usize = 3;

/// The folder in the state directory.
const FOLDER: &str = "last-good";

const EXTENSION: &str = ".certificate";

/// Copies of certificates, by source.
#[derive(Debug)]
pub struct LastGood {
    dir: StateDir,
    index: Mutex<HashMap<String, Vec<Generation>>>,
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// What it is.
    pub fingerprint: Fingerprint,
    number: u64,
    name: String,
}

/// What a copy says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct Header {
    /// Where it came from.
    #[serde(flatten)]
    pub files: Files,
    /// The searched folder in which that was found.
    pub folder: Option<PathBuf>,
    chain_bytes: usize,
    key_bytes: Option<usize>,
}

impl LastGood {
    /// The copies in a state directory.
    ///
    /// # Errors
    /// When they cannot be listed. A file that is none of ours is no error, and is left alone.
    pub fn open(state: &StateDir) -> io::Result<Self> {
        let dir = state.folder(FOLDER)?;
        dir.tidy()?;
        Self::list(dir)
    }

    /// The copies in the state directory at this path, to be read only.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn peek(state: &Path) -> io::Result<Self> {
        Self::list(StateDir::existing(&state.join(FOLDER)))
    }

    fn list(dir: StateDir) -> io::Result<Self> {
        let mut index: HashMap<_, Vec<_>> = HashMap::new();
        for name in dir.names()? {
            match Generation::parse(&name) {
                Some((source, generation)) => index.entry(source).or_default().push(generation),
                None => warn!(file = %dir.file(&name).display(), "not a kept certificate: ignored"),
            }
        }
        for generations in index.values_mut() {
            generations.sort_by_key(|generation| std::cmp::Reverse(generation.number));
        }
        Ok(Self {
            dir,
            index: Mutex::new(index),
        })
    }

    /// The copies of a source, the latest first.
    pub fn generations(&self, files: &Files) -> Vec<Generation> {
        let index = self.lock();
        index.get(&identity(files)).cloned().unwrap_or_default()
    }

    /// What copies there are of sources that are not `known`: the latest header of each.
    pub fn strangers<'a>(&self, known: impl Iterator<Item = &'a Files>) -> Vec<Header> {
        let known: HashSet<_> = known.map(identity).collect();
        let latest: Vec<_> = self
            .lock()
            .iter()
            .filter(|(source, _)| !known.contains(*source))
            .filter_map(|(_, generations)| generations.first().cloned())
            .collect();
        let headers = latest.iter().filter_map(|generation| {
            let read = self.read_file(generation).map(|(header, _)| header);
            read.inspect_err(|error| self.ignore(generation, error))
                .ok()
        });
        headers.collect()
    }

    /// Reads a copy, to be verified. One that cannot be read is logged and ignored.
    pub fn read(&self, generation: &Generation) -> Option<Input> {
        let read = self.read_file(generation).and_then(|(header, content)| {
            let (chain, rest) = split(&content, header.chain_bytes)?;
            let key = match (header.files.key, header.key_bytes) {
                (Some(path), Some(length)) => {
                    let (bytes, _) = split(rest, length)?;
                    let bytes = bytes.to_vec();
                    Some(File { path, bytes })
                }
                _ => None,
            };
            Ok(Input {
                chain: File {
                    path: header.files.chain,
                    bytes: chain.to_vec(),
                },
                key,
                ocsp: None,
            })
        });
        read.inspect_err(|error| self.ignore(generation, error))
            .ok()
    }

    /// Keeps a copy, and lets go of the oldest where there are too many.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, source: &Source, input: &Input, is: Fingerprint) -> io::Result<()> {
        let identity = identity(&source.files);
        let before = self.generations(&source.files);
        if before
            .first()
            .is_some_and(|latest| latest.fingerprint == is)
        {
            return Ok(());
        }
        let number = before.first().map_or(1, |latest| latest.number + 1);
        let generation = Generation::new(&identity, number, is);
        let header = Header {
            files: source.files.clone(),
            folder: source.folder.as_deref().map(PathBuf::from),
            chain_bytes: input.chain.bytes.len(),
            key_bytes: input.key.as_ref().map(|key| key.bytes.len()),
        };
        let header = serde_json::to_vec(&header)?;
        let key = input.key.as_ref().map_or(&[][..], |key| &key.bytes);
        let parts = [&header[..], b"\n", &input.chain.bytes, key];
        self.dir.write(&generation.name, &parts)?;
        let mut generations = vec![generation];
        // An earlier copy of the same certificate says nothing that this one does not.
        let (same, others): (Vec<_>, Vec<_>) = before
            .into_iter()
            .partition(|other| other.fingerprint == is);
        generations.extend(others);
        let mut surplus = generations.split_off(generations.len().min(GENERATIONS));
        surplus.extend(same);
        self.lock().insert(identity, generations);
        surplus
            .iter()
            .try_for_each(|generation| self.dir.remove(&generation.name))
    }

    /// Removes every copy of a source.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn forget(&self, files: &Files) -> io::Result<()> {
        let generations = self.lock().remove(&identity(files));
        generations
            .into_iter()
            .flatten()
            .try_for_each(|generation| self.dir.remove(&generation.name))
    }

    fn read_file(&self, generation: &Generation) -> io::Result<(Header, Vec<u8>)> {
        let limit = 2 * MAX_BYTES as u64 + 64 * 1024;
        let bytes = self.dir.read(&generation.name, limit)?;
        let end = memchr::memchr(b'\n', &bytes).ok_or(ErrorKind::UnexpectedEof)?;
        let header = serde_json::from_slice(&bytes[..end])?;
        Ok((header, bytes[end + 1..].to_vec()))
    }

    fn ignore(&self, generation: &Generation, error: &io::Error) {
        let file = self.dir.file(&generation.name);
        warn!(file = %file.display(), %error, "a kept certificate is damaged: ignored");
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Generation>>> {
        // Nothing between lock and unlock can leave it half changed.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generation {
    fn new(identity: &str, number: u64, fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            number,
            name: format!("{identity}.{number:010}.{fingerprint}{EXTENSION}"),
        }
    }

    fn parse(name: &str) -> Option<(String, Self)> {
        let mut fields = name.strip_suffix(EXTENSION)?.split('.');
        let (identity, number, fingerprint) = (fields.next()?, fields.next()?, fields.next()?);
        let is_whole = fields.next().is_none() && identity.len() == 32;
        let generation = Self {
            fingerprint: parse_fingerprint(fingerprint)?,
            number: number.parse().ok()?,
            name: name.to_owned(),
        };
        is_whole.then(|| (identity.to_owned(), generation))
    }
}

fn parse_fingerprint(text: &str) -> Option<Fingerprint> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(Fingerprint(bytes))
}

/// What a source is called in a file name, however long or odd its paths are.
fn identity(files: &Files) -> String {
    let chain = files.chain.as_os_str().as_encoded_bytes();
    let key = files.key.as_deref().map(|key| key.as_os_str());
    let key = key.map_or(&[][..], |key| key.as_encoded_bytes());
    let mut text = x509::sha256(&[chain, b"\0", key].concat()).to_string();
    text.truncate(32);
    text
}

fn split(bytes: &[u8], at: usize) -> io::Result<(&[u8], &[u8])> {
    bytes
        .split_at_checked(at)
        .ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn source(chain: &str) -> Source {
        Source {
            files: Files {
                chain: chain.into(),
                key: Some("/k".into()),
            },
            label: chain.into(),
            shown: [chain.into(), "/k".into()].into(),
            ocsp: None,
            folder: Some(Arc::from(PathBuf::from("/f"))),
            order: 0,
            accept_worse: false,
            keep: true,
            routine: false,
        }
    }

    fn input(text: &str) -> Input {
        let file = |path: &str| File {
            path: path.into(),
            bytes: text.as_bytes().to_vec(),
        };
        Input {
            chain: file("/c"),
            key: Some(file("/k")),
            ocsp: None,
        }
    }

    const fn print(n: u8) -> Fingerprint {
        Fingerprint([n; 32])
    }

    #[test]
    fn copies_are_found_again_the_latest_first_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let last_good = LastGood::open(&state).unwrap();
        let source = source("/c");
        for n in 0..5 {
            let input = input(&format!("{n}"));
            last_good.save(&source, &input, print(n)).unwrap();
            last_good.save(&source, &input, print(n)).unwrap();
        }
        let again = LastGood::open(&state).unwrap();
        let generations = again.generations(&source.files);
        assert_eq!(generations, last_good.generations(&source.files));
        let prints: Vec<_> = generations.iter().map(|g| g.fingerprint).collect();
        assert_eq!(prints, [print(4), print(3), print(2)]);
        assert_eq!(again.read(&generations[0]), Some(input("4")));
        let strangers = again.strangers(std::iter::empty());
        assert_eq!(strangers[0].files, source.files);
        assert_eq!(strangers[0].folder, Some("/f".into()));
        let known = [&source.files];
        assert!(again.strangers(known.into_iter()).is_empty());
        again.forget(&source.files).unwrap();
        let names = state.folder(FOLDER).unwrap().names().unwrap();
        assert!(names.is_empty(), "{names:?}");
    }

    #[test]
    fn a_certificate_that_comes_back_is_one_copy() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let last_good = LastGood::open(&state).unwrap();
        let source = source("/c");
        for n in [1, 2, 1] {
            last_good.save(&source, &input("x"), print(n)).unwrap();
        }
        let prints: Vec<_> = LastGood::open(&state)
            .unwrap()
            .generations(&source.files)
            .into_iter()
            .map(|g| g.fingerprint)
            .collect();
        assert_eq!(prints, [print(1), print(2)]);
    }

    #[test]
    fn what_is_foreign_or_damaged_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let source = source("/c");
        let last_good = LastGood::open(&state).unwrap();
        last_good.save(&source, &input("x"), print(1)).unwrap();
        let name = last_good.generations(&source.files)[0].name.clone();
        let folder = state.folder(FOLDER).unwrap();
        for (foreign, content) in [
            ("README", "hello"),
            ("a.b.c.certificate", ""),
            ("x.certificate", ""),
        ] {
            folder.write(foreign, &[content.as_bytes()]).unwrap();
        }
        std::fs::create_dir(folder.file("folder")).unwrap();
        let whole = folder.read(&name, 10_000).unwrap();
        for length in 0..whole.len() {
            folder.write(&name, &[&whole[..length]]).unwrap();
            let again = LastGood::open(&state).unwrap();
            let generations = again.generations(&source.files);
            assert_eq!(again.read(&generations[0]), None, "{length}");
        }
    }
}
