//! Every metric's name, help, labels and buckets: the one place to look them up, and to change them
//! with care, because dashboards and alert rules go by them.
//!
//! Labels are bounded: a site goes by its first configured name, a certificate by its file, never
//! anything by what a client sent.

use super::handle::{Counter, Gauge, Histogram};
use super::registry::Registry;

/// A metric's name and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its meaning, in a sentence without a full stop.
    pub help: &'static str,
}

const fn metric(name: &'static str, help: &'static str) -> Metric {
    Metric { name, help }
}

impl Metric {
    /// [`Registry::counter`] of this metric.
    pub fn counter(self, registry: &Registry, labels: &[(&'static str, &str)]) -> Counter {
        registry.counter(self.name, self.help, labels)
    }

    /// [`Registry::gauge`] of this metric.
    pub fn gauge(self, registry: &Registry, labels: &[(&'static str, &str)]) -> Gauge {
        registry.gauge(self.name, self.help, labels)
    }

    /// [`Registry::histogram`] of this metric, with [`SECONDS`].
    pub fn seconds(self, registry: &Registry, labels: &[(&'static str, &str)]) -> Histogram {
        registry.histogram(self.name, self.help, SECONDS, labels)
    }
}

/// Buckets of every duration, in seconds: from a cached answer next door to the default timeouts.
pub const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

// Certificates.

/// Labels: source, name.
pub const CERTIFICATE_NOT_BEFORE: Metric = metric(
    "staunch_certificate_not_before_timestamp_seconds",
    "notBefore of the certificate held, in seconds since the epoch",
);
/// Labels: source, name.
pub const CERTIFICATE_NOT_AFTER: Metric = metric(
    "staunch_certificate_not_after_timestamp_seconds",
    "notAfter of the certificate held, in seconds since the epoch",
);
/// Labels: source, name.
pub const CERTIFICATE_SERVING: Metric = metric(
    "staunch_certificate_serving",
    "1 where a name is answered with the certificate now",
);
/// Labels: source, name.
pub const CERTIFICATE_STALE: Metric = metric(
    "staunch_certificate_stale",
    "1 where what is served is not what is on disk",
);
/// Labels: source, state, reason. Absent where the disk holds what is served.
pub const CERTIFICATE_DISK_FAULT: Metric = metric(
    "staunch_certificate_disk_fault",
    "1 for each source whose files on disk are not used, with the state and the reason code",
);
/// No labels.
pub const CERTIFICATE_SWAPS: Metric = metric(
    "staunch_certificate_swaps_total",
    "Certificates that took the place of another from the same source",
);
/// Labels: reason.
pub const CERTIFICATE_REJECTIONS: Metric = metric(
    "staunch_certificate_rejections_total",
    "Certificates found on disk that cannot be served, by reason code",
);
/// Labels: reason.
pub const CERTIFICATE_HELD_BACK: Metric = metric(
    "staunch_certificate_held_back_total",
    "Certificates found on disk that are worse than what is served, by reason code",
);

// Connections.

/// Labels: outcome, version, resumed.
pub const TLS_HANDSHAKES: Metric = metric(
    "staunch_tls_handshakes_total",
    "TLS handshakes by outcome, protocol version, and whether a session was resumed",
);
/// No labels.
pub const TLS_HANDSHAKE_DURATION: Metric = metric(
    "staunch_tls_handshake_duration_seconds",
    "Time from accept to a finished TLS handshake",
);
/// Labels: listener.
pub const CONNECTIONS: Metric = metric("staunch_connections_total", "Connections accepted");
/// Labels: listener, protocol.
pub const CONNECTIONS_OPEN: Metric = metric(
    "staunch_connections_open",
    "Connections open now, by what is spoken on them",
);
/// Labels: listener.
pub const ACCEPT_ERRORS: Metric = metric(
    "staunch_accept_errors_total",
    "Connections that could not be accepted, for want of file descriptors or memory mostly",
);
/// Labels: limit.
pub const LIMITS_HIT: Metric = metric(
    "staunch_limits_hit_total",
    "Times a configured limit acted, by limit",
);
/// Labels: timeout.
pub const TIMEOUTS: Metric = metric(
    "staunch_timeouts_total",
    "Times a configured timeout acted, by timeout",
);

// Requests.

/// Labels: site, method, code.
pub const REQUESTS: Metric = metric(
    "staunch_requests_total",
    "Requests answered, by site, method and status code",
);
/// Labels: site.
pub const REQUEST_DURATION: Metric = metric(
    "staunch_request_duration_seconds",
    "Time from the head of a request to the end of its response",
);
/// Labels: site.
pub const RECEIVED_BYTES: Metric = metric(
    "staunch_received_bytes_total",
    "Bytes of request bodies received from clients",
);
/// Labels: site.
pub const SENT_BYTES: Metric = metric(
    "staunch_sent_bytes_total",
    "Bytes of response bodies sent to clients",
);
/// No labels.
pub const REQUESTS_IN_FLIGHT: Metric = metric(
    "staunch_requests_in_flight",
    "Requests not yet answered in full",
);
/// No labels.
pub const CLIENT_ABORTS: Metric = metric(
    "staunch_client_aborts_total",
    "Requests whose client went away before the end of the response",
);
/// Labels: kind.
pub const PROXY_ERRORS: Metric = metric(
    "staunch_proxy_errors_total",
    "Requests that staunch answered with an error of its own, or broke off, by cause",
);

/// Labels: outcome.
pub const BASIC_AUTH: Metric = metric(
    "staunch_basic_auth_total",
    "Requests to sites and routes with basic_auth, by outcome",
);
/// Labels: outcome.
pub const FORWARD_AUTH: Metric = metric(
    "staunch_forward_auth_total",
    "Requests to sites and routes with forward_auth, by outcome",
);
/// Labels: file.
pub const USERS: Metric = metric(
    "staunch_basic_auth_users",
    "Users of a file of basic_auth that can be let in",
);
/// Labels: file.
pub const USERS_FAULT: Metric = metric(
    "staunch_basic_auth_file_fault",
    "1 where a file of basic_auth, or a line of it, is not used",
);

/// Labels: coding.
pub const COMPRESSED_RESPONSES: Metric = metric(
    "staunch_compressed_responses_total",
    "Responses that staunch compressed, by content coding",
);
/// Labels: coding.
pub const COMPRESSION_INPUT: Metric = metric(
    "staunch_compression_input_bytes_total",
    "Bytes of response bodies before they were compressed",
);
/// Labels: coding.
pub const COMPRESSION_OUTPUT: Metric = metric(
    "staunch_compression_output_bytes_total",
    "Bytes of response bodies after they were compressed",
);

// Upstreams.

/// Labels: site.
pub const SITE_MAINTENANCE: Metric = metric(
    "staunch_site_maintenance",
    "1 where the site, or a route of it, answers with 503 for maintenance",
);
/// Labels: upstream, server.
pub const UPSTREAM_UP: Metric = metric(
    "staunch_upstream_up",
    "1 where the server is given requests, 0 where it is thought to be down",
);
/// Labels: upstream, server, outcome.
pub const UPSTREAM_REQUESTS: Metric = metric(
    "staunch_upstream_requests_total",
    "Requests sent to a server, or tried to, by outcome",
);
/// Labels: upstream, server.
pub const UPSTREAM_RESPONSE_DURATION: Metric = metric(
    "staunch_upstream_response_duration_seconds",
    "Time from choosing a server to the head of its response",
);
/// Labels: upstream, server.
pub const UPSTREAM_RETRIES: Metric = metric(
    "staunch_upstream_retries_total",
    "Requests sent again because the failure at this server made it safe",
);
/// Labels: upstream, server.
pub const UPSTREAM_CONNECTS: Metric = metric(
    "staunch_upstream_connects_total",
    "Connections opened to a server",
);
/// Labels: upstream, server.
pub const UPSTREAM_REUSED: Metric = metric(
    "staunch_upstream_reused_total",
    "Requests sent to a server on a connection that was kept",
);
/// Labels: upstream, server.
pub const UPSTREAM_IN_FLIGHT: Metric = metric(
    "staunch_upstream_requests_in_flight",
    "Requests that a server is working on",
);
/// Labels: upstream, server.
pub const UPSTREAM_QUEUED: Metric = metric(
    "staunch_upstream_queued",
    "Requests that wait because a server has as many as it may have",
);
/// Labels: upstream, server.
pub const UPSTREAM_EJECTIONS: Metric = metric(
    "staunch_upstream_ejections_total",
    "Times a server was left alone for a while because requests to it failed",
);
/// Labels: upstream, server.
pub const UPSTREAM_CONNECTIONS_OPEN: Metric = metric(
    "staunch_upstream_connections_open",
    "Connections to a server open now, in use or kept",
);

/// Labels: upstream, server.
pub const UPSTREAM_CERTIFICATE_NOT_AFTER: Metric = metric(
    "staunch_upstream_certificate_not_after_timestamp_seconds",
    "When the certificate expires that a server presented last",
);
/// Labels: upstream.
pub const UPSTREAM_CLIENT_CERTIFICATE_NOT_AFTER: Metric = metric(
    "staunch_upstream_client_certificate_not_after_timestamp_seconds",
    "When the certificate expires that servers are shown",
);
/// Labels: upstream.
pub const UPSTREAM_TLS_STALE: Metric = metric(
    "staunch_upstream_tls_stale",
    "1 where the files of TLS to an upstream cannot be used, and what was in use goes on, if anything",
);

// Connections that are passed on byte by byte.

/// Labels: upstream, outcome.
pub const STREAM_CONNECTIONS: Metric = metric(
    "staunch_stream_connections_total",
    "Connections that were passed on byte by byte, by how they ended",
);
/// Labels: upstream.
pub const STREAM_OPEN: Metric = metric(
    "staunch_stream_connections_open",
    "Connections that are passed on byte by byte now",
);
/// Labels: upstream.
pub const STREAM_RECEIVED_BYTES: Metric = metric(
    "staunch_stream_received_bytes_total",
    "Bytes passed on from clients",
);
/// Labels: upstream.
pub const STREAM_SENT_BYTES: Metric = metric(
    "staunch_stream_sent_bytes_total",
    "Bytes passed on to clients",
);
/// Labels: upstream.
pub const STREAM_DURATION: Metric = metric(
    "staunch_stream_duration_seconds",
    "Time from a connection that is passed on to its end",
);

// Operation.

/// Labels: version.
pub const BUILD_INFO: Metric = metric("staunch_build_info", "1, with the version as a label");
/// Labels: outcome.
pub const RELOADS: Metric = metric(
    "staunch_reloads_total",
    "Reloads of the configuration, by outcome",
);
/// Labels: outcome.
pub const UPGRADES: Metric = metric(
    "staunch_upgrades_total",
    "Attempts to let a new process take over, by outcome",
);
/// Labels: outcome.
pub const OCSP_REQUESTS: Metric = metric(
    "staunch_ocsp_requests_total",
    "Questions to OCSP responders, by outcome",
);
/// Labels: status.
pub const OCSP_STAPLES: Metric = metric(
    "staunch_ocsp_staples",
    "Certificates for which there is an OCSP staple or is to be one, by what it says",
);
/// Labels: outcome.
pub const SPANS: Metric = metric(
    "staunch_spans_total",
    "Spans of requests for the collector of traces, by what became of them",
);
/// Labels: kind, file.
pub const TLS_FILE_STALE: Metric = metric(
    "staunch_tls_file_stale",
    "1 where ticket keys, authorities or revocation lists on disk cannot be used",
);
/// Labels: file. Absent where there is no revocation list.
pub const CRL_NEXT_UPDATE: Metric = metric(
    "staunch_client_crl_next_update_timestamp_seconds",
    "When the first of the revocation lists beside these authorities is past its time",
);
/// Labels: alert.
pub const TLS_CLIENT_ALERTS: Metric = metric(
    "staunch_tls_client_alerts_total",
    "TLS alerts that clients sent because they did not like something, during a handshake or after",
);
/// No labels.
pub const RELOAD_SUCCESSFUL: Metric = metric(
    "staunch_last_reload_successful",
    "1 where the last reload was taken, 0 where it was refused",
);
/// Labels: condition, severity.
pub const ALERTS_FIRING: Metric = metric(
    "staunch_alerts_firing",
    "Alerts firing now, by condition and severity",
);
/// Labels: sink, outcome.
pub const ALERT_DELIVERIES: Metric = metric(
    "staunch_alert_deliveries_total",
    "Attempts to deliver an alert, by sink and outcome",
);
/// Labels: log.
pub const LOG_LINES_DROPPED: Metric = metric(
    "staunch_log_lines_dropped_total",
    "Log lines dropped because what they are written to is too slow, or fails",
);

// The process, under the names that all Prometheus users know.

/// No labels.
pub const PROCESS_START_TIME: Metric = metric(
    "process_start_time_seconds",
    "Start of the process, in seconds since the epoch",
);
/// No labels.
pub const PROCESS_CPU: Metric = metric(
    "process_cpu_seconds_total",
    "User and system CPU time spent",
);
/// No labels.
pub const PROCESS_RESIDENT_MEMORY: Metric =
    metric("process_resident_memory_bytes", "Resident memory");
/// No labels.
pub const PROCESS_OPEN_FDS: Metric = metric("process_open_fds", "Open file descriptors");
/// No labels.
pub const PROCESS_MAX_FDS: Metric =
    metric("process_max_fds", "Most file descriptors that may be open");
