//! Who asks, where proxies in front say for whom they ask.

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use super::Snapshot;
use crate::http::RequestHead;
use crate::http::field::Id;

/// The peer, or the last address in its `X-Forwarded-For` that is not believed itself: what stands
/// before that, anybody may have written.
pub fn of(world: &Snapshot, peer: IpAddr, head: &RequestHead) -> IpAddr {
    if !world.trusts(peer) {
        return peer;
    }
    let values: SmallVec<[&[u8]; 4]> = head.fields.get_all(Id::XForwardedFor).collect();
    last_unknown(&values, |client| world.trusts(client)).unwrap_or(peer)
}

/// The same; `None` where nobody is named. The way ends where something is no address.
fn last_unknown(values: &[&[u8]], trusts: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let mut last = None;
    let items = (values.iter().rev()).flat_map(|value| value.rsplit(|&byte| byte == b','));
    for item in items.map(<[u8]>::trim_ascii) {
        let Some(client) = address(item) else {
            break;
        };
        last = Some(client);
        if !trusts(client) {
            break;
        }
    }
    last
}

/// An address as it stands there; some write the port behind it.
fn address(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    let inner = (text.strip_prefix('[')).and_then(|text| text.strip_suffix(']'));
    let address = match inner.unwrap_or(text).parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_first_stranger_is_hearsay() {
        for (values, expected) in [
            (&[][..], None),
            (&["192.0.2.1"][..], Some("192.0.2.1")),
            (&["9.9.9.9, 192.0.2.1"], Some("192.0.2.1")),
            (
                &["9.9.9.9, 192.0.2.1, 10.0.0.1 ,10.0.0.2"],
                Some("192.0.2.1"),
            ),
            (&["9.9.9.9", "192.0.2.1", "10.0.0.1"], Some("192.0.2.1")),
            (&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1")),
            (&["9.9.9.9, unknown, 10.0.0.2"], Some("10.0.0.2")),
            (&["9.9.9.9, "], None),
            (&["192.0.2.1:4711"], Some("192.0.2.1")),
            (&["[2001:db8::1]:4711"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["::ffff:192.0.2.1"], Some("192.0.2.1")),
            (&["\u{e9}"], None),
        ] {
            let bytes: Vec<_> = values.iter().map(|value| value.as_bytes()).collect();
            let ours = |client: IpAddr| client.to_string().starts_with("10.");
            let found = last_unknown(&bytes, ours).map(|client| client.to_string());
            assert_eq!(found.as_deref(), expected, "{values:?}");
        }
    }
}
