//! One connection: PROXY header, handshake, HTTP/1.1 or HTTP/2, timeouts, limits.
