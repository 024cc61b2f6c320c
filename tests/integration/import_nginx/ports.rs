//! Servers that their ports tell apart, and what nginx would send twice.

use super::import;

/// A registry at a port for those who write, and at another for those who read.
#[test]
fn servers_that_their_ports_tell_apart_are_one_site() {
    let folder = tempfile::tempdir().unwrap();
    let server = |port: u16, name: &str, to: u16| {
        format!(
            "server {{ listen {port} ssl; server_name {name}; ssl_certificate /c;\n\
             ssl_certificate_key /k; location / {{ proxy_pass http://127.0.0.1:{to}; }} }}\n"
        )
    };
    let redirect =
        "server { listen 8080; server_name a.test; return 301 https://a.test$request_uri; }";
    let conf = server(8443, "a.test", 1) + &server(8444, "a.test", 2) + redirect;
    let conf = conf + "\n" + &server(8445, "b.test", 3);
    let ran = import(folder.path(), &[("site.conf", &conf)]);
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
    for port in [8443, 8444] {
        let when = format!("path = \"/\"\nwhen = {{ \"{{local_port}}\" = \"^{port}$\" }}\n");
        assert!(ran.stdout.contains(&when), "{when}\n{}", ran.stdout);
    }
    for told in [
        "listens at another port",
        "site.conf:5: differs: return 301 https://a.test$request_uri: plain-text addresses redirect \
         to the port",
    ] {
        assert!(ran.stderr.contains(told), "{told}\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("needs a hand"), "{}", ran.stderr);
    assert!(ran.stdout.contains(":8445"), "{}", ran.stdout);
    // Who has to show a certificate at one port is not let in by the other.
    let asks = "ssl_verify_client on; ssl_client_certificate /ca; location";
    let conf = server(8443, "a.test", 1) + &server(8444, "a.test", 2).replace("location", asks);
    let ran = import(folder.path(), &[("site.conf", &conf)]);
    let told = "another server has this name already, at the same port or on other terms";
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    assert!(!ran.stdout.contains("127.0.0.1:2"), "{}", ran.stdout);
}

/// The port that a scheme has anyway is not said.
#[test]
fn a_server_behind_is_asked_by_its_name_as_nginx_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let conf = "server { listen 80; location / { proxy_pass http://one.test:80; }
        location /s/ { proxy_pass https://two.test:443; proxy_ssl_verify on; }
        location /o/ { proxy_pass http://three.test:443; } }\n";
    let ran = import(folder.path(), &[("site.conf", conf)]);
    for host in ["one.test", "two.test", "three.test:443"] {
        let written = format!("\"Host\" = \"{host}\"");
        assert!(ran.stdout.contains(&written), "{written}\n{}", ran.stdout);
    }
}

/// What is sent twice there, or has no slash at its begin, is told.
#[test]
fn what_nginx_sends_otherwise_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let conf =
        "server { listen 443 ssl; server_name a.test; ssl_certificate /c; ssl_certificate_key /k;
        add_header Strict-Transport-Security max-age=86400 always;
        location / { proxy_pass http://127.0.0.1:1; proxy_set_header Host a;
            proxy_set_header Host b; }
        location /x { proxy_pass http://127.0.0.1:1; rewrite ^/x(.*)$ $1 break; }
        location /y/ { proxy_pass http://127.0.0.1:1; rewrite ^/y(.*)$ $1 break; }
        location /z/ { proxy_pass http://127.0.0.1:1; rewrite ^/z(/.*)$ $1 break; }
        location /a/ { proxy_pass http://127.0.0.1:1; rewrite ^/a/(b.*)$ $1 break; } }\n";
    let ran = import(folder.path(), &[("site.conf", conf)]);
    let told = |line: u32, text: &str| {
        let begin = format!("site.conf:{line}: differs: ");
        let mut lines = ran.stderr.lines();
        let beside = format!("({line})");
        lines.any(|said| (said.contains(&begin) || said.contains(&beside)) && said.contains(text))
    };
    assert!(told(2, "takes the place of one"), "{}", ran.stderr);
    assert!(told(4, "is there twice"), "{}", ran.stderr);
    let slash = "puts a slash before what a group is";
    for (line, expected) in [(5, true), (6, false), (7, false), (8, true)] {
        assert_eq!(told(line, slash), expected, "{line}\n{}", ran.stderr);
    }
    assert_eq!(ran.status.code(), Some(0), "{}", ran.stderr);
}
