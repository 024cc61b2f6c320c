//! What is counted of responses that are compressed.

use super::handle::Counter;
use super::label::{Label, Set, label};
use super::names;
use super::registry::Registry;

label! {
    /// A content coding (RFC 9110, section 8.4.1).
    pub enum Coding {
        /// Zstandard (RFC 8878).
        Zstd = "zstd",
        /// Brotli (RFC 7932).
        Brotli = "br",
        /// gzip (RFC 1952).
        Gzip = "gzip",
    }
}

impl Coding {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];
}

/// One worker's handles. Make one for each worker.
#[derive(Debug)]
pub struct CompressionSeries {
    responses: Set<Coding>,
    input: Box<[Counter]>,
    output: Box<[Counter]>,
}

impl CompressionSeries {
    /// New shards of all of them.
    pub fn new(registry: &Registry) -> Self {
        let bytes = |metric: names::Metric| {
            let counter = |code: &&'static str| metric.counter(registry, &[("coding", code)]);
            Coding::CODES.iter().map(counter).collect()
        };
        Self {
            responses: Set::new(registry, names::COMPRESSED_RESPONSES, &[], "coding"),
            input: bytes(names::COMPRESSION_INPUT),
            output: bytes(names::COMPRESSION_OUTPUT),
        }
    }

    /// Counts a response, when it is over: the bytes that came, and those that were made of them.
    pub fn response(&self, coding: Coding, input: u64, output: u64) {
        self.responses.inc(coding);
        self.input[coding.index()].add(input);
        self.output[coding.index()].add(output);
    }
}
