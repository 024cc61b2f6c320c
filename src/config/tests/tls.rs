//! What a configuration can say of TLS, and what it is told of what does not exist.

use super::*;

/// Each fault, and something of what must be said of it.
#[test]
fn what_does_not_exist_is_refused_by_name() {
    for (text, words) in [
        ("policy = 'old'", "there is no policy `old`"),
        ("policy = 'modrn'", "did you mean `\"modern\"`?"),
        ("versions = ['1.1']", "deprecated (RFC 8996)"),
        ("versions = ['TLSv1']", "deprecated (RFC 8996)"),
        ("versions = ['SSLv3']", "SSL does not exist here"),
        ("versions = []", "no handshake could succeed"),
        ("versions = '1.3'", "put it in brackets"),
        (
            "cipher_suites = ['DHE-RSA-AES128-GCM-SHA256']",
            "no Diffie-Hellman over finite fields",
        ),
        (
            "cipher_suites = ['TLS_DHE_RSA_WITH_AES_128_CBC_SHA']",
            "no Diffie-Hellman over finite fields",
        ),
        (
            "cipher_suites = ['ECDHE-RSA-AES128-SHA256']",
            "CBC has no authenticated encryption",
        ),
        (
            "cipher_suites = ['TLS_RSA_WITH_AES_128_GCM_SHA256']",
            "no forward secrecy",
        ),
        (
            "cipher_suites = ['AES128-GCM-SHA256']",
            "no forward secrecy",
        ),
        ("cipher_suites = ['RC4-SHA']", "it is broken"),
        ("cipher_suites = ['DES-CBC3-SHA']", "it is broken"),
        ("cipher_suites = ['TLS_AES_128_CCM_SHA256']", "AES_128_GCM"),
        ("cipher_suites = ['HIGH']", "a word of OpenSSL's"),
        ("cipher_suites = ['!aNULL']", "a word of OpenSSL's"),
        ("cipher_suites = ['A:B']", "in quotes of its own"),
        (
            "cipher_suites = ['TLS_AES_128_GCM_SHA265']",
            "did you mean `\"TLS_AES_128_GCM_SHA256\"`?",
        ),
        (
            "cipher_suites = ['TLS_AES_128_GCM_SHA256']",
            "no cipher suite of TLS 1.2, which is on here",
        ),
        (
            "policy = 'modern'\ncipher_suites = ['TLS_AES_128_GCM_SHA256', \
             'ECDHE-RSA-AES128-GCM-SHA256']",
            "is of TLS 1.2, which is off here",
        ),
        ("groups = ['ffdhe2048']", "over finite fields"),
        ("groups = ['X25519Kyber768Draft00']", "what became of it"),
        ("groups = ['secp521r1']", "there are: X25519MLKEM768"),
        ("groups = ['x25520']", "did you mean `\"x25519\"`?"),
        (
            "groups = ['X25519MLKEM768']",
            "no group that TLS 1.2 can use",
        ),
        ("renegotiation = true", "there is no renegotiation"),
        ("compression = true", "there is no compression"),
        ("dhparam = 'dh.pem'", "over finite fields"),
        ("ciphers = 'HIGH'", "is called `cipher_suites` here"),
        ("protocols = ['TLSv1.2']", "is called `versions` here"),
        ("early_data = true", "there is no early data"),
        ("tickets = false\nticket_keys = 'a'", ""),
    ] {
        let text = with(&format!("[tls]\n{text}\n"));
        match words {
            "" => assert_eq!(parse(&text).unwrap().warnings.diagnostics().len(), 1),
            words => {
                let said = refused(&text);
                assert!(said.contains(words), "{text}\n{said}");
                assert!(said.contains("staunch.toml:9:") || said.contains("staunch.toml:10:"));
            }
        }
    }
}

#[test]
fn a_site_and_a_listener_say_what_differs() {
    let config = parse(&with(
        "[site.tls]\nversions = ['1.3']\n[tls]\ngroups = ['x25519', 'P-256']\n\
         [[tls.listener]]\naddress = '[::]:443'\npolicy = 'modern'\n",
    ))
    .unwrap();
    let listener = config.tls.at("[::]:443".parse().unwrap()).settle();
    assert_eq!(listener.versions, [TlsVersion::Tls13]);
    assert_eq!(listener.groups.len(), 4);
    let site = &config.sites[0].tls.choice;
    let settled = site.over(&config.tls.choice).settle();
    assert_eq!(settled.versions, [TlsVersion::Tls13]);
    assert_eq!(settled.groups, [Group::X25519, Group::Secp256r1]);
}

#[test]
fn what_holds_between_sections_is_seen() {
    for (text, words) in [
        (
            "[[tls.listener]]\naddress = '[::]:444'\n",
            "nothing listens on `[::]:444`",
        ),
        ("[[tls.listener]]\npolicy = 'modern'\n", "has no `address`"),
        (
            "[tls]\npolicy = 'modern'\n[site.tls]\nversions = ['1.2']\n\
             cipher_suites = ['TLS_AES_128_GCM_SHA256']\n",
            "no cipher suite of TLS 1.2",
        ),
        (
            "[site.tls]\ncipher_suites = ['TLS_AES_128_GCM_SHA256']\n",
            "no cipher suite of TLS 1.2",
        ),
        ("[site.client_certificates]\nca = 'a'\n", "has no `mode`"),
        (
            "[site.client_certificates]\nmode = 'required'\n",
            "whom to believe",
        ),
        (
            "[site.client_certificates]\nmode = 'request'\ncrl = 'a'\n",
            "revocation lists without authorities",
        ),
        (
            "[site.client_certificates]\nmode = 'requird'\nca = 'a'\n",
            "did you mean `\"required\"`?",
        ),
    ] {
        let said = refused(&with(text));
        assert!(said.contains(words), "{text}\n{said}");
    }
}

#[test]
fn client_certificates_are_read() {
    let config = parse(&with(
        "[site.client_certificates]\nmode = 'optional'\nca = ['a.pem', '/b.pem']\n\
         crl = 'c.crl'\non_expired_crl = 'accept'\nheaders = ['pem', 'client-cert-chain']\n",
    ))
    .unwrap();
    let expected = ClientCertificates {
        mode: ClientMode::Optional,
        ca: vec!["/etc/staunch/a.pem".into(), "/b.pem".into()],
        crl: vec!["/etc/staunch/c.crl".into()],
        accept_expired_crl: true,
        headers: vec![ClientHeader::Pem, ClientHeader::Chain],
    };
    assert_eq!(config.sites[0].tls.client.as_ref(), Some(&expected));
}
