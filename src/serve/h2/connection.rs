//! What the streams of one HTTP/2 connection share: windows, the tables of fields, what is to be
//! said; and what becomes of each frame that comes (RFC 9113, section 6).
//!
//! It does no I/O and waits for nothing. All of it belongs to one task, so that neither a lock nor a
//! channel is needed.

mod frames;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::task::{Context, Poll};

use super::budget::Budget;
use super::output::{FULL, Output};
use super::request::{self, Bounds};
use super::streams::{Reset, Slot, Stream, Streams};
use crate::http::field::{Fields, Id};
use crate::http::frame::{
    ErrorCode, HEAD, Head, MAX_PAYLOAD, PREFACE, WINDOW, flag, kind, setting,
};
use crate::http::hpack::{Decoder, Encoder};
use crate::http::parse::HeadError;
use crate::http::{Framing, RequestHead, ResponseHead};
use crate::proxy::error::Refusal;
use crate::wire::Deadline;
use frames::RESET;

/// What a client may send on one stream before it is read: bounds what a slow upstream makes us
/// hold (RFC 9113, section 5.2).
const STREAM_WINDOW: i32 = 256 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: i32 = 1 << 20;
/// Streams that the client has reset and that still cost us something (CVE-2023-44487).
const MAX_RESETS: usize = 32;
/// Streams of a connection that the client's mistakes have made us reset (CVE-2025-8671).
const MAX_PROVOKED_RESETS: usize = 128;
/// What a head that is too large costs, in tokens.
const OVERSIZED: u32 = 2 * RESET;
/// The last number that a stream can have.
const LAST: u32 = 0x7fff_ffff;
/// Says which of our pings is answered.
const FAREWELL: &[u8; 8] = b"farewell";

/// Why a connection ends that the client is to blame for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It broke a rule of the protocol.
    Protocol(ErrorCode),
    /// It did what costs more than it pays.
    Frames,
    /// It had too many streams ended at once, by itself or by mistakes.
    Resets,
}

impl Fault {
    /// What the client is told.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::Protocol(code) => code,
            Self::Frames | Self::Resets => ErrorCode::ENHANCE_YOUR_CALM,
        }
    }
}

impl From<ErrorCode> for Fault {
    fn from(code: ErrorCode) -> Self {
        Self::Protocol(code)
    }
}

/// A request that has begun.
pub type Opened = (Slot, Result<RequestHead, Refusal>);

/// A block of fields that goes on in the next frame.
#[derive(Debug)]
struct Block {
    stream: u32,
    ended: bool,
    purpose: Purpose,
    bytes: Vec<u8>,
}

/// What a block of fields is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Begins a stream.
    Request,
    /// Ends the request of this one.
    Trailers(Slot),
    /// Nothing: it is read because what follows refers to it.
    Nothing,
}

/// How far the end of a connection has come (RFC 9113, section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    No,
    /// The client was told, and how far it had come then is asked.
    Announced,
    /// It takes no streams beyond this one.
    Since(u32),
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    /// What is to be sent.
    pub output: Output,
    /// What the client may do.
    pub budget: Budget,
    /// Those of streams that are over: with their timers, so that a request need not arm one.
    pub deadlines: Vec<Deadline>,
    streams: Streams,
    decoder: Decoder,
    encoder: Encoder,
    bounds: Bounds,
    max_streams: usize,
    /// The preface has come.
    greeted: bool,
    /// The client's settings have come.
    settled: bool,
    block: Option<Block>,
    /// What the client may still send, on all streams.
    receive_window: i32,
    /// What of it was used and may be used again, which it has not been told.
    unreleased: u32,
    /// What it may be sent.
    send_window: i32,
    /// The window that its streams begin with.
    initial_window: i32,
    /// Streams that have something to send, and for which there was no room.
    queue: VecDeque<Slot>,
    provoked: usize,
    going: Going,
    /// The client wants no more.
    leaving: bool,
}

impl Connection {
    /// One that begins: its settings are to be sent.
    pub fn new(bounds: Bounds, max_streams: u32) -> Self {
        let mut output = Output::default();
        let size = u32::try_from(bounds.size).unwrap_or(u32::MAX);
        let mut settings = Vec::with_capacity(24);
        for (name, value) in [
            (setting::MAX_CONCURRENT_STREAMS, max_streams),
            (setting::INITIAL_WINDOW_SIZE, STREAM_WINDOW.unsigned_abs()),
            (setting::MAX_HEADER_LIST_SIZE, size),
            (setting::ENABLE_CONNECT_PROTOCOL, 1),
        ] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        output.frame(kind::SETTINGS, 0, 0, &settings);
        let more = (CONNECTION_WINDOW - WINDOW).to_be_bytes();
        output.frame(kind::WINDOW_UPDATE, 0, 0, &more);
        Self {
            output,
            budget: Budget::new(),
            deadlines: Vec::new(),
            streams: Streams::default(),
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            bounds,
            max_streams: max_streams as usize,
            greeted: false,
            settled: false,
            block: None,
            receive_window: CONNECTION_WINDOW,
            unreleased: 0,
            send_window: WINDOW,
            initial_window: WINDOW,
            queue: VecDeque::new(),
            provoked: 0,
            going: Going::No,
            leaving: false,
        }
    }

    /// Whether the client has said what it is like.
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether no stream is under way.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether nothing more will happen on it.
    pub fn is_over(&self) -> bool {
        let gone = self.leaving || matches!(self.going, Going::Since(_));
        gone && self.streams.is_empty()
    }

    /// What of its window was used and may be used again, which the client has not been told.
    pub const fn unreleased(&self) -> u32 {
        self.unreleased
    }

    /// Takes what stands at the front of what came; how much, and a request that has begun by it.
    /// `None`: it is not whole.
    ///
    /// # Errors
    /// What ends the connection.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<(usize, Option<Opened>)>, Fault> {
        if !self.greeted {
            let known = bytes.len().min(PREFACE.len());
            if bytes[..known] != PREFACE[..known] {
                return Err(ErrorCode::PROTOCOL_ERROR.into());
            }
            self.greeted = known == PREFACE.len();
            return Ok(self.greeted.then_some((known, None)));
        }
        let Some(head) = Head::read(bytes) else {
            return Ok(None);
        };
        if head.length > MAX_PAYLOAD {
            return Err(ErrorCode::FRAME_SIZE_ERROR.into());
        }
        let length = HEAD + head.length;
        match bytes.get(HEAD..length) {
            Some(payload) => Ok(Some((length, self.frame(head, payload)?))),
            None => Ok(None),
        }
    }

    fn frame(&mut self, head: Head, payload: &[u8]) -> Result<Option<Opened>, Fault> {
        let goes_on = self.block.as_ref().map(|block| block.stream);
        if (head.kind == kind::CONTINUATION || goes_on.is_some())
            && (head.kind != kind::CONTINUATION || goes_on != Some(head.stream))
        {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        // RFC 9113, section 3.4.
        if !self.settled && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        match head.kind {
            kind::DATA => self.data(head, payload)?,
            kind::HEADERS => return self.headers(head, payload),
            kind::CONTINUATION => return self.continuation(head, payload),
            kind::PRIORITY => self.priority(head, payload)?,
            kind::RST_STREAM => self.reset(head, payload)?,
            kind::SETTINGS => self.settings(head, payload)?,
            kind::PING => self.ping(head, payload)?,
            kind::GOAWAY => self.goaway(head, payload)?,
            kind::WINDOW_UPDATE => self.window_update(head, payload)?,
            kind::PUSH_PROMISE => return Err(ErrorCode::PROTOCOL_ERROR.into()),
            _ => self.spend(1)?,
        }
        Ok(None)
    }

    fn spend(&mut self, tokens: u32) -> Result<(), Fault> {
        match self.budget.take(tokens) {
            true => Ok(()),
            false => Err(Fault::Frames),
        }
    }

    /// A block of fields is whole.
    fn block(
        &mut self,
        id: u32,
        ended: bool,
        purpose: Purpose,
        bytes: &[u8],
    ) -> Result<Option<Opened>, Fault> {
        let unread = |_| ErrorCode::COMPRESSION_ERROR;
        match purpose {
            Purpose::Nothing => {
                self.decoder.read(bytes, |_| {}).map_err(unread)?;
            }
            Purpose::Trailers(slot) => {
                let trailers = request::trailers(&mut self.decoder, bytes).map_err(unread)?;
                let stream = self.streams.get(slot);
                // It may have been reset while the block came.
                if stream.reset.is_some() {
                    return Ok(None);
                }
                match trailers {
                    Ok(trailers) if ended && stream.announced.is_none_or(|left| left == 0) => {
                        stream.trailers = trailers;
                        stream.remote_ended = true;
                        stream.wake();
                    }
                    _ => self.fault(slot, ErrorCode::PROTOCOL_ERROR)?,
                }
            }
            Purpose::Request => {
                let head = request::read(&mut self.decoder, bytes, ended, self.bounds);
                return self.open(id, ended, head.map_err(unread)?);
            }
        }
        Ok(None)
    }

    /// A stream begins.
    fn open(
        &mut self,
        id: u32,
        ended: bool,
        head: Result<RequestHead, Refusal>,
    ) -> Result<Option<Opened>, Fault> {
        // RFC 9113, section 6.8: the client knows that it was not looked at.
        if matches!(self.going, Going::Since(last) if id > last) {
            self.streams.remember(id, true);
            return Ok(None);
        }
        if self.streams.wanted() >= self.max_streams {
            self.spend(RESET)?;
            self.say_reset(id, ErrorCode::REFUSED_STREAM);
            self.streams.remember(id, true);
            return Ok(None);
        }
        // A short block can stand for much that is read and not used (RFC 7541, section 7.3).
        if let Err(Refusal::Head(HeadError::TooLong | HeadError::TooManyFields)) = head {
            self.spend(OVERSIZED)?;
        }
        let announced = match head.as_ref().map(|head| head.framing) {
            Ok(Framing::Length(length)) => Some(length),
            Ok(Framing::None) if !ended && head.as_ref().is_ok_and(|head| !head.upgrade) => Some(0),
            _ => None,
        };
        let slot = self.streams.insert(Stream {
            id,
            receive_window: STREAM_WINDOW,
            send_window: self.initial_window,
            announced,
            remote_ended: ended,
            ..Stream::default()
        });
        Ok(Some((slot, head)))
    }

    /// The client has made a mistake on one stream.
    fn fault(&mut self, slot: Slot, code: ErrorCode) -> Result<(), Fault> {
        self.end(slot, code);
        self.provoked += 1;
        match self.provoked > MAX_PROVOKED_RESETS {
            true => Err(Fault::Resets),
            false => Ok(()),
        }
    }

    /// Ends a stream at once.
    pub fn end(&mut self, slot: Slot, code: ErrorCode) {
        let stream = self.streams.get(slot);
        if stream.reset.is_none() {
            stream.reset = Some(Reset::Local(code));
            stream.wake();
            let id = stream.id;
            self.say_reset(id, code);
        }
    }

    /// Ends a stream whose response is whole. Apart from that: a client that reads both at once may
    /// take the one for the failure of the other (curl before 8.0).
    fn stop(&mut self, slot: Slot) {
        let stream = self.streams.get(slot);
        if stream.reset.is_none() {
            let (id, code) = (stream.id, ErrorCode::NO_ERROR);
            stream.reset = Some(Reset::Local(code));
            (self.output).frame_apart(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
        }
    }

    /// Answers a request that is malformed by more than a response (RFC 9113, section 8.1.1).
    pub fn reject(&mut self, slot: Slot) {
        self.provoked += 1;
        self.end(slot, ErrorCode::PROTOCOL_ERROR);
    }

    /// Whether too many streams that the client has reset still cost us something. Those at work on
    /// them have to be heard first: a page that is left takes all its requests back at once.
    pub const fn is_littered(&self) -> bool {
        self.streams.dying() > MAX_RESETS
    }

    /// Whether the client's mistakes are too many.
    pub const fn is_provoked(&self) -> bool {
        self.provoked > MAX_PROVOKED_RESETS
    }

    /// The client has gone: all streams end.
    pub fn abandon(&mut self) {
        self.leaving = true;
        for stream in self.streams.iter_mut() {
            stream.reset.get_or_insert(Reset::Local(ErrorCode::CANCEL));
            stream.wake();
        }
    }

    /// Asks the client to go when it is done (RFC 9113, section 6.8).
    pub fn farewell(&mut self) {
        if self.going == Going::No {
            self.going = Going::Announced;
            self.say_goaway(LAST, ErrorCode::NO_ERROR);
            self.output.frame(kind::PING, 0, 0, FAREWELL);
        }
    }

    /// Ends the connection.
    pub fn close(&mut self, code: ErrorCode) {
        // RFC 9113, section 6.8: what was said already is not taken back.
        let last = match self.going {
            Going::Since(last) => last,
            Going::No | Going::Announced => self.streams.last(),
        };
        self.going = Going::Since(last);
        self.say_goaway(last, code);
    }

    fn say_goaway(&mut self, last: u32, code: ErrorCode) {
        let [a, b, c, d] = last.to_be_bytes();
        let [e, f, g, h] = code.0.to_be_bytes();
        self.output
            .frame(kind::GOAWAY, 0, 0, &[a, b, c, d, e, f, g, h]);
    }

    fn say_reset(&mut self, id: u32, code: ErrorCode) {
        self.output
            .frame(kind::RST_STREAM, 0, id, &code.0.to_be_bytes());
    }

    /// The stream that is held there.
    pub fn stream(&mut self, slot: Slot) -> &mut Stream {
        self.streams.get(slot)
    }

    /// Data of a stream was taken, so that the client may send as much again.
    pub fn release(&mut self, slot: Slot, count: u32) {
        self.release_connection(count);
        let stream = self.streams.get(slot);
        stream.unreleased += count;
        if stream.unreleased >= STREAM_WINDOW.unsigned_abs() / 2
            && !stream.remote_ended
            && stream.reset.is_none()
        {
            let more = std::mem::take(&mut stream.unreleased);
            stream.receive_window = stream.receive_window.saturating_add_unsigned(more);
            let id = stream.id;
            self.output
                .frame(kind::WINDOW_UPDATE, 0, id, &more.to_be_bytes());
        }
    }

    fn release_connection(&mut self, count: u32) {
        self.unreleased += count;
        if self.unreleased >= CONNECTION_WINDOW.unsigned_abs() / 2 {
            let more = std::mem::take(&mut self.unreleased);
            self.receive_window = self.receive_window.saturating_add_unsigned(more);
            self.output
                .frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    /// Appends the head of a response, final or interim.
    pub fn respond(&mut self, slot: Slot, head: &ResponseHead, end: bool) {
        let id = self.streams.get(slot).id;
        self.fields(id, Some(head.status), &head.fields, end);
        if end {
            self.streams.get(slot).local_ended = true;
        }
    }

    /// Appends a block of fields (RFC 9113, section 4.3).
    fn fields(&mut self, id: u32, status: Option<u16>, fields: &Fields, end: bool) {
        let flags = if end { flag::END_STREAM } else { 0 };
        self.output
            .frame(kind::HEADERS, flags | flag::END_HEADERS, id, &[]);
        let out = self.output.end();
        let begin = out.len();
        self.encoder.begin(out);
        if let Some(status) = status {
            self.encoder.status(out, status);
        }
        for (field, name, value) in fields.iter() {
            // HTTP/2 has no room for these (RFC 9113, section 8.2.2): a server's slip must not cost
            // the response.
            if !matches!(
                field,
                Id::Connection | Id::KeepAlive | Id::ProxyConnection | Id::Upgrade
            ) {
                self.encoder.field(out, name, value);
            }
        }
        let length = out.len() - begin;
        if length > MAX_PAYLOAD {
            return split(out, begin, id, flags);
        }
        let [_, a, b, c] = u32::try_from(length).unwrap_or_default().to_be_bytes();
        out[begin - HEAD..begin - HEAD + 3].copy_from_slice(&[a, b, c]);
    }

    /// Takes data of a response; how much. Pending while there is no room for it, or no window.
    pub fn poll_send(&mut self, cx: &Context<'_>, slot: Slot, data: &[u8]) -> Poll<usize> {
        let room = FULL.saturating_sub(self.output.len());
        let connection = usize::try_from(self.send_window).unwrap_or_default();
        let is_crowded = !self.queue.is_empty();
        let stream = self.streams.get(slot);
        let own = usize::try_from(stream.send_window).unwrap_or_default();
        if own == 0 {
            stream.wait(cx);
            return Poll::Pending;
        }
        if room <= HEAD || connection == 0 || (is_crowded && !stream.granted) {
            if !stream.queued {
                stream.queued = true;
                self.queue.push_back(slot);
            }
            stream.granted = false;
            stream.wait(cx);
            return Poll::Pending;
        }
        stream.granted = false;
        let most = own.min(connection).min(room - HEAD).min(MAX_PAYLOAD);
        let data = &data[..data.len().min(most)];
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // a frame's length
        let count = data.len() as i32;
        stream.send_window -= count;
        self.send_window -= count;
        let place = self.output.frame(kind::DATA, 0, stream.id, data);
        stream.last_data = Some(place);
        self.budget.carried();
        Poll::Ready(data.len())
    }

    /// Has the stream go on that has waited longest, if there is room. `false`: there is none, or
    /// nobody waits.
    pub fn grant(&mut self) -> bool {
        // Not for a few bytes.
        if self.output.len() > FULL / 2 || self.send_window <= 0 {
            return false;
        }
        let Some(slot) = self.queue.pop_front() else {
            return false;
        };
        let stream = self.streams.get(slot);
        stream.queued = false;
        stream.granted = true;
        stream.wake();
        true
    }

    /// Appends the end of a response.
    pub fn finish(&mut self, slot: Slot, trailers: Option<&Fields>) {
        self.budget.responded();
        let stream = self.streams.get(slot);
        if stream.local_ended || stream.reset.is_some() {
            return;
        }
        stream.local_ended = true;
        let (id, last) = (stream.id, stream.last_data);
        match trailers {
            Some(trailers) => self.fields(id, None, trailers, true),
            None if last.is_some_and(|place| self.output.make_last(place)) => {}
            None => self.output.end_stream(id),
        }
    }

    /// Nobody works on a stream any more.
    pub fn leave(&mut self, slot: Slot) {
        let stream = self.streams.get(slot);
        if !stream.local_ended {
            self.end(slot, ErrorCode::INTERNAL_ERROR);
        } else if !stream.remote_ended && stream.announced != Some(0) {
            // RFC 9113, section 8.1: the rest of the request is not needed. Where only its end is to
            // come, that may be under way, and is waited for by nobody.
            self.stop(slot);
        }
        if self.streams.get(slot).queued {
            self.queue.retain(|&queued| queued != slot);
        }
        let stream = self.streams.remove(slot);
        // Its body was not read to its end.
        self.release_connection(u32::try_from(stream.body.len()).unwrap_or_default());
    }
}

/// Makes several frames of a block that is too long for one. It begins at `begin`, behind the head
/// of the first.
fn split(out: &mut Vec<u8>, begin: usize, id: u32, flags: u8) {
    let block = out.split_off(begin);
    out.truncate(begin - HEAD);
    let count = block.len().div_ceil(MAX_PAYLOAD);
    for (at, piece) in block.chunks(MAX_PAYLOAD).enumerate() {
        let (kind, flags) = match at {
            0 => (kind::HEADERS, flags),
            _ => (kind::CONTINUATION, 0),
        };
        let last = if at + 1 == count {
            flag::END_HEADERS
        } else {
            0
        };
        let head = Head {
            length: piece.len(),
            kind,
            flags: flags | last,
            stream: id,
        };
        out.extend_from_slice(&head.bytes());
        out.extend_from_slice(piece);
    }
}
