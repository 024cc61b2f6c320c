//! Headers to send, towards upstreams that want to know the client's address.

use std::net::{IpAddr, SocketAddr};

use super::v2::{FIXED, PROXY, SIGNATURE, TCP4, TCP6};

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
