//! HTTP messages, without I/O.
//!
//! [`field`] holds header fields as spans of one buffer, so that a head is copied once, edited in
//! place and written once. [`parse`] reads the heads of HTTP/1.1 messages (RFC 9112) and refuses
//! what could be read in two ways; [`framing`] finds where a body ends; [`encode`] writes heads and
//! chunks. HTTP/2 messages are carried in the same types, so that the proxy has one pipeline.

pub mod encode;
pub mod field;
pub mod frame;
pub mod framing;
pub mod host;
pub mod hpack;
pub mod kept;
pub mod parse;

use crate::http::field::{Fields, Span};

/// A request method (RFC 9110, section 9), in the order of [`crate::metrics::METHODS`]. The text of
/// the others is in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// `QUERY`
    Query,
    /// Anything else.
    Other,
}

impl Method {
    /// Reads a method; methods are case-sensitive.
    pub fn from_bytes(text: &[u8]) -> Self {
        match text {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            b"QUERY" => Self::Query,
            _ => Self::Other,
        }
    }

    /// Whether repeating the request has the same effect as making it once (RFC 9110, section
    /// 9.2.2). What is not known is taken for not idempotent.
    pub const fn is_idempotent(self) -> bool {
        matches!(
            self,
            Self::Get
                | Self::Head
                | Self::Put
                | Self::Delete
                | Self::Options
                | Self::Trace
                | Self::Query
        )
    }
}

/// The version a message came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As an access log writes it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2.0",
        }
    }

    /// The `received-protocol` of a `Via` field (RFC 9110, section 7.6.3).
    pub const fn via(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2.0",
        }
    }
}

/// How the body of a message is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// `Content-Length`, above 0.
    Length(u64),
    /// `Transfer-Encoding: chunked`; or HTTP/2 without a length.
    Chunked,
    /// A response that ends with the connection.
    UntilClose,
}

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The version the client speaks.
    pub version: Version,
    /// How the body is delimited.
    pub framing: Framing,
    /// Header fields, and the buffer that holds the other parts.
    pub fields: Fields,
    /// The method's text.
    pub(crate) method_text: Span,
    /// Path and query, or `*`; for `CONNECT` the authority.
    pub(crate) target: Span,
    /// Host and port as the client gave them; empty when it gave none.
    pub(crate) authority: Span,
    /// The client keeps the connection open (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// The client waits for `100 (Continue)` (RFC 9110, section 10.1.1).
    pub expects_continue: bool,
    /// The client asks to switch to another protocol (RFC 9110, section 7.8).
    pub upgrade: bool,
    /// The client accepts trailers (`TE: trailers`, RFC 9110, section 10.1.4).
    pub accepts_trailers: bool,
}

impl RequestHead {
    /// Stands for a request that could not be read.
    pub fn unread() -> Self {
        Self {
            method: Method::Other,
            version: Version::Http11,
            framing: Framing::None,
            fields: Fields::default(),
            method_text: Span::default(),
            target: Span::default(),
            authority: Span::default(),
            keep_alive: false,
            expects_continue: false,
            upgrade: false,
            accepts_trailers: false,
        }
    }

    /// The method's text.
    pub fn method_text(&self) -> &[u8] {
        self.fields.slice(self.method_text)
    }

    /// Path and query, or `*`.
    pub fn target(&self) -> &[u8] {
        self.fields.slice(self.target)
    }

    /// Path without query.
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        &target[..end]
    }

    /// What follows the question mark, where there is one.
    pub fn query(&self) -> Option<&[u8]> {
        let target = self.target();
        memchr::memchr(b'?', target).map(|at| &target[at + 1..])
    }

    /// Host and port as the client gave them.
    pub fn authority(&self) -> &[u8] {
        self.fields.slice(self.authority)
    }
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The reason phrase, of HTTP/1.x only.
    pub(crate) reason: Span,
    /// How the body is delimited. Depends on the request's method too (RFC 9112, section 6.3).
    pub framing: Framing,
    /// Header fields, and the buffer that holds the reason phrase.
    pub fields: Fields,
    /// The connection can carry another request.
    pub keep_alive: bool,
}

impl ResponseHead {
    /// A response that the proxy makes itself.
    pub fn own(status: u16, reason: &str, framing: Framing, mut fields: Fields) -> Self {
        let reason = fields.store(reason.as_bytes());
        Self {
            status,
            reason,
            framing,
            fields,
            keep_alive: true,
        }
    }

    /// The reason phrase as it came.
    pub fn reason(&self) -> &[u8] {
        self.fields.slice(self.reason)
    }

    /// Whether it is interim (RFC 9110, section 15.2), `101` not counted.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}
