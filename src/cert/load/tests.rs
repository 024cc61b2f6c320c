//! The table of everything that a certificate on disk can do wrong.

use std::path::Path;

use rcgen::{
    CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

use super::*;
use crate::cert::testing::*;
use crate::cert::{KeyType, Name};

/// One input that must be rejected: what it is, the chain file, the key file (`None`: a bundle),
/// the code, and words that must be in the message.
struct Broken {
    what: &'static str,
    chain: Vec<u8>,
    key: Option<Vec<u8>>,
    reason: Reason,
    says: &'static str,
}

fn broken(
    what: &'static str,
    chain: impl AsRef<[u8]>,
    key: impl AsRef<[u8]>,
    reason: Reason,
    says: &'static str,
) -> Broken {
    Broken {
        what,
        chain: chain.as_ref().to_vec(),
        key: Some(key.as_ref().to_vec()),
        reason,
        says,
    }
}

fn broken_bundle(
    what: &'static str,
    chain: impl AsRef<[u8]>,
    reason: Reason,
    says: &'static str,
) -> Broken {
    Broken {
        what,
        chain: chain.as_ref().to_vec(),
        key: None,
        reason,
        says,
    }
}

/// Every row is tried, and all that fail are named.
fn try_all(rows: &[Broken]) {
    let mut wrong = Vec::new();
    for row in rows {
        let loaded = match &row.key {
            Some(key) => pair(&row.chain, key, &Roots::empty()),
            None => bundle(&row.chain, &Roots::empty()),
        };
        let what = row.what;
        match loaded {
            Ok(_) => wrong.push(format!("{what}: accepted")),
            Err(rejection) => {
                let text = rejection.to_string();
                if rejection.reason != row.reason {
                    wrong.push(format!("{what}: not {}: {text}", row.reason));
                }
                if !text.contains(row.says) {
                    wrong.push(format!("{what}: does not say '{}': {text}", row.says));
                }
                let path = rejection.path.display().to_string();
                if !rejection.help.contains(&path) {
                    wrong.push(format!("{what}: the help does not name {path}: {text}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_is_put_there_by_mistake_is_recognised() {
    use Reason::{KeyMismatch, MalformedPem, NoCertificate, NoKey};
    let crt = certificate_of("p256.pem");
    let key = key_of("p256.pem");
    let html = "<!DOCTYPE html><html><body>404 Not Found</body></html>";
    let utf16: Vec<u8> = std::iter::once(0xfeff)
        .chain(crt.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let bare: String = crt.lines().filter(|line| !line.contains("--")).collect();
    try_all(&[
        broken("an empty chain", "", &key, NoCertificate, "is empty"),
        broken("an empty key", &crt, "", NoKey, "is empty"),
        broken("only blanks", " \r\n\n\t", &key, NoCertificate, "is empty"),
        broken(
            "zero bytes",
            [0; 4096],
            &key,
            MalformedPem,
            "4096 zero bytes",
        ),
        broken("a web page", html, &key, NoCertificate, "web page"),
        broken("a web page as key", &crt, html, NoKey, "web page"),
        broken(
            "prose",
            "to be done",
            &key,
            NoCertificate,
            "text without any PEM",
        ),
        broken(
            "noise",
            [0xc3; 99],
            &key,
            NoCertificate,
            "neither PEM nor DER",
        ),
        broken(
            "a huge line",
            vec![b'A'; 900_000],
            &key,
            NoCertificate,
            "text without",
        ),
        broken("UTF-16", utf16, &key, MalformedPem, "iconv -f UTF-16"),
        broken(
            "bare base64",
            bare,
            &key,
            MalformedPem,
            "base64 without its BEGIN",
        ),
        broken_bundle(
            "PKCS#12",
            fixture("p256.p12"),
            NoCertificate,
            "openssl pkcs12",
        ),
        broken(
            "PKCS#12 as key",
            &crt,
            fixture("p256.p12"),
            NoKey,
            "this is a PKCS#12 file",
        ),
        broken(
            "PKCS#7",
            fixture("p256.pkcs7.der"),
            &key,
            NoCertificate,
            "openssl pkcs7",
        ),
        broken(
            "PKCS#7 PEM",
            fixture("p256.pkcs7.pem"),
            &key,
            NoCertificate,
            "openssl pkcs7",
        ),
        broken(
            "a request",
            fixture("p256.request.pem"),
            &key,
            NoCertificate,
            "openssl req",
        ),
        broken(
            "a DER request",
            fixture("p256.request.der"),
            &key,
            NoCertificate,
            "(CSR)",
        ),
        broken(
            "a public key",
            &crt,
            fixture("p256.public.pem"),
            NoKey,
            "a public key",
        ),
        broken(
            "a DER public key",
            &crt,
            fixture("p256.public.der"),
            NoKey,
            "a public key",
        ),
        broken(
            "a keystore",
            fixture("keystore.jks"),
            &key,
            NoCertificate,
            "keytool",
        ),
        broken(
            "an SSH key",
            &crt,
            fixture("openssh.key"),
            NoKey,
            "ssh-keygen",
        ),
        broken(
            "an SSH public key",
            &crt,
            fixture("openssh.pub"),
            NoKey,
            "SSH public key",
        ),
        broken(
            "encrypted",
            &crt,
            fixture("p256.encrypted.key"),
            NoKey,
            "openssl pkey -in",
        ),
        broken(
            "encrypted the old way",
            &crt,
            fixture("p256.encrypted-traditional.key"),
            NoKey,
            "passphrase",
        ),
        broken(
            "encrypted DER",
            &crt,
            fixture("p256.encrypted.der"),
            NoKey,
            "passphrase",
        ),
        broken("swapped", &key, &crt, NoCertificate, "swapped"),
        broken("the chain twice", &crt, &crt, NoKey, "certificates only"),
        broken(
            "another's key",
            &crt,
            key_of("p384.pem"),
            KeyMismatch,
            "openssl pkey -pubout",
        ),
        broken(
            "another's key of the same type",
            &crt,
            KeyPair::generate().unwrap().serialize_pem(),
            KeyMismatch,
            "belongs to no certificate in /etc/tls/chain.pem",
        ),
        broken_bundle("a bundle without key", &crt, NoKey, "certificates only"),
        broken_bundle(
            "a bundle without certificate",
            &key,
            NoCertificate,
            "private key only",
        ),
        broken(
            "parameters only",
            &crt,
            only_parameters(),
            NoKey,
            "other kinds only",
        ),
    ]);
}

fn only_parameters() -> &'static str {
    "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
}

#[test]
fn damage_is_never_skipped() {
    use Reason::{MalformedCertificate, MalformedPem, NoKey};
    let world = World::new();
    let Issued { chain, key } = world.issue(&Leaf::new(&["a.test"]));
    let second = chain.rfind("-----BEGIN").unwrap();
    let cut = &chain[..second + 200];
    let edit = |from: &str, to: &str| chain.replacen(from, to, 1);
    let in_second = |from: &str, to: &str| {
        format!(
            "{}{}",
            &chain[..second],
            chain[second..].replacen(from, to, 1)
        )
    };
    let line = chain.lines().nth(2).unwrap();
    let certificate = fixture("p256.crt.der");
    let mut trailing = certificate.clone();
    trailing.extend_from_slice(b"xyz");
    let mut nested = certificate.clone();
    nested[30..60].fill(0xff);
    let key_line = key.lines().nth(1).unwrap();
    try_all(&[
        broken("cut in the second", cut, &key, MalformedPem, "ends inside"),
        broken(
            "cut, and another appended",
            format!("{cut}\n{}", world.root.pem),
            &key,
            MalformedPem,
            "is not closed",
        ),
        broken(
            "BEGIN cut",
            format!("{chain}-----BEG"),
            &key,
            MalformedPem,
            "boundary",
        ),
        broken(
            "one dash",
            format!("{chain}-"),
            &key,
            MalformedPem,
            "boundary",
        ),
        broken(
            "a dash less",
            in_second("-----BEGIN", "----BEGIN"),
            &key,
            MalformedPem,
            "boundary",
        ),
        broken(
            "a dash less behind",
            in_second("E-----", "E----"),
            &key,
            MalformedPem,
            "boundary",
        ),
        broken(
            "no BEGIN",
            in_second("-----BEGIN CERTIFICATE-----\n", ""),
            &key,
            MalformedPem,
            "BEGIN line is missing",
        ),
        broken(
            "no END",
            edit("-----END CERTIFICATE-----\n", ""),
            &key,
            MalformedPem,
            "not closed",
        ),
        broken(
            "another END",
            edit("END CERTIFICATE", "END PRIVATE KEY"),
            &key,
            MalformedPem,
            "is not closed",
        ),
        broken(
            "a stray character",
            edit(line, &line.replace('A', "*")),
            &key,
            MalformedPem,
            "64",
        ),
        broken(
            "a line less",
            edit(line, ""),
            &key,
            MalformedCertificate,
            "the block on line 1",
        ),
        broken(
            "no body",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            &key,
            MalformedPem,
            "is empty",
        ),
        broken(
            "a body that is no DER",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            MalformedCertificate,
            "openssl x509",
        ),
        broken(
            "a key as certificate",
            key.replace("PRIVATE KEY", "CERTIFICATE"),
            &key,
            MalformedCertificate,
            "cannot be parsed",
        ),
        broken(
            "DER, cut",
            &certificate[..200],
            &key,
            MalformedCertificate,
            "cannot be parsed",
        ),
        broken(
            "DER, and more",
            &trailing,
            &key,
            MalformedCertificate,
            "3 bytes follow",
        ),
        broken(
            "DER, overwritten",
            &nested,
            &key,
            MalformedCertificate,
            "cannot be parsed",
        ),
        broken(
            "a key cut",
            &chain,
            &key[..key.len() - 30],
            MalformedPem,
            "ends inside",
        ),
        broken(
            "a key overwritten",
            &chain,
            key.replace(key_line, "AAAA"),
            NoKey,
            "damaged",
        ),
        broken(
            "too many blocks",
            world.root.pem.repeat(65),
            &key,
            MalformedPem,
            "more than 64",
        ),
        broken(
            "too many bytes",
            vec![b' '; MAX_BYTES + 1],
            &key,
            Reason::Unreadable,
            "1024 KiB",
        ),
    ]);
}

#[test]
fn keys_that_cannot_sign_are_named() {
    use Reason::{UnsupportedKey, WeakKey};
    try_all(&[
        broken_bundle("RSA 1024", fixture("rsa-1024.pem"), WeakKey, "RSA 1024"),
        broken_bundle(
            "RSA-PSS",
            fixture("rsa-pss.pem"),
            UnsupportedKey,
            "RSASSA-PSS",
        ),
        broken_bundle("DSA", fixture("dsa.pem"), UnsupportedKey, "DSA"),
        broken_bundle("Ed448", fixture("ed448.pem"), UnsupportedKey, "Ed448"),
        broken_bundle(
            "secp256k1",
            fixture("secp256k1.pem"),
            UnsupportedKey,
            "secp256k1",
        ),
        broken_bundle(
            "explicit",
            fixture("explicit-curve.pem"),
            UnsupportedKey,
            "explicit curve",
        ),
    ]);
}

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
fn a_whole_chain_is_complete_and_trusted() {
    let world = World::new();
    let verified = world.verified(&Leaf::new(&["Example.com", "*.example.com", "192.0.2.1"]));
    let facts = verified.facts();
    assert_eq!(facts.chain_length, 2);
    assert!(facts.chain_complete && facts.trusted && facts.server_usage);
    assert_eq!(facts.key_type, KeyType::EcdsaP256);
    assert_eq!(facts.issuer, "Test Intermediate");
    assert_eq!(facts.chain_not_after, day(60));
    assert_eq!(
        facts.names,
        [
            Name::Dns("example.com".into()),
            Name::Wildcard("example.com".into()),
            Name::Ip([192, 0, 2, 1].into()),
        ]
    );
    assert_eq!(facts.notes, Vec::<String>::new());
    assert_eq!(verified.faults(NOW), []);
    assert!(verified.key().keys_match().is_ok());
}

#[test]
fn the_order_of_a_file_is_repaired() {
    let world = World::new();
    let leaf = Leaf::new(&["a.test"]);
    let expected = world.verified(&leaf);
    let Issued { chain, key } = leaf.issue(&world.intermediate);
    let intermediate = &world.intermediate.pem;
    let root = &world.root.pem;
    let stranger = Authority::root("Stranger").pem;
    for (what, file, note) in [
        (
            "leaf last",
            format!("{intermediate}{chain}"),
            "stands at place 2",
        ),
        (
            "root first",
            format!("{root}{intermediate}{chain}"),
            "stands at place 3",
        ),
        (
            "with the root",
            format!("{chain}{intermediate}{root}"),
            "the root 'Test Root' is left",
        ),
        (
            "twice",
            format!("{chain}{chain}{intermediate}{intermediate}"),
            "more than once",
        ),
        (
            "a stranger",
            format!("{chain}{stranger}{intermediate}"),
            "has no part in the chain",
        ),
    ] {
        let loaded = pair(&file, &key, &world.roots).unwrap();
        // The two leaves differ in their serial numbers only where issued twice: compare issuers.
        assert_eq!(loaded.key().cert[1..], expected.key().cert[1..], "{what}");
        assert!(loaded.facts().trusted, "{what}");
        let notes = loaded.facts().notes.join("\n");
        assert!(notes.contains(note), "{what}: {notes}");
    }
}

#[test]
fn an_untrusted_root_is_kept_so_that_the_chain_stays_whole() {
    let world = World::new();
    let issued = world.issue(&Leaf::new(&["a.test"])).and(&world.root);
    let loaded = issued.load(&Roots::empty()).unwrap();
    assert_eq!(loaded.facts().chain_length, 3);
    assert!(loaded.facts().chain_complete && !loaded.facts().trusted);
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::UntrustedChain);
    assert!(
        faults[0].help.contains("openssl verify"),
        "{}",
        faults[0].help
    );
}

#[test]
fn a_missing_intermediate_is_told_by_name() {
    let world = World::new();
    let loaded = Leaf::new(&["a.test"])
        .issue(&world.intermediate)
        .load(&world.roots)
        .unwrap();
    assert!(!loaded.facts().chain_complete && !loaded.facts().trusted);
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::BrokenChain);
    assert!(
        faults[0].detail.contains("'Test Intermediate'"),
        "{}",
        faults[0].detail
    );
}

#[test]
fn an_intermediate_of_the_same_name_and_another_key_is_no_link() {
    let world = World::new();
    let other = Authority::under("Test Intermediate", &world.root);
    let issued = Leaf::new(&["a.test"])
        .issue(&world.intermediate)
        .and(&other);
    let loaded = issued.load(&world.roots).unwrap();
    assert!(!loaded.facts().chain_complete);
    assert_eq!(loaded.facts().chain_length, 1);
}

#[test]
fn an_expired_intermediate_breaks_the_chain() {
    let world = World::new();
    let old = Authority::make("Old", Some(&world.root), day(-500), day(-1));
    let issued = Leaf::new(&["a.test"]).issue(&old).and(&old);
    let loaded = issued.load(&world.roots).unwrap();
    assert_eq!(loaded.facts().chain_not_after, day(-1));
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::BrokenChain);
    assert!(faults[0].detail.contains("'Old'"), "{}", faults[0].detail);
    // It breaks by itself when the day comes.
    let soon = Authority::make("Soon", Some(&world.root), day(-500), day(5));
    let issued = Leaf::new(&["a.test"]).issue(&soon).and(&soon);
    let loaded = issued.load(&world.roots).unwrap();
    assert_eq!(loaded.faults(day(4)), []);
    assert_eq!(loaded.faults(day(6))[0].reason, Reason::BrokenChain);
}

/// A cross-signed authority whose older certificate has expired: the other way up is taken, and
/// the dead one is not sent.
#[test]
fn the_living_way_up_is_taken() {
    let world = World::new();
    let old_root = Authority::root("Old Root");
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    let again = || KeyPair::from_pem(&pem).unwrap();
    let dead = Authority::with_key("Cross", Some(&old_root), day(-900), day(-1), key);
    let alive = Authority::with_key("Cross", Some(&world.root), day(-90), day(900), again());
    let issued = Leaf::new(&["a.test"]).issue(&alive).and(&dead).and(&alive);
    let loaded = issued.load(&world.roots).unwrap();
    assert_eq!(loaded.key().cert[1..], [alive.der.clone()]);
    assert!(loaded.facts().notes[0].contains("it expired at"));
    assert_eq!(loaded.faults(NOW), []);
    // Two living ways are both sent: clients differ in their roots.
    let other = Authority::with_key("Cross", Some(&old_root), day(-90), day(900), again());
    let issued = Leaf::new(&["a.test"]).issue(&alive).and(&alive).and(&other);
    assert_eq!(issued.load(&world.roots).unwrap().facts().chain_length, 3);
}

#[test]
fn dates_are_faults_and_do_not_touch_trust() {
    let world = World::new();
    let past = world.verified(&Leaf::new(&["a.test"]).valid(day(-90), day(-2)));
    assert!(past.facts().trusted && past.facts().chain_complete);
    let faults = past.faults(NOW);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].reason, Reason::Expired);
    assert!(
        faults[0].detail.contains("2 days ago"),
        "{}",
        faults[0].detail
    );
    let future = world.verified(&Leaf::new(&["a.test"]).valid(day(3), day(90)));
    assert!(future.facts().trusted);
    assert_eq!(future.faults(NOW)[0].reason, Reason::NotYetValid);
    assert_eq!(future.faults(day(3)), []);
}

#[test]
fn usages_that_leave_out_servers_are_told() {
    let world = World::new();
    let client = Leaf::new(&["a.test"])
        .with(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let no_signing = Leaf::new(&["a.test"])
        .with(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    for leaf in [client, no_signing] {
        let loaded = world.verified(&leaf);
        let reasons: Vec<_> = loaded.faults(NOW).iter().map(|f| f.reason).collect();
        assert_eq!(reasons, [Reason::WrongUsage]);
        assert!(loaded.facts().trusted);
    }
    let unlimited = Leaf::new(&["a.test"]).with(|params| {
        params.extended_key_usages.clear();
        params.key_usages.clear();
    });
    assert_eq!(world.verified(&unlimited).faults(NOW), []);
}

#[test]
fn weak_signatures_are_served_and_told() {
    for (name, hash) in [("sha1.pem", "SHA-1"), ("md5.pem", "MD5")] {
        let loaded = bundle(fixture(name), &Roots::empty()).unwrap();
        assert!(loaded.facts().weaknesses[0].contains(hash));
        assert!(loaded.facts().chain_complete);
        let faults = loaded.faults(NOW);
        assert!(faults.iter().any(|fault| fault.reason == Reason::WeakKey));
    }
}

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
    assert_eq!(loaded.facts().names, [Name::Dns("good.test".into())]);
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
    assert_eq!(loaded.facts().names, []);
    assert!(!loaded.covers("leaf"));
    let faults = loaded.faults(NOW);
    assert_eq!(faults[0].reason, Reason::NamesLost);
    assert!(faults[0].detail.contains("no subject alternative name"));
    let v1 = bundle(fixture("v1.pem"), &Roots::empty()).unwrap();
    assert_eq!(v1.facts().names, []);
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
fn chains_are_bounded() {
    let mut authorities = vec![Authority::root("Root")];
    for n in 0..12 {
        let next = Authority::under(&format!("Level {n}"), authorities.last().unwrap());
        authorities.push(next);
    }
    let issued = Leaf::new(&["a.test"]).issue(authorities.last().unwrap());
    let issued = authorities.iter().rev().fold(issued, Issued::and);
    let loaded = issued.load(&Roots::empty()).unwrap();
    assert_eq!(loaded.facts().chain_length, crate::cert::chain::MAX_CHAIN);
    assert_eq!(loaded.faults(NOW)[0].reason, Reason::BrokenChain);
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
fn serial_and_fingerprint_are_as_openssl_writes_them() {
    let leaf = Leaf::new(&["a.test"])
        .with(|params| params.serial_number = Some(SerialNumber::from_slice(&[0xab, 0x01])));
    let loaded = leaf.self_signed().load(&Roots::empty()).unwrap();
    assert_eq!(loaded.facts().serial, "ab01");
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
    assert!(good.key().ocsp.is_some());
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
        assert!(loaded.key().ocsp.is_none(), "{name}");
        let notes = loaded.facts().notes.join("\n");
        assert!(notes.contains(why), "{name}: {notes}");
    }
    let whole = fixture("ocsp.good.der");
    let serial = [0x00, 0xc0, 0xff, 0xee];
    for at in 0..whole.len() {
        assert!(staple::check(&whole[..at], &serial, NOW).is_err(), "{at}");
    }
    assert!(staple::check(&whole, &[1], NOW).is_err());
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

#[test]
fn failed_reads_are_told_apart() {
    use std::io::{Error, ErrorKind};
    let path = Path::new("/nowhere/at/all/chain.pem");
    let tell = |error: &Error| rejection_for_io(path, error);
    let missing = tell(&ErrorKind::NotFound.into());
    assert_eq!(missing.reason, Reason::Missing);
    assert!(missing.detail.contains("beyond / no folder"), "{missing}");
    for (error, word) in [
        (ErrorKind::PermissionDenied.into(), "may not read it"),
        (ErrorKind::IsADirectory.into(), "it is a folder"),
        (ErrorKind::NotADirectory.into(), "not a folder"),
        (ErrorKind::FileTooLarge.into(), "larger than 1024 KiB"),
        (ErrorKind::InvalidInput.into(), "a pipe"),
        (
            Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()),
            "in a circle",
        ),
        (Error::other("wires cut"), "wires cut"),
    ] {
        let rejection = tell(&error);
        assert_eq!(rejection.reason, Reason::Unreadable);
        assert!(rejection.detail.contains(word), "{rejection}");
        assert!(
            rejection.help.contains("chain.pem") || word == "it is a folder",
            "{rejection}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("chain.pem");
    std::os::unix::fs::symlink("gone.pem", &link).unwrap();
    let dangling = rejection_for_io(&link, &ErrorKind::NotFound.into());
    assert!(
        dangling.detail.contains("symbolic link to gone.pem"),
        "{dangling}"
    );
}

mod anything {
    use proptest::prelude::*;

    use super::*;

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
            let _ = staple::check(&bytes, &[1], NOW);
        }
    }
}
