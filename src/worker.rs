//! One core: a thread with its own runtime, listeners and upstream connections.
//!
//! A worker shares nothing with the others but immutable snapshots and atomic counters. It is told
//! what to do by [`Command`]s; it never touches a file and never waits for the control plane.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustix::net::{SocketFlags, accept_with};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, warn};

use crate::cert::select::Resolver;
use crate::clock::Clock;
use crate::drain::{Draining, Manner};
use crate::listen;
use crate::metrics::{ListenerSeries, Protocol, Registry, Timeout};
use crate::priority;
use crate::proxy::{Local, World};
use crate::serve::doors::Doors;
use crate::serve::{self, Accepted, Role, Service};
use crate::telemetry::access::AccessLog;

/// How often connections to servers are looked over.
const SWEEP: Duration = Duration::from_secs(1);
/// How long accepting rests when descriptors or memory have run out.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How often a worker that is at its limit of connections looks again.
const FULL: Duration = Duration::from_millis(5);

/// What all workers share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What requests are served by.
    pub world: Arc<ArcSwap<World>>,
    /// Where metrics are registered.
    pub registry: Registry,
    /// What time it is.
    pub clock: Clock,
    /// Where requests are logged.
    pub access: AccessLog,
    /// Connections open at all workers together.
    pub doors: Arc<Doors>,
    /// Which certificate a connection was made with.
    pub certificates: Arc<Resolver>,
}

/// An address that one worker listens on.
#[derive(Debug)]
pub struct Listener {
    /// As configured; identifies it.
    pub address: SocketAddr,
    /// The sockets, bound and listening: one, or several that a process with more workers left.
    pub sockets: Vec<std::net::TcpListener>,
    /// What it is for.
    pub role: Role,
    /// Peers that must send a PROXY protocol header.
    pub proxy_protocol_from: Arc<[IpNet]>,
}

/// What a worker can be told.
#[derive(Debug)]
pub enum Command {
    /// Accept connections here. A listener at the same address is replaced, not its socket.
    Listen(Listener),
    /// Go on at the same address with another role or other peers.
    Change {
        /// Which.
        address: SocketAddr,
        /// What it is for from now on.
        role: Role,
        /// Peers that must send a PROXY protocol header.
        proxy_protocol_from: Arc<[IpNet]>,
    },
    /// Stop accepting here.
    Close(SocketAddr),
    /// Hand out copies of all listening sockets.
    Lend(oneshot::Sender<Vec<(SocketAddr, OwnedFd)>>),
    /// Stop accepting anywhere, and say when no connection is accepted any more.
    CloseAll(oneshot::Sender<()>),
    /// Go on, and tell those that can be told with a response that the end is near.
    Foretell(oneshot::Sender<()>),
    /// Stop accepting anywhere, finish what is open, and say when all is done.
    Drain {
        /// How connections are told.
        manner: Manner,
        /// Answered when none is open.
        done: oneshot::Sender<()>,
    },
    /// End, whatever is open; say how many connections that cut.
    Stop(oneshot::Sender<usize>),
}

/// A running worker.
#[derive(Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    thread: std::thread::JoinHandle<()>,
}

impl Handle {
    /// Tells it what to do. A worker that has ended hears nothing.
    pub fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Waits until its thread has ended.
    pub fn join(self) {
        if self.thread.join().is_err() {
            error!("a worker thread panicked");
        }
    }
}

/// Starts the `index`-th worker.
pub fn spawn(index: usize, shared: Shared) -> io::Result<Handle> {
    let (commands, inbox) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    // A LocalRuntime cannot leave the thread it was made on; made here only to fail early.
    drop(runtime?);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                // Only threads for what blocks or takes long are started by it.
                .on_thread_start(priority::make_way)
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(run(shared, inbox)),
                Err(error) => error!(%error, "a worker cannot start"),
            }
        })?;
    Ok(Handle { commands, thread })
}

/// An address where connections are accepted.
struct Accepting {
    service: Rc<RefCell<Rc<Service>>>,
    sockets: Vec<Rc<TcpListener>>,
    tasks: Vec<JoinHandle<()>>,
    /// Dropped to end it.
    _stop: watch::Sender<()>,
}

async fn run(shared: Shared, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let draining = Rc::new(Draining::default());
    let local = Rc::new(Local::new(
        Arc::clone(&shared.world),
        shared.registry.clone(),
        shared.clock.clone(),
        &shared.access,
        Rc::clone(&draining),
        Arc::clone(&shared.certificates),
    ));
    tokio::task::spawn_local(sweep(Rc::clone(&local)));
    let mut accepting: HashMap<SocketAddr, Accepting> = HashMap::new();
    while let Some(command) = inbox.recv().await {
        match command {
            // A reload may end after the way down has begun.
            Command::Listen(_) if draining.has_begun() => {}
            Command::Listen(listener) => {
                let address = listener.address;
                match start(listener, &local, &shared) {
                    Ok(started) => drop(accepting.insert(address, started)),
                    Err(error) => error!(%address, %error, "a listener cannot be used"),
                }
            }
            Command::Change {
                address,
                role,
                proxy_protocol_from,
            } => {
                if let Some(accepting) = accepting.get(&address) {
                    *accepting.service.borrow_mut() = Rc::new(Service {
                        local: Rc::clone(&local),
                        role,
                        port: address.port(),
                        proxy_protocol_from,
                    });
                }
            }
            Command::Close(address) => drop(accepting.remove(&address)),
            Command::Lend(reply) => {
                let _ = reply.send(lend(&accepting));
            }
            Command::CloseAll(done) => {
                close_all(&mut accepting).await;
                let _ = done.send(());
            }
            Command::Foretell(told) => {
                draining.begin(Manner::Soon);
                let _ = told.send(());
            }
            Command::Drain { manner, done } => {
                // Those that waited to be accepted are told too.
                close_all(&mut accepting).await;
                draining.begin(manner);
                let draining = Rc::clone(&draining);
                tokio::task::spawn_local(async move {
                    poll_fn(|cx| draining.poll_empty(cx)).await;
                    let _ = done.send(());
                });
            }
            Command::Stop(done) => {
                let _ = done.send(draining.open());
                return;
            }
        }
    }
}

/// Stops accepting. Those that waited to be accepted are, before this ends.
async fn close_all(accepting: &mut HashMap<SocketAddr, Accepting>) {
    // All are told before the first is waited for.
    let tasks: Vec<_> = accepting.drain().flat_map(|(_, it)| it.tasks).collect();
    for task in tasks {
        if let Err(error) = task.await {
            error!(%error, "a listener did not end well");
        }
    }
}

/// Lets go of upstream connections that are of no more use.
async fn sweep(local: Rc<Local>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let world = local.world();
        let timeouts = world.timeouts();
        let dead = local
            .pool()
            .sweep(timeouts.upstream_keep, timeouts.upstream_ping);
        (0..dead).for_each(|_| local.edge().timeout(Timeout::UpstreamPing));
    }
}

/// Copies of all sockets, for another process.
fn lend(accepting: &HashMap<SocketAddr, Accepting>) -> Vec<(SocketAddr, OwnedFd)> {
    let mut lent = Vec::new();
    for (address, accepting) in accepting {
        for socket in &accepting.sockets {
            match socket.as_fd().try_clone_to_owned() {
                Ok(copy) => lent.push((*address, copy)),
                Err(error) => warn!(%address, %error, "a socket cannot be handed over"),
            }
        }
    }
    lent
}

fn start(listener: Listener, local: &Rc<Local>, shared: &Shared) -> io::Result<Accepting> {
    let sockets = (listener.sockets.into_iter())
        .map(|socket| TcpListener::from_std(socket).map(Rc::new))
        .collect::<io::Result<Vec<_>>>()?;
    let service = Service {
        local: Rc::clone(local),
        role: listener.role,
        port: listener.address.port(),
        proxy_protocol_from: listener.proxy_protocol_from,
    };
    let service = Rc::new(RefCell::new(Rc::new(service)));
    let (stop, stopped) = watch::channel(());
    let series = ListenerSeries::new(&shared.registry, &listener.address.to_string());
    let accept = |socket: &Rc<TcpListener>| {
        tokio::task::spawn_local(accept(
            Rc::clone(socket),
            Rc::clone(&service),
            Rc::clone(local),
            Arc::clone(&shared.doors),
            Rc::clone(&series),
            stopped.clone(),
        ))
    };
    let tasks = sockets.iter().map(accept).collect();
    Ok(Accepting {
        service,
        sockets,
        tasks,
        _stop: stop,
    })
}

/// Accepts until told to stop. Nothing is awaited here on behalf of a connection, and no error ends
/// it.
async fn accept(
    socket: Rc<TcpListener>,
    service: Rc<RefCell<Rc<Service>>>,
    local: Rc<Local>,
    doors: Arc<Doors>,
    series: Rc<ListenerSeries>,
    mut stopped: watch::Receiver<()>,
) {
    let take = |stream: tokio::net::TcpStream, from: SocketAddr| {
        let accepted = Accepted {
            stream,
            from,
            guard: local.draining().guard(),
            open: series.accepted(Protocol::Handshake),
            greeted: doors.greet(),
            entered: doors.enter(),
            doors: Arc::clone(&doors),
        };
        let service = Rc::clone(&service.borrow());
        tokio::task::spawn_local(serve::connection(service, accepted));
    };
    // Looked at before each, or it would not end while there is always one more.
    while stopped.has_changed().is_ok() {
        if let Some(limit) = doors.closed_by(local.world().limits()) {
            local.edge().limit(limit);
            tokio::time::sleep(FULL).await;
            continue;
        }
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok((stream, from)) => take(stream, from),
            Err(error) if listen::per_connection(&error) => series.accept_error(),
            Err(error) => {
                series.accept_error();
                warn!(
                    %error,
                    help = "open files: raise LimitNOFILE= of the unit, or lower limits.connections",
                    "cannot accept a connection; trying again shortly"
                );
                let _ = tokio::time::timeout(EXHAUSTED, stopped.changed()).await;
            }
        }
    }
    for (stream, from) in waiting(&socket) {
        take(stream, from);
    }
}

/// What waits in the queue of a socket that is about to be closed, which would reset it. The system
/// is asked and not the runtime, which may not have heard of it yet and gives so many at a time.
fn waiting(socket: &TcpListener) -> impl Iterator<Item = (tokio::net::TcpStream, SocketAddr)> {
    let next = move || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match accept_with(socket, flags).map_err(io::Error::from) {
                Ok(stream) => return Some(std::net::TcpStream::from(stream)),
                Err(error) if listen::per_connection(&error) => {}
                Err(_) => return None,
            }
        }
    };
    // Where another process has the same socket, there may always be one more.
    std::iter::from_fn(next)
        .take(listen::BACKLOG.unsigned_abs() as usize)
        .filter_map(|stream| {
            let from = stream.peer_addr().ok()?;
            Some((tokio::net::TcpStream::from_std(stream).ok()?, from))
        })
}
