//! The whole of it without input or output: what the world looks like goes in, what people are told
//! comes out. The server turns it with the system's clock, a drill and the tests with their own.

use std::sync::Arc;

use crate::cert::{Event, Report};
use crate::config::Alerts;

use super::clockwatch::{ClockWatch, Moment};
use super::condition::Condition;
use super::engine::Engine;
use super::evaluate::{Coverage, Known, World, evaluate};
use super::memory::Memory;
use super::message::Notification;

/// The part of the world that others know.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The inventory.
    pub reports: Vec<Report>,
    /// Which certificate answers for each name of a site.
    pub coverage: Vec<Coverage>,
    /// What the keeper of certificates finds wrong with its own work.
    pub degraded: Vec<Condition>,
}

/// Memory, doubt about the clock, and the engine.
#[derive(Clone, Debug)]
pub struct Judge {
    /// Habits and differences.
    pub memory: Memory,
    /// Whether the clock is believed.
    pub clock: ClockWatch,
    /// What fires.
    pub engine: Engine,
    /// What was found at the last look.
    pub known: Known,
}

impl Judge {
    /// Learns from what happened to a certificate.
    pub fn learn(&mut self, event: &Event, at: Moment) {
        self.memory.observe(event, at.wall);
        if let Event::Swapped { source, .. } | Event::Removed { source } = event {
            // It may have another habit now.
            self.known.forget(source);
        }
    }

    /// Looks at the world, and says what is to be told. `pinned` is what others detected.
    pub fn tick(
        &mut self,
        at: Moment,
        observed: &Observed,
        pinned: Vec<Condition>,
        config: &Alerts,
    ) -> Vec<Notification> {
        let held = observed
            .reports
            .iter()
            .filter_map(|it| it.certificate.as_ref());
        let verdict = self.clock.judge(at, held.map(|it| it.not_before).min());
        self.memory.forget_old(verdict.now);
        let world = World {
            now: verdict.now,
            clock: verdict.doubt.as_deref(),
            reports: &observed.reports,
            coverage: &observed.coverage,
            config,
            memory: &self.memory,
        };
        let mut conditions = evaluate(&world, &mut self.known);
        let elsewhere = observed.degraded.iter().cloned().chain(pinned);
        conditions.extend(elsewhere.map(Arc::new));
        self.engine.tick(at, conditions)
    }
}
