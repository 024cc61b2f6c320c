//! The table of everything that a certificate on disk can do wrong, and what becomes of it.

mod accepted;
mod anything;
mod broken;
mod chains;
mod corpus;
mod facts;
