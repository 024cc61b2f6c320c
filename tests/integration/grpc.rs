//! gRPC from end to end, with gRPC's own client and server.

use std::fs;
use std::path::Path;
use std::process::Child;

use crate::support::{HOST, Leaf, Site, Staunch, TestCa, python, run, until};

const SERVER: &str = r#"
import os, sys, threading
from concurrent import futures
import grpc

folder = sys.argv[1]
def note(name):
    open(os.path.join(folder, name), "w").close()

def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("x-why", "because"), ("x-raw-bin", b"\x00\xff")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nicht möglich: 100%")
    if request == b"slow":
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(30)
        note("over")
    context.send_initial_metadata((("x-initial", "1"),))
    context.set_trailing_metadata((("x-trailing", "2"),))
    return request

def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number

def endless(request, context):
    context.add_callback(lambda: note("cancelled"))
    while context.is_active():
        yield b"x" * 1000

def dies(request, context):
    yield b"one"
    # Blocks until somebody writes to it.
    open(os.path.join(folder, "die")).read()
    os._exit(0)

def up(requests, context):
    return b"%d" % sum(len(request) for request in requests)

def both(requests, context):
    for request in requests:
        yield request[::-1]

handlers = grpc.method_handlers_generic_handler("test.Echo", {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Dies": grpc.unary_stream_rpc_method_handler(dies),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
})
server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers((handlers,))
if len(sys.argv) > 2:
    pair = [(open(sys.argv[3], "rb").read(), open(sys.argv[2], "rb").read())]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
else:
    port = server.add_insecure_port("127.0.0.1:0")
os.mkfifo(os.path.join(folder, "die"))
server.start()
with open(os.path.join(folder, "port.new"), "w") as file:
    file.write(str(port))
os.rename(os.path.join(folder, "port.new"), os.path.join(folder, "port"))
server.wait_for_termination()
"#;

const CLIENT: &str = r#"
import os, queue, sys, threading, time
import grpc

address, root, folder = sys.argv[1:4]
channel = grpc.secure_channel(
    address,
    grpc.ssl_channel_credentials(open(root, "rb").read()),
    options=[
        ("grpc.ssl_target_name_override", "example.test"),
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),
    ],
)
path = lambda name: "/test.Echo/" + name
unary = channel.unary_unary(path("Unary"))

def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it went well")

def seen(name):
    end = time.monotonic() + 30
    while not os.path.exists(os.path.join(folder, name)):
        assert time.monotonic() < end, name
        threading.Event().wait(0.01)

# unary, with metadata at both ends, empty and large messages
for message in [b"", b"hello", b"x" * 5_000_000]:
    answer, call = unary.with_call(message, timeout=60)
    assert answer == message
    assert dict(call.initial_metadata())["x-initial"] == "1"
    assert dict(call.trailing_metadata())["x-trailing"] == "2"
# streams
assert list(channel.unary_stream(path("Down"))(b"1000")) == [b"%d" % n for n in range(1000)]
assert list(channel.unary_stream(path("Down"))(b"0")) == []
assert channel.stream_unary(path("Up"))(iter([b"x" * 10_000] * 300)) == b"3000000"
assert channel.stream_unary(path("Up"))(iter([])) == b"0"
# both ways, each message in answer to the one before
asked = queue.Queue()
answers = channel.stream_stream(path("Both"))(iter(asked.get, None))
for number in range(200):
    asked.put(b"message %d" % number)
    assert next(answers) == (b"message %d" % number)[::-1]
asked.put(None)
assert list(answers) == []
# an error, in trailers alone
error = code_of(lambda: unary(b"fail"))
assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
assert error.details() == "nicht möglich: 100%", error
trailing = dict(error.trailing_metadata())
assert trailing["x-why"] == "because" and trailing["x-raw-bin"] == b"\x00\xff", trailing
assert code_of(lambda: channel.unary_unary("/test.Echo/Nothing")(b"")).code() == grpc.StatusCode.UNIMPLEMENTED
# a deadline, of which the server hears
error = code_of(lambda: unary(b"slow", timeout=0.5))
assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
seen("over")
# a call that is cancelled
call = channel.unary_stream(path("Endless"))(b"")
for _ in range(100):
    next(call)
call.cancel()
seen("cancelled")
# and the connection is as good as before
assert unary(b"again") == b"again"
print("done")
"#;

const FAILING: &str = r#"
import sys
import grpc

address, root = sys.argv[1:3]
channel = grpc.secure_channel(
    address,
    grpc.ssl_channel_credentials(open(root, "rb").read()),
    options=[("grpc.ssl_target_name_override", "example.test"), ("grpc.enable_http_proxy", 0)],
)
try:
    channel.unary_unary(sys.argv[3])(b"x" * 100, timeout=30)
except grpc.RpcError as error:
    print(error.code().name, error.details())
"#;

const BROKEN: &str = r#"
import os, sys
import grpc

address, root, folder = sys.argv[1:4]
channel = grpc.secure_channel(
    address,
    grpc.ssl_channel_credentials(open(root, "rb").read()),
    options=[("grpc.ssl_target_name_override", "example.test"), ("grpc.enable_http_proxy", 0)],
)
try:
    for message in channel.unary_stream("/test.Echo/Dies")(b"", timeout=30):
        print(message.decode())
        open(os.path.join(folder, "die"), "w").close()
except grpc.RpcError as error:
    print(error.code().name, error.details())
"#;

/// gRPC's server, of Python.
struct Server {
    process: Child,
    folder: tempfile::TempDir,
    tls: bool,
}

impl Server {
    fn start(tls: Option<&Leaf>) -> Self {
        let installed = run(python().args(["-c", "import grpc"]));
        assert!(
            installed.status.success(),
            "python3-grpcio is not installed: run scripts/install-test-tools"
        );
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let mut command = python();
        command.arg(place("server.py", SERVER)).arg(folder.path());
        if let Some(leaf) = tls {
            command.arg(place("chain.pem", &leaf.chain));
            command.arg(place("key.pem", &leaf.key));
        }
        let process = command.spawn().unwrap();
        let port = folder.path().join("port");
        until("the gRPC server listens", || port.exists());
        Self {
            process,
            folder,
            tls: tls.is_some(),
        }
    }

    fn url(&self) -> String {
        let port = fs::read_to_string(self.folder.path().join("port")).unwrap();
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{port}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a client; what it printed.
fn client(script: &str, proxy: &Staunch, ca: &TestCa, folder: &Path, more: &str) -> String {
    let (program, root) = (folder.join("client.py"), folder.join("root.pem"));
    fs::write(&program, script).unwrap();
    fs::write(&root, &ca.root().pem).unwrap();
    let mut command = python();
    command.arg(program).arg(proxy.https().to_string());
    run(command.arg(root).arg(more)).ok()
}

/// How the server is spoken to.
#[derive(PartialEq)]
enum Manner {
    ClearText,
    Verified,
    Unverified,
}

fn interop(manner: Manner) {
    let ca = TestCa::new();
    let leaf = match manner {
        // Expired, of an unknown authority, and for another name.
        Manner::Unverified => TestCa::new().leaf(&["strange.test"]).days(-89, -1).issue(),
        _ => ca.issue("api.internal"),
    };
    let server = Server::start((manner != Manner::ClearText).then_some(&leaf));
    let folder = server.folder.path();
    let mut builder = Staunch::build()
        .leaf(&ca.issue(HOST))
        .upstream("grpc", &[&server.url()])
        .set("upstream.grpc.protocol", "\"http2\"")
        .sites(Site::new(&[HOST], "grpc").also("compression = [\"gzip\"]\n"));
    match manner {
        Manner::ClearText => {}
        Manner::Verified => {
            let authority = builder.path("upstream-ca.pem");
            fs::write(&authority, &ca.root().pem).unwrap();
            builder.change("upstream.grpc.protocol", "\"auto\"");
            builder.change("upstream.grpc.tls.ca", format!("{authority:?}"));
            builder.change("upstream.grpc.tls.name", "\"api.internal\"");
        }
        Manner::Unverified => builder.change("upstream.grpc.tls.verify", false),
    }
    let proxy = builder.start();
    let printed = client(CLIENT, &proxy, &ca, folder, folder.to_str().unwrap());
    assert_eq!(printed, "done\n");
}

#[test]
fn all_kinds_of_calls_pass_in_clear_text() {
    interop(Manner::ClearText);
}

#[test]
fn all_kinds_of_calls_pass_over_tls() {
    interop(Manner::Verified);
}

#[test]
fn all_kinds_of_calls_pass_over_tls_that_nobody_verifies() {
    interop(Manner::Unverified);
}

#[test]
fn a_server_that_dies_in_the_middle_is_unavailable() {
    let ca = TestCa::new();
    let server = Server::start(None);
    let folder = server.folder.path();
    let proxy = Staunch::build()
        .leaf(&ca.issue(HOST))
        .upstream("grpc", &[&server.url()])
        .set("upstream.grpc.protocol", "\"http2\"")
        .sites(Site::new(&[HOST], "grpc"))
        .start();
    let printed = client(BROKEN, &proxy, &ca, folder, folder.to_str().unwrap());
    assert_eq!(printed, "one\nUNAVAILABLE Bad Gateway\n");
}

#[test]
fn what_staunch_has_to_say_itself_is_said_in_grpc() {
    let ca = TestCa::new();
    let nobody = crate::support::Port::free();
    let proxy = Staunch::build()
        .leaf(&ca.issue(HOST))
        .upstream("grpc", &[&format!("http://{}", nobody.address())])
        .set("upstream.grpc.protocol", "\"http2\"")
        .sites(Site::without_upstream(&[HOST]).route("/test.Echo/", "grpc"))
        .start();
    let folder = tempfile::tempdir().unwrap();
    let ask = |path: &str| client(FAILING, &proxy, &ca, folder.path(), path);
    assert_eq!(ask("/other.Service/Call"), "UNIMPLEMENTED Not Found\n");
    assert_eq!(ask("/test.Echo/Unary"), "UNAVAILABLE Bad Gateway\n");
    until("they are counted as what they are", || {
        proxy.count("staunch_requests_total", &[("code", "404")]) == 1.0
            && proxy.count("staunch_requests_total", &[("code", "502")]) == 1.0
    });
}
