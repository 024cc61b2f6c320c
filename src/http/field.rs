//! Header fields (RFC 9110, section 5) as spans of one buffer.
//!
//! A head of HTTP/1.1 is one copy away from being a [`Fields`]; the fields that the proxy treats
//! specially are recognised once, when they come in, and found by [`Id`] afterwards. Removing a
//! field marks it, adding one appends: nothing is moved and nothing is hashed.

use std::cell::RefCell;

use smallvec::SmallVec;

/// Lists whose memory a thread keeps in stock, none of them with more bytes than this.
const STOCK: usize = 64;
const STOCKED: usize = 16 << 10;

thread_local! {
    static MEMORY: RefCell<Vec<(Vec<u8>, Vec<Entry>)>> = const { RefCell::new(Vec::new()) };
}

/// A part of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[allow(clippy::cast_possible_truncation)] // heads are bounded far below 4 GiB
    pub(in crate::http) const fn at(start: usize, len: usize) -> Self {
        Self {
            start: start as u32,
            end: (start + len) as u32,
        }
    }

    /// How long it is, in bytes.
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it holds nothing.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

macro_rules! ids {
    ($($variant:ident = $name:literal,)*) => {
        /// A field that the proxy treats specially.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Id {
            /// Passed on as it is.
            Other,
            /// No longer part of the message.
            Removed,
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Id {
            /// Recognises a field name, in any case.
            pub fn of(name: &[u8]) -> Self {
                // The length first: it alone settles most names.
                $(if name.len() == $name.len() && name.eq_ignore_ascii_case($name.as_bytes()) {
                    return Self::$variant;
                })*
                Self::Other
            }

            /// The name as it is usually written; empty for `Other` and `Removed`.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Other | Self::Removed => "",
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

ids! {
    Host = "Host",
    Connection = "Connection",
    KeepAlive = "Keep-Alive",
    ProxyConnection = "Proxy-Connection",
    TransferEncoding = "Transfer-Encoding",
    ContentLength = "Content-Length",
    Te = "TE",
    Trailer = "Trailer",
    Upgrade = "Upgrade",
    Http2Settings = "HTTP2-Settings",
    Expect = "Expect",
    Via = "Via",
    Date = "Date",
    Forwarded = "Forwarded",
    XForwardedFor = "X-Forwarded-For",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedHost = "X-Forwarded-Host",
    Cookie = "Cookie",
    Referer = "Referer",
    UserAgent = "User-Agent",
    MaxForwards = "Max-Forwards",
    Proxy = "Proxy",
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: Id,
    name: Span,
    value: Span,
}

/// An ordered list of header fields.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Fields {
    /// An empty list with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        let (mut stored, entries) = MEMORY
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| (Vec::new(), Vec::with_capacity(24)));
        stored.reserve(bytes);
        Self {
            bytes: stored,
            entries,
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// The bytes of a span.
    pub fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// Stores bytes that belong to the head but are not a field.
    ///
    /// A head is bounded far below 4 GiB by whoever reads it.
    #[allow(clippy::cast_possible_truncation)]
    pub fn store(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        Span {
            start,
            end: self.bytes.len() as u32,
        }
    }

    /// Stores what `write` appends to the buffer.
    #[allow(clippy::cast_possible_truncation)]
    pub fn store_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len() as u32;
        write(&mut self.bytes);
        Span {
            start,
            end: self.bytes.len() as u32,
        }
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let id = Id::of(name);
        let name = self.store(name);
        let value = self.store(value);
        self.entries.push(Entry { id, name, value });
    }

    /// Adds a field whose name was recognised before.
    pub fn push_known(&mut self, id: Id, name: &[u8], value: &[u8]) {
        debug_assert_eq!(id, Id::of(name));
        let name = self.store(name);
        let value = self.store(value);
        self.entries.push(Entry { id, name, value });
    }

    /// Adds a field whose name and value lie in bytes that were stored before.
    pub(in crate::http) fn push_stored(&mut self, name: Span, value: Span) -> Id {
        let id = Id::of(self.slice(name));
        self.entries.push(Entry { id, name, value });
        id
    }

    /// Adds a recognised field whose value `write` appends to the buffer.
    pub fn push_with(&mut self, id: Id, write: impl FnOnce(&mut Vec<u8>)) {
        let name = self.store(id.name().as_bytes());
        let value = self.store_with(write);
        self.entries.push(Entry { id, name, value });
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.entries
            .iter()
            .filter(|entry| entry.id != Id::Removed)
            .count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All fields: recognised id, name as it came, value.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &[u8], &[u8])> {
        self.entries
            .iter()
            .filter(|entry| entry.id != Id::Removed)
            .map(|entry| (entry.id, self.slice(entry.name), self.slice(entry.value)))
    }

    /// The first value of a recognised field.
    pub fn get(&self, id: Id) -> Option<&[u8]> {
        self.get_all(id).next()
    }

    /// All values of a recognised field.
    pub fn get_all(&self, id: Id) -> impl Iterator<Item = &[u8]> {
        self.entries
            .iter()
            .filter(move |entry| entry.id == id)
            .map(|entry| self.slice(entry.value))
    }

    /// Whether a recognised field is there.
    pub fn has(&self, id: Id) -> bool {
        self.entries.iter().any(|entry| entry.id == id)
    }

    /// Removes a recognised field, however often it stands there.
    pub fn remove(&mut self, id: Id) {
        self.remove_where(|candidate| candidate == id);
    }

    /// Removes the fields whose id satisfies the predicate.
    pub fn remove_where(&mut self, mut predicate: impl FnMut(Id) -> bool) {
        for entry in &mut self.entries {
            if predicate(entry.id) {
                entry.id = Id::Removed;
            }
        }
    }

    /// Removes the fields of this name, in any case.
    pub fn remove_named(&mut self, name: &[u8]) {
        for index in 0..self.entries.len() {
            if self
                .slice(self.entries[index].name)
                .eq_ignore_ascii_case(name)
            {
                self.entries[index].id = Id::Removed;
            }
        }
    }

    /// Removes what belongs to one connection only (RFC 9110, section 7.6.1): the fields that
    /// `Connection` names, and those that older implementations send without naming them.
    pub fn remove_hop_by_hop(&mut self) {
        if self.has(Id::Connection) {
            let mut named = SmallVec::<[Span; 4]>::new();
            for entry in self
                .entries
                .iter()
                .filter(|entry| entry.id == Id::Connection)
            {
                named.extend(self.list_items(entry.value));
            }
            for name in named {
                for index in 0..self.entries.len() {
                    let entry = self.entries[index];
                    // A peer cannot have removed what the message cannot do without.
                    if !matches!(
                        entry.id,
                        Id::Host | Id::ContentLength | Id::TransferEncoding
                    ) && self
                        .slice(entry.name)
                        .eq_ignore_ascii_case(self.slice(name))
                    {
                        self.entries[index].id = Id::Removed;
                    }
                }
            }
        }
        self.remove_where(|id| {
            matches!(
                id,
                Id::Connection
                    | Id::KeepAlive
                    | Id::ProxyConnection
                    | Id::Te
                    | Id::TransferEncoding
                    | Id::Upgrade
                    | Id::Http2Settings
            )
        });
    }

    /// Removes what only looks unlike a recognised field: `X_Forwarded_For`. Gateway interfaces
    /// (RFC 3875, section 4.1.18) make an underscore of each hyphen, and with that one field of
    /// two, of which the client wrote one.
    pub fn remove_disguised(&mut self) {
        for index in 0..self.entries.len() {
            let Entry { id, name, .. } = self.entries[index];
            if id == Id::Other && memchr::memchr(b'_', self.slice(name)).is_some() {
                let plain = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
                let plain: SmallVec<[u8; 32]> = self.slice(name).iter().map(plain).collect();
                if Id::of(&plain) != Id::Other {
                    self.entries[index].id = Id::Removed;
                }
            }
        }
    }

    /// The non-empty items of a comma-separated value (RFC 9110, section 5.6.1).
    #[allow(clippy::cast_possible_truncation)]
    fn list_items(&self, value: Span) -> impl Iterator<Item = Span> {
        let text = self.slice(value);
        let base = text.as_ptr() as usize;
        list(text).map(move |item| {
            let start = value.start + (item.as_ptr() as usize - base) as u32;
            Span {
                start,
                end: start + item.len() as u32,
            }
        })
    }
}

/// Each request needs two lists: their memory goes from one to the next.
impl Drop for Fields {
    fn drop(&mut self) {
        if self.entries.capacity() == 0 || self.bytes.capacity() > STOCKED {
            return;
        }
        let (mut bytes, mut entries) = (
            std::mem::take(&mut self.bytes),
            std::mem::take(&mut self.entries),
        );
        bytes.clear();
        entries.clear();
        // At the end of a thread there may be no stock any more.
        let _ = MEMORY.try_with(|stock| {
            if let Ok(mut stock) = stock.try_borrow_mut()
                && stock.len() < STOCK
            {
                stock.push((bytes, entries));
            }
        });
    }
}

/// The non-empty items of a comma-separated list, without surrounding white space (RFC 9110,
/// section 5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

/// Whether a field of this name could be taken by an upstream for one that tells of a client's
/// certificate (RFC 9440 and others); some make no difference between `-` and `_`.
pub fn is_claim(name: &[u8]) -> bool {
    let same = |one: &u8, other: &u8| match one {
        b'_' => *other == b'-',
        one => one.eq_ignore_ascii_case(other),
    };
    let begins = |with: &[u8]| {
        name.len() >= with.len() && name.iter().zip(with).all(|(one, other)| same(one, other))
    };
    begins(b"client-cert") || begins(b"x-client-cert")
}

/// Whether an upstream could take a field for the one of this name: some make no difference between
/// `-` and `_`.
pub fn is_same_name(one: &[u8], other: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let same = |(one, other): (&u8, u8)| plain(*one).eq_ignore_ascii_case(&plain(other));
    one.len() == other.len() && one.iter().zip(other.bytes()).all(same)
}

/// Whether this is a token (RFC 9110, section 5.6.2).
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_token_byte)
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in list {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields
            .iter()
            .map(|(_, name, _)| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn fields_named_in_connection_are_removed() {
        // RFC 9110, section 7.6.1
        let mut fields = fields(&[
            ("Host", "a"),
            ("Connection", "close, X-Hop ,, Keep-Alive"),
            ("x-hop", "1"),
            ("X-HOP", "2"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("X-Kept", "3"),
        ]);
        fields.remove_hop_by_hop();
        assert_eq!(names(&fields), ["Host", "X-Kept"]);
    }

    #[test]
    fn connection_cannot_take_away_host_or_length() {
        let mut fields = fields(&[
            ("Connection", "Host, Content-Length"),
            ("Host", "a"),
            ("Content-Length", "2"),
        ]);
        fields.remove_hop_by_hop();
        assert_eq!(names(&fields), ["Host", "Content-Length"]);
    }

    #[test]
    fn a_recognised_field_cannot_be_disguised() {
        let mut fields = fields(&[
            ("X_Forwarded_For", "1"),
            ("x-forwarded_proto", "2"),
            ("Content_Length", "3"),
            ("X_Own", "4"),
        ]);
        fields.remove_disguised();
        assert_eq!(names(&fields), ["X_Own"]);
    }

    #[test]
    fn names_are_recognised_in_any_case() {
        assert_eq!(Id::of(b"X-FORWARDED-for"), Id::XForwardedFor);
        assert_eq!(Id::of(b"X-Forwarded-Fox"), Id::Other);
        assert_eq!(Id::of(b""), Id::Other);
    }

    #[test]
    fn what_only_looks_like_one_of_the_fields_is_a_claim_too() {
        for name in [
            "Client-Cert",
            "client_cert",
            "CLIENT-CERT-CHAIN",
            "x_Client-cert_SAN",
        ] {
            assert!(is_claim(name.as_bytes()), "{name}");
        }
        for name in ["client", "X-Client", "Accept", "Client.Cert"] {
            assert!(!is_claim(name.as_bytes()), "{name}");
        }
    }
}
