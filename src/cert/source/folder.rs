//! Certificates in a searched folder, in the layouts that the usual programs leave behind.
//!
//! Each folder below is listed by itself, so that a change costs one listing, not a search: with
//! ten thousand certificates that is the difference between microseconds and a second.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Files, read};
use crate::cert::load::MAX_BYTES;

/// How deep below the configured folder a certificate may lie.
const DEPTH: usize = 8;

/// Entries of one folder that are looked at.
const ENTRIES: usize = 200_000;

/// Folders that are searched.
const FOLDERS: usize = 200_000;

/// File name extensions of certificates, and of keys beside them.
const CHAINS: [&[u8]; 4] = [b"pem", b"crt", b"cer", b"cert"];

/// Files found to be a certificate.
pub type Found = Files;

/// What a look at one folder found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Certificates that were not there.
    pub appeared: Vec<Found>,
    /// Certificates that are no longer there.
    pub vanished: Vec<Found>,
    /// Folders to be looked at next.
    pub below: Vec<PathBuf>,
    /// Folders that are gone.
    pub gone: Vec<PathBuf>,
}

/// A folder and all below it.
#[derive(Debug)]
pub struct Search {
    root: PathBuf,
    folders: HashMap<PathBuf, Listing>,
    /// Each folder once, whatever links lead to it.
    seen: HashMap<(u64, u64), PathBuf>,
    /// Folders that are there and cannot be listed, and the root if it is not there.
    problems: BTreeMap<PathBuf, (io::ErrorKind, String)>,
}

/// What one folder holds.
#[derive(Debug, Default)]
struct Listing {
    inode: (u64, u64),
    found: BTreeSet<Found>,
    below: BTreeSet<PathBuf>,
}

impl Search {
    /// A search that has not looked yet.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            folders: HashMap::new(),
            seen: HashMap::new(),
            problems: BTreeMap::new(),
        }
    }

    /// The configured folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folders that cannot be searched, and why.
    pub fn problems(&self) -> impl Iterator<Item = (&Path, io::Error)> {
        self.problems.iter().map(|(folder, (kind, text))| {
            let error = io::Error::new(*kind, text.clone());
            (folder.as_path(), error)
        })
    }

    /// Whether the configured folder itself cannot be searched, or holds nothing.
    pub fn is_lost(&self) -> bool {
        self.problems.contains_key(&self.root) || self.found().next().is_none()
    }

    /// Every certificate found.
    pub fn found(&self) -> impl Iterator<Item = &Found> {
        self.folders.values().flat_map(|listing| &listing.found)
    }

    /// Whether this is among what was found.
    pub fn holds(&self, files: &Found) -> bool {
        let listing = files.chain.parent().and_then(|at| self.folders.get(at));
        listing.is_some_and(|listing| listing.found.contains(files))
    }

    /// Every folder that was looked at.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.keys().map(PathBuf::as_path)
    }

    /// Looks at the whole of it. `arrive` is called for each folder before it is listed, so that
    /// nothing can change between the listing and a watch.
    pub fn look_everywhere(&mut self, mut arrive: impl FnMut(&Path)) -> Delta {
        let mut all = Delta::default();
        let known: Vec<_> = self.folders.keys().cloned().collect();
        let mut left = vec![self.root.clone()];
        left.extend(known);
        let mut done = BTreeSet::new();
        while let Some(folder) = left.pop() {
            if !done.insert(folder.clone()) {
                continue;
            }
            arrive(&folder);
            let delta = self.look(&folder);
            left.extend(delta.below);
            all.appeared.extend(delta.appeared);
            all.vanished.extend(delta.vanished);
            all.gone.extend(delta.gone);
        }
        all
    }

    /// Lists one folder again, and says what is different.
    pub fn look(&mut self, folder: &Path) -> Delta {
        if *folder != *self.root && !self.folders.contains_key(folder) && !self.is_below(folder) {
            return Delta::default();
        }
        let listed = list(folder);
        self.problems.remove(folder);
        if let Err(error) = &listed
            && (*folder == *self.root || !is_gone(error))
        {
            let problem = (error.kind(), error.to_string());
            self.problems.insert(folder.to_owned(), problem);
        }
        match listed {
            Ok((inode, entries)) => self.update(folder, inode, entries),
            Err(error) if is_gone(&error) => self.forget(folder),
            // It is there and cannot be listed now: nothing is known to have vanished.
            Err(_) => Delta::default(),
        }
    }

    /// The folder to look at again after an event on `path`, if one could matter.
    pub fn concerned_by(&self, path: &Path) -> Option<PathBuf> {
        if self.folders.contains_key(path) || *path == *self.root {
            // The folder itself is gone, or another has taken its place.
            return Some(path.to_owned());
        }
        let parent = path.parent()?;
        let listing = self.folders.get(parent)?;
        let name = path.file_name()?.as_bytes();
        if is_hidden(name) {
            return None;
        }
        let meta = fs::metadata(path);
        let is_known = |found: &Found| found.chain == *path || found.key.as_deref() == Some(path);
        let matters = if meta.as_ref().is_ok_and(Metadata::is_dir) {
            !listing.below.contains(path)
        } else if is_of_interest(name) {
            // The content of a file already known is its source's business.
            meta.is_err() || !listing.found.iter().any(is_known)
        } else {
            listing.below.contains(path)
        };
        matters.then(|| parent.to_owned())
    }

    fn is_below(&self, folder: &Path) -> bool {
        folder
            .parent()
            .and_then(|parent| self.folders.get(parent))
            .is_some_and(|listing| listing.below.contains(folder))
    }

    fn update(&mut self, folder: &Path, inode: (u64, u64), entries: Entries) -> Delta {
        if let Some(first) = self.seen.get(&inode)
            && *first != *folder
            && self.folders.contains_key(first)
        {
            return self.forget(folder);
        }
        let mut delta = Delta::default();
        let old = self.folders.remove(folder).unwrap_or_default();
        if old.inode != inode {
            self.seen.remove(&old.inode);
        }
        self.seen.insert(inode, folder.to_owned());
        let found: BTreeSet<_> = classify(folder, &entries.files, &old.found)
            .into_iter()
            .collect();
        let below: BTreeSet<_> = self.descend(folder, entries.folders);
        delta.appeared = found.difference(&old.found).cloned().collect();
        delta.vanished = old.found.difference(&found).cloned().collect();
        delta.below = below.difference(&old.below).cloned().collect();
        for gone in old.below.difference(&below) {
            let inner = self.forget(gone);
            delta.vanished.extend(inner.vanished);
            delta.gone.extend(inner.gone);
        }
        let listing = Listing {
            inode,
            found,
            below,
        };
        self.folders.insert(folder.to_owned(), listing);
        delta
    }

    /// Lets go of a folder and all below it.
    fn forget(&mut self, folder: &Path) -> Delta {
        let mut delta = Delta::default();
        let mut left = vec![folder.to_owned()];
        while let Some(folder) = left.pop() {
            if folder != self.root {
                self.problems.remove(&folder);
            }
            let Some(listing) = self.folders.remove(&folder) else {
                continue;
            };
            self.seen.remove(&listing.inode);
            delta.vanished.extend(listing.found);
            delta.gone.push(folder);
            left.extend(listing.below);
        }
        delta
    }

    fn descend(&self, folder: &Path, names: BTreeSet<Vec<u8>>) -> BTreeSet<PathBuf> {
        let depth = folder
            .strip_prefix(&self.root)
            .map_or(0, |below| below.components().count());
        if depth >= DEPTH || self.folders.len() >= FOLDERS {
            return BTreeSet::new();
        }
        let has_live = names.contains(b"live".as_slice());
        names
            .into_iter()
            // Certbot's old generations, which `live` links to.
            .filter(|name| !(has_live && name == b"archive"))
            .map(|name| folder.join(OsStr::from_bytes(&name)))
            .collect()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// A folder's entries, sorted out.
#[derive(Default)]
struct Entries {
    files: BTreeSet<Vec<u8>>,
    folders: BTreeSet<Vec<u8>>,
}

fn list(folder: &Path) -> io::Result<((u64, u64), Entries)> {
    let meta = fs::metadata(folder)?;
    let mut entries = Entries::default();
    for entry in fs::read_dir(folder)?.take(ENTRIES) {
        let entry = entry?;
        let name = entry.file_name().into_vec();
        if is_hidden(&name) {
            continue;
        }
        let mut kind = entry.file_type()?;
        if kind.is_symlink() {
            match fs::metadata(entry.path()) {
                Ok(target) => kind = target.file_type(),
                // A link to nothing: its file may come.
                Err(_) => {
                    entries.files.insert(name);
                    continue;
                }
            }
        }
        if kind.is_dir() {
            entries.folders.insert(name);
        } else if kind.is_file() {
            entries.files.insert(name);
        }
    }
    Ok(((meta.dev(), meta.ino()), entries))
}

/// Which of a folder's files are certificates. Those in `known` that are bundles stay so while the
/// file is there, whatever it holds at the moment.
fn classify(folder: &Path, files: &BTreeSet<Vec<u8>>, known: &BTreeSet<Found>) -> Vec<Found> {
    let mut sorter = Sorter {
        folder,
        files,
        used: BTreeSet::new(),
        found: Vec::new(),
    };
    sorter.full_chain();
    sorter.kubernetes();
    sorter.acme_sh();
    sorter.pairs();
    sorter.bundles(known);
    sorter.found
}

struct Sorter<'a> {
    folder: &'a Path,
    files: &'a BTreeSet<Vec<u8>>,
    used: BTreeSet<Vec<u8>>,
    found: Vec<Found>,
}

impl Sorter<'_> {
    /// `fullchain.pem` and `privkey.pem`: certbot and dehydrated; with `key.pem`, what acme.sh is
    /// often told to install. What lies beside them are parts and old generations of the same.
    fn full_chain(&mut self) {
        if !self.files.contains(b"fullchain.pem".as_slice()) {
            return;
        }
        let keys: [&[u8]; 3] = [b"privkey.pem", b"key.pem", b"private.pem"];
        let key = keys.into_iter().find(|key| self.files.contains(*key));
        self.pair(b"fullchain.pem", key.unwrap_or(keys[0]));
        let parts: [&[u8]; 5] = [b"cert", b"chain", b"fullchain", b"privkey", b"combined"];
        let beside = self.files.iter().filter(|name| {
            let stem = name.strip_suffix(b".pem").unwrap_or(name);
            let stem = stem.split(|byte| *byte == b'-').next().unwrap_or(stem);
            parts.contains(&stem)
        });
        self.used.extend(beside.cloned());
    }

    /// `tls.crt` and `tls.key`: a Kubernetes secret, cert-manager's among them.
    fn kubernetes(&mut self) {
        if self.files.contains(b"tls.crt".as_slice()) {
            self.pair(b"tls.crt", b"tls.key");
            self.used.insert(b"ca.crt".to_vec());
        }
    }

    /// `fullchain.cer` and `NAME.key` in `NAME` or `NAME_ecc`.
    fn acme_sh(&mut self) {
        if !self.files.contains(b"fullchain.cer".as_slice()) {
            return;
        }
        let name = self.folder.file_name().unwrap_or_default().as_bytes();
        let name = name.strip_suffix(b"_ecc").unwrap_or(name);
        let by_name = [name, b".key"].concat();
        let key = if self.files.contains(&by_name) {
            by_name
        } else {
            let mut keys = self.files.iter().filter(|file| file.ends_with(b".key"));
            match (keys.next(), keys.next()) {
                (Some(only), None) => only.clone(),
                _ => by_name,
            }
        };
        self.pair(b"fullchain.cer", &key);
        let parts = self.files.iter().filter(|file| file.ends_with(b".cer"));
        self.used.extend(parts.cloned());
    }

    /// A chain with a key beside it that is called after it: `NAME.crt` and `NAME.key` (lego,
    /// Caddy), `NAME.pem` and `NAME-key.pem` (mkcert), `NAME.pem` and `NAME.pem.key`.
    fn pairs(&mut self) {
        let mut stems = BTreeMap::new();
        for (rank, extension) in CHAINS.iter().enumerate() {
            for name in self.files.iter().filter(|name| !self.used.contains(*name)) {
                let Some(stem) = stem(name, extension) else {
                    continue;
                };
                if stem.ends_with(b".issuer") || stem.ends_with(b"-key") {
                    continue;
                }
                let keys = [
                    [stem, b".key"].concat(),
                    [name, b".key".as_slice()].concat(),
                    [stem, b"-key.pem"].concat(),
                    [stem, b"-key.", extension].concat(),
                ];
                let key = keys.into_iter().find(|key| self.files.contains(key));
                if let Some(key) = key {
                    // Where lego leaves a `.pem` with everything beside `.crt`, the parts are taken.
                    let rank = if *extension == b"pem" {
                        CHAINS.len()
                    } else {
                        rank
                    };
                    stems.entry(stem.to_vec()).or_insert_with(Vec::new).push((
                        rank,
                        name.clone(),
                        key,
                    ));
                }
            }
        }
        for mut choices in stems.into_values() {
            choices.sort();
            for (n, (_, chain, key)) in choices.into_iter().enumerate() {
                match n {
                    0 => self.pair(&chain, &key),
                    _ => drop(self.used.insert(chain)),
                }
            }
        }
        self.cert_and_key();
    }

    /// `cert.pem` and `key.pem`, or `privkey.pem`.
    fn cert_and_key(&mut self) {
        let chain: &[u8] = b"cert.pem";
        if !self.files.contains(chain) || self.used.contains(chain) {
            return;
        }
        let keys: [&[u8]; 2] = [b"key.pem", b"privkey.pem"];
        if let Some(key) = keys.into_iter().find(|key| self.files.contains(*key)) {
            self.pair(chain, key);
        }
    }

    /// Files that hold a chain and its key, as HAProxy wants them.
    fn bundles(&mut self, known: &BTreeSet<Found>) {
        let candidates: Vec<_> = self
            .files
            .iter()
            .filter(|name| !self.used.contains(*name))
            .filter(|name| {
                CHAINS
                    .iter()
                    .any(|extension| stem(name, extension).is_some())
            })
            .collect();
        for name in candidates {
            let bundle = Found {
                chain: self.folder.join(OsStr::from_bytes(name)),
                key: None,
            };
            if known.contains(&bundle) || holds_both(&bundle.chain) {
                self.found.push(bundle);
            }
        }
    }

    fn pair(&mut self, chain: &[u8], key: &[u8]) {
        self.used.insert(chain.to_vec());
        self.used.insert(key.to_vec());
        self.found.push(Found {
            chain: self.folder.join(OsStr::from_bytes(chain)),
            key: Some(self.folder.join(OsStr::from_bytes(key))),
        });
    }
}

/// A name without its extension, if it is this one.
fn stem<'a>(name: &'a [u8], extension: &[u8]) -> Option<&'a [u8]> {
    let stem = name.strip_suffix(extension)?.strip_suffix(b".")?;
    (!stem.is_empty()).then_some(stem)
}

/// Whether a file looks like one that holds a certificate and a key.
fn holds_both(path: &Path) -> bool {
    let is_file = fs::metadata(path).is_ok_and(|meta| {
        meta.is_file() && meta.len() <= u64::try_from(MAX_BYTES).unwrap_or(u64::MAX)
    });
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    is_file
        && read::open(path)
            .and_then(|handle| handle.take(limit).read_to_end(&mut bytes))
            .is_ok()
        && memchr::memmem::find(&bytes, b"PRIVATE KEY-----").is_some()
        && memchr::memmem::find(&bytes, b"CERTIFICATE-----").is_some()
}

/// Dot files, and among them the folders that Kubernetes' links lead to.
fn is_hidden(name: &[u8]) -> bool {
    name.first() == Some(&b'.')
}

fn is_of_interest(name: &[u8]) -> bool {
    stem(name, b"key").is_some()
        || CHAINS
            .iter()
            .any(|extension| stem(name, extension).is_some())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        search: Search,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let search = Search::new(&dir.path().join("root"));
            fs::create_dir(dir.path().join("root")).unwrap();
            Self { dir, search }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join("root").join(name)
        }

        fn write(&self, name: &str, content: &str) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }

        fn names(&self) -> Vec<String> {
            let root = self.path("");
            let relative = |path: &Path| {
                path.strip_prefix(&root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            };
            let mut names: Vec<_> = self
                .search
                .found()
                .map(|found| match &found.key {
                    Some(key) => format!("{} {}", relative(&found.chain), relative(key)),
                    None => relative(&found.chain),
                })
                .collect();
            names.sort();
            names
        }

        fn find(&mut self) -> Vec<String> {
            self.search.look_everywhere(|_| {});
            self.names()
        }
    }

    const BOTH: &str = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----";

    #[test]
    fn the_layouts_of_the_usual_programs_are_recognised() {
        type Case = (
            &'static str,
            &'static [&'static str],
            &'static [&'static str],
        );
        const CASES: &[Case] = &[
            (
                "certbot",
                &[
                    "README",
                    "archive/x/fullchain1.pem",
                    "archive/x/privkey1.pem",
                    "live/README",
                    "live/x/README",
                    "live/x/cert.pem",
                    "live/x/chain.pem",
                    "live/x/fullchain.pem",
                    "live/x/privkey.pem",
                ],
                &["live/x/fullchain.pem live/x/privkey.pem"],
            ),
            (
                "acme.sh",
                &[
                    "x_ecc/ca.cer",
                    "x_ecc/fullchain.cer",
                    "x_ecc/x.cer",
                    "x_ecc/x.conf",
                    "x_ecc/x.key",
                ],
                &["x_ecc/fullchain.cer x_ecc/x.key"],
            ),
            (
                "lego",
                &[
                    "_.x.crt",
                    "_.x.issuer.crt",
                    "_.x.json",
                    "_.x.key",
                    "y.crt",
                    "y.key",
                    "y.pem",
                ],
                &["_.x.crt _.x.key", "y.crt y.key"],
            ),
            (
                "dehydrated",
                &[
                    "x/cert-17.pem",
                    "x/cert.pem",
                    "x/fullchain-17.pem",
                    "x/fullchain.pem",
                    "x/privkey-17.pem",
                    "x/privkey.pem",
                ],
                &["x/fullchain.pem x/privkey.pem"],
            ),
            (
                "Kubernetes",
                &[
                    "x/ca.crt",
                    "x/tls.crt",
                    "x/tls.key",
                    "x/..2024/tls.crt",
                    "x/..2024/tls.key",
                ],
                &["x/tls.crt x/tls.key"],
            ),
            (
                "mkcert",
                &["x+1.pem", "x+1-key.pem", "rootCA.pem"],
                &["x+1.pem x+1-key.pem"],
            ),
            (
                "others",
                &[
                    "a.pem",
                    "a.key",
                    "b.cer",
                    "b.key",
                    "c/cert.pem",
                    "c/key.pem",
                    "d.pem",
                    "d.pem.key",
                ],
                &[
                    "a.pem a.key",
                    "b.cer b.key",
                    "c/cert.pem c/key.pem",
                    "d.pem d.pem.key",
                ],
            ),
            (
                "a key to come",
                &["x/fullchain.pem", "y/tls.crt"],
                &["x/fullchain.pem x/privkey.pem", "y/tls.crt y/tls.key"],
            ),
        ];
        for (program, files, expected) in CASES {
            let mut bench = Bench::new();
            for file in *files {
                bench.write(file, "-----BEGIN CERTIFICATE-----");
            }
            assert_eq!(bench.find(), *expected, "{program}");
        }
    }

    #[test]
    fn a_bundle_is_known_by_its_content_and_stays_one_while_it_is_written() {
        let mut bench = Bench::new();
        bench.write("shop.pem", BOTH);
        bench.write("ca.pem", "-----BEGIN CERTIFICATE-----");
        assert_eq!(bench.find(), ["shop.pem"]);
        bench.write("shop.pem", "");
        assert_eq!(bench.find(), ["shop.pem"]);
        fs::remove_file(bench.path("shop.pem")).unwrap();
        assert!(bench.find().is_empty());
    }

    #[test]
    fn a_loop_of_folders_is_searched_once() {
        let mut bench = Bench::new();
        bench.write("a/x.crt", "");
        bench.write("a/x.key", "");
        symlink(bench.path(""), bench.path("a/up")).unwrap();
        symlink(bench.path("a"), bench.path("b")).unwrap();
        assert_eq!(bench.find().len(), 1);
    }

    #[test]
    fn a_look_at_one_folder_says_what_is_different() {
        let mut bench = Bench::new();
        bench.write("live/a/tls.crt", "");
        bench.find();
        bench.write("live/b/tls.crt", "");
        let live = bench.path("live");
        let delta = bench.search.look(&live);
        assert_eq!(delta.below, [bench.path("live/b")]);
        assert_eq!(bench.search.look(&delta.below[0]).appeared.len(), 1);
        fs::remove_dir_all(bench.path("live/a")).unwrap();
        let delta = bench.search.look(&live);
        assert_eq!(delta.vanished.len(), 1);
        assert_eq!(delta.gone, [bench.path("live/a")]);
        assert_eq!(bench.names(), ["live/b/tls.crt live/b/tls.key"]);
    }

    #[test]
    fn an_event_on_a_known_file_needs_no_listing() {
        let mut bench = Bench::new();
        bench.write("x.crt", "");
        bench.write("x.key", "");
        bench.find();
        assert_eq!(bench.search.concerned_by(&bench.path("x.crt")), None);
        assert_eq!(bench.search.concerned_by(&bench.path(".x.crt.swp")), None);
        assert_eq!(bench.search.concerned_by(&bench.path("x.crt.tmp")), None);
        bench.write("y.crt", "");
        fs::create_dir(bench.path("sub")).unwrap();
        let root = Some(bench.dir.path().join("root"));
        for name in ["y.crt", "sub"] {
            let concerned = bench.search.concerned_by(&bench.path(name));
            assert_eq!(concerned, root, "{name}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_searched_is_a_problem_and_recovers() {
        let mut bench = Bench::new();
        bench.write("tls.crt", "");
        bench.find();
        fs::remove_dir_all(bench.path("")).unwrap();
        assert!(bench.find().is_empty());
        let (folder, problem) = bench.search.problems().next().unwrap();
        assert_eq!(folder, bench.dir.path().join("root"));
        assert_eq!(problem.kind(), io::ErrorKind::NotFound);
        assert!(bench.search.is_lost());
        bench.write("tls.crt", "");
        assert_eq!(bench.find().len(), 1);
        assert!(bench.search.problems().next().is_none() && !bench.search.is_lost());
    }

    #[test]
    fn names_that_are_no_text_are_names_all_the_same() {
        let mut bench = Bench::new();
        for extension in [".crt", ".key"] {
            let name = [b"\xff\xfe", extension.as_bytes()].concat();
            fs::write(bench.path("").join(OsStr::from_bytes(&name)), "").unwrap();
        }
        assert_eq!(bench.find().len(), 1);
    }
}
