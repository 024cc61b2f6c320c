//! The control plane: one runtime for signals, the admin address and the way down.

use std::io;
use std::mem::take;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::predecessor::Predecessor;
use super::upgrade::{self, Successor};
use super::{
    Error, Opening, Server, alerting, maintenance, spans, systemd, tell_all, upstreams, users,
};
use crate::admin::{self, AcceptOutcome, Acceptance, Readiness, ReloadOutcome, Reply, Route};
use crate::alert::canary::is_canary;
use crate::cert::Event;
use crate::cert::keeper::AcceptError;
use crate::drain::Manner;
use crate::listen::adopt::share;
use crate::metrics::Registry;
use crate::priority;
use crate::worker::{Command, Handle};

/// Reloads that wait for the one that runs.
const WAITING_RELOADS: usize = 16;
/// How long the end waits for a slow disk.
const SETTLING: Duration = Duration::from_secs(2);

/// How long before the listeners close clients are told with each response.
const LAST_NOTICE: Duration = Duration::from_secs(1);

type ReloadRequest = oneshot::Sender<ReloadOutcome>;
type UpgradeRequest = oneshot::Sender<Result<Upgraded, String>>;

/// The id and version of the process that serves now.
type Upgraded = (u32, String);

/// Runs until the world has stopped.
pub fn run(
    server: &Arc<Server>,
    opening: Opening,
    predecessor: Option<&Predecessor>,
) -> Result<(), Error> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        // Only threads for what blocks or takes long are started by it.
        .on_thread_start(priority::make_way)
        .build()?;
    runtime.block_on(control(server, opening, predecessor))?;
    // What still blocks (a slow disk) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

struct Signals {
    hup: Signal,
    usr1: Signal,
    usr2: Signal,
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
            usr2: signal(SignalKind::user_defined2())?,
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

async fn control(
    server: &Arc<Server>,
    opening: Opening,
    predecessor: Option<&Predecessor>,
) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    let (readiness, watch) = watch::channel(Readiness::Starting {
        reason: "starting".into(),
    });
    let (reload, mut reloads) = mpsc::channel::<ReloadRequest>(WAITING_RELOADS);
    let (upgrade, mut upgrades) = mpsc::channel::<UpgradeRequest>(1);
    let under_way = Arc::new(AtomicBool::new(false));
    let (end_admin, admin_ended) = oneshot::channel::<oneshot::Sender<()>>();
    let Opening {
        sockets,
        admin,
        policies,
        stapling,
    } = opening;
    let admin = share(admin.into_iter().collect(), 1).into_iter().flatten();
    let admin = admin.map(TcpListener::from_std).next().transpose()?;
    let admin_socket = (admin.as_ref())
        .map(|socket| socket.as_fd().try_clone_to_owned())
        .transpose()?;
    // As it is configured when this starts: a reload changes nothing here.
    let admin_address = server.config().listen.admin;
    upstreams::start(server);
    if let Some(predecessor) = predecessor {
        // Nothing else can go on before the other one answers, which takes a moment.
        let world = server.shared.world.load();
        let legacy = predecessor.prepared(|known| known.apply(&world.upstreams))?;
        server.tls.inherit(&legacy.tickets);
    }
    server.open(sockets, policies);
    let admin = admin.map(|listener| {
        let upgrade = Upgrading {
            ask: upgrade,
            under_way: Arc::clone(&under_way),
        };
        let state = admin_state(server, watch, reload, upgrade);
        tokio::spawn(admin::serve(listener, state, admin_ended))
    });
    tokio::spawn(count_events(
        server.registry.clone(),
        server.keeper.subscribe(),
    ));
    maintenance::start(server);
    users::start(server);
    tokio::spawn(stapling.run(Arc::clone(server)));
    let sending = spans::start(server);
    let mut alerting = Some(alerting::start(server, server.state.clone()));
    readiness.send_replace(Readiness::Ready);
    match predecessor {
        // It tells the service manager, who would not listen to us yet.
        Some(predecessor) => predecessor.serving(),
        None => systemd::ready(),
    }
    info!("ready");
    let lend = || {
        let copy = admin_socket.as_ref()?.try_clone().ok()?;
        Some((admin_address?, copy))
    };
    let ending = loop {
        tokio::select! {
            reason = signals.end.recv() => break Ending::Told(reason),
            reply = asked(&mut signals.hup, &mut reloads) => {
                // It may wait for a disk for ever, and the end must not.
                let outcome = tokio::select! {
                    outcome = reload_now(server) => outcome,
                    reason = signals.end.recv() => break Ending::Told(reason),
                };
                if let Some(reply) = reply {
                    let _ = reply.send(outcome);
                }
            }
            _ = signals.usr1.recv() => {
                info!("reopening the access log");
                server.access.reopen();
            }
            reply = asked(&mut signals.usr2, &mut upgrades) => {
                under_way.store(true, Ordering::Relaxed);
                let given = tokio::select! {
                    given = upgrade::give_way(server, lend(), &mut alerting) => given,
                    reason = signals.end.recv() => break Ending::Told(reason),
                };
                let failure = match given {
                    Ok(successor) => break Ending::Replaced(successor, reply),
                    Err(failure) => failure,
                };
                under_way.store(false, Ordering::Relaxed);
                if let Some(reply) = reply {
                    let _ = reply.send(Err(failure.to_string()));
                }
            }
        }
    };
    // Whoever still asks is told at once.
    drop((reloads, upgrades));
    let Signals { mut end, usr2, .. } = signals;
    let refused = tokio::spawn(refuse(usr2));
    match ending {
        Ending::Told(reason) => {
            systemd::stopping();
            readiness.send_replace(Readiness::Draining {
                reason: reason.into(),
            });
            if let Some(alerting) = &mut alerting {
                alerting.look_no_more().await;
            }
            drain(server, &mut end).await;
            settle(server).await;
            if let Some(alerting) = alerting {
                alerting.end().await;
            }
            drop(end_admin);
        }
        Ending::Replaced(successor, reply) => {
            upgrade::step_back(server, &successor).await;
            let (closed, admin_closed) = oneshot::channel();
            let _ = end_admin.send(closed);
            let _ = admin_closed.await;
            drop(admin_socket);
            // Not sooner: whoever connects after the answer is to reach the new one.
            if let Some(reply) = reply {
                let _ = reply.send(Ok((successor.process, successor.version.clone())));
            }
            finish(server, &mut end, &successor).await;
        }
    }
    refused.abort();
    if let Some(sending) = sending {
        sending.end().await;
    }
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    Ok(())
}

/// Why the end has come.
enum Ending {
    /// A signal.
    Told(&'static str),
    /// Another process serves, and whoever asked for that is to be told.
    Replaced(Successor, Option<UpgradeRequest>),
}

/// Says that a process which is ending does not give way to another.
async fn refuse(mut usr2: Signal) {
    while usr2.recv().await.is_some() {
        warn!("no upgrade: this process is ending; ask the one that serves, or start one");
    }
}

/// Waits until something is asked for, by a signal or at the admin address; whom to tell how it went.
async fn asked<T>(signal: &mut Signal, requests: &mut mpsc::Receiver<T>) -> Option<T> {
    tokio::select! {
        _ = signal.recv() => None,
        // Without an admin address nobody asks.
        Some(reply) = requests.recv() => Some(reply),
    }
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

fn admin_state(
    server: &Arc<Server>,
    readiness: watch::Receiver<Readiness>,
    reload: mpsc::Sender<ReloadRequest>,
    upgrade: Upgrading,
) -> Arc<admin::State> {
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
    let alerts = move || serde_json::json!(listing.load());
    let upgrade = Route::post(
        "/api/upgrade",
        "let a new process of the program on disk take over",
        move |_| upgrade_when_asked(upgrade.clone()),
    );
    let mut more = upstreams::routes(server);
    more.push(upgrade);
    Arc::new(admin::State {
        registry: server.registry.clone(),
        readiness,
        inventory,
        alerts: Box::new(alerts),
        reload: Box::new(reload),
        accept: Box::new(accept),
        more,
    })
}

/// How the admin address asks for an upgrade.
#[derive(Clone)]
struct Upgrading {
    ask: mpsc::Sender<UpgradeRequest>,
    under_way: Arc<AtomicBool>,
}

async fn upgrade_when_asked(upgrade: Upgrading) -> Reply {
    let stopping = || {
        let detail = "this process is ending; ask the one that serves now, or start one";
        Reply::error(StatusCode::CONFLICT, "stopping", detail)
    };
    if upgrade.ask.is_closed() {
        return stopping();
    }
    if upgrade.under_way.swap(true, Ordering::Relaxed) {
        let detail = "an upgrade is under way already";
        return Reply::error(StatusCode::CONFLICT, "under_way", detail);
    }
    let (reply, outcome) = oneshot::channel();
    // There is room for the one who set the flag; else it is about to end.
    let _ = upgrade.ask.try_send(reply);
    match outcome.await {
        Ok(Ok((process, version))) => {
            let answer = serde_json::json!({ "ok": true, "process": process, "version": version });
            Reply::json(StatusCode::OK, &answer)
        }
        Ok(Err(why)) => Reply::error(StatusCode::UNPROCESSABLE_ENTITY, "upgrade_failed", &why),
        Err(_) => stopping(),
    }
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
    let times = server.config().drain;
    info!(notice = ?times.notice, deadline = ?times.deadline, "draining");
    let last = times.notice.min(LAST_NOTICE);
    let notice = async {
        tokio::time::sleep(times.notice - last).await;
        // Whoever asks something now asks for the next thing on another connection, and is not
        // among those that rest when the listeners close.
        for told in tell_all(server, Command::Foretell) {
            let _ = told.await;
        }
        tokio::time::sleep(last).await;
    };
    tokio::select! {
        () = notice => {}
        reason = end.recv() => {
            warn!(reason, "told twice: ending at once");
            return stop(server).await;
        }
    }
    wait(server, end, times.deadline).await;
}

/// What is served is there after a restart, whatever becomes of the files: copies that were not made
/// yet are made now.
async fn settle(server: &Arc<Server>) {
    let keeping = Arc::clone(server);
    let settling = tokio::task::spawn_blocking(move || keeping.keeper.settle(SETTLING));
    if !settling.await.unwrap_or_default() {
        warn!(
            "the state directory is too slow: not all that was served is kept for the next start"
        );
    }
}

/// The way down of a process that is replaced: nobody comes any more, and those who are there have
/// time; unless the one that serves instead ends, of which a service manager may only hear when we
/// have ended too.
async fn finish(server: &Server, end: &mut End, successor: &Successor) {
    let (upgrade, drain) = {
        let config = server.config();
        (config.upgrade, config.drain)
    };
    info!(deadline = ?upgrade.deadline, "finishing what is open");
    let gone = async {
        let status = successor.failed().await;
        error!(
            process = successor.process, %status, deadline = ?drain.deadline,
            "the process that took over has failed; this one ends too, for a new one to be started"
        );
        tokio::time::sleep(drain.deadline).await;
    };
    let patience = async {
        tokio::select! {
            () = gone => {}
            () = tokio::time::sleep(upgrade.deadline) => {}
        }
    };
    tokio::select! {
        () = emptied(server, Manner::Gently) => {}
        () = patience => warn!("the deadline has passed"),
        // The service is being stopped, and this process with it: a drain like any other.
        reason = end.recv() => {
            info!(reason, deadline = ?drain.deadline, "told to end: draining");
            return wait(server, end, drain.deadline).await;
        }
    }
    stop(server).await;
}

/// Stops accepting, and waits until nothing is open, or no longer.
async fn wait(server: &Server, end: &mut End, deadline: Duration) {
    tokio::select! {
        () = emptied(server, Manner::Now) => {}
        () = tokio::time::sleep(deadline) => warn!("the deadline has passed"),
        reason = end.recv() => warn!(reason, "told twice: ending at once"),
    }
    stop(server).await;
}

/// Stops accepting; ready when nothing is open.
async fn emptied(server: &Server, manner: Manner) {
    for done in tell_all(server, |done| Command::Drain { manner, done }) {
        let _ = done.await;
    }
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
