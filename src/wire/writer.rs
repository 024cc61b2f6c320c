//! Writing heads and bodies to a byte stream.
//!
//! Small pieces are gathered, so that a head and a small body leave in one write and one TLS
//! record; large ones are written from where they lie.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::http::encode;
use crate::http::field::Fields;

/// What is gathered before it is written: the plaintext of the largest TLS record (RFC 8446,
/// section 5.1).
const GATHER: usize = 16 << 10;
/// Data from this size on is not copied to be gathered, where it need not be framed: it is written
/// together with what was gathered before it.
const DIRECT: usize = 4 << 10;
/// Room for what is gathered at first: a head and a small body.
const ROOM: usize = 4 << 10;
/// Pieces of memory that a thread keeps in stock, none of them larger than this.
const STOCK: usize = 64;
const STOCKED: usize = 2 * GATHER;

thread_local! {
    static MEMORY: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// See the module.
#[derive(Debug, Default)]
pub struct Writer {
    /// Not yet written.
    pending: Vec<u8>,
    /// How much of it is.
    written: usize,
    /// Rest of the chunk whose size was announced.
    open_chunk: usize,
    chunked: bool,
    /// Something was written that the stream may still hold back.
    unflushed: bool,
}

impl Writer {
    /// Gathers what `write` appends: a head.
    pub fn head(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.make_room();
        write(&mut self.pending);
    }

    /// Says whether the body that follows is chunked.
    pub const fn begin_body(&mut self, chunked: bool) {
        self.chunked = chunked;
    }

    /// Takes data of the body; how much, at least one byte. What is gathered is not yet written.
    pub fn poll_data<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let waiting = self.pending.len() - self.written;
        let gathers = self.chunked || data.len() < DIRECT;
        if gathers && self.open_chunk == 0 && waiting + data.len() <= GATHER {
            if self.chunked {
                encode::chunk_head(&mut self.pending, data.len());
            }
            self.pending.extend_from_slice(data);
            if self.chunked {
                self.pending.extend_from_slice(b"\r\n");
            }
            return Poll::Ready(Ok(data.len()));
        }
        if self.chunked && self.open_chunk == 0 {
            encode::chunk_head(&mut self.pending, data.len());
            self.open_chunk = data.len();
        }
        let data = if self.chunked {
            &data[..data.len().min(self.open_chunk)]
        } else {
            data
        };
        loop {
            let waiting = &self.pending[self.written..];
            let count = if waiting.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, data))?
            } else {
                let slices = [IoSlice::new(waiting), IoSlice::new(data)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            let of_data = count.saturating_sub(waiting.len());
            self.wrote(count - of_data);
            if of_data > 0 {
                if self.chunked {
                    self.open_chunk -= of_data;
                    if self.open_chunk == 0 {
                        self.pending.extend_from_slice(b"\r\n");
                    }
                }
                return Poll::Ready(Ok(of_data));
            }
        }
    }

    /// Gathers the end of the body.
    pub fn finish(&mut self, trailers: Option<&Fields>) {
        if self.chunked {
            encode::last_chunk(&mut self.pending, trailers);
            self.chunked = false;
        }
    }

    /// Whether something is gathered that was not written.
    pub const fn has_pending(&self) -> bool {
        self.written < self.pending.len()
    }

    /// Writes what is gathered, and has the stream pass it on.
    pub fn poll_flush<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<()>> {
        while self.has_pending() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, &self.pending[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.wrote(count);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Gives the memory back; for a connection that idles.
    pub fn release(&mut self) {
        debug_assert!(!self.has_pending());
        self.written = 0;
        let mut memory = std::mem::take(&mut self.pending);
        if (ROOM..=STOCKED).contains(&memory.capacity()) {
            memory.clear();
            MEMORY.with_borrow_mut(|stock| {
                if stock.len() < STOCK {
                    stock.push(memory);
                }
            });
        }
    }

    /// Takes memory from the stock where there is none.
    fn make_room(&mut self) {
        if self.pending.capacity() == 0 {
            let stocked = MEMORY.with_borrow_mut(Vec::pop);
            self.pending = stocked.unwrap_or_else(|| Vec::with_capacity(ROOM));
        }
    }

    fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written == self.pending.len() {
            self.pending.clear();
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::http::Framing;
    use crate::wire::reader::{Body, Message, Reader};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_one_end_writes_the_other_reads(
            sizes in proptest::collection::vec(1usize..60_000, 1..5),
            pipe in 1usize..9_000,
            chunked in any::<bool>(),
        ) {
            let body: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|n| (n % 251) as u8).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let got = runtime.block_on(async {
                let (mut near, mut far) = tokio::io::duplex(pipe);
                let write = async {
                    let mut writer = Writer::default();
                    writer.head(|out| out.extend_from_slice(b"head\r\n\r\n"));
                    writer.begin_body(chunked);
                    let mut at = 0;
                    for size in &sizes {
                        let end = at + size;
                        while at < end {
                            at += poll_fn(|cx| writer.poll_data(cx, &mut near, &body[at..end])).await.unwrap();
                        }
                    }
                    writer.finish(None);
                    poll_fn(|cx| writer.poll_flush(cx, &mut near)).await.unwrap();
                    drop(near);
                };
                let read = async {
                    let mut reader = Reader::default();
                    let head = poll_fn(|cx| reader.poll_head(cx, &mut far, 100, Message::Request, |head| Ok(head.get(..8).map(|head| (head.to_vec(), 8))))).await;
                    assert_eq!(head.unwrap(), b"head\r\n\r\n");
                    reader.begin_body(if chunked { Framing::Chunked } else { Framing::UntilClose });
                    let mut got = Vec::new();
                    while poll_fn(|cx| reader.poll_body(cx, &mut far)).await.unwrap() == Body::Data {
                        got.extend_from_slice(reader.data());
                        reader.consume(reader.data().len());
                    }
                    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
                    got
                };
                tokio::join!(write, read).1
            });
            prop_assert_eq!(got, body);
        }
    }
}
