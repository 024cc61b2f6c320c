//! Which site and which upstream a request is for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::error::Refusal;
use super::limit::Bucket;
use crate::config::{self, Compression, SiteName, SiteTls};
use crate::upstream::{Upstream, Upstreams};

/// Identifies a site within one table, for tables beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteIndex(usize);

impl SiteIndex {
    /// Its place in [`Table::sites`].
    pub const fn get(self) -> usize {
        self.0
    }
}

/// A site, as requests see it.
#[derive(Debug)]
pub struct Site {
    /// Its first name, for logs and metrics.
    pub label: Arc<str>,
    /// What it asks of the connection that its requests come on.
    pub tls: Arc<SiteTls>,
    /// What it may still be asked for, where that is limited.
    pub rate: Option<Bucket>,
    /// How its responses are compressed, where they are.
    pub compression: Option<Arc<Compression>>,
    /// The longest path first.
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    path: Arc<str>,
    upstream: Arc<Upstream>,
}

/// All sites and routes of a configuration.
#[derive(Debug, Default)]
pub struct Table {
    sites: Vec<Site>,
    exact: HashMap<Arc<str>, SiteIndex>,
    wildcard: HashMap<Arc<str>, SiteIndex>,
    any: Option<SiteIndex>,
    /// For requests that name no host, which only HTTP/1.0 may.
    nameless: Option<SiteIndex>,
}

impl Table {
    /// Builds it. A configuration names only upstreams that exist.
    pub fn build(sites: &[config::Site], upstreams: &Upstreams) -> Self {
        let mut table = Self::default();
        for (index, site) in sites.iter().enumerate() {
            let index = SiteIndex(index);
            for name in &site.names {
                match name {
                    SiteName::Exact(name) => {
                        table.exact.insert(Arc::clone(name), index);
                    }
                    SiteName::Wildcard(parent) => {
                        table.wildcard.insert(Arc::clone(parent), index);
                    }
                    SiteName::Any => table.any = Some(index),
                }
            }
            if site.default || table.nameless.is_none() {
                table.nameless = Some(index);
            }
            table.sites.push(Site::build(site, upstreams));
        }
        table
    }

    /// All sites, in the order of the configuration.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// One of them.
    pub fn site(&self, index: SiteIndex) -> &Site {
        &self.sites[index.0]
    }

    /// The site for a host (lower case, without port or trailing dot): an exact name before a
    /// wildcard before `*`.
    pub fn find(&self, host: &str) -> Option<SiteIndex> {
        self.exact
            .get(host)
            .or_else(|| {
                let (label, parent) = host.split_once('.')?;
                self.wildcard.get(parent).filter(|_| !label.is_empty())
            })
            .copied()
            .or(self.any)
    }

    /// The site for a request that names no host.
    pub const fn nameless(&self) -> Option<SiteIndex> {
        self.nameless
    }
}

impl Site {
    fn build(site: &config::Site, upstreams: &Upstreams) -> Self {
        let routes = site
            .routes
            .iter()
            .filter_map(|route| {
                let upstream = Arc::clone(upstreams.get(&route.upstream)?);
                Some(Route {
                    path: Arc::clone(&route.path),
                    upstream,
                })
            })
            .collect();
        let label = match &site.names[..] {
            [SiteName::Exact(name), ..] => Arc::clone(name),
            [SiteName::Wildcard(parent), ..] => format!("*.{parent}").into(),
            [SiteName::Any, ..] | [] => "*".into(),
        };
        Self {
            label,
            tls: Arc::clone(&site.tls),
            rate: site.rate.map(Bucket::new),
            compression: site.compression.clone(),
            routes,
        }
    }

    /// The upstream of the longest prefix that matches. The path is compared as an upstream would
    /// read it, so that a prefix cannot be walked around by `/a/../b` or `%61`.
    pub fn upstream(&self, path: &[u8]) -> Result<&Arc<Upstream>, Refusal> {
        // Most sites have one route, and most paths are plain.
        if let [only] = &self.routes[..]
            && &*only.path == "/"
        {
            return Ok(&only.upstream);
        }
        let path = normalise(path).ok_or(Refusal::Path)?;
        self.routes
            .iter()
            .find(|route| is_prefix(route.path.as_bytes(), &path))
            .map(|route| &route.upstream)
            .ok_or(Refusal::NoRoute)
    }
}

/// Whether `prefix` covers `path` on the boundary of a segment.
fn is_prefix(prefix: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with(b"/") || rest.starts_with(b"/"))
}

/// Percent-decodes, merges slashes and removes dot segments (RFC 3986, section 5.2.4); `None` when
/// the path leaves the root. For comparison only: what is forwarded is what the client sent.
fn normalise(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let plain = memchr::memchr(b'%', path).is_none()
        && memchr::memmem::find(path, b"/.").is_none()
        && memchr::memmem::find(path, b"//").is_none();
    if plain {
        return Some(Cow::Borrowed(path));
    }
    let decoded = percent_decode(path);
    let mut out: Vec<&[u8]> = Vec::new();
    let mut ends_open = false;
    for segment in decoded.split(|&byte| byte == b'/') {
        ends_open = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                out.pop()?;
            }
            _ => out.push(segment),
        }
    }
    let mut path = Vec::with_capacity(decoded.len());
    for segment in &out {
        path.push(b'/');
        path.extend_from_slice(segment);
    }
    if ends_open {
        path.push(b'/');
    }
    Some(Cow::Owned(path))
}

fn percent_decode(path: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| (byte as char).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match (byte, digit(path.get(at + 1)), digit(path.get(at + 2))) {
            #[allow(clippy::cast_possible_truncation)] // two hexadecimal digits
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> Option<String> {
        normalise(path.as_bytes()).map(|path| String::from_utf8_lossy(&path).into_owned())
    }

    #[test]
    fn paths_are_compared_as_an_upstream_would_read_them() {
        for (path, expected) in [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("/a/./b", Some("/a/b")),
            ("/a/../b", Some("/b")),
            ("//a//b/", Some("/a/b/")),
            ("/%61pi/", Some("/api/")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/a/%2fb", Some("/a/b")),
            ("/a/..", Some("/")),
            ("/..", None),
            ("/a/../../b", None),
            ("/100%", Some("/100%")),
            ("/%zz", Some("/%zz")),
        ] {
            assert_eq!(normal(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_prefix_ends_with_a_segment() {
        for (prefix, path, expected) in [
            ("/", "/x", true),
            ("/api", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apiary", false),
            ("/api/", "/api/x", true),
            ("/api/", "/api", false),
        ] {
            assert_eq!(
                is_prefix(prefix.as_bytes(), path.as_bytes()),
                expected,
                "{prefix} {path}"
            );
        }
    }

    fn table(names: &[&[SiteName]]) -> Table {
        let sites: Vec<_> = names
            .iter()
            .map(|names| config::Site {
                names: names.to_vec(),
                default: false,
                rate: None,
                compression: None,
                routes: vec![],
                tls: Arc::default(),
            })
            .collect();
        Table::build(&sites, &Upstreams::default())
    }

    #[test]
    fn an_exact_name_comes_before_a_wildcard_before_any() {
        let exact = SiteName::Exact("a.example.com".into());
        let wildcard = SiteName::Wildcard("example.com".into());
        let table = table(&[&[SiteName::Any], &[wildcard], &[exact]]);
        let find = |host| table.find(host).map(SiteIndex::get);
        assert_eq!(find("a.example.com"), Some(2));
        assert_eq!(find("b.example.com"), Some(1));
        assert_eq!(find("a.b.example.com"), Some(0));
        assert_eq!(find("example.com"), Some(0));
        assert_eq!(table.nameless().map(SiteIndex::get), Some(0));
    }

    #[test]
    fn without_a_site_for_any_an_unknown_host_has_none() {
        let table = table(&[&[SiteName::Exact("a.test".into())]]);
        assert_eq!(table.find("b.test"), None);
    }
}
