//! A worker's connections to servers: made when needed, kept while useful.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::connection::http1::Http1;
use super::connection::http2::Shared;
use super::connection::io::{Io, Stream};
use super::health::Moment;
use super::{Open, Server, ServerId};
use crate::config::{Protocol, ServerAddress};
use crate::wire::Socket;
use crate::{listen, tls};

/// Connections that rest, to one server from one worker. More are closed when they come back.
const MAX_RESTING: usize = 512;

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It did not answer in time.
    #[error("no connection within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// Its name could not be resolved.
    #[error("the name cannot be resolved: {0}")]
    Resolve(io::Error),
    /// It refused, or cannot be reached.
    #[error("{0}")]
    Connect(io::Error),
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// This process has no descriptor or port left: not the server's fault.
    #[error("out of descriptors or local ports: {0}")]
    Exhausted(io::Error),
}

/// A client's connection. Where a server is told whose connection it has (PROXY protocol), that
/// connection carries what comes on this one and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientId(u64);

/// What a server is told before anything else.
#[derive(Debug)]
pub struct Preamble {
    /// Whose connection it is.
    pub client: ClientId,
    /// The PROXY header that says so.
    pub header: Vec<u8>,
}

struct Resting {
    connection: Box<Http1>,
    since: Instant,
}

impl Resting {
    fn is_over(&self, keep: Duration) -> bool {
        self.since.elapsed() >= keep || self.connection.is_stale()
    }
}

/// Things by numbers that we count up ourselves: nobody can choose them so that they collide.
type ById<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// Spreads consecutive numbers.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15); // 2^64 divided by the golden ratio
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0.rotate_left(8) ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The connections of one worker that rest, by server; the last one in is the first one out, so
/// that the busy stay warm and the others are let go.
#[derive(Default)]
pub struct Pool {
    resting: RefCell<ById<ServerId, Vec<Resting>>>,
    /// Those that are some client's own.
    owned: RefCell<ById<ClientId, Vec<Resting>>>,
    clients: Cell<u64>,
    /// Those that carry many exchanges at once.
    shared: RefCell<ById<ServerId, Vec<Rc<Shared>>>>,
    /// Servers to which one such connection is being made, and who waits for it.
    coming: RefCell<ById<ServerId, Rc<Notify>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("resting", &self.len())
            .finish()
    }
}

impl Pool {
    /// A connection that can carry an exchange at once: one that rested, or one that carries others
    /// too. `alone`: it must be a connection of its own, because it will become a tunnel.
    /// `client`: it must be that client's own.
    pub fn take(
        &self,
        server: &Server,
        alone: bool,
        client: Option<ClientId>,
    ) -> Option<Connection> {
        if let Some(client) = client {
            return self.take_own(server, client);
        }
        if !alone
            && server.protocol != Protocol::Http1
            && let Some(shared) = self.shared.borrow().get(&server.id)
            && let Some(shared) = shared.iter().find(|shared| shared.has_room())
        {
            return Some(Connection::Http2(Box::new(shared.exchange())));
        }
        let mut resting = self.resting.borrow_mut();
        let list = resting.get_mut(&server.id)?;
        loop {
            let connection = list.pop()?.connection;
            if !connection.is_stale() {
                return Some(Connection::Http1(connection));
            }
        }
    }

    fn take_own(&self, server: &Server, client: ClientId) -> Option<Connection> {
        let mut owned = self.owned.borrow_mut();
        let list = owned.get_mut(&client)?;
        loop {
            let is_it = |entry: &Resting| entry.connection.server().id == server.id;
            let at = list.iter().rposition(is_it)?;
            let connection = list.swap_remove(at).connection;
            if !connection.is_stale() {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// The next client's connection.
    pub fn client(&self) -> ClientId {
        self.clients.set(self.clients.get().wrapping_add(1));
        ClientId(self.clients.get())
    }

    /// Closes what was this client's own.
    pub fn forget(&self, client: ClientId) {
        let mut owned = self.owned.borrow_mut();
        if !owned.is_empty() {
            owned.remove(&client);
        }
    }

    /// Takes a connection back, `now`; closes it when it is of no more use.
    pub fn put(&self, connection: Connection, now: Instant) {
        let Connection::Http1(mut connection) = connection else {
            return; // an exchange; its connection is here
        };
        if !connection.is_reusable() || connection.server().load.is_over_limit() {
            return;
        }
        connection.rest();
        let (mut resting, mut owned);
        let list = match connection.client() {
            Some(client) => {
                owned = self.owned.borrow_mut();
                owned.entry(client).or_default()
            }
            None => {
                resting = self.resting.borrow_mut();
                resting.entry(connection.server().id).or_default()
            }
        };
        if list.len() < MAX_RESTING {
            list.push(Resting {
                connection,
                since: now,
            });
        }
    }

    /// Closes what rested longer than `keep`, what the servers closed, and, about a second at a
    /// time, what is silent for too long; how many the last were. For `ping` see
    /// [`tend`](Shared::tend).
    pub fn sweep(&self, keep: Duration, ping: Duration) -> usize {
        let sweep = |list: &mut Vec<Resting>| {
            list.retain(|entry| !entry.is_over(keep));
            !list.is_empty()
        };
        self.resting.borrow_mut().retain(|_, list| sweep(list));
        self.owned.borrow_mut().retain(|_, list| sweep(list));
        let mut dead = 0;
        self.shared.borrow_mut().retain(|_, list| {
            list.retain(|shared| {
                let lives = shared.tend(ping);
                dead += usize::from(!lives);
                lives && !shared.is_over(keep)
            });
            !list.is_empty()
        });
        dead
    }

    /// How many rest.
    pub fn len(&self) -> usize {
        let count = |lists: &mut dyn Iterator<Item = &Vec<Resting>>| lists.map(Vec::len).sum();
        let (resting, owned): (usize, usize) = (
            count(&mut self.resting.borrow().values()),
            count(&mut self.owned.borrow().values()),
        );
        resting + owned
    }

    /// Whether none rests.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Pool {
    /// Makes a connection, TLS included, within `limit`. For `alone` see [`take`](Self::take).
    pub async fn connect(
        &self,
        server: &Arc<Server>,
        limit: Duration,
        alone: bool,
        preamble: Option<Preamble>,
    ) -> Result<Connection, ConnectError> {
        match timeout(limit, self.connect_within(server, limit, alone, preamble)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Timeout(limit)),
        }
    }

    async fn connect_within(
        &self,
        server: &Arc<Server>,
        limit: Duration,
        alone: bool,
        preamble: Option<Preamble>,
    ) -> Result<Connection, ConnectError> {
        if alone || server.protocol != Protocol::Http2 {
            let speak = match alone {
                true => Speak::Http1,
                false => Speak::Agreed,
            };
            let header = preamble.as_ref().map_or(&[][..], |it| &it.header);
            let io = dial(server, None, limit, speak, header).await?;
            return match io.agreed_http2() {
                true => self.share(io, server).await,
                false => Ok(own(io, server, preamble.map(|it| it.client))),
            };
        }
        // One connection is enough for all who come at once, as far as the server allows; for those
        // who are left over it is one more.
        loop {
            let coming = self.coming.borrow().get(&server.id).cloned();
            let Some(coming) = coming else { break };
            coming.notified().await;
            if let Some(connection) = self.take(server, false, None) {
                return Ok(connection);
            }
            if !self.shares(server) {
                break; // it failed, and nobody is to wait for one failure after the other
            }
        }
        let _coming = Coming::new(self, server.id);
        let io = dial(server, None, limit, Speak::Agreed, &[]).await?;
        self.share(io, server).await
    }

    /// Whether a connection to this server carries many exchanges, if perhaps no more.
    fn shares(&self, server: &Server) -> bool {
        let shared = self.shared.borrow();
        shared.get(&server.id).is_some_and(|list| !list.is_empty())
    }

    /// Has a connection carry many exchanges, and begins the first.
    async fn share(&self, io: Io, server: &Arc<Server>) -> Result<Connection, ConnectError> {
        let shared = Shared::connect(io, Open::new(server))
            .await
            .map_err(|error| ConnectError::Connect(io::Error::other(error)))?;
        let exchange = shared.exchange();
        let mut all = self.shared.borrow_mut();
        all.entry(server.id).or_default().push(shared);
        Ok(Connection::Http2(Box::new(exchange)))
    }
}

fn own(io: Io, server: &Arc<Server>, client: Option<ClientId>) -> Connection {
    Connection::Http1(Box::new(Http1::new(io, Open::new(server), client)))
}

/// What a byte stream is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speak {
    /// What is agreed on in TLS, of all that the server may speak.
    Agreed,
    /// HTTP/1.1, or nothing that TLS has to agree on.
    Http1,
    /// Whatever the client and the server have to say to each other.
    Raw,
    /// The same, and it is the client's own TLS: none is spoken here.
    Passed,
    /// HTTP/1.1 over TLS to a server that is otherwise given its clients' own: nothing is verified,
    /// as they do that.
    Checked,
}

/// Says that a connection is being made, until it is or cannot be.
struct Coming<'a> {
    pool: &'a Pool,
    server: ServerId,
    waiting: Rc<Notify>,
}

impl<'a> Coming<'a> {
    fn new(pool: &'a Pool, server: ServerId) -> Self {
        let waiting = Rc::new(Notify::new());
        let mut coming = pool.coming.borrow_mut();
        coming.insert(server, Rc::clone(&waiting));
        drop(coming);
        Self {
            pool,
            server,
            waiting,
        }
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut coming = self.pool.coming.borrow_mut();
        // Another may have come after it.
        if coming
            .get(&self.server)
            .is_some_and(|other| Rc::ptr_eq(other, &self.waiting))
        {
            coming.remove(&self.server);
        }
        self.waiting.notify_waiters();
    }
}

/// Makes a byte stream, TLS included, within `limit`; to another port than the server's own where
/// that is said. It begins with `preamble`, before any TLS.
pub async fn dial(
    server: &Server,
    port: Option<u16>,
    limit: Duration,
    speak: Speak,
    preamble: &[u8],
) -> Result<Io, ConnectError> {
    match timeout(limit, dial_at(server, port, limit, speak, preamble)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(limit)),
    }
}

async fn dial_at(
    server: &Server,
    other: Option<u16>,
    limit: Duration,
    speak: Speak,
    preamble: &[u8],
) -> Result<Io, ConnectError> {
    let mut stream = match &server.address {
        ServerAddress::Unix(path) => {
            let mut stream = UnixStream::connect(path).await.map_err(connect_error)?;
            announce(&mut stream, preamble).await?;
            return Ok(Io::new(Stream::Unix(stream)));
        }
        ServerAddress::Ip(address) => {
            let port = other.unwrap_or_else(|| address.port());
            connect_tcp(SocketAddr::new(address.ip(), port)).await?
        }
        ServerAddress::Name(..) | ServerAddress::Service(_) => {
            connect_name(server, other, limit).await?
        }
    };
    announce(&mut stream, preamble).await?;
    let tls = match (&server.tls, speak) {
        (Some(tls), speak) if speak != Speak::Passed => tls,
        (None, Speak::Checked) => return unverified(server, stream).await,
        _ => return Ok(Io::new(Stream::Tcp(Socket::new(stream)))),
    };
    let stream = Socket::new(stream);
    let Some(current) = tls.trust.current() else {
        let fault = tls.trust.fault();
        let why = fault.map_or_else(|| "it cannot be set up".to_owned(), |it| it.to_string());
        return Err(ConnectError::Tls(io::Error::other(why)));
    };
    let config = match speak {
        Speak::Agreed => &current.config,
        Speak::Http1 | Speak::Checked => &current.http1,
        Speak::Raw | Speak::Passed => &current.raw,
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector
        .connect(tls.name.clone(), stream)
        .await
        .map_err(ConnectError::Tls)?;
    // What is not looked at need not be renewed.
    if tls.trust.verifies() {
        server.presents(stream.get_ref().1.peer_certificates());
    }
    Ok(Io::new(Stream::Tls(Box::new(stream))))
}

/// Speaks TLS whatever the certificate says.
async fn unverified(server: &Server, stream: TcpStream) -> Result<Io, ConnectError> {
    let other =
        |error: &dyn std::fmt::Display| ConnectError::Tls(io::Error::other(error.to_string()));
    let name = match &server.address {
        ServerAddress::Name(name, _) => {
            ServerName::try_from(name.to_string()).map_err(|error| other(&error))?
        }
        _ => ServerName::from(stream.peer_addr().map_err(ConnectError::Connect)?.ip()),
    };
    let config = tls::upstream(None, None, false, &[b"http/1.1"]).map_err(|error| other(&error))?;
    let stream = TlsConnector::from(config)
        .connect(name, Socket::new(stream))
        .await;
    let stream = stream.map_err(ConnectError::Tls)?;
    Ok(Io::new(Stream::Tls(Box::new(stream))))
}

/// Says whose connection it is, where that is to be said.
async fn announce(
    stream: &mut (impl AsyncWrite + Unpin),
    preamble: &[u8],
) -> Result<(), ConnectError> {
    match preamble {
        [] => Ok(()),
        header => (stream.write_all(header).await).map_err(ConnectError::Connect),
    }
}

/// Tries the addresses of a name, each for its part of the time; at another port where that is
/// said.
async fn connect_name(
    server: &Server,
    other: Option<u16>,
    limit: Duration,
) -> Result<TcpStream, ConnectError> {
    let end = Instant::now() + limit;
    let mut addresses = server.addresses.order(Moment::now());
    if addresses.is_empty() {
        // The control plane is about to find it.
        let known = server.addresses.wait().await;
        known.map_err(|why| ConnectError::Resolve(io::Error::other(why)))?;
        addresses = server.addresses.order(Moment::now());
    }
    let mut last = ConnectError::Resolve(io::ErrorKind::NotFound.into());
    let count = addresses.len();
    for (at, address) in addresses.into_iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let part = left / u32::try_from(count - at).unwrap_or(u32::MAX);
        let to = SocketAddr::new(address.ip(), other.unwrap_or_else(|| address.port()));
        let failed = match timeout(part, connect_tcp(to)).await {
            Ok(Ok(stream)) => {
                if other.is_none() {
                    server.addresses.note(address, None);
                }
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => ConnectError::Timeout(limit),
        };
        last = failed;
        if other.is_none() {
            server.addresses.note(address, Some(Moment::now()));
        }
    }
    Err(last)
}

/// Makes a TCP connection.
async fn connect_tcp(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(connect_error)?;
    listen::configure(&socket, address).map_err(ConnectError::Connect)?;
    socket.connect(address).await.map_err(connect_error)
}

fn connect_error(error: io::Error) -> ConnectError {
    match rustix::io::Errno::from_io_error(&error) {
        Some(
            rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::ADDRNOTAVAIL,
        ) => ConnectError::Exhausted(error),
        _ => ConnectError::Connect(error),
    }
}
