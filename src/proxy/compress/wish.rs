//! What a request says of the coding of its response.

use crate::config::Coding;
use crate::http::field::list;
use crate::http::{RequestHead, Version};

/// A weight in thousandths (RFC 9110, section 12.4.2).
type Weight = u16;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Wish {
    /// Of each coding, in the order of [`Coding::ALL`].
    weights: [Weight; 3],
    /// Of what is not coded. It is good where nothing is said of it (section 12.5.3), but not as
    /// good as what is asked for.
    identity: Option<Weight>,
    /// The response must come as it is.
    no_transform: bool,
    /// The validators of what the client has, as it sent them.
    known: Option<Box<[u8]>>,
}

impl Wish {
    /// Reads a request's, as the client sent it.
    pub(in crate::proxy) fn of(head: &RequestHead) -> Self {
        let mut wish = Self::default();
        let mut explicit = [None; 3];
        let mut any = None;
        for (_, name, value) in head.fields.iter() {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            match name.len() {
                13 if is("Cache-Control") => wish.no_transform |= forbids_transform(value),
                13 if is("If-None-Match") => wish.known = Some(value.into()),
                15 if is("Accept-Encoding") => {
                    for item in list(value) {
                        let Some((coding, weight)) = weighted(item) else {
                            continue;
                        };
                        match coding {
                            b"*" => any = Some(weight),
                            _ if coding.eq_ignore_ascii_case(b"identity") => {
                                wish.identity = Some(weight);
                            }
                            _ => {
                                if let Some(index) = known(coding) {
                                    explicit[index] = Some(weight);
                                }
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        // HTTP/1.0 has no chunks: where the body ends could not be told from where it breaks off.
        if head.version != Version::Http10 {
            wish.weights = explicit.map(|weight| weight.or(any).unwrap_or(0));
        }
        wish
    }

    /// The coding that the client likes best, and among equals the first of `codings`.
    pub(super) fn choose(&self, codings: &[Coding]) -> Option<Coding> {
        if self.no_transform {
            return None;
        }
        let mut best = (self.identity.unwrap_or(1).max(1), None);
        for &coding in codings {
            let weight = self.weights[place(coding)];
            if weight > best.0 || (weight == best.0 && best.1.is_none()) {
                best = (weight, Some(coding));
            }
        }
        best.1
    }

    /// Whether the client has told the weak form of this strong validator.
    pub(super) fn knows_weakly(&self, etag: &[u8]) -> bool {
        let weak = [b"W/", etag].concat();
        etag.starts_with(b"\"")
            && (self.known.as_deref())
                .is_some_and(|known| memchr::memmem::find(known, &weak).is_some())
    }
}

/// Where a coding stands in [`Wish::weights`].
const fn place(coding: Coding) -> usize {
    coding as usize
}

/// The same by a coding's name. `x-gzip` is gzip's older one (RFC 9110, section 8.4.1.3).
fn known(name: &[u8]) -> Option<usize> {
    let name = if name.eq_ignore_ascii_case(b"x-gzip") {
        b"gzip"
    } else {
        name
    };
    let is = |coding: &Coding| name.eq_ignore_ascii_case(coding.code().as_bytes());
    Coding::ALL.iter().position(is)
}

/// A coding and its weight; `None` where the weight cannot be read.
fn weighted(item: &[u8]) -> Option<(&[u8], Weight)> {
    let mut parts = item.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let coding = parts.next()?;
    let mut weight = 1000;
    for parameter in parts {
        let (name, value) = parameter.split_at(parameter.len().min(2));
        if name.eq_ignore_ascii_case(b"q=") {
            weight = qvalue(value)?;
        }
    }
    Some((coding, weight))
}

/// RFC 9110, section 12.4.2: at most three decimals, and at most 1.
fn qvalue(text: &[u8]) -> Option<Weight> {
    let (whole, decimals) = match text {
        [whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] => (whole, decimals),
        _ => return None,
    };
    if decimals.len() > 3 || !decimals.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |at: usize| {
        decimals
            .get(at)
            .map_or(0, |digit| Weight::from(digit - b'0'))
    };
    let weight = Weight::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2);
    (weight <= 1000).then_some(weight)
}

/// Whether a `Cache-Control` says `no-transform` (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
pub(super) fn forbids_transform(value: &[u8]) -> bool {
    list(value).any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse;

    const ALL: [Coding; 3] = Coding::ALL;

    fn wish(fields: &str) -> Wish {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        Wish::of(&parse::complete(parse::request(text.as_bytes(), 100)).unwrap())
    }

    #[test]
    fn weights_decide_and_then_the_order_of_the_configuration() {
        use Coding::{Brotli, Gzip, Zstd};
        for (accepted, expected) in [
            ("", None),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZip", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Brotli)),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.5", Some(Gzip)),
            ("gzip ; q=0.8 ,br;Q=0.9", Some(Brotli)),
            ("*", Some(Zstd)),
            ("*, zstd;q=0", Some(Brotli)),
            ("*;q=0", None),
            ("*;q=0, gzip;q=0.001", Some(Gzip)),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.6", Some(Gzip)),
            ("identity;q=0, gzip;q=0.5", Some(Gzip)),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=nan, br", Some(Brotli)),
            ("gzip;q=", None),
            ("deflate", None),
            ("compress, br;q=0.2\r\nAccept-Encoding: gzip", Some(Gzip)),
        ] {
            let wish = wish(&format!("Accept-Encoding: {accepted}\r\n"));
            assert_eq!(wish.choose(&ALL), expected, "{accepted}");
        }
        assert_eq!(wish("").choose(&ALL), None);
        assert_eq!(
            wish("Accept-Encoding: br, gzip\r\n").choose(&[Gzip, Brotli]),
            Some(Gzip)
        );
    }

    #[test]
    fn a_client_can_ask_that_nothing_is_changed() {
        let wish = wish("Accept-Encoding: gzip\r\nCache-Control: max-age=0, No-Transform\r\n");
        assert_eq!(wish.choose(&ALL), None);
    }

    #[test]
    fn the_weak_form_of_a_validator_is_recognised() {
        let wish = wish("If-None-Match: \"x\", W/\"a\"\r\n");
        assert!(wish.knows_weakly(b"\"a\""));
        assert!(!wish.knows_weakly(b"\"x\""));
        assert!(!wish.knows_weakly(b"W/\"a\""));
    }
}
