//! The handshake: versions, protocols, keys, names, sessions.

use std::process::{Command, Stdio};

use rustls::version::{TLS12, TLS13};
use rustls::{ProtocolVersion, SignatureScheme};

use crate::support::{HOST, KeyKind, Origin, Staunch, TestCa, Tls, require, run, until};

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for (version, expected) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut client = proxy.tls(HOST).version(version).connect();
        assert_eq!(client.version(), expected);
        client.get(HOST, "/").expect(200);
    }
}

#[test]
fn older_versions_are_refused() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let address = proxy.https().to_string();
    for old in ["-tls1", "-tls1_1"] {
        let ran = run(Command::new(require("openssl")).args([
            "s_client",
            "-connect",
            &address,
            "-cipher",
            "DEFAULT:@SECLEVEL=0",
            old,
        ]));
        assert!(!ran.status.success(), "{ran:#?}");
    }
}

#[test]
fn the_protocol_is_agreed_on() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let agreed = |offer: &[&str]| proxy.tls(HOST).alpn(offer).connect().protocol();
    assert_eq!(agreed(&["h2", "http/1.1"]).as_deref(), Some("h2"));
    assert_eq!(agreed(&["http/1.1", "h2"]).as_deref(), Some("h2"));
    assert_eq!(agreed(&["http/1.1"]).as_deref(), Some("http/1.1"));
    assert_eq!(agreed(&[]), None);
}

#[test]
fn a_client_without_alpn_gets_http_1_1() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.tls(HOST).alpn(&[]).connect();
    client.get(HOST, "/").expect(200);
}

#[test]
fn every_kind_of_key_serves() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    for (kind, name) in [
        (KeyKind::P256, "ECDSA P-256"),
        (KeyKind::P384, "ECDSA P-384"),
        (KeyKind::Rsa2048, "RSA 2048"),
        (KeyKind::Ed25519, "Ed25519"),
    ] {
        let leaf = ca.leaf(&[HOST]).key(kind).issue();
        let proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
        let tls = proxy.tls(HOST).trusting(ca.root());
        assert_eq!(tls.leaf(), leaf.fingerprint);
        assert_eq!(tls.version(&TLS12).leaf(), leaf.fingerprint);
        assert_eq!(proxy.certificate_for(&leaf)["key_type"], name);
    }
}

#[test]
fn rsa_and_ecdsa_stand_side_by_side() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let ecdsa = ca.issue(HOST);
    let rsa = ca.leaf(&[HOST]).key(KeyKind::Rsa2048).issue();
    let proxy = Staunch::build()
        .leaf(&rsa)
        .leaf(&ecdsa)
        .site(HOST, &origin)
        .start();
    let only_rsa = [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PKCS1_SHA256,
    ];
    let only_ecdsa = [SignatureScheme::ECDSA_NISTP256_SHA256];
    for version in [&TLS12, &TLS13] {
        let tls = || proxy.tls(HOST).version(version);
        assert_eq!(tls().schemes(&only_rsa).leaf(), rsa.fingerprint);
        assert_eq!(tls().schemes(&only_ecdsa).leaf(), ecdsa.fingerprint);
    }
}

#[test]
fn the_chain_is_sent_with_the_leaf() {
    let ca = TestCa::new();
    let leaf = ca.intermediate().intermediate().issue(HOST);
    let origin = Origin::echo();
    let proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
    let client = proxy.tls(HOST).trusting(ca.root()).connect();
    assert_eq!(client.chain_length(), 3);
}

#[test]
fn each_name_gets_its_own_certificate() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let exact = ca.issue("a.example.test");
    let wildcard = ca.issue("*.example.test");
    let other = ca.issue("other.test");
    let proxy = Staunch::build()
        .leaf(&wildcard)
        .leaf(&other)
        .leaf(&exact)
        .site("a.example.test", &origin)
        .site("*.example.test", &origin)
        .site("other.test", &origin)
        .start();
    assert_eq!(proxy.tls("a.example.test").leaf(), exact.fingerprint);
    assert_eq!(proxy.tls("b.example.test").leaf(), wildcard.fingerprint);
    assert_eq!(proxy.tls("OTHER.test").leaf(), other.fingerprint);
}

#[test]
fn a_client_that_names_nobody_gets_the_default() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let (first, second) = (ca.issue("first.test"), ca.issue("second.test"));
    let proxy = Staunch::build()
        .leaf(&first)
        .leaf(&second)
        .site("first.test", &origin)
        .sites(crate::support::Site::new(&["second.test"], &origin.url()).default())
        .start();
    assert_eq!(Tls::to(proxy.https()).leaf(), second.fingerprint);
}

#[test]
fn a_client_that_names_an_unknown_host_completes_its_handshake() {
    let origin = Origin::echo();
    let leaf = TestCa::new().issue(HOST);
    let proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
    let mut client = proxy.tls("unknown.test").connect();
    assert_eq!(client.leaf(), leaf.fingerprint);
    client.get("unknown.test", "/").expect(421);
}

/// A client that was talked out of TLS 1.3 can tell (RFC 8446, section 4.1.3).
#[test]
fn who_is_talked_down_to_an_older_version_is_told() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let greeting = |versions: &str| {
        let ran = run(Command::new(require("openssl"))
            .args(["s_client", "-msg", versions, "-servername", HOST])
            .args(["-connect", &proxy.https().to_string()])
            .stdin(Stdio::null()));
        let (_, hello) = ran.stdout.split_once("ServerHello\n").unwrap();
        let (hello, _) = hello.split_once("<<<").unwrap();
        hello.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let marker = "44 4f 57 4e 47 52 44 01";
    assert!(greeting("-tls1_2").contains(marker));
    assert!(!greeting("-tls1_3").contains(marker));
}

#[test]
fn a_session_is_resumed() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for version in [&TLS12, &TLS13] {
        let tls = proxy.tls(HOST).version(version).resuming();
        let mut first = tls.connect();
        assert!(!first.resumed());
        first.get(HOST, "/").expect(200);
        let mut second = tls.connect();
        assert!(second.resumed(), "{version:?}");
        second.get(HOST, "/").expect(200);
    }
}

/// With more workers than one, chances are that the second connection meets another one.
#[test]
fn a_session_is_resumed_by_whichever_worker_it_meets() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).set("workers.threads", 4).start();
    let tls = proxy.tls(HOST).resuming();
    tls.connect().get(HOST, "/").expect(200);
    for _ in 0..20 {
        let mut client = tls.connect();
        assert!(client.resumed());
        client.get(HOST, "/").expect(200);
    }
}

#[test]
fn a_session_outlives_a_reload_and_a_swap() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let mut builder = Staunch::build();
    let folder = builder.path("certificate");
    let mut placed = crate::support::Placed::pair(&folder, &ca.issue(HOST));
    builder = builder.certificate(&placed).site(HOST, &origin);
    let mut proxy = builder.start();
    let tls = proxy.tls(HOST).resuming();
    tls.connect().get(HOST, "/").expect(200);

    let renewed = ca.issue(HOST);
    placed.write(&renewed);
    until("the renewed certificate is served", || {
        proxy.tls(HOST).leaf() == renewed.fingerprint
    });
    let mut client = tls.connect();
    assert!(client.resumed(), "after a swap");
    client.get(HOST, "/").expect(200);

    proxy.reconfigure(|config| {
        config.add_site(crate::support::Site::new(&["b.test"], "http://127.0.0.1:9"))
    });
    proxy.reload().expect(200);
    let mut client = tls.connect();
    assert!(client.resumed(), "after a reload");
    client.get(HOST, "/").expect(200);
}

#[test]
fn the_key_exchange_withstands_a_quantum_computer() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    assert_eq!(proxy.connect().group(), "X25519MLKEM768");
}

#[test]
fn openssl_sees_a_complete_handshake() {
    let ca = TestCa::new();
    let leaf = ca.intermediate().issue(HOST);
    let origin = Origin::echo();
    let proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
    let roots = proxy.config().path("openssl-roots.pem");
    std::fs::write(&roots, &ca.root().pem).unwrap();
    let ran = run(Command::new(require("openssl"))
        .args(["s_client", "-brief", "-verify_return_error"])
        .args(["-verify_hostname", HOST, "-servername", HOST])
        .args(["-alpn", "h2,http/1.1"])
        .arg("-CAfile")
        .arg(&roots)
        .args(["-connect", &proxy.https().to_string()]));
    let output = ran.output();
    assert!(output.contains("Verification: OK"), "{ran:#?}");
    assert!(output.contains("Protocol version: TLSv1.3"), "{ran:#?}");
}

#[test]
fn handshakes_are_counted_by_outcome() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let tls = proxy.tls(HOST).resuming();
    tls.connect().get(HOST, "/").expect(200);
    tls.connect().get(HOST, "/").expect(200);
    let mut stranger = crate::support::Connection::plain(proxy.https()).unwrap();
    stranger.send("this is not TLS\r\n\r\n").unwrap();
    stranger.gone();
    until("they are counted", || {
        let metrics = proxy.metrics();
        let all = metrics.count("staunch_tls_handshakes_total", &[]);
        let resumed = metrics.count("staunch_tls_handshakes_total", &[("resumed", "true")]);
        all >= 3.0 && resumed >= 1.0
    });
}
