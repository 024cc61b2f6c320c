//! Everything that is accepted, in whatever form it comes.

use rcgen::{IsCa, KeyPair};

use crate::cert::load::Roots;
use crate::cert::testing::*;
use crate::cert::{KeyType, Reason, Rejection, Verified};

/// Every form that is accepted gives the very same certificate.
#[test]
fn every_form_of_a_pair_is_accepted() {
    let crt = certificate_of("p256.pem");
    let key = key_of("p256.pem");
    let crlf = |text: &str| text.replace('\n', "\r\n");
    let indented = |text: &str| text.replace('\n', "\n    ");
    let expected = bundle(fixture("p256.pem"), &Roots::empty()).unwrap();
    let bundles: Vec<(&str, Vec<u8>)> = vec![
        ("key first", format!("{key}{crt}").into()),
        ("CRLF", crlf(&format!("{crt}{key}")).into()),
        ("CR", crt.replace('\n', "\r").into_bytes()),
        ("a byte order mark", format!("\u{feff}{crt}{key}").into()),
        ("indented", indented(&format!("    {crt}{key}")).into()),
        (
            "no last line end",
            format!("{crt}{}", key.trim_end()).into(),
        ),
        ("bag attributes", fixture("p256.bag-attributes.pem")),
        ("text", fixture("p256.text.pem")),
        ("EC parameters", fixture("p256.ec-parameters.pem")),
        ("trusted", fixture("p256.trusted.pem")),
        (
            "old label",
            format!("{crt}{key}").replace(" CERT", " X509 CERT").into(),
        ),
        (
            "separators",
            format!("---\nCertificate chain\n{crt}---\n{key}").into(),
        ),
    ];
    for (what, bytes) in bundles {
        let loaded = match what {
            "CR" => pair(&bytes, &key, &Roots::empty()),
            _ => bundle(&bytes, &Roots::empty()),
        };
        let loaded = loaded.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(loaded.key().cert, expected.key().cert, "{what}");
    }
    for form in ["p256.pkcs8.der", "p256.sec1.der"] {
        let loaded = pair(fixture("p256.crt.der"), fixture(form), &Roots::empty()).unwrap();
        assert_eq!(loaded.key().cert, expected.key().cert, "{form}");
    }
    let rsa = certificate_of("rsa-2048.pem");
    for form in ["rsa-2048.pkcs1.der", "rsa-2048.pkcs1.pem"] {
        let loaded = pair(&rsa, fixture(form), &Roots::empty()).unwrap();
        assert_eq!(loaded.facts().key_type, KeyType::Rsa(2048), "{form}");
    }
}

#[test]
fn every_supported_key_type_is_told() {
    for (name, expected) in [
        ("rsa-2048.pem", "RSA 2048"),
        ("p256.pem", "ECDSA P-256"),
        ("p384.pem", "ECDSA P-384"),
        ("p521.pem", "ECDSA P-521"),
        ("ed25519.pem", "Ed25519"),
    ] {
        let loaded = bundle(fixture(name), &Roots::empty()).unwrap();
        assert_eq!(loaded.facts().key_type.to_string(), expected);
        assert_eq!(loaded.facts().chain_length, 1);
        assert!(loaded.facts().chain_complete && !loaded.facts().trusted);
    }
}

/// Cut anywhere, a file gives what it gave whole, or a rejection. The one exception is the very
/// boundary between two certificates, where what is left is a sound file: then the gap is told.
#[test]
fn a_file_cut_anywhere_never_gives_a_shorter_chain_in_silence() {
    let world = World::new();
    let Issued { chain, key } = world.issue(&Leaf::new(&["a.test"]));
    let whole = pair(&chain, &key, &world.roots).unwrap();
    let judge = |loaded: Result<Verified, Rejection>, at: usize| match loaded {
        Err(rejection) => assert!(
            matches!(
                rejection.reason,
                Reason::MalformedPem | Reason::NoCertificate | Reason::NoKey
            ),
            "{at}: {rejection}"
        ),
        Ok(cut) if cut.key().cert == whole.key().cert => {}
        Ok(cut) => {
            assert_eq!(cut.key().cert, whole.key().cert[..1], "{at}");
            let faults = cut.faults(NOW);
            assert_eq!(faults[0].reason, Reason::BrokenChain, "{at}");
            let second = chain.rfind("-----BEGIN").unwrap();
            let boundary = chain[..second].trim_end().len()..=second;
            assert!(at == 0 || boundary.contains(&at), "{at}");
        }
    };
    for at in 0..chain.len() {
        judge(pair(&chain[..at], &key, &world.roots), at);
    }
    for at in 0..key.len() {
        judge(pair(&chain, &key[..at], &world.roots), at);
    }
    // With the key last, no cut at all can pass.
    let both = format!("{chain}{key}");
    for at in 0..both.trim_end().len() {
        assert!(bundle(&both[..at], &world.roots).is_err(), "{at}");
    }
    let der = fixture("p256.crt.der");
    for at in 0..der.len() {
        assert!(
            pair(&der[..at], key_of("p256.pem"), &world.roots).is_err(),
            "{at}"
        );
    }
}

#[test]
fn of_two_keys_the_one_that_fits_is_used() {
    let world = World::new();
    let Issued { chain, key } = world.issue(&Leaf::new(&["a.test"]));
    let other = KeyPair::generate().unwrap().serialize_pem();
    let weak = key_of("rsa-1024.pem");
    let encrypted = String::from_utf8(fixture("p256.encrypted.key")).unwrap();
    for file in [
        format!("{other}{key}{chain}"),
        format!("{key}{chain}{other}"),
        format!("{weak}{key}{chain}"),
        format!("{encrypted}{key}{chain}"),
    ] {
        assert!(bundle(file, &world.roots).unwrap().facts().trusted);
    }
    // With an authority's pair in the file as well, the server's is meant.
    let authority = world.intermediate.issuer.key().serialize_pem();
    let file = format!("{authority}{}{key}{chain}", world.intermediate.pem);
    let loaded = bundle(file, &world.roots).unwrap();
    assert!(loaded.covers("a.test"));
}

#[test]
fn a_certificate_that_issued_itself_is_served() {
    let loaded = Leaf::new(&["a.test"])
        .with(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained))
        .self_signed()
        .load(&Roots::empty())
        .unwrap();
    assert_eq!(loaded.facts().chain_length, 1);
    assert!(loaded.facts().chain_complete);
    assert!(loaded.facts().notes[0].contains("marked as an authority's"));
}

#[test]
fn of_two_certificates_for_one_key_the_living_is_used() {
    let world = World::new();
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let old = world.issue(&Leaf::new(&["a.test"]).key(key).valid(day(-90), day(-1)));
    let again = KeyPair::from_pem(&pem).unwrap();
    let new = Leaf::new(&["a.test"]).key(again).issue(&world.intermediate);
    let loaded = pair(format!("{}{}", old.chain, new.chain), &pem, &world.roots).unwrap();
    assert_eq!(loaded.facts().validity.not_after, day(60));
    assert_eq!(loaded.facts().chain_length, 2);
    assert!(loaded.facts().trusted);
}
