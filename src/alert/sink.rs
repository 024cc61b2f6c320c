//! The ways to tell people: one file a sink.
//!
//! A sink sends one notification, once, and says whether it arrived. It keeps no queue, sets no
//! deadline and does not retry: that is [`delivery`](super::delivery)'s, the same for all.

pub mod alertmanager;
pub mod command;
pub mod email;
pub mod error;
pub mod heartbeat;
pub mod log;
pub mod secret;
pub mod webhook;

use std::time::Duration;

pub use error::SinkError;

use super::http::Client;
use super::message::{Alert, Notification};
use crate::clock::Timestamp;
use crate::config::SinkKind;

/// A sink that is ready to send.
#[derive(Debug)]
pub enum Sink {
    /// `POST` of one JSON object.
    Webhook(webhook::Webhook),
    /// Alertmanager's v2 API.
    Alertmanager(alertmanager::Alertmanager),
    /// SMTP.
    Email(email::Email),
    /// A program.
    Command(command::Command),
    /// A URL called while all is well.
    Heartbeat(heartbeat::Heartbeat),
}

impl Sink {
    /// Makes one as configured. What is wrong with its address shows when it is used.
    pub fn new(kind: &SinkKind, client: &Client) -> Self {
        let client = client.clone();
        match kind.clone() {
            SinkKind::Webhook { url, format, token } => Self::Webhook(webhook::Webhook {
                url,
                format,
                token,
                client,
            }),
            SinkKind::Alertmanager { url, token } => {
                Self::Alertmanager(alertmanager::Alertmanager { url, token, client })
            }
            SinkKind::Email {
                server,
                from,
                to,
                username,
                password,
            } => Self::Email(email::Email::new(server, from, to, username, password)),
            SinkKind::Command { argv } => Self::Command(command::Command { argv }),
            SinkKind::Heartbeat { url, every } => {
                Self::Heartbeat(heartbeat::Heartbeat { url, every, client })
            }
        }
    }

    /// Sends one notification, once.
    pub async fn send(&self, told: &Notification, now: Timestamp) -> Result<(), SinkError> {
        match self {
            Self::Webhook(sink) => sink.send(told, now).await,
            Self::Alertmanager(sink) => sink.send(&told.alert, now).await,
            Self::Email(sink) => sink.send(told).await,
            Self::Command(sink) => sink.send(told).await,
            Self::Heartbeat(_) => Ok(()),
        }
    }

    /// Says again what stands, to those that forget what they do not hear again.
    pub async fn sustain(&self, standing: &[Alert], now: Timestamp) -> Result<(), SinkError> {
        match self {
            Self::Alertmanager(sink) => sink.post(standing, now).await,
            Self::Heartbeat(sink) => sink.beat().await,
            _ => Ok(()),
        }
    }

    /// How often [`sustain`](Self::sustain) is due.
    pub const fn sustained_every(&self) -> Option<Duration> {
        match self {
            Self::Alertmanager(_) => Some(alertmanager::EVERY),
            Self::Heartbeat(sink) => Some(sink.every),
            _ => None,
        }
    }

    /// Whether it tells people of single alerts.
    pub const fn tells(&self) -> bool {
        !matches!(self, Self::Heartbeat(_))
    }

    /// What it is and where it leads, without secrets.
    pub fn describe(&self) -> String {
        let at = |url: &str| {
            super::http::Endpoint::of(url)
                .map_or_else(|error| error.to_string(), |at| at.to_string())
        };
        match self {
            Self::Webhook(sink) => format!("webhook to {}", at(&sink.url)),
            Self::Alertmanager(sink) => format!("Alertmanager at {}", at(&sink.url)),
            Self::Email(sink) => format!("mail through {}", sink.server()),
            Self::Command(sink) => format!("command {}", sink.program()),
            Self::Heartbeat(sink) => format!("heartbeat to {}", at(&sink.url)),
        }
    }
}

#[cfg(test)]
mod tests;
