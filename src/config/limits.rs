//! `[limits]`: what clients may ask for.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::default;
use super::read::{Size, Table};
use super::{Limits, Rate};

/// Reads the section.
pub(super) fn limits(t: &mut Table<'_>) -> Limits {
    // One head may not become a burden by itself.
    const HEAD: (Size, Size) = (Size(8 * 1024), Size(1024 * 1024));
    let connections = t.or_within(
        "connections",
        default::CONNECTIONS,
        0..=100_000_000,
        "Connections open at once, over all listeners; 0: no limit.",
    );
    let per_client = t.or_within(
        "connections_per_client",
        default::CONNECTIONS_PER_CLIENT,
        0..=100_000_000,
        "Connections that one client address (in IPv6: one /64) has open at once; 0: no limit. \
         More are closed as they come.",
    );
    let handshakes = t.or_within(
        "handshakes",
        default::HANDSHAKES,
        0..=100_000_000,
        "TLS handshakes in flight at once; 0: no limit. More wait to be accepted.",
    );
    let requests = t.or_within(
        "requests_per_connection",
        default::REQUESTS_PER_CONNECTION,
        0..=u32::MAX,
        "Requests that a connection carries before it is closed in order; 0: no limit.",
    );
    let request_head = t.or_within(
        "request_head",
        default::REQUEST_HEAD_SIZE,
        HEAD.0..=HEAD.1,
        "Size of a request's head: request line and fields.",
    );
    let request_body = t.or(
        "request_body",
        default::REQUEST_BODY_SIZE,
        "Size of a request's body; `\"0\"`: no limit.",
    );
    Limits {
        connections: NonZeroUsize::new(connections),
        connections_per_client: NonZeroUsize::new(per_client),
        handshakes: NonZeroUsize::new(handshakes),
        requests_per_connection: match requests {
            0 => u64::MAX,
            requests => u64::from(requests),
        },
        request_head: usize::try_from(request_head.0).unwrap_or(usize::MAX),
        request_fields: t.or_within(
            "request_fields",
            default::REQUEST_FIELDS,
            10..=10_000,
            "Header fields of a request.",
        ),
        request_body: Some(request_body.0).filter(|bytes| *bytes > 0),
        streams: t.or_within(
            "streams",
            default::STREAMS,
            1..=10_000,
            "Concurrent HTTP/2 streams of a connection.",
        ),
        client_rate: rate(
            t,
            "client_rate",
            "Requests per second of one client address (in IPv6: one /64), over all workers; 0: \
             no limit. More are answered with 429.",
            "client_burst",
        ),
    }
}

/// A rate and the burst that goes with it, in two keys.
pub(super) fn rate(
    t: &mut Table<'_>,
    key: &'static str,
    meaning: &'static str,
    burst: &'static str,
) -> Option<Rate> {
    const MOST: u32 = 1_000_000;
    let per_second: u32 = t.or_within(key, 0, 0..=MOST, meaning);
    let burst: u32 = t.or_described_within(
        burst,
        || per_second,
        1..=MOST,
        "one second's requests",
        "Requests that may come at once, after a time with fewer.",
    );
    Some(Rate {
        requests: NonZeroU32::new(per_second)?,
        within: Duration::from_secs(1),
        burst: NonZeroU32::new(burst)?,
    })
}
