//! The code that strings are compressed with (RFC 7541, section 5.2 and appendix B).
//!
//! It is canonical: the lengths of the symbols' codes say all. Everything else is made of them when
//! this is compiled.

/// How many bits each symbol's code has; the last is that of the end of a string, which never
/// occurs in one.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
/// The longest code.
const LONGEST: usize = 30;
/// Codes of up to this many bits are looked up at once.
const SHORT: usize = 8;

/// The symbols in the order of their codes.
const SYMBOLS: [u16; 257] = symbols();
const CODES: Codes = codes();
const FAST: [(u8, u8); 1 << SHORT] = fast();

/// Of each length of a code.
struct Codes {
    /// The first code that is longer, with zeros to [`LONGEST`] bits.
    limit: [u32; LONGEST + 1],
    /// The first of them.
    first: [u32; LONGEST + 1],
    /// Where their symbols begin.
    offset: [usize; LONGEST + 1],
}

const fn symbols() -> [u16; 257] {
    let mut symbols = [0; 257];
    let (mut at, mut length) = (0, 1);
    while length <= LONGEST {
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                symbols[at] = symbol as u16;
                at += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    symbols
}

const fn codes() -> Codes {
    let mut codes = Codes {
        limit: [0; LONGEST + 1],
        first: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
    };
    let (mut code, mut at, mut length) = (0, 0, 1);
    while length <= LONGEST {
        code <<= 1;
        codes.first[length] = code;
        codes.offset[length] = at;
        while at < SYMBOLS.len() && LENGTHS[SYMBOLS[at] as usize] as usize == length {
            at += 1;
            code += 1;
        }
        codes.limit[length] = code << (LONGEST - length);
        length += 1;
    }
    codes
}

/// Symbol and length, by the next bits; a length of 0 where the code is longer.
const fn fast() -> [(u8, u8); 1 << SHORT] {
    let mut fast = [(0, 0); 1 << SHORT];
    let mut bits = 0;
    while bits < fast.len() {
        let top = (bits as u32) << (LONGEST - SHORT);
        let mut length = 1;
        while length <= SHORT {
            if top < CODES.limit[length] {
                fast[bits] = (symbol(top, length) as u8, length as u8);
                break;
            }
            length += 1;
        }
        bits += 1;
    }
    fast
}

/// The symbol of this length that these bits begin with.
const fn symbol(top: u32, length: usize) -> u16 {
    let code = top >> (LONGEST - length);
    SYMBOLS[CODES.offset[length] + (code - CODES.first[length]) as usize]
}

/// Appends the string. `None` where it is not one.
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut coded = coded.iter();
    // The next bits, from the highest on, and how many there are.
    let (mut bits, mut have) = (0u64, 0u32);
    loop {
        while have <= 56
            && let Some(&byte) = coded.next()
        {
            bits |= u64::from(byte) << (56 - have);
            have += 8;
        }
        let (mut symbol, mut length) = FAST[(bits >> (64 - SHORT)) as usize];
        if length == 0 {
            (symbol, length) = long((bits >> (64 - LONGEST)) as u32, have)?;
        }
        if u32::from(length) > have {
            break;
        }
        out.push(symbol);
        bits <<= length;
        have -= u32::from(length);
    }
    // Padding: the first bits of the end's code, less than a byte of them.
    (have < 8 && bits.count_ones() == have).then_some(())
}

/// A symbol whose code is longer than [`SHORT`] bits. One that is longer than what there is may be
/// any; the end of a string is none.
fn long(top: u32, have: u32) -> Option<(u8, u8)> {
    let length = (SHORT + 1..=LONGEST).find(|&length| top < CODES.limit[length])?;
    let bits = length as u8;
    match u8::try_from(symbol(top, length)) {
        Ok(symbol) => Some((symbol, bits)),
        Err(_) if have < LONGEST as u32 => Some((0, bits)),
        Err(_) => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for &byte in text {
            let length = usize::from(LENGTHS[usize::from(byte)]);
            let at = SYMBOLS.iter().position(|&symbol| symbol == u16::from(byte));
            let place = at.unwrap() - CODES.offset[length];
            let code = CODES.first[length] as usize + place;
            bits += &format!("{code:0length$b}");
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let bytes = bits.as_bytes().chunks(8);
        let byte = |bits| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
        bytes.map(byte).collect()
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).map(|()| out)
    }

    #[test]
    fn strings_of_the_rfc() {
        // RFC 7541, appendix C.4 and C.6
        for (coded, text) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], "www.example.com"),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", "custom-key"),
            (b"\x64\x02", "302"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (b"", ""),
        ] {
            assert_eq!(decoded(coded).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn padding_is_short_and_of_ones() {
        assert_eq!(decoded(b"\x07").as_deref(), Some(&b"0"[..]));
        for wrong in [
            &b"\x07\xff"[..],
            b"\x06",
            b"\xff",
            b"\xff\xff",
            b"\xff\xff\xff\xff\xff",
        ] {
            assert_eq!(decoded(wrong), None, "{wrong:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_coded_is_decoded(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decoded(&encode(&text)), Some(text));
        }

        #[test]
        fn anything_is_a_string_or_not(coded in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(text) = decoded(&coded) {
                prop_assert_eq!(encode(&text), coded);
            }
        }
    }
}
