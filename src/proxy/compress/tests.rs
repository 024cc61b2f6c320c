//! Compression without a connection.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::http::parse;

const ASK: &str = "Accept-Encoding: gzip, br\r\n";
const HTML: &str = "Content-Type: text/html; charset=utf-8\r\n";

fn terms(keys: &str) -> Arc<Compression> {
    let text = format!(
        "[[certificate]]\nfolder = \"/c\"\n[[site]]\nnames = [\"*\"]\nupstream = \"http://a:1\"\n\
         compression = [\"br\", \"gzip\"]\n{keys}"
    );
    let config = crate::config::parse(&text, Path::new("/etc/staunch.toml")).unwrap();
    config.sites[0].rules.compression.finish().unwrap()
}

/// What becomes of a response: its coding, and its fields without those that nothing happens to.
fn decide(method: &str, asked: &str, status: u16, fields: &str) -> (Option<&'static str>, String) {
    let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{asked}\r\n");
    let request = parse::complete(parse::request(request.as_bytes(), 100)).unwrap();
    let response = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
    let mut head = parse::complete(parse::response(response.as_bytes(), request.method)).unwrap();
    let (terms, room) = (terms(""), Room::default());
    let wish = Wish::of(&request);
    let plan = choose(&terms, &wish, request.method, &room, &mut head, || ());
    if let Some(plan) = &plan {
        assert_eq!(head.framing, Framing::Chunked);
        assert_eq!(room.0.get(), 1, "{plan:?}");
    }
    let left: Vec<_> = (head.fields.iter())
        .filter(|(_, name, _)| !name.eq_ignore_ascii_case(b"Content-Type"))
        .map(|(_, name, value)| {
            format!(
                "{}: {}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value)
            )
        })
        .collect();
    (plan.map(|plan| plan.coding.code()), left.join("; "))
}

#[test]
fn the_head_becomes_that_of_the_coded_response() {
    let fields = format!(
        "{HTML}Content-Length: 5000\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\nvary: Origin\r\n\
         Content-MD5: x\r\nRepr-Digest: sha-256=:AA==:\r\nContent-Digest: sha-256=:AA==:\r\n\
         Digest: sha-256=AA==\r\nVary: Cookie\r\n"
    );
    let (coding, left) = decide("GET", ASK, 200, &fields);
    assert_eq!(coding, Some("br"));
    let expected = "Vary: Origin, Cookie, Accept-Encoding; ETag: W/\"a\"; Content-Encoding: br";
    assert_eq!(left, expected);
}

#[test]
fn head_is_answered_as_get_would_be() {
    let fields = format!("{HTML}Content-Length: 5000\r\n");
    let (coding, left) = decide("HEAD", ASK, 200, &fields);
    assert_eq!(coding, None, "there is no body to code");
    assert_eq!(left, decide("GET", ASK, 200, &fields).1);
    let (_, left) = decide("HEAD", ASK, 200, HTML);
    assert_eq!(left, "Vary: Accept-Encoding; Content-Encoding: br");
    let short = format!("{HTML}Content-Length: 10\r\n");
    assert_eq!(decide("HEAD", ASK, 200, &short).1, "Content-Length: 10");
}

#[test]
fn what_must_not_be_touched_is_not() {
    let long = "Content-Length: 5000\r\n";
    for (status, fields) in [
        (200, format!("{HTML}{long}Content-Encoding: gzip\r\n")),
        (200, format!("{HTML}{long}Content-Encoding: identity\r\n")),
        (
            200,
            format!("{HTML}{long}Cache-Control: public, no-transform\r\n"),
        ),
        (200, format!("{HTML}Content-Length: 999\r\n")),
        (200, format!("Content-Type: image/png\r\n{long}")),
        (200, format!("Content-Type: text/event-stream\r\n{long}")),
        (200, long.to_owned()),
        (
            206,
            format!("{HTML}{long}Content-Range: bytes 0-4999/9000\r\n"),
        ),
        (204, HTML.to_owned()),
    ] {
        let (coding, left) = decide("GET", ASK, status, &fields);
        assert_eq!(coding, None, "{fields}");
        assert!(!left.contains("Vary"), "{fields}");
    }
}

#[test]
fn a_response_that_could_have_been_coded_says_so() {
    let fields = format!("{HTML}Content-Length: 5000\r\nETag: \"a\"\r\n");
    let (coding, left) = decide("GET", "", 200, &fields);
    assert_eq!(coding, None);
    assert_eq!(
        left,
        "Content-Length: 5000; ETag: \"a\"; Vary: Accept-Encoding"
    );
    for vary in ["*", "accept-encoding", "Origin, Accept-Encoding"] {
        let (_, left) = decide("GET", ASK, 200, &format!("{fields}Vary: {vary}\r\n"));
        assert_eq!(left.matches("Vary").count(), 1, "{left}");
        assert!(left.contains(&format!("Vary: {vary};")), "{left}");
    }
}

#[test]
fn errors_are_coded_like_other_responses() {
    let fields = format!("{HTML}Content-Length: 5000\r\n");
    assert_eq!(decide("GET", ASK, 404, &fields).0, Some("br"));
    assert_eq!(decide("POST", ASK, 201, &fields).0, Some("br"));
}

#[test]
fn not_modified_is_about_the_response_that_the_client_has() {
    let asked = format!("{ASK}If-None-Match: W/\"a\"\r\n");
    assert_eq!(
        decide("GET", &asked, 304, "ETag: \"a\"\r\n").1,
        "ETag: W/\"a\"; Vary: Accept-Encoding"
    );
    let asked = format!("{ASK}If-None-Match: \"a\"\r\n");
    assert_eq!(
        decide("GET", &asked, 304, "ETag: \"a\"\r\n").1,
        "ETag: \"a\""
    );
}

#[test]
fn a_worker_compresses_only_so_many_responses_at_once() {
    let room = Room::default();
    let places: Vec<_> = std::iter::from_fn(|| room.enter()).collect();
    assert_eq!(places.len(), MOST);
    drop(places);
    assert!(room.enter().is_some());
}

/// A client that takes only so much, and then waits.
#[derive(Default)]
struct Reader {
    room: usize,
    got: Vec<u8>,
    finished: bool,
    deadline: Deadline,
}

impl Client for Reader {
    fn poll_body(&mut self, _: &mut Context<'_>) -> Poll<Result<Body, Failure>> {
        Poll::Ready(Ok(Body::End))
    }

    fn data(&self) -> &[u8] {
        &[]
    }

    fn consume(&mut self, _: usize) {}

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        None
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn interim(&mut self, _: ResponseHead) {}

    fn start(&mut self, _: ResponseHead, _: bool) -> Result<(), Failure> {
        Ok(())
    }

    fn poll_send(&mut self, _: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Failure>> {
        let count = data.len().min(self.room);
        self.room -= count;
        self.got.extend_from_slice(&data[..count]);
        match count {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    fn finish(&mut self, _: Option<Box<Fields>>) {
        self.finished = true;
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn begin_tunnel(&mut self) {}

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn abort(&mut self) {}

    fn last(&mut self) {}

    fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }
}

#[test]
fn a_client_that_does_not_read_bounds_what_is_held_and_gets_all_in_the_end() {
    let registry = crate::metrics::Registry::new();
    let series = CompressionSeries::new(&registry);
    let (terms, room) = (terms(""), Room::default());
    for coding in Coding::ALL {
        let plan = Plan {
            coding,
            terms: &terms,
            length: None,
            live: false,
            place: room.enter().unwrap(),
        };
        let mut reader = Reader::default();
        let mut compressed = Compressed::new(&mut reader, plan, &series).unwrap();
        let mut seed = 1_u32;
        let noise: Vec<u8> = (0..1 << 20)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed.to_le_bytes()[3]
            })
            .collect();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut sent = 0;
        // Without a turn's end, no more than a slice is taken.
        while let Poll::Ready(count) = compressed.poll_send(&mut cx, &noise[sent..]) {
            sent += count.unwrap();
        }
        assert!(sent <= SLICE, "{sent}");
        for _ in 0..1000 {
            compressed.slice = SLICE;
            while let Poll::Ready(count) = compressed.poll_send(&mut cx, &noise[sent..]) {
                sent += count.unwrap();
            }
        }
        assert!(sent < 800 << 10, "{coding:?}: {sent}");
        compressed.client.room = usize::MAX;
        while sent < noise.len() {
            match compressed.poll_send(&mut cx, &noise[sent..]) {
                Poll::Ready(count) => sent += count.unwrap(),
                Poll::Pending => compressed.slice = SLICE,
            }
        }
        compressed.finish(None);
        assert!(compressed.poll_flush(&mut cx).is_ready());
        assert_eq!(compressed.output, compressed.client.got.len() as u64);
        drop(compressed);
        assert!(reader.finished && reader.got.len() > noise.len() / 2);
        assert_eq!(room.0.get(), 0);
    }
}
