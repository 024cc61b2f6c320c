//! The state directory: atomic writes, owner-only files.
