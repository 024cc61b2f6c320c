//! Compression of responses (RFC 9110, sections 8.4 and 12.5.3).

use std::fs;

use bytes::Bytes;
use http::Method;

use crate::support::h2::{read, request};
use crate::support::{
    Builder, Exchange, Gate, H2, HOST, Origin, Staunch, TestCa, block_on, python, run, until,
};

/// A page that gets much smaller.
fn page() -> String {
    (0..4000)
        .map(|line| format!("<p>line {line} of the page</p>\n"))
        .collect()
}

fn proxy(origin: &Origin) -> Builder {
    compressing(origin, r#"["zstd", "br", "gzip"]"#)
}

fn compressing(origin: &Origin, codings: &str) -> Builder {
    let site = crate::support::Site::new(&[HOST], &origin.url());
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site.also(&format!("compression = {codings}\n")))
}

fn pages() -> Origin {
    Origin::plan("origin")
        .route("/", |exchange| {
            let fields = "Content-Type: text/html\r\nETag: \"one\"\r\nAccept-Ranges: bytes\r\n";
            exchange.respond(200, fields, page().as_bytes())
        })
        .start()
}

#[test]
fn curl_reads_every_coding_over_both_versions() {
    let origin = pages();
    let proxy = proxy(&origin).start();
    for accept in ["zstd", "br", "gzip"] {
        for version in ["--http1.1", "--http2"] {
            let accept_field = format!("Accept-Encoding: {accept}");
            let arguments = ["--compressed", version, "-H", &accept_field];
            let body = proxy.curl(HOST, "/", &arguments).ok();
            assert!(body == page(), "{accept} {version}: {} bytes", body.len());
            let head = proxy.curl(
                HOST,
                "/",
                &["-D", "-", "-o", "/dev/null", version, "-H", &accept_field],
            );
            let head = head.ok().to_lowercase();
            assert!(
                head.contains(&format!("content-encoding: {accept}\r\n")),
                "{head}"
            );
            assert!(head.contains("vary: accept-encoding\r\n"), "{head}");
            assert!(head.contains("etag: w/\"one\"\r\n"), "{head}");
            assert!(
                !head.contains("content-length") && !head.contains("accept-ranges"),
                "{head}"
            );
        }
        let labels = [("coding", accept)];
        until("the responses are counted", || {
            proxy.count("staunch_compressed_responses_total", &labels) == 4.0
        });
        let input = proxy.count("staunch_compression_input_bytes_total", &labels);
        let output = proxy.count("staunch_compression_output_bytes_total", &labels);
        assert!(input == 4.0 * page().len() as f64, "{input}");
        assert!(output > 0.0 && output < input / 5.0, "{output} of {input}");
    }
    let sent = proxy.count("staunch_sent_bytes_total", &[]);
    let output = proxy.count("staunch_compression_output_bytes_total", &[]);
    assert!((sent - output).abs() < 1.0, "{sent} {output}");
}

#[test]
fn head_and_get_have_the_same_fields() {
    let origin = pages();
    let proxy = proxy(&origin).start();
    let mut client = proxy.connect();
    let mut ask = |method: &str| {
        client
            .ask(method, HOST, "/", "Accept-Encoding: gzip\r\n")
            .unwrap();
        let response = client.read(method).expect(200);
        let mut fields = response.fields;
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
        // Only a body has a framing (RFC 9112, section 6.1).
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
        fields
    };
    assert_eq!(ask("HEAD"), ask("GET"));
}

#[test]
fn nothing_is_compressed_unless_it_is_asked_for() {
    let origin = pages();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client
        .ask("GET", HOST, "/", "Accept-Encoding: gzip, br, zstd\r\n")
        .unwrap();
    let response = client.read("GET").expect(200);
    assert_eq!(response.field("content-encoding"), None);
    assert_eq!(response.field("vary"), None);
    assert_eq!(response.body, page().as_bytes());
}

#[test]
fn a_client_of_http_1_0_gets_the_response_as_it_is() {
    let origin = pages();
    let proxy = proxy(&origin).start();
    let mut client = proxy.connect();
    client
        .send(format!(
            "GET / HTTP/1.0\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n\r\n"
        ))
        .unwrap();
    let response = client.read("GET").expect(200);
    assert_eq!(response.field("content-encoding"), None);
    assert_eq!(response.field("vary"), Some("Accept-Encoding"));
    assert_eq!(response.body, page().as_bytes());
}

/// Sends a line, and the next one only when the test has seen the first.
fn slow(exchange: &mut Exchange<'_>, gate: &Gate, content_type: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    exchange.send(head)?;
    exchange.send("d\r\ndata: first\n\n\r\n")?;
    gate.pass();
    exchange.send("e\r\ndata: second\n\n\r\n0\r\nDigest: sha-256=AA==\r\nX-Kept: 1\r\n\r\n")
}

const READER: &str = r#"
import socket, ssl, sys, zlib
address, port = sys.argv[1].rsplit(":", 1)
trust_all = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
trust_all.check_hostname = False
trust_all.verify_mode = ssl.CERT_NONE
stream = trust_all.wrap_socket(socket.create_connection((address, int(port))), server_hostname="example.test")
stream.sendall(b"GET " + sys.argv[2].encode() + b" HTTP/1.1\r\nHost: example.test\r\nAccept-Encoding: gzip\r\n\r\n")
file = stream.makefile("rb")
head = b""
while not head.endswith(b"\r\n\r\n"):
    head += file.readline()
decoder = zlib.decompressobj(31) if b"content-encoding: gzip" in head.lower() else None
text = b""
while True:
    size = int(file.readline(), 16)
    if size == 0:
        break
    data = file.read(size)
    file.readline()
    text += decoder.decompress(data) if decoder else data
    if text == b"data: first\n\n" and sys.argv[3]:
        open(sys.argv[3], "w").close()
        sys.argv[3] = ""
trailers = file.readline()
print(decoder is not None, text, trailers)
"#;

#[test]
fn what_a_server_sends_slowly_is_not_held_back() {
    for (content_type, extra, coded) in [
        ("text/html", "", true),
        ("text/event-stream", "", false),
        (
            "text/event-stream",
            "compression_types = [\"text/event-stream\"]\n",
            true,
        ),
    ] {
        let gate = Gate::new();
        let origin = Origin::plan("origin")
            .route("/", {
                let gate = gate.clone();
                move |exchange| slow(exchange, &gate, content_type)
            })
            .start();
        let site = crate::support::Site::new(&[HOST], &origin.url());
        let proxy = Staunch::build()
            .leaf(&TestCa::new().issue(HOST))
            .sites(site.also(&format!("compression = [\"gzip\"]\n{extra}")))
            .start();
        let folder = tempfile::tempdir().unwrap();
        let (script, seen) = (folder.path().join("reader.py"), folder.path().join("seen"));
        fs::write(&script, READER).unwrap();
        let address = proxy.https().to_string();
        let reader = std::thread::spawn({
            let seen = seen.clone();
            move || run(python().arg(&script).args([&address, "/"]).arg(&seen))
        });
        until("the first event came before there was a second", || {
            seen.exists()
        });
        gate.open();
        let printed = reader.join().unwrap().ok();
        let expected = if coded { "True" } else { "False" };
        let text = r"b'data: first\n\ndata: second\n\n'";
        assert!(
            printed.starts_with(&format!("{expected} {text}")),
            "{printed}"
        );
        // A digest of what the server sent would be of something else (RFC 9530).
        assert_eq!(printed.contains("Digest"), !coded, "{printed}");
        assert!(printed.contains("X-Kept") || !coded, "{printed}");
    }
}

#[test]
fn a_large_response_comes_whole_and_keeps_its_trailers() {
    const PIECES: usize = 200;
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            let mut seed = 1_u32;
            for _ in 0..PIECES {
                // Half noise, so that much is sent.
                let piece: Vec<u8> = (0..16 << 10)
                    .map(|n| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        if n % 2 == 0 {
                            b'a'
                        } else {
                            seed.to_le_bytes()[3]
                        }
                    })
                    .collect();
                exchange.send("4000\r\n")?;
                exchange.send(piece)?;
                exchange.send("\r\n")?;
            }
            exchange.send("0\r\nX-End: 1\r\n\r\n")
        })
        .start();
    for coding in ["gzip", "br", "zstd"] {
        let proxy = compressing(
            &origin,
            &format!("[\"{}\"]", coding.replace("identity", "gzip")),
        )
        .start();
        block_on(async {
            let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
            let mut ask = request(Method::GET, HOST, "/");
            ask.headers_mut()
                .insert("accept-encoding", coding.parse().unwrap());
            let mut ready = client.send.clone().ready().await.unwrap();
            let (response, _) = ready.send_request(ask, true).unwrap();
            let response = read(response.await.unwrap()).await.unwrap();

            assert_eq!(response.headers["content-encoding"], coding);
            assert_eq!(response.trailers.unwrap()["x-end"], "1");
            let length = response.body.len();
            assert!(length > PIECES << 12 && length < PIECES << 14, "{length}");
        });
    }
}

#[test]
fn a_response_that_breaks_off_is_not_taken_for_whole() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n",
            )?;
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = proxy(&origin).start();
    for version in ["--http1.1", "--http2"] {
        let ran = proxy.curl(HOST, "/", &["--compressed", version]);
        assert!(!ran.status.success(), "{ran:?}");
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let origin = Origin::plan("origin")
        .route("/big", |exchange| {
            exchange.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            let mut seed = 1_u32;
            loop {
                let piece: Vec<u8> = (0..16 << 10)
                    .map(|_| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        seed.to_le_bytes()[3]
                    })
                    .collect();
                exchange.send("4000\r\n")?;
                exchange.send(piece)?;
                exchange.send("\r\n")?;
            }
        })
        .start();
    let proxy = proxy(&origin)
        .set("workers.threads", 1)
        .set("timeouts.send", "\"1s\"")
        .start();
    let mut stuck = proxy.connect();
    stuck
        .ask("GET", HOST, "/big", "Accept-Encoding: br\r\n")
        .unwrap();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        for _ in 0..20 {
            let ask = request(Method::GET, HOST, "/small");
            let response = client.request(ask, Bytes::new(), None).await.unwrap();
            assert_eq!(response.status, 200);
        }
    });
    until("the one that does not read is let go", || {
        proxy.count("staunch_timeouts_total", &[("timeout", "send")]) > 0.0
    });
    until("the origin is let go", || origin.open() <= 1);
}

#[test]
fn a_fixed_response_is_compressed_as_any_other() {
    let origin = pages();
    let text = "a line of the text\\n".repeat(200);
    let site = crate::support::Site::new(&[HOST], &origin.url()).also(&format!(
        "compression = [\"gzip\"]\n\
         [[site.route]]\nexact = \"/long\"\nrespond = 200\nbody = \"{text}\"\n\
         [[site.route]]\nexact = \"/short\"\nrespond = 200\nbody = \"ok\"\n"
    ));
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .start();
    let expected = text.replace("\\n", "\n");
    for version in ["--http1.1", "--http2"] {
        let body = proxy.curl(HOST, "/long", &["--compressed", version]).ok();
        assert!(body == expected, "{version}: {body}");
        let head = |path: &str, more: &[&str]| {
            let all = [&["-D", "-", "-o", "/dev/null", version][..], more].concat();
            proxy.curl(HOST, path, &all).ok().to_lowercase()
        };
        let gzip = ["-H", "Accept-Encoding: gzip"];
        let coded = head("/long", &gzip);
        assert!(coded.contains("content-encoding: gzip\r\n"), "{coded}");
        assert!(coded.contains("vary: accept-encoding\r\n"), "{coded}");
        assert!(!coded.contains("content-length"), "{coded}");
        let asked = head("/long", &["-I", "-H", "Accept-Encoding: gzip"]);
        assert!(asked.contains("content-encoding: gzip\r\n"), "{asked}");
        let plain = head("/long", &[]);
        assert!(plain.contains("content-length: 3800\r\n"), "{plain}");
        assert!(plain.contains("vary: accept-encoding\r\n"), "{plain}");
        let short = head("/short", &gzip);
        assert!(short.contains("content-length: 2\r\n"), "{short}");
    }
}
