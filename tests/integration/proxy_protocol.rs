//! Load balancers in front that say on whose behalf they connect: the PROXY protocol.

use crate::support::{Connection, HOST, Origin, Port, Staunch, Tls, continually};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

/// Version 2, of a connection over TCP and IPv6.
fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, 0x21, 0, 36]);
    header.extend(
        "2001:db8::7"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    header.extend(
        "2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    header.extend([0xdc, 4, 1, 0xbb]);
    header
}

fn behind(origin: &Origin) -> Staunch {
    Staunch::serving(origin)
        .set("listen.proxy_protocol_from", "[\"127.0.0.1\"]")
        .set("timeouts.tls_handshake", "\"500ms\"")
        .start()
}

#[test]
fn the_client_that_the_header_names_is_the_client() {
    let origin = Origin::echo();
    let proxy = behind(&origin);
    for (header, client) in [(V1.to_vec(), "192.0.2.7"), (v2(), "2001:db8::7")] {
        let mut connection = proxy.tls(HOST).preamble(&header).connect();
        connection.get(HOST, "/").expect(200);
        assert_eq!(origin.last().field("x-forwarded-for"), client);
        connection.get(HOST, "/again").expect(200);
    }
}

#[test]
fn a_connection_of_the_balancer_itself_has_its_own_address() {
    let origin = Origin::echo();
    let proxy = behind(&origin);
    let mut local = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    local.extend([0x20, 0, 0, 0]);
    let mut connection = proxy.tls(HOST).preamble(&local).connect();
    connection.get(HOST, "/").expect(200);
    assert_eq!(origin.last().field("x-forwarded-for"), "127.0.0.1");
}

#[test]
fn a_header_that_is_missing_or_malformed_is_refused() {
    let origin = Origin::echo();
    let proxy = behind(&origin);
    assert!(proxy.tls(HOST).try_connect().is_err());
    for bad in [
        &b"PROXY TCP4 192.0.2.7\r\n"[..],
        b"PROXY TCP4 not-an-address 198.51.100.1 56324 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
    ] {
        assert!(proxy.tls(HOST).preamble(bad).try_connect().is_err());
    }
    assert!(origin.requests().is_empty());
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for() {
    let origin = Origin::echo();
    let proxy = behind(&origin);
    let mut silent = Connection::plain(proxy.https()).unwrap();
    silent.send("PROXY TC").unwrap();
    assert!(silent.gone());
}

/// Beside an address for a balancer there may be one for everybody.
#[test]
fn a_header_is_asked_for_at_the_addresses_that_are_named() {
    let origin = Origin::echo();
    let other = Port::free();
    let builder = Staunch::serving(&origin);
    let both = [builder.https(), other.address()].map(|address| address.to_string());
    let proxy = builder
        .set("listen.https", format!("{both:?}"))
        .set("listen.proxy_protocol_from", "[\"127.0.0.1\"]")
        .set(
            "listen.proxy_protocol_at",
            format!("[\"{}\"]", other.address()),
        )
        .start();
    proxy.tls(HOST).connect().get(HOST, "/").expect(200);
    assert_eq!(origin.last().field("x-forwarded-for"), "127.0.0.1");
    let balanced = Tls::to(other.address()).name(HOST);
    let mut balanced = balanced.preamble(V1).connect();
    balanced.get(HOST, "/").expect(200);
    assert_eq!(origin.last().field("x-forwarded-for"), "192.0.2.7");
}

#[test]
fn whoever_is_not_expected_to_send_a_header_must_not() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("listen.proxy_protocol_from", "[\"192.0.2.0/24\"]")
        .start();
    assert!(proxy.tls(HOST).preamble(V1).try_connect().is_err());
    continually(
        "others are served",
        std::time::Duration::from_millis(50),
        || proxy.get("/").status == 200,
    );
    assert_eq!(origin.last().field("x-forwarded-for"), "127.0.0.1");
}
