//! HTTP messages and HTTP/1.1 framing, without I/O.
