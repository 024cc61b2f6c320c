//! What is read of heads, and what is refused.

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
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n");
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

#[test]
fn letters_and_hyphens_are_told_from_all_other_bytes_at_any_place() {
    for byte in u8::MIN..=u8::MAX {
        for (at, beside) in (0..8).flat_map(|at| [b'a', 0, 0xff].map(|beside| (at, beside))) {
            let mut word = [beside; 8];
            word[at] = byte;
            let other = other_than_letters(u64::from_le_bytes(word)).to_le_bytes()[at];
            let is_one = byte.is_ascii_alphabetic() || byte == b'-';
            assert_eq!(other, if is_one { 0 } else { 0x80 }, "{word:?}");
        }
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
    fn a_token_ends_with_the_first_byte_that_may_not_stand_in_one(bytes in "[a-zA-Z_:0 ~-]{0,30}|\\PC{0,20}") {
        let end = bytes.bytes().position(|byte| !is_token_byte(byte));
        let expected = end.map(|end| (end, bytes[..end].contains('_')));
        prop_assert_eq!(token(bytes.as_bytes()), expected);
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
