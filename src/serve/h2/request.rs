//! From a block of fields to the request that the proxy works on (RFC 9113, section 8.3).

use super::websocket;
use crate::http::field::{Fields, Id};
use crate::http::framing::{MAX_TRAILERS, may_be_trailer};
use crate::http::hpack::{self, Decoder, Field, Kind, Malformed};
use crate::http::parse::{HeadError, decimal};
use crate::http::{Framing, Method, RequestHead, Version};
use crate::proxy::error::Refusal;

/// Fields of a trailer section.
const MAX_TRAILER_FIELDS: usize = 64;

/// What a request may amount to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes, as [`hpack::size`] counts them.
    pub size: usize,
    /// Fields.
    pub fields: usize,
}

/// Reads the head of a request. `ended`: it has no body. What could be read in two ways is refused.
///
/// # Errors
/// When the block cannot be read, which ends the connection.
pub fn read(
    decoder: &mut Decoder,
    block: &[u8],
    ended: bool,
    bounds: Bounds,
) -> Result<Result<RequestHead, Refusal>, Malformed> {
    let mut reading = Reading::new(block.len(), bounds);
    decoder.read(block, |field| reading.field(field))?;
    Ok(reading.finish(ended))
}

/// A request whose fields come one by one.
struct Reading {
    head: RequestHead,
    bounds: Bounds,
    count: usize,
    size: usize,
    /// What is wrong with it. Its fields are read to their end all the same: what follows on the
    /// connection refers to them.
    fault: Option<Refusal>,
    seen: Seen,
    /// There was a field of the message: no pseudo-header field may follow.
    begun: bool,
    host: Option<Vec<u8>>,
    length: Option<u64>,
    cookies: Vec<u8>,
}

/// Which pseudo-header fields there were.
#[derive(Default)]
struct Seen {
    method: bool,
    scheme: bool,
    authority: bool,
    path: bool,
    /// Whether what it names is known.
    protocol: Option<bool>,
}

impl Reading {
    fn new(hint: usize, bounds: Bounds) -> Self {
        let mut head = RequestHead::unread();
        head.version = Version::Http2;
        head.keep_alive = true;
        // Room for what the proxy adds, too.
        head.fields = Fields::with_capacity(hint + 1024);
        Self {
            head,
            bounds,
            count: 0,
            size: 0,
            fault: None,
            seen: Seen::default(),
            begun: false,
            host: None,
            length: None,
            cookies: Vec::new(),
        }
    }

    fn field(&mut self, field: Field<'_>) {
        if self.fault.is_some() {
            return;
        }
        self.size += hpack::size(field.name, field.value);
        self.count += usize::from(!field.kind.is_pseudo());
        let fault = if self.size > self.bounds.size {
            Err(HeadError::TooLong)
        } else if self.count > self.bounds.fields {
            Err(HeadError::TooManyFields)
        } else {
            self.take(field)
        };
        if let Err(fault) = fault {
            self.fault = Some(fault.into());
        }
    }

    fn take(&mut self, field: Field<'_>) -> Result<(), HeadError> {
        let Field { name, value, .. } = field;
        if !field.is_valid {
            return Err(HeadError::Malformed("a field value is malformed"));
        }
        if field.kind.is_pseudo() && self.begun {
            return Err(HeadError::Malformed(
                "a pseudo-header field is out of place",
            ));
        }
        let seen = &mut self.seen;
        match field.kind {
            Kind::Method => {
                first(&mut seen.method)?;
                if !crate::http::field::is_token(value) {
                    return Err(HeadError::Malformed(":method is malformed"));
                }
                self.head.method = Method::from_bytes(value);
                self.head.method_text = self.head.fields.store(value);
            }
            Kind::Scheme => {
                first(&mut seen.scheme)?;
                // It could be any, and this is a gateway to one kind.
                let known = [&b"https"[..], b"http"];
                if !known.iter().any(|known| value.eq_ignore_ascii_case(known)) {
                    return Err(HeadError::Malformed(":scheme is neither https nor http"));
                }
            }
            Kind::Authority => {
                first(&mut seen.authority)?;
                self.head.authority = self.head.fields.store(value);
            }
            Kind::Path => {
                first(&mut seen.path)?;
                if !is_target(value) {
                    return Err(HeadError::Malformed(":path is malformed"));
                }
                self.head.target = self.head.fields.store(value);
            }
            Kind::Protocol if seen.protocol.is_some() => {
                return Err(HeadError::Malformed("a pseudo-header field is repeated"));
            }
            Kind::Protocol => {
                let known = value.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes());
                seen.protocol = Some(known);
            }
            Kind::Unknown => {
                return Err(HeadError::Malformed("a pseudo-header field is not known"));
            }
            Kind::Malformed => return Err(HeadError::Malformed("a field name is malformed")),
            Kind::OfConnection => {
                return Err(HeadError::Malformed(
                    "a field is of HTTP/1.1 connections only",
                ));
            }
            Kind::Field(id) => return self.of_message(id, name, value),
        }
        Ok(())
    }

    fn of_message(&mut self, id: Id, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        self.begun = true;
        match id {
            Id::Host if self.host.is_some() => {
                return Err(HeadError::Malformed("Host is repeated"));
            }
            Id::Host => {
                self.host = Some(value.to_vec());
                return Ok(());
            }
            // RFC 9113, section 8.2.3: what was split for compression is one field elsewhere.
            Id::Cookie => {
                if !self.cookies.is_empty() {
                    self.cookies.extend_from_slice(b"; ");
                }
                self.cookies.extend_from_slice(value);
                return Ok(());
            }
            Id::ContentLength if self.length.is_some() => {
                return Err(HeadError::Malformed("content-length is repeated"));
            }
            Id::ContentLength => self.length = Some(decimal(value)?),
            // RFC 9113, section 8.2.2.
            Id::Te if !value.eq_ignore_ascii_case(b"trailers") => {
                return Err(HeadError::Malformed("te is something else than trailers"));
            }
            Id::Te => self.head.accepts_trailers = true,
            Id::Expect => {
                self.head.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        self.head.fields.push_known(id, name, value);
        Ok(())
    }

    fn finish(mut self, ended: bool) -> Result<RequestHead, Refusal> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let seen = &self.seen;
        let protocol = seen.protocol;
        let is_connect = self.head.method == Method::Connect;
        let missing = match (protocol, is_connect) {
            _ if !seen.method => Some("there is no :method"),
            (Some(_), false) => Some(":protocol without CONNECT"),
            // RFC 9113, section 8.5; it is refused later, with the right status.
            (None, true) if seen.scheme || seen.path => Some(":scheme or :path with CONNECT"),
            (None, true) => None,
            _ if !seen.path => Some("there is no :path"),
            _ if !seen.scheme => Some("there is no :scheme"),
            _ => None,
        };
        if let Some(missing) = missing {
            return Err(HeadError::Malformed(missing).into());
        }
        if protocol == Some(false) {
            return Err(Refusal::Protocol);
        }
        let target = self.head.target();
        let right = target.starts_with(b"/")
            || target == b"*" && self.head.method == Method::Options
            || is_connect && protocol.is_none();
        if !right {
            return Err(HeadError::Malformed(":path is malformed").into());
        }
        self.authority()?;
        if !self.cookies.is_empty() {
            self.head.fields.push(b"Cookie", &self.cookies);
        }
        if protocol.is_some() {
            return self.websocket();
        }
        self.head.framing = match (ended, self.length) {
            // RFC 9113, section 8.1.1: what came through would be a request that its upstream waits
            // to read the rest of.
            (true, Some(1..)) => {
                return Err(HeadError::Malformed("content-length without a body").into());
            }
            (true, _) | (false, Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Chunked,
        };
        Ok(self.head)
    }

    /// `:authority`, or `host` where there is none; both must say the same (RFC 9113, section 8.3.1).
    fn authority(&mut self) -> Result<(), Refusal> {
        if let Some(host) = &self.host {
            if !self.seen.authority {
                self.head.authority = self.head.fields.store(host);
            } else if !self.head.authority().eq_ignore_ascii_case(host) {
                return Err(HeadError::Malformed(":authority and host differ").into());
            }
        }
        match self.head.authority().is_empty() {
            true => Err(Refusal::Host),
            false => Ok(()),
        }
    }

    /// RFC 8441, section 5: what asks for a WebSocket here is a GET elsewhere.
    fn websocket(mut self) -> Result<RequestHead, Refusal> {
        if self.length.is_some() {
            return Err(HeadError::Malformed("CONNECT has no body, and no content-length").into());
        }
        self.head.method = Method::Get;
        self.head.method_text = self.head.fields.store(b"GET");
        self.head.upgrade = true;
        let protocol = websocket::PROTOCOL.as_bytes();
        self.head.fields.push(b"Upgrade", protocol);
        Ok(self.head)
    }
}

fn first(seen: &mut bool) -> Result<(), HeadError> {
    match std::mem::replace(seen, true) {
        false => Ok(()),
        true => Err(HeadError::Malformed("a pseudo-header field is repeated")),
    }
}

/// What a target is made of (RFC 9112, section 3.2): it has no fragment, nor spaces, and what is not
/// ASCII is UTF-8.
fn is_target(value: &[u8]) -> bool {
    let is_byte = |&byte: &u8| byte > b' ' && byte != 0x7f && byte != b'#';
    value.iter().all(is_byte) && std::str::from_utf8(value).is_ok()
}

/// Reads a trailer section. `Err(())`: it is not one.
///
/// # Errors
/// When the block cannot be read, which ends the connection.
pub fn trailers(
    decoder: &mut Decoder,
    block: &[u8],
) -> Result<Result<Option<Box<Fields>>, ()>, Malformed> {
    let mut fields = Fields::default();
    let (mut size, mut count, mut wrong) = (0, 0, false);
    decoder.read(block, |field| {
        size += hpack::size(field.name, field.value);
        count += 1;
        let Kind::Field(id) = field.kind else {
            wrong = true;
            return;
        };
        wrong |= !field.is_valid || size > MAX_TRAILERS || count > MAX_TRAILER_FIELDS;
        if !wrong && may_be_trailer(id) {
            fields.push_known(id, field.name, field.value);
        }
    })?;
    Ok(match wrong {
        true => Err(()),
        false => Ok((!fields.is_empty()).then(|| Box::new(fields))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        size: 4000,
        fields: 10,
    };

    fn request(fields: &[(&str, &str)], ended: bool) -> Result<RequestHead, Refusal> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend_from_slice(text.as_bytes());
            }
        }
        read(&mut Decoder::default(), &block, ended, BOUNDS).unwrap()
    }

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/a?b"),
        (":authority", "a.test"),
    ];

    #[test]
    fn a_request_is_read() {
        let more = [
            ("cookie", "a=b"),
            ("x-a", "1"),
            ("cookie", "c=d"),
            ("te", "trailers"),
        ];
        let head = request(&[&GET[..], &more].concat(), true).unwrap();
        assert_eq!((head.method, head.framing), (Method::Get, Framing::None));
        assert_eq!(
            (head.target(), head.authority()),
            (&b"/a?b"[..], &b"a.test"[..])
        );
        assert!(head.accepts_trailers);
        let fields: Vec<_> = head
            .fields
            .iter()
            .map(|(_, name, value)| (name, value))
            .collect();
        let expected: [(&[u8], &[u8]); 3] = [
            (b"x-a", b"1"),
            (b"te", b"trailers"),
            (b"Cookie", b"a=b; c=d"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn the_body_is_as_long_as_it_says() {
        let length = |text, ended| {
            let fields = [&GET[..], &[("content-length", text)]].concat();
            request(&fields, ended).map(|head| head.framing).ok()
        };
        assert_eq!(length("5", false), Some(Framing::Length(5)));
        assert_eq!(length("0", false), Some(Framing::None));
        assert_eq!(length("0", true), Some(Framing::None));
        for wrong in [
            "+5",
            "",
            "5,5",
            "0x5",
            "99999999999999999999",
            "00000000000000000000",
        ] {
            assert_eq!(length(wrong, false), None, "{wrong}");
        }
        assert_eq!(length("5", true), None);
        assert_eq!(request(&GET, false).unwrap().framing, Framing::Chunked);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
        let changed = |name, value| {
            let mut fields = GET;
            for field in &mut fields {
                if field.0 == name {
                    field.1 = value;
                }
            }
            fields.to_vec()
        };
        for fields in [
            GET[1..].to_vec(),
            GET[..3].to_vec(),
            vec![GET[0], GET[1], GET[3]],
            vec![GET[0], GET[2], GET[3]],
            with(&[(":path", "/")]),
            with(&[(":status", "200")]),
            with(&[("x", "1"), (":path", "/")]),
            with(&[(":protocol", "websocket")]),
            with(&[("connection", "close")]),
            with(&[("transfer-encoding", "chunked")]),
            with(&[("te", "gzip")]),
            with(&[("X-A", "1")]),
            with(&[("x a", "1")]),
            with(&[("x\"a", "1")]),
            with(&[("", "1")]),
            with(&[("x", " 1")]),
            with(&[("x", "1\t")]),
            with(&[("x", "1\r\nhost: b.test")]),
            with(&[("x", "\0")]),
            with(&[("host", "b.test")]),
            with(&[("host", "a.test"), ("host", "a.test")]),
            with(&[("content-length", "1"), ("content-length", "1")]),
            changed(":path", ""),
            changed(":path", "a"),
            changed(":path", "*"),
            changed(":path", "?a"),
            changed(":path", "/a b"),
            changed(":path", "/a#b"),
            changed(":path", "/ HTTP/1.1\r\nX: y"),
            changed(":authority", ""),
            changed(":scheme", "ftp"),
            changed(":method", "GE T"),
            changed(":method", ""),
            changed(":method", "CONNECT"),
            with(&[("x", "1"); 11]),
        ] {
            assert!(request(&fields, false).is_err(), "{fields:?}");
        }
        let options = changed(":method", "OPTIONS");
        let options = options.into_iter().filter(|field| field.0 != ":path");
        let asterisk: Vec<_> = options.chain([(":path", "*")]).collect();
        assert!(request(&asterisk, true).is_ok());
    }

    #[test]
    fn host_stands_in_for_the_authority() {
        let fields = [&GET[..3], &[("host", "a.test")]].concat();
        assert_eq!(request(&fields, true).unwrap().authority(), b"a.test");
        let fields = [&GET[..], &[("host", "A.test")]].concat();
        assert_eq!(request(&fields, true).unwrap().authority(), b"a.test");
    }

    #[test]
    fn a_websocket_is_an_upgrade_elsewhere() {
        let ask = |protocol, more: &[(&'static str, &'static str)]| {
            let connect = [(":method", "CONNECT"), (":protocol", protocol)];
            request(&[&connect[..], &GET[1..], more].concat(), false)
        };
        let head = ask("websocket", &[]).unwrap();
        assert_eq!(
            (head.method, head.method_text()),
            (Method::Get, &b"GET"[..])
        );
        assert!(head.upgrade && head.fields.get(Id::Upgrade) == Some(b"websocket"));
        assert_eq!(ask("x", &[]).err(), Some(Refusal::Protocol));
        assert!(ask("websocket", &[("content-length", "0")]).is_err());
    }
}
