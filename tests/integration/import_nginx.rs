//! nginx's configuration, imported: accepted, told of where it has no equivalent, and served alike.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Origin, Port, Ran, Staunch, TestCa, require, run, until};

mod ports;

/// Writes files into a folder, imports the first of them, and has the result checked.
fn import(folder: &Path, files: &[(&str, &str)]) -> Ran {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let main = folder.join(files[0].0);
    run(Staunch::build()
        .command()
        .args(["import", "nginx", main.to_str().unwrap()]))
}

const MAIN: &str = r#"user www-data;
events { worker_connections 768; }
http {
    sendfile on;
    keepalive_timeout 65;
    ssl_protocols TLSv1.2 TLSv1.3;
    include sites-enabled/*.conf;
}
"#;

/// What certbot makes of a site.
const SITE: &str = r#"upstream app { server 127.0.0.1:3000 weight=2; server unix:/run/app.sock backup; least_conn; }
server {
    server_name example.com www.example.com;
    add_header X-Frame-Options "SAME; ORIGIN";
    location / {
        proxy_pass http://app;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_read_timeout 90s;
    }
    location /admin/ {
        deny all;
        proxy_pass http://app;
    }
    location ~ \.php$ { fastcgi_pass unix:/run/php.sock; }
    frobnicate on;
    listen [::]:443 ssl ipv6only=on; # managed by Certbot
    listen 443 ssl; # managed by Certbot
    ssl_certificate /etc/letsencrypt/live/example.com/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/example.com/privkey.pem;
}
server {
    if ($host = example.com) { return 301 https://$host$request_uri; }
    listen 80;
    server_name example.com www.example.com;
    return 404;
}
"#;

#[test]
fn what_certbot_made_is_carried_over_and_the_rest_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("nginx.conf", MAIN),
        ("sites-enabled/example.conf", SITE),
        ("sites-enabled/example.conf~", "this is not read"),
    ];
    let ran = import(folder.path(), &files);
    assert_eq!(ran.status.code(), Some(2), "{}", ran.stderr);
    for part in [
        "https = [\"[::]:443\"]",
        "http = [\"0.0.0.0:80\"]",
        "idle = \"65s\"",
        "names = [\"example.com\", \"www.example.com\", \"*\"]",
        "versions = [\"1.2\", \"1.3\"]",
        "[upstream.app]",
        "weight = 2",
        "balance = \"least-requests\"",
        "response = \"90s\"",
        "/example.conf:11",
        "\"X-Frame-Options\" = \"SAME; ORIGIN\"",
        "\"X-Real-IP\" = \"{client_address}\"",
    ] {
        assert!(
            ran.stdout.contains(part),
            "{part} is not in\n{}",
            ran.stdout
        );
    }
    for part in [
        "example.conf:15: not imported: fastcgi_pass unix:/run/php.sock",
        "example.conf:16: not imported: frobnicate on",
        "nginx.conf:4: not needed: sendfile on",
    ] {
        assert!(
            ran.stderr.contains(part),
            "{part} is not in\n{}",
            ran.stderr
        );
    }
    assert!(!ran.stderr.contains("needs a hand"), "{}", ran.stderr);
    // What kept people out is closed, not open.
    let admin = ran.stdout.split("path = \"/admin/\"\n").nth(1).unwrap();
    assert!(admin.starts_with("respond = 403\n"), "{admin}");
    let php = ran.stdout.split("regex = '\\.php$'\n").nth(1).unwrap();
    assert!(php.starts_with("respond = 503 "), "{php}");
}

const STREAM: &str = r#"stream {
    map $ssl_preread_server_name $behind {
        hostnames;
        mail.example.com  mail;
        .db.example.com   10.0.0.8:5432;
        ~^app\d+         mail;
        default           web;
    }
    upstream mail { least_conn; server 10.0.0.9:443; server 10.0.0.10:443 backup; }
    upstream web { server 127.0.0.1:8443; }
    server {
        listen 443;
        listen [::]:443;
        ssl_preread on;
        proxy_pass $behind;
        proxy_protocol on;
        proxy_timeout 1h;
    }
    server {
        listen 6380 ssl;
        ssl_certificate redis.pem;
        ssl_verify_client on;
        ssl_client_certificate ca.pem;
        proxy_ssl on;
        proxy_ssl_verify on;
        proxy_pass 10.0.0.7:6379;
        allow 10.0.0.0/8;
        deny all;
    }
    server { listen 9000-9001; proxy_pass unix:/run/app.sock; }
    server { listen 53 udp; proxy_pass 10.0.0.53:53; }
    server { listen 7000; proxy_pass $server_addr:7001; }
}
"#;

#[test]
fn streams_are_carried_over() {
    let folder = tempfile::tempdir().unwrap();
    let ran = import(folder.path(), &[("nginx.conf", STREAM)]);
    assert!(!ran.stderr.contains("needs a hand"), "{}", ran.stderr);
    for part in [
        "listen = [\"[::]:443\"]\nupstream = \"web\"\nidle = \"3600s\"\n",
        "names = [\"mail.example.com\"]\nupstream = \"mail\"\n",
        "names = [\"db.example.com\", \"*.db.example.com\"]\nupstream = \"10-0-0-8-5432\"\n",
        "{ url = \"tcp://10.0.0.10:443\", backup = true }",
        "balance = \"least-requests\"\nproxy_protocol = \"v1\"",
        "listen = [\"0.0.0.0:6380\"]\ntls = true\n",
        "client_certificates = { mode = \"required\", ca = ",
        "allow = [\"10.0.0.0/8\"]",
        "servers = [\"tls://10.0.0.7:6379\"]",
        "listen = [\"0.0.0.0:9000\", \"0.0.0.0:9001\"]\nupstream = \"run-app-sock\"\n",
    ] {
        assert!(
            ran.stdout.contains(part),
            "{part} is not in\n{}",
            ran.stdout
        );
    }
    for part in [
        "nginx.conf:6: not imported: ~^app\\d+ mail",
        "nginx.conf:31: not imported: listen 53 udp",
        "nginx.conf:32: not imported: server",
    ] {
        assert!(
            ran.stderr.contains(part),
            "{part} is not in\n{}",
            ran.stderr
        );
    }
    assert!(!ran.stdout.contains(":7000"), "{}", ran.stdout);
}

#[test]
fn relative_paths_are_below_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = "server { listen 443 ssl; server_name a.test; ssl_certificate a.pem; }";
    std::fs::write(folder.path().join("a.conf"), text).unwrap();
    let mut command = Staunch::build().command();
    let ran = run(command
        .current_dir(folder.path())
        .args(["import", "nginx", "a.conf"]));
    let chain = format!("chain = \"{}\"", folder.path().join("a.pem").display());
    assert!(ran.stdout.contains(&chain), "{}", ran.stdout);
}

#[test]
fn a_fault_names_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let ran = import(
        folder.path(),
        &[("nginx.conf", "http {\n  include missing.conf;\n}\n")],
    );
    assert_eq!(ran.status.code(), Some(1));
    assert!(
        ran.stderr.contains("nginx.conf:2: includes"),
        "{}",
        ran.stderr
    );
}

/// Ends with the test.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_imported_configuration_answers_as_nginx_does() {
    let nginx = require("nginx");
    let (root, api) = (Origin::named("root"), Origin::named("api"));
    let builder = Staunch::build().leaf(&TestCa::new().issue("one.test"));
    let text = builder.text();
    let file = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        line.unwrap().split('"').nth(1).unwrap().to_owned()
    };
    let port = Port::free();
    let folder = tempfile::tempdir().unwrap();
    let conf = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\n access_log off;\n client_body_temp_path t1; proxy_temp_path t2;\n\
         fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
         server {{\n listen 127.0.0.1:{} ssl;\n server_name one.test;\n\
         ssl_certificate {};\n ssl_certificate_key {};\n proxy_set_header Host $host;\n\
         location / {{ proxy_pass {}; }}\n location /api/ {{ proxy_pass {}; }}\n}}\n}}\n",
        port.address().port(),
        file("chain"),
        file("key"),
        root.url(),
        api.url(),
    );
    let ran = import(folder.path(), &[("nginx.conf", &conf)]);
    let old = Command::new(nginx)
        .args(["-p", folder.path().to_str().unwrap(), "-c", "nginx.conf"])
        .stderr(Stdio::null())
        .spawn()
        .map(Nginx)
        .unwrap();
    let ask = |path: &str| {
        let resolve = format!("one.test:{}:127.0.0.1", port.address().port());
        let url = format!("https://one.test:{}{path}", port.address().port());
        let asked = Command::new("curl")
            .args([
                "-sk",
                "--noproxy",
                "*",
                "--resolve",
                &resolve,
                "-w",
                "%{http_code}",
                &url,
            ])
            .output()
            .unwrap();
        String::from_utf8(asked.stdout).unwrap()
    };
    // Who answered, and with what status.
    let gist = |text: &str| {
        let origin = ["\"root\"", "\"api\""].map(|name| text.contains(name));
        (origin, text[text.len() - 3..].to_owned())
    };
    let paths = ["/", "/api/", "/api/x?y=1", "/apiary", "/a%20b"];
    until("nginx answers", || ask("/").ends_with("200"));
    let before = paths.map(|path| gist(&ask(path)));
    drop(old);
    assert!(
        before.iter().all(|(_, status)| status == "200"),
        "{before:?}"
    );

    let imported = folder.path().join("staunch.toml");
    let state = format!("state_dir = \"state\"\n{}", ran.stdout);
    let state = state.replacen("[listen]\n", "[listen]\nadmin = \"\"\n", 1);
    std::fs::write(&imported, state).unwrap();
    let mut command = builder.command();
    let new = command
        .args(["run", "--config", imported.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .map(Nginx)
        .unwrap();
    until("staunch answers", || ask("/").ends_with("200"));
    assert_eq!(paths.map(|path| gist(&ask(path))), before);
    drop(new);
}

/// An `if` that cannot be asked here is told, with its line, and closes what it kept shut.
#[test]
fn what_an_if_asks_that_cannot_be_asked_here_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let told = |line: &str| {
        let conf = format!(
            "split_clients $remote_addr $part {{ 10% a; * b; }}\n\
             map $host $hosted {{ hostnames; *.x.test 1; }}\n\
             server {{ listen 443 ssl; server_name a.test; ssl_certificate c; ssl_certificate_key k;\n\
             location /x/ {{ proxy_pass http://u; {line} }}\nlocation / {{ proxy_pass http://u; }} }}\n"
        );
        let ran = import(folder.path(), &[("site.conf", &conf)]);
        (ran.stdout, ran.stderr)
    };
    for (line, closed) in [
        ("if ($part = a) { return 403; }", true),
        ("if ($hosted) { return 403; }", true),
        ("if ($upstream_status = 1) { return 403; }", true),
        // What an expression that is wider keeps out is more.
        ("if ($http_x ~ (?=a)b) { return 403; }", false),
        ("if ($http_x ~ (.)\\1) { return 403; }", true),
        ("if (-f /srv/x) { return 403; }", true),
        ("if ($http_x ~ ^(.)) { return 302 /y/$1; }", true),
        ("if ($http_x) { rewrite ^/x/(.*) /y/$1 last; }", false),
        ("if ($http_x) { limit_rate 1k; }", false),
        ("if ($http_x = $http_y) { return 403; }", true),
    ] {
        let (written, said) = told(line);
        assert!(
            said.contains("site.conf:4: not imported: "),
            "{line}\n{said}\n{written}"
        );
        let route = written.split("path = \"/x/\"\n").nth(1).unwrap();
        assert_eq!(
            route.lines().take(2).any(|line| line.contains("# closed")),
            closed,
            "{line}\n{written}"
        );
    }
}

/// A file that closes a site does so here.
#[test]
fn a_file_that_closes_a_site_is_its_maintenance() {
    let folder = tempfile::tempdir().unwrap();
    let conf = "server { listen 443 ssl; server_name a.test; ssl_certificate c; ssl_certificate_key k;\n\
                root /srv; if (-f $document_root/closed.html) { return 503; }\n\
                location / { proxy_pass http://u; } }\n";
    let ran = import(folder.path(), &[("site.conf", conf)]);
    let line = "maintenance = \"/srv/closed.html\"\n";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    assert!(!ran.stderr.contains("not imported: if"), "{}", ran.stderr);
}

/// What is said in a server.
fn in_server(lines: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let server = format!(
        "http {{ server {{ listen 443 ssl; server_name a.test; ssl_certificate /c.pem; \
         ssl_certificate_key /k.pem;\n{lines}\n}} }}\nevents {{}}\n"
    );
    import(folder.path(), &[("nginx.conf", &server)])
}

const SIGN_IN: &str = r#"
location /oauth2/ { proxy_pass http://127.0.0.1:4180; proxy_set_header Host $host; }
location = /oauth2/auth {
    proxy_pass http://127.0.0.1:4180;
    proxy_pass_request_body off;
    proxy_read_timeout 4m;
    proxy_set_header Host $host;
    proxy_set_header Content-Length "";
}
location / {
    auth_request /oauth2/auth;
    error_page 401 = @login;
    auth_request_set $user $upstream_http_x_auth_request_user;
    proxy_set_header X-User $user;
    proxy_pass http://127.0.0.1:8080;
}
location @login { return 302 https://$host/oauth2/start?rd=$request_uri; }
"#;

#[test]
fn where_to_sign_in_is_carried_over() {
    let ran = in_server(SIGN_IN);
    for part in [
        "forward_auth = { upstream = \"127-0-0-1-4180\", path = \"/oauth2/auth\", \
         copy = [\"X-Auth-Request-User\"], sign_in = \"https://{host}/oauth2/start?rd={uri}\", \
         timeout = \"240s\" }",
        "\"X-User\" = \"{header:X-Auth-Request-User}\"",
        "remove = [\"X-Auth-Request-User\"]",
    ] {
        assert!(
            ran.stdout.contains(part),
            "{part} is not in\n{}\n{}",
            ran.stdout,
            ran.stderr
        );
    }
    assert!(!ran.stderr.contains("not imported"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("needs a hand"), "{}", ran.stderr);
}

#[test]
fn the_answer_may_say_where_to_sign_in() {
    let ran = in_server(
        "location = /verify { proxy_pass http://127.0.0.1:9091; }
         location / {
             auth_request /verify;
             auth_request_set $user $upstream_http_remote_user;
             auth_request_set $redirection_url $upstream_http_location;
             proxy_set_header Remote-User $user;
             error_page 401 =302 $redirection_url;
             proxy_pass http://127.0.0.1:8080;
         }",
    );
    let rule = "copy = [\"Remote-User\"], sign_in = \"location\"";
    assert!(ran.stdout.contains(rule), "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stderr.contains("error_page"), "{}", ran.stderr);
}

#[test]
fn what_asks_in_a_way_that_is_not_known_is_closed() {
    for lines in [
        "location / { auth_basic x; proxy_pass http://127.0.0.1:1; }",
        "location / { auth_basic x; auth_basic_user_file $file; proxy_pass http://127.0.0.1:1; }",
        "location / { auth_request $where; proxy_pass http://127.0.0.1:1; }",
        "location = /auth { return 204; } \
         location / { auth_request /auth; proxy_pass http://127.0.0.1:1; }",
        "location = /auth { proxy_pass http://127.0.0.1:2; } location / { satisfy any; \
         auth_request /auth; auth_basic x; auth_basic_user_file f; proxy_pass http://127.0.0.1:1; }",
        "location / { satisfy any; deny 10.0.0.1; allow 10.0.0.0/8; deny all; auth_basic x; \
         auth_basic_user_file f; proxy_pass http://127.0.0.1:1; }",
        "location / { auth_jwt x; proxy_pass http://127.0.0.1:1; }",
    ] {
        let ran = in_server(lines);
        assert_eq!(ran.status.code(), Some(2), "{lines}\n{}", ran.stderr);
        assert!(
            !ran.stdout.contains("upstream = \"127-0-0-1-1\""),
            "{lines}\n{}",
            ran.stdout
        );
        assert!(
            ran.stderr.contains("closed until"),
            "{lines}\n{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("needs a hand"), "{}", ran.stderr);
    }
}

/// nginx as a server in a folder, with what stands in `http`.
fn serve(folder: &Path, http: &str) -> Nginx {
    let conf = format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\n access_log off;\n client_body_temp_path t1; proxy_temp_path t2;\n\
         fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n{http}\n}}\n"
    );
    std::fs::write(folder.join("nginx.conf"), conf).unwrap();
    Command::new(require("nginx"))
        .args(["-p", folder.to_str().unwrap(), "-c", "nginx.conf"])
        .stderr(Stdio::null())
        .spawn()
        .map(Nginx)
        .unwrap()
}

/// Self-signed, of version 1, for no name at all: nginx takes it unless it is told to verify.
#[test]
fn servers_that_nginx_does_not_verify_answer_here_too() {
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/certificates/v1.pem");
    let pem = pem.display();
    let (newer, older, front) = (Port::free(), Port::free(), Port::free());
    let behind = tempfile::tempdir().unwrap();
    let server = |port: &Port, version: &str| {
        format!(
            "server {{ listen {} ssl; ssl_protocols {version}; ssl_certificate {pem};\n\
             ssl_certificate_key {pem}; location / {{ return 200 $ssl_protocol; }} }}\n",
            port.address()
        )
    };
    let servers = server(&newer, "TLSv1.3") + &server(&older, "TLSv1.2");
    let _behind = serve(behind.path(), &servers);

    let builder = Staunch::build().leaf(&TestCa::new().issue("one.test"));
    let text = builder.text();
    let file = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        line.unwrap().split('"').nth(1).unwrap().to_owned()
    };
    let site = format!(
        "server {{ listen {} ssl; server_name one.test; ssl_certificate {}; ssl_certificate_key {};\n\
         location /newer/ {{ proxy_pass https://{}; proxy_ssl_protocols TLSv1.2 TLSv1.3; }}\n\
         location /older/ {{ proxy_pass https://{}; }}\n\
         location /verified/ {{ proxy_pass https://{}; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n\
         proxy_ssl_trusted_certificate {}; }} }}\n",
        front.address(),
        file("chain"),
        file("key"),
        newer.address(),
        older.address(),
        newer.address(),
        file("chain"),
    );
    let ask = |path: &str| {
        let resolve = format!("one.test:{}:127.0.0.1", front.address().port());
        let url = format!("https://one.test:{}{path}", front.address().port());
        let asked = Command::new("curl")
            .args(["-sk", "--noproxy", "*", "--resolve", &resolve])
            .args(["-w", " %{http_code}", &url])
            .output()
            .unwrap();
        String::from_utf8(asked.stdout).unwrap()
    };
    let agree = |who: &str| {
        until(who, || ask("/newer/") == "TLSv1.3 200");
        assert_eq!(ask("/older/"), "TLSv1.2 200");
        assert!(ask("/verified/").ends_with(" 502"));
    };
    let folder = tempfile::tempdir().unwrap();
    let old = serve(folder.path(), &site);
    agree("nginx answers");
    drop(old);

    let ran = import(folder.path(), &[("site.conf", &site)]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    let told = "these servers are not verified, as in nginx. To have them verified, write the \
                authority";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    let line = "tls = { verify = false }  # any certificate will do, as in nginx";
    assert_eq!(ran.stdout.matches(line).count(), 2, "{}", ran.stdout);
    let config = folder.path().join("staunch.toml");
    let text = format!("state_dir = \"state\"\n{}", ran.stdout);
    let text = text.replacen("[listen]\n", "[listen]\nadmin = \"\"\n", 1);
    std::fs::write(&config, text).unwrap();
    let mut command = builder.command();
    let new = command
        .args(["run", "--config", config.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .map(Nginx)
        .unwrap();
    agree("staunch answers");
    drop(new);
}

/// What is never there here is not asked of requests.
#[test]
fn a_map_of_what_is_always_the_same_is_settled() {
    let folder = tempfile::tempdir().unwrap();
    let conf = "map $ssl_early_data $early { \"~.\" $ssl_early_data; default \"\"; }\n\
                server { listen 443 ssl; server_name a.test; ssl_certificate /c;\n\
                ssl_certificate_key /k; add_header X-Early-Data $early;\n\
                location / { proxy_pass http://127.0.0.1:1; } }\n";
    let ran = import(folder.path(), &[("site.conf", conf)]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    assert!(!ran.stdout.contains("when"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("needs a hand"), "{}", ran.stderr);
}

/// Both addresses serve the same, and what is said of the scheme goes by each request.
#[test]
fn what_is_served_in_plain_text_too_is_served_so_here() {
    let folder = tempfile::tempdir().unwrap();
    let server = |lines: &str| {
        format!(
            "server {{ listen 80; listen 443 ssl; server_name a.test; ssl_certificate /c;\n\
             ssl_certificate_key /k;\n{lines}\nlocation / {{ proxy_pass http://127.0.0.1:1; }} }}\n"
        )
    };
    let written = |lines: &str| {
        let ran = import(folder.path(), &[("site.conf", &server(lines))]);
        assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
        ran.stdout
    };
    let both = written("location = /old { return 301 $scheme://$host/new; }");
    assert!(both.contains("\nplain_text = true\n"), "{both}");
    assert!(
        both.contains("redirect = \"{scheme}://{host}/new\""),
        "{both}"
    );
    // A site with settings of its own would not be answered.
    let usual = written("ssl_protocols TLSv1.2 TLSv1.3;");
    assert!(usual.contains("\nplain_text = true\n"), "{usual}");
    assert!(!usual.contains("versions"), "{usual}");
    let twice = server("").replace("listen 80; ", "")
        + "server { listen 80; server_name a.test; location / { proxy_pass http://127.0.0.1:1; } }";
    let ran = import(folder.path(), &[("site.conf", &twice)]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("\nplain_text = true\n"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("http = [\"0.0.0.0:80\"]"),
        "{}",
        ran.stdout
    );
    let leads = written("if ($scheme = http) { return 301 https://$host$request_uri; }");
    assert!(!leads.contains("plain_text"), "{leads}");
    assert!(leads.contains("http = [\"0.0.0.0:80\"]"), "{leads}");
}

/// What is done almost alike is told, each with its line.
#[test]
fn who_a_client_is_said_to_be_is_never_its_own_word() {
    let ran = in_server(
        "location /radicale/ { proxy_pass http://127.0.0.1:1; auth_basic Calendars; \
         auth_basic_user_file /etc/htpasswd; proxy_set_header X-Remote-User $remote_user; \
         proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Country $geo; }",
    );
    for written in [
        r#""X-Remote-User" = "{user}""#,
        r#""X-Forwarded-Port" = "{local_port}""#,
        r#"remove = ["X-Country"]"#,
    ] {
        assert!(ran.stdout.contains(written), "{written}\n{}", ran.stdout);
    }
    for told in ["$geo is not known here", "in this field is taken out"] {
        assert!(ran.stderr.contains(told), "{told}\n{}", ran.stderr);
    }
}

#[test]
fn what_is_done_a_little_otherwise_is_told() {
    let pass = "proxy_pass http://127.0.0.1:1;";
    for (lines, told) in [
        (
            "location / { expires 1h; proxy_pass http://127.0.0.1:1; }",
            "set Expires as well",
        ),
        (
            "location / { expires @15h30m; proxy_pass http://127.0.0.1:1; }",
            "not imported: expires @15h30m",
        ),
        (
            "add_header Strict-Transport-Security max-age=600;",
            "is said with errors too",
        ),
        (
            "listen 80; add_header Strict-Transport-Security \"max-age=63072000; preload\" always;",
            "`preload` is left out",
        ),
        (
            "location /a/ { proxy_pass http://127.0.0.1:1/b/; }",
            "decodes the path and encodes it again",
        ),
        (
            "location /a/ { proxy_pass http://127.0.0.1:1; proxy_next_upstream http_502; \
             proxy_next_upstream_tries 2; }",
            "differs: proxy_next_upstream http_502",
        ),
        (
            "location /a/ { proxy_pass http://127.0.0.1:1; \
             proxy_set_header X-Real-IP $http_x_forwarded_for; }",
            "is what staunch itself tells",
        ),
        (
            "} server { listen 80; server_name a.test www.a.test; return 301 https://a.test/; } \
             server { listen 443 ssl; server_name b.test; ssl_certificate /c; \
             ssl_certificate_key /k;",
            "differs: return 301 https://a.test/: plain-text addresses redirect",
        ),
        (
            "error_page 500 /500.html; location = /500.html { root /srv; }",
            "differs: location = /500.html: is sent with errors",
        ),
        (
            "location /a/ { proxy_pass http://127.0.0.1:1; \
             proxy_set_header X-Forwarded-Host $geo; }",
            "not imported: proxy_set_header X-Forwarded-Host $geo",
        ),
    ] {
        let lines = match lines.contains("proxy_pass") {
            true => lines.to_owned(),
            false => format!("{lines} location / {{ {pass} }}"),
        };
        let ran = in_server(&lines);
        assert!(ran.stderr.contains(told), "{lines}\n{}", ran.stderr);
        assert!(!ran.stderr.contains("needs a hand"), "{}", ran.stderr);
    }
}

#[test]
fn a_server_that_is_asked_may_be_told_elsewhere() {
    for (check, path) in [
        ("try_files /dev/null @api;", "/check"),
        ("proxy_pass $asked;", "/api/verify"),
        ("set $port 1; proxy_pass http://127.0.0.1:$port;", "/check"),
    ] {
        let ran = in_server(&format!(
            "set $asked http://127.0.0.1:1/api/verify;\n\
             location @api {{ proxy_set_header Host $host; proxy_pass http://127.0.0.1:1; }}\n\
             location /check {{ internal; proxy_pass_request_body off; {check} }}\n\
             location / {{ auth_request /check; try_files /dev/null @api; }}"
        ));
        let written = format!("forward_auth = {{ upstream = \"127-0-0-1-1\", path = \"{path}\" }}");
        assert!(ran.stdout.contains(&written), "{check}\n{}", ran.stdout);
    }
}

#[test]
fn what_is_rewritten_is_for_the_requests_that_its_fields_are_for() {
    let ran = in_server(
        "if ($args ~ ver=) { set $cache max-age=60; }\n\
         location ~ ^/(pad|code)$ { rewrite ^(.*)$ $1/ redirect; add_header Cache-Control $cache; }\n\
         location / { proxy_pass http://127.0.0.1:1; }",
    );
    let routes = ran.stdout.split("[[site.route]]");
    let cached: Vec<_> = routes.filter(|it| it.contains("max-age=60")).collect();
    let asks = |it: &&str| it.contains(r#""{query}" = "ver=""#);
    assert!(
        !cached.is_empty() && cached.iter().all(asks),
        "{}",
        ran.stdout
    );
    assert_eq!(
        ran.stdout.matches("redirect = ").count(),
        2,
        "{}",
        ran.stdout
    );
}

/// As thin and unicorn have it in their examples.
#[test]
fn what_is_no_file_goes_to_the_server_behind() {
    let ran = in_server(
        "root /srv; error_page 500 /500.html; location = /500.html { root /srv; }\n\
         location / { proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Host $host;\n\
         if (-f $request_filename.html) { rewrite (.*) $1.html break; }\n\
         if (!-f $request_filename) { proxy_pass http://127.0.0.1:1; break; } }",
    );
    for written in [
        "upstream = \"127-0-0-1-1\"",
        "\"X-Forwarded-Host\" = \"{host}\"",
        "500 = \"/srv/500.html\"",
        "exact = \"/500.html\"\nrespond = 404",
    ] {
        assert!(ran.stdout.contains(written), "{written}\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("respond = 503"), "{}", ran.stdout);
    let told = "now all goes to the server behind";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
}

#[test]
fn hsts_is_said_in_plain_text_where_nginx_says_it() {
    let folder = tempfile::tempdir().unwrap();
    let conf = "server { listen 8080; add_header Strict-Transport-Security \"max-age=86400\";\n\
                location / { proxy_pass http://127.0.0.1:1; } }\n";
    let ran = import(folder.path(), &[("site.conf", conf)]);
    let written = "add_if_ok = { \"Strict-Transport-Security\" = \"max-age=86400\" }";
    assert!(ran.stdout.contains(written), "{}", ran.stdout);
}

#[test]
fn an_id_that_a_client_sends_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let conf = "map $http_x_request_id $id { default $http_x_request_id; \"\" $request_id; }\n\
                server { listen 443 ssl; server_name a.test; ssl_certificate /c;\n\
                ssl_certificate_key /k; proxy_set_header X-Request-ID $id;\n\
                location / { proxy_pass http://127.0.0.1:1; } }\n";
    let ran = import(folder.path(), &[("site.conf", conf)]);
    let told = "site.conf:1: differs: map $http_x_request_id $id: kept an id that a client sent";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    assert!(
        ran.stdout.contains("\"X-Request-ID\" = \"{request_id}\""),
        "{}",
        ran.stdout
    );
}
