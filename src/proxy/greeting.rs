//! The first word of a server that greets: a client who began with STARTTLS was greeted already.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;
use tracing::debug;

use super::error::Failure;
use crate::config::StartTls;
use crate::http::parse::HeadError;
use crate::wire::ReadError;

/// The longest that is read of it.
const LONGEST: usize = 4096;

/// Takes the greeting in, where there is one; `limit` is how long the server may take.
///
/// # Errors
/// That it is none, or that the server does not want to be spoken to.
pub async fn take<R: AsyncRead + Unpin>(
    server: &mut R,
    protocol: StartTls,
    limit: Duration,
) -> Result<(), Failure> {
    let is_welcome = match protocol {
        StartTls::PostgreSql => return Ok(()), // there the client begins
        StartTls::Smtp => |line: &[u8]| line.starts_with(b"220"),
        StartTls::Imap => |line: &[u8]| line.starts_with(b"* OK"),
        StartTls::Pop3 => |line: &[u8]| line.starts_with(b"+OK"),
    };
    let greeting = match timeout(limit, read(server, protocol)).await {
        Ok(greeting) => greeting?,
        Err(_) => return Err(Failure::ResponseTimeout),
    };
    if is_welcome(&greeting) {
        return Ok(());
    }
    debug!(greeting = %String::from_utf8_lossy(&greeting), "the server does not welcome");
    Err(Failure::BadHead(HeadError::Malformed(
        "it does not welcome",
    )))
}

/// The last line of a greeting, and nothing behind it: the client has the next word.
async fn read<R: AsyncRead + Unpin>(
    server: &mut R,
    protocol: StartTls,
) -> Result<Vec<u8>, Failure> {
    let mut buffer = Vec::with_capacity(256);
    while buffer.len() < LONGEST {
        let count = server.read_buf(&mut buffer).await;
        match count.map_err(|error| Failure::NoResponse(ReadError::Io(error)))? {
            0 => return Err(Failure::NoResponse(ReadError::Closed)),
            _ if !buffer.ends_with(b"\n") => continue,
            _ => {}
        }
        let mut lines = buffer[..buffer.len() - 1].rsplit(|&byte| byte == b'\n');
        let last = lines.next().unwrap_or_default();
        // RFC 5321, section 4.2.1: a line that has more behind it says so.
        if protocol != StartTls::Smtp || last.get(3) != Some(&b'-') {
            return Ok(last.to_vec());
        }
    }
    Err(Failure::BadHead(HeadError::Malformed(
        "its greeting has no end",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_greeting_is_taken_to_its_end() {
        for (protocol, greeting, welcome) in [
            (StartTls::Smtp, "220 a ESMTP\r\n", true),
            (StartTls::Smtp, "220-a\r\n220-b\r\n220 c\r\n", true),
            (StartTls::Smtp, "554 no\r\n", false),
            (StartTls::Smtp, "220-a\r\n", false),
            (StartTls::Imap, "* OK [CAPABILITY x] hello\r\n", true),
            (StartTls::Imap, "* BYE\r\n", false),
            (StartTls::Pop3, "+OK <1@a>\r\n", true),
            (StartTls::Pop3, "-ERR\r\n", false),
            (StartTls::Pop3, "", false),
            (StartTls::PostgreSql, "", true),
        ] {
            let mut server = greeting.as_bytes();
            let taken = take(&mut server, protocol, Duration::from_secs(5)).await;
            assert_eq!(taken.is_ok(), welcome, "{greeting:?}");
        }
    }
}
