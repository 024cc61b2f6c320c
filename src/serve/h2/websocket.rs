//! WebSockets over HTTP/2 (RFC 8441): an extended CONNECT towards the client is an `Upgrade` of
//! HTTP/1.1 towards the server.

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::http::field::Fields;
use crate::http::parse::HeadError;
use crate::http::{RequestHead, ResponseHead};
use crate::proxy::error::{Failure, Refusal};

/// The only protocol that there is a translation for.
pub const PROTOCOL: &str = "websocket";

const KEY: &[u8] = b"Sec-WebSocket-Key";
const ACCEPT: &[u8] = b"Sec-WebSocket-Accept";

/// Proves that a server has understood the handshake (RFC 6455, section 1.3). HTTP/2 has no need
/// of it, so the proxy asks for it and looks at it in the client's place.
#[derive(Debug, PartialEq, Eq)]
pub struct Opening {
    accept: String,
}

impl Opening {
    /// Makes the request one that a server of HTTP/1.1 understands (RFC 8441, section 5).
    pub fn ask(head: &mut RequestHead) -> Result<Self, Refusal> {
        let mut nonce = [0; 16];
        // Without randomness there is no TLS either, and we would not be here.
        rand::fill(&mut nonce)
            .map_err(|_| HeadError::Malformed("there is no key for a WebSocket"))?;
        let key = STANDARD.encode(nonce);
        forget(&mut head.fields);
        head.fields.push(KEY, key.as_bytes());
        Ok(Self {
            accept: accept(&key),
        })
    }

    /// Brings the server's `101` into the form that HTTP/2 has for it, if it holds.
    pub fn accepted(&self, head: &mut ResponseHead) -> Result<(), Failure> {
        if !self.is_answered_by(&head.fields) {
            return Err(Failure::BadHead(HeadError::Malformed(
                "Sec-WebSocket-Accept does not go with the request",
            )));
        }
        head.status = 200;
        forget(&mut head.fields);
        Ok(())
    }

    fn is_answered_by(&self, fields: &Fields) -> bool {
        let mut given = (fields.iter())
            .filter(|(_, name, _)| name.eq_ignore_ascii_case(ACCEPT))
            .map(|(_, _, value)| value);
        given.next() == Some(self.accept.as_bytes()) && given.next().is_none()
    }

    /// Whether a response other than a `101` may be passed on: a 2xx would tell the client that
    /// its WebSocket is open (RFC 9110, section 9.3.6).
    pub const fn declined(status: u16) -> Result<(), Failure> {
        match status {
            200..300 => Err(Failure::BadHead(HeadError::Malformed(
                "the server did not switch to WebSocket",
            ))),
            _ => Ok(()),
        }
    }
}

/// Removes what belongs to a handshake in HTTP/1.1.
fn forget(fields: &mut Fields) {
    fields.remove_named(KEY);
    fields.remove_named(ACCEPT);
}

/// What a server makes of a key (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Framing;

    #[test]
    fn a_key_is_answered_as_the_rfc_says() {
        // RFC 6455, section 1.3
        let answer = accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_the_answer_to_its_own_key_is_accepted() {
        let mut request = RequestHead::unread();
        request.fields.push(b"sec-websocket-key", b"mine");
        let opening = Opening::ask(&mut request).unwrap();
        assert_eq!(request.fields.len(), 1);
        let (_, _, key) = request.fields.iter().next().unwrap();
        let right = accept(std::str::from_utf8(key).unwrap());
        let answer = |values: &[&str]| {
            let mut fields = Fields::default();
            for value in values {
                fields.push(b"sec-websocket-accept", value.as_bytes());
            }
            let mut head = ResponseHead::own(101, "", Framing::None, fields);
            (opening.accepted(&mut head).is_ok()).then_some((head.status, head.fields.len()))
        };
        assert_eq!(answer(&[&right]), Some((200, 0)));
        assert_eq!(answer(&[]), None);
        assert_eq!(answer(&["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]), None);
        assert_eq!(answer(&[&right, &right]), None);
    }
}
