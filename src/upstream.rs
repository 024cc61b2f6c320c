//! Servers behind: balancing, connections, retries.
