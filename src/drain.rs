//! Stopping: phases, and guards that are waited for.
