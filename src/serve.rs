//! One connection, from accept to close: PROXY header and handshake under one deadline, then
//! HTTP/1.1 or HTTP/2 by what was agreed on.

pub mod doors;
pub mod h1;
pub mod h2;
mod handshake;
mod linger;
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
use crate::wire::Socket;
use doors::{Doors, Known, Permit};
use h1::Http1;
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
    /// Takes requests in plain text: redirects to this port of HTTPS, but where a site answers.
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
    /// Its port.
    pub port: u16,
    /// Peers that must send a PROXY protocol header.
    pub proxy_protocol_from: Arc<[IpNet]>,
}

impl Service {
    /// Serves one request as the listener's role says; when that was over.
    async fn handle<C: Client>(&self, peer: &Peer, head: RequestHead, client: &mut C) -> Instant {
        match self.role {
            Role::Https { .. } => proxy::handle(&self.local, peer, head, client).await,
            Role::Redirect { port } => proxy::plain(&self.local, peer, head, client, port).await,
            Role::Stream(_) => Instant::now(), // no requests are read there
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
    /// Counts it as open, to its end.
    pub entered: Permit,
    /// Counts connections.
    pub doors: Arc<Doors>,
}

/// Serves a connection to its end.
///
/// What idles is held in a block and not in an `async fn`, which would hold its arguments twice,
/// and what is over before that is boxed: this is what a connection costs all its life.
pub fn connection(service: Rc<Service>, accepted: Accepted) -> impl Future<Output = ()> {
    let Accepted {
        stream,
        from,
        guard,
        mut open,
        greeted,
        entered,
        doors,
    } = accepted;
    async move {
        let meeting = meet(&service, stream, from, &guard, &mut open, greeted, &doors);
        let mut met = Box::pin(meeting).await;
        if let Some(met) = &mut met {
            if met.is_h2 {
                let stream = met.client.stream();
                Box::pin(h2::serve(stream, &service, &met.peer, &guard)).await;
            } else {
                met.client.serve(&service, &met.peer, &guard).await;
            }
            service.local.pool().forget(met.peer.id);
        }
        // It is open until here, also where nobody asked it whether the end has come.
        drop((guard, entered));
    }
}

/// A client whose TLS is terminated, and who is about to send requests.
struct Met {
    client: Http1<Listening>,
    is_h2: bool,
    peer: Peer,
    _known: Known,
}

/// Gets to know a client. `None`: it was refused, or has been served already, for it has no requests
/// or is only redirected.
async fn meet(
    service: &Service,
    stream: TcpStream,
    from: SocketAddr,
    guard: &Guard,
    open: &mut OpenConnection,
    greeted: Permit,
    doors: &Doors,
) -> Option<Met> {
    let local = &service.local;
    let begin = Instant::now();
    let deadline = begin + local.world().timeouts().tls_handshake;
    let ends = ends(service, &stream, from, deadline).await?;
    let Some(known) = doors.know(ends.client.ip(), local.world().limits()) else {
        local.edge().limit(Limit::ConnectionsPerClient);
        return None;
    };
    let greeting = Greeting {
        local,
        ends,
        begin,
        deadline,
    };
    match &service.role {
        Role::Redirect { .. } => {
            drop(greeted);
            open.becomes(Protocol::Http1);
            let mut client = Http1::new(Socket::new(stream));
            Box::pin(client.serve(service, &ends.plain("http"), guard)).await;
        }
        Role::Https {
            policies,
            passthrough,
        } => {
            if let Some(names) = passthrough {
                let passed = greeting.look(names, &stream).await?;
                if let Some(upstream) = passed.upstream {
                    drop(greeted);
                    open.becomes(Protocol::Stream);
                    let peer = ends.passed(passed.name);
                    let passing =
                        proxy::stream::run(local, &peer, stream, Kind::Passed, &upstream, None);
                    Box::pin(passing).await;
                    local.pool().forget(ends.id);
                    return None;
                }
            }
            let (done, peer) = greeting.accept(policies, stream, "https").await?;
            let is_h2 = handshake::is_h2(&done.stream);
            open.becomes(match is_h2 {
                true => Protocol::Http2,
                false => Protocol::Http1,
            });
            return Some(Met {
                client: Http1::new(Listening::new(done, Rc::clone(local), ends.client)),
                is_h2,
                peer,
                _known: known,
            });
        }
        Role::Stream(role) => {
            let serving = stream::serve(role, greeting, stream, || {
                drop(greeted);
                open.becomes(Protocol::Stream);
            });
            Box::pin(serving).await;
        }
    }
    local.pool().forget(ends.id);
    None
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
        let accepting = Box::pin(handshake::accept(
            policies,
            self.local.certificates(),
            stream,
        ));
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
        port: service.port,
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
