//! Telling of what happened: the log, the ledger, and whoever subscribed.

use std::sync::Arc;

use tokio::sync::broadcast;
use tracing::{debug, error, info, warn};

use super::memory::Memory;
use crate::cert::ledger::Entry;
use crate::cert::{Event, Fault, Reason, Verified};
use crate::clock::Timestamp;

/// Tells an event to everyone. `quietly`, for the many certificates of a start, it goes to the
/// ledger only: they are in the inventory, and the events that matter would drown.
pub(super) fn announce(
    event: Event,
    quietly: bool,
    events: &broadcast::Sender<Arc<Event>>,
    memory: &mut Memory,
    now: Timestamp,
) {
    log(&event, quietly, now);
    memory.note(Entry::of(&event, now));
    if !quietly {
        // An error means that nobody listens.
        let _unheard = events.send(Arc::new(event));
    }
}

/// Writes an event to the log, at a level that says who must act: an operator (error, warning), or
/// nobody.
fn log(event: &Event, quietly: bool, now: Timestamp) {
    match event {
        Event::Loaded { source, facts } => {
            let (fingerprint, until) = essentials(facts);
            if quietly {
                debug!(%source, %fingerprint, not_after = %until, "certificate loaded");
            } else {
                info!(%source, %fingerprint, not_after = %until, "certificate loaded");
            }
            log_faults(source, facts, now);
        }
        Event::Swapped { source, old, new } => {
            let (fingerprint, until) = essentials(new);
            let replaced = old.facts().fingerprint;
            info!(%source, %fingerprint, not_after = %until, %replaced, "certificate swapped");
            log_faults(source, new, now);
        }
        Event::Rejected { source, rejection } => error!(
            %source,
            file = %rejection.path.display(),
            reason = %rejection.reason,
            detail = rejection.detail,
            help = rejection.help,
            "certificate on disk rejected"
        ),
        Event::HeldBack {
            source,
            fingerprint,
            rejection,
        } => error!(
            %source,
            %fingerprint,
            file = %rejection.path.display(),
            reason = %rejection.reason,
            detail = rejection.detail,
            help = rejection.help,
            "certificate on disk held back"
        ),
        Event::Accepted {
            source,
            fingerprint,
            because,
        } => warn!(%source, %fingerprint, %because, "certificate accepted although it is worse"),
        Event::Recovered { source } => info!(%source, "what is on disk is what is held again"),
        Event::Removed { source } => info!(%source, "certificate let go: its source is gone"),
    }
}

/// What is wrong with a certificate that is taken all the same.
fn log_faults(source: &str, certificate: &Verified, now: Timestamp) {
    for Fault {
        reason,
        detail,
        help,
    } in certificate.faults(now)
    {
        if reason == Reason::Expired {
            error!(%source, %reason, detail, help, "certificate in use has a fault");
        } else {
            warn!(%source, %reason, detail, help, "certificate in use has a fault");
        }
    }
}

fn essentials(certificate: &Verified) -> (crate::cert::Fingerprint, Timestamp) {
    let facts = certificate.facts();
    (facts.fingerprint, facts.validity.not_after)
}
