//! The same as in `stream`, with the real programs that stand before and behind: Redis, nginx,
//! HAProxy, OpenSSL.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{HOST, Origin, Port, Ran, Site, Staunch, TestCa, require, run, until};

/// A program that listens; killed when dropped.
struct Server {
    child: Child,
    port: Port,
    folder: TempDir,
}

impl Server {
    /// `begin` is told the port and a folder.
    fn start(begin: impl FnOnce(&Port, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = Port::free();
        let child = begin(&port, folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("it listens", || TcpStream::connect(port.address()).is_ok());
        Self {
            child,
            port,
            folder,
        }
    }

    fn redis() -> Self {
        Self::start(|port, folder| {
            let mut redis = Command::new(require("redis-server"));
            redis
                .args(["--port", &port.number().to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no", "--dir"])
                .arg(folder);
            redis
        })
    }

    /// `http` is what stands in its section of that name.
    fn nginx(http: impl FnOnce(&Port, &Path) -> String) -> Self {
        Self::start(|port, folder| {
            let config = folder.join("nginx.conf");
            let at = folder.display();
            let text = format!(
                "daemon off;\nmaster_process off;\npid {at}/pid;\nevents {{ }}\nhttp {{\n\
                 access_log off;\nclient_body_temp_path {at}/body;\nproxy_temp_path {at}/proxy;\n\
                 fastcgi_temp_path {at}/fastcgi;\nuwsgi_temp_path {at}/uwsgi;\n\
                 scgi_temp_path {at}/scgi;\n{}\n}}\n",
                http(port, folder)
            );
            fs::write(&config, text).unwrap();
            let mut nginx = Command::new(require("nginx"));
            nginx.arg("-p").arg(folder).arg("-c").arg(&config);
            nginx.args(["-e", "stderr"]);
            nginx
        })
    }

    fn haproxy(lines: impl FnOnce(&Port) -> String) -> Self {
        Self::start(|port, folder| {
            let config = folder.join("haproxy.cfg");
            let text = format!(
                "defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect \
                 1s\nfrontend f\n {}\n",
                lines(port)
            );
            fs::write(&config, text).unwrap();
            let mut haproxy = Command::new(require("haproxy"));
            haproxy.arg("-f").arg(&config);
            haproxy
        })
    }

    fn tcp(&self) -> String {
        format!("tcp://{}", self.port.address())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `redis-cli`, over TLS.
fn redis(port: &Port, ca: &Path, arguments: &[&str]) -> Ran {
    run(Command::new(require("redis-cli"))
        .args(["-h", "127.0.0.1", "-p", &port.number().to_string()])
        .args(["--tls", "--sni", HOST, "--cacert"])
        .arg(ca)
        .args(arguments))
}

#[test]
fn redis_is_spoken_to_through_terminated_tls() {
    let redis_server = Server::redis();
    let ca = TestCa::new();
    let port = Port::free();
    let lines = format!("tls = true\nupstream = {:?}\n", redis_server.tcp());
    let leaf = ca.leaf(&[HOST, "127.0.0.1"]).issue();
    let proxy = Staunch::build()
        .leaf(&leaf)
        .site(HOST, &Origin::echo())
        .stream(&port, &lines)
        .start();
    let file = redis_server.folder.path().join("ca.pem");
    fs::write(&file, &ca.root().pem).unwrap();
    assert_eq!(redis(&port, &file, &["PING"]).ok().trim(), "PONG");
    let large = "x".repeat(100_000);
    assert_eq!(redis(&port, &file, &["SET", "a", &large]).ok().trim(), "OK");
    assert_eq!(redis(&port, &file, &["GET", "a"]).ok().trim(), large);
    // Many commands at once, and their answers in order.
    let many = redis(&port, &file, &["-r", "500", "INCR", "n"]).ok();
    assert_eq!(many.lines().last(), Some("500"));
    until("all are counted", || {
        proxy.count("staunch_stream_connections_total", &[("outcome", "closed")]) == 4.0
    });
}

#[test]
fn a_real_server_terminates_what_is_passed_through() {
    let ca = TestCa::new();
    let leaf = ca.issue("passed.test");
    let nginx = Server::nginx(|port, folder| {
        fs::write(folder.join("chain"), &leaf.chain).unwrap();
        fs::write(folder.join("key"), &leaf.key).unwrap();
        format!(
            "server {{ listen {} ssl http2; ssl_certificate {at}/chain; ssl_certificate_key \
             {at}/key; ssl_protocols TLSv1.2 TLSv1.3; return 200 \"$ssl_server_name $ssl_protocol $server_protocol\"; }}",
            port.address(),
            at = folder.display()
        )
    });
    let proxy = Staunch::build()
        .leaf(&ca.issue(HOST))
        .site(HOST, &Origin::echo())
        .sites(Site::passed(&["passed.test"], &nginx.tcp()))
        .start();
    for (flag, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
        let ran = proxy.curl("passed.test", "/", &[flag]).ok();
        assert_eq!(ran, format!("passed.test TLSv1.3 {version}"));
    }
    let old = ["--tls-max", "1.2"];
    let ran = proxy.curl("passed.test", "/", &old).ok();
    assert_eq!(ran, "passed.test TLSv1.2 HTTP/2.0");
    proxy.curl(HOST, "/", &[]).ok();
}

/// Asks over two connections that a load balancer passed on, and compares what the server was told.
fn each_client_is_told_of(server: &Server, version: &str, said: impl Fn(u16) -> String) {
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .set("listen.proxy_protocol_from", "[\"127.0.0.1\"]")
        .upstream("told", &[&format!("http://{}", server.port.address())])
        .set("upstream.told.proxy_protocol", format!("{version:?}"))
        .set("upstream.told.health.interval", "\"50ms\"")
        .set("upstream.told.health.path", "\"/\"")
        .sites(Site::new(&[HOST], "told"))
        .start();
    let connect = |port: u16| {
        let header = format!("PROXY TCP4 192.0.2.7 198.51.100.1 {port} 443\r\n");
        proxy.tls(HOST).preamble(header.as_bytes()).connect()
    };
    let (mut one, mut other) = (connect(1001), connect(1002));
    for _ in 0..3 {
        assert_eq!(
            one.get(HOST, "/").expect(200).text(),
            said(1001),
            "{version}"
        );
        assert_eq!(
            other.get(HOST, "/").expect(200).text(),
            said(1002),
            "{version}"
        );
    }
    // Kept for the client whose they are, and no other's.
    let connects = proxy.count("staunch_upstream_connects_total", &[]);
    assert!(connects <= 2.0, "{connects}");
    until("the checks are understood", || {
        let standing = proxy.admin_get("/api/upstreams").text();
        standing.contains("\"standing\":\"up\"") || standing.contains("\"standing\": \"up\"")
    });
    drop((one, other));
    until("what was a client's own goes with it", || {
        proxy.count("staunch_upstream_connections_open", &[]) == 0.0
    });
}

#[test]
fn haproxy_is_told_of_each_client() {
    let haproxy = Server::haproxy(|port| {
        format!(
            "bind {} accept-proxy\n http-request return status 200 content-type text/plain lf-string \
             \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_authority]\"",
            port.address()
        )
    });
    for (version, authority) in [("v1", ""), ("v2", ""), ("v2-tls", HOST)] {
        each_client_is_told_of(&haproxy, version, |port| {
            format!("192.0.2.7:{port} 198.51.100.1:443 {authority}")
        });
    }
}

#[test]
fn nginx_is_told_of_each_client() {
    let nginx = Server::nginx(|port, _| {
        format!(
            "server {{ listen {} proxy_protocol; return 200 \"$proxy_protocol_addr:\
             $proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port\"; }}",
            port.address()
        )
    });
    for version in ["v1", "v2"] {
        each_client_is_told_of(&nginx, version, |port| {
            format!("192.0.2.7:{port} 198.51.100.1:443")
        });
    }
}
