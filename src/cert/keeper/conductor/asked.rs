//! What an operator asks for: a reload, or that something worse is used.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use tracing::info;

use super::super::gather::in_parallel;
use super::tracked::{Tracked, What};
use super::{AcceptError, Accepted, Conductor, Folders, LoadReport, Mode, Needs, Refusal, Wanted};
use crate::cert::load::Roots;
use crate::cert::source::Files;
use crate::cert::{DiskState, Reason, Rejection};

impl Conductor {
    pub(super) fn reload(&mut self, wanted: Wanted, roots: Arc<Roots>) -> LoadReport {
        self.report = LoadReport::default();
        self.trust(roots);
        self.needs = Needs::new(&wanted.sites);
        self.wanted = wanted;
        let old = std::mem::take(&mut self.folders);
        self.folders = Folders::new(&self.wanted.sources, old, &mut self.watch);
        let found = self.folders.visit_all(&mut self.watch);
        self.apply_found(found);
        let unwanted = self.track_wanted();
        self.gatherer.reader.look_at_mounts();
        self.dirty.extend(0..self.slots());
        self.look(Mode::Asked);
        for slot in 0..self.slots() {
            self.judge_again(slot);
            self.reschedule(slot);
        }
        self.dismiss(unwanted);
        self.publish();
        self.drop_copies();
        self.finish_report()
    }

    /// Verifies everything anew, where other roots are trusted than before.
    fn trust(&mut self, roots: Arc<Roots>) {
        if Arc::ptr_eq(&roots, &self.gatherer.roots) {
            return;
        }
        info!(
            roots = roots.len(),
            "this system trusts other roots than before"
        );
        self.gatherer.roots = roots;
        let now = self.clock.now();
        let tracked: Vec<(u32, &Tracked)> = (0..self.slots())
            .filter_map(|slot| Some((slot, self.tracked[slot as usize].as_ref()?)))
            .collect();
        // What is held and still on disk: what is compared with it is judged by the same roots.
        let again = in_parallel(&tracked, |(slot, tracked)| {
            let reading = self.gatherer.reader.read(&tracked.source);
            let same = Some(reading.parts) == tracked.on_disk.map(|on_disk| on_disk.parts);
            let input = reading.input.ok().filter(|_| same)?;
            let certificate = self.gatherer.load(&input, now).ok()?;
            Some((*slot, certificate))
        });
        for (slot, certificate) in again.into_iter().flatten() {
            if let Some(tracked) = self.get(slot)
                && tracked.standing.learn(&certificate)
            {
                self.stage(slot);
            }
        }
        // And whatever else is on disk, as if it were new.
        for tracked in self.tracked.iter_mut().flatten() {
            tracked.parts = None;
        }
    }

    /// Tracks what is wanted. Returns what is no longer.
    fn track_wanted(&mut self) -> Vec<u32> {
        let wanted = self.wanted_sources();
        let keep: BTreeSet<&Files> = wanted.iter().map(|source| &source.files).collect();
        let unwanted: Vec<u32> = (0..self.slots())
            .filter(|slot| {
                let tracked = self.tracked[*slot as usize].as_ref();
                tracked.is_some_and(|tracked| {
                    let files = &tracked.source.files;
                    // What vanished from a folder that is still wanted has its own rule.
                    let folder = tracked.source.folder.as_deref();
                    let earlier = folder.and_then(|at| self.folders.earlier(files, at));
                    !tracked.source.is_folder() && !keep.contains(files) && earlier.is_none()
                })
            })
            .collect();
        for source in wanted {
            self.track(source);
        }
        self.drop_found_folders();
        unwanted
    }

    /// Lets go of what the configuration no longer names, now that what it names instead is held.
    /// A mistyped path must not leave a configured name without the certificate that it had.
    fn dismiss(&mut self, unwanted: Vec<u32>) {
        for slot in unwanted {
            if self.may_let_go(slot) {
                self.let_go(slot);
                continue;
            }
            let Some(tracked) = self.get(slot) else {
                continue;
            };
            tracked.dismissed = true;
            tracked.vanished = Some(Instant::now());
            let rejection = Rejection {
                reason: Reason::NotConfigured,
                path: tracked.source.files.chain.clone(),
                detail: "the configuration no longer names it, and a name of a site has no other \
                         valid certificate"
                    .to_owned(),
                help:
                    "name it again, or one that takes its place; after a restart it is not served"
                        .to_owned(),
            };
            self.trouble(slot, What::Broken, Arc::new(rejection), false, Mode::Asked);
        }
    }

    fn finish_report(&mut self) -> LoadReport {
        let mut report = std::mem::take(&mut self.report);
        let mut seen = BTreeSet::new();
        report.changed.retain(|source| seen.insert(source.clone()));
        for slot in self.in_order.values() {
            let Some(tracked) = self.tracked[*slot as usize].as_ref() else {
                continue;
            };
            report.sources += usize::from(!tracked.source.is_folder());
            report.held += usize::from(tracked.standing.current().is_some());
            let disk = tracked.standing.disk();
            if disk.state != DiskState::Same {
                report.refused.push(Refusal {
                    source: tracked.source.label.to_string(),
                    reason: disk.reason,
                    detail: disk.detail.clone(),
                });
            }
        }
        report
    }

    pub(super) fn accept(&mut self, source: &str, because: &str) -> Result<Accepted, AcceptError> {
        let called = |slot: &u32| {
            let tracked = self.tracked[*slot as usize].as_ref();
            tracked.is_some_and(|tracked| {
                !tracked.source.is_folder() && tracked.source.is_called(source)
            })
        };
        let Some(slot) = self.in_order.values().copied().find(called) else {
            return Err(AcceptError::UnknownSource(source.to_owned()));
        };
        self.dirty.insert(slot);
        self.look(Mode::Asked);
        let Some(tracked) = self.get(slot) else {
            return Err(AcceptError::UnknownSource(source.to_owned()));
        };
        let waiting = tracked.standing.waiting().map(|(held, _)| Arc::clone(held));
        let changed = waiting.is_some();
        if let Some(certificate) = waiting {
            self.use_worse(slot, certificate, because);
            self.reschedule(slot);
            self.publish();
        }
        let Some(tracked) = self.get(slot) else {
            return Err(AcceptError::UnknownSource(source.to_owned()));
        };
        if let Some(trouble) = &tracked.trouble {
            return Err(AcceptError::CannotBeServed(Arc::clone(&trouble.rejection)));
        }
        let current = tracked.standing.current();
        let current = current.ok_or_else(|| AcceptError::UnknownSource(source.to_owned()))?;
        Ok(Accepted {
            source: tracked.source.label.to_string(),
            fingerprint: current.facts().fingerprint,
            changed,
        })
    }
}
