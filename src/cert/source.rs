//! Where certificates come from: configured places, made concrete.
//!
//! A `[[certificate]]` names a pair, a bundle, or a folder to search ([`folder`]). Each certificate
//! found is one [`Source`]: the files to read, and how to treat what they hold. [`read`] reads them.

pub mod folder;
pub mod read;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{CertificateSource, Location};

pub use folder::Search;
pub use read::{Parts, Reader, Reading, Writings};

/// One certificate's files, and how to treat what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What identifies it.
    pub files: Files,
    /// For people: the path of the chain.
    pub label: Arc<str>,
    /// The files, for people and the inventory.
    pub shown: Arc<[String]>,
    /// An OCSP response, where one was configured.
    pub ocsp: Option<PathBuf>,
    /// The searched folder in which it was found.
    pub folder: Option<Arc<Path>>,
    /// Its place in the configuration, from 0.
    pub order: usize,
    /// Take what is on disk even when it is worse.
    pub accept_worse: bool,
    /// Keep a copy in the state directory.
    pub keep: bool,
    /// Its renewals are no news.
    pub routine: bool,
}

/// The files that make a certificate: the identity of a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Files {
    /// The chain, leaf first; in a bundle, the key too.
    pub chain: PathBuf,
    /// The key; `None` for a bundle.
    pub key: Option<PathBuf>,
}

impl Source {
    /// The source that a configured pair or bundle is; `None` for a folder, which has to be searched.
    pub fn configured(config: &CertificateSource, order: usize) -> Option<Self> {
        let (chain, key, ocsp) = match &config.location {
            Location::Pair { chain, key, ocsp } => (chain, Some(key), ocsp),
            Location::Bundle { file, ocsp } => (file, None, ocsp),
            Location::Folder { .. } => return None,
        };
        let files = Files {
            chain: chain.clone(),
            key: key.cloned(),
        };
        Some(Self {
            ocsp: ocsp.clone(),
            ..Self::new(files, config, order)
        })
    }

    /// The source that was found in a configured folder.
    pub fn found(
        found: Files,
        folder: &Arc<Path>,
        config: &CertificateSource,
        order: usize,
    ) -> Self {
        Self {
            folder: Some(Arc::clone(folder)),
            ..Self::new(found, config, order)
        }
    }

    fn new(files: Files, config: &CertificateSource, order: usize) -> Self {
        Self {
            label: files.chain.to_string_lossy().into(),
            shown: std::iter::once(&files.chain)
                .chain(&files.key)
                .map(|path| path.to_string_lossy().into_owned())
                .collect(),
            files,
            ocsp: None,
            folder: None,
            order,
            accept_worse: config.accept_worse,
            keep: config.keep,
            routine: config.routine,
        }
    }

    /// The files to watch and read; the last ones need not exist.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let ocsp = self.ocsp_path();
        [
            Some(self.files.chain.clone()),
            self.files.key.clone(),
            Some(ocsp),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether all is there that it names: a staple only where one was configured.
    pub fn is_whole(&self) -> bool {
        let named = std::iter::once(&self.files.chain)
            .chain(&self.files.key)
            .chain(&self.ocsp);
        named.into_iter().all(|path| path.exists())
    }

    /// Where a staple is looked for: `<chain>.ocsp` unless configured.
    pub fn ocsp_path(&self) -> PathBuf {
        self.ocsp.clone().unwrap_or_else(|| {
            let mut path = self.files.chain.clone().into_os_string();
            path.push(".ocsp");
            path.into()
        })
    }

    /// Whether it stands for a searched folder itself: there is nothing to read, only to say that it
    /// cannot be searched.
    pub fn is_folder(&self) -> bool {
        self.folder.as_deref() == Some(&*self.files.chain)
    }

    /// The file with the key, where everybody on this machine may read it.
    pub fn exposed_key(&self) -> Option<&Path> {
        const READ: u32 = 0o004;
        const ENTER: u32 = 0o001;
        let may = |path: &Path, what: u32| {
            std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & what != 0)
        };
        let key = self.files.key.as_deref().unwrap_or(&self.files.chain);
        let real = key.canonicalize().ok()?;
        let exposed = may(&real, READ) && real.ancestors().skip(1).all(|above| may(above, ENTER));
        exposed.then_some(key)
    }

    /// Whether an operator means it by `text`: one of its files.
    pub fn is_called(&self, text: &str) -> bool {
        *self.label == *text || self.shown.iter().any(|path| path == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> CertificateSource {
        CertificateSource {
            location: Location::Pair {
                chain: "/a/chain.pem".into(),
                key: "/a/key.pem".into(),
                ocsp: None,
            },
            accept_worse: false,
            keep: true,
            routine: false,
            line: 0,
        }
    }

    #[test]
    fn a_pair_is_called_by_either_of_its_files() {
        let source = Source::configured(&pair(), 0).unwrap();
        assert!(source.is_called("/a/chain.pem") && source.is_called("/a/key.pem"));
        assert!(!source.is_called("/a"));
        assert_eq!(source.ocsp_path(), Path::new("/a/chain.pem.ocsp"));
    }

    #[test]
    fn a_key_is_exposed_where_everybody_may_read_it_and_reach_it() {
        use std::fs::{Permissions, create_dir, set_permissions, write};
        let dir = tempfile::tempdir().unwrap();
        let (folder, key) = (
            dir.path().join("private"),
            dir.path().join("private/key.pem"),
        );
        create_dir(&folder).unwrap();
        write(&key, "x").unwrap();
        let mut source = Source::configured(&pair(), 0).unwrap();
        source.files.key = Some(key.clone());
        for (outer, inner, file, exposed) in [
            (0o755, 0o755, 0o644, true),
            (0o755, 0o755, 0o640, false),
            (0o755, 0o700, 0o644, false),
            (0o700, 0o755, 0o644, false),
        ] {
            set_permissions(dir.path(), Permissions::from_mode(outer)).unwrap();
            set_permissions(&folder, Permissions::from_mode(inner)).unwrap();
            set_permissions(&key, Permissions::from_mode(file)).unwrap();
            assert_eq!(
                source.exposed_key().is_some(),
                exposed,
                "{outer:o} {inner:o} {file:o}"
            );
        }
    }

    #[test]
    fn a_folder_is_no_source_by_itself() {
        let config = CertificateSource {
            location: Location::Folder {
                folder: "/a".into(),
            },
            ..pair()
        };
        assert_eq!(Source::configured(&config, 0), None);
        let found = |chain: &str| {
            let files = Files {
                chain: chain.into(),
                key: None,
            };
            Source::found(files, &Arc::from(Path::new("/a")), &config, 0)
        };
        assert!(found("/a").is_folder() && !found("/a/chain.pem").is_folder());
    }
}
