//! The way of the kernel from a path to a file, link by link.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Links followed for one path; the kernel's own limit (`path_resolution(7)`).
const LINKS: usize = 40;

/// Everything that decides what some paths lead to.
///
/// For `live/x/chain.pem → ../../archive/x/chain1.pem` these are the folders `live/x`, `archive/x`
/// and all above them, because a folder above may itself be replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Existing folders in which something on the way is looked up.
    pub folders: BTreeSet<PathBuf>,
    /// What is looked up in them: an event on one of these means that the way may have changed.
    pub points: BTreeSet<PathBuf>,
}

impl Chain {
    /// Adds the way to one more path. Returns where it ends: at the file, or at the first thing on
    /// the way that does not exist. A loop of links ends after as many as the kernel would follow.
    pub fn extend(&mut self, path: &Path) -> PathBuf {
        // Without a working directory there is nothing a relative path could mean.
        let path = std::path::absolute(path).unwrap_or_else(|_| Path::new("/").join(path));
        let mut left: VecDeque<OsString> = names(&path).collect();
        let mut at = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let target = fs::read_link(&next);
            let missing = target
                .as_ref()
                .is_err_and(|error| error.kind() != std::io::ErrorKind::InvalidInput);
            self.folders.insert(at.clone());
            self.points.insert(next.clone());
            match target {
                Ok(target) if links < LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    for name in names(&target).rev() {
                        left.push_front(name);
                    }
                }
                _ => at = next,
            }
            if missing || links == LINKS {
                break;
            }
        }
        at
    }
}

/// The components of a path that have to be looked up.
fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn bench() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        (dir, root)
    }

    #[test]
    fn folders_of_each_link_and_of_the_file_are_on_the_chain() {
        let (_dir, root) = bench();
        fs::create_dir_all(root.join("..1")).unwrap();
        fs::write(root.join("..1/tls.crt"), "x").unwrap();
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/tls.crt", root.join("tls.crt")).unwrap();
        let mut chain = Chain::default();
        assert_eq!(
            chain.extend(&root.join("tls.crt")),
            root.join("..1/tls.crt")
        );
        assert!(chain.folders.contains(&root));
        assert!(chain.folders.contains(&root.join("..1")));
        for point in ["tls.crt", "..data", "..1", "..1/tls.crt"] {
            assert!(chain.points.contains(&root.join(point)), "{point}");
        }
    }

    #[test]
    fn a_loop_of_links_ends() {
        let (_dir, root) = bench();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let mut chain = Chain::default();
        chain.extend(&root.join("a"));
        assert!(chain.points.contains(&root.join("b")));
    }

    #[test]
    fn the_way_ends_at_the_first_thing_missing() {
        let (_dir, root) = bench();
        let mut chain = Chain::default();
        assert_eq!(chain.extend(&root.join("no/such/file")), root.join("no"));
        assert!(chain.folders.contains(&root));
        assert!(!chain.folders.contains(&root.join("no")));
    }

    #[test]
    fn a_way_through_a_file_ends_there() {
        let (_dir, root) = bench();
        fs::write(root.join("file"), "x").unwrap();
        let mut chain = Chain::default();
        assert_eq!(chain.extend(&root.join("file/a")), root.join("file/a"));
    }
}
