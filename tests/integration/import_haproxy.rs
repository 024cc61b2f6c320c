//! HAProxy's configuration, imported: accepted, told of where it has no equivalent, and served alike.

use std::path::Path;

use crate::support::{Ran, Staunch, run};

/// Writes files into a folder, imports the first of them, and has the result checked.
fn import(folder: &Path, files: &[(&str, &str)]) -> Ran {
    for (name, text) in files {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let main = folder.join(files[0].0);
    let ran = run(Staunch::build()
        .command()
        .args(["import", "haproxy", main.to_str().unwrap()]));
    assert!(!ran.stderr.contains("needs a hand"), "{}", ran.output());
    ran
}

/// The same of one file.
fn import_one(text: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    import(folder.path(), &[("haproxy.cfg", text)])
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// A primary of PostgreSQL that answers by HTTP beside, an API of Kubernetes, a Redis, and names that
/// are told apart in front of all.
const STREAMS: &str = r"global
    maxconn 900
defaults pages
    mode http
    timeout connect 9s
    timeout client 30s
defaults
    mode tcp
    option tcplog
    timeout connect 4s
    timeout client 30m
    timeout server 30m
listen numbers from pages
    bind :7000
    stats enable
listen primary
    bind *:5000
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 3s fall 4 on-marked-down shutdown-sessions
    server pg1 10.0.0.1:5432 maxconn 90 check port 8008
    server pg2 10.0.0.2:5432 check port 8008
    server pg3 10.0.0.3:5432 check weight 0
listen redis
    bind 127.0.0.1:6379 ssl crt redis.pem alpn redis
    timeout tunnel 2h
    balance leastconn
    option tcp-check
    tcp-check expect string role:master
    server r1 10.0.0.1:6379 check
frontend kube
    bind :6443-6444
    tcp-request connection reject if !{ src 10.0.0.0/8 }
    tcp-request connection reject if { src -f banned.txt }
    tcp-request connection reject if { src_conn_cur ge 40 }
    default_backend masters
backend masters
    option httpchk GET /healthz
    server m1 10.0.0.1:6443 check check-ssl verify none
frontend names
    bind :443
    tcp-request inspect-delay 5s
    tcp-request content accept if { req.ssl_hello_type 1 }
    use_backend mail if { req_ssl_sni -i mail.example.com }
    use_backend web if { req.ssl_sni -m end .example.org }
    use_backend %[req.ssl_sni,lower,map(names.map)]
    use_backend odd if { req.payload(0,3) -m str abc }
    default_backend web
backend mail
    server m mail.internal:443 send-proxy-v2 frobnicate
backend web
    server w 127.0.0.1:8443 send-proxy
backend odd
    server o 10.0.0.4
frontend inner from pages
    bind 127.0.0.1:8443 ssl crt redis.pem accept-proxy
    default_backend pages
backend pages from pages
    server p 10.0.0.5:80
frontend closed
    bind :9999
    tcp-request content accept if { req.payload(0,3) -m str abc }
    tcp-request content reject
    default_backend web
";

#[test]
fn connections_of_haproxy_are_streams_here() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("haproxy.cfg", STREAMS),
        ("banned.txt", "# seen today\n10.9.9.9\n10.8.0.0/16\n"),
        (
            "names.map",
            "shop.example.net mail\n.never.example.net web\n",
        ),
    ];
    let ran = import(folder.path(), &files);
    has(
        &ran.stdout,
        &[
            "listen = [\"0.0.0.0:5000\"]\nupstream = \"primary\"\nidle = \"1800s\"\n",
            "{ url = \"tcp://10.0.0.2:5432\" }",
            "health = { fall = 4, interval = \"3s\", port = 8008, status = \"200\", path = \"/primary\" }",
            "connections = 90",
            "tls = true\nalpn = [\"redis\"]\nupstream = \"redis\"\nidle = \"7200s\"\n",
            "balance = \"least-requests\"",
            "listen = [\"0.0.0.0:6443\", \"0.0.0.0:6444\"]",
            "allow = [\"10.0.0.0/8\"]\ndeny = [\"10.9.9.9\", \"10.8.0.0/16\"]",
            "connections_per_client = 40",
            "names = [\"mail.example.com\", \"shop.example.net\"]\npassthrough = \"mail\"",
            "proxy_protocol = \"v2\"",
            "health = { tls = true, path = \"/healthz\" }",
            "timeouts = { connect = \"4s\" }",
            "https = [\"0.0.0.0:443\"]",
            "upstream_connect = \"9s\"",
        ],
    );
    for part in [
        "7000",
        "10.0.0.3",
        "9999",
        "never.example.net",
        "8443",
        "proxy_protocol_from",
    ] {
        assert!(!ran.stdout.contains(part), "{part} is in\n{}", ran.stdout);
    }
    has(
        &ran.stderr,
        &[
            "not imported: tcp-check expect string role:master",
            "not imported: use_backend odd if { req.payload(0,3)",
            "frobnicate: is not known here",
            "weight 0: has no weight",
            "not imported: frontend closed: is left out",
            "on-marked-down: what is open goes on",
            "differs: bind :443: is terminated at this address itself",
        ],
    );
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
}

/// What cannot be asked here is told, and closes no more than it may have been for.
#[test]
fn a_rule_of_haproxy_that_cannot_be_asked_here_is_told() {
    let ran = import_one(
        "defaults\n mode http\nfrontend f\n bind :443 ssl crt /c.pem\n \
         http-request deny if METH_POST { var(txn.a) 1 }\n \
         use_backend b if { req.hdr(a),word(2,:) x }\n default_backend b\n\
         backend b\n server s 127.0.0.1:80\n",
    );
    has(
        &ran.stderr,
        &[
            "haproxy.cfg:5: not imported: http-request deny if METH_POST { var(txn.a) 1 }",
            "haproxy.cfg:6: not imported: use_backend b",
        ],
    );
    has(
        &ran.stdout,
        &["when = { \"{method}\" = \"^POST$\" }\nrespond = 503  # closed"],
    );
}

/// What is done almost alike, or not at all, and has been done in silence by many.
#[test]
fn what_haproxy_does_otherwise_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (
            "haproxy.cfg",
            r#"global
    ca-base /etc/authorities
defaults
    mode http
    errorfile 408 /dev/null
    errorfile 503 missing.http
frontend f
    bind :8443 ssl crt-list certificates strict-sni
    bind :81 accept-proxy
    stats uri /stats
    option originalto
    option forwardfor if-none
    acl named hdr(host) -i a.test
    http-request set-header X-A %[req.hdr(x-b)]
    http-request add-header X-Made 1 if { path /made }
    http-request tarpit if { path /tarpit }
    http-request deny deny_status 429 content-type text/plain string slower if { path /fast }
    http-request set-path /b%[path] if { path /a }
    use_backend c if { hdr(x-made) 1 }
    use_backend b if named || { hdr(host) b.test:8443 }
backend b
    use-server s2 if { path /2 }
    timeout tunnel 2h
    option httpchk /ok
    http-check send hdr X-Check 1
    server s1 10.0.0.1:80 check backup alpn h2,http/1.1
    server s2 10.0.0.2:443 backup ssl verify required ca-file ca.pem verifyhost x
backend c
    server s1 10.0.0.3:80
frontend off
    disabled
    bind :82
    default_backend c
"#,
        ),
        (
            "certificates",
            "a.pem *.a.test\nb.pem [verify required ca-file x]\n",
        ),
    ];
    let ran = import(folder.path(), &files);
    has(
        &ran.stderr,
        &[
            "strict-sni: who asks for a name that no certificate is for",
            "goes by the names that are in it",
            "not imported: bind :8443",
            "some names ask for client certificates",
            "the page of statistics is none here",
            "not imported: option originalto",
            "X-Forwarded-For says who the client is, whatever it says itself",
            "whatever port is behind it in Host",
            "is left out here where its value is empty",
            "is answered at once here, with 500",
            "not imported: use_backend c if { hdr(x-made) 1 }: goes by what cannot be asked here",
            "not imported: use-server s2",
            "GET is asked here",
            "nothing else",
            "backups are used together here",
            "nothing is said to such a client in HAProxy",
            "missing.http cannot be read",
            "frontend off: is disabled",
        ],
    );
    has(
        &ran.stdout,
        &[
            "proxy_protocol_at = [\"0.0.0.0:81\"]",
            "when = { \"{uri}\" = \"^/stats\" }\nrespond = 404",
            "protocol = \"auto\"",
            "ca = \"/etc/authorities/ca.pem\"",
            "timeouts = { tunnel = \"7200s\" }",
            r"{host}:{port}",
            "rewrite = \"/b{path}\"",
        ],
    );
    assert!(!ran.stdout.contains(":82"), "{}", ran.stdout);
}

#[test]
fn what_a_cookie_said_beside_its_name_is_told() {
    let text = "frontend f\n  mode http\n  bind :80\n  default_backend b\nbackend b\n  mode http\n  \
                cookie app insert indirect nocache\n  server s1 127.0.0.1:1 cookie s1\n";
    let ran = import_one(text);
    has(&ran.stdout, &["sticky = \"app\""]);
    has(
        &ran.stderr,
        &[
            "haproxy.cfg:7: differs: cookie app",
            "Cache-Control: private",
        ],
    );
}

/// What HAProxy asks kind by kind, or answers by itself, is so here, too.
#[test]
fn what_haproxy_answers_itself_is_answered_alike() {
    let folder = tempfile::tempdir().unwrap();
    let text = "defaults\n mode http\n errorfile 404 404.http\nfrontend f\n bind :80\n bind :443 ssl crt /c.pem\n \
                monitor-uri /health\n redirect location /moved if { path /both }\n \
                http-request deny deny_status 410 if { path /both }\n \
                http-request redirect scheme https unless { ssl_fc }\n \
                http-request set-header X-Forwarded-Proto https\n \
                http-request set-path /hidden if { path_beg /inner/secret }\n \
                http-request replace-path ^/old/(.*) /inner/\\1\n \
                use_backend inner if { path_beg /inner }\n use_backend named if { hdr(host) Example.com }\n \
                use_backend named if { path nothing }\n\
                listen ready\n bind :81\n monitor-uri /ready\n stats uri /\n\
                listen numbers\n bind 127.0.0.1:9000\n stats enable\n\
                backend inner\n server a 10.0.0.1:80\nbackend named\n server b 10.0.0.2:80\n";
    let page =
        "HTTP/1.0 404 Not Found\r\nContent-Type: text/plain\r\nX-Robots-Tag: none\r\n\r\nno\n";
    let ran = import(folder.path(), &[("haproxy.cfg", text), ("404.http", page)]);
    has(
        &ran.stdout,
        &[
            "respond = 200\nbody = \"\"\"\n<html><body><h1>200 OK</h1>",
            "respond = 410\nresponse_headers = { set = { \"Cache-Control\" = \"no-cache\" } }",
            "\"{path}\" = \"^/old/(?:.*)\", ",
            "respond = 503  # closed",
            "names = [\"example.com\"]",
            "\"0.0.0.0:81\"",
        ],
    );
    assert!(
        !ran.stdout.contains("exact = \"nothing\""),
        "{}",
        ran.stdout
    );
    assert!(!ran.stdout.contains("/moved"), "{}", ran.stdout);
    has(
        &ran.stderr,
        &[
            "a rule behind it looks at the path that it has written anew: what it is for is closed",
            "Example.com }: was only for clients that write the name with these capitals",
            "without the fields of its head: X-Robots-Tag",
            "nothing listens at its own here, 127.0.0.1:9000",
            "staunch answers 502, and HAProxy 503",
            "servers are always told of clients",
        ],
    );
    assert!(
        !ran.stderr
            .contains("not imported: http-request set-header X-Forwarded-Proto"),
        "{}",
        ran.stderr
    );
}

/// Checks, agents, detours and what else is said of servers and of who comes by a proxy.
#[test]
fn what_haproxy_asks_of_servers_is_carried_over_or_told() {
    let text = "defaults\n mode tcp\nfrontend f\n mode http\n bind :80\n \
                tcp-request connection expect-proxy layer4 if { src 10.0.0.0/8 }\n \
                compression algo gzip\n default_backend web\n\
                backend web\n mode http\n option httpchk GET /up\n http-check connect port 8080\n \
                server a 10.0.0.1:443 check ssl verify none ssl-min-ver TLSv1.3 check-sni a.test\n \
                server b 10.0.0.2:443 check addr 10.9.9.9 agent-check agent-port 99 ssl verify none\n\
                listen mail\n bind :25\n option tcp-check\n tcp-check connect port 26 ssl\n \
                tcp-check comment greeted\n \
                server m 10.0.0.3:25 check socks4 127.0.0.1:1080 check-via-socks4 verify none\n";
    let ran = import_one(text);
    has(
        &ran.stdout,
        &[
            "proxy_protocol_from = [\"10.0.0.0/8\"]\nproxy_protocol_at = [\"0.0.0.0:80\"]",
            "minimum = \"1.3\"",
            "port = 8080",
        ],
    );
    has(
        &ran.stderr,
        &[
            "Vary: Accept-Encoding is said of all that could be compressed",
            "agent-port: no agent is asked",
            "addr: checks go to the address of the server itself",
            "check-sni: checks speak as requests do",
            "socks4: a SOCKS proxy stood between",
            "not imported: tcp-check connect port 26 ssl",
            "where checks find no server well, requests are sent all the same",
        ],
    );
    for word in ["10.9.9.9: is not known", "127.0.0.1:1080: is not known"] {
        assert!(!ran.stderr.contains(word), "{}", ran.stderr);
    }
}

/// Who is let past a rejection is not rejected, and all others are.
#[test]
fn who_haproxy_accepts_before_it_rejects_is_let_in() {
    let text = "defaults\n mode http\nfrontend f\n bind :80\n acl near src 10.0.0.0/8\n \
                tcp-request connection accept if near\n tcp-request connection reject\n \
                tcp-request content accept if HTTP\n tcp-request content reject\n default_backend b\n\
                backend b\n server a 10.0.0.1:80\n";
    let ran = import_one(text);
    has(
        &ran.stdout,
        &["allow = [\"10.0.0.0/8\"]", "upstream = \"b\""],
    );
    assert!(!ran.stdout.contains("respond = 403"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("not imported"), "{}", ran.stderr);
}

/// A backend without servers is there for its page, or for its 503.
#[test]
fn a_backend_of_haproxy_without_servers_answers_with_its_page() {
    let folder = tempfile::tempdir().unwrap();
    let text = "defaults\n mode http\n stats uri /numbers\nfrontend f\n bind ipv6@:80 v4v6\n use_backend up if { path /up }\n \
                default_backend none\nbackend up\n errorfile 503 up.http\nbackend none\n";
    let page = "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<p>Up</p>\n";
    let ran = import(folder.path(), &[("haproxy.cfg", text), ("up.http", page)]);
    has(
        &ran.stdout,
        &[
            "http = [\"[::]:80\"]",
            "when = { \"{uri}\" = \"^/numbers\" }\nrespond = 404",
            "exact = \"/up\"\nrespond = 200\nbody = \"\"\"\n<p>Up</p>",
            "respond = 503\n",
        ],
    );
    assert!(!ran.stderr.contains("not imported"), "{}", ran.stderr);
}

/// What is alike but for words, and what browsers and balancers do without.
#[test]
fn what_haproxy_has_beside_sites_is_told_and_costs_no_hand() {
    let ran = import_one(
        "defaults\n mode http\n\
         frontend statistics\n bind :1936\n stats uri /\n \
         http-request use-service prometheus-exporter if { path /metrics }\n \
         default_backend own\n\
         backend own\n server s 127.0.0.1:1936\n\
         frontend f\n bind :443 ssl crt /c.pem\n \
         http-response set-header Alt-Svc 'h3=\":443\"; ma=86400'\n \
         http-response replace-header Set-Cookie ^((?:(?!;\\ [Ss]ecure\\b).)*)$ \\1;\\ Secure if { ssl_fc }\n \
         stick-table type ip size 1k store http_req_rate(10s)\n http-request track-sc0 src\n \
         http-request deny deny_status 429 content-type application/json string '{}' \
         if { sc_http_req_rate(0) gt 20 }\n \
         http-request add-header Forwarded for=%[src];host=%[req.hdr(host)];proto=https\n \
         http-request set-header X-Version h2 if { ssl_fc_alpn -i h2 }\n default_backend b\n\
         frontend quic\n bind quic4@:443 ssl crt /c.pem alpn h3\n default_backend b\n\
         backend b\n balance leastconn\n stick-table type string size 1k\n \
         stick on req.cook(session)\n server s 127.0.0.1:80\n",
    );
    has(
        &ran.stderr,
        &[
            "differs: frontend statistics: a page of statistics",
            "differs: http-response set-header Alt-Svc",
            "differs: frontend quic: is for HTTP/3 alone",
            "not needed: http-request add-header Forwarded",
            "differs: stick on req.cook(session): clients are brought back",
        ],
    );
    has(
        &ran.stdout,
        &[
            "error_pages = { 429 = { body = \"{}\", content_type = \"application/json\" } }",
            "\"{scheme} {protocol}\" = \"^https (?:HTTP/2)\"",
            "balance = \"hash\"\nhash = \"cookie:session\"\n",
            "cookies = { secure = true }",
        ],
    );
    assert!(!ran.stdout.contains("1936"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("least-requests"), "{}", ran.stdout);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
}

/// What would lead nowhere is closed, not written so that nothing starts.
#[test]
fn where_haproxy_redirects_to_no_url_is_told() {
    let ran = import_one(
        "defaults\n mode http\nfrontend f\n bind :443 ssl crt /c.pem\n \
         redirect prefix www.example.com code 301 if { hdr(host) -i example.com }\n \
         default_backend b\nbackend b\n server s 127.0.0.1:80\n",
    );
    has(
        &ran.stderr,
        &["not imported: redirect prefix www.example.com code 301"],
    );
    has(&ran.stdout, &["respond = 503  # closed"]);
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
}

/// Servers that are asked where those of others are down, a cookie of the server's, servers and pages
/// that are none here, and names by expressions.
const SPARES: &str = r#"defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend web
    bind :80
    acl dead nbsrv(app) lt 1
    acl cached nbsrv(cache) gt 0
    use_backend cache if { path_beg /static } cached
    use_backend spare if dead
    use_backend sorry if { path /sorry } { nbsrv(shop) eq 0 }
    use_backend shop if { path_beg /shop/ }
    use_backend odd if { path /odd }
    http-request deny deny_status 503 if dead
    http-request return status 429 if { path_beg /slow } { sc_http_req_rate(0) gt 20 }
    http-request track-sc0 src
    stick-table type ip size 1m expire 10s store http_req_rate(10s)
    default_backend app
backend app
    balance leastconn
    cookie SESSION prefix nocache
    server a 10.0.0.1:80 check cookie a
backend spare
    option httpchk GET /ready
    server b 10.0.0.2:80 check
    server c 10.0.0.3:80
backend cache
    server d 10.0.0.4:80 check
backend shop
    errorfile 200 /tmp/none.http
    server e 10.0.0.5:80 check
backend sorry
    errorfile 503 /tmp/none.http
backend odd
    server f 10.0.0.6:0
frontend names
    mode tcp
    bind :443
    use_backend one if { req.ssl_sni -m reg -i ^(.+\.)?one\.test$ }
    use_backend two if { req.ssl_sni -m reg ^(www\.)?two\.test$ }
    default_backend three
backend one
    mode tcp
    server g 10.0.0.7:443
backend two
    mode tcp
    server h 10.0.0.8:443
backend three
    mode tcp
    server i 10.0.0.9:443
"#;

#[test]
fn servers_that_haproxy_asks_where_others_are_down_are_backups_here() {
    let ran = import_one(SPARES);
    has(
        &ran.stdout,
        &[
            "{ url = \"http://10.0.0.1:80\" },",
            "{ url = \"http://10.0.0.2:80\", backup = true },",
            "{ url = \"http://10.0.0.3:80\", backup = true },",
            "sticky = \"SESSION-server\"",
            "names = [\"*.one.test\", \"one.test\"]",
            "names = [\"www.two.test\", \"two.test\"]",
            "when = { \"{path}\" = \"^/slow\" }\nupstream = \"app\"\nquotas = [\"web\"]",
        ],
    );
    has(
        &ran.stderr,
        &[
            "differs: use_backend spare if dead: the servers of spare are backups of app",
            "not imported: use_backend sorry if { path /sorry } { nbsrv(shop) eq 0 }",
            "not imported: server f 10.0.0.6:0",
            "not imported: errorfile 200",
            "differs: http-request deny deny_status 503 if dead: where no server is up",
        ],
    );
    assert!(!ran.stdout.contains("http://10.0.0.6:0"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("backend spare:"), "{}", ran.stderr);
}

/// Both are applied there, one to what the other wrote.
#[test]
fn a_second_rewrite_of_what_the_first_wrote_is_told() {
    let ran = import_one(
        "defaults\n mode http\nfrontend f\n bind :443 ssl crt /c.pem\n \
         http-request replace-path /a/(.*) /b/\\1\n http-request replace-path /b/(.*) /c/\\1\n \
         default_backend b\nbackend b\n server s 127.0.0.1:80\n",
    );
    has(
        &ran.stderr,
        &[
            "not imported: http-request replace-path /b/(.*) /c/\\1: wrote anew what a rule before it",
            "differs: http-request replace-path /a/(.*) /b/\\1: what it keeps of a path is",
        ],
    );
    has(
        &ran.stdout,
        &["rewrite = \"/b/{c1}\"", "rewrite = \"/c/{c1}\""],
    );
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
}
