//! JA4: what a client's greeting looks like, as 36 characters that tell kinds of clients apart.
//!
//! After FoxIO's specification of JA4 for TLS clients, the part that is under the BSD licence:
//!
//! ```text
//! t13d1516h2_8daaf6152771_e5627efa2ab1
//! │││ │ │ │  │            └ SHA-256 of the extensions, sorted, and the signature algorithms
//! │││ │ │ │  └ SHA-256 of the cipher suites, sorted
//! │││ │ │ └ the first protocol by ALPN: its first and last character
//! │││ │ └ how many extensions
//! │││ └ how many cipher suites
//! ││└ d: it names a server
//! │└ the highest version
//! └ over TCP
//! ```
//!
//! Values that are there to be ignored (GREASE, RFC 8701) are. The library tells too little of a
//! greeting for this, so its bytes are read here. What cannot be read has no fingerprint; whether
//! the greeting is good is for the handshake to say.

use std::fmt::{self, Write as _};

use smallvec::SmallVec;

use super::digest::sha256;

/// A fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ja4([u8; LENGTH]);

const LENGTH: usize = 36;

impl Ja4 {
    /// Of the records that a client began with (RFC 8446, sections 4.1.2 and 5.1).
    pub fn of(records: &[u8]) -> Option<Self> {
        Greeting::read(&handshake(records)?).and_then(|greeting| greeting.fingerprint())
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        // It is made of a `str`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Ja4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// The body of the first handshake message, which may be spread over several records.
fn handshake(records: &[u8]) -> Option<Vec<u8>> {
    let mut rest = Reader(records);
    let mut message = Vec::with_capacity(records.len());
    loop {
        if let [CLIENT_HELLO, a, b, c, body @ ..] = &message[..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if let Some(body) = body.get(..length) {
                return Some(body.to_vec());
            }
        }
        if rest.u8()? != HANDSHAKE {
            return None;
        }
        rest.take(2)?;
        message.extend_from_slice(rest.of_u16()?);
    }
}

type Codes = SmallVec<[u16; 64]>;

/// What counts of a greeting, without GREASE.
#[derive(Default)]
struct Greeting<'a> {
    version: u16,
    suites: Codes,
    extensions: Codes,
    algorithms: Codes,
    protocol: &'a [u8],
}

impl<'a> Greeting<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let mut body = Reader(body);
        let legacy = body.u16()?;
        body.take(32)?;
        body.of_u8()?;
        let mut greeting = Self {
            suites: body.of_u16().map(codes)?,
            ..Self::default()
        };
        body.of_u8()?;
        // A greeting may end here (RFC 5246, section 7.4.1.2).
        let mut extensions = Reader(body.of_u16().unwrap_or_default());
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.of_u16()?;
            greeting.extension(kind, data);
        }
        if greeting.version == 0 {
            greeting.version = legacy;
        }
        Some(greeting)
    }

    fn extension(&mut self, kind: u16, data: &'a [u8]) {
        if is_grease(kind) {
            return;
        }
        self.extensions.push(kind);
        let mut data = Reader(data);
        match kind {
            SIGNATURE_ALGORITHMS => {
                self.algorithms = data.of_u16().map(codes).unwrap_or_default();
            }
            SUPPORTED_VERSIONS => {
                let versions = data.of_u8().map(codes).unwrap_or_default();
                self.version = versions.into_iter().max().unwrap_or_default();
            }
            ALPN => {
                let first = data.of_u16().and_then(|list| Reader(list).of_u8());
                self.protocol = first.unwrap_or_default();
            }
            _ => {}
        }
    }

    fn fingerprint(mut self) -> Option<Ja4> {
        let server = match self.extensions.contains(&SERVER_NAME) {
            true => 'd',
            false => 'i',
        };
        let mut text = String::with_capacity(LENGTH);
        write!(
            text,
            "t{}{server}{:02}{:02}",
            version(self.version),
            self.suites.len().min(99),
            self.extensions.len().min(99)
        )
        .ok()?;
        let [first, last] = ends(self.protocol);
        text.extend([first, last]);
        self.suites.sort_unstable();
        self.extensions.sort_unstable();
        // They are told of already, and a client has them or not by where it goes.
        (self.extensions).retain(|kind| !matches!(*kind, SERVER_NAME | ALPN));
        let mut extensions = list(&self.extensions);
        if !extensions.is_empty() && !self.algorithms.is_empty() {
            extensions.push('_');
            extensions.push_str(&list(&self.algorithms));
        }
        for part in [list(&self.suites), extensions] {
            text.push('_');
            match part.is_empty() {
                true => text.push_str("000000000000"),
                false => (sha256(part.as_bytes())[..6].iter())
                    .try_for_each(|byte| write!(text, "{byte:02x}"))
                    .ok()?,
            }
        }
        Some(Ja4(text.as_bytes().try_into().ok()?))
    }
}

const fn version(code: u16) -> &'static str {
    match code {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// A protocol's first and last character; where either is no letter or digit, those of the name in
/// hexadecimal.
fn ends(protocol: &[u8]) -> [char; 2] {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else {
        return ['0', '0'];
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [first, last].map(char::from);
    }
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 15)]
}

/// In hexadecimal, with commas between.
fn list(codes: &[u16]) -> String {
    let mut text = String::with_capacity(codes.len() * 5);
    for code in codes {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{code:04x}");
    }
    text
}

fn codes(bytes: &[u8]) -> Codes {
    let pairs = bytes.chunks_exact(2);
    let codes = pairs.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    codes.filter(|code| !is_grease(*code)).collect()
}

/// `0x0a0a`, `0x1a1a` … `0xfafa` (RFC 8701, section 2).
const fn is_grease(code: u16) -> bool {
    let [high, low] = code.to_be_bytes();
    high == low && low & 15 == 10
}

/// Takes from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn u16(&mut self) -> Option<u16> {
        (self.take(2)).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// What has its length before it, in one byte.
    fn of_u8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// What has its length before it, in two bytes.
    fn of_u16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(data: &[u8]) -> Vec<u8> {
        [&[data.len() as u8][..], data].concat()
    }

    fn long(data: &[u8]) -> Vec<u8> {
        [&(data.len() as u16).to_be_bytes()[..], data].concat()
    }

    fn numbers(codes: &[u16]) -> Vec<u8> {
        codes.iter().flat_map(|code| code.to_be_bytes()).collect()
    }

    /// A greeting in records of at most `record` bytes.
    fn hello(suites: &[u16], extensions: &[(u16, Vec<u8>)], record: usize) -> Vec<u8> {
        let extensions: Vec<u8> = (extensions.iter())
            .flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), long(data)].concat())
            .collect();
        let body = [
            numbers(&[0x0303]),
            vec![7; 32],
            short(&[9; 32]),
            long(&numbers(suites)),
            short(&[0]),
            long(&extensions),
        ]
        .concat();
        let length = (body.len() as u32).to_be_bytes();
        let message = [&[CLIENT_HELLO], &length[1..], &body].concat();
        let records = message.chunks(record);
        records
            .flat_map(|part| [&[HANDSHAKE, 3, 1][..], &long(part)].concat())
            .collect()
    }

    /// The browser of the specification's example, with GREASE as browsers have it.
    fn browser(record: usize) -> Vec<u8> {
        let suites = [
            0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013,
            0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
        ];
        let algorithms = [
            0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
        ];
        let protocols = [short(b"h2"), short(b"http/1.1")].concat();
        let mut extensions = vec![
            (0x6a6a, vec![]),
            (SERVER_NAME, vec![0; 9]),
            (SIGNATURE_ALGORITHMS, long(&numbers(&algorithms))),
            (ALPN, long(&protocols)),
            (
                SUPPORTED_VERSIONS,
                short(&numbers(&[0xfafa, 0x0304, 0x0303])),
            ),
        ];
        let others = [
            0x001b, 0x0033, 0x4469, 0x0017, 0x002d, 0x0005, 0x0023, 0x0012, 0xff01, 0x000b, 0x000a,
            0x0015,
        ];
        extensions.extend(others.map(|kind| (kind, vec![1, 2, 3])));
        hello(&suites, &extensions, record)
    }

    #[test]
    fn the_example_of_the_specification() {
        for record in [16_384, 100, 1] {
            let found = Ja4::of(&browser(record)).unwrap();
            assert_eq!(found.as_str(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        }
    }

    #[test]
    fn little_is_a_fingerprint_too() {
        let found = Ja4::of(&hello(&[], &[], 1000)).unwrap();
        assert_eq!(found.as_str(), "t12i000000_000000000000_000000000000");
        let many: Vec<u16> = (1..200).collect();
        let found = Ja4::of(&hello(&many, &[], 1000)).unwrap();
        assert!(found.as_str().starts_with("t12i990000_"), "{found:?}");
    }

    #[test]
    fn a_protocol_of_other_characters_is_told_in_hexadecimal() {
        assert_eq!(ends(b"http/1.1"), ['h', '1']);
        assert_eq!(ends(b"h"), ['h', 'h']);
        assert_eq!(ends(&[0xab, 0xcd]), ['a', 'd']);
        assert_eq!(ends(&[0x30, 0xab]), ['3', 'b']);
        assert_eq!(ends(b""), ['0', '0']);
    }

    #[test]
    fn what_is_cut_or_garbled_does_no_harm() {
        let whole = browser(64);
        for length in 0..whole.len() {
            assert_eq!(Ja4::of(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = Ja4::of(&bytes);
            }
        }
    }
}
