//! What plain-text listeners answer: the same, over HTTPS; or what a site says that answers there.

use tokio::time::Instant;

use super::error::{Failure, Refusal};
use super::own::Own;
use super::rules::Rules;
use super::{Asked, Client, Exchange, Local, Peer, Snapshot};
use crate::http::host::Host;
use crate::http::{Method, RequestHead};

/// Serves a request that came in plain text; when it was over. `port`: where HTTPS is.
pub async fn plain<C: Client>(
    local: &Local,
    peer: &Peer,
    head: RequestHead,
    client: &mut C,
    port: u16,
) -> Instant {
    if is_answered(&local.world(), peer, &head) {
        return super::handle(local, peer, head, client).await;
    }
    redirect(local, peer, head, client, port).await
}

/// Whether it is for a part of a site that is served in plain text too.
fn is_answered(world: &Snapshot, peer: &Peer, head: &RequestHead) -> bool {
    let table = world.table();
    let site = match head.authority() {
        [] => table.nameless(),
        authority => table.named(authority),
    };
    let Some(site) = site.map(|index| table.site(index)) else {
        return false;
    };
    let client = super::client::of(world, peer.client.ip(), head);
    let rules = match site.route(Asked {
        head,
        peer,
        identity: None,
        client,
    }) {
        Ok((route, _)) => route.rules.as_deref(),
        Err(_) => site.rules.as_deref(),
    };
    rules.is_some_and(Rules::is_plain)
}

/// Answers with 308 (RFC 9110, section 15.4.9), which keeps the method, to the same host and path
/// at the port where HTTPS is.
async fn redirect<C: Client>(
    local: &Local,
    peer: &Peer,
    mut head: RequestHead,
    client: &mut C,
    port: u16,
) -> Instant {
    let begin = Instant::now();
    let world = local.world();
    let mut exchange = Exchange::new(local, &world, peer, &mut head, client);
    // The rules of sites are not those of a listener.
    exchange.account.rules = None;
    exchange.account.status = 308;
    let result = match location(exchange.head, port) {
        Ok(location) => {
            let own = Own::redirect(local, 308, &location, exchange.head.method);
            own.deliver(exchange.client, world.timeouts().send).await
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &result {
        exchange.fail(failure).await;
    }
    let ended = Instant::now();
    exchange.record(ended - begin, result.err().as_ref());
    ended
}

/// The same host and path. What is not a host is refused, not repeated.
fn location(head: &RequestHead, port: u16) -> Result<Vec<u8>, Failure> {
    if matches!(head.method, Method::Connect | Method::Trace) {
        return Err(Refusal::Method.into());
    }
    let host = Host::parse(head.authority()).ok_or(Refusal::Host)?;
    let mut location = b"https://".to_vec();
    let name = host.as_str();
    match name.contains(':') {
        true => location.extend_from_slice(format!("[{name}]").as_bytes()),
        false => location.extend_from_slice(name.as_bytes()),
    }
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    match head.target() {
        b"*" => location.push(b'/'),
        target => location.extend_from_slice(target),
    }
    Ok(location)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse;

    fn to(text: &str, port: u16) -> Option<String> {
        let head = parse::complete(parse::request(text.as_bytes(), 100)).ok()?;
        location(&head, port)
            .ok()
            .map(|location| String::from_utf8(location).unwrap())
    }

    #[test]
    fn host_and_path_are_kept() {
        for (target, host, port, expected) in [
            (
                "/a?b=c",
                "Example.com",
                443,
                Some("https://example.com/a?b=c"),
            ),
            (
                "/",
                "example.com:80",
                8443,
                Some("https://example.com:8443/"),
            ),
            ("/", "[::1]:8080", 8443, Some("https://[::1]:8443/")),
            (
                "//evil.test/",
                "a.test",
                443,
                Some("https://a.test//evil.test/"),
            ),
            ("http://b.test/x", "a.test", 443, Some("https://b.test/x")),
            ("/", "a b", 443, None),
            ("/", "a.test@evil", 443, None),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(to(&text, port).as_deref(), expected, "{text}");
        }
    }
}
