//! Couriers against sinks that hang, fail and recover.

use super::*;
use crate::alert::http::Client;
use crate::alert::testing::{FINE, Listener, Manner, day, told, until};
use crate::config::{SinkKind, WebhookFormat};

struct Setup {
    around: Surroundings,
    standing: watch::Sender<Arc<Vec<Alert>>>,
    well: Arc<AtomicBool>,
}

fn setup() -> Setup {
    let (standing, receiver) = watch::channel(Arc::default());
    let well = Arc::new(AtomicBool::new(true));
    let shared = Arc::clone(&well);
    let around = Surroundings {
        clock: Clock::manual(day(20_000)),
        board: Board::new(),
        metrics: Registry::new(),
        standing: receiver,
        well: Arc::new(move || shared.load(Ordering::Relaxed)),
        patience: Patience {
            first: Duration::from_millis(5),
            most: Duration::from_millis(20),
        },
    };
    Setup {
        around,
        standing,
        well,
    }
}

impl Setup {
    fn start(&self, name: &str, kind: SinkKind) -> Delivery {
        let config = config::Sink {
            name: name.into(),
            minimum: Severity::Warning,
            timeout: Duration::from_millis(300),
            test_every: None,
            kind,
        };
        let sink = Sink::new(&config.kind, &Client::new());
        Delivery::start(&config, sink, Vec::new(), &self.around)
    }

    fn webhook(&self, name: &str, url: &str) -> Delivery {
        let (url, format, token) = (url.into(), WebhookFormat::Json, None);
        self.start(name, SinkKind::Webhook { url, format, token })
    }
}

#[tokio::test]
async fn a_sink_that_hangs_delays_no_other_and_is_told_of_until_it_recovers() {
    let setup = setup();
    let mut bad = Listener::start(Manner::Hangs).await;
    let mut good = Listener::start(FINE).await;
    let (hangs, works) = (
        setup.webhook("bad", &bad.url),
        setup.webhook("good", &good.url),
    );
    for sink in [&hangs, &works] {
        sink.offer(&told("a", Severity::Critical), day(20_000));
    }
    assert_eq!(good.asked().await.body["subject"], "a");
    until(|| hangs.is_failing()).await;
    let board = &setup.around.board;
    until(|| board.holds(Code::SinkFailing, "bad")).await;
    let condition = board.conditions().remove(0);
    assert!(
        condition.summary.contains("no answer within 300ms"),
        "{}",
        condition.summary
    );
    assert!(
        condition
            .summary
            .contains("Waiting for it: 1 notification."),
        "{}",
        condition.summary
    );
    assert_eq!(hangs.undelivered().len(), 1);
    bad.becomes(FINE);
    until(|| !board.holds(Code::SinkFailing, "bad")).await;
    assert!(!hangs.is_failing());
    until(|| hangs.undelivered().is_empty()).await;
    assert_eq!(bad.asked().await.body["subject"], "a");
    let text = setup.around.metrics.encode();
    let line = r#"staunch_alert_deliveries_total{sink="good",outcome="delivered"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn what_a_sink_refuses_for_good_does_not_block_the_rest() {
    let setup = setup();
    let mut listener = Listener::start(Manner::Says("400 No", "what is this?")).await;
    let sink = setup.webhook("picky", &listener.url);
    sink.offer(&told("a", Severity::Critical), day(20_000));
    for _ in 0..REFUSED {
        listener.asked().await;
    }
    until(|| sink.undelivered().is_empty()).await;
    assert!(setup.around.board.holds(Code::SinkFailing, "picky"));
    listener.becomes(FINE);
    sink.offer(&told("b", Severity::Critical), day(20_000));
    assert_eq!(listener.asked().await.body["subject"], "b");
}

#[tokio::test]
async fn what_a_sink_cannot_take_for_now_is_kept_until_it_can() {
    let setup = setup();
    for says in ["401 Who", "403 No", "404 Where", "302 There"] {
        let mut listener = Listener::start(Manner::Says(says, "")).await;
        let sink = setup.webhook(says, &listener.url);
        sink.offer(&told("a", Severity::Critical), day(20_000));
        for _ in 0..2 * REFUSED {
            listener.asked().await;
        }
        assert!(setup.around.board.holds(Code::SinkFailing, says));
        assert_eq!(sink.undelivered().len(), 1, "{says}");
        listener.becomes(FINE);
        until(|| sink.undelivered().is_empty()).await;
        let text = setup.around.metrics.encode();
        for (outcome, times) in [("delivered", 1), ("dropped", 0)] {
            let line = format!("{{sink=\"{says}\",outcome=\"{outcome}\"}} {times}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}

#[tokio::test]
async fn refusals_of_one_notification_are_not_counted_against_another() {
    let mut setup = setup();
    // Long enough for the second to come before the third attempt at the first.
    setup.around.patience = Patience {
        first: Duration::from_millis(200),
        most: Duration::from_millis(400),
    };
    let mut listener = Listener::start(Manner::Says("422 No", "what is this?")).await;
    let sink = setup.webhook("picky", &listener.url);
    sink.offer(&told("a", Severity::Warning), day(20_000));
    let mut asked = Vec::new();
    for n in 0..2 * REFUSED {
        asked.push(listener.asked().await.body["subject"].clone());
        if n == 1 {
            sink.offer(&told("b", Severity::Critical), day(20_000));
        }
        if asked.iter().filter(|it| **it == "b").count() == 3 {
            return;
        }
    }
    panic!("{asked:?}");
}

#[tokio::test]
async fn a_sink_hears_nothing_below_its_floor_and_nothing_of_its_own_failure() {
    let setup = setup();
    let mut listener = Listener::start(FINE).await;
    let sink = setup.webhook("s", &listener.url);
    sink.offer(&told("quiet", Severity::Information), day(20_000));
    let mut own = told("s", Severity::Critical);
    own.alert.condition = Code::SinkFailing;
    sink.offer(&own, day(20_000));
    sink.offer(&told("loud", Severity::Warning), day(20_000));
    assert_eq!(listener.asked().await.body["subject"], "loud");
}

#[tokio::test]
async fn a_heartbeat_stops_when_nothing_here_can_tell_people() {
    let setup = setup();
    let mut listener = Listener::start(FINE).await;
    let every = Duration::from_millis(10);
    let url = listener.url.as_str().into();
    let sink = setup.start("heart", SinkKind::Heartbeat { url, every });
    sink.offer(&told("not for it", Severity::Critical), day(20_000));
    assert!(listener.asked().await.head.starts_with("GET / "));
    listener.asked().await;
    setup.well.store(false, Ordering::Relaxed);
    // Another heart, which nothing stops, measures the silence.
    let mut other = Listener::start(FINE).await;
    let mut around = setup.around.clone();
    around.well = Arc::new(|| true);
    let control = Setup {
        around,
        ..self::setup()
    };
    let url = other.url.as_str().into();
    let _control = control.start("control", SinkKind::Heartbeat { url, every });
    other.asked().await;
    while listener.asked_already().is_some() {}
    for _ in 0..5 {
        other.asked().await;
    }
    assert!(listener.asked_already().is_none());
    setup.well.store(true, Ordering::Relaxed);
    listener.asked().await;
}

#[tokio::test]
async fn alertmanager_hears_what_stands_without_being_told_anew() {
    let setup = setup();
    setup.standing.send_replace(Arc::new(vec![
        told("stands", Severity::Critical).alert,
        told("too quiet", Severity::Information).alert,
    ]));
    let mut listener = Listener::start(FINE).await;
    let (url, token) = (listener.url.as_str().into(), None);
    let _sink = setup.start("am", SinkKind::Alertmanager { url, token });
    let body = listener.asked().await.body;
    assert_eq!(body.as_array().unwrap().len(), 1);
    assert_eq!(body[0]["labels"]["subject"], "stands");
}

#[test]
fn a_queue_is_bounded_and_lets_go_of_the_lesser_first() {
    let outbox = Outbox::default();
    let mut dropped = outbox.put(told("first", Severity::Critical));
    for n in 0..2 * WAITING {
        dropped += outbox.put(told(&n.to_string(), Severity::Warning));
    }
    assert_eq!(dropped, WAITING + 1);
    assert_eq!(outbox.undelivered().len(), WAITING);
    assert_eq!(outbox.try_take().unwrap().alert.subject, "first");
    assert_eq!(
        outbox.try_take().unwrap().alert.subject,
        (WAITING + 1).to_string()
    );
}

#[test]
fn newer_news_of_an_alert_takes_the_place_of_older() {
    let outbox = Outbox::default();
    outbox.put(told("a", Severity::Critical));
    let under_way = outbox.try_take().unwrap();
    let mut over = under_way;
    over.alert = over.alert.resolved(day(20_001));
    outbox.put(over.clone());
    outbox.put(over.clone());
    outbox.give_back();
    assert_eq!(outbox.undelivered(), [over]);
}

#[test]
fn patience_doubles_up_to_a_bound() {
    let patience = Patience::default();
    for (failures, seconds) in [(1, 1.0), (2, 2.0), (5, 16.0), (50, 300.0)] {
        let ratio = patience.after(failures).as_secs_f64() / seconds;
        assert!((0.74..=1.26).contains(&ratio), "{failures}: {ratio}");
    }
}

#[tokio::test]
async fn a_sink_hears_that_what_it_was_told_is_no_longer_for_it() {
    let setup = setup();
    let mut listener = Listener::start(FINE).await;
    let sink = setup.webhook("s", &listener.url);
    let mut less = told("a", Severity::Information);
    sink.offer(&less, day(20_000));
    less.alert.compare(Severity::Warning);
    sink.offer(&less, day(20_001));
    let body = listener.asked().await.body;
    assert_eq!(
        (&body["status"], &body["severity"]),
        (&"resolved".into(), &"warning".into())
    );
    assert_eq!(body["resolved_at"], day(20_001).to_string());
}

#[test]
fn newer_news_also_say_what_the_older_would_have_said() {
    let outbox = Outbox::default();
    let mut eased = told("a", Severity::Warning);
    eased.alert.compare(Severity::Critical);
    let said = || outbox.undelivered()[0].alert.previous_severity;
    outbox.put(eased.clone());
    outbox.put(told("a", Severity::Warning));
    assert_eq!(said(), Some(Severity::Critical));

    let outbox = Outbox::default();
    outbox.put(eased);
    outbox.try_take();
    outbox.put(told("a", Severity::Warning));
    outbox.give_back();
    assert_eq!(outbox.undelivered().len(), 1);
    assert_eq!(
        outbox.undelivered()[0].alert.previous_severity,
        Some(Severity::Critical)
    );
}
