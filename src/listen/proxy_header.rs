//! The PROXY protocol, versions 1 and 2: how a load balancer in front tells whose connection it
//! passes on (haproxy's `doc/proxy-protocol.txt`).
//!
//! Whether a header must be there is decided by the peer's address and nothing else: guessing from
//! the bytes would let any client claim any address (section 2). [`parse`] is a pure function over
//! whatever has arrived so far, strict and bounded; [`read`] takes exactly the header from a
//! socket, because a TLS ClientHello may stand in the same segment. The deadline is the caller's.

mod crc32c;
mod encode;
mod header;
mod v1;
mod v2;

use std::io;

use tokio::net::TcpStream;

pub use self::encode::{encode, encode_v1, encode_v2, own};
pub use self::header::{Connection, Header, Invalid, MAX_LENGTH, Parsed, Tls, Tlvs};

/// Reads the header at the beginning of `bytes`; what follows it is not looked at.
///
/// [`Parsed::Incomplete`] says that every byte so far belongs to a header that is not yet whole.
///
/// # Errors
/// As soon as the bytes cannot become a valid header any more.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    match bytes.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'P') => v1::parse(bytes),
        Some(_) => v2::parse(bytes),
    }
}

/// Why no header could be read from a socket.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed without a word, as a load balancer's health check does.
    #[error("closed before any byte of a PROXY header")]
    Closed,
    /// The peer closed in the middle of a header.
    #[error("closed in the middle of a PROXY header, after {0} bytes")]
    Truncated(usize),
    /// What came is not a header.
    #[error("not a PROXY header: {0}")]
    Invalid(#[from] Invalid),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a header from `stream`, and not one byte after it.
///
/// Bytes are looked at before they are taken. While the header is incomplete all of them belong to
/// it and are taken, so that the next look waits for new ones; looking again at bytes left in the
/// socket would return at once, for ever.
///
/// # Errors
/// See [`ReadError`]. What was read by then is gone: the connection is of no use any more.
pub async fn read(stream: &TcpStream) -> Result<Header, ReadError> {
    let mut seen = Vec::new();
    // Longer than any header without long TLVs: one look, one read.
    let mut window = [0; 536];
    loop {
        let taken = seen.len();
        let peeked = stream.peek(&mut window).await?;
        if peeked == 0 {
            return Err(match taken {
                0 => ReadError::Closed,
                _ => ReadError::Truncated(taken),
            });
        }
        seen.extend_from_slice(&window[..peeked]);
        match parse(&seen)? {
            Parsed::Complete { header, length } => {
                take(stream, &mut window[..length - taken]).await?;
                return Ok(header);
            }
            Parsed::Incomplete => take(stream, &mut window[..peeked]).await?,
        }
    }
}

/// Takes as many bytes as `buffer` holds; they were seen before, so this hardly ever waits.
async fn take(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let mut taken = 0;
    while taken < buffer.len() {
        match stream.try_read(&mut buffer[taken..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
