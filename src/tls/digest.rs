//! SHA-256 over parts, each with its length before it, so that no two lists of parts are alike.

use aws_lc_rs::digest::{Context, SHA256};

/// Digests one part after the other.
pub(super) struct Digest(Context);

impl Digest {
    /// Of nothing yet. `purpose` keeps digests for one thing apart from those for another.
    pub(super) fn new(purpose: &str) -> Self {
        let digest = Self(Context::new(&SHA256));
        digest.with(purpose.as_bytes())
    }

    /// And of this.
    pub(super) fn with(mut self, part: &[u8]) -> Self {
        self.0.update(&(part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    /// The digest.
    pub(super) fn finish(self) -> [u8; 32] {
        plain(self.0.finish().as_ref())
    }
}

/// SHA-256 of these bytes as they are.
pub(super) fn sha256(data: &[u8]) -> [u8; 32] {
    plain(aws_lc_rs::digest::digest(&SHA256, data).as_ref())
}

fn plain(digest: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let of = |parts: &[&[u8]]| {
            let digest = parts.iter().fold(Digest::new("test"), |d, p| d.with(p));
            digest.finish()
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"abc"]), of(&[b"abc", b""]));
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
    }
}
