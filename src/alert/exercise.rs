//! Test alerts: each sink that wants them is sent one at an interval, so that a pager that no longer
//! rings is noticed before the night it is needed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::{Code, Condition};
use super::delivery::Delivery;
use super::message::{Alert, Notification, Occasion};
use crate::clock::Timestamp;
use crate::config;

/// How long a test fires, for those who keep a state of it.
const LASTS: Duration = Duration::from_secs(5 * 60);

/// When each sink was sent a test.
#[derive(Clone, Debug, Default)]
pub struct Exercise {
    tested: BTreeMap<String, Timestamp>,
    firing: BTreeMap<String, (Duration, Alert)>,
}

impl Exercise {
    /// Goes on where an earlier run stopped.
    pub const fn new(tested: BTreeMap<String, Timestamp>) -> Self {
        Self {
            tested,
            firing: BTreeMap::new(),
        }
    }

    /// What a restart must not forget.
    pub fn save(&self) -> BTreeMap<String, Timestamp> {
        self.tested.clone()
    }

    /// Whether this sink is to be sent something now: a test, or that the last one is over.
    pub fn due(
        &mut self,
        sink: &config::Sink,
        now: Timestamp,
        at: Duration,
    ) -> Option<Notification> {
        let every = sink.test_every?;
        let name = &*sink.name;
        if let Some((since, _)) = self.firing.get(name) {
            if at.saturating_sub(*since) < LASTS.min(every / 2) {
                return None;
            }
            let (_, alert) = self.firing.remove(name)?;
            let occasion = Occasion::Resolved;
            return Some(Notification {
                occasion,
                alert: alert.resolved(now),
            });
        }
        // A clock that was set either way must not end the tests.
        let waited = |then: &Timestamp| now.since(*then).unsigned_abs();
        if self
            .tested
            .get(name)
            .is_some_and(|then| waited(then) < every.as_secs())
        {
            return None;
        }
        self.tested.insert(name.to_owned(), now);
        let alert = test(sink, every, now);
        self.firing.insert(name.to_owned(), (at, alert.clone()));
        let occasion = Occasion::Fired;
        Some(Notification { occasion, alert })
    }

    /// Forgets sinks that are no longer there.
    pub fn keep(&mut self, sinks: &[Delivery]) {
        let known = |name: &String| sinks.iter().any(|it| *it.config().name == **name);
        self.tested.retain(|name, _| known(name));
        self.firing.retain(|name, _| known(name));
    }
}

fn test(sink: &config::Sink, every: Duration, now: Timestamp) -> Alert {
    let days = every.as_secs() / 86_400;
    let how_often = match days {
        0 => "as configured".to_owned(),
        _ => format!(
            "every {}",
            super::words::plural(days.try_into().unwrap_or(0), "day")
        ),
    };
    let condition = Condition::new(
        Code::TestAlert,
        &*sink.name,
        sink.minimum,
        format!(
            "This is a test of the sink {}, sent {how_often}: nothing is wrong.",
            sink.name
        ),
        "Nothing. Should such a test ever stay out, find out why: alerts would not arrive either.",
    );
    Alert::of(&condition, sink.minimum, now).as_drill()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::testing::day;
    use crate::config::{Severity, SinkKind};

    #[test]
    fn a_test_comes_at_its_interval_and_is_over_soon_and_a_restart_sends_no_other() {
        const DAY: Duration = Duration::from_secs(86_400);
        let sink = config::Sink {
            name: "pager".into(),
            kind: SinkKind::Command { argv: Vec::new() },
            minimum: Severity::Critical,
            timeout: DAY,
            test_every: Some(7 * DAY),
        };
        let mut exercise = Exercise::default();
        let told = exercise.due(&sink, day(10), DAY).unwrap();
        assert_eq!(told.occasion, Occasion::Fired);
        assert_eq!(told.alert.severity, Severity::Critical);
        assert!(told.alert.drill);
        assert_eq!(exercise.due(&sink, day(10), DAY), None);
        let over = exercise.due(&sink, day(10).plus(300), DAY + LASTS).unwrap();
        assert_eq!(
            (over.occasion, over.alert.id),
            (Occasion::Resolved, told.alert.id)
        );
        assert_eq!(exercise.due(&sink, day(16), 7 * DAY), None);
        let mut restarted = Exercise::new(exercise.save());
        assert_eq!(restarted.due(&sink, day(16), DAY), None);
        assert!(restarted.due(&sink, day(17), DAY).is_some());
        // The clock is set back by years.
        assert!(exercise.due(&sink, day(1), DAY).is_some());
        let without = config::Sink {
            test_every: None,
            ..sink
        };
        assert_eq!(Exercise::default().due(&without, day(10), DAY), None);
    }
}
