//! From the engine to the sinks: one task, one queue and one patience for each, so that a sink that
//! hangs or fails delays nothing and no other sink.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::board::Board;
use super::condition::{Code, Condition};
use super::message::{Alert, Notification};
use super::sink::{Sink, SinkError};
use super::words;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Severity};
use crate::metrics::{Counter, Registry, names};

/// Notifications that wait for one sink; beyond that, the oldest that is not critical goes.
const WAITING: usize = 100;
/// Failures in a row after which others are told.
const FAILING: u32 = 3;
/// Attempts at a notification in which itself, says the sink, is what it does not take.
const REFUSED: u32 = 3;

/// How long to wait after a failure: twice as long each time, give or take a quarter.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After the first failure.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            most: Duration::from_secs(5 * 60),
        }
    }
}

impl Patience {
    fn after(self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(20));
        let wait = self.first.saturating_mul(doubled).min(self.most);
        // Each hasher has keys of its own: as random as jitter needs to be.
        let dice = u32::try_from(RandomState::new().build_hasher().finish() % 500).unwrap_or(250);
        wait * (750 + dice) / 1000
    }
}

/// What waits for one sink. Shared between the engine, which puts in, and the courier.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Notification>,
    under_way: Option<Notification>,
    /// How many left it so far, delivered or given up.
    settled: u64,
}

impl Outbox {
    /// With what an earlier run could not deliver.
    pub fn with(waiting: impl IntoIterator<Item = Notification>) -> Self {
        let queue = Queue {
            waiting: waiting.into_iter().take(WAITING).collect(),
            ..Queue::default()
        };
        Self {
            queue: Mutex::new(queue),
            arrived: Notify::new(),
        }
    }

    /// Puts one in. It takes the place of an older one of the same alert: what is true now is what
    /// people are to hear. Returns how many were let go for want of room.
    pub fn put(&self, mut told: Notification) -> usize {
        let mut queue = self.lock();
        let older = |it: &Notification| it.alert.id == told.alert.id;
        if let Some(older) = queue.waiting.iter().position(older)
            && let Some(older) = queue.waiting.remove(older)
        {
            replace(&older, &mut told);
        }
        queue.waiting.push_back(told);
        let mut dropped = 0;
        while queue.waiting.len() > WAITING {
            let lesser = queue
                .waiting
                .iter()
                .position(|it| it.alert.severity < Severity::Critical);
            queue.waiting.remove(lesser.unwrap_or(0));
            dropped += 1;
        }
        drop(queue);
        self.arrived.notify_one();
        dropped
    }

    /// What has not been delivered, the one under way included.
    pub fn undelivered(&self) -> Vec<Notification> {
        let queue = self.lock();
        queue
            .under_way
            .iter()
            .chain(&queue.waiting)
            .cloned()
            .collect()
    }

    /// The next to deliver: the oldest critical one, or else the oldest.
    async fn take(&self) -> Notification {
        loop {
            if let Some(next) = self.try_take() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    fn try_take(&self) -> Option<Notification> {
        let mut queue = self.lock();
        let critical = queue
            .waiting
            .iter()
            .position(|it| it.alert.severity == Severity::Critical);
        let next = queue.waiting.remove(critical.unwrap_or(0))?;
        queue.under_way = Some(next.clone());
        Some(next)
    }

    /// The one under way has arrived, or will never.
    fn done(&self) {
        let mut queue = self.lock();
        queue.under_way = None;
        queue.settled += 1;
    }

    /// The one under way has to wait, unless there is newer news of the same alert.
    fn give_back(&self) {
        let mut queue = self.lock();
        let Some(told) = queue.under_way.take() else {
            return;
        };
        let newer = |it: &&mut Notification| it.alert.id == told.alert.id;
        match queue.waiting.iter_mut().find(newer) {
            Some(newer) => replace(&told, newer),
            None => queue.waiting.push_front(told),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the newer news say what only the older would have said.
fn replace(older: &Notification, newer: &mut Notification) {
    let said = &mut newer.alert.previous_severity;
    *said = said.or(older.alert.previous_severity);
}

/// Counts of one sink's attempts.
#[derive(Debug)]
struct Counters {
    delivered: Counter,
    failed: Counter,
    dropped: Counter,
}

impl Counters {
    fn new(registry: &Registry, sink: &str) -> Self {
        let of = |outcome: &str| {
            let metric = names::ALERT_DELIVERIES;
            registry.counter(
                metric.name,
                metric.help,
                &[("sink", sink), ("outcome", outcome)],
            )
        };
        Self {
            delivered: of("delivered"),
            failed: of("failed"),
            dropped: of("dropped"),
        }
    }
}

/// What couriers need to know of the world.
#[derive(Clone)]
pub struct Surroundings {
    /// For the times in messages.
    pub clock: Clock,
    /// Where a failing sink is told of.
    pub board: Board,
    /// Counts attempts.
    pub metrics: Registry,
    /// What stands, for sinks that must hear it again.
    pub standing: watch::Receiver<Arc<Vec<Alert>>>,
    /// Whether the machinery that tells people works: a heartbeat stops when it does not.
    pub well: Arc<dyn Fn() -> bool + Send + Sync>,
    /// How long to wait after failures.
    pub patience: Patience,
}

/// One sink, as the engine sees it.
#[derive(Debug)]
pub struct Delivery {
    config: config::Sink,
    tells: bool,
    outbox: Arc<Outbox>,
    counters: Counters,
    failing: Arc<AtomicBool>,
    courier: tokio::task::JoinHandle<()>,
}

impl Delivery {
    /// Starts the courier of this sink on the current runtime. `undelivered` is what an earlier one
    /// of the same name left.
    pub fn start(
        config: &config::Sink,
        sink: Sink,
        undelivered: Vec<Notification>,
        around: &Surroundings,
    ) -> Self {
        let tells = sink.tells();
        let outbox = Arc::new(Outbox::with(undelivered));
        let failing = Arc::new(AtomicBool::new(false));
        let courier = Courier {
            name: config.name.clone(),
            minimum: config.minimum,
            deadline: config.timeout,
            sink,
            outbox: Arc::clone(&outbox),
            counters: Counters::new(&around.metrics, &config.name),
            failing: Arc::clone(&failing),
            failures: 0,
            refused: None,
            around: around.clone(),
        };
        Self {
            config: config.clone(),
            tells,
            outbox,
            counters: Counters::new(&around.metrics, &config.name),
            failing,
            courier: tokio::spawn(courier.run()),
        }
    }

    /// As configured.
    pub const fn config(&self) -> &config::Sink {
        &self.config
    }

    /// Puts a notification into the queue, if it is for this sink.
    pub fn offer(&self, told: &Notification, now: Timestamp) {
        let about_itself =
            told.alert.condition == Code::SinkFailing && told.alert.subject == *self.config.name;
        let alert = told.alert.from(self.config.minimum, now);
        let Some(alert) = alert.filter(|_| self.tells && !about_itself) else {
            return;
        };
        let occasion = told.occasion;
        for _ in 0..self.outbox.put(Notification { occasion, alert }) {
            self.counters.dropped.inc();
        }
    }

    /// Puts a test into the queue, however little it takes otherwise.
    pub fn test(&self, told: Notification) {
        if self.tells {
            for _ in 0..self.outbox.put(told) {
                self.counters.dropped.inc();
            }
        }
    }

    /// What has not been delivered.
    pub fn undelivered(&self) -> Vec<Notification> {
        self.outbox.undelivered()
    }

    /// How many notifications left the queue so far: while this stays, so does what a restart has
    /// to deliver.
    pub fn settled(&self) -> u64 {
        self.outbox.lock().settled
    }

    /// Whether it is a way to tell people that does not work now.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Whether it tells people at all.
    pub const fn tells(&self) -> bool {
        self.tells
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.courier.abort();
    }
}

/// Carries notifications to one sink, for ever.
struct Courier {
    name: Arc<str>,
    minimum: Severity,
    deadline: Duration,
    sink: Sink,
    outbox: Arc<Outbox>,
    counters: Counters,
    failing: Arc<AtomicBool>,
    /// In a row.
    failures: u32,
    /// What was refused for what it says, and how often in a row.
    refused: Option<(Notification, u32)>,
    around: Surroundings,
}

impl Courier {
    async fn run(mut self) {
        let mut due = self.sink.sustained_every().map(|_| Instant::now());
        loop {
            let outbox = Arc::clone(&self.outbox);
            let sustained = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let outcome = tokio::select! {
                told = outbox.take() => self.deliver(&told).await,
                () = sustained => {
                    due = self.sink.sustained_every().map(|every| Instant::now() + every);
                    self.sustain().await
                }
            };
            if outcome.is_err() {
                sleep(self.around.patience.after(self.failures)).await;
            }
        }
    }

    /// One attempt at one notification.
    async fn deliver(&mut self, told: &Notification) -> Result<(), ()> {
        let now = self.around.clock.now();
        let result = within(self.deadline, self.sink.send(told, now)).await;
        self.take_note(&result);
        let Err(error) = result else {
            self.outbox.done();
            return Ok(());
        };
        let before = self.refused.take().filter(|(other, _)| other == told);
        let times = before.map_or(0, |(_, times)| times) + u32::from(error.blames_what_was_sent());
        if times < REFUSED {
            self.refused = Some((told.clone(), times));
            self.outbox.give_back();
        } else {
            // The next one may be to its taste; this one never will.
            tracing::warn!(
                sink = &*self.name,
                condition = %told.alert.condition,
                subject = &*told.alert.subject,
                "alert given up: the sink refuses what it says"
            );
            self.counters.dropped.inc();
            self.outbox.done();
        }
        Err(())
    }

    /// Says again what stands.
    async fn sustain(&mut self) -> Result<(), ()> {
        let heartbeat = !self.sink.tells();
        if heartbeat && !(self.around.well)() {
            tracing::warn!(
                sink = &*self.name,
                "no heartbeat: nothing here can tell people now"
            );
            return Ok(());
        }
        let standing = Arc::clone(&self.around.standing.borrow());
        let loud = standing.iter().filter(|it| it.severity >= self.minimum);
        let loud: Vec<Alert> = loud.cloned().collect();
        if loud.is_empty() && !heartbeat {
            return Ok(());
        }
        let now = self.around.clock.now();
        let result = within(self.deadline, self.sink.sustain(&loud, now)).await;
        self.take_note(&result);
        result.map_err(drop)
    }

    /// Counts an attempt, and tells of a sink that fails, or that works again.
    fn take_note(&mut self, result: &Result<(), SinkError>) {
        let Err(error) = result else {
            self.failures = 0;
            self.counters.delivered.inc();
            if self.failing.swap(false, Ordering::Relaxed) {
                tracing::info!(sink = &*self.name, "sink works again");
                self.around.board.clear(Code::SinkFailing, &self.name);
            }
            return;
        };
        self.failures += 1;
        self.counters.failed.inc();
        tracing::warn!(sink = &*self.name, failures = self.failures, %error, "alert not delivered");
        if self.failures >= FAILING || error.is_permanent() {
            self.failing.store(true, Ordering::Relaxed);
            self.around.board.raise(self.condition(error));
        }
    }

    fn condition(&self, error: &SinkError) -> Condition {
        let waiting = i64::try_from(self.outbox.undelivered().len()).unwrap_or(i64::MAX);
        let summary = format!(
            "The sink {} ({}) does not take alerts, {} in a row failed: {error}. Waiting for it: {}.",
            self.name,
            self.sink.describe(),
            words::plural(i64::from(self.failures), "attempt"),
            words::plural(waiting, "notification")
        );
        let step = "Mend it, or take it out of the configuration; staunch goes on trying. \
                    `staunch drill --in 1d --send` sends something to every sink.";
        let severity = Severity::Warning;
        Condition::new(Code::SinkFailing, &*self.name, severity, summary, step)
    }
}

async fn within(
    deadline: Duration,
    attempt: impl Future<Output = Result<(), SinkError>>,
) -> Result<(), SinkError> {
    let done = timeout(deadline, attempt).await;
    done.unwrap_or(Err(SinkError::Timeout(deadline)))
}

#[cfg(test)]
mod tests;
