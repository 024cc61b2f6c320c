//! Listening sockets: which to keep, which are new, which to drop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tracing::info;

use crate::config::Listen;
use crate::listen::{self, BindError};
use crate::serve::Role;
use crate::serve::stream::{Names, Stream};
use crate::tls::Prepared;
use crate::worker::{Command, Handle, Listener};

/// Sockets by address, one for each worker.
pub type Sockets = BTreeMap<SocketAddr, Vec<TcpListener>>;

/// Binds all addresses, for this many workers. All or none.
pub fn bind_all(listen: &Listen, workers: usize) -> Result<Sockets, BindError> {
    bind(addresses(listen), workers)
}

/// Binds the addresses that `new` has and `old` has not. All or none.
pub fn bind_new(old: &Listen, new: &Listen, workers: usize) -> Result<Sockets, BindError> {
    let kept: Vec<_> = addresses(old).collect();
    bind(
        addresses(new).filter(|address| !kept.contains(address)),
        workers,
    )
}

fn bind(addresses: impl Iterator<Item = SocketAddr>, workers: usize) -> Result<Sockets, BindError> {
    addresses
        .map(|address| Ok((address, listen::bind(address, workers)?)))
        .collect()
}

fn addresses(listen: &Listen) -> impl Iterator<Item = SocketAddr> {
    let streams = listen.streams.iter().flat_map(|stream| &stream.listen);
    listen
        .https
        .iter()
        .chain(&listen.http)
        .chain(streams)
        .copied()
}

/// The upstreams that whole connections are passed on to.
pub fn targets(listen: &Listen) -> BTreeSet<Arc<str>> {
    let streams = &listen.streams;
    let named = streams.iter().flat_map(|stream| &stream.names);
    let all = named
        .chain(&listen.passthrough)
        .map(|(_, upstream)| upstream);
    let rest = streams.iter().filter_map(|stream| stream.upstream.as_ref());
    all.chain(rest).cloned().collect()
}

/// Hands bound sockets to the workers.
pub fn give(workers: &[Handle], sockets: Sockets, listen: &Listen, tls: &Prepared) {
    let proxy_protocol_from: Arc<[_]> = listen.proxy_protocol_from.clone().into();
    for (address, sockets) in sockets {
        let role = role(listen, address, tls);
        let https = matches!(role, Role::Https { .. });
        let stream = matches!(role, Role::Stream(_));
        info!(%address, https, stream, "listening");
        for (worker, socket) in workers.iter().zip(sockets) {
            worker.tell(Command::Listen(Listener {
                address,
                socket,
                role: role.clone(),
                proxy_protocol_from: Arc::clone(&proxy_protocol_from),
            }));
        }
    }
}

/// Tells the workers what became of the sockets they have.
pub fn update(workers: &[Handle], old: &Listen, new: &Listen, tls: &Prepared) {
    let proxy_protocol_from: Arc<[_]> = new.proxy_protocol_from.clone().into();
    let wanted: Vec<_> = addresses(new).collect();
    for address in addresses(old) {
        for worker in workers {
            worker.tell(match wanted.contains(&address) {
                false => Command::Close(address),
                true => Command::Change {
                    address,
                    role: role(new, address, tls),
                    proxy_protocol_from: Arc::clone(&proxy_protocol_from),
                },
            });
        }
        if !wanted.contains(&address) {
            info!(%address, "no longer listening");
        }
    }
}

/// What an address is for. Plain-text ones redirect to the port of the first HTTPS address.
fn role(listen: &Listen, address: SocketAddr, tls: &Prepared) -> Role {
    let policies = tls.at(address).cloned();
    let mut streams = listen.streams.iter();
    if let Some(stream) = streams.find(|stream| stream.listen.contains(&address)) {
        return Role::Stream(Arc::new(Stream::new(stream, policies)));
    }
    if let Some(policies) = policies {
        let passthrough = Names::new(&listen.passthrough);
        return Role::Https {
            policies,
            passthrough,
        };
    }
    Role::Redirect {
        port: listen.https.first().map_or(443, SocketAddr::port),
    }
}
