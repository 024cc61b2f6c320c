//! The frames of HTTP/2 (RFC 9113, sections 4 and 6).

/// What a client begins a connection with (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes before each payload.
pub const HEAD: usize = 9;
/// The longest payload that everybody takes.
pub const MAX_PAYLOAD: usize = 16 << 10;
/// The window that everything begins with.
pub const WINDOW: i32 = 65_535;

/// The kind of a frame.
pub mod kind {
    /// Data of a body.
    pub const DATA: u8 = 0;
    /// Begins a block of fields.
    pub const HEADERS: u8 = 1;
    /// Says nothing any more (RFC 9113, section 5.3.2).
    pub const PRIORITY: u8 = 2;
    /// Ends a stream at once.
    pub const RST_STREAM: u8 = 3;
    /// What a side is like.
    pub const SETTINGS: u8 = 4;
    /// Of servers only.
    pub const PUSH_PROMISE: u8 = 5;
    /// Asks for an answer.
    pub const PING: u8 = 6;
    /// Takes no more streams.
    pub const GOAWAY: u8 = 7;
    /// Lets more be sent.
    pub const WINDOW_UPDATE: u8 = 8;
    /// Goes on with a block of fields.
    pub const CONTINUATION: u8 = 9;
}

/// The flags of a frame.
pub mod flag {
    /// The last of a stream, in this direction.
    pub const END_STREAM: u8 = 0x1;
    /// An answer to SETTINGS or PING.
    pub const ACK: u8 = 0x1;
    /// The last of a block of fields.
    pub const END_HEADERS: u8 = 0x4;
    /// Padding follows, its length comes first.
    pub const PADDED: u8 = 0x8;
    /// A priority comes first.
    pub const PRIORITY: u8 = 0x20;
}

/// The settings that a side can have (RFC 9113, section 6.5.2; RFC 8441, section 3; RFC 9218,
/// section 2.1).
pub mod setting {
    /// What a table of fields may hold.
    pub const HEADER_TABLE_SIZE: u16 = 1;
    /// Whether a server may push.
    pub const ENABLE_PUSH: u16 = 2;
    /// Streams at once.
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    /// The window that streams begin with.
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    /// The longest payload.
    pub const MAX_FRAME_SIZE: u16 = 5;
    /// The most that the fields of a message may amount to.
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// CONNECT can name a protocol.
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
    /// Priorities are not looked at.
    pub const NO_RFC7540_PRIORITIES: u16 = 9;
}

/// Why a stream or a connection ends (RFC 9113, section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

macro_rules! codes {
    ($($name:ident = $number:literal,)*) => {
        impl ErrorCode {
            $(#[doc = concat!("`", stringify!($name), "`")]
            pub const $name: Self = Self($number);)*
        }

        impl std::fmt::Display for ErrorCode {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.0 {
                    $($number => f.write_str(stringify!($name)),)*
                    other => write!(f, "error {other}"),
                }
            }
        }
    };
}

codes! {
    NO_ERROR = 0,
    PROTOCOL_ERROR = 1,
    INTERNAL_ERROR = 2,
    FLOW_CONTROL_ERROR = 3,
    SETTINGS_TIMEOUT = 4,
    STREAM_CLOSED = 5,
    FRAME_SIZE_ERROR = 6,
    REFUSED_STREAM = 7,
    CANCEL = 8,
    COMPRESSION_ERROR = 9,
    CONNECT_ERROR = 10,
    ENHANCE_YOUR_CALM = 11,
    INADEQUATE_SECURITY = 12,
    HTTP_1_1_REQUIRED = 13,
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of its payload.
    pub length: usize,
    /// See [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
}

impl Head {
    /// Reads one from the front of what came; `None` while there is less.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, d, e, f, g] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        })
    }

    /// As it is sent. The length has at most 24 bits.
    pub fn bytes(self) -> [u8; HEAD] {
        #[allow(clippy::cast_possible_truncation)] // see above
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Whether a flag is set.
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Takes the padding from a payload (RFC 9113, section 6.1). `None` where there is more of it than
/// payload.
pub fn unpadded(head: Head, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    let length = rest.len().checked_sub(usize::from(padding))?;
    Some(&rest[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_as_they_are_written() {
        let head = Head {
            length: 0x01_02_03,
            kind: kind::PING,
            flags: flag::ACK,
            stream: 0x7f00_0001,
        };
        assert_eq!(Head::read(&head.bytes()), Some(head));
        assert_eq!(Head::read(&head.bytes()[..8]), None);
        let reserved = [0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            Head::read(&reserved).map(|head| head.stream),
            Some(0x7fff_ffff)
        );
    }

    #[test]
    fn padding_is_part_of_the_payload() {
        let head = |flags| Head {
            length: 0,
            kind: kind::DATA,
            flags,
            stream: 1,
        };
        assert_eq!(unpadded(head(0), b"\x01ab"), Some(&b"\x01ab"[..]));
        assert_eq!(unpadded(head(flag::PADDED), b"\x01ab"), Some(&b"a"[..]));
        assert_eq!(unpadded(head(flag::PADDED), b"\x02ab"), Some(&b""[..]));
        assert_eq!(unpadded(head(flag::PADDED), b"\x03ab"), None);
        assert_eq!(unpadded(head(flag::PADDED), b""), None);
    }
}
