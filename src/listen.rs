//! Sockets: bind, adopt, keep, close; the accept loop.
