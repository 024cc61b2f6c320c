// What must hold whatever bytes are read as HTTP. Included by the fuzz targets and by the test that
// runs their corpus, so that both ask the same.

use staunch::http::framing::{Decoder, Front};
use staunch::http::host::Host;
use staunch::http::parse::{self, Scanner};
use staunch::http::{Framing, Method, RequestHead, encode};
use staunch::proxy::headers::{Hop, to_upstream};

/// Reads the bytes as the head of a request. One that is taken means the same to us when it comes
/// back from us as an upstream gets it, and to another parser.
fn request_head(bytes: &[u8]) {
    let _ = parse::response(bytes, Method::Get);
    if let Ok(Some((head, length))) = parse::request(bytes, 100) {
        assert_eq!(Scanner::default().find(bytes, true), Ok(Some(length)));
        means_the_same(head);
    }
}

/// Sends a request on as HTTP/1.1, and reads what was sent.
fn means_the_same(mut head: RequestHead) {
    if matches!(head.method, Method::Connect | Method::Trace) || Host::parse(head.authority()).is_none()
    {
        return; // refused before it is sent anywhere
    }
    let hop = Hop {
        client: [192, 0, 2, 1].into(),
        trusted: false,
        scheme: "https",
    };
    let upgrade = to_upstream(&mut head, hop);
    let mut out = Vec::new();
    let chunked = head.framing == Framing::Chunked;
    encode::request(&mut out, &head, chunked, upgrade.as_deref());
    let text = String::from_utf8_lossy(&out);
    let end = Scanner::default().find(&out, true);
    assert_eq!(end, Ok(Some(out.len())), "{text:?}");
    assert!(!out.contains(&0), "{text:?}");
    let read = parse::complete(parse::request(&out, 200)).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!(read.method_text(), head.method_text(), "{text:?}");
    assert_eq!(read.target(), head.target(), "{text:?}");
    assert_eq!(read.authority(), head.authority(), "{text:?}");
    assert_eq!(read.framing, head.framing, "{text:?}");
    another_parser_agrees(&out, &read);
}

fn another_parser_agrees(bytes: &[u8], ours: &RequestHead) {
    let text = String::from_utf8_lossy(bytes);
    let mut fields = [httparse::EMPTY_HEADER; 200];
    let mut theirs = httparse::Request::new(&mut fields);
    let read = theirs.parse(bytes);
    assert_eq!(read, Ok(httparse::Status::Complete(bytes.len())), "{text:?}");
    assert_eq!(theirs.method.map(str::as_bytes), Some(ours.method_text()));
    assert_eq!(theirs.path.map(str::as_bytes), Some(ours.target()));
    let count = |name: &str| {
        let named = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case(name);
        theirs.headers.iter().filter(named).count()
    };
    assert_eq!(count("host"), 1, "{text:?}");
    assert!(count("content-length") + count("transfer-encoding") <= 1, "{text:?}");
}

/// Reads the bytes as a chunked body. However it is cut into pieces, it is the same body, or the
/// same refusal.
fn chunked_body(bytes: &[u8]) {
    let whole = decode(bytes, usize::MAX);
    for piece in [1, 2, 7] {
        assert_eq!(decode(bytes, piece), whole, "in pieces of {piece}");
    }
    if let Some((body, _)) = whole {
        assert!(body.len() < bytes.len().max(1));
    }
}

/// The body and what its end left over; `None` where it is refused or not whole.
fn decode(bytes: &[u8], piece: usize) -> Option<(Vec<u8>, usize)> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut body, mut at, mut seen) = (Vec::new(), 0, 0);
    loop {
        let (framing, front) = decoder.front(&bytes[at..seen]).ok()?;
        at += framing;
        match front {
            Front::End => return Some((body, bytes.len() - at)),
            Front::Data(count) => {
                assert!(count > 0 && at + count <= seen);
                body.extend_from_slice(&bytes[at..at + count]);
                decoder.took(count);
                at += count;
            }
            Front::Partial if seen == bytes.len() => {
                assert!(decoder.closed().is_err(), "what is not whole must not seem so");
                return None;
            }
            Front::Partial => seen = seen.saturating_add(piece).min(bytes.len()),
        }
    }
}

/// Reads the bytes as a request of HTTP/2: `name: value` in each line, the pseudo-header fields
/// first. What is taken becomes one request of HTTP/1.1, and that one.
fn downgrade(bytes: &[u8]) {
    let ended = bytes.first().is_some_and(|byte| byte & 1 == 1);
    if let Some(block) = block_of(bytes.get(1..).unwrap_or_default()) {
        request_of_http2(&block, ended);
    }
}

/// Reads the bytes as a block of fields, however they are coded.
fn hpack_block(bytes: &[u8]) {
    request_of_http2(bytes, true);
    request_of_http2(bytes, false);
}

fn request_of_http2(block: &[u8], ended: bool) {
    use staunch::http::hpack::Decoder;
    use staunch::serve::h2::request::{Bounds, read};

    let bounds = Bounds { size: 64 << 10, fields: 100 };
    if let Ok(Ok(head)) = read(&mut Decoder::default(), block, ended, bounds)
        && head.method != staunch::http::Method::Connect
    {
        means_the_same(head); // a plain CONNECT is refused later
    }
}

/// Each line as a field, not coded.
fn block_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut block = b"\x87".to_vec(); // :scheme: https
    for line in bytes.split(|&byte| byte == b'\n') {
        let colon = line.iter().skip(1).position(|&byte| byte == b':')? + 1;
        block.push(0);
        for text in [&line[..colon], &line[colon + 1..]] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127)?);
            block.extend_from_slice(text);
        }
    }
    Some(block)
}

/// Reads the bytes as the beginning of a connection that begins with a PROXY header. What is a
/// header is one however much follows, and none before it is whole.
fn proxy_header(bytes: &[u8]) {
    use staunch::listen::proxy_header::{MAX_LENGTH, Parsed, parse};

    match parse(bytes) {
        Ok(Parsed::Complete { length, .. }) => {
            assert!((1..=MAX_LENGTH).contains(&length) && length <= bytes.len());
            for cut in [1, length / 2, length - 1] {
                assert!(matches!(parse(&bytes[..cut]), Ok(Parsed::Incomplete)), "{cut}");
            }
            let alone = parse(&bytes[..length]);
            assert!(matches!(alone, Ok(Parsed::Complete { length: same, .. }) if same == length));
        }
        Ok(Parsed::Incomplete) => assert!(bytes.len() < MAX_LENGTH),
        Err(_) => {}
    }
}
