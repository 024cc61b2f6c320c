//! Who listens on an address, and which addresses this machine has: read from `/proc`, for error
//! messages and `staunch check` only. What cannot be read is left out.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// `TCP_LISTEN`, as `/proc/net/tcp` writes it (proc_net_tcp(5)).
const LISTEN: &str = "0A";

/// A listening socket, and the process behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Where it listens.
    pub address: SocketAddr,
    /// The user that made the socket.
    pub user: u32,
    /// The process, where we may see it: ours, our user's, or any when we are root.
    pub process: Option<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub id: u32,
    /// Its short name.
    pub name: String,
}

impl Holder {
    /// Whether it is this very process.
    pub fn is_this_process(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.id == std::process::id())
    }
}

/// The process, as well as it is known.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some(_) if self.is_this_process() => f.write_str("this process itself"),
            Some(Process { id, name }) => write!(f, "{name} (process {id})"),
            None => write!(f, "a process of user {}", self.user),
        }
    }
}

/// The listening sockets that stand in the way of one on `address`, the same address first.
pub fn find(address: SocketAddr) -> Vec<Holder> {
    let mut found: Vec<_> = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().filter_map(parse_row).collect::<Vec<_>>())
        .filter(|row| overlap(row.address, address))
        .collect();
    found.sort_by_key(|row| row.address != address);
    found
        .into_iter()
        .map(|row| Holder {
            address: row.address,
            user: row.user,
            process: process_of(row.inode),
        })
        .collect()
}

/// Whether two sockets on these addresses would take each other's connections. An IPv6 wildcard
/// is taken to be dual-stack: `/proc` does not say.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V4(v4) => v4.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    a.port() == b.port() && (x == y || covers(x, y) || covers(y, x))
}

struct Row {
    address: SocketAddr,
    user: u32,
    inode: u64,
}

/// A listening socket's row of `/proc/net/tcp` or `tcp6`: `sl`, local address, remote address,
/// state, queues, timer, retransmits, uid, timeout, inode.
fn parse_row(line: &str) -> Option<Row> {
    let fields: Vec<_> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    Some(Row {
        address: parse_address(fields.get(1)?)?,
        user: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// `0100007F:1F90`: each 32-bit word of the address in the machine's own byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| {
        let digits = ip.get(i * 8..i * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut octets = [0; 16];
            for (i, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(i)?);
            }
            IpAddr::from(octets)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The process that has the socket with this inode open; this one, if it is among them.
fn process_of(inode: u64) -> Option<Process> {
    let link = format!("socket:[{inode}]");
    let this = std::process::id();
    if holds(this, &link) {
        return Some(process(this));
    }
    fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|&id| holds(id, &link))
        .map(process)
}

fn holds(id: u32, link: &str) -> bool {
    fs::read_dir(format!("/proc/{id}/fd")).is_ok_and(|mut fds| {
        fds.any(|fd| {
            fd.and_then(|fd| fs::read_link(fd.path()))
                .is_ok_and(|target| target == Path::new(link))
        })
    })
}

fn process(id: u32) -> Process {
    let name = fs::read_to_string(format!("/proc/{id}/comm"));
    Process {
        id,
        name: name.map_or_else(|_| "a process".into(), |name| name.trim_end().into()),
    }
}

/// The addresses that a socket can be bound to here, wildcards aside; sorted.
pub fn local_addresses() -> Vec<IpAddr> {
    let four = fs::read_to_string("/proc/self/net/fib_trie").unwrap_or_default();
    let six = fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    let mut addresses: Vec<IpAddr> = parse_fib_trie(&four)
        .map(IpAddr::from)
        .chain(six.lines().filter_map(parse_if_inet6).map(IpAddr::from))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A local address is a leaf `|-- 127.0.0.1` followed by `/32 host LOCAL`.
fn parse_fib_trie(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    text.lines().zip(text.lines().skip(1)).filter_map(|(a, b)| {
        let leaf = a.trim_start().strip_prefix("|-- ")?;
        (b.trim() == "/32 host LOCAL").then(|| leaf.parse().ok())?
    })
}

/// `fd000000000000000000000000000002 04 40 00 82 eth0`. Link-local addresses are left out: bound
/// without a scope they are refused.
fn parse_if_inet6(line: &str) -> Option<Ipv6Addr> {
    let digits = line.split_whitespace().next().filter(|d| d.len() == 32)?;
    let address = Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
    (!address.is_unicast_link_local()).then_some(address)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = find(address);
        assert_eq!(found[0].address, address);
        assert!(found[0].is_this_process());
        assert!(found[0].to_string().contains("this process itself"));
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_row_of_each_family_is_read() {
        let row = parse_row(
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
             1000        0 1684 1 000000000b9f49dd 100 0 0 10 0",
        )
        .unwrap();
        assert_eq!(row.address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!((row.user, row.inode), (1000, 1684));
        assert_eq!(
            parse_address("B80D0120000000000000000001000000:01BB"),
            "[2001:db8::1]:443".parse().ok()
        );
        // Established, cut short, not hexadecimal.
        assert!(parse_row("0: 0100007F:1F90 0100007F:AAAA 01 0:0 0:0 0 0 0 1").is_none());
        assert!(parse_row("0: 0100007F:1F90 0 0A").is_none());
        assert_eq!(parse_address("0100007:1F90"), None);
        assert_eq!(parse_address("0100007é:1F90"), None);
    }

    #[test]
    fn wildcards_stand_in_the_way_of_what_they_cover() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("0.0.0.0:1", "127.0.0.1:1", true),
            ("[::]:1", "127.0.0.1:1", true),
            ("[::]:1", "0.0.0.0:1", true),
            ("[::]:1", "[::1]:1", true),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
        ] {
            assert_eq!(overlap(at(a), at(b)), expected, "{a} {b}");
            assert_eq!(overlap(at(b), at(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_host_addresses_count_as_local() {
        let trie = "\
Local:
  +-- 0.0.0.0/0 3 0 5
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
";
        assert_eq!(
            parse_fib_trie(trie).collect::<Vec<_>>(),
            [Ipv4Addr::LOCALHOST]
        );
        assert_eq!(
            parse_if_inet6("fe8000000000000000fc00fffe000001 04 40 20 80     eth0"),
            None
        );
        assert_eq!(
            parse_if_inet6("00000000000000000000000000000001 01 80 10 80       lo"),
            Some(Ipv6Addr::LOCALHOST)
        );
    }
}
