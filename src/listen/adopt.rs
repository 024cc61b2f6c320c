//! Listening sockets that were open before this process was: handed over by a service manager
//! (sd_listen_fds(3)), or by the process whose place this one takes.
//!
//! A manager's sockets are the manager's: they stay open whatever becomes of us, so that a copy is
//! kept for a later reload or process that wants it. A predecessor's are a set that shares one
//! port by `SO_REUSEPORT`, each with a queue of its own: all of them are kept, since what waits in
//! the queue of one that is closed is reset.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_cookie;
use serde::{Deserialize, Serialize};
use socket2::SockRef;
use tracing::{debug, info, warn};

use super::options::configure;
use super::{BindError, bind, open};

/// What is said of a socket that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The address as configured, which may have port 0.
    pub address: SocketAddr,
    /// It is the service manager's.
    pub managed: bool,
}

#[derive(Debug)]
struct Open {
    label: Label,
    socket: TcpListener,
}

/// Sockets that nobody here listens on yet.
#[derive(Debug, Default)]
pub struct Inherited {
    open: Mutex<Vec<Open>>,
    /// What was wrong with others: found before there is a log.
    unusable: Vec<String>,
}

impl Inherited {
    /// Those of a service manager. One that is no listening TCP socket is left alone: it must not
    /// stop the others.
    ///
    /// To be called once, before any thread is started: it removes `LISTEN_FDS` and `LISTEN_PID`
    /// from the environment, so that no child takes the sockets for its own.
    pub fn from_manager() -> Self {
        let mut handed = ListenFd::from_env();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let (mut all, mut unusable) = (Vec::new(), Vec::new());
        for index in 0..handed.len() {
            let name = names.next().unwrap_or_default();
            match handed.take_tcp_listener(index).map(|it| it.map(prepare)) {
                Ok(Some(Ok((address, socket)))) => {
                    let managed = true;
                    let label = Label { address, managed };
                    all.push(Open { label, socket });
                }
                Ok(None) => {}
                Err(error) | Ok(Some(Err(error))) => {
                    unusable.push(format!("number {index} ({name}): {error}"));
                }
            }
        }
        Self {
            open: Mutex::new(all),
            unusable,
        }
    }

    /// Those of a predecessor.
    pub fn from_predecessor(handed: impl IntoIterator<Item = (Label, OwnedFd)>) -> Self {
        let (mut all, mut unusable) = (Vec::new(), Vec::new());
        for (label, socket) in handed {
            match prepare(socket.into()) {
                Ok((_, socket)) => all.push(Open { label, socket }),
                Err(error) => unusable.push(format!("{}: {error}", label.address)),
            }
        }
        Self {
            open: Mutex::new(all),
            unusable,
        }
    }

    /// Listening sockets on this address: those handed over, with more where that is fewer than
    /// `count`; or else [`bind`]'s. Those that are bound beside others do not listen before
    /// [`share`] has them do so: a process that does not get that far must not leave connections
    /// in their queues.
    ///
    /// # Errors
    /// Those of [`bind`].
    pub fn listen(&self, address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
        let (mut sockets, managed) = self.take(address);
        let Some(local) = sockets.first().and_then(|first| first.local_addr().ok()) else {
            return bind(address, count);
        };
        let shares = |socket: &TcpListener| SockRef::from(socket).reuse_port().unwrap_or(false);
        let may_grow = !managed && sockets.iter().all(shares);
        while may_grow && sockets.len() < count {
            match open(local, true) {
                Ok(socket) => sockets.push(socket.into()),
                Err((step, error)) => {
                    // Such as a low port, to somebody who may no longer bind one.
                    debug!(%address, step, %error, "threads share the sockets there are");
                    break;
                }
            }
        }
        Ok(sockets)
    }

    fn take(&self, address: SocketAddr) -> (Vec<TcpListener>, bool) {
        let mut all = self.lock();
        let wanted = |open: &Open| {
            open.label.address == address || open.socket.local_addr().is_ok_and(|at| at == address)
        };
        let managed = |open: &&Open| open.label.managed && wanted(open);
        let copies = all.iter().filter(managed);
        let copies: Vec<_> = copies.filter_map(|it| it.socket.try_clone().ok()).collect();
        if !copies.is_empty() {
            return (copies, true);
        }
        let taken = all.extract_if(.., |open| !open.label.managed && wanted(open));
        (taken.map(|open| open.socket).collect(), false)
    }

    /// Lets go of what a predecessor has and nobody here wants; it still has it. Says which of the
    /// manager's nobody `listens` on.
    pub fn settle(&self, listens: impl Fn(SocketAddr) -> bool) {
        let mut all = self.lock();
        all.retain(|open| open.label.managed);
        for socket in &self.unusable {
            warn!(%socket, "a socket that was handed over is not used");
        }
        for open in all.iter() {
            let address = open.label.address;
            if listens(address) {
                info!(%address, "the service manager holds this address open");
            } else {
                warn!(
                    %address,
                    "the service manager holds this address open, and nobody listens there: \
                     name it in listen.https, listen.http or listen.admin, or remove it from the \
                     socket unit"
                );
            }
        }
    }

    /// What a successor is handed: these sockets, and the manager's. Each once, however many
    /// copies there are of it.
    pub fn bequest(&self, used: Vec<(SocketAddr, OwnedFd)>) -> Vec<(Label, OwnedFd)> {
        let all = self.lock();
        let managed = all.iter().filter_map(|open| {
            let copy = open.socket.as_fd().try_clone_to_owned().ok()?;
            Some((open.label, copy))
        });
        let managed_label = |(address, socket)| {
            let managed = false;
            (Label { address, managed }, socket)
        };
        let mut seen = Vec::new();
        managed
            .chain(used.into_iter().map(managed_label))
            .filter(|(_, socket)| {
                let cookie = socket_cookie(socket).ok();
                let new = cookie.is_none() || !seen.contains(&cookie);
                seen.push(cookie);
                new
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prepare(listener: TcpListener) -> io::Result<(SocketAddr, TcpListener)> {
    if !SockRef::from(&listener).is_listener()? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it does not listen",
        ));
    }
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    configure(&listener, address)?;
    Ok((address, listener))
}

/// Gives sockets of one address to `count` workers, all of them listening from now on. With more
/// sockets than workers, some have several; with fewer, some share one, and a connection may wake
/// both, of which one gets it. Nothing here fails but for want of descriptors, and then some worker
/// goes without.
pub fn share(sockets: Vec<TcpListener>, count: usize) -> Vec<Vec<TcpListener>> {
    let mut shares: Vec<Vec<TcpListener>> = (0..count).map(|_| Vec::new()).collect();
    let held = sockets.len();
    if held == 0 || count == 0 {
        return shares;
    }
    for worker in held..count {
        match sockets[worker % held].try_clone() {
            Ok(copy) => shares[worker].push(copy),
            Err(error) => warn!(%error, worker, "a worker has no listening socket"),
        }
    }
    for (index, socket) in sockets.into_iter().enumerate() {
        // Harmless where it listens already, but for the length of the queue.
        match SockRef::from(&socket).listen(super::BACKLOG) {
            Ok(()) => shares[index % count].push(socket),
            Err(error) => warn!(%error, "a socket does not listen"),
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const ANY: &str = "127.0.0.1:0";

    fn handed(managed: bool, count: usize) -> (SocketAddr, Inherited) {
        let sockets = bind(ANY.parse().unwrap(), count).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let label = Label { address, managed };
        let handed = sockets.into_iter().map(|it| (label, OwnedFd::from(it)));
        (address, Inherited::from_predecessor(handed))
    }

    #[test]
    fn nothing_handed_over_is_nothing_adopted() {
        let none = Inherited::from_manager();
        assert!(none.lock().is_empty());
        assert_eq!(none.listen(ANY.parse().unwrap(), 2).unwrap().len(), 2);
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(prepare(socket.into()).is_err());
    }

    #[test]
    fn more_threads_get_more_sockets_and_fewer_keep_all() {
        for (held, threads, wanted) in [(2, 4, 4), (4, 2, 4), (3, 3, 3)] {
            let (address, inherited) = handed(false, held);
            let sockets = inherited.listen(address, threads).unwrap();
            assert_eq!(sockets.len(), wanted);
            let shares = share(sockets, threads);
            assert!(shares.iter().all(|share| !share.is_empty()));
            assert_eq!(shares.iter().flatten().count(), wanted);
            for _ in 0..20 {
                TcpStream::connect(address).unwrap();
            }
        }
    }

    #[test]
    fn a_socket_beside_others_takes_no_connection_before_it_is_shared() {
        let (address, inherited) = handed(false, 1);
        let sockets = inherited.listen(address, 8).unwrap();
        let listens = |it: &&TcpListener| SockRef::from(*it).is_listener().unwrap();
        assert_eq!(sockets.iter().filter(listens).count(), 1);
        let shares = share(sockets, 8);
        assert_eq!(shares.iter().flatten().filter(listens).count(), 8);
    }

    #[test]
    fn what_a_manager_holds_is_shared_and_kept_for_the_next() {
        let (address, inherited) = handed(true, 1);
        let sockets = inherited.listen(address, 3).unwrap();
        assert_eq!(sockets.len(), 1);
        let shares = share(sockets, 3);
        assert!(shares.iter().all(|share| share.len() == 1));
        assert_eq!(inherited.listen(address, 1).unwrap().len(), 1, "once more");
        inherited.settle(|at| at == address);
        let used = shares.into_iter().flatten();
        let used = used.map(|it| (address, OwnedFd::from(it))).collect();
        let bequest = inherited.bequest(used);
        assert_eq!(bequest.len(), 1, "one socket, however many copies");
        assert!(bequest[0].0.managed);
    }
}
