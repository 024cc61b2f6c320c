//! What people are told: the object of the interface, for one alert or for a group of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::condition::{Code, Condition, severity_word};
use super::words;
use crate::clock::Timestamp;
use crate::config::Severity;

/// Subjects named in a notification that speaks for many.
const NAMED: usize = 20;

/// Whether an alert is on or over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The condition holds.
    Firing,
    /// It is over.
    Resolved,
}

impl Status {
    /// As the interface spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// An alert, as `GET /api/alerts` lists it and as a webhook gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Stays the same from the first notification to the resolution, and is another one for each
    /// code and subject.
    pub id: String,
    /// What is wrong.
    pub condition: Code,
    /// How grave it is.
    pub severity: Severity,
    /// How grave it was when it was last told, where that is not as grave as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_severity: Option<Severity>,
    /// On or over.
    pub status: Status,
    /// With what.
    pub subject: String,
    /// Since when.
    pub since: Timestamp,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// One sentence with the numbers in it.
    pub summary: String,
    /// What to do.
    pub next_step: String,
    /// Where it is explained.
    pub runbook: String,
    /// Whether it is only played.
    pub drill: bool,
    /// More of what is known.
    pub labels: BTreeMap<String, String>,
    /// How many subjects it speaks for; 1 unless it is a group.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: usize,
    /// The first of them, where it is a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
}

const fn one() -> usize {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // what serde asks for
const fn is_one(count: &usize) -> bool {
    *count == 1
}

impl Alert {
    /// The alert of one condition.
    pub fn of(condition: &Condition, severity: Severity, since: Timestamp) -> Self {
        Self {
            id: format!("{}/{}", condition.code, condition.subject),
            condition: condition.code,
            severity,
            previous_severity: None,
            status: Status::Firing,
            subject: condition.subject.clone(),
            since,
            resolved_at: None,
            summary: condition.summary.clone(),
            next_step: condition.next_step.clone(),
            runbook: condition.code.runbook(),
            drill: false,
            labels: condition.labels.clone(),
            count: 1,
            subjects: Vec::new(),
        }
    }

    /// Has the link lead to where the people here read the runbook, if that was said.
    pub fn link(&mut self, runbook: Option<&str>) {
        if let Some(page) = runbook {
            let page = page.split('#').next().unwrap_or(page);
            self.runbook = format!("{page}#{}", self.condition);
        }
    }

    /// The alert of many conditions of one code: the gravest and most urgent speaks, and the first
    /// few are named. `None` when there are none.
    pub fn of_group(code: Code, members: &[(&Condition, Severity, Timestamp)]) -> Option<Self> {
        let mut members = members.to_vec();
        members
            .sort_by_key(|(it, severity, _)| (std::cmp::Reverse(*severity), it.deadline, it.since));
        let (first, severity, _) = *members.first()?;
        let since = members.iter().map(|(_, _, since)| *since).min()?;
        let mut group = Self {
            id: format!("{code}/*"),
            count: members.len(),
            ..Self::of(first, severity, since)
        };
        if members.len() > 1 {
            let subjects = || members.iter().map(|(it, _, _)| it.subject.as_str());
            let named: Vec<&str> = subjects().take(NAMED + 1).collect();
            group.subject = format!("{} {}", members.len(), code.noun().1);
            group.subjects = subjects().take(NAMED).map(str::to_owned).collect();
            group.summary = format!(
                "{} {}: {}. The most urgent: {} Among them: {}{}",
                members.len(),
                code.noun().1,
                code.title(),
                first.summary,
                words::list(&named[..named.len().min(NAMED)], NAMED),
                match members.len().saturating_sub(NAMED) {
                    0 => ".".to_owned(),
                    more => format!(", and {more} more."),
                }
            );
            group.next_step = format!(
                "`GET /api/alerts` on the admin address lists them all. For the most urgent: {}",
                first.next_step
            );
        }
        Some(group)
    }

    /// Says how grave it was when it was last told, if that has changed.
    pub fn compare(&mut self, told: Severity) {
        self.previous_severity = (told != self.severity).then_some(told);
    }

    /// What a sink is told that takes nothing below this severity; `None` where that is nothing. An
    /// alert that falls below it is over there.
    pub fn from(&self, minimum: Severity, now: Timestamp) -> Option<Self> {
        if self.severity >= minimum {
            return Some(self.clone());
        }
        let before = self.previous_severity.filter(|it| *it >= minimum)?;
        Some(Self {
            severity: before,
            previous_severity: None,
            status: Status::Resolved,
            resolved_at: Some(now),
            summary: format!(
                "No longer {}, but still {}: {}",
                severity_word(before),
                match self.severity {
                    Severity::Information => "worth knowing",
                    Severity::Warning => "a warning",
                    Severity::Critical => "critical",
                },
                self.summary
            ),
            ..self.clone()
        })
    }

    /// The same alert, over.
    #[must_use]
    pub fn resolved(mut self, at: Timestamp) -> Self {
        self.status = Status::Resolved;
        self.resolved_at = Some(at);
        self.summary = format!(
            "Over after {}. It was: {}",
            words::span(at.since(self.since)),
            self.summary
        );
        "Nothing.".clone_into(&mut self.next_step);
        self
    }

    /// Marked as only played, under an id that the real alert does not share.
    #[must_use]
    pub fn as_drill(mut self) -> Self {
        self.drill = true;
        self.id = format!("drill/{}", self.id);
        self.labels.insert("drill".to_owned(), "true".to_owned());
        self
    }

    /// One line for a subject or a chat: `[CRITICAL] certificate expiring: a.pem`.
    pub fn headline(&self) -> String {
        let state = match self.status {
            Status::Firing => {
                let word = |severity| severity_word(severity).to_uppercase();
                let was = self
                    .previous_severity
                    .map(|it| format!(", was {}", word(it)));
                word(self.severity) + &was.unwrap_or_default()
            }
            Status::Resolved => "RESOLVED".to_owned(),
        };
        let drill = if self.drill { "DRILL " } else { "" };
        format!(
            "[{drill}{state}] {}: {}",
            self.condition.title(),
            words::clean(&self.subject)
        )
    }
}

/// Why people are told now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Occasion {
    /// It is new.
    Fired,
    /// It is graver than what was told.
    Escalated,
    /// It is less grave than what was told.
    Eased,
    /// A group has more members than was told.
    Grown,
    /// It still holds.
    Repeated,
    /// It is over.
    Resolved,
}

/// Something to tell, to every sink whose floor it reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Why now.
    pub occasion: Occasion,
    /// What.
    pub alert: Alert,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_below_the_floor_of_a_sink_is_over_there() {
        let condition = Condition::new(
            Code::UpstreamDown,
            "a",
            Severity::Warning,
            "It is down.",
            "Look at it.",
        );
        let now = Timestamp::from_unix(60);
        let mut alert = Alert::of(&condition, Severity::Warning, Timestamp::from_unix(0));
        assert_eq!(alert.from(Severity::Critical, now), None);
        alert.compare(Severity::Critical);
        assert_eq!(alert.headline(), "[WARNING, was CRITICAL] upstream down: a");
        assert_eq!(alert.from(Severity::Warning, now), Some(alert.clone()));
        let over = alert.from(Severity::Critical, now).unwrap();
        assert_eq!(
            (over.status, over.severity, over.resolved_at),
            (Status::Resolved, Severity::Critical, Some(now))
        );
        assert_eq!(over.headline(), "[RESOLVED] upstream down: a");
        assert_eq!(
            over.summary,
            "No longer critical, but still a warning: It is down."
        );
    }

    #[test]
    fn a_link_leads_to_the_section_of_the_page_that_was_named() {
        let condition = Condition::new(
            Code::Expired,
            "a.pem",
            Severity::Critical,
            "It is expired.",
            "Renew it.",
        );
        let mut alert = Alert::of(&condition, Severity::Critical, Timestamp::from_unix(0));
        alert.link(None);
        assert_eq!(alert.runbook, Code::Expired.runbook());
        for page in ["https://wiki.test/runbook", "https://wiki.test/runbook#top"] {
            alert.link(Some(page));
            assert_eq!(alert.runbook, "https://wiki.test/runbook#expired");
        }
    }
}
