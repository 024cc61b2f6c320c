//! The name in a client's greeting, read without taking the greeting: whoever it is passed on to
//! reads it from its beginning.

use std::io;

use tokio::io::Interest;
use tokio::net::TcpStream;

/// The longest greeting that is looked at. A usual one with post-quantum keys is 2 KiB.
pub const MAX_LENGTH: usize = 16 << 10;
/// What most greetings fit in.
const USUAL: usize = 4 << 10;

/// A record of the handshake protocol (RFC 8446, section 5.1), and its longest payload.
const HANDSHAKE: u8 = 22;
const MAX_RECORD: usize = 1 << 14;
/// The message, and its extension with the name (RFC 6066, section 3).
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// How far reading has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// The whole greeting is there, with this name in lower case and without a trailing dot.
    Complete(Option<Box<str>>),
}

/// Why no name could be read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// What came is not a greeting of TLS.
    #[error("what came is not a ClientHello")]
    NotTls,
    /// It is longer than [`MAX_LENGTH`].
    #[error("the ClientHello is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// The client closed before its end.
    #[error("the client closed before the end of its ClientHello")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Looks at what has come until it is a whole greeting; the name in it, if it has one. Nothing is
/// taken from the socket. The deadline is the caller's.
///
/// # Errors
/// See [`Unread`].
pub async fn peek(stream: &TcpStream) -> Result<Option<Box<str>>, Unread> {
    let mut window = vec![0; USUAL];
    let mut seen = 0;
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // That nothing has come since is told to the reactor, which waits for what is new.
        let looked = stream.try_io(Interest::READABLE, || {
            let flags = rustix::net::RecvFlags::PEEK;
            let (_, length) = rustix::net::recv(stream, &mut window[..], flags)?;
            match length.min(window.len()) {
                0 => Ok(0),
                same if same == seen => Err(io::ErrorKind::WouldBlock.into()),
                more => Ok(more),
            }
        });
        match looked {
            Ok(0) => return Err(Unread::Closed),
            Ok(length) => seen = length,
            // No more will come.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match ready.is_read_closed()
            {
                true => return Err(Unread::Closed),
                false => continue,
            },
            Err(error) => return Err(error.into()),
        }
        match parse(&window[..seen])? {
            Parsed::Complete(name) => return Ok(name),
            Parsed::Incomplete if seen >= MAX_LENGTH => return Err(Unread::TooLong),
            Parsed::Incomplete if seen == window.len() => window.resize(MAX_LENGTH, 0),
            Parsed::Incomplete => {}
        }
    }
}

/// Reads the greeting at the beginning of `bytes`, which may be spread over several records.
///
/// # Errors
/// As soon as the bytes cannot become a greeting any more.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Unread> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let Some(length) = message_length(&message)? {
            if length > MAX_LENGTH {
                return Err(Unread::TooLong);
            }
            if message.len() >= length {
                let name = hello(&message[4..length]).ok_or(Unread::NotTls)?;
                return Ok(Parsed::Complete(name));
            }
        }
        // Type, and the version that all have: 3, and anything.
        let is_record = (rest.first().is_none_or(|kind| *kind == HANDSHAKE))
            && rest.get(1).is_none_or(|major| *major == 3);
        if !is_record {
            return Err(Unread::NotTls);
        }
        let Some(header) = rest.first_chunk::<5>() else {
            return Ok(Parsed::Incomplete);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > MAX_RECORD {
            return Err(Unread::NotTls);
        }
        let payload = &rest[5..];
        message.extend_from_slice(&payload[..length.min(payload.len())]);
        rest = payload.get(length..).unwrap_or_default();
        if payload.len() < length {
            // Enough to know whether it can become one at all.
            message_length(&message)?;
            return Ok(Parsed::Incomplete);
        }
    }
}

/// The length of the handshake message, its own header included, once that is there.
fn message_length(message: &[u8]) -> Result<Option<usize>, Unread> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Unread::NotTls);
    }
    Ok(message
        .first_chunk::<4>()
        .map(|[_, high, middle, low]| 4 + u32::from_be_bytes([0, *high, *middle, *low]) as usize))
}

/// What follows in a message.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector with a length of one byte or two before it.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

/// The name in a ClientHello (RFC 8446, section 4.1.2). The outer `None`: it is malformed.
fn hello(body: &[u8]) -> Option<Option<Box<str>>> {
    let mut body = Cursor(body);
    body.take(2 + 32)?; // version, random
    body.short()?; // session
    body.long()?; // cipher suites
    body.short()?; // compression
    if body.0.is_empty() {
        return Some(None); // TLS 1.2 and older may have no extensions
    }
    let mut extensions = Cursor(body.long()?);
    let mut found = None;
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.u16()?, extensions.long()?);
        if kind == SERVER_NAME {
            // Twice is forbidden (RFC 8446, section 4.2), and would be read in two ways.
            let name = server_name(content).filter(|_| found.is_none())?;
            found = Some(name);
        }
    }
    Some(found)
}

/// The host name of the extension. There is one, and other kinds of name have never been assigned
/// (RFC 6066, section 3).
fn server_name(content: &[u8]) -> Option<Box<str>> {
    let mut content = Cursor(content);
    let mut list = Cursor(content.long().filter(|_| content.0.is_empty())?);
    let (kind, name) = (list.u8()?, list.long()?);
    if kind != HOST_NAME || !list.0.is_empty() {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    let name = name.strip_suffix('.').unwrap_or(name);
    Some(name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A greeting with these extensions.
    fn greeting(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0]);
        if let Some(extensions) = extensions {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    fn naming(name: &str) -> Vec<u8> {
        let long = |bytes: Vec<u8>| {
            let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
            [length.to_vec(), bytes].concat()
        };
        let entry = [vec![0], long(name.as_bytes().to_vec())].concat();
        let other = vec![0, 23, 0, 0];
        let extension = [other, vec![0, 0], long(long(entry))].concat();
        greeting(Some(&extension))
    }

    /// Spread over records of this many bytes.
    fn records(message: &[u8], each: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[22, 3, 1][..], &length, part].concat()
        };
        message.chunks(each).flat_map(record).collect()
    }

    fn complete(name: &str) -> Parsed {
        Parsed::Complete(Some(name.into()))
    }

    #[test]
    fn the_name_is_read_however_the_greeting_is_cut() {
        let message = naming("WWW.Example.test.");
        for each in [1, 3, 40, 1000] {
            let bytes = records(&message, each);
            assert_eq!(parse(&bytes).unwrap(), complete("www.example.test"));
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]).unwrap(), Parsed::Incomplete, "{end}");
            }
        }
    }

    #[test]
    fn a_greeting_may_have_no_name() {
        for message in [
            greeting(None),
            greeting(Some(&[])),
            greeting(Some(&[0, 23, 0, 0])),
        ] {
            let parsed = parse(&records(&message, 1000)).unwrap();
            assert_eq!(parsed, Parsed::Complete(None));
        }
    }

    #[test]
    fn what_is_no_greeting_is_known_early() {
        let mut lies = naming("a");
        let at = lies.len() - 2;
        lies[at] = 9;
        let short = records(&lies, 1000);
        let mut twice = naming("a")[46..].to_vec();
        twice.extend(twice.clone());
        let twice = records(&greeting(Some(&twice)), 1000);
        for bytes in [
            &twice[..],
            b"G",
            b"\x80\x2e\x01\x03\x01",
            b"\x16\x02",
            b"\x16\x03\x01\0\0",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\0\x05\x02",
            &short,
        ] {
            assert!(matches!(parse(bytes), Err(Unread::NotTls)), "{bytes:?}");
        }
        let endless = b"\x16\x03\x01\0\x05\x01\xff\xff\xff\0";
        assert!(matches!(parse(endless), Err(Unread::TooLong)));
    }

    #[tokio::test]
    async fn a_greeting_is_looked_at_and_left_where_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let bytes = records(&naming("a.test"), 9);
        let send = async {
            for byte in &bytes {
                client.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let (name, ()) = tokio::join!(peek(&server), send);
        assert_eq!(name.unwrap().as_deref(), Some("a.test"));
        let mut read = vec![0; bytes.len()];
        let mut server = server;
        tokio::io::AsyncReadExt::read_exact(&mut server, &mut read)
            .await
            .unwrap();
        assert_eq!(read, bytes);
    }

    #[tokio::test]
    async fn a_client_that_closes_early_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(b"\x16\x03\x01").await.unwrap();
        client.shutdown().await.unwrap();
        let closed = timeout(Duration::from_secs(10), peek(&server)).await;
        assert!(matches!(closed.unwrap(), Err(Unread::Closed)));
    }
}
