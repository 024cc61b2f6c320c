//! Conditions, the engine that fires, repeats and resolves them, and the sinks that tell people.
//!
//! ```text
//! the inventory, the sites ─► evaluate ─┐
//! probe, upstreams, reload ─► Board ────┴─► Engine ─► Notification ─► one Outbox for each sink
//!                                              └────► Listing (GET /api/alerts), metrics, state
//! ```
//!
//! * A [`Condition`](condition::Condition) says what is wrong now; [`evaluate`] finds those that
//!   follow from the inventory and the time, the [`board`] holds those that others detected.
//! * The [`engine`] decides when people are told: once, again, over; one by one or as a group.
//! * [`delivery`] carries it to the [`sink`]s. A sink that hangs delays nothing and no other sink.
//! * [`probe`], [`canary`] and [`refusals`] look for trouble of their own, and pin it to the board.
//! * [`run`] ties it together on the control plane; [`drill`] plays it forward in time.
//!
//! Only the control plane comes here. Nothing that serves a request may wait for an alert.

pub mod backends;
pub mod board;
pub mod canary;
pub mod clockwatch;
pub mod condition;
pub mod delivery;
pub mod drill;
pub mod engine;
pub mod evaluate;
pub mod exercise;
pub mod http;
pub mod judge;
pub mod memory;
pub mod message;
pub mod next_step;
pub mod probe;
pub mod refusals;
pub mod run;
pub mod sink;
pub mod store;
pub mod upstream_tls;
pub mod words;
pub mod world;

#[cfg(test)]
mod postmortem;
#[cfg(test)]
mod rules;
#[cfg(test)]
pub(crate) mod testing;
