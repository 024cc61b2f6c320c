//! The immutable set of certificates held, and the index of names over it.
