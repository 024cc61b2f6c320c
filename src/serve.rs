//! One connection, from accept to close: PROXY header and handshake under one deadline, then
//! HTTP/1.1 or HTTP/2 by what was agreed on.

pub mod h1;
pub mod h2;
mod handshake;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::config;
use crate::drain::Guard;
use crate::http::RequestHead;
use crate::listen::proxy_header;
use crate::metrics::{Handshake, HandshakeFailure, OpenConnection, Protocol, Timeout};
use crate::proxy::{self, Client, Local, Peer};

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// Terminates TLS and proxies.
    Https(Arc<ServerConfig>),
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
}

/// Serves a connection to its end.
pub async fn connection(service: Rc<Service>, accepted: Accepted) {
    let Accepted {
        stream,
        from,
        guard,
        mut open,
    } = accepted;
    let begin = Instant::now();
    let limit = service.local.world().timeouts().tls_handshake;
    let deadline = begin + limit;
    let Some(client) = client_address(&service, &stream, from, deadline).await else {
        return;
    };
    match &service.role {
        Role::Redirect { .. } => {
            open.becomes(Protocol::Http1);
            let peer = Peer {
                client,
                scheme: "http",
                sni: None,
                tls_version: None,
            };
            h1::serve(stream, &service, &peer, &guard).await;
        }
        Role::Https(config) => {
            let done = timeout_at(deadline, Box::pin(handshake::accept(config, stream))).await;
            let took = begin.elapsed();
            match done {
                Err(_) => {
                    service.local.edge().timeout(Timeout::TlsHandshake);
                    failed(
                        &service,
                        client,
                        HandshakeFailure::Timeout,
                        took,
                        "timed out",
                    );
                }
                Ok(Err(error)) => {
                    let failure = handshake::classify(&error);
                    failed(&service, client, failure, took, &error.to_string());
                }
                Ok(Ok(stream)) => {
                    let (done, peer) = handshake::describe(&stream, client);
                    service.local.edge().handshake(done, took);
                    if handshake::is_h2(&stream) {
                        open.becomes(Protocol::Http2);
                        Box::pin(h2::serve(stream, &service, &Rc::new(peer), &guard)).await;
                    } else {
                        open.becomes(Protocol::Http1);
                        h1::serve(stream, &service, &peer, &guard).await;
                    }
                }
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
    match timeout_at(deadline, proxy_header::read(stream)).await {
        Ok(Ok(header)) => Some(header.source().unwrap_or(from)),
        Ok(Err(error)) => {
            let failure = HandshakeFailure::ProxyHeader;
            failed(service, from, failure, Duration::ZERO, &error.to_string());
            None
        }
        Err(_) => {
            failed(
                service,
                from,
                HandshakeFailure::Timeout,
                Duration::ZERO,
                "timed out",
            );
            None
        }
    }
}

/// A client can provoke any number of these, so that they are counted, and logged only when asked.
fn failed(
    service: &Service,
    client: SocketAddr,
    failure: HandshakeFailure,
    took: Duration,
    error: &str,
) {
    service
        .local
        .edge()
        .handshake(Handshake::Failed(failure), took);
    debug!(%client, outcome = failure.code(), error, "handshake failed");
}
