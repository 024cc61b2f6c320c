//! Where the body of an HTTP/1.1 message ends (RFC 9112, sections 6 and 7).
//!
//! The decoder never copies: it says how much of the input is framing and how much is data, and
//! the caller passes the data on from where it lies.

use super::Framing;
use super::field::{Fields, Id};
use super::parse::{self, HeadError};

/// Bytes of chunk extensions that are skipped in one body. Extensions mean nothing to a proxy
/// (RFC 9112, section 7.1.1), and without a bound they are a way to make it work for nothing.
const MAX_EXTENSIONS: usize = 16 << 10;
/// Bytes of a trailer section.
pub const MAX_TRAILERS: usize = 16 << 10;
/// Fields of a trailer section.
const MAX_TRAILER_FIELDS: usize = 64;

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not the grammar of RFC 9112, section 7.1.
    #[error("the chunked body is malformed: {0}")]
    Chunk(&'static str),
    /// The trailer section is refused.
    #[error("the trailer section is refused: {0}")]
    Trailers(HeadError),
    /// The peer closed before the body was whole.
    #[error("the body ended before its announced length")]
    Truncated,
    /// More came than was announced.
    #[error("the body is longer than its announced length")]
    TooLong,
}

/// What stands at the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// This many bytes of data, at least one.
    Data(usize),
    /// Nothing more can be said without more input.
    Partial,
    /// The end of the body.
    End,
}

/// Finds data and end of one body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extensions: usize,
    trailers: Option<Box<Fields>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The rest of a body, or of a chunk.
    Length(u64),
    UntilClose,
    ChunkSize {
        size: u64,
        digits: u8,
    },
    ChunkSpace {
        size: u64,
    },
    ChunkExtension {
        size: u64,
    },
    ChunkSizeLf {
        size: u64,
    },
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    Trailers,
    End,
}

const CHUNK_SIZE: State = State::ChunkSize { size: 0, digits: 0 };

impl Decoder {
    /// For a body framed in this way.
    pub const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => CHUNK_SIZE,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            extensions: 0,
            trailers: None,
        }
    }

    /// Whether the body is over.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// The bytes that are certain to come still; `None` when that is not known.
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::End => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Looks at the input: first comes this much framing, to be dropped, then what [`Front`] says.
    pub fn front(&mut self, input: &[u8]) -> Result<(usize, Front), BodyError> {
        let mut at = 0;
        loop {
            let left = input.len() - at;
            match self.state {
                State::End => return Ok((at, Front::End)),
                State::Length(0) => self.state = State::End,
                State::ChunkData(0) => self.state = State::ChunkDataCr,
                _ if left == 0 => return Ok((at, Front::Partial)),
                State::Length(rest) | State::ChunkData(rest) => {
                    let data = usize::try_from(rest).unwrap_or(usize::MAX).min(left);
                    return Ok((at, Front::Data(data)));
                }
                State::UntilClose => return Ok((at, Front::Data(left))),
                State::Trailers => {
                    let Some(length) = self.trailers(&input[at..])? else {
                        return Ok((at, Front::Partial));
                    };
                    at += length;
                    self.state = State::End;
                }
                _ => {
                    self.state = self.framing_byte(input[at])?;
                    at += 1;
                }
            }
        }
    }

    /// Says that this much of the data was taken.
    pub const fn took(&mut self, data: usize) {
        if let State::Length(rest) | State::ChunkData(rest) = &mut self.state {
            *rest -= data as u64;
        }
    }

    /// Says that the peer closed its side.
    pub fn closed(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::End | State::UntilClose | State::Length(0) => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// The trailer section, once the body is over.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.trailers.take()
    }

    fn framing_byte(&mut self, byte: u8) -> Result<State, BodyError> {
        Ok(match (self.state, byte) {
            (State::ChunkSize { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                // 15 digits keep the sum of sizes within 63 bits.
                if digits == 15 {
                    return Err(BodyError::Chunk("the size is too large"));
                }
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ => (byte | 0x20) - b'a' + 10,
                };
                State::ChunkSize {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::ChunkSize { digits: 0, .. }, _) => {
                return Err(BodyError::Chunk("the size is not hexadecimal"));
            }
            (State::ChunkSize { size, .. } | State::ChunkExtension { size }, b'\r') => {
                State::ChunkSizeLf { size }
            }
            (State::ChunkSize { size, .. } | State::ChunkSpace { size }, b';') => {
                State::ChunkExtension { size }
            }
            (State::ChunkSize { size, .. } | State::ChunkSpace { size }, b' ' | b'\t') => {
                self.count_extension()?;
                State::ChunkSpace { size }
            }
            (State::ChunkSize { .. } | State::ChunkSpace { .. }, _) => {
                return Err(BodyError::Chunk("the size is followed by something else"));
            }
            (State::ChunkExtension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension()?;
                State::ChunkExtension { size }
            }
            (State::ChunkExtension { .. }, _) => {
                return Err(BodyError::Chunk("an extension has a control character"));
            }
            (State::ChunkSizeLf { size: 0 }, b'\n') => State::Trailers,
            (State::ChunkSizeLf { size }, b'\n') => State::ChunkData(size),
            (State::ChunkDataCr, b'\r') => State::ChunkDataLf,
            (State::ChunkDataLf, b'\n') => CHUNK_SIZE,
            (State::ChunkDataCr | State::ChunkDataLf, _) => {
                return Err(BodyError::Chunk("the data is longer than the size"));
            }
            _ => return Err(BodyError::Chunk("a line does not end with CR LF")),
        })
    }

    const fn count_extension(&mut self) -> Result<(), BodyError> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(BodyError::Chunk("there are too many extensions"));
        }
        Ok(())
    }

    /// Reads the trailer section when it is whole; its length.
    fn trailers(&mut self, input: &[u8]) -> Result<Option<usize>, BodyError> {
        let read = parse::trailers(input, MAX_TRAILER_FIELDS).map_err(BodyError::Trailers)?;
        let Some((mut fields, length)) = read else {
            if input.len() > MAX_TRAILERS {
                return Err(BodyError::Trailers(HeadError::TooLong));
            }
            return Ok(None);
        };
        fields.retain(may_be_trailer);
        self.trailers = (!fields.is_empty()).then(|| Box::new(fields));
        Ok(Some(length))
    }
}

/// Whether a field may come after the body: not those that frame or route the message, and not
/// those that a recipient has acted upon already (RFC 9110, section 6.5.1).
pub const fn may_be_trailer(id: Id) -> bool {
    matches!(id, Id::Other | Id::Date)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes input that arrives in pieces of `step` bytes; the data, and what is left over.
    fn decode(framing: Framing, input: &[u8], step: usize) -> Result<(Vec<u8>, usize), BodyError> {
        let mut decoder = Decoder::new(framing);
        let (mut data, mut start, mut end) = (Vec::new(), 0, 0);
        loop {
            let (skip, front) = decoder.front(&input[start..end])?;
            start += skip;
            match front {
                Front::End => return Ok((data, input.len() - start)),
                Front::Data(length) => {
                    data.extend_from_slice(&input[start..start + length]);
                    decoder.took(length);
                    start += length;
                }
                Front::Partial if end == input.len() => {
                    decoder.closed()?;
                }
                Front::Partial => end = (end + step).min(input.len()),
            }
        }
    }

    #[test]
    fn a_chunked_body_is_decoded_however_it_arrives() {
        let input =
            b"5;a=\"b\"\r\nhello\r\n1 ;x\r\n \r\n05\r\nworld\r\n0\r\nX: y\r\nHost: z\r\n\r\nGET";
        for step in 1..input.len() {
            assert_eq!(
                decode(Framing::Chunked, input, step),
                Ok((b"hello world".to_vec(), 3))
            );
        }
    }

    #[test]
    fn trailers_are_kept_without_those_that_must_not_be() {
        let mut decoder = Decoder::new(Framing::Chunked);
        let input = b"0\r\nX-Sum: 7\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(decoder.front(input), Ok((input.len(), Front::End)));
        let trailers = decoder.take_trailers().unwrap();
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers.iter().next().unwrap().1, b"X-Sum");
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for input in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n0\r\n\r\n",
            b"5\nhello\r\n0\r\n\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello!\r\n0\r\n\r\n",
            b"5 \r\nhello\r\n0\r\n\r\n",
            b"5;a\nb\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
            b"1000000000000000\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n",
            b"0\r\nX: a\n\r\n",
            b"0\r\n X: a\r\n\r\n",
            b"0\r\nX : a\r\n\r\n",
            b"5\r\nhel",
            b"5\r\nhello\r\n",
            b"0\r\n",
        ] {
            for step in [1, input.len()] {
                assert!(
                    decode(Framing::Chunked, input, step).is_err(),
                    "{}",
                    input.escape_ascii()
                );
            }
        }
        let mut bomb = b"5;".to_vec();
        bomb.resize(MAX_EXTENSIONS + 8, b'x');
        assert!(decode(Framing::Chunked, &bomb, bomb.len()).is_err());
    }

    #[test]
    fn a_body_with_a_length_ends_there_and_not_before() {
        assert_eq!(
            decode(Framing::Length(3), b"abcdef", 2),
            Ok((b"abc".to_vec(), 3))
        );
        assert_eq!(
            decode(Framing::Length(3), b"ab", 1),
            Err(BodyError::Truncated)
        );
        assert_eq!(
            decode(Framing::UntilClose, b"ab", 1),
            Ok((b"ab".to_vec(), 0))
        );
        assert_eq!(decode(Framing::None, b"ab", 1), Ok((vec![], 2)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8),
            step in 1usize..64,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                super::super::encode::chunk_head(&mut wire, chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            super::super::encode::last_chunk(&mut wire, None);
            prop_assert_eq!(decode(Framing::Chunked, &wire, step), Ok((chunks.concat(), 0)));
        }

        #[test]
        fn nothing_makes_the_decoder_panic(
            input in proptest::collection::vec(prop_oneof![
                any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'5'), Just(b';')
            ], 0..200),
            step in 1usize..20,
        ) {
            let _ = decode(Framing::Chunked, &input, step);
        }
    }
}
