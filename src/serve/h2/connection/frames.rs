//! What becomes of each kind of frame that a client sends (RFC 9113, section 6).

use super::{Block, Connection, FAREWELL, Fault, Going, Opened, Purpose};
use crate::http::frame::{ErrorCode, Head, MAX_PAYLOAD, flag, kind, setting, unpadded};
use crate::serve::h2::streams::{Past, Reset};

/// Bytes of a block of fields beyond those that a message may have: what coding can add.
const BLOCK_SLACK: usize = 16 << 10;
/// Settings of one frame that cost a token: each may touch all streams.
const SETTINGS_PER_TOKEN: usize = 8;
/// What a reset costs, in tokens: there was a request, which may have gone to an upstream.
pub(super) const RESET: u32 = 8;

impl Connection {
    /// RFC 9113, section 6.1.
    pub(super) fn data(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        let data = unpadded(head, payload).filter(|_| head.stream != 0);
        let data = data.ok_or(ErrorCode::PROTOCOL_ERROR)?;
        // An empty frame may end a stream.
        if data.is_empty() && !head.has(flag::END_STREAM) {
            self.spend(1)?;
        }
        self.budget.transferred(head.length);
        #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // 24 bits
        let (all, padding) = (head.length as i32, (head.length - data.len()) as u32);
        self.receive_window -= all;
        if self.receive_window < 0 {
            return Err(ErrorCode::FLOW_CONTROL_ERROR.into());
        }
        let Some(slot) = self.streams.find(head.stream) else {
            self.release_connection(all.unsigned_abs());
            return match self.streams.past(head.stream) {
                Past::Idle | Past::Skipped => Err(ErrorCode::PROTOCOL_ERROR.into()),
                Past::Closed => Err(ErrorCode::STREAM_CLOSED.into()),
                Past::Forgotten => Ok(()),
            };
        };
        let stream = self.streams.get(slot);
        let wrong = match stream.reset {
            Some(Reset::Remote) => return Err(ErrorCode::STREAM_CLOSED.into()),
            Some(Reset::Local(_)) => {
                self.release_connection(all.unsigned_abs());
                return Ok(());
            }
            None if stream.remote_ended => Some(ErrorCode::STREAM_CLOSED),
            None => {
                stream.receive_window -= all;
                let announced = &mut stream.announced;
                let short = announced.is_some_and(|left| left < data.len() as u64);
                *announced = announced.map(|left| left.saturating_sub(data.len() as u64));
                let ended = head.has(flag::END_STREAM);
                if stream.receive_window < 0 {
                    Some(ErrorCode::FLOW_CONTROL_ERROR)
                } else if short || ended && announced.is_some_and(|left| left > 0) {
                    Some(ErrorCode::PROTOCOL_ERROR) // RFC 9113, section 8.1.1
                } else {
                    stream.remote_ended = ended;
                    None
                }
            }
        };
        if let Some(code) = wrong {
            self.release_connection(all.unsigned_abs());
            return self.fault(slot, code);
        }
        if !data.is_empty() {
            stream.body.end().extend_from_slice(data);
        }
        stream.wake();
        if padding > 0 {
            self.release(slot, padding);
        }
        Ok(())
    }

    /// RFC 9113, section 6.2.
    pub(super) fn headers(&mut self, head: Head, payload: &[u8]) -> Result<Option<Opened>, Fault> {
        let mut fragment = unpadded(head, payload).ok_or(ErrorCode::PROTOCOL_ERROR)?;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = fragment
                .split_first_chunk::<5>()
                .ok_or(ErrorCode::PROTOCOL_ERROR)?;
            independent(head.stream, priority)?;
            fragment = rest;
        }
        let id = head.stream;
        if id == 0 {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        let purpose = match self.streams.find(id) {
            Some(slot) => {
                let stream = self.streams.get(slot);
                match stream.reset {
                    Some(Reset::Local(_)) => Purpose::Nothing,
                    Some(Reset::Remote) => return Err(ErrorCode::STREAM_CLOSED.into()),
                    None if stream.remote_ended => {
                        self.fault(slot, ErrorCode::STREAM_CLOSED)?;
                        Purpose::Nothing
                    }
                    None => Purpose::Trailers(slot),
                }
            }
            None => match self.streams.past(id) {
                // RFC 9113, section 5.1.1.
                Past::Idle if id % 2 == 1 => {
                    self.streams.begin(id);
                    Purpose::Request
                }
                Past::Idle | Past::Skipped => return Err(ErrorCode::PROTOCOL_ERROR.into()),
                Past::Closed => return Err(ErrorCode::STREAM_CLOSED.into()),
                Past::Forgotten => Purpose::Nothing,
            },
        };
        if purpose == Purpose::Nothing {
            self.spend(1)?;
        }
        if head.has(flag::END_HEADERS) {
            return self.block(id, head.has(flag::END_STREAM), purpose, fragment);
        }
        self.block = Some(Block {
            stream: id,
            ended: head.has(flag::END_STREAM),
            purpose,
            bytes: fragment.to_vec(),
        });
        Ok(None)
    }

    /// RFC 9113, section 6.10.
    pub(super) fn continuation(
        &mut self,
        head: Head,
        payload: &[u8],
    ) -> Result<Option<Opened>, Fault> {
        self.spend(1)?;
        let Some(mut block) = self.block.take() else {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        };
        if block.bytes.len() + payload.len() > self.bounds.size + BLOCK_SLACK {
            return Err(Fault::Frames);
        }
        block.bytes.extend_from_slice(payload);
        if head.has(flag::END_HEADERS) {
            return self.block(block.stream, block.ended, block.purpose, &block.bytes);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// RFC 9113, section 6.3.
    pub(super) fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        self.spend(1)?;
        if head.stream == 0 {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        let priority = payload
            .try_into()
            .map_err(|_| ErrorCode::FRAME_SIZE_ERROR)?;
        independent(head.stream, priority)
    }

    /// RFC 9113, section 6.4.
    pub(super) fn reset(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        self.spend(RESET)?;
        if payload.len() != 4 {
            return Err(ErrorCode::FRAME_SIZE_ERROR.into());
        }
        if head.stream == 0 {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        match self.streams.find(head.stream) {
            Some(slot) => self.streams.reset(slot),
            None if self.streams.past(head.stream) == Past::Idle => {
                return Err(ErrorCode::PROTOCOL_ERROR.into());
            }
            None => {}
        }
        Ok(())
    }

    /// RFC 9113, section 6.5.
    pub(super) fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        self.spend(1)?;
        if head.stream != 0 {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || head.has(flag::ACK) && !payload.is_empty() {
            return Err(ErrorCode::FRAME_SIZE_ERROR.into());
        }
        if head.has(flag::ACK) {
            return Ok(());
        }
        self.spend((settings.len() / SETTINGS_PER_TOKEN) as u32)?; // of at most 16 KiB
        for &[a, b, c, d, e, f] in settings {
            self.set(u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))?;
        }
        self.settled = true;
        self.output.frame(kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), ErrorCode> {
        match name {
            setting::HEADER_TABLE_SIZE => self.encoder.limit(value as usize),
            setting::ENABLE_PUSH
            | setting::ENABLE_CONNECT_PROTOCOL
            | setting::NO_RFC7540_PRIORITIES
                if value > 1 =>
            {
                return Err(ErrorCode::PROTOCOL_ERROR);
            }
            setting::INITIAL_WINDOW_SIZE => {
                let window = i32::try_from(value).map_err(|_| ErrorCode::FLOW_CONTROL_ERROR)?;
                let change = window - self.initial_window;
                self.initial_window = window;
                for stream in self.streams.iter_mut() {
                    let window = stream.send_window.checked_add(change);
                    stream.send_window = window.ok_or(ErrorCode::FLOW_CONTROL_ERROR)?;
                    stream.wake();
                }
            }
            // Ours are never longer than everybody takes: nor is a record of TLS.
            setting::MAX_FRAME_SIZE if !(MAX_PAYLOAD..1 << 24).contains(&(value as usize)) => {
                return Err(ErrorCode::PROTOCOL_ERROR);
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 9113, section 6.7.
    pub(super) fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        self.spend(1)?;
        if head.stream != 0 {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        if payload.len() != 8 {
            return Err(ErrorCode::FRAME_SIZE_ERROR.into());
        }
        if !head.has(flag::ACK) {
            self.output.frame(kind::PING, flag::ACK, 0, payload);
        } else if payload == FAREWELL && self.going == Going::Announced {
            // What the client had sent before it knew has come by now.
            let last = self.streams.last();
            self.going = Going::Since(last);
            self.say_goaway(last, ErrorCode::NO_ERROR);
        }
        Ok(())
    }

    /// RFC 9113, section 6.8.
    pub(super) fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        self.spend(1)?;
        if head.stream != 0 {
            return Err(ErrorCode::PROTOCOL_ERROR.into());
        }
        if payload.len() < 8 {
            return Err(ErrorCode::FRAME_SIZE_ERROR.into());
        }
        self.leaving = true;
        Ok(())
    }

    /// RFC 9113, section 6.9.
    pub(super) fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Fault> {
        self.spend(1)?;
        let bytes = payload
            .try_into()
            .map_err(|_| ErrorCode::FRAME_SIZE_ERROR)?;
        let more = i32::from_be_bytes(bytes) & i32::MAX;
        if head.stream == 0 {
            if more == 0 {
                return Err(ErrorCode::PROTOCOL_ERROR.into());
            }
            let window = self.send_window.checked_add(more);
            self.send_window = window.ok_or(ErrorCode::FLOW_CONTROL_ERROR)?;
            return Ok(());
        }
        let Some(slot) = self.streams.find(head.stream) else {
            return match self.streams.past(head.stream) {
                Past::Idle => Err(ErrorCode::PROTOCOL_ERROR.into()),
                _ => Ok(()),
            };
        };
        if more == 0 {
            return self.fault(slot, ErrorCode::PROTOCOL_ERROR);
        }
        let stream = self.streams.get(slot);
        match stream.send_window.checked_add(more) {
            Some(window) => {
                stream.send_window = window;
                stream.wake();
                Ok(())
            }
            None => self.fault(slot, ErrorCode::FLOW_CONTROL_ERROR),
        }
    }
}

/// A stream does not depend on itself (RFC 7540, section 5.3.1).
fn independent(stream: u32, &[a, b, c, d, _]: &[u8; 5]) -> Result<(), Fault> {
    match u32::from_be_bytes([a & 0x7f, b, c, d]) == stream {
        true => Err(ErrorCode::PROTOCOL_ERROR.into()),
        false => Ok(()),
    }
}
