//! What a gateway takes from and adds to the fields of a message (RFC 9110, section 7.6; RFC 7239).

use std::io::Write;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::http::field::{Id, Ids, list};
use crate::http::{Framing, Method, RequestHead, ResponseHead, Version};

/// What is known of the hop from the client.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// Who asks: the peer, or whom the PROXY protocol names.
    pub client: IpAddr,
    /// What it says of those before it is believed.
    pub trusted: bool,
    /// `https` or `http`.
    pub scheme: &'static str,
}

/// What proxies in front say of the client.
const FORWARDED: Ids = Ids::of(&[
    Id::Forwarded,
    Id::XForwardedFor,
    Id::XForwardedProto,
    Id::XForwardedHost,
]);

/// Edits a request for its upstream; the value of `Upgrade`, where the request switches protocols.
pub fn to_upstream(head: &mut RequestHead, hop: Hop) -> Option<Vec<u8>> {
    let upgrade = upgrade(head);
    head.fields.remove_hop_by_hop();
    head.fields.remove_disguised();
    // RFC 9110, section 10.1.1: HTTP/1.0 has no expectations. `Proxy` is no field at all, and
    // becomes a setting of its own behind a gateway interface (CVE-2016-5385).
    head.fields.remove(Id::Proxy);
    if head.version == Version::Http10 {
        head.fields.remove(Id::Expect);
    }
    if !hop.trusted {
        head.fields.remove_all(FORWARDED);
    }
    let client = Address::of(hop.client);
    extend(head, Id::XForwardedFor, |out| {
        out.extend_from_slice(client.text())
    });
    let authority = SmallVec::<[u8; 64]>::from_slice(head.authority());
    extend(head, Id::Forwarded, |out| {
        forwarded(out, &client, &authority, hop.scheme)
    });
    if !head.fields.has(Id::XForwardedProto) {
        head.fields.push_with(Id::XForwardedProto, |out| {
            out.extend_from_slice(hop.scheme.as_bytes());
        });
    }
    if !head.fields.has(Id::XForwardedHost) && !authority.is_empty() {
        head.fields
            .push_with(Id::XForwardedHost, |out| out.extend_from_slice(&authority));
    }
    let version = head.version;
    extend(head, Id::Via, |out| via(out, version));
    if head.method == Method::Options
        && let Some(hops @ 1..) = max_forwards(head)
    {
        head.fields.remove(Id::MaxForwards);
        head.fields.push_with(Id::MaxForwards, |out| {
            let _ = write!(out, "{}", hops - 1);
        });
    }
    upgrade
}

/// How often a request may be forwarded (RFC 9110, section 7.6.2), where it says so well.
pub fn max_forwards(head: &RequestHead) -> Option<u32> {
    let text = head.fields.get(Id::MaxForwards)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Edits a response for its client. `date` appends an HTTP date (RFC 9110, section 5.6.7).
pub fn to_client(head: &mut ResponseHead, date: impl FnOnce(&mut Vec<u8>)) {
    head.fields.remove_hop_by_hop();
    // RFC 9110, section 6.6.1: who forwards a response without a date adds it.
    if !head.fields.has(Id::Date) && head.status >= 200 {
        head.fields.push_with(Id::Date, date);
    }
}

/// What the client wants to switch to, if that can be passed on: a request with a body cannot, nor
/// can HTTP/2 in clear text, which would take the connection out of the proxy's sight.
fn upgrade(head: &RequestHead) -> Option<Vec<u8>> {
    if !head.upgrade || head.framing != Framing::None {
        return None;
    }
    let protocol = head.fields.get(Id::Upgrade)?;
    let is_h2c = |item: &[u8]| item.len() >= 3 && item[..3].eq_ignore_ascii_case(b"h2c");
    (!list(protocol).any(is_h2c)).then(|| protocol.to_vec())
}

/// Adds a member to a list-valued field, as one field, behind those that are there.
fn extend(head: &mut RequestHead, id: Id, write: impl FnOnce(&mut Vec<u8>)) {
    if !head.fields.has(id) {
        head.fields.push_with(id, write);
        return;
    }
    let mut joined = Vec::new();
    for value in head.fields.get_all(id).filter(|value| !value.is_empty()) {
        joined.extend_from_slice(value);
        joined.extend_from_slice(b", ");
    }
    head.fields.remove(id);
    write(&mut joined);
    head.fields
        .push_with(id, |out| out.extend_from_slice(&joined));
}

/// RFC 7239, section 4. An IPv6 address and a host with a port need quotes.
fn forwarded(out: &mut Vec<u8>, client: &Address, authority: &[u8], scheme: &str) {
    let (before, after): (&[u8], &[u8]) = match client.is_v6 {
        false => (b"for=", b""),
        true => (b"for=\"[", b"]\""),
    };
    out.extend_from_slice(before);
    out.extend_from_slice(client.text());
    out.extend_from_slice(after);
    if !authority.is_empty() {
        let quote: &[u8] = if authority.contains(&b':') {
            b"\""
        } else {
            b""
        };
        out.extend_from_slice(b";host=");
        out.extend_from_slice(quote);
        out.extend_from_slice(authority);
        out.extend_from_slice(quote);
    }
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(scheme.as_bytes());
}

/// An address as text, which is longest where it is of IPv6 (RFC 4291, section 2.2).
struct Address {
    text: [u8; 45],
    len: usize,
    is_v6: bool,
}

impl Address {
    /// Formatting costs more than all else here: an IPv4 address is written by hand.
    fn of(client: IpAddr) -> Self {
        let (mut text, mut len) = ([0; 45], 0);
        let v4 = match client.to_canonical() {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(v6) => {
                let mut room = &mut text[..];
                let _ = write!(room, "{v6}");
                len = 45 - room.len();
                let is_v6 = true;
                return Self { text, len, is_v6 };
            }
        };
        let mut put = |byte| {
            text[len] = byte;
            len += 1;
        };
        for (at, octet) in v4.octets().into_iter().enumerate() {
            if at > 0 {
                put(b'.');
            }
            if octet >= 100 {
                put(b'0' + octet / 100);
            }
            if octet >= 10 {
                put(b'0' + octet / 10 % 10);
            }
            put(b'0' + octet % 10);
        }
        let is_v6 = false;
        Self { text, len, is_v6 }
    }

    fn text(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// RFC 9110, section 7.6.3: a gateway says in each request that it was there.
fn via(out: &mut Vec<u8>, version: Version) {
    out.extend_from_slice(version.via().as_bytes());
    out.extend_from_slice(b" staunch");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse;

    fn sent(text: &str, trusted: bool) -> (String, Option<Vec<u8>>) {
        let mut head = parse::complete(parse::request(text.as_bytes(), 100)).unwrap();
        let hop = Hop {
            client: [192, 0, 2, 1].into(),
            trusted,
            scheme: "https",
        };
        let upgrade = to_upstream(&mut head, hop);
        let mut out = Vec::new();
        crate::http::encode::request(&mut out, &head, false, upgrade.as_deref());
        (String::from_utf8(out).unwrap(), upgrade)
    }

    const CLAIMS: &str = "GET / HTTP/1.1\r\nHost: a.test:1\r\nX-Forwarded-For: 9.9.9.9\r\n\
        x-forwarded-proto: http\r\nX-Forwarded-Host: evil\r\nForwarded: for=9.9.9.9\r\n\r\n";

    #[test]
    fn what_a_stranger_says_of_itself_is_replaced() {
        let (head, _) = sent(CLAIMS, false);
        assert_eq!(
            head,
            "GET / HTTP/1.1\r\nHost: a.test:1\r\nX-Forwarded-For: 192.0.2.1\r\n\
             Forwarded: for=192.0.2.1;host=\"a.test:1\";proto=https\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: a.test:1\r\nVia: 1.1 staunch\r\n\r\n"
        );
    }

    #[test]
    fn what_a_trusted_proxy_says_is_extended() {
        let (head, _) = sent(CLAIMS, true);
        assert!(
            head.contains("X-Forwarded-For: 9.9.9.9, 192.0.2.1\r\n"),
            "{head}"
        );
        assert!(head.contains("x-forwarded-proto: http\r\n"), "{head}");
        assert!(head.contains("X-Forwarded-Host: evil\r\n"), "{head}");
        assert!(
            head.contains("Forwarded: for=9.9.9.9, for=192.0.2.1;"),
            "{head}"
        );
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_does() {
        let mut all: Vec<IpAddr> = (0..=255).map(|n| [n, 255 - n, 0, n].into()).collect();
        all.push("2001:db8::1".parse().unwrap());
        for ip in all {
            assert_eq!(Address::of(ip).text(), ip.to_string().as_bytes());
        }
    }

    #[test]
    fn an_upgrade_is_passed_on_unless_it_is_h2c() {
        let ask = |protocol: &str| {
            let text = format!(
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: {protocol}\r\nHTTP2-Settings: AAA\r\n\r\n"
            );
            sent(&text, false)
        };
        let (head, upgrade) = ask("websocket");
        assert!(
            head.contains("Connection: upgrade\r\nUpgrade: websocket\r\n"),
            "{head}"
        );
        assert_eq!(upgrade.as_deref(), Some(&b"websocket"[..]));
        let (head, upgrade) = ask("h2c");
        assert!(
            !head.to_lowercase().contains("upgrade") && !head.contains("AAA"),
            "{head}"
        );
        assert_eq!(upgrade, None);
    }
}
