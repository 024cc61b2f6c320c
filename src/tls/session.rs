//! What a handshake agreed on, in words, for the access log.

use rustls::{HandshakeKind, ServerConnection};

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The cipher suite, as IANA has it.
    pub cipher: Option<&'static str>,
    /// The group that keys were agreed on with; none where a session of TLS 1.2 was resumed.
    pub group: Option<&'static str>,
    /// Whether a session was resumed.
    pub resumed: bool,
}

impl Session {
    /// Of a handshake that is done.
    pub fn of(tls: &ServerConnection) -> Self {
        let cipher = tls.negotiated_cipher_suite();
        let group = tls.negotiated_key_exchange_group();
        Self {
            cipher: cipher.and_then(|cipher| iana(cipher.suite())),
            group: group.and_then(|group| group.name().as_str()),
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// The library has names of its own for the suites of TLS 1.3.
fn iana(suite: rustls::CipherSuite) -> Option<&'static str> {
    use rustls::CipherSuite as Suite;
    match suite {
        Suite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        Suite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        Suite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        other => other.as_str(),
    }
}
