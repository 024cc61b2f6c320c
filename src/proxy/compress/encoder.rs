//! The codings, behind one face: what goes in comes out of one buffer.

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use flate2::write::GzEncoder;
use zstd::stream::raw::CParameter;

use crate::config::{Coding, Effort};

/// How far back an encoder looks, as a power of 2: it bounds the memory that each response takes,
/// here and at the client (RFC 8878, section 3.1.1.1.2, asks for 8 MiB at most).
const WINDOW: u32 = 18;

/// A stream that is being coded.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// What is left when it has ended.
    Done(Vec<u8>),
}

impl Encoder {
    /// `length`: that of what will be written, where it is known.
    pub(super) fn new(coding: Coding, effort: Effort, length: Option<u64>) -> io::Result<Self> {
        let out = Vec::new();
        Ok(match coding {
            Coding::Gzip => {
                let level = match effort {
                    Effort::Low => 1,
                    Effort::Medium => 5,
                    Effort::High => 9,
                };
                Self::Gzip(GzEncoder::new(out, flate2::Compression::new(level)))
            }
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: match effort {
                        Effort::Low => 2,
                        Effort::Medium => 4,
                        Effort::High => 7,
                    },
                    #[allow(clippy::cast_possible_wrap)] // it is a handful of bits
                    lgwin: window(length, 10) as i32,
                    size_hint: length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0),
                    ..BrotliEncoderParams::default()
                };
                Self::Brotli(Box::new(CompressorWriter::with_params(out, 4096, &params)))
            }
            Coding::Zstd => {
                let level = match effort {
                    Effort::Low => 1,
                    Effort::Medium => 3,
                    Effort::High => 9,
                };
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                encoder.set_parameter(CParameter::WindowLog(window(length, 10)))?;
                encoder.set_parameter(CParameter::ChecksumFlag(false))?;
                Self::Zstd(encoder)
            }
        })
    }

    pub(super) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Brotli(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
            Self::Done(_) => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Lets go of all that was written, so that the client can read it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Done(_) => Ok(()),
        }
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        let out = match std::mem::replace(self, Self::Done(Vec::new())) {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Done(out) => out,
        };
        *self = Self::Done(out);
        Ok(())
    }

    /// What was made and is not forgotten yet.
    pub(super) fn output(&self) -> &[u8] {
        match self {
            Self::Gzip(encoder) => encoder.get_ref(),
            Self::Brotli(encoder) => encoder.get_ref(),
            Self::Zstd(encoder) => encoder.get_ref(),
            Self::Done(out) => out,
        }
    }

    /// All of it was passed on.
    pub(super) fn forget_output(&mut self) {
        match self {
            Self::Gzip(encoder) => encoder.get_mut().clear(),
            Self::Brotli(encoder) => encoder.get_mut().clear(),
            Self::Zstd(encoder) => encoder.get_mut().clear(),
            Self::Done(out) => out.clear(),
        }
    }
}

/// The smallest window that holds all of it.
fn window(length: Option<u64>, least: u32) -> u32 {
    let needed = |length: u64| (u64::BITS - length.leading_zeros() + 1).clamp(least, WINDOW);
    length.map_or(WINDOW, needed)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn decode(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let read = match coding {
            Coding::Gzip => flate2::read::GzDecoder::new(coded).read_to_end(&mut out),
            Coding::Brotli => brotli::Decompressor::new(coded, 4096).read_to_end(&mut out),
            Coding::Zstd => zstd::stream::read::Decoder::new(coded)
                .and_then(|mut decoder| decoder.read_to_end(&mut out)),
        };
        read.unwrap();
        out
    }

    /// What a reader makes of a stream that has not ended.
    fn decode_so_far(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut buffer = [0; 512];
        let mut reader: Box<dyn Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(coded)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(coded, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(coded).unwrap()),
        };
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            out.extend_from_slice(&buffer[..count]);
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_coded_can_be_read_at_each_flush_and_at_the_end(
            pieces in proptest::collection::vec((0usize..40_000, any::<bool>(), 1u8..255), 0..6),
            coding in 0usize..3,
            effort in 0usize..3,
            known in any::<bool>(),
        ) {
            let coding = Coding::ALL[coding];
            let effort = [Effort::Low, Effort::Medium, Effort::High][effort];
            let length: usize = pieces.iter().map(|piece| piece.0).sum();
            let mut encoder = Encoder::new(coding, effort, known.then_some(length as u64)).unwrap();
            let (mut plain, mut coded) = (Vec::new(), Vec::new());
            for (size, flush, step) in pieces {
                let piece: Vec<u8> = (0..size).map(|n| (n / usize::from(step)).to_le_bytes()[0]).collect();
                encoder.write(&piece).unwrap();
                plain.extend(piece);
                if flush {
                    encoder.flush().unwrap();
                }
                coded.extend_from_slice(encoder.output());
                encoder.forget_output();
                if flush {
                    prop_assert_eq!(&decode_so_far(coding, &coded), &plain);
                }
            }
            encoder.finish().unwrap();
            coded.extend_from_slice(encoder.output());
            prop_assert_eq!(decode(coding, &coded), plain);
        }
    }

    #[test]
    fn the_window_is_no_larger_than_what_goes_in() {
        assert_eq!(window(None, 10), WINDOW);
        assert_eq!(window(Some(100), 10), 10);
        assert_eq!(window(Some(5000), 10), 14);
        assert_eq!(window(Some(1 << 40), 10), WINDOW);
    }
}
