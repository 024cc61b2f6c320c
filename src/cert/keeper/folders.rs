//! The searched folders: which certificates are in them, and watching them for more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cert::source::folder::Delta;
use crate::cert::source::{Files, Search, Source};
use crate::config::{CertificateSource, Location};
use crate::watch::{Reach, Watch};

/// Who depends on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// The source in this slot.
    Source(u32),
    /// The searched folder of this number.
    Folder(u32),
}

/// All configured folders.
#[derive(Default)]
pub(super) struct Folders {
    roots: Vec<Root>,
    /// Every folder at or below a root, by the number that its watch has.
    numbers: HashMap<Place, u32>,
    places: BTreeMap<u32, Place>,
    /// Those of which the kernel does not tell everything.
    unwatched: BTreeSet<u32>,
    next: u32,
}

struct Root {
    config: CertificateSource,
    order: usize,
    path: Arc<Path>,
    search: Search,
}

/// A folder at or below the root of this index.
type Place = (usize, PathBuf);

/// What became of the certificates in folders.
#[derive(Default)]
pub(super) struct Found {
    pub(super) appeared: Vec<Source>,
    pub(super) vanished: Vec<Files>,
}

/// Folders to look at, and what was found so far.
#[derive(Default)]
struct Visit {
    left: VecDeque<Place>,
    found: Found,
}

impl Folders {
    /// The folders among these sources. Searches that `old` made already are taken over.
    pub(super) fn new(sources: &[CertificateSource], old: Self, watch: &mut Watch<Key>) -> Self {
        for number in old.places.keys() {
            watch.uncover(Key::Folder(*number));
        }
        let mut searches: HashMap<_, _> = old
            .roots
            .into_iter()
            .map(|root| (root.path, root.search))
            .collect();
        let roots = sources
            .iter()
            .enumerate()
            .filter_map(|(order, config)| {
                let Location::Folder { folder } = &config.location else {
                    return None;
                };
                let path: Arc<Path> = Arc::from(folder.as_path());
                let search = searches.remove(&path);
                Some(Root {
                    config: config.clone(),
                    order,
                    search: search.unwrap_or_else(|| Search::new(&path)),
                    path,
                })
            })
            .collect();
        Self {
            roots,
            next: old.next,
            ..Self::default()
        }
    }

    /// Looks at everything below every root, without watching.
    pub(super) fn search(&mut self) {
        for root in &mut self.roots {
            root.search.look_everywhere(|_| {});
        }
    }

    /// Every certificate found.
    pub(super) fn sources(&self) -> impl Iterator<Item = Source> {
        self.roots
            .iter()
            .flat_map(|root| root.search.found().map(|found| root.source(found)))
    }

    /// Folders that cannot be searched, each with its place in the configuration and why.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&Path, usize, io::Error)> {
        self.roots.iter().flat_map(|root| {
            let problems = root.search.problems();
            problems.map(|(folder, error)| (folder, root.order, error))
        })
    }

    /// The source for files that were in a folder earlier, if that is still configured.
    pub(super) fn earlier(&self, files: &Files, folder: &Path) -> Option<Source> {
        let root = self.roots.iter().find(|root| *root.path == *folder)?;
        Some(root.source(files))
    }

    /// Whether these files are in some folder.
    pub(super) fn hold(&self, files: &Files) -> bool {
        self.roots.iter().any(|root| root.search.holds(files))
    }

    /// Whether a folder itself is gone, unreadable or without any certificate, or what was mounted
    /// where these files were: then they were not removed on purpose.
    pub(super) fn is_lost(&self, folder: &Path, files: &Files) -> bool {
        let root = self.roots.iter().find(|root| *root.path == *folder);
        root.is_some_and(|root| root.search.is_lost(files))
    }

    /// Looks at everything and watches it.
    pub(super) fn visit_all(&mut self, watch: &mut Watch<Key>) -> Found {
        let mut places: HashSet<Place> = self.numbers.keys().cloned().collect();
        for (n, root) in self.roots.iter().enumerate() {
            places.insert((n, root.path.to_path_buf()));
            places.extend(root.search.folders().map(|folder| (n, folder.to_owned())));
        }
        let visit = Visit {
            left: places.into_iter().collect(),
            ..Visit::default()
        };
        self.visit(visit, watch)
    }

    /// Looks at the folders that watched changes may concern.
    pub(super) fn visit_changed<'a>(
        &mut self,
        keys: impl Iterator<Item = u32>,
        paths: impl Iterator<Item = &'a PathBuf>,
        watch: &mut Watch<Key>,
    ) -> Found {
        let mut places: HashSet<Place> = keys
            .filter_map(|number| self.places.get(&number).cloned())
            .collect();
        for path in paths {
            for (n, root) in self.roots.iter().enumerate() {
                places.extend(root.search.concerned_by(path).map(|folder| (n, folder)));
            }
        }
        let visit = Visit {
            left: places.into_iter().collect(),
            ..Visit::default()
        };
        self.visit(visit, watch)
    }

    /// Looks once more for files that were in a folder, whatever was heard of them. What is among
    /// `looked` was looked at just now, for others that were in it: of ten thousand, thousands may be
    /// gone.
    pub(super) fn look_for(
        &mut self,
        files: &Files,
        folder: &Path,
        looked: &mut HashSet<PathBuf>,
        watch: &mut Watch<Key>,
    ) -> Found {
        let mut visit = Visit::default();
        if let Some(n) = self.roots.iter().position(|root| *root.path == *folder) {
            let way = self.roots[n].search.way_to(files).into_iter();
            let there = way.filter(|folder| looked.insert(folder.clone()) && folder.is_dir());
            visit.left.extend(there.map(|folder| (n, folder)));
        }
        self.visit(visit, watch)
    }

    /// Looks at a slice of all folders, and at those of which nothing is heard.
    pub(super) fn poll(&mut self, slice: [Range<usize>; 2], watch: &mut Watch<Key>) -> Found {
        let slice = slice.into_iter().filter(|range| !range.is_empty());
        let slice: Vec<_> = slice
            .flat_map(|range| self.places.values().skip(range.start).take(range.len()))
            .cloned()
            .collect();
        let mut visit = Visit::default();
        for place in slice {
            // It is watched already, which costs more than listing it. Should it hold news, then
            // nothing was heard of them, and it is watched anew.
            if self.list(&place, &mut visit, watch) {
                visit.left.push_back(place);
            }
        }
        let unwatched = self.unwatched.iter();
        let unwatched = unwatched.filter_map(|number| self.places.get(number).cloned());
        visit.left.extend(unwatched);
        self.visit(visit, watch)
    }

    /// How many folders are looked at.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Whether any folder has to be polled.
    pub(super) fn any_unwatched(&self) -> bool {
        !self.unwatched.is_empty()
    }

    fn visit(&mut self, mut visit: Visit, watch: &mut Watch<Key>) -> Found {
        while let Some(place) = visit.left.pop_front() {
            // Watched first, so that nothing can come between the listing and the watch.
            self.cover(place.clone(), watch);
            self.list(&place, &mut visit, watch);
        }
        visit.found
    }

    /// Lists one folder. Returns whether it holds news.
    fn list(&mut self, place: &Place, visit: &mut Visit, watch: &mut Watch<Key>) -> bool {
        let (n, folder) = place;
        let Some(root) = self.roots.get_mut(*n) else {
            return false;
        };
        let delta = root.search.look(folder);
        let is_news = delta != Delta::default();
        let below = delta.below.into_iter().map(|below| (*n, below));
        visit.left.extend(below);
        let appeared = delta.appeared.iter().map(|found| root.source(found));
        visit.found.appeared.extend(appeared);
        visit.found.vanished.extend(delta.vanished);
        for gone in delta.gone {
            self.uncover(&(*n, gone), watch);
        }
        is_news
    }

    fn cover(&mut self, place: Place, watch: &mut Watch<Key>) {
        let number = *self.numbers.entry(place.clone()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let cover = watch.cover_folder(Key::Folder(number), &place.1);
        self.places.insert(number, place);
        if cover.reach == Reach::Events {
            self.unwatched.remove(&number);
        } else {
            self.unwatched.insert(number);
        }
    }

    fn uncover(&mut self, place: &Place, watch: &mut Watch<Key>) {
        let is_root = self
            .roots
            .get(place.0)
            .is_some_and(|root| *root.path == *place.1);
        if is_root {
            // It is waited for.
            return;
        }
        if let Some(number) = self.numbers.remove(place) {
            self.places.remove(&number);
            self.unwatched.remove(&number);
            watch.uncover(Key::Folder(number));
        }
    }
}

impl Root {
    fn source(&self, found: &Files) -> Source {
        Source::found(found.clone(), &self.path, &self.config, self.order)
    }
}
