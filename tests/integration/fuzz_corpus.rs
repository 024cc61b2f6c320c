//! What fuzzing has found, and what it begins with, on every run of the tests; and as many inputs
//! that are near to them as fit into a moment.

use std::fs;
use std::path::Path;

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/http.rs"));

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/http2.rs"));

/// Changed copies of each input.
const COPIES: u32 = 2000;

fn corpus(target: &str, holds: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        inputs.push(fs::read(entry.unwrap().path()).unwrap());
    }
    assert!(inputs.len() > 2, "{target}: {} inputs", inputs.len());
    let mut random = Random(1);
    for input in &inputs {
        holds(input);
        for _ in 0..COPIES {
            holds(&random.near(input, &inputs));
        }
    }
}

/// Numbers that are the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }

    /// An input with some bytes changed, taken out, doubled or brought in from another one.
    fn near(&mut self, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        const BYTES: &[u8] = b"\r\n\0 \t:;,=\"%/?#@[]*0159aAfFxX_-\x7f\x80\xff";
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let byte = BYTES[self.below(BYTES.len())];
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                3 => {
                    let end = bytes.len().min(at + self.below(20));
                    let doubled = bytes[at..end].to_vec();
                    bytes.splice(at..at, doubled);
                }
                _ => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len());
                    let end = other.len().min(from + self.below(30));
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
            }
        }
        bytes
    }
}

#[test]
fn heads_of_requests_hold() {
    corpus("request_head", request_head);
}

#[test]
fn chunked_bodies_hold() {
    corpus("chunked_body", chunked_body);
}

#[test]
fn requests_of_http_2_hold_in_http_1_1() {
    corpus("downgrade", downgrade);
}

#[test]
fn blocks_of_fields_hold() {
    corpus("hpack_block", hpack_block);
}

#[test]
fn connections_of_http_2_hold() {
    corpus("http2_connection", http2::connection);
}

#[test]
fn proxy_headers_hold() {
    corpus("proxy_header", proxy_header);
}
