//! Names, staples and the other facts.

use rcgen::{CustomExtension, SanType, SerialNumber};

use crate::cert::load::{Input, Roots, load};
use crate::cert::names::MAX_NAMES;
use crate::cert::ocsp::{Answer, Question};
use crate::cert::testing::*;
use crate::cert::{Name, Reason, Verified, x509};

#[test]
fn only_names_that_a_client_can_match_are_kept() {
    let world = World::new();
    let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let leaf = Leaf::new(&[]).with(|params| {
        params.subject_alt_names = vec![
            dns("EXAMPLE.test."),
            dns("xn--Caf-dma.test"),
            dns("*.wild.test"),
            dns("f*.wild.test"),
            dns("a.*.wild.test"),
            dns("*.*.wild.test"),
            dns("*"),
            dns("*."),
            dns("under_score.test"),
            dns("-dash.test"),
            dns("two..dots.test"),
            dns("blank .test"),
            dns("192.0.2.7"),
            dns(""),
            dns("example.test"),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
            SanType::Rfc822Name("mail@example.test".try_into().unwrap()),
        ];
    });
    let loaded = world.verified(&leaf);
    let names: Vec<_> = loaded.facts().names.iter().map(Name::to_string).collect();
    assert_eq!(
        names,
        [
            "example.test",
            "xn--caf-dma.test",
            "*.wild.test",
            "under_score.test",
            "2001:db8::1"
        ]
    );
    let notes = loaded.facts().notes.join("\n");
    assert!(
        notes.contains("'f*.wild.test' is left out: it has a wildcard"),
        "{notes}"
    );
    assert!(notes.contains("5 more names are left out"), "{notes}");
}

#[test]
fn names_with_nul_or_beyond_ascii_are_left_out() {
    let loaded = bundle(fixture("odd-names.pem"), &Roots::empty()).unwrap();
    assert_eq!(*loaded.facts().names, [Name::Dns("good.test".into())]);
    let notes = loaded.facts().notes.join("\n");
    for word in ["'bad\u{fffd}.test'", "is not ASCII", "5 bytes"] {
        assert!(notes.contains(word), "{word}: {notes}");
    }
    assert!(!notes.contains('\0'));
}

#[test]
fn a_common_name_is_no_name() {
    let world = World::new();
    let loaded = world.verified(&Leaf::new(&[]));
    assert_eq!(*loaded.facts().names, []);
    assert!(!loaded.covers("leaf"));
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::NamesLost);
    assert!(faults[0].detail.contains("no subject alternative name"));
    let v1 = bundle(fixture("v1.pem"), &Roots::empty()).unwrap();
    assert_eq!(*v1.facts().names, []);
}

#[test]
fn names_are_bounded() {
    let names: Vec<_> = (0..=MAX_NAMES).map(|n| format!("n{n}.test")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let loaded = Leaf::new(&names)
        .self_signed()
        .load(&Roots::empty())
        .unwrap();
    assert_eq!(loaded.facts().names.len(), MAX_NAMES);
    assert!(loaded.facts().notes[0].contains("1 names beyond the first 1000"));
}

#[test]
fn serial_and_fingerprint_are_as_openssl_writes_them() {
    let leaf = Leaf::new(&["a.test"])
        .with(|params| params.serial_number = Some(SerialNumber::from_slice(&[0xab, 0x01])));
    let loaded = leaf.self_signed().load(&Roots::empty()).unwrap();
    assert_eq!(*loaded.facts().serial, *"ab01");
    // printf abc | openssl dgst -sha256
    assert_eq!(
        x509::sha256(b"abc").to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

fn stapled(staple: &str) -> Verified {
    let input = Input {
        chain: file("/etc/tls/chain.pem", fixture("ocsp.pem")),
        key: None,
        ocsp: Some(file("/etc/tls/chain.pem.ocsp", fixture(staple))),
    };
    load(&input, &Roots::empty(), NOW).unwrap()
}

#[test]
fn a_staple_is_attached_only_when_it_is_good() {
    let good = stapled("ocsp.good.der");
    assert!(good.key_at(NOW).ocsp.is_some());
    assert!(good.facts().must_staple);
    assert_eq!(
        good.facts().ocsp_responder.as_deref(),
        Some("http://ocsp.fixture.test/")
    );
    for (name, why) in [
        ("ocsp.stale.der", "it was good until"),
        (
            "ocsp.revoked.der",
            "does not say that the certificate is good",
        ),
        ("ocsp.unauthorized.der", "gave an error"),
        ("p256.crt.der", "not an OCSP response"),
        ("p256.pem", "not an OCSP response"),
    ] {
        let loaded = stapled(name);
        assert!(loaded.key_at(NOW).ocsp.is_none(), "{name}");
        let notes = loaded.facts().notes.join("\n");
        assert!(notes.contains(why), "{name}: {notes}");
    }
    assert!(stapled("ocsp.revoked.der").status().revoked().is_some());
    assert_eq!(stapled("ocsp.stale.der").status().revoked(), None);
    let whole = fixture("ocsp.good.der");
    let question = Question::about(&good, &[]);
    assert!(question.answer(&whole, NOW).is_ok());
    for at in 0..whole.len() {
        assert!(question.answer(&whole[..at], NOW).is_err(), "{at}");
    }
    let answer = question.answer(&whole, NOW).unwrap();
    // Whatever is changed on the way, what is believed is what the issuer said.
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        if let Ok(believed) = question.answer(&changed, NOW) {
            let said = |answer: &Answer| (answer.half_life(), answer.left(NOW), answer.revoked());
            assert_eq!(said(&believed), said(&answer), "{at}");
        }
    }
    let end = answer.left(NOW);
    assert!(good.key_at(NOW.plus(end + 1)).ocsp.is_none(), "out of date");
    assert!(question.answer(&whole, NOW.plus(end + 1)).is_err());
    let half = answer.half_life().since(NOW);
    assert!(
        half < end && answer.half_life().plus(half - end) < NOW,
        "{half} {end}"
    );
    let other = World::new().verified(&Leaf::new(&["a.test"]));
    let other = Question::about(&other, &[]);
    assert!(other.answer(&whole, NOW).is_err());
}

#[test]
fn hostile_text_cannot_forge_a_line() {
    let world = World::new();
    let evil = "x\n2027-01-01 ERROR forged\u{1b}[2J";
    let leaf = Leaf::new(&["a.test"]).with(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, evil);
    });
    let loaded = leaf
        .issue(&world.intermediate)
        .load(&Roots::empty())
        .unwrap();
    let text = format!("{:?}", loaded.faults(NOW));
    assert!(!text.contains("\\n") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn an_extension_that_is_garbage_does_no_harm() {
    let garbage = |oid: &[u64]| CustomExtension::from_oid_content(oid, vec![0xff, 0x80, 0x01]);
    for oid in [&[2, 5, 29, 17], &[2, 5, 29, 37], &[2, 5, 29, 15]] {
        let leaf = Leaf::new(&[]).with(|params| {
            params.key_usages.clear();
            params.extended_key_usages.clear();
            params.custom_extensions = vec![garbage(oid)];
        });
        // Served if the parser can make anything of it, refused if not; never a panic.
        if let Err(rejection) = leaf.self_signed().load(&Roots::empty()) {
            assert_eq!(rejection.reason, Reason::MalformedCertificate);
        }
    }
}
