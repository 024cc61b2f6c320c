//! Properties over arbitrary bytes.

use proptest::prelude::*;

use crate::cert::KeyType;
use crate::cert::load::Roots;
use crate::cert::staple::{self, About};
use crate::cert::testing::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Bytes changed anywhere in a sound file: never a panic, and never another leaf.
    #[test]
    fn a_changed_file_is_the_same_certificate_or_none(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        der in any::<bool>(),
    ) {
        let mut bytes = match der {
            true => fixture("p256.crt.der"),
            false => fixture("p256.pem"),
        };
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let loaded = match der {
            true => pair(&bytes, key_of("p256.pem"), &Roots::empty()),
            false => bundle(&bytes, &Roots::empty()),
        };
        if let Ok(loaded) = loaded {
            // Whatever passed, the key still belongs to it.
            prop_assert!(loaded.facts().key_type == KeyType::EcdsaP256);
            let _ = loaded.faults(NOW);
        }
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(bundle(&bytes, &Roots::empty()).is_err());
        let about = About { serial: &[1], issuer: &[], key: None };
        let _ = staple::read(&bytes, about, NOW);
    }
}
