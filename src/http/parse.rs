//! Reading the heads of HTTP/1.1 messages (RFC 9112), in one pass over their bytes.
//!
//! What two parsers could read differently is refused here: a bare LF or CR, folded lines, spaces
//! before a colon, `Content-Length` beside `Transfer-Encoding`, repeated or malformed lengths, a
//! missing or repeated `Host`, targets in the wrong form.

use smallvec::SmallVec;

use super::field::{Fields, Id, Span, is_token_byte, list};
use super::host::Host;
use super::{Framing, Method, RequestHead, ResponseHead, Version};

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

const FIRST_LINE: HeadError = HeadError::Malformed("the first line is malformed");
const NAME: HeadError = HeadError::Malformed("a field name is malformed");
const VALUE: HeadError = HeadError::Malformed("a field value is malformed");
/// What was announced to be whole is not.
pub const CUT_SHORT: HeadError = HeadError::Malformed("the head is cut short");
const BARE_LF: HeadError = HeadError::Malformed("a line ends with a bare LF");

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
                return Err(BARE_LF);
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

    /// Whether it has looked at nothing yet.
    pub const fn is_fresh(&self) -> bool {
        self.seen == 0
    }

    /// Begins anew, for the next head.
    pub const fn reset(&mut self) {
        self.seen = 0;
        self.line = 0;
    }
}

/// What was read, and how many bytes it took; `None` while it is not whole.
pub type Parsed<T> = Result<Option<(T, usize)>, HeadError>;

/// What was read of a head that must be whole.
///
/// # Errors
/// Also when it is not.
pub fn complete<T>(parsed: Parsed<T>) -> Result<T, HeadError> {
    match parsed? {
        Some((head, _)) => Ok(head),
        None => Err(CUT_SHORT),
    }
}

/// Takes what is there, or says that the head is not whole.
macro_rules! whole {
    ($found:expr) => {
        match $found {
            Some(found) => found,
            None => return Ok(None),
        }
    };
}

/// Reads the head of a request.
pub fn request(bytes: &[u8], max_fields: usize) -> Parsed<RequestHead> {
    let mut text = Text { bytes, at: 0 };
    let method_end = whole!(token(bytes)).0;
    if method_end == 0 || bytes[method_end] != b' ' {
        return Err(FIRST_LINE);
    }
    let method = Method::from_bytes(&bytes[..method_end]);
    text.at = method_end + 1;
    let start = text.at;
    let end = whole!(text.visible());
    if bytes[end] != b' ' {
        return Err(FIRST_LINE);
    }
    let target = &bytes[start..end];
    if target.is_empty() || (!target.is_ascii() && std::str::from_utf8(target).is_err()) {
        return Err(FIRST_LINE);
    }
    text.at = end + 1;
    let Some(version) = whole!(text.version()) else {
        return Err(whole!(text.unknown_version()));
    };
    whole!(text.line_end(true, FIRST_LINE)?);

    let mut section = Section::default();
    whole!(section.read(&mut text, max_fields, true)?);
    let Section { fields, found, .. } = &mut section;
    if version == Version::Http10 && found.chunked {
        return Err(HeadError::Malformed("Transfer-Encoding in HTTP/1.0")); // RFC 9112, 6.1
    }
    let framing = found.framing()?;
    fields.store(&bytes[..text.at]);
    let target = Span::at(start, end - start);
    let (target, authority) = section.target(method, target, bytes)?;
    let fields = section.mended(bytes);
    let found = section.found;
    if found.host.is_none() && version == Version::Http11 {
        return Err(HeadError::Malformed("there is no Host")); // RFC 9112, 3.2
    }
    let head = RequestHead {
        method,
        version,
        framing,
        method_text: Span::at(0, method_end),
        target,
        authority,
        keep_alive: found.keep_alive(version),
        expects_continue: found.expects_continue && version == Version::Http11,
        upgrade: found.upgrade && found.upgrade_named && version == Version::Http11,
        accepts_trailers: found.accepts_trailers,
        fields,
    };
    Ok(Some((head, text.at)))
}

/// Reads the head of a response to a request of this method.
pub fn response(bytes: &[u8], to: Method) -> Parsed<ResponseHead> {
    let mut text = Text { bytes, at: 0 };
    let Some(version) = whole!(text.version()) else {
        return Err(HeadError::Version);
    };
    let digits = whole!(bytes.get(text.at..text.at + 4));
    let [b' ', digits @ ..] = digits else {
        return Err(HeadError::Malformed("the status is malformed"));
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Malformed("the status is malformed"));
    }
    let status = (digits.iter()).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    if status < 100 {
        return Err(HeadError::Malformed("the status is out of range"));
    }
    text.at += 4;
    let mut reason = text.at;
    if *whole!(bytes.get(reason)) == b' ' {
        reason += 1;
    }
    text.at = reason;
    let end = whole!(text.printable());
    // Without a space there is nothing but the end of the line.
    if end > reason && bytes[reason - 1] != b' ' {
        return Err(HeadError::Malformed("the status is malformed"));
    }
    text.at = end;
    whole!(text.line_end(false, FIRST_LINE)?);

    let mut section = Section::default();
    whole!(section.read(&mut text, RESPONSE_FIELDS, false)?);
    let Section { fields, found, .. } = &mut section;
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
    let keep_alive = found.keep_alive(version);
    fields.store(&bytes[..text.at]);
    let mut fields = section.mended(bytes);
    let bodiless = status < 200 || status == 204;
    if bodiless {
        fields.remove(Id::ContentLength); // RFC 9110, section 8.6: must not be there
    }
    // A server that announces a body where there is none may send it all the same, and what comes
    // then must not be taken for the next response.
    let announced = bodiless && delimited != Framing::None;
    let head = ResponseHead {
        status,
        reason: Span::at(reason, end - reason),
        framing,
        keep_alive: keep_alive && framing != Framing::UntilClose && !announced,
        fields,
    };
    Ok(Some((head, text.at)))
}

/// Reads a trailer section (RFC 9112, section 7.1.2).
pub fn trailers(bytes: &[u8], max_fields: usize) -> Parsed<Fields> {
    let mut text = Text { bytes, at: 0 };
    let mut section = Section::default();
    whole!(section.read(&mut text, max_fields, true)?);
    section.fields.store(&bytes[..text.at]);
    Ok(Some((section.mended(bytes), text.at)))
}

/// The bytes of a head, and how far they were read.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Text<'_> {
    /// The first byte from here on that is neither visible nor beyond ASCII.
    fn visible(&self) -> Option<usize> {
        until::<0x21>(self.bytes, self.at)
    }

    /// The first control character from here on, other than a tab.
    fn printable(&self) -> Option<usize> {
        let mut at = self.at;
        loop {
            at = until::<0x20>(self.bytes, at)?;
            if self.bytes[at] != b'\t' {
                return Some(at);
            }
            at += 1;
        }
    }

    /// The version that stands here; `Some(None)` where it is another one, or none at all.
    fn version(&mut self) -> Option<Option<Version>> {
        let version = match self.bytes.get(self.at..self.at + 8)? {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            _ => return Some(None),
        };
        self.at += 8;
        Some(Some(version))
    }

    /// A version that we do not speak is told apart from a request line with something else in the
    /// version's place (RFC 9112, section 3): the client of the former can do something about it.
    fn unknown_version(&self) -> Option<HeadError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
        Some(match &rest[..end] {
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                HeadError::Version
            }
            _ => FIRST_LINE,
        })
    }

    /// Passes the end of a line, which must be here.
    fn line_end(&mut self, strict: bool, otherwise: HeadError) -> Result<Option<()>, HeadError> {
        let length = match &self.bytes[self.at..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] if strict => return Err(BARE_LF),
            [b'\n', ..] => 1,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(otherwise),
        };
        self.at += length;
        Ok(Some(()))
    }

    /// Passes spaces and tabs.
    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }
}

/// The first byte from `at` on that is below `LEAST`, or DEL. Eight at a time.
fn until<const LEAST: u8>(bytes: &[u8], at: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let mut rest = bytes.get(at..)?;
    while let Some((word, behind)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit that is set is right; those above it may be borrowed.
        let below = word.wrapping_sub(u64::from(LEAST) * ONES) & !word & HIGH;
        let other = word ^ (0x7f * ONES);
        let delete = other.wrapping_sub(ONES) & !other & HIGH;
        let found = below | delete;
        if found != 0 {
            let offset = found.trailing_zeros() as usize / 8;
            return Some(bytes.len() - rest.len() + offset);
        }
        rest = behind;
    }
    let found = |&byte: &u8| byte < LEAST || byte == 0x7f;
    let offset = rest.iter().position(found)?;
    Some(bytes.len() - rest.len() + offset)
}

/// What bytes are in a token.
const PLAIN: u8 = 1;
const UNDERSCORE: u8 = 2;
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)] // below 256
        if is_token_byte(byte as u8) {
            kinds[byte] = PLAIN;
        }
        byte += 1;
    }
    kinds[b'_' as usize] = UNDERSCORE;
    kinds
};

/// How long the token is that begins here, and whether it has an underscore; `None` where its end is
/// not there yet.
fn token(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut kinds = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match KINDS[usize::from(*byte)] {
            0 => return Some((at, kinds & UNDERSCORE != 0)),
            kind => kinds |= kind,
        }
    }
    None
}

/// A section of fields, as it is read.
#[derive(Default)]
struct Section {
    fields: Fields,
    found: Found,
    /// Fields whose lines are not as they are to be sent: which, name and value.
    loose: SmallVec<[(usize, Span, Span); 2]>,
}

impl Section {
    /// Reads fields and the empty line behind them. `strict` is for requests: RFC 9112, section 5.1
    /// has white space before a colon refused there and removed from a response.
    fn read(
        &mut self,
        text: &mut Text<'_>,
        max: usize,
        strict: bool,
    ) -> Result<Option<()>, HeadError> {
        // Room for what the proxy adds.
        self.fields = Fields::with_capacity(text.bytes.len().min(2048) + 320);
        let bytes = text.bytes;
        let mut count = 0;
        loop {
            if matches!(whole!(bytes.get(text.at)), b'\r' | b'\n') {
                return text.line_end(strict, NAME);
            }
            if count == max {
                return Err(HeadError::TooManyFields);
            }
            let start = text.at;
            let (name, underscore) = whole!(token(&bytes[start..]));
            text.at += name;
            if !strict {
                text.skip_blanks();
            }
            if name == 0 || *whole!(bytes.get(text.at)) != b':' {
                return Err(NAME);
            }
            text.at += 1;
            text.skip_blanks();
            let value = text.at;
            text.at = whole!(text.printable());
            let end = text.at;
            whole!(text.line_end(strict, VALUE)?);
            let trimmed = match bytes[end - 1] {
                b' ' | b'\t' => value + bytes[value..end].trim_ascii_end().len(),
                _ => end,
            };
            let id = Id::of(&bytes[start..start + name]);
            self.found.see(id, &bytes[value..trimmed], value)?;
            if underscore {
                self.fields.expect_underscores();
            }
            self.fields.expect(id, start, name, trimmed);
            let is_as_sent = value == start + name + 2
                && bytes[value - 1] == b' '
                && trimmed == end
                && bytes[end] == b'\r';
            if !is_as_sent {
                let (name, value) = (Span::at(start, name), Span::at(value, trimmed - value));
                self.loose.push((count, name, value));
            }
            count += 1;
        }
    }

    /// The fields, each in a line as it is to be sent.
    fn mended(&mut self, bytes: &[u8]) -> Fields {
        for (at, name, value) in self.loose.drain(..) {
            self.fields.mend(at, name.of(bytes), value.of(bytes));
        }
        std::mem::take(&mut self.fields)
    }

    /// Target and authority (RFC 9112, section 3.2).
    fn target(
        &mut self,
        method: Method,
        target: Span,
        bytes: &[u8],
    ) -> Result<(Span, Span), HeadError> {
        let text = target.of(bytes);
        if memchr::memchr(b'#', text).is_some() {
            return Err(HeadError::Malformed("the target has a fragment"));
        }
        let host = self.found.host.unwrap_or_default();
        // RFC 9112, section 3.2: whatever the target says, a Host that is none is refused.
        if !host.is_empty() && !Host::is_one(host.of(bytes)) {
            return Err(HeadError::Malformed("Host is malformed"));
        }
        match (method, text) {
            // Refused later, with the right status; here only the form is read.
            (Method::Connect, _) => Ok((target, target)),
            (_, [b'/', ..]) | (Method::Options, b"*") => {
                if self.found.host.is_some() && host.is_empty() {
                    return Err(HeadError::Malformed("Host is empty"));
                }
                Ok((target, host))
            }
            _ => self.absolute(method, target, bytes),
        }
    }

    /// RFC 9112, section 3.2.2: the target's authority replaces `Host`.
    fn absolute(
        &mut self,
        method: Method,
        target: Span,
        bytes: &[u8],
    ) -> Result<(Span, Span), HeadError> {
        const MALFORMED: HeadError = HeadError::Malformed("the target is malformed");
        let text = target.of(bytes);
        let colon = memchr::memmem::find(text, b"://").ok_or(MALFORMED)?;
        let scheme = &text[..colon];
        if !scheme.eq_ignore_ascii_case(b"https") && !scheme.eq_ignore_ascii_case(b"http") {
            return Err(MALFORMED);
        }
        let rest = &text[colon + 3..];
        let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || memchr::memchr(b'@', authority).is_some() {
            return Err(MALFORMED);
        }
        let authority = target.part(colon + 3, end);
        let path = match path {
            [] if method == Method::Options => self.fields.store(b"*"),
            [] => self.fields.store(b"/"),
            [b'?', ..] => self.fields.store_with(|stored| {
                stored.push(b'/');
                stored.extend_from_slice(path);
            }),
            _ => target.part(colon + 3 + end, path.len()),
        };
        Ok((path, authority))
    }
}

/// What the fields that decide about the message say together.
#[derive(Debug, Default)]
struct Found {
    length: Option<u64>,
    chunked: bool,
    host: Option<Span>,
    close: bool,
    keep: bool,
    upgrade: bool,
    upgrade_named: bool,
    expects_continue: bool,
    accepts_trailers: bool,
}

impl Found {
    /// `at`: where the value stands.
    fn see(&mut self, id: Id, value: &[u8], at: usize) -> Result<(), HeadError> {
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
                if self.host.is_some() {
                    return Err(HeadError::Malformed("Host is repeated"));
                }
                self.host = Some(Span::at(at, value.len()));
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

    fn all<T>(text: &str, parsed: Parsed<T>) -> Result<T, HeadError> {
        let (head, length) = parsed?.ok_or(HeadError::Malformed("it is cut short"))?;
        assert_eq!(length, text.len(), "{text:?}");
        Ok(head)
    }

    fn req(text: &str) -> Result<RequestHead, HeadError> {
        all(text, request(text.as_bytes(), 100))
    }

    fn resp(text: &str, to: Method) -> Result<ResponseHead, HeadError> {
        all(text, response(text.as_bytes(), to))
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

    const NEAR_A_REQUEST: &str = "(GET|POST|CONNECT|OPTIONS|X-Y) [!-~]{0,20} HTTP/1\\.[01]\r\n((Host|TE|Connection|Content-Length|X|x_y): {0,2}[ -~\t]{0,12}\r\n){0,5}\r\n";

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
        fn a_head_that_comes_in_pieces_is_not_read_before_it_is_whole(text in NEAR_A_REQUEST) {
            if let Ok(Some((_, length))) = request(text.as_bytes(), 100) {
                for end in 0..length {
                    prop_assert!(matches!(request(&text.as_bytes()[..end], 100), Ok(None)));
                }
            }
        }

        #[test]
        fn another_parser_reads_the_same_in_requests(text in NEAR_A_REQUEST, byte in any::<u8>(), at in 0usize..90) {
            let mut bytes = text.into_bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let mut theirs = httparse::Request::new(&mut headers);
            let read = theirs.parse(&bytes);
            match request(&bytes, 100) {
                Ok(Some((ours, length))) => {
                    prop_assert_eq!(read, Ok(httparse::Status::Complete(length)));
                    prop_assert_eq!(theirs.method.map(str::as_bytes), Some(ours.method_text()));
                    prop_assert!(theirs.headers.iter().map(|it| (it.name.as_bytes(), it.value)).eq(
                        ours.fields.iter().map(|(_, name, value)| (name, value))
                    ));
                }
                Ok(None) => prop_assert!(matches!(read, Ok(httparse::Status::Partial)) || !bytes.ends_with(b"\r\n\r\n")),
                // We are stricter.
                Err(_) => {}
            }
        }

        #[test]
        fn what_another_parser_lets_in_is_refused_for_what_it_says_only(fields in "((X|Y_z|a):[ \t]{0,2}([!-~\u{80}-\u{ff}][ \t]?){0,40}\r\n){0,5}", version in "HTTP/1\\.[01]", status in 100u16..1000) {
            let text = format!("GET /{{}} {version}\r\nHost: a\r\n{fields}\r\n");
            let mut headers = [httparse::EMPTY_HEADER; 100];
            let read = httparse::Request::new(&mut headers).parse(text.as_bytes());
            prop_assert_eq!(read, Ok(httparse::Status::Complete(text.len())));
            prop_assert!(req(&text).is_ok());
            for reason in ["", " ", " Very Fine"] {
                let text = format!("{version} {status}{reason}\r\n{fields}\r\n");
                let mut headers = [httparse::EMPTY_HEADER; 100];
                let read = httparse::Response::new(&mut headers).parse(text.as_bytes());
                prop_assert_eq!(read, Ok(httparse::Status::Complete(text.len())));
                prop_assert!(resp(&text, Method::Get).is_ok());
            }
        }

        #[test]
        fn a_section_is_written_as_it_is_to_be_read(text in NEAR_A_REQUEST) {
            if let Ok(Some((head, _))) = request(text.as_bytes(), 100) {
                let mut lines = Vec::new();
                head.fields.write(&mut lines, Default::default());
                let expected: Vec<u8> = head.fields.iter().flat_map(|(_, name, value)| {
                    [name, b": ", value, b"\r\n"].concat()
                }).collect();
                prop_assert_eq!(lines, expected);
            }
        }
    }
}
