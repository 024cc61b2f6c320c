//! An append-only record of everything that happened to certificates.
