//! Version 1: one line of text (section 2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::header::{Connection, Header, Invalid, Parsed, Tlvs};

/// The longest line that the protocol knows, CR LF included.
const MAX_LINE: usize = 107;

const PREFIX: &[u8] = b"PROXY ";

pub fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    let common = bytes.len().min(PREFIX.len());
    if bytes[..common] != PREFIX[..common] {
        return Err(Invalid::Signature);
    }
    let window = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = window.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return incomplete(window);
    };
    match &window[end..] {
        [b'\r'] => incomplete(window),
        [b'\r', b'\n', ..] => Ok(Parsed::Complete {
            header: Header {
                connection: line(&bytes[PREFIX.len()..end])?,
                tlvs: Tlvs::default(),
            },
            length: end + 2,
        }),
        _ => Err(Invalid::LineEnd),
    }
}

const fn incomplete(window: &[u8]) -> Result<Parsed, Invalid> {
    if window.len() < MAX_LINE {
        Ok(Parsed::Incomplete)
    } else {
        Err(Invalid::LineEnd)
    }
}

/// What stands between `PROXY ` and the line's end.
fn line(bytes: &[u8]) -> Result<Connection, Invalid> {
    // After UNKNOWN anything may stand, text or not, and is ignored.
    if bytes == b"UNKNOWN" || bytes.starts_with(b"UNKNOWN ") {
        return Ok(Connection::Unknown);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Invalid::Line)?;
    addresses(text).ok_or(Invalid::Line)
}

fn addresses(text: &str) -> Option<Connection> {
    let mut words = text.split(' ');
    let read = match words.next()? {
        "TCP4" => ip::<Ipv4Addr>,
        "TCP6" => ip::<Ipv6Addr>,
        _ => return None,
    };
    let (source, destination) = (read(words.next()?)?, read(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| Connection::Proxied {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// The standard library's grammar is the protocol's: four decimal numbers without leading zeros;
/// groups of up to four digits and at most one `::`. It also takes `::ffff:192.0.2.1`, which
/// `inet_ntop` writes, and so senders send.
fn ip<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// Decimal digits without a sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    (plain && !leading_zero).then(|| text.parse().ok())?
}
