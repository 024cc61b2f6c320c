//! The byte stream beneath a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use crate::wire::Socket;

/// The byte stream beneath.
#[derive(Debug)]
pub struct Io {
    stream: Stream,
    /// Something was written since it was asked for last.
    pub(super) wrote: bool,
}

/// What a byte stream can be.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(Socket),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<Socket>>),
}

macro_rules! each {
    ($io:expr, $stream:ident => $call:expr) => {
        match &mut $io.get_mut().stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = each!(self.as_mut(), stream => Pin::new(stream).poll_write(cx, buf));
        self.wrote |= matches!(result, Poll::Ready(Ok(1..)));
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = each!(self.as_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs));
        self.wrote |= matches!(result, Poll::Ready(Ok(1..)));
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Io {
    /// A stream to which nothing was written yet.
    pub const fn new(stream: Stream) -> Self {
        let wrote = false;
        Self { stream, wrote }
    }

    /// Whether both ends agreed on HTTP/2 (RFC 7301).
    pub fn agreed_http2(&self) -> bool {
        match &self.stream {
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
            Stream::Tcp(_) | Stream::Unix(_) => false,
        }
    }

    /// Whether the peer has closed, or has sent something unasked, as far as can be told without a
    /// system call where nothing has happened.
    pub(super) fn is_stale(&self) -> bool {
        // What rustls has read ahead, be it data or the end, does not show at the socket.
        if let Stream::Tls(stream) = &self.stream
            && !stream.get_ref().1.wants_read()
        {
            return true;
        }
        let mut byte = [0];
        // The reactor knows of readiness before the kernel is asked; only then is it.
        let asked = match &self.stream {
            Stream::Tcp(stream) => stream.get_ref().try_read(&mut byte),
            Stream::Tls(stream) => stream.get_ref().0.get_ref().try_read(&mut byte),
            Stream::Unix(stream) => stream.try_read(&mut byte),
        };
        !matches!(asked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
