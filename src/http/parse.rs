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

/// Each byte of a word is 1, and the highest bit of each.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// The first byte from `at` on that is below `LEAST`, or DEL. Eight at a time.
fn until<const LEAST: u8>(bytes: &[u8], at: usize) -> Option<usize> {
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
    let (mut at, mut kinds) = (0, 0);
    // Nearly all names are letters and hyphens.
    while let Some(word) = bytes[at..].first_chunk() {
        let others = other_than_letters(u64::from_le_bytes(*word));
        at += others.trailing_zeros() as usize / 8;
        if others != 0 {
            break;
        }
    }
    for byte in &bytes[at..] {
        match KINDS[usize::from(*byte)] {
            0 => return Some((at, kinds & UNDERSCORE != 0)),
            kind => kinds |= kind,
        }
        at += 1;
    }
    None
}

/// The bytes of a word, by their highest bits, that are neither letters nor hyphens.
const fn other_than_letters(word: u64) -> u64 {
    // No sum of a byte reaches the next one.
    let low = word & !HIGH;
    let lower = low | (0x20 * ONES);
    let letter = (lower + 0x1f * ONES) & !(lower + 0x05 * ONES);
    let hyphen = !((low ^ (b'-' as u64 * ONES)) + 0x7f * ONES);
    !((letter | hyphen) & !word) & HIGH
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
        if self.found.names {
            self.fields.expect_names();
        }
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
        match (method, text) {
            // What it is, is found out where its site is.
            (_, [b'/', ..]) | (Method::Options, b"*") => {
                if self.found.host.is_some() && host.is_empty() {
                    return Err(HeadError::Malformed("Host is empty"));
                }
                Ok((target, host))
            }
            // RFC 9112, section 3.2: whatever the target says, a Host that is none is refused.
            _ if !host.is_empty() && !Host::is_one(host.of(bytes)) => {
                Err(HeadError::Malformed("Host is malformed"))
            }
            // Refused later, with the right status; here only the form is read.
            (Method::Connect, _) => Ok((target, target)),
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
    /// `Connection` names something else.
    names: bool,
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
                    if option.eq_ignore_ascii_case(b"keep-alive") {
                        self.keep = true;
                    } else if option.eq_ignore_ascii_case(b"close") {
                        self.close = true;
                    } else if option.eq_ignore_ascii_case(b"upgrade") {
                        self.upgrade_named = true;
                    } else {
                        self.names = true;
                    }
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
mod tests;
