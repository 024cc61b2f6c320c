//! Everything that must be rejected, with the right code and words.

use std::path::Path;

use rcgen::KeyPair;

use crate::cert::Reason;
use crate::cert::load::{MAX_BYTES, Roots, rejection_for_io};
use crate::cert::testing::*;

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

/// The halves of a key pair file can disagree; a handshake with it would fail at its last step.
#[test]
fn a_private_key_that_is_not_its_public_half_is_damaged() {
    let crt = certificate_of("p256.pem");
    let mut p256 = fixture("p256.pkcs8.der");
    p256[40] ^= 0xff;
    let mut sec1 = fixture("p256.sec1.der");
    sec1[10] ^= 0xff;
    let rsa = fixture("rsa-2048.pkcs1.der");
    let exponent = rsa.len() / 2 - 60;
    let mut rsa = rsa;
    rsa[exponent] ^= 0xff;
    let ed25519 = key_of("ed25519.pem");
    let mut ed25519: Vec<u8> = {
        use rustls_pki_types::pem::PemObject;
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_slice(ed25519.as_bytes());
        key.unwrap().secret_pkcs8_der().to_vec()
    };
    let last = ed25519.len() - 1;
    ed25519[last] ^= 0xff;
    try_all(&[
        broken("P-256", &crt, &p256, Reason::NoKey, "damaged"),
        broken("P-256 SEC1", &crt, &sec1, Reason::NoKey, "damaged"),
        broken(
            "RSA",
            certificate_of("rsa-2048.pem"),
            &rsa,
            Reason::NoKey,
            "damaged",
        ),
        broken(
            "Ed25519",
            certificate_of("ed25519.pem"),
            &ed25519,
            Reason::KeyMismatch,
            "belongs to no certificate",
        ),
    ]);
}
