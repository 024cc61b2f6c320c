//! `[[alerts.sink]]`: whom to tell, each kind with keys of its own.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::default;
use super::diagnostic::Diagnostic;
use super::read::{At, Show as _, Table};
use super::value::{CallUrl, Label, MailAddress, MailServer, SinkType, Variable};
use super::{Secret, Severity, Sink, SinkKind, WebhookFormat};

/// Reads all of them; no two have one name.
pub(super) fn all(t: &mut Table<'_>) -> Vec<Sink> {
    let cx = t.cx;
    let sinks = t.each("sink", "alerts.sink", sink);
    let mut names = HashSet::new();
    for At { value, span } in &sinks {
        if !names.insert(&value.name) {
            cx.report(
                Diagnostic::error(
                    span.clone(),
                    format!("a second sink with the name `{}`", value.name),
                )
                .help("messages and metrics tell sinks apart by name"),
            );
        }
    }
    sinks.into_iter().map(|sink| sink.value).collect()
}

fn sink(t: &mut Table<'_>, index: usize) -> Option<At<Sink>> {
    const LONGEST_TEST: Duration = Duration::from_secs(400 * 24 * 3600);
    const TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
    let Some(kind) = t.required::<SinkType>("type", "What it is; the keys below depend on it.")
    else {
        t.allow_unknown();
        return None;
    };
    let name: Option<At<Label>> = t.optional(
        "name",
        "What messages and metrics call it. Without it: its type and its place among the sinks, \
         as in `webhook-1`.",
    );
    let minimum = t.or(
        "minimum",
        Severity::Warning,
        "The least severity that is sent.",
    );
    let timeout = t.or_within(
        "timeout",
        default::SINK_TIMEOUT,
        TIMEOUT.0..=TIMEOUT.1,
        "For one attempt.",
    );
    let test_every = t.or_within(
        "test_every",
        Duration::ZERO,
        Duration::ZERO..=LONGEST_TEST,
        "How often it is sent a test alert, whatever `minimum` says; 0: never.",
    );
    for (key, instead) in [("token", "token_file"), ("password", "password_file")] {
        t.refuse(
            key,
            "a secret does not belong in this file",
            &format!("put it into a file of its own and name that with `{instead}`"),
        );
    }
    t.label = format!("a sink of type {}", kind.show());
    let (word, kind) = match kind {
        SinkType::Webhook => ("webhook", webhook(t)),
        SinkType::Alertmanager => ("alertmanager", alertmanager(t)),
        SinkType::Email => ("email", email(t)),
        SinkType::Command => ("command", command(t)),
        SinkType::Heartbeat => ("heartbeat", heartbeat(t)),
    };
    let span = name.as_ref().map_or(&t.span, |name| &name.span).clone();
    let name = match name {
        Some(name) => name.value.0,
        None => format!("{word}-{}", index + 1).into(),
    };
    let value = Sink {
        name,
        kind: kind?,
        minimum,
        timeout,
        test_every: (!test_every.is_zero()).then_some(test_every),
    };
    Some(At { value, span })
}

fn webhook(t: &mut Table<'_>) -> Option<SinkKind> {
    let format = t.or(
        "format",
        WebhookFormat::Json,
        "Form of a webhook's body: one JSON object; `{\"text\": …}` for Slack, Mattermost and \
         others; or PagerDuty's Events API v2.",
    );
    let pagerduty = format == WebhookFormat::PagerDuty;
    let url = match pagerduty && !t.has("url") {
        true => {
            t.exists("url");
            Some(default::PAGERDUTY_URL.into())
        }
        false => url(t),
    };
    let token = token(t);
    if pagerduty && token.is_none() {
        t.cx.report_missing(
            Diagnostic::error(t.span.clone(), "PagerDuty needs a routing key")
                .help("put it into a file and name that with `token_file`"),
        );
    }
    Some(SinkKind::Webhook {
        url: url?,
        format,
        token,
    })
}

fn alertmanager(t: &mut Table<'_>) -> Option<SinkKind> {
    let url = url(t);
    let token = token(t);
    Some(SinkKind::Alertmanager { url: url?, token })
}

fn email(t: &mut Table<'_>) -> Option<SinkKind> {
    let server: Option<MailServer> = t.required(
        "server",
        "Mail server: `smtp://host:port` (STARTTLS where offered) or `smtps://host:port`.",
    );
    let from: Option<MailAddress> = t.required("from", "The sender's address.");
    let to: Option<Vec<MailAddress>> = t.required("to", "The recipients' addresses.");
    let username: Option<At<Arc<str>>> =
        t.optional("username", "User name, where the mail server wants one.");
    let password = secret(t, "password", "password_file", "password_env", PASSWORD);
    match (&username, &password) {
        (Some(name), None) => t.cx.report_missing(
            Diagnostic::error(name.span.clone(), "a user name without a password")
                .help("put the password into a file and name that with `password_file`"),
        ),
        (None, Some(_)) => t.cx.report_missing(
            Diagnostic::error(t.span.clone(), "a password without a user name")
                .help("write `username = …` beside it"),
        ),
        _ => {}
    }
    if to.as_ref().is_some_and(Vec::is_empty) {
        t.cx.report(
            Diagnostic::error(t.span.clone(), "`alerts.sink.to`: nobody to write to")
                .help("write `to = [\"ops@example.com\"]`"),
        );
    }
    Some(SinkKind::Email {
        server: server?.0,
        from: from?.0,
        to: to?.into_iter().map(|address| address.0).collect(),
        username: username.map(|name| name.value),
        password,
    })
}

fn command(t: &mut Table<'_>) -> Option<SinkKind> {
    let mut argv: Vec<Arc<str>> = t.required(
        "argv",
        "A program and its arguments; it gets the alert as JSON on standard input. No shell is \
         involved.",
    )?;
    match argv.first_mut() {
        // As a shell does it: with a slash it is a path, without one it is searched for.
        Some(program) if program.contains('/') => {
            *program = t.cx.folder.join(&**program).to_string_lossy().into();
        }
        Some(program) if !program.is_empty() => {}
        _ => t.cx.report(
            Diagnostic::error(t.span.clone(), "`alerts.sink.argv`: names no program")
                .help("write `argv = [\"/path/to/program\", \"argument\"]`"),
        ),
    }
    Some(SinkKind::Command { argv })
}

fn heartbeat(t: &mut Table<'_>) -> Option<SinkKind> {
    const EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
    let url = url(t);
    let every = t.or_within(
        "every",
        default::HEARTBEAT_EVERY,
        EVERY.0..=EVERY.1,
        "How often a heartbeat's URL is called.",
    );
    Some(SinkKind::Heartbeat { url: url?, every })
}

const PASSWORD: (&str, &str) = (
    "File with the password of `username`.",
    "Environment variable with the password of `username`.",
);

const TOKEN: (&str, &str) = (
    "File with what is sent as `Authorization: Bearer`; PagerDuty's routing key.",
    "Environment variable with the same.",
);

fn url(t: &mut Table<'_>) -> Option<Arc<str>> {
    t.required::<CallUrl>(
        "url",
        "Where a webhook's `POST` goes; Alertmanager's base URL; what a heartbeat calls.",
    )
    .map(|url| url.0)
}

fn token(t: &mut Table<'_>) -> Option<Secret> {
    secret(t, "token", "token_file", "token_env", TOKEN)
}

/// A secret named by file or by environment variable, not both.
pub(super) fn secret(
    t: &mut Table<'_>,
    what: &str,
    file_key: &'static str,
    variable_key: &'static str,
    meanings: (&'static str, &'static str),
) -> Option<Secret> {
    let file: Option<PathBuf> = t.optional(file_key, meanings.0);
    let variable: Option<At<Variable>> = t.optional(variable_key, meanings.1);
    match (file, variable) {
        (Some(_), Some(variable)) => {
            let message = format!("both `{file_key}` and `{variable_key}` name the {what}");
            t.cx.report(Diagnostic::error(variable.span, message).help("take one of them out"));
            None
        }
        (Some(file), None) => Some(Secret::File(file)),
        (None, Some(variable)) => Some(Secret::Environment(variable.value.0)),
        (None, None) => None,
    }
}
