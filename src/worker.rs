//! One core: its listeners, its runtime, its upstream connections.
