//! The client's side over HTTP/2: frames by hand, because no library sends what must be refused.

use std::net::SocketAddr;

use super::case::{Case, Step};
use super::wire::Wire;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

pub type Field = (Vec<u8>, Vec<u8>);

/// Kind, flags, stream, payload.
pub type Frame = (u8, u8, u32, Vec<u8>);

pub fn run(case: &Case, proxy: SocketAddr) -> Result<(), String> {
    let mut wire = Wire::connect(proxy, "h2")?;
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(&mut out, SETTINGS, 0, 0, &[]);
    let mut stream = 1;
    let mut steps = case.steps.iter().peekable();
    while let Some(step) = steps.next() {
        match step {
            Step::H2(fields, data) => {
                let trailers = matches!(steps.peek(), Some(Step::H2Trailers(_)));
                let ends = data.is_none() && !trailers;
                let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
                frame(&mut out, HEADERS, flags, stream, &block(fields));
                if let Some(data) = data {
                    let flags = if trailers { 0 } else { END_STREAM };
                    frame(&mut out, DATA, flags, stream, data);
                }
            }
            Step::H2Trailers(fields) => {
                frame(
                    &mut out,
                    HEADERS,
                    END_HEADERS | END_STREAM,
                    stream,
                    &block(fields),
                );
            }
            Step::H2Back(allowed) => {
                wire.send(&out)?;
                out.clear();
                let came = answer(&mut wire, stream)?;
                if !allowed.contains(&came) {
                    return Err(format!("expected {}, came {came}", allowed.join(" or ")));
                }
                stream += 2;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What became of a stream: a status, `reset`, or `goaway`.
fn answer(wire: &mut Wire, stream: u32) -> Result<String, String> {
    let mut status = None;
    loop {
        let Some((kind, flags, on, payload)) = next(wire)? else {
            return Ok(status.unwrap_or_else(|| "goaway".to_owned()));
        };
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let mut out = Vec::new();
                frame(&mut out, SETTINGS, ACK, 0, &[]);
                wire.send(&out)?;
            }
            GOAWAY if payload[4..8] != [0; 4] => return Ok("goaway".to_owned()),
            RST_STREAM if on == stream => return Ok(status.unwrap_or_else(|| "reset".to_owned())),
            HEADERS if on == stream => {
                let skip =
                    usize::from(flags & PADDED != 0) + 5 * usize::from(flags & PRIORITY != 0);
                if status.is_none() {
                    status = Some(read_status(&payload[skip..])?);
                }
            }
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && on == stream && flags & END_STREAM != 0 {
            return status.ok_or_else(|| "data before a head".to_owned());
        }
    }
}

/// The next frame; `None` at the end.
pub fn next(wire: &mut Wire) -> Result<Option<Frame>, String> {
    loop {
        let read = wire.buffered();
        if let [a, b, c, kind, flags, d, e, f, g, rest @ ..] = &read[..] {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if rest.len() >= length {
                let on = u32::from_be_bytes([d & 0x7f, *e, *f, *g]);
                let found = (*kind, *flags, on, rest[..length].to_vec());
                read.drain(..9 + length);
                return Ok(Some(found));
            }
        }
        if !wire.fill()? {
            return Ok(None);
        }
    }
}

pub fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Fields as literals that are never indexed (RFC 7541, section 6.2.3).
pub fn block(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0x10);
        for text in [name, value] {
            integer(&mut out, text.len());
            out.extend_from_slice(text);
        }
    }
    out
}

/// RFC 7541, section 5.1, with a prefix of seven bits.
fn integer(out: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        out.push(u8::try_from(value).unwrap());
        return;
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).unwrap());
}

/// `:status` is the first field of a response: indexed, or a literal with its name indexed.
fn read_status(block: &[u8]) -> Result<String, String> {
    let block = match block {
        [update, rest @ ..] if update & 0xe0 == 0x20 => rest, // RFC 7541, section 6.3
        _ => block,
    };
    Ok(match block {
        [indexed, ..] if indexed & 0x80 != 0 => {
            let known = ["200", "204", "206", "304", "400", "404", "500"];
            let at = usize::from(indexed & 0x7f).checked_sub(8);
            let status = at.and_then(|at| known.get(at));
            (*status.ok_or("the first field is not :status")?).to_owned()
        }
        [0x48 | 0x08 | 0x18, length, text @ ..] => {
            let bytes = &text[..usize::from(length & 0x7f)];
            match length & 0x80 {
                0 => String::from_utf8_lossy(bytes).into_owned(),
                _ => digits(bytes),
            }
        }
        _ => {
            return Err(format!(
                "the first field is not :status: {}",
                block.escape_ascii()
            ));
        }
    })
}

/// Digits in Huffman's code (RFC 7541, appendix B).
fn digits(bytes: &[u8]) -> String {
    let mut out = String::new();
    let bit = |at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let take = |at: usize, count: usize| (at..at + count).fold(0, |n, at| n << 1 | bit(at));
    let mut at = 0;
    while at + 5 <= bytes.len() * 8 && out.len() < 3 {
        let five = take(at, 5);
        if five <= 2 {
            out.push(char::from_digit(five, 10).unwrap());
            at += 5;
        } else {
            out.push(char::from_digit(take(at, 6) - 0x19 + 3, 10).unwrap_or('?'));
            at += 6;
        }
    }
    out
}
