//! The loop with real sinks: fires, survives restarts, takes reloads.

use std::fs;
use std::sync::atomic::AtomicUsize;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::alert::testing::{FINE, Listener, Manner, alerts, day, report, until};
use crate::config::{SinkKind, WebhookFormat};

const NOW: i64 = 21_000;

/// A loop under test, and the world around it.
struct House {
    folder: tempfile::TempDir,
    clock: Clock,
    board: Board,
    listing: Listing,
    metrics: Registry,
    config: watch::Sender<Arc<config::Alerts>>,
    events: broadcast::Sender<Arc<cert::Event>>,
    /// Certificates that expired yesterday.
    expired: Arc<AtomicUsize>,
}

impl House {
    fn new(sinks: Vec<config::Sink>) -> Self {
        let config = config::Alerts { sinks, ..alerts() };
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::manual(day(NOW)),
            board: Board::new(),
            listing: Listing::default(),
            metrics: Registry::new(),
            config: watch::channel(Arc::new(config)).0,
            events: broadcast::channel(16).0,
            expired: Arc::new(AtomicUsize::new(0)),
        }
    }

    fn inputs(&self) -> Inputs {
        let expired = Arc::clone(&self.expired);
        Inputs {
            clock: self.clock.clone(),
            state: Some(StateDir::open(self.folder.path()).unwrap()),
            config: self.config.subscribe(),
            observe: Arc::new(move |_| Observed {
                reports: (0..expired.load(Ordering::Relaxed))
                    .map(|n| report(&n.to_string(), "a.example", day(NOW - 90), day(NOW - 1)))
                    .collect(),
                ..Observed::default()
            }),
            events: self.events.subscribe(),
            board: self.board.clone(),
            listing: self.listing.clone(),
            metrics: self.metrics.clone(),
            client: Client::new(),
            patience: Patience {
                first: Duration::from_millis(5),
                most: Duration::from_millis(20),
            },
        }
    }

    fn start(&self) -> (JoinHandle<()>, oneshot::Sender<()>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let inputs = self.inputs();
        let stopped = async {
            let _ = stopped.await;
        };
        (tokio::spawn(run(inputs, stopped)), stop)
    }

    fn pin(&self, subject: &str) {
        let severity = Severity::Critical;
        self.board.raise(Condition::new(
            Code::Revoked,
            subject,
            severity,
            "It is.",
            "Renew it.",
        ));
    }
}

fn webhook(name: &str, listener: &Listener) -> config::Sink {
    config::Sink {
        name: name.into(),
        kind: SinkKind::Webhook {
            url: listener.url.as_str().into(),
            format: WebhookFormat::Json,
            token: None,
        },
        minimum: Severity::Information,
        timeout: Duration::from_secs(5),
        test_every: None,
    }
}

async fn end(running: (JoinHandle<()>, oneshot::Sender<()>)) {
    running.1.send(()).unwrap();
    running.0.await.unwrap();
}

#[tokio::test]
async fn what_is_pinned_is_told_listed_and_counted_and_resolves() {
    let mut listener = Listener::start(FINE).await;
    let house = House::new(vec![webhook("hook", &listener)]);
    let running = house.start();
    house.pin("a");
    let asked = listener.asked().await;
    assert_eq!(asked.body["condition"], "revoked");
    assert_eq!(asked.body["since"], day(NOW).to_string());
    assert_eq!(asked.body["labels"]["instance"], instance());
    assert_eq!(house.listing.load().firing[0].subject, "a");
    let line = "staunch_alerts_firing{condition=\"revoked\",severity=\"critical\"} ";
    assert!(house.metrics.encode().contains(&format!("{line}1\n")));
    house.board.clear(Code::Revoked, "a");
    assert_eq!(listener.asked().await.body["status"], "resolved");
    assert!(house.listing.load().firing.is_empty());
    assert_eq!(house.listing.load().resolved[0].subject, "a");
    assert!(house.metrics.encode().contains(&format!("{line}0\n")));
    end(running).await;
}

#[tokio::test]
async fn a_restart_repeats_nothing_and_forgets_nothing() {
    let mut works = Listener::start(FINE).await;
    let mut fails = Listener::start(Manner::Says("500 Oh", "")).await;
    let house = House::new(vec![webhook("works", &works), webhook("fails", &fails)]);
    house.expired.store(1, Ordering::Relaxed);
    let running = house.start();
    works.asked().await;
    fails.asked().await;
    // Cut off without a chance to write anything down.
    let state = StateDir::open(house.folder.path()).unwrap();
    let waits = |sink| store::load(&state).unwrap().undelivered.contains_key(sink);
    until(|| waits("fails") && !waits("works")).await;
    running.0.abort();
    assert!(running.0.await.unwrap_err().is_cancelled());
    while works.asked_already().is_some() || fails.asked_already().is_some() {}

    fails.becomes(FINE);
    let running = house.start();
    assert_eq!(fails.asked().await.body["subject"], "0", "no silence");
    house.pin("b");
    // That the other sink failed may be told here; what was delivered before may not.
    loop {
        let asked = works.asked().await.body;
        assert_ne!(asked["subject"], "0", "no flood: {asked}");
        if asked["subject"] == "b" {
            break;
        }
    }
    let listed = |code| {
        house
            .listing
            .load()
            .firing
            .iter()
            .any(|it| it.condition == code)
    };
    for code in [
        Code::Expired,
        Code::Expiring,
        Code::RenewalOverdue,
        Code::Revoked,
    ] {
        assert!(listed(code), "{code}");
    }
    end(running).await;
}

/// A look at the world, as if so much time had passed since the last writing.
async fn look_after(watch: &mut Watch, passed: Duration) -> bool {
    let written = Instant::now().checked_sub(passed).unwrap();
    watch.written = written;
    watch.look().await;
    watch.written != written
}

#[tokio::test]
async fn what_has_not_changed_is_not_written_again() {
    let house = House::new(Vec::new());
    house.expired.store(9, Ordering::Relaxed);
    let mut watch = Watch::begin(house.inputs()).await;
    assert!(look_after(&mut watch, Duration::ZERO).await, "it is told");
    assert!(!look_after(&mut watch, UNWRITTEN).await, "nothing is new");
    assert!(look_after(&mut watch, UNTIMED).await, "the time is");
    // One more of a group is told of later, and known after a restart all the same.
    house.expired.store(10, Ordering::Relaxed);
    assert!(!look_after(&mut watch, Duration::ZERO).await);
    assert!(look_after(&mut watch, UNWRITTEN).await);
    assert!(!look_after(&mut watch, UNWRITTEN).await);
    let state = store::load(&StateDir::open(house.folder.path()).unwrap()).unwrap();
    let saved = serde_json::to_string(&state).unwrap();
    assert!(saved.contains(r#""subject":"9""#), "{saved}");
}

#[tokio::test]
async fn damaged_state_costs_a_repetition_and_no_start() {
    let mut listener = Listener::start(FINE).await;
    let house = House::new(vec![webhook("hook", &listener)]);
    fs::write(house.folder.path().join(store::FILE), "{\"alerts\": 7").unwrap();
    house.expired.store(1, Ordering::Relaxed);
    let running = house.start();
    assert_eq!(listener.asked().await.body["condition"], "expired");
    end(running).await;
    let state = store::load(&StateDir::open(house.folder.path()).unwrap()).unwrap();
    assert_eq!(state.saved_at, Some(day(NOW)));
}

#[tokio::test]
async fn ten_thousand_that_expire_together_are_one_message_to_each_sink() {
    let mut listener = Listener::start(FINE).await;
    let house = House::new(vec![webhook("hook", &listener)]);
    house.expired.store(10_000, Ordering::Relaxed);
    let running = house.start();
    let asked = listener.asked().await;
    assert_eq!(asked.body["count"], 10_000);
    assert_eq!(asked.body["subject"], "10000 certificates");
    house.pin("next");
    assert_eq!(listener.asked().await.body["subject"], "next");
    end(running).await;
}

#[tokio::test]
async fn a_reload_brings_sinks_and_takes_them_away() {
    let (mut old, mut new) = (Listener::start(FINE).await, Listener::start(FINE).await);
    let mut house = House::new(vec![webhook("old", &old)]);
    house.folder = tempfile::tempdir().unwrap();
    let running = house.start();
    house.pin("a");
    old.asked().await;
    let sinks = vec![webhook("new", &new)];
    house
        .config
        .send_replace(Arc::new(config::Alerts { sinks, ..alerts() }));
    house.pin("b");
    assert_eq!(new.asked().await.body["subject"], "b");
    assert!(old.asked_already().is_none());
    end(running).await;
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_a_condition() {
    let mut listener = Listener::start(FINE).await;
    let mut house = House::new(vec![webhook("hook", &listener)]);
    house.folder = tempfile::tempdir().unwrap();
    // A folder where the file would be: fails for root too.
    fs::create_dir(house.folder.path().join(store::FILE)).unwrap();
    let running = house.start();
    house.pin("a");
    listener.asked().await;
    let asked = listener.asked().await;
    assert_eq!(asked.body["condition"], "state_unwritable");
    assert!(asked.body["next_step"].as_str().unwrap().contains("df -h"));
    end(running).await;
}

#[test]
fn a_pulse_is_well_while_the_loop_turns_and_can_tell_somebody() {
    let pulse = Pulse::default();
    assert!(pulse.is_well());
    pulse.beat(false);
    assert!(!pulse.is_well());
    pulse.beat(true);
    assert!(pulse.is_well());
}

#[test]
fn looks_take_a_small_part_of_a_core_and_come_all_the_same() {
    assert_eq!(pause_after(Duration::ZERO), EVERY);
    assert_eq!(pause_after(EVERY / SHARE), EVERY);
    let took = Duration::from_millis(20);
    assert_eq!(pause_after(took), took * SHARE);
    assert_eq!(pause_after(Duration::MAX), AT_LATEST);
    // Whoever watches over the loop is more patient.
    assert!(AT_LATEST * 2 <= STALLED);
}
