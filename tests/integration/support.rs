//! What the tests are made of.

mod ca;
mod client;
mod disk;
pub mod h2;
mod http;
mod metrics;
mod nginx;
mod origin;
mod port;
mod programs;
mod server;
mod staunch;
mod traffic;
mod wait;

pub use ca::{KeyKind, Leaf, TestCa};
pub use client::{Connection, Tls, is_timeout};
pub use disk::{Placed, Way};
pub use h2::{H2, block_on, request};
pub use http::{Response, json};
pub use metrics::Metrics;
pub use nginx::Nginx;
pub use origin::{Exchange, Gate, Origin, Request};
pub use port::Port;
pub use programs::{Ran, curl, promtool, python, require, run};
pub use server::Server;
pub use staunch::{BINARY, Builder, Site, Staunch};
pub use traffic::Traffic;
pub use wait::{PATIENCE, continually, eventually, until, until_served};

/// The host name that tests with one site use.
pub const HOST: &str = "example.test";
