//! What variables stand for.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;

use super::Marks;
use crate::config::{Piece, Template, Variable};
use crate::http::RequestHead;
use crate::http::field::Id;
use crate::http::host::Host;
use crate::proxy::Peer;
use crate::proxy::path::decode;
use crate::tls::Ja4;
use crate::tls::identity::{Fact, Identity};
use crate::upstream::balance;

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Who asks, and how.
    pub peer: &'a Peer,
    /// Who the client has shown to be, where the site asks for that.
    pub identity: Option<&'a Identity>,
    /// For whom the peer asks, where that is not itself.
    pub client: IpAddr,
    /// What for.
    pub head: &'a RequestHead,
    /// What was made of it.
    pub marks: &'a Marks,
}

impl Known<'_> {
    /// A value that can be sent in a field.
    pub fn text(&self, template: &Template) -> Vec<u8> {
        let mut out = Vec::new();
        self.append_text(template, &mut out);
        out
    }

    /// A body of this type: what clients say in it begins nothing new in HTML, XML and JSON.
    pub fn body(&self, template: &Template, content_type: &str) -> Vec<u8> {
        let escape = Escape::of(content_type);
        let mut out = Vec::new();
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Variable(variable) => {
                    for &byte in self.value(variable).iter() {
                        escape.push(byte, &mut out);
                    }
                }
            }
        }
        out
    }

    /// Appends a value that can be sent in a field: without control characters and outer white
    /// space (RFC 9110, section 5.5), whatever the client had in what it is made of.
    pub(super) fn append_text(&self, template: &Template, out: &mut Vec<u8>) {
        let begin = out.len();
        for piece in template.pieces() {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Variable(variable) => self.append(variable, out),
            }
        }
        for byte in &mut out[begin..] {
            if byte.is_ascii_control() {
                *byte = b' ';
            }
        }
        let value = &out[begin..];
        let leading = value.len() - value.trim_ascii_start().len();
        out.drain(begin..begin + leading);
        let trailing = out[begin..].len() - out[begin..].trim_ascii_end().len();
        out.truncate(out.len() - trailing);
    }

    /// Appends what stands for a variable in a URL: what could end it or begin another part of it is
    /// percent-encoded, and what is percent-encoded already stays so.
    pub(super) fn append_url(&self, variable: &Variable, out: &mut Vec<u8>) {
        let begin = out.len();
        self.append(variable, out);
        let keeps = match variable {
            Variable::Header(_) | Variable::Cookie(_) | Variable::Parameter(_) | Variable::User => {
                is_unreserved
            }
            _ => is_of_url,
        };
        if !out[begin..].iter().copied().all(keeps) {
            let value = out.split_off(begin);
            encode(&value, keeps, out);
        }
    }

    /// Appends what stands for a variable, as it is.
    fn append(&self, variable: &Variable, out: &mut Vec<u8>) {
        match self.found(variable) {
            Found::Here(value) => out.extend_from_slice(value),
            Found::InParts => self.assemble(variable, out),
        }
    }

    /// What stands for a variable.
    pub(in crate::proxy) fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        match self.found(variable) {
            Found::Here(value) => Cow::Borrowed(value),
            Found::InParts => {
                let mut out = Vec::new();
                self.assemble(variable, &mut out);
                Cow::Owned(out)
            }
        }
    }

    /// What stands for a variable, where that is written anywhere as it is.
    fn found(&self, variable: &Variable) -> Found<'_> {
        let Self {
            peer, head, marks, ..
        } = self;
        let session = peer.session.as_ref();
        let shown = || self.identity.filter(|shown| shown.verified);
        Found::Here(match variable {
            Variable::Method => head.method_text(),
            Variable::Path => head.path(),
            Variable::Query => head.query().unwrap_or_default(),
            Variable::Uri => head.target(),
            Variable::Scheme => peer.scheme.as_bytes(),
            Variable::Protocol => head.version.label().as_bytes(),
            Variable::Sni => word(peer.sni.as_deref()),
            Variable::TlsVersion => word(peer.tls_version),
            Variable::TlsCipher => word(session.and_then(|session| session.cipher)),
            Variable::TlsGroup => word(session.and_then(|session| session.group)),
            Variable::TlsResumed => {
                let resumed = session.map(|session| session.resumed);
                word(resumed.map(|yes| if yes { "true" } else { "false" }))
            }
            Variable::Ja4 => word(peer.ja4.as_ref().map(Ja4::as_str)),
            Variable::RequestId => marks.request_id().unwrap_or_default(),
            Variable::TraceId => match marks.trace_id() {
                Some(id) => id,
                None => super::marks::trace_id_of(&head.fields),
            },
            Variable::Header(name) => match header(head, name.as_bytes()) {
                Some(value) => value,
                None => return Found::InParts,
            },
            Variable::Cookie(name) => balance::cookie(head, name.as_bytes()).unwrap_or_default(),
            Variable::Parameter(name) => match parameter(head, name.as_bytes()) {
                Cow::Borrowed(value) => value,
                Cow::Owned(_) => return Found::InParts,
            },
            Variable::Rest => &marks.rest,
            Variable::Capture(index) => marks.groups.get(*index).map_or(b"", Vec::as_slice),
            Variable::User => marks.user.as_deref().unwrap_or_default(),
            Variable::ClientCommonName => word(shown().and_then(|it| it.common_name.as_deref())),
            Variable::ClientFingerprint => word(shown().map(|it| it.fingerprint.as_str())),
            Variable::ClientAddress
            | Variable::ClientPort
            | Variable::ClientCertificate
            | Variable::ClientSubject
            | Variable::ClientIssuer
            | Variable::ClientSerial
            | Variable::Host
            | Variable::Port
            | Variable::LocalPort
            | Variable::EscapedUri
            | Variable::EscapedUrl => return Found::InParts,
        })
    }

    /// Appends what has to be put together first.
    fn assemble(&self, variable: &Variable, out: &mut Vec<u8>) {
        let Self {
            peer, client, head, ..
        } = self;
        // Writing to a Vec cannot fail.
        match variable {
            Variable::ClientAddress => {
                let _ = write!(out, "{}", client.to_canonical());
            }
            // That of somebody who is only told of is not known.
            Variable::ClientPort if *client != peer.client.ip() => {}
            Variable::ClientPort => {
                let _ = write!(out, "{}", peer.client.port());
            }
            Variable::ClientCertificate
            | Variable::ClientSubject
            | Variable::ClientIssuer
            | Variable::ClientSerial => {
                let fact = match variable {
                    Variable::ClientSubject => Fact::Subject,
                    Variable::ClientIssuer => Fact::Issuer,
                    Variable::ClientSerial => Fact::Serial,
                    _ => Fact::Certificate,
                };
                let told = self.identity.and_then(|shown| shown.fact(fact));
                out.extend_from_slice(told.unwrap_or_default().as_bytes());
            }
            Variable::Host => host(head.authority(), out),
            Variable::Port => port(head.authority(), peer.scheme, out),
            Variable::LocalPort => {
                let _ = write!(out, "{}", peer.local_port);
            }
            Variable::EscapedUri => encode(head.target(), is_unreserved, out),
            Variable::EscapedUrl => {
                for part in [
                    peer.scheme.as_bytes(),
                    b"://",
                    head.authority(),
                    head.target(),
                ] {
                    encode(part, is_unreserved, out);
                }
            }
            Variable::Header(name) => headers(head, name.as_bytes(), out),
            Variable::Parameter(name) => {
                out.extend_from_slice(&parameter(head, name.as_bytes()));
            }
            _ => {}
        }
    }
}

/// What stands for a variable.
enum Found<'a> {
    /// As it is.
    Here(&'a [u8]),
    /// It has to be put together.
    InParts,
}

fn word(word: Option<&str>) -> &[u8] {
    word.unwrap_or_default().as_bytes()
}

/// As a URL has it: an IPv6 address in brackets.
fn host(authority: &[u8], out: &mut Vec<u8>) {
    let Some(host) = Host::parse(authority) else {
        return;
    };
    let name = host.as_str();
    match name.contains(':') {
        true => out.extend_from_slice(format!("[{name}]").as_bytes()),
        false => out.extend_from_slice(name.as_bytes()),
    }
}

/// As the client gave it, else the one of the scheme.
fn port(authority: &[u8], scheme: &str, out: &mut Vec<u8>) {
    let digits = authority.rsplit(|&byte| byte == b':').next();
    let given = digits.filter(|digits| {
        digits.len() < authority.len()
            && !digits.is_empty()
            && digits.iter().all(u8::is_ascii_digit)
            && Host::parse(authority).is_some()
    });
    out.extend_from_slice(given.unwrap_or(match scheme {
        "http" => b"80",
        _ => b"443",
    }));
}

/// The value of a field that is there once at most; else [`headers`] has it.
fn header<'h>(head: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    if Id::of(name) == Id::Host {
        return Some(head.authority());
    }
    let mut fields = head.fields.iter();
    let mut next = || fields.find(|(_, found, _)| found.eq_ignore_ascii_case(name));
    match (next(), next()) {
        (None, _) => Some(b""),
        (Some((_, _, value)), None) => Some(value),
        (Some(_), Some(_)) => None,
    }
}

/// All values of a field, as one (RFC 9110, section 5.3; RFC 9113, section 8.2.3).
fn headers(head: &RequestHead, name: &[u8], out: &mut Vec<u8>) {
    let separator: &[u8] = match Id::of(name) {
        Id::Cookie => b"; ",
        _ => b", ",
    };
    let begin = out.len();
    for (_, found, value) in head.fields.iter() {
        if found.eq_ignore_ascii_case(name) {
            if out.len() > begin {
                out.extend_from_slice(separator);
            }
            out.extend_from_slice(value);
        }
    }
}

/// The value of the first parameter of a name, as forms write them: percent-encoded, with a plus for
/// a space. Empty where there is none.
fn parameter<'h>(head: &'h RequestHead, name: &[u8]) -> Cow<'h, [u8]> {
    let query = head.query().unwrap_or_default();
    for pair in query.split(|&byte| byte == b'&') {
        let end = memchr::memchr(b'=', pair);
        let (key, value) = match end {
            Some(end) => (&pair[..end], &pair[end + 1..]),
            None => (pair, &b""[..]),
        };
        if *of_form(key) == *name {
            return of_form(value);
        }
    }
    Cow::Borrowed(b"")
}

fn of_form(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'+', text).is_none() {
        return decode(text);
    }
    let spaced: Vec<_> = text
        .iter()
        .map(|&byte| if byte == b'+' { b' ' } else { byte })
        .collect();
    Cow::Owned(decode(&spaced).into_owned())
}

/// A part of a path that was percent-decoded, encoded again.
pub fn encode_path(part: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.len());
    encode(part, is_of_path, &mut out);
    out
}

/// Percent-encodes what is not to be kept.
fn encode(value: &[u8], keeps: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    for &byte in value {
        match keeps(byte) {
            true => out.push(byte),
            false => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// What means nothing anywhere in a URL (RFC 3986, section 2.3).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a path or a query can have in it. A backslash cannot: browsers read it as a slash.
const fn is_of_url(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#'
        )
}

/// How what clients say is written in a body.
#[derive(Clone, Copy)]
enum Escape {
    None,
    Markup,
    Json,
}

impl Escape {
    fn of(content_type: &str) -> Self {
        let content_type = content_type.to_ascii_lowercase();
        match content_type.contains("json") {
            true => Self::Json,
            false
                if ["html", "xml", "svg"]
                    .iter()
                    .any(|kind| content_type.contains(kind)) =>
            {
                Self::Markup
            }
            false => Self::None,
        }
    }

    fn push(self, byte: u8, out: &mut Vec<u8>) {
        match (self, byte) {
            (Self::Markup, b'<' | b'>' | b'&' | b'"' | b'\'') => {
                out.extend_from_slice(format!("&#{byte};").as_bytes());
            }
            (Self::Json, b'"' | b'\\' | 0..=31) => {
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            }
            _ => out.push(byte),
        }
    }
}

/// What a path can have in it as it is, percent-decoded.
const fn is_of_path(byte: u8) -> bool {
    is_of_url(byte) && !matches!(byte, b'%' | b'?')
}

#[cfg(test)]
pub(in crate::proxy) mod tests {
    use super::*;
    use crate::config;
    use crate::http::parse;

    pub(in crate::proxy) fn peer() -> Peer {
        Peer {
            id: crate::upstream::pool::ClientId::default(),
            client: "[::ffff:192.0.2.1]:4711".parse().unwrap(),
            destination: None,
            local_port: 443,
            scheme: "https",
            sni: Some("a.test".into()),
            alpn: None,
            tls_version: Some("1.3"),
            session: None,
            ja4: None,
            policy: None,
            identity: None,
        }
    }

    /// The value of a response's field in a site that answers itself.
    pub(in crate::proxy::rules) fn template(text: &str) -> Template {
        let file = format!(
            "[[site]]\nnames=['a.test']\nrespond=200\n[site.response_headers]\nset={{ 'X'='{text}' }}"
        );
        let config = config::parse(&file, std::path::Path::new("/s.toml")).unwrap();
        match &config.sites[0].rules.response[0].change {
            config::Change::Set(template) => template.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn text(value: &str, head: &RequestHead) -> String {
        let (peer, marks) = (peer(), Marks::default());
        let known = Known {
            peer: &peer,
            identity: None,
            client: peer.client.ip(),
            head,
            marks: &marks,
        };
        String::from_utf8(known.text(&template(value))).unwrap()
    }

    #[test]
    fn variables_stand_for_what_is_known() {
        let head = parse::complete(parse::request(
            b"GET /a%20b?c=d&e HTTP/1.1\r\nHost: A.test:8443\r\nX-A: 1\r\nx-a: 2\r\n\
              Cookie: k=v; l=w\r\nX-Tab: a\tb\r\n\r\n",
            100,
        ))
        .unwrap();
        for (value, expected) in [
            ("{client_address} {client_port}", "192.0.2.1 4711"),
            ("{host}:{port}", "a.test:8443"),
            ("{method} {uri} {protocol}", "GET /a%20b?c=d&e HTTP/1.1"),
            ("{path}|{query}", "/a%20b|c=d&e"),
            ("{scheme}, {sni}, {tls_version}", "https, a.test, 1.3"),
            ("{tls_cipher}", ""),
            ("{header:X-A}", "1, 2"),
            ("{header:Host}", "A.test:8443"),
            ("{header:X-None}x", "x"),
            ("{cookie:l}{cookie:m}", "w"),
            ("{header:X-Tab}", "a b"),
            ("{header:X-None} a {header:X-None}", "a"),
            ("{query:c}|{query:e}|{query:f}", "d||"),
        ] {
            assert_eq!(text(value, &head), expected, "{value}");
        }
    }

    #[test]
    fn a_parameter_is_the_first_of_its_name_as_forms_write_it() {
        for (query, expected) in [
            ("", ""),
            ("?", ""),
            ("?a", ""),
            ("?b=1&a=2&a=3", "2"),
            ("?a=x%20y+z%2Bw", "x y z+w"),
            ("?%61=1&a=2", "1"),
            ("?A=1", ""),
            ("?aa=1&xa=2", ""),
            ("?a=b=c", "b=c"),
            ("?x;a=1", ""),
            ("?a=%zz", "%zz"),
        ] {
            let head = format!("GET /{query} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            let head = parse::complete(parse::request(head.as_bytes(), 100)).unwrap();
            assert_eq!(text("{query:a}", &head), expected, "{query}");
        }
    }

    #[test]
    fn a_host_without_a_port_is_at_the_one_of_its_scheme() {
        for (authority, expected) in [
            ("a.test", "a.test:443"),
            ("[::1]", "[::1]:443"),
            ("[::1]:81", "[::1]:81"),
            ("a.test:", "a.test:443"),
        ] {
            let head = format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            let head = parse::complete(parse::request(head.as_bytes(), 100)).unwrap();
            assert_eq!(text("{host}:{port}", &head), expected, "{authority}");
        }
    }
}
