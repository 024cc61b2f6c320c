//! One request as one line.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use time::OffsetDateTime;

use super::Form;

/// What is known of a request when it is over. Bytes are what a client or server sent and may be
/// anything at all; they are written as text, with what is not text replaced.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request came, since the epoch; see [`super::now`].
    pub time: Duration,
    /// The client, after a PROXY header.
    pub client: IpAddr,
    /// Of the request line or `:method`.
    pub method: &'a [u8],
    /// Path and query, or the authority of a `CONNECT`.
    pub target: &'a [u8],
    /// `HTTP/1.1`, `HTTP/2.0` …
    pub protocol: &'a str,
    /// The name that the client asked for, empty if it gave none.
    pub host: &'a [u8],
    /// The first name of the site that answered.
    pub site: Option<&'a str>,
    /// Who the client has shown to be.
    pub user: Option<&'a [u8]>,
    /// The status that was sent.
    pub status: u16,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// From the head of the request to the end of the response.
    pub duration: Duration,
    /// The server that answered, or was tried last.
    pub upstream: Option<&'a str>,
    /// From choosing a server to the head of its response.
    pub upstream_duration: Option<Duration>,
    /// `1.2` or `1.3`; absent for plain text.
    pub tls: Option<&'a str>,
    /// The name that the TLS handshake asked for.
    pub sni: Option<&'a str>,
    /// The cipher suite, as IANA has it.
    pub cipher: Option<&'a str>,
    /// The group that keys were agreed on with.
    pub group: Option<&'a str>,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// What the client's greeting looks like, where that is asked for.
    pub ja4: Option<&'a str>,
    /// SHA-256 of the client's certificate, where that is good.
    pub client_certificate: Option<&'a str>,
    /// The header field of that name.
    pub referer: Option<&'a [u8]>,
    /// The header field of that name.
    pub user_agent: Option<&'a [u8]>,
    /// What the request is known by elsewhere.
    pub request_id: Option<&'a [u8]>,
    /// The trace that the request is in (W3C Trace Context).
    pub trace_id: Option<&'a [u8]>,
    /// Why staunch answered itself, or broke off.
    pub error: Option<&'a str>,
}

impl Record<'_> {
    /// Nothing known; to be filled in.
    pub const EMPTY: Self = Self {
        time: Duration::ZERO,
        client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        method: b"",
        target: b"",
        protocol: "",
        host: b"",
        site: None,
        user: None,
        status: 0,
        received: 0,
        sent: 0,
        duration: Duration::ZERO,
        upstream: None,
        upstream_duration: None,
        tls: None,
        sni: None,
        cipher: None,
        group: None,
        resumed: false,
        ja4: None,
        client_certificate: None,
        referer: None,
        user_agent: None,
        request_id: None,
        trace_id: None,
        error: None,
    };
}

/// Writes records into a buffer that it keeps, so that after the first ones nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Formatter {
    line: Vec<u8>,
    json_time: Stamp,
    combined_time: Stamp,
}

impl Formatter {
    /// The line, with its line feed.
    pub(super) fn line(&mut self, record: &Record<'_>, form: Form) -> &[u8] {
        self.line.clear();
        match form {
            Form::Json => self.json(record),
            Form::Combined => self.combined(record),
        }
        self.line.push(b'\n');
        &self.line
    }

    fn json(&mut self, record: &Record<'_>) {
        let line = &mut self.line;
        line.extend_from_slice(b"{\"time\":\"");
        let seconds = record.time.as_secs();
        line.extend_from_slice(self.json_time.at(seconds, iso));
        line.push(b'.');
        digits(line, u64::from(record.time.subsec_millis()), 3);
        // Writing to a Vec cannot fail; the results below are dropped for that reason.
        let _ = write!(line, "Z\",\"client\":\"{}\"", record.client);
        text(line, ",\"method\":", record.method);
        text(line, ",\"target\":", record.target);
        text(line, ",\"protocol\":", record.protocol.as_bytes());
        text(line, ",\"host\":", record.host);
        optional(line, ",\"site\":", record.site.map(str::as_bytes));
        optional(line, ",\"user\":", record.user);
        number(line, ",\"status\":", u64::from(record.status));
        number(line, ",\"received\":", record.received);
        number(line, ",\"sent\":", record.sent);
        number(line, ",\"duration_us\":", micros(record.duration));
        optional(line, ",\"upstream\":", record.upstream.map(str::as_bytes));
        if let Some(took) = record.upstream_duration {
            number(line, ",\"upstream_us\":", micros(took));
        }
        optional(line, ",\"tls\":", record.tls.map(str::as_bytes));
        optional(line, ",\"sni\":", record.sni.map(str::as_bytes));
        optional(line, ",\"cipher\":", record.cipher.map(str::as_bytes));
        optional(line, ",\"group\":", record.group.map(str::as_bytes));
        if record.resumed {
            line.extend_from_slice(b",\"resumed\":true");
        }
        optional(line, ",\"ja4\":", record.ja4.map(str::as_bytes));
        let shown = record.client_certificate.map(str::as_bytes);
        optional(line, ",\"client_certificate\":", shown);
        optional(line, ",\"referer\":", record.referer);
        optional(line, ",\"user_agent\":", record.user_agent);
        optional(line, ",\"request_id\":", record.request_id);
        optional(line, ",\"trace_id\":", record.trace_id);
        optional(line, ",\"error\":", record.error.map(str::as_bytes));
        line.push(b'}');
    }

    fn combined(&mut self, record: &Record<'_>) {
        let line = &mut self.line;
        let _ = write!(line, "{} - ", record.client);
        plain(line, record.user.unwrap_or_default());
        line.extend_from_slice(b" [");
        line.extend_from_slice(self.combined_time.at(record.time.as_secs(), common));
        line.extend_from_slice(b" +0000] \"");
        plain(line, record.method);
        line.push(b' ');
        plain(line, record.target);
        line.push(b' ');
        plain(line, record.protocol.as_bytes());
        number(line, "\" ", u64::from(record.status));
        number(line, " ", record.sent);
        quoted(line, record.referer);
        quoted(line, record.user_agent);
        quoted(line, Some(record.host));
        number(line, " ", record.duration.as_secs());
        line.push(b'.');
        digits(line, u64::from(record.duration.subsec_millis()), 3);
        quoted(line, record.upstream.map(str::as_bytes));
        quoted(line, record.site.map(str::as_bytes));
        quoted(line, record.error.map(str::as_bytes));
    }
}

/// Bytes of a field that are written; the rest is cut off and replaced by `…`.
const MOST: usize = 4096;

/// A second as text, made anew when another second has come.
#[derive(Debug, Default)]
struct Stamp {
    second: u64,
    text: Vec<u8>,
}

impl Stamp {
    fn at(&mut self, second: u64, write: fn(&mut Vec<u8>, OffsetDateTime)) -> &[u8] {
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let at = i64::try_from(second).ok();
            let at = at.and_then(|second| OffsetDateTime::from_unix_timestamp(second).ok());
            write(&mut self.text, at.unwrap_or(OffsetDateTime::UNIX_EPOCH));
        }
        &self.text
    }
}

/// `2024-06-05T00:00:00`
fn iso(text: &mut Vec<u8>, at: OffsetDateTime) {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = u8::from(month);
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
    );
}

/// `05/Jun/2024:00:00:00`
fn common(text: &mut Vec<u8>, at: OffsetDateTime) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = MONTHS[usize::from(u8::from(month)) - 1];
    let _ = write!(
        text,
        "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02}"
    );
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn number(line: &mut Vec<u8>, before: &str, value: u64) {
    line.extend_from_slice(before.as_bytes());
    digits(line, value, 1);
}

/// A number with leading zeros up to `width` digits. Half of a line's cost would be `write!`.
fn digits(line: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut buffer = [b'0'; 20];
    let mut first = buffer.len();
    while value > 0 || first > buffer.len() - width {
        first -= 1;
        buffer[first] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    line.extend_from_slice(&buffer[first..]);
}

fn optional(line: &mut Vec<u8>, before: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        text(line, before, value);
    }
}

/// A JSON string (RFC 8259, section 7).
fn text(line: &mut Vec<u8>, before: &str, value: &[u8]) {
    line.extend_from_slice(before.as_bytes());
    line.push(b'"');
    if value.len() <= MOST && value.iter().all(|byte| is_plain(*byte)) {
        line.extend_from_slice(value);
    } else {
        escaped(line, &value[..value.len().min(MOST)]);
        if value.len() > MOST {
            line.extend_from_slice("…".as_bytes());
        }
    }
    line.push(b'"');
}

/// What nearly all values consist of, and no form has to escape.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// The inside of a JSON string, of bytes that are hopefully UTF-8.
fn escaped(line: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => line.extend([b'\\', c as u8]),
                c if is_hidden(c) => {
                    let _ = write!(line, "\\u{:04x}", u32::from(c));
                }
                c => {
                    let mut buffer = [0; 4];
                    line.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                }
            }
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice(b"\\ufffd");
        }
    }
}

/// Characters that would move, colour or reverse what a terminal or a viewer shows: controls, line
/// and paragraph separators, and the bidirectional overrides. All are below U+10000.
const fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\x1f' | '\x7f'..='\u{9f}'
        | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// ` "…"`, or ` "-"` for what is not known.
fn quoted(line: &mut Vec<u8>, value: Option<&[u8]>) {
    line.extend_from_slice(b" \"");
    plain(line, value.unwrap_or_default());
    line.push(b'"');
}

/// As nginx writes a variable: `-` when empty, and `\xHH` for all that is not plain ASCII.
fn plain(line: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        line.push(b'-');
    }
    for byte in value.iter().take(MOST) {
        match byte {
            byte if is_plain(*byte) => line.push(*byte),
            byte => {
                let _ = write!(line, "\\x{byte:02X}");
            }
        }
    }
    if value.len() > MOST {
        line.extend_from_slice(b"...");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record<'static> {
        Record {
            time: Duration::from_millis(1_717_545_600_042),
            client: "2001:db8::1".parse().unwrap(),
            method: b"GET",
            target: b"/a?b=c",
            protocol: "HTTP/2.0",
            host: b"a.test",
            site: Some("a.test"),
            user: None,
            status: 502,
            received: 0,
            sent: 1234,
            duration: Duration::from_micros(2_003_400),
            upstream: Some("http://127.0.0.1:8080"),
            upstream_duration: Some(Duration::from_micros(900)),
            tls: Some("1.3"),
            sni: Some("a.test"),
            cipher: Some("TLS_AES_128_GCM_SHA256"),
            group: Some("X25519MLKEM768"),
            resumed: true,
            ja4: Some("t13d1516h2_8daaf6152771_e5627efa2ab1"),
            client_certificate: None,
            referer: None,
            user_agent: Some(b"curl/8"),
            request_id: None,
            trace_id: None,
            error: Some("upstream_connect: refused"),
        }
    }

    fn line(record: &Record<'_>, form: Form) -> String {
        let mut formatter = Formatter::default();
        String::from_utf8(formatter.line(record, form).to_vec()).unwrap()
    }

    #[test]
    fn a_record_as_json() {
        let expected = concat!(
            r#"{"time":"2024-06-05T00:00:00.042Z","client":"2001:db8::1","method":"GET","#,
            r#""target":"/a?b=c","protocol":"HTTP/2.0","host":"a.test","site":"a.test","#,
            r#""status":502,"received":0,"sent":1234,"duration_us":2003400,"#,
            r#""upstream":"http://127.0.0.1:8080","upstream_us":900,"tls":"1.3","#,
            r#""sni":"a.test","cipher":"TLS_AES_128_GCM_SHA256","group":"X25519MLKEM768","#,
            r#""resumed":true,"ja4":"t13d1516h2_8daaf6152771_e5627efa2ab1","#,
            r#""user_agent":"curl/8","error":"upstream_connect: refused"}"#,
            "\n"
        );
        assert_eq!(line(&record(), Form::Json), expected);
    }

    #[test]
    fn a_record_in_the_combined_form() {
        let expected = concat!(
            r#"2001:db8::1 - - [05/Jun/2024:00:00:00 +0000] "GET /a?b=c HTTP/2.0" 502 1234 "#,
            r#""-" "curl/8" "a.test" 2.003 "http://127.0.0.1:8080" "a.test" "#,
            r#""upstream_connect: refused""#,
            "\n"
        );
        assert_eq!(line(&record(), Form::Combined), expected);
    }

    #[test]
    fn the_time_moves_on_with_the_records() {
        let mut formatter = Formatter::default();
        for (millis, expected) in [
            (999, "1970-01-01T00:00:00.999Z"),
            (1_000, "1970-01-01T00:00:01.000Z"),
            (0, "1970-01-01T00:00:00.000Z"),
        ] {
            let time = Duration::from_millis(millis);
            let line = formatter.line(&Record { time, ..record() }, Form::Json);
            let line = String::from_utf8_lossy(line);
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn a_long_field_is_cut() {
        let target = vec![b'a'; 70_000];
        let record = Record {
            target: &target,
            ..record()
        };
        assert!(line(&record, Form::Json).len() < MOST + 500);
        assert!(line(&record, Form::Combined).len() < MOST + 500);
    }

    /// A few bytes that matter, among any.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let telling = prop::sample::select(b"\"\\\n\r\0\x1b{}\xff\xc2\x85\xe2\x80\xae".to_vec());
        prop::collection::vec(prop_oneof![telling, any::<u8>()], 0..64)
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_is_one_line(
            target in hostile(), agent in hostile(), host in hostile(), method in hostile(),
        ) {
            let hostile = Record {
                method: &method,
                target: &target,
                host: &host,
                user_agent: Some(&agent),
                ..record()
            };
            for form in [Form::Json, Form::Combined] {
                let line = line(&hostile, form);
                let body = line.strip_suffix('\n').unwrap();
                prop_assert!(!body.chars().any(is_hidden), "{:?}", body);
            }
            let value: serde_json::Value = serde_json::from_str(&line(&hostile, Form::Json))?;
            let read = [&value["target"], &value["user_agent"], &value["host"], &value["method"]];
            for (read, sent) in read.into_iter().zip([&target, &agent, &host, &method]) {
                prop_assert_eq!(read.as_str(), Some(&*String::from_utf8_lossy(sent)));
            }
            let combined = line(&hostile, Form::Combined);
            prop_assert!(combined.is_ascii());
            prop_assert_eq!(combined.matches('"').count(), 14);
        }
    }
}
