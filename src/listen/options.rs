//! The options of every TCP connection, towards clients and towards upstreams.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

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

/// Sets what every TCP connection here wants: no delay for small segments (what is written is
/// whole), keep-alive, and an end to peers that acknowledge nothing. On Linux an accepted
/// connection inherits all of it from its listening socket, so that accepting needs no further
/// system calls; a connection made outward sets it itself.
///
/// # Errors
/// Those of `setsockopt`.
pub fn configure(socket: &impl AsFd) -> io::Result<()> {
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

    use super::*;

    #[test]
    fn an_accepted_connection_inherits_the_options() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        configure(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
