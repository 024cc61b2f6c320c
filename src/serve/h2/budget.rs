//! What a client may do on an HTTP/2 connection besides asking.
//!
//! Pings and settings are answered, windows noticed, streams that are reset forgotten. A client that
//! does nothing else costs more than it pays. Each frame that carries nothing takes a token: PING,
//! SETTINGS, PRIORITY, RST_STREAM, WINDOW_UPDATE, CONTINUATION, empty DATA, and what is not known.
//! Tokens come back with time, with data that is really transferred and with pieces and responses
//! that are delivered; so an honest client never runs out of them (RFC 9113, section 10.5;
//! CVE-2019-9511 to -9518, CVE-2023-44487, CVE-2024-27316).

use tokio::time::Instant;

/// Tokens of a connection that has just begun, and the most it can have.
const TOKENS: u32 = 2000;
/// Tokens that come back each second.
const PER_SECOND: u32 = 100;
/// Bytes whose transfer brings a token back. Windows are opened at least every few KiB.
const BYTES: usize = 256;
/// Tokens that a stream brings back when its response was delivered.
const PER_RESPONSE: u32 = 4;
/// Tokens that a piece of a response brings back: a simple client opens its two windows for each,
/// however small it is.
const PER_PIECE: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    /// When tokens last came back with time.
    since: Instant,
    /// Bytes transferred that have not brought a token back yet.
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    /// Of a connection that begins now.
    pub fn new() -> Self {
        Self {
            left: TOKENS,
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Takes tokens for what costs us something. `false`: the client has overdone it.
    #[must_use]
    pub fn take(&mut self, count: u32) -> bool {
        let seconds = self.since.elapsed().as_secs();
        if seconds > 0 {
            self.since = Instant::now();
            let back = u32::try_from(seconds).unwrap_or(u32::MAX);
            self.give(back.saturating_mul(PER_SECOND));
        }
        self.left = self.left.saturating_sub(count);
        self.left > 0
    }

    /// A response was delivered.
    pub fn responded(&mut self) {
        self.give(PER_RESPONSE);
    }

    /// A piece of a response was delivered.
    pub fn carried(&mut self) {
        self.give(PER_PIECE);
    }

    /// Bytes went one way or the other.
    pub fn transferred(&mut self, bytes: usize) {
        self.bytes += bytes;
        let tokens = u32::try_from(self.bytes / BYTES).unwrap_or(u32::MAX);
        self.bytes %= BYTES;
        self.give(tokens);
    }

    fn give(&mut self, count: u32) {
        self.left = self.left.saturating_add(count).min(TOKENS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_spent_and_come_back_with_what_is_transferred() {
        let mut budget = Budget::new();
        for _ in 0..TOKENS - 1 {
            assert!(budget.take(1));
        }
        budget.transferred(255);
        budget.transferred(1);
        assert!(budget.take(1));
        assert!(!budget.take(1));
        budget.responded();
        budget.carried();
        assert!(budget.take(5));
        assert!(!budget.take(1));
    }
}
