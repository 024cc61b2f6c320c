//! Header fields (RFC 9110, section 5) as lines of one buffer.
//!
//! A head of HTTP/1.1 is one copy away from being a [`Fields`], and is written again in as few pieces
//! as there are gaps in it: each field is a line of the buffer as it will be sent. The fields that the
//! proxy treats specially are recognised once, when they come in, and found by [`Id`] afterwards; a
//! set says which of them there are. Removing a field marks it, adding one appends: nothing is moved
//! and nothing is hashed.

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

    /// The same place in the text that is stored there.
    pub(in crate::http) fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }

    /// A part of it.
    pub(in crate::http) const fn part(self, offset: usize, len: usize) -> Self {
        Self::at(self.start as usize + offset, len)
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
            /// It tells of a client's certificate, see [`is_claim`].
            Claim,
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Id {
            /// The name as it is usually written; empty for those that have none of their own.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Other | Self::Removed | Self::Claim => "",
                    $(Self::$variant => $name,)*
                }
            }
        }

        const KNOWN: &[Id] = &[$(Id::$variant,)*];
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

/// Where names are looked up: no two of those that are known share a place.
static PLACES: [Id; 64] = {
    let mut places = [Id::Other; 64];
    let mut at = 0;
    while at < KNOWN.len() {
        let place = place(KNOWN[at].name().as_bytes());
        assert!(
            matches!(places[place], Id::Other),
            "another factor is wanted"
        );
        places[place] = KNOWN[at];
        at += 1;
    }
    places
};

const fn place(name: &[u8]) -> usize {
    match name {
        [] => 0,
        [first, ..] => {
            let (first, last) = (*first | 0x20, name[name.len() - 1] | 0x20);
            (name.len() + first as usize + 21 * last as usize) % 64
        }
    }
}

impl Id {
    /// Recognises a field name, in any case.
    pub fn of(name: &[u8]) -> Self {
        let known = PLACES[place(name)];
        if known != Self::Other && is_same(name, known.name().as_bytes()) {
            known
        } else if is_claim(name) {
            Self::Claim
        } else {
            Self::Other
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Whether a name is the one that is known, in any case. Words at a time: letters differ in one bit
/// by their case, and what else differs in that bit is no part of a name that is known, nor of any
/// name where there are no control characters.
fn is_same(name: &[u8], known: &[u8]) -> bool {
    const CASE: u64 = 0x2020_2020_2020_2020;
    if name.len() != known.len() {
        return false;
    }
    match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => {
            let ends = (known.first_chunk::<8>(), known.last_chunk::<8>());
            let same = |one: &[u8; 8], other: Option<&[u8; 8]>| {
                other.is_some_and(|other| {
                    u64::from_ne_bytes(*one) | CASE == u64::from_ne_bytes(*other) | CASE
                })
            };
            // Between them is something only where the name is longer than both.
            same(first, ends.0)
                && same(last, ends.1)
                && (name.len() <= 16 || name.eq_ignore_ascii_case(known))
        }
        _ => name
            .iter()
            .zip(known)
            .all(|(one, other)| one | 0x20 == other | 0x20),
    }
}

/// A set of recognised fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids(u32);

impl Ids {
    /// These.
    pub const fn of(ids: &[Id]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < ids.len() {
            set |= ids[at].bit();
            at += 1;
        }
        Self(set)
    }

    /// Whether it is one of them.
    pub const fn has(self, id: Id) -> bool {
        self.0 & id.bit() != 0
    }

    const fn insert(&mut self, id: Id) {
        self.0 |= id.bit();
    }

    const fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What belongs to one connection only, whether `Connection` names it or not.
const HOP_BY_HOP: Ids = Ids::of(&[
    Id::Connection,
    Id::KeepAlive,
    Id::ProxyConnection,
    Id::Te,
    Id::TransferEncoding,
    Id::Upgrade,
    Id::Http2Settings,
]);

/// One field: a line of the buffer, which is its name, a colon, a space, its value and CR LF.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: Id,
    /// Where the line begins.
    start: u32,
    /// How long the name is.
    name: u32,
    /// Where the value ends.
    end: u32,
}

impl Entry {
    const fn name(self) -> Span {
        Span {
            start: self.start,
            end: self.start + self.name,
        }
    }

    const fn value(self) -> Span {
        Span {
            start: self.start + self.name + 2,
            end: self.end,
        }
    }
}

/// An ordered list of header fields.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Those that are there of all that are recognised.
    known: Ids,
    /// Some name that was not recognised has an underscore.
    underscores: bool,
    /// `Connection` may name fields that are not [removed](HOP_BY_HOP) anyway.
    names: bool,
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
            ..Self::default()
        }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.known = Ids::default();
        (self.underscores, self.names) = (false, false);
    }

    /// The bytes of a span.
    pub fn slice(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }

    /// Stores bytes that belong to the head but are not a field.
    pub fn store(&mut self, bytes: &[u8]) -> Span {
        self.store_with(|stored| stored.extend_from_slice(bytes))
    }

    /// Stores what `write` appends to the buffer.
    pub fn store_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let start = self.bytes.len();
        write(&mut self.bytes);
        Span::at(start, self.bytes.len() - start)
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_known(Id::of(name), name, value);
    }

    /// Adds a field whose name was recognised before.
    pub fn push_known(&mut self, id: Id, name: &[u8], value: &[u8]) {
        debug_assert_eq!(id, Id::of(name));
        self.underscores |= id == Id::Other && memchr::memchr(b'_', name).is_some();
        self.append(id, name, |out| out.extend_from_slice(value));
    }

    /// Adds a recognised field whose value `write` appends to the buffer.
    pub fn push_with(&mut self, id: Id, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(id, id.name().as_bytes(), write);
    }

    fn append(&mut self, id: Id, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let entry = self.line(id, name, write);
        self.entries.push(entry);
        self.known.insert(id);
        self.names |= id == Id::Connection;
    }

    /// Writes a line at the end of the buffer.
    #[allow(clippy::cast_possible_truncation)] // a head is bounded far below 4 GiB by who reads it
    fn line(&mut self, id: Id, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Entry {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        write(&mut self.bytes);
        let end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(b"\r\n");
        Entry {
            id,
            start,
            name: name.len() as u32,
            end,
        }
    }

    /// Adds a field whose line lies in a text that will be [`store`](Self::store)d before anything
    /// else: it begins at `start` there, with a name of `name` bytes, and its value ends at `end`.
    #[allow(clippy::cast_possible_truncation)]
    pub(in crate::http) fn expect(&mut self, id: Id, start: usize, name: usize, end: usize) {
        self.entries.push(Entry {
            id,
            start: start as u32,
            name: name as u32,
            end: end as u32,
        });
        self.known.insert(id);
    }

    /// Says that a name among those that are [`expect`](Self::expect)ed has an underscore.
    pub(in crate::http) const fn expect_underscores(&mut self) {
        self.underscores = true;
    }

    /// Says that a `Connection` among those that are [`expect`](Self::expect)ed names fields that are
    /// not [removed](Self::remove_hop_by_hop) without that.
    pub(in crate::http) const fn expect_names(&mut self) {
        self.names = true;
    }

    /// Writes the line of a field anew which is not there as it is to be sent.
    pub(in crate::http) fn mend(&mut self, at: usize, name: &[u8], value: &[u8]) {
        if let Some(id) = self.entries.get(at).map(|entry| entry.id) {
            self.entries[at] = self.line(id, name, |out| out.extend_from_slice(value));
        }
    }

    /// Appends the lines of all fields but some.
    pub fn write(&self, out: &mut Vec<u8>, except: Ids) {
        let mut run = 0..0;
        for entry in &self.entries {
            if entry.id == Id::Removed || except.has(entry.id) {
                continue;
            }
            let (start, end) = (entry.start as usize, entry.end as usize + 2);
            if start != run.end {
                out.extend_from_slice(&self.bytes[run.clone()]);
                run.start = start;
            }
            run.end = end;
        }
        out.extend_from_slice(&self.bytes[run]);
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
            .map(|entry| {
                let (name, value) = (self.slice(entry.name()), self.slice(entry.value()));
                (entry.id, name, value)
            })
    }

    /// The first value of a recognised field.
    pub fn get(&self, id: Id) -> Option<&[u8]> {
        match self.has(id) {
            true => self.get_all(id).next(),
            false => None,
        }
    }

    /// All values of a recognised field.
    pub fn get_all(&self, id: Id) -> impl Iterator<Item = &[u8]> {
        self.entries
            .iter()
            .filter(move |entry| entry.id == id)
            .map(|entry| self.slice(entry.value()))
    }

    /// Whether a recognised field is there.
    pub const fn has(&self, id: Id) -> bool {
        self.known.has(id)
    }

    /// Whether one of some recognised fields is there.
    pub const fn has_any(&self, ids: Ids) -> bool {
        self.known.meets(ids)
    }

    /// Removes a recognised field, however often it stands there.
    pub fn remove(&mut self, id: Id) {
        self.remove_all(Ids::of(&[id]));
    }

    /// Removes some recognised fields.
    pub fn remove_all(&mut self, ids: Ids) {
        if !self.known.meets(ids) {
            return;
        }
        for entry in &mut self.entries {
            if ids.has(entry.id) {
                entry.id = Id::Removed;
            }
        }
        self.known.remove(ids);
    }

    /// Removes the fields whose id does not satisfy the predicate.
    pub fn retain(&mut self, keep: impl Fn(Id) -> bool) {
        for entry in &mut self.entries {
            if !keep(entry.id) {
                self.known.remove(Ids::of(&[entry.id]));
                entry.id = Id::Removed;
            }
        }
    }

    /// Removes the fields of this name, in any case.
    pub fn remove_named(&mut self, name: &[u8]) {
        match Id::of(name) {
            // Those have several names.
            Id::Other | Id::Claim => {}
            known => return self.remove(known),
        }
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            if self.slice(entry.name()).eq_ignore_ascii_case(name) {
                self.entries[index].id = Id::Removed;
            }
        }
    }

    /// Removes what belongs to one connection only (RFC 9110, section 7.6.1): the fields that
    /// `Connection` names, and those that older implementations send without naming them.
    pub fn remove_hop_by_hop(&mut self) {
        if self.names && self.has(Id::Connection) {
            let mut named = SmallVec::<[Span; 4]>::new();
            for entry in self
                .entries
                .iter()
                .filter(|entry| entry.id == Id::Connection)
            {
                named.extend(self.list_items(entry.value()));
            }
            for name in named {
                let id = Id::of(self.slice(name));
                // A peer cannot have removed what the message cannot do without; and some go in any
                // case.
                if HOP_BY_HOP.has(id) || matches!(id, Id::Host | Id::ContentLength) {
                    continue;
                }
                let name = SmallVec::<[u8; 32]>::from_slice(self.slice(name));
                self.remove_named(&name);
            }
        }
        self.remove_all(HOP_BY_HOP);
    }

    /// Removes what only looks unlike a recognised field: `X_Forwarded_For`. Gateway interfaces
    /// (RFC 3875, section 4.1.18) make an underscore of each hyphen, and with that one field of
    /// two, of which the client wrote one.
    pub fn remove_disguised(&mut self) {
        if !self.underscores {
            return;
        }
        for index in 0..self.entries.len() {
            let entry = self.entries[index];
            let name = self.slice(entry.name());
            if entry.id == Id::Other && memchr::memchr(b'_', name).is_some() {
                let plain = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
                let plain: SmallVec<[u8; 32]> = name.iter().map(plain).collect();
                if Id::of(&plain) != Id::Other {
                    self.entries[index].id = Id::Removed;
                }
            }
        }
    }

    /// The non-empty items of a comma-separated value (RFC 9110, section 5.6.1).
    fn list_items(&self, value: Span) -> impl Iterator<Item = Span> {
        let text = self.slice(value);
        let base = text.as_ptr() as usize;
        list(text).map(move |item| {
            let offset = item.as_ptr() as usize - base;
            Span::at(value.start as usize + offset, item.len())
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
    // Nearly all names are told by their first letter.
    match name.first() {
        Some(b'c' | b'C') => begins(b"client-cert"),
        Some(b'x' | b'X') => begins(b"x-client-cert"),
        _ => false,
    }
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
        for id in KNOWN {
            let name = id.name();
            for other in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(Id::of(other.as_bytes()), *id, "{other}");
            }
            for at in 0..name.len() {
                let mut other = name.as_bytes().to_vec();
                other[at] = b'.';
                assert_eq!(Id::of(&other), Id::Other, "{name}");
            }
        }
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
