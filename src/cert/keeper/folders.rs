//! The searched folders: which certificates are in them, and watching them for more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::conductor::Key;
use crate::cert::source::{Files, Search, Source};
use crate::config::{CertificateSource, Location};
use crate::watch::{Reach, Watch};

/// All configured folders.
#[derive(Default)]
pub(super) struct Folders {
    roots: Vec<Root>,
    /// Every folder at or below a root, by the number that its watch has.
    numbers: HashMap<Place, u32>,
    places: HashMap<u32, Visited>,
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

struct Visited {
    place: Place,
    reach: Reach,
}

/// What became of the certificates in folders.
#[derive(Default)]
pub(super) struct Found {
    pub(super) appeared: Vec<Source>,
    pub(super) vanished: Vec<Files>,
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
    pub(super) fn problems(&self) -> impl Iterator<Item = (&Arc<Path>, usize, io::Error)> {
        self.roots
            .iter()
            .filter_map(|root| Some((&root.path, root.order, root.search.problem()?)))
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

    /// Whether a folder itself is gone, unreadable or without any certificate: then nothing that
    /// was in it was removed on purpose.
    pub(super) fn is_lost(&self, folder: &Path) -> bool {
        let root = self.roots.iter().find(|root| *root.path == *folder);
        root.is_some_and(|root| {
            root.search.problem().is_some() || root.search.found().next().is_none()
        })
    }

    /// Looks at everything and watches it.
    pub(super) fn visit_all(&mut self, watch: &mut Watch<Key>) -> Found {
        let mut places: HashSet<Place> = self.numbers.keys().cloned().collect();
        for (n, root) in self.roots.iter().enumerate() {
            places.insert((n, root.path.to_path_buf()));
            places.extend(root.search.folders().map(|folder| (n, folder.to_owned())));
        }
        self.visit(places, watch)
    }

    /// Looks at the folders that watched changes may concern.
    pub(super) fn visit_changed<'a>(
        &mut self,
        keys: impl Iterator<Item = u32>,
        paths: impl Iterator<Item = &'a PathBuf>,
        watch: &mut Watch<Key>,
    ) -> Found {
        let mut places: HashSet<Place> = keys
            .filter_map(|number| Some(self.places.get(&number)?.place.clone()))
            .collect();
        for path in paths {
            for (n, root) in self.roots.iter().enumerate() {
                places.extend(root.search.concerned_by(path).map(|folder| (n, folder)));
            }
        }
        self.visit(places, watch)
    }

    /// Looks at the folders with these numbers, of which some are polled.
    pub(super) fn visit_numbers(
        &mut self,
        numbers: impl Iterator<Item = u32>,
        watch: &mut Watch<Key>,
    ) -> Found {
        self.visit_changed(numbers, std::iter::empty(), watch)
    }

    /// The numbers of all folders, and whether the kernel tells of them.
    pub(super) fn numbers(&self) -> Vec<(u32, Reach)> {
        let mut all: Vec<_> = self.places.iter().map(|(n, at)| (*n, at.reach)).collect();
        all.sort_unstable_by_key(|(n, _)| *n);
        all
    }

    /// Whether any folder has to be polled.
    pub(super) fn any_unwatched(&self) -> bool {
        self.places.values().any(|at| at.reach != Reach::Events)
    }

    fn visit(&mut self, places: HashSet<Place>, watch: &mut Watch<Key>) -> Found {
        let mut all = Found::default();
        let mut left: VecDeque<_> = places.into_iter().collect();
        while let Some((n, folder)) = left.pop_front() {
            // Watched first, so that nothing can come between the listing and the watch.
            self.cover((n, folder.clone()), watch);
            let Some(root) = self.roots.get_mut(n) else {
                continue;
            };
            let delta = root.search.look(&folder);
            left.extend(delta.below.into_iter().map(|below| (n, below)));
            let appeared = delta.appeared.iter().map(|found| root.source(found));
            all.appeared.extend(appeared);
            all.vanished.extend(delta.vanished);
            for gone in delta.gone {
                self.uncover(&(n, gone), watch);
            }
        }
        all
    }

    fn cover(&mut self, place: Place, watch: &mut Watch<Key>) {
        let number = *self.numbers.entry(place.clone()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let cover = watch.cover_folder(Key::Folder(number), &place.1);
        let visited = Visited {
            place,
            reach: cover.reach,
        };
        self.places.insert(number, visited);
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
            watch.uncover(Key::Folder(number));
        }
    }
}

impl Root {
    fn source(&self, found: &Files) -> Source {
        Source::found(found.clone(), &self.path, &self.config, self.order)
    }
}
