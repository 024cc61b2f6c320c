//! When people are told: once when it begins, again at an interval that shortens as the deadline
//! nears, when it becomes graver or less grave, once when it is over.
//!
//! [`Engine::tick`] takes the conditions that hold at a moment and returns what is to be told. It
//! reads no clock and does no input or output, so a test plays a year in a millisecond. Intervals
//! are measured on the monotonic clock: setting the wall clock causes neither a flood nor silence.
//!
//! Of one code, at most [`GROUP_ABOVE`] alerts that fire at the same time are told one by one. The
//! others are a group and told as one: ten thousand certificates that expire together are a
//! message, not ten thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clockwatch::Moment;
use super::condition::{Code, Condition, Key};
use super::message::{Alert, Notification, Occasion, Status};
use crate::clock::Timestamp;
use crate::config::Severity;

/// Alerts of one code that are told one by one; what comes on top is told as a group.
pub const GROUP_ABOVE: usize = 5;
/// Resolved alerts that are remembered.
const HISTORY: usize = 200;
/// How long something that comes and goes must be gone before it is over.
const GONE_FOR: Duration = Duration::from_secs(60);
/// The same, at most, for something that came back again and again. As long as these two must it
/// also be less grave before people are told so: it may become graver again.
const GONE_FOR_MOST: Duration = Duration::from_secs(30 * 60);
/// Within this time of being over, coming back counts as flapping.
const FLAPPING: i64 = 3600;
/// After a start, detectors need a while to find again what they had found before.
const SETTLING: Duration = Duration::from_secs(120);
/// Between two reminders, at least, however short `repeat` is.
const SOONEST: Duration = Duration::from_secs(60);

/// One alert that fires.
#[derive(Clone, Debug)]
struct Active {
    condition: Arc<Condition>,
    since: Timestamp,
    /// As grave as it is, or was a moment ago.
    severity: Severity,
    /// Since when it is less grave than that.
    lesser: Option<Duration>,
    /// How often it became less grave.
    eased: u32,
    told: Option<Told>,
    /// Told as part of its code's group.
    grouped: bool,
    /// Since when the condition no longer holds.
    gone: Option<Duration>,
    /// How often it came back soon after it was over.
    flaps: u32,
    /// Known from an earlier run, and not seen in this one yet.
    restored: bool,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Duration,
    severity: Severity,
}

/// What was told of a group.
#[derive(Clone, Debug)]
struct Group {
    at: Duration,
    alert: Alert,
}

/// What a restart must not forget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    firing: Vec<SavedAlert>,
    groups: Vec<SavedGroup>,
    resolved: VecDeque<Alert>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedAlert {
    condition: Condition,
    since: Timestamp,
    severity: Severity,
    /// How many seconds before the state was saved it was told, and as how grave.
    #[serde(default)]
    told: Option<(u64, Severity)>,
    #[serde(default)]
    grouped: bool,
    #[serde(default)]
    flaps: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SavedGroup {
    told: u64,
    alert: Alert,
}

/// Everything that fires, and what was told of it.
#[derive(Clone, Debug)]
pub struct Engine {
    repeat: Duration,
    revision: u64,
    started: Option<Duration>,
    active: BTreeMap<Key, Active>,
    groups: BTreeMap<Code, Group>,
    resolved: VecDeque<Alert>,
}

impl Engine {
    /// Nothing fires, nothing was told. `repeat` is the interval between reminders of what is critical.
    pub const fn new(repeat: Duration) -> Self {
        Self {
            repeat,
            revision: 0,
            started: None,
            active: BTreeMap::new(),
            groups: BTreeMap::new(),
            resolved: VecDeque::new(),
        }
    }

    /// Goes on where an earlier run stopped, `ago` before `now` on the monotonic clock.
    pub fn restore(repeat: Duration, saved: Saved, now: Duration, ago: Duration) -> Self {
        let then =
            |before: u64| now.saturating_sub(ago.saturating_add(Duration::from_secs(before)));
        let mut engine = Self::new(repeat);
        engine.resolved = saved.resolved;
        engine.resolved.truncate(HISTORY);
        for it in saved.firing {
            let active = Active {
                since: it.since,
                severity: it.severity,
                lesser: None,
                eased: 0,
                told: it.told.map(|(before, severity)| Told {
                    at: then(before),
                    severity,
                }),
                grouped: it.grouped,
                gone: None,
                flaps: it.flaps,
                restored: true,
                condition: Arc::new(it.condition),
            };
            engine.active.insert(active.condition.key(), active);
        }
        for it in saved.groups {
            let group = Group {
                at: then(it.told),
                alert: it.alert,
            };
            engine.groups.insert(group.alert.condition, group);
        }
        engine
    }

    /// What a restart must not forget.
    pub fn save(&self, now: Duration) -> Saved {
        let before = |at: Duration| now.saturating_sub(at).as_secs();
        let firing = self.active.values().map(|it| SavedAlert {
            condition: (*it.condition).clone(),
            since: it.since,
            severity: it.severity,
            told: it.told.map(|told| (before(told.at), told.severity)),
            grouped: it.grouped,
            flaps: it.flaps,
        });
        let groups = self.groups.values().map(|it| SavedGroup {
            told: before(it.at),
            alert: it.alert.clone(),
        });
        Saved {
            firing: firing.collect(),
            groups: groups.collect(),
            resolved: self.resolved.clone(),
        }
    }

    /// Another number whenever something fires, is over, is told, or becomes more or less grave.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes another interval between reminders, after a reload.
    pub const fn set_repeat(&mut self, repeat: Duration) {
        self.repeat = repeat;
    }

    /// Hears what holds at this moment, and says what is to be told.
    pub fn tick(&mut self, at: Moment, conditions: Vec<Arc<Condition>>) -> Vec<Notification> {
        self.started.get_or_insert(at.monotonic);
        let mut out = Vec::new();
        self.absorb(at, conditions);
        self.ease(at);
        self.resolve(at, &mut out);
        let quiet = self.superseded();
        self.tell_new(at, &quiet, &mut out);
        self.remind(at, &quiet, &mut out);
        self.tell_groups(at, &quiet, &mut out);
        self.revision += u64::from(!out.is_empty());
        out
    }

    /// Takes over what holds, and notes what no longer does.
    fn absorb(&mut self, at: Moment, conditions: Vec<Arc<Condition>>) {
        let mut present: HashMap<(Code, &str), &Arc<Condition>> = HashMap::new();
        for condition in &conditions {
            let known = present
                .entry((condition.code, &condition.subject))
                .or_insert(condition);
            if known.severity < condition.severity {
                *known = condition;
            }
        }
        for (key, active) in &mut self.active {
            if let Some(condition) = present.remove(&(key.code, key.subject.as_str())) {
                if condition.severity < active.severity {
                    active.lesser.get_or_insert(at.monotonic);
                } else {
                    self.revision += u64::from(active.severity != condition.severity);
                    active.severity = condition.severity;
                    active.lesser = None;
                }
                active.condition = Arc::clone(condition);
                active.gone = None;
                active.restored = false;
            } else {
                active.gone.get_or_insert(at.monotonic);
            }
        }
        let new: Vec<_> = present.into_values().collect();
        self.revision += u64::from(!new.is_empty());
        for condition in new {
            let key = condition.key();
            let active = Active {
                since: condition.since.map_or(at.wall, |since| since.min(at.wall)),
                severity: condition.severity,
                lesser: None,
                eased: 0,
                told: None,
                grouped: false,
                gone: None,
                flaps: self.flaps(&key, at.wall),
                restored: false,
                condition: Arc::clone(condition),
            };
            self.active.insert(key, active);
        }
    }

    /// Takes for less grave what is so for long enough.
    fn ease(&mut self, at: Moment) {
        for it in self.active.values_mut().filter(|it| it.gone.is_none()) {
            let over = |since| at.monotonic.saturating_sub(since) >= doubled(GONE_FOR, it.eased);
            if it.lesser.is_some_and(over) {
                it.severity = it.condition.severity;
                it.lesser = None;
                it.eased += 1;
                self.revision += 1;
            }
        }
    }

    /// How often this came back lately.
    fn flaps(&self, key: &Key, now: Timestamp) -> u32 {
        if !key.code.flaps() {
            return 0;
        }
        let lately = |it: &&Alert| {
            it.resolved_at
                .is_some_and(|at| now.since(at).abs() < FLAPPING)
        };
        let same = |it: &&Alert| it.condition == key.code && it.subject == key.subject;
        let count = self.resolved.iter().filter(same).filter(lately).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Ends what is gone for long enough.
    fn resolve(&mut self, at: Moment, out: &mut Vec<Notification>) {
        let started = self.started.unwrap_or(at.monotonic);
        let over = |it: &Active| {
            it.gone.is_some_and(|gone| {
                let waited = at.monotonic.saturating_sub(gone);
                waited >= gone_for(it) && (!it.restored || at.monotonic >= started + SETTLING)
            })
        };
        let ended: Vec<Key> = self
            .active
            .iter()
            .filter(|(_, it)| over(it))
            .map(|(key, _)| key.clone())
            .collect();
        for key in ended {
            let Some(it) = self.active.remove(&key) else {
                continue;
            };
            self.revision += 1;
            if let Some(told) = it.told.filter(|_| !it.grouped) {
                // To whom it was told as this grave, it is over as this grave.
                let alert = Alert::of(&it.condition, told.severity, it.since);
                self.over(alert, at.wall, out);
            }
        }
        let empty = |code: &Code| {
            !self
                .active
                .values()
                .any(|it| it.grouped && it.condition.code == *code)
        };
        let ended: Vec<Code> = self.groups.keys().copied().filter(empty).collect();
        for code in ended {
            if let Some(group) = self.groups.remove(&code) {
                self.over(group.alert, at.wall, out);
            }
        }
    }

    /// Tells of an alert that it is over, and remembers it.
    fn over(&mut self, alert: Alert, now: Timestamp, out: &mut Vec<Notification>) {
        let alert = alert.resolved(now);
        self.resolved.push_front(alert.clone());
        self.resolved.truncate(HISTORY);
        out.push(Notification {
            occasion: Occasion::Resolved,
            alert,
        });
    }

    /// What is better said by a graver alert of the same subject.
    fn superseded(&self) -> BTreeSet<Key> {
        let holds = |code: Code, subject: &str| {
            let key = Key {
                code,
                subject: subject.to_owned(),
            };
            self.active.get(&key).is_some_and(|it| it.gone.is_none())
        };
        let superseded = |key: &&Key| {
            key.code
                .superseded_by()
                .iter()
                .any(|code| holds(*code, &key.subject))
        };
        self.active.keys().filter(superseded).cloned().collect()
    }

    /// Tells what is new, graver or less grave, one by one or, where there is too much of it, as a group.
    fn tell_new(&mut self, at: Moment, quiet: &BTreeSet<Key>, out: &mut Vec<Notification>) {
        let mut alone: BTreeMap<Code, usize> = BTreeMap::new();
        let mut new: BTreeMap<Code, usize> = BTreeMap::new();
        for (key, it) in self
            .active
            .iter()
            .filter(|(key, it)| speaks(key, it, quiet))
        {
            let counts = if it.told.is_some() {
                &mut alone
            } else {
                &mut new
            };
            *counts.entry(key.code).or_default() += 1;
        }
        for (key, it) in self
            .active
            .iter_mut()
            .filter(|(key, it)| speaks(key, it, quiet))
        {
            let occasion = match it.told {
                Some(told) if it.severity > told.severity => Occasion::Escalated,
                Some(told) if it.severity < told.severity => Occasion::Eased,
                Some(_) => continue,
                None => Occasion::Fired,
            };
            let of = |counts: &BTreeMap<Code, usize>| counts.get(&key.code).copied().unwrap_or(0);
            let many = of(&alone) + of(&new) > GROUP_ABOVE || self.groups.contains_key(&key.code);
            if many && occasion == Occasion::Fired {
                it.grouped = true;
            } else {
                tell(it, occasion, at, out);
            }
        }
    }

    /// Tells again what was told long enough ago.
    fn remind(&mut self, at: Moment, quiet: &BTreeSet<Key>, out: &mut Vec<Notification>) {
        let repeat = self.repeat;
        for (_, it) in self
            .active
            .iter_mut()
            .filter(|(key, it)| speaks(key, it, quiet))
        {
            let Some(told) = it.told else {
                continue;
            };
            let interval = interval(repeat, it.urgency(), at.wall);
            if interval.is_some_and(|it| at.monotonic.saturating_sub(told.at) >= it) {
                tell(it, Occasion::Repeated, at, out);
            }
        }
    }

    /// Tells of the groups.
    fn tell_groups(&mut self, at: Moment, quiet: &BTreeSet<Key>, out: &mut Vec<Notification>) {
        let mut members: BTreeMap<Code, Vec<&Active>> = BTreeMap::new();
        for (key, it) in &self.active {
            if it.grouped && it.gone.is_none() && !quiet.contains(key) {
                members.entry(key.code).or_default().push(it);
            }
        }
        let mut told = Vec::new();
        for (code, members) in members {
            let each: Vec<_> = members
                .iter()
                .map(|it| (&*it.condition, it.severity, it.since))
                .collect();
            let Some(mut alert) = Alert::of_group(code, &each) else {
                continue;
            };
            let deadline = members.iter().filter_map(|it| it.condition.deadline).min();
            let known = self.groups.get_mut(&code);
            let occasion = known.map_or(Some(Occasion::Fired), |known| {
                known.alert.count = known.alert.count.min(alert.count);
                let waited = at.monotonic.saturating_sub(known.at);
                alert.compare(known.alert.severity);
                group_occasion(known, &alert, waited, self.repeat, deadline, at.wall)
            });
            if let Some(occasion) = occasion {
                let group = Group {
                    at: at.monotonic,
                    alert: alert.clone(),
                };
                self.groups.insert(code, group);
                told.push(code);
                out.push(Notification { occasion, alert });
            }
        }
        for it in self
            .active
            .values_mut()
            .filter(|it| it.grouped && it.gone.is_none())
        {
            if told.contains(&it.condition.code) {
                it.told = Some(Told {
                    at: at.monotonic,
                    severity: it.severity,
                });
            }
        }
    }

    /// When the next reminder is due on the monotonic clock, if nothing else changes.
    pub fn next_reminder(&self, at: Moment) -> Option<Duration> {
        let quiet = self.superseded();
        let alone = self
            .active
            .iter()
            .filter(|(key, it)| speaks(key, it, &quiet))
            .filter_map(|(_, it)| {
                let interval = interval(self.repeat, it.urgency(), at.wall)?;
                Some(it.told?.at + interval)
            });
        let groups = self.groups.iter().filter_map(|(code, group)| {
            let members = self.active.iter().filter(|(key, it)| {
                key.code == *code && it.grouped && it.gone.is_none() && !quiet.contains(key)
            });
            let mut members = members.peekable();
            members.peek()?;
            let urgency = Urgency {
                severity: group.alert.severity,
                since: group.alert.since,
                deadline: members.filter_map(|(_, it)| it.condition.deadline).min(),
            };
            Some(group.at + interval(self.repeat, urgency, at.wall)?)
        });
        alone.chain(groups).min()
    }

    /// Every alert that fires, one by one, gravest first.
    pub fn firing(&self) -> Vec<Alert> {
        let mut firing: Vec<Alert> = self
            .active
            .values()
            .map(|it| Alert::of(&it.condition, it.severity, it.since))
            .collect();
        firing.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.id.cmp(&b.id)));
        firing
    }

    /// What was told and is not over, a group as one.
    pub fn standing(&self) -> Vec<Alert> {
        let alone = self
            .active
            .values()
            .filter(|it| it.told.is_some() && !it.grouped);
        let alone = alone.map(|it| {
            let severity = it.told.map_or(it.severity, |told| told.severity);
            Alert::of(&it.condition, severity, it.since)
        });
        let groups = self.groups.values().map(|it| Alert {
            previous_severity: None,
            ..it.alert.clone()
        });
        alone.chain(groups).collect()
    }

    /// What was over lately, the latest first.
    pub const fn resolved(&self) -> &VecDeque<Alert> {
        &self.resolved
    }

    /// How many alerts fire, by code and severity.
    pub fn counts(&self) -> BTreeMap<(Code, Severity), usize> {
        let mut counts = BTreeMap::new();
        for it in self.active.values() {
            *counts.entry((it.condition.code, it.severity)).or_default() += 1;
        }
        counts
    }
}

/// Whether this alert speaks for itself now.
fn speaks(key: &Key, it: &Active, quiet: &BTreeSet<Key>) -> bool {
    !it.grouped && it.gone.is_none() && !quiet.contains(key)
}

fn tell(it: &mut Active, occasion: Occasion, at: Moment, out: &mut Vec<Notification>) {
    let mut alert = Alert::of(&it.condition, it.severity, it.since);
    if let Some(told) = it.told {
        alert.compare(told.severity);
    }
    it.told = Some(Told {
        at: at.monotonic,
        severity: it.severity,
    });
    out.push(Notification { occasion, alert });
}

/// How long it must be gone before it is over.
fn gone_for(it: &Active) -> Duration {
    if it.condition.code.flaps() {
        doubled(GONE_FOR, it.flaps)
    } else {
        Duration::ZERO
    }
}

/// Twice as long each time.
fn doubled(patience: Duration, times: u32) -> Duration {
    patience
        .saturating_mul(1 << times.min(10))
        .min(GONE_FOR_MOST)
}

/// How long until it is told again.
///
/// Where there is a deadline, a twelfth of the time to it, or since it: more often as it comes near,
/// less often when it is long gone. Where there is none, a twelfth of the time that it has lasted:
/// what nobody mends for weeks is not told hourly. Both within bounds that are multiples of
/// `repeat`, wider for warnings. What is only worth knowing is told once.
fn interval(repeat: Duration, it: Urgency, now: Timestamp) -> Option<Duration> {
    let (least, most) = match (it.severity, it.deadline) {
        (Severity::Information, _) => return None,
        (Severity::Critical, Some(_)) => ((repeat / 6).max(SOONEST).min(repeat), repeat * 4),
        (Severity::Critical, None) => (repeat, repeat * 4),
        (Severity::Warning, _) => (repeat * 4, repeat * 28),
    };
    let span = now.since(it.deadline.unwrap_or(it.since)).unsigned_abs();
    Some(Duration::from_secs(span / 12).clamp(least, most))
}

/// What decides how often something is told.
#[derive(Clone, Copy, Debug)]
struct Urgency {
    severity: Severity,
    since: Timestamp,
    deadline: Option<Timestamp>,
}

impl Active {
    fn urgency(&self) -> Urgency {
        Urgency {
            severity: self.severity,
            since: self.since,
            deadline: self.condition.deadline,
        }
    }
}

/// Whether a group that was told before is told again, and why.
fn group_occasion(
    known: &Group,
    now: &Alert,
    waited: Duration,
    repeat: Duration,
    deadline: Option<Timestamp>,
    wall: Timestamp,
) -> Option<Occasion> {
    debug_assert_eq!(now.status, Status::Firing);
    if now.severity > known.alert.severity {
        return Some(Occasion::Escalated);
    }
    // The gravest of them may be back soon.
    if now.severity < known.alert.severity && waited >= repeat / 6 {
        return Some(Occasion::Eased);
    }
    // Those that come one after the other are told when they are twice as many, or after a while.
    let grown = now.count > known.alert.count;
    if grown && (now.count >= 2 * known.alert.count || waited >= repeat / 6) {
        return Some(Occasion::Grown);
    }
    let urgency = Urgency {
        severity: now.severity,
        since: now.since,
        deadline,
    };
    let interval = interval(repeat, urgency, wall)?;
    (waited >= interval).then_some(Occasion::Repeated)
}

#[cfg(test)]
mod tests;
