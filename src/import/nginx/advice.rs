//! What is told of a directive that nothing was made of, by its name.

use crate::import::Loss;

/// Whether what another `off` switches off is done here in any case.
pub(super) fn is_on_here(name: &str) -> bool {
    matches!(
        name,
        "proxy_pass_request_body"
            | "proxy_pass_request_headers"
            | "ignore_invalid_headers"
            | "ssl_prefer_server_ciphers"
            | "ssl_session_cache"
            | "chunked_transfer_encoding"
            | "merge_slashes"
            | "http2"
            | "tcp_nodelay"
            | "keepalive_timeout"
            | "absolute_redirect"
    )
}

/// Whether it is missed, and what to do.
#[allow(clippy::too_many_lines)] // a table
pub(super) fn of(name: &str) -> (Loss, &'static str) {
    let none = |advice| (Loss::None, advice);
    let slight = |advice| (Loss::Slight, advice);
    let real = |advice| (Loss::Real, advice);
    match name {
        "user"
        | "pid"
        | "daemon"
        | "master_process"
        | "load_module"
        | "worker_rlimit_nofile"
        | "worker_shutdown_timeout"
        | "pcre_jit"
        | "thread_pool"
        | "env"
        | "lock_file" => none("the service manager's business"),
        "worker_processes" | "worker_cpu_affinity" | "worker_priority" | "events" => {
            none("a thread for each core; see [workers] and limits.connections")
        }
        "sendfile"
        | "sendfile_max_chunk"
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
        | "map_hash_max_size"
        | "variables_hash_max_size"
        | "variables_hash_bucket_size"
        | "proxy_headers_hash_max_size"
        | "proxy_headers_hash_bucket_size"
        | "index"
        | "root"
        | "alias"
        | "autoindex"
        | "etag"
        | "if_modified_since"
        | "open_file_cache"
        | "open_file_cache_valid"
        | "open_file_cache_min_uses"
        | "open_file_cache_errors"
        | "log_not_found"
        | "log_subrequest"
        | "server_tokens"
        | "absolute_redirect"
        | "port_in_redirect"
        | "server_name_in_redirect"
        | "merge_slashes"
        | "msie_padding"
        | "reset_timedout_connection"
        | "lingering_close"
        | "lingering_time"
        | "lingering_timeout"
        | "output_buffers"
        | "postpone_output"
        | "http2"
        | "http2_push_preload"
        | "http2_body_preread_size"
        | "http2_chunk_size"
        | "chunked_transfer_encoding"
        | "recursive_error_pages"
        | "uninitialized_variable_warn"
        | "real_ip_recursive"
        | "ssl" => none("nothing here needs it: requests are passed through as they come"),
        "proxy_buffers"
        | "proxy_buffer_size"
        | "proxy_buffering"
        | "proxy_busy_buffers_size"
        | "proxy_http_version"
        | "proxy_request_buffering"
        | "proxy_max_temp_file_size"
        | "proxy_temp_file_write_size"
        | "proxy_temp_path"
        | "client_body_buffer_size"
        | "client_body_temp_path"
        | "client_header_buffer_size"
        | "client_body_in_file_only"
        | "client_body_in_single_buffer"
        | "fastcgi_temp_path"
        | "uwsgi_temp_path"
        | "scgi_temp_path"
        | "grpc_buffer_size"
        | "grpc_socket_keepalive"
        | "proxy_socket_keepalive"
        | "proxy_ignore_client_abort"
        | "proxy_pass_header"
        | "connection_pool_size"
        | "request_pool_size" => {
            none("bodies are passed on as they come, with buffers of a fixed size")
        }
        "charset" | "charset_types" | "override_charset" | "source_charset" => {
            slight("told clients of a charset where the upstream names none; let it name one")
        }
        "proxy_pass_request_body" | "proxy_pass_request_headers" => {
            slight("a request is passed on as a whole, with its fields and body")
        }
        "ssl_session_cache"
        | "ssl_session_timeout"
        | "ssl_dhparam"
        | "ssl_prefer_server_ciphers"
        | "ssl_ecdh_curve"
        | "ssl_ciphers"
        | "ssl_session_tickets"
        | "ssl_buffer_size"
        | "ssl_verify_depth" => {
            none("policy \"intermediate\" of [tls] is Mozilla's, and settles it")
        }
        "ssl_early_data" => slight("early data (0-RTT) is not taken: it can be replayed"),
        "ssl_conf_command" | "ssl_session_ticket_key" | "ssl_password_file" => {
            real("see [tls]: versions, cipher_suites, groups, tickets, ticket_keys")
        }
        "ssl_stapling"
        | "ssl_stapling_verify"
        | "ssl_stapling_file"
        | "ssl_stapling_responder"
        | "ssl_trusted_certificate"
        | "resolver"
        | "resolver_timeout" => none(
            "staples are fetched (tls.ocsp) or read from the ocsp file beside a chain; names are \
             resolved by the system",
        ),
        "http3" | "http3_hq" | "quic_retry" | "quic_gso" | "quic_active_connection_id_limit" => {
            slight("HTTP/3 is not spoken: clients use HTTP/2")
        }
        "access_log" | "log_format" => slight("see [log.access] for a log of requests"),
        "error_log" => none("what goes wrong is written to standard error; see [log]"),
        "client_max_body_size" => none("nothing that was imported goes by it"),
        "add_header" | "more_set_headers" | "more_clear_headers" | "add_trailer" | "expires"
        | "proxy_hide_header" | "grpc_hide_header" => {
            real("changed fields of responses; see response_headers")
        }
        "proxy_redirect" => none("nothing that was imported goes by it"),
        "proxy_cookie_path" | "proxy_cookie_domain" | "proxy_cookie_flags" => {
            none("nothing that was imported goes by it")
        }
        "sub_filter" | "sub_filter_once" | "sub_filter_types" | "addition_types"
        | "add_before_body" | "add_after_body" | "ssi" | "ssi_types" | "image_filter" => {
            real("changed bodies; let the upstream do it")
        }
        "proxy_intercept_errors" => {
            slight("errors of the upstream are passed on; error_pages are for staunch's own")
        }
        "gzip_vary" | "gzip_buffers" | "gzip_disable" | "brotli_buffers" | "brotli_window"
        | "zstd_buffers" => none("compression sees to it: Vary is always told"),
        "gzip_proxied" | "gzip_http_version" => slight(
            "responses are compressed for proxies too, and never for HTTP/1.0; what says \
             no-transform is not",
        ),
        "gzip_static" | "brotli_static" | "zstd_static" => {
            none("files are not served here; see compression for what upstreams send")
        }
        "gunzip" => slight("a response is not uncompressed for clients that cannot read it"),
        name if ["gzip", "brotli", "zstd"]
            .iter()
            .any(|of| name.starts_with(of)) =>
        {
            none("nothing that was imported goes by it; see compression")
        }
        "limit_req_status" | "limit_conn_status" => {
            slight("what is beyond a quota is answered with 429")
        }
        "limit_req_zone"
        | "limit_conn_zone"
        | "limit_req_log_level"
        | "limit_conn_log_level"
        | "limit_req_dry_run" => none("nothing that was imported goes by it"),
        "limit_req" | "limit_conn" => {
            none("bounded what nginx itself answers, which costs nothing here")
        }
        "limit_rate" | "limit_rate_after" => real("slowed responses down; nothing here does"),
        "keepalive_timeout"
        | "keepalive_requests"
        | "client_header_timeout"
        | "client_body_timeout"
        | "send_timeout"
        | "large_client_header_buffers"
        | "http2_max_concurrent_streams"
        | "keepalive_disable"
        | "http2_idle_timeout" => slight("holds for all sites here; see [timeouts] and [limits]"),
        "proxy_cache" | "proxy_store" => {
            real("kept responses; nothing is cached here: let the upstream, or something between")
        }
        name if name.starts_with("proxy_cache_") => none("nothing is cached here"),
        "proxy_force_ranges" => slight(
            "parts of a response are sent where the upstream sends them: let it serve ranges",
        ),
        "proxy_no_cache" | "proxy_ignore_headers" | "slice" => none("nothing is cached here"),
        "map" | "geo" | "split_clients" | "set" | "map_hash" | "geoip2" | "geoip_country" => {
            slight("defined a variable; where it was used in something that matters, that is told")
        }
        "rewrite" | "try_files" | "error_page" => {
            real("changed which resource answers; let the upstream do it")
        }
        "rewrite_log" => none("there is nothing to log"),
        "location" => none("is gone to from within only, and nothing that was imported does"),
        "ignore_invalid_headers" | "underscores_in_headers" => slight(
            "a field with an underscore in its name is passed on; one that is malformed is refused",
        ),
        "allow" | "deny" | "satisfy" | "auth_basic" | "auth_basic_user_file" | "auth_request" => {
            real("decided who is let in, where nothing is served now")
        }
        "auth_request_set" | "proxy_method" | "proxy_bind" | "mirror" => {
            real("has no equivalent; let the upstream do it")
        }
        "ssl_preread" | "preread_buffer_size" | "proxy_half_close" => {
            none("the greeting is looked at where names decide, and either side may end its half")
        }
        "preread_timeout" => slight("see timeouts.tls_handshake"),
        "proxy_upload_rate" | "proxy_download_rate" => {
            real("slowed connections down; nothing here does")
        }
        "mail" => real(
            "proxied mail; a [[stream]] with `starttls` ends its TLS (docs/streams.md), but asks no \
             auth_http whose server it is: keep nginx where that is needed",
        ),
        "dav_methods" | "dav_ext_methods" | "create_full_put_path" | "flv" | "mp4" => {
            real("served files; nothing here does")
        }
        name if ["fastcgi_param", "uwsgi_param", "scgi_param"].contains(&name) => {
            none("was for what is passed on by another protocol, which is told where that is done")
        }
        _ if READ.contains(&name) => none("nothing that was imported goes by it"),
        _ => real(
            "has no equivalent that the importer knows; see config/staunch.toml for what there is",
        ),
    }
}

/// Those that are read where they matter.
const READ: [&str; 38] = [
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_protocols",
    "ssl_verify_client",
    "ssl_client_certificate",
    "ssl_crl",
    "ssl_reject_handshake",
    "set_real_ip_from",
    "real_ip_header",
    "server_name",
    "upstream",
    "proxy_set_header",
    "proxy_connect_timeout",
    "proxy_read_timeout",
    "proxy_send_timeout",
    "proxy_next_upstream",
    "proxy_next_upstream_tries",
    "proxy_next_upstream_timeout",
    "proxy_ssl_trusted_certificate",
    "proxy_ssl_name",
    "proxy_ssl_certificate",
    "proxy_ssl_certificate_key",
    "proxy_ssl_verify",
    "proxy_ssl_verify_depth",
    "proxy_ssl_server_name",
    "proxy_ssl_session_reuse",
    "proxy_ssl_protocols",
    "proxy_ssl_ciphers",
    "grpc_set_header",
    "grpc_connect_timeout",
    "grpc_read_timeout",
    "grpc_send_timeout",
    "grpc_next_upstream",
    "grpc_ssl_trusted_certificate",
    "grpc_ssl_name",
    "grpc_ssl_certificate",
    "grpc_ssl_certificate_key",
    "grpc_ssl_verify",
];
