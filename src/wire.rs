//! HTTP/1.1 over a byte stream: reading and writing with buffers that are given back, and
//! deadlines that cost next to nothing until they fire.
//!
//! Both sides of the proxy use the same [`Reader`] and [`Writer`], towards clients and towards
//! upstream servers. Everything is polled by the one task that owns the connection, so that a body
//! can go both ways at once without locks, channels or further tasks.

pub mod buffer;
pub mod cork;
pub mod deadline;
pub mod reader;
pub mod rest;
pub mod socket;
pub mod writer;

pub use buffer::Buffer;
pub use cork::Cork;
pub use deadline::Deadline;
pub use reader::{Body, Message, ReadError, Reader};
pub use rest::{Rest, rest};
pub use socket::Socket;
pub use writer::Writer;
