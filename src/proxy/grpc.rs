//! Failures as clients of gRPC understand them: a status of gRPC's own, in a response that is all
//! trailers (gRPC over HTTP/2, "Responses").

use super::error::phrase;
use crate::http::field::{Fields, Id};
use crate::http::{Framing, RequestHead, ResponseHead, Version};

/// Whether a request is gRPC: `application/grpc`, `application/grpc+proto`, … but not gRPC-Web,
/// which has trailers of another kind.
pub(super) fn asks(head: &RequestHead) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    head.version == Version::Http2
        && head.fields.iter().any(|(_, name, value)| {
            name.eq_ignore_ascii_case(b"content-type")
                && (value.get(..GRPC.len())).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
                && matches!(value.get(GRPC.len()), None | Some(b'+' | b';' | b' '))
        })
}

/// Says that a request failed with this status of HTTP.
pub(super) fn failure(status: u16, date: &[u8]) -> ResponseHead {
    let mut fields = Fields::with_capacity(256);
    fields.push(b"Content-Type", b"application/grpc");
    say(&mut fields, status);
    fields.push_with(Id::Date, |out| out.extend_from_slice(date));
    ResponseHead::own(200, "", Framing::None, fields)
}

/// The same, behind a response that has begun.
pub(super) fn trailers(status: u16) -> Box<Fields> {
    let mut fields = Box::<Fields>::default();
    say(&mut fields, status);
    fields
}

fn say(fields: &mut Fields, status: u16) {
    fields.push(b"grpc-status", code(status).as_bytes());
    // Ours are plain letters: there is nothing to percent-encode.
    fields.push(b"grpc-message", phrase(status).as_bytes());
}

/// What gRPC makes of a status of HTTP ("HTTP to gRPC Status Code Mapping"), and
/// `RESOURCE_EXHAUSTED` for a message that is too large, as its own servers say.
const fn code(status: u16) -> &'static str {
    match status {
        400 | 431 => "13",             // INTERNAL
        401 => "16",                   // UNAUTHENTICATED
        403 => "7",                    // PERMISSION_DENIED
        404 => "12",                   // UNIMPLEMENTED
        413 => "8",                    // RESOURCE_EXHAUSTED
        429 | 502 | 503 | 504 => "14", // UNAVAILABLE
        _ => "2",                      // UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_its_like() {
        for (version, content_type, expected) in [
            (Version::Http2, "application/grpc", true),
            (Version::Http2, "application/grpc+proto", true),
            (Version::Http2, "Application/GRPC; a=b", true),
            (Version::Http2, "application/grpc-web", false),
            (Version::Http2, "application/grpcx", false),
            (Version::Http2, "application/json", false),
            (Version::Http11, "application/grpc", false),
        ] {
            let mut head = RequestHead::unread();
            head.version = version;
            head.fields.push(b"content-type", content_type.as_bytes());
            assert_eq!(asks(&head), expected, "{content_type}");
        }
    }
}
