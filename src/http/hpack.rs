//! HPACK: how the fields of HTTP/2 are written (RFC 7541).
//!
//! What can be known of a field by itself is found out once, when it is put into a table, and not
//! each time that it is asked for from there.

mod decoder;
mod encoder;
mod huffman;
mod table;

pub use decoder::{Decoder, Field, Malformed};
pub use encoder::Encoder;
pub use table::size;

use super::field::{Id, is_token};

/// What the name of a field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:protocol` (RFC 8441)
    Protocol,
    /// A field of the message.
    Field(Id),
    /// What belongs to a connection of HTTP/1.1 (RFC 9113, section 8.2.2).
    OfConnection,
    /// A pseudo-header field that no request has.
    Unknown,
    /// What is no name, or has a capital letter in it (RFC 9113, section 8.2.1).
    Malformed,
}

impl Kind {
    /// Looks at a name.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b":method" => return Self::Method,
            b":scheme" => return Self::Scheme,
            b":authority" => return Self::Authority,
            b":path" => return Self::Path,
            b":protocol" => return Self::Protocol,
            [b':', ..] => return Self::Unknown,
            _ => {}
        }
        if !is_token(name) || name.iter().any(u8::is_ascii_uppercase) {
            return Self::Malformed;
        }
        match Id::of(name) {
            Id::Connection
            | Id::KeepAlive
            | Id::ProxyConnection
            | Id::TransferEncoding
            | Id::Upgrade => Self::OfConnection,
            id => Self::Field(id),
        }
    }

    /// Whether it is one of the fields before the others.
    pub const fn is_pseudo(self) -> bool {
        matches!(
            self,
            Self::Method
                | Self::Scheme
                | Self::Authority
                | Self::Path
                | Self::Protocol
                | Self::Unknown
        )
    }
}
