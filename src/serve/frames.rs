//! The frames that a client of HTTP/2 sends (RFC 9113, section 4.1), seen as they come by.
//!
//! Only heads are read, and the few payloads that say what `h2` does not look at: the first frame
//! is SETTINGS, settings have values that they may have, no DATA comes behind the end of a stream,
//! trailers have no pseudo-header fields.

use h2::Reason;
use smallvec::SmallVec;

/// What a reset costs: there was a request, which may have gone to an upstream.
const RESET: u32 = 8;

const PREFACE: usize = 24;
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// What is kept of a payload to be looked at; a frame is no longer.
const MAX_KEPT: usize = 16 << 10;
/// Streams that are followed; the oldest are let go of. A client stops without a word in streams
/// that were reset here.
const MAX_OPEN: usize = 512;

/// What some bytes had in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// In tokens.
    pub cost: u32,
    /// Bytes of DATA.
    pub data: u64,
    /// What must not be.
    pub fault: Option<Reason>,
}

/// Follows the frames of one direction, whatever pieces they come in.
#[derive(Debug)]
pub struct Frames {
    /// Bytes that are of no interest: the preface, then payloads.
    skip: usize,
    /// Bytes of a payload that are.
    want: usize,
    /// What came of it; of trailers, all their frames so far.
    kept: Vec<u8>,
    head: [u8; FRAME_HEAD],
    have: usize,
    begun: bool,
    /// Trailers are being read; their last frame has not come.
    in_trailers: bool,
    /// The last stream that began.
    last: u32,
    /// Streams on which the client may still send, in order.
    open: SmallVec<[u32; 4]>,
    /// Nothing is known of streams up to this one.
    forgotten: u32,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            want: 0,
            kept: Vec::new(),
            head: [0; FRAME_HEAD],
            have: 0,
            begun: false,
            in_trailers: false,
            last: 0,
            open: SmallVec::new(),
            forgotten: 0,
        }
    }
}

impl Frames {
    /// What these bytes, which come behind those before, have in them.
    pub fn see(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !bytes.is_empty() {
            if self.want > 0 {
                let kept = self.want.min(bytes.len());
                self.kept.extend_from_slice(&bytes[..kept]);
                self.want -= kept;
                bytes = &bytes[kept..];
                if self.want > 0 {
                    break;
                }
                self.payload(&mut seen);
            }
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (FRAME_HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + wanted].copy_from_slice(&bytes[..wanted]);
            self.have += wanted;
            bytes = &bytes[wanted..];
            if self.have == FRAME_HEAD {
                self.have = 0;
                self.frame(&mut seen);
            }
        }
        seen
    }

    fn frame(&mut self, seen: &mut Seen) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.skip = length as usize;
        // RFC 9113, section 3.4.
        if !self.begun {
            self.begun = true;
            if kind != SETTINGS || flags & ACK != 0 {
                seen.fault = Some(Reason::PROTOCOL_ERROR);
            }
        }
        match kind {
            DATA => {
                // An empty frame may end a stream.
                seen.cost += (length == 0 && flags & END_STREAM == 0) as u32;
                seen.data += length as u64;
                self.data(self.stream(), flags, seen);
            }
            HEADERS => self.headers(self.stream(), flags),
            RST_STREAM => {
                seen.cost += RESET;
                self.end(self.stream());
            }
            SETTINGS => {
                seen.cost += 1;
                self.keep();
            }
            CONTINUATION => {
                seen.cost += 1;
                if self.in_trailers {
                    self.keep();
                }
            }
            _ => seen.cost += 1,
        }
        if self.want == 0 && (kind == SETTINGS || self.in_trailers) {
            self.payload(seen);
        }
    }

    const fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.head;
        u32::from_be_bytes([a & 0x7f, b, c, d])
    }

    /// The payload is looked at when it is whole.
    fn keep(&mut self) {
        if self.kept.len() + self.skip <= MAX_KEPT {
            self.want = std::mem::take(&mut self.skip);
        }
    }

    fn headers(&mut self, stream: u32, flags: u8) {
        let ends = flags & END_STREAM != 0;
        if stream > self.last {
            self.last = stream;
            if !ends {
                if self.open.len() == MAX_OPEN {
                    self.forgotten = self.open.remove(0);
                }
                self.open.push(stream);
            }
        } else if self.open.binary_search(&stream).is_ok() {
            self.in_trailers = true;
            self.kept.clear();
            self.keep();
            if ends {
                self.end(stream);
            }
        }
    }

    fn data(&mut self, stream: u32, flags: u8, seen: &mut Seen) {
        let known = stream > self.forgotten && stream <= self.last;
        match self.open.binary_search(&stream) {
            Ok(at) if flags & END_STREAM != 0 => {
                self.open.remove(at);
            }
            // RFC 9113, section 5.1: the client has said that it sends no more.
            Err(_) if known => seen.fault = Some(Reason::STREAM_CLOSED),
            _ => {}
        }
    }

    /// The client sends no more on this stream.
    fn end(&mut self, stream: u32) {
        if let Ok(at) = self.open.binary_search(&stream) {
            self.open.remove(at);
        }
    }

    /// What was kept is whole, or a frame of it.
    fn payload(&mut self, seen: &mut Seen) {
        let [_, _, _, kind, flags, ..] = self.head;
        if kind == SETTINGS {
            if self.kept.chunks_exact(6).any(is_wrong_setting) {
                seen.fault = Some(Reason::PROTOCOL_ERROR);
            }
            self.kept = Vec::new();
            return;
        }
        if kind == HEADERS {
            without_padding(&mut self.kept, flags);
        }
        if flags & END_HEADERS != 0 {
            self.in_trailers = false;
            if has_pseudo_field(&self.kept) {
                seen.fault = Some(Reason::PROTOCOL_ERROR);
            }
            self.kept = Vec::new();
        }
    }
}

/// `SETTINGS_NO_RFC7540_PRIORITIES` is 0 or 1 (RFC 9218, section 2.1). All others `h2` looks at.
const fn is_wrong_setting(setting: &[u8]) -> bool {
    matches!(setting, [0, 9, value @ ..] if !matches!(value, [0, 0, 0, 0 | 1]))
}

/// Leaves the fragment of a block of fields (RFC 9113, section 6.2). One that is malformed ends the
/// connection elsewhere.
fn without_padding(payload: &mut Vec<u8>, flags: u8) {
    let mut begin = 0;
    if flags & PADDED != 0 {
        let padding = payload.first().copied().unwrap_or_default();
        payload.truncate(payload.len().saturating_sub(usize::from(padding)));
        begin += 1;
    }
    if flags & PRIORITY != 0 {
        begin += 5;
    }
    payload.drain(..begin.min(payload.len()));
}

/// Whether a block has a field whose name begins with a colon (RFC 7541, section 6), as far as that
/// can be known without the dynamic table.
fn has_pseudo_field(mut block: &[u8]) -> bool {
    /// The first entries of the static table are those fields (RFC 7541, appendix A).
    const LAST: usize = 14;

    while let Some(&first) = block.first() {
        // An indexed field; a literal with indexing; a table size; literals without.
        let bits = match first {
            0x80.. => 7,
            0x40..0x80 => 6,
            0x20..0x40 => 5,
            _ => 4,
        };
        let Some(index) = integer(&mut block, bits) else {
            return false;
        };
        if bits == 5 {
            continue;
        }
        if (1..=LAST).contains(&index) {
            return true;
        }
        if bits == 7 {
            continue;
        }
        if index == 0 {
            let coded = block.first().is_some_and(|first| first & 0x80 != 0);
            let Some(name) = string(&mut block) else {
                return false;
            };
            // A colon in Huffman's code is 1011100 (RFC 7541, appendix B).
            if name.first().is_some_and(|&first| match coded {
                true => first >> 1 == 0b101_1100,
                false => first == b':',
            }) {
                return true;
            }
        }
        if string(&mut block).is_none() {
            return false;
        }
    }
    false
}

/// RFC 7541, section 5.1.
fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let limit = (1usize << bits) - 1;
    let (&first, mut rest) = block.split_first()?;
    let mut value = usize::from(first) & limit;
    if value == limit {
        let mut shift = 0;
        loop {
            let (&next, behind) = rest.split_first()?;
            rest = behind;
            value = value.checked_add(usize::from(next & 0x7f) << shift)?;
            shift += 7;
            if next & 0x80 == 0 {
                break;
            }
            if shift > 28 {
                return None;
            }
        }
    }
    *block = rest;
    Some(value)
}

/// RFC 7541, section 5.2, as it is coded.
fn string<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        frame.extend_from_slice(payload);
        frame
    }

    /// The same however it arrives.
    fn see(frames: &[Vec<u8>]) -> Seen {
        let bytes = [BEGIN, &frames.concat()].concat();
        let all = Frames::default().see(&bytes);
        for step in 1..bytes.len() {
            let mut frames = Frames::default();
            let mut sum = Seen::default();
            for piece in bytes.chunks(step) {
                let seen = frames.see(piece);
                sum.cost += seen.cost;
                sum.data += seen.data;
                sum.fault = sum.fault.or(seen.fault);
            }
            assert_eq!(sum, all, "{step}");
        }
        all
    }

    #[test]
    fn frames_are_told_apart_however_they_arrive() {
        let seen = see(&[
            frame(SETTINGS, 0, 0, &[0, 9, 0, 0, 0, 1]),
            frame(HEADERS, END_HEADERS, 1, &[7; 50]),
            frame(DATA, 0, 1, &[7; 200]),
            frame(DATA, 0, 1, &[]),
            frame(DATA, END_STREAM, 1, &[]),
            frame(6, 0, 0, &[7; 8]),
            frame(RST_STREAM, 0, 1, &[7; 4]),
            frame(CONTINUATION, 4, 1, &[7; 30]),
        ]);
        assert_eq!((seen.cost, seen.data), (5 + RESET, 200));
        assert_eq!(seen.fault, None);
    }

    #[test]
    fn settings_come_first() {
        let preface = &BEGIN[..PREFACE];
        for first in [frame(6, 0, 0, &[7; 8]), frame(SETTINGS, ACK, 0, &[])] {
            let seen = Frames::default().see(&[preface, &first].concat());
            assert_eq!(seen.fault, Some(Reason::PROTOCOL_ERROR));
        }
        let seen = see(&[frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9, 0, 9, 0, 0, 0, 2])]);
        assert_eq!(seen.fault, Some(Reason::PROTOCOL_ERROR));
    }

    #[test]
    fn no_data_comes_behind_the_end() {
        let head = |flags, stream| frame(HEADERS, END_HEADERS | flags, stream, &[0x82]);
        let data = |flags, stream| frame(DATA, flags, stream, b"x");
        let reset = frame(RST_STREAM, 0, 1, &[0; 4]);
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[]);
        for frames in [
            vec![head(END_STREAM, 1), data(0, 1)],
            vec![head(0, 1), data(END_STREAM, 1), data(0, 1)],
            vec![
                head(0, 1),
                head(0, 3),
                trailers,
                data(END_STREAM, 3),
                data(0, 1),
            ],
            vec![head(0, 1), reset, data(0, 1)],
        ] {
            assert_eq!(see(&frames).fault, Some(Reason::STREAM_CLOSED));
        }
        let frames = [head(0, 1), head(0, 3), data(END_STREAM, 1), data(0, 3)];
        assert_eq!(see(&frames).fault, None);
    }

    #[test]
    fn streams_that_were_let_go_of_are_not_judged() {
        let mut frames = Frames::default();
        frames.see(BEGIN);
        for at in 0..2 * MAX_OPEN as u16 {
            let [high, low] = (2 * at + 1).to_be_bytes();
            frames.see(&[0, 0, 1, HEADERS, END_HEADERS, 0, 0, high, low, 0x82]);
        }
        assert_eq!(frames.open.len(), MAX_OPEN);
        assert_eq!(frames.see(&frame(DATA, 0, 1, b"x")).fault, None);
    }

    #[test]
    fn trailers_have_no_pseudo_header_fields() {
        let head = frame(HEADERS, END_HEADERS, 1, &[0x82]);
        let trailers = |flags, block: &[u8]| frame(HEADERS, END_STREAM | flags, 1, block);
        let plain = b"\x00\x06x-test\x02ok";
        for block in [
            &b"\x82"[..],                                 // :method: GET
            b"\x42\x03200",                               // :method: 200
            b"\x00\x07:status\x03200",                    // a new name
            b"\x10\x85\xb8\x84\x8d\x36\xa3\x01x",         // the same, coded
            b"\x3f\xe1\x1f\x00\x06x-test\x02ok\x04\x01/", // behind others
        ] {
            let whole = see(&[head.clone(), trailers(END_HEADERS, block)]);
            assert_eq!(whole.fault, Some(Reason::PROTOCOL_ERROR), "{block:x?}");
            let split = see(&[
                head.clone(),
                trailers(0, &block[..1]),
                frame(CONTINUATION, END_HEADERS, 1, &block[1..]),
            ]);
            assert_eq!(split.fault, Some(Reason::PROTOCOL_ERROR), "{block:x?}");
        }
        let padded = [&[2, 0, 0, 0, 0, 9], &plain[..], &[0x82, 0x82]].concat();
        for good in [
            trailers(END_HEADERS, plain),
            trailers(END_HEADERS, b"\xbe\x7e\x01x"),
            trailers(END_HEADERS | PADDED | PRIORITY, &padded),
            trailers(END_HEADERS, b"\x00\x7f\xff\xff\xff\xff\xff\xff\x01"), // `h2` refuses it
        ] {
            assert_eq!(see(&[head.clone(), good]).fault, None);
        }
    }
}
