//! The real binary, tried as a user would.
