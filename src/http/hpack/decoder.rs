//! Blocks of fields, read (RFC 7541, section 6).

use std::sync::LazyLock;

use super::table::{DEFAULT_SIZE, Dynamic, Entry, STATIC};
use super::{Kind, huffman};

/// Memory for a field that is kept from one block to the next.
const KEPT: usize = 1 << 10;

/// Why a block cannot be read. What comes behind it cannot either: the table is not known any more
/// (RFC 9113, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a block of fields is malformed: {0}")]
pub struct Malformed(&'static str);

const CUT_SHORT: Malformed = Malformed("it is cut short");

/// A field of a block.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// What its name says.
    pub kind: Kind,
    /// The value has only what a value may have (RFC 9113, section 8.2.1).
    pub is_valid: bool,
}

/// Reads the blocks of one direction of a connection, in their order.
#[derive(Debug, Default)]
pub struct Decoder {
    table: Dynamic<(Kind, bool)>,
    text: Vec<u8>,
}

/// A name in one of the tables.
#[derive(Clone, Copy)]
enum Named<'a> {
    Static(&'static str, &'static str, Kind),
    Dynamic(&'a Entry<(Kind, bool)>),
}

impl<'a> Named<'a> {
    fn name(self) -> &'a [u8] {
        match self {
            Self::Static(name, ..) => name.as_bytes(),
            Self::Dynamic(entry) => entry.name(),
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::Static(.., kind) => kind,
            Self::Dynamic(entry) => entry.known.0,
        }
    }
}

fn find(table: &Dynamic<(Kind, bool)>, index: usize) -> Result<Named<'_>, Malformed> {
    static KINDS: LazyLock<[Kind; STATIC.len()]> =
        LazyLock::new(|| STATIC.map(|(name, _)| Kind::of(name.as_bytes())));
    let place = index.checked_sub(1).ok_or(Malformed("an index is 0"))?;
    if let Some(&(name, value)) = STATIC.get(place) {
        return Ok(Named::Static(name, value, KINDS[place]));
    }
    let entry = table.get(place - STATIC.len());
    entry
        .map(Named::Dynamic)
        .ok_or(Malformed("an index is out of range"))
}

impl Decoder {
    /// Reads a block that is whole, and shows its fields in their order.
    ///
    /// # Errors
    /// When it is malformed, which ends the connection.
    pub fn read(
        &mut self,
        mut block: &[u8],
        mut show: impl FnMut(Field<'_>),
    ) -> Result<(), Malformed> {
        let block = &mut block;
        let mut begun = false;
        while let Some(&first) = block.first() {
            match first {
                // An indexed field.
                0x80.. => match find(&self.table, integer(block, 7)?)? {
                    Named::Static(name, value, kind) => show(Field {
                        name: name.as_bytes(),
                        value: value.as_bytes(),
                        kind,
                        is_valid: true,
                    }),
                    Named::Dynamic(entry) => show(Field {
                        name: entry.name(),
                        value: entry.value(),
                        kind: entry.known.0,
                        is_valid: entry.known.1,
                    }),
                },
                0x20..0x40 => {
                    let max = integer(block, 5)?;
                    if begun || max > DEFAULT_SIZE {
                        return Err(Malformed("the table's size changes as it must not"));
                    }
                    self.table.resize(max);
                    continue;
                }
                0x40..0x80 => self.literal(block, 6, true, &mut show)?,
                0x00..0x20 => self.literal(block, 4, false, &mut show)?,
            }
            begun = true;
        }
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        bits: u32,
        indexed: bool,
        show: &mut impl FnMut(Field<'_>),
    ) -> Result<(), Malformed> {
        self.text.clear();
        let kind = match integer(block, bits)? {
            0 => {
                string(block, &mut self.text)?;
                Kind::of(&self.text)
            }
            index => {
                let named = find(&self.table, index)?;
                self.text.extend_from_slice(named.name());
                named.kind()
            }
        };
        let name = self.text.len();
        string(block, &mut self.text)?;
        let is_valid = is_value(&self.text[name..]);
        show(Field {
            name: &self.text[..name],
            value: &self.text[name..],
            kind,
            is_valid,
        });
        if indexed {
            let entry = Entry::new(&self.text, name, (kind, is_valid));
            self.table.insert(entry);
        }
        Ok(())
    }
}

/// What a value may have (RFC 9113, section 8.2.1; RFC 9110, section 5.5).
fn is_value(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_other = |&byte: &u8| byte < b' ' && byte != b'\t' || byte == 0x7f;
    !is_space(value.first()) && !is_space(value.last()) && !value.iter().any(is_other)
}

/// RFC 7541, section 5.1. No number that means something has more than 28 bits.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    let limit = (1usize << bits) - 1;
    let (&first, mut rest) = block.split_first().ok_or(CUT_SHORT)?;
    let mut value = usize::from(first) & limit;
    if value == limit {
        let mut shift = 0;
        loop {
            let (&next, behind) = rest.split_first().ok_or(CUT_SHORT)?;
            rest = behind;
            value += usize::from(next & 0x7f) << shift;
            if next & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return Err(Malformed("a number is too large"));
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// RFC 7541, section 5.2. Appends it.
fn string(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(CUT_SHORT)?;
    *block = rest;
    match coded {
        true => huffman::decode(text, out).ok_or(Malformed("a string is coded wrongly")),
        false => {
            out.extend_from_slice(text);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|digit| !digit.is_whitespace()).collect();
        let byte =
            |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, Malformed> {
        let mut text = String::new();
        decoder.read(block, |field| {
            text += &format!(
                "{}: {}\n",
                field.name.escape_ascii(),
                field.value.escape_ascii()
            );
        })?;
        Ok(text)
    }

    fn size(decoder: &Decoder) -> usize {
        let sizes = decoder
            .table
            .iter()
            .map(|entry| super::super::table::size(entry.name(), entry.value()));
        sizes.sum()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, appendix C.4: requests, coded.
        let mut decoder = Decoder::default();
        let first = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
        let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        assert_eq!(read(&mut decoder, &block).unwrap(), first);
        let block = bytes("8286 84be 5886 a8eb 1064 9cbf");
        let second = format!("{first}cache-control: no-cache\n");
        assert_eq!(read(&mut decoder, &block).unwrap(), second);
        let block = bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        let third = ":method: GET\n:scheme: https\n:path: /index.html\n\
            :authority: www.example.com\ncustom-key: custom-value\n";
        assert_eq!(read(&mut decoder, &block).unwrap(), third);
        assert_eq!(size(&decoder), 164);

        // Appendix C.6: responses, in a table of 256 bytes from which entries fall out.
        let mut decoder = Decoder::default();
        let blocks = [
            "3fe101 4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7
             821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
             4ee5 b106 3d50 07",
        ];
        let [.., last] = blocks.map(|block| read(&mut decoder, &bytes(block)).unwrap());
        assert_eq!(
            last,
            ":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\n\
             location: https://www.example.com\ncontent-encoding: gzip\n\
             set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n"
        );
        assert_eq!(size(&decoder), 215);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for (block, why) in [
            (&b"\x80"[..], "an index is 0"),
            (b"\xbe", "an index is out of range"),
            (b"\xff\xff\xff\xff\xff\x7f", "a number is too large"),
            (b"\xff\x80", "it is cut short"),
            (b"\x00\x03ab", "it is cut short"),
            (b"\x00\x81\xff\x01a", "a string is coded wrongly"),
            (b"\x82\x20", "the table's size changes as it must not"),
            (b"\x3f\xe2\x1f", "the table's size changes as it must not"),
        ] {
            let result = read(&mut Decoder::default(), block);
            assert_eq!(result, Err(Malformed(why)), "{block:x?}");
        }
        assert_eq!(
            read(&mut Decoder::default(), b"\x3f\xe1\x1f\x20").unwrap(),
            ""
        );
    }

    #[test]
    fn what_is_known_of_a_field_stays_known() {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        let block = b"\x40\x01a\x02 b\x40\x01A\x01b\x40\x04host\x01h\xbe\xbf\xc0";
        let show = |field: Field<'_>| seen.push((field.kind, field.is_valid));
        decoder.read(block, show).unwrap();
        assert_eq!(seen.len(), 6);
        assert!(seen[..3].iter().eq(seen[3..].iter().rev()), "{seen:?}");
        use crate::http::field::Id;
        assert_eq!(seen[0], (Kind::Field(Id::Other), false));
        assert_eq!(seen[1], (Kind::Malformed, true));
        assert_eq!(seen[2], (Kind::Field(Id::Host), true));
    }
}
