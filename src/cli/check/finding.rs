//! One thing that was found: lines for people, or an object for programs.

use std::fmt;

use serde::Serialize;

use crate::cert::Report;
use crate::config;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Something cannot be used.
    Error,
    /// It can, but not as it should be.
    Warning,
    /// It may be too little one day.
    Advice,
}

/// What is wrong, where, and what to do.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// A file, a folder, a source, or this machine.
    about: String,
    /// In the configuration, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    /// The code of what is wrong with a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Finding {
    pub(super) fn new(level: Level, about: impl fmt::Display, detail: String, help: &str) -> Self {
        Self {
            level,
            about: about.to_string(),
            line: None,
            column: None,
            reason: None,
            detail,
            help: Some(help.to_owned()),
        }
    }

    /// The same with a code.
    pub(super) fn because(self, reason: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..self
        }
    }

    /// What is on disk for a certificate is not what would be served.
    pub(super) fn refused(report: &Report) -> Self {
        let disk = &report.disk;
        let detail = disk.detail.as_deref();
        Self {
            level: Level::Error,
            about: (disk.file.clone()).unwrap_or_else(|| report.source.join(" + ")),
            line: None,
            column: None,
            reason: Some(disk.reason.map_or("not used", |reason| reason.code())),
            detail: (detail.unwrap_or("it is not what would be served")).to_owned(),
            help: None,
        }
    }

    /// What is wrong with the configuration itself.
    pub(super) fn of_configuration(report: &config::Report) -> Vec<Self> {
        let findings = report.diagnostics().iter().map(|diagnostic| {
            let (line, column) = report.position(diagnostic).unzip();
            Self {
                level: match diagnostic.level {
                    config::Level::Error => Level::Error,
                    config::Level::Warning => Level::Warning,
                },
                about: report.file().display().to_string(),
                line,
                column,
                reason: None,
                detail: diagnostic.message.clone(),
                help: diagnostic.help.clone(),
            }
        });
        findings.collect()
    }
}

/// What stands below the table of names.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{}: ", self.about)?;
        if let Some(reason) = self.reason {
            write!(f, "{reason}: ")?;
        }
        writeln!(f, "{}", self.detail)?;
        match &self.help {
            Some(help) => writeln!(f, "  do: {help}"),
            None => Ok(()),
        }
    }
}
