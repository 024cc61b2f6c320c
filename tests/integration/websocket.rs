//! WebSocket and other upgrades: a tunnel of bytes (RFC 9110, section 7.8; RFC 6455).

use std::fs;
use std::io;

use crate::support::{Exchange, HOST, Origin, Staunch, python, run, until};

/// Switches protocols, then sends back whatever comes, until the other side ends.
fn switch(exchange: &mut Exchange<'_>) -> io::Result<()> {
    exchange.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\
         X-Own: 1\r\n\r\n",
    )?;
    exchange.send_back()
}

const ASK: &str = "Connection: Upgrade\r\nUpgrade: echo\r\n";

#[test]
fn an_upgrade_becomes_a_tunnel() {
    let origin = Origin::plan("origin").route("/", switch).start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", ASK).unwrap();
    let response = client.read("GET").expect(101);
    assert_eq!(response.field("upgrade"), Some("echo"));
    assert_eq!(response.field("x-own"), Some("1"));
    let connection = response.field("connection").unwrap();
    assert!(connection.eq_ignore_ascii_case("upgrade"), "{connection}");
    for message in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 255, 13, 10]] {
        client.send(message).unwrap();
        let back = client.incoming().exactly(message.len()).unwrap();
        assert_eq!(back, message);
    }
    assert_eq!(origin.last().field("upgrade"), "echo");
}

#[test]
fn a_tunnel_ends_when_the_client_ends_it() {
    let origin = Origin::plan("origin").route("/", switch).start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", ASK).unwrap();
    client.read("GET").expect(101);
    client.send("last words").unwrap();
    client.finish_sending();
    assert_eq!(client.incoming().rest().unwrap(), b"last words");
    until("the origin's connection is closed", || origin.open() == 0);
}

#[test]
fn a_tunnel_ends_when_the_origin_ends_it() {
    let origin = Origin::plan("origin").route("/", switch).start();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", ASK).unwrap();
    client.read("GET").expect(101);
    origin.close_connections();
    assert!(client.gone());
}

#[test]
fn an_origin_can_decline_an_upgrade() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", ASK).unwrap();
    client.read("GET").expect(200);
    client.get(HOST, "/").expect(200);
}

#[test]
fn a_switch_that_nobody_asked_for_is_a_bad_gateway() {
    let origin = Origin::plan("origin").route("/", switch).start();
    let proxy = Staunch::serving(&origin).start();
    proxy.get("/").expect(502);
}

#[test]
fn a_silent_tunnel_is_closed_at_its_timeout() {
    let origin = Origin::plan("origin").route("/", switch).start();
    let proxy = Staunch::serving(&origin)
        .set("timeouts.tunnel", "\"500ms\"")
        .start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", ASK).unwrap();
    client.read("GET").expect(101);
    client.send("a").unwrap();
    client.incoming().exactly(1).unwrap();
    assert!(client.gone());
    until("the origin's connection is closed", || origin.open() == 0);
}

#[test]
fn a_tunnel_outlives_a_reload_and_is_ended_by_a_drain() {
    let origin = Origin::plan("origin").route("/", switch).start();
    let proxy = Staunch::serving(&origin)
        .set("drain.deadline", "\"1s\"")
        .start();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/", ASK).unwrap();
    client.read("GET").expect(101);
    proxy.reload().expect(200);
    client.send("after the reload").unwrap();
    let back = client.incoming().exactly(16).unwrap();
    assert_eq!(back, b"after the reload");
    proxy.term();
    assert!(client.gone());
    proxy.wait_exit();
}

const SERVER: &str = r#"
import asyncio, sys, websockets

async def echo(socket):
    async for message in socket:
        await socket.send(message)

async def main():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        with open(sys.argv[1] + ".new", "w") as file:
            file.write(str(port))
        import os
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        await asyncio.Future()

asyncio.run(main())
"#;

const CLIENT: &str = r#"
import asyncio, ssl, sys, websockets

async def main():
    address, port = sys.argv[1].rsplit(":", 1)
    trust_all = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust_all.check_hostname = False
    trust_all.verify_mode = ssl.CERT_NONE
    async with websockets.connect(
        "wss://example.test/", host=address, port=int(port), ssl=trust_all, max_size=None
    ) as socket:
        for message in ["hello", "x" * 1_000_000, bytes(range(256)) * 100]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    print("done")

asyncio.run(main())
"#;

#[test]
fn real_websockets_work() {
    let folder = tempfile::tempdir().unwrap();
    let client = folder.path().join("client.py");
    fs::write(&client, CLIENT).unwrap();
    let server = EchoServer::start();
    let proxy = Staunch::build()
        .leaf(&crate::support::TestCa::new().issue(HOST))
        .sites(crate::support::Site::new(&[HOST], &server.url()))
        .start();
    let ran = run(python().arg(&client).arg(proxy.https().to_string()));
    assert_eq!(ran.ok(), "done\n");
}

/// A server of Python's `websockets` that sends every message back.
pub struct EchoServer {
    process: std::process::Child,
    port: String,
    _folder: tempfile::TempDir,
}

impl EchoServer {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, port_file) = (folder.path().join("server.py"), folder.path().join("port"));
        fs::write(&server, SERVER).unwrap();
        let installed = run(python().args(["-c", "import websockets, wsproto, h2"]));
        assert!(
            installed.status.success(),
            "a Python package is not installed: run scripts/install-test-tools"
        );
        let process = python().arg(&server).arg(&port_file).spawn().unwrap();
        until("the WebSocket server listens", || port_file.exists());
        Self {
            process,
            port: fs::read_to_string(&port_file).unwrap(),
            _folder: folder,
        }
    }

    /// As a server is written in the configuration.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
