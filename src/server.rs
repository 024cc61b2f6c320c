//! Composition: a configuration becomes a running world; reload; shutdown.
