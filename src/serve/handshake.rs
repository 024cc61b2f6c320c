//! The TLS handshake with a client.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::{AlertDescription, Error, HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::{Handshake, HandshakeFailure, TlsVersion};
use crate::proxy::Peer;

/// Carries it out. On failure rustls has sent the alert.
pub async fn accept(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    TlsAcceptor::from(Arc::clone(config)).accept(stream).await
}

/// Whether HTTP/2 was agreed on (RFC 9113, section 3.2).
pub fn is_h2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// What was agreed on.
pub fn describe(stream: &TlsStream<TcpStream>, client: SocketAddr) -> (Handshake, Peer) {
    let tls = stream.get_ref().1;
    let (version, name) = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => (TlsVersion::Tls12, "1.2"),
        _ => (TlsVersion::Tls13, "1.3"),
    };
    let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
    let sni = tls.server_name().map(Into::into);
    let peer = Peer {
        client,
        scheme: "https",
        sni,
        tls_version: Some(name),
    };
    (Handshake::Done { version, resumed }, peer)
}

/// Why it failed, in one of the words that metrics know.
pub fn classify(error: &io::Error) -> HandshakeFailure {
    let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    else {
        return HandshakeFailure::Closed;
    };
    match error {
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificateStatusResponse => {
                HandshakeFailure::CertificateRefused
            }
            _ => HandshakeFailure::ClientAlert,
        },
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
        Error::InvalidMessage(_) => HandshakeFailure::NotTls,
        // rustls has no word of its own for a resolver that has nothing to offer.
        Error::General(text) if text.contains("certificate chain") => {
            HandshakeFailure::NoCertificate
        }
        _ => HandshakeFailure::Protocol,
    }
}
