//! The specification as tables, properties over arbitrary bytes, and real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::v2::{CRC32C, LOCAL, PROXY, SIGNATURE, TCP4, TCP6};
use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn proxied(source: &str, destination: &str) -> Connection {
    Connection::Proxied {
        source: at(source),
        destination: at(destination),
    }
}

/// The connection of a header that is whole and takes all of the bytes.
fn connection(bytes: &[u8]) -> Result<Connection, Invalid> {
    complete(bytes).map(|header| header.connection)
}

fn complete(bytes: &[u8]) -> Result<Header, Invalid> {
    match parse(bytes)? {
        Parsed::Complete { header, length } => {
            assert_eq!(length, bytes.len(), "{bytes:?}");
            Ok(header)
        }
        Parsed::Incomplete => panic!("incomplete: {bytes:?}"),
    }
}

/// A header of version 2 with these four fixed fields' worth of content.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    bytes.extend(block);
    bytes
}

const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xDC, 0x04, 0x01, 0xBB];

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
    bytes
}

fn v2_with(tlvs: &[Vec<u8>]) -> Vec<u8> {
    v2(PROXY, TCP4, &[&FOUR[..], &tlvs.concat()].concat())
}

#[test]
fn version_1_lines_of_the_prescribed_form_are_read() {
    let f = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for (line, expected) in [
        (
            "TCP4 192.168.0.1 192.168.0.11 56324 443",
            proxied("192.168.0.1:56324", "192.168.0.11:443"),
        ),
        (
            "TCP4 255.255.255.255 0.0.0.0 65535 0",
            proxied("255.255.255.255:65535", "0.0.0.0:0"),
        ),
        (
            "TCP6 2001:DB8::1 ::1 1 2",
            proxied("[2001:db8::1]:1", "[::1]:2"),
        ),
        (
            "TCP6 ::ffff:192.0.2.1 ::1 1 2",
            proxied("[::ffff:192.0.2.1]:1", "[::1]:2"),
        ),
        (
            &format!("TCP6 {f} {f} 65535 65535"),
            proxied(&format!("[{f}]:65535"), &format!("[{f}]:65535")),
        ),
        ("UNKNOWN", Connection::Unknown),
        ("UNKNOWN ", Connection::Unknown),
        (&format!("UNKNOWN {f} {f} 65535 65535"), Connection::Unknown),
        ("UNKNOWN whatever  it may be", Connection::Unknown),
    ] {
        let bytes = format!("PROXY {line}\r\n").into_bytes();
        assert_eq!(connection(&bytes), Ok(expected), "{line}");
    }
    let mut raw = b"PROXY UNKNOWN ".to_vec();
    raw.extend([0xff; 91]);
    raw.extend(b"\r\n");
    assert_eq!(raw.len(), 107);
    assert_eq!(connection(&raw), Ok(Connection::Unknown));
}

#[test]
fn version_1_lines_of_any_other_form_are_refused() {
    for line in [
        "",
        "TCP4",
        "TCP5 1.1.1.1 1.1.1.1 1 1",
        "tcp4 1.1.1.1 1.1.1.1 1 1",
        "UDP4 1.1.1.1 1.1.1.1 1 1",
        "UNKNOWNS",
        "TCP4 1.1.1.1 1.1.1.1 1",
        "TCP4 1.1.1.1 1.1.1.1 1 1 1",
        "TCP4 1.1.1.1 1.1.1.1 1 1 ",
        " TCP4 1.1.1.1 1.1.1.1 1 1",
        "TCP4  1.1.1.1 1.1.1.1 1 1",
        "TCP4\t1.1.1.1 1.1.1.1 1 1",
        "TCP4 1.1.1 1.1.1.1 1 1",
        "TCP4 1.1.1.256 1.1.1.1 1 1",
        "TCP4 01.1.1.1 1.1.1.1 1 1",
        "TCP4 ::1 ::1 1 1",
        "TCP6 1.1.1.1 1.1.1.1 1 1",
        "TCP6 ::1%1 ::1 1 1",
        "TCP6 [::1] ::1 1 1",
        "TCP6 1::2::3 ::1 1 1",
        "TCP6 00001::1 ::1 1 1",
        "TCP4 1.1.1.1 1.1.1.1 65536 1",
        "TCP4 1.1.1.1 1.1.1.1 -1 1",
        "TCP4 1.1.1.1 1.1.1.1 +1 1",
        "TCP4 1.1.1.1 1.1.1.1 01 1",
        "TCP4 1.1.1.1 1.1.1.1 00 1",
        "TCP4 1.1.1.1 1.1.1.1  1",
        "TCP4 1.1.1.1 1.1.1.1 0x1 1",
        "TCP4 1.1.1.1 1.1.1.é 1 1",
    ] {
        let bytes = format!("PROXY {line}\r\n").into_bytes();
        assert_eq!(parse(&bytes), Err(Invalid::Line), "{line}");
    }
    for bytes in [
        &b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n"[..],
        b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rX",
        b"PROXY UNKNOWN \rX\r\n",
        b"PROXY\r\n",
        b"PROXY \n",
    ] {
        let error = parse(bytes).unwrap_err();
        assert!(
            matches!(error, Invalid::LineEnd | Invalid::Signature),
            "{error}"
        );
    }
}

#[test]
fn a_version_1_line_ends_within_107_bytes() {
    let line = |length: usize| {
        let mut bytes = b"PROXY UNKNOWN ".to_vec();
        bytes.resize(length - 2, b'x');
        bytes.extend(b"\r\n");
        bytes
    };
    assert!(connection(&line(107)).is_ok());
    assert_eq!(parse(&line(108)), Err(Invalid::LineEnd));
    assert_eq!(parse(&line(108)[..106]), Ok(Parsed::Incomplete));
    assert_eq!(parse(&line(108)[..107]), Err(Invalid::LineEnd));
    assert_eq!(parse(&line(500)), Err(Invalid::LineEnd));
}

#[test]
fn what_begins_like_neither_version_is_refused_at_once() {
    for bytes in [
        &b"G"[..],
        b"PUT / HTTP/1.1\r\n",
        b"PROXYTCP4",
        b"\x16\x03\x01",
        b"\r\n\r\n\0\r\nQUIX",
        b"\0",
    ] {
        assert_eq!(parse(bytes), Err(Invalid::Signature), "{bytes:?}");
    }
}

#[test]
fn version_2_families_are_told_apart() {
    let six: Vec<u8> = [&[0x20, 0x01][..], &[1; 14], &[2; 16], &[0, 80, 1, 187]].concat();
    let ipv6 = proxied(
        "[2001:101:101:101:101:101:101:101]:80",
        "[202:202:202:202:202:202:202:202]:443",
    );
    let ipv4 = proxied("192.0.2.1:56324", "198.51.100.2:443");
    for (command, family, block, expected) in [
        (PROXY, TCP4, &FOUR[..], ipv4),
        (PROXY, TCP6, &six, ipv6),
        // UDP, unix stream and datagram, unspecified: valid, and nothing that we know.
        (PROXY, 0x12, &FOUR, Connection::Unknown),
        (PROXY, 0x22, &six, Connection::Unknown),
        (PROXY, 0x31, &[0; 216], Connection::Unknown),
        (PROXY, 0x32, &[0; 216], Connection::Unknown),
        (PROXY, 0x00, &[], Connection::Unknown),
        (PROXY, 0x00, &[9; 40], Connection::Unknown),
        (PROXY, 0x10, &FOUR, Connection::Unknown),
        // The sender's own: whatever the block says, it is skipped.
        (LOCAL, 0x00, &[], Connection::Local),
        (LOCAL, TCP4, &FOUR, Connection::Local),
        (LOCAL, 0xff, &[7; 5], Connection::Local),
    ] {
        assert_eq!(
            connection(&v2(command, family, block)),
            Ok(expected),
            "{family:#x}"
        );
    }
}

#[test]
fn version_2_headers_that_contradict_themselves_are_refused() {
    for (bytes, expected) in [
        (v2(0x11, TCP4, &FOUR), Invalid::Command(0x11)),
        (v2(0x22, TCP4, &FOUR), Invalid::Command(0x22)),
        (v2(PROXY, 0x41, &FOUR), Invalid::Family(0x41)),
        (v2(PROXY, 0x13, &FOUR), Invalid::Family(0x13)),
        (v2(PROXY, TCP4, &FOUR[..11]), Invalid::Addresses),
        (v2(PROXY, TCP6, &[0; 35]), Invalid::Addresses),
        (v2(PROXY, 0x31, &[0; 215]), Invalid::Addresses),
        (v2(PROXY, TCP4, &[0; 4081]), Invalid::TooLong(4097)),
    ] {
        assert_eq!(parse(&bytes), Err(expected));
    }
    // Said before the rest is waited for.
    let long = v2(PROXY, TCP4, &[0; 4081]);
    assert_eq!(parse(&long[..16]), Err(Invalid::TooLong(4097)));
    let odd = v2(0x2f, TCP4, &[]);
    assert_eq!(parse(&odd[..13]), Err(Invalid::Command(0x2f)));
}

#[test]
fn tlvs_of_interest_are_kept() {
    let ssl = [
        vec![0x07, 0, 0, 0, 0],
        tlv(0x21, b"TLSv1.3"),
        tlv(0x22, b"client"),
        tlv(0x23, b"TLS_AES_128_GCM_SHA256"),
    ]
    .concat();
    let header = complete(&v2_with(&[
        tlv(0x01, b"h2"),
        tlv(0x02, b"example.com"),
        tlv(0x02, b"second.example"),
        tlv(0x04, &[0; 7]),
        tlv(0x05, &[0xab; 128]),
        tlv(0x20, &ssl),
        tlv(0xEA, b"of an application"),
    ]));
    let tlvs = header.unwrap().tlvs;
    assert_eq!(tlvs.alpn.as_deref(), Some(&b"h2"[..]));
    assert_eq!(tlvs.authority.as_deref(), Some("example.com"));
    assert_eq!(tlvs.unique_id.as_deref(), Some(&[0xab; 128][..]));
    let tls = tlvs.tls.unwrap();
    assert!(tls.encrypted && tls.client_verified);
    assert_eq!(tls.version.as_deref(), Some("TLSv1.3"));
    assert_eq!(tls.common_name.as_deref(), Some("client"));
}

#[test]
fn a_client_without_a_verified_certificate_is_not_called_verified() {
    for (value, verified) in [
        ([0x01, 0, 0, 0, 0], false), // none presented: `verify` means nothing
        ([0x03, 0, 0, 0, 1], false),
        ([0x03, 0, 0, 0, 0], true),
        ([0x05, 0, 0, 0, 0], true),
    ] {
        let header = complete(&v2_with(&[tlv(0x20, &value)])).unwrap();
        assert_eq!(
            header.tlvs.tls.unwrap().client_verified,
            verified,
            "{value:?}"
        );
    }
}

#[test]
fn malformed_tlvs_are_refused() {
    for (tlvs, kind) in [
        (vec![0x01], 0x01),
        (vec![0x01, 0], 0x01),
        (vec![0x01, 0, 1], 0x01),
        (vec![0xEE, 0xff, 0xff, 1], 0xEE),
        (tlv(0x02, b"\xff"), 0x02),
        (tlv(0x05, &[0; 129]), 0x05),
        (tlv(0x03, &[0; 3]), 0x03),
        (tlv(0x20, &[1, 0, 0, 0]), 0x20),
        (tlv(0x20, &[1, 0, 0, 0, 0, 0x21, 0, 9]), 0x21),
    ] {
        assert_eq!(
            parse(&v2_with(std::slice::from_ref(&tlvs))),
            Err(Invalid::Tlv(kind)),
            "{tlvs:?}"
        );
    }
}

#[test]
fn a_checksum_is_verified_where_there_is_one() {
    let mut bytes = v2_with(&[tlv(0x01, b"h2"), tlv(CRC32C, &[0; 4]), tlv(0x04, b"x")]);
    let place = bytes.len() - 4 - 4;
    let sum = crc32c::crc32c([&bytes[..]]).to_be_bytes();
    bytes[place..place + 4].copy_from_slice(&sum);
    assert!(connection(&bytes).is_ok());
    // Without its type it is no checksum; all else is covered by it.
    for i in (16..bytes.len()).filter(|i| *i != place - 3) {
        let mut damaged = bytes.clone();
        damaged[i] ^= 0x10;
        assert!(parse(&damaged).is_err(), "byte {i}");
    }
    let twice = v2_with(&[tlv(CRC32C, &[0; 4]), tlv(CRC32C, &[0; 4])]);
    assert!(parse(&twice).is_err());
}

#[test]
fn addresses_of_two_families_are_sent_as_ipv6() {
    let (four, six) = (at("192.0.2.1:5"), at("[2001:db8::1]:6"));
    let expected = Ok(proxied("[::ffff:192.0.2.1]:5", "[2001:db8::1]:6"));
    assert_eq!(connection(&encode_v1(four, six)), expected);
    assert_eq!(connection(&encode_v2(four, six)), expected);
    let mapped = at("[::ffff:192.0.2.1]:5");
    let expected = Ok(proxied("192.0.2.1:5", "192.0.2.1:5"));
    assert_eq!(connection(&encode_v1(mapped, four)), expected);
    assert_eq!(connection(&encode_v2(mapped, four)), expected);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
}

/// Bytes that get past the first checks often enough to be worth trying.
fn nearly_a_header() -> impl Strategy<Value = Vec<u8>> {
    let rest = || prop::collection::vec(any::<u8>(), 0..400);
    prop_oneof![
        rest(),
        "PROXY (TCP4|TCP6|UNKNOWN)?[ 0-9a-f.:]{0,110}(\r\n)?".prop_map(String::into_bytes),
        (0x1fu8..=0x22, any::<u8>(), rest()).prop_map(|(c, f, block)| v2(c, f, &block)),
        (rest(), any::<u16>()).prop_map(|(block, length)| {
            let mut bytes = v2(PROXY, TCP4, &[&FOUR[..], &block].concat());
            bytes[14..16].copy_from_slice(&length.to_be_bytes());
            bytes
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_read_back(source in address(), destination in address(), next in any::<[u8; 3]>()) {
        for bytes in [encode_v1(source, destination), encode_v2(source, destination)] {
            for cut in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..cut]), Ok(Parsed::Incomplete));
            }
            let followed = [&bytes[..], &next].concat();
            let Ok(Parsed::Complete { header, length }) = parse(&followed) else {
                return Err(TestCaseError::fail(format!("{bytes:?}")));
            };
            prop_assert_eq!(length, bytes.len());
            let canonical = |a: SocketAddr| a.ip().to_canonical();
            prop_assert_eq!(header.source().map(canonical), Some(canonical(source)));
            prop_assert_eq!(header.source().map(|a| a.port()), Some(source.port()));
        }
    }

    #[test]
    fn a_header_means_the_same_however_it_arrives(bytes in nearly_a_header()) {
        let whole = parse(&bytes);
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Ok(Parsed::Incomplete) => {}
                // Once decided, more bytes change nothing.
                decided => {
                    prop_assert_eq!(&decided, &whole, "decided at {}", cut);
                    break;
                }
            }
        }
        if let Ok(Parsed::Complete { length, .. }) = whole {
            prop_assert!(length <= bytes.len().min(MAX_LENGTH));
        }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

async fn read_soon(stream: &TcpStream) -> Result<Header, ReadError> {
    tokio::time::timeout(Duration::from_secs(10), read(stream))
        .await
        .unwrap()
}

#[tokio::test]
async fn exactly_the_header_is_taken_from_a_socket() {
    let long = v2_with(&[tlv(0x04, &[0; 3000]), tlv(0x02, b"a.test")]);
    let (source, destination) = (at("192.0.2.1:56324"), at("198.51.100.2:443"));
    for header in [
        encode_v1(source, destination),
        encode_v2(source, destination),
        long,
    ] {
        let (mut client, mut server) = pair().await;
        client.write_all(&header).await.unwrap();
        client.write_all(b"\x16\x03\x01 and so on").await.unwrap();
        drop(client);
        let read = read_soon(&server).await.unwrap();
        assert_eq!(read.source(), Some(source));
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"\x16\x03\x01 and so on");
    }
}

#[tokio::test]
async fn a_header_may_come_byte_by_byte() {
    let (mut client, server) = pair().await;
    client.set_nodelay(true).unwrap();
    let bytes = encode_v1(at("192.0.2.1:5"), at("192.0.2.2:6"));
    let send = async {
        for byte in &bytes {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (header, ()) = tokio::join!(read_soon(&server), send);
    assert_eq!(header.unwrap().source(), Some(at("192.0.2.1:5")));
}

#[tokio::test]
async fn a_peer_that_sends_something_else_or_nothing_is_told_apart() {
    for (bytes, expected) in [
        (&b""[..], "closed before any byte of a PROXY header"),
        (
            b"PROXY TC",
            "closed in the middle of a PROXY header, after 8 bytes",
        ),
        (
            b"\x16\x03\x01",
            "not a PROXY header: it begins like neither version",
        ),
    ] {
        let (mut client, server) = pair().await;
        client.write_all(bytes).await.unwrap();
        drop(client);
        let error = read_soon(&server).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
