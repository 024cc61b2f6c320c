//! What the passing of time brings: troubles that last, entries that stay away, and certificates
//! that begin and end.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tracing::{error, info};

use super::pace::Step;
use super::tracked::What;
use super::{Conductor, Mode, Verdict};
use crate::cert::Event;
use crate::cert::source::Source;
use crate::priority;

impl Conductor {
    /// Does what has come due at this time.
    pub(super) fn check_timers(&mut self) {
        let now = Instant::now();
        let (mut looked, mut missed) = (HashSet::new(), Vec::new());
        while let Some(&(at, slot)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            let Some(tracked) = self.get(slot) else {
                continue;
            };
            tracked.timer = None;
            if tracked.again.take_if(|again| *again <= now).is_some() {
                self.dirty.insert(slot);
            }
            let is_missed = self.is_missed(slot, now, &mut looked);
            self.check_trouble(slot, now);
            match is_missed {
                true => missed.push(slot),
                false => self.reschedule(slot),
            }
            priority::breathe();
        }
        // However long that took, all else has its turn before they are looked at again. Perhaps
        // others will cover their names by then.
        let now = Instant::now();
        for slot in missed {
            if let Some(since) = self.get(slot).and_then(|it| it.vanished.as_mut()) {
                *since = now;
            }
            self.reschedule(slot);
        }
    }

    fn check_trouble(&mut self, slot: u32, now: Instant) {
        let timing = self.timing;
        let Some(trouble) = self.get(slot).and_then(|tracked| tracked.trouble.as_ref()) else {
            return;
        };
        let (show, tell) = (trouble.show_at(&timing), trouble.tell_at(&timing));
        if show <= now {
            self.show(slot);
        }
        if tell <= now {
            self.tell(slot);
        }
    }

    /// An entry that has been gone from its folder for long enough is let go, unless that would
    /// leave a configured name without a valid certificate: then it is missed.
    fn is_missed(&mut self, slot: u32, now: Instant, looked: &mut HashSet<PathBuf>) -> bool {
        let grace = self.timing.grace;
        let since = self.get(slot).and_then(|tracked| tracked.vanished);
        if since.is_none_or(|since| now < since + grace) {
            return false;
        }
        self.look_once_more(slot, looked);
        if self
            .get(slot)
            .is_none_or(|tracked| tracked.vanished.is_none())
        {
            return false;
        }
        let may_go = self.may_let_go(slot);
        if may_go {
            self.let_go(slot);
        }
        !may_go
    }

    /// An event may be missed, and a certificate that is there is not to be let go for that.
    fn look_once_more(&mut self, slot: u32, looked: &mut HashSet<PathBuf>) {
        let Some(source) = self.get(slot).map(|tracked| Arc::clone(&tracked.source)) else {
            return;
        };
        if let Some(folder) = &source.folder {
            let found = (self.folders).look_for(&source.files, folder, looked, &mut self.watch);
            self.apply_found(found);
        }
        if self.folders.hold(&source.files) {
            self.track(Source::clone(&source));
        }
    }

    pub(super) fn may_let_go(&mut self, slot: u32) -> bool {
        let Some(tracked) = self.tracked.get(slot as usize).and_then(Option::as_ref) else {
            return true;
        };
        let Some(current) = tracked.standing.current() else {
            return true;
        };
        let folder = tracked.source.folder.as_deref();
        let files = &tracked.source.files;
        if folder.is_some_and(|folder| self.folders.is_lost(folder, files)) {
            return false;
        }
        let needing = self.needs.covered_by(current);
        if needing.is_empty() {
            return true;
        }
        // What was let go just now does not stand in for it.
        self.publish();
        let inventory = self.shared.inventory.load();
        let now = self.clock.now();
        needing
            .iter()
            .all(|host| inventory.is_covered_without(slot, host, now))
    }

    /// Removes the copies of what was let go, and of what is no longer configured. Either may only be
    /// missing by mistake, so that takes a while.
    pub(super) fn forget_strangers(&mut self) {
        let now = Instant::now();
        let departed = self.departed.extract_if(|_, at| *at <= now);
        let departed: Vec<_> = departed.map(|(files, _)| files).collect();
        if !departed.is_empty() {
            self.memory.forget(departed);
        }
        if self.forget_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let strangers = self.memory.strangers(self.by_files.keys()).into_iter();
        let unknown: Vec<_> = strangers
            .filter(|(files, folder)| {
                let wanted = folder
                    .as_deref()
                    .and_then(|at| self.folders.earlier(files, at));
                wanted.is_none()
            })
            .map(|(files, _)| files)
            .collect();
        if !unknown.is_empty() {
            info!(
                sources = unknown.len(),
                "copies of certificates that are no longer configured are removed"
            );
            self.memory.forget(unknown);
        }
    }

    pub(super) fn let_go(&mut self, slot: u32) {
        let Some(tracked) = self.untrack(slot) else {
            return;
        };
        let files = tracked.source.files.clone();
        self.departed
            .insert(files, Instant::now() + self.timing.forget);
        let source = Arc::clone(&tracked.source.label);
        self.report.removed.push(source.to_string());
        if tracked.standing.current().is_some() || tracked.told.is_some() {
            self.announce(Event::Removed { source }, false);
        }
    }

    /// Judges again where the clock has made a certificate better or worse. What is served does
    /// not wait for this: validity is looked at for each handshake. A clock that leapt ahead may
    /// come back, and what would be let go by it is needed then.
    pub(super) fn check_clock(&mut self) {
        let now = self.clock.now();
        match self.pace.look(Instant::now(), now, self.timing.steady) {
            Step::Steady => {}
            Step::Doubtful => return,
            Step::Back => {
                // What seemed to be behind lies ahead again.
                for slot in 0..self.slots() {
                    self.stage(slot);
                }
                return;
            }
        }
        while let Some(&(at, slot)) = self.turns.first()
            && at <= now
        {
            self.turns.pop_first();
            let Some(tracked) = self.get(slot) else {
                continue;
            };
            let label = Arc::clone(&tracked.source.label);
            if let Some(current) = tracked.standing.current()
                && current.facts().validity.not_after.plus(1) == at
            {
                error!(
                    source = %label,
                    fingerprint = %current.facts().fingerprint,
                    not_after = %current.facts().validity.not_after,
                    "a certificate that is held has expired"
                );
            }
            self.judge_again(slot);
            self.stage(slot);
        }
    }

    /// Whether what is held back is still worse.
    pub(super) fn judge_again(&mut self, slot: u32) {
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some((waiting, _)) = tracked.standing.waiting() else {
            return;
        };
        let waiting = Arc::clone(waiting);
        let reason = tracked.standing.disk().reason;
        match self.verdict(slot, &waiting) {
            Some(Verdict::Same | Verdict::Take) => self.take(slot, waiting, Mode::Watching),
            Some(Verdict::HoldBack(rejection)) if reason != Some(rejection.reason) => {
                let what = What::Worse(waiting);
                self.trouble(slot, what, Arc::new(rejection), false, Mode::Asked);
            }
            Some(Verdict::HoldBack(_)) | None => {}
        }
    }
}
