// What must hold whatever bytes are read as a certificate. Included by the fuzz target and by the
// test that runs its corpus, so that both ask the same.

use staunch::cert::load::{File, Input, Roots, load};
use staunch::cert::{Verified, chain, compare, names};
use staunch::clock::Timestamp;

/// A sound certificate and its key, to go with the other half from outside.
const SOUND: &[u8] = SOUND_BUNDLE;

/// Reads the bytes as everything that a file can be: a bundle, a chain, a key, a staple.
fn certificate_from(bytes: &[u8]) {
    let file = |bytes: &[u8]| File {
        path: "/fuzz".into(),
        bytes: bytes.to_vec(),
    };
    for (chain, key, ocsp) in [
        (bytes, None, None),
        (bytes, Some(SOUND), None),
        (SOUND, Some(bytes), None),
        (SOUND, None, Some(bytes)),
    ] {
        let input = Input {
            chain: file(chain),
            key: key.map(file),
            ocsp: ocsp.map(file),
        };
        let now = Timestamp::from_unix(1_800_000_000);
        match load(&input, &Roots::empty(), now) {
            Ok(verified) => holds(&verified, now),
            Err(rejection) => {
                let text = rejection.to_string();
                assert!(!text.chars().any(char::is_control), "{text:?}");
                assert!(rejection.help.contains("/fuzz"), "{text}");
            }
        }
    }
}

fn holds(verified: &Verified, now: Timestamp) {
    let facts = verified.facts();
    assert!((1..=chain::MAX_CHAIN).contains(&facts.chain_length));
    assert_eq!(verified.key().cert.len(), facts.chain_length);
    assert!(facts.names.len() <= names::MAX_NAMES);
    assert!(!facts.trusted, "there are no roots");
    // Certificates that webpki does not parse are served all the same; a mismatch never is.
    let matching = format!("{:?}", verified.key().keys_match());
    assert!(!matching.contains("KeyMismatch"), "{matching}");
    for fault in verified.faults(now) {
        let text = format!("{}{}", fault.detail, fault.help);
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    for note in &facts.notes {
        assert!(!note.chars().any(char::is_control), "{note:?}");
    }
    let needs = compare::Needs::default();
    assert!(compare::judge(verified, verified, &needs, now).is_ok());
}
