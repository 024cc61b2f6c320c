//! staunch: a TLS-terminating reverse proxy that never lets a certificate take a site down.
//!
//! See `ARCHITECTURE.md` for the tree, the way of a request, the way of a certificate, and the
//! laws. A module uses only modules further down in this list; a test holds the house to it.

pub mod cli;
pub mod server;

pub mod admin;
pub mod alert;

pub mod worker;

pub mod serve;

pub mod proxy;

pub mod upstream;

pub mod listen;

pub mod tls;

pub mod cert;

pub mod watch;

pub mod import;

pub mod config;

pub mod wire;

pub mod http;

pub mod clock;
pub mod drain;
pub mod metrics;
pub mod priority;
pub mod state;
pub mod telemetry;
