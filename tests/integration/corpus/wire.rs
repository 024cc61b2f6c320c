//! The client's side, as bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};

use crate::support::{HOST, Tls};

/// How long an answer may take; only a fault takes it.
const PATIENCE: Duration = Duration::from_secs(20);

/// One TLS connection.
pub struct Wire {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// Read and not yet used; dates are made alike.
    read: Vec<u8>,
    ended: Option<bool>,
}

impl Wire {
    pub fn connect(proxy: SocketAddr, protocol: &str) -> Result<Self, String> {
        let say = |error: std::io::Error| format!("cannot connect: {error}");
        let tls = Tls::to(proxy).name(HOST).alpn(&[protocol]);
        let mut tcp = TcpStream::connect(proxy).map_err(say)?;
        tcp.set_nodelay(true).map_err(say)?;
        tcp.set_read_timeout(Some(PATIENCE)).map_err(say)?;
        tcp.set_write_timeout(Some(PATIENCE)).map_err(say)?;
        let mut session = ClientConnection::new(tls.config(), tls.server_name())
            .map_err(|error| error.to_string())?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp).map_err(say)?;
        }
        let stream = StreamOwned::new(session, tcp);
        Ok(Self {
            stream,
            read: Vec::new(),
            ended: None,
        })
    }

    /// Sends; that the other side has closed already shows in what it said.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self
            .stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
        {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err("staunch reads no more".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Reads once; false at the end.
    pub fn fill(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.ended = Some(true);
                Ok(false)
            }
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err("nothing more comes".to_owned())
            }
            Err(_) => {
                self.ended = Some(false);
                Ok(false)
            }
        }
    }

    /// What was read and not used.
    pub fn buffered(&mut self) -> &mut Vec<u8> {
        &mut self.read
    }

    /// Reads exactly this.
    pub fn expect(&mut self, expected: &[u8]) -> Result<(), String> {
        loop {
            alike(&mut self.read);
            if self.read.starts_with(expected) {
                self.read.drain(..expected.len());
                return Ok(());
            }
            let came = |read: &[u8]| {
                format!(
                    "expected {}\n    came     {}",
                    expected.escape_ascii(),
                    read.escape_ascii()
                )
            };
            if !expected.starts_with(&self.read) && !self.may_still_be_a_date() {
                return Err(came(&self.read));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return Err(came(&self.read) + ", and the end"),
                Err(why) => return Err(came(&self.read) + ", and " + &why),
            }
        }
    }

    /// Reads the end and nothing before it: in order, or broken off.
    pub fn expect_end(&mut self, in_order: bool) -> Result<(), String> {
        while self.ended.is_none() && self.fill()? {}
        if !self.read.is_empty() {
            return Err(format!("more came: {}", self.read.escape_ascii()));
        }
        match (in_order, self.ended) {
            (true, Some(false)) => Err("the connection was broken off".to_owned()),
            (false, Some(true)) => Err("the connection was closed in order".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether what was read ends within a date, which cannot be compared yet.
    fn may_still_be_a_date(&self) -> bool {
        let line = self.read.rsplit(|&byte| byte == b'\n').next();
        line.is_some_and(|line| line.starts_with(b"Date: ") && !line.ends_with(b"\r"))
    }
}

/// Makes dates comparable.
fn alike(bytes: &mut Vec<u8>) {
    const DATE: &[u8] = b"\r\nDate: ";
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&bytes[from..], DATE) {
        let start = from + at + DATE.len();
        let Some(length) = memchr::memchr(b'\r', &bytes[start..]) else {
            return;
        };
        bytes.splice(start..start + length, *b"{date}");
        from = start;
    }
}
