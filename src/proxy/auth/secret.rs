//! What an htpasswd file holds in place of a password, and whether a password is the one.

use std::hint::black_box;

use aws_lc_rs::constant_time::verify_slices_are_equal as same;
use base64::Engine as _;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha_crypt::{PasswordHashRef, PasswordVerifier as _, ShaCrypt};

use super::md5crypt;

/// The longest password that is hashed: what crypt(3) takes. Some of these functions cost more the
/// longer it is.
const LONGEST: usize = 512;

/// What bcrypt looks at, the zero byte behind the password among it.
const BCRYPT_BYTES: usize = 72;

/// The dearest bcrypt and sha-crypt that are taken: some seconds of a processor for each try.
const BCRYPT_COST: u32 = 16;
const SHA_ROUNDS: u32 = 5_000_000;

/// bcrypt has its own letters, and some programs leave bits behind the last one.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// A hash of a password. It is never shown.
pub(super) enum Secret {
    /// `$2y$`, `$2b$`, `$2a$`. Of the hash, 23 of 24 bytes are kept.
    Bcrypt {
        cost: u32,
        salt: [u8; 16],
        hash: [u8; 23],
    },
    /// `$apr1$`, `$1$`: with the whole as it is written.
    Md5 {
        magic: &'static str,
        salt: Box<str>,
        hash: Box<str>,
    },
    /// `$5$`, `$6$`: the whole as it is written.
    Sha(Box<str>),
}

/// Why something is no hash that passwords are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// `{SHA}`
    #[error("{{SHA}} has no salt and costs nothing to guess; make it anew with `htpasswd -B`")]
    Sha1,
    /// Another scheme that is known.
    #[error("its scheme is not supported; make it anew with `htpasswd -B`")]
    Scheme,
    /// Plain text, or the old DES.
    #[error(
        "it is plain text, or the crypt() of old that looks at eight letters; make it anew with \
         `htpasswd -B`"
    )]
    Plain,
    /// It is cut, or was changed.
    #[error("the hash is malformed; make it anew with `htpasswd -B`")]
    Malformed,
    /// Each try would take many seconds.
    #[error("each try would take a processor many seconds; make it anew with `htpasswd -B -C 12`")]
    Dear,
}

impl Secret {
    /// Reads what stands behind the name.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        if let Some(magic) = ["$apr1$", "$1$"].into_iter().find(|m| text.starts_with(m)) {
            return md5(magic, &text[magic.len()..]).ok_or(Unusable::Malformed);
        }
        if ["$2y$", "$2b$", "$2a$"].iter().any(|m| text.starts_with(m)) {
            return bcrypt(&text[4..]);
        }
        if text.starts_with("$5$") || text.starts_with("$6$") {
            return sha(text);
        }
        Err(match text {
            _ if text.starts_with("{SHA}") || text.starts_with("{SSHA}") => Unusable::Sha1,
            _ if text.starts_with('$') || text.starts_with('{') => Unusable::Scheme,
            _ => Unusable::Plain,
        })
    }

    /// Whether this is the password. Takes as long for one that is as for one that is not.
    pub fn is(&self, password: &[u8]) -> bool {
        if password.len() > LONGEST {
            return false;
        }
        match self {
            Self::Bcrypt { cost, salt, hash } => {
                let mut key = [0; BCRYPT_BYTES];
                let end = password.len().min(BCRYPT_BYTES);
                key[..end].copy_from_slice(&password[..end]);
                let end = (end + 1).min(BCRYPT_BYTES);
                let found = bcrypt::bcrypt(*cost, *salt, &key[..end]);
                same(&found[..23], hash).is_ok()
            }
            Self::Md5 { magic, salt, hash } => {
                let found = md5crypt::hash(magic.as_bytes(), salt.as_bytes(), password);
                same(&found, hash.as_bytes()).is_ok()
            }
            Self::Sha(hash) => {
                let found = ShaCrypt::SHA512.verify_password(password, &**hash);
                black_box(found).is_ok()
            }
        }
    }
}

/// Without a word on what it is.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

fn md5(magic: &'static str, rest: &str) -> Option<Secret> {
    let (salt, hash) = rest.split_once('$')?;
    let fits = salt.len() <= md5crypt::SALT
        && hash.len() == md5crypt::HASH
        && hash
            .bytes()
            .all(|byte| byte == b'.' || byte == b'/' || byte.is_ascii_alphanumeric());
    fits.then(|| Secret::Md5 {
        magic,
        salt: salt.into(),
        hash: hash.into(),
    })
}

/// What follows `$2y$`: the cost, then salt and hash in one.
fn bcrypt(rest: &str) -> Result<Secret, Unusable> {
    let (cost, rest) = rest.split_once('$').ok_or(Unusable::Malformed)?;
    let (2, Ok(cost @ 4..=31)) = (cost.len(), cost.parse::<u32>()) else {
        return Err(Unusable::Malformed);
    };
    let decode = |text: &str| BCRYPT_BASE64.decode(text).ok();
    let (salt, hash) = rest.split_at_checked(22).ok_or(Unusable::Malformed)?;
    let salt = decode(salt).and_then(|salt| salt.try_into().ok());
    let hash = decode(hash).and_then(|hash| hash.try_into().ok());
    match (salt, hash) {
        (Some(_), Some(_)) if cost > BCRYPT_COST => Err(Unusable::Dear),
        (Some(salt), Some(hash)) => Ok(Secret::Bcrypt { cost, salt, hash }),
        _ => Err(Unusable::Malformed),
    }
}

fn sha(text: &str) -> Result<Secret, Unusable> {
    let hash = PasswordHashRef::new(text).map_err(|_| Unusable::Malformed)?;
    let mut fields: Vec<_> = hash.fields().map(|field| field.as_str()).collect();
    if let Some(rounds) = fields
        .first()
        .and_then(|first| first.strip_prefix("rounds="))
    {
        match rounds.parse::<u32>() {
            Ok(1000..=SHA_ROUNDS) => {}
            Ok(0..1000) | Err(_) => return Err(Unusable::Malformed),
            Ok(_) => return Err(Unusable::Dear),
        }
        fields.remove(0);
    }
    let length = if text.starts_with("$5$") { 43 } else { 86 };
    match &fields[..] {
        [_, hash] if hash.len() == length => Ok(Secret::Sha(text.into())),
        _ => Err(Unusable::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A password with more bytes than one block of any of these.
    const LONG: &str =
        "a long one, longer than sixty-four bytes, so that more than one block is hashed";

    #[test]
    fn what_others_have_hashed_is_known_again() {
        for (hash, password) in [
            // htpasswd -nbB, -nbm, -nb -5, -nb -2
            (
                "$2y$05$XZqD00MxJE3Ln4e9O.dlBen5ChQ5yPAXk8dXP9d/XQgq1RYZxhDPy",
                "secret",
            ),
            ("$apr1$o43IcYAW$8aSAZyq.1GQC0ScMIJ4Bz0", "secret"),
            (
                "$6$sMY.QIDTO/wl3Pnc$5SKRhkA14hoxpjJ0BqSsU1NS6uD0EI0WEJfD42gccUo7a1h9Bdp.cBwdrix\
                 BkpssOAW9Uyf3afdSliIvF5RHh.",
                "secret",
            ),
            (
                "$5$EfavsF9vb9FIZBy/$mnR8LVB7FrQ9TPxDF7EmuParkED3nwj.eN5Sb4jXl/D",
                "secret",
            ),
            // openssl passwd -1, -5, -6, -apr1
            ("$1$abcd$Oy8OD9LGKv7H9yIMreLNV1", "secret"),
            (
                "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.",
                "secret",
            ),
            (
                "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip\
                 /cZ/1GM/O6IND4WQhG.",
                "secret",
            ),
            ("$apr1$12345678$sHuPAw7VA9xjRbJz7zKV7/", ""),
            ("$1$ab$xYxcg6Ku8Fq4wHdUunBv1.", &"x".repeat(70)),
            // crypt(3)
            (
                "$6$rounds=1000$saltstringsaltst$CAQNWAF1PcltKLhRAkYWaZqdIFjIDsYJvWv4QTevvEtn7.3r\
                 Y5iLBOJMF3x8uuTdcia6zvUXW6H7c26XZuk3c0",
                "secret",
            ),
            (
                "$5$rounds=77777$s$L6yfZWxTiOLp3FPk2Kq4fWmRPEg7iggvQpBEXJs3etA",
                "secret",
            ),
            (
                "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
                "secret",
            ),
            (
                "$2b$04$abcdefghijklmnopqrstuuKiIlCeXB6chNXkLyAo8C7XcLPzh6zUe",
                &"é".repeat(50),
            ),
            (
                "$6$abc$R7t6p8SshW1gD7VKD5GHmK5g2B3JoMnPhr5XxrsoSeppOS1yfteIYLCpUM3wp5wXhzNemQvUC\
                 Ac9yZtQ0fy.S.",
                LONG,
            ),
            ("$1$abc$2z0/2vsagtm6xluZM/gx21", LONG),
        ] {
            let secret = Secret::parse(hash).unwrap();
            assert!(secret.is(password.as_bytes()), "{hash}");
            for wrong in ["Secret", "secret ", "secre", "x"] {
                assert!(!secret.is(wrong.as_bytes()), "{hash} {wrong}");
            }
            assert!(!secret.is(&[b'a'; LONGEST + 1]), "{hash}");
        }
    }

    #[test]
    fn what_is_no_hash_is_told_from_what_is_none_that_holds() {
        for (text, why) in [
            ("{SHA}6dcfXufJLW3J6S/9rRe4vUlBj5g=", Unusable::Sha1),
            ("{SSHA}6dcfXufJLW3J6S/9rRe4vUlBj5g=", Unusable::Sha1),
            ("secret", Unusable::Plain),
            ("", Unusable::Plain),
            ("rqXexS6ZhobKA", Unusable::Plain),
            (
                "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o",
                Unusable::Scheme,
            ),
            (
                "$2x$05$XZqD00MxJE3Ln4e9O.dlBen5ChQ5yPAXk8dXP9d/XQgq1RYZxhDPy",
                Unusable::Scheme,
            ),
            (
                "$2y$05$XZqD00MxJE3Ln4e9O.dlBen5ChQ5yPAXk8dXP9d/XQgq1RYZxhDP",
                Unusable::Malformed,
            ),
            (
                "$2y$5$XZqD00MxJE3Ln4e9O.dlBen5ChQ5yPAXk8dXP9d/XQgq1RYZxhDPy",
                Unusable::Malformed,
            ),
            (
                "$2y$17$XZqD00MxJE3Ln4e9O.dlBen5ChQ5yPAXk8dXP9d/XQgq1RYZxhDPy",
                Unusable::Dear,
            ),
            ("$2y$05$é", Unusable::Malformed),
            ("$apr1$o43IcYAW$8aSAZyq.1GQC0ScMIJ4Bz", Unusable::Malformed),
            (
                "$apr1$o43IcYAWX$8aSAZyq.1GQC0ScMIJ4Bz0",
                Unusable::Malformed,
            ),
            ("$1$", Unusable::Malformed),
            ("$5$", Unusable::Malformed),
            ("$6$abc$short", Unusable::Malformed),
            (
                "$5$rounds=999999999$s$L6yfZWxTiOLp3FPk2Kq4fWmRPEg7iggvQpBEXJs3etA",
                Unusable::Dear,
            ),
        ] {
            assert_eq!(Secret::parse(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn a_hash_is_never_shown() {
        let secret = Secret::parse("$1$abcd$Oy8OD9LGKv7H9yIMreLNV1").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
