//! The best certificate for a handshake.
