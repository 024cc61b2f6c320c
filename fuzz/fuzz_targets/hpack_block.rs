//! See `fuzz/http.rs`.
#![no_main]
#![allow(dead_code)]

include!("../http.rs");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hpack_block(bytes);
});
