//! `POST` of one JSON object: the interface's own, Slack's, or PagerDuty's.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};

use super::error::SinkError;
use super::secret;
use crate::alert::http::{Client, HttpError};
use crate::alert::message::{Alert, Notification, Status};
use crate::clock::Timestamp;
use crate::config::{Secret, Severity, WebhookFormat};

/// A URL to post to.
pub struct Webhook {
    /// Where to.
    pub url: Arc<str>,
    /// The body's form.
    pub format: WebhookFormat,
    /// A bearer token; PagerDuty's routing key.
    pub token: Option<Secret>,
    /// How.
    pub client: Client,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of such a URL is often its secret.
        f.debug_struct("Webhook")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// Posts one notification, once.
    pub async fn send(&self, told: &Notification, now: Timestamp) -> Result<(), SinkError> {
        let token = match &self.token {
            Some(token) => Some(secret::read(token).await?),
            None => None,
        };
        let bodies = match self.format {
            WebhookFormat::Json => vec![json!(told.alert)],
            WebhookFormat::Slack => vec![slack(&told.alert)],
            WebhookFormat::PagerDuty => {
                pagerduty(&told.alert, token.as_deref().unwrap_or_default(), now)
            }
        };
        let bearer = token.filter(|_| self.format != WebhookFormat::PagerDuty);
        for body in &bodies {
            let request = post(&self.url, body, bearer.as_deref())?;
            self.client.send(request).await?;
        }
        Ok(())
    }
}

/// A `POST` of JSON.
pub(super) fn post(
    url: &str,
    body: &Value,
    bearer: Option<&str>,
) -> Result<Request<Bytes>, HttpError> {
    let mut request = Request::post(url)
        .header(CONTENT_TYPE, "application/json")
        .body(Bytes::from(body.to_string()))
        .map_err(|_| HttpError::Url("it is malformed"))?;
    if let Some(token) = bearer {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| HttpError::Url("its token holds characters that no header may"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// What Slack, Mattermost and others show.
fn slack(alert: &Alert) -> Value {
    // The three characters that Slack's own format gives a meaning to.
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let sign = match (alert.status, alert.severity) {
        (Status::Resolved, _) => ":white_check_mark:",
        (_, Severity::Information) => ":information_source:",
        (_, Severity::Warning) => ":warning:",
        (_, Severity::Critical) => ":rotating_light:",
    };
    let mut text = format!(
        "{sign} *{}*\n{}",
        escape(&alert.headline()),
        escape(&alert.summary)
    );
    if alert.status == Status::Firing {
        text += &format!("\n*Next step:* {}", escape(&alert.next_step));
        text += &format!("\n*Runbook:* {}", escape(&alert.runbook));
    }
    json!({ "text": text })
}

/// PagerDuty's Events API v2: one event after the other.
fn pagerduty(alert: &Alert, routing_key: &str, now: Timestamp) -> Vec<Value> {
    let dedup_key = dedup_key(alert);
    let resolve = json!({
        "routing_key": routing_key, "event_action": "resolve", "dedup_key": dedup_key,
    });
    if alert.status == Status::Resolved {
        return vec![resolve];
    }
    let severity = match alert.severity {
        Severity::Information => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let headline: String = format!("{} {}", alert.headline(), alert.summary)
        .chars()
        .take(1000)
        .collect();
    let source = alert
        .labels
        .get("instance")
        .map_or("staunch", String::as_str);
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "staunch",
        "payload": {
            "summary": headline,
            "source": source,
            "severity": severity,
            "timestamp": now.to_string(),
            "component": alert.subject,
            "class": alert.condition,
            "custom_details": alert,
        },
    });
    if alert.runbook.starts_with("http") {
        event["links"] = json!([{ "href": alert.runbook, "text": "Runbook" }]);
    }
    // The urgency of an incident there only ever rises: what is less grave now is another incident.
    if alert
        .previous_severity
        .is_some_and(|it| it > alert.severity)
    {
        vec![resolve, event]
    } else {
        vec![event]
    }
}

/// The same for an alert's whole life and no other's; PagerDuty takes 255 characters.
fn dedup_key(alert: &Alert) -> String {
    const MOST: usize = 200;
    let instance = alert.labels.get("instance").map_or("", String::as_str);
    let key = format!("staunch/{instance}/{}", alert.id);
    if key.len() <= MOST {
        return key;
    }
    // FNV-1a, which will be the same in every version: the one that resolves may not be the one
    // that fired.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let beginning: String = key.chars().take(MOST / 4).collect();
    format!("{beginning}…{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::condition::{Code, Condition};

    fn alert() -> Alert {
        let condition = Condition::new(
            Code::Expired,
            "/etc/<a>.pem",
            Severity::Critical,
            "The certificate for a & b expired.",
            "Renew it.",
        );
        Alert::of(&condition, Severity::Critical, Timestamp::from_unix(0))
    }

    #[test]
    fn slack_gets_a_text_that_it_does_not_misread() {
        let body = slack(&alert());
        let text = body["text"].as_str().unwrap();
        assert!(
            text.contains("[CRITICAL] certificate EXPIRED: /etc/&lt;a&gt;.pem"),
            "{text}"
        );
        assert!(text.contains("a &amp; b") && text.contains("*Next step:* Renew it."));
        let over = slack(&alert().resolved(Timestamp::from_unix(60)));
        assert!(over["text"].as_str().unwrap().contains("[RESOLVED]"));
    }

    #[test]
    fn pagerduty_resolves_the_incident_that_it_opened() {
        let now = Timestamp::from_unix(60);
        let one = |alert: &Alert| pagerduty(alert, "key", now).remove(0);
        let opened = one(&alert());
        let over = one(&alert().resolved(now));
        assert_eq!(opened["event_action"], "trigger");
        assert_eq!(opened["payload"]["severity"], "critical");
        assert_eq!(opened["payload"]["timestamp"], "1970-01-01T00:01:00Z");
        assert_eq!(over["event_action"], "resolve");
        assert_eq!(opened["dedup_key"], over["dedup_key"]);
        let drill = one(&alert().as_drill());
        assert_ne!(opened["dedup_key"], drill["dedup_key"]);
        let mut long = alert();
        long.id = "x".repeat(1000);
        assert!(dedup_key(&long).len() <= 255);
    }

    #[test]
    fn pagerduty_opens_a_lesser_incident_in_the_place_of_a_graver_one() {
        let now = Timestamp::from_unix(60);
        let actions = |alert: &Alert| {
            let events = pagerduty(alert, "key", now);
            let of = |it: &Value| {
                (
                    it["event_action"].clone(),
                    it["payload"]["severity"].clone(),
                )
            };
            events.iter().map(of).collect::<Vec<_>>()
        };
        let mut graver = alert();
        graver.compare(Severity::Warning);
        assert_eq!(actions(&graver), [(json!("trigger"), json!("critical"))]);
        let mut lesser = alert();
        lesser.severity = Severity::Warning;
        lesser.compare(Severity::Critical);
        assert_eq!(
            actions(&lesser),
            [
                (json!("resolve"), Value::Null),
                (json!("trigger"), json!("warning"))
            ]
        );
        let said = slack(&lesser);
        let said = said["text"].as_str().unwrap();
        assert!(said.contains("[WARNING, was CRITICAL]"), "{said}");
    }

    #[test]
    fn a_token_is_no_part_of_what_is_shown() {
        let request = post("http://a/", &json!({}), Some("hunter2")).unwrap();
        assert!(!format!("{request:?}").contains("hunter2"));
        assert!(post("http://a/", &json!({}), Some("hunter2\n")).is_err());
    }
}
