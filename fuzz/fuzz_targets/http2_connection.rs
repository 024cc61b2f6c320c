//! See `fuzz/http2.rs`.
#![no_main]

include!("../http2.rs");

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    http2::connection(script);
});
