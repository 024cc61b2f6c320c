//! A receive buffer that holds memory only while it holds bytes.
//!
//! Most connections idle most of the time, and their buffers are what idling costs. An empty
//! [`Buffer`] therefore borrows memory from a small stock of the thread's for the length of one
//! read, and gives it back when nothing came or when all was consumed.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

/// Memory before the first byte that is read. Data is copied from here into TLS records, each of
/// which begins a few bytes after the beginning of a block of memory. Where the target lies just
/// that far behind the source, page aside, copying is fifteen times slower on Zen 3 to 5 (`rep
/// movsb`, glibc bug 30994): with blocks that begin with a page, always. So data begins elsewhere.
const SHIFT: usize = 512;
/// What a read asks for at first: enough for any usual head and for small bodies.
const SMALL: usize = SHIFT + (16 << 10);
/// What it asks for once the peer has shown that it fills the small one: a body is on its way.
/// Four full TLS records.
const LARGE: usize = SHIFT + (64 << 10);
/// Pieces of memory that a thread keeps in stock, of each size.
const STOCK: usize = 64;

/// The largest memory of a [`Store`] that is kept.
const STORED: usize = 128 << 10;

thread_local! {
    static STORES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SMALL_STOCK: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    static LARGE_STOCK: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take(size: usize) -> Box<[u8]> {
    let stocked = match size {
        SMALL => SMALL_STOCK.with_borrow_mut(Vec::pop),
        LARGE => LARGE_STOCK.with_borrow_mut(Vec::pop),
        _ => None,
    };
    stocked.unwrap_or_else(|| vec![0; size].into())
}

fn give_back(memory: Box<[u8]>) {
    let stock = match memory.len() {
        SMALL => &SMALL_STOCK,
        LARGE => &LARGE_STOCK,
        _ => return,
    };
    stock.with_borrow_mut(|stock| {
        if stock.len() < STOCK {
            stock.push(memory);
        }
    });
}

/// A copy to be sent in TLS records.
pub fn copy(data: &[u8]) -> Bytes {
    if data.len() < SHIFT {
        return Bytes::copy_from_slice(data);
    }
    let mut memory = Vec::with_capacity(SHIFT + data.len());
    memory.resize(SHIFT, 0);
    memory.extend_from_slice(data);
    let mut copy = Bytes::from(memory);
    copy.advance(SHIFT);
    copy
}

/// Bytes that are gathered, and taken from the front.
#[derive(Debug, Default)]
pub struct Store {
    memory: Vec<u8>,
    start: usize,
}

impl Store {
    /// What is there.
    pub fn data(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.start == self.memory.len()
    }

    /// How much there is, in bytes.
    pub const fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    /// The memory, to append to.
    pub fn end(&mut self) -> &mut Vec<u8> {
        if self.memory.is_empty() {
            if self.memory.capacity() == 0 {
                self.memory = STORES.with_borrow_mut(Vec::pop).unwrap_or_default();
            }
            self.memory.resize(SHIFT, 0);
            self.start = SHIFT;
        } else if self.start - SHIFT > self.len().max(STORED / 2) {
            // One that is never empty must not grow with all that ever went through it.
            self.memory.drain(SHIFT..self.start);
            self.start = SHIFT;
        }
        &mut self.memory
    }

    /// The byte so far behind the first.
    pub fn get_mut(&mut self, at: usize) -> Option<&mut u8> {
        self.memory.get_mut(self.start + at)
    }

    /// Drops bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.memory.len());
        if self.is_empty() {
            self.memory.clear();
            self.start = 0;
        }
    }

    /// Gives the memory back where there is nothing in it.
    pub fn release(&mut self) {
        let capacity = self.memory.capacity();
        if !self.is_empty() || capacity == 0 {
            return;
        }
        let memory = std::mem::take(&mut self.memory);
        if capacity <= STORED {
            STORES.with_borrow_mut(|stock| {
                if stock.len() < STOCK {
                    stock.push(memory);
                }
            });
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let left = self.len();
        self.consume(left);
        self.release();
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read filled the memory to its end.
    hungry: bool,
}

impl Buffer {
    /// The bytes that were read and not yet consumed.
    pub fn data(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops bytes from the front; gives the memory back with the last of them.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        self.start = 0;
        self.end = 0;
        give_back(std::mem::take(&mut self.memory));
    }

    /// Reads once, behind what is there. 0 is the end of the stream. The caller sees to it that
    /// the data does not grow beyond `limit`; the memory is never larger than that or 64 KiB,
    /// whichever is more, and a little.
    pub fn poll_read<I: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(limit);
        let mut space = ReadBuf::new(&mut self.memory[self.end..]);
        let result = Pin::new(io).poll_read(cx, &mut space);
        let (count, left) = (space.filled().len(), space.remaining());
        if self.is_empty() && count == 0 {
            self.let_go();
        }
        ready!(result)?;
        self.end += count;
        self.hungry = left == 0;
        Poll::Ready(Ok(count))
    }

    fn make_room(&mut self, limit: usize) {
        if self.memory.is_empty() {
            self.memory = take(if self.hungry { LARGE } else { SMALL });
            self.start = SHIFT;
            self.end = SHIFT;
        } else if self.end == self.memory.len() {
            let held = self.end - self.start;
            if self.start >= self.memory.len() / 2 {
                self.memory.copy_within(self.start..self.end, 0);
            } else {
                let wanted = (self.memory.len() * 2).min(limit.max(LARGE)).max(held + 1);
                let mut memory = take(wanted);
                memory[..held].copy_from_slice(self.data());
                give_back(std::mem::replace(&mut self.memory, memory));
            }
            self.start = 0;
            self.end = held;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            give_back(std::mem::take(&mut self.memory));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn read(buffer: &mut Buffer, mut from: &[u8]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        match buffer.poll_read(&mut cx, &mut from, 1 << 20) {
            Poll::Ready(Ok(count)) => count,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn memory_is_held_only_with_data() {
        let mut buffer = Buffer::default();
        assert_eq!(read(&mut buffer, b""), 0);
        assert!(buffer.memory.is_empty());
        assert_eq!(read(&mut buffer, b"hello"), 5);
        buffer.consume(2);
        assert_eq!(buffer.data(), b"llo");
        buffer.consume(3);
        assert!(buffer.memory.is_empty());
    }

    #[test]
    fn a_store_that_is_never_empty_does_not_grow() {
        let mut store = Store::default();
        store.end().extend_from_slice(b"0");
        for n in 0..20_000_u32 {
            store.end().extend_from_slice(&n.to_le_bytes().repeat(25));
            store.consume(100);
            assert_eq!(store.len(), 1);
        }
        assert!(store.end().capacity() <= 2 * STORED);
        assert_eq!(store.data(), &19_999_u32.to_le_bytes()[3..]);
    }

    #[test]
    fn it_grows_and_keeps_what_it_holds() {
        let mut buffer = Buffer::default();
        let input: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut at = 0;
        while at < input.len() {
            at += read(&mut buffer, &input[at..]);
        }
        assert_eq!(buffer.data(), input);
        buffer.consume(150_000);
        let more = read(&mut buffer, b"xyz");
        assert_eq!(buffer.data().len(), 50_000 + more);
        assert_eq!(&buffer.data()[..50_000], &input[150_000..]);
    }
}
