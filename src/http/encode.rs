//! Writing HTTP/1.1 messages (RFC 9112).

use super::field::{Fields, Id, Ids};
use super::{RequestHead, ResponseHead};

/// What is said of a connection in a message (RFC 9110, section 7.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing: the version's default holds.
    Default,
    /// `close`
    Close,
    /// `keep-alive`, for HTTP/1.0.
    KeepAlive,
    /// `upgrade`, with the `Upgrade` field's value beside the fields.
    Upgrade,
}

/// Appends the head of a request to an upstream. `Host` comes first (RFC 9110, section 7.2); it is
/// the authority that the client asked for.
pub fn request(out: &mut Vec<u8>, head: &RequestHead, chunked: bool, upgrade: Option<&[u8]>) {
    out.extend_from_slice(head.method_text());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(head.authority());
    out.extend_from_slice(b"\r\n");
    head.fields.write(out, Ids::of(&[Id::Host]));
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(protocol) = upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\n");
        field(out, b"Upgrade", protocol);
    } else if head.accepts_trailers {
        // For this hop, as we pass trailers on (RFC 9110, section 10.1.4).
        out.extend_from_slice(b"TE: trailers\r\nConnection: te\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response to a client.
pub fn response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    chunked: bool,
    connection: Connection,
    upgrade: Option<&[u8]>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&status_digits(head.status));
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    head.fields.write(out, Ids::default());
    if chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    match connection {
        Connection::Default => {}
        Connection::Close => out.extend_from_slice(b"Connection: close\r\n"),
        Connection::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        Connection::Upgrade => out.extend_from_slice(b"Connection: upgrade\r\n"),
    }
    if let Some(protocol) = upgrade {
        field(out, b"Upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the line that begins a chunk of this length, which is above 0.
pub fn chunk_head(out: &mut Vec<u8>, length: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(DIGITS[length >> (4 * place) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body, with its trailer section.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write(out, Ids::default());
    }
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

const fn status_digits(status: u16) -> [u8; 3] {
    #[allow(clippy::cast_possible_truncation)] // each is a digit
    const fn digit(n: u16) -> u8 {
        b'0' + (n % 10) as u8
    }
    [digit(status / 100), digit(status / 10), digit(status)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_chunk_is_hexadecimal() {
        for length in [1, 15, 16, 255, 4096, 65_535, 1 << 20] {
            let mut out = Vec::new();
            chunk_head(&mut out, length);
            assert_eq!(out, format!("{length:x}\r\n").into_bytes());
        }
    }
}
