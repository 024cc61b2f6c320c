//! What is told of a directive that is not carried over, by its name.

use crate::import::Loss;

/// Whether it is missed, and what to do.
pub(super) fn of(name: &str) -> (Loss, &'static str) {
    let none = |advice| (Loss::None, advice);
    let real = |advice| (Loss::Real, advice);
    match name {
        "user" | "pid" | "daemon" | "master_process" | "load_module" | "worker_rlimit_nofile" => {
            none("the service manager's business")
        }
        "worker_processes" | "worker_cpu_affinity" | "events" => {
            none("a thread for each core; see [workers] and limits.connections")
        }
        "sendfile"
        | "tcp_nopush"
        | "tcp_nodelay"
        | "aio"
        | "directio"
        | "types"
        | "default_type"
        | "types_hash_max_size"
        | "types_hash_bucket_size"
        | "server_names_hash_bucket_size"
        | "server_names_hash_max_size"
        | "map_hash_bucket_size"
        | "charset"
        | "index"
        | "root"
        | "server_tokens"
        | "proxy_buffers"
        | "proxy_buffer_size"
        | "proxy_buffering"
        | "proxy_busy_buffers_size"
        | "proxy_http_version"
        | "proxy_request_buffering"
        | "http2"
        | "proxy_redirect" => {
            none("nothing here needs it: requests are passed through as they come")
        }
        "ssl_session_cache"
        | "ssl_session_timeout"
        | "ssl_dhparam"
        | "ssl_prefer_server_ciphers"
        | "ssl_ecdh_curve"
        | "ssl_ciphers"
        | "ssl_session_tickets"
        | "ssl_conf_command"
        | "ssl_buffer_size"
        | "ssl_early_data" => real(
            "policy \"intermediate\" of [tls] is Mozilla's; set versions, cipher_suites, groups, \
                  tickets there to differ from it",
        ),
        "ssl_stapling"
        | "ssl_stapling_verify"
        | "ssl_trusted_certificate"
        | "resolver"
        | "resolver_timeout" => none(
            "responses are stapled from the ocsp file beside a chain; names are resolved by the system",
        ),
        "access_log" | "error_log" | "log_format" => real("see [log] and [log.access]"),
        "client_max_body_size" => {
            real("bounded bodies (1 MiB where not given); set limits.request_body")
        }
        "add_header" | "more_set_headers" | "expires" | "proxy_hide_header" => {
            real("changed fields of responses; let the upstream send them so")
        }
        "gzip" | "gzip_types" | "gzip_vary" | "gzip_proxied" | "gzip_comp_level"
        | "gzip_min_length" | "gzip_buffers" | "gzip_http_version" | "gzip_disable" | "brotli" => {
            real("compressed responses; let the upstream compress")
        }
        "limit_req_zone" | "limit_req" => {
            real("bounded rates; see limits.client_rate and a site's rate")
        }
        "limit_conn_zone" | "limit_conn" => {
            real("bounded connections; see limits.connections_per_client")
        }
        "map" | "geo" | "split_clients" | "set" => {
            real("defined a variable; what used it was told too")
        }
        "rewrite" | "try_files" | "error_page" => {
            real("changed which resource answers; let the upstream do it")
        }
        "stream" => real("proxied TCP; keep nginx for it"),
        "mail" => real("proxied mail; keep nginx for it"),
        _ => real(
            "has no equivalent that the importer knows; see config/staunch.toml for what there is",
        ),
    }
}
