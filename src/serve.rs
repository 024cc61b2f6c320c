//! One connection, from accept to close: PROXY header and handshake under one deadline, then
//! HTTP/1.1 or HTTP/2 by what was agreed on.

pub mod doors;
mod frames;
mod gather;
pub mod h1;
pub mod h2;
mod handshake;
mod linger;
mod meter;
mod pace;
mod starttls;
pub mod stream;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::config::{self, StartTls};
use crate::drain::Guard;
use crate::http::RequestHead;
use crate::listen::proxy_header;
use crate::metrics::{HandshakeFailure, Limit, OpenConnection, Protocol, Timeout};
use crate::proxy::stream::Kind;
use crate::proxy::{self, Client, Local, Peer};
use crate::tls::Policies;
use doors::{Doors, Permit};
use handshake::{Done, Ends, Failed, Listening};
use starttls::Opening;
use stream::{Names, Passed, Stream};

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// Terminates TLS and proxies.
    Https {
        /// How TLS is spoken.
        policies: Arc<Policies>,
        /// Names whose TLS is passed through instead.
        passthrough: Option<Arc<Names>>,
    },
    /// Redirects to this port of HTTPS.
    Redirect {
        /// The port that clients reach HTTPS at.
        port: u16,
    },
    /// Passes bytes on.
    Stream(Arc<Stream>),
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
            Role::Https { .. } => proxy::handle(&self.local, peer, head, client).await,
            Role::Redirect { port } => {
                proxy::redirect(&self.local, peer, head, client, port).await;
            }
            Role::Stream(_) => {} // no requests are read there
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
    let Some(ends) = ends(&service, &stream, from, deadline).await else {
        return;
    };
    let Some(_known) = doors.know(ends.client.ip(), service.local.world().limits()) else {
        service.local.edge().limit(Limit::ConnectionsPerClient);
        return;
    };
    let greeting = Greeting {
        local: &service.local,
        ends,
        begin,
        deadline,
    };
    match &service.role {
        Role::Redirect { .. } => {
            drop(greeted);
            open.becomes(Protocol::Http1);
            h1::serve(stream, &service, &ends.plain("http"), &guard).await;
        }
        Role::Https {
            policies,
            passthrough,
        } => {
            if let Some(names) = passthrough {
                let Some(passed) = greeting.look(names, &stream).await else {
                    return;
                };
                if let Some(upstream) = passed.upstream {
                    drop(greeted);
                    open.becomes(Protocol::Stream);
                    let peer = ends.passed(passed.name);
                    let local = &service.local;
                    let passing =
                        proxy::stream::run(local, &peer, stream, Kind::Passed, &upstream, None);
                    return Box::pin(passing).await;
                }
            }
            let Some((done, peer)) = greeting.accept(policies, stream, "https").await else {
                return;
            };
            drop(greeted);
            let is_h2 = handshake::is_h2(&done.stream);
            let stream = Listening::new(done, Rc::clone(&service.local), ends.client);
            if is_h2 {
                open.becomes(Protocol::Http2);
                Box::pin(h2::serve(stream, &service, &peer, &guard)).await;
            } else {
                open.becomes(Protocol::Http1);
                h1::serve(stream, &service, &peer, &guard).await;
            }
        }
        Role::Stream(role) => {
            let serving = stream::serve(role, greeting, stream, || {
                drop(greeted);
                open.becomes(Protocol::Stream);
            });
            Box::pin(serving).await;
        }
    }
    service.local.pool().forget(ends.id);
    // It is open until here, also where nobody asked it whether the end has come.
    drop(guard);
}

/// A connection, from when it is known whose it is until it is known what is spoken on it.
#[derive(Clone, Copy)]
struct Greeting<'a> {
    local: &'a Rc<Local>,
    ends: Ends,
    begin: Instant,
    deadline: Instant,
}

impl Greeting<'_> {
    fn failed(&self, name: Option<&str>, failure: HandshakeFailure, error: &io::Error) {
        let took = self.begin.elapsed();
        handshake::failed(self.local, self.ends.client, name, failure, took, error);
    }

    fn timed_out(&self) {
        self.local.edge().timeout(Timeout::TlsHandshake);
        self.failed(None, HandshakeFailure::Timeout, &ErrorKind::TimedOut.into());
    }

    /// Looks at the client's greeting; what it says of where it is to go.
    async fn look(&self, names: &Names, stream: &TcpStream) -> Option<Passed> {
        match timeout_at(self.deadline, Box::pin(stream::look(names, stream))).await {
            Ok(Ok(passed)) => return Some(passed),
            Ok(Err(unread)) => {
                let (failure, error) = stream::classify(unread);
                self.failed(None, failure, &error);
            }
            Err(_) => self.timed_out(),
        }
        None
    }

    /// Leads the client to the beginning of TLS. `certain`: nobody gets in without a certificate.
    /// `None`: it failed, which has been told.
    async fn begin(
        &self,
        protocol: StartTls,
        certain: bool,
        stream: &mut TcpStream,
    ) -> Option<Opening> {
        let error = match timeout_at(self.deadline, starttls::begin(protocol, stream)).await {
            Ok(Ok(Opening::Cancel(_))) if certain => {
                io::Error::other("a request to cancel in plain text, without a certificate")
            }
            Ok(Ok(opening)) => return Some(opening),
            Ok(Err(error)) => error,
            Err(_) => {
                self.timed_out();
                return None;
            }
        };
        let failure = match error.kind() {
            ErrorKind::Other => HandshakeFailure::NotTls,
            _ => HandshakeFailure::Closed,
        };
        self.failed(None, failure, &error);
        None
    }

    /// Terminates TLS. `None`: it failed, which has been told.
    async fn accept(
        &self,
        policies: &Policies,
        stream: TcpStream,
        scheme: &'static str,
    ) -> Option<(Done, Peer)> {
        let accepting = Box::pin(handshake::accept(policies, stream));
        let done = match timeout_at(self.deadline, accepting).await {
            Ok(Ok(done)) => done,
            Ok(Err(Failed { error, name })) => {
                self.failed(name.as_deref(), handshake::classify(&error), &error);
                return None;
            }
            Err(_) => {
                self.timed_out();
                return None;
            }
        };
        match handshake::describe(&done, self.ends, scheme) {
            Ok((outcome, peer)) => {
                self.local.edge().handshake(outcome, self.begin.elapsed());
                Some((done, peer))
            }
            Err(error) => {
                let failure = handshake::classify_tls(&error);
                let name = done.stream.get_ref().1.server_name();
                self.failed(name, failure, &io::Error::other(error));
                None
            }
        }
    }
}

/// Who the client is: the peer, or whom a PROXY protocol header names where one must come. `None`:
/// the connection is refused.
async fn ends(
    service: &Service,
    stream: &TcpStream,
    from: SocketAddr,
    deadline: Instant,
) -> Option<Ends> {
    let here = || match service.local.world().tells() {
        true => stream.local_addr().ok(),
        false => None,
    };
    let ends = |client, destination| Ends {
        id: service.local.pool().client(),
        client,
        destination,
    };
    if service.proxy_protocol_from.is_empty()
        || !config::contains(&service.proxy_protocol_from, from.ip())
    {
        return Some(ends(from, here()));
    }
    // Boxed: it is over before the connection idles, which need not carry its window.
    match timeout_at(deadline, Box::pin(proxy_header::read(stream))).await {
        Ok(Ok(header)) => Some(match header.connection {
            proxy_header::Connection::Proxied {
                source,
                destination,
            } => ends(source, Some(destination)),
            _ => ends(from, here()),
        }),
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
