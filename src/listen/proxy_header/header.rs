//! What a header says, whichever version wrote it.

use std::net::SocketAddr;

/// The longest header that is read: what nginx takes as well. Version 1 has its own, lower bound.
pub const MAX_LENGTH: usize = 4096;

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose connection it is.
    pub connection: Connection,
    /// What else was told; version 2 only.
    pub tlvs: Tlvs,
}

impl Header {
    /// The client, where the sender named one; else the socket's own peer is the client.
    pub const fn source(&self) -> Option<SocketAddr> {
        match self.connection {
            Connection::Proxied { source, .. } => Some(source),
            Connection::Local | Connection::Unknown => None,
        }
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The sender's own, a health check for example.
    Local,
    /// Somebody's of whom the sender cannot tell, or whose address is not one of TCP over IP.
    Unknown,
    /// A client's, passed on.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// Where the client connected to.
        destination: SocketAddr,
    },
}

/// The type-length-values of version 2 that are of interest (section 2.2). All are claims of the
/// sender. Of a type that is repeated the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// `PP2_TYPE_ALPN`: the protocol that the client negotiated with the sender.
    pub alpn: Option<Box<[u8]>>,
    /// `PP2_TYPE_AUTHORITY`: the host name that the client asked the sender for.
    pub authority: Option<Box<str>>,
    /// `PP2_TYPE_UNIQUE_ID`: the sender's name for the connection, at most 128 bytes.
    pub unique_id: Option<Box<[u8]>>,
    /// `PP2_TYPE_SSL`: the client's TLS connection to the sender.
    pub tls: Option<Tls>,
}

/// The client's TLS connection to the sender (section 2.2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The client spoke TLS (`PP2_CLIENT_SSL`).
    pub encrypted: bool,
    /// It presented a certificate, in this connection or this session, and the sender verified it.
    pub client_verified: bool,
    /// `PP2_SUBTYPE_SSL_VERSION`, such as `TLSv1.3`.
    pub version: Option<Box<str>>,
    /// `PP2_SUBTYPE_SSL_CN`: the common name in the client's certificate.
    pub common_name: Option<Box<str>>,
    /// `PP2_SUBTYPE_SSL_CIPHER`: the cipher suite, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: Option<Box<str>>,
}

/// How far reading has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed; all of those so far belong to the header.
    Incomplete,
    /// A whole header.
    Complete {
        /// What it says.
        header: Header,
        /// How many bytes it took.
        length: usize,
    },
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Neither version's signature.
    #[error("it begins like neither version")]
    Signature,
    /// Version 1: no CR LF in the first 107 bytes, or either without the other.
    #[error("its line does not end in CR LF within 107 bytes")]
    LineEnd,
    /// Version 1: the line is not of the prescribed form.
    #[error("its line is not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT` or `PROXY UNKNOWN`")]
    Line,
    /// Version 2: neither LOCAL nor PROXY of version 2.
    #[error("version and command {0:#04x} are unknown")]
    Command(u8),
    /// Version 2: an address family or transport that is not assigned.
    #[error("family and transport {0:#04x} are unknown")]
    Family(u8),
    /// Version 2: longer than [`MAX_LENGTH`].
    #[error("its length of {0} bytes is over the limit")]
    TooLong(usize),
    /// Version 2: too short for the addresses of its family.
    #[error("it is too short for its addresses")]
    Addresses,
    /// Version 2: a TLV that reaches past the end, or a value that its type does not allow.
    #[error("its TLV of type {0:#04x} is malformed")]
    Tlv(u8),
    /// Version 2: the checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
}
