//! What becomes of what was found at a source: it is taken, held back, or rejected, and told.

use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, warn};

use super::tracked::{Trouble, What};
use super::{AGAIN, Conductor, Gathered, Mode, Verdict};
use crate::cert::faults::shell;
use crate::cert::source::Source;
use crate::cert::{Event, Reason, Rejection, Verified};

impl Conductor {
    /// Takes what was found at a source.
    pub(super) fn process(&mut self, gathered: Gathered, mode: Mode) {
        let now = self.clock.now();
        let Gathered {
            slot,
            parts,
            writings,
            stamp,
            moving,
            pinned,
            news,
        } = gathered;
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.stamp = stamp;
        if moving {
            tracked.again = Some(Instant::now() + AGAIN);
            self.reschedule(slot);
            return;
        }
        tracked.again = None;
        tracked.parts = Some(parts);
        tracked.writings = Some(writings);
        if news.is_none()
            && tracked
                .on_disk
                .is_some_and(|on_disk| on_disk.parts == parts)
        {
            // Written again with what it held.
            tracked.note_on_disk();
        }
        match news {
            None if mode != Mode::Watching => self.hurry(slot),
            None => {}
            Some(Ok(certificate)) => self.offer(slot, certificate, mode),
            Some(Err(rejection)) => {
                let half = rejection.reason == Reason::KeyMismatch;
                self.trouble(slot, What::Broken, rejection, half, mode);
            }
        }
        if let Some(tracked) = self.get(slot)
            && tracked.standing.pin(pinned, now)
        {
            if pinned {
                let detail = tracked
                    .standing
                    .disk()
                    .detail
                    .as_deref()
                    .unwrap_or_default();
                warn!(source = %tracked.source.label, detail, "certificate file is pinned");
            }
            self.stage(slot);
        }
        self.reschedule(slot);
    }

    /// A source gives a certificate.
    fn offer(&mut self, slot: u32, certificate: Arc<Verified>, mode: Mode) {
        match self.verdict(slot, &certificate) {
            None => {}
            Some(Verdict::Same) => self.recover(slot, &certificate),
            Some(Verdict::Take) => self.take(slot, certificate, mode),
            Some(Verdict::HoldBack(rejection)) => {
                let what = What::Worse(certificate);
                self.trouble(slot, what, Arc::new(rejection), false, mode);
            }
        }
    }

    /// What is on disk is what is held, after all.
    fn recover(&mut self, slot: u32, again: &Verified) {
        let now = self.clock.now();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.trouble = None;
        tracked.note_on_disk();
        tracked.standing.recover(again, now);
        self.tell_recovered(slot);
        self.stage(slot);
    }

    /// A certificate takes its place.
    pub(super) fn take(&mut self, slot: u32, certificate: Arc<Verified>, mode: Mode) {
        let now = self.clock.now();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.trouble = None;
        tracked.note_on_disk();
        let old = tracked.standing.take(Arc::clone(&certificate), now);
        let source = Arc::clone(&tracked.source.label);
        let routine = tracked.source.routine;
        if !routine && mode != Mode::Starting {
            warn_of_exposed_key(&tracked.source);
        }
        match old {
            _ if routine => debug!(%source, "certificate renewed, as a matter of routine"),
            Some(old) if mode != Mode::Starting => {
                // A new staple alone is no swap.
                if old.key().cert != certificate.key().cert {
                    self.announce(
                        Event::Swapped {
                            source,
                            old,
                            new: certificate,
                        },
                        false,
                    );
                }
            }
            _ => {
                let facts = certificate;
                self.announce(Event::Loaded { source, facts }, mode == Mode::Starting);
            }
        }
        self.note_changed(slot);
        self.tell_recovered(slot);
        self.unsaved.push_back(slot);
        self.stage(slot);
    }

    /// What is on disk cannot be used, or is worse: nothing changes, for now or for good.
    pub(super) fn trouble(
        &mut self,
        slot: u32,
        what: What,
        rejection: Arc<Rejection>,
        half: bool,
        mode: Mode,
    ) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        // Half of a pair only if the other half was left alone.
        let half = half && tracked.is_half_new();
        let before = tracked.trouble.take();
        tracked.trouble = Some(Trouble::new(what, rejection, half, before.as_ref()));
        if mode != Mode::Watching {
            self.hurry(slot);
        }
        self.reschedule(slot);
    }

    /// Shows and tells what is wrong without waiting longer.
    pub(super) fn hurry(&mut self, slot: u32) {
        self.show(slot);
        self.tell(slot);
    }

    /// The inventory shows what is wrong with a source.
    pub(super) fn show(&mut self, slot: u32) {
        let now = self.clock.now();
        let needs = self.needs.clone();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some(trouble) = tracked.trouble.as_mut().filter(|trouble| !trouble.shown) else {
            return;
        };
        trouble.shown = true;
        let rejection = Arc::clone(&trouble.rejection);
        match &trouble.what {
            What::Broken => {
                let half = trouble.half;
                tracked.standing.reject(&rejection, half, now);
            }
            What::Worse(certificate) => {
                let certificate = Arc::clone(certificate);
                if tracked.source.accept_worse {
                    self.use_worse(slot, certificate, "`accept = true` in the configuration");
                    return;
                }
                tracked
                    .standing
                    .hold_back(certificate, rejection, &needs, now);
            }
        }
        self.stage(slot);
    }

    /// Everybody is told what is wrong with a source, unless they know.
    pub(super) fn tell(&mut self, slot: u32) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some(trouble) = tracked.trouble.as_mut().filter(|trouble| !trouble.told) else {
            return;
        };
        trouble.told = true;
        let rejection = Arc::clone(&trouble.rejection);
        if tracked.told.as_ref() == Some(&rejection) {
            return;
        }
        tracked.told = Some(Arc::clone(&rejection));
        let source = Arc::clone(&tracked.source.label);
        let event = match &trouble.what {
            What::Broken => Event::Rejected { source, rejection },
            What::Worse(certificate) => Event::HeldBack {
                source,
                fingerprint: certificate.facts().fingerprint,
                rejection,
            },
        };
        self.announce(event, false);
    }

    pub(super) fn tell_recovered(&mut self, slot: u32) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        if tracked.told.take().is_some() {
            let source = Arc::clone(&tracked.source.label);
            self.announce(Event::Recovered { source }, false);
        }
    }

    /// Uses a certificate although it is worse.
    pub(super) fn use_worse(&mut self, slot: u32, certificate: Arc<Verified>, because: &str) {
        let now = self.clock.now();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        tracked.trouble = None;
        tracked.told = None;
        tracked.note_on_disk();
        let fingerprint = certificate.facts().fingerprint;
        tracked.standing.accept(certificate, now);
        let source = Arc::clone(&tracked.source.label);
        self.memory.pardon(fingerprint);
        self.announce(
            Event::Accepted {
                source,
                fingerprint,
                because: because.into(),
            },
            false,
        );
        self.note_changed(slot);
        self.unsaved.push_back(slot);
        self.stage(slot);
    }
}

/// A key that everybody on this machine may read is as good as published, but no reason to serve
/// nothing.
fn warn_of_exposed_key(source: &Source) {
    if let Some(key) = source.exposed_key() {
        warn!(
            source = %source.label,
            file = %key.display(),
            help = format!("chmod o-r {}", shell(key)),
            "the private key is readable by everyone on this machine"
        );
    }
}
