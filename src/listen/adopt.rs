//! Listening sockets handed over by a service manager (sd_listen_fds(3)): with systemd's socket
//! activation the port is open before the program is, and stays open while it restarts.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use socket2::SockRef;

use super::options::configure;

/// The sockets that were handed over to this process, each with the address it listens on,
/// non-blocking and [configured](configure). One that is no listening TCP socket is left
/// alone, with a line in the log: it must not stop the others.
///
/// To be called once, before any thread is started: it removes `LISTEN_FDS` and `LISTEN_PID` from
/// the environment, so that no child takes the sockets for its own.
pub fn adopt() -> Vec<(SocketAddr, TcpListener)> {
    let mut handed = ListenFd::from_env();
    (0..handed.len())
        .filter_map(|index| match take(&mut handed, index) {
            Ok(adopted) => adopted,
            Err(error) => {
                tracing::warn!(index, %error, "a socket handed over by the service manager is not used");
                None
            }
        })
        .collect()
}

fn take(handed: &mut ListenFd, index: usize) -> io::Result<Option<(SocketAddr, TcpListener)>> {
    handed.take_tcp_listener(index)?.map(prepare).transpose()
}

fn prepare(listener: TcpListener) -> io::Result<(SocketAddr, TcpListener)> {
    if !SockRef::from(&listener).is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it does not listen",
        ));
    }
    listener.set_nonblocking(true)?;
    configure(&listener)?;
    Ok((listener.local_addr()?, listener))
}

/// `count` handles of one adopted socket, one for each worker. Unlike
/// sockets bound with `SO_REUSEPORT` they share one queue: a connection may wake several workers, of which one
/// gets it.
///
/// # Errors
/// Those of `dup`.
pub fn share(listener: TcpListener, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut shared = (1..count)
        .map(|_| listener.try_clone())
        .collect::<io::Result<Vec<_>>>()?;
    if count > 0 {
        shared.push(listener);
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn nothing_handed_over_is_nothing_adopted() {
        assert!(adopt().is_empty());
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(prepare(socket.into()).is_err());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(prepare(listener).unwrap().0, address);
    }

    #[test]
    fn shared_handles_are_of_one_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = share(listener, 3).unwrap();
        assert_eq!(shared.len(), 3);
        assert!(shared.iter().all(|l| l.local_addr().unwrap() == address));
    }
}
