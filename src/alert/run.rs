//! The loop on the control plane: looks at the world every few seconds and whenever something
//! happens, tells the sinks, and remembers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep};

use super::board::Board;
use super::clockwatch::{ClockWatch, Moment};
use super::condition::{Code, Condition, severity_word};
use super::delivery::{Delivery, Patience, Surroundings};
use super::engine::Engine;
use super::evaluate::Known;
use super::exercise::Exercise;
use super::http::Client;
use super::judge::{Judge, Observed};
use super::message::{Alert, Notification};
use super::sink::{self, Sink};
use super::store::{self, State};
use super::words;
use crate::cert;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Severity};
use crate::metrics::{Gauge, Registry, names};
use crate::priority;
use crate::state::StateDir;

/// How often the world is looked at when nothing happens.
const EVERY: Duration = Duration::from_secs(5);
/// Less often where a look is much work, as with thousands of certificates in trouble: all of them
/// together take no more than this part of a core.
const SHARE: u32 = 1000;
/// However long one takes, the next comes after this time.
const AT_LATEST: Duration = Duration::from_secs(30);
/// After something happened, what else happens in this time is looked at together.
const GATHER: Duration = Duration::from_millis(200);
/// How long a change that nobody was told of may wait to be written.
const UNWRITTEN: Duration = Duration::from_secs(60);
/// The same for the time that was last believed, and for what was learned of habits.
const UNTIMED: Duration = Duration::from_secs(3600);
/// A loop that has not turned for this long does not turn.
const STALLED: Duration = Duration::from_secs(60);
/// Where the monotonic clock of the engine begins, so that what was told in an earlier run has a
/// place on it.
const BEGINNING: Duration = Duration::from_secs(400 * 24 * 3600);

/// What the loop needs.
pub struct Inputs {
    /// Tells the time.
    pub clock: Clock,
    /// Where `alerts.json` is kept; `None` when there is no such place.
    pub state: Option<StateDir>,
    /// Thresholds and sinks; a new value takes effect at once.
    pub config: watch::Receiver<Arc<config::Alerts>>,
    /// Looks at the inventory and the sites. Called on the control plane, so it may take a while.
    pub observe: Arc<dyn Fn(Timestamp) -> Observed + Send + Sync>,
    /// What happens to certificates.
    pub events: broadcast::Receiver<Arc<cert::Event>>,
    /// What others detected.
    pub board: Board,
    /// Where `GET /api/alerts` looks.
    pub listing: Listing,
    /// Where alerts are counted.
    pub metrics: Registry,
    /// How sinks speak HTTP.
    pub client: Client,
    /// How sinks are retried.
    pub patience: Patience,
}

/// What fires and what was over lately, as `GET /api/alerts` answers. Clones share it.
#[derive(Clone, Default)]
pub struct Listing(Arc<ArcSwapOption<Show>>);

/// Puts it together.
type Show = Box<dyn Fn() -> Alerts + Send + Sync>;

/// The object of `GET /api/alerts`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Alerts {
    /// Gravest first.
    pub firing: Vec<Alert>,
    /// The latest first; bounded.
    pub resolved: Vec<Alert>,
}

impl Listing {
    /// As it is now. Made for whoever asks, so that a look costs nothing for it; waits for the end
    /// of one that is under way.
    pub fn load(&self) -> Alerts {
        let show = self.0.load_full();
        show.map(|show| show()).unwrap_or_default()
    }
}

/// Turns until `stop` is over, then writes down what was told and what was not delivered.
pub async fn run(inputs: Inputs, stop: impl Future<Output = ()>) {
    let mut watch = Watch::begin(inputs).await;
    let mut pause = Duration::ZERO;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = sleep(pause) => {}
            () = watch.something_happened() => {
                tokio::select! {
                    () = &mut stop => break,
                    () = sleep(GATHER) => {}
                }
            }
        }
        pause = pause_after(watch.look().await);
    }
    watch.write().await;
}

/// How long to wait for the next look, after one that was so much work.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(SHARE).clamp(EVERY, AT_LATEST)
}

/// What came of one look.
struct Turn {
    told: Vec<Notification>,
    gravest: Option<Severity>,
    revision: u64,
    standing: Vec<Alert>,
    counts: BTreeMap<(Code, Severity), usize>,
}

impl Turn {
    fn of(judge: &Judge, told: Vec<Notification>) -> Self {
        let counts = judge.engine.counts();
        Self {
            told,
            gravest: counts.keys().map(|(_, severity)| *severity).max(),
            revision: judge.engine.revision(),
            standing: judge.engine.standing(),
            counts,
        }
    }
}

/// The loop's state.
struct Watch {
    inputs: Inputs,
    /// Only ever locked on a blocking thread: with ten thousand certificates in trouble, a look takes
    /// longer than a health check should wait.
    judge: Arc<Mutex<Judge>>,
    started: Instant,
    instance: String,
    /// What the sinks are set up by.
    config: Arc<config::Alerts>,
    around: Surroundings,
    standing: watch::Sender<Arc<Vec<Alert>>>,
    deliveries: Vec<Delivery>,
    exercise: Exercise,
    pulse: Arc<Pulse>,
    gauges: BTreeMap<(Code, Severity), Gauge>,
    /// What happened since the last look.
    happened: Vec<Arc<cert::Event>>,
    written: Instant,
    /// What of the engine was written.
    kept: u64,
    /// What had left the queues when it was written.
    settled: u64,
}

impl Watch {
    async fn begin(mut inputs: Inputs) -> Self {
        let mut state = load(inputs.state.clone()).await;
        let now = inputs.clock.now();
        let ago = state.saved_at.map_or(0, |at| now.since(at));
        let ago = Duration::from_secs(u64::try_from(ago).unwrap_or(0));
        let config = inputs.config.borrow_and_update().clone();
        let judge = Judge {
            memory: std::mem::take(&mut state.memory),
            clock: ClockWatch::new(state.seen),
            engine: Engine::restore(
                config.repeat,
                std::mem::take(&mut state.alerts),
                BEGINNING,
                ago,
            ),
            known: Known::default(),
        };
        let judge = Arc::new(Mutex::new(judge));
        let show = show(Arc::clone(&judge), inputs.config.clone());
        inputs.listing.0.store(Some(Arc::new(show)));
        let (standing, receiver) = watch::channel(Arc::default());
        let pulse = Arc::new(Pulse::default());
        let around = Surroundings {
            clock: inputs.clock.clone(),
            board: inputs.board.clone(),
            metrics: inputs.metrics.clone(),
            standing: receiver,
            well: {
                let pulse = Arc::clone(&pulse);
                Arc::new(move || pulse.is_well())
            },
            patience: inputs.patience,
        };
        let mut watch = Self {
            judge,
            started: Instant::now(),
            instance: instance(),
            config: Arc::clone(&config),
            around,
            standing,
            deliveries: Vec::new(),
            exercise: Exercise::new(std::mem::take(&mut state.tested)),
            pulse,
            gauges: gauges(&inputs.metrics),
            happened: Vec::new(),
            written: Instant::now(),
            kept: 0,
            settled: 0,
            inputs,
        };
        watch.configure(&config, state.undelivered);
        watch
    }

    /// Keeps the sinks that stay as they are, lets go of the others, and starts the new ones.
    fn configure(
        &mut self,
        config: &config::Alerts,
        undelivered: BTreeMap<String, Vec<Notification>>,
    ) {
        let mut left = undelivered;
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.deliveries)
            .into_iter()
            .partition(|it| config.sinks.contains(it.config()));
        self.deliveries = kept;
        for old in gone {
            left.insert(old.config().name.to_string(), old.undelivered());
            self.inputs
                .board
                .clear(Code::SinkFailing, &old.config().name);
        }
        for sink in &config.sinks {
            if self.deliveries.iter().all(|it| it.config() != sink) {
                let undelivered = left.remove(&*sink.name).unwrap_or_default();
                let ready = Sink::new(&sink.kind, &self.inputs.client);
                let delivery = Delivery::start(sink, ready, undelivered, &self.around);
                self.deliveries.push(delivery);
            }
        }
        self.exercise.keep(&self.deliveries);
    }

    /// Returns when there is a reason to look before the time.
    async fn something_happened(&mut self) {
        loop {
            // A branch whose other end is gone, or has lost events, is left out; the board is ours.
            tokio::select! {
                () = self.inputs.board.changed() => return,
                Ok(event) = self.inputs.events.recv() => {
                    // What goes as it should can wait for the next look.
                    let waits = matches!(*event, cert::Event::Swapped { .. });
                    self.happened.push(event);
                    if !waits {
                        return;
                    }
                }
                Ok(()) = self.inputs.config.changed() => return,
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.inputs.clock.now(),
            monotonic: BEGINNING + self.started.elapsed(),
        }
    }

    /// One look at the world, and what follows from it. How much work the look was.
    async fn look(&mut self) -> Duration {
        let config = self.inputs.config.borrow_and_update().clone();
        if !Arc::ptr_eq(&config, &self.config) {
            self.configure(&config, BTreeMap::new());
            self.config = Arc::clone(&config);
        }
        let at = self.moment();
        while let Ok(event) = self.inputs.events.try_recv() {
            self.happened.push(event);
        }
        let happened = std::mem::take(&mut self.happened);
        let pinned = self.inputs.board.conditions();
        let observe = Arc::clone(&self.inputs.observe);
        let judge = Arc::clone(&self.judge);
        let turn = tokio::task::spawn_blocking(move || {
            let begin = priority::worked();
            let observed = observe(at.wall);
            let mut judge = judge.lock().unwrap_or_else(PoisonError::into_inner);
            happened.iter().for_each(|event| judge.learn(event, at));
            judge.engine.set_repeat(config.repeat);
            let told = judge.tick(at, &observed, pinned, &config);
            (Turn::of(&judge, told), priority::worked() - begin)
        });
        let Ok((turn, took)) = turn.await else {
            // It panicked, which is told elsewhere; what was known still stands.
            return EVERY;
        };
        self.pulse.beat(self.can_tell(turn.gravest));
        let revision = turn.revision;
        let told = self.publish(turn);
        self.tell(&told);
        let tested = self.test_sinks(at);
        let settled = self.settled();
        if tested
            || !told.is_empty()
            || settled != self.settled
            || revision != self.kept && self.written.elapsed() >= UNWRITTEN
            || self.written.elapsed() >= UNTIMED
        {
            self.write().await;
        }
        took
    }

    /// Whether people hear of what is wrong, if anything is. Where no sink tells them, a heartbeat
    /// that stays out is the only way.
    fn can_tell(&self, gravest: Option<Severity>) -> bool {
        let mut ways = self.deliveries.iter().filter(|it| it.tells()).peekable();
        match ways.peek() {
            Some(_) => !ways.all(Delivery::is_failing),
            None => gravest < Some(Severity::Critical),
        }
    }

    /// Sends test alerts where they are due. Whether any was.
    fn test_sinks(&mut self, at: Moment) -> bool {
        let mut any = false;
        for delivery in &self.deliveries {
            let due = self.exercise.due(delivery.config(), at.wall, at.monotonic);
            if let Some(mut told) = due {
                self.sign(&mut told.alert);
                delivery.test(told);
                any = true;
            }
        }
        any
    }

    fn settled(&self) -> u64 {
        self.deliveries.iter().map(Delivery::settled).sum()
    }

    /// Shows what stands to sinks and counters, and returns what is to be told.
    fn publish(&self, turn: Turn) -> Vec<Notification> {
        let Turn {
            told,
            mut standing,
            counts,
            ..
        } = turn;
        standing.iter_mut().for_each(|alert| self.sign(alert));
        self.standing.send_replace(Arc::new(standing));
        for ((code, severity), gauge) in &self.gauges {
            let count = counts.get(&(*code, *severity)).copied().unwrap_or(0);
            gauge.set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
        told
    }

    /// Says which machine speaks, as people have more than one, and where to read on.
    fn sign(&self, alert: &mut Alert) {
        alert
            .labels
            .entry("instance".to_owned())
            .or_insert_with(|| self.instance.clone());
        alert.link(self.config.runbook.as_deref());
    }

    fn tell(&self, told: &[Notification]) {
        let now = self.moment().wall;
        for notification in told {
            sink::log::write(notification);
            let mut signed = notification.clone();
            self.sign(&mut signed.alert);
            for delivery in &self.deliveries {
                delivery.offer(&signed, now);
            }
        }
    }

    /// Writes down what a restart must not forget.
    async fn write(&mut self) {
        let at = self.moment();
        let settled = self.settled();
        let undelivered = self
            .deliveries
            .iter()
            .map(|it| (it.config().name.to_string(), it.undelivered()));
        let undelivered = undelivered
            .filter(|(_, waiting)| !waiting.is_empty())
            .collect();
        self.written = Instant::now();
        // Counted before the queues are read: what settles in between is written twice, not lost.
        self.settled = settled;
        let Some(dir) = self.inputs.state.clone() else {
            return;
        };
        let subject = dir.path().display().to_string();
        let judge = Arc::clone(&self.judge);
        let tested = self.exercise.save();
        let written = tokio::task::spawn_blocking(move || {
            let judge = judge.lock().unwrap_or_else(PoisonError::into_inner);
            let revision = judge.engine.revision();
            let state = State {
                saved_at: Some(at.wall),
                seen: judge.clock.seen(),
                alerts: judge.engine.save(at.monotonic),
                memory: judge.memory.clone(),
                tested,
                undelivered,
            };
            drop(judge);
            store::save(&dir, &state).map(|()| revision)
        });
        match written.await {
            Ok(Ok(revision)) => {
                self.kept = revision;
                self.inputs.board.clear(Code::StateUnwritable, &subject);
            }
            Err(_) => self.inputs.board.clear(Code::StateUnwritable, &subject),
            Ok(Err(error)) => self.inputs.board.raise(unwritable(&subject, &error)),
        }
    }
}

/// Puts together what is listed.
fn show(judge: Arc<Mutex<Judge>>, config: watch::Receiver<Arc<config::Alerts>>) -> Show {
    Box::new(move || {
        let mut alerts = {
            let judge = judge.lock().unwrap_or_else(PoisonError::into_inner);
            Alerts {
                firing: judge.engine.firing(),
                resolved: judge.engine.resolved().iter().cloned().collect(),
            }
        };
        let config = config.borrow().clone();
        let listed = alerts.firing.iter_mut().chain(&mut alerts.resolved);
        listed.for_each(|alert| alert.link(config.runbook.as_deref()));
        alerts
    })
}

fn unwritable(folder: &str, error: &std::io::Error) -> Condition {
    let summary = format!(
        "What was told cannot be written to {folder}: {error}. After a restart, alerts that fire \
         are told again."
    );
    let quoted = words::shell(folder);
    let step = format!("See `ls -ld {quoted}`, `df -h {quoted}` and `df -i {quoted}`.");
    Condition::new(
        Code::StateUnwritable,
        folder,
        Severity::Warning,
        summary,
        step,
    )
}

async fn load(dir: Option<StateDir>) -> State {
    let Some(dir) = dir else {
        return State::default();
    };
    let path = dir.file(store::FILE);
    match tokio::task::spawn_blocking(move || store::load(&dir)).await {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => {
            let path = path.display();
            tracing::warn!(%path, %error, "alert state unusable; beginning anew");
            State::default()
        }
        Err(_) => State::default(),
    }
}

/// A gauge for every condition and severity, so that a query finds 0 rather than nothing.
fn gauges(metrics: &Registry) -> BTreeMap<(Code, Severity), Gauge> {
    let severities = [Severity::Information, Severity::Warning, Severity::Critical];
    let every = Code::ALL
        .into_iter()
        .flat_map(|code| severities.map(|severity| (code, severity)));
    every
        .map(|(code, severity)| {
            let labels = [
                ("condition", code.code()),
                ("severity", severity_word(severity)),
            ];
            (
                (code, severity),
                names::ALERTS_FIRING.gauge(metrics, &labels),
            )
        })
        .collect()
}

/// This machine's name.
pub fn instance() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown".to_owned(),
        name => words::clean(name),
    }
}

/// Whether the loop turns, and whether it can tell anybody.
#[derive(Debug, Default)]
struct Pulse {
    last: Mutex<Option<Instant>>,
    can_tell: AtomicBool,
}

impl Pulse {
    fn beat(&self, can_tell: bool) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.can_tell.store(can_tell, Ordering::Relaxed);
    }

    fn is_well(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the first turn there is nothing to doubt yet.
        last.is_none_or(|at| at.elapsed() < STALLED && self.can_tell.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests;
