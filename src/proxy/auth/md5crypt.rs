//! MD5-crypt, as FreeBSD began it (`$1$`) and as Apache has it (`$apr1$`): weak by today's measure,
//! and what most htpasswd files hold.

use md5::{Digest as _, Md5};

/// The longest salt, and the length of the hash as it is written.
pub(super) const SALT: usize = 8;
pub(super) const HASH: usize = 22;

/// Rounds, which nobody can choose.
const ROUNDS: usize = 1000;

/// The letters of crypt(3).
const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The hash as it is written.
pub(super) fn hash(magic: &[u8], salt: &[u8], password: &[u8]) -> [u8; HASH] {
    let mut inner = Md5::new();
    for part in [password, salt, password] {
        inner.update(part);
    }
    let inner = inner.finalize();
    let mut outer = Md5::new();
    for part in [password, magic, salt] {
        outer.update(part);
    }
    for at in (0..password.len()).step_by(16) {
        outer.update(&inner[..(password.len() - at).min(16)]);
    }
    // A mistake of the first program, which all others have to make too.
    let mut left = password.len();
    while left > 0 {
        match (left & 1, password.first()) {
            (0, Some(first)) => outer.update([*first]),
            _ => outer.update([0]),
        }
        left >>= 1;
    }
    let mut digest = outer.finalize();
    for round in 0..ROUNDS {
        let mut next = Md5::new();
        match round % 2 {
            0 => next.update(digest),
            _ => next.update(password),
        }
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        match round % 2 {
            0 => next.update(password),
            _ => next.update(digest),
        }
        digest = next.finalize();
    }
    let mut written = [b'.'; HASH];
    let order = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    for (out, [high, middle, low]) in written.chunks_mut(4).zip(order) {
        let bits = u32::from(digest[high]) << 16 | u32::from(digest[middle]) << 8;
        write(out, bits | u32::from(digest[low]));
    }
    write(&mut written[20..], u32::from(digest[11]));
    written
}

/// The lowest bits first.
fn write(out: &mut [u8], mut bits: u32) {
    for letter in out {
        *letter = LETTERS[(bits & 63) as usize];
        bits >>= 6;
    }
}
