//! From arbitrary bytes to a verified certificate.
#![no_main]

const SOUND_BUNDLE: &[u8] = include_bytes!("../../tests/fixtures/certificates/p256.pem");

include!("../certificate.rs");

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    certificate_from(bytes);
});
