//! Reading heads and bodies from a byte stream.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncRead;

use super::buffer::Buffer;
use super::cork::Stream;
use crate::http::Framing;
use crate::http::field::Fields;
use crate::http::framing::{BodyError, Decoder, Front, MAX_TRAILERS};
use crate::http::parse::{self, HeadError, Parsed, Scanner};

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed where a message would have begun.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed within a head.
    #[error("the peer closed the connection in the middle of a head")]
    CutShort,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The head is refused.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// The body is refused.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// What a head is expected to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A client's: each line must end with CR LF; see [`Scanner::find`].
    Request,
    /// A server's, for whom a bare LF is let pass. What does not even begin like a response is
    /// refused at once, rather than waited for until it is whole.
    Response,
}

impl Message {
    fn begins_like(self, data: &[u8]) -> bool {
        const VERSION: &[u8] = b"HTTP/";
        // Of a known length, it is compared in place.
        self == Self::Request || data.starts_with(VERSION) || VERSION.starts_with(data)
    }
}

/// What [`Reader::poll_body`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// [`Reader::data`] has some.
    Data,
    /// The body is over.
    End,
}

/// Reads one message after the other from a stream that it is handed at each call.
#[derive(Debug)]
pub struct Reader {
    buffer: Buffer,
    scanner: Scanner,
    decoder: Decoder,
    /// Data at the front of the buffer that the decoder has measured.
    ready: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            buffer: Buffer::default(),
            scanner: Scanner::default(),
            decoder: Decoder::new(Framing::None),
            ready: 0,
        }
    }
}

impl Reader {
    /// Whether bytes were read that no message has used.
    pub const fn has_leftover(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Waits for the first byte of a head.
    pub fn poll_start<I: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<Result<(), ReadError>> {
        if self.buffer.is_empty() {
            ready!(io.poll_readable(cx));
            if ready!(self.buffer.poll_read(cx, io, 0))? == 0 {
                return Poll::Ready(Err(ReadError::Closed));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until a head is whole and `read` has read it. Empty lines before it are skipped (RFC
    /// 9112, section 2.2).
    pub fn poll_head<I: AsyncRead + Unpin, T>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
        limit: usize,
        message: Message,
        read: impl Fn(&[u8]) -> Parsed<T>,
    ) -> Poll<Result<T, ReadError>> {
        let strict = message == Message::Request;
        loop {
            while self.buffer.data().starts_with(b"\r\n") {
                self.buffer.consume(2);
                self.scanner.reset();
            }
            let data = self.buffer.data();
            if !message.begins_like(data) {
                let error = HeadError::Malformed("it does not begin with HTTP/");
                return Poll::Ready(Err(error.into()));
            }
            // Nearly all heads come whole, and are read in the same pass that finds their end. One
            // that comes in pieces is not read again and again: from then on only its end is looked
            // for.
            let fresh = self.scanner.is_fresh() && !data.is_empty();
            if fresh || self.scanner.find(data, strict)?.is_some() {
                let within = &data[..data.len().min(limit)];
                if let Some((head, length)) = read(within)? {
                    self.buffer.consume(length);
                    self.scanner.reset();
                    return Poll::Ready(Ok(head));
                }
                if data.len() < limit && !fresh {
                    return Poll::Ready(Err(parse::CUT_SHORT.into()));
                }
            }
            if data.len() >= limit {
                return Poll::Ready(Err(HeadError::TooLong.into()));
            }
            if fresh && self.scanner.find(data, strict)?.is_some() {
                continue;
            }
            if ready!(self.buffer.poll_read(cx, io, limit))? == 0 {
                return Poll::Ready(Err(match self.buffer.is_empty() {
                    true => ReadError::Closed,
                    false => ReadError::CutShort,
                }));
            }
        }
    }

    /// Says how the body that follows is framed.
    pub fn begin_body(&mut self, framing: Framing) {
        self.decoder = Decoder::new(framing);
        self.ready = 0;
    }

    /// Waits for data of the body, or its end.
    pub fn poll_body<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<Result<Body, ReadError>> {
        if self.ready > 0 {
            return Poll::Ready(Ok(Body::Data));
        }
        loop {
            let (skip, front) = self.decoder.front(self.buffer.data())?;
            if skip > 0 {
                self.buffer.consume(skip);
            }
            match front {
                Front::Data(length) => {
                    self.ready = length;
                    return Poll::Ready(Ok(Body::Data));
                }
                Front::End => return Poll::Ready(Ok(Body::End)),
                Front::Partial => {}
            }
            // Only a trailer section is left in the buffer until it is whole.
            if ready!(self.buffer.poll_read(cx, io, 2 * MAX_TRAILERS))? == 0 {
                self.decoder.closed()?;
            }
        }
    }

    /// The data that [`poll_body`](Self::poll_body) found.
    pub fn data(&self) -> &[u8] {
        &self.buffer.data()[..self.ready]
    }

    /// Drops data from the front.
    pub fn consume(&mut self, count: usize) {
        self.ready -= count;
        self.decoder.took(count);
        self.buffer.consume(count);
    }

    /// Whether the body is over.
    pub fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    /// Bytes of the body that are certain to come still; `None` when that is not known.
    pub const fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// The trailer section, once the body is over.
    pub fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.decoder.take_trailers()
    }

    /// Ready when the peer has closed or broken the connection although nothing was expected of
    /// it. What it sends instead is kept, up to a buffer's fill, after which nothing is asked.
    pub fn poll_gone<I: Stream>(&mut self, cx: &mut Context<'_>, io: &mut I) -> Poll<()> {
        const ENOUGH: usize = 16 << 10;
        while self.buffer.data().len() < ENOUGH {
            ready!(io.poll_readable(cx));
            match ready!(self.buffer.poll_read(cx, io, ENOUGH)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }
}
