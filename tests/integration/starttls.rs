//! Streams whose clients begin in plain text and ask for TLS.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Builder, HOST, Leaf, Origin, Port, Ran, Server, Staunch, TestCa};
use crate::support::{require, run, until};

struct Set {
    proxy: Staunch,
    port: Port,
    roots: PathBuf,
}

/// A stream of this protocol to that server.
fn set(
    protocol: &str,
    upstream: &str,
    more: impl FnOnce(Builder, &TestCa) -> (Builder, String),
) -> Set {
    let ca = TestCa::new();
    let port = Port::free();
    let leaf: Leaf = ca.leaf(&[HOST, "127.0.0.1"]).issue();
    let (builder, lines) = more(Staunch::build().leaf(&leaf), &ca);
    let roots = builder.path("roots.pem");
    let lines = format!("tls = true\nstarttls = {protocol:?}\nupstream = {upstream:?}\n{lines}");
    let builder = builder.site(HOST, &Origin::echo()).stream(&port, &lines);
    fs::write(&roots, &ca.root().pem).unwrap();
    Set {
        proxy: builder.start(),
        port,
        roots,
    }
}

fn plain(protocol: &str, upstream: &str) -> Set {
    set(protocol, upstream, |builder, _| (builder, String::new()))
}

impl Set {
    fn psql(&self, mode: &str) -> Command {
        let mut psql = Command::new(require("psql"));
        let (port, roots) = (self.port.number(), self.roots.display());
        psql.env("PGCONNECT_TIMEOUT", "10")
            .args(["--no-psqlrc", "--tuples-only", "--no-align", "--dbname"])
            .arg(format!(
                "host={HOST} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres \
                 sslmode={mode} sslrootcert={roots}"
            ));
        psql
    }

    /// `openssl s_client`, which says this once TLS has begun.
    fn openssl(&self, protocol: &str, says: &str) -> Ran {
        let connect = format!("127.0.0.1:{}", self.port.number());
        let mut child: Child = Command::new(require("openssl"))
            .args([
                "s_client",
                "-quiet",
                "-starttls",
                protocol,
                "-connect",
                &connect,
            ])
            .args([
                "-servername",
                HOST,
                "-verify_return_error",
                "-verify_hostname",
                HOST,
            ])
            .arg("-CAfile")
            .arg(&self.roots)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(says.as_bytes()).unwrap();
        // It ends when the server has closed.
        let output = child.wait_with_output().unwrap();
        Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What a client gets that says this in plain text and never speaks TLS.
    fn plain_text(&self, says: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(self.port.address()).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket.write_all(says).unwrap();
        let _ = socket.shutdown(Shutdown::Write);
        let mut heard = Vec::new();
        let _ = socket.read_to_end(&mut heard);
        heard
    }
}

/// A server that greets, says `heard LINE` to the first line, and closes; what it was told.
fn greeter(greeting: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(greeting.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(&socket).read_line(&mut line).unwrap();
        let _ = write!(socket, "heard {line}");
        line
    });
    (url, server)
}

#[test]
fn postgresql_is_spoken_to_through_terminated_tls() {
    let server = Server::postgresql();
    let set = plain("postgresql", &server.tcp());
    for mode in ["prefer", "require", "verify-full"] {
        let ran = run(set.psql(mode).args(["-c", "select 6 * 7"]));
        assert_eq!(ran.ok().trim(), "42", "{mode}");
    }
    // Much of it, both ways.
    let text = "select sum(length(repeat('x', 1000))) from generate_series(1, 20000)";
    assert_eq!(
        run(set.psql("require").args(["-c", text])).ok().trim(),
        "20000000"
    );
    let text = "select repeat('x', 1000000)";
    assert_eq!(
        run(set.psql("require").args(["-c", text]))
            .ok()
            .trim()
            .len(),
        1_000_000
    );
    let refused = run(set.psql("disable").args(["-c", "select 1"]));
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("sslmode"), "{refused:?}");
}

#[test]
fn a_query_of_postgresql_can_be_cancelled() {
    let server = Server::postgresql();
    let set = plain("postgresql", &server.tcp());
    let psql = set
        .psql("require")
        .args(["-c", "select pg_sleep (300)"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let running = || {
        let query = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
        run(set.psql("require").args(["-c", query])).stdout.trim() == "1"
    };
    until("it sleeps", running);
    let pid = Pid::from_raw(i32::try_from(psql.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = psql.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("canceling statement"), "{said}");
}

#[test]
fn nobody_cancels_without_the_certificate_that_is_required() {
    let (upstream, told) = greeter("");
    let set = set("postgresql", &upstream, |builder, ca| {
        let file = builder.path("clients.pem");
        fs::write(&file, &ca.root().pem).unwrap();
        let lines = format!("client_certificates = {{ mode = 'required', ca = {file:?} }}\n");
        (builder, lines)
    });
    let cancel = [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2];
    assert!(set.plain_text(&cancel).is_empty());
    until("it is counted", || {
        let labels = [("outcome", "not_tls")];
        set.proxy.count("staunch_tls_handshakes_total", &labels) >= 1.0
    });
    assert!(!told.is_finished(), "the server was asked");
}

#[test]
fn what_is_not_postgresql_is_refused() {
    let set = plain("postgresql", "tcp://127.0.0.1:1");
    for says in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        &[0, 0, 0, 8],
        &[0, 0, 0, 9, 4, 210, 22, 47],
        &[255, 255, 255, 255, 4, 210, 22, 46],
        &[0, 0, 0, 17, 4, 210, 22, 46, 0],
    ] {
        assert!(set.plain_text(says).is_empty(), "{says:?}");
    }
    // Encryption by GSSAPI is declined, however often it is asked for.
    let gss = [0, 0, 0, 8, 4, 210, 22, 48];
    assert_eq!(set.plain_text(&gss.repeat(50)), b"NN");
}

#[test]
fn mail_begins_with_starttls() {
    for (protocol, greeting, says, heard) in [
        (
            "smtp",
            "220-one\r\n220 two\r\n",
            "EHLO me\r\n",
            "heard EHLO me",
        ),
        (
            "imap",
            "* OK hello\r\n",
            "a1 LOGIN x y\r\n",
            "heard a1 LOGIN x y",
        ),
        ("pop3", "+OK <1@a>\r\n", "USER me\r\n", "heard USER me"),
    ] {
        let (upstream, told) = greeter(greeting);
        let set = plain(protocol, &upstream);
        let ran = set.openssl(protocol, says);
        assert!(ran.stdout.contains(heard), "{protocol}: {ran:?}");
        // Only what came through TLS has reached it.
        assert_eq!(told.join().unwrap(), says);
        // The client has heard the greeting of one, not of both.
        assert!(
            !ran.stdout.contains("hello") && !ran.stdout.contains("two"),
            "{ran:?}"
        );
    }
}

#[test]
fn what_comes_in_plain_text_behind_starttls_ends_the_connection() {
    let set = plain("smtp", "tcp://127.0.0.1:1");
    let heard = set.plain_text(b"EHLO a\r\nSTARTTLS\r\nMAIL FROM:<evil@a>\r\n");
    let heard = String::from_utf8(heard).unwrap();
    assert!(
        heard.starts_with("220 ") && heard.contains("250 STARTTLS"),
        "{heard}"
    );
    assert!(!heard.contains("220 2.0.0"), "{heard}");
    let heard = set.plain_text(b"MAIL FROM:<a@b>\r\nQUIT\r\n");
    let heard = String::from_utf8(heard).unwrap();
    assert!(heard.contains("530 ") && heard.contains("221 "), "{heard}");
    // Neither a long line nor many of them hold anything up.
    assert!(set.plain_text(&vec![b'x'; 100_000]).len() < 200);
    assert!(set.plain_text(&b"NOOP\r\n".repeat(1000)).len() < 1000);
}

#[test]
fn what_does_not_go_together_is_said() {
    for (lines, says) in [
        (
            "starttls = 'smtp'\nupstream = 'tcp://127.0.0.1:1'\n",
            "without `tls = true`",
        ),
        (
            "tls = true\nstarttls = 'mysql'\nupstream = 'tcp://127.0.0.1:1'\n",
            "postgresql",
        ),
        (
            "tls = true\nstarttls = 'smtp'\nupstream = 'tcp://127.0.0.1:1'\n\
             [[stream.route]]\nnames = ['a.test']\nupstream = 'tcp://127.0.0.1:2'\n",
            "beside routes",
        ),
    ] {
        let builder = Staunch::build().leaf(&TestCa::new().issue(HOST));
        let builder = builder
            .site(HOST, &Origin::echo())
            .stream(&Port::free(), lines);
        let ran = builder.run("check", &[]);
        assert_eq!(ran.status.code(), Some(1), "{}", ran.output());
        assert!(ran.output().contains(says), "{}", ran.output());
    }
}
