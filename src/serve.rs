//! One connection, from accept to close: PROXY header and handshake under one deadline, then
//! HTTP/1.1 or HTTP/2 by what was agreed on.

pub mod doors;
mod gather;
pub mod h1;
pub mod h2;
mod handshake;
mod linger;
mod meter;
mod pace;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::drain::Guard;
use crate::http::RequestHead;
use crate::listen::proxy_header;
use crate::metrics::{HandshakeFailure, Limit, OpenConnection, Protocol, Timeout};
use crate::proxy::{self, Client, Local, Peer};
use crate::tls::Policies;
use doors::{Doors, Permit};
use handshake::{Failed, Listening};

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// Terminates TLS and proxies.
    Https(Arc<Policies>),
    /// Redirects to this port of HTTPS.
    Redirect {
        /// The port that clients reach HTTPS at.
        port: u16,
    },
}

/// What a connection needs of its worker and its listener.
#[derive(Debug)]
pub struct Service {
    /// The worker's things.
    pub local: Rc<Local>,
    /// What the listener is for.
    pub role: Role,
    /// Peers that must send a PROXY protocol header.
    pub proxy_protocol_from: Arc<[IpNet]>,
}

impl Service {
    /// Serves one request as the listener's role says.
    async fn handle<C: Client>(&self, peer: &Peer, head: RequestHead, client: &mut C) {
        match self.role {
            Role::Https(_) => proxy::handle(&self.local, peer, head, client).await,
            Role::Redirect { port } => {
                proxy::redirect(&self.local, peer, head, client, port).await;
            }
        }
    }
}

/// An accepted connection, counted until it is dropped.
#[derive(Debug)]
pub struct Accepted {
    /// The socket.
    pub stream: TcpStream,
    /// Who connected.
    pub from: SocketAddr,
    /// Tells when to stop.
    pub guard: Guard,
    /// In the metrics.
    pub open: OpenConnection,
    /// Counts it as a handshake, until that is over.
    pub greeted: Permit,
    /// Counts connections.
    pub doors: Arc<Doors>,
}

/// Serves a connection to its end.
pub async fn connection(service: Rc<Service>, accepted: Accepted) {
    let Accepted {
        stream,
        from,
        guard,
        mut open,
        greeted,
        doors,
    } = accepted;
    let begin = Instant::now();
    let limit = service.local.world().timeouts().tls_handshake;
    let deadline = begin + limit;
    let Some(client) = client_address(&service, &stream, from, deadline).await else {
        return;
    };
    let Some(_known) = doors.know(client.ip(), service.local.world().limits()) else {
        service.local.edge().limit(Limit::ConnectionsPerClient);
        return;
    };
    match &service.role {
        Role::Redirect { .. } => {
            drop(greeted);
            open.becomes(Protocol::Http1);
            let peer = Peer {
                client,
                scheme: "http",
                sni: None,
                tls_version: None,
                session: None,
                ja4: None,
                policy: None,
                identity: None,
            };
            h1::serve(stream, &service, &peer, &guard).await;
        }
        Role::Https(policies) => {
            let local = &service.local;
            let done = timeout_at(deadline, Box::pin(handshake::accept(policies, stream))).await;
            let took = begin.elapsed();
            let failed = |name: Option<&str>, failure, error: &io::Error| {
                handshake::failed(local, client, name, failure, took, error);
            };
            let done = match done {
                Ok(Ok(done)) => done,
                Ok(Err(Failed { error, name })) => {
                    return failed(name.as_deref(), handshake::classify(&error), &error);
                }
                Err(_) => {
                    local.edge().timeout(Timeout::TlsHandshake);
                    let error = ErrorKind::TimedOut.into();
                    return failed(None, HandshakeFailure::Timeout, &error);
                }
            };
            let (outcome, peer) = match handshake::describe(&done, client) {
                Ok(described) => described,
                Err(error) => {
                    let failure = handshake::classify_tls(&error);
                    let name = done.stream.get_ref().1.server_name();
                    return failed(name, failure, &io::Error::other(error));
                }
            };
            local.edge().handshake(outcome, took);
            drop(greeted);
            let is_h2 = handshake::is_h2(&done.stream);
            let stream = Listening::new(done, Rc::clone(local), client);
            if is_h2 {
                open.becomes(Protocol::Http2);
                Box::pin(h2::serve(stream, &service, &peer, &guard)).await;
            } else {
                open.becomes(Protocol::Http1);
                h1::serve(stream, &service, &peer, &guard).await;
            }
        }
    }
}

/// Who the client is: the peer, or whom a PROXY protocol header names where one must come. `None`:
/// the connection is refused.
async fn client_address(
    service: &Service,
    stream: &TcpStream,
    from: SocketAddr,
    deadline: Instant,
) -> Option<SocketAddr> {
    if service.proxy_protocol_from.is_empty()
        || !config::contains(&service.proxy_protocol_from, from.ip())
    {
        return Some(from);
    }
    // Boxed: it is over before the connection idles, which need not carry its window.
    match timeout_at(deadline, Box::pin(proxy_header::read(stream))).await {
        Ok(Ok(header)) => Some(header.source().unwrap_or(from)),
        Ok(Err(error)) => {
            let failure = HandshakeFailure::ProxyHeader;
            let error = io::Error::other(error.to_string());
            handshake::failed(&service.local, from, None, failure, Duration::ZERO, &error);
            None
        }
        Err(_) => {
            let failure = HandshakeFailure::Timeout;
            let error = ErrorKind::TimedOut.into();
            handshake::failed(&service.local, from, None, failure, Duration::ZERO, &error);
            None
        }
    }
}
