//! CRC-32C (Castagnoli), as RFC 9260, appendix A, uses it. Headers are short and few: one table
//! will do.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        #[allow(clippy::cast_possible_truncation)] // below 256
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            // The polynomial 0x1EDC6F41, bits reversed.
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

/// Of the parts, one after another.
pub fn crc32c<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    !parts.into_iter().flatten().fold(!0, |crc, &byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE[usize::from(low ^ byte)] ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_agrees_with_the_published_vectors() {
        assert_eq!(crc32c([&b"1234"[..], b"56789"]), 0xE306_9283);
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c([&[0; 32][..]]), 0x8A91_36AA);
        assert_eq!(crc32c([&[0xff; 32][..]]), 0x62A8_AB43);
        assert_eq!(crc32c([]), 0);
    }
}
