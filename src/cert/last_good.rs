//! What was served, kept across restarts.
