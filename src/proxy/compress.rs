//! Responses made smaller on their way to the client (RFC 9110, section 8.4).
//!
//! [`Wish`] is what the request allows, [`choose`] what becomes of a response's head, and
//! [`Compressed`] stands before the client while the body goes through. What the server sends is
//! compressed a slice at a time, so that other connections of the worker get their turn; and what
//! the server holds back, the client is not kept waiting for.

mod encoder;
mod wish;

use std::cell::Cell;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::Client;
use super::error::Failure;
use crate::config::{Coding, Compression};
use crate::http::field::{Fields, list};
use crate::http::{Framing, Method, ResponseHead};
use crate::metrics::CompressionSeries;
use crate::wire::{Body, Deadline};
use encoder::Encoder;
pub(super) use wish::Wish;

/// Bytes that are compressed before other tasks of the worker get their turn: at most some
/// milliseconds of work.
const SLICE: usize = 32 << 10;
/// How long what has come may lie in the encoder when nothing follows.
const QUIET: Duration = Duration::from_millis(10);
/// Responses that one worker compresses at once. Each holds memory for as long as it lasts, which a
/// client that reads slowly can make long.
const MOST: usize = 128;

/// How many responses a worker compresses now.
#[derive(Debug, Default)]
pub(super) struct Room(Cell<usize>);

impl Room {
    fn enter(&self) -> Option<Place<'_>> {
        let taken = self.0.get();
        (taken < MOST).then(|| {
            self.0.set(taken + 1);
            Place(self)
        })
    }
}

/// One of them.
#[derive(Debug)]
struct Place<'a>(&'a Room);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// What is to be done with a response.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    coding: Coding,
    terms: &'a Compression,
    /// Its length, where that is known.
    length: Option<u64>,
    /// What comes is passed on at once.
    live: bool,
    place: Place<'a>,
}

/// The fields that decide.
#[derive(Default)]
struct Seen<'a> {
    content_type: Option<&'a [u8]>,
    length: Option<u64>,
    etag: Option<&'a [u8]>,
    /// It is coded already, or a part, or must stay as it is.
    untouchable: bool,
    varies: bool,
}

impl<'a> Seen<'a> {
    fn of(fields: &'a Fields) -> Self {
        let mut seen = Self::default();
        for (_, name, value) in fields.iter() {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            // The length first: it alone settles most names.
            match name.len() {
                4 if is("ETag") => seen.etag = Some(value),
                4 if is("Vary") => {
                    seen.varies |= list(value)
                        .any(|item| item == b"*" || item.eq_ignore_ascii_case(ACCEPT_ENCODING));
                }
                12 if is("Content-Type") => seen.content_type = Some(value),
                13 if is("Content-Range") => seen.untouchable = true,
                13 if is("Cache-Control") => seen.untouchable |= wish::forbids_transform(value),
                14 if is("Content-Length") => {
                    seen.length = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                }
                16 if is("Content-Encoding") => seen.untouchable = true,
                _ => {}
            }
        }
        seen
    }
}

const ACCEPT_ENCODING: &[u8] = b"Accept-Encoding";

/// Decides on a response, and edits its head accordingly. `None`: its body stays as it is.
pub(super) fn choose<'a>(
    terms: &'a Compression,
    wish: &Wish,
    method: Method,
    room: &'a Room,
    head: &mut ResponseHead,
    full: impl FnOnce(),
) -> Option<Plan<'a>> {
    let seen = Seen::of(&head.fields);
    if head.status == 304 {
        if not_modified(wish, &seen) {
            let varies = seen.varies;
            weaken(&mut head.fields);
            // As the response to a request without a condition would (RFC 9110, section 15.4.5).
            if !varies {
                vary(&mut head.fields);
            }
        }
        return None;
    }
    let (varies, length) = (seen.varies, seen.length);
    if !may_be_coded(terms, method, head, &seen) {
        return None;
    }
    let media_type = essence(seen.content_type?);
    let live = media_type.eq_ignore_ascii_case(b"text/event-stream");
    // From here on the response depends on what the client accepts, whatever that is.
    if !varies {
        vary(&mut head.fields);
    }
    let coding = wish.choose(&terms.codings)?;
    if head.framing == Framing::None {
        // To HEAD: what the body would have been is all there is to say.
        recode(&mut head.fields, coding);
        return None;
    }
    let Some(place) = room.enter() else {
        full();
        return None;
    };
    recode(&mut head.fields, coding);
    head.framing = Framing::Chunked;
    Some(Plan {
        coding,
        terms,
        length,
        live,
        place,
    })
}

fn may_be_coded(terms: &Compression, method: Method, head: &ResponseHead, seen: &Seen<'_>) -> bool {
    let has_body = head.framing != Framing::None || method == Method::Head;
    has_body
        && head.status >= 200
        && !matches!(head.status, 204..=206)
        && !seen.untouchable
        && seen
            .length
            .is_none_or(|length| length >= terms.minimum.max(1))
        && seen.content_type.is_some_and(|value| {
            let media_type = essence(value);
            terms.types.iter().any(|range| range.covers(media_type))
        })
}

/// A media type without its parameters.
fn essence(content_type: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    content_type[..end].trim_ascii()
}

/// Whether a `304 (Not Modified)` is about what the client got compressed: it asked with the weak
/// form of the validator. A strong one would not be taken for the one that it has (RFC 9111,
/// section 4.3.4).
fn not_modified(wish: &Wish, seen: &Seen<'_>) -> bool {
    seen.etag.is_some_and(|etag| wish.knows_weakly(etag))
}

/// Says that the response depends on what codings are accepted (RFC 9110, section 12.5.5), in one
/// field with what it depends on besides.
fn vary(fields: &mut Fields) {
    const VARY: &[u8] = b"Vary";
    let mut joined = Vec::new();
    for (_, name, value) in fields.iter() {
        if name.eq_ignore_ascii_case(VARY) && !value.is_empty() {
            joined.extend_from_slice(value);
            joined.extend_from_slice(b", ");
        }
    }
    joined.extend_from_slice(ACCEPT_ENCODING);
    fields.remove_named(VARY);
    fields.push(VARY, &joined);
}

/// Makes the fields those of the coded response.
fn recode(fields: &mut Fields, coding: Coding) {
    // Ranges would be of what the server has; and it is not the same bytes any more (RFC 9110,
    // section 8.8.3; RFC 9530, section 3).
    for name in ["Content-Length", "Accept-Ranges"] {
        fields.remove_named(name.as_bytes());
    }
    without_digests(fields);
    weaken(fields);
    fields.push(b"Content-Encoding", coding.code().as_bytes());
}

/// Makes a strong validator a weak one, and drops what is no validator.
fn weaken(fields: &mut Fields) {
    const ETAG: &[u8] = b"ETag";
    let Some(etag) = Seen::of(fields).etag else {
        return;
    };
    if etag.starts_with(b"W/") {
        return;
    }
    let weak = etag.starts_with(b"\"").then(|| [b"W/", etag].concat());
    fields.remove_named(ETAG);
    if let Some(weak) = weak {
        fields.push(ETAG, &weak);
    }
}

/// Drops digests of bytes that the client does not get (RFC 3230; RFC 9530).
fn without_digests(fields: &mut Fields) {
    for name in ["Content-MD5", "Content-Digest", "Repr-Digest", "Digest"] {
        fields.remove_named(name.as_bytes());
    }
}

/// Where the body is.
enum Stage {
    Open,
    /// The encoder is to be ended, and then the response, with these trailers.
    Ending(Option<Box<Fields>>),
    /// The encoder has ended; not all of what it made is with the client.
    Ended(Option<Box<Fields>>),
    Over,
}

/// A client that what it is sent is compressed for.
pub(super) struct Compressed<'a, C> {
    client: &'a mut C,
    encoder: Encoder,
    stage: Stage,
    /// What of the encoder's output the client has.
    delivered: usize,
    /// What may still be compressed in this turn.
    slice: usize,
    /// The encoder holds something.
    holds: bool,
    /// Its input was not taken: something else than the server holds it up.
    busy: bool,
    live: bool,
    quiet: Deadline,
    coding: Coding,
    series: &'a CompressionSeries,
    input: u64,
    /// Bytes that were made of it.
    pub(super) output: u64,
    _place: Place<'a>,
}

impl<'a, C: Client> Compressed<'a, C> {
    pub(super) fn new(
        client: &'a mut C,
        plan: Plan<'a>,
        series: &'a CompressionSeries,
    ) -> Result<Self, Failure> {
        let encoder = Encoder::new(plan.coding, plan.terms.effort, plan.length);
        Ok(Self {
            client,
            encoder: encoder.map_err(Failure::Coding)?,
            stage: Stage::Open,
            delivered: 0,
            slice: SLICE,
            holds: false,
            busy: false,
            live: plan.live,
            quiet: Deadline::default(),
            coding: plan.coding,
            series,
            input: 0,
            output: 0,
            _place: plan.place,
        })
    }

    /// Hands what the encoder has made to the client.
    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while let rest @ [_, ..] = &self.encoder.output()[self.delivered..] {
            let count = ready!(self.client.poll_send(cx, rest))?;
            self.delivered += count;
            self.output += count as u64;
        }
        self.encoder.forget_output();
        self.delivered = 0;
        Poll::Ready(Ok(()))
    }

    /// Hands on what the encoder holds, where nothing more comes for now.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let idle = !std::mem::take(&mut self.busy);
        if self.holds && idle && (self.live || self.quiet.poll(cx).is_ready()) {
            self.holds = false;
            self.encoder.flush().map_err(Failure::Coding)?;
        }
        Ok(())
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if let Stage::Ending(trailers) = &mut self.stage {
            let trailers = trailers.take();
            self.encoder.finish().map_err(Failure::Coding)?;
            self.stage = Stage::Ended(trailers);
        }
        ready!(self.poll_deliver(cx))?;
        if let Stage::Ended(trailers) = &mut self.stage {
            let mut trailers = trailers.take();
            if let Some(trailers) = &mut trailers {
                without_digests(trailers);
            }
            self.client
                .finish(trailers.filter(|fields| !fields.is_empty()));
            self.stage = Stage::Over;
        }
        Poll::Ready(Ok(()))
    }
}

impl<C> Drop for Compressed<'_, C> {
    fn drop(&mut self) {
        self.series.response(self.coding, self.input, self.output);
    }
}

impl<C: Client> Client for Compressed<'_, C> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Body, Failure>> {
        self.client.poll_body(cx)
    }

    fn data(&self) -> &[u8] {
        self.client.data()
    }

    fn consume(&mut self, count: usize) {
        self.client.consume(count);
    }

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        self.client.take_trailers()
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.poll_gone(cx)
    }

    fn interim(&mut self, head: ResponseHead) {
        self.client.interim(head);
    }

    fn start(&mut self, head: ResponseHead, upgrade: bool) -> Result<(), Failure> {
        self.client.start(head, upgrade)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Failure>> {
        self.busy = true;
        ready!(self.poll_deliver(cx))?;
        if self.slice == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = data.len().min(self.slice);
        self.encoder
            .write(&data[..count])
            .map_err(Failure::Coding)?;
        self.slice -= count;
        self.input += count as u64;
        self.holds = true;
        self.busy = false;
        self.quiet.set(QUIET);
        Poll::Ready(Ok(count))
    }

    fn finish(&mut self, trailers: Option<Box<Fields>>) {
        self.stage = Stage::Ending(trailers);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.slice = SLICE;
        if matches!(self.stage, Stage::Open) {
            self.poll_release(cx)?;
        }
        ready!(self.poll_end(cx))?;
        self.client.poll_flush(cx)
    }

    fn begin_tunnel(&mut self) {
        self.client.begin_tunnel();
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.poll_close(cx)
    }

    fn abort(&mut self) {
        self.client.abort();
    }

    fn last(&mut self) {
        self.client.last();
    }

    fn deadline(&mut self) -> &mut Deadline {
        self.client.deadline()
    }
}

#[cfg(test)]
mod tests;
