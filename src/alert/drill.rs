//! Time, played forward: the alerts that would be sent if nothing were renewed from now on.
//!
//! The same judge as in the server is turned over the same inventory, from one turning point to the
//! next instead of second by second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::clockwatch::{ClockWatch, Moment};
use super::condition::{Code, Condition};
use super::engine::Engine;
use super::evaluate::{Known, coverage, turning_points};
use super::http::Client;
use super::judge::{Judge, Observed};
use super::memory::Memory;
use super::message::{Alert, Notification, Occasion};
use super::sink::{Sink, SinkError};
use crate::cert::Report;
use crate::clock::Timestamp;
use crate::config::{Alerts, Severity, SinkKind, SiteName};

/// Looks at the world between two reminders, at most. Turning points that are closer together than
/// this part of the whole time are looked at together.
const LOOKS: i64 = 400;
/// What a sink that is always there is called.
const LOG: &str = "log";

/// What is played.
pub struct Play<'a> {
    /// Thresholds and sinks.
    pub config: &'a Alerts,
    /// The names of the sites.
    pub sites: &'a [SiteName],
    /// Habits, as far as they are known.
    pub memory: &'a Memory,
    /// The inventory at a moment.
    pub inventory: &'a dyn Fn(Timestamp) -> Vec<Report>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// One alert that would be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scene {
    /// When.
    pub at: Timestamp,
    /// Why then.
    pub occasion: Occasion,
    /// To whom.
    pub sinks: Vec<String>,
    /// How often it would be told again.
    pub reminders: usize,
    /// What.
    pub alert: Alert,
}

/// Plays it. Scenes come in the order of time.
pub fn play(play: &Play<'_>) -> Vec<Scene> {
    let mut judge = Judge {
        memory: play.memory.clone(),
        clock: ClockWatch::credulous(),
        engine: Engine::new(play.config.repeat),
        known: Known::default(),
    };
    let mut points = turning_points_of(play);
    let mut scenes = Vec::new();
    let mut now = play.from;
    loop {
        let reports = (play.inventory)(now);
        let coverage = coverage(play.sites, &reports, now);
        let observed = Observed {
            reports,
            coverage,
            ..Observed::default()
        };
        let at = moment(play.from, now);
        for told in judge.tick(at, &observed, Vec::new(), play.config) {
            note(&mut scenes, play.config, now, told);
        }
        if now >= play.until {
            return scenes;
        }
        let reminder = judge.engine.next_reminder(at);
        let reminder = reminder.map(|due| due.saturating_sub(at.monotonic).as_secs().max(1));
        let reminder = reminder.and_then(|wait| i64::try_from(wait).ok());
        points.retain(|point| *point > now);
        let point = points.first().copied().unwrap_or(play.until);
        now = reminder
            .map_or(point, |wait| point.min(now.plus(wait)))
            .min(play.until);
    }
}

/// The moments at which something changes by the mere passing of time, those close together as one.
fn turning_points_of(play: &Play<'_>) -> BTreeSet<Timestamp> {
    let reports = (play.inventory)(play.from);
    let all: BTreeSet<Timestamp> = reports
        .iter()
        .flat_map(|report| turning_points(report, play.config, play.memory, play.from))
        .filter(|at| *at < play.until)
        .collect();
    if all.len() <= usize::try_from(LOOKS).unwrap_or(usize::MAX) {
        return all;
    }
    let step = (play.until.since(play.from) / LOOKS).max(1);
    let slot = |at: &Timestamp| {
        // The end of its slot, so that what changed in it has changed.
        let slots = at.since(play.from) / step + 1;
        play.from.plus(slots * step).min(play.until)
    };
    all.iter().map(slot).collect()
}

fn moment(from: Timestamp, now: Timestamp) -> Moment {
    let ran = u64::try_from(now.since(from)).unwrap_or(0);
    Moment {
        wall: now,
        monotonic: Duration::from_secs(ran),
    }
}

fn note(scenes: &mut Vec<Scene>, config: &Alerts, at: Timestamp, told: Notification) {
    let alert = told.alert.as_drill();
    if told.occasion == Occasion::Repeated {
        let same = scenes
            .iter_mut()
            .rev()
            .find(|scene| scene.alert.id == alert.id);
        if let Some(scene) = same {
            scene.reminders += 1;
        }
        return;
    }
    let sinks = std::iter::once(LOG.to_owned()).chain(
        config
            .sinks
            .iter()
            .filter(|sink| alert.from(sink.minimum, at).is_some())
            .filter(|sink| !matches!(sink.kind, SinkKind::Heartbeat { .. }))
            .map(|sink| sink.name.to_string()),
    );
    scenes.push(Scene {
        at,
        occasion: told.occasion,
        sinks: sinks.collect(),
        reminders: 0,
        alert,
    });
}

/// What is sent when nothing would be, so that every sink has something to show.
pub fn test_alert(now: Timestamp) -> Alert {
    let condition = Condition::new(
        Code::TestAlert,
        "staunch",
        Severity::Critical,
        "This is a test: somebody ran `staunch drill --send` to see this arrive.",
        "Nothing. If it reached the people who would have to act at night, alerting works.",
    );
    Alert::of(&condition, Severity::Critical, now).as_drill()
}

/// How sending to one sink went.
#[derive(Debug)]
pub struct Sent {
    /// The sink.
    pub sink: Arc<str>,
    /// The alert's id.
    pub alert: String,
    /// How it went.
    pub result: Result<(), SinkError>,
}

/// Sends each alert of the play to the sinks that would get it, once, with the sink's own deadline.
pub async fn send(config: &Alerts, alerts: &[Alert], client: &Client, now: Timestamp) -> Vec<Sent> {
    let mut all = Vec::new();
    for sink in &config.sinks {
        let ready = Sink::new(&sink.kind, client);
        for alert in alerts
            .iter()
            .filter(|it| ready.tells() && it.severity >= sink.minimum)
        {
            let mut told = Notification {
                occasion: Occasion::Fired,
                alert: alert.clone(),
            };
            told.alert
                .labels
                .insert("instance".to_owned(), super::run::instance());
            told.alert.link(config.runbook.as_deref());
            let attempt = tokio::time::timeout(sink.timeout, ready.send(&told, now)).await;
            all.push(Sent {
                sink: Arc::clone(&sink.name),
                alert: alert.id.clone(),
                result: attempt.unwrap_or(Err(SinkError::Timeout(sink.timeout))),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::testing::{FINE, Listener, Manner, alerts, day, report};
    use crate::config::{self, WebhookFormat};

    fn scenes(days: i64, count: usize, config: &Alerts) -> Vec<Scene> {
        let inventory = |_| -> Vec<Report> {
            let of = |n: usize| {
                report(
                    &format!("/{n}.pem"),
                    &format!("{n}.example"),
                    day(0),
                    day(90),
                )
            };
            (0..count).map(of).collect()
        };
        play(&Play {
            config,
            sites: &[SiteName::Exact("0.example".into())],
            memory: &Memory::default(),
            inventory: &inventory,
            from: day(60),
            until: day(60 + days),
        })
    }

    #[test]
    fn a_timeline_has_the_moment_of_each_alert_and_counts_the_reminders() {
        let scenes = scenes(40, 1, &alerts());
        let told: Vec<_> = scenes
            .iter()
            .map(|it| (it.at, it.alert.condition))
            .collect();
        assert_eq!(
            told,
            [
                (day(67).plus(43_201), Code::RenewalOverdue),
                (day(81).plus(1), Code::Expiring),
                (day(90).plus(1), Code::Expired),
                (day(90).plus(1), Code::NamesUncovered),
            ]
        );
        assert!(scenes[0].alert.drill);
        assert_eq!(scenes[0].sinks[0], "log");
        assert!(
            (5..=12).contains(&scenes[0].reminders),
            "{}",
            scenes[0].reminders
        );
        let expired = scenes[2].reminders;
        assert!((40..=60).contains(&expired), "{expired}");
    }

    #[test]
    fn what_is_wrong_already_comes_first() {
        let inventory = |_| vec![report("/a.pem", "a.example", day(0), day(90))];
        let scenes = play(&Play {
            config: &alerts(),
            sites: &[],
            memory: &Memory::default(),
            inventory: &inventory,
            from: day(85),
            until: day(86),
        });
        assert_eq!(
            (scenes[0].at, scenes[0].alert.condition),
            (day(85), Code::Expiring)
        );
    }

    #[test]
    fn thousands_are_grouped_in_a_drill_too() {
        let scenes = scenes(25, 500, &alerts());
        let told: Vec<_> = scenes
            .iter()
            .map(|it| (it.alert.condition, it.alert.count))
            .collect();
        assert_eq!(told, [(Code::RenewalOverdue, 500), (Code::Expiring, 500)]);
    }

    #[tokio::test]
    async fn a_drill_is_sent_marked_as_one_and_says_which_sink_failed() {
        let mut good = Listener::start(FINE).await;
        let bad = Listener::start(Manner::Says("500 Oh", "")).await;
        let sink = |name: &str, url: &str| config::Sink {
            name: name.into(),
            kind: SinkKind::Webhook {
                url: url.into(),
                format: WebhookFormat::Json,
                token: None,
            },
            minimum: Severity::Critical,
            timeout: Duration::from_secs(5),
            test_every: None,
        };
        let config = Alerts {
            sinks: vec![sink("good", &good.url), sink("bad", &bad.url)],
            ..alerts()
        };
        let sent = send(&config, &[test_alert(day(1))], &Client::new(), day(1)).await;
        let went: Vec<_> = sent
            .iter()
            .map(|it| (&*it.sink, it.result.is_ok()))
            .collect();
        assert_eq!(went, [("good", true), ("bad", false)]);
        let asked = good.asked().await;
        assert_eq!(asked.body["drill"], true);
        assert_eq!(asked.body["condition"], "test_alert");
    }
}
