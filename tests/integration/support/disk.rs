//! A certificate on disk, and the ways in which tools put a renewed one in its place.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::Leaf;

/// How a renewed pair comes to lie on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Both files are truncated and written again.
    InPlace,
    /// Each file is written beside, then renamed over the old.
    Rename,
    /// The chain is replaced, and after a while the key.
    ChainThenKey,
    /// The key is replaced, and after a while the chain.
    KeyThenChain,
    /// `live/` holds symbolic links into `archive/`, which are made anew.
    Certbot,
    /// Files are links through `..data`, a link that is replaced by rename.
    Kubernetes,
    /// The folder is removed, and made again.
    FolderRecreated,
}

/// A pair on disk.
#[derive(Debug)]
pub struct Placed {
    pub chain: PathBuf,
    pub key: PathBuf,
    way: Way,
    folder: PathBuf,
    version: u32,
}

impl Placed {
    /// Puts a pair into a folder, which is created, laid out as this way needs it.
    pub fn new(way: Way, folder: &Path, leaf: &Leaf) -> Self {
        let (chain, key) = match way {
            Way::Certbot => ("live/site/fullchain.pem", "live/site/privkey.pem"),
            Way::Kubernetes => ("tls.crt", "tls.key"),
            _ => ("fullchain.pem", "privkey.pem"),
        };
        let mut placed = Self {
            chain: folder.join(chain),
            key: folder.join(key),
            way,
            folder: folder.to_owned(),
            version: 0,
        };
        fs::create_dir_all(placed.chain.parent().unwrap()).unwrap();
        if way == Way::Certbot {
            fs::create_dir_all(folder.join("archive/site")).unwrap();
        }
        placed.write(leaf);
        if way == Way::Kubernetes {
            symlink("..data/tls.crt", &placed.chain).unwrap();
            symlink("..data/tls.key", &placed.key).unwrap();
        }
        placed
    }

    /// Two files, replaced by rename: what most tests want.
    pub fn pair(folder: &Path, leaf: &Leaf) -> Self {
        Self::new(Way::Rename, folder, leaf)
    }

    /// Puts another pair in its place. It is whole when this returns.
    pub fn write(&mut self, leaf: &Leaf) {
        self.write_with_gap(leaf, || ());
    }

    /// The same, with something done at the moment when only half of it is there.
    pub fn write_with_gap(&mut self, leaf: &Leaf, gap: impl FnOnce()) {
        self.version += 1;
        match self.way {
            Way::InPlace => {
                fs::write(&self.chain, &leaf.chain).unwrap();
                gap();
                write_private(&self.key, &leaf.key);
            }
            Way::Rename | Way::ChainThenKey => {
                replace(&self.chain, &leaf.chain);
                gap();
                replace(&self.key, &leaf.key);
            }
            Way::KeyThenChain => {
                replace(&self.key, &leaf.key);
                gap();
                replace(&self.chain, &leaf.chain);
            }
            Way::Certbot => self.write_like_certbot(leaf, gap),
            Way::Kubernetes => self.write_like_kubernetes(leaf, gap),
            Way::FolderRecreated => {
                fs::remove_dir_all(&self.folder).unwrap();
                gap();
                fs::create_dir_all(&self.folder).unwrap();
                fs::write(&self.chain, &leaf.chain).unwrap();
                write_private(&self.key, &leaf.key);
            }
        }
    }

    fn write_like_certbot(&self, leaf: &Leaf, gap: impl FnOnce()) {
        let file = |kind: &str| format!("archive/site/{kind}{}.pem", self.version);
        let (chain, key) = (file("fullchain"), file("privkey"));
        write_private(&self.folder.join(&key), &leaf.key);
        fs::write(self.folder.join(&chain), &leaf.chain).unwrap();
        // It unlinks and links; it does not rename.
        let link = |link: &Path, target: &str| {
            let _ = fs::remove_file(link);
            symlink(Path::new("../..").join(target), link).unwrap();
        };
        link(&self.key, &key);
        gap();
        link(&self.chain, &chain);
    }

    fn write_like_kubernetes(&self, leaf: &Leaf, gap: impl FnOnce()) {
        let version = format!("..2026_11_23_10_00_{:09}", self.version);
        let folder = self.folder.join(&version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), &leaf.chain).unwrap();
        write_private(&folder.join("tls.key"), &leaf.key);
        gap();
        let data = self.folder.join("..data");
        let old = fs::read_link(&data);
        let temporary = self.folder.join("..data_tmp");
        symlink(&version, &temporary).unwrap();
        fs::rename(&temporary, &data).unwrap();
        if let Ok(old) = old {
            fs::remove_dir_all(self.folder.join(old)).unwrap();
        }
    }
}

/// Replaces a file by another: readers see the old or the new, never a half.
pub fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    write_private(&beside, content);
    fs::rename(&beside, path).unwrap();
}

/// Writes a file that only its owner may read, as those are that hold a key.
fn write_private(path: &Path, content: &str) {
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .unwrap();
}
