//! Certificates in a searched folder, in the layouts that the usual programs leave behind.
//!
//! Each folder below is listed by itself, so that a change costs one listing, not a search: with
//! ten thousand certificates that is the difference between microseconds and a second.

mod layout;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Files;
use layout::{classify, is_of_interest};

/// How deep below the configured folder a certificate may lie.
const DEPTH: usize = 8;

/// Entries of one folder that are looked at.
const ENTRIES: usize = 200_000;

/// Folders that are searched.
const FOLDERS: usize = 200_000;

/// What a look at one folder found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Certificates that were not there.
    pub appeared: Vec<Files>,
    /// Certificates that are no longer there.
    pub vanished: Vec<Files>,
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
    /// Folders that were on another file system when they last held something.
    unmounted: BTreeSet<PathBuf>,
}

/// What one folder holds.
#[derive(Debug, Default)]
struct Listing {
    inode: (u64, u64),
    found: BTreeSet<Files>,
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
            unmounted: BTreeSet::new(),
        }
    }

    /// The configured folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folders that cannot be searched, and why. What is below one of them cannot be either, which
    /// is the same trouble.
    pub fn problems(&self) -> impl Iterator<Item = (&Path, io::Error)> {
        let mut above: Option<&Path> = None;
        // A folder comes before those below it.
        let all = self.problems.iter().filter(move |(folder, _)| {
            let is_below = above.is_some_and(|above| folder.starts_with(above));
            if !is_below {
                above = Some(folder.as_path());
            }
            !is_below
        });
        all.map(|(folder, (kind, text))| {
            let error = io::Error::new(*kind, text.clone());
            (folder.as_path(), error)
        })
    }

    /// Whether the configured folder itself cannot be searched, or holds nothing; or whether these
    /// files were below a mount that is no longer there.
    pub fn is_lost(&self, files: &Files) -> bool {
        let mut above = files.chain.ancestors().skip(1);
        self.problems.contains_key(&self.root)
            || self.found().next().is_none()
            || above.any(|folder| self.unmounted.contains(folder))
    }

    /// Every certificate found.
    pub fn found(&self) -> impl Iterator<Item = &Files> {
        self.folders.values().flat_map(|listing| &listing.found)
    }

    /// Whether this is among what was found.
    pub fn holds(&self, files: &Files) -> bool {
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
            Err(error) if is_gone(&error) => {
                // One that takes its place is news to the folder above it.
                if let Some(above) = folder.parent().and_then(|at| self.folders.get_mut(at)) {
                    above.below.remove(folder);
                }
                self.forget(folder)
            }
            // It is there and cannot be listed now: nothing is known to have vanished.
            Err(_) => Delta::default(),
        }
    }

    /// The folders on the way to these files, the configured one first.
    pub fn way_to(&self, files: &Files) -> Vec<PathBuf> {
        let above = files.chain.ancestors().skip(1);
        let mut way: Vec<_> = above
            .take_while(|folder| folder.starts_with(&self.root))
            .map(Path::to_path_buf)
            .collect();
        way.reverse();
        way
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
        let is_known = |found: &Files| found.chain == *path || found.key.as_deref() == Some(path);
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
        // A folder that was removed may have left its number to this one.
        if let Some(first) = self.seen.get(&inode)
            && *first != *folder
            && self.folders.contains_key(first)
            && fs::metadata(first).is_ok_and(|meta| (meta.dev(), meta.ino()) == inode)
        {
            return self.forget(folder);
        }
        let mut delta = Delta::default();
        let known = self.folders.remove(folder);
        let was_elsewhere = known.as_ref().is_some_and(|it| it.inode.0 != inode.0);
        let old = known.unwrap_or_default();
        if old.inode != inode {
            self.unsee(old.inode, folder);
        }
        self.seen.insert(inode, folder.to_owned());
        let found: BTreeSet<_> = classify(folder, &entries.files, &old.found)
            .into_iter()
            .collect();
        let below: BTreeSet<_> = self.descend(folder, entries.folders);
        if !found.is_empty() || !below.is_empty() {
            self.unmounted.remove(folder);
        } else if was_elsewhere {
            self.unmounted.insert(folder.to_owned());
        }
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
            self.unsee(listing.inode, &folder);
            delta.vanished.extend(listing.found);
            delta.gone.push(folder);
            left.extend(listing.below);
        }
        delta
    }

    /// The number that a folder had may be another's by now.
    fn unsee(&mut self, inode: (u64, u64), folder: &Path) {
        if self.seen.get(&inode).is_some_and(|first| *first == *folder) {
            self.seen.remove(&inode);
        }
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

/// Dot files, and among them the folders that Kubernetes' links lead to.
fn is_hidden(name: &[u8]) -> bool {
    name.first() == Some(&b'.')
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
                "ZeroSSL",
                &["x/ca_bundle.crt", "x/certificate.crt", "x/private.key"],
                &["x/certificate.crt x/private.key"],
            ),
            (
                "both called after what they are",
                &[
                    "a-cert.pem",
                    "a-key.pem",
                    "b_cert.crt",
                    "b_key.crt",
                    "c/chain.pem",
                    "c/key.pem",
                ],
                &[
                    "a-cert.pem a-key.pem",
                    "b_cert.crt b_key.crt",
                    "c/chain.pem c/key.pem",
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
        for kind in ["both.pem.ecdsa", "both.pem.rsa"] {
            bench.write(kind, BOTH);
        }
        assert_eq!(bench.find(), ["both.pem.ecdsa", "both.pem.rsa", "shop.pem"]);
        for kind in ["both.pem.ecdsa", "both.pem.rsa"] {
            fs::remove_file(bench.path(kind)).unwrap();
        }
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
    fn a_folder_that_was_gone_when_it_was_looked_at_is_found_when_it_is_back() {
        let mut bench = Bench::new();
        bench.write("a/tls.crt", "");
        bench.find();
        let (root, a) = (bench.dir.path().join("root"), bench.path("a"));
        fs::remove_dir_all(&a).unwrap();
        assert_eq!(bench.search.look(&a).vanished.len(), 1);
        bench.write("a/tls.crt", "");
        assert_eq!(bench.search.concerned_by(&a), Some(root.clone()));
        let delta = bench.search.look(&root);
        assert_eq!(delta.below, std::slice::from_ref(&a));
        assert_eq!(bench.search.look(&a).appeared.len(), 1);
    }

    #[test]
    fn a_folder_that_has_the_number_of_a_removed_one_is_no_second_way_to_it() {
        let mut bench = Bench::new();
        bench.write("a/tls.crt", "");
        bench.find();
        // A move leaves the number to the new name, as a removal and a new folder may.
        fs::rename(bench.path("a"), bench.path("b")).unwrap();
        bench.search.look(&bench.dir.path().join("root"));
        let b = bench.path("b");
        fs::rename(&b, bench.path("c")).unwrap();
        fs::rename(bench.path("c"), &b).unwrap();
        assert_eq!(bench.search.look(&b).appeared.len(), 1);
        bench.find();
        assert_eq!(bench.names(), ["b/tls.crt b/tls.key"]);
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
        let files = bench.search.found().next().unwrap().clone();
        fs::remove_dir_all(bench.path("")).unwrap();
        assert!(bench.find().is_empty());
        let (folder, problem) = bench.search.problems().next().unwrap();
        assert_eq!(folder, bench.dir.path().join("root"));
        assert_eq!(problem.kind(), io::ErrorKind::NotFound);
        assert!(bench.search.is_lost(&files));
        bench.write("tls.crt", "");
        assert_eq!(bench.find().len(), 1);
        assert!(bench.search.problems().next().is_none());
        assert!(!bench.search.is_lost(&files));
    }

    #[test]
    fn what_was_on_a_mount_is_lost_with_it_and_what_is_deleted_is_not() {
        let mut bench = Bench::new();
        for name in ["a/tls.crt", "mount/b/tls.crt", "mount/c/tls.crt"] {
            bench.write(name, "");
        }
        bench.find();
        let files: Vec<_> = bench.search.found().cloned().collect();
        let of = |name| {
            files
                .iter()
                .find(|it| it.chain.starts_with(bench.path(name)))
        };
        let [b, c] = ["mount/b", "mount/c"].map(|name| of(name).unwrap());
        let is_lost = |search: &Search| (search.is_lost(b), search.is_lost(c));
        fs::remove_dir_all(bench.path("mount/b")).unwrap();
        bench.search.look_everywhere(|_| {});
        assert_eq!(is_lost(&bench.search), (false, false));
        bench.write("mount/b/tls.crt", "");
        bench.search.look_everywhere(|_| {});
        // As if what is there now had been beneath another file system.
        let mount = bench.path("mount");
        bench.search.folders.get_mut(&mount).unwrap().inode.0 ^= 1;
        fs::remove_dir_all(bench.path("mount/b")).unwrap();
        fs::remove_dir_all(bench.path("mount/c")).unwrap();
        bench.search.look_everywhere(|_| {});
        assert_eq!(is_lost(&bench.search), (true, true));
        // It is back, without one of them.
        bench.write("mount/c/tls.crt", "");
        bench.search.look_everywhere(|_| {});
        assert_eq!(is_lost(&bench.search), (false, false));
    }

    #[test]
    fn folders_below_one_that_cannot_be_searched_are_no_trouble_of_their_own() {
        let mut bench = Bench::new();
        for folder in ["a", "a/b", "ab", "c"] {
            let kind = (io::ErrorKind::PermissionDenied, String::new());
            bench.search.problems.insert(bench.path(folder), kind);
        }
        let problems = bench.search.problems().map(|(folder, _)| folder.to_owned());
        let top = ["a", "ab", "c"].map(|folder| bench.path(folder));
        assert_eq!(problems.collect::<Vec<_>>(), top);
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
