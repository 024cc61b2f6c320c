//! What is answered to frames, right and wrong.

use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::http::frame::unpadded;

const MAX_STREAMS: u32 = 3;
const GET: &[u8] = b"\x82\x87\x84\x41\x06a.test";

/// A client that has greeted.
struct Wire {
    connection: Connection,
    opened: Vec<Opened>,
}

/// Kind, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, flags, stream, payload) in frames {
        let head = Head {
            length: payload.len(),
            kind: *kind,
            flags: *flags,
            stream: *stream,
        };
        bytes.extend_from_slice(&head.bytes());
        bytes.extend_from_slice(payload);
    }
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Frame {
    (kind, flags, stream, payload.to_vec())
}

fn get(stream: u32) -> Frame {
    frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        stream,
        GET,
    )
}

/// A request whose body is to come; with more fields.
fn post(stream: u32, more: &[u8]) -> Frame {
    let block = [b"\x83\x87\x84\x41\x06a.test", more].concat();
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block)
}

fn data(flags: u8, stream: u32, payload: &[u8]) -> Frame {
    frame(kind::DATA, flags, stream, payload)
}

fn reset(stream: u32, code: ErrorCode) -> Frame {
    frame(kind::RST_STREAM, 0, stream, &code.0.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Frame {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn settings(settings: &[(u16, u32)]) -> Frame {
    let bytes =
        |&(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = settings.iter().flat_map(bytes).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

fn fresh() -> Connection {
    let bounds = Bounds {
        size: 1000,
        fields: 20,
    };
    Connection::new(bounds, MAX_STREAMS)
}

impl Wire {
    fn new() -> Self {
        let mut wire = Self {
            connection: fresh(),
            opened: Vec::new(),
        };
        wire.take(&[PREFACE, &bytes(&[settings(&[])])].concat())
            .unwrap();
        wire.said();
        wire
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while let Some((count, opened)) = self.connection.take(bytes)? {
            bytes = &bytes[count..];
            self.opened.extend(opened);
        }
        Ok(())
    }

    fn send(&mut self, frames: &[Frame]) -> Result<(), Fault> {
        self.take(&bytes(frames))
    }

    /// What it has to say.
    fn said(&mut self) -> Vec<Frame> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut out = Vec::new();
        while !matches!(
            self.connection.output.poll_write(&mut cx, &mut out),
            Poll::Ready(Ok(0))
        ) {}
        let mut frames = Vec::new();
        let mut rest = &out[..];
        while let Some(head) = Head::read(rest) {
            let payload = rest[HEAD..HEAD + head.length].to_vec();
            rest = &rest[HEAD + head.length..];
            frames.push((head.kind, head.flags, head.stream, payload));
        }
        assert!(rest.is_empty());
        frames
    }

    fn slot(&self, at: usize) -> Slot {
        self.opened[at].0
    }

    /// Begins a response without fields.
    fn respond(&mut self, at: usize) {
        let head = ResponseHead::own(200, "", Framing::Chunked, Fields::default());
        self.connection.respond(self.slot(at), &head, false);
    }

    /// Answers to all there is of a request, and forgets it.
    fn respond_to(&mut self, slot: Slot) {
        let head = ResponseHead::own(431, "", Framing::None, Fields::default());
        self.connection.respond(slot, &head, true);
        self.connection.finish(slot, None);
        self.connection.leave(slot);
    }

    fn poll_send(&mut self, at: usize, data: &[u8]) -> Poll<usize> {
        let cx = Context::from_waker(Waker::noop());
        self.connection.poll_send(&cx, self.slot(at), data)
    }
}

#[test]
fn it_begins_with_settings_however_they_arrive() {
    let mut wire = Wire {
        connection: fresh(),
        opened: Vec::new(),
    };
    let all = [PREFACE, &bytes(&[settings(&[(4, 9)]), get(1)])].concat();
    let mut at = 0;
    for end in 0..=all.len() {
        while let Some((count, opened)) = wire.connection.take(&all[at..end]).unwrap() {
            at += count;
            wire.opened.extend(opened);
        }
    }
    assert_eq!((at, wire.opened.len()), (all.len(), 1));
    let kinds: Vec<u8> = wire.said().iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [kind::SETTINGS, kind::WINDOW_UPDATE, kind::SETTINGS]);

    let wrong = Err(Fault::Protocol(ErrorCode::PROTOCOL_ERROR));
    for first in [
        frame(kind::PING, 0, 0, &[7; 8]),
        frame(kind::SETTINGS, flag::ACK, 0, &[]),
    ] {
        let bytes = [PREFACE, &bytes(&[first])].concat();
        let mut wire = Wire {
            connection: fresh(),
            opened: Vec::new(),
        };
        assert_eq!(wire.take(&bytes), wrong);
    }
    assert!(fresh().take(b"GET / HTTP/1.1\r\n").is_err());
}

#[test]
fn what_breaks_a_rule_ends_the_connection() {
    let opened = post(1, b"");
    for (frames, code) in [
        (vec![data(0, 0, b"x")], ErrorCode::PROTOCOL_ERROR),
        (vec![data(0, 1, b"x")], ErrorCode::PROTOCOL_ERROR),
        (
            vec![opened.clone(), data(flag::PADDED, 1, b"\x09x")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (vec![get(2)], ErrorCode::PROTOCOL_ERROR),
        (vec![get(0)], ErrorCode::PROTOCOL_ERROR),
        (vec![get(5), get(3)], ErrorCode::PROTOCOL_ERROR),
        (vec![get(5), get(4)], ErrorCode::PROTOCOL_ERROR),
        (vec![get(5), data(0, 4, b"x")], ErrorCode::PROTOCOL_ERROR),
        (vec![get(5), window(4, 1)], ErrorCode::PROTOCOL_ERROR),
        (
            vec![get(5), reset(4, ErrorCode::CANCEL)],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![frame(
                kind::HEADERS,
                flag::END_HEADERS,
                1,
                b"\xff\xff\xff\xff\xff",
            )],
            ErrorCode::COMPRESSION_ERROR,
        ),
        (
            vec![frame(kind::HEADERS, 0, 1, GET), get(3)],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![
                frame(kind::HEADERS, 0, 1, GET),
                frame(kind::CONTINUATION, 4, 3, b""),
            ],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![frame(kind::CONTINUATION, 4, 1, GET)],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![frame(kind::PRIORITY, 0, 1, b"\0\0\0\x01\x10")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![frame(kind::PRIORITY, 0, 1, b"\0\0\0\x03")],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            vec![frame(kind::PRIORITY, 0, 0, b"\0\0\0\x03\x10")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (vec![reset(1, ErrorCode::CANCEL)], ErrorCode::PROTOCOL_ERROR),
        (vec![reset(0, ErrorCode::CANCEL)], ErrorCode::PROTOCOL_ERROR),
        (
            vec![opened.clone(), frame(kind::RST_STREAM, 0, 1, b"")],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            vec![
                opened.clone(),
                reset(1, ErrorCode::CANCEL),
                data(0, 1, b"x"),
            ],
            ErrorCode::STREAM_CLOSED,
        ),
        (
            vec![frame(kind::SETTINGS, 0, 0, b"12345")],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            vec![frame(kind::SETTINGS, flag::ACK, 0, b"123456")],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            vec![frame(kind::SETTINGS, 0, 1, b"")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (vec![settings(&[(2, 2)])], ErrorCode::PROTOCOL_ERROR),
        (vec![settings(&[(9, 2)])], ErrorCode::PROTOCOL_ERROR),
        (
            vec![settings(&[(4, 1 << 31)])],
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
        (vec![settings(&[(5, 16_383)])], ErrorCode::PROTOCOL_ERROR),
        (vec![settings(&[(5, 1 << 24)])], ErrorCode::PROTOCOL_ERROR),
        (
            vec![opened, window(1, 9), settings(&[(4, u32::MAX >> 1)])],
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
        (
            vec![frame(kind::PUSH_PROMISE, 4, 1, b"\0\0\0\x02")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![frame(kind::PING, 0, 1, &[0; 8])],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![frame(kind::PING, 0, 0, &[0; 7])],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            vec![frame(kind::GOAWAY, 0, 1, &[0; 8])],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![frame(kind::GOAWAY, 0, 0, &[0; 7])],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (vec![window(0, 0)], ErrorCode::PROTOCOL_ERROR),
        (vec![window(1, 1)], ErrorCode::PROTOCOL_ERROR),
        (
            vec![window(0, u32::MAX >> 1)],
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
        (
            vec![frame(kind::WINDOW_UPDATE, 0, 0, b"123")],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
        (
            vec![frame(kind::PING, 0, 0, &[0; MAX_PAYLOAD + 1])],
            ErrorCode::FRAME_SIZE_ERROR,
        ),
    ] {
        let fault = Wire::new().send(&frames);
        assert_eq!(fault, Err(Fault::Protocol(code)), "{frames:x?}");
    }
}

#[test]
fn a_mistake_on_a_stream_ends_the_stream() {
    let trailers = |flags, block: &[u8]| frame(kind::HEADERS, flags | flag::END_HEADERS, 1, block);
    for (frames, code) in [
        (vec![get(1), data(0, 1, b"x")], ErrorCode::STREAM_CLOSED),
        (vec![get(1), get(1)], ErrorCode::STREAM_CLOSED),
        (
            vec![
                post(1, b""),
                data(flag::END_STREAM, 1, b""),
                data(0, 1, b"x"),
            ],
            ErrorCode::STREAM_CLOSED,
        ),
        (
            vec![post(1, b"\x0f\x0d\x011"), data(0, 1, b"xx")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![post(1, b"\x0f\x0d\x012"), data(flag::END_STREAM, 1, b"x")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![post(1, b"\x0f\x0d\x010"), data(0, 1, b"x")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![post(1, b"\x0f\x0d\x011"), trailers(flag::END_STREAM, b"")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![post(1, b""), trailers(0, b"\0\x01a\x01b")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![post(1, b""), trailers(flag::END_STREAM, b"\x82")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (
            vec![post(1, b""), trailers(flag::END_STREAM, b"\0\x01A\x01b")],
            ErrorCode::PROTOCOL_ERROR,
        ),
        (vec![post(1, b""), window(1, 0)], ErrorCode::PROTOCOL_ERROR),
        (
            vec![post(1, b""), window(1, u32::MAX >> 1)],
            ErrorCode::FLOW_CONTROL_ERROR,
        ),
    ] {
        let mut wire = Wire::new();
        wire.send(&frames).unwrap();
        assert_eq!(wire.said(), [reset(1, code)], "{frames:x?}");
        // The connection goes on, and what the client had sent before it knew is ignored.
        let slot = wire.slot(0);
        wire.connection.leave(slot);
        wire.send(&[data(0, 1, b"x"), window(1, 1), get(3)])
            .unwrap();
        assert_eq!((wire.said(), wire.opened.len()), (vec![], 2));
    }
}

#[test]
fn a_stream_that_has_ended_stays_ended() {
    let mut wire = Wire::new();
    wire.send(&[get(1)]).unwrap();
    let slot = wire.slot(0);
    wire.connection.finish(slot, None);
    wire.connection.leave(slot);
    assert_eq!(wire.said(), [data(flag::END_STREAM, 1, b"")]);
    wire.send(&[window(1, 1), reset(1, ErrorCode::CANCEL)])
        .unwrap();
    for late in [data(0, 1, b"x"), get(1)] {
        let fault = wire.send(&[late]);
        assert_eq!(fault, Err(Fault::Protocol(ErrorCode::STREAM_CLOSED)));
    }
}

#[test]
fn a_request_that_nobody_reads_to_its_end_is_ended() {
    let mut wire = Wire::new();
    wire.send(&[post(1, b""), data(0, 1, b"xx")]).unwrap();
    let slot = wire.slot(0);
    wire.connection.finish(slot, None);
    wire.connection.leave(slot);
    let last = [
        data(flag::END_STREAM, 1, b""),
        reset(1, ErrorCode::NO_ERROR),
    ];
    assert_eq!(wire.said(), last);
    assert_eq!(wire.connection.unreleased, 2);
}

#[test]
fn the_end_of_a_request_may_come_behind_its_response() {
    // All data has come, but not the empty frame that says so: there is no reason for a reset.
    let mut wire = Wire::new();
    wire.send(&[post(1, b"\x0f\x0d\x012"), data(0, 1, b"xx")])
        .unwrap();
    wire.respond_to(wire.slot(0));
    let [ref head] = wire.said()[..] else {
        panic!()
    };
    assert_eq!((head.0, head.1 & flag::END_STREAM), (kind::HEADERS, 1));
    wire.send(&[data(flag::END_STREAM, 1, b""), get(3)])
        .unwrap();
    assert_eq!(wire.connection.unreleased, 2);
    assert_eq!((wire.said(), wire.opened.len()), (vec![], 2));
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut wire = Wire::new();
    wire.send(&[get(1), get(3), get(5), get(7)]).unwrap();
    assert_eq!(wire.opened.len(), 3);
    assert_eq!(wire.said(), [reset(7, ErrorCode::REFUSED_STREAM)]);
    // One that the client has ended makes room for another.
    wire.send(&[reset(1, ErrorCode::CANCEL), get(9)]).unwrap();
    assert_eq!((wire.opened.len(), wire.said()), (4, vec![]));
    // But only so many, until the work on them ends too.
    let mut id = 9;
    while !wire.connection.is_littered() {
        wire.send(&[reset(id, ErrorCode::CANCEL), get(id + 2)])
            .unwrap();
        id += 2;
    }
    assert_eq!(wire.connection.streams.dying(), MAX_RESETS + 1);
    let slot = wire.slot(0);
    wire.connection.leave(slot);
    assert!(!wire.connection.is_littered());
}

#[test]
fn a_client_that_only_makes_mistakes_is_sent_away() {
    let mut wire = Wire::new();
    let mistakes = (1..).step_by(2).map(|id| {
        let result = wire.send(&[post(id, b""), window(id, 0)]);
        let slot = wire.opened.last().unwrap().0;
        wire.connection.leave(slot);
        result
    });
    assert_eq!(
        mistakes.take_while(Result::is_ok).count(),
        MAX_PROVOKED_RESETS
    );
}

#[test]
fn what_a_client_may_send_is_what_was_taken() {
    let mut wire = Wire::new();
    wire.send(&[post(1, b"")]).unwrap();
    let slot = wire.slot(0);
    let piece = data(0, 1, &[7; MAX_PAYLOAD]);
    for _ in 0..16 {
        wire.send(std::slice::from_ref(&piece)).unwrap();
    }
    assert_eq!(wire.said(), []);
    assert_eq!(wire.connection.stream(slot).body.len(), 256 << 10);
    wire.send(&[data(0, 1, b"x")]).unwrap();
    assert_eq!(wire.said(), [reset(1, ErrorCode::FLOW_CONTROL_ERROR)]);

    wire.send(&[post(3, b"")]).unwrap();
    let slot = wire.slot(1);
    let padded = [&[99][..], &[7; MAX_PAYLOAD - 1]].concat();
    for _ in 0..8 {
        wire.send(&[data(flag::PADDED, 3, &padded)]).unwrap();
        let head = Head::read(&bytes(&[data(flag::PADDED, 3, &padded)])).unwrap();
        let length = unpadded(head, &padded).unwrap().len();
        let stream = wire.connection.stream(slot);
        assert_eq!(stream.body.len(), length);
        stream.body.consume(length);
        wire.connection
            .release(slot, u32::try_from(length).unwrap());
    }
    assert_eq!(wire.said(), [window(3, 128 << 10)]);
}

#[test]
fn a_client_is_sent_no_more_than_it_takes() {
    let mut wire = Wire::new();
    wire.send(&[settings(&[(4, 5)]), get(1)]).unwrap();
    wire.respond(0);
    wire.said();
    assert_eq!(wire.poll_send(0, b"0123456789"), Poll::Ready(5));
    assert_eq!(wire.poll_send(0, b"56789"), Poll::Pending);
    wire.send(&[window(1, 2)]).unwrap();
    assert_eq!(wire.poll_send(0, b"56789"), Poll::Ready(2));
    // What it takes back is owed.
    wire.send(&[settings(&[(4, 1)]), window(1, 4)]).unwrap();
    assert_eq!(wire.poll_send(0, b"789"), Poll::Pending);
    wire.send(&[window(1, 3)]).unwrap();
    assert_eq!(wire.poll_send(0, b"789"), Poll::Ready(3));
    let slot = wire.slot(0);
    wire.connection.finish(slot, None);
    let said: Vec<Frame> = wire
        .said()
        .into_iter()
        .filter(|frame| frame.0 == kind::DATA)
        .collect();
    assert_eq!(
        said,
        [
            data(0, 1, b"01234"),
            data(0, 1, b"56"),
            data(flag::END_STREAM, 1, b"789")
        ]
    );
}

#[test]
fn streams_take_turns() {
    let mut wire = Wire::new();
    wire.send(&[
        settings(&[(4, 1 << 20)]),
        window(0, 1 << 20),
        get(1),
        get(3),
    ])
    .unwrap();
    for at in [0, 1] {
        wire.respond(at);
    }
    wire.said();
    let bulk = vec![7; 1 << 20];
    let mut sent = [0, 0];
    // The first has it all until another asks.
    while let Poll::Ready(count) = wire.poll_send(0, &bulk) {
        sent[0] += count;
    }
    assert_eq!(wire.poll_send(1, &bulk), Poll::Pending);
    for _ in 0..40 {
        wire.said();
        while wire.connection.grant() {
            for (at, sent) in sent.iter_mut().enumerate() {
                while let Poll::Ready(count) = wire.poll_send(at, &bulk) {
                    *sent += count;
                }
            }
        }
    }
    let [first, second] = sent;
    assert!(first.abs_diff(second) <= 64 << 10, "{sent:?}");
    assert!(first + second > 1 << 20, "{sent:?}");
}

#[test]
fn a_client_that_is_asked_to_go_finishes_first() {
    let mut wire = Wire::new();
    wire.send(&[get(1)]).unwrap();
    wire.connection.farewell();
    let goaway = |last: u32| {
        frame(
            kind::GOAWAY,
            0,
            0,
            &[&last.to_be_bytes()[..], &[0; 4]].concat(),
        )
    };
    let ping = |flags| frame(kind::PING, flags, 0, FAREWELL);
    assert_eq!(wire.said(), [goaway(LAST), ping(0)]);
    wire.send(&[get(3), ping(flag::ACK), get(5)]).unwrap();
    assert_eq!((wire.said(), wire.opened.len()), (vec![goaway(3)], 2));
    for at in [0, 1] {
        assert!(!wire.connection.is_over());
        let slot = wire.slot(at);
        wire.connection.finish(slot, None);
        wire.connection.leave(slot);
    }
    assert!(wire.connection.is_over());
    // RFC 9113, section 6.8: what was not looked at is not looked at later.
    wire.said();
    wire.connection.close(ErrorCode::NO_ERROR);
    assert_eq!(wire.said(), [goaway(3)]);
}

#[test]
fn a_long_head_is_sent_in_pieces() {
    let mut wire = Wire::new();
    wire.send(&[get(1)]).unwrap();
    let mut fields = Fields::default();
    for number in 0..40 {
        fields.push(format!("x-{number}").as_bytes(), &[b'v'; 1000]);
    }
    let head = ResponseHead::own(200, "", Framing::None, fields);
    let slot = wire.slot(0);
    wire.connection.respond(slot, &head, true);
    let said = wire.said();
    let flags: Vec<(u8, u8)> = said.iter().map(|frame| (frame.0, frame.1)).collect();
    let pieces = [
        (kind::HEADERS, flag::END_STREAM),
        (kind::CONTINUATION, 0),
        (kind::CONTINUATION, flag::END_HEADERS),
    ];
    assert_eq!(flags, pieces);
    let block: Vec<u8> = said.into_iter().flat_map(|frame| frame.3).collect();
    let mut count = 0;
    Decoder::default()
        .read(&block, |field| {
            count += usize::from(field.value.len() == 1000)
        })
        .unwrap();
    assert_eq!(count, 40);
}

#[test]
fn what_costs_without_a_request_is_counted() {
    // A frame of as many settings as fit, each of which touches all streams.
    let many = settings(&[(4, 1); MAX_PAYLOAD / 6]);
    let mut wire = Wire::new();
    let taken = (0..).take_while(|_| wire.send(std::slice::from_ref(&many)).is_ok());
    assert!(taken.count() < 10);
    // Blocks of a stream that was refused are read, since what follows refers to them.
    let mut wire = Wire::new();
    wire.send(&[get(1), get(3), get(5), get(7)]).unwrap();
    let fault = (0..3000).find_map(|_| wire.send(&[get(7)]).err());
    assert_eq!(fault, Some(Fault::Frames));
    // Heads that are too large, each of a few bytes that name what is in the table.
    let mut wire = Wire::new();
    let field = [b"\x40\x01a\x7f\x01", &[b'v'; 128][..]].concat();
    wire.send(&[get(1), post(3, &field)]).unwrap();
    let bomb = [b"\x83\x87\x84\x01\x06a.test", &[0xbe; 50][..]].concat();
    let large = (5..1000).step_by(2).take_while(|&id| {
        let taken = wire.send(&[frame(kind::HEADERS, flag::END_HEADERS, id, &bomb)]);
        if taken.is_ok() {
            let (slot, head) = wire.opened.pop().unwrap();
            assert!(head.is_err());
            wire.respond_to(slot);
        }
        taken.is_ok()
    });
    assert!(large.count() < 300);
}

#[test]
fn a_block_that_does_not_end_ends_the_connection() {
    let mut wire = Wire::new();
    let more = frame(kind::CONTINUATION, 0, 1, &[0; 1000]);
    wire.send(&[frame(kind::HEADERS, 0, 1, &[])]).unwrap();
    let mut pieces = std::iter::repeat_with(|| wire.send(std::slice::from_ref(&more)));
    assert_eq!(pieces.find_map(Result::err), Some(Fault::Frames));
}

#[test]
fn a_head_that_is_too_large_is_refused_and_the_connection_goes_on() {
    use crate::http::parse::HeadError;

    let mut wire = Wire::new();
    let field = [b"\x40\x01a\x7f\x80\x06", &[b'v'; 895][..]].concat();
    wire.send(&[
        post(1, &field),
        post(3, b"\xbf"),
        post(5, &b"\x40\x01b\x01c".repeat(21)),
    ])
    .unwrap();
    let refusals: Vec<_> = wire
        .opened
        .iter()
        .map(|(_, head)| head.as_ref().err().copied())
        .collect();
    let refused = |error: HeadError| Some(Refusal::Head(error));
    assert_eq!(
        refusals,
        [
            refused(HeadError::TooLong),
            refused(HeadError::TooLong),
            refused(HeadError::TooManyFields)
        ]
    );
}

proptest! {
    /// Whatever comes, it holds: nothing panics, and no stream outlives its work.
    #[test]
    fn anything_may_come(
        frames in proptest::collection::vec(
            (0u8..11, any::<u8>(), 0u32..10, prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40),
                Just(GET.to_vec()),
                Just(b"\x83\x87\x84\x41\x06a.test".to_vec()),
                Just(vec![0, 0, 0, 5]),
            ]),
            0..60,
        ),
        send in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let mut wire = Wire::new();
        let mut left = 0;
        for (frame, act) in frames.into_iter().zip(send) {
            if wire.send(&[frame]).is_err() {
                break;
            }
            while act && left < wire.opened.len() {
                let slot = wire.slot(left);
                if wire.connection.stream(slot).reset.is_none() {
                    wire.respond(left);
                    let _ = wire.poll_send(left, &[7; 100]);
                }
                wire.connection.finish(slot, None);
                wire.connection.leave(slot);
                left += 1;
            }
            wire.said();
        }
        for at in left..wire.opened.len() {
            let slot = wire.slot(at);
            wire.connection.leave(slot);
        }
        prop_assert!(wire.connection.is_idle());
    }
}
