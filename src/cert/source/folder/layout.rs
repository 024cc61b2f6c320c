//! Which files of a folder are certificates, by how the usual programs lay them out.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cert::load::MAX_BYTES;
use crate::cert::source::{Files, read};

/// File name extensions of certificates, and of keys beside them.
const CHAINS: [&[u8]; 4] = [b"pem", b"crt", b"cer", b"cert"];

/// What HAProxy wants behind the extension where there is one for each kind of key.
const KINDS: [&[u8]; 2] = [b".ecdsa", b".rsa"];

/// Which of a folder's files are certificates. Those in `known` that are bundles stay so while the
/// file is there, whatever it holds at the moment.
pub(super) fn classify(
    folder: &Path,
    files: &BTreeSet<Vec<u8>>,
    known: &BTreeSet<Files>,
) -> Vec<Files> {
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
    found: Vec<Files>,
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
    /// Caddy), `NAME.pem` and `NAME-key.pem` (mkcert), `NAME.pem` and `NAME.pem.key`,
    /// `NAME-cert.pem` and `NAME-key.pem`.
    fn pairs(&mut self) {
        let mut stems = BTreeMap::new();
        for (rank, extension) in CHAINS.iter().enumerate() {
            for name in self.files.iter().filter(|name| !self.used.contains(*name)) {
                let Some(stem) = stem(name, extension) else {
                    continue;
                };
                if [&b".issuer"[..], b"-key", b"_key"]
                    .iter()
                    .any(|end| stem.ends_with(end))
                {
                    continue;
                }
                let keys = [
                    [stem, b".key"].concat(),
                    [name, b".key".as_slice()].concat(),
                    [stem, b"-key.pem"].concat(),
                    [stem, b"-key.", extension].concat(),
                ];
                let both = [b"-", b"_"].into_iter().filter_map(|dash| {
                    let before = stem.strip_suffix(b"cert")?.strip_suffix(dash)?;
                    Some([before, dash, b"key.", extension].concat())
                });
                let key = keys
                    .into_iter()
                    .chain(both)
                    .find(|key| self.files.contains(key));
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

    /// `cert.pem` and `key.pem`, or `privkey.pem`; `certificate.crt` and `private.key`, as ZeroSSL
    /// packs them; else `chain.pem` and `key.pem`.
    fn cert_and_key(&mut self) {
        let all: [[&[u8]; 2]; 4] = [
            [b"cert.pem", b"key.pem"],
            [b"cert.pem", b"privkey.pem"],
            [b"certificate.crt", b"private.key"],
            [b"chain.pem", b"key.pem"],
        ];
        for [chain, key] in all {
            let is_there = |name| self.files.contains(name) && !self.used.contains(name);
            if is_there(chain) && is_there(key) {
                self.pair(chain, key);
            }
        }
    }

    /// Files that hold a chain and its key, as HAProxy wants them.
    fn bundles(&mut self, known: &BTreeSet<Files>) {
        let candidates: Vec<_> = self
            .files
            .iter()
            .filter(|name| !self.used.contains(*name))
            .filter(|name| may_be_chain(name))
            .collect();
        for name in candidates {
            let bundle = Files {
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
        self.found.push(Files {
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

/// Whether a file of this name may be a part of a certificate.
pub(super) fn is_of_interest(name: &[u8]) -> bool {
    stem(name, b"key").is_some() || may_be_chain(name)
}

fn may_be_chain(name: &[u8]) -> bool {
    let mut kinds = KINDS.iter();
    let name = kinds
        .find_map(|kind| name.strip_suffix(*kind))
        .unwrap_or(name);
    let mut extensions = CHAINS.iter();
    extensions.any(|extension| stem(name, extension).is_some())
}
