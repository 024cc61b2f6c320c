//! Certificates that clients refused: staunch goes back to the one before, and stays there.

use std::sync::Arc;

use tracing::warn;

use super::{Conductor, Needs, Setback, Verdict};
use crate::cert::source::Source;
use crate::cert::{Event, Reason, Rejection, Verified};

impl Conductor {
    /// What to do with a certificate found on disk.
    pub(super) fn verdict(&self, slot: u32, new: &Verified) -> Option<Verdict> {
        let now = self.clock.now();
        let refused = self.memory.refused().contains(&new.facts().fingerprint);
        let tracked = self.tracked.get(slot as usize)?.as_ref()?;
        let verdict = tracked.standing.judge(new, &self.needs, now);
        let earlier = tracked.standing.current();
        let goes_on = earlier.is_some_and(|earlier| earlier.facts().validity.contains(now));
        Some(match verdict {
            Verdict::Take if refused && goes_on && !tracked.source.accept_worse => {
                let detail = "clients refused it when it was served, and the one from before is \
                              still valid";
                Verdict::HoldBack(rejection(&tracked.source, detail))
            }
            verdict => verdict,
        })
    }

    /// See [`Keeper::go_back`](super::super::Keeper::go_back).
    pub(super) fn go_back(&mut self, setback: Setback) {
        let now = self.clock.now();
        let Setback {
            source,
            refused,
            earlier,
            because,
        } = setback;
        let called = |slot: &u32| {
            let tracked = self.tracked[*slot as usize].as_ref();
            tracked.is_some_and(|tracked| {
                !tracked.source.is_folder() && tracked.source.label == source
            })
        };
        let Some(slot) = self.in_order.values().copied().find(called) else {
            return;
        };
        let needs: Needs = self.needs.clone();
        let Some(tracked) = self.get(slot) else {
            return;
        };
        let Some(current) = tracked.standing.current() else {
            return;
        };
        let as_meant = current.facts().fingerprint == refused && !tracked.source.accept_worse;
        if !as_meant || !earlier.facts().validity.contains(now) {
            return;
        }
        if !needs.lost(current, &earlier).is_empty() {
            warn!(%source, "clients refuse this certificate, and the one before lacks a name");
            return;
        }
        let because = because.trim_end_matches('.');
        let detail = format!("{because}; the one from before is served again");
        let rejection = Arc::new(rejection(&tracked.source, &detail));
        tracked.trouble = None;
        tracked.told = Some(Arc::clone(&rejection));
        (tracked.standing).go_back(earlier, Arc::clone(&rejection), now);
        self.memory.refuse(refused);
        self.announce(
            Event::HeldBack {
                source,
                fingerprint: refused,
                rejection,
            },
            false,
        );
        self.stage(slot);
        self.reschedule(slot);
        self.publish();
    }
}

fn rejection(source: &Source, detail: &str) -> Rejection {
    let label = &source.label;
    Rejection {
        reason: Reason::RefusedByClients,
        path: source.files.chain.clone(),
        detail: detail.to_owned(),
        help: format!(
            "have it issued with a chain that clients know (certbot: --preferred-chain); or, to \
             serve it all the same: staunch accept {label} --because '...'"
        ),
    }
}
