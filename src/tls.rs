//! TLS policy: the only place that names TLS settings.
