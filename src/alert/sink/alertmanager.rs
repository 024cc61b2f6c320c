//! Alertmanager's v2 API.
//!
//! Alertmanager forgets an alert that it does not hear again, as it should: the sender may be dead.
//! So what stands is posted again every minute with an end a few minutes ahead, and a resolution
//! is the same alert with an end in the past. Grouping people is Alertmanager's own business, but a
//! group of thousands is posted as one all the same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::SinkError;
use super::{secret, webhook};
use crate::alert::condition::severity_word;
use crate::alert::http::Client;
use crate::alert::message::{Alert, Status};
use crate::clock::Timestamp;
use crate::config::Secret;

/// How often what stands is posted again.
pub const EVERY: Duration = Duration::from_secs(60);
/// How long Alertmanager believes it: four repetitions may be lost.
const BELIEVED: i64 = 5 * 60;
/// Alerts in one request.
const BATCH: usize = 200;

/// An Alertmanager.
pub struct Alertmanager {
    /// Its base URL.
    pub url: Arc<str>,
    /// A bearer token.
    pub token: Option<Secret>,
    /// How.
    pub client: Client,
}

impl fmt::Debug for Alertmanager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alertmanager").finish_non_exhaustive()
    }
}

impl Alertmanager {
    /// Posts one alert, on or over. As its severity is a label there, it is another alert when that
    /// has changed, and the one from before is over.
    pub async fn send(&self, alert: &Alert, now: Timestamp) -> Result<(), SinkError> {
        self.post(&as_told(alert, now), now).await
    }

    /// Posts these alerts, on or over.
    pub async fn post(&self, alerts: &[Alert], now: Timestamp) -> Result<(), SinkError> {
        let token = match &self.token {
            Some(token) => Some(secret::read(token).await?),
            None => None,
        };
        let url = format!("{}/api/v2/alerts", self.url.trim_end_matches('/'));
        for batch in alerts.chunks(BATCH) {
            let body = batch.iter().map(|alert| object(alert, now)).collect();
            let request = webhook::post(&url, &Value::Array(body), token.as_deref())?;
            self.client.send(request).await?;
        }
        Ok(())
    }
}

/// What has changed by this alert.
fn as_told(alert: &Alert, now: Timestamp) -> Vec<Alert> {
    let before = alert.previous_severity.map(|severity| Alert {
        severity,
        status: Status::Resolved,
        resolved_at: Some(now),
        ..alert.clone()
    });
    before.into_iter().chain([alert.clone()]).collect()
}

/// One alert. Its labels are its identity there, so only what never changes in its life is one.
fn object(alert: &Alert, now: Timestamp) -> Value {
    let ends = match alert.status {
        Status::Firing => now.plus(BELIEVED),
        Status::Resolved => alert.resolved_at.unwrap_or(now).min(now),
    };
    let mut labels = json!({
        "alertname": alert.condition,
        "severity": severity_word(alert.severity),
        "subject": if alert.id.ends_with("/*") { "*" } else { &alert.subject },
        "service": "staunch",
    });
    for name in ["instance", "drill"] {
        if let Some(value) = alert.labels.get(name) {
            labels[name] = json!(value);
        }
    }
    let mut annotations = json!({
        "summary": alert.summary,
        "next_step": alert.next_step,
        "runbook_url": alert.runbook,
    });
    for (name, value) in &alert.labels {
        if labels.get(name).is_none() {
            annotations[name.as_str()] = json!(value);
        }
    }
    json!({
        "labels": labels,
        "annotations": annotations,
        // An end before the beginning is refused.
        "startsAt": alert.since.min(ends).to_string(),
        "endsAt": ends.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::condition::{Code, Condition};
    use crate::config::Severity;

    #[test]
    fn another_severity_is_another_alert_and_the_one_before_is_over() {
        let at = Timestamp::from_unix(1000);
        let condition = Condition::new(
            Code::UpstreamDown,
            "a",
            Severity::Warning,
            "It is down.",
            "Look.",
        );
        let mut alert = Alert::of(&condition, Severity::Warning, at);
        alert.compare(Severity::Critical);
        let now = at.plus(60);
        let posted: Vec<Value> = as_told(&alert, now)
            .iter()
            .map(|it| object(it, now))
            .collect();
        let of = |it: &Value| (it["labels"]["severity"].clone(), it["endsAt"].clone());
        let later = now.plus(BELIEVED).to_string();
        assert_eq!(
            posted.iter().map(of).collect::<Vec<_>>(),
            [
                (json!("critical"), json!(now.to_string())),
                (json!("warning"), json!(later))
            ]
        );
        alert.compare(Severity::Warning);
        assert_eq!(as_told(&alert, now), [alert]);
    }

    #[test]
    fn an_alert_keeps_its_labels_from_firing_to_resolved() {
        let at = Timestamp::from_unix(1000);
        let condition = Condition::new(
            Code::Expired,
            "a",
            Severity::Critical,
            "It expired.",
            "Renew.",
        )
        .label("not_after", "yesterday");
        let alert = Alert::of(&condition, Severity::Critical, at);
        let firing = object(&alert, at.plus(10));
        let over = object(&alert.resolved(at.plus(60)), at.plus(70));
        assert_eq!(firing["labels"], over["labels"]);
        assert_eq!(firing["endsAt"], "1970-01-01T00:21:50Z");
        assert_eq!(over["endsAt"], at.plus(60).to_string());
        assert_eq!(firing["annotations"]["not_after"], "yesterday");
        assert_eq!(firing["labels"]["alertname"], "expired");
    }
}
