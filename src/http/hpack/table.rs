//! The two tables of HPACK (RFC 7541, section 2.3): the one that never changes, and the one that a
//! sender fills.

use std::collections::VecDeque;

/// The static table (RFC 7541, appendix A). Its first entry has the index 1.
#[rustfmt::skip]
pub const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];

/// What a table holds at most if nothing else was agreed on (RFC 9113, section 6.5.2), in bytes as
/// [`size`] counts them.
pub const DEFAULT_SIZE: usize = 4096;

/// What a field is counted as (RFC 7541, section 4.1; RFC 9113, section 6.5.2).
pub const fn size(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + 32
}

/// A field in the dynamic table.
#[derive(Debug)]
pub struct Entry<T> {
    text: Box<[u8]>,
    name: usize,
    /// What is known of it.
    pub known: T,
}

impl<T> Entry<T> {
    /// One whose name is the first bytes of this.
    pub fn new(text: &[u8], name: usize, known: T) -> Self {
        Self {
            text: text.into(),
            name,
            known,
        }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.text[..self.name]
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.text[self.name..]
    }

    const fn size(&self) -> usize {
        self.text.len() + 32
    }
}

/// A dynamic table: the newest entry first.
#[derive(Debug)]
pub struct Dynamic<T> {
    entries: VecDeque<Entry<T>>,
    size: usize,
    max: usize,
}

impl<T> Default for Dynamic<T> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max: DEFAULT_SIZE,
        }
    }
}

impl<T> Dynamic<T> {
    /// The entry at a place, from 0 on.
    pub fn get(&self, place: usize) -> Option<&Entry<T>> {
        self.entries.get(place)
    }

    /// All of them, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.entries.iter()
    }

    /// What it may hold.
    pub const fn max(&self) -> usize {
        self.max
    }

    /// Changes what it may hold (RFC 7541, section 4.3).
    pub fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(0);
    }

    /// Adds an entry. One that does not fit empties the table (RFC 7541, section 4.4).
    pub fn insert(&mut self, entry: Entry<T>) {
        self.evict(entry.size());
        if entry.size() <= self.max {
            self.size += entry.size();
            self.entries.push_front(entry);
        }
    }

    fn evict(&mut self, wanted: usize) {
        while self.size + wanted > self.max
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}
