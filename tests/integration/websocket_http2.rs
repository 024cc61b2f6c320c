//! WebSockets over HTTP/2 (RFC 8441).

use std::fs;

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, StatusCode};

use crate::support::{
    Exchange, H2, HOST, Origin, Staunch, block_on, python, run, until, until_served,
};

/// The answer to a key (RFC 6455, section 4.2.2), by another program than the one that is tried.
fn accept(key: &str) -> String {
    let code = "import sys, base64, hashlib; print(base64.b64encode(hashlib.sha1((sys.argv[1] + \
                '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').encode()).digest()).decode())";
    run(python().args(["-c", code, key])).ok().trim().to_owned()
}

/// Accepts a WebSocket and sends back whatever comes, until the other side ends.
fn websocket(exchange: &mut Exchange<'_>) -> std::io::Result<()> {
    let accept = accept(exchange.request.field("sec-websocket-key"));
    exchange.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    ))?;
    exchange.send_back()
}

fn ask(path: &str) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{HOST}{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat")
        .header("origin", "https://example.test")
        .body(())
        .unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    request
}

/// Connects, and waits until the server has said that it takes an extended CONNECT.
async fn connect(proxy: &Staunch) -> H2 {
    let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
    while !client.send.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    client
}

async fn open(
    client: &H2,
    request: Request<()>,
) -> (http::Response<RecvStream>, SendStream<Bytes>) {
    let mut ready = client.send.clone().ready().await.unwrap();
    let (response, send) = ready.send_request(request, false).unwrap();
    (response.await.unwrap(), send)
}

async fn exactly(stream: &mut RecvStream, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < count {
        let data = stream.data().await.unwrap().unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        got.extend_from_slice(&data);
    }
    got
}

/// Waits for the end of a stream that is in order.
async fn ended(stream: &mut RecvStream) {
    while let Some(data) = stream.data().await {
        assert!(data.unwrap().is_empty());
    }
}

/// Waits for the end of a stream, be it in order or a reset.
async fn over(stream: &mut RecvStream) {
    while let Some(Ok(_)) = stream.data().await {}
}

#[test]
fn an_extended_connect_becomes_an_upgrade_and_a_tunnel() {
    let origin = Origin::plan("origin").route("/", websocket).start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = connect(&proxy).await;
        let (response, mut send) = open(&client, ask("/chat?room=1")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        for field in [
            "sec-websocket-accept",
            "upgrade",
            "connection",
            "transfer-encoding",
        ] {
            assert!(!response.headers().contains_key(field), "{field}");
        }
        let mut stream = response.into_body();
        for message in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0, 255, 13, 10],
            &[7; 100_000],
        ] {
            send.send_data(Bytes::copy_from_slice(message), false)
                .unwrap();
            assert_eq!(exactly(&mut stream, message.len()).await, message);
        }
        // Another stream of the same connection is not disturbed.
        let (other, _) = open(&client, ask("/other")).await;
        assert_eq!(other.status(), 200);
        // The end of one side is the end of the TCP connection's (RFC 8441, section 5).
        send.send_data(Bytes::new(), true).unwrap();
        ended(&mut stream).await;
    });
    let request = &origin.requests()[0];
    assert_eq!(request.method, "GET");
    assert_eq!(request.target, "/chat?room=1");
    assert_eq!(request.field("upgrade"), "websocket");
    assert_eq!(request.field("connection").to_lowercase(), "upgrade");
    assert_eq!(request.field("host"), HOST);
    assert_eq!(request.field("sec-websocket-version"), "13");
    assert_eq!(request.field("sec-websocket-protocol"), "chat");
    assert_eq!(request.field("sec-websocket-key").len(), 24);
    assert_ne!(
        request.field("sec-websocket-key"),
        origin.requests()[1].field("sec-websocket-key")
    );
    until("the origin's connections are closed", || origin.open() == 0);
}

#[test]
fn an_origin_can_decline() {
    let origin = Origin::plan("origin")
        .raw(
            "/forbidden",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n",
        )
        .raw("/ok", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n")
        .raw(
            "/wrong",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = connect(&proxy).await;
        // A 2xx would open it; what the server says besides is passed on.
        for (path, status) in [("/forbidden", 403), ("/ok", 502), ("/wrong", 502)] {
            let (response, _) = open(&client, ask(path)).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
        }
    });
}

#[test]
fn what_is_no_websocket_is_refused() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = connect(&proxy).await;
        let mut other = ask("/");
        other
            .extensions_mut()
            .insert(Protocol::from_static("connect-udp"));
        let (response, _) = open(&client, other).await;
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
        let mut long = ask("/");
        long.headers_mut().insert("content-length", 5.into());
        let (response, _) = open(&client, long).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let plain = Request::builder()
            .method(Method::CONNECT)
            .uri(HOST)
            .body(())
            .unwrap();
        let (response, _) = open(&client, plain).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    });
    assert!(origin.requests().is_empty());
}

#[test]
fn a_reset_on_one_side_is_one_on_the_other() {
    let origin = Origin::plan("origin").route("/", websocket).start();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let client = connect(&proxy).await;
        let (_response, mut send) = open(&client, ask("/")).await;
        send.send_reset(Reason::CANCEL);
        until_served("the origin's connection is closed", || origin.open() == 0).await;
        let (response, _send) = open(&client, ask("/")).await;
        origin.close_connections();
        over(&mut response.into_body()).await;
    });
}

#[test]
fn a_silent_tunnel_is_closed_at_its_timeout_and_only_that() {
    let origin = Origin::plan("origin").route("/", websocket).start();
    let proxy = Staunch::serving(&origin)
        .set("timeouts.tunnel", "\"500ms\"")
        .start();
    block_on(async {
        let client = connect(&proxy).await;
        let (response, mut send) = open(&client, ask("/")).await;
        let mut stream = response.into_body();
        send.send_data(Bytes::from_static(b"a"), false).unwrap();
        exactly(&mut stream, 1).await;
        over(&mut stream).await;
        let (response, _) = open(&client, ask("/")).await;
        assert_eq!(response.status(), 200);
    });
    until("it is counted", || {
        proxy.count("staunch_timeouts_total", &[("timeout", "tunnel")]) > 0.0
    });
}

#[test]
fn who_does_not_read_holds_up_the_sender() {
    // The origin sends without end; what is let in is bounded by the windows and the buffers.
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            let accept = accept(exchange.request.field("sec-websocket-key"));
            exchange.send(format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            ))?;
            loop {
                exchange.send([0; 64 << 10])?;
            }
        })
        .start();
    let proxy = Staunch::serving(&origin)
        .set("timeouts.tunnel", "\"1s\"")
        .start();
    let before = proxy.memory();
    block_on(async {
        let client = connect(&proxy).await;
        let (response, _send) = open(&client, ask("/")).await;
        let _stream = response.into_body();
        until_served("the tunnel is given up", || origin.open() == 0).await;
    });
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
}

/// A WebSocket client over HTTP/2, of wsproto's frames and h2's streams.
const CLIENT: &str = r#"
import socket, ssl, sys
import h2.config, h2.connection, h2.events, h2.settings
from wsproto.connection import Connection, ConnectionType
from wsproto.extensions import PerMessageDeflate
from wsproto.events import *

address, port = sys.argv[1].rsplit(":", 1)
trust_all = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
trust_all.check_hostname = False
trust_all.verify_mode = ssl.CERT_NONE
trust_all.set_alpn_protocols(["h2"])
stream = trust_all.wrap_socket(
    socket.create_connection((address, int(port)), timeout=30), server_hostname="example.test"
)
h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
h2c.initiate_connection()
stream.sendall(h2c.data_to_send())
incoming = []

def pump():
    data = stream.recv(65536)
    assert data, "closed"
    for event in h2c.receive_data(data):
        if isinstance(event, h2.events.DataReceived):
            h2c.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        incoming.append(event)
    stream.sendall(h2c.data_to_send())

def wait(kind):
    while True:
        for event in incoming:
            if isinstance(event, kind):
                incoming.remove(event)
                return event
        pump()

wait(h2.events.RemoteSettingsChanged)
assert h2c.remote_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
h2c.send_headers(1, [
    (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
    (":path", "/"), (":authority", "example.test"), ("sec-websocket-version", "13"),
    ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
])
stream.sendall(h2c.data_to_send())
headers = dict(wait(h2.events.ResponseReceived).headers)
headers = {bytes(k) if isinstance(k, bytes) else k.encode(): bytes(v) if isinstance(v, bytes) else v.encode() for k, v in headers.items()}
assert headers[b":status"] == b"200", headers
extensions = []
if b"sec-websocket-extensions" in headers:
    deflate = PerMessageDeflate()
    deflate.finalize(headers[b"sec-websocket-extensions"].decode())
    extensions = [deflate]
ws = Connection(ConnectionType.CLIENT, extensions)

def send(event):
    data = ws.send(event)
    while data:
        size = min(len(data), h2c.local_flow_control_window(1), h2c.max_outbound_frame_size)
        if size == 0:
            pump()
            continue
        h2c.send_data(1, data[:size])
        data = data[size:]
        stream.sendall(h2c.data_to_send())

def messages():
    while True:
        event = wait(h2.events.DataReceived)
        ws.receive_data(event.data)
        yield from ws.events()

events = messages()

def receive():
    whole = None
    for event in events:
        if isinstance(event, (TextMessage, BytesMessage)):
            whole = event.data if whole is None else whole + event.data
            if event.message_finished:
                return whole
        else:
            return event

for size in [0, 1, 125, 126, 127, 65535, 65536, 1_000_000]:
    text = ("\u00e9\u4e16" * size)[:size]
    send(TextMessage(data=text))
    assert receive() == text, size
    data = bytes(n * 31 % 256 for n in range(size))
    send(BytesMessage(data=data))
    assert receive() == data, size
for piece in range(10):
    send(TextMessage(data=str(piece), message_finished=piece == 9))
assert receive() == "0123456789"
send(Ping(payload=b"x" * 125))
assert receive().payload == b"x" * 125
for number in range(5000):
    send(TextMessage(data=str(number)))
for number in range(5000):
    assert receive() == str(number)
send(CloseConnection(code=1000, reason="done"))
close = receive()
assert close.code == 1000, close
h2c.end_stream(1)
stream.sendall(h2c.data_to_send())
wait(h2.events.StreamEnded)
print("done", bool(extensions))
"#;

#[test]
fn a_real_client_and_a_real_server_talk() {
    let folder = tempfile::tempdir().unwrap();
    let client = folder.path().join("client.py");
    fs::write(&client, CLIENT).unwrap();
    let server = super::websocket::EchoServer::start();
    let proxy = Staunch::build()
        .leaf(&crate::support::TestCa::new().issue(HOST))
        .sites(crate::support::Site::new(&[HOST], &server.url()))
        .start();
    let ran = run(python().arg(&client).arg(proxy.https().to_string()));
    assert_eq!(ran.ok(), "done True\n");
}
