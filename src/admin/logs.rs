//! The logs, between the configuration that describes them, the telemetry that writes them and the
//! metrics that count what was lost: three that know nothing of each other.

use crate::config;
use crate::metrics::{Registry, names};
use crate::telemetry::{self, Telemetry, access};

/// The program's log, as configured.
pub fn settings(log: &config::Log) -> telemetry::Settings {
    telemetry::Settings {
        level: log.level.clone(),
        format: format(log),
    }
}

/// The access log, as configured.
pub fn access_settings(log: &config::Log) -> access::Settings {
    access::Settings {
        target: match &log.access.to {
            config::AccessLogTarget::Off => access::Target::Off,
            config::AccessLogTarget::Stdout => access::Target::Stdout,
            config::AccessLogTarget::File(path) => access::Target::File(path.clone()),
        },
        sample: log.access.sample,
        format: format(log),
    }
}

fn format(log: &config::Log) -> Option<telemetry::Format> {
    log.format.map(|format| match format {
        config::LogFormat::Human => telemetry::Format::Human,
        config::LogFormat::Json => telemetry::Format::Json,
    })
}

/// Adds the lines that were dropped to every scrape. Once for a registry.
pub fn describe(registry: &Registry, log: &Telemetry, access: &access::AccessLog) {
    let (log, access) = (log.dropped_lines(), access.clone());
    registry.collector(move |scrape| {
        scrape.counter(names::LOG_LINES_DROPPED, &[("log", "program")], log());
        let dropped = access.dropped();
        scrape.counter(names::LOG_LINES_DROPPED, &[("log", "access")], dropped);
    });
}
