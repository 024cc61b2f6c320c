//! A worker's connections to servers: made when needed, kept while useful.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Io, Stream};
use super::health::Moment;
use super::{Open, Server, ServerId, names};
use crate::config::ServerAddress;

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

struct Resting {
    connection: Connection,
    since: Instant,
}

/// The connections of one worker that rest, by server; the last one in is the first one out, so
/// that the busy stay warm and the others are let go.
#[derive(Default)]
pub struct Pool {
    resting: RefCell<HashMap<ServerId, Vec<Resting>>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("resting", &self.len())
            .finish()
    }
}

impl Pool {
    /// A connection that rested, if one is still good.
    pub fn take(&self, server: &Server) -> Option<Connection> {
        let mut resting = self.resting.borrow_mut();
        let list = resting.get_mut(&server.id)?;
        loop {
            let connection = list.pop()?.connection;
            if !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    /// Takes a connection back; closes it when it is of no more use.
    pub fn put(&self, mut connection: Connection) {
        if !connection.is_reusable() || connection.server().load.is_over_limit() {
            return;
        }
        connection.rest();
        let mut resting = self.resting.borrow_mut();
        let list = resting.entry(connection.server().id).or_default();
        if list.len() < MAX_RESTING {
            list.push(Resting {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// Closes what rested longer than `keep`, and what the servers closed.
    pub fn sweep(&self, keep: Duration) {
        let mut resting = self.resting.borrow_mut();
        resting.retain(|_, list| {
            list.retain(|entry| entry.since.elapsed() < keep && !entry.connection.is_stale());
            !list.is_empty()
        });
    }

    /// How many rest.
    pub fn len(&self) -> usize {
        self.resting.borrow().values().map(Vec::len).sum()
    }

    /// Whether none rests.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Makes a connection, TLS included, within `limit`.
pub async fn connect(server: &Arc<Server>, limit: Duration) -> Result<Connection, ConnectError> {
    let io = dial(server, None, limit).await?;
    Ok(Connection::new(io, Open::new(server)))
}

/// Makes a byte stream, TLS included, within `limit`; to another port than the server's own where
/// that is said.
pub(super) async fn dial(
    server: &Server,
    port: Option<u16>,
    limit: Duration,
) -> Result<Io, ConnectError> {
    match timeout(limit, dial_at(server, port, limit)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(limit)),
    }
}

async fn dial_at(server: &Server, other: Option<u16>, limit: Duration) -> Result<Io, ConnectError> {
    let stream = match &server.address {
        ServerAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(connect_error)?;
            return Ok(Io::new(Stream::Unix(stream)));
        }
        ServerAddress::Ip(address) => {
            let port = other.unwrap_or_else(|| address.port());
            connect_tcp(SocketAddr::new(address.ip(), port)).await?
        }
        ServerAddress::Name(name, port) => {
            connect_name(server, name, *port, other.unwrap_or(*port), limit).await?
        }
    };
    match &server.tls {
        None => Ok(Io::new(Stream::Tcp(stream))),
        Some(tls) => {
            let connector = TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector
                .connect(tls.name.clone(), stream)
                .await
                .map_err(ConnectError::Tls)?;
            Ok(Io::new(Stream::Tls(Box::new(stream))))
        }
    }
}

/// Tries the addresses of a name, each for its part of the time.
async fn connect_name(
    server: &Server,
    name: &str,
    port: u16,
    to: u16,
    limit: Duration,
) -> Result<TcpStream, ConnectError> {
    let end = Instant::now() + limit;
    let mut addresses = server.addresses.order(Moment::now());
    if addresses.is_empty() {
        // The control plane has not found it yet.
        let found = names::resolve(name, port)
            .await
            .map_err(ConnectError::Resolve)?;
        server.addresses.set(found);
        addresses = server.addresses.order(Moment::now());
    }
    let mut last = ConnectError::Resolve(io::ErrorKind::NotFound.into());
    let count = addresses.len();
    for (at, address) in addresses.into_iter().enumerate() {
        let left = end.saturating_duration_since(Instant::now());
        let part = left / u32::try_from(count - at).unwrap_or(u32::MAX);
        match timeout(part, connect_tcp(SocketAddr::new(address.ip(), to))).await {
            Ok(Ok(stream)) => {
                if to == port {
                    server.addresses.note(address, None);
                }
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = ConnectError::Timeout(limit),
        }
        if to == port {
            server.addresses.note(address, Some(Moment::now()));
        }
    }
    Err(last)
}

/// Makes a TCP connection.
async fn connect_tcp(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    let stream = TcpStream::connect(address).await.map_err(connect_error)?;
    // A head and a body must not wait for each other's acknowledgement.
    stream.set_nodelay(true).map_err(ConnectError::Connect)?;
    Ok(stream)
}

fn connect_error(error: io::Error) -> ConnectError {
    match rustix::io::Errno::from_io_error(&error) {
        Some(
            rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::ADDRNOTAVAIL,
        ) => ConnectError::Exhausted(error),
        _ => ConnectError::Connect(error),
    }
}
