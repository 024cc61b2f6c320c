//! Alerts, put together with the parts of the world that they look at.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::Server;
use crate::alert::backends::Backends;
use crate::alert::board::Board;
use crate::alert::canary::{self, Canary};
use crate::alert::condition::{Code, Condition};
use crate::alert::delivery::Patience;
use crate::alert::http::Client;
use crate::alert::probe::{self, Rhythm, Target};
use crate::alert::refusals;
use crate::alert::run::{self, Inputs, Listing};
use crate::alert::world::{self, Listener};
use crate::alert::{upstream_tls, words};
use crate::cert::Event;
use crate::cert::keeper::{Setback, Wanted};
use crate::config::{self, Config, Severity, SiteName};
use crate::proxy::auth::users::Users;
use crate::state::StateDir;
use crate::tls::Trouble;

/// What a refused configuration is told under.
const CONFIGURATION: &str = "configuration";

/// What alerts need of the configuration, as it is now.
#[derive(Debug, Default)]
struct View {
    sites: Vec<SiteName>,
    listeners: Vec<Listener>,
    /// Where clients come in besides.
    elsewhere: Vec<Listener>,
}

impl View {
    fn of(config: &Config) -> Self {
        let listener = |address: &SocketAddr| Listener {
            address: *address,
            proxy_header: config::contains(
                config.listen.proxies_at(*address),
                probe::reachable(*address).ip(),
            ),
        };
        Self {
            sites: Wanted::of(config).sites,
            listeners: config.listen.https.iter().map(listener).collect(),
            // Whatever stands before it speaks for itself.
            elsewhere: (config.alerts.probe.iter())
                .map(|address| Listener {
                    address: *address,
                    proxy_header: false,
                })
                .collect(),
        }
    }
}

/// The ends that the rest of the server holds.
pub struct Alerting {
    /// Where other parts pin what they detect.
    pub board: Board,
    /// What `GET /api/alerts` shows.
    pub listing: Listing,
    config: watch::Sender<Arc<config::Alerts>>,
    view: Arc<ArcSwap<View>>,
}

impl Alerting {
    /// Nothing runs yet; see [`start`].
    pub fn new(config: &Config) -> Self {
        Self {
            board: Board::new(),
            listing: Listing::default(),
            config: watch::Sender::new(Arc::new(config.alerts.clone())),
            view: Arc::new(ArcSwap::from_pointee(View::of(config))),
        }
    }

    /// Goes by another configuration from now on.
    pub fn taken(&self, config: &Config) {
        self.view.store(Arc::new(View::of(config)));
        self.config.send_replace(Arc::new(config.alerts.clone()));
        self.board.clear(Code::ConfigurationRefused, CONFIGURATION);
    }

    /// Tells that a configuration was refused, until one is taken.
    pub fn refused(&self, reasons: &[String]) {
        self.board.raise(Condition::new(
            Code::ConfigurationRefused,
            CONFIGURATION,
            Severity::Warning,
            format!(
                "The configuration on disk is refused, and the one before it goes on: {}",
                reasons.join("; ").trim()
            ),
            "Mend the file, see that `staunch check` is content, and reload.",
        ));
    }
}

/// What the keeper is to keep: what is configured, and the canary behind it. That lies in the state
/// directory in use, which a reload does not change.
pub fn wanted(config: &Config, state: Option<&StateDir>) -> Wanted {
    let mut wanted = Wanted::of(config);
    wanted
        .sources
        .extend(state.map(|state| canary::source(state.path())));
    wanted
}

/// The loops that watch and tell.
pub struct Running {
    stop: oneshot::Sender<()>,
    told: JoinHandle<()>,
    /// Those that only look.
    tasks: JoinSet<()>,
}

impl Running {
    /// Ends those that only look. They would take the end of this process for an outage, as its
    /// listeners close before it has told all.
    pub async fn look_no_more(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Ends them; what was told and what was not delivered is written down.
    pub async fn end(mut self) {
        self.look_no_more().await;
        drop(self.stop);
        // It logged its panic, if there was one.
        let _ = self.told.await;
    }
}

/// Has the keeper go back to what was served before a swap, where that is wanted.
fn undo(server: Arc<Server>) -> impl Fn(&Event, &str) {
    move |swap, because| {
        if let Event::Swapped { source, old, new } = swap
            && server.alerting.config.borrow().go_back
        {
            server.keeper.go_back(Setback {
                source: Arc::clone(source),
                refused: new.facts().fingerprint,
                earlier: Arc::clone(old),
                because: because.to_owned(),
            });
        }
    }
}

/// Starts to watch and tell, on the control plane's runtime.
pub fn start(server: &Arc<Server>, state: Option<StateDir>) -> Running {
    let alerting = &server.alerting;
    let clock = server.shared.clock.clone();
    let inventory = server.keeper.inventory();
    let view = Arc::clone(&alerting.view);

    let targets: Arc<dyn Fn() -> Vec<Target> + Send + Sync> = {
        let (inventory, view, clock) = (inventory.clone(), view.clone(), clock.clone());
        Arc::new(move || {
            let view = view.load();
            let all = [view.listeners.as_slice(), &view.elsewhere].concat();
            world::targets(&all, &view.sites, &inventory, &clock)
        })
    };
    let mut tasks = JoinSet::new();
    if let Some(state) = &state {
        let canary = canary(server, state.path(), Arc::clone(&view));
        tasks.spawn(canary.run());
    }
    tasks.spawn(probe::run(
        move || targets(),
        alerting.board.clone(),
        Rhythm::default(),
    ));
    tasks.spawn(refusals::run(
        server.keeper.subscribe(),
        alerting.board.clone(),
        undo(Arc::clone(server)),
    ));

    let (stop, stopped) = oneshot::channel::<()>();
    let observe = {
        let server = Arc::clone(server);
        let backends = Mutex::new(Backends::default());
        Arc::new(move |now| {
            let degraded = server.keeper.degraded();
            let mut all = world::observe(&inventory.load(), &view.load().sites, &degraded, now);
            (all.degraded).extend(server.tls.troubles().into_iter().map(trouble));
            let world = server.shared.world.load();
            let mut backends = backends.lock().unwrap_or_else(PoisonError::into_inner);
            (all.degraded).extend(backends.look(&world.upstreams, Instant::now()));
            let thresholds = server.alerting.config.borrow().clone();
            (all.degraded).extend(upstream_tls::look(&world.upstreams, &thresholds, now));
            (all.degraded).extend(
                world
                    .material
                    .all_users()
                    .filter_map(|users| unusable(users)),
            );
            all
        })
    };
    let inputs = Inputs {
        clock,
        state,
        config: alerting.config.subscribe(),
        observe,
        events: server.keeper.subscribe(),
        board: alerting.board.clone(),
        listing: alerting.listing.clone(),
        metrics: server.registry.clone(),
        client: Client::new(),
        patience: Patience::default(),
    };
    let told = tokio::spawn(run::run(inputs, async {
        // An error is the other end being dropped, which is the signal.
        let _ = stopped.await;
    }));
    Running { stop, told, tasks }
}

/// There is no state directory.
pub fn stateless(folder: &Path, error: &std::io::Error) -> Condition {
    let shown = folder.display().to_string();
    let quoted = words::shell(&shown);
    Condition::new(
        Code::StateUnwritable,
        shown.clone(),
        Severity::Warning,
        format!(
            "The state directory {shown} cannot be used: {error}. Neither last-good certificates \
             nor the ledger nor what was told are kept, and staunch renews no certificate of its \
             own to test the way."
        ),
        format!(
            "See `namei -l {quoted}` and `df -h {quoted}`; make it writable for the user that \
             staunch runs as, or set `state_dir`; then `staunch upgrade` or a restart."
        ),
    )
}

/// What is wrong with a file that TLS goes by.
fn trouble(trouble: Trouble) -> Condition {
    match trouble {
        Trouble::Unusable {
            fault,
            instead,
            shut,
        } => Condition::new(
            Code::TlsFileUnusable,
            fault.path.display().to_string(),
            match shut {
                true => Severity::Critical,
                false => Severity::Warning,
            },
            format!(
                "{} cannot be used: {}; {instead}.",
                fault.path.display(),
                fault.what
            ),
            format!("Mend it: {}. It is read again by itself.", fault.help),
        ),
        Trouble::Expired { file, at, accepted } => Condition::new(
            Code::RevocationListExpired,
            file.display().to_string(),
            match accepted {
                true => Severity::Warning,
                false => Severity::Critical,
            },
            match accepted {
                true => format!(
                    "A revocation list is past its time since {at}, and gone by all the same."
                ),
                false => format!(
                    "A revocation list is past its time since {at}: clients of its authority are \
                     refused."
                ),
            },
            format!(
                "Fetch a new one from the authority; see it with: openssl crl -noout -nextupdate \
                 -in {}",
                file.display()
            ),
        ),
    }
}

/// What is wrong with a file of `basic_auth`.
fn unusable(users: &Users) -> Option<Condition> {
    let faults = users.faults();
    let fault = faults.first()?;
    let file = words::clean(&users.path().display().to_string());
    let (severity, instead) = match users.count() {
        0 => (Severity::Critical, "nobody can be let in".to_owned()),
        1 => (Severity::Warning, "one user can be let in".to_owned()),
        many => (Severity::Warning, format!("{many} users can be let in")),
    };
    Some(Condition::new(
        Code::UsersFileUnusable,
        file.clone(),
        severity,
        format!("{file} is not used as it is: {}; {instead}.", fault.what),
        format!("Mend it: {}. It is read again by itself.", fault.help),
    ))
}

fn canary(server: &Server, state: &Path, view: Arc<ArcSwap<View>>) -> Canary {
    let inventory = server.keeper.inventory();
    let clock = server.shared.clock.clone();
    let listeners = {
        let (inventory, clock) = (inventory.clone(), clock.clone());
        let name = [SiteName::Exact(canary::NAME.into())];
        move || world::targets(&view.load().listeners, &name, &inventory, &clock)
    };
    Canary {
        path: canary::file(state),
        held: world::held_by(inventory, clock.clone()),
        listeners: Arc::new(listeners),
        every: canary::EVERY,
        patience: canary::PATIENCE,
        clock,
        board: server.alerting.board.clone(),
    }
}
