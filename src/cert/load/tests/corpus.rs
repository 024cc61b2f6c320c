//! Everything that the fuzz target has been given, and every fixture, under the fuzz target's own
//! assertions.

use crate as staunch;

const SOUND_BUNDLE: &[u8] = include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/certificates/p256.pem"
));

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/certificate.rs"));

#[test]
fn the_corpus_holds() {
    let mut count = 0;
    for folder in ["fuzz/corpus/certificate", "tests/fixtures/certificates"] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(folder).unwrap() {
            certificate_from(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
    }
    assert!(count > 60, "{count} files");
}
