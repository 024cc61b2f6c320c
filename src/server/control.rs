//! The control plane: one runtime for signals, the admin address and the way down.

use std::io;
use std::mem::take;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{error, info, warn};

use super::{Error, Server, alerting, maintenance, systemd, upstreams};
use crate::admin::{self, AcceptOutcome, Acceptance, Readiness, ReloadOutcome};
use crate::alert::canary::is_canary;
use crate::cert::Event;
use crate::cert::keeper::AcceptError;
use crate::listen;
use crate::metrics::Registry;
use crate::worker::{Command, Handle};

/// Reloads that wait for the one that runs.
const WAITING_RELOADS: usize = 16;

type ReloadRequest = oneshot::Sender<ReloadOutcome>;

/// Runs until the world has stopped.
pub fn run(server: &Arc<Server>) -> Result<(), Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(control(server))?;
    // What still blocks (a slow disk) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

struct Signals {
    hup: Signal,
    usr1: Signal,
    end: End,
}

/// What asks the process to stop.
struct End {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            end: End {
                term: signal(SignalKind::terminate())?,
                int: signal(SignalKind::interrupt())?,
            },
        })
    }
}

impl End {
    async fn recv(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

async fn control(server: &Arc<Server>) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let (readiness, watch) = watch::channel(Readiness::Starting {
        reason: "starting".into(),
    });
    let (reload, mut reloads) = mpsc::channel::<ReloadRequest>(WAITING_RELOADS);
    let (end_admin, admin_ended) = oneshot::channel::<()>();
    let admin = start_admin(server, watch, reload)?.map(|(listener, state)| {
        tokio::spawn(admin::serve(listener, state, async move {
            let _ = admin_ended.await;
        }))
    });
    tokio::spawn(count_events(
        server.registry.clone(),
        server.keeper.subscribe(),
    ));
    upstreams::start(server);
    maintenance::start(server);
    let alerting = alerting::start(server, server.state.clone());
    readiness.send_replace(Readiness::Ready);
    systemd::ready();
    info!("ready");
    let reason = loop {
        tokio::select! {
            reason = signals.end.recv() => break reason,
            _ = signals.hup.recv() => {
                reload_now(server).await;
            }
            _ = signals.usr1.recv() => {
                info!("reopening the access log");
                server.access.reopen();
            }
            Some(reply) = reloads.recv() => {
                let _ = reply.send(reload_now(server).await);
            }
        }
    };
    systemd::stopping();
    readiness.send_replace(Readiness::Draining {
        reason: reason.into(),
    });
    drain(server, &mut signals.end).await;
    alerting.end().await;
    drop(end_admin);
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    Ok(())
}

/// Counts what happens to certificates, for as long as the keeper lives.
async fn count_events(registry: Registry, mut events: broadcast::Receiver<Arc<Event>>) {
    let counters = admin::certificates::counters(&registry);
    loop {
        match events.recv().await {
            Ok(event) => admin::certificates::count(&counters, &event),
            Err(RecvError::Lagged(lost)) => warn!(lost, "certificate events were not counted"),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Reading ten thousand certificates must not hold up a health check.
async fn reload_now(server: &Arc<Server>) -> ReloadOutcome {
    systemd::reloading();
    let running = Arc::clone(server);
    let outcome = tokio::task::spawn_blocking(move || running.reload()).await;
    systemd::ready();
    outcome.unwrap_or_else(|error| {
        error!(%error, "the reload failed");
        ReloadOutcome {
            ok: false,
            changed: Vec::new(),
            refused: vec![error.to_string()],
        }
    })
}

fn start_admin(
    server: &Arc<Server>,
    readiness: watch::Receiver<Readiness>,
    reload: mpsc::Sender<ReloadRequest>,
) -> Result<Option<(TcpListener, Arc<admin::State>)>, Error> {
    let address = server
        .config
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .listen
        .admin;
    let Some(address) = address else {
        return Ok(None);
    };
    let socket = listen::bind(address, 1)?.remove(0);
    let listener = TcpListener::from_std(socket)?;
    info!(%address, "admin address");
    let inventory: admin::Inventory = {
        let clock = server.shared.clock.clone();
        let inventory = server.keeper.inventory();
        Arc::new(move || {
            let mut reports = inventory.load().report(clock.now());
            // It is the machinery's own, and nobody's certificate.
            reports.retain(|report| !is_canary(report));
            reports
        })
    };
    admin::certificates::describe(&server.registry, Arc::clone(&inventory));
    let accept = {
        let server = Arc::clone(server);
        move |acceptance| -> admin::Pending<AcceptOutcome> {
            let server = Arc::clone(&server);
            Box::pin(accept(server, acceptance))
        }
    };
    let reload = move || -> admin::Pending<ReloadOutcome> {
        let reload = reload.clone();
        Box::pin(async move {
            let (reply, outcome) = oneshot::channel();
            let _ = reload.send(reply).await;
            outcome.await.unwrap_or_else(|_| ReloadOutcome {
                ok: false,
                changed: Vec::new(),
                refused: vec!["staunch is stopping".to_owned()],
            })
        })
    };
    let listing = server.alerting.listing.clone();
    let alerts = move || serde_json::json!(*listing.load());
    let state = admin::State {
        registry: server.registry.clone(),
        readiness,
        inventory,
        alerts: Box::new(alerts),
        reload: Box::new(reload),
        accept: Box::new(accept),
        more: upstreams::routes(server),
    };
    Ok(Some((listener, Arc::new(state))))
}

async fn accept(server: Arc<Server>, acceptance: Acceptance) -> AcceptOutcome {
    let done = tokio::task::spawn_blocking(move || {
        server
            .keeper
            .accept(&acceptance.source, &acceptance.because)
    });
    match done.await {
        Ok(Ok(accepted)) if accepted.changed => AcceptOutcome::Accepted {
            detail: format!(
                "{} is served with {} now",
                accepted.source, accepted.fingerprint
            ),
        },
        Ok(Ok(accepted)) => AcceptOutcome::Nothing {
            detail: format!("{} is what is served already", accepted.fingerprint),
        },
        Ok(Err(AcceptError::UnknownSource(_))) => AcceptOutcome::Unknown,
        Ok(Err(AcceptError::CannotBeServed(rejection))) => AcceptOutcome::Unservable {
            reason: rejection.reason,
            detail: rejection.to_string(),
        },
        Ok(Err(AcceptError::Stopped)) | Err(_) => AcceptOutcome::Nothing {
            detail: "staunch is stopping".to_owned(),
        },
    }
}

/// The way down: say so, stop accepting, finish what is open, cut what will not end.
async fn drain(server: &Server, end: &mut End) {
    let times = server
        .config
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain;
    info!(notice = ?times.notice, deadline = ?times.deadline, "draining");
    tokio::select! {
        () = tokio::time::sleep(times.notice) => {}
        reason = end.recv() => {
            warn!(reason, "told twice: ending at once");
            return stop(server).await;
        }
    }
    let drained: Vec<_> = tell_all(server, Command::Drain);
    let all = async {
        for done in drained {
            let _ = done.await;
        }
    };
    tokio::select! {
        done = timeout_at(Instant::now() + times.deadline, all) => if done.is_err() {
            warn!("the deadline has passed");
        },
        reason = end.recv() => warn!(reason, "told twice: ending at once"),
    }
    stop(server).await;
}

async fn stop(server: &Server) {
    let mut cut = 0;
    for done in tell_all(server, Command::Stop) {
        cut += done.await.unwrap_or(0);
    }
    let workers = take(
        &mut *server
            .workers
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    );
    workers.into_iter().for_each(Handle::join);
    if cut > 0 {
        warn!(connections = cut, "stopped; connections were cut");
    } else {
        info!("stopped; every connection was finished");
    }
}

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
