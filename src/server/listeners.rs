//! Listening sockets: which to keep, which are new, which to drop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tracing::info;

use crate::config::Listen;
use crate::listen::BindError;
use crate::listen::adopt::{Inherited, share};
use crate::serve::Role;
use crate::serve::stream::{Names, Stream};
use crate::tls::Prepared;
use crate::worker::{Command, Handle, Listener};

/// Sockets by address, for all workers together.
pub type Sockets = BTreeMap<SocketAddr, Vec<TcpListener>>;

/// Opens all addresses, for this many workers. All or none.
pub fn open_all(
    listen: &Listen,
    workers: usize,
    inherited: &Inherited,
) -> Result<Sockets, BindError> {
    open(addresses(listen), workers, inherited)
}

/// Opens the addresses that `new` has and `old` has not. All or none.
pub fn open_new(
    old: &Listen,
    new: &Listen,
    workers: usize,
    inherited: &Inherited,
) -> Result<Sockets, BindError> {
    let kept: Vec<_> = addresses(old).collect();
    let new = addresses(new).filter(|address| !kept.contains(address));
    open(new, workers, inherited)
}

fn open(
    addresses: impl Iterator<Item = SocketAddr>,
    workers: usize,
    inherited: &Inherited,
) -> Result<Sockets, BindError> {
    addresses
        .map(|address| Ok((address, inherited.listen(address, workers)?)))
        .collect()
}

/// Where requests come in.
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

/// Whether anything listens on this address.
pub fn wants(listen: &Listen, address: SocketAddr) -> bool {
    listen.admin == Some(address) || addresses(listen).any(|wanted| wanted == address)
}

/// Hands bound sockets to the workers.
pub fn give(workers: &[Handle], sockets: Sockets, listen: &Listen, tls: &Prepared) {
    for (address, sockets) in sockets {
        let proxy_protocol_from: Arc<[_]> = listen.proxies_at(address).into();
        let role = role(listen, address, tls);
        let https = matches!(role, Role::Https { .. });
        let stream = matches!(role, Role::Stream(_));
        info!(%address, https, stream, "listening");
        let shares = share(sockets, workers.len());
        for (worker, sockets) in workers.iter().zip(shares) {
            worker.tell(Command::Listen(Listener {
                address,
                sockets,
                role: role.clone(),
                proxy_protocol_from: Arc::clone(&proxy_protocol_from),
            }));
        }
    }
}

/// Tells the workers what became of the sockets they have.
pub fn update(workers: &[Handle], old: &Listen, new: &Listen, tls: &Prepared) {
    let wanted: Vec<_> = addresses(new).collect();
    for address in addresses(old) {
        let proxy_protocol_from: Arc<[_]> = new.proxies_at(address).into();
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
