//! What rules are made with, beside the configuration: what is in files (the bodies of error pages,
//! users, whether there is maintenance), and what has been counted so far. Read by the control plane;
//! a request asks neither disk nor system.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::config::{Config, Rules};
use crate::http::kept::Kept;
use crate::proxy::auth::turns::Turns;
use crate::proxy::auth::users::Users;
use crate::proxy::tally::Tally;
use crate::tls::file;

/// The largest error page: it is held in memory, and sent to whoever provokes it.
const LARGEST: u64 = 1 << 20;

/// What there is for one configuration.
#[derive(Debug, Clone, Default)]
pub struct Material {
    pages: BTreeMap<PathBuf, Arc<Page>>,
    flags: BTreeMap<PathBuf, Arc<Flag>>,
    users: BTreeMap<PathBuf, Arc<Users>>,
    turns: OnceLock<Arc<Turns>>,
    tally: Tally,
}

/// The body of an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// By the name of its file, unless there is a head in it.
    pub content_type: Cow<'static, str>,
    /// The body.
    pub body: Box<[u8]>,
}

/// A file that is there or not.
#[derive(Debug)]
pub struct Flag {
    path: PathBuf,
    up: AtomicBool,
}

/// Something that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the error page {} cannot be used: {error}", path.display())]
pub struct Fault {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Material {
    /// Reads what a configuration names; what cannot be read, and was before, stays. Blocks.
    pub fn read(config: &Config, previous: &Self) -> (Self, Vec<Fault>) {
        let (mut read, mut faults) = (Self::default(), Vec::new());
        // The same for as long as the process lives.
        read.turns.clone_from(&previous.turns);
        read.tally = Tally::new(config, &previous.tally);
        for rules in all(config) {
            for path in rules.page_files() {
                if read.pages.contains_key(path) || faults.iter().any(|f: &Fault| f.path == *path) {
                    continue;
                }
                let page = match Page::read(path) {
                    Ok(page) => Some(Arc::new(page)),
                    Err(error) => {
                        faults.push(Fault {
                            path: path.clone(),
                            error,
                        });
                        previous.page(path)
                    }
                };
                read.pages.extend(page.map(|page| (path.clone(), page)));
            }
            if let Some(path) = rules.maintenance_file() {
                let flag = || {
                    let known = previous.flags.get(path).cloned();
                    known.unwrap_or_else(|| Arc::new(Flag::read(path)))
                };
                read.flags.entry(path.clone()).or_insert_with(flag);
            }
            if let Some(path) = rules.users_file() {
                let users = || {
                    let known = previous.users.get(path).cloned();
                    known.unwrap_or_else(|| Arc::new(Users::read(path)))
                };
                read.users.entry(path.clone()).or_insert_with(users);
            }
        }
        (read, faults)
    }

    /// The files with users.
    pub fn all_users(&self) -> impl Iterator<Item = &Arc<Users>> {
        self.users.values()
    }

    /// One of them.
    pub(in crate::proxy) fn users(&self, path: &Path) -> Arc<Users> {
        let known = self.users.get(path).cloned();
        known.unwrap_or_else(|| Arc::new(Users::read(path)))
    }

    /// Whose turn it is to have a password hashed.
    pub(in crate::proxy) fn turns(&self) -> &Arc<Turns> {
        self.turns.get_or_init(Arc::default)
    }

    /// What clients have had of what is limited.
    pub(in crate::proxy) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The files that are there or not.
    pub fn flags(&self) -> impl Iterator<Item = &Arc<Flag>> {
        self.flags.values()
    }

    /// One of them. One that was not read is not there.
    pub(super) fn flag(&self, path: &Path) -> Arc<Flag> {
        self.flags.get(path).cloned().unwrap_or_else(|| {
            Arc::new(Flag {
                path: path.to_owned(),
                up: AtomicBool::new(false),
            })
        })
    }

    /// A page, where it could be read.
    pub(super) fn page(&self, path: &Path) -> Option<Arc<Page>> {
        self.pages.get(path).cloned()
    }
}

/// All rules of a configuration.
fn all(config: &Config) -> impl Iterator<Item = &Rules> {
    let sites = config.sites.iter().flat_map(|site| {
        let routes = site.routes.iter().map(|route| &route.rules);
        std::iter::once(&site.rules).chain(routes)
    });
    std::iter::once(&config.defaults).chain(sites)
}

impl Page {
    fn read(path: &Path) -> io::Result<Self> {
        let body = file::read_one(path, LARGEST)?;
        let kept = Kept::read(&body);
        let extension = path.extension().and_then(|extension| extension.to_str());
        let content_type = match extension.map(str::to_ascii_lowercase).as_deref() {
            _ if kept.has_head => "text/html; charset=utf-8",
            Some("json") => "application/json",
            Some("txt" | "text") => "text/plain; charset=utf-8",
            Some("xml") => "application/xml",
            _ => "text/html; charset=utf-8",
        };
        Ok(Self {
            content_type: match kept.content_type {
                Some(said) => Cow::Owned(said.to_owned()),
                None => Cow::Borrowed(content_type),
            },
            body: kept.body.into(),
        })
    }
}

impl Flag {
    fn read(path: &Path) -> Self {
        let flag = Self {
            path: path.to_owned(),
            up: AtomicBool::new(false),
        };
        flag.look();
        flag
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was there when somebody last looked.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Looks; what it has become, where that is news. One that cannot be looked at stays what it
    /// was. Blocks.
    pub fn look(&self) -> Option<bool> {
        let up = self.path.try_exists().ok()?;
        (self.up.swap(up, Ordering::Relaxed) != up).then_some(up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_in_front_of_a_page_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, kind, body) in [
            ("a.html", "<p>", "text/html; charset=utf-8", "<p>"),
            (
                "b.http",
                "HTTP/1.0 503 No\r\nX: y\r\ncontent-type: text/plain\r\n\r\nno\r\n\r\nnever",
                "text/plain",
                "no\r\n\r\nnever",
            ),
            (
                "c.http",
                "HTTP/1.1 503 No\n\nno",
                "text/html; charset=utf-8",
                "no",
            ),
            (
                "d.txt",
                "HTTP/1.1 is old",
                "text/plain; charset=utf-8",
                "HTTP/1.1 is old",
            ),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let page = Page::read(&path).unwrap();
            assert_eq!(page.content_type, kind, "{name}");
            assert_eq!(&page.body[..], body.as_bytes(), "{name}");
        }
    }
}
