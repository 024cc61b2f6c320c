//! Conditions, the engine that fires, repeats and resolves them, and the sinks that tell people.
