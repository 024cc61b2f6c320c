//! The real binary, tried as a user would.
//!
//! Each file tests one room of the house, and each test is a sentence about it. What they are made
//! of is in [`support`]: authorities, upstreams, clients and the program itself, each in a folder
//! and on ports of its own, so that all tests can run at once. Nothing waits for a fixed time: a
//! test waits for a condition, under a deadline that only a fault reaches.

// A test that cannot go on says so by panicking, in its helpers too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

mod alerts;
mod auth;
mod bodies;
mod certbot;
mod compression;
mod conditions;
mod corpus;
mod deadlines;
mod demo;
mod docs;
mod events;
mod fuzz_corpus;
mod grpc;
mod hostile;
mod http1;
mod http2;
mod import_haproxy;
mod import_nginx;
mod imported;
mod layering;
mod limits;
mod load;
mod names;
mod ocsp;
mod operation;
mod packaging;
mod pools;
mod proxy_protocol;
mod resumption;
mod routing;
mod rules;
mod slow;
mod start;
mod starttls;
mod stream;
mod stream_programs;
mod swap;
mod tls;
mod tls_policy;
mod traces;
mod unverified;
mod upgrade;
mod upstream;
mod upstream_http2;
mod upstream_tls;
mod variables;
mod websocket;
mod websocket_http2;
