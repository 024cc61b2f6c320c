//! Sockets: bound, adopted, and configured; what an accept error means; who holds a port.
//!
//! Each worker thread has its own listening socket on each address (`SO_REUSEPORT`), so that the
//! kernel spreads connections over threads and no thread wakes another. The price of that option
//! is that a second process of the same user may *silently* share a port with us, and take half of
//! its connections. [`bind`] therefore first asks for the address without it: a port in use is the
//! error that people expect, and says by what.
//!
//! Closing a socket of such a group resets what waits in its queue: whoever closes one drains it
//! first. The accept loops themselves are the workers'.

pub mod adopt;
pub mod client_hello;
pub mod handover;
pub mod holder;
pub mod options;
pub mod proxy_header;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use self::holder::Holder;
pub use self::options::configure;

/// Connections that may wait to be accepted, for each socket. The kernel cuts it to
/// [`somaxconn`].
pub const BACKLOG: i32 = 4096;

/// How long to wait before the next accept after an error that is not
/// [that of one connection](per_connection): long enough not to spin, short enough that the
/// backlog takes up what comes meanwhile.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Something listens there already.
    #[error("cannot listen on {address}: it is in use{}", ByWhom(holder.as_ref(), *address))]
    InUse {
        /// What was asked for.
        address: SocketAddr,
        /// By what, where that can be known.
        holder: Option<Holder>,
    },
    /// A low port, without the capability that it needs.
    #[error(
        "cannot listen on {address}: not permitted; a port below {first_free} needs the capability \
         CAP_NET_BIND_SERVICE: in a systemd unit \
         `AmbientCapabilities=CAP_NET_BIND_SERVICE`, else \
         `setcap cap_net_bind_service=+ep` on the program's file"
    )]
    Permission {
        /// What was asked for.
        address: SocketAddr,
        /// The first port that anyone may bind.
        first_free: u16,
    },
    /// No interface has this address.
    #[error(
        "cannot listen on {address}: this machine does not have that address; {}",
        Has(local)
    )]
    NotAvailable {
        /// What was asked for.
        address: SocketAddr,
        /// The addresses that it has.
        local: Vec<IpAddr>,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {step}: {source}")]
    Io {
        /// What was asked for.
        address: SocketAddr,
        /// What was being done.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl BindError {
    /// The address that was asked for.
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::InUse { address, .. }
            | Self::Permission { address, .. }
            | Self::NotAvailable { address, .. }
            | Self::Io { address, .. } => *address,
        }
    }
}

struct ByWhom<'a>(Option<&'a Holder>, SocketAddr);

impl fmt::Display for ByWhom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(holder) = self.0 else { return Ok(()) };
        write!(f, " by {holder}")?;
        if holder.address == self.1 {
            return Ok(());
        }
        write!(f, ", which listens on {}", holder.address)
    }
}

struct Has<'a>(&'a [IpAddr]);

impl fmt::Display for Has<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("`ip address` shows those that it has");
        }
        f.write_str("it has ")?;
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(i, address)| write!(f, "{}{address}", if i == 0 { "" } else { ", " }))
    }
}

/// `count` listening sockets on one address, one for each worker: non-blocking, closed on exec,
/// [configured](configure), sharing the address by `SO_REUSEPORT`.
///
/// With port 0 the system chooses a port and all of them share it. `[::]` takes IPv4 too
/// (`IPV6_V6ONLY` off, whatever the system's default); where the kernel has no IPv6 at all it
/// becomes `0.0.0.0`, so that the same configuration starts anywhere. When `0.0.0.0` or an IPv4
/// address is listened on beside `[::]` with the same port, in whatever order and at whatever
/// reload, both are bound, and IPv4 connections go to the IPv4 sockets: Linux prefers the more
/// specific.
///
/// # Errors
/// Nothing stays bound. An address that *this* process already listens on is in use as well.
pub fn bind(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let address = without_ipv6(address);
    if address.port() != 0 {
        probe(address)?;
    }
    let mut sockets = Vec::with_capacity(count);
    let mut shared = address;
    for _ in 0..count {
        let socket = open(shared, true).map_err(|(step, source)| explain(shared, step, source))?;
        if shared.port() == 0 {
            shared = local_addr(&socket)
                .map_err(|source| explain(address, "read the port that was chosen", source))?;
        }
        sockets.push(socket);
    }
    // All are bound before the first listens: a failure above has reset nobody.
    for socket in &sockets {
        socket
            .listen(BACKLOG)
            .map_err(|source| explain(shared, "listen", source))?;
    }
    Ok(sockets.into_iter().map(TcpListener::from).collect())
}

/// Fails when something else listens on `address`, which `SO_REUSEPORT` would hide.
fn probe(address: SocketAddr) -> Result<(), BindError> {
    let Err((step, source)) = open(address, false) else {
        return Ok(());
    };
    if Errno::from_io_error(&source) != Some(Errno::ADDRINUSE) {
        return Err(explain(address, step, source));
    }
    let holders = holder::find(address);
    // Our own `[::]:443` stands in the way of a new `192.0.2.1:443`, and may: these share.
    let ours = |h: &Holder| h.is_this_process() && h.address != address;
    if !holders.is_empty() && holders.iter().all(ours) {
        return Ok(());
    }
    Err(BindError::InUse {
        address,
        holder: holders.into_iter().find(|holder| !ours(holder)),
    })
}

/// A bound socket that does not listen yet. On failure: what was being done, and the answer.
fn open(address: SocketAddr, share: bool) -> Result<Socket, (&'static str, io::Error)> {
    let during = |step| move |source| (step, source);
    // Not blocking and closed on exec by the one system call that makes it.
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )
    .map_err(during("make a socket"))?;
    // Connections of a former life in TIME_WAIT do not keep the address.
    socket
        .set_reuse_address(true)
        .map_err(during("set SO_REUSEADDR"))?;
    if share {
        socket
            .set_reuse_port(true)
            .map_err(during("set SO_REUSEPORT"))?;
        configure(&socket, address).map_err(during("set socket options"))?;
    }
    if address.is_ipv6() {
        socket
            .set_only_v6(false)
            .map_err(during("unset IPV6_V6ONLY"))?;
    }
    socket.bind(&address.into()).map_err(during("bind"))?;
    Ok(socket)
}

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// `0.0.0.0` in place of `[::]` on a kernel without IPv6.
fn without_ipv6(address: SocketAddr) -> SocketAddr {
    let lacking = || {
        Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))
            .is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT))
    };
    if address.is_ipv6() && address.ip().is_unspecified() && lacking() {
        return (Ipv4Addr::UNSPECIFIED, address.port()).into();
    }
    address
}

fn explain(address: SocketAddr, step: &'static str, source: io::Error) -> BindError {
    match Errno::from_io_error(&source) {
        Some(Errno::ADDRINUSE) => BindError::InUse {
            address,
            holder: holder::find(address).into_iter().next(),
        },
        Some(Errno::ACCESS | Errno::PERM) => BindError::Permission {
            address,
            first_free: read_sysctl("net/ipv4/ip_unprivileged_port_start").unwrap_or(1024),
        },
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => BindError::NotAvailable {
            address,
            local: holder::local_addresses(),
        },
        _ => BindError::Io {
            address,
            step,
            source,
        },
    }
}

/// The kernel's own bound on a listening socket's queue, which silently cuts [`BACKLOG`]; `None`
/// where it cannot be read.
pub fn somaxconn() -> Option<u32> {
    read_sysctl("net/core/somaxconn")
}

fn read_sysctl<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}

/// Whether an error of `accept` concerns only the connection that was to be accepted, so that the
/// next can be tried at once. Linux hands errors already pending on the new connection to the
/// caller (accept(2), "Error handling"). All others, the exhausted file descriptors and memory
/// before all (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`), would come again at once, and want a
/// [pause](ACCEPT_PAUSE). None of them ever ends an accept loop.
pub fn per_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::CONNREFUSED
                | Errno::TIMEDOUT
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
        )
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpStream};

    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    /// Which of `listeners` has a connection waiting, within two seconds.
    fn who_accepts(listeners: &[TcpListener]) -> Option<(usize, TcpStream)> {
        for _ in 0..200 {
            for (i, listener) in listeners.iter().enumerate() {
                if let Ok((stream, _)) = listener.accept() {
                    return Some((i, stream));
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    #[test]
    fn all_sockets_share_the_port_that_the_first_was_given() {
        let sockets = bind(loopback(0), 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|s| s.local_addr().unwrap() == address));
        let _client = TcpStream::connect(address).unwrap();
        assert!(who_accepts(&sockets).is_some());
    }

    #[test]
    fn a_port_in_use_is_refused_even_by_a_socket_that_would_share_it() {
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        other.set_reuse_port(true).unwrap();
        other.bind(&loopback(0).into()).unwrap();
        other.listen(1).unwrap();
        let address = local_addr(&other).unwrap();

        let error = bind(address, 2).unwrap_err();
        let BindError::InUse { holder, .. } = &error else {
            panic!("{error}");
        };
        assert!(holder.as_ref().unwrap().is_this_process());
        assert_eq!(error.address(), address);
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("cannot listen on {address}: it is in use by ")),
            "{text}"
        );
    }

    #[test]
    fn an_ipv4_address_beside_our_own_dual_stack_one_gets_the_ipv4_connections() {
        let Ok(six) = bind((Ipv6Addr::UNSPECIFIED, 0).into(), 2) else {
            return; // a kernel without IPv6
        };
        let port = six[0].local_addr().unwrap().port();
        if !six[0].local_addr().unwrap().is_ipv6() {
            return;
        }
        let _first = TcpStream::connect(loopback(port)).unwrap();
        assert!(who_accepts(&six).is_some(), "[::] takes IPv4 too");

        let four = bind((Ipv4Addr::UNSPECIFIED, port).into(), 2).unwrap();
        for _ in 0..8 {
            let _client = TcpStream::connect(loopback(port)).unwrap();
            assert!(who_accepts(&four).is_some());
        }
        let _client = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        assert!(who_accepts(&six).is_some());
    }

    #[test]
    fn an_address_held_without_sharing_is_in_use() {
        let other = TcpListener::bind(loopback(0)).unwrap();
        let address = other.local_addr().unwrap();
        assert!(matches!(
            bind(address, 1),
            Err(BindError::InUse { address: at, .. }) if at == address
        ));
    }

    #[test]
    fn an_address_this_machine_does_not_have_is_refused_with_those_it_has() {
        // TEST-NET-3, RFC 5737: nobody has it.
        let error = bind(SocketAddr::from(([203, 0, 113, 77], 8443)), 1).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("203.0.113.77:8443"), "{text}");
        assert!(text.contains("does not have that address"), "{text}");
        assert!(text.contains("127.0.0.1"), "{text}");
    }

    #[test]
    fn a_low_port_without_the_capability_says_what_it_needs() {
        let error = explain(loopback(443), "bind", Errno::ACCESS.into());
        assert!(
            error.to_string().contains("AmbientCapabilities="),
            "{error}"
        );
    }

    #[test]
    fn accept_errors_are_told_apart() {
        let of = |errno: Errno| per_connection(&io::Error::from(errno));
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::HOSTUNREACH] {
            assert!(of(errno), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!of(errno), "{errno}");
        }
        assert!(!per_connection(&io::Error::other("something")));
    }
}
