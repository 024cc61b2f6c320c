//! Reading the heads of HTTP/1.1 messages (RFC 9112).
//!
//! `httparse` splits the text; what it lets pass and what two parsers could read differently is
//! refused here: a bare LF, `Content-Length` beside `Transfer-Encoding`, repeated or malformed
//! lengths, a missing or repeated `Host`, targets in the wrong form.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Status};

use super::field::{Fields, Id, Span, is_token_byte, list};
use super::host::Host;
use super::{Framing, Method, RequestHead, ResponseHead, Version};

/// Fields that are parsed on the stack; more need a heap allocation.
const USUAL_FIELDS: usize = 100;
/// Fields of a response that are let in.
const RESPONSE_FIELDS: usize = 256;

/// Why the head of a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Longer than the limit.
    #[error("the head is longer than the limit")]
    TooLong,
    /// More fields than the limit.
    #[error("the head has more fields than the limit")]
    TooManyFields,
    /// Not the grammar of RFC 9112.
    #[error("{0}")]
    Malformed(&'static str),
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A transfer coding other than `chunked` (RFC 9112, section 6.1).
    #[error("the transfer coding is not chunked")]
    TransferCoding,
}

/// Finds the end of a head in bytes that arrive piecemeal, looking at each byte once.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Everything before was looked at.
    seen: usize,
    /// Where the line that is being read begins.
    line: usize,
}

impl Scanner {
    /// The length of the head that `bytes` begins with, its last empty line included; `None` when
    /// it is not whole. `strict` refuses a bare LF as a line's end: RFC 9112, section 2.2 lets a
    /// recipient take it, and that others do not is what smuggling is made of.
    pub fn find(&mut self, bytes: &[u8], strict: bool) -> Result<Option<usize>, HeadError> {
        while let Some(offset) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let at = self.seen + offset;
            let cr = at > self.line && bytes[at - 1] == b'\r';
            if strict && !cr {
                return Err(HeadError::Malformed("a line ends with a bare LF"));
            }
            if at - usize::from(cr) == self.line {
                return Ok(Some(at + 1));
            }
            self.seen = at + 1;
            self.line = at + 1;
        }
        self.seen = bytes.len();
        Ok(None)
    }

    /// Begins anew, for the next head.
    pub const fn reset(&mut self) {
        self.seen = 0;
        self.line = 0;
    }
}

/// Reads the head of a request: exactly the bytes that [`Scanner::find`] measured.
pub fn request(head: &[u8], max_fields: usize) -> Result<RequestHead, HeadError> {
    with_headers(max_fields, |headers| parse_request(head, headers))
}

/// Reads the head of a response to a request of this method.
pub fn response(head: &[u8], to: Method) -> Result<ResponseHead, HeadError> {
    with_headers(RESPONSE_FIELDS, |headers| parse_response(head, to, headers))
}

fn with_headers<'h, T>(
    max: usize,
    parse: impl FnOnce(&mut [MaybeUninit<Header<'h>>]) -> Result<T, HeadError>,
) -> Result<T, HeadError> {
    if max <= USUAL_FIELDS {
        parse(&mut [const { MaybeUninit::uninit() }; USUAL_FIELDS][..max])
    } else {
        parse(&mut vec![MaybeUninit::uninit(); max])
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Version => Self::Version,
            httparse::Error::HeaderName => Self::Malformed("a field name is malformed"),
            httparse::Error::HeaderValue => Self::Malformed("a field value is malformed"),
            httparse::Error::NewLine => Self::Malformed("a line end is malformed"),
            httparse::Error::Status => Self::Malformed("the status is malformed"),
            httparse::Error::Token => Self::Malformed("the first line is malformed"),
        }
    }
}

const PARTIAL: HeadError = HeadError::Malformed("the head is cut short");

fn parse_request<'h>(
    head: &'h [u8],
    headers: &mut [MaybeUninit<Header<'h>>],
) -> Result<RequestHead, HeadError> {
    let mut parsed = httparse::Request::new(&mut []);
    if let Status::Partial = ParserConfig::default()
        .parse_request_with_uninit_headers(&mut parsed, head, headers)
        .map_err(|error| of_request(error, head))?
    {
        return Err(PARTIAL);
    }
    let (Some(method_text), Some(target), Some(version)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(PARTIAL);
    };
    let mut out = Importer::new(head);
    let method = Method::from_bytes(method_text.as_bytes());
    let version = if version == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let mut found = Found::default();
    for header in parsed.headers.iter() {
        found.see(out.field(header), header.value)?;
    }
    if version == Version::Http10 && found.chunked {
        return Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0")); // RFC 9112, 6.1
    }
    let framing = found.framing()?;
    let method_text = out.span(method_text.as_bytes());
    let (target, authority) = out.target(method, target.as_bytes(), &found)?;
    if found.hosts == 0 && version == Version::Http11 {
        return Err(HeadError::Malformed("there is no Host")); // RFC 9112, 3.2
    }
    let keep_alive = found.keep_alive(version);
    Ok(RequestHead {
        method,
        version,
        framing,
        method_text,
        target,
        authority,
        keep_alive,
        expects_continue: found.expects_continue && version == Version::Http11,
        upgrade: found.upgrade && found.upgrade_named && version == Version::Http11,
        accepts_trailers: found.accepts_trailers,
        fields: out.fields,
    })
}

/// A version that we do not speak is told apart from a request line with something else in the
/// version's place (RFC 9112, section 3): the client of the former can do something about it.
fn of_request(error: httparse::Error, head: &[u8]) -> HeadError {
    let end = memchr::memchr(b'\r', head).unwrap_or(head.len());
    let mut parts = head[..end].split(|&byte| byte == b' ').skip(2);
    let is_version = |text: &[u8]| {
        matches!(text, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
    };
    match (parts.next(), parts.next()) {
        (Some(version), None) if is_version(version) => error.into(),
        _ if error == httparse::Error::Version => {
            HeadError::Malformed("the first line is malformed")
        }
        _ => error.into(),
    }
}

fn parse_response<'h>(
    head: &'h [u8],
    to: Method,
    headers: &mut [MaybeUninit<Header<'h>>],
) -> Result<ResponseHead, HeadError> {
    let mut parsed = httparse::Response::new(&mut []);
    // RFC 9112, section 5.1: a proxy removes white space before the colon of a response's field.
    let mut config = ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    if let Status::Partial =
        config.parse_response_with_uninit_headers(&mut parsed, head, headers)?
    {
        return Err(PARTIAL);
    }
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(PARTIAL);
    };
    if !(100..=999).contains(&status) {
        return Err(HeadError::Malformed("the status is out of range"));
    }
    let version = if version == 0 {
        Version::Http10
    } else {
        Version::Http11
    };
    let mut out = Importer::new(head);
    let mut found = Found::default();
    for header in parsed.headers.iter() {
        found.see(out.field(header), header.value)?;
    }
    if version == Version::Http10 && found.chunked {
        return Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0"));
    }
    // RFC 9112, section 6.3, in its order.
    let delimited = found.framing()?;
    let framing = if to == Method::Head || status < 200 || status == 204 || status == 304 {
        Framing::None
    } else if found.chunked || found.length.is_some() {
        delimited
    } else {
        Framing::UntilClose
    };
    let reason = out.span(parsed.reason.unwrap_or_default().as_bytes());
    let mut fields = out.fields;
    let bodiless = status < 200 || status == 204;
    if bodiless {
        fields.remove(Id::ContentLength); // RFC 9110, section 8.6: must not be there
    }
    // A server that announces a body where there is none may send it all the same, and what comes
    // then must not be taken for the next response.
    let announced = bodiless && delimited != Framing::None;
    Ok(ResponseHead {
        status,
        reason,
        framing,
        keep_alive: found.keep_alive(version) && framing != Framing::UntilClose && !announced,
        fields,
    })
}

/// Puts the text into a [`Fields`] and finds its parts again there.
struct Importer {
    fields: Fields,
    base: usize,
    len: usize,
}

impl Importer {
    fn new(head: &[u8]) -> Self {
        // Room for what the proxy adds.
        let mut fields = Fields::with_capacity(head.len() + 320);
        fields.store(head);
        Self {
            fields,
            base: head.as_ptr() as usize,
            len: head.len(),
        }
    }

    /// Where a part of the head is now. What is not a part (an empty string of the parser's own)
    /// is stored.
    fn span(&mut self, part: &[u8]) -> Span {
        match (part.as_ptr() as usize).checked_sub(self.base) {
            Some(start) if start + part.len() <= self.len => Span::at(start, part.len()),
            _ => self.fields.store(part),
        }
    }

    fn field(&mut self, header: &Header<'_>) -> Id {
        let name = self.span(header.name.as_bytes());
        let value = self.span(header.value);
        self.fields.push_stored(name, value)
    }

    /// Target and authority (RFC 9112, section 3.2).
    fn target(
        &mut self,
        method: Method,
        target: &[u8],
        found: &Found,
    ) -> Result<(Span, Span), HeadError> {
        if memchr::memchr(b'#', target).is_some() {
            return Err(HeadError::Malformed("the target has a fragment"));
        }
        let host = self.fields.get(Id::Host).map(|host| {
            let start =
                host.as_ptr() as usize - self.fields.slice(Span::at(0, self.len)).as_ptr() as usize;
            Span::at(start, host.len())
        });
        let host = host.unwrap_or_default();
        // RFC 9112, section 3.2: whatever the target says, a Host that is none is refused.
        if !host.is_empty() && Host::parse(self.fields.slice(host)).is_none() {
            return Err(HeadError::Malformed("Host is malformed"));
        }
        match (method, target) {
            (Method::Connect, _) => {
                // Refused later, with the right status; here only the form is read.
                let target = self.span(target);
                Ok((target, target))
            }
            (_, [b'/', ..]) | (Method::Options, b"*") => {
                if found.hosts == 1 && host.is_empty() {
                    return Err(HeadError::Malformed("Host is empty"));
                }
                Ok((self.span(target), host))
            }
            _ => self.absolute(method, target),
        }
    }

    /// RFC 9112, section 3.2.2: the target's authority replaces `Host`.
    fn absolute(&mut self, method: Method, target: &[u8]) -> Result<(Span, Span), HeadError> {
        const MALFORMED: HeadError = HeadError::Malformed("the target is malformed");
        let colon = memchr::memmem::find(target, b"://").ok_or(MALFORMED)?;
        let scheme = &target[..colon];
        if !scheme.eq_ignore_ascii_case(b"https") && !scheme.eq_ignore_ascii_case(b"http") {
            return Err(MALFORMED);
        }
        let rest = &target[colon + 3..];
        let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || memchr::memchr(b'@', authority).is_some() {
            return Err(MALFORMED);
        }
        let authority = self.span(authority);
        let path = match path {
            [] if method == Method::Options => self.fields.store(b"*"),
            [] => self.fields.store(b"/"),
            [b'?', ..] => self.fields.store_with(|bytes| {
                bytes.push(b'/');
                bytes.extend_from_slice(path);
            }),
            _ => self.span(path),
        };
        Ok((path, authority))
    }
}

/// What the fields that decide about the message say together.
#[derive(Debug, Default)]
struct Found {
    length: Option<u64>,
    chunked: bool,
    hosts: u32,
    close: bool,
    keep: bool,
    upgrade: bool,
    upgrade_named: bool,
    expects_continue: bool,
    accepts_trailers: bool,
}

impl Found {
    fn see(&mut self, id: Id, value: &[u8]) -> Result<(), HeadError> {
        match id {
            Id::ContentLength => {
                if self.length.is_some() {
                    return Err(HeadError::Malformed("Content-Length is repeated"));
                }
                self.length = Some(decimal(value)?);
            }
            Id::TransferEncoding => {
                if self.chunked {
                    return Err(HeadError::Malformed("Transfer-Encoding is repeated"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(
                        match value.is_empty() || !value.iter().all(is_coding_byte) {
                            true => HeadError::Malformed("Transfer-Encoding is malformed"),
                            false => HeadError::TransferCoding,
                        },
                    );
                }
                self.chunked = true;
            }
            Id::Host => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(HeadError::Malformed("Host is repeated"));
                }
            }
            Id::Connection => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrade_named |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            Id::Upgrade => self.upgrade = true,
            Id::Expect => self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            Id::Te => {
                self.accepts_trailers |=
                    list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self) -> Result<Framing, HeadError> {
        match (self.chunked, self.length) {
            // RFC 9112, section 6.1 asks to treat it as an error; taking either would be a guess.
            (true, Some(_)) => Err(HeadError::Malformed(
                "Content-Length beside Transfer-Encoding",
            )),
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (version != Version::Http10 || self.keep)
    }
}

const fn is_coding_byte(byte: &u8) -> bool {
    is_token_byte(*byte) || matches!(*byte, b',' | b' ' | b'\t' | b';' | b'=' | b'"')
}

/// The value of `Content-Length`: `1*DIGIT` (RFC 9110, section 8.6), without sign, and within 63 bits.
///
/// # Errors
/// When it is none.
pub fn decimal(value: &[u8]) -> Result<u64, HeadError> {
    const MALFORMED: HeadError = HeadError::Malformed("Content-Length is malformed");
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    Ok(value
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn req(text: &str) -> Result<RequestHead, HeadError> {
        let bytes = text.as_bytes();
        let length = Scanner::default().find(bytes, true)?.ok_or(PARTIAL)?;
        request(&bytes[..length], 100)
    }

    fn resp(text: &str, to: Method) -> Result<ResponseHead, HeadError> {
        let bytes = text.as_bytes();
        let length = Scanner::default().find(bytes, false)?.ok_or(PARTIAL)?;
        response(&bytes[..length], to)
    }

    fn str(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_ordinary_request_is_read() {
        let head = req("GET /a?b HTTP/1.1\r\nHost: Example.com:1\r\nTE: trailers\r\n\r\n").unwrap();
        assert_eq!(head.method, Method::Get);
        assert_eq!(str(head.method_text()), "GET");
        assert_eq!(str(head.target()), "/a?b");
        assert_eq!(str(head.path()), "/a");
        assert_eq!(str(head.authority()), "Example.com:1");
        assert_eq!(head.framing, Framing::None);
        assert!(head.keep_alive && head.accepts_trailers && !head.upgrade);
    }

    #[test]
    fn ambiguous_and_malformed_requests_are_refused() {
        for (why, text) in [
            (
                "6.1 both",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "6.1 both, other order",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                "6.3 repeated length",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            ),
            (
                "6.3 list of lengths",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            ),
            (
                "sign",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            ),
            (
                "hexadecimal",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
            ),
            (
                "negative",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
            ),
            (
                "overflow",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            ),
            (
                "empty length",
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            ),
            (
                "repeated coding",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            (
                "odd coding",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            ),
            (
                "coding twice",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            ),
            (
                "vertical tab",
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            ),
            (
                "coding in 1.0",
                "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            ),
            ("3.2 no host", "GET / HTTP/1.1\r\n\r\n"),
            (
                "3.2 two hosts",
                "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            ),
            ("3.2 empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
            (
                "5.1 space before colon",
                "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            ),
            (
                "5.2 folding",
                "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            ),
            ("bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
            ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
            ("bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
            ("NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
            ("version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
            ("no version", "GET /\r\n\r\n"),
            ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("relative", "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
            (
                "user information",
                "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            ),
            ("scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("no authority", "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"),
            ("spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ] {
            assert!(req(text).is_err(), "{why}: {:?}", req(text));
        }
    }

    #[test]
    fn the_target_of_absolute_form_replaces_host() {
        for (target, path, authority) in [
            ("http://b:1/x?y", "/x?y", "b:1"),
            ("HTTPS://b", "/", "b"),
            ("https://b?y", "/?y", "b"),
        ] {
            let head = req(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap();
            assert_eq!(
                (str(head.target()), str(head.authority())),
                (path, authority)
            );
        }
        let head = req("OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!(str(head.target()), "*");
    }

    #[test]
    fn persistence_follows_version_and_connection() {
        // RFC 9112, section 9.3
        for (version, connection, expected) in [
            ("1.1", "x", true),
            ("1.1", "close", false),
            ("1.1", "Foo, CLOSE", false),
            ("1.0", "x", false),
            ("1.0", "Keep-Alive", true),
            ("1.0", "keep-alive, close", false),
        ] {
            let text =
                format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
            assert_eq!(
                req(&text).unwrap().keep_alive,
                expected,
                "{version} {connection}"
            );
        }
    }

    #[test]
    fn the_body_of_a_response_is_delimited_by_the_rules() {
        // RFC 9112, section 6.3
        for (to, text, framing) in [
            (
                Method::Head,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Framing::None,
            ),
            (
                Method::Get,
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                Framing::None,
            ),
            (
                Method::Get,
                "HTTP/1.1 204 No Content\r\n\r\n",
                Framing::None,
            ),
            (
                Method::Get,
                "HTTP/1.1 103 Early Hints\r\n\r\n",
                Framing::None,
            ),
            (
                Method::Get,
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
            ),
            (
                Method::Get,
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Framing::None,
            ),
            (
                Method::Get,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunked,
            ),
            (Method::Get, "HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose),
            (Method::Get, "HTTP/1.0 200\r\n\r\n", Framing::UntilClose),
        ] {
            assert_eq!(resp(text, to).unwrap().framing, framing, "{text}");
        }
        let head = resp("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", Method::Get).unwrap();
        assert!(!head.fields.has(Id::ContentLength));
    }

    #[test]
    fn ambiguous_responses_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "SMTP ready\r\n\r\n",
        ] {
            assert!(resp(text, Method::Get).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_head_is_found_where_it_ends_however_it_arrives(
            tail in "[a-z\r\n]{0,40}", cuts in proptest::collection::vec(0usize..80, 0..6)
        ) {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{tail}");
            let mut scanner = Scanner::default();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let found = cuts.iter().find_map(|&cut| scanner.find(&text.as_bytes()[..cut], true).unwrap());
            prop_assert_eq!(found, Some(27));
        }

        #[test]
        fn nothing_makes_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = request(&bytes, 100);
            let _ = response(&bytes, Method::Get);
            let _ = Scanner::default().find(&bytes, true);
        }

        #[test]
        fn nothing_near_a_request_makes_the_parser_panic(
            text in "(GET|POST|CONNECT|OPTIONS) [!-~]{0,20} HTTP/1\\.[01]\r\n((Host|TE|Connection|Content-Length|X):[ -~]{0,12}\r\n){0,5}\r\n"
        ) {
            let _ = req(&text);
        }
    }
}
