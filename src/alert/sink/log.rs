//! The log: always there, told first, and never in the way.

use crate::alert::message::{Notification, Status};
use crate::config::Severity;

/// Writes one event. Its level says who must act: an error is for now, a warning for today.
pub fn write(told: &Notification) {
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                target: "staunch::alert",
                condition = %told.alert.condition,
                subject = told.alert.subject,
                status = told.alert.status.word(),
                occasion = ?told.occasion,
                since = %told.alert.since,
                next_step = told.alert.next_step,
                drill = told.alert.drill,
                "{}",
                told.alert.summary,
            )
        };
    }
    match (told.alert.status, told.alert.severity) {
        (Status::Resolved, _) | (_, Severity::Information) => event!(info),
        (_, Severity::Warning) => event!(warn),
        (_, Severity::Critical) => event!(error),
    }
}
