//! Session tickets (RFC 8446, section 4.6.1; RFC 5077): what encrypts them.
//!
//! A [`Ring`] holds secrets: the first encrypts, all of them decrypt. They are made here and rotate
//! by themselves, or come from files that a fleet shares. A [`Ticketer`] is what one kind of client
//! authentication sees of the ring: the keys that it uses are derived from the secrets *and* from
//! its scope (HKDF, RFC 5869), so that a ticket opens only where it was made, whoever holds the
//! secrets.
//!
//! Each ticket has a key of its own, derived from a random salt that it carries, so that however
//! many tickets one secret encrypts, no two share key and nonce (AES-256-GCM, whose nonces would
//! begin to repeat after some four thousand million).
//!
//! ```text
//! ticket = name of the key (16) ‖ salt (16) ‖ ciphertext ‖ tag (16)
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Prk, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use super::digest::sha256;
use super::file::Fault;

/// How long a ticket is said to be good for, in seconds. RFC 8446 allows a week; half a day is a
/// day's visitor coming back, and little to lose with a key.
pub const LIFETIME: u32 = 12 * 3600;

/// How often a ring of its own gets a new secret, in seconds.
pub const ROTATE: i64 = 6 * 3600;

/// Secrets that such a ring holds: the one that encrypts, and as many as have encrypted within
/// [`LIFETIME`].
const HELD: usize = 1 + (LIFETIME as i64 / ROTATE) as usize;

/// Keys taken from files, at most: each costs a look at every ticket of another.
const MOST: usize = 64;

const NAME: usize = 16;
const SALT: usize = 16;
const TAG: usize = 16;

/// The largest session that is put into a ticket: a client's chain is part of it, and a ticket has
/// at most 65,535 bytes.
const LARGEST: usize = 48 * 1024;

/// Something that keys are derived from.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart, and of no use to anybody else.
        let digest = sha256(&self.0);
        write!(f, "Secret(#{:02x}{:02x})", digest[0], digest[1])
    }
}

impl Secret {
    /// A new one, or `None` without randomness.
    fn random() -> Option<Self> {
        let mut bytes = vec![0; 64];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// Secrets of a ring of its own, as a successor is told them: never written anywhere.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Legacy {
    /// Base64, the one that encrypts first.
    secrets: Vec<Sensitive>,
    rotated: i64,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
struct Sensitive(String);

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sensitive")
    }
}

/// Where secrets come from and who uses them. Changed by the control plane only.
#[derive(Debug)]
pub struct Ring(Mutex<State>);

#[derive(Debug)]
struct State {
    secrets: Vec<Secret>,
    /// They come from files, and do not rotate by themselves.
    shared: bool,
    rotated: i64,
    users: Vec<Weak<Ticketer>>,
}

impl Ring {
    /// A ring of its own, at this second.
    pub fn new(now: i64) -> Self {
        Self(Mutex::new(State {
            secrets: Secret::random().into_iter().collect(),
            shared: false,
            rotated: now,
            users: Vec::new(),
        }))
    }

    /// What tickets of this scope are made and opened with.
    pub fn ticketer(&self, scope: [u8; 32]) -> Arc<Ticketer> {
        let mut state = self.state();
        let ticketer = Arc::new(Ticketer {
            keys: ArcSwap::from_pointee(derive(&state.secrets, &scope)),
            scope,
        });
        state.users.push(Arc::downgrade(&ticketer));
        ticketer
    }

    /// Goes by these secrets from now on, the one that encrypts first. Whether that is a change.
    pub fn share(&self, secrets: Vec<Secret>) -> bool {
        let mut state = self.state();
        let changed = !state.shared || state.secrets != secrets;
        if changed {
            state.shared = true;
            state.replace(secrets);
        }
        changed
    }

    /// Goes by secrets of its own from now on, if it did not.
    pub fn own(&self, now: i64) {
        let mut state = self.state();
        if state.shared {
            state.shared = false;
            state.rotated = now;
            state.replace(Secret::random().into_iter().collect());
        }
    }

    /// What a successor goes on with; nothing where they come from files, which it reads itself.
    pub fn bequeath(&self) -> Legacy {
        let state = self.state();
        if state.shared {
            return Legacy::default();
        }
        let encode = |secret: &Secret| Sensitive(BASE64.encode(&secret.0));
        Legacy {
            secrets: state.secrets.iter().map(encode).collect(),
            rotated: state.rotated,
        }
    }

    /// Goes on with what a predecessor left, unless secrets come from files.
    pub fn inherit(&self, legacy: &Legacy) {
        let decode = |secret: &Sensitive| Some(Secret(BASE64.decode(&secret.0).ok()?));
        let secrets: Vec<_> = legacy.secrets.iter().filter_map(decode).collect();
        let mut state = self.state();
        if !state.shared && !secrets.is_empty() {
            state.rotated = legacy.rotated;
            state.replace(secrets);
        }
    }

    /// Gives a ring of its own a new secret where the last is old. The clock may have been set
    /// back: that is no reason to keep one for ever.
    pub fn rotate(&self, now: i64) {
        let mut state = self.state();
        if state.shared || (0..ROTATE).contains(&now.saturating_sub(state.rotated)) {
            return;
        }
        if let Some(fresh) = Secret::random() {
            let mut secrets = vec![fresh];
            secrets.append(&mut state.secrets);
            secrets.truncate(HELD);
            state.rotated = now;
            state.replace(secrets);
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn replace(&mut self, secrets: Vec<Secret>) {
        self.secrets = secrets;
        let secrets = &self.secrets;
        self.users.retain(|user| match user.upgrade() {
            Some(user) => {
                user.keys.store(Arc::new(derive(secrets, &user.scope)));
                true
            }
            None => false,
        });
    }
}

/// Makes and opens the tickets of one scope.
pub struct Ticketer {
    scope: [u8; 32],
    keys: ArcSwap<Vec<Key>>,
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticketer")
            .field("keys", &self.keys.load().len())
            .finish_non_exhaustive()
    }
}

/// What a secret comes to in one scope.
struct Key {
    name: [u8; NAME],
    prk: Prk,
}

fn derive(secrets: &[Secret], scope: &[u8; 32]) -> Vec<Key> {
    let salt = Salt::new(HKDF_SHA256, scope);
    secrets
        .iter()
        .filter_map(|secret| {
            let prk = salt.extract(&secret.0);
            let mut name = [0; NAME];
            expand(&prk, &[b"staunch ticket name"], &mut name)?;
            Some(Key { name, prk })
        })
        .collect()
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        if plain.len() > LARGEST {
            return None;
        }
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut salt = [0; SALT];
        aws_lc_rs::rand::fill(&mut salt).ok()?;
        let (cipher, nonce) = key.cipher(&salt)?;
        let mut ticket = Vec::with_capacity(NAME + SALT + plain.len() + TAG);
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(plain);
        let (head, body) = ticket.split_at_mut(NAME + SALT);
        let tag = cipher
            .seal_in_place_separate_tag(nonce, Aad::from(&*head), body)
            .ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (head, body) = ticket.split_at_checked(NAME + SALT)?;
        let (name, salt) = head.split_at(NAME);
        let keys = self.keys.load();
        // The name is no secret: it stands in every ticket.
        let key = keys.iter().find(|key| key.name == name)?;
        let (cipher, nonce) = key.cipher(salt)?;
        let mut plain = body.to_vec();
        let length = cipher
            .open_in_place(nonce, Aad::from(head), &mut plain)
            .ok()?
            .len();
        plain.truncate(length);
        Some(plain)
    }
}

impl Key {
    /// The key and nonce of the one ticket that has this salt.
    fn cipher(&self, salt: &[u8]) -> Option<(LessSafeKey, Nonce)> {
        let mut material = [0; 32 + NONCE_LEN];
        expand(&self.prk, &[b"staunch ticket", salt], &mut material)?;
        let (key, nonce) = material.split_at(32);
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        Some((LessSafeKey::new(key), nonce))
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]], out: &mut [u8; N]) -> Option<()> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    prk.expand(info, Length(N)).ok()?.fill(out).ok()
}

/// Reads the secrets of key files, the one that encrypts first.
///
/// A file of 48 or 80 bytes is one key, as nginx's `ssl_session_ticket_key` has it; of several, the
/// first file's encrypts. A file of lines of base64, 48 or 80 bytes each, is HAProxy's
/// `tls-ticket-keys`: the last but one encrypts, so that one that is appended is known to every
/// server before any uses it.
///
/// # Errors
/// With what is wrong with the first file that is neither.
pub fn parse(files: &[(PathBuf, Vec<u8>)]) -> Result<Vec<Secret>, Fault> {
    let mut secrets: Vec<Secret> = Vec::new();
    for (path, content) in files {
        let of_file = match content.len() {
            48 | 80 if !is_text(content) => vec![one(path, content)?],
            _ => lines(path, content)?,
        };
        for secret in of_file {
            if !secrets.contains(&secret) {
                secrets.push(secret);
            }
        }
    }
    if secrets.len() > MOST {
        let path = files.last().map_or_else(|| Path::new(""), |(path, _)| path);
        return Err(Fault::new(
            path,
            format!("{} keys are too many", secrets.len()),
            format!("keep the newest; {MOST} at most are held"),
        ));
    }
    Ok(secrets)
}

const HOW: &str = "make one with: openssl rand 80 > FILE";

fn is_text(content: &[u8]) -> bool {
    content
        .iter()
        .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

fn one(path: &Path, bytes: &[u8]) -> Result<Secret, Fault> {
    if bytes.windows(2).all(|pair| pair[0] == pair[1]) {
        let what = "the key is one byte over and over, which anybody could guess";
        return Err(Fault::new(path, what, HOW));
    }
    Ok(Secret(bytes.to_vec()))
}

fn lines(path: &Path, content: &[u8]) -> Result<Vec<Secret>, Fault> {
    let text = match std::str::from_utf8(content) {
        Ok(text) if is_text(content) => text,
        _ => {
            let what = format!("a key has 48 or 80 bytes, and this file {}", content.len());
            return Err(Fault::new(path, what, HOW));
        }
    };
    let mut secrets = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bytes = BASE64.decode(line).map_err(|_| {
            let what = format!("line {number} is not base64");
            Fault::new(
                path,
                what,
                "make a line with: openssl rand -base64 80 | tr -d '\\n'",
            )
        })?;
        if !matches!(bytes.len(), 48 | 80) {
            let what = format!(
                "a key has 48 or 80 bytes, and the one on line {number} {}",
                bytes.len()
            );
            let help = "make a line with: openssl rand -base64 80 | tr -d '\\n'";
            return Err(Fault::new(path, what, help));
        }
        secrets.push(one(path, &bytes)?);
    }
    if secrets.is_empty() {
        return Err(Fault::new(path, "there is no key in it", HOW));
    }
    // The newest is last there, and the one before it is in use.
    secrets.reverse();
    if secrets.len() > 1 {
        secrets.swap(0, 1);
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(seed: u8, length: usize) -> Vec<u8> {
        (0..length)
            .map(|n| (n as u8).wrapping_mul(7) ^ seed | 0x80)
            .collect()
    }

    fn file(content: Vec<u8>) -> (PathBuf, Vec<u8>) {
        (PathBuf::from("/keys/a"), content)
    }

    fn refused(content: Vec<u8>) -> String {
        parse(&[file(content)]).unwrap_err().to_string()
    }

    #[test]
    fn a_ticket_opens_where_it_was_made_and_nowhere_else() {
        let ring = Ring::new(0);
        let (one, other) = (ring.ticketer([1; 32]), ring.ticketer([2; 32]));
        let ticket = one.encrypt(b"a session").unwrap();
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(
            ring.ticketer([1; 32]).decrypt(&ticket).unwrap(),
            b"a session"
        );
        assert_eq!(other.decrypt(&ticket), None);
        assert_eq!(Ring::new(0).ticketer([1; 32]).decrypt(&ticket), None);
        assert_ne!(one.encrypt(b"a session").unwrap(), ticket);
    }

    #[test]
    fn a_ticket_that_was_touched_or_cut_opens_nowhere() {
        let ticketer = Ring::new(0).ticketer([0; 32]);
        let ticket = ticketer.encrypt(b"a session").unwrap();
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(ticketer.decrypt(&touched), None, "{at}");
            assert_eq!(ticketer.decrypt(&ticket[..at]), None, "{at}");
        }
        assert_eq!(ticketer.decrypt(&[]), None);
        assert_eq!(ticketer.encrypt(&vec![0; LARGEST + 1]), None);
    }

    #[test]
    fn keys_rotate_and_a_ticket_lives_as_long_as_it_is_said_to() {
        let ring = Ring::new(0);
        let ticketer = ring.ticketer([0; 32]);
        let ticket = ticketer.encrypt(b"x").unwrap();
        ring.rotate(ROTATE - 1);
        assert_eq!(ticketer.encrypt(b"x").unwrap()[..NAME], ticket[..NAME]);
        let mut now = 0;
        while now < i64::from(LIFETIME) {
            now += ROTATE;
            ring.rotate(now);
            assert!(ticketer.decrypt(&ticket).is_some(), "after {now} s");
        }
        assert_ne!(ticketer.encrypt(b"x").unwrap()[..NAME], ticket[..NAME]);
        ring.rotate(now + ROTATE);
        assert_eq!(ticketer.decrypt(&ticket), None);
        // Set back by a year, it is time too.
        let ticket = ticketer.encrypt(b"x").unwrap();
        ring.rotate(now - 365 * 24 * 3600);
        assert_ne!(ticketer.encrypt(b"x").unwrap()[..NAME], ticket[..NAME]);
    }

    #[test]
    fn a_fleet_opens_each_others_tickets_whatever_the_order_of_its_keys() {
        let (old, new) = (secret(1, 48), secret(2, 80));
        let before = parse(&[file(old.clone())]).unwrap();
        let after = parse(&[file(new), file(old)]).unwrap();
        let (one, two) = (Ring::new(0), Ring::new(5));
        let (a, b) = (one.ticketer([3; 32]), two.ticketer([3; 32]));
        assert!(one.share(before.clone()) && two.share(after.clone()));
        assert!(!one.share(before));
        let ticket = a.encrypt(b"x").unwrap();
        assert!(b.decrypt(&ticket).is_some());
        let newer = b.encrypt(b"x").unwrap();
        assert!(a.decrypt(&newer).is_none());
        assert!(one.share(after));
        assert!(a.decrypt(&newer).is_some() && a.decrypt(&ticket).is_some());
        // Keys of others do not rotate; going back to its own, it opens none of theirs.
        one.rotate(i64::MAX);
        assert!(a.decrypt(&newer).is_some());
        one.own(0);
        assert!(a.decrypt(&newer).is_none());
    }

    #[test]
    fn haproxys_lines_are_taken_as_haproxy_takes_them() {
        let keys = [secret(1, 48), secret(2, 48), secret(3, 48)];
        let text: String = keys.iter().map(|key| BASE64.encode(key) + "\n").collect();
        let parsed = parse(&[file(text.into_bytes())]).unwrap();
        let expected = [1, 2, 0].map(|at| Secret(keys[at].clone()));
        assert_eq!(
            parsed,
            [
                expected[0].clone(),
                expected[1].clone(),
                expected[2].clone()
            ]
        );
        assert_eq!(parsed[0], Secret(keys[1].clone()));
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        assert!(refused(vec![]).contains("there is no key in it"));
        assert!(refused(secret(1, 47)).contains("48 or 80 bytes, and this file 47"));
        assert!(refused(secret(1, 96)).contains("48 or 80 bytes, and this file 96"));
        assert!(refused(vec![0; 48]).contains("over and over"));
        assert!(refused(b"what is this?\n".to_vec()).contains("line 1 is not base64"));
        let short = BASE64.encode(secret(1, 32)) + "\n";
        assert!(refused(short.into_bytes()).contains("the one on line 1 32"));
        let many: Vec<_> = (0..=MOST as u8).map(|n| file(secret(n, 80))).collect();
        assert!(parse(&many).unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn what_is_shown_of_a_secret_is_not_the_secret() {
        assert_eq!(
            format!("{:?}", Secret(vec![65; 48])).len(),
            "Secret(#0000)".len()
        );
    }
}
