//! Why a notification did not arrive: the faults of all sinks, in words for the log and for the
//! people that the other sinks reach.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use crate::alert::http::HttpError;
use crate::alert::words;
use crate::config::Secret;

/// Why a notification did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Over HTTP.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// By mail.
    #[error(transparent)]
    Email(#[from] EmailError),
    /// By a command.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The secret it needs is not there.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The deadline passed.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl SinkError {
    /// Whether trying again with the same notification makes no sense.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Http(error) => error.is_permanent(),
            Self::Email(error) => error.is_permanent(),
            Self::Command(_) | Self::Secret(_) | Self::Timeout(_) => false,
        }
    }

    /// Whether the notification is what was refused, and not everything that is sent now.
    pub fn blames_what_was_sent(&self) -> bool {
        match self {
            Self::Http(error) => error.blames_the_body(),
            Self::Email(error) => error.blames_the_mail(),
            Self::Command(_) | Self::Secret(_) | Self::Timeout(_) => false,
        }
    }
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub enum EmailError {
    /// The server's address cannot be read.
    #[error("{0} is no server for mail: write smtp://host:port or smtps://host:port")]
    Server(Arc<str>),
    /// An address cannot be read.
    #[error("{address} is no mail address: {source}")]
    Address {
        /// As configured.
        address: Arc<str>,
        /// Why not.
        source: lettre::address::AddressError,
    },
    /// No message could be made.
    #[error("no message could be made: {0}")]
    Message(#[from] lettre::error::Error),
    /// The server did not take it.
    #[error("the mail was not taken: {}", cause(.0))]
    Smtp(#[from] lettre::transport::smtp::Error),
    /// Preparing TLS failed in an unforeseen way.
    #[error("TLS could not be prepared: {0}")]
    Prepare(#[from] tokio::task::JoinError),
}

impl EmailError {
    /// Whether trying again makes no sense.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Server(_) | Self::Address { .. } | Self::Message(_) => true,
            Self::Smtp(error) => error.is_permanent(),
            Self::Prepare(_) => false,
        }
    }

    /// Whether the mail is what was refused, and not who sends it, who is to get it, or the server.
    fn blames_the_mail(&self) -> bool {
        match self {
            Self::Message(_) => true,
            // Too large, or refused when it had been read (RFC 5321, section 4.2.3).
            Self::Smtp(error) => {
                (error.status()).is_some_and(|it| matches!(it.into(), 552 | 554_u16))
            }
            Self::Server(_) | Self::Address { .. } | Self::Prepare(_) => false,
        }
    }
}

/// The whole chain of causes, in which the library keeps the server's words.
fn cause(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    words::clean(&text)
}

/// Why a command did not take an alert.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no program.
    #[error("no command is configured")]
    Empty,
    /// It did not start.
    #[error("{program} did not start: {source}")]
    Start {
        /// The program.
        program: Arc<str>,
        /// Why not.
        source: io::Error,
    },
    /// It could not be waited for.
    #[error("{program} was lost: {source}")]
    Wait {
        /// The program.
        program: Arc<str>,
        /// How.
        source: io::Error,
    },
    /// It said that it failed.
    #[error("{program} failed with {status}{}", if output.is_empty() { String::new() } else { format!(": {output}") })]
    Failed {
        /// The program.
        program: Arc<str>,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it said.
        output: String,
    },
}

/// Why there is no secret. Says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("the secret file {} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The variable is not set, or not text.
    #[error("the environment variable {0} is not set")]
    Environment(Arc<str>),
    /// There is nothing in it.
    #[error("{0:?} is empty")]
    Empty(Secret),
}
