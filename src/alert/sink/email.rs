//! Mail over SMTP: one message a notification, in plain text.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};

use super::error::{EmailError, SinkError};
use super::secret;
use crate::alert::condition::severity_word;
use crate::alert::message::{Alert, Notification, Status};
use crate::alert::words;
use crate::config::Secret;

/// A server and whom to write to.
pub struct Email {
    server: Arc<str>,
    from: Arc<str>,
    to: Vec<Arc<str>>,
    username: Option<Arc<str>>,
    password: Option<Secret>,
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Email")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Email {
    /// One that trusts this system's roots.
    pub const fn new(
        server: Arc<str>,
        from: Arc<str>,
        to: Vec<Arc<str>>,
        username: Option<Arc<str>>,
        password: Option<Secret>,
    ) -> Self {
        Self {
            server,
            from,
            to,
            username,
            password,
        }
    }

    /// The server, as configured.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends one message, once.
    pub async fn send(&self, told: &Notification) -> Result<(), SinkError> {
        let message = self.message(&told.alert)?;
        let transport = self.transport().await?;
        transport.send(message).await.map_err(EmailError::from)?;
        Ok(())
    }

    fn message(&self, alert: &Alert) -> Result<Message, EmailError> {
        let mailbox = |address: &Arc<str>| {
            address
                .parse::<Mailbox>()
                .map_err(|source| EmailError::Address {
                    address: address.clone(),
                    source,
                })
        };
        let mut builder = Message::builder()
            .from(mailbox(&self.from)?)
            .subject(alert.headline())
            .header(ContentType::TEXT_PLAIN)
            .message_id(None);
        for to in &self.to {
            builder = builder.to(mailbox(to)?);
        }
        // RFC 3834: no out-of-office answers, please.
        let automatic = HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        );
        Ok(builder.raw_header(automatic).body(text(alert))?)
    }

    async fn transport(&self) -> Result<AsyncSmtpTransport<Tokio1Executor>, SinkError> {
        let unreadable = || EmailError::Server(self.server.clone());
        let uri: Uri = self.server.parse().map_err(|_| unreadable())?;
        let host = uri
            .host()
            .filter(|it| !it.is_empty())
            .ok_or_else(unreadable)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let (port, wrapped) = match uri.scheme_str() {
            Some("smtp") => (587, false),
            Some("smtps") => (465, true),
            _ => return Err(unreadable().into()),
        };
        let parameters = Self::parameters(host.clone()).await?;
        let tls = match (&self.username, wrapped) {
            (_, true) => Tls::Wrapper(parameters),
            // A password never goes out in the clear, except to this machine itself.
            (Some(_), false) if !loopback(&host) => Tls::Required(parameters),
            _ => Tls::Opportunistic(parameters),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&*host)
            .port(uri.port_u16().unwrap_or(port))
            .tls(tls)
            // The courier has the deadline.
            .timeout(None);
        if let Some(username) = &self.username {
            let password = match &self.password {
                Some(password) => secret::read(password).await?,
                None => String::new(),
            };
            builder = builder.credentials(Credentials::new(username.to_string(), password));
        }
        Ok(builder.build())
    }

    /// Reads the trusted roots, off this thread, and each time, since they may have changed.
    async fn parameters(host: String) -> Result<TlsParameters, EmailError> {
        Ok(tokio::task::spawn_blocking(|| TlsParameters::new(host)).await??)
    }
}

fn loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|it| it.is_loopback())
}

/// What stands in the mail.
fn text(alert: &Alert) -> String {
    let mut lines = vec![alert.summary.clone(), String::new()];
    if alert.drill {
        lines.insert(
            0,
            "This is a drill: nothing of this is so now.\n".to_owned(),
        );
    }
    if alert.status == Status::Firing {
        lines.push(format!("What to do: {}", alert.next_step));
        lines.push(format!("Runbook: {}", alert.runbook));
        lines.push(String::new());
    }
    lines.push(format!("condition: {}", alert.condition));
    lines.push(format!("severity: {}", severity_word(alert.severity)));
    lines.push(format!("subject: {}", words::clean(&alert.subject)));
    lines.push(format!("since: {}", alert.since));
    if let Some(at) = alert.resolved_at {
        lines.push(format!("resolved: {at}"));
    }
    lines.extend(
        alert
            .labels
            .iter()
            .map(|(name, value)| format!("{name}: {}", words::clean(value))),
    );
    lines.extend(
        alert
            .subjects
            .iter()
            .map(|subject| format!("  - {}", words::clean(subject))),
    );
    lines.join("\n") + "\n"
}
