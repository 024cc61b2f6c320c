//! What an upstream is told of a connection by the PROXY protocol.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Peer;
use crate::config::ProxyProtocol;
use crate::listen::proxy_header::{self, Tls, Tlvs};

/// The header of this version for this client's connection.
pub fn header(peer: &Peer, version: ProxyProtocol) -> Vec<u8> {
    let unknown: SocketAddr = match peer.client {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let destination = peer.destination.unwrap_or(unknown);
    let tlvs = match version {
        ProxyProtocol::V1 | ProxyProtocol::V2 => Tlvs::default(),
        ProxyProtocol::V2Tls => Tlvs {
            alpn: peer.alpn.clone(),
            authority: peer.sni.clone(),
            unique_id: None,
            tls: peer.tls_version.map(|version| tls(peer, version)),
        },
    };
    proxy_header::encode(version, peer.client, destination, &tlvs)
}

fn tls(peer: &Peer, version: &str) -> Tls {
    let verified = peer.identity.as_ref().filter(|identity| identity.verified);
    Tls {
        encrypted: true,
        client_verified: verified.is_some(),
        version: Some(format!("TLSv{version}").into()),
        common_name: verified.and_then(|identity| identity.common_name.clone()),
        cipher: (peer.session).and_then(|session| session.cipher.map(Into::into)),
    }
}
