//! Folders on every symlink chain: *look again*, by inotify with polling beneath.
//!
//! Files are watched through the folders that lead to them ([`Chain`]), never themselves: a watch
//! on a file misses every symlink swap after the first. What an event was does not matter, only
//! which paths it touched; whoever asked for them is told to look again, and compares contents.
//!
//! Events are collected for a moment ([`QUIET`]), since a renewal is several of them, but never for
//! longer than [`CEILING`], so that a constant stream of events cannot put a look off for ever.
//!
//! Of a mount over a folder, or its end, inotify tells nothing: the kernel's table of mounts is
//! watched beside it, and a mount point that changed counts as touched.
//!
//! Where the kernel tells nothing (the limit on watches is reached, a folder may not be listed, the
//! file system is remote) [`Watch::cover`] says so by its [`Reach`], and the caller polls those at a
//! [`Round`] of their own. All others are polled too, slowly: events are a courtesy, not a proof.
//!
//! The kernel's interface is used as it is. A watcher made for every platform asks for *opened* and
//! *closed* as well, so that each of our own reads would come back as events: a round over 20,000
//! files would overflow the kernel's queue, which calls for another round.

mod chain;
#[cfg(target_os = "linux")]
mod inotify;
#[cfg(not(target_os = "linux"))]
#[path = "watch/elsewhere.rs"]
mod inotify;
mod mounts;
mod pending;
mod round;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tracing::{info, warn};

pub use chain::Chain;
use inotify::Inotify;
pub use mounts::Mount;
use pending::Pending;
pub use round::Round;

/// How long it must be quiet before collected events are handed out.
pub const QUIET: Duration = Duration::from_millis(30);

/// How long events are collected at most.
pub const CEILING: Duration = Duration::from_millis(200);

/// How much the kernel tells about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Every folder on the way is watched.
    Events,
    /// At least one is not: poll.
    Polled,
    /// The file system may be changed from elsewhere, and what it says of a file without opening it
    /// may be old: poll the contents.
    Remote,
}

/// What [`Watch::cover`] found.
#[derive(Clone, Copy, Debug)]
pub struct Cover {
    /// How much the kernel tells about these paths.
    pub reach: Reach,
    /// Something is watched that was not before, or not on behalf of this key. What was read
    /// earlier may have changed in between, without a word: look again.
    pub fresh: bool,
}

/// What [`Watch::take`] hands out.
#[derive(Debug)]
pub struct Changes<K> {
    /// Who should look again.
    pub keys: BTreeSet<K>,
    /// Paths that were touched, as events named them.
    pub paths: HashSet<PathBuf>,
    /// Events were lost: everyone should look again.
    pub all: bool,
}

/// Watches what leads to files and folders, on behalf of whoever is meant by a `K`.
pub struct Watch<K> {
    notifier: Option<Inotify>,
    pending: Arc<Pending>,
    folders: HashMap<Arc<Path>, Folder>,
    covered: HashMap<K, Covered>,
    /// Who depends on a path: by hash, because 10,000 certificates lead over 60,000 paths. Two paths
    /// of one hash cost a look too many.
    points: HashMap<u64, SmallVec<[K; 2]>>,
    hasher: RandomState,
    unwatched: usize,
    limit: Option<String>,
}

/// A folder that somebody depends on.
#[derive(Debug)]
struct Folder {
    users: usize,
    watch: Option<i32>,
    remote: bool,
}

/// What one key depends on, to be able to let go of it.
#[derive(Debug, Default)]
struct Covered {
    folders: Vec<Arc<Path>>,
    points: Vec<u64>,
}

impl<K> fmt::Debug for Watch<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("folders", &self.folders.len())
            .field("unwatched", &self.unwatched)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<K: Copy + Ord + Hash> Watch<K> {
    /// Begins. `wake` is called, on a thread of the watcher's, when something was touched and
    /// nothing else waited to be taken; it must not block.
    pub fn start(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let pending = Arc::new(Pending::new(Box::new(wake)));
        let mut watch = Self {
            notifier: None,
            pending: Arc::clone(&pending),
            folders: HashMap::new(),
            covered: HashMap::new(),
            points: HashMap::new(),
            hasher: RandomState::new(),
            unwatched: 0,
            limit: None,
        };
        match Inotify::start(pending) {
            Ok(notifier) => watch.notifier = Some(notifier),
            Err(error) => watch.reached_limit(&error),
        }
        watch
    }

    /// Watches what leads to these files from now on, instead of what `key` covered before.
    pub fn cover<'a>(&mut self, key: K, files: impl IntoIterator<Item = &'a Path>) -> Cover {
        let mut chain = Chain::default();
        for file in files {
            chain.extend(file);
        }
        self.replace(key, chain)
    }

    /// Watches a folder's entries, and what leads to it, instead of what `key` covered before. Only
    /// what becomes of the folder itself concerns `key`; its entries are among
    /// [`paths`](Changes::paths), for whoever can tell which of them matter.
    pub fn cover_folder(&mut self, key: K, folder: &Path) -> Cover {
        let mut chain = Chain::default();
        let real = chain.extend(folder);
        if folder.is_dir() {
            chain.folders.insert(folder.to_owned());
            // Events on the folder itself (removed, moved, replaced) carry its own path.
            chain.points.insert(real);
        }
        self.replace(key, chain)
    }

    /// Lets go of what `key` covered.
    pub fn uncover(&mut self, key: K) {
        if let Some(old) = self.covered.remove(&key) {
            self.release(key, &old, &Covered::default());
        }
    }

    /// How long until [`take`](Self::take) should be called; `None` when nothing was touched.
    pub fn due(&self) -> Option<Duration> {
        self.pending.due(Instant::now())
    }

    /// What was touched since the last time.
    pub fn take(&mut self) -> Changes<K> {
        let (paths, all) = self.pending.take();
        let mut keys = BTreeSet::new();
        for path in &paths {
            let dependents = self.points.get(&self.hasher.hash_one(path.as_path()));
            keys.extend(dependents.into_iter().flatten().copied());
        }
        Changes { keys, paths, all }
    }

    /// Why not everything is watched, in words, or `None` when it is.
    pub fn degraded(&self) -> Option<String> {
        let limit = self.limit.as_deref()?;
        Some(format!(
            "{limit}; {} folders are polled instead of watched",
            self.unwatched
        ))
    }

    /// How many folders are watched.
    pub fn watched(&self) -> usize {
        self.folders.len() - self.unwatched
    }

    fn replace(&mut self, key: K, chain: Chain) -> Cover {
        let mut cover = Cover {
            reach: Reach::Events,
            fresh: false,
        };
        let mut new = Covered::default();
        let old = self.covered.remove(&key).unwrap_or_default();
        for path in chain.folders {
            let (path, one) = self.retain(&path);
            cover.reach = cover.reach.max(one.reach);
            cover.fresh |= one.fresh;
            new.folders.push(path);
        }
        for point in chain.points {
            let hash = self.hasher.hash_one(point.as_path());
            new.points.push(hash);
            if !old.points.contains(&hash) {
                // Until now an event on it, though heard, concerned somebody else.
                cover.fresh = true;
                self.points.entry(hash).or_default().push(key);
            }
        }
        self.release(key, &old, &new);
        self.covered.insert(key, new);
        self.settle_limit();
        cover
    }

    /// One more user of a folder; watches it, and watches it anew if it is not the folder it was.
    fn retain(&mut self, path: &Path) -> (Arc<Path>, Cover) {
        let (path, mut folder) = match self.folders.remove_entry(path) {
            Some((path, mut folder)) => {
                folder.users += 1;
                (path, folder)
            }
            None => {
                self.unwatched += 1;
                let folder = Folder {
                    users: 1,
                    watch: None,
                    remote: false,
                };
                (Arc::from(path), folder)
            }
        };
        // Asking again is cheap, and the only proof that the path still leads to what is watched.
        let watch = match &self.notifier {
            Some(notifier) => match notifier.add(&path, folder.watch) {
                Ok(watch) => Some(watch),
                Err(error) => {
                    self.reached_limit(&error);
                    None
                }
            },
            None => None,
        };
        let fresh = watch.is_some() && watch != folder.watch;
        if fresh || watch.is_none() {
            // Another file system may be mounted there now.
            folder.remote = is_remote(&path);
        }
        match (folder.watch.is_some(), watch.is_some()) {
            (false, true) => self.unwatched -= 1,
            (true, false) => self.unwatched += 1,
            _ => {}
        }
        folder.watch = watch;
        let reach = match (folder.remote, watch) {
            (true, _) => Reach::Remote,
            (false, Some(_)) => Reach::Events,
            (false, None) => Reach::Polled,
        };
        self.folders.insert(Arc::clone(&path), folder);
        (path, Cover { reach, fresh })
    }

    /// Takes back what `old` has and `new` has not.
    fn release(&mut self, key: K, old: &Covered, new: &Covered) {
        for path in &old.folders {
            let Some(folder) = self.folders.get_mut(path) else {
                continue;
            };
            folder.users -= 1;
            if folder.users > 0 {
                continue;
            }
            match (folder.watch, &self.notifier) {
                (Some(watch), Some(notifier)) => notifier.remove(path, watch),
                _ => self.unwatched -= 1,
            }
            self.folders.remove(path);
        }
        for hash in old.points.iter().filter(|hash| !new.points.contains(hash)) {
            forget(&mut self.points, *hash, key);
        }
    }

    /// Says once that the kernel has no more watches to give. Other errors (a folder that is gone
    /// or may not be listed) are no degradation of the watcher; their folders are polled.
    fn reached_limit(&mut self, error: &io::Error) {
        let limit = match error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::NOSPC) => {
                "the limit on inotify watches is reached (raise fs.inotify.max_user_watches)"
            }
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                "no inotify instance is to be had (raise fs.inotify.max_user_instances)"
            }
            _ if self.notifier.is_none() => "this system offers no inotify",
            _ => return,
        };
        if self.limit.is_none() {
            warn!(%error, "{limit}: changed files are found by polling instead");
            self.limit = Some(limit.to_owned());
        }
    }

    /// Watches may have become free.
    fn settle_limit(&mut self) {
        if self.unwatched == 0 && self.limit.take().is_some() {
            info!("every folder is watched again");
        }
    }
}

/// Removes `key` from those that depend on a hash.
fn forget<K: PartialEq>(map: &mut HashMap<u64, SmallVec<[K; 2]>>, hash: u64, key: K) {
    let Some(keys) = map.get_mut(&hash) else {
        return;
    };
    keys.retain(|other| *other != key);
    if keys.is_empty() {
        map.remove(&hash);
    }
}

/// Whether a file system may be changed by others than this kernel, or through another mount, so
/// that inotify hears nothing of it.
#[cfg(target_os = "linux")]
fn is_remote(folder: &Path) -> bool {
    /// `f_type` as in `statfs(2)`: NFS, SMB, CIFS, SMB2, 9p, FUSE, Ceph, AFS, Coda, and overlay,
    /// whose lower layers change without a word.
    const REMOTE: [i64; 10] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x0102_1997,
        0x6573_5546,
        0x00c3_6400,
        0x5346_414f,
        0x7375_7245,
        0x794c_7630,
    ];
    // The width of `f_type` differs between platforms.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    rustix::fs::statfs(folder).is_ok_and(|stat| REMOTE.contains(&(stat.f_type as i64)))
}

#[cfg(not(target_os = "linux"))]
const fn is_remote(_folder: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        watch: Watch<u32>,
        woken: mpsc::Receiver<()>,
    }

    impl Bench {
        fn new() -> Self {
            let (tx, woken) = mpsc::channel();
            Self {
                dir: tempfile::tempdir().unwrap(),
                watch: Watch::start(move || tx.send(()).unwrap_or_default()),
                woken,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn cover(&mut self, key: u32, name: &str) -> Cover {
            let path = self.path(name);
            self.watch.cover(key, [path.as_path()])
        }

        /// The next changes here, whatever else is mounted on this machine meanwhile.
        fn next(&mut self) -> Changes<u32> {
            loop {
                self.woken.recv_timeout(Duration::from_secs(5)).unwrap();
                let changes = self.watch.take();
                let mut paths = changes.paths.iter();
                if paths.any(|path| path.starts_with(self.dir.path())) {
                    return changes;
                }
            }
        }

        /// Waits until `key` should look again.
        fn expect(&mut self, key: u32) {
            let deadline = Instant::now() + Duration::from_secs(5);
            loop {
                if self.watch.due().is_some() && self.watch.take().keys.contains(&key) {
                    return;
                }
                let left = deadline.saturating_duration_since(Instant::now());
                self.woken
                    .recv_timeout(left)
                    .expect("the change was noticed");
            }
        }
    }

    #[test]
    fn a_rewritten_a_replaced_and_a_recreated_file_are_noticed() {
        let mut bench = Bench::new();
        fs::write(bench.path("a.pem"), "1").unwrap();
        let cover = bench.cover(7, "a.pem");
        assert!(cover.fresh && cover.reach == Reach::Events);
        fs::write(bench.path("a.pem"), "2").unwrap();
        bench.expect(7);
        fs::write(bench.path("b"), "3").unwrap();
        fs::rename(bench.path("b"), bench.path("a.pem")).unwrap();
        bench.expect(7);
        fs::remove_file(bench.path("a.pem")).unwrap();
        bench.expect(7);
        fs::write(bench.path("a.pem"), "4").unwrap();
        bench.expect(7);
        assert!(!bench.cover(7, "a.pem").fresh);
    }

    #[test]
    fn every_swap_of_a_kubernetes_volume_is_noticed() {
        let mut bench = Bench::new();
        for n in 0..4 {
            fs::create_dir(bench.path(&format!("..{n}"))).unwrap();
            fs::write(bench.path(&format!("..{n}/tls.crt")), "x").unwrap();
        }
        symlink("..0", bench.path("..data")).unwrap();
        symlink("..data/tls.crt", bench.path("tls.crt")).unwrap();
        bench.cover(1, "tls.crt");
        for n in 1..4 {
            symlink(format!("..{n}"), bench.path("..data_tmp")).unwrap();
            fs::rename(bench.path("..data_tmp"), bench.path("..data")).unwrap();
            bench.expect(1);
            bench.cover(1, "tls.crt");
        }
    }

    #[test]
    fn the_file_behind_a_link_is_noticed() {
        let mut bench = Bench::new();
        fs::create_dir_all(bench.path("archive/x")).unwrap();
        fs::create_dir_all(bench.path("live/x")).unwrap();
        fs::write(bench.path("archive/x/c1.pem"), "1").unwrap();
        symlink("../../archive/x/c1.pem", bench.path("live/x/c.pem")).unwrap();
        bench.cover(1, "live/x/c.pem");
        fs::write(bench.path("archive/x/c1.pem"), "2").unwrap();
        bench.expect(1);
    }

    #[test]
    fn a_folder_removed_and_recreated_is_watched_again() {
        let mut bench = Bench::new();
        fs::create_dir(bench.path("d")).unwrap();
        fs::write(bench.path("d/a.pem"), "1").unwrap();
        bench.cover(1, "d/a.pem");
        for round in 0..3 {
            fs::remove_dir_all(bench.path("d")).unwrap();
            bench.expect(1);
            bench.cover(1, "d/a.pem");
            fs::create_dir(bench.path("d")).unwrap();
            bench.expect(1);
            assert!(bench.cover(1, "d/a.pem").fresh, "round {round}");
            fs::write(bench.path("d/a.pem"), "2").unwrap();
            bench.expect(1);
        }
    }

    #[test]
    fn a_folder_put_in_the_place_of_another_is_watched() {
        let mut bench = Bench::new();
        for dir in ["a/live", "b/live"] {
            fs::create_dir_all(bench.path(dir)).unwrap();
            fs::write(bench.path(dir).join("c.pem"), dir).unwrap();
        }
        bench.cover(1, "a/live/c.pem");
        fs::rename(bench.path("a"), bench.path("old")).unwrap();
        fs::rename(bench.path("b"), bench.path("a")).unwrap();
        bench.expect(1);
        assert!(bench.cover(1, "a/live/c.pem").fresh);
        fs::write(bench.path("a/live/c.pem"), "new").unwrap();
        bench.expect(1);
    }

    #[test]
    fn a_new_entry_of_a_covered_folder_is_noticed() {
        let mut bench = Bench::new();
        fs::create_dir(bench.path("live")).unwrap();
        let live = bench.path("live");
        bench.watch.cover_folder(3, &live);
        fs::create_dir(live.join("new")).unwrap();
        let changes = bench.next();
        assert!(changes.paths.contains(&live.join("new")) && changes.keys.is_empty());
        fs::remove_dir_all(&live).unwrap();
        bench.expect(3);
    }

    #[test]
    fn only_those_who_depend_on_a_path_look_again() {
        let mut bench = Bench::new();
        for (key, name) in [(1, "a.pem"), (2, "b.pem")] {
            fs::write(bench.path(name), "1").unwrap();
            bench.cover(key, name);
        }
        fs::write(bench.path("b.pem"), "2").unwrap();
        fs::write(bench.path("unknown"), "2").unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while bench.watch.due().is_none_or(|due| !due.is_zero()) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(bench.watch.take().keys, BTreeSet::from([2]));
    }

    #[test]
    fn what_is_no_longer_needed_is_let_go() {
        let mut bench = Bench::new();
        fs::create_dir(bench.path("d")).unwrap();
        fs::write(bench.path("d/a.pem"), "1").unwrap();
        bench.cover(1, "d/a.pem");
        assert!(bench.cover(2, "d/a.pem").fresh, "to this one it is new");
        let watched = bench.watch.watched();
        bench.watch.uncover(1);
        assert_eq!(bench.watch.watched(), watched);
        bench.watch.uncover(2);
        assert_eq!(bench.watch.watched(), 0);
        assert!(bench.watch.points.is_empty() && bench.watch.covered.is_empty());
    }

    #[test]
    fn a_missing_folder_is_polled_and_is_no_degradation() {
        let mut bench = Bench::new();
        let cover = bench.cover(1, "not/yet/a.pem");
        assert_eq!(
            cover.reach,
            Reach::Events,
            "its nearest ancestor is watched"
        );
        assert_eq!(bench.watch.degraded(), None);
        fs::create_dir(bench.path("not")).unwrap();
        bench.expect(1);
        bench.cover(1, "not/yet/a.pem");
        fs::create_dir(bench.path("not/yet")).unwrap();
        bench.expect(1);
    }

    /// Mounts need a namespace of their own, so the test runs itself again in one.
    #[test]
    fn a_mount_over_a_folder_and_its_end_are_noticed() {
        const INSIDE: &str = "STAUNCH_TEST_NAMESPACE";
        let inside = |arguments: &[&str]| {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount"]);
            command.args(arguments).env(INSIDE, "1");
            command.output().unwrap()
        };
        if std::env::var_os(INSIDE).is_none() {
            let allowed = inside(&["true"]);
            if !allowed.status.success() {
                eprintln!("skipped: no namespace to be had: {allowed:?}");
                return;
            }
            let program = std::env::current_exe().unwrap();
            let test = "watch::tests::a_mount_over_a_folder_and_its_end_are_noticed";
            let again = inside(&[program.to_str().unwrap(), "--exact", test]);
            assert!(again.status.success(), "{again:?}");
            return;
        }
        let mut bench = Bench::new();
        for name in ["way/live", "other/live", "elsewhere"] {
            fs::create_dir_all(bench.path(name)).unwrap();
        }
        let run = |program: &str, paths: &[PathBuf]| {
            let ran = Command::new(program).args(paths).status().unwrap();
            assert!(ran.success());
        };
        let mount = |from, over| run("mount", &["--bind".into(), from, over]);
        bench.cover(1, "way/live/a.pem");
        for over in ["way", "way/live"] {
            mount(bench.path("other"), bench.path(over));
            bench.expect(1);
            assert!(bench.cover(1, "way/live/a.pem").fresh, "{over}");
            run("umount", &[bench.path(over)]);
            bench.expect(1);
            assert!(bench.cover(1, "way/live/a.pem").fresh, "{over}");
        }
        // What is mounted elsewhere concerns nobody.
        mount(bench.path("other"), bench.path("elsewhere"));
        assert_eq!(bench.next().keys, BTreeSet::new());
    }

    #[test]
    fn the_limit_is_said_and_taken_back() {
        let mut bench = Bench::new();
        bench.watch.unwatched = 3;
        bench
            .watch
            .reached_limit(&io::Error::from(rustix::io::Errno::NOSPC));
        let said = bench.watch.degraded().unwrap();
        assert!(
            said.contains("max_user_watches") && said.contains("3 folders"),
            "{said}"
        );
        bench.watch.unwatched = 0;
        bench.watch.settle_limit();
        assert_eq!(bench.watch.degraded(), None);
    }
}
