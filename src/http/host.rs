//! Host and port, as `Host`, `:authority` and absolute-form targets give them (RFC 3986, section
//! 3.2; RFC 9110, section 7.2).

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::str;

/// Longest host that is looked up: a DNS name has at most 253 bytes, an IPv6 literal fewer.
const LONGEST: usize = 255;

/// A host in the form that names are compared in: lower case, without port, trailing dot or the
/// brackets of an IPv6 literal. Nearly all clients write it so, and then it is not copied.
#[derive(Clone, Debug)]
pub struct Host<'a>(Cow<'a, str>);

impl<'a> Host<'a> {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; `None` when it is none of them.
    pub fn parse(authority: &'a [u8]) -> Option<Self> {
        let (host, kinds) = bare(authority)?;
        // Only ASCII is let in.
        let host = str::from_utf8(host).ok()?;
        Some(Self(match kinds & UPPER {
            0 => Cow::Borrowed(host),
            _ => Cow::Owned(host.to_ascii_lowercase()),
        }))
    }

    /// The host that the handshake named, in lower case, where a request names it with the same
    /// bytes, which nearly all do: then nothing has to be looked at but the port.
    pub fn named(name: &'a str, authority: &[u8]) -> Option<Self> {
        match authority.strip_prefix(name.as_bytes())? {
            [] => {}
            [b':', port @ ..] if is_port(port) => {}
            _ => return None,
        }
        (!name.ends_with('.')).then_some(Self(Cow::Borrowed(name)))
    }

    /// Whether it is one of them.
    pub fn is_one(authority: &[u8]) -> bool {
        bare(authority).is_some()
    }

    /// The host.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The host alone, if it is one, and what kinds of bytes it has.
fn bare(authority: &[u8]) -> Option<(&[u8], u8)> {
    let (host, port) = split_port(authority)?;
    if !is_port(port) {
        return None;
    }
    let (host, kinds) = match host {
        [b'[', inner @ .., b']'] => {
            str::from_utf8(inner).ok()?.parse::<Ipv6Addr>().ok()?;
            (inner, UPPER)
        }
        _ => {
            let host = host.strip_suffix(b".").unwrap_or(host);
            let mut kinds = 0;
            for byte in host {
                let kind = KINDS[usize::from(*byte)];
                if kind == 0 {
                    return None;
                }
                kinds |= kind;
            }
            (host, kinds)
        }
    };
    (1..=LONGEST).contains(&host.len()).then_some((host, kinds))
}

/// Whether there can be such a port, or none is named.
fn is_port(text: &[u8]) -> bool {
    let digits = text.len() <= 5 && text.iter().all(u8::is_ascii_digit);
    let number = |sum: u32, digit: &u8| sum * 10 + u32::from(digit - b'0');
    digits && text.iter().fold(0, number) <= u32::from(u16::MAX)
}

/// Splits off the port, empty when there is none. `None` when brackets do not match.
fn split_port(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    if authority.first() == Some(&b'[') {
        let end = memchr::memchr(b']', authority)? + 1;
        return match &authority[end..] {
            [] => Some((authority, b"")),
            [b':', port @ ..] => Some((&authority[..end], port)),
            _ => None,
        };
    }
    match memchr::memchr(b':', authority) {
        None => Some((authority, b"")),
        Some(colon) => Some((&authority[..colon], &authority[colon + 1..])),
    }
}

/// What bytes are in a host name.
const UPPER: u8 = 1;
const OTHER: u8 = 2;

/// What stands in host names. RFC 3986's `reg-name` allows more (percent-encoding and
/// sub-delimiters), which no DNS name has and which invites two readings; it is refused.
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)] // below 256
        {
            kinds[byte] = match byte as u8 {
                b'A'..=b'Z' => UPPER,
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => OTHER,
                _ => 0,
            };
        }
        byte += 1;
    }
    kinds
};

#[cfg(test)]
mod tests {
    use super::*;

    fn host(authority: &str) -> Option<String> {
        Host::parse(authority.as_bytes()).map(|host| host.as_str().to_owned())
    }

    #[test]
    fn hosts_are_normalised() {
        for (authority, expected) in [
            ("Example.COM", Some("example.com")),
            ("example.com:8443", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("[::1]:443", Some("::1")),
            ("[2001:DB8::1]", Some("2001:db8::1")),
            ("127.0.0.1:1", Some("127.0.0.1")),
            ("", None),
            (".", None),
            ("a b", None),
            ("user@example.com", None),
            ("example.com:http", None),
            ("example.com:65535", Some("example.com")),
            ("example.com:65536", None),
            ("example.com:123456", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[nonsense]", None),
            ("a/b", None),
            ("a:1:2", None),
        ] {
            assert_eq!(host(authority).as_deref(), expected, "{authority}");
        }
        assert_eq!(host(&"a".repeat(256)), None);
    }

    #[test]
    fn what_the_handshake_named_is_known_by_its_bytes() {
        for (name, authority, expected) in [
            ("a.test", "a.test", true),
            ("a.test", "a.test:8443", true),
            ("a.test", "a.test:", true),
            ("a.test", "a.test:x", false),
            ("a.test", "a.test.", false),
            ("a.test", "a.testx", false),
            ("a.test", "A.test", false),
            ("a.test", "b.test", false),
            ("a.test.", "a.test.", false),
        ] {
            let found = Host::named(name, authority.as_bytes());
            let found = found.map(|host| host.as_str().to_owned());
            assert_eq!(found.is_some(), expected, "{authority}");
            assert!(found.is_none() || found == host(authority), "{authority}");
        }
    }
}
