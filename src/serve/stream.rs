//! A connection whose bytes are passed on: whose TLS is terminated, and whose is passed through.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::join;
use tokio::net::TcpStream;
use tracing::debug;

use super::Greeting;
use super::handshake::Listening;
use super::starttls::Opening;
use crate::config::{self, ClientMode, SiteName, StartTls};
use crate::listen::client_hello::{self, Unread};
use crate::metrics::{ErrorKind, HandshakeFailure};
use crate::proxy::stream::{Kind, run};
use crate::tls::Policies;

/// Which upstream a name is passed through to.
#[derive(Debug, Default)]
pub struct Names {
    exact: HashMap<Arc<str>, Arc<str>>,
    wildcard: HashMap<Arc<str>, Arc<str>>,
    any: Option<Arc<str>>,
}

impl Names {
    /// `None` where there are none: then nobody looks at greetings.
    pub fn new(names: &[(SiteName, Arc<str>)]) -> Option<Arc<Self>> {
        let mut all = Self::default();
        for (name, upstream) in names {
            let upstream = Arc::clone(upstream);
            match name {
                SiteName::Exact(name) => _ = all.exact.insert(Arc::clone(name), upstream),
                SiteName::Wildcard(name) => _ = all.wildcard.insert(Arc::clone(name), upstream),
                SiteName::Any => all.any = Some(upstream),
            }
        }
        (!names.is_empty()).then(|| Arc::new(all))
    }

    /// An exact name before a wildcard before `*`, which is also for clients that name nobody.
    pub fn find(&self, name: Option<&str>) -> Option<&Arc<str>> {
        let named = name.and_then(|name| {
            self.exact.get(name).or_else(|| {
                let (label, parent) = name.split_once('.')?;
                self.wildcard.get(parent).filter(|_| !label.is_empty())
            })
        });
        named.or(self.any.as_ref())
    }
}

/// What becomes of the connections of a listener.
#[derive(Debug)]
pub struct Stream {
    /// How TLS is terminated, where it is.
    pub tls: Option<Arc<Policies>>,
    /// What is spoken before that.
    pub start: Option<StartTls>,
    /// Whether only clients that show a certificate are let in.
    pub certain: bool,
    /// Where connections go that no name takes elsewhere.
    pub upstream: Option<Arc<str>>,
    /// Where TLS is passed through to.
    pub names: Option<Arc<Names>>,
    /// How long both sides may be silent; `None`: as tunnels.
    pub idle: Option<Duration>,
    /// The only clients that are let in; empty: all are.
    allow: Box<[IpNet]>,
    /// Clients that are not let in.
    deny: Box<[IpNet]>,
}

impl Stream {
    /// As configured.
    pub fn new(stream: &config::Stream, tls: Option<Arc<Policies>>) -> Self {
        Self {
            tls,
            start: stream.tls.as_ref().and_then(|tls| tls.start),
            certain: (stream.tls.as_ref().and_then(|tls| tls.client.as_ref()))
                .is_some_and(|client| client.mode == ClientMode::Required),
            upstream: stream.upstream.clone(),
            names: Names::new(&stream.names),
            idle: stream.idle,
            allow: stream.allow.as_slice().into(),
            deny: stream.deny.as_slice().into(),
        }
    }

    fn lets_in(&self, client: IpAddr) -> bool {
        !config::contains(&self.deny, client)
            && (self.allow.is_empty() || config::contains(&self.allow, client))
    }
}

/// Where a connection is passed through to, by the name in its greeting.
#[derive(Debug)]
pub struct Passed {
    /// What the client asks for.
    pub name: Option<Box<str>>,
    /// Where that goes; `None`: nowhere that is known here.
    pub upstream: Option<Arc<str>>,
}

/// Looks at the greeting of a client.
pub async fn look(names: &Names, stream: &TcpStream) -> Result<Passed, Unread> {
    let name = client_hello::peek(stream).await?;
    let upstream = names.find(name.as_deref()).cloned();
    Ok(Passed { name, upstream })
}

/// Serves a connection of such a listener. `begun` is called once it is known what is spoken.
pub(super) async fn serve(
    role: &Stream,
    greeting: Greeting<'_>,
    mut stream: TcpStream,
    begun: impl FnOnce(),
) {
    let (local, ends) = (greeting.local, greeting.ends);
    if !role.lets_in(ends.client.ip()) {
        local.edge().error(ErrorKind::Forbidden);
        return debug!(client = %ends.client, "the client's address is not let in");
    }
    let mut name = None;
    if let Some(names) = &role.names {
        let Some(passed) = greeting.look(names, &stream).await else {
            return;
        };
        // Those who name nobody that is known go where no name is needed, as they are.
        let rest = role.upstream.as_ref().filter(|_| role.tls.is_none());
        if let Some(upstream) = passed.upstream.as_ref().or(rest) {
            begun();
            let peer = ends.passed(passed.name);
            return run(local, &peer, stream, Kind::Passed, upstream, role.idle).await;
        }
        name = passed.name;
    }
    let Some(upstream) = &role.upstream else {
        local.edge().error(ErrorKind::NoRoute);
        return debug!(client = %ends.client, ?name, "no stream goes by this name");
    };
    let Some(policies) = &role.tls else {
        begun();
        let peer = ends.plain("tcp");
        return run(local, &peer, stream, Kind::Bytes, upstream, role.idle).await;
    };
    let mut kind = Kind::Bytes;
    if let Some(protocol) = role.start {
        match greeting.begin(protocol, role.certain, &mut stream).await {
            None => return,
            Some(Opening::Tls) => kind = Kind::Greeted(protocol),
            Some(Opening::Cancel(request)) => {
                begun();
                let (_unread, answers) = stream.into_split();
                let (client, peer) = (join(request, answers), ends.plain("tcp"));
                return run(local, &peer, client, kind, upstream, role.idle).await;
            }
        }
    }
    let Some((done, peer)) = greeting.accept(policies, stream, "tls").await else {
        return;
    };
    begun();
    let stream = Listening::new(done, Rc::clone(local), ends.client);
    run(local, &peer, stream, kind, upstream, role.idle).await;
}

/// Why a greeting could not be read, in words that metrics know.
pub fn classify(error: Unread) -> (HandshakeFailure, io::Error) {
    match error {
        Unread::NotTls => (HandshakeFailure::NotTls, io::Error::other(error)),
        Unread::TooLong => (HandshakeFailure::Protocol, io::Error::other(error)),
        Unread::Closed => (HandshakeFailure::Closed, io::Error::other(error)),
        Unread::Io(error) => (HandshakeFailure::Closed, error),
    }
}
