//! Blocks of fields, written (RFC 7541, section 6).
//!
//! A field is put into the table when it comes for the second time: what is said once, such as an
//! identifier of a request, pushes nothing out that is said each time. Strings are not coded: what
//! is repeated takes one byte all the same, and the rest is not worth the time.

use super::table::{DEFAULT_SIZE, Dynamic, Entry, STATIC, size};

/// Fields that are remembered as seen.
const SEEN: usize = 64;

/// Writes the blocks of one direction of a connection, in their order.
#[derive(Debug)]
pub struct Encoder {
    table: Dynamic<u32>,
    /// What was said before, by hash; most recent of those that share a place.
    seen: [u32; SEEN],
    /// The least and the last size that the other side has asked for since the last block.
    asked: Option<(usize, usize)>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            table: Dynamic::default(),
            seen: [0; SEEN],
            asked: None,
        }
    }
}

impl Encoder {
    /// The other side keeps a table of this size at most (`SETTINGS_HEADER_TABLE_SIZE`).
    pub fn limit(&mut self, max: usize) {
        let max = max.min(DEFAULT_SIZE);
        let least = self.asked.map_or(max, |(least, _)| least.min(max));
        self.asked = Some((least, max));
    }

    /// Begins a block.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        // RFC 7541, section 4.2: also the least of several, so that both sides let go of the same.
        let Some((least, last)) = self.asked.take() else {
            return;
        };
        for max in [least, last] {
            if max != self.table.max() {
                integer(out, 0x20, 5, max);
                self.table.resize(max);
            }
        }
    }

    /// Appends `:status`.
    pub fn status(&mut self, out: &mut Vec<u8>, status: u16) {
        let known = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                let mut digits = [0; 3];
                let mut left = status;
                for digit in digits.iter_mut().rev() {
                    *digit = b'0' + (left % 10) as u8;
                    left /= 10;
                }
                return self.text(out, b":status", &digits);
            }
        };
        out.push(0x80 | known);
    }

    /// Appends a field. Its name may be in any case, and is written in lower case (RFC 9113,
    /// section 8.2.1).
    pub fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        // RFC 7541, section 7.1.3: who can make us say things must not find out what else we say.
        if name.eq_ignore_ascii_case(b"set-cookie") {
            literal(out, 0x10, 4, name, value);
        } else {
            self.text(out, name, value);
        }
    }

    fn text(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let hash = hash(name, value);
        let is_it = |entry: &Entry<u32>| {
            entry.known == hash && entry.name() == name && entry.value() == value
        };
        if let Some(place) = self.table.iter().position(is_it) {
            return integer(out, 0x80, 7, STATIC.len() + 1 + place);
        }
        let seen = &mut self.seen[(hash >> 1) as usize % SEEN];
        if *seen == hash && size(name, value) <= self.table.max() / 2 {
            literal(out, 0x40, 6, name, value);
            let text = [name, value].concat();
            self.table.insert(Entry::new(&text, name.len(), hash));
        } else {
            *seen = hash;
            literal(out, 0x00, 4, name, value);
        }
    }
}

/// A field as it is. `mark` and `bits`: what is to be done with it.
fn literal(out: &mut Vec<u8>, mark: u8, bits: u32, name: &[u8], value: &[u8]) {
    let is_it = |&(known, _): &(&str, _)| {
        known.len() == name.len() && name.eq_ignore_ascii_case(known.as_bytes())
    };
    match STATIC.iter().position(is_it) {
        Some(place) => integer(out, mark, bits, place + 1),
        None => {
            out.push(mark);
            integer(out, 0, 7, name.len());
            out.extend(name.iter().map(u8::to_ascii_lowercase));
        }
    }
    integer(out, 0, 7, value.len());
    out.extend_from_slice(value);
}

/// RFC 7541, section 5.1.
#[allow(clippy::cast_possible_truncation)] // what is left is below the limit
fn integer(out: &mut Vec<u8>, mark: u8, bits: u32, mut value: usize) {
    let limit = (1usize << bits) - 1;
    if value < limit {
        return out.push(mark | value as u8);
    }
    out.push(mark | limit as u8);
    value -= limit;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Tells fields apart, most of the time: whoever finds two of the same hash compares them.
#[allow(clippy::cast_possible_truncation)]
fn hash(name: &[u8], value: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio
    let mix = |hash: u64, word: u64| (hash.rotate_left(29) ^ word).wrapping_mul(FACTOR);
    let mut hash = mix(name.len() as u64, value.len() as u64);
    for text in [name, value] {
        let mut words = text.chunks_exact(8);
        for word in words.by_ref() {
            hash = mix(hash, word.try_into().map_or(0, u64::from_le_bytes));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        hash = mix(hash, u64::from_le_bytes(last));
    }
    (hash >> 32) as u32 | 1 // 0 is for what was never seen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::hpack::Decoder;

    type Texts = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Texts {
        let mut fields = Vec::new();
        let result = decoder.read(block, |field| {
            fields.push((field.name.to_vec(), field.value.to_vec()));
        });
        result.unwrap();
        fields
    }

    fn block(encoder: &mut Encoder, fields: &Texts) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in fields {
            encoder.field(&mut out, name, value);
        }
        out
    }

    #[test]
    fn what_is_repeated_takes_a_byte() {
        let mut encoder = Encoder::default();
        let fields = [("Server", "nginx"), ("X-Frame-Options", "DENY")];
        let fields: Texts = fields
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        let lengths = [(); 3].map(|()| block(&mut encoder, &fields).len());
        assert!(lengths[0] > 20 && lengths[1] > 20, "{lengths:?}");
        assert_eq!(lengths[2], 2);
    }

    #[test]
    fn a_cookie_is_never_put_into_a_table() {
        let mut encoder = Encoder::default();
        let fields = vec![(b"Set-Cookie".to_vec(), b"a=b".to_vec())];
        for _ in 0..3 {
            assert_eq!(block(&mut encoder, &fields), b"\x1f\x28\x03a=b");
        }
    }

    #[test]
    fn a_status_is_written_whatever_it_is() {
        let mut encoder = Encoder::default();
        let mut decoder = Decoder::default();
        for status in (100..=999).chain(200..300) {
            let mut out = Vec::new();
            encoder.status(&mut out, status);
            let expected = (b":status".to_vec(), status.to_string().into_bytes());
            assert_eq!(read(&mut decoder, &out), [expected]);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            blocks in proptest::collection::vec(
                (
                    proptest::collection::vec(("[a-d]{1,3}|date|via|server", "[ -~]{0,3}|x{500,2300}"), 0..12),
                    proptest::option::of(0usize..5000),
                ),
                0..12,
            ),
        ) {
            let mut encoder = Encoder::default();
            let mut decoder = Decoder::default();
            for (fields, resize) in blocks {
                if let Some(max) = resize {
                    encoder.limit(max / 2);
                    encoder.limit(max);
                }
                let fields: Texts = fields
                    .into_iter()
                    .map(|(name, value)| (name.into_bytes(), value.into_bytes()))
                    .collect();
                let out = block(&mut encoder, &fields);
                prop_assert_eq!(read(&mut decoder, &out), fields);
            }
        }
    }
}
