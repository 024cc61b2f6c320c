//! The options of every TCP connection, towards clients and towards upstreams.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::time::Duration;

use rustix::net::sockopt::set_tcp_congestion;
use socket2::{SockRef, TcpKeepalive};

/// Idle time before the first keep-alive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes without an answer until the connection is given up.
const KEEPALIVE_PROBES: u32 = 4;
/// How long sent data may stay unacknowledged: as long as keep-alive takes to give up a silent
/// peer, since this option (RFC 5482) governs both once it is set. The system's own default is
/// about a quarter of an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Congestion control that every kernel has and lets everybody use (RFC 5681).
const UNPACED: &str = "reno";

/// Whether what leaves this machine is paced, as BBR has it (draft-ietf-ccwg-bbr).
static PACED: LazyLock<bool> = LazyLock::new(|| {
    let name = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    name.is_ok_and(|name| name.starts_with("bbr"))
});

/// Sets what every TCP connection here wants: no delay for small segments (what is written is
/// whole), keep-alive, and an end to peers that acknowledge nothing. On Linux an accepted
/// connection inherits all of it from its listening socket, so that accepting needs no further
/// system calls; a connection made outward sets it itself, before it is made. `address` is where
/// it listens, or what it will be connected to.
///
/// # Errors
/// Those of `setsockopt`.
pub fn configure(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    if address.ip().to_canonical().is_loopback() && *PACED {
        // There is no path to share. Pacing has the kernel set a timer for every few packets, which
        // costs more than all else about a download. Whether it can be had is no matter.
        let _ = set_tcp_congestion(socket, UNPACED);
    }
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::net::sockopt::tcp_congestion;

    use super::*;

    #[test]
    fn an_accepted_connection_inherits_the_options() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let usual = tcp_congestion(&listener).unwrap();
        configure(&listener, address).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let now = tcp_congestion(&accepted).unwrap();
        assert_eq!(
            now,
            if usual.starts_with("bbr") {
                UNPACED
            } else {
                &usual
            }
        );
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
