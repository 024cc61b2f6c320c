//! Headers to send, towards upstreams that want to know the client's address.

use std::net::{IpAddr, SocketAddr};

use super::v2::{ALPN, AUTHORITY, FIXED, LOCAL, PROXY, SIGNATURE, TCP4, TCP6};
use super::v2::{SSL, SSL_CIPHER, SSL_CN, SSL_VERSION};
use super::{Tls, Tlvs};
use crate::config::ProxyProtocol;

/// The longest value that a TLV is written with: names of clients, which are bounded.
const LONGEST: usize = 1024;

/// A header of this version; version 2 with what else is to be told.
pub fn encode(
    version: ProxyProtocol,
    source: SocketAddr,
    destination: SocketAddr,
    tlvs: &Tlvs,
) -> Vec<u8> {
    if version == ProxyProtocol::V1 {
        return encode_v1(source, destination);
    }
    let mut header = encode_v2(source, destination);
    if let Some(alpn) = &tlvs.alpn {
        tlv(&mut header, ALPN, alpn);
    }
    if let Some(authority) = &tlvs.authority {
        tlv(&mut header, AUTHORITY, authority.as_bytes());
    }
    if let Some(tls) = &tlvs.tls {
        tlv(&mut header, SSL, &tls_value(tls));
    }
    let length = u16::try_from(header.len() - FIXED).unwrap_or(u16::MAX);
    header[FIXED - 2..FIXED].copy_from_slice(&length.to_be_bytes());
    header
}

/// A header for a connection of our own, such as a health check's (sections 2.1 and 2.2).
pub fn own(version: ProxyProtocol) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        ProxyProtocol::V2 | ProxyProtocol::V2Tls => [&SIGNATURE[..], &[LOCAL, 0, 0, 0]].concat(),
    }
}

fn tlv(header: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let Some(length) = u16::try_from(value.len())
        .ok()
        .filter(|_| value.len() <= LONGEST)
    else {
        return;
    };
    header.push(kind);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(value);
}

/// `struct pp2_tlv_ssl` (section 2.2.6).
fn tls_value(tls: &Tls) -> Vec<u8> {
    // PP2_CLIENT_SSL; PP2_CLIENT_CERT_CONN and PP2_CLIENT_CERT_SESS.
    let flags = u8::from(tls.encrypted) | if tls.client_verified { 0x06 } else { 0 };
    let verify = u32::from(!tls.client_verified).to_be_bytes();
    let mut value = vec![flags];
    value.extend_from_slice(&verify);
    for (kind, text) in [
        (SSL_VERSION, &tls.version),
        (SSL_CN, &tls.common_name),
        (SSL_CIPHER, &tls.cipher),
    ] {
        if let Some(text) = text {
            tlv(&mut value, kind, text.as_bytes());
        }
    }
    value
}

/// A header of version 1.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (from, to) = same_family(source.ip(), destination.ip());
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from_port, to_port) = (source.port(), destination.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

/// A header of version 2, without TLVs.
pub fn encode_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(FIXED + 36);
    header.extend_from_slice(&SIGNATURE);
    match same_family(source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend_from_slice(&[PROXY, TCP4, 0, 12]);
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
        }
        (from, to) => {
            header.extend_from_slice(&[PROXY, TCP6, 0, 36]);
            header.extend_from_slice(&octets(from));
            header.extend_from_slice(&octets(to));
        }
    }
    header.extend_from_slice(&source.port().to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

/// Both as IPv4 where both are, also when they were seen on a dual-stack socket
/// (`::ffff:192.0.2.1`); else both as IPv6. The protocol has no words for one of each.
fn same_family(source: IpAddr, destination: IpAddr) -> (IpAddr, IpAddr) {
    match (source.to_canonical(), destination.to_canonical()) {
        (from, to) if from.is_ipv4() == to.is_ipv4() => (from, to),
        (from, to) => (octets(from).into(), octets(to).into()),
    }
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
