//! Composition: a configuration becomes a running world; reload; shutdown.
//!
//! [`run`] puts the parts together in a fixed order, so that whatever can fail fails before
//! anything is served, and then waits for signals. It is the only place that knows all the parts.

mod alerting;
mod control;
mod glance;
mod listeners;
mod maintenance;
mod predecessor;
mod reload;
mod services;
mod spans;
mod stapling;
mod systemd;
mod upgrade;
mod upstreams;
mod users;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::KeyLog;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use crate::admin::logs;
use crate::alert::board::Board;
use crate::alert::canary;
use crate::cert::keeper::{self, Keeper};
use crate::cert::load::Roots;
use crate::cert::select::Resolver;
use crate::clock::Clock;
use crate::config::Config;
use crate::listen::adopt::Inherited;
use crate::metrics::{Registry, Reloads, Upgrades, describe_process};
use crate::proxy::World;
use crate::proxy::route::Table;
use crate::proxy::rules::material::Material;
use crate::state::StateDir;
use crate::telemetry::access::AccessLog;
use crate::telemetry::spans::{Inbox, Outbox};
use crate::telemetry::{self, Telemetry};
use crate::upstream::Upstreams;
use crate::upstream::dns::Dns;
use crate::worker::{self, Command, Handle, Shared};
use crate::{listen, tls};
use alerting::Alerting;
use predecessor::Predecessor;
pub use predecessor::Start;
use services::Services;
use stapling::Stapling;
use upgrade::Program;

/// How long the last lines of the log may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// Where the configuration came from, for reloading it.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The command line: a reload reads the certificates again, and nothing else.
    Flags,
}

/// What is asked for by flags and never by configuration, since it lowers somebody's guard.
#[derive(Clone, Debug, Default)]
pub struct Debugging {
    /// A file that the secrets of all sessions are written to.
    pub keylog: Option<PathBuf>,
}

impl Debugging {
    fn key_log(&self) -> Result<Option<Arc<dyn KeyLog>>, Error> {
        let Some(path) = &self.keylog else {
            return Ok(None);
        };
        let log = tls::keylog::to_file(path).map_err(Error::KeyLog)?;
        warn!(
            path = %path.display(),
            "the secrets of all sessions are written to a file: whoever has it can read all \
             traffic; stop and start without --keylog, and remove the file, as soon as you can"
        );
        Ok(Some(log))
    }
}

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] listen::BindError),
    /// The log.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// The access log.
    #[error("the access log cannot be opened: {0}")]
    AccessLog(io::Error),
    /// The file for the secrets of sessions.
    #[error("the key log cannot be opened: {0}")]
    KeyLog(io::Error),
    /// TLS settings that the library does not take.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The process that was to be replaced.
    #[error("the process that was to be replaced goes on without us: {0}")]
    Predecessor(#[from] listen::handover::Error),
    /// No thread, runtime or signal handler.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Serves until told to stop, and drains.
pub fn run(
    config: Config,
    source: Source,
    debugging: &Debugging,
    mut begin: Start,
) -> Result<(), Error> {
    let predecessor = begin.predecessor.take();
    let result = match telemetry::init(&logs::settings(&config.log)).map(Arc::new) {
        Ok(telemetry) => {
            let result = start(config, source, &telemetry, debugging, begin, &predecessor);
            if let Err(error) = &result {
                tracing::error!(%error, "staunch cannot start");
            }
            telemetry.flush(FLUSH);
            result
        }
        Err(error) => Err(error.into()),
    };
    if let (Err(error), Some(predecessor)) = (&result, &predecessor) {
        predecessor.refuse(&error.to_string());
    }
    result
}

fn start(
    config: Config,
    source: Source,
    telemetry: &Arc<Telemetry>,
    debugging: &Debugging,
    begin: Start,
    predecessor: &Option<Predecessor>,
) -> Result<(), Error> {
    info!(version = env!("CARGO_PKG_VERSION"), "staunch starts");
    let telemetry = Arc::clone(telemetry);
    let takes_over = predecessor.is_some();
    let (server, opening) =
        Server::prepare(config, source, telemetry, debugging, begin, takes_over)?;
    control::run(&Arc::new(server), opening, predecessor.as_ref())
}

/// What is taken into use at the last moment, when nothing can fail any more.
struct Opening {
    sockets: listeners::Sockets,
    admin: Option<TcpListener>,
    policies: tls::Prepared,
    stapling: Stapling,
}

/// The running world.
struct Server {
    source: Source,
    registry: Registry,
    reloads: Reloads,
    upgrades: Upgrades,
    /// What a successor is started from.
    program: io::Result<Program>,
    /// Sockets that somebody else opened.
    inherited: Inherited,
    keeper: Keeper,
    alerting: Alerting,
    /// Where last-good certificates, the ledger and what was told are kept.
    state: Option<StateDir>,
    tls: tls::Keep,
    /// Whom this system trusts; read again at each reload.
    roots: ArcSwap<Roots>,
    /// Who knows what names stand for.
    dns: ArcSwap<Dns>,
    services: Services,
    /// Told after each reload.
    reloaded: Notify,
    telemetry: Arc<Telemetry>,
    access: AccessLog,
    /// Where workers put spans of requests, and where they are taken from.
    spans: Outbox,
    inbox: Mutex<Option<Inbox>>,
    shared: Shared,
    workers: Mutex<Vec<Handle>>,
    /// The configuration in use.
    config: ArcSwap<Config>,
    /// Held while the world is made anew, by one at a time. That may wait for a disk: who must answer
    /// waits for neither.
    turn: Mutex<()>,
}

impl Server {
    /// Builds everything that can fail. Nothing is accepted yet.
    fn prepare(
        config: Config,
        source: Source,
        telemetry: Arc<Telemetry>,
        debugging: &Debugging,
        Start { inherited, .. }: Start,
        takes_over: bool,
    ) -> Result<(Self, Opening), Error> {
        let program = Program::find();
        let registry = Registry::new();
        describe_process(&registry);
        let clock = Clock::system();
        let access = AccessLog::new()?;
        logs::describe(&registry, &telemetry, &access);
        access.commit(
            AccessLog::prepare(&logs::access_settings(&config.log)).map_err(Error::AccessLog)?,
        );
        let roots = Arc::new(Roots::system());

        // Before a thread or a certificate is: what is in use by somebody else ends the start.
        let threads = config.workers.threads.get();
        let sockets = listeners::open_all(&config.listen, threads, &inherited)?;
        let admin = match config.listen.admin {
            Some(address) => inherited.listen(address, 1)?.into_iter().next(),
            None => None,
        };
        inherited.settle(|address| listeners::wants(&config.listen, address));

        let alerting = Alerting::new(&config);
        let state = state_dir(&config, &alerting.board);
        if let Some(state) = &state
            && !(takes_over && canary::file(state.path()).exists())
            && let Err(error) = canary::begin(state.path(), &clock)
        {
            warn!(%error, "the canary cannot begin");
        }
        let keeper = Keeper::start(keeper::Options {
            wanted: alerting::wanted(&config, state.as_ref()),
            state: state.clone(),
            clock: clock.clone(),
            roots: Arc::clone(&roots),
            timing: keeper::Timing::default(),
        });
        let resolver = Arc::new(keeper.resolver());
        let tls = tls::Keep::start(tls::Options {
            resolver: Arc::<Resolver>::clone(&resolver),
            clock: clock.clone(),
            registry: registry.clone(),
            key_log: debugging.key_log()?,
        })?;
        let policies = tls.prepare(&config)?;
        let services = Services::default();
        let material = material(&config, &Material::default());
        let none = Upstreams::default();
        let (outbox, inbox) = telemetry::spans::queue();
        let world = world(&config, &roots, &clock, &services, &none, material, &outbox);
        let shared = Shared {
            world: Arc::new(ArcSwap::from_pointee(world)),
            registry: registry.clone(),
            clock,
            access: access.clone(),
            doors: Arc::default(),
            certificates: resolver,
        };
        let workers = (0..threads)
            .map(|index| worker::spawn(index, shared.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let server = Self {
            source,
            reloads: Reloads::new(&registry),
            upgrades: Upgrades::new(&registry),
            program,
            inherited,
            registry,
            keeper,
            alerting,
            state,
            tls,
            roots: ArcSwap::new(roots),
            dns: ArcSwap::from_pointee(Dns::new(&config.dns)),
            services,
            reloaded: Notify::new(),
            telemetry,
            access,
            spans: outbox,
            inbox: Mutex::new(Some(inbox)),
            shared,
            workers: Mutex::new(workers),
            config: ArcSwap::from_pointee(config),
            turn: Mutex::default(),
        };
        let opening = Opening {
            sockets,
            admin,
            policies,
            stapling: Stapling::prepare(&server),
        };
        Ok((server, opening))
    }

    fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Waits until nobody else makes the world anew. Blocks.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to accept.
    fn open(&self, sockets: listeners::Sockets, policies: tls::Prepared) {
        let config = self.config();
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        listeners::give(&workers, sockets, &config.listen, &policies);
        self.tls.commit(policies);
    }
}

/// Tells every worker something that it answers.
fn tell_all<T>(
    server: &Server,
    command: impl Fn(oneshot::Sender<T>) -> Command,
) -> Vec<oneshot::Receiver<T>> {
    let workers = server
        .workers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    workers
        .iter()
        .map(|worker| {
            let (reply, done) = oneshot::channel();
            worker.tell(command(reply));
            done
        })
        .collect()
}

/// What requests are served by, under this configuration.
fn world(
    config: &Config,
    roots: &Arc<Roots>,
    clock: &Clock,
    services: &Services,
    previous: &Upstreams,
    material: Material,
    spans: &Outbox,
) -> World {
    let configured = services.expand(&config.upstreams);
    let upstreams = Upstreams::build(&configured, &config.timeouts, roots, clock, previous);
    World {
        table: Table::build(config, &upstreams, &material),
        streams: listeners::targets(&config.listen),
        upstreams,
        timeouts: config.timeouts,
        limits: config.limits,
        forwarded_from: config.listen.forwarded_from.clone(),
        spans: config.traces.as_ref().map(|_| spans.clone()),
        material,
    }
}

/// What rules need from files. That some cannot be read is said and lived with.
fn material(config: &Config, previous: &Material) -> Material {
    let (material, faults) = Material::read(config, previous);
    for fault in faults {
        warn!(
            path = %fault.path.display(),
            error = %fault.error,
            "an error page cannot be used, and what was there before is; let the user that staunch \
             runs as read it, and reload"
        );
    }
    let known = |new: &Arc<_>| previous.all_users().any(|known| Arc::ptr_eq(known, new));
    for of_file in material.all_users() {
        if !known(of_file) || of_file.look() {
            users::tell(of_file);
        }
    }
    material
}

/// The state directory. That it cannot be used is said and lived with.
fn state_dir(config: &Config, board: &Board) -> Option<StateDir> {
    match StateDir::open(&config.state_dir) {
        Ok(state) => Some(state),
        Err(error) => {
            board.raise(alerting::stateless(&config.state_dir, &error));
            warn!(
                path = %config.state_dir.display(),
                %error,
                "the state directory cannot be used: a restart will not know the last good \
                 certificates; make it writable or set state_dir"
            );
            None
        }
    }
}
