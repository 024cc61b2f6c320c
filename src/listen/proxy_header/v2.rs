//! Version 2: binary, with type-length-values (section 2.2).

use std::net::{IpAddr, SocketAddr};

use super::crc32c::crc32c;
use super::header::{Connection, Header, Invalid, MAX_LENGTH, Parsed, Tls, Tlvs};

pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
pub const FIXED: usize = 16;

pub const LOCAL: u8 = 0x20;
pub const PROXY: u8 = 0x21;

pub const TCP4: u8 = 0x11;
pub const TCP6: u8 = 0x21;

pub const ALPN: u8 = 0x01;
pub const AUTHORITY: u8 = 0x02;
pub const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
pub const SSL: u8 = 0x20;
pub const SSL_VERSION: u8 = 0x21;
pub const SSL_CN: u8 = 0x22;
pub const SSL_CIPHER: u8 = 0x23;

const MAX_UNIQUE_ID: usize = 128;

pub fn parse(bytes: &[u8]) -> Result<Parsed, Invalid> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] != SIGNATURE[..common] {
        return Err(Invalid::Signature);
    }
    // What is wrong already is said before the rest is waited for.
    if let Some(&command) = bytes.get(12)
        && !matches!(command, LOCAL | PROXY)
    {
        return Err(Invalid::Command(command));
    }
    let Some(&[command, family, high, low]) = bytes.get(12..FIXED) else {
        return Ok(Parsed::Incomplete);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_LENGTH {
        return Err(Invalid::TooLong(length));
    }
    if command == PROXY {
        check_family(family)?;
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(Parsed::Incomplete);
    };
    let header = match command {
        // The block is discarded, family included; so nobody can say where its TLVs begin.
        LOCAL => Header {
            connection: Connection::Local,
            tlvs: Tlvs::default(),
        },
        _ => proxied(header, family)?,
    };
    Ok(Parsed::Complete { header, length })
}

/// The upper half is the family: unspecified, IPv4, IPv6, unix. The lower is the transport:
/// unspecified, stream, datagram.
const fn check_family(family: u8) -> Result<(), Invalid> {
    if family >> 4 <= 3 && family & 0xf <= 2 {
        Ok(())
    } else {
        Err(Invalid::Family(family))
    }
}

fn proxied(header: &[u8], family: u8) -> Result<Header, Invalid> {
    let addresses = match family >> 4 {
        1 => 2 * 4 + 2 * 2,
        2 => 2 * 16 + 2 * 2,
        3 => 2 * 108,
        // Addresses of an unknown length: nothing behind the fixed part can be understood.
        _ => {
            return Ok(Header {
                connection: Connection::Unknown,
                tlvs: Tlvs::default(),
            });
        }
    };
    let block = &header[FIXED..];
    if block.len() < addresses {
        return Err(Invalid::Addresses);
    }
    // Datagrams and unix sockets are valid and mean nothing here (section 2.2: such a receiver
    // falls back to UNSPEC).
    let connection = match family {
        TCP4 => endpoints::<4>(block),
        TCP6 => endpoints::<16>(block),
        _ => Some(Connection::Unknown),
    };
    Ok(Header {
        connection: connection.ok_or(Invalid::Addresses)?,
        tlvs: tlvs(header, FIXED + addresses)?,
    })
}

/// Source and destination address of `N` bytes, then the ports.
fn endpoints<const N: usize>(block: &[u8]) -> Option<Connection>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = block.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = rest.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    let at = |ip: &[u8; N], port: &[u8; 2]| {
        SocketAddr::new(IpAddr::from(*ip), u16::from_be_bytes(*port))
    };
    Some(Connection::Proxied {
        source: at(source, source_port),
        destination: at(destination, destination_port),
    })
}

fn tlvs(header: &[u8], begin: usize) -> Result<Tlvs, Invalid> {
    let mut tlvs = Tlvs::default();
    let mut checked = false;
    let mut rest = &header[begin..];
    while !rest.is_empty() {
        let (kind, value);
        (kind, value, rest) = split(rest)?;
        let malformed = || Invalid::Tlv(kind);
        match kind {
            ALPN => _ = tlvs.alpn.get_or_insert_with(|| value.into()),
            AUTHORITY => keep(&mut tlvs.authority, value).ok_or_else(malformed)?,
            UNIQUE_ID if value.len() > MAX_UNIQUE_ID => return Err(malformed()),
            UNIQUE_ID => _ = tlvs.unique_id.get_or_insert_with(|| value.into()),
            SSL if tlvs.tls.is_none() => tlvs.tls = Some(tls(value)?),
            // A second checksum could not be right beside the first.
            CRC32C if checked => return Err(malformed()),
            CRC32C => {
                checked = true;
                let expected = value.try_into().map_err(|_| malformed())?;
                let at = header.len() - rest.len() - value.len();
                check(header, at, u32::from_be_bytes(expected))?;
            }
            _ => {}
        }
    }
    Ok(tlvs)
}

/// The first TLV's type and value, and what follows.
fn split(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Invalid> {
    let kind = bytes.first().copied().unwrap_or_default();
    let ([_, high, low], rest) = bytes.split_first_chunk().ok_or(Invalid::Tlv(kind))?;
    let (value, rest) = rest
        .split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))
        .ok_or(Invalid::Tlv(kind))?;
    Ok((kind, value, rest))
}

/// Keeps a text, unless there is one already. `None` when it is not UTF-8.
fn keep(slot: &mut Option<Box<str>>, value: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(value).ok()?;
    slot.get_or_insert_with(|| text.into());
    Some(())
}

/// The checksum is over the whole header with its own four bytes, at `at`, as zeros (section
/// 2.2.3).
fn check(header: &[u8], at: usize, expected: u32) -> Result<(), Invalid> {
    if crc32c([&header[..at], &[0; 4], &header[at + 4..]]) == expected {
        Ok(())
    } else {
        Err(Invalid::Checksum)
    }
}

/// `PP2_TYPE_SSL`: a byte of flags, a word that is zero when the client's certificate was
/// verified, then TLVs of its own.
fn tls(value: &[u8]) -> Result<Tls, Invalid> {
    let ([flags, verify @ ..], mut rest) =
        value.split_first_chunk::<5>().ok_or(Invalid::Tlv(SSL))?;
    let presented = flags & 0x06 != 0;
    let mut tls = Tls {
        encrypted: flags & 0x01 != 0,
        client_verified: presented && *verify == [0; 4],
        ..Tls::default()
    };
    while !rest.is_empty() {
        let (kind, value);
        (kind, value, rest) = split(rest)?;
        match kind {
            SSL_VERSION => keep(&mut tls.version, value).ok_or(Invalid::Tlv(kind))?,
            SSL_CN => keep(&mut tls.common_name, value).ok_or(Invalid::Tlv(kind))?,
            SSL_CIPHER => keep(&mut tls.cipher, value).ok_or(Invalid::Tlv(kind))?,
            _ => {}
        }
    }
    Ok(tls)
}
